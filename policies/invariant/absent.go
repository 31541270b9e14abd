package invariant

import (
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// absent says which network sets an invariant names and nobody declares, a clause each,
// in the order in which it names them.
func (s *Set) absent(i *Invariant) (clauses []string) {
	sets := s.judge.World().Sets
	look := func(ref policies.Ref) {
		if slices.ContainsFunc(sets, func(set policies.NetworkSet) bool { return set.Ref == ref }) {
			return
		}
		name := func(r policies.Ref) string { return strings.TrimPrefix(r.Namespace+"/"+r.Name, "/") }
		var names []string
		for k := range sets {
			names = append(names, name(sets[k].Ref))
		}
		clause := "there is no " + ref.Kind + " " + name(ref) + policies.Near(name(ref), names)
		if !slices.Contains(clauses, clause) {
			clauses = append(clauses, clause)
		}
	}
	visit(i.From, look)
	visit(i.To, look)
	for w := range i.Waivers {
		visit(i.Waivers[w].From, look)
		visit(i.Waivers[w].To, look)
	}
	return clauses
}

// visit calls f with the network sets that matches are made of.
func visit(all []policies.Match, f func(policies.Ref)) {
	for k := range all {
		m := &all[k]
		if strings.HasSuffix(m.Object.Kind, "NetworkSet") {
			f(m.Object)
		}
		visit(m.Any, f)
		visit(m.All, f)
		visit(m.Except, f)
	}
}
