package lint

import (
	"fmt"

	"github.com/weir-policy/weir/policies"
)

func peerMatchesNothing(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		for k := range r.Peers {
			if m := &r.Peers[k]; !l.parts.Describes(m) {
				severity, why := l.nobody(m)
				l.report(severity, m.Place, i, "this %s peer is nobody: %s", d, why)
			}
		}
	})
}

// nobody says why a match describes nobody.
func (l *look) nobody(m *policies.Match) (Severity, string) {
	switch {
	case len(m.Except) > 0:
		but := *m
		but.Except = nil
		if !l.parts.Describes(&but) {
			return l.nobody(&but)
		}
		return Warning, fmt.Sprintf("its exceptions leave nobody of %s; remove the peer or an exception", but)
	case len(m.Any) > 0:
		return l.nobody(&m.Any[0])
	case len(m.All) > 0:
		var parts []string
		for i := range m.All {
			if !l.parts.Describes(&m.All[i]) {
				return l.nobody(&m.All[i])
			}
			parts = append(parts, m.All[i].String())
		}
		return Warning, fmt.Sprintf("it asks for %s at once, and nothing here is both; make two rules of it", enumerate(parts, "and"))
	case m.Object.Kind == "Service":
		return l.noService(m.Object)
	case selects(m):
		return l.gap(m)
	case m.Block.CIDR.IsValid():
		return Warning, fmt.Sprintf("the exceptions of %s leave no address of it; remove the peer or an exception", m.Block.CIDR)
	}
	return Warning, fmt.Sprintf("there are no %s here", m)
}

// noService says why a Service stands for no pods.
func (l *look) noService(ref policies.Ref) (Severity, string) {
	var near []string
	for i := range l.Services {
		s := &l.Services[i]
		if s.Ref == ref {
			return Warning, fmt.Sprintf("Service %s has no pods here; correct its selector, or name the source that has them with -f", ref)
		}
		if s.Ref.Namespace == ref.Namespace && policies.Distance(s.Ref.Name, ref.Name) <= 2 {
			near = append(near, s.Ref.Name)
		}
	}
	return Note, fmt.Sprintf("there is no Service %s here%s; if it is elsewhere, name that source with -f", ref, policies.Near(ref.Name, near))
}
