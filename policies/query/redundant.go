package query

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// RedundantRules says which policies, and which rules of the others, could go
// without any decision changing: each by itself, for of two that do the same
// either may go, but not both. What concerns nothing is left to UnusedRules.
func RedundantRules(a *reach.Audit) Answer {
	answer := Answer{Question: Redundant}
	add := func(r reach.RuleID) bool {
		row := rowOf(a.Model(), "changes nothing", r)
		switch a.Removal(r) {
		case reach.Nothing:
			row.Because = "other rules decide the same without it"
			if p := &a.Model().Policies[r.Policy]; r.Rule == reach.WholePolicy && len(p.Rules[0])+len(p.Rules[1]) == 0 {
				row.Because = "other policies isolate all that it selects now"
			} else if r.Rule == reach.WholePolicy {
				row.Because = "other policies decide the same without it"
			}
		case reach.Elsewhere:
			row.Because = "the other end denies what it alone decides, or is the pod itself"
		default:
			return false
		}
		answer.Rows = append(answer.Rows, row)
		return true
	}
	m := a.Model()
	for _, p := range a.Order() {
		if m.Policies[p].IsBuiltIn() || !a.Selects(p) || add(reach.RuleID{Policy: p, Rule: reach.WholePolicy}) {
			continue
		}
		for _, d := range policies.Directions {
			for r := range m.Policies[p].Rules[d] {
				if id := (reach.RuleID{Policy: p, Direction: d, Rule: r}); a.MatchesAny(id) {
					add(id)
				}
			}
		}
	}
	return answer
}
