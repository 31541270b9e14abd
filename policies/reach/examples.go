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
		x := newCrossings(j, newSets(len(j.columns)))
		x.want(x.grants.ports.id(ports), want)
		x.examples(from, to, from.possible, to.possible, nil, yield)
	}
}

// Examples yields some of what After yields, see Judge.Examples.
func (c *Change) Examples(from, to Group, ports netset.Ports, want ...policies.Verdict) iter.Seq[Crossing] {
	return func(yield func(Crossing) bool) {
		if from.frame == nil || to.frame == nil || ports.IsEmpty() {
			return
		}
		c.look(ports)
		more := true
		for _, some := range c.rectangles() {
			if more && meets(some.sources, from.possible) && meets(some.targets, to.possible) {
				c.side(1, want).examples(from, to, some.sources, some.targets, c, func(x Crossing) bool {
					more = yield(x)
					return more
				})
			}
		}
	}
}

// examples yields some of what is between some of one group and some of another: with a
// change, only what that concerns.
func (x *crossings) examples(from, to Group, sources, targets *set, c *Change, yield func(Crossing) bool) {
	x.compare(from, to, sources, targets, c, yield, func(bool) bool {
		e := example{x, from, to, c, yield}
		return e.together()
	})
}

// example looks for examples among the sources and the targets at hand.
type example struct {
	*crossings
	from, to Group
	change   *Change
	yield    func(Crossing) bool
}

func (x *example) together() (more bool) {
	more = true
	pairs := map[[2]*row]int{} // that are not denied on any of the ports
	x.eachShares(func(q, r *row, s, t *share) bool {
		denied := false
		x.verdicts(x.decide(s, t), func(v policies.Verdict) {
			more = more && x.of(q, r, v, s.people*t.people)
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
			if left := sources.people(q)*targets.people(r) - pairs[[2]*row{q, r}]; left > 0 && !x.of(q, r, policies.Deny, left) {
				return false
			}
		}
	}
	return true
}

// of yields what is between those of two rows and has a verdict: so many pairs at most,
// and perhaps some more.
func (x *example) of(q, r *row, v policies.Verdict, left int) (more bool) {
	for a := range x.sources.columns() {
		if !x.isFirst(a) || x.rowAt(policies.Egress, a) != q {
			continue
		}
		one, ok := x.partyAt(x.from, a)
		for b := range x.targets.columns() {
			if !ok || !x.isFirst(b) || x.rowAt(policies.Ingress, b) != r {
				continue
			}
			other, ok := x.partyAt(x.to, b)
			if !ok {
				continue
			}
			more := true
			x.cross(&one, &other, func(c Crossing) bool {
				if c.Verdict != v {
					return true
				}
				if left -= c.Pairs; x.change == nil || x.change.concerns(&one, &other) {
					more = x.yield(c)
				}
				return more
			})
			if !more {
				return false
			}
			if left <= 0 {
				return true
			}
		}
	}
	return true
}

// isFirst reports whether a column is the first of its class.
func (x *crossings) isFirst(column int32) bool { return !x.census().second[column] }

func (x *crossings) rowAt(d policies.Direction, column int32) *row {
	if class := x.columns[column].class; class >= 0 {
		return x.rowOf(d, class)
	}
	return nil
}
