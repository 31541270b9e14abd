package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// fake is a world that sees what it is told to. It is all of its moments.
type fake struct {
	store     *k8s.Store
	keeper    *standing.Keeper
	model     *policies.Model
	held      map[k8s.Key]live.Version
	going     map[k8s.Key]bool
	revisions map[string]string // by kind
	blind     error
	gone      []string
	unwatched map[string]bool // kinds that are not told of
	again     time.Time       // since when all others are
	onLook    func()
}

func newFake(clock func() time.Time) *fake {
	return &fake{
		store: k8s.NewStore(k8s.Options{}), keeper: standing.NewKeeper(reach.Options{}, clock),
		held: map[k8s.Key]live.Version{}, going: map[k8s.Key]bool{}, revisions: map[string]string{},
		unwatched: map[string]bool{}, again: time.Unix(0, 0),
	}
}

func (f *fake) Unready() error   { return f.blind }
func (f *fake) Unseen() []string { return f.gone }

// fakeStored tells of the Invariants of a fake.
type fakeStored struct{ *fake }

func (f fakeStored) Unseen() []string { return nil }
func (f fakeStored) Seen() time.Time  { return f.fake.Seen(k8s.Key{Kind: "Invariant"}) }

func (f *fake) Base() *policies.Model     { return f.model }
func (f *fake) Revision(k k8s.Key) string { return f.revisions[k.Kind] }
func (f *fake) Get(k k8s.Key) *k8s.Entry  { return f.store.Get(k) }
func (f *fake) Seen(k k8s.Key) time.Time {
	if f.unwatched[k.Kind] {
		return time.Time{}
	}
	return f.again
}

func (f *fake) Going() []k8s.Key {
	return append(slices.Collect(maps.Keys(f.going)), f.store.Orphaned()...)
}

func (f *fake) Look(look func(live.Moment)) error {
	if f.onLook != nil {
		f.onLook()
	}
	look(f)
	return nil
}

func (f *fake) Held(k k8s.Key) (live.Version, bool) {
	v, there := f.held[k]
	return v, there
}

func (f *fake) Within(namespace string) (all []k8s.Key) {
	for k := range f.held {
		if k.Namespace == namespace {
			all = append(all, k)
		}
	}
	return all
}

func (f *fake) Try(put []*k8s.Entry, gone []k8s.Key, look func(k8s.Change, func() *policies.Model)) {
	f.store.Try(put, gone, look)
}

func (f *fake) Entry(object map[string]any) (*k8s.Entry, error) {
	return k8s.ReadEntry(k8s.Object("cluster", object), k8s.Options{})
}

// see lets it see an object, as of a version.
func (f *fake) see(t rapid.TB, text, version string) {
	t.Helper()
	o := &unstructured.Unstructured{Object: objectOf(t, text)}
	e, err := f.Entry(o.Object)
	if err != nil {
		t.Fatal(err)
	}
	f.store.Put(e)
	f.held[e.Key()] = live.Version{UID: types.UID(e.Key().Name), ResourceVersion: version}
	if delete(f.going, e.Key()); o.GetDeletionTimestamp() != nil {
		f.going[e.Key()] = true
	}
	f.publish()
}

// miss lets it see that an object has gone, as of a version.
func (f *fake) miss(k k8s.Key, version string) {
	f.store.Delete(k)
	delete(f.held, k)
	delete(f.going, k)
	f.revisions[k.Kind] = version
	f.publish()
}

func (f *fake) publish() {
	m, c := f.store.Model()
	f.model = m
	f.keeper.Hear(m, c)
}

func objectOf(t rapid.TB, text string) map[string]any {
	t.Helper()
	var o map[string]any
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		t.Fatal(err)
	}
	return o
}

// bench is a decider with a world of two halves of a connection, which an
// invariant keeps closed.
type bench struct {
	*testing.T
	*fake
	*Decider
	now time.Time
}

func deployment(namespace, name string) string {
	return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: %[2]s, namespace: %[1]s, uid: %[2]s},
		spec: {selector: {matchLabels: {app: %[2]s}}, template: {metadata: {labels: {app: %[2]s}}, spec: {containers: []}}}}`, namespace, name)
}

func policy(namespace, name, version, spec string) string {
	return fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %[1]s, namespace: %[2]s, uid: %[1]s, resourceVersion: %[3]q}, spec: {%[4]s}}", name, namespace, version, spec)
}

const (
	noIngress  = "podSelector: {}, policyTypes: [Ingress]"
	noEgress   = "podSelector: {}, policyTypes: [Egress]"
	allIngress = "podSelector: {}, policyTypes: [Ingress], ingress: [{}]"
	allEgress  = "podSelector: {}, policyTypes: [Egress], egress: [{}]"
	keepClosed = `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: closed, uid: closed}, spec: {severity: %s,
		never: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}]}}}`
)

func newBench(t *testing.T, severity string, o Options) *bench {
	t.Helper()
	b := &bench{T: t, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	o.Clock = func() time.Time { return b.now }
	b.fake = newFake(o.Clock)
	b.Decider = NewDecider(b.fake, b.keeper, o)
	for _, text := range []string{
		namespace("shop", "1", ""), namespace("payments", "1", ""), deployment("shop", "web"), deployment("payments", "db"),
		policy("shop", "out", "1", noEgress), policy("payments", "in", "1", noIngress),
	} {
		b.see(t, text, "1")
	}
	b.Saw("closed", live.Version{UID: "closed", ResourceVersion: "1"}, compiled(t, fmt.Sprintf(keepClosed, severity)))
	return b
}

func compiled(t rapid.TB, text string) *invariant.Invariant {
	t.Helper()
	raw, err := json.Marshal(objectOf(t, text))
	if err != nil {
		t.Fatal(err)
	}
	i, err := standing.Compile(raw)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// request returns a request for an operation; the object is what comes, or what goes.
func (b *bench) request(operation admissionv1.Operation, text string, set ...func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionRequest {
	b.Helper()
	o := objectOf(b.T, text)
	raw, err := json.Marshal(o)
	if err != nil {
		b.Fatal(err)
	}
	version, kind := o["apiVersion"].(string), o["kind"].(string)
	group, v, grouped := strings.Cut(version, "/")
	if !grouped {
		group, v = "", version
	}
	meta := o["metadata"].(map[string]any)
	namespace, _ := meta["namespace"].(string)
	r := &admissionv1.AdmissionRequest{UID: "1", Operation: operation, Kind: metav1.GroupVersionKind{Group: group, Version: v, Kind: kind}, Namespace: namespace, Name: meta["name"].(string)}
	r.Object.Raw = raw
	switch operation {
	case admissionv1.Delete:
		r.OldObject.Raw, r.Object.Raw = raw, nil
	case admissionv1.Update:
		r.OldObject.Raw = raw
	}
	for _, f := range set {
		f(r)
	}
	return r
}

// ask decides about a request.
func (b *bench) ask(operation admissionv1.Operation, text string, set ...func(*admissionv1.AdmissionRequest)) *admissionv1.AdmissionResponse {
	b.Helper()
	answer, err := b.Decide(context.Background(), b.request(operation, text, set...))
	if err != nil {
		b.Fatal(err)
	}
	return answer
}

func dryRun(r *admissionv1.AdmissionRequest) { yes := true; r.DryRun = &yes }

const broken = `breaks invariant closed (deny)
shop/web can open TCP/1 to payments/db
by NetworkPolicy payments/in, ingress rule 1
weir explain -f cluster -f YOUR-FILE -n payments shop/deployment/web payments/deployment/db TCP/1`

func (b *bench) allows(what string, r *admissionv1.AdmissionResponse) {
	b.Helper()
	if !r.Allowed {
		b.Errorf("%s is refused: %s", what, r.Result.Message)
	}
}

func (b *bench) refuses(what string, r *admissionv1.AdmissionResponse, why string) {
	b.Helper()
	if r.Allowed {
		b.Errorf("%s is allowed", what)
		return
	}
	if diff := cmp.Diff(why, r.Result.Message); why != "" && diff != "" {
		b.Errorf("%s: %s", what, diff)
	}
}

func TestTheSecondHalfIsRefused(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("one half", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	b.refuses("the other", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	b.refuses("the other, once the first is seen", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
}

func TestWhatNeverCameIsForgotten(t *testing.T) {
	b := newBench(t, "deny", Options{Pending: time.Minute})
	b.allows("one half", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	b.now = b.now.Add(time.Minute)
	b.allows("the other, a minute later", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)))
}

func TestDryRunsAreDecidedAndForgotten(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("one half", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress), dryRun))
	b.allows("the other", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)))
	r := b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress), dryRun)
	b.refuses("the first again", r, "")
	if diff := cmp.Diff(map[string]string{"breaks": "closed", "dry-run": "true"}, r.AuditAnnotations); diff != "" {
		t.Error(diff)
	}
}

// Of two changes of one object, nobody knows yet which one came to be.
func TestEitherOfTwoRivalsCounts(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("a change that opens", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	b.allows("another one that does not", b.ask(admissionv1.Update, policy("shop", "out", "1", noEgress)))
	b.refuses("the other half", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
}

// What was to close a connection may never come.
func TestWhatIsPendingIsNotReliedOn(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	b.allows("what closes", b.ask(admissionv1.Update, policy("shop", "out", "2", noEgress)))
	b.refuses("what opens, if that does not come", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
}

func TestDeletes(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("half of what denies", b.ask(admissionv1.Delete, policy("shop", "out", "1", noEgress)))
	b.refuses("the rest", b.ask(admissionv1.Delete, policy("payments", "in", "1", noIngress)), "")
}

func TestSeverities(t *testing.T) {
	for severity, want := range map[string][]string{
		"warn":  {"breaks invariant closed: shop/web can open TCP/1 to payments/db, by NetworkPolicy payments/in, ingress rule 1"},
		"audit": nil,
	} {
		b := newBench(t, severity, Options{})
		b.allows("one half", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
		r := b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress))
		b.allows("the other", r)
		if diff := cmp.Diff(want, r.Warnings); diff != "" {
			t.Errorf("%s: %s", severity, diff)
		}
		if r.AuditAnnotations["breaks"] != "closed" {
			t.Errorf("%s: audit annotations are %v", severity, r.AuditAnnotations)
		}
		b.see(t, policy("shop", "out", "2", allEgress), "2")
		b.see(t, policy("payments", "in", "2", allIngress), "2")
		again := b.ask(admissionv1.Update, policy("payments", "in", "2", allIngress), dryRun)
		if b.allows("the same again", again); len(again.AuditAnnotations) > 0 {
			t.Errorf("%s: what was broken before is told of: %v", severity, again.AuditAnnotations)
		}
	}
}

func TestUndecided(t *testing.T) {
	for choice, allowed := range map[Choice]bool{Warn: true, Deny: false} {
		b := newBench(t, "deny", Options{Undecided: choice, Opaque: choice})
		for what, r := range map[string]*admissionv1.AdmissionResponse{
			"a policy that is not understood":              b.ask(admissionv1.Create, `{apiVersion: example.com/v1, kind: FancyNetworkPolicy, metadata: {name: a, namespace: shop, uid: a}}`, dryRun),
			"a policy of a version that is not understood": b.ask(admissionv1.Create, `{apiVersion: networking.k8s.io/v2, kind: NetworkPolicy, metadata: {name: a, namespace: shop, uid: a}}`, dryRun),
			"a replica that is new": func() *admissionv1.AdmissionResponse {
				b.Begin()
				return b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress), dryRun)
			}(),
			"a group that cannot be served": func() *admissionv1.AdmissionResponse {
				b := newBench(t, "deny", Options{Undecided: choice})
				b.gone = []string{"group projectcalico.org/v3 cannot be served"}
				return b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress), dryRun)
			}(),
			"a world that was not seen": func() *admissionv1.AdmissionResponse {
				b.blind = fmt.Errorf("pods are still to be listed")
				return b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress))
			}(),
		} {
			if r.Allowed != allowed || allowed && len(r.Warnings) == 0 {
				t.Errorf("%s, %s: %+v", what, choice, r)
			}
		}
	}
}

// What was admitted counts for as long as nobody sees whether it was stored.
func TestWhatIsPendingWaitsForItsWatch(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.unwatched["NetworkPolicy"] = true
	b.allows("one half", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	b.now = b.now.Add(time.Hour)
	other := func() *admissionv1.AdmissionResponse {
		return b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress), dryRun)
	}
	b.gone = []string{"networkpolicies.networking.k8s.io cannot be watched since 12:00:00: forbidden"}
	answer := other()
	b.refuses("the other", answer, broken)
	if diff := cmp.Diff([]string{"checked by the world as it was seen last: " + b.gone[0]}, answer.Warnings); diff != "" {
		t.Error(diff)
	}
	b.gone, b.unwatched, b.again = nil, nil, b.now
	b.refuses("the other, before what was missed is told", other(), broken)
	b.now = b.now.Add(late)
	b.allows("the other, since the first never came", other())
}

// Whoever is refused learns that it was forgiven until a while ago.
func TestExpiredWaivers(t *testing.T) {
	lapsed := strings.Replace(fmt.Sprintf(keepClosed, "deny"), "never:", "waivers: [{reason: the move, owner: ann, until: 2026-11-22}], never:", 1)
	b := newBench(t, "audit", Options{})
	b.Saw("closed", live.Version{UID: "closed", ResourceVersion: "1"}, compiled(t, lapsed))
	said := "a waiver expired at the end of 2026-11-22 (the move, for ann)"
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	b.refuses("what was waived", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), strings.Replace(broken, "\nweir", "\n"+said+"\nweir", 1))
	answer := b.ask(admissionv1.Update, strings.Replace(lapsed, "deny", "warn", 1))
	if diff := cmp.Diff([]string{"invariant closed: " + said}, answer.Warnings); diff != "" {
		t.Error(diff)
	}
}

func TestNotAskedAbout(t *testing.T) {
	b := newBench(t, "deny", Options{Exclude: []string{"payments"}})
	b.allows("one half", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	b.allows("the other, in an excluded namespace", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)))
	b.blind = fmt.Errorf("nothing is known")
	if r := b.ask(admissionv1.Create, `{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: shop}}`); len(r.Warnings) > 0 {
		t.Errorf("what means nothing is warned of: %v", r.Warnings)
	}
}

func TestUnknownOperations(t *testing.T) {
	b := newBench(t, "deny", Options{})
	for _, operation := range []admissionv1.Operation{"FOO", ""} {
		if answer, err := b.Decide(context.Background(), b.request(operation, policy("shop", "out", "1", allEgress))); err == nil {
			t.Errorf("%q is decided: %+v", operation, answer)
		}
	}
}

func TestInvariants(t *testing.T) {
	b := newBench(t, "deny", Options{})
	never := `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: open, uid: open}, spec: {%salways: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}]}}}`
	b.refuses("one that does not hold", b.ask(admissionv1.Create, fmt.Sprintf(never, "")), "")
	b.allows("one that is adopted", b.ask(admissionv1.Create, fmt.Sprintf(never, "adopt: true, ")))
	b.refuses("one that does not compile", b.ask(admissionv1.Create, `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: open}, spec: {cel: "pods.all(p, p.nam == 'x')"}}`),
		"invariant/open:6:24: cel: no field nam in Pod; did you mean name?\n    pods.all(p, p.nam == 'x')\n                  ^")
	b.refuses("one that cannot be evaluated", b.ask(admissionv1.Create, `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: open}, spec: {cel: 'pods[99].name == "x"'}}`),
		"is invalid: invariant open (deny)\nit could not be evaluated: invariant/open:6:18: index out of bounds: 99")
	if r := b.ask(admissionv1.Delete, fmt.Sprintf(keepClosed, "deny")); !r.Allowed || len(r.Warnings) != 1 {
		t.Errorf("to delete one: %+v", r)
	}
}

// An invariant that was admitted a moment ago holds for what comes next.
func TestAPendingInvariantCounts(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("an invariant", b.ask(admissionv1.Create, `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: still, uid: still},
		spec: {isolated: {pods: [{podSelector: {matchLabels: {app: web}}}], directions: [egress]}}}`))
	b.refuses("what breaks it", b.ask(admissionv1.Delete, policy("shop", "out", "1", noEgress)), "")
}

// An invariant of a pack holds without being stored, until one of its name is.
func TestPacksAreHeld(t *testing.T) {
	isolated := `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: apart, uid: apart}, spec: {severity: %s,
		isolated: {pods: [{podSelector: {matchLabels: {app: web}}}], directions: [egress]}}}`
	held := compiled(t, fmt.Sprintf(isolated, "deny"))
	held.Pack = "own"
	b := newBench(t, "deny", Options{Held: []invariant.Invariant{*held}})
	b.refuses("what breaks it", b.ask(admissionv1.Delete, policy("shop", "out", "1", noEgress)), "breaks invariant apart (deny)\nshop/web: no policy isolates it at egress")
	b.Saw("apart", live.Version{UID: "apart", ResourceVersion: "2"}, nil)
	b.refuses("what breaks it, while the one of its name says nothing", b.ask(admissionv1.Delete, policy("shop", "out", "1", noEgress)), "")
	b.Saw("apart", live.Version{UID: "apart", ResourceVersion: "3"}, compiled(t, fmt.Sprintf(isolated, "audit")))
	b.allows("what breaks it, once another one has its name", b.ask(admissionv1.Delete, policy("shop", "out", "1", noEgress), dryRun))
	r := b.ask(admissionv1.Delete, fmt.Sprintf(isolated, "audit"))
	if diff := cmp.Diff([]string{"invariant apart is that of the pack own again"}, r.Warnings); diff != "" {
		t.Error(diff)
	}
	b.Missed("apart")
	b.refuses("what breaks it, when that is gone", b.ask(admissionv1.Delete, policy("shop", "out", "1", noEgress)), "")
}

// What is broken already may not be broken elsewhere: a change that closes as much as
// it opens is refused all the same.
func TestNothingElseMayBreak(t *testing.T) {
	allows := func(port string) string {
		return policy("payments", "in", "2", "podSelector: {}, ingress: [{ports: [{port: "+port+"}]}]")
	}
	named := func(http int) string {
		return fmt.Sprintf(`{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: payments, uid: db, resourceVersion: "2"},
			spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: %d}]}]}}}}`, http)
	}
	further := `breaks further invariant closed (deny)
shop/web can open TCP/443 to payments/db
by NetworkPolicy payments/in, ingress rule 1
weir explain -f cluster -f YOUR-FILE -n payments shop/deployment/web payments/deployment/db TCP/443`
	b := newBench(t, "deny", Options{})
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	b.see(t, named(80), "2")
	b.see(t, allows("80"), "2")
	b.allows("the same", b.ask(admissionv1.Update, allows("80"), dryRun))
	b.allows("the same in another way", b.ask(admissionv1.Update, allows("http"), dryRun))
	b.refuses("another port", b.ask(admissionv1.Update, allows("443"), dryRun), further)
	b.refuses("more ports", b.ask(admissionv1.Update, allows("80, endPort: 443"), dryRun), strings.ReplaceAll(further, "443", "81"))
	b.see(t, allows("http"), "3")
	b.allows("the same pods", b.ask(admissionv1.Update, strings.Replace(named(80), "containers", "serviceAccountName: robot, containers", 1), dryRun))
	b.refuses("another port behind the name", b.ask(admissionv1.Update, named(443), dryRun), further)

	isolated := `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: apart, uid: apart}, spec: {isolated: {pods: [{podSelector: {}}], directions: [egress]}}}`
	b = newBench(t, "audit", Options{})
	b.Saw("apart", live.Version{UID: "apart", ResourceVersion: "1"}, compiled(t, isolated))
	other := "podSelector: {matchLabels: {app: %s}}, policyTypes: [Egress]"
	b.see(t, deployment("shop", "cart"), "1")
	b.see(t, policy("shop", "out", "2", fmt.Sprintf(other, "web")), "2")
	b.refuses("another pod instead", b.ask(admissionv1.Update, policy("shop", "out", "2", fmt.Sprintf(other, "cart")), dryRun), "breaks further invariant apart (deny)\nshop/web: no policy isolates it at egress; 1 other pod breaks it too")
	b.allows("no other pod", b.ask(admissionv1.Update, policy("shop", "out", "2", noEgress), dryRun))
}

// Another version of an Invariant that says the same is no reason to look at all of them
// again.
func TestRenewedIsNoNews(t *testing.T) {
	b := newBench(t, "deny", Options{})
	select {
	case <-b.keeper.News():
	default:
		t.Fatal("that it was declared is no news")
	}
	b.Renewed("closed", live.Version{UID: "closed", ResourceVersion: "7"})
	b.Renewed("unknown", live.Version{UID: "unknown", ResourceVersion: "8"})
	select {
	case <-b.keeper.News():
		t.Error("another status is news")
	default:
	}
	for name, want := range map[string]string{"closed": "7", "unknown": ""} {
		if v := b.sightOf(k8s.Key{Group: v1alpha1.Group, Kind: v1alpha1.KindInvariant, Name: name}); v.ResourceVersion != want {
			t.Errorf("%s is held as of %q, want %q", name, v.ResourceVersion, want)
		}
	}
}
