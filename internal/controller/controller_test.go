package controller

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/meta"
	"github.com/fluxcd/pkg/runtime/conditions"
	"github.com/fluxcd/pkg/runtime/conditions/check"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/workqueue"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	clientfake "sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// run lets the controller look at one Invariant in a world of two pods, and returns
// it with the events.
func run(t *testing.T, spec, policy string) (*Object, []string) {
	t.Helper()
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: "it", Generation: 3, Annotations: map[string]string{meta.ReconcileRequestAnnotation: "now"}}}
	if err := json.Unmarshal([]byte(spec), &o.Spec); err != nil {
		t.Fatal(err)
	}
	store := k8s.NewStore(k8s.Options{})
	put(t, store, podOf("web", "10.0.0.1"), podOf("db", "10.0.0.2"), policy)
	keeper := standing.NewKeeper(reach.Options{}, clock)
	keeper.Hear(store.Model())
	if i, err := compile(o); err == nil {
		keeper.Declare([]invariant.Invariant{*i})
	}
	return reconciled(t, o, keeper)
}

// reconciled lets the controller look at an Invariant, and returns it with the
// events.
func reconciled(t *testing.T, o *Object, keeper *standing.Keeper, watch ...*Watch) (*Object, []string) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	c := clientfake.NewClientBuilder().WithScheme(scheme).WithObjects(o).WithStatusSubresource(o).Build()
	events := record.NewFakeRecorder(10)
	r := &Reconciler{Client: c, Events: events, Keeper: keeper, Interval: time.Minute, Clock: clock}
	if len(watch) > 0 {
		r.Watch = watch[0]
	}
	if _, err := r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Name: "it"}}); err != nil {
		t.Fatal(err)
	}
	got := &Object{}
	if err := c.Get(context.Background(), client.ObjectKey{Name: "it"}, got); err != nil {
		t.Fatal(err)
	}
	close(events.Events)
	var told []string
	for e := range events.Events {
		told = append(told, e)
	}
	return got, told
}

func clock() time.Time { return noon }

// put puts objects into a world.
func put(t *testing.T, store *k8s.Store, texts ...string) {
	t.Helper()
	for _, text := range texts {
		docs, err := k8s.Parse("world.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			e, err := k8s.ReadEntry(d, k8s.Options{})
			if err != nil {
				t.Fatal(err)
			}
			store.Put(e)
		}
	}
}

func podOf(name, ip string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %[1]s, namespace: shop, labels: {app: %[1]s}}, status: {podIP: %[2]s}}", name, ip)
}

const (
	open = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {podSelector: {}, ingress: [{}]}}"
	shut = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p, namespace: shop}, spec: {podSelector: {}}}"
	ends = `"from":[{"podSelector":{"matchLabels":{"app":"web"}}}],"to":[{"podSelector":{"matchLabels":{"app":"db"}}}],"ports":[5432]`
)

func TestStatus(t *testing.T) {
	for _, row := range []struct {
		name, spec, policy string
		state, ready       string
		conditions         []string
		event              string
	}{
		{"one that holds", `{"never":{` + ends + `}}`, shut, "holds", "True InvariantHolds", []string{"Ready"}, "Normal InvariantHolds invariant it: it holds"},
		{
			"one that is broken", `{"never":{` + ends + `}}`, open, "broken", "False InvariantViolated",
			[]string{"Stalled", "Ready", "InvariantViolated"},
			"Warning InvariantViolated invariant it: shop/web can open TCP/5432 to shop/db",
		},
		{
			"one that is waived", `{"never":{` + ends + `},"waivers":[{"reason":"a","owner":"b","until":"2026-12-01"}]}`, open, "waived", "True InvariantWaived",
			[]string{"Ready"},
			"Normal InvariantWaived invariant it: shop/web can open TCP/5432 to shop/db",
		},
		{
			"one whose waiver has expired", `{"never":{` + ends + `},"waivers":[{"reason":"a","owner":"b","until":"2026-11-22"}]}`, open, "broken", "False InvariantViolated",
			[]string{"Stalled", "Ready", "InvariantViolated", "WaiverExpired"},
			"Warning InvariantViolated invariant it: shop/web can open TCP/5432 to shop/db; a waiver expired at the end of 2026-11-22 (a, for b)",
		},
		{
			"one that holds all the same", `{"never":{` + ends + `},"waivers":[{"reason":"a","owner":"b","until":"2026-11-22"}]}`, shut, "holds", "True InvariantHolds",
			[]string{"Ready", "WaiverExpired"},
			"Warning InvariantHolds invariant it: it holds; a waiver expired at the end of 2026-11-22 (a, for b)",
		},
		{
			"one that does not compile", `{"cel":"nonsense("}`, open, "invalid", "False InvalidInvariant",
			[]string{"Stalled", "Ready"},
			"Warning InvalidInvariant invariant it: it could not be evaluated: invariant/it:6:19: cel: mismatched input '<EOF>'\n    nonsense(\n             ^",
		},
	} {
		o, events := run(t, row.spec, row.policy)
		ready := conditions.Get(o, meta.ReadyCondition)
		if ready == nil {
			t.Errorf("%s: there is no Ready", row.name)
			continue
		}
		var types []string
		for _, c := range o.Status.Conditions {
			types = append(types, c.Type)
			if c.ObservedGeneration != 3 {
				t.Errorf("%s: %s was observed of generation %d", row.name, c.Type, c.ObservedGeneration)
			}
		}
		if o.Status.State != row.state || fmt.Sprint(ready.Status, " ", ready.Reason) != row.ready || !cmp.Equal(types, row.conditions) {
			t.Errorf("%s: it is %s, Ready is %s %s, conditions are %v", row.name, o.Status.State, ready.Status, ready.Reason, types)
		}
		if diff := cmp.Diff([]string{row.event}, events); diff != "" {
			t.Errorf("%s: %s", row.name, diff)
		}
		want := status.CurrentStatus
		if ready.Status != metav1.ConditionTrue {
			want = status.FailedStatus
		}
		conforms(t, row.name, check.NewChecker(nil, &check.Conditions{
			NegativePolarity: []string{meta.ReconcilingCondition, meta.StalledCondition, ViolatedCondition},
		}), o, want)
		if s := &o.Status; s.ObservedGeneration != 3 || s.LastHandledReconcileAt != "now" || s.LastEvaluated != "2026-11-23T12:00:00Z" {
			t.Errorf("%s: %+v", row.name, s)
		}
	}
}

// While the world has not been seen, a status says that it is waited for.
func TestStatusWhileWaiting(t *testing.T) {
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: "it", Generation: 1}}
	if err := json.Unmarshal([]byte(`{"never":{`+ends+`}}`), &o.Spec); err != nil {
		t.Fatal(err)
	}
	o, _ = reconciled(t, o, standing.NewKeeper(reach.Options{}, clock))
	if !conditions.IsUnknown(o, meta.ReadyCondition) || !conditions.IsReconciling(o) {
		t.Errorf("its conditions are %v", o.Status.Conditions)
	}
	conforms(t, "one that is waiting", check.NewInProgressChecker(nil), o, status.InProgressStatus)
}

// While the world cannot be seen, a status says that nobody knows, and what was found
// last is as of then.
func TestStatusWhileBlind(t *testing.T) {
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: "it", Generation: 1}}
	if err := json.Unmarshal([]byte(`{"never":{`+ends+`}}`), &o.Spec); err != nil {
		t.Fatal(err)
	}
	i, err := compile(o)
	if err != nil {
		t.Fatal(err)
	}
	o.Status.State, o.Status.LastEvaluated = "holds", "2026-11-22T12:00:00Z"
	store := k8s.NewStore(k8s.Options{})
	put(t, store, podOf("web", "10.0.0.1"), podOf("db", "10.0.0.2"), shut)
	keeper := standing.NewKeeper(reach.Options{}, clock)
	keeper.Hear(store.Model())
	keeper.Declare([]invariant.Invariant{*i})
	lost := errors.New("pods cannot be watched: forbidden")
	var told []*invariant.Result
	w := &Watch{Keeper: keeper, Unwatched: func() error { return lost }, Tell: func(found []*invariant.Result) { told = found }}
	if !w.turns(t.Context()) || w.turns(t.Context()) {
		t.Error("it does not turn blind once")
	}
	o, events := reconciled(t, o, keeper, w)
	if !conditions.IsUnknown(o, meta.ReadyCondition) || !conditions.IsReconciling(o) || o.Status.State != "unknown" || o.Status.LastEvaluated != "2026-11-22T12:00:00Z" {
		t.Errorf("%+v", o.Status)
	}
	conforms(t, "one of a world that is not seen", check.NewInProgressChecker(nil), o, status.InProgressStatus)
	if diff := cmp.Diff([]string{"Warning WorldUnseen invariant it: it cannot be told any more: pods cannot be watched: forbidden"}, events); diff != "" {
		t.Error(diff)
	}
	s, err := keeper.Standing(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.look(s); len(told) != 1 || told[0].State != invariant.Unknown {
		t.Errorf("told of %+v", told)
	}
	lost = nil
	if !w.turns(t.Context()) {
		t.Error("it does not see again")
	}
	if w.look(s); told[0].State != invariant.Holds {
		t.Errorf("told of %+v", told)
	}
	if o, _ = reconciled(t, o, keeper, w); o.Status.State != "holds" || !conditions.IsReady(o) {
		t.Errorf("%+v", o.Status)
	}
}

// One more pod that breaks an invariant can wait; an invariant that holds again cannot.
func TestNumbersCanWait(t *testing.T) {
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: "it"}}
	if err := json.Unmarshal([]byte(`{"never":{`+ends+`}}`), &o.Spec); err != nil {
		t.Fatal(err)
	}
	i, err := compile(o)
	if err != nil {
		t.Fatal(err)
	}
	store := k8s.NewStore(k8s.Options{})
	keeper := standing.NewKeeper(reach.Options{}, clock)
	keeper.Declare([]invariant.Invariant{*i})
	w, queue := &Watch{Keeper: keeper, Pace: time.Minute}, &recordingQueue{}
	if err := w.Source().Start(t.Context(), queue); err != nil {
		t.Fatal(err)
	}
	look := func(objects ...string) []time.Duration {
		t.Helper()
		put(t, store, objects...)
		keeper.Hear(store.Model())
		s, err := keeper.Standing(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		queue.waits = nil
		w.look(s)
		return queue.waits
	}
	for _, step := range []struct {
		what    string
		objects []string
		want    []time.Duration
	}{
		{"it is broken", []string{podOf("web", "10.0.0.1"), podOf("db", "10.0.0.2"), open}, []time.Duration{0}},
		{"one more breaks it", []string{strings.Replace(podOf("web", "10.0.0.3"), "name: web", "name: more", 1)}, []time.Duration{time.Minute}},
		{"as before", nil, nil},
		{"it holds", []string{shut}, []time.Duration{0}},
	} {
		if got := look(step.objects...); !slices.Equal(got, step.want) {
			t.Errorf("%s: %v, want %v", step.what, got, step.want)
		}
	}
}

// recordingQueue takes note of how long what is added to it waits.
type recordingQueue struct {
	workqueue.TypedRateLimitingInterface[reconcile.Request]
	waits []time.Duration
}

func (q *recordingQueue) Add(reconcile.Request) { q.waits = append(q.waits, 0) }

func (q *recordingQueue) AddAfter(_ reconcile.Request, d time.Duration) {
	q.waits = append(q.waits, d)
}

// The end of a waiver is looked at when it comes, whatever else happens or not.
func TestWaiversEndByThemselves(t *testing.T) {
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: "it"}}
	if err := json.Unmarshal([]byte(`{"never":{`+ends+`},"waivers":[{"reason":"a","owner":"b","until":"2026-11-23"}]}`), &o.Spec); err != nil {
		t.Fatal(err)
	}
	i, err := compile(o)
	if err != nil {
		t.Fatal(err)
	}
	var now atomic.Pointer[time.Time]
	now.Store(&noon)
	clock := func() time.Time { return *now.Load() }
	store := k8s.NewStore(k8s.Options{})
	put(t, store, podOf("web", "10.0.0.1"), podOf("db", "10.0.0.2"), open)
	keeper := standing.NewKeeper(reach.Options{}, clock)
	keeper.Hear(store.Model())
	keeper.Declare([]invariant.Invariant{*i})
	told := make(chan invariant.State, 10)
	w := &Watch{Keeper: keeper, Clock: clock, Tell: func(found []*invariant.Result) { told <- found[0].State }}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- w.Start(ctx) }()
	if is := <-told; is != invariant.Waived {
		t.Errorf("it is %s", is)
	}
	tomorrow := noon.Add(12 * time.Hour)
	now.Store(&tomorrow)
	if is := <-told; is != invariant.Broken {
		t.Errorf("it is %s", is)
	}
	if stop(); <-ended != nil {
		t.Error("the watch fails")
	}
}

// conforms holds a status against the conventions of Flux, and what kstatus makes of it
// against what it is.
func conforms(t *testing.T, what string, c *check.Checker, o *Object, want status.Status) {
	t.Helper()
	c.DisableFetch = true
	if fail, warn := c.Check(context.Background(), o); fail != nil || warn != nil {
		t.Errorf("%s: %v; %v", what, fail, warn)
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(o)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := status.Compute(&unstructured.Unstructured{Object: content}); err != nil || got.Status != want {
		t.Errorf("%s: it is %v to kstatus, want %s: %v", what, got, want, err)
	}
}

// An invariant of a pack has no status, so events tell when it breaks and when it
// holds again.
func TestPacksAreToldOf(t *testing.T) {
	o := &Object{ObjectMeta: metav1.ObjectMeta{Name: "it"}}
	if err := json.Unmarshal([]byte(`{"never":{`+ends+`}}`), &o.Spec); err != nil {
		t.Fatal(err)
	}
	held, err := compile(o)
	if err != nil {
		t.Fatal(err)
	}
	held.Pack = "own"
	store := k8s.NewStore(k8s.Options{})
	put(t, store, podOf("web", "10.0.0.1"), podOf("db", "10.0.0.2"), shut)
	keeper := standing.NewKeeper(reach.Options{}, clock)
	keeper.Declare([]invariant.Invariant{*held})
	scheme := runtime.NewScheme()
	if err := AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	events := record.NewFakeRecorder(10)
	r := &Reconciler{Client: clientfake.NewClientBuilder().WithScheme(scheme).Build(), Events: events, Keeper: keeper, Interval: time.Minute, Clock: clock}
	for _, policy := range []string{"", shut, open, open, shut} {
		if policy != "" {
			put(t, store, policy)
			keeper.Hear(store.Model())
		}
		for _, name := range []string{"it", "another"} {
			if _, err := r.Reconcile(context.Background(), ctrl.Request{NamespacedName: types.NamespacedName{Name: name}}); err != nil {
				t.Fatal(err)
			}
		}
	}
	close(events.Events)
	var told []string
	for e := range events.Events {
		told = append(told, e)
	}
	if diff := cmp.Diff([]string{
		"Warning InvariantViolated invariant it: shop/web can open TCP/5432 to shop/db",
		"Normal InvariantHolds invariant it: it holds",
	}, told); diff != "" {
		t.Error(diff)
	}
}
