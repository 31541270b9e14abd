package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// A set that only a staged policy speaks of is used: it waits.
func unusedSet(l *look) {
	used := make([]bool, len(l.Sets))
	seen := map[string]bool{}
	use := func(m *policies.Match) {
		key := m.Namespaces.Key() + "\x00" + m.Inherited.Key() + "\x00" + m.Pods.Key()
		if !m.Endpoints || seen[key] {
			return
		}
		seen[key] = true
		for _, s := range l.parts.Sets(m) {
			used[s] = true
		}
	}
	all := make([]*policies.Policy, 0, len(l.Policies)+len(l.Staged))
	for i := range l.Policies {
		all = append(all, &l.Policies[i])
	}
	for i := range l.Staged {
		all = append(all, &l.Staged[i].Policy)
	}
	for _, p := range all {
		for _, d := range policies.Directions {
			for i := range p.Rules[d] {
				for k := range p.Rules[d][i].Peers {
					m := &p.Rules[d][i].Peers[k]
					eachPart(m, use)
					for e := range m.Except {
						use(&m.Except[e])
					}
				}
			}
		}
	}
	for i := range l.Sets {
		if s := &l.Sets[i]; !used[i] {
			near := ""
			if labels := labelsOf(s); len(labels) > 0 {
				near = "; its labels are " + firstOf(labels)
			}
			l.reportOf(Note, s.Place, noPolicy, s.Ref, "no rule selects this set, so its addresses make no difference%s; remove it, or correct the selector that is to find it", near)
		}
	}
}

func labelsOf(s *policies.NetworkSet) []string {
	var labels []string
	for k, v := range s.Labels {
		labels = append(labels, k+"="+v)
	}
	slices.Sort(labels)
	return labels
}
