//go:build linux

package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/conntrack"
)

// inside calls do in a network namespace, by its file descriptor.
func inside(netns int, do func() error) error {
	if netns == 0 {
		return do()
	}
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		runtime.UnlockOSThread()
		return err
	}
	defer home.Close()
	if err := unix.Setns(netns, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	err = do()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		return errors.Join(err, back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return err
}

// switches are what makes the kernel count what connections carry, note when they begin
// and end, and tell of their end even where nobody listened when they began.
var switches = []string{"nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events"}

// turnOn turns the switches of a network namespace on.
func turnOn(netns int) error {
	return inside(netns, func() error {
		var errs []error
		for _, name := range switches {
			if err := os.WriteFile("/proc/sys/net/netfilter/"+name, []byte("1"), 0); err != nil {
				errs = append(errs, fmt.Errorf("turn on net.netfilter.%s: %w; records lack what it counts", name, err))
			}
		}
		return errors.Join(errs...)
	})
}

// socket is one of netlink to netfilter, which never blocks.
type socket struct {
	fd     int
	buffer []byte
}

const biggestMessage = 1 << 16

// open opens a socket in a network namespace that joins some groups, as bits, and keeps
// so many bytes of events.
func open(netns int, groups uint32, keep int) (*socket, error) {
	s := &socket{fd: -1, buffer: make([]byte, biggestMessage)}
	err := inside(netns, func() (err error) {
		s.fd, err = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, keep); errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, keep) // as much as anybody may
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
	} else if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if groups != 0 {
		// Ends of connections that find no room are told again.
		if err := unix.SetsockoptInt(s.fd, unix.SOL_NETLINK, unix.NETLINK_BROADCAST_ERROR, 1); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	if err := unix.Bind(s.fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

func (s *socket) Close() error { return unix.Close(s.fd) }

// message is one of netfilter.
type message struct {
	kind  uint16
	flags uint16
	body  []byte
}

var errCutOff = errors.New("a message of the kernel is cut off")

// read passes on what is there now, at most so many packets of messages, and reports
// whether there may be more. ENOBUFS says that there was no room for some.
func (s *socket) read(most int, each func(message) error) (more bool, err error) {
	return s.readAhead(most, nil, each)
}

// readAhead is read that calls ahead, unless nil, before it passes on what it has read.
func (s *socket) readAhead(most int, ahead func() error, each func(message) error) (more bool, err error) {
	for range most {
		n, err := unix.Read(s.fd, s.buffer)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return false, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err == nil && ahead != nil:
			err = ahead()
		}
		if err != nil {
			return true, err
		}
		for rest := s.buffer[:n]; len(rest) >= unix.SizeofNlMsghdr; {
			length := int(binary.NativeEndian.Uint32(rest))
			if length < unix.SizeofNlMsghdr || length > len(rest) {
				return true, errCutOff
			}
			m := message{binary.NativeEndian.Uint16(rest[4:]), binary.NativeEndian.Uint16(rest[6:]), rest[unix.SizeofNlMsghdr:length]}
			if err := each(m); err != nil {
				return true, err
			}
			rest = rest[min(len(rest), (length+3)&^3):]
		}
	}
	return true, nil
}

// send sends a request.
func (s *socket) send(kind, flags uint16, body []byte) error {
	text := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	text = binary.NativeEndian.AppendUint16(text, kind)
	text = binary.NativeEndian.AppendUint16(text, flags|unix.NLM_F_REQUEST)
	text = append(text, make([]byte, 8)...)
	return unix.Sendto(s.fd, append(text, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
}

// wait waits until one of some sockets has something, or so many milliseconds.
func wait(milliseconds int, sockets ...*socket) error {
	var files [4]unix.PollFd
	n := 0
	for _, s := range sockets {
		if s != nil {
			files[n] = unix.PollFd{Fd: int32(s.fd), Events: unix.POLLIN}
			n++
		}
	}
	if _, err := unix.Poll(files[:n], milliseconds); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// failureOf returns the error that a message of the kernel is; nil where it is that all
// went well.
func failureOf(m message) error {
	if len(m.body) < 4 {
		return errCutOff
	}
	if code := int32(binary.NativeEndian.Uint32(m.body)); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// ask sends a request that is answered with whether it went well.
func (s *socket) ask(kind uint16, body []byte) error {
	if err := s.send(kind, unix.NLM_F_ACK, body); err != nil {
		return err
	}
	for answered := false; !answered; {
		if err := wait(1000, s); err != nil {
			return err
		}
		_, err := s.read(1, func(m message) error {
			if m.kind != unix.NLMSG_ERROR {
				return nil
			}
			answered = true
			return failureOf(m)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// openEvents opens a socket that gets the beginning and the end of all connections.
func openEvents(netns, keep int) (*socket, error) {
	const bits = 1<<(conntrack.GroupNew-1) | 1<<(conntrack.GroupEnded-1)
	s, err := open(netns, bits, keep)
	if err != nil {
		return nil, fmt.Errorf("listen to connections: %w", err)
	}
	return s, nil
}

// What is said to the kernel's log of packets, linux/netfilter/nfnetlink_log.h.
const (
	logPacket = unix.NFNL_SUBSYS_ULOG << 8
	logConfig = unix.NFNL_SUBSYS_ULOG<<8 | 1

	configCommand   = 1
	configMode      = 2
	configTimeout   = 4
	configThreshold = 5
	configFlags     = 6

	commandBind    = 1
	modePacket     = 2
	flagSequence   = 1
	logHead        = 128 // bytes of each packet
	logThreshold   = 64  // entries that wait for each other
	logTimeout     = 5   // hundredths of a second that they do at most
	attrLogTime    = 3
	attrLogPayload = 9
	attrLogPrefix  = 10
	attrLogNumber  = 12
)

// openLog opens a socket that gets what a group of NFLOG logs.
func openLog(netns int, group uint16, keep int) (*socket, error) {
	s, err := open(netns, 0, keep)
	if err != nil {
		return nil, fmt.Errorf("listen to denials: %w", err)
	}
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for _, a := range []struct {
		kind  uint16
		value []byte
	}{
		{configCommand, []byte{commandBind}},
		{configMode, append(number(logHead), modePacket, 0)},
		{configTimeout, number(logTimeout)},
		{configThreshold, number(logThreshold)},
		{configFlags, binary.BigEndian.AppendUint16(nil, flagSequence)},
	} {
		body := binary.BigEndian.AppendUint16([]byte{unix.AF_UNSPEC, 0}, group)
		body = binary.NativeEndian.AppendUint16(body, uint16(4+len(a.value)))
		body = binary.NativeEndian.AppendUint16(body, a.kind)
		body = append(append(body, a.value...), make([]byte, -len(a.value)&3)...)
		if err := s.ask(logConfig, body); err != nil {
			if errors.Is(err, unix.EBUSY) {
				err = fmt.Errorf("%w; another program listens to group %d", err, group)
			}
			return nil, errors.Join(fmt.Errorf("listen to denials: %w", err), s.Close())
		}
	}
	return s, nil
}

// entryOf reads a log entry. The number counts all entries of the group.
func entryOf(body []byte) (prefix string, payload []byte, number uint32, at int64, err error) {
	if len(body) < 4 {
		return "", nil, 0, 0, errCutOff
	}
	for rest := body[4:]; len(rest) >= 4; {
		length := int(binary.NativeEndian.Uint16(rest))
		if length < 4 || length > len(rest) {
			return "", nil, 0, 0, errCutOff
		}
		value := rest[4:length]
		switch binary.NativeEndian.Uint16(rest[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case attrLogPrefix:
			for len(value) > 0 && value[len(value)-1] == 0 {
				value = value[:len(value)-1]
			}
			prefix = string(value)
		case attrLogPayload:
			payload = value
		case attrLogNumber:
			if len(value) == 4 {
				number = binary.BigEndian.Uint32(value)
			}
		case attrLogTime:
			if len(value) == 16 {
				at = int64(binary.BigEndian.Uint64(value))*1e9 + int64(binary.BigEndian.Uint64(value[8:]))*1e3
			}
		}
		rest = rest[min(len(rest), (length+3)&^3):]
	}
	return prefix, payload, number, at, nil
}
