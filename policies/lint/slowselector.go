package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// Calico finds what a selector selects by an index of labels, where it asks for
// one that must be there. Without, it tries them all. A selector of everything
// has nothing to be found.
func slowSelector(l *look) {
	said := map[string]bool{}
	l.matches(func(i int, m *policies.Match) {
		if !m.Endpoints || m.Pods.IsEverything() || isIndexed(m.Pods) || isIndexed(m.Namespaces) {
			return
		}
		if key := l.Policies[i].Ref.Full() + "\x00" + m.Pods.Key(); !said[key] {
			said[key] = true
			l.report(Note, m.Place, i, "Calico has no index for the selector %s, so every node tries it on every pod, network set and host endpoint, whenever one of them changes; add a label that must be there, as in \"has(app) && ...\"", m.Pods.Calico())
		}
	})
}

// isIndexed reports whether a selector asks for a label that must be there.
func isIndexed(s selector.Selector) bool {
	return slices.ContainsFunc(s.Requirements(), func(r selector.Requirement) bool {
		return r.Operator == selector.In || r.Operator == selector.Exists
	})
}
