// Package standing says how invariants stand in a world that changes.
//
// It owns what need not be looked at again. Which changes there are, it is told.
package standing

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

// Standing is how invariants stand in one world at a moment. It never changes.
type Standing struct {
	// Model is the world that was heard of last; nil in one that might be.
	Model *policies.Model
	// Invariants are those that were looked at, and Results what was found of each. An
	// edit leaves those as they are that it cannot touch.
	Invariants []invariant.Invariant
	Results    []*invariant.Result

	options reach.Options
	judge   *reach.Judge
	set     *invariant.Set
	until   time.Time // when the first waiver ends
}

// Of looks at all invariants in a world. It fails only when the context is done.
func Of(ctx context.Context, m *policies.Model, all []invariant.Invariant, o reach.Options, now time.Time) (*Standing, error) {
	o.Lasting = true
	return of(ctx, reach.New(m, invariant.Apart(o, all...)), all, o, now)
}

func of(ctx context.Context, j *reach.Judge, all []invariant.Invariant, o reach.Options, now time.Time) (*Standing, error) {
	set, err := invariant.Prepare(j, all)
	if err != nil {
		return nil, err
	}
	s := &Standing{Invariants: all, options: o, judge: j, set: set}
	return s.at(ctx, now)
}

// at looks at all invariants once more.
func (s *Standing) at(ctx context.Context, now time.Time) (*Standing, error) {
	next := *s
	found, err := s.set.Check(ctx, now)
	if err != nil {
		return nil, err
	}
	next.Results = make([]*invariant.Result, len(found))
	for k := range found {
		next.Results[k] = &found[k]
	}
	next.until = time.Time{}
	for i := range s.Invariants {
		for w := range s.Invariants[i].Waivers {
			waiver := &s.Invariants[i].Waivers[w]
			if end := waiver.Until.AddDate(0, 0, 1); !waiver.Expired(now) && (next.until.IsZero() || end.Before(next.until)) {
				next.until = end
			}
		}
	}
	return &next, nil
}

// Until is when the first waiver ends, so that all has to be looked at again; the zero
// time where none does.
func (s *Standing) Until() time.Time { return s.until }

// isOver reports whether a waiver has ended since.
func (s *Standing) isOver(now time.Time) bool { return !s.until.IsZero() && !now.Before(s.until) }

// After returns how the invariants stand after a change of the world, which model
// makes when it is needed.
func (s *Standing) After(ctx context.Context, c *k8s.Change, model func() *policies.Model, now time.Time) (*Standing, error) {
	switch {
	case c.Whole:
		return Of(ctx, model(), s.Invariants, s.options, now)
	case IsOfPolicies(c):
		return s.Edited(ctx, reach.Edit{Put: c.Policies, Delete: c.Gone}, now)
	}
	return s.Edited(ctx, reach.Edit{Put: c.Policies, Delete: c.Gone, World: &model().World, Pods: c.Pods, Others: c.World}, now)
}

// IsOfPolicies reports whether nothing but policies came or went.
func IsOfPolicies(c *k8s.Change) bool { return !c.Whole && len(c.Pods)+len(c.World) == 0 }

// mostPut is how many policies a judge takes at once without beginning anew.
const mostPut = 15

// Edited returns how the invariants stand after an edit. It looks again only at those
// that the edit can touch.
func (s *Standing) Edited(ctx context.Context, e reach.Edit, now time.Time) (*Standing, error) {
	next := *s
	next.Model, next.Results = nil, slices.Clone(s.Results)
	for e.World != nil || len(e.Put)+len(e.Delete) > 0 {
		some := e
		some.Put = e.Put[:min(len(e.Put), mostPut)]
		e = reach.Edit{Put: e.Put[len(some.Put):]}
		judge, change := next.judge.With(some)
		set, checked, err := next.set.Recheck(ctx, judge, change, now)
		switch {
		case err != nil && ctx.Err() != nil:
			return nil, err
		case err != nil: // the judge does not tell apart whom those speak of that were declared later
			anew, err := Of(ctx, judge.Model(), s.Invariants, s.options, now)
			if err != nil {
				return nil, err
			}
			next = *anew
			next.Model = nil
			continue
		}
		next.judge, next.set = judge, set
		for _, c := range checked {
			next.Results[c.Index] = &c.Result
		}
	}
	return &next, nil
}

// Declaring returns how other invariants stand in the same world.
func (s *Standing) Declaring(ctx context.Context, all []invariant.Invariant, now time.Time) (*Standing, error) {
	next, err := of(ctx, s.judge, all, s.options, now)
	if err != nil && ctx.Err() == nil { // the judge does not tell apart whom they speak of
		next, err = Of(ctx, s.judge.Model(), all, s.options, now)
	}
	if err == nil {
		next.Model = s.Model
	}
	return next, err
}

// Worse returns for each of some invariants something that breaks it and that did not in
// a standing before, of the same invariants; nil where there is nothing. It tells by
// pairs, see invariant.Set.Worse, and looks at both worlds anew where more than policies
// changed.
func (s *Standing) Worse(before *Standing, these []int, now time.Time) ([]*invariant.Counterexample, error) {
	worse := make([]*invariant.Counterexample, len(these))
	if len(these) == 0 {
		return worse, nil
	}
	was, is, at := before.set, s.set, these
	if !s.judge.Shares(before.judge) {
		var all []invariant.Invariant
		at = make([]int, len(these))
		for n, k := range these {
			all, at[n] = append(all, s.Invariants[k]), n
		}
		a, b := reach.Pair(before.judge.Model(), s.judge.Model(), invariant.Apart(s.options, all...))
		var errs [2]error
		was, errs[0] = invariant.Prepare(a, all)
		is, errs[1] = invariant.Prepare(b, all)
		if err := errors.Join(errs[:]...); err != nil {
			return nil, err
		}
	}
	for n, k := range at {
		worse[n] = is.Worse(was, k, now)
	}
	return worse, nil
}

// Result returns what was found of the invariant of a name; nil where there is none.
func (s *Standing) Result(name string) *invariant.Result {
	i := slices.IndexFunc(s.Results, func(r *invariant.Result) bool { return r.Ref.Name == name })
	if i < 0 {
		return nil
	}
	return s.Results[i]
}
