//go:build linux

package netns

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is datagrams that one party sends another all the time, and that nobody
// answers: each of them is a new connection to the node.
type Stream struct {
	lab              *Lab
	arrives          bool
	client, server   *net.UDPConn
	sent, received   atomic.Int64
	stop, sender, at chan struct{}
}

// Stream begins to send some two thousand datagrams a second to a port. Where they
// should arrive, it waits for a first one before it counts: links lose what comes too
// early.
func (l *Lab) Stream(from, to *Party, port uint16, arrives bool) *Stream {
	l.t.Helper()
	s := &Stream{lab: l, arrives: arrives, stop: make(chan struct{}), sender: make(chan struct{}), at: make(chan struct{})}
	target := net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addresses[0], port))
	var err error
	inside(to.handle, func() { s.server, err = net.ListenUDP("udp", target) })
	l.must(err)
	raw, err := s.server.SyscallConn()
	l.must(err)
	l.must(errors.Join(raw.Control(func(fd uintptr) {
		const size = 32 << 20
		if err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size); errors.Is(err, unix.EPERM) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size) // as much as anybody may
		}
	}), err))
	inside(from.handle, func() {
		s.client, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from.Addresses[0], 0)), target)
	})
	l.must(err)
	if arrives {
		s.warmUp()
	}
	go s.send()
	go s.receive()
	return s
}

// What datagrams of a stream hold: those that count, and those before.
const (
	early = 1
	late  = 2
)

func (s *Stream) warmUp() {
	for end := time.Now().Add(patience); ; {
		_, err := s.client.Write([]byte{early})
		s.lab.must(errors.Join(err, s.server.SetReadDeadline(time.Now().Add(10*time.Millisecond))))
		if _, err := s.server.Read(make([]byte, 1)); err == nil {
			break
		} else if time.Now().After(end) {
			s.lab.t.Fatalf("nothing arrives: %v", err)
		}
	}
	s.lab.must(s.server.SetReadDeadline(time.Time{}))
}

func (s *Stream) send() {
	defer close(s.sender)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		for range 2 {
			if _, err := s.client.Write([]byte{late}); err == nil {
				s.sent.Add(1)
			}
		}
	}
}

func (s *Stream) receive() {
	defer close(s.at)
	var data [8]byte
	for {
		if _, err := s.server.Read(data[:]); err != nil {
			return
		}
		if data[0] == late {
			s.received.Add(1)
		}
	}
}

// Stop ends the stream, and returns how many datagrams were sent and how many came.
// It waits for the last of those that should.
func (s *Stream) Stop() (sent, received int64) {
	s.lab.t.Helper()
	close(s.stop)
	<-s.sender
	sent = s.sent.Load()
	for end := time.Now().Add(patience); s.arrives && s.received.Load() < sent && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	s.lab.must(errors.Join(s.client.Close(), s.server.Close()))
	<-s.at
	return sent, s.received.Load()
}
