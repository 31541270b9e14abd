package controller

import (
	"context"
	"errors"
	"strings"
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
	Settle time.Duration                   // for which changes are gathered
	Tell   func(found []*invariant.Result) // hears what is found of all invariants; nil for nobody
	// Unwatched returns an error while the world may have changed without being seen; nil
	// where it is always seen.
	Unwatched func() error

	// Pace is for how long a status may wait for what is found where only numbers or
	// counterexamples are other ones: in a large cluster nearly every change adds to what
	// breaks some invariant, and an API server has more to do than to store that.
	Pace time.Duration

	Clock func() time.Time // time.Now unless it is set

	mutex sync.Mutex
	until time.Time                                               // when a waiver ends
	blind string                                                  // why the world is not seen; empty where it is
	queue workqueue.TypedRateLimitingInterface[reconcile.Request] // of the controller, where it runs
	last  map[string]finding
}

// finding is what was found of an invariant, and its summary.
type finding struct {
	*invariant.Result
	summary
}

// summary is what makes a status another one.
type summary struct {
	state           invariant.State
	broken, waived  int
	counterexamples string
}

func summaryOf(r *invariant.Result) summary {
	s := summary{state: r.State, broken: r.Broken, waived: r.Waived, counterexamples: r.Say() + r.Lapsed()}
	for i := range r.Counterexamples {
		s.counterexamples += "\n" + r.Counterexamples[i].Rule()
	}
	return s
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

// beat is how often it is asked whether the world is still seen, and waivers have not
// ended.
const beat = time.Second

// Start looks until ctx ends.
func (w *Watch) Start(ctx context.Context) error {
	ticks := time.NewTicker(beat)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
			if turns := w.turns(ctx); !turns && !w.isOver() {
				continue
			}
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

// turns reports whether the world is seen now and was not, or is not and was.
func (w *Watch) turns(ctx context.Context) bool {
	var now error
	if w.Unwatched != nil {
		now = w.Unwatched()
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if (now != nil) == (w.blind != "") {
		return false
	}
	if w.blind = ""; now != nil {
		w.blind = strings.ReplaceAll(now.Error(), "\n", "; ")
		log.FromContext(ctx).Error(now, "the world cannot be seen, so nothing is sure of the invariants")
	} else {
		log.FromContext(ctx).Info("the world is seen again")
	}
	return true
}

// isOver reports whether a waiver has ended since the last look.
func (w *Watch) isOver() bool {
	now := time.Now
	if w.Clock != nil {
		now = w.Clock
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return !w.until.IsZero() && !now().Before(w.until)
}

// asSeen returns what was found of an invariant as far as it can be told.
func (w *Watch) asSeen(r *invariant.Result) *invariant.Result {
	if w == nil {
		return r
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.blind != "" {
		return r.Unseen(w.blind)
	}
	return r
}

func (w *Watch) look(s *standing.Standing) {
	results := make([]*invariant.Result, len(s.Results))
	for k, r := range s.Results {
		results[k] = w.asSeen(r)
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.until = s.Until()
	now := make(map[string]finding, len(results))
	for _, r := range results {
		was := w.last[r.Ref.Name]
		is := was
		if was.Result != r {
			is = finding{r, summaryOf(r)}
		}
		now[r.Ref.Name] = is
		if q := (reconcile.Request{NamespacedName: types.NamespacedName{Name: r.Ref.Name}}); w.queue != nil && was.summary != is.summary {
			if was.state == is.state {
				w.queue.AddAfter(q, w.Pace)
			} else {
				w.queue.Add(q)
			}
		}
	}
	if w.last = now; w.Tell != nil {
		w.Tell(results)
	}
}
