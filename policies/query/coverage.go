package query

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// Uncovered says which pods no policy isolates, by workload and direction: what no
// rule forbids is open to them. It says so of nodes, too, where any has host
// endpoints: what is on a node's network is isolated where its host endpoints are.
func Uncovered(j *reach.Judge) Answer {
	m, parts := j.Model(), j.Parts()
	answer := Answer{Question: Coverage}
	for _, d := range []policies.Direction{policies.Ingress, policies.Egress} {
		var bare, ruled, perhaps, hosts, ruledHosts, perhapsHosts members
		for i := range m.Pods {
			p := &m.Pods[i]
			isolates, isRuled := parts.Isolates(d, j.Pod(i)), len(j.Governing(d, j.Pod(i))) > 0
			switch {
			case isolates == policies.Yes:
			case isolates == policies.Maybe && p.HostNetwork:
				perhapsHosts.add(p)
			case isolates == policies.Maybe:
				perhaps.add(p)
			case isRuled && p.HostNetwork:
				ruledHosts.add(p)
			case isRuled:
				ruled.add(p)
			case p.HostNetwork:
				hosts.add(p)
			default:
				bare.add(p)
			}
		}
		add := func(w *members, what, because string) {
			answer.Rows = append(answer.Rows, w.rows(Row{What: what, Direction: d.String(), Because: because})...)
		}
		const open, doubt = "not isolated", "perhaps isolated"
		add(&bare, open, "no policy selects it")
		add(&ruled, open, "no policy that selects it denies what no rule is for")
		add(&hosts, open, "it is on its node's network, which no policy selects")
		add(&ruledHosts, open, "it is on its node's network, and the host endpoints there deny nothing that no rule is for")
		add(&perhaps, doubt, "it is not known whether a policy selects it, or what that policy does")
		add(&perhapsHosts, doubt, "it is on its node's network, and it is not known whether its traffic passes a host endpoint that denies what no rule is for")
		answer.Rows = append(answer.Rows, uncoveredNodes(j, parts, d)...)
	}
	return answer
}

// uncoveredNodes returns the nodes whose own traffic no host endpoint isolates, none
// where there are no host endpoints.
func uncoveredNodes(j *reach.Judge, parts *reach.Parts, d policies.Direction) []Row {
	m := j.Model()
	if len(m.Hosts) == 0 {
		return nil
	}
	var rows []Row
	for i := range m.Nodes {
		row := Row{What: "not isolated", Direction: d.String(), Peer: &policies.Peer{Kind: "Node", Name: m.Nodes[i].Name}, At: m.Nodes[i].Place}
		switch isolates := parts.Isolates(d, j.Node(i)); {
		case isolates == policies.Yes:
			continue
		case isolates == policies.Maybe:
			row.What, row.Because = "perhaps isolated", "it is not known whether all its traffic passes a host endpoint that denies what no rule is for"
		case len(j.Governing(d, j.Node(i))) > 0:
			row.Because = "its host endpoints deny nothing that no rule is for"
		default:
			row.Because = "it has no host endpoint"
		}
		rows = append(rows, row)
	}
	return rows
}
