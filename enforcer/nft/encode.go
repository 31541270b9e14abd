package nft

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies/netset"
)

// outcome is what becomes of traffic. The zero outcome is denied.
type outcome uint8

const (
	denied outcome = iota
	allowed
	observed // passes, though it would be denied if all were enforced
)

// pattern is what becomes of all traffic with one address: what the whole of it
// meets, but for whole protocols, but for some ports or types of them.
type pattern struct {
	number    int // no two that differ have the same
	whole     outcome
	protocols []exception // by protocol
	ports     []exception // by protocol and port
}

// exception is traffic that meets something else. For a protocol the ports are all.
type exception struct {
	netset.PortRange
	outcome
}

// text is the same for patterns that are.
func (p *pattern) text() string {
	k := []byte{byte(p.whole)}
	for _, list := range [][]exception{p.protocols, p.ports} {
		k = binary.BigEndian.AppendUint32(k, uint32(len(list)))
		for _, x := range list {
			k = append(k, byte(x.Protocol), byte(x.outcome))
			k = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(k, x.First), x.Last)
		}
	}
	return string(k)
}

// isAll reports whether all traffic meets an outcome.
func (p *pattern) isAll(o outcome) bool {
	return p.whole == o && len(p.protocols) == 0 && len(p.ports) == 0
}

// excepts reports whether an exception meets an outcome.
func (p *pattern) excepts(o outcome) bool {
	is := func(e exception) bool { return e.outcome == o }
	return slices.ContainsFunc(p.protocols, is) || slices.ContainsFunc(p.ports, is)
}

// patternOf returns the shortest way to say what is allowed and what is observed.
func patternOf(allow, observe netset.Ports) *pattern {
	var of [256][]exception
	add := func(ports netset.Ports, o outcome) {
		for r := range ports.Ranges() {
			of[r.Protocol] = append(of[r.Protocol], exception{r, o})
		}
	}
	add(allow, allowed)
	add(observe, observed)
	var whole [256]outcome
	var count [3]int
	p := &pattern{}
	for i, some := range of {
		protocol := netset.Protocol(i)
		var rest []exception
		whole[i], rest = mostly(protocol, some)
		p.ports = append(p.ports, rest...)
		count[whole[i]]++
	}
	for _, o := range []outcome{allowed, observed} {
		if count[o] > count[p.whole] {
			p.whole = o
		}
	}
	for i, o := range whole {
		if o != p.whole {
			p.protocols = append(p.protocols, exception{netset.PortRange{Protocol: netset.Protocol(i), Last: 65535}, o})
		}
	}
	return p
}

// mostly returns what most of a protocol's traffic meets, and the exceptions.
func mostly(protocol netset.Protocol, some []exception) (outcome, []exception) {
	slices.SortFunc(some, func(a, b exception) int { return cmp.Compare(a.First, b.First) })
	first := uint16(0)
	switch {
	case protocol.HasPorts():
		first = 1 // nothing connects to port 0
	case protocol != netset.ICMP && protocol != netset.ICMPv6:
		if len(some) > 0 && some[0].First == 0 {
			return some[0].outcome, nil
		}
		return denied, nil
	}
	var all []exception
	next := int(first)
	for _, e := range some {
		if int(e.Last) < next {
			continue
		}
		e.First = max(e.First, first)
		if int(e.First) > next {
			all = append(all, exception{netset.PortRange{Protocol: protocol, First: uint16(next), Last: e.First - 1}, denied})
		}
		all = append(all, e)
		next = int(e.Last) + 1
	}
	if next <= 65535 {
		all = append(all, exception{netset.PortRange{Protocol: protocol, First: uint16(next), Last: 65535}, denied})
	}
	var size [3]int
	for _, e := range all {
		size[e.outcome] += int(e.Last-e.First) + 1
	}
	most := denied
	for _, o := range []outcome{allowed, observed} {
		if size[o] > size[most] {
			most = o
		}
	}
	return most, slices.DeleteFunc(all, func(e exception) bool { return e.outcome == most })
}

// table is one of the maps of a vector, in the order in which they are looked up.
type table struct {
	suffix   string
	key      []Type
	fields   []Field
	interval bool
}

// tables are the maps that a vector may have. The first field of each, the address
// of the local pod, is put before.
func tables(ipv6 bool) []table {
	icmp, types := []Field{FieldICMPType, FieldICMPCode}, []Type{ICMPType, ICMPCode}
	if ipv6 {
		icmp, types = []Field{FieldICMPv6Type, FieldICMPv6Code}, []Type{ICMPv6Type, ICMPv6Code}
	}
	ports, portTypes := []Field{FieldProtocol, DestinationPort}, []Type{Protocol, Port}
	return []table{
		{"ports", portTypes, ports, false},
		{"ranges", portTypes, ports, true},
		{"codes", types, icmp, false},
		{"types", types[:1], icmp[:1], false},
		{"protocols", portTypes[:1], ports[:1], false},
		{"all", nil, nil, false},
	}
}

// shortRange is how many ports are rather listed one by one than as a range: maps of
// ranges get slower the more there are.
const shortRange = 16

// elements appends the elements of a pattern for one address, by the suffix of the
// map that they go into.
func (p *pattern) elements(at netip.Addr, to func(outcome) Verdict, add func(suffix string, first, last string, to Verdict)) {
	pod := at.AsSlice()
	one := func(suffix string, o outcome, fields ...[]byte) {
		k := key(append([][]byte{pod}, fields...)...)
		add(suffix, k, k, to(o))
	}
	if p.whole != denied {
		one("all", p.whole)
	}
	for _, e := range p.protocols {
		one("protocols", e.outcome, []byte{byte(e.Protocol)})
	}
	for _, e := range p.ports {
		protocol := []byte{byte(e.Protocol)}
		number := func(port uint16) []byte { return binary.BigEndian.AppendUint16(nil, port) }
		switch {
		case e.Protocol == netset.ICMP && at.Is4(), e.Protocol == netset.ICMPv6 && at.Is6():
			p.icmp(e, one)
		case !e.Protocol.HasPorts():
			// ICMP of the other family is no traffic of this one.
		case e.Last-e.First < shortRange:
			for port := int(e.First); port <= int(e.Last); port++ {
				one("ports", e.outcome, protocol, number(uint16(port)))
			}
		default:
			add("ranges", key(pod, protocol, number(e.First)), key(pod, protocol, number(e.Last)), to(e.outcome))
		}
	}
}

// icmp appends the types, and codes of types, of an exception.
func (p *pattern) icmp(e exception, one func(suffix string, o outcome, fields ...[]byte)) {
	for at := int(e.First); at <= int(e.Last); {
		kind := byte(at >> 8)
		if at&0xff == 0 && at|0xff <= int(e.Last) {
			one("types", e.outcome, []byte{kind})
			at |= 0xff
		} else {
			one("codes", e.outcome, []byte{kind}, []byte{byte(at)})
		}
		at++
	}
}
