package invariant

import (
	"context"
	"iter"
	"slices"
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
// What is found is what Check finds, but for the counterexamples: where the change
// concerns some of what breaks an invariant they are of that, else there is one.
//
// Expressions and policies in Rego are evaluated whenever anybody is touched at all, for nothing tells what
// they ask; where SkipExpressions is set they are not.
func (s *Set) Recheck(ctx context.Context, head *reach.Judge, change *reach.Change, now time.Time) (*Set, []Checked, error) {
	next := &Set{judge: head, invariants: s.invariants, groups: s.groups, found: slices.Clone(s.found)}
	if change.Anew() {
		var err error
		if next, err = Prepare(head, s.invariants); err != nil {
			return nil, nil, err
		}
	}
	next.Steps, next.RegoSteps, next.SkipExpressions = s.Steps, s.RegoSteps, s.SkipExpressions
	var checked []Checked
	for k := range next.invariants {
		at, touched := next.sightOf(k, s, change)
		if !touched {
			continue
		}
		r, err := next.check(ctx, k, now, at)
		if err == nil && at.missed(&r) {
			at = next.sight(k)
			at.most = 1
			r, err = next.check(ctx, k, now, at)
		}
		if err != nil {
			return nil, nil, err
		}
		checked = append(checked, Checked{k, r})
	}
	return next, checked, nil
}

// sightOf returns where to look for what breaks an invariant after a change of those
// of a set, and whether the change may make a difference to it.
func (s *Set) sightOf(k int, base *Set, change *reach.Change) (at sight, touched bool) {
	i, g := &s.invariants[k], &s.groups[k]
	var before, after numbers
	switch {
	case i.Form.isProgram() && s.SkipExpressions:
		return at, false
	case change.Anew() || i.Form.isProgram():
		return s.sight(k), true
	case i.Form == Isolated:
		if !slices.ContainsFunc(i.Directions, func(d policies.Direction) bool { return change.Touches(d, g.from) }) {
			return at, false
		}
		if i.plain() {
			governed := change.Governed(g.from, i.Directions...)
			before, after = i.countMembers(base.judge, governed), i.countMembers(s.judge, governed)
		}
	case !change.Touches(policies.Egress, g.from) && !change.Touches(policies.Ingress, g.to):
		return at, false
	case i.plain():
		was, is := change.Count(g.from, g.to, g.ports, i.breaking(), policies.Unknown)
		before, after = i.numbers(was), i.numbers(is)
	default:
		return s.sight(k), s.crosses(k, change)
	}
	if !i.plain() {
		return s.sight(k), true
	}
	if before == (numbers{}) && after == (numbers{}) {
		return at, false
	}
	was := *base.numbersOf(k)
	s.found[k] = &numbers{was.broken - before.broken + after.broken, was.unknown - before.unknown + after.unknown}
	at = s.sight(k)
	switch {
	case i.Form == Exists:
	case after.broken > 0 || at.all.broken == 0 && after.unknown > 0:
		at.here = after
		at.crossings = func(want ...policies.Verdict) iter.Seq[reach.Crossing] {
			return change.Examples(g.from, g.to, g.ports, want...)
		}
		at.members = change.Governed(g.from, i.Directions...)
	default:
		at.most = 1
		at.crossings = func(want ...policies.Verdict) iter.Seq[reach.Crossing] {
			return s.judge.Examples(g.from, g.to, g.ports, want...)
		}
	}
	return at, true
}

// missed reports whether nothing was seen of what breaks an invariant, or may: a change
// counts pairs that it leaves as they were, and does not show them.
func (at *sight) missed(r *Result) bool {
	return at.all != nil && *at.all != (numbers{}) && r.Form != Exists && len(r.Counterexamples) == 0 && r.Doubt == nil
}

// crosses reports whether a change decides otherwise about what breaks an invariant.
func (s *Set) crosses(k int, change *reach.Change) bool {
	i, g := &s.invariants[k], &s.groups[k]
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
