package main

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Who somebody is changes in many ways, and all of them are asked about.
func TestRealWhoSomebodyIs(t *testing.T) {
	c := newCluster(t, 1)
	c.apply(strings.ReplaceAll(shop, "{name: deny, namespace: payments}", "{name: deny, namespace: payments, annotations: {owner: us}}"))
	c.apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n")
	c.isSure()
	c.apply(closed)
	c.apply(openWeb)
	c.apply(strings.ReplaceAll(openDB, "from: [{", `from: [{podSelector: {matchLabels: {friend: "yes"}}, `))
	web, err := c.clients.AppsV1().Deployments("shop").Get(t.Context(), "web", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	replicaSet := fmt.Sprintf(`
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: web-x, namespace: shop, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: %s, controller: true}]}
spec:
  selector: {matchLabels: {app: web}}
  template: {metadata: {labels: {app: web, pod-template-hash: x}}, spec: {containers: [{name: web, image: web}]}}
`, web.UID)
	c.apply(replicaSet)
	pod := func(name, labels, owner string) string {
		return fmt.Sprintf("apiVersion: v1\nkind: Pod\nmetadata: {name: %s, namespace: shop, labels: {app: web, %s}, ownerReferences: [{%s, controller: true}]}\n"+
			"spec: {automountServiceAccountToken: false, containers: [{name: web, image: web}]}\n", name, labels, owner)
	}
	x, err := c.clients.AppsV1().ReplicaSets("shop").Get(t.Context(), "web-x", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.clients.CoreV1().ServiceAccounts("shop").Create(t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	ofWeb := "apiVersion: apps/v1, kind: ReplicaSet, name: web-x, uid: " + string(x.UID)
	c.apply(pod("web-x-1", "pod-template-hash: x", ofWeb))

	refuses := func(what, stdin string, args ...string) {
		t.Helper()
		if out, err := c.try(stdin, args...); err == nil || !strings.Contains(out, "invariant ") {
			t.Errorf("%s: %v: %s", what, err, out)
		}
	}
	refuses("opening while there is a pod without address", openDB, "apply", "--dry-run=server", "-f", "-")
	c.try("", "-n", "shop", "patch", "pod", "web-x-1", "--subresource=status", "--type=merge", "-p", `{"status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"}]}}`)
	refuses("a template that changes", "", "-n", "shop", "patch", "deployment", "web", "-p", `{"spec":{"template":{"metadata":{"labels":{"friend":"yes"}}}}}`)
	refuses("a pod of a workload that is labelled", "", "-n", "shop", "label", "pod", "web-x-1", "friend=yes")
	refuses("one that is labelled by its status", "", "-n", "shop", "patch", "pod", "web-x-1", "--subresource=status", "--type=merge", "-p", `{"metadata":{"labels":{"friend":"yes"}}}`)
	refuses("a pod that names any owner", pod("forged", `friend: "yes"`, "apiVersion: v1, kind: ConfigMap, name: kube-root-ca.crt, uid: '1'"), "apply", "-f", "-")
	refuses("a pod that names a true owner", pod("forged", `friend: "yes", pod-template-hash: x`, ofWeb), "apply", "-f", "-")
	c.apply(strings.ReplaceAll(openDB, "team: shop", "partner: \"yes\""))
	refuses("a Namespace that is labelled by its status", "", "patch", "namespace", "shop", "--subresource=status", "--type=merge", "-p", `{"metadata":{"labels":{"partner":"yes"}}}`)

	// What goes.
	c.apply(invariantOf("exists: {from: [{namespaceSelector: {matchLabels: {team: shop}}}], to: [{outside: true}]}"))
	refuses("the last workload of whom there must be some", "", "-n", "shop", "delete", "deployment", "web")
	if out, err := c.try("", "-n", "shop", "delete", "deployment", "web", "--cascade=orphan", "--dry-run=server"); err != nil {
		t.Errorf("where its pods stay: %s", out)
	}

	// Annotations.
	c.apply(strings.ReplaceAll(invariantOf(`rego: 'deny contains p.name if { some p in data.weir.world.policies; p.name == "deny"; p.namespace == "payments"; not p.annotations.owner }'`), "name: x", "name: owned"))
	refuses("a policy without an owner", "", "-n", "payments", "annotate", "networkpolicy", "deny", "owner-")
}
