//go:build linux

package record

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// denials weigh what was logged of denied packets against what was counted: a log is
// bounded, a counter is exact.
type denials struct{ of map[string]*tally }

// tally is of one counter. All numbers are sums since the first recorder began.
type tally struct {
	Read   uint64 // what the counter said last
	Before uint64 // what it counted before it was made anew
	Due    uint64 // what was counted when it was read the time before, so that all log entries of that are here by now
	Logged uint64 // packets that are in records because they were logged
	Rest   uint64 // packets that are in records because they were not
}

func newDenials() denials { return denials{map[string]*tally{}} }

func (d denials) tally(counter string) *tally {
	if d.of[counter] == nil {
		d.of[counter] = &tally{}
	}
	return d.of[counter]
}

// counterOf returns the counter of what a mark is about.
func counterOf(m nft.Mark, ipv6 bool) string {
	family := 4
	if ipv6 {
		family = 6
	}
	if m.ID == 0 {
		return fmt.Sprintf("%s%d_none", m.Direction, family)
	}
	return fmt.Sprintf("%s%d_%012x_denied", m.Direction, family, m.ID)
}

// isDenial reports whether a counter is of denied packets, and of which direction.
func isDenial(counter string) (policies.Direction, bool) {
	for _, d := range policies.Directions {
		if strings.HasPrefix(counter, d.String()) {
			return d, strings.HasSuffix(counter, "_denied") || strings.HasSuffix(counter, "_none")
		}
	}
	return 0, false
}

// read takes a reading of all counters.
func (d denials) read(counters map[string]uint64) {
	if counters == nil {
		return
	}
	for name, now := range counters {
		t := d.tally(name)
		t.Due = t.Before + t.Read
		if now < t.Read {
			t.Before += t.Read
		}
		t.Read = now
	}
	for name, t := range d.of {
		if _, there := counters[name]; !there {
			t.Before, t.Read = t.Before+t.Read, 0
			t.Due = t.Before
		}
	}
}

// logged takes note of a packet that was denied and logged.
func (b *book) logged(m nft.Mark, packet []byte, at int64) {
	if m.Verdict != 'D' {
		return // what passes is told as a connection
	}
	p, ok := packetOf(packet)
	if !ok || len(b.views) == 0 {
		b.counts.Lost[lostLog]++
		return
	}
	b.denial.tally(counterOf(m, p.from.Is6())).Logged++
	b.counts.Denied++
	s := b.tell(question{from: p.from, to: p.to, protocol: p.protocol, port: p.port, outcome: outcome{denied: true, direction: m.Direction}}, at)
	if !s.certain {
		b.counts.Unexplained++
	}
	e := event{at, p.sourcePort, sum{count: 1, counters: [2]conntrack.Counters{{Packets: 1, Bytes: p.size}}}}
	b.add(s, e)
	if b.told != nil {
		b.told(s, e)
	}
}

// counted takes a reading of the counters, and adds to the records what they count and
// nobody logged. The last reading is complete: no log entry is on its way.
func (b *book) counted(counters map[string]uint64, at int64, last bool) {
	b.denial.read(counters)
	b.counts.Observed = 0
	for _, name := range slices.Sorted(maps.Keys(b.denial.of)) {
		t := b.denial.of[name]
		if strings.HasSuffix(name, "_observed") {
			b.counts.Observed += t.Before + t.Read
		}
		direction, is := isDenial(name)
		if !is || len(b.views) == 0 {
			continue
		}
		if last {
			t.Due = t.Before + t.Read
		}
		if t.Due <= t.Logged+t.Rest {
			continue
		}
		n := t.Due - t.Logged - t.Rest
		t.Rest += n
		b.counts.Denied += n
		s := b.views[len(b.views)-1].denials(direction)
		b.add(s, event{at, 0, sum{count: n, counters: [2]conntrack.Counters{{Packets: n}}}})
	}
}

// packet is what a log entry tells of a packet.
type packet struct {
	from, to         netip.Addr
	protocol         netset.Protocol
	sourcePort, port uint16
	size             uint64
}

// Headers of IPv6 that stand before that of the protocol.
const (
	hopByHop           = 0
	routing            = 43
	fragment           = 44
	destinationOptions = 60
)

// packetOf reads the head of a packet of IP.
func packetOf(text []byte) (p packet, ok bool) {
	var rest []byte
	next := byte(0)
	switch {
	case len(text) >= 20 && text[0]>>4 == 4:
		head := int(text[0]&15) * 4
		p.from, p.to = netip.AddrFrom4([4]byte(text[12:])), netip.AddrFrom4([4]byte(text[16:]))
		p.size = uint64(binary.BigEndian.Uint16(text[2:]))
		next = text[9]
		if isFirst := binary.BigEndian.Uint16(text[6:])&0x1fff == 0; isFirst && head >= 20 && head <= len(text) {
			rest = text[head:]
		}
	case len(text) >= 40 && text[0]>>4 == 6:
		p.from, p.to = netip.AddrFrom16([16]byte(text[8:])), netip.AddrFrom16([16]byte(text[24:]))
		p.size = 40 + uint64(binary.BigEndian.Uint16(text[4:]))
		next, rest = text[6], text[40:]
		for len(rest) >= 8 && slices.Contains([]byte{hopByHop, routing, fragment, destinationOptions}, next) {
			size := (int(rest[1]) + 1) * 8
			if next == fragment {
				size = 8
				if binary.BigEndian.Uint16(rest[2:])&^7 != 0 { // not the first one
					return packet{from: p.from, to: p.to, size: p.size, protocol: netset.Protocol(rest[0])}, true
				}
			}
			next, rest = rest[0], rest[min(size, len(rest)):]
		}
	default:
		return p, false
	}
	p.protocol = netset.Protocol(next)
	switch p.protocol {
	case netset.TCP, netset.UDP, netset.SCTP:
		if len(rest) >= 4 {
			p.sourcePort, p.port = binary.BigEndian.Uint16(rest), binary.BigEndian.Uint16(rest[2:])
		}
	case netset.ICMP, netset.ICMPv6:
		if len(rest) >= 2 {
			p.port = binary.BigEndian.Uint16(rest)
		}
	}
	return p, true
}
