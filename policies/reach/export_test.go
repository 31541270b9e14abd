package reach

import (
	"net/netip"

	"github.com/weir-policy/weir/policies"
)

// Is reports whether a match describes an end at one of its addresses, rule by rule
// as Decide goes about it.
func (j *Judge) Is(m *policies.Match, e End) policies.Truth {
	q := inquiry{Judge: j}
	best := policies.No
	var buf [2]int32
	for _, column := range j.columnsOf(e, &buf) {
		if q.family = j.columns[column].families & ipv4; q.family == 0 {
			q.family = ipv6
		}
		q.found = map[End][]finding{}
		best = best.Or(q.is(m, j.facing(e, column)))
	}
	return best
}

// Ranges returns the first and the last address of each range that no rule cuts.
func (j *Judge) Ranges() [][2]netip.Addr {
	var all [][2]netip.Addr
	for _, a := range j.atoms {
		all = append(all, [2]netip.Addr{a.first, a.last})
	}
	return all
}
