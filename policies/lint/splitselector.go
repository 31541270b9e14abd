package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// Two items of a list are either the one or the other; one item with both
// selectors is pods of those namespaces. That two were written where one was
// meant shows where the pods of the podSelector are in the other namespaces
// rather than in the policy's own.
func splitSelector(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		own := l.Policies[i].Ref.Namespace
		if own == "" {
			return
		}
		for k := 1; k < len(r.Peers); k++ {
			namespaces, pods := &r.Peers[k-1], &r.Peers[k]
			if !isNamespaceItem(namespaces, own) {
				namespaces, pods = pods, namespaces
			}
			if !isNamespaceItem(namespaces, own) || !isPodItem(pods, own) {
				continue
			}
			here := l.parts.Pods(pods)
			there := slices.DeleteFunc(l.parts.Pods(&policies.Match{Namespaces: namespaces.Namespaces, Pods: pods.Pods}), func(p int) bool { return l.Pods[p].Ref.Namespace == own })
			all := l.parts.Pods(everywhere(namespaces))
			among := "namespaces " + namespaces.Namespaces.String()
			if namespaces.Namespaces.IsEverything() {
				among = "all namespaces"
			}
			const cure = "for only those pods, write both selectors in one item, without the \"-\" before the second"
			switch {
			case len(there) == len(all) || len(there) == 0 && len(here) > 0:
			case len(here) == 0 && len(there) > 0:
				l.report(Warning, namespaces.Place, i, "namespaceSelector and podSelector are two peers here, so all %s of %s match; pods %s are there (%s) and not in %s; %s", counted(len(all), "pod"), among, pods.Pods, l.workloads(there), own, cure)
			case len(there) > 0:
				l.report(Note, namespaces.Place, i, "namespaceSelector and podSelector are two peers here, so all %s of %s match, and pods %s of %s too; %s", counted(len(all), "pod"), among, pods.Pods, own, cure)
			default:
				l.report(Note, namespaces.Place, i, "namespaceSelector and podSelector are two peers here, so all pods of %s match, and pods %s only of %s, which has none; %s", among, pods.Pods, own, cure)
			}
		}
	})
}

// isNamespaceItem reports whether a peer is all pods of other namespaces.
func isNamespaceItem(m *policies.Match, own string) bool {
	return selects(m) && m.Pods.IsEverything() && !isOwn(m.Namespaces, own)
}

// isPodItem reports whether a peer is some pods of the policy's own namespace.
func isPodItem(m *policies.Match, own string) bool {
	return selects(m) && !m.Pods.IsEverything() && isOwn(m.Namespaces, own)
}

func isOwn(s selector.Selector, own string) bool {
	return s.String() == selector.Label(policies.NameLabel, own).String()
}
