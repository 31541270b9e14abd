package standing

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

// Keeper keeps how the invariants that are declared stand in the world that is
// seen. It is safe for concurrent use.
type Keeper struct {
	options reach.Options
	clock   func() time.Time
	turn    chan struct{} // whose turn it is to look
	news    chan struct{} // holds one where there is something to look at

	mutex    sync.Mutex
	model    *policies.Model // the last that was heard of
	heard    []k8s.Change    // since the one that last stands in
	declared []invariant.Invariant
	edition  int // of what is declared

	last        *Standing // of whose turn it is
	lastEdition int
}

// NewKeeper returns a keeper that has heard of nothing.
func NewKeeper(o reach.Options, clock func() time.Time) *Keeper {
	return &Keeper{options: o, clock: clock, turn: make(chan struct{}, 1), news: make(chan struct{}, 1)}
}

// mostHeard is how many changes are remembered until somebody asks.
const mostHeard = 1000

// Hear takes a world and what is not as in the one before. It returns at once.
func (k *Keeper) Hear(m *policies.Model, c k8s.Change) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.model = m
	if c.Whole || len(k.heard) == mostHeard {
		k.heard = nil // all is looked at again, whatever came before
		c = k8s.Change{Whole: true}
	}
	k.heard = append(k.heard, c)
	k.tell()
}

// Declare takes the place of all that was declared.
func (k *Keeper) Declare(all []invariant.Invariant) {
	k.mutex.Lock()
	defer k.mutex.Unlock()
	k.declared = all
	k.edition++
	k.tell()
}

func (k *Keeper) tell() {
	select {
	case k.news <- struct{}{}:
	default:
	}
}

// News holds an element when something was heard or declared since it was last
// received from. It is for one receiver.
func (k *Keeper) News() <-chan struct{} { return k.news }

// ErrUnseen is why there is no standing before a world was heard of.
var ErrUnseen = errors.New("the world has not been seen yet")

// Standing returns how the declared invariants stand in the last world that was
// heard of. It looks at what changed, if nobody has, and fails when the context is
// done before.
func (k *Keeper) Standing(ctx context.Context) (*Standing, error) {
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	k.mutex.Lock()
	model, heard, declared, edition := k.model, k.heard, k.declared, k.edition
	k.heard = nil
	k.mutex.Unlock()
	if model == nil {
		return nil, ErrUnseen
	}
	next, err := k.look(ctx, model, heard, declared, edition)
	if err != nil {
		k.mutex.Lock()
		defer k.mutex.Unlock()
		k.heard = append(heard, k.heard...)
		return nil, err
	}
	if next != k.last || next.Model != model {
		copied := *next
		copied.Model, copied.Results = model, explained(next.Results)
		next = &copied
	}
	k.last, k.lastEdition = next, edition
	return next, nil
}

// explained returns results all of whose counterexamples are explained, so that they keep
// no judge of a world that was.
func explained(results []*invariant.Result) []*invariant.Result {
	copied := false
	for i, r := range results {
		told := r.Explained()
		if told == r {
			continue
		}
		if !copied {
			results, copied = slices.Clone(results), true
		}
		results[i] = told
	}
	return results
}

func (k *Keeper) look(ctx context.Context, m *policies.Model, heard []k8s.Change, declared []invariant.Invariant, edition int) (*Standing, error) {
	now := k.clock()
	s := k.last
	if s == nil {
		return Of(ctx, m, declared, k.options, now)
	}
	if slices.ContainsFunc(heard, func(c k8s.Change) bool { return c.Whole }) {
		return Of(ctx, m, declared, k.options, now)
	}
	var err error
	for _, c := range inTurn(heard) {
		if s, err = s.After(ctx, &c, func() *policies.Model { return m }, now); err != nil {
			return nil, err
		}
	}
	switch {
	case edition != k.lastEdition:
		return s.Declaring(ctx, declared, now)
	case s.isOver(now):
		return s.at(ctx, now)
	}
	return s, nil
}

// inTurn returns what was heard with all that is not about policies in the first change,
// for the model is that of the last one, whatever the world was meanwhile.
func inTurn(heard []k8s.Change) []k8s.Change {
	all := slices.Clone(heard)
	for i := range all {
		if i > 0 {
			all[0].Pods, all[0].World = slices.Concat(all[0].Pods, all[i].Pods), slices.Concat(all[0].World, all[i].World)
			all[i].Pods, all[i].World = nil, nil
		}
	}
	return all
}
