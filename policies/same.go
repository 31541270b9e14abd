package policies

import "slices"

// Says reports whether two policies say the same, wherever they stand and
// whatever they are called: whichever of them is there, every world decides alike.
func (p *Policy) Says(q *Policy) bool {
	if p.Tier != q.Tier || p.Order != q.Order || p.Forwarded != q.Forwarded || p.Governs != q.Governs || p.Opaque != q.Opaque || !sameMatch(p.Subject, q.Subject) {
		return false
	}
	for _, d := range Directions {
		if !slices.EqualFunc(p.Rules[d], q.Rules[d], sameRule) {
			return false
		}
	}
	return true
}

func sameRule(a, b Rule) bool {
	return a.Action == b.Action && a.Ports.Equal(b.Ports) && slices.Equal(a.Named, b.Named) && slices.Equal(a.NotNamed, b.NotNamed) &&
		a.NotPorts.Equal(b.NotPorts) &&
		a.Unclear == b.Unclear && slices.EqualFunc(a.Peers, b.Peers, sameMatch) &&
		(a.Own == nil) == (b.Own == nil) && (a.Own == nil || sameMatch(*a.Own, *b.Own))
}

func sameMatch(a, b Match) bool {
	return a.Anyone == b.Anyone && a.String() == b.String() && a.Inherited.Key() == b.Inherited.Key() &&
		slices.EqualFunc(a.All, b.All, sameMatch) && slices.EqualFunc(a.Any, b.Any, sameMatch)
}
