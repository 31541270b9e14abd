package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

// server is a model of an API server that asks a decider, and of the watches through
// which the decider sees what it stores. A request that was admitted is stored or not,
// sooner or later, as chance has it; and what was stored is seen sooner or later, kind
// by kind, in its order.
type server struct {
	*rapid.T
	*fake
	decider  *Decider
	now      time.Time
	revision int
	objects  map[k8s.Key]*object
	flying   []*request           // admitted, and neither stored nor refused yet
	stored   []*request           // in the order of their admission
	unseen   map[string][]sighted // by kind
	initial  map[k8s.Key]*object
	asked    int
	decided  map[string]int
	kinds    []string // of what is asked about
	deletes  int      // one request of so many, of those about what is there
}

// object is a stored object. It never changes.
type object struct {
	key     k8s.Key
	body    map[string]any
	uid     string
	version int
	held    bool // a finalizer keeps it when it is deleted
	going   bool // and it was
	by      *request
}

// request is one that was admitted.
type request struct {
	number    int
	operation admissionv1.Operation
	old, new  *object
	until     time.Time
	undecided bool
	gone      bool // of a delete: the object has gone
	lost      bool // what was put has gone with its Namespace
}

func (r *request) key() k8s.Key {
	if r.new != nil {
		return r.new.key
	}
	return r.old.key
}

// sighted is what is to be seen of an object.
type sighted struct {
	key     k8s.Key
	object  *object // nil where it has gone
	version int
	until   time.Time // it is seen by then
}

// write stores an object, or takes it away.
func (s *server) write(k k8s.Key, o *object, until time.Time) {
	s.revision++
	if o == nil {
		delete(s.objects, k)
	} else {
		o.version = s.revision
		s.objects[k] = o
	}
	s.unseen[k.Kind] = append(s.unseen[k.Kind], sighted{k, o, s.revision, until})
}

// see lets the decider see the next of a kind.
func (s *server) see(kind string) {
	next := s.unseen[kind][0]
	if kind == "Namespace" && next.object != nil {
		s.seeTheEndOf(next)
	}
	s.unseen[kind] = s.unseen[kind][1:]
	version := strconv.Itoa(next.version)
	s.fake.revisions[kind] = version
	switch {
	case kind == "Invariant" && next.object == nil:
		s.decider.Missed(next.key.Name)
		return
	case kind == "Invariant":
		s.decider.Saw(next.key.Name, live.Version{UID: types.UID(next.object.uid), ResourceVersion: version}, s.compile(next.object))
		return
	}
	delete(s.going, next.key)
	if next.object == nil {
		s.store.Delete(next.key)
		delete(s.held, next.key)
	} else {
		s.store.Put(s.entry(next.object))
		s.held[next.key] = live.Version{UID: types.UID(next.object.uid), ResourceVersion: version}
		if next.object.going {
			s.going[next.key] = true
		}
	}
	s.publish()
}

// seeTheEndOf lets the decider see what went with the predecessor of a Namespace. That
// takes a server seconds, so no watch is as far behind another one.
func (s *server) seeTheEndOf(next sighted) {
	for _, kind := range slices.Sorted(maps.Keys(s.unseen)) {
		if kind == "Namespace" {
			continue
		}
		last := -1
		for i, e := range s.unseen[kind] {
			if e.key.Namespace == next.key.Name && e.object == nil && e.version < next.version {
				last = i
			}
		}
		for range last + 1 {
			s.see(kind)
		}
	}
}

func (s *server) entry(o *object) *k8s.Entry {
	e, err := s.Entry(o.body)
	if err != nil {
		s.Fatal(err)
	}
	return e
}

func (s *server) compile(o *object) *invariant.Invariant {
	raw, err := json.Marshal(o.body)
	if err != nil {
		s.Fatal(err)
	}
	i, err := standing.Compile(raw)
	if err != nil {
		s.Fatal(err)
	}
	return i
}

// ask has the decider decide about a request for an object in another state.
func (s *server) ask(operation admissionv1.Operation, old, new *object) {
	s.asked++
	r := &request{number: s.asked, operation: operation, old: old, new: new, until: s.now.Add(s.decider.Pending)}
	q := &admissionv1.AdmissionRequest{UID: "1", Operation: operation, Name: r.key().Name, Namespace: r.key().Namespace}
	raw := func(o *object) []byte {
		body := maps.Clone(o.body)
		meta := maps.Clone(body["metadata"].(map[string]any))
		meta["uid"] = o.uid
		if o.version > 0 {
			meta["resourceVersion"] = strconv.Itoa(o.version)
		}
		body["metadata"] = meta
		text, err := json.Marshal(body)
		if err != nil {
			s.Fatal(err)
		}
		q.Kind = metav1.GroupVersionKind{Group: r.key().Group, Version: "v1", Kind: r.key().Kind}
		if r.key().Kind == "Invariant" {
			q.Kind.Version = "v1alpha1"
		}
		return text
	}
	if old != nil {
		q.OldObject.Raw = raw(old)
	}
	if new != nil {
		q.Object.Raw = raw(new)
	}
	dry := rapid.IntRange(0, 9).Draw(s.T, "dry run") == 0
	q.DryRun = &dry
	ctx := context.Background()
	switch rapid.IntRange(0, 19).Draw(s.T, "trouble") {
	case 7:
		s.blind = fmt.Errorf("nothing is known")
	case 13:
		over, cancel := context.WithDeadline(ctx, time.Unix(0, 0))
		defer cancel()
		ctx = over
	}
	answer, err := s.decider.Decide(ctx, q)
	if s.blind = nil; err != nil {
		s.Fatal(err)
	}
	r.undecided = answer.AuditAnnotations["undecided"] != ""
	word := map[bool]string{true: "allowed", false: "denied"}[answer.Allowed]
	if r.undecided {
		word = "undecided"
	}
	s.decided[word]++
	s.Logf("%d: %s %s %v: %s (dry run: %v)", r.number, operation, r.key().Ref(), bodyOf(new), word, dry)
	if answer.Allowed && !dry {
		s.flying = append(s.flying, r)
	}
}

func bodyOf(o *object) string {
	if o == nil {
		return ""
	}
	text, _ := json.Marshal(o.body)
	return string(text)
}

// land stores what a request asks for, if it still can be, or refuses it.
func (s *server) land(i int, stores bool) {
	r := s.flying[i]
	s.flying = slices.Delete(s.flying, i, i+1)
	if home := s.objects[k8s.Key{Kind: "Namespace", Name: r.key().Namespace}]; r.operation == admissionv1.Create && r.key().Namespace != "" && (home == nil || home.going) {
		stores = false
	}
	if stores = stores && s.objects[r.key()] == r.old; !stores {
		s.Logf("%d is not stored", r.number)
		return
	}
	s.Logf("%d is stored", r.number)
	s.stored = append(s.stored, r)
	slices.SortFunc(s.stored, func(a, b *request) int { return a.number - b.number })
	switch {
	case r.operation != admissionv1.Delete:
		r.new.by = r
		s.write(r.key(), r.new, r.until)
	case r.old.going:
		r.gone = true // it goes once, with the first
	case r.old.held:
		going := *r.old
		going.going, going.by = true, r
		s.write(r.key(), &going, r.until)
	default:
		r.gone = true
		s.write(r.key(), nil, r.until)
	}
	s.judge()
}

// finish lets an object that is being deleted go, and a Namespace with all that it
// holds.
func (s *server) finish(o *object) {
	s.Logf("%s has gone", o.key.Ref())
	for i := len(s.stored) - 1; i >= 0; i-- {
		if r := s.stored[i]; r.operation == admissionv1.Delete && r.old.uid == o.uid {
			r.gone = true
		}
	}
	if isNamespace(o.key) {
		for _, k := range slices.SortedFunc(maps.Keys(s.objects), compareKeys) {
			if k.Namespace == o.key.Name {
				for _, r := range s.stored {
					r.lost = r.lost || r.new != nil && r.new.uid == s.objects[k].uid && r.key() == k
				}
				s.write(k, nil, s.now)
			}
		}
	}
	s.write(o.key, nil, s.now)
	s.judge()
}

func compareKeys(a, b k8s.Key) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }

// pass lets time pass. What was admitted so long ago comes no more, and what was stored
// is seen.
func (s *server) pass(d time.Duration) {
	s.now = s.now.Add(d)
	s.flying = slices.DeleteFunc(s.flying, func(r *request) bool { return !r.until.After(s.now) })
	for _, kind := range slices.Sorted(maps.Keys(s.unseen)) {
		if s.unwatched[kind] {
			continue
		}
		last := -1
		for i, e := range s.unseen[kind] {
			if !e.until.After(s.now) {
				last = i
			}
		}
		for range last + 1 {
			s.see(kind)
		}
	}
}

// turn ends the watch of a kind, or begins it again: then all that was missed is seen
// soon.
func (s *server) turn(kind string) {
	if s.unwatched[kind] = !s.unwatched[kind]; s.unwatched[kind] {
		return
	}
	s.again = s.now
	for i := range s.unseen[kind] {
		s.unseen[kind][i].until = s.now.Add(late)
	}
}

// judge holds what is stored against the invariants that are stored. Where one of
// severity deny is broken, it looks who broke it: what was stored is put together again
// in the order in which it was admitted, and only what was not decided may break one.
func (s *server) judge() {
	if len(s.brokenIn(s.objects)) == 0 {
		return
	}
	world := maps.Clone(s.initial)
	was := s.brokenIn(world)
	for _, r := range s.stored {
		switch {
		case r.operation == admissionv1.Delete && r.gone:
			delete(world, r.key())
			if isNamespace(r.key()) {
				maps.DeleteFunc(world, func(k k8s.Key, _ *object) bool { return k.Namespace == r.key().Name })
			}
		case r.new != nil && !(r.lost && world[k8s.Key{Kind: "Namespace", Name: r.key().Namespace}] == nil):
			world[r.key()] = r.new
		}
		is := s.brokenIn(world)
		for _, name := range is {
			if !slices.Contains(was, name) && !r.undecided {
				s.Fatalf("request %d was allowed, and breaks %s", r.number, name)
			}
		}
		was = is
	}
}

// brokenIn returns the invariants of severity deny that are broken in a world, found
// from nothing.
func (s *server) brokenIn(objects map[k8s.Key]*object) (names []string) {
	store := k8s.NewStore(k8s.Options{})
	var all []invariant.Invariant
	for _, k := range slices.SortedFunc(maps.Keys(objects), compareKeys) {
		if k.Kind == "Invariant" {
			all = append(all, *s.compile(objects[k]))
		} else {
			store.Put(s.entry(objects[k]))
		}
	}
	m, _ := store.Model()
	found, err := standing.Of(context.Background(), m, all, reach.Options{}, s.now)
	if err != nil {
		s.Fatal(err)
	}
	for _, r := range found.Results {
		if r.Severity == invariant.Deny && r.State == invariant.Broken {
			names = append(names, r.Ref.Name)
		}
	}
	return names
}

// draw returns one of some texts.
func (s *server) draw(what string, of ...string) string {
	return rapid.SampledFrom(of).Draw(s.T, what)
}

// object returns an object in a state that chance has it in.
func (s *server) drawObject(kind string) *object {
	var text string
	namespace := s.draw("namespace", "shop", "payments")
	switch kind {
	case "Namespace":
		text = fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {trusted: %s}}}", namespace, s.draw("trusted", `"yes"`, `"no"`))
	case "Pod":
		text = fmt.Sprintf("{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: {app: %s}}, spec: {containers: []}}",
			s.draw("pod", "a", "b"), namespace, s.draw("app", "web", "db"))
	case "NetworkPolicy":
		text = fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: %s}, spec: {podSelector: %s, %s}}",
			s.draw("policy", "p", "q"), namespace, s.draw("subject", "{}", "{matchLabels: {app: db}}"), s.draw("spec",
				"policyTypes: [Ingress]", "policyTypes: [Egress]", "policyTypes: [Ingress], ingress: [{}]", "policyTypes: [Egress], egress: [{}]",
				`policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {trusted: "yes"}}}]}]`))
	case "Invariant":
		web, db := "[{podSelector: {matchLabels: {app: web}}}]", "[{podSelector: {matchLabels: {app: db}}}]"
		text = fmt.Sprintf("{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: %s}, spec: {severity: %s, %s}}",
			s.draw("invariant", "i", "j"), s.draw("severity", "deny", "deny", "audit"), s.draw("form",
				"never: {from: "+web+", to: "+db+"}", "always: {from: "+web+", to: "+db+"}", "exists: {from: "+web+", to: "+db+"}",
				"isolated: {pods: "+db+", directions: [ingress]}",
				"never: {from: [{namespaceSelector: {matchLabels: {trusted: \"yes\"}}}], to: "+db+"}"))
	}
	o := &object{body: objectOf(s, text)}
	meta := o.body["metadata"].(map[string]any)
	in, _ := meta["namespace"].(string)
	o.key = k8s.KeyOf(o.body["apiVersion"].(string), kind, in, meta["name"].(string))
	o.held = kind == "Namespace" || kind != "Invariant" && rapid.Bool().Draw(s.T, "finalizer")
	return o
}

// themes are the kinds of which most requests of a run are, so that they meet.
var themes = [][]string{
	{"NetworkPolicy", "NetworkPolicy", "NetworkPolicy", "Namespace", "Pod", "Invariant"},
	{"NetworkPolicy"},
	{"Pod"},
	{"Namespace", "Pod"},
	{"Namespace", "NetworkPolicy"},
	{"Invariant", "NetworkPolicy"},
}

func newServer(t *rapid.T) *server {
	s := &server{T: t, now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), objects: map[k8s.Key]*object{}, unseen: map[string][]sighted{}, decided: map[string]int{}}
	s.kinds, s.deletes = rapid.SampledFrom(themes).Draw(t, "theme"), rapid.IntRange(1, 4).Draw(t, "deletes")
	clock := func() time.Time { return s.now }
	s.fake = newFake(clock)
	s.decider = NewDecider(s.fake, s.keeper, Options{Clock: clock, Opaque: Warn})
	s.decider.Stored = fakeStored{s.fake}
	for range rapid.IntRange(3, 12).Draw(t, "objects") {
		o := s.drawObject(rapid.SampledFrom(themes[0]).Draw(t, "kind"))
		o.uid = fmt.Sprintf("first-%d", s.revision)
		if home := (k8s.Key{Kind: "Namespace", Name: o.key.Namespace}); home.Name != "" && s.objects[home] == nil {
			body := objectOf(t, "{apiVersion: v1, kind: Namespace, metadata: {name: "+home.Name+"}}")
			s.write(home, &object{key: home, body: body, uid: "first-" + home.Name, held: true}, s.now)
		}
		s.write(o.key, o, s.now)
	}
	for _, name := range s.brokenIn(s.objects) {
		s.write(k8s.KeyOf("weir.dev/v1alpha1", "Invariant", "", name), nil, s.now)
	}
	s.pass(0)
	s.publish()
	s.initial = maps.Clone(s.objects)
	return s
}

// step lets one thing happen.
func (s *server) step() {
	switch what := rapid.IntRange(0, 11).Draw(s.T, "what"); {
	case what < 4 && len(s.flying) < 4:
		o := s.drawObject(rapid.SampledFrom(s.kinds).Draw(s.T, "kind"))
		old := s.objects[o.key]
		switch {
		case old == nil:
			o.uid = fmt.Sprintf("uid-%d", s.asked)
			s.ask(admissionv1.Create, nil, o)
		case rapid.IntRange(1, s.deletes).Draw(s.T, "delete") == 1:
			s.ask(admissionv1.Delete, old, nil)
		default:
			o.uid, o.held, o.going = old.uid, old.held, old.going
			s.ask(admissionv1.Update, old, o)
		}
	case what < 7:
		if len(s.flying) > 0 {
			s.land(rapid.IntRange(0, len(s.flying)-1).Draw(s.T, "lands"), rapid.IntRange(0, 3).Draw(s.T, "is stored") > 0)
		}
	case what < 9:
		var kinds []string
		for _, kind := range slices.Sorted(maps.Keys(s.unseen)) {
			if len(s.unseen[kind]) > 0 && !s.unwatched[kind] {
				kinds = append(kinds, kind)
			}
		}
		if len(kinds) > 0 {
			s.see(rapid.SampledFrom(kinds).Draw(s.T, "seen"))
		}
	case what < 10:
		var going []*object
		for _, k := range slices.SortedFunc(maps.Keys(s.objects), compareKeys) {
			if o := s.objects[k]; o.going {
				going = append(going, o)
			}
		}
		if len(going) > 0 {
			s.finish(rapid.SampledFrom(going).Draw(s.T, "goes"))
		}
	case what < 11:
		s.turn(s.draw("kind", themes[0]...))
	default:
		s.pass(time.Duration(rapid.IntRange(1, 40).Draw(s.T, "seconds")) * time.Second)
	}
}

// Whatever of what was admitted is stored, and whenever it is seen: nothing that was
// decided breaks an invariant of severity deny that held.
func TestTheRaceIsClosed(t *testing.T) {
	total := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		s := newServer(t)
		for range rapid.IntRange(5, 40).Draw(t, "steps") {
			s.step()
		}
		for word, n := range s.decided {
			total[word] += n
		}
	})
	t.Log(total)
	if total["allowed"] < total["denied"] || total["denied"] == 0 {
		t.Errorf("%v", total)
	}
}
