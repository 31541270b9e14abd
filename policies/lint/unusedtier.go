package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

func unusedTier(l *look) {
	for _, t := range l.Tiers {
		of := func(p *policies.Policy) bool { return p.Tier == t.Name }
		if t.Place == (policies.Place{}) || slices.ContainsFunc(l.Policies, func(p policies.Policy) bool { return of(&p) }) {
			continue
		}
		if !slices.ContainsFunc(l.Staged, func(s policies.Staged) bool { return of(&s.Policy) }) {
			ref := policies.Ref{Group: policies.CalicoGroup, Kind: "Tier", Name: t.Name}
			l.reportOf(Note, t.Place, noPolicy, ref, "no policy is in this tier, so it does nothing, its default action neither; remove it, or correct the tier of the policies that belong to it")
		}
	}
}
