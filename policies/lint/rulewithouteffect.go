package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

func ruleWithoutEffect(l *look) {
	l.rules(func(i int, d policies.Direction, rule int, r *policies.Rule) {
		if l.parts.Idle(i, d, rule) {
			if !l.explained(i, d, r) {
				l.report(Warning, r.Place, i, "this rule matches no traffic of any pod that the policy applies to; remove it, or correct its peers or ports")
			}
			return
		}
		rules := l.Policies[i].Rules[d]
		for by := range rules {
			if by == rule || !sameActions(rules[min(rule, by):max(rule, by)+1]) || !l.parts.Covered(i, d, rule, by) {
				continue
			}
			switch twins := l.parts.Covered(i, d, by, rule); {
			case !twins:
				l.report(Warning, r.Place, i, "this rule has no effect: rule %d of the policy matches all that it does; remove it, or narrow that one", by+1).See = rules[by].Place
			case by < rule:
				l.report(Warning, r.Place, i, "this rule has no effect: rule %d of the policy matches the same; remove one", by+1).See = rules[by].Place
			default:
				continue
			}
			return
		}
	})
}

func sameActions(rules []policies.Rule) bool {
	return !slices.ContainsFunc(rules, func(r policies.Rule) bool { return r.Action != rules[0].Action })
}

// explained reports whether another check says why a rule matches nothing.
func (l *look) explained(i int, d policies.Direction, r *policies.Rule) bool {
	if slices.ContainsFunc(r.Peers, func(m policies.Match) bool { return !l.parts.Describes(&m) }) {
		return true
	}
	pods, _ := l.destinations(i, d, r)
	return len(pods) > 0 && slices.ContainsFunc(r.Named, func(n policies.NamedPort) bool { return l.unknownName(n, pods) != "" })
}
