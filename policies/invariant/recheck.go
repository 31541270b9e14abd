package invariant

import (
	"context"
	"iter"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// Checked is an invariant that was checked again, by its index in the set.
type Checked struct {
	Index int
	Result
}

// Recheck readies the invariants for the judge of an edited model, head, which With
// made of the set's own, and checks those that the change can touch, in their order.
// The others are found as before; whether their waivers expired meanwhile is not
// looked at. It fails only when the context is done.
//
// Expressions and policies in Rego are evaluated whenever anybody is touched at all, for nothing tells what
// they ask; where SkipExpressions is set they are not.
func (s *Set) Recheck(ctx context.Context, head *reach.Judge, change *reach.Change, now time.Time) (*Set, []Checked, error) {
	var next *Set
	if change.Anew() {
		var err error
		if next, err = Prepare(head, s.invariants); err != nil {
			return nil, nil, err
		}
		next.Steps, next.RegoSteps, next.SkipExpressions = s.Steps, s.RegoSteps, s.SkipExpressions
	} else {
		next = &Set{Steps: s.Steps, RegoSteps: s.RegoSteps, SkipExpressions: s.SkipExpressions, judge: head, invariants: s.invariants, groups: s.groups}
	}
	var checked []Checked
	for k := range next.invariants {
		if !next.touched(k, change) {
			continue
		}
		r, err := next.check(ctx, k, now)
		if err != nil {
			return nil, nil, err
		}
		checked = append(checked, Checked{k, r})
	}
	return next, checked, nil
}

// touched reports whether a change may make a difference to an invariant.
func (s *Set) touched(k int, change *reach.Change) bool {
	i, g := &s.invariants[k], &s.groups[k]
	if i.Form.isProgram() && s.SkipExpressions {
		return false
	}
	if change.Anew() {
		return true
	}
	switch i.Form {
	case CEL, Rego:
		return true
	case Isolated:
		for _, d := range i.Directions {
			if change.Touches(d, g.from) {
				return true
			}
		}
		return false
	}
	for _, crossings := range [...]iter.Seq[reach.Crossing]{
		change.Before(g.from, g.to, g.ports, i.breaking(), policies.Unknown),
		change.After(g.from, g.to, g.ports, i.breaking(), policies.Unknown),
	} {
		for c := range crossings {
			if s.means(i, &c) {
				return true
			}
		}
	}
	return false
}
