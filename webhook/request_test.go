package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/weir-policy/weir/internal/live"
)

// onlyFriends lets nobody but friends in.
const onlyFriends = `podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {friend: "yes"}}}]}]`

// labelled is the web with labels beside its own, as a Deployment, a ReplicaSet of it
// and a pod of that.
func labelled(kind, labels, status string) string {
	switch kind {
	case "Deployment":
		return `{apiVersion: apps/v1, kind: Deployment, metadata: {name: web, namespace: shop, uid: web}, spec: {template: {metadata: {labels: {app: web` + labels + `}}, spec: {containers: []}}}}`
	case "ReplicaSet":
		return `{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: web-x, namespace: shop, uid: web-x, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: web, controller: true}]},
			spec: {template: {metadata: {labels: {app: web, pod-template-hash: x` + labels + `}}, spec: {containers: []}}}}`
	}
	return pod("web-x-1", "apps/v1", "ReplicaSet", "web-x", "web-x", "app: web, pod-template-hash: x"+labels, status)
}

func pod(name, ownerVersion, ownerKind, owner, uid, labels, status string) string {
	return fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop, uid: %[1]s, labels: {%s}, ownerReferences: [{apiVersion: %s, kind: %s, name: %s, uid: %s, controller: true}]},
		spec: {containers: []}, status: {%s}}`, name, labels, ownerVersion, ownerKind, owner, uid, status)
}

const (
	running = "phase: Running, podIP: 10.0.0.1"
	waiting = "phase: Pending"
)

// newRollout is a bench in which the web has a pod, may send to all, and only friends
// reach the database.
func newRollout(t *testing.T, status string) *bench {
	t.Helper()
	b := newBench(t, "deny", Options{})
	for i, text := range []string{
		policy("shop", "out", "2", allEgress), policy("payments", "in", "2", onlyFriends),
		labelled("Deployment", "", ""), labelled("ReplicaSet", "", ""), labelled("Pod", "", status),
	} {
		b.see(t, text, fmt.Sprint(2+i))
	}
	return b
}

// was makes a request one that changes another object than the one that comes.
func (b *bench) was(text string) func(*admissionv1.AdmissionRequest) {
	b.Helper()
	raw, err := json.Marshal(objectOf(b.T, text))
	if err != nil {
		b.Fatal(err)
	}
	return func(r *admissionv1.AdmissionRequest) { r.OldObject.Raw = raw }
}

const friends = `, friend: "yes"`

func TestATemplateThatChangesCountsBesideItsPods(t *testing.T) {
	b := newRollout(t, running)
	b.refuses("a template of friends", b.ask(admissionv1.Update, labelled("Deployment", friends, ""), b.was(labelled("Deployment", "", ""))),
		"breaks invariant closed (deny)\nshop/web (pod web-x-1) can open TCP/1 to payments/db\nby NetworkPolicy payments/in, ingress rule 1\nweir explain -f cluster -f YOUR-FILE -n shop shop/pod/web-x-1 payments/deployment/db TCP/1")
	b.allows("a template of others", b.ask(admissionv1.Update, labelled("Deployment", ", version: two", ""), b.was(labelled("Deployment", "", ""))))
	for _, kind := range []string{"Deployment", "ReplicaSet", "Pod"} { // while nobody was asked
		b.see(t, labelled(kind, friends, running), "9")
	}
	r := b.ask(admissionv1.Update, labelled("Deployment", friends+", version: three", ""), b.was(labelled("Deployment", friends, "")))
	b.allows("another label where it is broken already", r)
}

// The pods of a template that loses a label lose it, too.
func TestATemplateThatLosesALabel(t *testing.T) {
	b := newBench(t, "deny", Options{})
	stateful := func(labels string) string {
		return `{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: web, namespace: shop, uid: web}, spec: {template: {metadata: {labels: {app: web` + labels + `}}, spec: {containers: []}}}}`
	}
	b.see(t, stateful(", closed: is"), "2")
	b.see(t, pod("web-0", "apps/v1", "StatefulSet", "web", "web", "app: web, closed: is, role: leader, statefulset.kubernetes.io/pod-name: web-0", running), "3")
	b.see(t, policy("shop", "out", "4", "podSelector: {matchLabels: {closed: is}}, policyTypes: [Egress]"), "4")
	b.see(t, policy("payments", "in", "5", `podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {role: leader}}}]}]`), "5")
	b.refuses("a template without the label", b.ask(admissionv1.Update, stateful(""), b.was(stateful(", closed: is"))), "")
}

func TestPodsWithoutAddressCount(t *testing.T) {
	for _, status := range []string{waiting, "phase: Failed"} {
		b := newRollout(t, status)
		b.refuses("opening for all", b.ask(admissionv1.Update, policy("payments", "in", "2", allIngress)), "")
	}
}

func TestPodsAreAskedAboutUnlessTheirOwnerSaysAll(t *testing.T) {
	replicaSet := func(name, uid, labels string) string {
		return pod("web-x-2", "apps/v1", "ReplicaSet", name, uid, "app: web, pod-template-hash: x"+labels, waiting)
	}
	for _, row := range []struct {
		what, text, was string
		refused         bool
	}{
		{"a pod that is labelled", labelled("Pod", friends, running), labelled("Pod", "", running), true},
		{"a pod of its workload", replicaSet("web-x", "web-x", ""), "", false},
		{"a pod with more labels than its workload has", replicaSet("web-x", "web-x", friends), "", true},
		{"a pod of another workload of the name", replicaSet("web-x", "other", friends), "", true},
		{"a pod of nobody", replicaSet("nobody", "nobody", friends), "", true},
		{"a pod of what makes no pods", pod("p", "v1", "ConfigMap", "kube-root-ca.crt", "c", "app: web"+friends, waiting), "", true},
		{"a pod without an owner", `{apiVersion: v1, kind: Pod, metadata: {name: p, namespace: shop, uid: p, labels: {app: web` + friends + `}}, spec: {containers: []}, status: {phase: Pending}}`, "", true},
		{"a ReplicaSet with more labels than its Deployment has", labelled("ReplicaSet", friends, ""), labelled("ReplicaSet", "", ""), true},
	} {
		b := newRollout(t, running)
		b.blind = errors.New("nobody is asked about this")
		want := !row.refused
		if row.refused {
			b.blind = nil
		}
		operation, set := admissionv1.Create, func(*admissionv1.AdmissionRequest) {}
		if row.was != "" {
			operation, set = admissionv1.Update, b.was(row.was)
		}
		if r := b.ask(operation, row.text, set); r.Allowed != want || len(r.Warnings) > 0 {
			t.Errorf("%s: %+v", row.what, r)
		}
	}
}

// A workload that is deleted takes its pods along, unless they are left as orphans.
func TestDeletesOfWorkloads(t *testing.T) {
	somebody := `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: closed, uid: closed},
		spec: {exists: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}]}}}`
	for _, status := range []string{running, waiting} {
		b := newRollout(t, status)
		b.see(t, policy("payments", "in", "9", allIngress), "9")
		b.Saw("closed", live.Version{UID: "closed", ResourceVersion: "2"}, compiled(t, somebody))
		b.allows("a pod that is made again", b.ask(admissionv1.Delete, labelled("Pod", "", status)))
		if b.refuses("the last that is meant", b.ask(admissionv1.Delete, labelled("Deployment", "", "")), ""); status == running {
			orphan := func(r *admissionv1.AdmissionRequest) { r.Options.Raw = []byte(`{"propagationPolicy":"Orphan"}`) }
			b.allows("its pods stay", b.ask(admissionv1.Delete, labelled("Deployment", "", ""), orphan))
		}
	}
}

func TestLabelsBySubresources(t *testing.T) {
	namespace := func(labels string) string {
		return `{apiVersion: v1, kind: Namespace, metadata: {name: shop, uid: shop, labels: {` + labels + `}}}`
	}
	of := func(subresource string) func(*admissionv1.AdmissionRequest) {
		return func(r *admissionv1.AdmissionRequest) { r.SubResource = subresource }
	}
	b := newBench(t, "deny", Options{})
	b.see(t, namespace(""), "2")
	b.see(t, policy("shop", "out", "3", allEgress), "3")
	b.see(t, policy("payments", "in", "4", `podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{namespaceSelector: {matchLabels: {team: shop}}}]}]`), "4")
	for _, subresource := range []string{"status", "finalize"} {
		b.refuses(subresource, b.ask(admissionv1.Update, namespace("team: shop"), b.was(namespace("")), of(subresource)), "")
	}
	b.blind = errors.New("nobody is asked about this")
	r := b.ask(admissionv1.Update, namespace(""), b.was(namespace("")), of("status"))
	if b.allows("the same labels", r); len(r.Warnings) > 0 {
		t.Errorf("it warns: %v", r.Warnings)
	}
	b.allows("evicting a pod", b.ask(admissionv1.Create, labelled("Pod", friends, running), of("eviction")))
}

func TestAnnotationsOfPolicies(t *testing.T) {
	policy := func(annotations string) string {
		return `{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: in, namespace: payments, uid: in, annotations: {` + annotations + `}}, spec: {` + noIngress + `}}`
	}
	b := newBench(t, "deny", Options{})
	b.Saw("closed", live.Version{UID: "closed", ResourceVersion: "2"}, compiled(t, `{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: closed, uid: closed}, spec: {
		rego: 'deny contains p.name if { some p in data.weir.world.policies; p.namespace == "payments"; not p.annotations.owner }'}}`))
	b.see(t, policy("owner: us"), "2")
	b.refuses("no owner any more", b.ask(admissionv1.Update, policy(""), b.was(policy("owner: us"))), "")
	b.allows("another one", b.ask(admissionv1.Update, policy("owner: them"), b.was(policy("owner: us"))))
}
