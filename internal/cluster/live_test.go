package cluster_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// controlPlane is a real API server with the example application and a crowd.
type controlPlane struct {
	*plane.Plane
	audit string // the log of all requests
}

func startControlPlane(t *testing.T) *controlPlane {
	t.Helper()
	dir := t.TempDir()
	rules, audit := filepath.Join(dir, "audit.yaml"), filepath.Join(dir, "audit.log")
	write(t, rules, []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\nrules: [{level: Metadata}]\n"))
	e := &envtest.Environment{CRDDirectoryPaths: []string{"testdata/definitions.yaml"}, ErrorIfCRDPathMissing: true}
	e.ControlPlane.GetAPIServer().Configure().Set("audit-policy-file", rules).Set("audit-log-path", audit).
		Set("service-cluster-ip-range", "10.96.0.0/16") // where the example's DNS has its address
	return &controlPlane{plane.Start(t, e), audit}
}

func write(t *testing.T, file string, text []byte) {
	t.Helper()
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

const crowd = 1200

// fill puts the example application into the cluster, and a crowd of pods.
func (c *controlPlane) fill(t *testing.T) {
	t.Helper()
	c.Kubectl(t, "apply", "--validate=false", "-k", filepath.Join(testkit.Root(t), "examples/shop/deploy"))
	c.Kubectl(t, "apply", "--validate=false", "-f", "testdata/crowd.yaml")
	c.Kubectl(t, "patch", "node", "n1", "--subresource=status", "--type=merge", "-p",
		`{"status":{"addresses":[{"type":"Hostname","address":"n1"},{"type":"InternalIP","address":"192.168.7.1"}]}}`)
	c.Kubectl(t, "patch", "job", "done", "-n", "crowd", "--subresource=status", "--type=merge", "-p",
		`{"status":{"startTime":"2026-01-01T00:00:00Z","completionTime":"2026-01-01T00:01:00Z","succeeded":1,"conditions":[{"type":"SuccessCriteriaMet","status":"True"},{"type":"Complete","status":"True"}]}}`)
	config := *c.Config
	config.QPS = -1
	live, err := client.New(&config, client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	isController := true
	for i := range crowd {
		p := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "crowd", Name: fmt.Sprintf("web-6d4cf56db6-%04d", i),
				Labels: map[string]string{"app": "web", "pod-template-hash": "6d4cf56db6"},
				OwnerReferences: []metav1.OwnerReference{{
					APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-6d4cf56db6", UID: "00000000-0000-0000-0000-000000000002", Controller: &isController,
				}},
			},
			Spec: corev1.PodSpec{
				ServiceAccountName: "guest", NodeName: "n1", HostNetwork: i == 1,
				Containers: []corev1.Container{{
					Name: "web", Image: "registry.example/geheim", Env: []corev1.EnvVar{{Name: "TOKEN", Value: "geheim"}},
					Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				}},
			},
		}
		if err := live.Create(context.Background(), p); err != nil {
			t.Fatal(err)
		}
		if i%10 > 1 {
			continue // the others have no status yet
		}
		p.Status.Phase = corev1.PodRunning
		if i == 10 {
			p.Status.Phase = corev1.PodSucceeded
		}
		address := fmt.Sprintf("10.244.%d.%d", 1+i/250, 1+i%250)
		p.Status.PodIP, p.Status.PodIPs = address, []corev1.PodIP{{IP: address}, {IP: fmt.Sprintf("fd00::%x", i+1)}}
		p.Status.HostIP, p.Status.HostIPs = "192.168.7.1", []corev1.HostIP{{IP: "192.168.7.1"}}
		if err := live.Status().Update(context.Background(), p); err != nil {
			t.Fatal(err)
		}
	}
}

// same compares models but for where their objects stand and for annotations
// that mean nothing to Weir.
var same = cmp.Options{
	cmpopts.IgnoreTypes(policies.Place{}), cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(),
	cmpopts.IgnoreFields(policies.Model{}, "Warnings"),
	cmpopts.IgnoreFields(policies.Policy{}, "Annotations"),
	cmp.Comparer(func(a, b netset.Ports) bool { return a.Equal(b) }),
	cmp.Comparer(func(a, b selector.Selector) bool { return a.String() == b.String() }),
}

func load(t *testing.T, loader source.Loader, name string) *policies.Model {
	t.Helper()
	m, err := loader.Load(context.Background(), name)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// save writes objects as a snapshot and returns the file.
func save(t *testing.T, objects []snapshot.Object) string {
	t.Helper()
	var text bytes.Buffer
	if err := snapshot.WriteYAML(&text, objects, nil); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "world.yaml")
	write(t, file, text.Bytes())
	return file
}

func connections(m *policies.Model) []string {
	var all []string
	for c := range reach.New(m, reach.Options{}).Connections(reach.Listing{}) {
		all = append(all, fmt.Sprintf("%s -> %s: %s, unknown %s", c.From, c.To, c.Allow, c.Unknown))
	}
	return all
}

func TestRealCluster(t *testing.T) {
	c := startControlPlane(t)
	c.fill(t)
	world, err := cluster.Read(context.Background(), cluster.Options{Kubeconfig: c.Kubeconfig, UserAgent: "weir/test"})
	if err != nil {
		t.Fatal(err)
	}
	file := save(t, world.Objects)
	m := load(t, source.Loader{}, file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	t.Run("the same objects in full make the same model", func(t *testing.T) {
		kinds := "namespaces,nodes,pods,services,serviceaccounts,deployments,replicasets,statefulsets,daemonsets,jobs,cronjobs,replicationcontrollers," +
			"networkpolicies,clusternetworkpolicies,adminnetworkpolicies,ciliumnetworkpolicies,globalnetworksets.projectcalico.org"
		full := filepath.Join(t.TempDir(), "full.json")
		write(t, full, c.Kubectl(t, "get", "--all-namespaces", "-o", "json", kinds))
		want := load(t, source.Loader{}, full)
		if diff := cmp.Diff(want, m, same); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(connections(want), connections(m)); diff != "" {
			t.Error(diff)
		}
		if len(m.Pods) < crowd/10 || len(m.Policies) < 10 {
			t.Errorf("only %d pods and %d policies", len(m.Pods), len(m.Policies))
		}
	})

	t.Run("the application is as in its files", func(t *testing.T) {
		shop := load(t, source.Loader{}, filepath.Join(testkit.Root(t), "examples/shop/deploy"))
		var objects []snapshot.Object // without the crowd, and what concerns the whole cluster
		for _, o := range world.Objects {
			_, kind := o.Kind()
			if namespace, name := o.Name(); kind == "Namespace" && name != "crowd" || slices.Contains([]string{"kube-system", "payments", "platform", "storefront"}, namespace) && kind != "CiliumNetworkPolicy" {
				objects = append(objects, o)
			}
		}
		alone := load(t, source.Loader{}, save(t, objects))
		if diff := cmp.Diff(shop.Policies, alone.Policies, same); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff(connections(shop), connections(alone)); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("the cluster as a source is the same", func(t *testing.T) {
		live := load(t, source.Loader{Cluster: cluster.Options{Kubeconfig: c.Kubeconfig}}, source.Cluster)
		if diff := cmp.Diff(m, live, same); diff != "" {
			t.Error(diff)
		}
	})

	t.Run("a second snapshot is equal", func(t *testing.T) {
		var again bytes.Buffer
		world, err := cluster.Read(context.Background(), cluster.Options{Kubeconfig: c.Kubeconfig})
		if err == nil {
			err = snapshot.WriteYAML(&again, world.Objects, nil)
		}
		if err != nil || !bytes.Equal(text, again.Bytes()) {
			t.Errorf("differs (%v)", err)
		}
	})

	t.Run("made-up names keep the answers", func(t *testing.T) {
		objects, _ := snapshot.Anonymize(world.Objects, []byte("key"))
		file := save(t, objects)
		hidden := load(t, source.Loader{}, file)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := len(connections(hidden)), len(connections(m)); got != want {
			t.Errorf("%d connections, were %d", got, want)
		}
		for _, word := range []string{"agreed", "crowd", "shop", "guest", "payments", "192.168.7.1", "203.0.113"} {
			if bytes.Contains(text, []byte(word)) {
				t.Errorf("it still says %s", word)
			}
		}
	})

	for _, word := range []string{"geheim", "managedFields", " uid:", "resourceVersion", "image:", "TOKEN", "last-applied", "Secret", "ConfigMap"} {
		if bytes.Contains(text, []byte(word)) {
			t.Errorf("the snapshot has %s", word)
		}
	}
	c.checkAudit(t)
}

// checkAudit looks at what the server logged of Weir's requests.
func (c *controlPlane) checkAudit(t *testing.T) {
	t.Helper()
	log, err := os.ReadFile(c.audit)
	if err != nil {
		t.Fatal(err)
	}
	pages := 0
	for line := range bytes.Lines(log) {
		var event struct {
			Verb, UserAgent, RequestURI string
			ObjectRef                   struct{ Resource string }
		}
		if err := json.Unmarshal(line, &event); err != nil || event.UserAgent != "weir/test" {
			continue
		}
		if event.Verb != "list" && event.Verb != "get" {
			t.Errorf("it sent %s %s", event.Verb, event.RequestURI)
		}
		switch event.ObjectRef.Resource {
		case "secrets", "configmaps":
			t.Errorf("it asked for %s", event.RequestURI)
		case "pods":
			pages++
		}
	}
	if want := (crowd + 499) / 500; pages != want {
		t.Errorf("pods came in %d pages, want %d", pages, want)
	}
}

func TestRealClusterForbids(t *testing.T) {
	c := startControlPlane(t)
	user, err := c.AddUser(envtest.User{Name: "viewer"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := user.KubeConfig()
	if err != nil {
		t.Fatal(err)
	}
	kubeconfig := filepath.Join(t.TempDir(), "viewer")
	write(t, kubeconfig, text)
	c.Kubectl(t, "create", "clusterrole", "most", "--verb=list", "--resource="+
		"namespaces,pods,services,serviceaccounts,replicationcontrollers,deployments.apps,replicasets.apps,statefulsets.apps,daemonsets.apps,"+
		"jobs.batch,cronjobs.batch,clusternetworkpolicies.policy.networking.k8s.io,adminnetworkpolicies.policy.networking.k8s.io,"+
		"globalnetworksets.projectcalico.org,ciliumnetworkpolicies.cilium.io")
	c.Kubectl(t, "create", "clusterrolebinding", "viewer", "--clusterrole=most", "--user=viewer")

	// The authorizer learns of the role a moment later.
	o := cluster.Options{Kubeconfig: kubeconfig}
	lacking := "nodes may not be listed\n  networkpolicies.networking.k8s.io may not be listed\nbind"
	for range 1000 {
		if _, err = cluster.Read(context.Background(), o); err != nil && strings.Contains(err.Error(), lacking) {
			break
		}
	}
	rules := "bind the user to a ClusterRole with" +
		"\n  - {apiGroups: [\"\"], resources: [\"nodes\"], verbs: [\"list\"]}" +
		"\n  - {apiGroups: [\"networking.k8s.io\"], resources: [\"networkpolicies\"], verbs: [\"list\"]}"
	if err == nil || !strings.Contains(err.Error(), rules) {
		t.Fatalf("%v, want %s", err, rules)
	}
	o.AllowMissing = true
	w, err := cluster.Read(context.Background(), o)
	if err != nil || len(w.Missing) != 2 || len(w.Objects) == 0 {
		t.Errorf("%v, with %v missing and %d objects", err, w.Missing, len(w.Objects))
	}
}
