package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

func selectsNothing(l *look) {
	for i := range l.Policies {
		p := &l.Policies[i]
		if p.IsBuiltIn() || p.Opaque != "" || len(l.subject(i)) > 0 || l.parts.Selects(i) || p.Subject.Namespaces.IsNothing() {
			continue
		}
		severity, why := l.gap(&p.Subject)
		l.report(severity, p.Subject.Place, i, "the policy applies to no pod: %s", why)
	}
}

// gap says why a match by labels describes no pod. It is only a note where the
// world has no pod at all in the namespaces in question, for then they may be
// elsewhere.
func (l *look) gap(m *policies.Match) (Severity, string) {
	var in []string
	for i := range l.Namespaces {
		if reach.InNamespace(m.Namespaces, &l.Namespaces[i]) > policies.No {
			in = append(in, l.Namespaces[i].Name)
		}
	}
	who, print := "pod", selector.Selector.String
	if m.Endpoints {
		who, print = "pod, network set or host endpoint", selector.Selector.Calico
	}
	pattern := print(m.Pods)
	switch {
	case len(in) > 0:
	case m.Endpoints && m.Namespaces.Matches(nil):
		return Warning, fmt.Sprintf("no global network set or host endpoint here has %s", pattern)
	default:
		return l.noNamespace(m.Namespaces, print(m.Namespaces))
	}
	where := "namespace " + strings.Join(in, "")
	if len(in) > 1 {
		where = "namespaces " + print(m.Namespaces)
		if m.Namespaces.IsEverything() {
			where = "any namespace"
		}
	}
	for i := range l.Sets {
		if s := &l.Sets[i]; m.Endpoints && s.Ref.Namespace == "" && !m.Pods.IsEverything() && m.Pods.Matches(s.Labels) {
			return Warning, fmt.Sprintf("no %s in %s has %s; GlobalNetworkSet %s has, and is in no namespace: write \"namespaceSelector: global()\" for it", who, where, pattern, s.Ref)
		}
	}
	pods := slices.DeleteFunc(l.podsIn(in), func(i int) bool { return l.Pods[i].HostNetwork })
	if len(pods) == 0 {
		return Note, fmt.Sprintf("%s has no pods here; name a source that has them with -f", where)
	}
	if slices.ContainsFunc(l.podsIn(in), func(i int) bool { return l.hasLabels(i, m) }) {
		return Warning, fmt.Sprintf("all pods %s in %s are on their node's network, where no selector sees them; use an ipBlock of the nodes", pattern, where)
	}
	for _, r := range m.Pods.Requirements() {
		if slices.ContainsFunc(pods, func(i int) bool {
			value, has, known := l.labels(i, m)(r.Key)
			return !known || r.Holds(value, has)
		}) {
			continue
		}
		return Warning, fmt.Sprintf("no %s in %s has %s%s", who, where, print(selector.Where(r.Key, r.Operator, r.Values...)), l.nearLabels(r, pods))
	}
	if !m.Pods.IsConjunction() {
		return Warning, fmt.Sprintf("no %s in %s has %s", who, where, pattern)
	}
	return Warning, fmt.Sprintf("no %s in %s has %s together", who, where, pattern)
}

func (l *look) noNamespace(s selector.Selector, pattern string) (Severity, string) {
	var names []string
	for _, n := range l.Namespaces {
		names = append(names, n.Name)
	}
	for _, r := range s.Requirements() {
		if r.Key == policies.NameLabel && r.Operator == selector.In {
			return Note, fmt.Sprintf("there is no namespace %s here%s; if it is elsewhere, name that source with -f", enumerate(r.Values, "or"), policies.Near(r.Values[0], names))
		}
	}
	return Warning, fmt.Sprintf("no namespace here has %s; label one, or name the source that has it with -f", pattern)
}

func (l *look) podsIn(namespaces []string) []int {
	var pods []int
	for _, name := range namespaces {
		pods = append(pods, l.podsOf[name]...)
	}
	return pods
}

// nearLabels returns a hint at labels of the pods that come near to what a
// requirement asks for.
func (l *look) nearLabels(r selector.Requirement, pods []int) string {
	if r.Operator != selector.In {
		return ""
	}
	var values, all []string
	for _, i := range pods {
		for k, v := range l.Pods[i].Labels {
			all = append(all, k+"="+v)
			if k == r.Key {
				values = append(values, k+"="+v)
			}
		}
	}
	if len(values) == 0 {
		values = all
	}
	return policies.Near(r.Key+"="+r.Values[0], values)
}
