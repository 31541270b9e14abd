package lint

import "github.com/weir-policy/weir/policies"

func peerMatchesNothing(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		for k := range r.Peers {
			m := &r.Peers[k]
			switch {
			case l.parts.Describes(m):
			case selects(m):
				severity, why := l.gap(m)
				l.report(severity, m.Place, i, "this %s peer is nobody: %s", d, why)
			case m.Block.CIDR.IsValid():
				l.report(Warning, m.Place, i, "this %s peer is nobody: the exceptions of %s leave no address of it; remove the peer or an exception", d, m.Block.CIDR)
			default:
				l.report(Warning, m.Place, i, "this %s peer is nobody: there are no %s here", d, m)
			}
		}
	})
}
