package live

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

var networkPolicies = k8s.Served{Group: "networking.k8s.io", Version: "v1", Name: "networkpolicies", Kind: "NetworkPolicy", Namespaced: true}

// still is a world that nobody watches for; the test tells it what a reflector
// would.
func still(t *testing.T, served ...k8s.Served) (*World, *[]k8s.Change) {
	t.Helper()
	w, err := New(&rest.Config{Host: "localhost"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range served {
		w.watched[idOf(s)] = newKind(s)
	}
	w.began = time.Now()
	var told []k8s.Change
	w.Subscribe(func(_ *policies.Model, c k8s.Change) { told = append(told, c) })
	return w, &told
}

func (w *World) sinkOf(s k8s.Served) *sink { return &sink{w, w.watched[idOf(s)]} }

func newItem(t *testing.T, w *World, name, uid, version string) *item {
	t.Helper()
	e, err := w.Entry(map[string]any{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": map[string]any{"namespace": "shop", "name": name},
		"spec": map[string]any{"podSelector": map[string]any{"matchLabels": map[string]any{"version": version}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return &item{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(uid), ResourceVersion: version}, entry: e}
}

func subjects(m *policies.Model) (all []string) {
	for i := range m.Policies {
		all = append(all, m.Policies[i].Ref.Name+": "+m.Policies[i].Subject.String())
	}
	return all
}

func TestListsAreTakenWhole(t *testing.T) {
	w, told := still(t, networkPolicies)
	s := w.sinkOf(networkPolicies)
	if w.Flush() != nil || w.Unready() == nil || w.Unready().Error() != "networkpolicies.networking.k8s.io are still to be listed" {
		t.Errorf("before the list: %v", w.Unready())
	}
	if err := s.Replace([]any{newItem(t, w, "a", "1", "10"), newItem(t, w, "b", "2", "11")}, "12"); err != nil {
		t.Fatal(err)
	}
	m := w.Flush()
	if diff := cmp.Diff([]string{"a: pods version=10 in shop", "b: pods version=11 in shop"}, subjects(m)); diff != "" {
		t.Error(diff)
	}
	// What a list anew finds changed, gone and come is one change.
	if err := s.Replace([]any{newItem(t, w, "b", "2", "20"), newItem(t, w, "c", "3", "21")}, "22"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"b: pods version=20 in shop", "c: pods version=21 in shop"}, subjects(w.Flush())); diff != "" {
		t.Error(diff)
	}
	if len(*told) != 2 || !(*told)[0].Whole || len((*told)[1].Policies) != 2 || len((*told)[1].Gone) != 1 || (*told)[1].Whole {
		t.Errorf("told of %+v", *told)
	}
	look(t, w, func(m Moment) {
		b := k8s.Key{Group: "networking.k8s.io", Kind: "NetworkPolicy", Namespace: "shop", Name: "b"}
		if v, held := m.Held(b); !held || v != (Version{"2", "20"}) || m.Revision(b) != "22" || m.Get(b).Key() != b || len(m.Within("shop")) != 2 {
			t.Errorf("it holds %v as of %s", v, m.Revision(b))
		}
	})
	// The same again, with another version only, is no change.
	if err := s.Replace([]any{newItem(t, w, "c", "3", "21"), newItem(t, w, "b", "2", "20")}, "30"); err != nil {
		t.Fatal(err)
	}
	if w.Flush(); len(*told) != 2 {
		t.Errorf("told of %+v", (*told)[2:])
	}
}

func look(t *testing.T, w *World, f func(Moment)) {
	t.Helper()
	if err := w.Look(f); err != nil {
		t.Error(err)
	}
}

// What is being deleted is known to go until it has gone, or another one has its name.
func TestGoing(t *testing.T) {
	w, _ := still(t, networkPolicies)
	s := w.sinkOf(networkPolicies)
	goes := newItem(t, w, "a", "1", "10")
	goes.DeletionTimestamp = &metav1.Time{Time: time.Unix(1, 0)}
	for i, step := range []struct {
		do   func() error
		want int
	}{
		{func() error { return s.Replace([]any{newItem(t, w, "a", "1", "9"), newItem(t, w, "b", "2", "9")}, "9") }, 0},
		{func() error { return s.Update(goes) }, 1},
		{func() error { return s.Delete(goes) }, 0},
		{func() error { return s.Replace([]any{goes}, "12") }, 1},
		{func() error { return s.Add(newItem(t, w, "a", "3", "13")) }, 0},
	} {
		if err := step.do(); err != nil {
			t.Fatal(err)
		}
		w.Flush()
		look(t, w, func(m Moment) {
			gone := slices.DeleteFunc(m.Going(), func(k k8s.Key) bool { return k.Name != "a" })
			if len(gone) != step.want {
				t.Errorf("after step %d %v go, want %d", i, gone, step.want)
			}
			if all := m.Going(); !slices.Contains(all, k8s.Key{Kind: "Namespace", Name: "shop"}) {
				t.Errorf("after step %d %v go, and not the Namespace that is not there", i, all)
			}
		})
	}
}

// A pod that a controller replaces does not go for good.
func TestPodsOfControllersAreReplaced(t *testing.T) {
	pods := k8s.Served{Version: "v1", Name: "pods", Kind: "Pod", Namespaced: true}
	w, _ := still(t, pods)
	for owners, want := range map[string]bool{
		"": true,
		`{kind: ReplicaSet, name: a, controller: true}`: false,
		`{kind: ConfigMap, name: a}`:                    true,
	} {
		var o map[string]any
		text := "{metadata: {name: a, namespace: shop, deletionTimestamp: \"2026-11-23T12:00:00Z\", ownerReferences: [" + owners + "]}}"
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		i, err := w.readItem(w.watched[idOf(pods)], &unstructured.Unstructured{Object: o})
		if err != nil {
			t.Fatal(err)
		}
		if goes := i.DeletionTimestamp != nil; goes != want {
			t.Errorf("owned by %q it goes for good: %v", owners, goes)
		}
	}
}

func TestWatchesAreFollowed(t *testing.T) {
	w, _ := still(t, networkPolicies)
	s := w.sinkOf(networkPolicies)
	if err := errors.Join(s.Replace(nil, "1"), s.Add(newItem(t, w, "a", "1", "10")), s.Update(newItem(t, w, "a", "1", "11")),
		s.Add(newItem(t, w, "b", "2", "12")), s.Delete(newItem(t, w, "b", "2", "13")), s.Bookmark("14")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a: pods version=11 in shop"}, subjects(w.Flush())); diff != "" {
		t.Error(diff)
	}
	if k := w.Kinds()[0]; k.Objects != 1 || !k.Listed || k.ResourceVersion != "14" {
		t.Errorf("%+v", k)
	}
}

func TestOneWatchTakesOverFromAnother(t *testing.T) {
	w, _ := still(t, networkPolicies)
	old := w.sinkOf(networkPolicies)
	if err := old.Replace([]any{newItem(t, w, "a", "1", "10")}, "12"); err != nil {
		t.Fatal(err)
	}
	// Another version of the kind is watched now, and still to be listed.
	now := *old.kind
	w.watched[idOf(networkPolicies)] = &now
	if err := errors.Join(old.Delete(newItem(t, w, "a", "1", "13")), old.Replace(nil, "14")); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a: pods version=10 in shop"}, subjects(w.Flush())); diff != "" {
		t.Error(diff)
	}
}

func TestUnreadySaysWhy(t *testing.T) {
	pods := k8s.Served{Version: "v1", Name: "pods", Kind: "Pod", Namespaced: true}
	w, _ := still(t, networkPolicies, pods)
	_ = w.failed(w.watched[idOf(pods)], errors.New("pods is forbidden"))
	w.began, w.options.Patience, w.missing = time.Now(), time.Hour, []string{"projectcalico.org/v3"}
	want := "group projectcalico.org/v3 cannot be served at the moment; networkpolicies.networking.k8s.io are still to be listed; pods cannot be listed: pods is forbidden"
	if err := w.Unready(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if err := w.Look(nil); err == nil || err.Error() != want {
		t.Errorf("a look: %v, want %s", err, want)
	}
	w.began = time.Now().Add(-time.Hour) // a group that stays away is not waited for
	want = strings.TrimPrefix(want, "group projectcalico.org/v3 cannot be served at the moment; ")
	if err := w.Unready(); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestWaitSeesWhatComes(t *testing.T) {
	w, _ := still(t, networkPolicies)
	s := w.sinkOf(networkPolicies)
	key := k8s.Key{Group: "networking.k8s.io", Kind: "NetworkPolicy", Namespace: "shop", Name: "a"}
	asked, seen := make(chan bool, 10), make(chan error, 1)
	go func() {
		seen <- w.Wait(context.Background(), key, func(v Version, held bool) bool {
			asked <- held
			return held && v.ResourceVersion == "11"
		})
	}()
	for i, version := range []string{"10", "11"} {
		if held := <-asked; held != (i > 0) {
			t.Errorf("asked of an object that is held: %v", held)
		}
		if err := s.Add(newItem(t, w, "a", "1", version)); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-seen; err != nil {
		t.Error(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := w.Wait(ctx, key, func(Version, bool) bool { return false }); !errors.Is(err, context.Canceled) || len(w.waiting) > 0 {
		t.Errorf("%v, with %d waiting", err, len(w.waiting))
	}
}

func TestStartWithoutServer(t *testing.T) {
	w, err := New(&rest.Config{Host: "127.0.0.1:1"}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if err := w.Start(ctx); err != nil || !strings.Contains(w.Unready().Error(), "the server has not said which kinds it serves") {
		t.Errorf("%v, %v", err, w.Unready())
	}
}

// Who asks about a kind that is not watched has the server asked whether it should be.
func TestAskingOfAnotherKind(t *testing.T) {
	w, _ := still(t, networkPolicies)
	ask := func(apiVersion, kind string) bool {
		t.Helper()
		_, err := w.Entry(map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": "a", "namespace": "shop"}, "spec": map[string]any{"podSelector": map[string]any{}}})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.asked:
			return true
		default:
			return false
		}
	}
	if ask("networking.k8s.io/v1", "NetworkPolicy") {
		t.Error("a kind that is watched is asked for")
	}
	if !ask("projectcalico.org/v3", "NetworkPolicy") {
		t.Error("a kind that is not watched is not asked for")
	}
}
