package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/policies/k8s"
)

func namespace(name, version, labels string) string {
	return fmt.Sprintf("{apiVersion: v1, kind: Namespace, metadata: {name: %[1]s, uid: %[1]s, resourceVersion: %[2]q, labels: {%[3]s}}}", name, version, labels)
}

const fromTrusted = `podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {trusted: "yes"}}}]}]`

// madeOf says what an update is made of.
func madeOf(t *testing.T, text string) func(*admissionv1.AdmissionRequest) {
	return func(r *admissionv1.AdmissionRequest) {
		var err error
		if r.OldObject.Raw, err = json.Marshal(objectOf(t, text)); err != nil {
			t.Fatal(err)
		}
	}
}

// Rival changes of one Namespace: nobody knows which one comes to be.
func TestRivalNamespaces(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	b.allows("a label", b.ask(admissionv1.Update, namespace("shop", "1", `trusted: "yes"`)))
	b.allows("its rival", b.ask(admissionv1.Update, namespace("shop", "1", `other: "yes"`)))
	b.refuses("what opens for the label", b.ask(admissionv1.Update, policy("payments", "in", "1", fromTrusted)), "")
}

// One half opens and closes again; should the second change be refused by somebody
// else, the first one is there.
func TestWhatAChangeIsMadeOfCounts(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("what opens", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress), madeOf(t, policy("shop", "out", "1", noEgress))))
	b.allows("what closes again, made of that", b.ask(admissionv1.Update, policy("shop", "out", "5", noEgress), madeOf(t, policy("shop", "out", "5", allEgress))))
	b.refuses("the other half", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
}

// Of three pending changes, two may be stored that break an invariant together with a
// fourth, though it holds with none of them, with each and with all.
func TestEveryMixtureCounts(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.allows("egress", b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress)))
	b.allows("a label", b.ask(admissionv1.Update, namespace("shop", "1", `trusted: "yes"`)))
	b.allows("nobody is the database", b.ask(admissionv1.Update, strings.ReplaceAll(deployment("payments", "db"), "app: db", "app: cold")))
	b.refuses("what opens for the label", b.ask(admissionv1.Update, policy("payments", "in", "1", fromTrusted)), "")
}

// What was let through undecided may be stored like everything else.
func TestWhatWasNotDecidedCounts(t *testing.T) {
	for name, undecided := range map[string]func(b *bench) context.Context{
		"no time": func(*bench) context.Context {
			ctx, cancel := context.WithDeadline(context.Background(), time.Unix(0, 0))
			cancel()
			return ctx
		},
		"nobody gives the turn back": func(b *bench) context.Context {
			b.turn <- struct{}{}
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			return ctx
		},
		"the world is not seen": func(b *bench) context.Context {
			b.blind = errors.New("nothing is known")
			return context.Background()
		},
	} {
		b := newBench(t, "deny", Options{})
		r := b.request(admissionv1.Update, policy("shop", "out", "1", allEgress))
		answer, err := b.Decide(undecided(b), r)
		if err != nil || !answer.Allowed || answer.AuditAnnotations["undecided"] == "" {
			t.Errorf("%s: %+v, %v", name, answer, err)
		}
		select {
		case <-b.turn:
		default:
		}
		b.blind = nil
		b.refuses("the other half, after "+name, b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
	}
}

// An Invariant that is loosened holds as it was until that is seen.
func TestALooserInvariantIsNotReliedOn(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	looser := strings.Replace(fmt.Sprintf(keepClosed, "audit"), "uid: closed", `uid: closed, resourceVersion: "1"`, 1)
	b.allows("to loosen it", b.ask(admissionv1.Update, looser))
	b.refuses("what breaks it", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
	b.Saw("closed", live.Version{UID: "closed", ResourceVersion: "2"}, compiled(t, looser))
	b.allows("the same, once it is seen", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)))
}

const going = `, deletionTimestamp: "2026-11-23T12:00:00Z"`

// A policy that a finalizer keeps goes once that is gone, and nobody is asked then.
func TestWhatIsGoingMayBeGone(t *testing.T) {
	b := newBench(t, "audit", Options{})
	b.see(t, policy("shop", "out", "2", allEgress), "2")
	for _, name := range []string{"one", "two"} {
		b.see(t, policy("payments", name, "1", allIngress), "1")
	}
	b.Saw("open", live.Version{UID: "open", ResourceVersion: "1"}, compiled(t, `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: open, uid: open},
		spec: {always: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}]}}}`))
	b.allows("one of two goes", b.ask(admissionv1.Delete, policy("payments", "one", "1", allIngress)))
	b.see(t, strings.Replace(policy("payments", "one", "2", allIngress), "uid: one", "uid: one"+going, 1), "2")
	b.now = b.now.Add(time.Hour)
	b.refuses("the other goes", b.ask(admissionv1.Delete, policy("payments", "two", "1", allIngress)), "")
	b.see(t, policy("payments", "one", "3", allIngress), "3")
	b.allows("the other goes, while the first is there for good", b.ask(admissionv1.Delete, policy("payments", "two", "1", allIngress)))
}

// A Namespace that is being deleted may be gone with all that it holds, and so may
// what it held when it is seen no more.
func TestNamespacesThatAreGoing(t *testing.T) {
	b := newBench(t, "audit", Options{})
	for _, name := range []string{"one", "two"} {
		b.see(t, namespace(name, "1", ""), "1")
		b.see(t, deployment(name, "mon"), "1")
	}
	b.see(t, deployment("attic", "cold"), "1")
	b.see(t, namespace("attic", "1", ""), "1")
	b.Saw("watched", live.Version{UID: "watched", ResourceVersion: "1"}, compiled(t, `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: watched, uid: watched},
		spec: {exists: {from: [{podSelector: {matchLabels: {app: mon}}}], to: [{podSelector: {matchLabels: {app: cold}}}]}}}`))
	b.allows("one of two goes", b.ask(admissionv1.Delete, namespace("one", "1", "")))
	b.refuses("the other goes", b.ask(admissionv1.Delete, namespace("two", "1", ""), dryRun), "")
	b.see(t, strings.Replace(namespace("one", "2", ""), "uid: one", "uid: one"+going, 1), "2")
	b.now = b.now.Add(time.Hour)
	b.refuses("the other goes, an hour later", b.ask(admissionv1.Delete, namespace("two", "1", ""), dryRun), "")
	b.miss(k8s.KeyOf("v1", "Namespace", "", "one"), "3")
	b.refuses("the other goes, while what the first held is still to be missed", b.ask(admissionv1.Delete, namespace("two", "1", ""), dryRun), "")
}

// Where too much is open to try all with all, a request is not decided, unless what is
// tried refuses it.
func TestTooManyMixtures(t *testing.T) {
	b := newBench(t, "deny", Options{})
	for i := range 7 {
		b.allows("something else", b.ask(admissionv1.Create, policy("shop", fmt.Sprintf("x%d", i), "", fmt.Sprintf("podSelector: {matchLabels: {n: %q}}", fmt.Sprint(i)))))
	}
	r := b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress))
	if want := "7 other changes may be stored or not, too many to try each with each"; !r.Allowed || r.AuditAnnotations["undecided"] != want {
		t.Errorf("%+v", r)
	}
	b.refuses("the other half", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	b.onLook = func() {
		b.onLook = nil
		b.now = b.now.Add(time.Hour) // the others come no more
	}
	answer, err := b.Decide(ctx, b.request(admissionv1.Update, policy("payments", "in", "1", allIngress)))
	if err != nil || !answer.Allowed || len(answer.Warnings) > 0 {
		t.Errorf("after it waited for the others: %+v, %v", answer, err)
	}
}

// A decision that panics gives the turn back, and what it was about may be stored.
func TestAPanicGivesTheTurnBack(t *testing.T) {
	b := newBench(t, "deny", Options{})
	b.onLook = func() { panic("on purpose") }
	func() {
		defer func() { _ = recover() }()
		b.ask(admissionv1.Update, policy("shop", "out", "1", allEgress))
	}()
	b.onLook = nil
	b.refuses("the other half", b.ask(admissionv1.Update, policy("payments", "in", "1", allIngress)), broken)
}

// A decision that does not end is told of.
func TestAlive(t *testing.T) {
	b := newBench(t, "deny", Options{})
	var during, late error
	b.onLook = func() {
		during = b.Alive()
		b.now = b.now.Add(longestTurn)
		late = b.Alive()
	}
	b.ask(admissionv1.Update, policy("shop", "out", "1", noEgress))
	if during != nil || late == nil || late.Error() != "a decision has not ended since 2026-11-23T12:00:00Z" || b.Alive() != nil {
		t.Errorf("during one: %v; long after: %v; when it has ended: %v", during, late, b.Alive())
	}
}
