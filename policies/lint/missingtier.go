package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

func missingTier(l *look) {
	var known []string
	missing := map[string]bool{}
	for _, t := range l.Tiers {
		if t.Missing {
			missing[t.Name] = true
		} else {
			known = append(known, t.Name)
		}
	}
	hint := func(tier string) string {
		return policies.Near(tier, slices.DeleteFunc(slices.Clone(known), func(name string) bool { return policies.Distance(name, tier) > 2 }))
	}
	const text = "there is no tier %s here%s; Calico puts it last, where it denies what no rule of it allows; add the Tier, or correct the name"
	for i := range l.Policies {
		if p := &l.Policies[i]; missing[p.Tier] {
			l.report(Warning, p.Place, i, text, p.Tier, hint(p.Tier))
		}
	}
	for i := range l.Staged {
		if p := &l.Staged[i].Policy; missing[p.Tier] {
			l.reportStaged(Warning, i, text, p.Tier, hint(p.Tier))
		}
	}
}
