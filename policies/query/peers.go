package query

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// PeersOf says what a policy applies to, by workload, and what each of its rules
// matches.
func PeersOf(a *reach.Audit, policy int) Answer {
	m := a.Model()
	answer := Answer{Question: Peers}
	var sure, maybe members
	for i := range m.Pods {
		truth := policies.No
		for _, d := range policies.Directions {
			at := slices.IndexFunc(a.Governing(d, a.Pod(i)), func(g reach.Governs) bool { return g.Policy == policy })
			if at >= 0 {
				truth = truth.Or(a.Governing(d, a.Pod(i))[at].Truth)
			}
		}
		switch truth {
		case policies.Yes:
			sure.add(&m.Pods[i])
		case policies.Maybe:
			maybe.add(&m.Pods[i])
		}
	}
	whole := reach.RuleID{Policy: policy, Rule: reach.WholePolicy}
	answer.Rows = append(answer.Rows, sure.rows(rowOf(m, "applies to", whole))...)
	answer.Rows = append(answer.Rows, maybe.rows(rowOf(m, "may apply to", whole))...)
	for _, d := range policies.Directions {
		for r := range m.Policies[policy].Rules[d] {
			id := reach.RuleID{Policy: policy, Direction: d, Rule: r}
			matched := a.Matched(id)
			if len(matched) == 0 {
				row := rowOf(m, "matches nothing", id)
				row.Because = "it is for " + matchText(&m.Policies[policy].Rules[d][r])
				answer.Rows = append(answer.Rows, row)
			}
			for i := range matched {
				row := rowOf(m, "matches", id)
				if matched[i].Sure.IsEmpty() {
					row.What = "may match"
				}
				row.Peer, row.Ports, row.Perhaps = &matched[i].Peer, matched[i].Sure, matched[i].Perhaps
				answer.Rows = append(answer.Rows, row)
			}
		}
	}
	return answer
}
