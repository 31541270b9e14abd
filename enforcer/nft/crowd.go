package nft

import (
	"iter"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// Crowd is the elements that lead the members of a crowd to classes, by their kinds.
type Crowd struct {
	members *policies.Crowd
	ipv6    bool
	classes []uint32 // by kind; 0 where there is none, empty where nobody is asked about
}

// noClass is that of a kind whose members have no elements.
const noClass = 0xffff_ffff

func newCrowd(of *policies.Crowd, ipv6 bool, kinds int32) Crowd {
	if of == nil {
		of = &policies.Crowd{}
	}
	return Crowd{members: of, ipv6: ipv6, classes: make([]uint32, kinds)}
}

// classOf returns the class of a kind, 0 where there is none.
func (c *Crowd) classOf(kind int32) uint32 {
	if int(kind) >= len(c.classes) {
		return 0
	}
	return c.classes[kind]
}

// elementOf returns the element of a member, if it has one.
func (c *Crowd) elementOf(a netip.Addr, m *policies.Member) (e Element, has bool) {
	if m == nil || a.Is6() != c.ipv6 {
		return Element{}, false
	}
	class := c.classOf(m.Kind)
	if class == 0 || class == noClass {
		return Element{}, false
	}
	k := key(a.AsSlice())
	return Element{First: k, Last: k, Class: class}, true
}

func (c *Crowd) find(key string) (Element, bool) {
	if c.members == nil {
		return Element{}, false
	}
	a, _ := netip.AddrFromSlice([]byte(key))
	m, has := c.members.Members.Get(a)
	if !has {
		return Element{}, false
	}
	return c.elementOf(a, &m)
}

// All yields the elements of a set, those of its crowd last.
func (s *Set) All() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for _, e := range s.Elements {
			if !yield(e) {
				return
			}
		}
		if s.Crowd.members == nil {
			return
		}
		for a, m := range s.Crowd.members.Members.All() {
			if e, has := s.Crowd.elementOf(a, &m); has && !yield(e) {
				return
			}
		}
	}
}

// Len returns how many elements a set has.
func (s *Set) Len() int {
	n := len(s.Elements)
	if s.Crowd.members == nil {
		return n
	}
	for a, m := range s.Crowd.members.Members.All() {
		if _, has := s.Crowd.elementOf(a, &m); has {
			n++
		}
	}
	return n
}

// crowds adds to an update what the elements of a crowd differ in. Where kinds lead
// where they led, it costs nothing but for the members that came and went.
func (u *Update) crowds(was, is *Crowd) {
	if was.members == nil || is.members == nil {
		return
	}
	put := func(a netip.Addr, old, now *policies.Member) {
		before, had := was.elementOf(a, old)
		after, has := is.elementOf(a, now)
		if had == has && before == after {
			return
		}
		if had {
			u.Delete = append(u.Delete, before)
		}
		if has {
			u.Add = append(u.Add, after)
		}
	}
	for a, m := range is.members.Members.Differ(was.members.Members) {
		put(a, m[0], m[1])
	}
	lead := (len(was.classes) == 0) != (len(is.classes) == 0) // some kind that there was leads elsewhere
	for kind := range min(len(was.classes), len(is.classes)) {
		lead = lead || was.classes[kind] != is.classes[kind] && was.classes[kind] != 0 && is.classes[kind] != 0
	}
	if !lead {
		return // who is of a new kind is new, or of another one than before
	}
	for a, m := range is.members.Members.All() {
		if was.classOf(m.Kind) == is.classOf(m.Kind) {
			continue
		}
		if old, had := was.members.Members.Get(a); had && old == m {
			put(a, &old, &m)
		}
	}
}

// Among returns the ruleset for a crowd of the same kinds. It shares all else.
func (r *Ruleset) Among(crowd *policies.Crowd) *Ruleset {
	next := *r
	next.Sets = slices.Clone(r.Sets)
	for i := range next.Sets {
		if c := &next.Sets[i].Crowd; c.members != nil {
			c.members = crowd
		}
	}
	return &next
}
