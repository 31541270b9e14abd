package controller

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"

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

	listed atomic.Bool
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

// Start tells until ctx ends.
func (f *Feed) Start(ctx context.Context) error {
	informer, err := f.Informers.GetInformer(ctx, &Object{})
	if err != nil {
		return err
	}
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
