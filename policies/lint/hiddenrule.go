package lint

import (
	"fmt"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// What rules of one tier that do the same hide of each other is no matter of
// order: rule-without-effect and weir query tell of that.
func hiddenRule(l *look) {
	l.rules(func(i int, d policies.Direction, rule int, r *policies.Rule) {
		hiders := l.hiders(reach.RuleID{Policy: i, Direction: d, Rule: rule})
		if len(hiders) == 0 {
			return
		}
		otherwise := slices.ContainsFunc(hiders, func(h reach.RuleID) bool { return l.does(h) != r.Action })
		earlier := slices.ContainsFunc(hiders, func(h reach.RuleID) bool { return l.Policies[h.Policy].Tier != l.Policies[i].Tier })
		var names []string
		for _, h := range hiders {
			names = append(names, l.hider(i, h))
		}
		what := map[policies.Action]string{policies.ActionLog: "logs nothing"}[r.Action]
		if what == "" {
			what = "never decides"
		}
		var f *Finding
		switch {
		case otherwise:
			f = l.report(Warning, r.Place, i, "this %s rule %s: %s all that it matches before it; move it up, narrow what is before it, or remove it", r.Action, what, firstOf(names))
		case earlier:
			f = l.report(Note, r.Place, i, "this %s rule %s: %s all that it matches before it, and so does the same; remove it, unless it is to stay when that goes", r.Action, what, firstOf(names))
		default:
			return
		}
		f.See = l.placeOf(hiders[0])
	})
}

// hiders returns the rules that decide all that a rule would. Whom a block
// describes is often not known, as the addresses of pods are not; that a rule
// before it in its policy describes them too is known nevertheless.
func (l *look) hiders(r reach.RuleID) []reach.RuleID {
	if hiders := l.audit().Hiders(r); len(hiders) > 0 {
		return hiders
	}
	for by, other := range l.Policies[r.Policy].Rules[r.Direction][:r.Rule] {
		if other.Action != policies.ActionLog && l.parts.Covered(r.Policy, r.Direction, r.Rule, by) {
			return []reach.RuleID{{Policy: r.Policy, Direction: r.Direction, Rule: by}}
		}
	}
	return nil
}

// does returns what a rule does, or what the end of a tier does.
func (l *look) does(r reach.RuleID) policies.Action {
	if r.Rule == reach.WholePolicy {
		return policies.ActionDeny
	}
	return l.Policies[r.Policy].Rules[r.Direction][r.Rule].Action
}

func (l *look) placeOf(r reach.RuleID) policies.Place {
	if r.Rule == reach.WholePolicy {
		return l.Policies[r.Policy].Place
	}
	return l.Policies[r.Policy].Rules[r.Direction][r.Rule].Place
}

// hider says what hides a rule of a policy, and what it does.
func (l *look) hider(policy int, h reach.RuleID) string {
	by := &l.Policies[h.Policy]
	if h.Rule == reach.WholePolicy {
		return fmt.Sprintf("the end of tier %s denies", by.Tier)
	}
	does := map[policies.Action]string{policies.ActionAllow: "allows", policies.ActionDeny: "denies", policies.ActionPass: "passes on"}[l.does(h)]
	switch {
	case h.Policy == policy:
		return fmt.Sprintf("rule %d of this policy %s", h.Rule+1, does)
	case by.Tier == l.Policies[policy].Tier:
		return fmt.Sprintf("rule %d of %s %s %s", h.Rule+1, by.Ref.What(), by.Ref, does)
	}
	return fmt.Sprintf("rule %d of %s %s in tier %s %s", h.Rule+1, by.Ref.What(), by.Ref, by.Tier, does)
}
