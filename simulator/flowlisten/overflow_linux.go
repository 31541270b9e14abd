package flowlisten

import (
	"encoding/binary"
	"net"

	"golang.org/x/sys/unix"
)

// overflow counts what the kernel had no room for. Linux says it with every
// datagram: how many were dropped since the socket was opened.
type overflow struct {
	dropped uint64
	last    uint32
}

var controlSize = unix.CmsgSpace(4)

// watch asks the kernel for the number.
func (o *overflow) watch(conn *net.UDPConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	err = raw.Control(func(fd uintptr) {
		refused = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
	})
	if err != nil {
		return err
	}
	return refused
}

// note reads the number from what came with a datagram.
func (o *overflow) note(control []byte) {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return
	}
	for _, m := range messages {
		if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SO_RXQ_OVFL && len(m.Data) >= 4 {
			now := binary.NativeEndian.Uint32(m.Data)
			o.dropped += uint64(now - o.last) // it goes round
			o.last = now
		}
	}
}
