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
// concerns some of what breaks an invariant they are of that, else there is one. Where
// it touches very many invariants there is one of each but the first. Most are never
// shown, so they are explained when they are, see Result.Explained; until then the
// results keep the judge.
//
// Expressions and policies in Rego are evaluated whenever anybody is touched at all, for nothing tells what
// they ask; where SkipExpressions is set they are not.
func (s *Set) Recheck(ctx context.Context, head *reach.Judge, change *reach.Change, now time.Time) (*Set, []Checked, error) {
	next := &Set{
		Steps: s.Steps, RegoSteps: s.RegoSteps, SkipExpressions: s.SkipExpressions,
		judge: head, invariants: s.invariants, groups: s.groups, found: slices.Clone(s.found),
	}
	if change.Anew() {
		next.found = make([]*numbers, len(s.found))
	}
	if change.Anew() || !s.serves(head) {
		if err := next.group(s.groups, change.Regroup); err != nil {
			return nil, nil, err
		}
	}
	var checked []Checked
	for k := range next.invariants {
		at, touched := next.sightOf(k, s, change)
		if !touched {
			continue
		}
		if at.brief = true; len(checked) >= mostShown {
			at.most = 1
		}
		r, err := next.check(ctx, k, now, at)
		if err == nil && at.missed(&r) {
			at = next.sight(k)
			at.most, at.brief = 1, true
			r, err = next.check(ctx, k, now, at)
		}
		if err != nil {
			return nil, nil, err
		}
		checked = append(checked, Checked{k, r})
	}
	return next, checked, nil
}

// serves reports whether the groups of a set are those of a judge, too.
func (s *Set) serves(j *reach.Judge) bool { return len(s.groups) == 0 || j.Serves(s.groups[0].from) }

// mostShown is of how many invariants a recheck shows several counterexamples.
const mostShown = 20

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
			before = i.countMembers(base.judge, change.GovernedBefore(g.from, i.Directions...))
			after = i.countMembers(s.judge, change.GovernedAfter(g.from, i.Directions...))
		}
	case !change.Touches(policies.Egress, g.from) && !change.Touches(policies.Ingress, g.to):
		return at, false
	case i.plain():
		was, is := change.Count(g.from, g.to, g.ports, i.breaking(), policies.Unknown)
		before, after = i.numbers(was), i.numbers(is)
	default:
		s.rename(k, change)
		return s.sight(k), s.crosses(k, base, change) || s.mayTurn(k, base, change)
	}
	if !i.plain() {
		return s.sight(k), true
	}
	if before == (numbers{}) && after == (numbers{}) {
		if !s.mayTurn(k, base, change) {
			return at, false
		}
		return s.sight(k), true
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
		at.members = change.GovernedAfter(g.from, i.Directions...)
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

// crosses reports whether a change of those of a set decides otherwise about what breaks
// an invariant, or concerns others than before.
func (s *Set) crosses(k int, base *Set, change *reach.Change) bool {
	i, g := &s.invariants[k], &s.groups[k]
	for c := range change.Before(g.from, g.to, base.groups[k].ports, i.breaking(), policies.Unknown) {
		if base.means(i, &c) {
			return true
		}
	}
	for c := range change.After(g.from, g.to, g.ports, i.breaking(), policies.Unknown) {
		if s.means(i, &c) {
			return true
		}
	}
	return false
}

// rename looks anew at which ports an invariant may mean, where others than before give
// them names.
func (s *Set) rename(k int, change *reach.Change) {
	if change.Moves(s.groups[k].to) {
		s.groups = slices.Clone(s.groups)
		s.groups[k].ports = s.portsOf(&s.invariants[k], s.groups[k].to)
	}
}

// mayTurn reports whether a change that concerns nothing that breaks an invariant may
// still make another result of it: somebody is at one of its ends where nobody was or the
// other way about, or who might do what must exist is not as before.
func (s *Set) mayTurn(k int, base *Set, change *reach.Change) bool {
	g, was := &s.groups[k], &base.groups[k]
	if !change.Moves(g.from) && !change.Moves(g.to) {
		return false
	}
	return s.invariants[k].Form == Exists || s.nobody(g.from) != base.nobody(was.from) || s.nobody(g.to) != base.nobody(was.to)
}
