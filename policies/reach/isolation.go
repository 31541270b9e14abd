package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// Isolates reports whether what comes to or from an end is denied where no rule
// is for it in particular: whether a tier that ends in deny governs the end, or a
// rule that denies everyone everything, before a rule that allows everyone
// everything does.
func (j *Judge) Isolates(d policies.Direction, e End) policies.Truth {
	return j.isolates(d, e, func(r *policies.Rule) bool {
		j.grouping.mutex.Lock()
		defer j.grouping.mutex.Unlock()
		return j.grouping.builder().isEveryone(r)
	})
}

// Isolates is that of the judge, remembering which rules are for everyone.
func (p *Parts) Isolates(d policies.Direction, e End) policies.Truth {
	return p.judge.isolates(d, e, p.Everyone)
}

func (j *Judge) isolates(d policies.Direction, e End, everyone func(*policies.Rule) bool) policies.Truth {
	class := j.classOf(e)
	if class < 0 {
		return policies.No
	}
	isolated, left := policies.No, policies.Yes // left is what no rule has settled yet
	for list := j.governs(d, class); len(list) > 0 && left > policies.No; {
		tier := j.book.tierOf(j.book.policy(list[0].policy))
		n := slices.IndexFunc(list, func(g governing) bool { return j.book.tierOf(j.book.policy(g.policy)) != tier })
		if n < 0 {
			n = len(list)
		}
		concerned, passed := policies.No, policies.No
		settle := func(does policies.Action, t policies.Truth) {
			switch does {
			case policies.ActionDeny:
				isolated = isolated.Or(left.And(t))
			case policies.ActionPass:
				passed = passed.Or(left.And(t))
			}
		}
		for _, g := range list[:n] {
			policy := j.book.policy(g.policy)
			if policy.Opaque != "" {
				isolated = isolated.Or(policies.Maybe)
			}
			concerned = concerned.Or(g.truth)
			for k := range policy.Rules[d] {
				rule := &policy.Rules[d][k]
				if rule.Action != policies.ActionLog && everyone(rule) {
					settle(rule.Action, g.truth)
					left = left.And(policies.Yes - g.truth)
				}
			}
		}
		if tier != nil {
			settle(tier.End, concerned)
			left = passed.Or(left.And(policies.Yes - concerned))
		}
		list = list[n:]
	}
	return isolated
}
