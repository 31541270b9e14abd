package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// A selector that only says what is not so describes what Calico knows without
// the label; notSelector describes all addresses but those with it. Who denies
// by the first and meant the second leaves the outside open.
func negatedSelector(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		if r.Action != policies.ActionDeny {
			return
		}
		for k := range r.Peers {
			m := &r.Peers[k]
			if !m.Endpoints || !m.Namespaces.IsEverything() || !isNegative(m.Pods) {
				continue
			}
			if pods := l.openToOutside(i, d, r); len(pods) > 0 {
				l.report(Warning, m.Place, i, "the selector %s describes only pods, network sets and host endpoints, so addresses outside pass this rule, and may %s %s; to deny all but what has the label, write it without the negation as notSelector",
					m.Pods.Calico(), [...]string{policies.Egress: "be reached by", policies.Ingress: "reach"}[d], l.workloads(pods))
			}
		}
	})
}

// isNegative reports whether a selector only says which labels are not there.
func isNegative(s selector.Selector) bool {
	return s.IsConjunction() && !s.IsEverything() && !slices.ContainsFunc(s.Requirements(), func(r selector.Requirement) bool {
		return r.Operator != selector.DoesNotExist && r.Operator != selector.NotIn
	})
}

// openToOutside returns the pods of a policy to which some address outside is
// open on ports of a rule.
func (l *look) openToOutside(i int, d policies.Direction, r *policies.Rule) []int {
	outside, pods := policies.Target{Addresses: netset.EveryAddress()}, policies.Target{Pods: l.subjects[d][i]}
	listing := reach.Listing{From: &outside, To: &pods}
	if d == policies.Egress {
		listing = reach.Listing{From: &pods, To: &outside}
	}
	open := map[policies.Ref]bool{}
	for c := range l.judge.Connections(listing) {
		if c.Allow.Intersect(r.Ports).IsEmpty() && len(r.Named) == 0 {
			continue
		}
		end := [...]*policies.Peer{policies.Egress: c.From, policies.Ingress: c.To}[d]
		open[policies.Ref{Kind: end.Kind, Namespace: end.Namespace, Name: end.Name}] = true
	}
	return slices.DeleteFunc(slices.Clone(pods.Pods), func(p int) bool { return !open[l.Pods[p].Workload] })
}
