package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// stranger is a pod that is not there and could be.
type stranger struct {
	text string
	pod  int
}

// invite returns a model with a pod more for everyone that could come: first one
// of whom nothing is known but that its namespace is new, then one for each way
// to meet the selectors of a rule that no pod of the world goes, or that a pod of
// any new namespace could go by that one's labels.
func invite(m *policies.Model) (*policies.Model, []stranger) {
	g := guests{Model: *m}
	g.Namespaces, g.Pods, g.Accounts = slices.Clone(m.Namespaces), slices.Clone(m.Pods), slices.Clone(m.Accounts)
	g.add("any pod of a new namespace", wish{})
	seen := map[string]bool{}
	inherited, within := m.Inherited(), map[string][]*policies.Pod{}
	for i := range m.Pods {
		if p := &m.Pods[i]; !p.HostNetwork {
			within[p.Ref.Namespace] = append(within[p.Ref.Namespace], p)
		}
	}
	for _, way := range ways(m) {
		text := way.String()
		if seen[text] {
			continue
		}
		seen[text] = true
		for _, w := range wishes(&way) {
			in := namespaceOf(m, w.in)
			isMet := func(p *policies.Pod) bool { return describes(&way, p, in, inherited) }
			if w.in != "" && slices.ContainsFunc(within[w.in], isMet) {
				continue
			}
			before := g
			g.add(text, w)
			last := &g.Pods[len(g.Pods)-1]
			if !describes(&way, last, namespaceOf(&g.Model, last.Ref.Namespace), g.Inherited()) {
				g = before
			}
		}
	}
	return &g.Model, g.strangers
}

// describes reports whether a match that selects describes a pod, or may.
func describes(m *policies.Match, p *policies.Pod, n *policies.Namespace, inherited func(*policies.Pod, string) (string, bool, bool)) bool {
	if reach.InNamespace(m.Namespaces, n) == policies.No {
		return false
	}
	_, possible := m.Pods.Test(func(key string) (string, bool, bool) {
		if value, has := p.Labels[key]; has || !m.Endpoints {
			return value, has, true
		}
		return inherited(p, key)
	})
	return possible
}

// mostWays is how many ways to meet one selector are looked at.
const mostWays = 16

// ways returns the ways to meet the selectors of all rules' peers: each a match
// whose selectors are conjunctions.
func ways(m *policies.Model) []policies.Match {
	var all []policies.Match
	var add func([]policies.Match)
	add = func(matches []policies.Match) {
		for i := range matches {
			p := &matches[i]
			add(p.Any)
			add(p.All)
			if p.Anyone {
				continue
			}
			for _, in := range p.Namespaces.Ways(mostWays) {
				for _, pods := range p.Pods.Ways(mostWays) {
					all = append(all, policies.Match{Namespaces: in, Pods: pods, Endpoints: p.Endpoints})
				}
			}
		}
	}
	for i := range m.Policies {
		for _, d := range policies.Directions {
			for _, r := range m.Policies[i].Rules[d] {
				add(r.Peers)
			}
		}
	}
	return all
}

// wish is what a pod must be like to be described.
type wish struct {
	in                          string // its namespace; any new one for ""
	account                     string // its service account; any new one for ""
	pod, namespace, accountsOwn map[string]string
}

// wishes returns what a pod must be like for a match whose selectors are
// conjunctions, once for each namespace that those name. There are none where no
// pod can be so, or no labels were found that are.
func wishes(m *policies.Match) []wish {
	var pod, name, namespace, account, accountName []selector.Requirement
	ofNamespace := func(r selector.Requirement) {
		if r.Key == policies.NameLabel || m.Endpoints && r.Key == policies.CalicoName {
			name = append(name, r)
		} else {
			namespace = append(namespace, r)
		}
	}
	for _, r := range m.Namespaces.Requirements() {
		ofNamespace(r)
	}
	for _, r := range m.Pods.Requirements() {
		key, isNamespaces := strings.CutPrefix(r.Key, policies.NamespacePrefix)
		own, isAccounts := strings.CutPrefix(r.Key, policies.AccountPrefix)
		switch {
		case !m.Endpoints:
			pod = append(pod, r)
		case isNamespaces:
			r.Key = key
			ofNamespace(r)
		case r.Key == policies.CalicoNamespace:
			name = append(name, r)
		case r.Key == policies.CalicoServiceAccount, own == policies.CalicoName:
			accountName = append(accountName, r)
		case isAccounts:
			r.Key = own
			account = append(account, r)
		case r.Key != policies.CalicoOrchestrator:
			pod = append(pod, r)
		}
	}
	w, ok := wish{}, true
	for _, part := range []struct {
		labels       *map[string]string
		requirements []selector.Requirement
	}{{&w.pod, pod}, {&w.namespace, namespace}, {&w.accountsOwn, account}} {
		labels, found := example(part.requirements)
		*part.labels, ok = labels, ok && found
	}
	accounts, some := names(accountName)
	if !ok || !some {
		return nil
	}
	w.account = accounts[0]
	all, _ := names(name)
	var wishes []wish
	for _, w.in = range all {
		wishes = append(wishes, w)
	}
	return wishes
}

// names returns names that meet requirements: those that one of them names, one
// that was found, or "" for any. It is false where there are none.
func names(requirements []selector.Requirement) ([]string, bool) {
	var all []string
	meets := func(name string) bool {
		return !slices.ContainsFunc(requirements, func(r selector.Requirement) bool { return !r.Holds(name, true) })
	}
	for _, r := range requirements {
		if r.Operator == selector.In {
			for _, name := range r.Values {
				if meets(name) {
					all = append(all, name)
				}
			}
			return all, len(all) > 0
		}
	}
	if meets("new-name") {
		return []string{""}, true
	}
	name, _, ok := choose(requirements)
	if !ok || !meets(name) {
		return nil, false
	}
	return []string{name}, true
}

// example returns labels that meet requirements; false where none were found.
func example(requirements []selector.Requirement) (map[string]string, bool) {
	byKey := map[string][]selector.Requirement{}
	for _, r := range requirements {
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
	return labels, true
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
	var start, middle, end string
	fresh := "new"
	for _, r := range requirements {
		switch r.Operator {
		case selector.In:
			for _, v := range r.Values {
				if meets(v, true) {
					return v, true, true
				}
			}
		case selector.NotIn:
			for _, v := range r.Values {
				if v >= fresh {
					fresh = v + "-new"
				}
			}
		case selector.StartsWith:
			start = longer(start, r.Values[0])
		case selector.EndsWith:
			end = longer(end, r.Values[0])
		case selector.Contains:
			middle += r.Values[0]
		}
	}
	for _, v := range []string{start + middle + end, start + end, start + middle + fresh + end, fresh, "x"} {
		if meets(v, true) {
			return v, true, true
		}
	}
	return "", false, false
}

func longer(a, b string) string {
	if len(b) > len(a) {
		return b
	}
	return a
}

// guests is a model to which strangers are added.
type guests struct {
	policies.Model
	strangers []stranger
}

// add adds a pod as it is wished for, with its namespace and its service account
// where those are not there.
func (g *guests) add(text string, w wish) {
	free := func(name string, taken func(string) bool) string {
		name = fmt.Sprintf("%s-%d", name, len(g.strangers))
		for taken(name) {
			name += "-again"
		}
		return name
	}
	hasNamespace := func(name string) bool {
		return slices.ContainsFunc(g.Namespaces, func(n policies.Namespace) bool { return n.Name == name })
	}
	if w.in == "" {
		w.in = free("new-namespace", hasNamespace)
	}
	if !hasNamespace(w.in) {
		labels := map[string]string{policies.NameLabel: w.in}
		for key, value := range w.namespace {
			labels[key] = value
		}
		g.Namespaces = append(g.Namespaces, policies.Namespace{Name: w.in, Labels: labels})
	}
	hasAccount := func(name string) bool {
		return slices.ContainsFunc(g.Accounts, func(a policies.ServiceAccount) bool {
			return a.Ref.Namespace == w.in && a.Ref.Name == name
		})
	}
	if w.account == "" {
		w.account = free("new-account", hasAccount)
	}
	isUsed := slices.ContainsFunc(g.Pods, func(p policies.Pod) bool { return p.Ref.Namespace == w.in && p.ServiceAccount == w.account })
	if !hasAccount(w.account) && !isUsed { // its labels would become known to those who use it
		ref := policies.Ref{Kind: "ServiceAccount", Namespace: w.in, Name: w.account}
		g.Accounts = append(g.Accounts, policies.ServiceAccount{Ref: ref, Labels: w.accountsOwn})
	}
	ref := policies.Ref{Kind: "Pod", Namespace: w.in, Name: fmt.Sprintf("new-pod-%d", len(g.strangers))}
	g.strangers = append(g.strangers, stranger{text, len(g.Pods)})
	g.Pods = append(g.Pods, policies.Pod{Ref: ref, Workload: ref, Replicas: 1, Labels: w.pod, ServiceAccount: w.account})
}
