package live

import (
	"context"
	"errors"
	"fmt"
	"io"

	jsoniter "github.com/json-iterator/go"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/policies/k8s"
)

// get asks the server for objects of a kind.
func (w *World) get(s k8s.Served, o *metav1.ListOptions) *rest.Request {
	root := "/apis"
	if s.Group == "" {
		root = "/api"
	}
	return w.client.Get().AbsPath(root, s.APIVersion(), s.Name).SpecificallyVersionedParams(o, metav1.ParameterCodec, schema.GroupVersion{Version: "v1"})
}

func readerOf(s k8s.Served) snapshot.Reader { return snapshot.NewReader(s.Group, s.Kind) }

// bufferSize is how much of an answer is in memory at a time, beside what was read of it.
const bufferSize = 16 << 10

// list takes the objects of a list, or of a page of one, as they come. What it returns has
// none of them.
func (w *World) list(ctx context.Context, k *kind, into *listing, o metav1.ListOptions) (*internalversion.List, error) {
	body, err := w.get(k.served, &o).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var failed error
	list, read := &internalversion.List{}, readerOf(k.served)
	from := jsoniter.Parse(jsoniter.ConfigDefault, body, bufferSize)
	from.ReadMapCB(func(from *jsoniter.Iterator, field string) bool {
		switch field {
		case "metadata":
			from.ReadVal(&list.ListMeta)
		case "items":
			return from.ReadArrayCB(func(from *jsoniter.Iterator) bool {
				object := read.Read(from)
				if from.Error != nil {
					return false
				}
				var i *item
				if i, failed = w.readItem(k, &unstructured.Unstructured{Object: object}); failed != nil {
					return false
				}
				w.takeListed(k, into, i, false)
				return true
			})
		default:
			from.Skip()
		}
		return true
	})
	switch {
	case failed != nil:
		return nil, failed
	case errors.Is(from.Error, io.EOF):
		return nil, io.ErrUnexpectedEOF
	}
	return list, from.Error
}

// events returns what the server tells of a kind from now on.
func (w *World) events(ctx context.Context, k *kind, o metav1.ListOptions) (watch.Interface, error) {
	o.Watch = true
	body, err := w.get(k.served, &o).Stream(ctx)
	switch {
	case err != nil && (utilnet.IsProbableEOF(err) || utilnet.IsTimeout(err)):
		return watch.NewEmptyWatch(), nil // as one that ended
	case err != nil:
		return nil, err
	}
	s := &stream{body: body, from: jsoniter.Parse(jsoniter.ConfigDefault, body, bufferSize), read: readerOf(k.served)}
	return watch.NewStreamWatcher(s, apierrors.NewClientErrorReporter(500, "GET", "ClientWatchDecoding")), nil
}

// stream reads events, one after the other.
type stream struct {
	body io.ReadCloser
	from *jsoniter.Iterator
	read snapshot.Reader
}

func (s *stream) Close() { _ = s.body.Close() }

// Decode waits for the next event. It is io.EOF where there is none any more.
func (s *stream) Decode() (watch.EventType, runtime.Object, error) {
	var kind watch.EventType
	var object map[string]any
	if s.from.WhatIsNext() == jsoniter.InvalidValue && s.from.Error != nil {
		return "", nil, s.from.Error
	}
	s.from.ReadMapCB(func(from *jsoniter.Iterator, field string) bool {
		switch field {
		case "type":
			kind = watch.EventType(from.ReadString())
		case "object":
			object = s.read.Read(from)
		default:
			from.Skip()
		}
		return true
	})
	switch {
	case errors.Is(s.from.Error, io.EOF):
		return "", nil, io.ErrUnexpectedEOF
	case s.from.Error != nil:
		return "", nil, s.from.Error
	case kind == watch.Error:
		status := &metav1.Status{}
		err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, status)
		return kind, status, err
	case object == nil:
		return "", nil, fmt.Errorf("an event %q without an object", kind)
	}
	return kind, &unstructured.Unstructured{Object: object}, nil
}
