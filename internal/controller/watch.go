package controller

import (
	"context"
	"errors"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"

	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
)

// Watch looks at the invariants whenever the world changes, on every replica, so that
// the next one to lead need not begin with that. It is inert until Start.
type Watch struct {
	Keeper *standing.Keeper
	Settle time.Duration                  // for which changes are gathered
	Tell   func(found []invariant.Result) // hears what is found of all invariants; nil for nobody

	mutex sync.Mutex
	queue workqueue.TypedRateLimitingInterface[reconcile.Request] // of the controller, where it runs
	last  map[string]summary
}

// summary is what makes a status another one.
type summary struct {
	state           invariant.State
	broken, waived  int
	counterexamples string
}

// NeedLeaderElection lets a manager start the watch on every replica.
func (w *Watch) NeedLeaderElection() bool { return false }

// Source leads the controller to the Invariants of which something else is found
// than before.
func (w *Watch) Source() source.Source {
	return source.Func(func(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
		w.mutex.Lock()
		defer w.mutex.Unlock()
		w.queue = queue
		return nil
	})
}

// Start looks until ctx ends.
func (w *Watch) Start(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-w.Keeper.News():
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.Settle):
		}
		switch s, err := w.Keeper.Standing(ctx); {
		case err == nil:
			w.look(s)
		case !errors.Is(err, standing.ErrUnseen) && ctx.Err() == nil:
			log.FromContext(ctx).Error(err, "look at the invariants")
		}
	}
}

func (w *Watch) look(s *standing.Standing) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	now := make(map[string]summary, len(s.Results))
	for k := range s.Results {
		r := &s.Results[k]
		is := summary{state: r.State, broken: r.Broken, waived: r.Waived, counterexamples: r.Say()}
		for i := range r.Counterexamples {
			is.counterexamples += "\n" + r.Counterexamples[i].Rule()
		}
		now[r.Ref.Name] = is
		if w.queue != nil && w.last[r.Ref.Name] != is {
			w.queue.Add(reconcile.Request{NamespacedName: types.NamespacedName{Name: r.Ref.Name}})
		}
	}
	if w.last = now; w.Tell != nil {
		w.Tell(s.Results)
	}
}
