//go:build linux

package netns

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/policies/netset"
)

// Probe is an attempt to reach an address from another one. Of ICMP the port is the
// type and code.
type Probe struct {
	From     *Party
	Source   netip.Addr
	Target   netip.Addr
	Protocol netset.Protocol
	Port     uint16
}

func (p Probe) String() string {
	return fmt.Sprintf("%s to %s on %s/%d", p.Source, p.Target, p.Protocol, p.Port)
}

// How long a probe that should arrive is waited for, and one that should not.
const (
	patience = 10 * time.Second
	grace    = 150 * time.Millisecond
)

// Serve makes a party answer on some ports of TCP and UDP at all its addresses, and
// notice what else comes.
func (p *Party) Serve(tcp, udp []uint16) {
	p.lab.t.Helper()
	inside(p.handle, func() { serve(p.lab, p.Addresses, tcp, udp) })
	p.listen()
}

func serve(l *Lab, addresses []netip.Addr, tcp, udp []uint16) {
	for _, a := range addresses {
		for _, port := range tcp {
			listener, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
			l.must(err)
			closeAfter(l.t, listener)
		}
		for _, port := range udp {
			conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, port)))
			l.must(err)
			closeAfter(l.t, conn)
			go echo(conn)
		}
	}
}

// echo sends back what comes, until the socket is closed.
func echo(conn *net.UDPConn) {
	var data [64]byte
	for {
		n, from, err := conn.ReadFromUDPAddrPort(data[:])
		if err != nil {
			return
		}
		conn.WriteToUDPAddrPort(data[:n], from) //nolint:errcheck // a lost answer is a probe that fails
	}
}

// Arrive sends probes, some thousands at once, and returns which of them arrive. Those that
// should are given all the time they need; the others a moment more than that.
func (l *Lab) Arrive(probes []Probe, should []bool) []bool {
	l.t.Helper()
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit) //nolint:errcheck // then as many as there may be
	}
	arrived := make([]bool, 0, len(probes))
	for len(probes) > 0 {
		n := min(len(probes), 2000)
		arrived = append(arrived, l.arrive(probes[:n], should[:n])...)
		probes, should = probes[n:], should[n:]
	}
	return arrived
}

func (l *Lab) arrive(probes []Probe, should []bool) []bool {
	for _, p := range l.parties {
		p.inbox.clear()
	}
	sent := make([]attempt, len(probes))
	byParty := map[*Party][]int{}
	for i, p := range probes {
		sent[i] = attempt{Probe: p, fd: -1}
		byParty[p.From] = append(byParty[p.From], i)
	}
	defer func() {
		for i := range sent {
			if sent[i].fd >= 0 {
				l.must(unix.Close(sent[i].fd))
			}
		}
	}()
	for p, some := range byParty {
		inside(p.handle, func() {
			for _, i := range some {
				l.sent++
				l.must(sent[i].open(uint16(l.sent & 0x7fff)))
			}
		})
	}
	begin := time.Now()
	done := begin // when all arrived that should
	for last := begin; ; {
		missing := false
		for i := range sent {
			sent[i].look(l)
			missing = missing || should[i] && !sent[i].arrived
		}
		now := time.Now()
		if missing {
			done = now
		}
		if now.Sub(done) > grace || now.Sub(begin) > patience {
			break
		}
		if now.Sub(last) > time.Second { // a datagram got lost
			last = now
			for i := range sent {
				if !sent[i].arrived {
					sent[i].send() //nolint:errcheck // the first one went out
				}
			}
		}
		l.await(sent, 20*time.Millisecond)
	}
	arrived := make([]bool, len(sent))
	for i := range sent {
		arrived[i] = sent[i].arrived
	}
	return arrived
}

// await waits until something comes for some attempt that has not arrived.
func (l *Lab) await(sent []attempt, most time.Duration) {
	var files []unix.PollFd
	for i := range sent {
		if a := &sent[i]; !a.arrived && a.events != 0 {
			files = append(files, unix.PollFd{Fd: int32(a.fd), Events: a.events})
		}
	}
	if _, err := unix.Poll(files, int(most.Milliseconds())); err != nil && err != unix.EINTR {
		l.must(err)
	}
}

// attempt is a probe on its way.
type attempt struct {
	Probe
	fd      int
	number  uint16
	events  int16 // that tell of an answer; none where the other end takes note
	arrived bool
}

func sockaddr(a netip.Addr, port uint16) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(port), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(port), Addr: a.As16()}
}

// open sends the probe for the first time.
func (a *attempt) open(number uint16) error {
	a.number = number
	family, kind, protocol := unix.AF_INET, unix.SOCK_RAW, int(a.Protocol)
	if a.Target.Is6() {
		family = unix.AF_INET6
	}
	port := uint16(0)
	switch a.Protocol {
	case netset.TCP:
		kind, a.events, port = unix.SOCK_STREAM, unix.POLLOUT, a.Port
	case netset.UDP:
		kind, a.events, port = unix.SOCK_DGRAM, unix.POLLIN, a.Port
	}
	var err error
	if a.fd, err = unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol); err != nil {
		return err
	}
	if err := unix.Bind(a.fd, sockaddr(a.Source, 0)); err != nil {
		return fmt.Errorf("%s: bind: %w", a.Probe, err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.SetsockoptLinger(a.fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			return err
		}
	}
	if err := unix.Connect(a.fd, sockaddr(a.Target, port)); err != nil && err != unix.EINPROGRESS {
		return fmt.Errorf("%s: connect: %w", a.Probe, err)
	}
	if err := a.send(); err != nil {
		return fmt.Errorf("%s: send: %w", a.Probe, err)
	}
	return nil
}

func (a *attempt) send() error {
	if a.Protocol == netset.TCP {
		return nil
	}
	_, err := unix.Write(a.fd, a.packet())
	return err
}

// packet is what follows the header of IP, or of UDP. It carries the number of the
// attempt where inbox finds it.
func (a *attempt) packet() []byte {
	switch a.Protocol {
	case netset.UDP:
		return binary.BigEndian.AppendUint16(nil, a.number)
	case netset.SCTP:
		// A chunk INIT, from a port that is the number.
		p := binary.BigEndian.AppendUint16(nil, a.number|0x8000)
		p = binary.BigEndian.AppendUint16(p, a.Port)
		p = append(p, 0, 0, 0, 0 /* tag */, 0, 0, 0, 0 /* sum */, 1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1)
		binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
		return p
	case netset.ICMP, netset.ICMPv6:
		p := []byte{byte(a.Port >> 8), byte(a.Port), 0, 0}
		p = binary.BigEndian.AppendUint16(p, a.number)
		p = append(p, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
		if a.Protocol == netset.ICMP { // the kernel sums ICMPv6 up by itself
			binary.BigEndian.PutUint16(p[2:], sum(p))
		}
		return p
	}
	return append(binary.BigEndian.AppendUint16(nil, a.number), 0, 0)
}

// sum is the checksum of the internet.
func sum(p []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(p); i += 2 {
		s += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	s = s>>16 + s&0xffff
	return ^uint16(s>>16 + s&0xffff)
}

// look sees whether the probe has arrived by now.
func (a *attempt) look(l *Lab) {
	switch {
	case a.arrived:
	case a.events == 0:
		for _, p := range l.parties {
			if slices.Contains(p.Addresses, a.Target) {
				a.arrived = p.inbox.has(arrival{a.Source, a.Protocol, a.number})
			}
		}
	default:
		file := []unix.PollFd{{Fd: int32(a.fd), Events: a.events}}
		if n, err := unix.Poll(file, 0); err != nil || n == 0 {
			return
		}
		failed, err := unix.GetsockoptInt(a.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		// Where nobody listens, somebody said so.
		a.arrived = err == nil && (failed == 0 || failed == int(unix.ECONNREFUSED))
	}
}

// inbox is what came to a party of protocols that nobody answers.
type inbox struct {
	mutex sync.Mutex
	came  map[arrival]bool
}

type arrival struct {
	source   netip.Addr
	protocol netset.Protocol
	number   uint16
}

func newInbox() *inbox { return &inbox{came: map[arrival]bool{}} }

func (i *inbox) clear() {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	clear(i.came)
}

func (i *inbox) has(a arrival) bool {
	i.mutex.Lock()
	defer i.mutex.Unlock()
	return i.came[a]
}

// Raw are the protocols that are sent, and noticed, without a server: SCTP, since
// many kernels have none.
var Raw = []netset.Protocol{netset.SCTP, netset.ICMP, netset.ICMPv6, 47}

// listen notices packets of the raw protocols.
func (p *Party) listen() {
	inside(p.handle, func() {
		for _, protocol := range Raw {
			for _, network := range []string{"ip4", "ip6"} {
				if protocol == netset.ICMP && network == "ip6" || protocol == netset.ICMPv6 && network == "ip4" {
					continue
				}
				conn, err := net.ListenPacket(fmt.Sprintf("%s:%d", network, protocol), "")
				p.lab.must(err)
				closeAfter(p.lab.t, conn)
				go p.inbox.read(conn.(*net.IPConn), protocol)
			}
		}
	})
}

func (i *inbox) read(conn *net.IPConn, protocol netset.Protocol) {
	data := make([]byte, 256)
	for {
		n, from, err := conn.ReadFrom(data)
		if err != nil {
			return
		}
		a := arrival{protocol: protocol}
		source, _ := netip.AddrFromSlice(from.(*net.IPAddr).IP)
		a.source = source.Unmap()
		switch packet := data[:n]; {
		case protocol == netset.SCTP && n >= 2:
			a.number = binary.BigEndian.Uint16(packet) &^ 0x8000
		case (protocol == netset.ICMP || protocol == netset.ICMPv6) && n >= 6:
			a.number = binary.BigEndian.Uint16(packet[4:])
		case n >= 2:
			a.number = binary.BigEndian.Uint16(packet)
		}
		i.mutex.Lock()
		i.came[a] = true
		i.mutex.Unlock()
	}
}

// Conversation is a TCP connection that stays.
type Conversation struct {
	lab            *Lab
	client, server net.Conn
}

// Talk makes one party connect to a port of another, at their first addresses.
func (l *Lab) Talk(from, to *Party, port uint16) *Conversation {
	l.t.Helper()
	c := &Conversation{lab: l}
	var listener *net.TCPListener
	var err error
	inside(to.handle, func() {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(to.Addresses[0], port)))
	})
	l.must(err)
	inside(from.handle, func() {
		c.client, err = net.DialTimeout("tcp", listener.Addr().String(), patience)
	})
	l.must(err)
	c.server, err = listener.Accept()
	l.must(errors.Join(err, listener.Close()))
	closeAfter(l.t, c.client)
	closeAfter(l.t, c.server)
	return c
}

// Carries reports whether what one end sends, the client or else the server, reaches
// the other one. What should is given all the time it needs.
func (c *Conversation) Carries(fromClient, should bool) bool {
	from, to := c.client, c.server
	if !fromClient {
		from, to = to, from
	}
	wait := 4 * grace
	if should {
		wait = patience
	}
	_, err := from.Write([]byte{1})
	c.lab.must(errors.Join(err, to.SetReadDeadline(time.Now().Add(wait))))
	n, err := to.Read(make([]byte, 1))
	return n == 1 && err == nil
}
