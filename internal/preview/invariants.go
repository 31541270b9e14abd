package preview

import (
	"context"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

// Declared are the invariants of both sides, the moment at which their waivers are
// or are not expired, and the flows that some ask for, nil where there are none.
type Declared struct {
	Base, Head []invariant.Invariant
	Now        time.Time
	Flows      []policies.Flow
}

// AskFlows reports whether any of the invariants asks for flows.
func (d *Declared) AskFlows() bool { return invariant.AskFlows(d.all()) }

// all returns the invariants of the head, and then what the base says otherwise.
func (d *Declared) all() []invariant.Invariant { return slices.Concat(d.Head, d.former()) }

// former returns what the base says and the head does not, less what the head waives.
// One that has got another name is the same.
func (d *Declared) former() (all []invariant.Invariant) {
	for k := range d.Base {
		was := d.Base[k]
		is := invariant.Named(d.Head, was.Ref.Name)
		if is == nil {
			if n := slices.IndexFunc(d.Head, func(i invariant.Invariant) bool { return i.Wants(&was) }); n >= 0 {
				was.Waivers = d.Head[n].Waivers
			}
			all = append(all, was)
		} else if !is.Wants(&was) {
			was.Waivers = is.Waivers
			all = append(all, was)
		}
	}
	return all
}

// compare checks the invariants before and after.
func (d *Declared) compare(ctx context.Context, base, head *reach.Judge) ([]invariant.Change, error) {
	all := d.all()
	if len(all) == 0 {
		return nil, nil
	}
	var found [2][]invariant.Result
	var sets [2]*invariant.Set
	for side, judge := range []*reach.Judge{base, head} {
		set, err := invariant.Prepare(judge, all)
		if err != nil {
			return nil, err
		}
		if d.Flows != nil {
			set.Recorded = expression.Recorded{Flows: d.Flows, Find: simulator.Finder(judge)}
		}
		sets[side] = set
		if found[side], err = set.Check(ctx, d.Now); err != nil {
			return nil, err
		}
	}
	changes := make([]invariant.Change, len(all))
	for k := range changes {
		c := &changes[k]
		c.Before, c.After = found[0][k], found[1][k]
		c.Turn = invariant.TurnOf(&c.Before, &c.After)
		if c.Turn != invariant.Stuck && c.Turn != invariant.Worsens {
			continue
		}
		if x := sets[1].Worse(sets[0], k, d.Now); x != nil {
			c.Turn, c.After = invariant.Worsens, *c.After.Foremost(x).Explained()
		}
	}
	changes, former := slices.Clip(changes[:len(d.Head)]), changes[len(d.Head):]
	for k := range changes {
		c := &changes[k]
		was := invariant.Named(d.Base, d.Head[k].Ref.Name)
		if was == nil {
			if c.Added = true; c.Turn == invariant.Worsens {
				c.Turn = invariant.Stuck // nobody had declared what was broken
			}
			continue
		}
		c.Edited, c.Forgives = !was.Says(&d.Head[k]), c.After.Forgives(was)
	}
	for k := range former {
		f := &former[k]
		if n := slices.IndexFunc(changes, func(c invariant.Change) bool { return c.After.Ref.Name == f.After.Ref.Name }); n >= 0 {
			changes[n].Former = f
			continue
		}
		removed := *f
		removed.Turn, removed.Former = invariant.Removed, f
		changes = append(changes, removed)
	}
	return changes, nil
}
