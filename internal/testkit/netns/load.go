//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Load is traffic over IPv4 from one party to another that costs its sender as little as may
// be, for benchmarks: what is measured is then mostly what the node does.
type Load struct {
	t        testing.TB
	fd       int // of packets, which go out as they are
	frames   [batch][udpAt + 8 + 16]byte
	messages [batch]message
	vectors  [batch]unix.Iovec
	sent     int

	listener, sink int
	to             unix.SockaddrInet4
	from           *Party
}

// udpAt is where the header of UDP begins in a frame.
const udpAt = 14 + 20

// batch is how many datagrams one call sends.
const batch = 32

// message is the struct mmsghdr of Linux.
type message struct {
	unix.Msghdr
	length uint32
	_      uint32
}

// Load prepares traffic to a port, where it listens over TCP and UDP.
func (l *Lab) Load(from, to *Party, port uint16) *Load {
	l.t.Helper()
	x := &Load{t: l.t, from: from, to: unix.SockaddrInet4{Port: int(port), Addr: to.Addresses[0].As4()}}
	to.Inside(func() {
		var err error
		x.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		l.must(err)
		l.must(errors.Join(unix.Bind(x.listener, &x.to), unix.Listen(x.listener, 4096)))
		// What comes finds little room, and is dropped without an answer.
		x.sink, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		l.must(err)
		l.must(errors.Join(unix.SetsockoptInt(x.sink, unix.SOL_SOCKET, unix.SO_RCVBUF, 1), unix.Bind(x.sink, &x.to)))
	})
	from.Inside(func() {
		var err error
		x.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		l.must(err)
		link, err := net.InterfaceByName("eth0")
		l.must(err)
		l.must(errors.Join(unix.SetsockoptInt(x.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1),
			unix.Bind(x.fd, &unix.SockaddrLinklayer{Ifindex: link.Index})))
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		x.accept()
	}()
	l.t.Cleanup(func() {
		l.must(errors.Join(unix.Shutdown(x.listener, unix.SHUT_RDWR)))
		<-done
		l.must(errors.Join(unix.Close(x.listener), unix.Close(x.sink), unix.Close(x.fd)))
	})
	x.prepare(from.Addresses[0], to.Addresses[0])
	return x
}

// prepare writes all that datagrams have in common.
func (x *Load) prepare(from, to netip.Addr) {
	for i := range x.frames {
		f := x.frames[i][:]
		copy(f, nodeMAC)
		copy(f[6:], partyMAC)
		f[12] = 0x08
		ip := f[14:]
		ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
		binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
		copy(ip[12:], from.AsSlice())
		copy(ip[16:], to.AsSlice())
		binary.BigEndian.PutUint16(ip[10:], sum(ip[:20]))
		binary.BigEndian.PutUint16(ip[24:], uint16(len(ip)-20))
		x.vectors[i] = unix.Iovec{Base: &f[0], Len: uint64(len(f))}
		x.messages[i].Iov, x.messages[i].Iovlen = &x.vectors[i], 1
	}
}

func (x *Load) accept() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for {
		fd, _, err := unix.Accept4(x.listener, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			unix.Close(fd) //nolint:errcheck // it is a socket
		case !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ECONNABORTED):
			return
		}
	}
}

// firstPort is where datagrams come from, those of one connection and the first of others.
const firstPort = 1024

// Establish makes datagrams of one connection belong to one that was answered.
func (x *Load) Establish() {
	x.t.Helper()
	x.Datagrams(1, 0, false)
	back := unix.SockaddrInet4{Port: firstPort, Addr: x.from.Addresses[0].As4()}
	if err := unix.Sendto(x.sink, []byte{0}, 0, &back); err != nil {
		x.t.Fatal(err)
	}
}

// Datagrams sends datagrams, at most so many a second unless that is 0: fresh ones each from
// another port, so that 60,000 and, to 9 more ports, nine times as many are connections of
// their own, others all from the same.
func (x *Load) Datagrams(many, rate int, fresh bool) {
	x.t.Helper()
	pace(many, rate, batch, func(n int) {
		for i := range n {
			source, target := firstPort, x.to.Port
			if fresh {
				const ports, targets = 60_000, 10
				source, target = source+x.sent%ports, target+x.sent/ports%targets
				x.sent++
			}
			binary.BigEndian.PutUint16(x.frames[i][udpAt:], uint16(source))
			binary.BigEndian.PutUint16(x.frames[i][udpAt+2:], uint16(target))
		}
		for sent := 0; sent < n; {
			count, _, failed := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(x.fd), uintptr(unsafe.Pointer(&x.messages[sent])), uintptr(n-sent), 0, 0, 0)
			switch failed {
			case 0:
				sent += int(count)
			case unix.EINTR, unix.ENOBUFS:
			default:
				x.t.Fatal(failed)
			}
		}
	})
}

// Connections opens and closes connections over TCP, one after the other, at most so many a
// second unless that is 0.
func (x *Load) Connections(many, rate int) {
	x.t.Helper()
	x.from.Inside(func() {
		pace(many, rate, 8, func(n int) {
			for range n {
				fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
				if err != nil {
					x.t.Fatal(err)
				}
				err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
				if err := errors.Join(err, unix.Connect(fd, &x.to), unix.Close(fd)); err != nil {
					x.t.Fatal(err)
				}
			}
		})
	})
}

// pace calls do for so many, a few at a time, at a rate.
func pace(many, rate, few int, do func(n int)) {
	begin := time.Now()
	for done := 0; done < many; done += few {
		if rate > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(done) * time.Second / time.Duration(rate))))
		}
		do(min(few, many-done))
	}
}
