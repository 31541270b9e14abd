package query

import (
	"maps"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// Selected says what a label selector selects now: pods, by workload, and
// namespaces. What is on a node's network is told apart, for no policy selects
// it.
func Selected(j *reach.Judge, s selector.Selector) Answer {
	m := j.Model()
	answer := Answer{Question: Selector}
	var pods, hosts members
	for i := range m.Pods {
		switch p := &m.Pods[i]; {
		case !s.Matches(p.Labels):
		case p.HostNetwork:
			hosts.add(p)
		default:
			pods.add(p)
		}
	}
	answer.Rows = append(pods.rows(Row{What: "pods"}), hosts.rows(Row{What: "pods", Because: "they are on their node's network, so no policy selects them"})...)
	inside := map[string]int{}
	for i := range m.Pods {
		inside[m.Pods[i].Ref.Namespace]++
	}
	byName := map[string]*policies.Namespace{}
	for i := range m.Namespaces {
		byName[m.Namespaces[i].Name] = &m.Namespaces[i]
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		n := byName[name]
		row := Row{What: "namespace", Peer: &policies.Peer{Kind: "Namespace", Name: name}, Pods: inside[name], At: n.Place}
		switch reach.InNamespace(s, n) {
		case policies.Yes:
			answer.Rows = append(answer.Rows, row)
		case policies.Maybe:
			row.What, row.Because = "namespace, perhaps", "its labels are not known, for it is not in the files"
			answer.Rows = append(answer.Rows, row)
		}
	}
	return answer
}
