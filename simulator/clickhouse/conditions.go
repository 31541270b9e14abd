package clickhouse

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// conditions are terms of a WHERE clause, all of which must hold, and what is
// bound to their question marks. What a user said is always bound.
type conditions struct {
	terms     []string
	arguments []any
}

func (c *conditions) add(term string, arguments ...any) {
	c.terms = append(c.terms, term)
	c.arguments = append(c.arguments, arguments...)
}

func (s *Store) conditions(f *flowrow.Filter) *conditions {
	c := &conditions{}
	since, until := f.Micros()
	c.add("`start` >= ?", since)
	c.add("`start` < ?", until)
	s.who(c, &f.From, "src_")
	s.who(c, &f.To, "dst_")
	from, to := &conditions{}, &conditions{}
	s.who(from, &f.Either, "src_")
	s.who(to, &f.Either, "dst_")
	if len(from.terms) > 0 {
		c.add("("+strings.Join(from.terms, " AND ")+" OR "+strings.Join(to.terms, " AND ")+")", append(from.arguments, to.arguments...)...)
	}
	if f.Protocol != 0 {
		c.add("`protocol` = ?", flowrow.ProtocolText(f.Protocol))
	}
	if f.FirstPort > 0 {
		c.add("`dst_port` >= ?", f.FirstPort)
	}
	if f.LastPort > 0 {
		c.add("`dst_port` <= ?", f.LastPort)
	}
	if len(f.Verdicts) > 0 {
		var terms []string
		var arguments []any
		for _, v := range f.Verdicts {
			terms, arguments = append(terms, "`verdict` = ?"), append(arguments, flowrow.VerdictText(v))
		}
		c.add("("+strings.Join(terms, " OR ")+")", arguments...)
	}
	if p := f.Policy; p != (policies.Ref{}) {
		text := "|" + flowrow.FormatRef(p) + "|"
		if p.Kind == "" {
			_, rest, _ := strings.Cut(text, "/")
			text = "/" + rest
		}
		c.add("position(`policies`, ?) > 0", text)
	}
	return c
}

func (s *Store) who(c *conditions, w *flowrow.Who, side string) {
	for _, equal := range []struct {
		column int
		value  string
	}{{flowrow.Namespace, w.Namespace}, {flowrow.Kind, w.Kind}, {flowrow.Name, w.Name}, {flowrow.Pod, w.Pod}} {
		if equal.value != "" {
			c.add("`"+side+flowrow.Columns[equal.column]+"` = ?", equal.value)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(w.Labels)) {
		pair := flowrow.FormatLabels(map[string]string{key: w.Labels[key]})
		c.add("position(concat(',', `"+side+flowrow.Columns[flowrow.Labels]+"`, ','), ?) > 0", ","+pair+",")
	}
	if !w.Addresses.IsValid() {
		return
	}
	ip, addresses := "`"+side+flowrow.Columns[flowrow.IP]+"`", w.Addresses.Masked()
	switch {
	case addresses.IsSingleIP():
		c.add(ip+" = ?", addresses.Addr().String())
	case s.modern:
		c.add("if("+ip+" = '', 0, isIPAddressInRange(toString("+ip+"), ?))", addresses.String())
	case addresses.Addr().Is4():
		first := addresses.Addr().As4()
		low := uint32(first[0])<<24 | uint32(first[1])<<16 | uint32(first[2])<<8 | uint32(first[3])
		c.add("position("+ip+", ':') = 0 AND "+ip+" != '' AND IPv4StringToNum("+ip+") >= ? AND IPv4StringToNum("+ip+") <= ?",
			low, low|uint32(1<<(32-addresses.Bits())-1))
	default:
		var last [16]byte = addresses.Addr().As16()
		for i := addresses.Bits(); i < 128; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		first := addresses.Addr().As16()
		number := "hex(IPv6StringToNum(" + ip + "))"
		c.add("position("+ip+", ':') > 0 AND "+number+" >= ? AND "+number+" <= ?", fmt.Sprintf("%X", first), fmt.Sprintf("%X", last))
	}
}
