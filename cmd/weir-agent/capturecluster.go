package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// declared are the PacketCaptures of a cluster, and where their status is written.
type declared struct {
	captures *captures
	node     string
	client   dynamic.NamespaceableResourceInterface
	informer cache.SharedIndexInformer
	news     chan struct{}
	log      *slog.Logger
	told     map[string]toldStatus // by namespace/name
}

type toldStatus struct {
	files v1alpha1.CaptureFiles
	at    time.Time
}

func newDeclared(config *rest.Config, c *captures, log *slog.Logger) (*declared, error) {
	all, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	d := &declared{
		captures: c, node: c.node, log: log, news: make(chan struct{}, 1), told: map[string]toldStatus{},
		client: all.Resource(schema.GroupVersionResource{Group: v1alpha1.Group, Version: "v1alpha1", Resource: "packetcaptures"}),
	}
	d.informer = cache.NewSharedIndexInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return d.client.List(ctx, o) },
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return d.client.Watch(ctx, o)
		},
	}, &unstructured.Unstructured{}, 0, nil)
	signal := func() {
		select {
		case d.news <- struct{}{}:
		default:
		}
	}
	_, errHandler := d.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { signal() }, UpdateFunc: func(any, any) { signal() }, DeleteFunc: func(any) { signal() },
	})
	return d, errors.Join(errHandler, d.informer.SetWatchErrorHandler(func(_ *cache.Reflector, err error) {
		c.agent.Complain("captures", fmt.Errorf("watch packetcaptures: %w", err))
	}))
}

// run follows the PacketCaptures until ctx ends, and writes how they are.
func (d *declared) run(ctx context.Context) error {
	go d.informer.RunWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), d.informer.HasSynced) {
		return ctx.Err()
	}
	d.read()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-d.news:
			d.read()
		case <-ticker.C:
			d.write(ctx, time.Now())
		}
	}
}

// read tells which captures there are. One that is not understood is left out, and
// complained about.
func (d *declared) read() {
	var all []policies.Capture
	var problems []error
	for _, o := range d.informer.GetStore().List() {
		object := o.(*unstructured.Unstructured)
		name := "cluster/PacketCapture/" + object.GetNamespace() + "/" + object.GetName()
		text, err := json.Marshal(map[string]any{
			"apiVersion": object.GetAPIVersion(), "kind": object.GetKind(), "spec": object.Object["spec"],
			"metadata": map[string]any{"namespace": object.GetNamespace(), "name": object.GetName()},
		})
		if err == nil {
			var docs []k8s.Document
			if docs, err = k8s.Parse(name, text); err == nil {
				var captures []policies.Capture
				captures, err = k8s.ReadCaptures(docs, k8s.Options{})
				all = append(all, captures...)
			}
		}
		if err != nil {
			problems = append(problems, err)
		}
	}
	slices.SortFunc(all, func(a, b policies.Capture) int { return a.Ref.Compare(b.Ref) })
	slices.SortFunc(problems, func(a, b error) int { return strings.Compare(a.Error(), b.Error()) })
	d.captures.agent.Complain("captures", errors.Join(problems...))
	d.captures.declare(all)
}

// countsEvery is how often a status is written for the sake of its counts alone.
const countsEvery = 15 * time.Second

// write applies to each status the entry of this node, where there is something to say
// that was not said.
func (d *declared) write(ctx context.Context, now time.Time) {
	there := map[string]bool{}
	for _, s := range d.captures.States() {
		key := s.Metadata.Namespace + "/" + s.Metadata.Name
		there[key] = true
		f := s.Status.Files[0]
		entries := []v1alpha1.CaptureFiles{f}
		if d.captures.selectsNothing(s) && len(f.FileNames) == 0 {
			if !d.hasEntry(key) { // as on all nodes that have none of the pods
				continue
			}
			entries = []v1alpha1.CaptureFiles{}
			f = v1alpha1.CaptureFiles{}
		}
		last, said := d.told[key]
		counts := f
		counts.Packets, counts.Bytes, counts.Dropped = last.files.Packets, last.files.Bytes, last.files.Dropped
		if said && (reflect.DeepEqual(f, last.files) || reflect.DeepEqual(counts, last.files) && now.Sub(last.at) < countsEvery) {
			continue
		}
		if err := d.apply(ctx, s, entries); err == nil {
			d.told[key] = toldStatus{f, now}
		} else if !apierrors.IsNotFound(err) {
			d.log.Warn("the status of a capture could not be written", "capture", key, "error", err)
		}
	}
	for key := range d.told {
		if !there[key] {
			delete(d.told, key)
		}
	}
}

// hasEntry reports whether the status has an entry of this node.
func (d *declared) hasEntry(key string) bool {
	o, has, err := d.informer.GetStore().GetByKey(key)
	if err != nil || !has {
		return false
	}
	files, _, _ := unstructured.NestedSlice(o.(*unstructured.Unstructured).Object, "status", "files")
	return slices.ContainsFunc(files, func(f any) bool {
		entry, _ := f.(map[string]any)
		return entry["node"] == d.node
	})
}

func (d *declared) apply(ctx context.Context, s v1alpha1.PacketCapture, entries []v1alpha1.CaptureFiles) error {
	text, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.APIVersion, "kind": v1alpha1.KindPacketCapture, "metadata": s.Metadata, "status": map[string]any{"files": entries},
	})
	if err != nil {
		return err
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		return err
	}
	_, err = d.client.Namespace(s.Metadata.Namespace).ApplyStatus(ctx, s.Metadata.Name, object, metav1.ApplyOptions{FieldManager: "weir-agent-" + d.node, Force: true})
	return err
}
