package diff

import (
	"cmp"
	"slices"
	"sort"

	"github.com/weir-policy/weir/policies"
)

// ranked reports whether the priorities of a model are ranks, each by how many
// policies come before it, as Calico's are. One policy more moves many of them,
// and nothing else about those has changed.
func ranked(m *policies.Model) bool {
	return slices.ContainsFunc(m.Tiers, func(t policies.Tier) bool { return t.Order != 0 })
}

// moved returns the policies of both models, as few as can be, without which the
// others stand in one order in both.
func moved(base, head []policies.Policy) map[policies.Ref]bool {
	was := map[policies.Ref]*policies.Policy{}
	for i := range base {
		was[base[i].Ref] = &base[i]
	}
	type place struct {
		ref      policies.Ref
		was, now int
	}
	tiers := map[string][]place{}
	for i := range head {
		h := &head[i]
		if b, both := was[h.Ref]; both && b.Tier == h.Tier {
			tiers[h.Tier] = append(tiers[h.Tier], place{h.Ref, b.Priority, h.Priority})
		}
	}
	moved := map[policies.Ref]bool{}
	for _, places := range tiers {
		slices.SortFunc(places, func(a, b place) int { return cmp.Or(cmp.Compare(a.now, b.now), cmp.Compare(a.was, b.was)) })
		// Of the runs of n+1 places that kept their order, ends[n] ends the one that
		// can be continued most easily, and before leads back along it.
		var ends []int
		before := make([]int, len(places))
		for i, p := range places {
			n := sort.Search(len(ends), func(n int) bool { return places[ends[n]].was > p.was })
			if n == len(ends) {
				ends = append(ends, i)
			}
			ends[n], before[i] = i, -1
			if n > 0 {
				before[i] = ends[n-1]
			}
			moved[p.ref] = true
		}
		for i := ends[len(ends)-1]; i >= 0; i = before[i] {
			delete(moved, places[i].ref)
		}
	}
	return moved
}
