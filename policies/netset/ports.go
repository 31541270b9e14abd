package netset

import (
	"cmp"
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
)

// Protocol is an IP protocol number, as IANA assigns them.
type Protocol uint8

// The protocols that policies name.
const (
	ICMP   Protocol = 1
	TCP    Protocol = 6
	UDP    Protocol = 17
	ICMPv6 Protocol = 58
	SCTP   Protocol = 132
)

// Transports are the protocols for which NetworkPolicy is defined.
var Transports = [...]Protocol{TCP, UDP, SCTP}

var protocolNames = map[Protocol]string{ICMP: "ICMP", TCP: "TCP", UDP: "UDP", ICMPv6: "ICMPv6", SCTP: "SCTP"}

// String returns the protocol's name, or its number where it has none here.
func (p Protocol) String() string {
	if name, ok := protocolNames[p]; ok {
		return name
	}
	return strconv.Itoa(int(p))
}

// HasPorts reports whether the protocol is TCP, UDP or SCTP.
func (p Protocol) HasPorts() bool { return slices.Contains(Transports[:], p) }

// hasTypes reports whether the protocol has types and codes where others have
// ports.
func (p Protocol) hasTypes() bool { return p == ICMP || p == ICMPv6 }

// ParseProtocol reads a name in any case, or a number from 0 to 255.
func ParseProtocol(text string) (Protocol, error) {
	for p, name := range protocolNames {
		if strings.EqualFold(name, text) {
			return p, nil
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("protocol %q is none of TCP, UDP, SCTP, ICMP, ICMPv6 or a number up to 255", text)
	}
	return Protocol(n), nil
}

// Ports is a set of (protocol, port) pairs. ICMP and ICMPv6 have type<<8 | code
// in place of a port. Any other protocol without ports is in the set when its
// port 0 is.
type Ports struct{ spans []span[uint32] }

type portOrder struct{}

func (portOrder) compare(a, b uint32) int      { return cmp.Compare(a, b) }
func (portOrder) next(v uint32) (uint32, bool) { return v + 1, v < everyPort.last }
func (portOrder) prev(v uint32) (uint32, bool) { return v - 1, v > 0 }

// A pair is kept as protocol<<16 | port, so that every set of pairs is a set of
// numbers.
var everyPort = span[uint32]{0, 255<<16 | 65535}

func pair(p Protocol, port uint16) uint32 { return uint32(p)<<16 | uint32(port) }

// PortSpan returns the ports of p from first to last, both included. It is
// empty when first is above last.
func PortSpan(p Protocol, first, last uint16) Ports {
	if first > last {
		return Ports{}
	}
	return Ports{[]span[uint32]{{pair(p, first), pair(p, last)}}}
}

// EveryPort returns everything of the given protocols.
func EveryPort(protocols ...Protocol) Ports {
	var all Ports
	for _, p := range protocols {
		all = all.Union(PortSpan(p, 0, 65535))
	}
	return all
}

// ICMPTypes returns the messages of ICMP or ICMPv6 that have a type and a code
// from first to last.
func ICMPTypes(p Protocol, kind, first, last uint8) Ports {
	return PortSpan(p, uint16(kind)<<8|uint16(first), uint16(kind)<<8|uint16(last))
}

// AllTraffic returns every port of every protocol.
func AllTraffic() Ports { return Ports{[]span[uint32]{everyPort}} }

// TransportPorts returns the ports 1 to 65535 of TCP, UDP and SCTP: all that a
// listing speaks of.
func TransportPorts() Ports { return transportPorts }

var transportPorts = func() (all Ports) {
	for _, p := range Transports {
		all = all.Union(PortSpan(p, 1, 65535))
	}
	return all
}()

// EveryConnection returns all that a connection may be made on: AllTraffic but for
// port 0 of TCP, UDP and SCTP.
func EveryConnection() Ports {
	return AllTraffic().Minus(EveryPort(Transports[:]...)).Union(transportPorts)
}

// Union returns what is in a or in b.
func (a Ports) Union(b Ports) Ports { return Ports{union[uint32, portOrder](a.spans, b.spans)} }

// Intersect returns what is in a and in b.
func (a Ports) Intersect(b Ports) Ports { return Ports{intersect[uint32, portOrder](a.spans, b.spans)} }

// Minus returns what is in a and not in b.
func (a Ports) Minus(b Ports) Ports { return Ports{minus[uint32, portOrder](a.spans, b.spans)} }

// Contains reports whether the port of p is in the set.
func (a Ports) Contains(p Protocol, port uint16) bool {
	return contains[uint32, portOrder](a.spans, pair(p, port))
}

// IsEmpty reports whether nothing is in the set.
func (a Ports) IsEmpty() bool { return len(a.spans) == 0 }

// Equal reports whether both hold the same pairs.
func (a Ports) Equal(b Ports) bool { return slices.Equal(a.spans, b.spans) }

// Compare orders sets: by their first difference, the smaller pair first.
func (a Ports) Compare(b Ports) int {
	return slices.CompareFunc(a.spans, b.spans, func(x, y span[uint32]) int {
		return cmp.Or(cmp.Compare(x.first, y.first), cmp.Compare(x.last, y.last))
	})
}

// Key returns a text that is the same for equal sets and no others.
func (a Ports) Key() string { return string(a.AppendKey(nil)) }

// AppendKey appends Key to b, for callers that look up many sets.
func (a Ports) AppendKey(b []byte) []byte {
	for _, s := range a.spans {
		b = append(b, byte(s.first>>16), byte(s.first>>8), byte(s.first), byte(s.last>>16), byte(s.last>>8), byte(s.last))
	}
	return b
}

// PortRange is the ports of one protocol from First to Last, both included.
type PortRange struct {
	Protocol    Protocol
	First, Last uint16
}

// Ranges yields the set as ranges, none of them across two protocols, in the
// order of protocol number and port.
func (a Ports) Ranges() iter.Seq[PortRange] {
	return func(yield func(PortRange) bool) {
		for _, s := range a.spans {
			for first := s.first; ; {
				last := min(s.last, first|0xffff)
				if !yield(PortRange{Protocol(first >> 16), uint16(first), uint16(last)}) {
					return
				}
				if last == s.last {
					break
				}
				first = last + 1
			}
		}
	}
}

// String prints the set as people write it: "TCP/80,443 UDP/53", "TCP" for all
// of a protocol, "ICMP/8" for a type of ICMP and "ICMP/3/4" for one with a code,
// "any" for all of TCP, UDP and SCTP, "none" for the empty set, and "all but TCP"
// where most protocols are in it.
func (a Ports) String() string {
	if a.IsEmpty() {
		return "none"
	}
	if transportPorts.Minus(a).IsEmpty() {
		return "any"
	}
	if rest := AllTraffic().Minus(a); rest.protocols() < 128 && a.protocols() > 128 {
		return "all but " + rest.list()
	}
	return a.list()
}

// protocols counts the protocols of which something is in the set.
func (a Ports) protocols() int {
	n, last := 0, -1
	for _, s := range a.spans {
		first := max(int(s.first>>16), last+1)
		last = int(s.last >> 16)
		n += last - first + 1
	}
	return n
}

// list prints the set protocol by protocol.
func (a Ports) list() string {
	var text strings.Builder
	var previous Protocol
	for r := range a.Ranges() {
		switch {
		case text.Len() > 0 && r.Protocol == previous:
			text.WriteByte(',')
		case text.Len() > 0:
			text.WriteByte(' ')
			fallthrough
		default:
			text.WriteString(r.Protocol.String())
			if !r.isWhole() {
				text.WriteByte('/')
			}
		}
		previous = r.Protocol
		switch {
		case r.isWhole():
		case r.Protocol.hasTypes():
			text.WriteString(strings.Join(typeTexts(r.First, r.Last), ","))
		case r.Last == 0:
			text.WriteByte('0')
		default:
			text.WriteString(rangeText(max(r.First, 1), r.Last))
		}
	}
	return text.String()
}

// isWhole reports whether the range is all that its protocol tells apart.
func (r PortRange) isWhole() bool {
	if r.Protocol.hasTypes() {
		return r.First == 0 && r.Last == 65535
	}
	return !r.Protocol.HasPorts() || r.First <= 1 && r.Last == 65535
}

func rangeText(first, last uint16) string {
	text := strconv.Itoa(int(first))
	if first != last {
		text += "-" + strconv.Itoa(int(last))
	}
	return text
}

// typeTexts prints a range of ICMP's types and codes: those of part of a type's
// codes as "3/0-4", those of whole types as "3-5".
func typeTexts(first, last uint16) []string {
	var texts []string
	if code := first & 0xff; code != 0 || first|0xff > last {
		end := min(first|0xff, last)
		texts = append(texts, strconv.Itoa(int(first>>8))+"/"+rangeText(code, end&0xff))
		if end == last {
			return texts
		}
		first = end + 1
	}
	if whole := (uint32(last) + 1) >> 8; uint32(first>>8) < whole {
		texts = append(texts, rangeText(first>>8, uint16(whole-1)))
		if whole<<8 > uint32(last) {
			return texts
		}
	}
	return append(texts, strconv.Itoa(int(last>>8))+"/"+rangeText(0, last&0xff))
}
