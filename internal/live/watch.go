package live

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/policies/k8s"
)

// pageSize is how many objects of a list a server is asked for at a time, where it does
// not stream them.
const pageSize = 500

// watch lists and watches a kind until ctx ends. The library does the hard parts:
// where to take up a watch again, when to list anew, and how long to wait.
func (w *World) watch(ctx context.Context, k *kind) {
	fields, _ := w.wants(k.served)
	var pages *listing
	both := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = fields
			if o.Continue == "" {
				pages = w.beginList(k)
			}
			list, err := w.list(ctx, k, pages, o)
			if err != nil {
				return nil, w.failed(k, err)
			}
			return list, nil
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = fields
			events, err := w.events(ctx, k, o)
			if err != nil {
				return nil, w.failed(k, err)
			}
			w.begins(k, o)
			var listing *listing // nil once it is whole
			if o.SendInitialEvents != nil && *o.SendInitialEvents {
				listing = w.beginList(k)
			}
			return watch.Filter(events, func(e watch.Event) (watch.Event, bool) {
				e = w.readEvent(k, e)
				i, is := e.Object.(*item)
				switch {
				case !is || listing == nil:
				case e.Type == watch.Bookmark && i.Annotations[metav1.InitialEventsAnnotationKey] == "true":
					listing = nil
				default:
					w.takeListed(k, listing, i, e.Type == watch.Deleted)
					e.Object = &item{ObjectMeta: metav1.ObjectMeta{ResourceVersion: i.ResourceVersion}}
				}
				return e, true
			}), nil
		},
	}
	r := cache.NewReflectorWithOptions(both, nil, &sink{w, k}, cache.ReflectorOptions{Name: "live", TypeDescription: k.served.String()})
	r.WatchListPageSize = pageSize
	r.RunWithContext(ctx)
}

// failed takes note of why a kind cannot be read. It may be that there is none of its
// name any more.
func (w *World) failed(k *kind, err error) error {
	if apierrors.IsNotFound(err) {
		w.ask()
	}
	w.mutex.Lock()
	defer w.mutex.Unlock()
	k.fails(err)
	return err
}

// begins takes note that a watch has begun. Where it lists anew, it works when the list
// is whole.
func (w *World) begins(k *kind, o metav1.ListOptions) {
	w.mutex.Lock()
	defer w.mutex.Unlock()
	if k.streams = true; o.SendInitialEvents == nil || !*o.SendInitialEvents {
		k.works()
	}
}

// item is an object on its way from the server: what a reflector asks of it, and
// what is kept.
type item struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	entry *k8s.Entry // nil in a bookmark, and where the reflector need not know
}

// DeepCopyObject makes an item an object as the library wants them.
func (i *item) DeepCopyObject() runtime.Object {
	copied := *i
	return &copied
}

// readEvent returns an event about an item. One that cannot be read ends the watch,
// so that the kind is listed again.
func (w *World) readEvent(k *kind, e watch.Event) watch.Event {
	if e.Type == watch.Error {
		_ = w.failed(k, apierrors.FromObject(e.Object))
		return e
	}
	o, ok := e.Object.(*unstructured.Unstructured)
	if !ok {
		return refusal(fmt.Errorf("an object of type %T", e.Object))
	}
	if e.Type == watch.Bookmark {
		return watch.Event{Type: e.Type, Object: &item{ObjectMeta: metav1.ObjectMeta{ResourceVersion: o.GetResourceVersion(), Annotations: o.GetAnnotations()}}}
	}
	i, err := w.readItem(k, o)
	if err != nil {
		return refusal(w.failed(k, err))
	}
	return watch.Event{Type: e.Type, Object: i}
}

func refusal(err error) watch.Event {
	return watch.Event{Type: watch.Error, Object: &metav1.Status{Status: metav1.StatusFailure, Code: 500, Reason: metav1.StatusReasonInternalError, Message: err.Error()}}
}

func (w *World) readItem(k *kind, o *unstructured.Unstructured) (*item, error) {
	o.Object["apiVersion"], o.Object["kind"] = k.served.APIVersion(), k.served.Kind
	entry, err := w.read(o.Object)
	if err != nil {
		return nil, err
	}
	key := entry.Key()
	i := &item{ObjectMeta: metav1.ObjectMeta{Namespace: key.Namespace, Name: key.Name, UID: o.GetUID(), ResourceVersion: o.GetResourceVersion()}, entry: entry}
	if !isReplaced(k.served, o) {
		i.DeletionTimestamp = o.GetDeletionTimestamp()
	}
	return i, nil
}

// isReplaced reports whether a controller makes another one of an object that goes.
func isReplaced(s k8s.Served, o *unstructured.Unstructured) bool {
	switch s.Group + "/" + s.Kind {
	case "/Pod", "apps/ReplicaSet", "batch/Job":
		return metav1.GetControllerOf(o) != nil
	}
	return false
}

// Entry reads an object, as encoding/json decodes it, as those of the server are
// read. Where its kind is not watched, the server is asked soon whether it should be.
func (w *World) Entry(object map[string]any) (*k8s.Entry, error) {
	e, err := w.read(object)
	if err == nil {
		key := e.Key()
		w.mutex.Lock()
		known := w.watched[groupKind{key.Group, key.Kind}] != nil
		w.mutex.Unlock()
		if !known {
			w.ask()
		}
	}
	return e, err
}

// ask has the server asked soon which kinds it serves.
func (w *World) ask() {
	select {
	case w.asked <- struct{}{}:
	default:
	}
}

func (w *World) read(object map[string]any) (*k8s.Entry, error) {
	o := snapshot.Trim(object)
	namespace, name := o.Name()
	_, kind := o.Kind()
	file := strings.ReplaceAll(strings.Join([]string{"cluster", kind, namespace, name}, "/"), "//", "/")
	return k8s.ReadEntry(k8s.Object(file, o), w.options.Read)
}

// sink is where a reflector puts a kind.
type sink struct {
	*World
	*kind
}

func (s *sink) Add(o any) error    { return s.Update(o) }
func (s *sink) Update(o any) error { return s.take(o, func(i *item) { s.World.put(s.kind, i) }) }
func (s *sink) Delete(o any) error {
	return s.take(o, func(i *item) { s.drop(s.kind, i.entry.Key()) })
}

// Bookmark takes note of how far a watch is.
func (s *sink) Bookmark(resourceVersion string) error {
	return s.take(&item{ObjectMeta: metav1.ObjectMeta{ResourceVersion: resourceVersion}}, func(*item) {})
}

// Resync does nothing: there is nothing to repeat.
func (s *sink) Resync() error { return nil }

func (s *sink) take(o any, do func(*item)) error {
	i, ok := o.(*item)
	if !ok {
		return fmt.Errorf("%s: an object of type %T", s.kind.served, o)
	}
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.isCurrent() {
		return nil
	}
	do(i)
	s.hear(i.ResourceVersion)
	return nil
}

// Replace puts the list that was told, with what the reflector has of it, in place of what
// is held.
func (s *sink) Replace(list []any, resourceVersion string) error {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	if !s.isCurrent() {
		return nil
	}
	if s.listing == nil {
		s.kind.begin()
	}
	for _, o := range list {
		i, ok := o.(*item)
		if !ok {
			return fmt.Errorf("%s: an object of type %T", s.kind.served, o)
		}
		if i.entry != nil {
			s.takeInto(s.kind, i)
		}
	}
	s.finish(s.kind)
	s.listed = true
	s.hear(resourceVersion)
	return nil
}

// isCurrent reports whether nobody else watches the kind by now.
func (s *sink) isCurrent() bool { return s.World.isCurrent(s.kind) }

func (s *sink) hear(resourceVersion string) {
	s.revision, s.heard = resourceVersion, time.Now()
	if s.kind.streams || s.failing.IsZero() { // else it was listed, and may not be watched
		s.works()
	}
	s.changed()
}
