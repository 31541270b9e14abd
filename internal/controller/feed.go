package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	toolscache "k8s.io/client-go/tools/cache"
	"sigs.k8s.io/controller-runtime/pkg/cache"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Feed tells somebody which Invariants are stored, on every replica. It is inert
// until Start.
type Feed struct {
	Informers cache.Informers
	Saw       func(name string, v live.Version, i *invariant.Invariant) // nil where it does not compile
	Missed    func(name string)
	// Renewed hears of another version of one that says what it said before, such as one
	// with another status.
	Renewed func(name string, v live.Version)
	// Tolerance is for how long they may be without a watch until they count as not seen.
	Tolerance time.Duration

	listed   atomic.Bool
	mutex    sync.Mutex
	informer cache.Informer
	failing  time.Time // when the watch first failed, of
	err      error     // which this came last, and
	revision string    // as of when they were seen then
	again    time.Time // since when they are seen again
}

// NeedLeaderElection lets a manager start the feed on every replica.
func (f *Feed) NeedLeaderElection() bool { return false }

// Unready says why not all Invariants were told of yet; nil when they were.
func (f *Feed) Unready() error {
	if !f.listed.Load() {
		return errors.New("invariants.weir.dev are still to be listed")
	}
	return nil
}

// Failed takes why the watch ended. It suits a cache's DefaultWatchErrorHandler.
func (f *Feed) Failed(ctx context.Context, r *toolscache.Reflector, err error) {
	toolscache.DefaultWatchErrorHandler(ctx, r, err)
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.heal(); f.failing.IsZero() {
		f.failing, f.revision = time.Now(), f.lastSeen()
	}
	f.err = err
}

// heal takes note that the watch goes on, if it does. It wants the mutex.
func (f *Feed) heal() {
	if !f.failing.IsZero() && f.lastSeen() != f.revision {
		f.failing, f.again = time.Time{}, time.Now()
	}
}

func (f *Feed) lastSeen() string {
	if f.informer == nil {
		return ""
	}
	if i, ok := f.informer.(interface{ LastSyncResourceVersion() string }); ok {
		return i.LastSyncResourceVersion()
	}
	return ""
}

// Seen returns since when Invariants are told of without a break, the zero time where
// they are not at the moment.
func (f *Feed) Seen() time.Time {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	switch f.heal(); {
	case !f.failing.IsZero():
		return time.Time{}
	case f.again.IsZero():
		return time.Unix(0, 0)
	}
	return f.again
}

// Unwatched returns an error while Invariants could not be watched for longer than
// Tolerance.
func (f *Feed) Unwatched() error {
	f.mutex.Lock()
	defer f.mutex.Unlock()
	if f.heal(); f.failing.IsZero() || time.Since(f.failing) < f.Tolerance {
		return nil
	}
	return fmt.Errorf("invariants.weir.dev cannot be watched: %w", f.err)
}

// Unseen is Unwatched as a list of clauses.
func (f *Feed) Unseen() []string {
	if err := f.Unwatched(); err != nil {
		return []string{err.Error()}
	}
	return nil
}

// soon is when the server is asked again for a kind that it does not know yet.
const soon = time.Second

// Start tells until ctx ends.
func (f *Feed) Start(ctx context.Context) error {
	informer, err := f.Informers.GetInformer(ctx, &Object{})
	for meta.IsNoMatchError(err) { // the kind is about to be defined, or ought to be
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(soon):
		}
		informer, err = f.Informers.GetInformer(ctx, &Object{})
	}
	if err != nil {
		return err
	}
	f.mutex.Lock()
	f.informer = informer
	f.mutex.Unlock()
	told, err := informer.AddEventHandler(toolscache.ResourceEventHandlerFuncs{
		AddFunc:    f.saw,
		UpdateFunc: f.updated,
		DeleteFunc: func(o any) {
			if key, err := toolscache.DeletionHandlingMetaNamespaceKeyFunc(o); err == nil {
				f.Missed(key)
			}
		},
	})
	if err != nil {
		return err
	}
	if toolscache.WaitForCacheSync(ctx.Done(), told.HasSynced) {
		f.listed.Store(true)
	}
	<-ctx.Done()
	return nil
}

func (f *Feed) updated(before, after any) {
	was, ok := before.(*Object)
	is, also := after.(*Object)
	if ok && also && was.UID == is.UID && was.Generation == is.Generation {
		f.Renewed(is.Name, versionOf(is))
		return
	}
	f.saw(after)
}

func (f *Feed) saw(object any) {
	o, ok := object.(*Object)
	if !ok {
		return
	}
	i, err := compile(o)
	if err != nil {
		i = nil // its status says why
	}
	f.Saw(o.Name, versionOf(o), i)
}

func versionOf(o *Object) live.Version {
	return live.Version{UID: o.UID, ResourceVersion: o.ResourceVersion}
}

func compile(o *Object) (*invariant.Invariant, error) {
	named := Object{Spec: o.Spec}
	named.APIVersion, named.Kind, named.Name = v1alpha1.APIVersion, v1alpha1.KindInvariant, o.Name
	raw, err := json.Marshal(&named)
	if err != nil {
		return nil, err
	}
	return standing.Compile(raw)
}
