package nft

import (
	"maps"
	"slices"
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
		n += len(c.AddSets[i].Elements)
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
	before, after := map[string]*Set{}, map[string]*Set{}
	for i := range from.Sets {
		before[from.Sets[i].Name] = &from.Sets[i]
	}
	for i := range to.Sets {
		after[to.Sets[i].Name] = &to.Sets[i]
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if after[name] == nil {
			c.DeleteSets = append(c.DeleteSets, name)
		}
	}
	for i := range to.Sets {
		s := &to.Sets[i]
		was := before[s.Name]
		if was == nil {
			c.AddSets = append(c.AddSets, *s)
			continue
		}
		// A set of a name has always the same key: names say what sets are for.
		u := Update{Set: *s}
		u.Elements = nil
		u.Add, u.Delete = elementsDiffer(was.Elements, s.Elements)
		if len(u.Add)+len(u.Delete) > 0 {
			c.Update = append(c.Update, u)
		}
	}
	c.chains(from.Chains, to.Chains)
	return c
}

func (c *Change) chains(from, to []Chain) {
	before, after := map[string]*Chain{}, map[string]bool{}
	for i := range from {
		before[from[i].Name] = &from[i]
	}
	for _, chain := range to {
		after[chain.Name] = true
		switch was := before[chain.Name]; {
		case was == nil:
			c.AddChains = append(c.AddChains, chain)
		case !slices.EqualFunc(was.Rules, chain.Rules, sameRule):
			c.Rewrite = append(c.Rewrite, chain)
		}
	}
	for _, chain := range from {
		if !after[chain.Name] {
			c.DeleteChains = append(c.DeleteChains, chain.Name)
		}
	}
}

func sameRule(a, b Rule) bool {
	return slices.EqualFunc(a, b, func(x, y Statement) bool { return x.String() == y.String() })
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
