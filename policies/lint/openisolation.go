package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

func openIsolation(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		pods := l.subjects[d][i]
		if r.Action != policies.ActionAllow || !l.denies(i) || len(pods) == 0 || !l.parts.Everyone(r) {
			return
		}
		does := [...]string{policies.Egress: "lets the pods out to everyone on every port", policies.Ingress: "lets everyone in on every port"}[d]
		// The worst that the rule undoes: a default deny, or else any other policy.
		undone, wholly, denial := -1, false, false
		for k := range l.Policies {
			if l.Policies[k].Tier != l.Policies[i].Tier || l.Policies[k].Opaque != "" || !overlap(l.subjects[d][k], pods) {
				continue
			}
			if forbids(l.Policies[k].Rules[d]) {
				return // everyone but them
			}
			if k == i || l.opens(k, d) {
				continue
			}
			denies, all := len(l.Policies[k].Rules[d]) == 0, covers(pods, l.subjects[d][k])
			if undone < 0 || denies && !denial || denies == denial && all && !wholly {
				undone, wholly, denial = k, all, denies
			}
		}
		if undone < 0 {
			l.report(Warning, r.Place, i, "this rule %s, so the policy isolates nobody; name who may, or remove the policy if everyone may", does)
			return
		}
		var f *Finding
		other := &l.Policies[undone]
		switch {
		case denial && wholly:
			f = l.report(Error, r.Place, i, "this rule %s, so the default %s deny of %s isolates nobody: policies add up; name who may", does, d, other.Ref)
		case denial:
			both := slices.DeleteFunc(slices.Clone(pods), func(p int) bool { return !has(l.subjects[d][undone], p) })
			f = l.report(Warning, r.Place, i, "this rule %s, so the default %s deny of %s does not isolate %s: policies add up; name who may", does, d, other.Ref, l.workloads(both))
		default:
			f = l.report(Warning, r.Place, i, "this rule %s, so the rules of %s restrict nothing: policies add up; name who may", does, other.Ref)
		}
		f.See = other.Place
	})
}

// forbids reports whether some rule denies, or leaves it to a later tier.
func forbids(rules []policies.Rule) bool {
	return slices.ContainsFunc(rules, func(r policies.Rule) bool {
		return r.Action == policies.ActionDeny || r.Action == policies.ActionPass
	})
}

// opens reports whether some rule of a policy is for everyone on every port.
func (l *look) opens(policy int, d policies.Direction) bool {
	rules := l.Policies[policy].Rules[d]
	for k := range rules {
		if rules[k].Action != policies.ActionLog && l.parts.Everyone(&rules[k]) {
			return true
		}
	}
	return false
}
