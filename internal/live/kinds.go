package live

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"

	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// kind is one of the kinds that are watched.
type kind struct {
	served   k8s.Served
	stop     context.CancelFunc
	listing  *listing
	held     map[k8s.Key]Version // nothing where Options.Unversioned
	going    map[k8s.Key]bool    // of these, those that are being deleted
	listed   bool
	revision string
	heard    time.Time
	err      error

	streams bool      // whether the server last took up a watch, rather than refuse it
	failing time.Time // since when there is no watch; zero while there is one
	seen    time.Time // since when there is one; zero while there is none
}

func newKind(s k8s.Served) *kind {
	return &kind{served: s, held: map[k8s.Key]Version{}, going: map[k8s.Key]bool{}}
}

// fails takes note that it cannot be listed or watched.
func (k *kind) fails(err error) {
	k.err, k.streams, k.seen = err, false, time.Time{}
	if k.failing.IsZero() {
		k.failing = time.Now()
	}
}

// works takes note that all that is stored from now on is told.
func (k *kind) works() {
	if k.err, k.failing = nil, (time.Time{}); k.seen.IsZero() {
		k.seen = time.Now()
	}
}

// isUnseen reports whether it has been without a watch for longer than is tolerated.
func (k *kind) isUnseen(now time.Time, tolerance time.Duration) bool {
	return k.listed && !k.failing.IsZero() && now.Sub(k.failing) > tolerance
}

// discover begins to watch what the server serves and is not watched, and ends
// what it serves no more.
func (w *World) discover(ctx context.Context, running *sync.WaitGroup) error {
	served, missing, down, err := w.serves()
	if err != nil {
		return err
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if w.began.IsZero() {
		w.began = time.Now()
	}
	w.tell(missing)
	wanted := map[groupKind]bool{}
	for _, s := range served {
		id := idOf(s)
		wanted[id] = true
		k := w.watched[id]
		switch {
		case k != nil && k.served == s:
			continue
		case k != nil: // another version: what is held stays until the new list is there
			k.stop()
			next := &kind{served: s, held: k.held, going: k.going, listed: k.listed, listing: k.listing, revision: k.revision, heard: k.heard, failing: k.failing, err: k.err}
			w.watched[id] = next
			k = next
		default:
			k = newKind(s)
			w.watched[id] = k
		}
		watching, stop := context.WithCancel(ctx)
		k.stop = stop
		running.Go(func() { w.watch(watching, k) })
	}
	for id, k := range w.watched {
		if wanted[id] || down[k.served.Group] {
			continue
		}
		k.stop()
		delete(w.watched, id)
		for _, key := range slices.Collect(w.store.Each(id.group, id.kind)) {
			w.drop(k, key)
		}
	}
	w.changed()
	return nil
}

// tell takes which groups cannot be served, and says which are new among them and which
// are served again. It wants the mutex.
func (w *World) tell(missing []string) {
	slices.Sort(missing)
	before := w.missing
	w.missing = missing
	if w.options.Told == nil {
		return
	}
	for _, group := range missing {
		if !slices.Contains(before, group) {
			w.options.Told(fmt.Sprintf("group %s cannot be served at the moment; what is in it is not known", group))
		}
	}
	for _, group := range before {
		if !slices.Contains(missing, group) {
			w.options.Told(fmt.Sprintf("group %s is served again, or gone", group))
		}
	}
}

// idOf returns the name of a kind in keys.
func idOf(s k8s.Served) groupKind {
	key := k8s.KeyOf(s.APIVersion(), s.Kind, "", "")
	return groupKind{key.Group, key.Kind}
}

// serves returns the kinds to be watched, and the groups that cannot be served at
// the moment.
func (w *World) serves() (served []k8s.Served, missing []string, down map[string]bool, err error) {
	groups, lists, err := w.served.ServerGroupsAndResources()
	var failed *discovery.ErrGroupDiscoveryFailed
	if err != nil && !errors.As(err, &failed) {
		return nil, nil, nil, err
	}
	down = map[string]bool{}
	if failed != nil {
		for version := range failed.Groups {
			down[version.Group] = true
			// Metrics are often away; nobody's policies are among them.
			if !strings.HasSuffix(version.Group, "metrics.k8s.io") {
				missing = append(missing, version.String())
			}
		}
	}
	rank := map[string]int{}
	for _, g := range groups {
		for i, v := range g.Versions {
			rank[v.GroupVersion] = i
		}
	}
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil || version.Group == v1alpha1.Group {
			continue // our own kinds are no part of the world
		}
		for _, r := range list.APIResources {
			if !strings.Contains(r.Name, "/") && hasVerbs(r.Verbs, "list", "watch") {
				served = append(served, k8s.Served{
					Group: version.Group, Version: version.Version, Name: r.Name, Kind: r.Kind, Namespaced: r.Namespaced, Rank: rank[list.GroupVersion],
				})
			}
		}
	}
	served = slices.DeleteFunc(k8s.Choose(served), func(s k8s.Served) bool {
		_, wanted := w.wants(s)
		return !wanted
	})
	return served, missing, down, nil
}

// wants is Options.Wanted.
func (w *World) wants(s k8s.Served) (fields string, wanted bool) {
	if w.options.Wanted == nil {
		return "", true
	}
	return w.options.Wanted(s)
}

func hasVerbs(verbs []string, wanted ...string) bool {
	found := 0
	for _, v := range verbs {
		for _, want := range wanted {
			if v == want {
				found++
			}
		}
	}
	return found == len(wanted)
}

// changed takes note that there is something to publish.
func (w *World) changed() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// put, drop and told want the mutex.
func (w *World) put(k *kind, i *item) {
	key := i.entry.Key()
	if !w.options.Unversioned {
		k.held[key] = Version{i.UID, i.ResourceVersion}
		if delete(k.going, key); i.DeletionTimestamp != nil {
			k.going[key] = true
		}
	}
	w.store.Put(i.entry)
	w.told(key)
}

func (w *World) drop(k *kind, key k8s.Key) {
	delete(k.held, key)
	delete(k.going, key)
	w.store.Delete(key)
	w.told(key)
}

func (w *World) told(key k8s.Key) {
	for _, c := range w.waiting[key] {
		close(c)
	}
	delete(w.waiting, key)
}
