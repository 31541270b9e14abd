// Package nft compiles what a judge says of a node's pods into a ruleset of
// nftables, as a value: it is pure, and package kernel applies it.
//
// The ruleset is one table of the family inet. For each direction and address
// family, maps lead from the address at the other end to a vector: a chain that
// knows exactly which local pods let in, or send there, what. A new connection
// costs a handful of hash lookups however many policies, pods and addresses there
// are; docs/agent.md draws the way of a packet.
//
// What passes is what the judge is sure of. See Admit and docs/decisions/0016 for
// what it is not sure of.
package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Table is the name of the table, of the family inet, that belongs to Weir.
const Table = "weir"

// Ruleset is the table. Equal inputs give equal rulesets, all lists sorted by name.
type Ruleset struct {
	Counters []string
	Sets     []Set
	Chains   []Chain
	Vectors  []Vector
}

// Vector says what a vector's number, as labels and logs carry it, stands for. A
// vector keeps its number while what it allows changes, see Compile.
type Vector struct {
	ID        uint64 // below 1<<48
	Direction policies.Direction
	IPv6      bool
	Name      string // of its chain and counter
}

// Type is that of a field of a set's keys.
type Type uint8

// The types of fields.
const (
	IPv4 Type = iota
	IPv6
	Protocol
	Port
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	Class
)

var types = [...]struct {
	name string
	size int
}{
	{"ipv4_addr", 4},
	{"ipv6_addr", 16},
	{"inet_proto", 1},
	{"inet_service", 2},
	{"icmp_type", 1},
	{"icmp_code", 1},
	{"icmpv6_type", 1},
	{"icmpv6_code", 1},
	{"classid", 4},
}

// String returns the name that nft has for the type.
func (t Type) String() string { return types[t].name }

// Size returns how many bytes a value has.
func (t Type) Size() int { return types[t].size }

// text prints a value as nft does.
func (t Type) text(value string) string {
	switch t {
	case IPv4, IPv6:
		a, _ := netip.AddrFromSlice([]byte(value))
		return a.String()
	case Port:
		return strconv.Itoa(int(value[0])<<8 | int(value[1]))
	case Class:
		return classText(binary.BigEndian.Uint32([]byte(value)))
	}
	return strconv.Itoa(int(value[0]))
}

// classText prints the number of a class as nft does.
func classText(n uint32) string { return fmt.Sprintf("%x:%x", n>>16, n&0xffff) }

// Set is a named set, a map to verdicts, or a map to classes.
type Set struct {
	Name     string
	Key      []Type
	Map      bool
	Classes  bool
	Interval bool // elements may be ranges, which do not overlap; it never changes
	Elements []Element
	Crowd    Crowd // has other elements, in a map to classes by addresses
}

// Element is a key, or all keys from First to Last in a set with intervals. A key
// has its fields one behind the other, each filled up to four bytes where there are
// several.
type Element struct {
	First, Last string
	To          Verdict // in a map
	Class       uint32  // in a map to classes
}

// Verdict says where a packet goes.
type Verdict struct {
	Action Action
	Chain  string // of Jump and Goto
}

// Action is what becomes of a packet.
type Action uint8

// The zero Action is Drop, so that a forgotten one lets nothing through.
const (
	Drop Action = iota
	Accept
	Return
	Jump
	Goto
)

func (a Action) String() string { return [...]string{"drop", "accept", "return", "jump", "goto"}[a] }

func (v Verdict) String() string {
	if v.Chain == "" {
		return v.Action.String()
	}
	return v.Action.String() + " " + v.Chain
}

// Chain is a list of rules. One with a Hook is a base chain, whose policy is to
// accept.
type Chain struct {
	Name  string
	Hook  string // "forward", "input" or nothing
	Rules []Rule
}

// Priority is that of base chains: right before most filters.
const Priority = -5

// Rule is statements that are carried out in their order, until one does not match.
type Rule []Statement

// Statement is one of the kinds of this package.
type Statement interface{ String() string }

// The statements of rules.
type (
	// Established matches packets of connections that were let in, and errors about
	// them.
	Established struct{}
	// Labelled matches packets of connections whose label has a bit.
	Labelled struct{ Bit int }
	// In matches packets whose fields are in a set.
	In struct {
		Fields []Field
		Set    string
	}
	// Dispatch ends with the verdict that a map has for fields, if it has one.
	Dispatch struct {
		Fields []Field
		Map    string
	}
	// Classify gives the packet the class that a map has for fields, and goes on where it
	// has one. It takes the place of the packet's priority.
	Classify struct {
		Fields []Field
		Map    string
	}
	// Declassify takes the packet's class away.
	Declassify struct{}
	// Count counts in a named counter.
	Count struct{ Counter string }
	// Label adds bits to the label of the connection.
	Label struct{ Bits Bits }
	// Log sends the packet to a group of NFLOG, at most so many a second.
	Log struct {
		Prefix    string
		Group     uint16
		PerSecond uint64
	}
)

func (Established) String() string { return "ct state established,related" }
func (s Labelled) String() string  { return fmt.Sprintf("ct label %d", s.Bit) }
func (s In) String() string        { return fieldsText(s.Fields) + " @" + s.Set }
func (s Dispatch) String() string  { return fieldsText(s.Fields) + " vmap @" + s.Map }
func (s Classify) String() string {
	return "meta priority set " + fieldsText(s.Fields) + " map @" + s.Map
}
func (Declassify) String() string { return "meta priority set none" }
func (s Count) String() string    { return fmt.Sprintf("counter name %q", s.Counter) }
func (s Label) String() string    { return "ct label set " + s.Bits.String() }
func (s Log) String() string {
	return fmt.Sprintf("limit rate %d/second burst %d packets log prefix %q group %d", s.PerSecond, s.PerSecond, s.Prefix, s.Group)
}

// Field is what of a packet is looked up.
type Field uint8

// The fields of packets.
const (
	Source4 Field = iota
	Destination4
	Source6
	Destination6
	FieldProtocol
	DestinationPort
	FieldICMPType
	FieldICMPCode
	FieldICMPv6Type
	FieldICMPv6Code
	FieldClass
)

var fields = [...]string{
	"ip saddr", "ip daddr", "ip6 saddr", "ip6 daddr", "meta l4proto", "th dport",
	"icmp type", "icmp code", "icmpv6 type", "icmpv6 code", "meta priority",
}

func (f Field) String() string { return fields[f] }

func fieldsText(all []Field) string {
	texts := make([]string, len(all))
	for i, f := range all {
		texts[i] = f.String()
	}
	return strings.Join(texts, " . ")
}

// String prints the ruleset as nft reads it.
func (r *Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", Table)
	for _, c := range r.Counters {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n\n", c)
	}
	for i := range r.Sets {
		r.Sets[i].print(&b)
	}
	for i, c := range r.Chains {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if c.Hook != "" {
			fmt.Fprintf(&b, "\t\ttype filter hook %s priority filter - %d; policy accept;\n", c.Hook, -Priority)
		}
		for _, rule := range c.Rules {
			texts := make([]string, len(rule))
			for k, s := range rule {
				texts[k] = s.String()
			}
			fmt.Fprintf(&b, "\t\t%s\n", strings.Join(texts, " "))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (s *Set) print(b *strings.Builder) {
	kind, to := "set", ""
	switch {
	case s.Map:
		kind, to = "map", " : verdict"
	case s.Classes:
		kind, to = "map", " : classid"
	}
	names := make([]string, len(s.Key))
	for i, t := range s.Key {
		names[i] = t.String()
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s%s\n", kind, s.Name, strings.Join(names, " . "), to)
	if s.Interval {
		b.WriteString("\t\tflags interval\n")
	}
	for i, e := range slices.SortedFunc(s.All(), byKey) {
		start := ",\n\t\t\t     "
		if i == 0 {
			start = "\t\telements = { "
		}
		b.WriteString(start + s.text(e))
	}
	if s.Len() > 0 {
		b.WriteString(" }\n")
	}
	b.WriteString("\t}\n\n")
}

// text prints an element.
func (s *Set) text(e Element) string {
	var parts []string
	first, last := e.First, e.Last
	for _, t := range s.Key {
		from, to := first[:t.Size()], last[:t.Size()]
		text := t.text(from)
		if from != to {
			if bits, isPrefix := prefixOf(t, from, to); isPrefix {
				text += "/" + strconv.Itoa(bits)
			} else {
				text += "-" + t.text(to)
			}
		}
		parts = append(parts, text)
		if len(s.Key) > 1 {
			first, last = first[filled(t.Size()):], last[filled(t.Size()):]
		}
	}
	text := strings.Join(parts, " . ")
	switch {
	case s.Map:
		text += " : " + e.To.String()
	case s.Classes:
		text += " : " + classText(e.Class)
	}
	return text
}

// prefixOf returns the length of the prefix that a range of addresses is.
func prefixOf(t Type, first, last string) (bits int, ok bool) {
	if t != IPv4 && t != IPv6 {
		return 0, false
	}
	a, _ := netip.AddrFromSlice([]byte(first))
	z, _ := netip.AddrFromSlice([]byte(last))
	all := netset.AddressSpan(a, z).CIDRs()
	if len(all) != 1 {
		return 0, false
	}
	return all[0].Bits(), true
}

// filled is the size of a field in a key of several.
func filled(size int) int { return (size + 3) &^ 3 }

// key returns the key of some values, each of the bytes that its type has.
func key(values ...[]byte) string {
	if len(values) == 1 {
		return string(values[0])
	}
	var k []byte
	for _, v := range values {
		k = append(k, v...)
		for len(k)%4 != 0 {
			k = append(k, 0)
		}
	}
	return string(k)
}

// Bits are those of a connection's label, in the order of memory: bit n is bit n%8
// of byte n/8.
type Bits [16]byte

// String prints the bits that are set as nft does: "1 | 97".
func (b Bits) String() string {
	var set []string
	for n := range 8 * len(b) {
		if b.Has(n) {
			set = append(set, strconv.Itoa(n))
		}
	}
	return strings.Join(set, " | ")
}
