package query

import (
	"maps"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// Selected says what a label selector of Kubernetes selects now: pods, by
// workload, and namespaces. What is on a node's network is told apart, for no
// policy selects it.
func Selected(j *reach.Judge, s selector.Selector) Answer {
	return selected(j.Model(), func(p *policies.Pod) policies.Truth {
		if s.Matches(p.Labels) {
			return policies.Yes
		}
		return policies.No
	}, func(n *policies.Namespace) policies.Truth { return reach.InNamespace(s, n) })
}

// SelectedByCalico says what a selector of Calico selects now: pods, by
// workload, with the labels that they inherit, network sets and host endpoints;
// and namespaces, as a namespaceSelector would. It takes global() for what it is
// there, whatever is in no namespace.
func SelectedByCalico(j *reach.Judge, e selector.Expression) Answer {
	m := j.Model()
	s, ofNamespace, inherited := e.Selector(), e.Of(policies.NamespacePrefix, policies.CalicoNamespace).Selector(), m.Inherited()
	if e.IsGlobal() {
		s = ofNamespace
	}
	answer := selected(m, func(p *policies.Pod) policies.Truth {
		return truth(s.Test(func(key string) (string, bool, bool) { return inherited(p, key) }))
	}, func(n *policies.Namespace) policies.Truth {
		return truth(ofNamespace.Test(n.Inherited))
	})
	for i := range m.Sets {
		set := &m.Sets[i]
		namespace := namespaceOf(m, set.Ref.Namespace)
		in := truth(s.Test(func(key string) (string, bool, bool) {
			value, has := set.Labels[key]
			if has || set.Ref.Namespace == "" {
				return value, has, true
			}
			return namespace.Inherited(key)
		}))
		answer.add(in, Row{What: "network set", Peer: peerOf(set.Ref), At: set.Place}, "the labels of its namespace are not known, for it is not in the files")
	}
	for i := range m.Hosts {
		host := &m.Hosts[i]
		if s.Matches(host.Labels) {
			answer.Rows = append(answer.Rows, Row{What: "host endpoint", Peer: peerOf(host.Ref), At: host.Place})
		}
	}
	return answer
}

// selected is an answer about pods, by workload, and then namespaces.
func selected(m *policies.Model, isPod func(*policies.Pod) policies.Truth, isNamespace func(*policies.Namespace) policies.Truth) Answer {
	answer := Answer{Question: Selector}
	var pods, perhaps, hosts members
	inside := map[string]int{}
	for i := range m.Pods {
		p := &m.Pods[i]
		inside[p.Ref.Namespace]++
		switch in := isPod(p); {
		case in == policies.No:
		case p.HostNetwork:
			hosts.add(p)
		case in == policies.Maybe:
			perhaps.add(p)
		default:
			pods.add(p)
		}
	}
	answer.Rows = append(answer.Rows, pods.rows(Row{What: "pods"})...)
	answer.Rows = append(answer.Rows, perhaps.rows(Row{What: "pods, perhaps", Because: "labels that they inherit are not known, for their namespace or service account is not in the files"})...)
	answer.Rows = append(answer.Rows, hosts.rows(Row{What: "pods", Because: "they are on their node's network, so no policy selects them"})...)
	byName := map[string]*policies.Namespace{}
	for i := range m.Namespaces {
		byName[m.Namespaces[i].Name] = &m.Namespaces[i]
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		n := byName[name]
		row := Row{What: "namespace", Peer: &policies.Peer{Kind: "Namespace", Name: name}, Pods: inside[name], At: n.Place}
		answer.add(isNamespace(n), row, "its labels are not known, for it is not in the files")
	}
	return answer
}

// add adds a row about what is selected, or about what may be and why.
func (a *Answer) add(in policies.Truth, row Row, because string) {
	if in == policies.Maybe {
		row.What, row.Because = row.What+", perhaps", because
	}
	if in != policies.No {
		a.Rows = append(a.Rows, row)
	}
}

func peerOf(r policies.Ref) *policies.Peer {
	return &policies.Peer{Namespace: r.Namespace, Name: r.Name, Kind: r.Kind}
}

// namespaceOf returns a namespace of the model, or one of which nothing but the
// name is known.
func namespaceOf(m *policies.Model, name string) *policies.Namespace {
	if i := slices.IndexFunc(m.Namespaces, func(n policies.Namespace) bool { return n.Name == name }); i >= 0 {
		return &m.Namespaces[i]
	}
	return &policies.Namespace{Name: name, Implied: true}
}

// truth is what holds for sure, or else perhaps.
func truth(sure, possible bool) policies.Truth {
	switch {
	case sure:
		return policies.Yes
	case possible:
		return policies.Maybe
	}
	return policies.No
}
