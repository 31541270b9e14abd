package live

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/weir-policy/weir/policies/k8s"
)

// A kind that cannot be watched any more is said to be unseen after a while, though it
// may still be listed, and until it is watched again.
func TestLostWatches(t *testing.T) {
	w, _ := still(t, networkPolicies)
	w.options.Tolerance = 5 * time.Second
	s := w.sinkOf(networkPolicies)
	key := k8s.Key{Group: "networking.k8s.io", Kind: "NetworkPolicy", Namespace: "shop", Name: "a"}
	list := func() { _ = s.Replace(nil, "10") }
	resumes := func() { w.begins(s.kind, metav1.ListOptions{ResourceVersion: "10"}) }
	anew := true
	streams := func() { w.begins(s.kind, metav1.ListOptions{SendInitialEvents: &anew}) }
	fails := func() { _ = w.failed(s.kind, errors.New("forbidden")) }
	passes := func() { // six seconds
		if !s.failing.IsZero() {
			s.failing = s.failing.Add(-6 * time.Second)
		}
	}
	for i, row := range []struct {
		what         string
		do           []func()
		seen, unseen bool
	}{
		{"it is listed", []func(){list, passes}, true, false},
		{"and watched", []func(){resumes, passes}, true, false},
		{"its watch fails", []func(){fails}, false, false},
		{"and fails", []func(){passes, fails}, false, true},
		{"it may be listed, and not be watched", []func(){list, fails, list}, false, true},
		{"it is watched again", []func(){resumes, passes}, true, false},
		{"nothing can be listed", []func(){fails, passes}, false, true},
		{"the server begins to stream a list", []func(){streams}, false, true},
		{"it is whole", []func(){list}, true, false},
		{"an event that is an error", []func(){func() {
			w.readEvent(s.kind, watch.Event{Type: watch.Error, Object: &metav1.Status{Message: "too old"}})
		}}, false, false},
		{"an event says that the watch goes on", []func(){resumes, func() { _ = s.Add(newItem(t, w, "a", "1", "11")) }}, true, false},
	} {
		for _, f := range row.do {
			f()
		}
		w.Flush()
		look(t, w, func(m Moment) {
			if seen := !m.Seen(key).IsZero(); seen != row.seen {
				t.Errorf("step %d, %s: seen %v", i, row.what, seen)
			}
		})
		var want []string
		if row.unseen {
			want = []string{fmt.Sprintf("networkpolicies.networking.k8s.io cannot be watched since %s: forbidden", s.failing.UTC().Format(time.TimeOnly))}
		}
		if diff := cmp.Diff(want, w.Unseen()); diff != "" || row.unseen != (w.Unwatched() != nil) || w.Unready() != nil {
			t.Errorf("step %d, %s: %s, %v, %v", i, row.what, diff, w.Unwatched(), w.Unready())
		}
	}
	// It may be that there is no such kind any more.
	_ = w.failed(s.kind, apierrors.NewNotFound(schema.GroupResource{Resource: "networkpolicies"}, ""))
	if len(w.asked) != 1 {
		t.Error("the server is not asked whether there is such a kind")
	}
	// What belongs to a group that cannot be served is said once.
	s.failing, w.missing = s.failing.Add(-time.Hour), []string{"networking.k8s.io/v1"}
	if diff := cmp.Diff([]string{"group networking.k8s.io/v1 cannot be served"}, w.Unseen()); diff != "" {
		t.Error(diff)
	}
}
