package query

import (
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// UnusedRules says which policies select nothing and which rules of the others
// match nothing. Where used is not nil, it tells of a rule how many recorded flows it
// decided and when the last was seen; rules without any, or with none since the
// given time, are then named too, those longest unused first.
func UnusedRules(a *reach.Audit, used func(reach.RuleID) (uint64, time.Time), since time.Time) Answer {
	m := a.Model()
	answer := Answer{Question: Unused}
	var nothing, idle []Row
	for _, p := range a.Order() {
		if m.Policies[p].IsBuiltIn() {
			continue
		}
		if !a.Selects(p) {
			row := rowOf(m, "selects nothing", reach.RuleID{Policy: p, Rule: reach.WholePolicy})
			row.Because = "it is for " + m.Policies[p].Subject.String()
			answer.Rows = append(answer.Rows, row)
			continue
		}
		for _, d := range policies.Directions {
			for r := range m.Policies[p].Rules[d] {
				id := reach.RuleID{Policy: p, Direction: d, Rule: r}
				var flows uint64
				var last time.Time
				if used != nil {
					flows, last = used(id)
				}
				switch {
				case !a.MatchesAny(id):
					row := rowOf(m, "matches nothing", id)
					row.Because = "it is for " + matchText(&m.Policies[p].Rules[d][r])
					nothing = append(nothing, row)
				case used != nil && flows == 0:
					idle = append(idle, rowOf(m, "never used", id))
				case used != nil && last.Before(since):
					row := rowOf(m, "not used since", id)
					row.Flows, row.Last = flows, last
					idle = append(idle, row)
				}
			}
		}
	}
	slices.SortStableFunc(idle, func(x, y Row) int { return x.Last.Compare(y.Last) })
	answer.Rows = append(append(answer.Rows, nothing...), idle...)
	return answer
}
