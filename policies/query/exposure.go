package query

import (
	"fmt"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// ExposureOf says which workloads addresses outside can reach and which can reach
// them, and what could come to be reached or to reach: a new pod in a new
// namespace, and the pods that some rule's selectors describe, wherever a new
// one would have more than that.
func ExposureOf(j *reach.Judge, o reach.Options) Answer {
	answer := Answer{Question: Exposure}
	world, err := j.Model().Find("world")
	if err != nil {
		panic(err) // the world outside is always there
	}
	for c := range j.Connections(reach.Listing{From: &world}) {
		answer.Rows = append(answer.Rows, Row{What: "is reached by", Peer: c.To, Other: c.From, Ports: c.Allow, Perhaps: c.Unknown})
	}
	for c := range j.Connections(reach.Listing{To: &world}) {
		answer.Rows = append(answer.Rows, Row{What: "reaches", Peer: c.From, Other: c.To, Ports: c.Allow, Perhaps: c.Unknown})
	}
	answer.Rows = append(answer.Rows, potential(j.Model(), o)...)
	return answer
}

// stranger is a pod that is not there and could be.
type stranger struct {
	text string
	pod  int
}

// potential adds a pod for everyone that could come, and asks what it reaches and
// what reaches it.
func potential(m *policies.Model, o reach.Options) []Row {
	with, strangers := invite(m)
	j := reach.New(with, o)
	everyone := map[string]bool{}
	var rows []Row
	for i, s := range strangers {
		pods := policies.Target{Pods: []int{s.pod}}
		residents := policies.Target{}
		for k := range m.Pods {
			residents.Pods = append(residents.Pods, k)
		}
		list := func(what string, l reach.Listing, resident func(policies.Connection) *policies.Peer) {
			for c := range j.Connections(l) {
				key := fmt.Sprint(what, *resident(c), c.Allow, c.Unknown)
				if i == 0 {
					everyone[key] = true
				} else if everyone[key] {
					continue
				}
				rows = append(rows, Row{What: what, Peer: resident(c), Could: s.text, Ports: c.Allow, Perhaps: c.Unknown})
			}
		}
		list("could be reached by", reach.Listing{From: &pods, To: &residents}, func(c policies.Connection) *policies.Peer { return c.To })
		list("could reach", reach.Listing{From: &residents, To: &pods}, func(c policies.Connection) *policies.Peer { return c.From })
	}
	return rows
}

// invite returns a model with a pod more for everyone that could come: first one
// of whom nothing is known but that its namespace is new, then one for each pair
// of selectors in a rule that no pod of the world meets, or that any new
// namespace can meet by its labels.
func invite(m *policies.Model) (*policies.Model, []stranger) {
	with := *m
	with.Namespaces, with.Pods = slices.Clone(m.Namespaces), slices.Clone(m.Pods)
	var strangers []stranger
	add := func(text, namespace string, labels map[string]string) {
		ref := policies.Ref{Kind: "Pod", Namespace: namespace, Name: fmt.Sprintf("new-pod-%d", len(strangers))}
		strangers = append(strangers, stranger{text, len(with.Pods)})
		with.Pods = append(with.Pods, policies.Pod{Ref: ref, Workload: ref, Replicas: 1, Labels: labels})
	}
	found := func(labels map[string]string) string {
		name := fmt.Sprintf("new-namespace-%d", len(strangers))
		for slices.ContainsFunc(with.Namespaces, func(n policies.Namespace) bool { return n.Name == name }) {
			name += "-again"
		}
		if given := labels[policies.NameLabel]; given != "" {
			name = given
		}
		labels[policies.NameLabel] = name
		with.Namespaces = append(with.Namespaces, policies.Namespace{Name: name, Labels: labels})
		return name
	}
	add("any pod of a new namespace", found(map[string]string{}), nil)
	seen := map[string]bool{}
	for _, match := range selectors(m) {
		text := match.String()
		pod, ok := example(match.Pods)
		if seen[text] || !ok {
			continue
		}
		seen[text] = true
		names := named(match.Namespaces)
		switch {
		case names == nil:
			if labels, ok := example(match.Namespaces); ok {
				add(text, found(labels), pod)
			}
		case !met(m, match):
			for _, name := range names {
				at := slices.IndexFunc(with.Namespaces, func(n policies.Namespace) bool { return n.Name == name })
				labels, ok := example(match.Namespaces)
				if at < 0 && ok {
					labels[policies.NameLabel] = name
					found(labels)
				}
				if ok && (at < 0 || reach.InNamespace(match.Namespaces, &with.Namespaces[at]) == policies.Yes) {
					add(text, name, pod)
				}
			}
		}
	}
	return &with, strangers
}

// selectors returns the peers of all rules that are described by labels.
func selectors(m *policies.Model) []policies.Match {
	var all []policies.Match
	for i := range m.Policies {
		for _, d := range policies.Directions {
			for _, r := range m.Policies[i].Rules[d] {
				for _, p := range r.Peers {
					if !p.Anyone && !p.Namespaces.IsNothing() && !p.Pods.IsNothing() {
						all = append(all, p)
					}
				}
			}
		}
	}
	return all
}

// named returns the names of the only namespaces that a selector is for; nil
// where it is for any.
func named(s selector.Selector) []string {
	for _, r := range s.Requirements() {
		if r.Key == policies.NameLabel && r.Operator == selector.In {
			return r.Values
		}
	}
	return nil
}

// met reports whether some pod of the world is one that a match describes.
func met(m *policies.Model, match policies.Match) bool {
	in := map[string]bool{}
	for i := range m.Namespaces {
		in[m.Namespaces[i].Name] = reach.InNamespace(match.Namespaces, &m.Namespaces[i]) != policies.No
	}
	return slices.ContainsFunc(m.Pods, func(p policies.Pod) bool {
		return !p.HostNetwork && in[p.Ref.Namespace] && match.Pods.Matches(p.Labels)
	})
}

// example returns labels that a selector matches; false where none do.
func example(s selector.Selector) (map[string]string, bool) {
	byKey := map[string][]selector.Requirement{}
	for _, r := range s.Requirements() {
		byKey[r.Key] = append(byKey[r.Key], r)
	}
	labels := map[string]string{}
	for key, requirements := range byKey {
		value, has, ok := choose(requirements)
		switch {
		case !ok:
			return nil, false
		case has:
			labels[key] = value
		}
	}
	return labels, s.Matches(labels)
}

// choose returns a value, or none, with which a label meets all requirements on
// its key.
func choose(requirements []selector.Requirement) (value string, has, ok bool) {
	meets := func(value string, has bool) bool {
		return !slices.ContainsFunc(requirements, func(r selector.Requirement) bool { return !r.Holds(value, has) })
	}
	if meets("", false) {
		return "", false, true
	}
	fresh := "new"
	for _, r := range requirements {
		for _, v := range r.Values {
			if r.Operator == selector.In && meets(v, true) {
				return v, true, true
			}
			if r.Operator == selector.NotIn && v >= fresh {
				fresh = v + "-new"
			}
		}
	}
	return fresh, true, meets(fresh, true)
}
