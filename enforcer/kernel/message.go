//go:build linux

package kernel

import (
	"encoding/binary"
	"errors"
	"syscall"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// reader reads from a netlink socket, far more at a time than the library does.
type reader struct {
	*netlink.Conn
	raw    syscall.RawConn
	buffer []byte
}

func newReader(netns int, groups uint32) (*reader, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns, Groups: groups})
	if err != nil {
		return nil, err
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return &reader{conn, raw, make([]byte, 1<<16)}, nil
}

// headerSize is that of the header which messages about nftables have of their own.
const headerSize = 4

// message is one of netlink about nftables.
type message struct {
	kind   uint16 // unix.NFT_MSG_…, or one of the general kinds
	flags  uint16
	sender uint32 // the socket that asked, or that caused the event
	// sequence is the number of the request that is answered.
	sequence uint32
	family   byte
	body     []byte // attributes
}

// read waits for messages and passes them on.
func (r *reader) read(each func(message) error) error {
	var size int
	var failed error
	err := r.raw.Read(func(fd uintptr) bool {
		size, _, failed = unix.Recvfrom(int(fd), r.buffer, 0)
		return !errors.Is(failed, unix.EAGAIN)
	})
	if err := errors.Join(err, failed); err != nil {
		return err
	}
	for rest := r.buffer[:size]; len(rest) >= unix.SizeofNlMsghdr; {
		length := int(binary.NativeEndian.Uint32(rest))
		if length < unix.SizeofNlMsghdr || length > len(rest) {
			return errors.New("a message of the kernel is cut off")
		}
		m := message{
			kind: binary.NativeEndian.Uint16(rest[4:]), flags: binary.NativeEndian.Uint16(rest[6:]),
			sequence: binary.NativeEndian.Uint32(rest[8:]), sender: binary.NativeEndian.Uint32(rest[12:]),
		}
		m.body = rest[unix.SizeofNlMsghdr:length]
		if m.kind>>8 == unix.NFNL_SUBSYS_NFTABLES && len(m.body) >= headerSize {
			m.family, m.body = m.body[0], m.body[headerSize:]
		}
		if err := each(m); err != nil {
			return err
		}
		rest = rest[min(len(rest), (length+3)&^3):]
	}
	return nil
}

// about is the kind of a message about nftables.
func about(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }

func eachAttribute(all []byte, do func(kind uint16, value []byte) error) error {
	for len(all) >= unix.SizeofNlAttr {
		length := int(binary.NativeEndian.Uint16(all))
		if length < unix.SizeofNlAttr || length > len(all) {
			return errors.New("an attribute in a message of the kernel is cut off")
		}
		kind := binary.NativeEndian.Uint16(all[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		if err := do(kind, all[unix.SizeofNlAttr:length]); err != nil {
			return err
		}
		all = all[min(len(all), (length+3)&^3):]
	}
	return nil
}
