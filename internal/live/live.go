// Package live holds the world of a cluster as its API server tells of it: every
// kind that has a bearing on network policy is listed once and watched from then
// on. Package cluster reads the same world once.
//
// It keeps nothing of an object but what the model needs, see k8s.Store, and reads little
// more: of the first list nothing is in memory but that. After a
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
	// Patience is for how long the first model waits for groups of the API that cannot
	// be served at the moment; as long as Poll unless it is set.
	Patience time.Duration
	// Told hears of groups that cannot be served, and that are served again, a clause
	// each, if it is set.
	Told func(what string)
	// Tolerance is for how long a kind may be without a watch until what is in it counts
	// as not known; ten seconds unless it is set.
	Tolerance time.Duration
	// Settle is for how long changes are gathered before the subscribers hear of
	// them; a tenth of a second unless it is set.
	Settle time.Duration
	// Wanted says of a kind whether it is watched at all, and which of its objects are,
	// as a field selector; all of all kinds are unless it is set.
	Wanted func(k8s.Served) (fields string, wanted bool)
	// Unversioned spares the memory of knowing which version of each object is held: none
	// seems to be, nor to be going, to whoever looks.
	Unversioned bool
}

// World is the world of one cluster. It is safe for concurrent use.
type World struct {
	options Options
	config  *rest.Config
	client  rest.Interface
	served  discovery.DiscoveryInterface
	dirty   chan struct{} // holds one where something changed since the last model
	ready   chan struct{} // closed once there is a model
	asked   chan struct{} // holds one where somebody asked of a kind that is not watched

	mutex       sync.Mutex
	store       *k8s.Store
	watched     map[groupKind]*kind
	missing     []string  // groups that cannot be served
	began       time.Time // when the server first said which kinds it serves
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
	Failing         time.Time // since when it cannot be watched; zero where it can
	ResourceVersion string    // of the list, or of what came last
	Heard           time.Time // when the server last said something of it
	Err             error     // why it cannot be listed or watched at the moment
}

// New returns the world of the cluster that a config leads to. It holds nothing
// until Start.
func New(config *rest.Config, o Options) (*World, error) {
	o.Poll, o.Settle = cmp.Or(o.Poll, 30*time.Second), cmp.Or(o.Settle, 100*time.Millisecond)
	o.Patience, o.Tolerance = cmp.Or(o.Patience, o.Poll), cmp.Or(o.Tolerance, 10*time.Second)
	config = rest.CopyConfig(config)
	config.QPS, config.Burst = 100, 200
	config.WarningHandler = rest.NoWarnings{}
	client, err := rest.UnversionedRESTClientFor(dynamic.ConfigFor(config))
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
		client:  client,
		served:  served,
		dirty:   make(chan struct{}, 1),
		ready:   make(chan struct{}),
		asked:   make(chan struct{}, 1),
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
		if err := w.discover(ctx, &running); err != nil || w.Unready() != nil {
			pause = min(pause, time.Second)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-w.asked:
			if !sleep(ctx, min(pause, time.Second)) { // many may ask
				return nil
			}
		case <-time.After(pause):
		}
	}
}

// sleep reports whether a time passed before ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// Missing returns the groups of the API that cannot be served at the moment, so that
// what is in them may be unknown.
func (w *World) Missing() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	return w.missing
}

// Unseen says what may have changed without being seen: nothing, or a clause for each
// group of the API that cannot be served, and for each kind that could not be watched for
// longer than Tolerance.
func (w *World) Unseen() []string {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	var all []string
	for _, group := range w.missing {
		all = append(all, fmt.Sprintf("group %s cannot be served", group))
	}
	for _, k := range w.watched {
		if k.isUnseen(time.Now(), w.options.Tolerance) && !slices.Contains(w.missing, k.served.APIVersion()) {
			all = append(all, fmt.Sprintf("%s cannot be watched since %s: %s", k.served, k.failing.UTC().Format(time.TimeOnly), k.err))
		}
	}
	slices.Sort(all)
	return all
}

// Unwatched returns an error while some kind could not be watched for longer than
// Tolerance. There is a model all the same, of the world as it was.
func (w *World) Unwatched() error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	var all []string
	for _, k := range w.watched {
		if k.isUnseen(time.Now(), w.options.Tolerance) {
			all = append(all, fmt.Sprintf("%s cannot be watched: %s", k.served, k.err))
		}
	}
	if len(all) == 0 {
		return nil
	}
	slices.Sort(all)
	return errors.New(strings.Join(all, "; "))
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
	if w.began.IsZero() {
		reasons = append(reasons, "the server has not said which kinds it serves")
	}
	for _, group := range w.missing {
		if time.Since(w.began) < w.options.Patience {
			reasons = append(reasons, fmt.Sprintf("group %s cannot be served at the moment", group))
		}
	}
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
		all = append(all, Kind{k.served, len(k.held), k.listed, k.failing, k.revision, k.heard, k.err})
	}
	slices.SortFunc(all, func(a, b Kind) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// Moment is the world as the server has told of it by now. It may be asked within Look
// only.
type Moment interface {
	// Base is the last model that the subscribers heard of.
	Base() *policies.Model
	// Held returns which state of an object is held; false where it is not there.
	Held(key k8s.Key) (Version, bool)
	// Revision is the version of the last that the server told of the kind of an object:
	// what is held of it, or that nothing is, is so as of then. It is "" where the kind
	// is not watched.
	Revision(key k8s.Key) string
	// Seen returns since when the server tells of the kind of an object without a break,
	// the zero time where it does not at the moment. Where the kind is not watched, there
	// is nothing to be told of.
	Seen(key k8s.Key) time.Time
	// Get returns what is held of an object, nil where it is not there.
	Get(key k8s.Key) *k8s.Entry
	// Within returns the objects that a namespace holds, but not itself.
	Within(namespace string) []k8s.Key
	// Going returns the objects that are being deleted, and are still there until
	// somebody is done with them, and Namespaces that are not there while something in
	// them is: it was still to be missed. Pods that their controller replaces are none of
	// them.
	Going() []k8s.Key
	// Try lets look see what would be different from Base if objects came and went, with
	// all that the server has told since, and that model, made when it is asked for.
	Try(put []*k8s.Entry, gone []k8s.Key, look func(c k8s.Change, model func() *policies.Model))
}

// Look lets f see the world. Nothing changes meanwhile, and f must not ask the world
// itself. It fails while there is no model.
func (w *World) Look(f func(Moment)) error {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.model == nil {
		return cmp.Or(w.unready(), errors.New("the model is being made"))
	}
	f(moment{w})
	return nil
}

// moment is a world whose mutex is held.
type moment struct{ world *World }

func (m moment) Base() *policies.Model            { return m.world.model }
func (m moment) Held(key k8s.Key) (Version, bool) { return m.world.held(key) }
func (m moment) Get(key k8s.Key) *k8s.Entry       { return m.world.store.Get(key) }

func (m moment) Revision(key k8s.Key) string {
	if k := m.world.kindOf(key); k != nil {
		return k.revision
	}
	return ""
}

func (m moment) Seen(key k8s.Key) time.Time {
	if k := m.world.kindOf(key); k != nil {
		return k.seen
	}
	return m.world.began
}

func (m moment) Within(namespace string) (all []k8s.Key) {
	for _, k := range m.world.watched {
		for key := range k.held {
			if key.Namespace == namespace {
				all = append(all, key)
			}
		}
	}
	return all
}

func (m moment) Going() (all []k8s.Key) {
	for _, k := range m.world.watched {
		for key := range k.going {
			all = append(all, key)
		}
	}
	return append(all, m.world.store.Orphaned()...)
}

func (m moment) Try(put []*k8s.Entry, gone []k8s.Key, look func(k8s.Change, func() *policies.Model)) {
	m.world.store.Try(put, gone, look)
}

func (w *World) kindOf(key k8s.Key) *kind { return w.watched[groupKind{key.Group, key.Kind}] }

func (w *World) held(key k8s.Key) (Version, bool) {
	k := w.kindOf(key)
	if k == nil {
		return Version{}, false
	}
	v, has := k.held[key]
	return v, has
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
