package reach

import (
	"iter"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Examples yields some of what Between yields: none only where that yields none of what
// is wanted. It looks at those together whom the same policies govern, so that an example
// is found fast among many pairs that are none; and first at those who are in the groups
// for sure.
func (j *Judge) Examples(from, to Group, ports netset.Ports, want ...policies.Verdict) iter.Seq[Crossing] {
	return func(yield func(Crossing) bool) {
		if from.frame == nil || to.frame == nil || ports.IsEmpty() {
			return
		}
		x := newCrossings(j)
		x.want(x.grants.ports.id(ports), want)
		x.compare(from, to, from.possible, to.possible, yield, func(bool) bool { return x.exampleTogether(from, to, yield) })
	}
}

// exampleTogether yields an example of each two rows of the sources and the targets at
// hand that have one.
func (x *crossings) exampleTogether(from, to Group, yield func(Crossing) bool) (more bool) {
	more = true
	pairs := map[[2]*row]int{} // that are not denied on any of the ports
	x.eachShares(func(q, r *row, s, t *share) bool {
		denied := false
		x.verdicts(x.decide(s, t), func(v policies.Verdict) {
			more = more && x.exampleOf(from, to, q, r, v, yield)
			denied = denied || v == policies.Deny
		})
		if x.wanted[policies.Deny] && !denied {
			pairs[[2]*row{q, r}] += s.people * t.people
		}
		return more
	})
	if !more || !x.wanted[policies.Deny] {
		return more
	}
	var sources, targets shares
	x.split(nil, policies.Egress, &x.sources, &sources)
	x.split(nil, policies.Ingress, &x.targets, &targets)
	for _, q := range sources.rows {
		for _, r := range targets.rows {
			if pairs[[2]*row{q, r}] < sources.people(q)*targets.people(r) && !x.exampleOf(from, to, q, r, policies.Deny, yield) {
				return false
			}
		}
	}
	return true
}

// exampleOf yields the first of what is between those of two rows that has a verdict.
func (x *crossings) exampleOf(from, to Group, q, r *row, v policies.Verdict, yield func(Crossing) bool) (more bool) {
	rowOf := func(d policies.Direction, p *party) *row {
		if p.class < 0 {
			return nil
		}
		return x.rows[d].at(p.class)
	}
	for one := range x.partiesIn(from, &x.sources) {
		if rowOf(policies.Egress, &one) != q {
			continue
		}
		for other := range x.partiesIn(to, &x.targets) {
			if rowOf(policies.Ingress, &other) != r {
				continue
			}
			found, more := false, true
			x.cross(&one, &other, func(c Crossing) bool {
				if found = c.Verdict == v; found {
					more = yield(c)
				}
				return !found
			})
			if found {
				return more
			}
		}
	}
	return true
}
