package query

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// Uncovered says which pods no policy isolates, by workload and direction:
// what no rule forbids is open to them.
func Uncovered(j *reach.Judge) Answer {
	m, parts := j.Model(), j.Parts()
	answer := Answer{Question: Coverage}
	for _, d := range []policies.Direction{policies.Ingress, policies.Egress} {
		var bare, ruled, perhaps, hosts members
		for i := range m.Pods {
			p := &m.Pods[i]
			switch isolates := parts.Isolates(d, j.Pod(i)); {
			case p.HostNetwork:
				hosts.add(p)
			case isolates == policies.Maybe:
				perhaps.add(p)
			case isolates == policies.Yes:
			case len(j.Governing(d, j.Pod(i))) > 0:
				ruled.add(p)
			default:
				bare.add(p)
			}
		}
		add := func(w *members, what, because string) {
			answer.Rows = append(answer.Rows, w.rows(Row{What: what, Direction: d.String(), Because: because})...)
		}
		add(&bare, "not isolated", "no policy selects it")
		add(&ruled, "not isolated", "no policy that selects it denies what no rule is for")
		add(&hosts, "not isolated", "it is on its node's network, which no policy selects")
		add(&perhaps, "perhaps isolated", "it is not known whether a policy selects it, or what that policy does")
	}
	return answer
}
