// Package live holds the world of a cluster as its API server tells of it: every
// kind that has a bearing on network policy is listed once and watched from then
// on. Package cluster reads the same world once.
//
// It keeps nothing of an object but what the model needs, see k8s.Store. After a
// broken watch the picture stays as it was until the new list is whole.
package live

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Options are choices about a World. The zero Options are good ones.
type Options struct {
	Read k8s.Options
	// Poll is how often the server is asked which kinds it serves, so that those are
	// watched that are defined later; half a minute unless it is set.
	Poll time.Duration
	// Settle is for how long changes are gathered before the subscribers hear of
	// them; a tenth of a second unless it is set.
	Settle time.Duration
}

// World is the world of one cluster. It is safe for concurrent use.
type World struct {
	options Options
	config  *rest.Config
	kinds   dynamic.Interface
	served  discovery.DiscoveryInterface
	dirty   chan struct{} // holds one where something changed since the last model
	ready   chan struct{} // closed once there is a model

	mutex       sync.Mutex
	store       *k8s.Store
	watched     map[groupKind]*kind
	missing     []string // what the server could not tell of, a sentence each
	discovered  bool
	model       *policies.Model
	subscribers []func(*policies.Model, k8s.Change)
	waiting     map[k8s.Key][]chan struct{}
}

type groupKind struct{ group, kind string }

// Version is which state of an object is held.
type Version struct {
	UID             types.UID
	ResourceVersion string
}

// Kind is how things stand with one of the kinds that are watched.
type Kind struct {
	k8s.Served
	Objects         int
	Listed          bool      // whether it was listed as a whole
	ResourceVersion string    // of the list, or of what came last
	Heard           time.Time // when the server last said something of it
	Err             error     // why it cannot be listed or watched at the moment
}

// New returns the world of the cluster that a config leads to. It holds nothing
// until Start.
func New(config *rest.Config, o Options) (*World, error) {
	o.Poll, o.Settle = cmp.Or(o.Poll, 30*time.Second), cmp.Or(o.Settle, 100*time.Millisecond)
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	config.WarningHandler = rest.NoWarnings{}
	kinds, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	served, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return nil, err
	}
	return &World{
		options: o,
		config:  config,
		kinds:   kinds,
		served:  served,
		dirty:   make(chan struct{}, 1),
		ready:   make(chan struct{}),
		store:   k8s.NewStore(o.Read),
		watched: map[groupKind]*kind{},
		waiting: map[k8s.Key][]chan struct{}{},
	}, nil
}

// Subscribe lets f hear of every model, with what is not as in the one before. It is
// called with one after the other, first when all kinds were listed, and must not
// ask the world itself. It is to be called before Start.
func (w *World) Subscribe(f func(*policies.Model, k8s.Change)) {
	w.subscribers = append(w.subscribers, f)
}

// NeedLeaderElection lets a manager of controller-runtime start the world on every
// replica.
func (w *World) NeedLeaderElection() bool { return false }

// Start watches the cluster until ctx ends.
func (w *World) Start(ctx context.Context) error {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { w.publish(ctx) })
	for {
		pause := w.options.Poll
		if err := w.discover(ctx, &running); err != nil {
			pause = min(pause, time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// publish tells the subscribers of changes, gathered for a while.
func (w *World) publish(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.options.Settle):
		}
		w.Flush()
	}
}

// Flush tells the subscribers at once of what changed, and returns the model of
// all that the server has told; nil before all kinds were listed.
func (w *World) Flush() *policies.Model {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.model == nil && w.unready() != nil {
		return nil
	}
	m, change := w.store.Model()
	if m == w.model {
		return m
	}
	first := w.model == nil
	w.model = m
	for _, tell := range w.subscribers {
		tell(m, change)
	}
	if first {
		close(w.ready)
	}
	return m
}

// Model returns the last model that the subscribers heard of, nil where they have
// heard of none.
func (w *World) Model() *policies.Model {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.model
}

// Ready is closed once there is a model.
func (w *World) Ready() <-chan struct{} { return w.ready }

// Unready says why there is no model yet; nil when there is one.
func (w *World) Unready() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.model != nil {
		return nil
	}
	return cmp.Or(w.unready(), errors.New("the model is being made"))
}

func (w *World) unready() error {
	var reasons []string
	if !w.discovered {
		reasons = append(reasons, "the server has not said which kinds it serves")
	}
	reasons = append(reasons, w.missing...)
	for _, k := range w.watched {
		switch {
		case !k.listed && k.err != nil:
			reasons = append(reasons, fmt.Sprintf("%s cannot be listed: %s", k.served, k.err))
		case !k.listed:
			reasons = append(reasons, fmt.Sprintf("%s are still to be listed", k.served))
		}
	}
	if len(reasons) == 0 {
		return nil
	}
	slices.Sort(reasons)
	return errors.New(strings.Join(reasons, "; "))
}

// Kinds returns the kinds that are watched, by their names.
func (w *World) Kinds() []Kind {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	all := make([]Kind, 0, len(w.watched))
	for _, k := range w.watched {
		all = append(all, Kind{k.served, len(k.held), k.listed, k.revision, k.heard, k.err})
	}
	slices.SortFunc(all, func(a, b Kind) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// Trial is a world with more or less in it than the server has told of.
type Trial struct {
	// Base is the last model that the subscribers heard of; Change is what would be
	// different from it, with all that the server has told since.
	Base   *policies.Model
	Change k8s.Change
	// Model makes the model, the first time that it is called.
	Model func() *policies.Model
}

// Try lets look see the world as it would be if objects came and went. Which ones,
// pending says, who may ask what is held of them. Nothing changes meanwhile, and
// neither of the two may ask the world itself. It fails while there is no model.
func (w *World) Try(pending func(held func(k8s.Key) (Version, bool)) (put []*k8s.Entry, gone []k8s.Key), look func(Trial)) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.model == nil {
		return cmp.Or(w.unready(), errors.New("the model is being made"))
	}
	put, gone := pending(w.held)
	w.store.Try(put, gone, func(c k8s.Change, model func() *policies.Model) { look(Trial{w.model, c, model}) })
	return nil
}

// Held returns which state of an object is held; false where it is not there.
func (w *World) Held(key k8s.Key) (Version, bool) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.held(key)
}

func (w *World) held(key k8s.Key) (Version, bool) {
	k := w.watched[groupKind{key.Group, key.Kind}]
	if k == nil {
		return Version{}, false
	}
	v, has := k.held[key]
	return v, has
}

// Get returns what is held of an object, and which state; nil where it is not there.
func (w *World) Get(key k8s.Key) (*k8s.Entry, Version) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	v, _ := w.held(key)
	return w.store.Get(key), v
}

// Within returns the objects that a namespace holds, but not itself.
func (w *World) Within(namespace string) []k8s.Key {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	var all []k8s.Key
	for _, k := range w.watched {
		for key := range k.held {
			if key.Namespace == namespace {
				all = append(all, key)
			}
		}
	}
	return all
}

// Wait returns when until holds of what is held of an object, or with the error of
// ctx. It is asked now and whenever the server tells of the object.
func (w *World) Wait(ctx context.Context, key k8s.Key, until func(v Version, held bool) bool) error {
	for {
		w.mutex.Lock()
		if until(w.held(key)) {
			w.mutex.Unlock()
			return nil
		}
		told := make(chan struct{})
		w.waiting[key] = append(w.waiting[key], told)
		w.mutex.Unlock()
		select {
		case <-told:
		case <-ctx.Done():
			w.forget(key, told)
			return ctx.Err()
		}
	}
}

func (w *World) forget(key k8s.Key, told chan struct{}) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	w.waiting[key] = slices.DeleteFunc(w.waiting[key], func(c chan struct{}) bool { return c == told })
	if len(w.waiting[key]) == 0 {
		delete(w.waiting, key)
	}
}
