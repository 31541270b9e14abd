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

// all returns the invariants of the head, and then those that only the base has.
func (d *Declared) all() []invariant.Invariant {
	all := slices.Clone(d.Head)
	for k := range d.Base {
		if invariant.Named(d.Head, d.Base[k].Ref.Name) == nil {
			all = append(all, d.Base[k])
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
	for k := range all {
		c := &changes[k]
		c.Before, c.After = found[0][k], found[1][k]
		c.Turn = invariant.TurnOf(&c.Before, &c.After)
		stuck := c.Turn == invariant.Stuck || c.Turn == invariant.Worsens
		was := invariant.Named(d.Base, all[k].Ref.Name)
		switch {
		case k >= len(d.Head):
			c.Turn = invariant.Removed
			continue
		case was == nil:
			if c.Added = true; stuck {
				c.Turn = invariant.Stuck // nobody had declared what was broken
			}
			continue
		}
		c.Edited = !was.Says(&all[k])
		if !stuck {
			continue
		}
		if x := sets[1].Worse(sets[0], k, d.Now); x != nil {
			c.Turn, c.After = invariant.Worsens, *c.After.Foremost(x)
		}
	}
	return changes, nil
}
