package charts

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/webhook/cert"
)

const account = "system:serviceaccount:weir-system:weir"

// cluster is a real API server, with one who may do all.
type cluster struct {
	*plane.Plane
	client.Client
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	p := plane.Start(t, &envtest.Environment{})
	c, err := client.New(p.Config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &cluster{p, c}
}

// as returns a config of somebody else.
func (c *cluster) as(user string, groups ...string) *rest.Config {
	config := rest.CopyConfig(c.Config)
	config.QPS = -1
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: append(groups, "system:authenticated")}
	return config
}

// apply has the API server look at objects, and then take them.
func (c *cluster) apply(t *testing.T, all objects) {
	t.Helper()
	for _, options := range [][]client.ApplyOption{{client.DryRunAll}, nil} {
		for _, o := range all {
			if options != nil && (o.GetKind() == "Invariant" || o.GetAnnotations()["helm.sh/hook"] != "") {
				continue // its definition is not there yet
			}
			options := append(options, client.FieldOwner("helm"), client.ForceOwnership)
			if err := c.Apply(t.Context(), client.ApplyConfigurationFromUnstructured(o.DeepCopy()), options...); err != nil {
				t.Fatalf("%s %s: %v", o.GetKind(), o.GetName(), err)
			}
		}
	}
}

func object(apiVersion, kind, namespace, name string, fields map[string]any) *unstructured.Unstructured {
	o := &unstructured.Unstructured{Object: map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name}}}
	if namespace != "" {
		o.SetNamespace(namespace)
	}
	for field, value := range fields {
		o.Object[field] = value
	}
	return o
}

// withoutTests leaves out what helm test makes, and what is defined elsewhere.
func (all objects) withoutTests() objects {
	return slices.DeleteFunc(slices.Clone(all), func(o *unstructured.Unstructured) bool { return o.GetAnnotations()["helm.sh/hook"] == "test" })
}

// The API server takes what the chart consists of, kinds of others need not be there,
// and the service account may do what the program does.
func TestRealInstall(t *testing.T) {
	all := render(t, "weir")
	c := newCluster(t)
	for _, name := range []string{"weir-system", "shop"} {
		if err := c.Create(t.Context(), object("v1", "Namespace", "", name, nil)); err != nil {
			t.Fatal(err)
		}
	}
	c.apply(t, all.withoutTests())

	// Later the other projects come.
	if _, err := envtest.InstallCRDs(c.Config, envtest.CRDInstallOptions{
		Paths: []string{"../internal/cluster/testdata/definitions.yaml"}, ErrorIfPathMissing: true,
	}); err != nil {
		t.Fatal(err)
	}
	c.apply(t, objects{all.of(t, "Invariant", "weir-test")})

	config := c.as(account, "system:serviceaccounts", "system:serviceaccounts:weir-system")
	ctx, stop := context.WithCancel(t.Context())
	certificates, err := cert.New(config, cert.Options{Namespace: "weir-system", Service: "weir", Secret: "weir-certificate", Webhook: "weir"})
	if err != nil {
		t.Fatal(err)
	}
	world, err := live.New(config, live.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() { ended <- certificates.Start(ctx) }()
	go func() { ended <- world.Start(ctx) }()
	defer func() {
		stop()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	}()
	testkit.Eventually(t, func() error { return certificates.Ready(nil) })
	testkit.Eventually(t, world.Unready)
	configuration := object("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration", "", "weir", nil)
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(configuration), configuration); err != nil {
		t.Fatal(err)
	}
	for _, w := range list(configuration.Object, "webhooks") {
		if bundle, _, _ := unstructured.NestedString(w, "clientConfig", "caBundle"); bundle == "" {
			t.Errorf("%s is not told whom to trust", w["name"])
		}
	}
	c.mayNot(t)
	c.heeds(t, all)
}

// mayNot asks for what the service account must not do.
func (c *cluster) mayNot(t *testing.T) {
	t.Helper()
	for _, row := range []struct{ verb, group, resource, namespace, name string }{
		{"list", "", "secrets", "weir-system", ""},
		{"get", "", "secrets", "weir-system", "weir-certificate"},
		{"update", "", "secrets", "weir-system", "other"},
		{"create", "", "secrets", "shop", ""},
		{"delete", "", "secrets", "weir-system", "weir-certificate"},
		{"list", "", "configmaps", "weir-system", ""},
		{"patch", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "other"},
		{"delete", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", "weir"},
		{"create", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", ""},
		{"update", "weir.dev", "invariants", "", ""},
		{"delete", "weir.dev", "invariants", "", ""},
		{"delete", "networking.k8s.io", "networkpolicies", "shop", ""},
		{"patch", "networking.k8s.io", "networkpolicies", "shop", ""},
		{"create", "", "pods", "shop", ""},
		{"delete", "coordination.k8s.io", "leases", "weir-system", ""},
	} {
		review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{
			User: account, Groups: []string{"system:serviceaccounts", "system:authenticated"},
			ResourceAttributes: &authorizationv1.ResourceAttributes{Verb: row.verb, Group: row.group, Resource: row.resource, Namespace: row.namespace, Name: row.name},
		}}
		if err := c.Create(t.Context(), review); err != nil {
			t.Fatal(err)
		}
		if review.Status.Allowed {
			t.Errorf("it may %s %s %q in %q", row.verb, row.resource, row.name, row.namespace)
		}
	}
}

// heeds holds the rules of the webhook against what the API server serves: they name
// all that has a bearing on policy, and nothing else.
func (c *cluster) heeds(t *testing.T, all objects) {
	t.Helper()
	served, err := discovery.NewDiscoveryClientForConfig(c.Config)
	if err != nil {
		t.Fatal(err)
	}
	_, lists, err := served.ServerGroupsAndResources()
	if err != nil {
		t.Fatal(err)
	}
	asked := map[schema.GroupResource]bool{}
	for _, w := range list(all.of(t, "ValidatingWebhookConfiguration", "weir").Object, "webhooks") {
		for _, rule := range list(w, "rules") {
			for _, group := range texts(rule, "apiGroups") {
				for _, resource := range texts(rule, "resources") {
					resource, _, _ = strings.Cut(resource, "/")
					asked[schema.GroupResource{Group: group, Resource: resource}] = true
				}
			}
		}
	}
	for _, l := range lists {
		version, err := schema.ParseGroupVersion(l.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range l.APIResources {
			if strings.Contains(r.Name, "/") {
				continue
			}
			heeds := k8s.Heeds(l.GroupVersion, r.Kind, r.Namespaced)
			if asks := asked[schema.GroupResource{Group: version.Group, Resource: r.Name}]; asks != heeds {
				t.Errorf("%s of %s bears on policy: %v, and is asked about: %v", r.Name, l.GroupVersion, heeds, asks)
			}
		}
	}
}

// Where nobody answers, and that is a refusal, exactly those requests are refused that
// the webhook is asked about.
func TestRealAskedAbout(t *testing.T) {
	all := render(t, "weir", "webhook.failurePolicy=Fail", "webhook.world.failurePolicy=Fail")
	c := newCluster(t)
	policy := func(namespace, name string) *unstructured.Unstructured {
		return object("networking.k8s.io/v1", "NetworkPolicy", namespace, name, map[string]any{"spec": map[string]any{"podSelector": map[string]any{}}})
	}
	pod := func(namespace, name string) *unstructured.Unstructured {
		return object("v1", "Pod", namespace, name, map[string]any{"spec": map[string]any{
			"automountServiceAccountToken": false, "containers": []any{map[string]any{"name": "c", "image": "i"}},
		}})
	}
	owned := func(o *unstructured.Unstructured) *unstructured.Unstructured {
		controls := true
		o.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web", UID: "1", Controller: &controls}})
		return o
	}
	edit := func(o *unstructured.Unstructured, change func(*unstructured.Unstructured)) *unstructured.Unstructured {
		edited := o.DeepCopy()
		change(edited)
		return edited
	}
	label := func(o *unstructured.Unstructured) { o.SetLabels(map[string]string{"team": "shop"}) }
	annotate := func(o *unstructured.Unstructured) { o.SetAnnotations(map[string]string{"note": "well"}) }
	tell := func(o *unstructured.Unstructured) {
		unstructured.SetNestedSlice(o.Object, []any{map[string]any{"type": "example.com/Told", "status": "True"}}, "status", "conditions")
	}
	invariant := all.of(t, "Invariant", "weir-test")
	node := object("v1", "Node", "", "n", nil)
	there := policy("shop", "there")
	ready, ofWorkload := pod("shop", "ready"), owned(pod("shop", "web-0"))
	going := policy("shop", "going")
	workload := object("apps/v1", "Deployment", "shop", "workload", map[string]any{"spec": map[string]any{
		"selector": map[string]any{"matchLabels": map[string]any{"app": "web"}},
		"template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"app": "web"}}, "spec": ready.Object["spec"]},
	}})

	before := objects{object("v1", "Namespace", "", "weir-system", nil), object("v1", "Namespace", "", "shop", nil)}
	for _, namespace := range []string{"shop", "weir-system", "kube-system"} {
		before = append(before, object("v1", "ServiceAccount", namespace, "default", nil))
	}
	// Before anybody is asked.
	definition := all.of(t, "CustomResourceDefinition", "invariants.weir.dev")
	c.apply(t, objects{definition})
	if err := envtest.WaitForCRDs(c.Config, nil, envtest.CRDInstallOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, o := range append(before, there, ready, ofWorkload, workload, going, node) {
		if err := c.Create(t.Context(), o); err != nil {
			t.Fatal(err)
		}
	}
	configuration := all.of(t, "ValidatingWebhookConfiguration", "weir").DeepCopy()
	webhooks, _, _ := unstructured.NestedSlice(configuration.Object, "webhooks")
	for _, w := range webhooks {
		w.(map[string]any)["clientConfig"] = map[string]any{"url": "https://127.0.0.1:1/review"}
	}
	if err := unstructured.SetNestedSlice(configuration.Object, webhooks, "webhooks"); err != nil {
		t.Fatal(err)
	}
	if err := c.Create(t.Context(), configuration); err != nil {
		t.Fatal(err)
	}
	refused := func(err error) bool { return err != nil && strings.Contains(err.Error(), "failed calling webhook") }
	testkit.Eventually(t, func() error {
		if err := c.Create(t.Context(), policy("shop", "probe"), client.DryRunAll); !refused(err) {
			return fmt.Errorf("nobody is asked: %w", err)
		}
		return nil
	})

	create, update, remove, status := "create", "update", "delete", "status"
	for _, row := range []struct {
		name   string
		verb   string
		object *unstructured.Unstructured
		asked  bool
		user   string
		groups []string
	}{
		{"a policy comes", create, policy("shop", "new"), true, "", nil},
		{"a policy of the system", create, policy("kube-system", "new"), false, "", nil},
		{"a policy of our own namespace", create, policy("weir-system", "new"), false, "", nil},
		{"a policy selects other pods", update, edit(there, func(o *unstructured.Unstructured) {
			unstructured.SetNestedField(o.Object, "db", "spec", "podSelector", "matchLabels", "app")
		}), true, "", nil},
		{"a policy's labels change", update, edit(there, label), true, "", nil},
		{"a policy is annotated", update, edit(there, annotate), true, "", nil},
		{"a policy goes", remove, there, true, "", nil},
		{"a policy goes with its namespace", remove, going, false, "system:serviceaccount:kube-system:namespace-controller", []string{"system:masters"}},
		{"a namespace comes", create, object("v1", "Namespace", "", "new", nil), true, "", nil},
		{"a namespace is labelled", update, edit(before[1], label), true, "", nil},
		{"a namespace is annotated", update, edit(before[1], annotate), false, "", nil},
		{"a namespace is labelled by its status", status, edit(before[1], label), true, "", nil},
		{"a namespace's status is told", status, edit(before[1], tell), false, "", nil},
		{"a pod is labelled by its status", status, edit(ready, label), true, "", nil},
		{"a pod's status is told", status, edit(ready, tell), false, "", nil},
		{"our own namespace is labelled", update, edit(before[0], label), false, "", nil},
		{"a bare pod comes", create, pod("shop", "bare"), true, "", nil},
		{"a pod of a workload comes", create, owned(pod("shop", "web-1")), false, "system:serviceaccount:kube-system:replicaset-controller", []string{"system:masters"}},
		{"somebody makes a pod of a workload", create, owned(pod("shop", "web-1")), true, "", nil},
		{"a pod of a workload is labelled", update, edit(ofWorkload, label), true, "", nil},
		{"a pod of a workload is annotated", update, edit(ofWorkload, annotate), false, "", nil},
		{"a bare pod is labelled", update, edit(ready, label), true, "", nil},
		{"a bare pod goes", remove, ready, true, "", nil},
		{"a pod of a workload goes", remove, ofWorkload, false, "", nil},
		{"a workload goes", remove, workload, true, "", nil},
		{"a workload goes with its namespace", remove, workload, false, "system:serviceaccount:kube-system:namespace-controller", []string{"system:masters"}},
		{"a service account goes", remove, before[2], true, "", nil},
		{"a service account is annotated", update, edit(before[2], annotate), false, "", nil},
		{"a service account is labelled", update, edit(before[2], label), true, "", nil},
		{"a node labels itself", update, edit(node, label), false, "system:node:n", []string{"system:nodes", "system:masters"}},
		{"a person labels a node", update, edit(node, label), true, "", nil},
		{"an invariant", create, invariant, true, "", nil},
		{"a configuration", create, object("v1", "ConfigMap", "shop", "c", nil), false, "", nil},
		{"a lease", create, object("coordination.k8s.io/v1", "Lease", "shop", "l", nil), false, "", nil},
	} {
		who := c.Client
		if row.user != "" {
			var err error
			if who, err = client.New(c.as(row.user, row.groups...), client.Options{}); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		switch row.verb {
		case create:
			err = who.Create(t.Context(), row.object.DeepCopy(), client.DryRunAll)
		case update:
			err = who.Update(t.Context(), row.object.DeepCopy(), client.DryRunAll)
		case status:
			err = who.Status().Update(t.Context(), row.object.DeepCopy(), client.DryRunAll)
		case remove:
			err = who.Delete(t.Context(), row.object.DeepCopy(), client.DryRunAll)
		}
		switch {
		case err != nil && !refused(err):
			t.Errorf("%s: %v", row.name, err)
		case refused(err) != row.asked:
			t.Errorf("%s: it is asked about: %v", row.name, refused(err))
		}
	}

	// The way out is not asked about.
	if err := c.Delete(t.Context(), configuration); err != nil {
		t.Error(err)
	}
}

// The API server refuses an Invariant that says nothing, or two things, with words
// that tell what to do.
func TestRealInvariants(t *testing.T) {
	c := newCluster(t)
	if _, err := envtest.InstallCRDs(c.Config, envtest.CRDInstallOptions{
		Paths: []string{"../policies/v1alpha1/crd"}, ErrorIfPathMissing: true,
	}); err != nil {
		t.Fatal(err)
	}
	write := func(text string) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "invariant.yaml")
		if err := os.WriteFile(path, []byte("apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: tried}\nspec:\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	c.Kubectl(t, "apply", "-f", "../examples/shop/invariants.yaml")
	for _, row := range []struct{ name, spec, says string }{
		{"nothing is said", "  severity: deny", "exactly one of never, always, only, isolated, exists, cel"},
		{"two things are", "  never: &t {from: [{anyone: true}], to: [{outside: true}]}\n  always: *t", "exactly one of never, always, only, isolated, exists, cel"},
		{"a severity that is none", "  severity: fatal\n  cel: 'true'", `supported values: "deny", "warn", "audit"`},
		{"nobody", "  never: {from: [], to: [{outside: true}]}", "spec.never.from: Invalid value: 0"},
		{"a peer of nothing", "  never: {from: [{}], to: [{outside: true}]}", "spec.never.from[0]"},
		{"a peer of two ways", "  never: {from: [{outside: true, anyone: true}], to: [{outside: true}]}", "a peer is pods, or one of cidr, outside, set, nodes and anyone"},
		{"exceptions to no range", "  never: {from: [{outside: true, except: [10.0.0.0/8]}], to: [{anyone: true}]}", "except names parts of a cidr, so it needs one"},
		{"a port that is none", "  never: {from: [{anyone: true}], to: [{outside: true}], ports: [70000]}", "should be less than or equal to 65535"},
		{"a direction that is none", "  only: {from: [{anyone: true}], to: [{outside: true}], direction: up}", `supported values: "ingress", "egress"`},
		{"a waiver without an end", "  cel: 'true'\n  waivers: [{reason: r, owner: o}]", "spec.waivers[0].until: Required value"},
		{"a waiver with another kind of end", "  cel: 'true'\n  waivers: [{reason: r, owner: o, until: tomorrow}]", "spec.waivers[0].until"},
		{"a field that is not there", "  cel: 'true'\n  owners: me", `unknown field "spec.owners"`},
	} {
		if told := c.KubectlFails(t, "apply", "--dry-run=server", "-f", write(row.spec)); !strings.Contains(told, row.says) {
			t.Errorf("%s: it says %q", row.name, told)
		}
	}

	// A status is written beside the rest, and changes nothing of it.
	i := object("weir.dev/v1alpha1", "Invariant", "", "payments-db", nil)
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(i), i); err != nil {
		t.Fatal(err)
	}
	generation, spec := i.GetGeneration(), i.Object["spec"]
	i.Object["spec"] = map[string]any{"cel": "false"}
	i.Object["status"] = map[string]any{
		"state": "broken", "broken": int64(3), "observedGeneration": generation, "lastEvaluated": "2026-11-23T12:00:00Z",
		"counterexamples": []any{map[string]any{"from": "shop/web-1", "to": "payments/db-0", "port": "TCP/5432", "pairs": int64(3)}},
		"conditions": []any{map[string]any{
			"type": "Ready", "status": "False", "reason": "Broken", "message": "shop/web-1 reaches payments/db-0", "lastTransitionTime": "2026-11-23T12:00:00Z",
		}},
	}
	if err := c.Status().Update(t.Context(), i); err != nil {
		t.Fatal(err)
	}
	if err := c.Get(t.Context(), client.ObjectKeyFromObject(i), i); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(spec, i.Object["spec"]); diff != "" || i.GetGeneration() != generation {
		t.Errorf("a status changes what is said: %s", diff)
	}
	out := strings.Fields(string(c.Kubectl(t, "get", "invariant", "payments-db", "-o", "wide", "--no-headers")))
	if diff := cmp.Diff([]string{"payments-db", "deny", "broken", "3", "team-payments"}, out[:min(5, len(out))]); diff != "" {
		t.Error(diff)
	}
	i.Object["status"].(map[string]any)["state"] = "fine"
	if err := c.Status().Update(t.Context(), i); err == nil || !strings.Contains(err.Error(), `supported values: "holds"`) {
		t.Errorf("a state that is none: %v", err)
	}
}

// The program, started as the Deployment starts it and with no more than the service
// account may do, gets ready, leads, and writes a status and an event.
func TestRealProgram(t *testing.T) {
	alerts := make(chan string, 64)
	flux := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		alerts <- string(text)
	}))
	defer flux.Close()
	all := render(t, "weir", "controller.eventsAddr="+flux.URL)
	c := newCluster(t)
	for _, name := range []string{"weir-system", "shop"} {
		if err := c.Create(t.Context(), object("v1", "Namespace", "", name, nil)); err != nil {
			t.Fatal(err)
		}
	}
	c.apply(t, all.withoutTests())

	container := list(all.of(t, "Deployment", "weir").Object, "spec", "template", "spec", "containers")[0]
	health := "127.0.0.1:" + freePort(t)
	args := append(texts(container, "args"), "--webhook-addr=127.0.0.1:"+freePort(t), "--health-addr="+health, "--metrics-addr=0")
	program := filepath.Join(t.TempDir(), "weir-controller")
	if out, err := exec.Command("go", "build", "-o", program, "../cmd/weir-controller").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	running := exec.CommandContext(t.Context(), program, args...)
	running.Env = []string{"KUBECONFIG=" + c.kubeconfig(t), "RUNTIME_NAMESPACE=weir-system", "POD_NAME=weir-1", "POD_IP=127.0.0.1"}
	var told bytes.Buffer
	running.Stdout, running.Stderr = &told, &told
	if err := running.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		running.Process.Signal(os.Interrupt)
		err := running.Wait()
		if t.Failed() || err != nil || strings.Contains(told.String(), "forbidden") {
			t.Errorf("it ended with %v and told\n%s", err, told.String())
		}
	}()
	testkit.Eventually(t, func() error {
		answer, err := http.Get("http://" + health + "/readyz?verbose")
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
			return errors.New(string(text))
		}
		return nil
	})
	c.apply(t, objects{all.of(t, "Invariant", "weir-test")})
	testkit.Eventually(t, func() error {
		i := object("weir.dev/v1alpha1", "Invariant", "", "weir-test", nil)
		if err := c.Get(t.Context(), client.ObjectKeyFromObject(i), i); err != nil {
			return err
		}
		if state, _, _ := unstructured.NestedString(i.Object, "status", "state"); state != "holds" {
			return fmt.Errorf("its status is %v", i.Object["status"])
		}
		return nil
	})
	testkit.Eventually(t, func() error {
		if told := c.Kubectl(t, "describe", "invariant", "weir-test"); !bytes.Contains(told, []byte("weir-controller  invariant weir-test:")) {
			return fmt.Errorf("there is no event:\n%s", told)
		}
		return nil
	})
	if alert := <-alerts; !strings.Contains(alert, `"kind":"Invariant","namespace":"default","name":"weir-test"`) {
		t.Errorf("Flux is told of %s", alert)
	}
}

// kubeconfig writes one of the service account.
func (c *cluster) kubeconfig(t *testing.T) string {
	t.Helper()
	config, err := clientcmd.LoadFromFile(c.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	for _, who := range config.AuthInfos {
		who.Impersonate = account
		who.ImpersonateGroups = []string{"system:serviceaccounts", "system:serviceaccounts:weir-system", "system:authenticated"}
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// freePort returns a port of this machine that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
