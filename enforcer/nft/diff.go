package nft

import (
	"reflect"
	"slices"
	"strings"
)

// Change is what leads from one ruleset to another. In what is added, sets have all
// their elements and chains all their rules.
type Change struct {
	AddCounters, DeleteCounters []string
	AddSets                     []Set
	DeleteSets                  []string
	// Update are sets that stay: the elements that come and go. One that gets another
	// verdict is among both.
	Update    []Update
	AddChains []Chain
	// Rewrite are chains that stay and get other rules.
	Rewrite      []Chain
	DeleteChains []string
}

// Update is the elements that a set gets and loses. Set has no elements of its own.
type Update struct {
	Set
	Add, Delete []Element
}

// IsEmpty reports whether nothing changes.
func (c *Change) IsEmpty() bool {
	return len(c.AddCounters)+len(c.DeleteCounters)+len(c.AddSets)+len(c.DeleteSets)+len(c.Update)+len(c.AddChains)+len(c.Rewrite)+len(c.DeleteChains) == 0
}

// Elements counts the elements that come and go.
func (c *Change) Elements() int {
	n := 0
	for i := range c.AddSets {
		n += c.AddSets[i].Len()
	}
	for i := range c.Update {
		n += len(c.Update[i].Add) + len(c.Update[i].Delete)
	}
	return n
}

// Diff returns what changes from one ruleset to another.
func Diff(from, to *Ruleset) *Change {
	c := &Change{}
	c.AddCounters, c.DeleteCounters = differ(from.Counters, to.Counters)
	pair(from.Sets, to.Sets, func(s *Set) string { return s.Name }, func(was, is *Set) {
		switch {
		case is == nil:
			c.DeleteSets = append(c.DeleteSets, was.Name)
		case was == nil:
			c.AddSets = append(c.AddSets, *is)
		default: // a set of a name has always the same key: names say what sets are for
			u := Update{Set: *is}
			u.Elements, u.Crowd = nil, Crowd{}
			if !isSame(was.Elements, is.Elements) {
				u.Add, u.Delete = elementsDiffer(was.Elements, is.Elements)
			}
			u.crowds(&was.Crowd, &is.Crowd)
			if len(u.Add)+len(u.Delete) > 0 {
				c.Update = append(c.Update, u)
			}
		}
	})
	pair(from.Chains, to.Chains, func(c *Chain) string { return c.Name }, func(was, is *Chain) {
		switch {
		case is == nil:
			c.DeleteChains = append(c.DeleteChains, was.Name)
		case was == nil:
			c.AddChains = append(c.AddChains, *is)
		case !isSame(was.Rules, is.Rules) && !slices.EqualFunc(was.Rules, is.Rules, sameRule):
			c.Rewrite = append(c.Rewrite, *is)
		}
	})
	return c
}

// pair calls do with what has the same name in two lists that are sorted by names; with
// nil for what is in one only.
func pair[T any](from, to []T, name func(*T) string, do func(was, is *T)) {
	for len(from) > 0 || len(to) > 0 {
		order := 0
		switch {
		case len(from) == 0:
			order = 1
		case len(to) == 0:
			order = -1
		default:
			order = strings.Compare(name(&from[0]), name(&to[0]))
		}
		var was, is *T
		if order <= 0 {
			was, from = &from[0], from[1:]
		}
		if order >= 0 {
			is, to = &to[0], to[1:]
		}
		do(was, is)
	}
}

// isSame reports whether two lists are one in memory.
func isSame[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func sameRule(a, b Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Statement) bool { return reflect.DeepEqual(x, y) })
}

// differ returns what of two sorted lists is only in the second, and only in the
// first.
func differ(from, to []string) (added, removed []string) {
	for _, x := range to {
		if _, found := slices.BinarySearch(from, x); !found {
			added = append(added, x)
		}
	}
	for _, x := range from {
		if _, found := slices.BinarySearch(to, x); !found {
			removed = append(removed, x)
		}
	}
	return added, removed
}

// elementsDiffer is that for elements, sorted by their first keys.
func elementsDiffer(from, to []Element) (added, removed []Element) {
	for len(from) > 0 && len(to) > 0 {
		switch x, y := from[0], to[0]; {
		case x == y:
			from, to = from[1:], to[1:]
		case x.First < y.First:
			removed, from = append(removed, x), from[1:]
		case x.First > y.First:
			added, to = append(added, y), to[1:]
		default:
			removed, added = append(removed, x), append(added, y)
			from, to = from[1:], to[1:]
		}
	}
	return append(added, to...), append(removed, from...)
}
