//go:build linux

package capture

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Attempt is a connection that somebody opens, or tries to. Of ICMP the port of To is
// type<<8 | code.
type Attempt struct {
	From, To netip.AddrPort
	Protocol netset.Protocol
}

// conversation is both ways between two ends.
type conversation struct {
	protocol netset.Protocol
	ends     [2]netip.AddrPort // the lower one first
}

// spoken is what is known of a conversation: which of its ends opened it, and what
// is said of packets from either one.
type spoken struct {
	opener   int // -1 where it is not known
	comments [2][]string
}

// mostConversations is how many are remembered at a time.
const mostConversations = 1 << 14

// commenter says of packets what they are to the policies.
type commenter struct {
	pod       string // "pod shop/web"
	addresses []netip.Addr
	link      int // bytes in front of IP
	verdict   func(Attempt) policies.Verdict
	age       func() uint64 // changes when verdicts may
	// known are connections that were open before; where that is not known, nobody
	// can tell who opened those whose beginning is not seen.
	known map[conversation]int
	told  bool

	asOf   uint64
	spoken map[conversation]*spoken
	plain  map[string][]string
}

// comments returns what a packet's comments are.
func (c *commenter) comments(packet []byte) []string {
	p, isIP := parse(packet, c.link)
	if !isIP {
		return c.without(directionOfARP(packet, c.link, c.addresses))
	}
	if now := c.age(); c.spoken == nil || now != c.asOf || len(c.spoken) >= mostConversations {
		if len(c.spoken) >= mostConversations || c.spoken == nil {
			c.spoken = map[conversation]*spoken{}
		}
		for _, s := range c.spoken {
			s.comments = [2][]string{}
		}
		c.asOf = now
	}
	if !p.tells {
		return c.without(c.direction(p.from.Addr(), p.to.Addr()))
	}
	talk, sender := conversation{p.protocol, [2]netip.AddrPort{p.from, p.to}}, 0
	if p.to.Compare(p.from) < 0 {
		talk.ends[0], talk.ends[1], sender = p.to, p.from, 1
	}
	s := c.spoken[talk]
	if s == nil {
		s = &spoken{opener: c.opener(talk, sender, p)}
		c.spoken[talk] = s
	} else if p.opens || p.answers {
		opener := sender
		if p.answers {
			opener = 1 - sender
		}
		if opener != s.opener {
			*s = spoken{opener: opener}
		}
	}
	if s.comments[sender] == nil {
		s.comments[sender] = []string{c.pod + ", " + c.direction(p.from.Addr(), p.to.Addr()) + ", " + c.verdictOf(talk, s.opener).String()}
	}
	return s.comments[sender]
}

// opener says which end of a conversation opened it, seen for the first time.
func (c *commenter) opener(talk conversation, sender int, p parsed) int {
	opener, known := c.known[talk]
	switch {
	case p.answers:
		return 1 - sender
	case p.opens:
		return sender
	case known:
		return opener
	case !c.told || p.protocol == netset.TCP: // which was open before, and nobody tells
		return -1
	}
	return sender
}

func (c *commenter) verdictOf(talk conversation, opener int) policies.Verdict {
	if opener < 0 || c.verdict == nil {
		return policies.Unknown
	}
	v := c.verdict(Attempt{From: talk.ends[opener], To: talk.ends[1-opener], Protocol: talk.protocol})
	if v == policies.Undecided {
		return policies.Unknown
	}
	return v
}

// direction is the pod's view of a packet.
func (c *commenter) direction(from, to netip.Addr) string {
	sends, gets := slices.Contains(c.addresses, from), slices.Contains(c.addresses, to)
	switch {
	case sends && !gets:
		return policies.Egress.String()
	case gets && !sends:
		return policies.Ingress.String()
	}
	return "direction unknown"
}

// without is for packets that no policy speaks of.
func (c *commenter) without(direction string) []string {
	if c.plain[direction] == nil {
		if c.plain == nil {
			c.plain = map[string][]string{}
		}
		c.plain[direction] = []string{c.pod + ", " + direction}
	}
	return c.plain[direction]
}

// directionOfARP tells by the sender's address, or the asked one.
func directionOfARP(packet []byte, link int, addresses []netip.Addr) string {
	if link == 14 && len(packet) >= 42 && binary.BigEndian.Uint16(packet[12:]) == 0x0806 {
		sender, target := netip.AddrFrom4([4]byte(packet[28:])), netip.AddrFrom4([4]byte(packet[38:]))
		switch {
		case slices.Contains(addresses, sender):
			return policies.Egress.String()
		case slices.Contains(addresses, target):
			return policies.Ingress.String()
		}
	}
	return "direction unknown"
}

// parsed is what a packet says of its connection.
type parsed struct {
	protocol netset.Protocol
	from, to netip.AddrPort
	tells    bool // it has ports, or is of a protocol without
	opens    bool // it is the first of its connection for sure, as a SYN is
	answers  bool // it is an answer for sure
}

// parse reads the headers of a packet, as far as they were kept; false where it is
// not one of IP.
func parse(packet []byte, link int) (p parsed, ok bool) {
	if len(packet) < link+20 {
		return p, false
	}
	var from, to netip.Addr
	rest := packet[link:]
	var whole bool
	switch {
	case rest[0]>>4 == 4 && (link == 0 || binary.BigEndian.Uint16(packet[link-2:]) == etherIPv4):
		from, to = netip.AddrFrom4([4]byte(rest[12:])), netip.AddrFrom4([4]byte(rest[16:]))
		p.protocol, whole = netset.Protocol(rest[9]), binary.BigEndian.Uint16(rest[6:])&0x1fff == 0
		rest = rest[min(len(rest), int(rest[0]&0xf)*4):]
	case rest[0]>>4 == 6 && len(rest) >= 40 && (link == 0 || binary.BigEndian.Uint16(packet[link-2:]) == etherIPv6):
		from, to = netip.AddrFrom16([16]byte(rest[8:])), netip.AddrFrom16([16]byte(rest[24:]))
		p.protocol, rest, whole = behindExtensions(netset.Protocol(rest[6]), rest[40:])
	default:
		return p, false
	}
	p.from, p.to = netip.AddrPortFrom(from, 0), netip.AddrPortFrom(to, 0)
	switch p.protocol {
	case netset.TCP, netset.UDP, netset.SCTP, udpLite:
		if !whole || len(rest) < 14 && (p.protocol == netset.TCP || len(rest) < 4) {
			return p, true
		}
		p.from = netip.AddrPortFrom(from, binary.BigEndian.Uint16(rest))
		p.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(rest[2:]))
		const syn, ack = 2, 16
		if p.protocol == netset.TCP {
			p.opens, p.answers = rest[13]&(syn|ack) == syn, rest[13]&(syn|ack) == syn|ack
		}
	case netset.ICMP, netset.ICMPv6:
		if !whole || len(rest) < 2 {
			return p, true
		}
		return p.ofICMP(from, to, rest[0], rest[1])
	}
	p.tells = true
	return p, true
}

// ofICMP takes a request and its reply for one conversation, on the request's type.
// What else there is, errors and the discovery of neighbours, no policy speaks of.
func (p parsed) ofICMP(from, to netip.Addr, kind, code byte) (parsed, bool) {
	type pair struct {
		protocol       netset.Protocol
		request, reply byte
	}
	for _, of := range []pair{{netset.ICMP, 8, 0}, {netset.ICMP, 13, 14}, {netset.ICMPv6, 128, 129}} {
		port := uint16(of.request)<<8 | uint16(code)
		switch {
		case of.protocol == p.protocol && of.request == kind:
			p.to, p.opens, p.tells = netip.AddrPortFrom(to, port), true, true
		case of.protocol == p.protocol && of.reply == kind:
			p.from, p.answers, p.tells = netip.AddrPortFrom(from, port), true, true
		}
	}
	return p, true
}

// behindExtensions is what follows the extension headers of IPv6.
func behindExtensions(next netset.Protocol, rest []byte) (p netset.Protocol, behind []byte, whole bool) {
	for range extensions {
		length := 0
		switch next {
		case hopByHop, routing, destination, mobility:
			length = 8
			if len(rest) >= 2 {
				length = (int(rest[1]) + 1) * 8
			}
		case authentication:
			length = 8
			if len(rest) >= 2 {
				length = (int(rest[1]) + 2) * 4
			}
		case fragment:
			length = 8
			if len(rest) >= 8 && binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
				return netset.Protocol(rest[0]), rest[8:], false
			}
		default:
			return next, rest, true
		}
		if len(rest) < length {
			return next, nil, false
		}
		next, rest = netset.Protocol(rest[0]), rest[length:]
	}
	return next, rest, true
}
