package query

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// RedundantRules says which policies, and which rules of the others, could go
// without any decision changing: each by itself, for of two that do the same
// either may go, but not both. What concerns nothing is left to UnusedRules, and
// what logs has an effect although it decides nothing.
func RedundantRules(a *reach.Audit) Answer {
	answer := Answer{Question: Redundant}
	m := a.Model()
	add := func(r reach.RuleID) bool {
		because, is := spare(a, r)
		if is {
			row := rowOf(m, "changes nothing", r)
			row.Because = because
			answer.Rows = append(answer.Rows, row)
		}
		return is
	}
	for _, p := range a.Order() {
		if m.Policies[p].IsBuiltIn() || !a.Selects(p) || !logs(&m.Policies[p]) && add(reach.RuleID{Policy: p, Rule: reach.WholePolicy}) {
			continue
		}
		for _, d := range policies.Directions {
			for r, rule := range m.Policies[p].Rules[d] {
				if id := (reach.RuleID{Policy: p, Direction: d, Rule: r}); rule.Action != policies.ActionLog && a.MatchesAny(id) {
					add(id)
				}
			}
		}
	}
	return answer
}

// spare says why a rule or policy could go, where it could.
func spare(a *reach.Audit, r reach.RuleID) (because string, is bool) {
	p := &a.Model().Policies[r.Policy]
	switch a.Removal(r) {
	case reach.Nothing:
	case reach.Elsewhere:
		return "the other end denies what it alone decides, or is the pod itself", true
	default:
		return "", false
	}
	switch {
	case r.Rule != reach.WholePolicy && p.Rules[r.Direction][r.Rule].Action == policies.ActionPass:
		return "other rules, or the end of its tier, do the same without it", true
	case r.Rule != reach.WholePolicy:
		return "other rules decide the same without it", true
	case len(p.Rules[0])+len(p.Rules[1]) == 0:
		return "other policies isolate all that it selects now", true
	}
	return "other policies decide the same without it", true
}

func logs(p *policies.Policy) bool {
	is := func(r policies.Rule) bool { return r.Action == policies.ActionLog }
	return slices.ContainsFunc(p.Rules[0], is) || slices.ContainsFunc(p.Rules[1], is)
}
