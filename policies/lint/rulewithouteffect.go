package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

func ruleWithoutEffect(l *look) {
	l.rules(func(i int, d policies.Direction, rule int, r *policies.Rule) {
		if l.parts.Idle(i, d, rule) {
			switch {
			case l.explained(i, d, r):
			case r.Own != nil && !r.Own.Anyone && !overlap(l.subjects[d][i], l.parts.Pods(r.Own)):
				l.report(Warning, r.Place, i, "this rule is for %s, and the policy applies to none of them; remove it, or correct its %s", r.Own, ownSide(d))
			default:
				l.report(Warning, r.Place, i, "this rule matches no traffic of any pod that the policy applies to; remove it, or correct its peers or ports")
			}
			return
		}
		if r.Action == policies.ActionLog {
			return // what it does besides deciding, another does not do for it
		}
		rules := l.Policies[i].Rules[d]
		for by := range rules {
			if by == rule || rules[by].Action != r.Action || by > rule && !sameActions(rules[rule:by]) || !l.parts.Covered(i, d, rule, by) {
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

// sameActions reports whether all rules but those that only log do the same.
func sameActions(rules []policies.Rule) bool {
	return !slices.ContainsFunc(rules, func(r policies.Rule) bool {
		return r.Action != policies.ActionLog && r.Action != rules[0].Action
	})
}

// ownSide is what Calico calls the side of a rule that is the policy's own.
func ownSide(d policies.Direction) string {
	return [...]string{policies.Egress: "source", policies.Ingress: "destination"}[d]
}

// explained reports whether another check says why a rule matches nothing.
func (l *look) explained(i int, d policies.Direction, r *policies.Rule) bool {
	if slices.ContainsFunc(r.Peers, func(m policies.Match) bool { return !l.parts.Describes(&m) }) {
		return true
	}
	pods, _ := l.destinations(i, d, r)
	return len(pods) > 0 && slices.ContainsFunc(r.Named, func(n policies.NamedPort) bool { return l.unknownName(i, n.Name, r, pods) != "" })
}
