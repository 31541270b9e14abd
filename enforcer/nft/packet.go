package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies/netset"
)

// Packet is the first of a connection, with the addresses that both ends really have:
// as it is forwarded, after a Service's address gave way to that of a pod.
type Packet struct {
	Source, Destination netip.Addr
	Protocol            netset.Protocol
	Port                uint16 // the destination's; of ICMP the type and code
}

// Fate is what becomes of the first packet of a connection.
type Fate struct {
	Passes bool
	Label  Bits // that the connection has then
}

// Fate returns what a ruleset does with a packet of a new connection that is forwarded,
// or that a pod sends to its own node. It takes a handful of searches.
func (r *Ruleset) Fate(p Packet) Fate {
	w := walker{ruleset: r, packet: p}
	passes := w.chain(forward) != Drop
	return Fate{passes, w.label}
}

// walker carries out the rules of a ruleset, as the kernel does.
type walker struct {
	ruleset *Ruleset
	packet  Packet
	label   Bits
	class   uint32
}

// chain returns Accept, Drop, or Return where the chain comes to its end.
func (w *walker) chain(name string) Action {
	i, found := slices.BinarySearchFunc(w.ruleset.Chains, name, func(c Chain, name string) int { return strings.Compare(c.Name, name) })
	if !found {
		return Return
	}
	for _, r := range w.ruleset.Chains[i].Rules {
		v, ends := w.rule(r)
		if !ends {
			continue
		}
		switch v.Action {
		case Jump:
			if a := w.chain(v.Chain); a != Return {
				return a
			}
		case Goto:
			return w.chain(v.Chain)
		default:
			return v.Action
		}
	}
	return Return
}

func (w *walker) rule(r Rule) (v Verdict, ends bool) {
	for _, s := range r {
		switch s := s.(type) {
		case Established, Labelled:
			return Verdict{}, false
		case In:
			if _, found := w.find(s.Fields, s.Set); !found {
				return Verdict{}, false
			}
		case Dispatch:
			e, found := w.find(s.Fields, s.Map)
			return e.To, found
		case Classify:
			e, found := w.find(s.Fields, s.Map)
			if !found {
				return Verdict{}, false
			}
			w.class = e.Class
		case Label:
			for i, bits := range s.Bits {
				w.label[i] |= bits
			}
		case Verdict:
			return s, true
		}
	}
	return Verdict{}, false
}

// find looks the packet's fields up in a set, whose elements are sorted and, where
// they are ranges, differ in nothing but the last field from their first to their last
// key.
func (w *walker) find(all []Field, set string) (Element, bool) {
	i, found := slices.BinarySearchFunc(w.ruleset.Sets, set, func(s Set, name string) int { return strings.Compare(s.Name, name) })
	if !found {
		return Element{}, false
	}
	s := &w.ruleset.Sets[i]
	values := make([][]byte, 0, 4)
	for _, f := range all {
		v, has := w.field(f)
		if !has {
			return Element{}, false
		}
		values = append(values, v)
	}
	k := key(values...)
	at, found := slices.BinarySearchFunc(s.Elements, k, func(e Element, k string) int { return strings.Compare(e.First, k) })
	if !found && s.Interval {
		at--
		found = at >= 0 && k <= s.Elements[at].Last
	}
	if !found {
		return s.Crowd.find(k)
	}
	return s.Elements[at], true
}

func (w *walker) field(f Field) ([]byte, bool) {
	p := &w.packet
	four, icmp, icmp6 := p.Source.Is4(), p.Protocol == netset.ICMP, p.Protocol == netset.ICMPv6
	switch f {
	case Source4:
		return p.Source.AsSlice(), four
	case Destination4:
		return p.Destination.AsSlice(), four
	case Source6:
		return p.Source.AsSlice(), !four
	case Destination6:
		return p.Destination.AsSlice(), !four
	case FieldProtocol:
		return []byte{byte(p.Protocol)}, true
	case DestinationPort:
		return []byte{byte(p.Port >> 8), byte(p.Port)}, p.Protocol.HasPorts()
	case FieldClass:
		return binary.BigEndian.AppendUint32(nil, w.class), true
	case FieldICMPType:
		return []byte{byte(p.Port >> 8)}, four && icmp
	case FieldICMPCode:
		return []byte{byte(p.Port)}, four && icmp
	case FieldICMPv6Type:
		return []byte{byte(p.Port >> 8)}, !four && icmp6
	}
	return []byte{byte(p.Port)}, !four && icmp6
}
