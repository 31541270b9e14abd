package lint

import (
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// Calico looks for the labels of a pod's namespace and service account under keys
// that the pod may have itself, and its own come first: who may label a pod
// chooses who it is to a namespaceSelector or a serviceAccountSelector.
func inheritedLabel(l *look) {
	claims := map[int]*policies.Pod{} // those pods as they would be without such labels
	for i := range l.Pods {
		p := l.Pods[i]
		if p.HostNetwork || len(claimed(&p)) == 0 {
			continue
		}
		p.Labels = maps.Clone(p.Labels)
		maps.DeleteFunc(p.Labels, func(key, _ string) bool { return isClaim(key) })
		claims[i] = &p
	}
	l.matches(func(i int, m *policies.Match) {
		if !m.Endpoints {
			return
		}
		var in, out []int
		for _, pod := range slices.Sorted(maps.Keys(claims)) {
			switch is, would := l.mayBe(&l.Pods[pod], m), l.mayBe(claims[pod], m); {
			case is && !would:
				in = append(in, pod)
			case would && !is:
				out = append(out, pod)
			}
		}
		for _, side := range []struct {
			pods []int
			what string
		}{{in, "in"}, {out, "not in"}} {
			if len(side.pods) > 0 {
				first := &l.Pods[side.pods[0]]
				asked := append(m.Inherited.Keys(), m.Pods.Keys()...)
				labels := slices.DeleteFunc(claimed(first), func(key string) bool { return !slices.Contains(asked, key) })
				l.report(Warning, m.Place, i, "pods of %s are %s this selector for a label of their own, %s, that to Calico comes before the one of their namespace or service account; take it off them, or select by %s or %s, which no pod can claim",
					l.workloads(side.pods), side.what, enumerate(labels, "or"), policies.CalicoNamespace, policies.CalicoServiceAccount).See = first.Place
			}
		}
	})
}

func isClaim(key string) bool {
	return strings.HasPrefix(key, policies.NamespacePrefix) || strings.HasPrefix(key, policies.AccountPrefix)
}

// claimed returns the labels of a pod that it would have of others.
func claimed(p *policies.Pod) []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(p.Labels)), func(key string) bool { return !isClaim(key) })
}

// mayBe reports whether a pod is, or may be, one that Calico's selectors describe.
func (l *look) mayBe(p *policies.Pod, m *policies.Match) bool {
	label := func(key string) (string, bool, bool) { return l.label(p, key) }
	in := slices.ContainsFunc(l.Namespaces, func(n policies.Namespace) bool {
		return n.Name == p.Ref.Namespace && reach.InNamespace(m.Namespaces, &n) > policies.No
	})
	if !m.Inherited.IsNothing() {
		_, in = m.Inherited.Test(label)
	}
	_, is := m.Pods.Test(label)
	return in && is
}
