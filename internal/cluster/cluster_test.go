package cluster

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
)

func object(version, kind, namespace, name string) map[string]any {
	meta := map[string]any{"name": name}
	if namespace != "" {
		meta["namespace"] = namespace
	}
	return map[string]any{"apiVersion": version, "kind": kind, "metadata": meta, "spec": map[string]any{}}
}

// names returns "Kind namespace/name" of each object, with its version where
// that is not of Kubernetes.
func names(w *World) []string {
	var all []string
	for _, o := range w.Objects {
		version, kind := o.Kind()
		namespace, name := o.Name()
		if strings.Contains(version, ".") {
			kind = version + " " + kind
		}
		all = append(all, fmt.Sprintf("%s %s/%s", kind, namespace, name))
	}
	return all
}

func TestReadsEveryKindOnce(t *testing.T) {
	server := testkit.NewCluster(t,
		object("v1", "Namespace", "", "shop"),
		object("v1", "ConfigMap", "shop", "settings"),
		object("v1", "ServiceAccount", "shop", "web"),
		object("apps/v1", "Deployment", "shop", "web"),
		object("networking.k8s.io/v1", "NetworkPolicy", "shop", "web"),
		object("extensions/v1beta1", "NetworkPolicy", "shop", "web"),
		object("networking.k8s.io/v1", "Ingress", "shop", "web"),
		object("policy.networking.k8s.io/v1alpha1", "ClusterNetworkPolicy", "", "all"),
		object("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", "", "all"),
		object("projectcalico.org/v3", "GlobalNetworkPolicy", "", "base"),
		object("crd.projectcalico.org/v1", "GlobalNetworkPolicy", "", "base"),
		object("crd.projectcalico.org/v1", "Tier", "", "base"),
		object("crd.projectcalico.org/v1", "IPAMBlock", "", "10-0-0-0-26"),
		object("cilium.io/v2", "CiliumNetworkPolicy", "shop", "l7"),
		object("weir.dev/v1alpha1", "ConnectivityTest", "shop", "web"),
	)
	w, err := Read(context.Background(), Options{Kubeconfig: server.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"projectcalico.org/v3 GlobalNetworkPolicy /base",
		"policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy /all",
		"Namespace /shop",
		"crd.projectcalico.org/v1 Tier /base",
		"cilium.io/v2 CiliumNetworkPolicy shop/l7",
		"weir.dev/v1alpha1 ConnectivityTest shop/web",
		"Deployment shop/web",
		"networking.k8s.io/v1 NetworkPolicy shop/web",
		"ServiceAccount shop/web",
	}
	got := names(w)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, asked := range server.Asked() {
		if !strings.HasPrefix(asked, "GET ") || strings.Contains(asked, "secrets") || strings.Contains(asked, "configmaps") {
			t.Errorf("it sent %s", asked)
		}
	}
}

func pods(n int) []map[string]any {
	var all []map[string]any
	for i := range n {
		all = append(all, object("v1", "Pod", "shop", fmt.Sprintf("web-%04d", i)))
	}
	return all
}

func TestPages(t *testing.T) {
	for _, row := range []struct {
		name   string
		expire bool
		want   []string
	}{
		{"page by page", false, []string{
			"GET /api/v1/pods?continue=1000&limit=500", "GET /api/v1/pods?continue=500&limit=500", "GET /api/v1/pods?limit=500",
		}},
		{"a list that is known no more is started over", true, []string{
			"GET /api/v1/pods?continue=1000&limit=500", "GET /api/v1/pods?continue=500&limit=500",
			"GET /api/v1/pods?continue=500&limit=500", "GET /api/v1/pods?limit=500", "GET /api/v1/pods?limit=500",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			server := testkit.NewCluster(t, pods(1200)...)
			server.Expire["/api/v1/pods"] = row.expire
			w, err := Read(context.Background(), Options{Kubeconfig: server.Kubeconfig})
			if err != nil {
				t.Fatal(err)
			}
			if got := slices.Compact(names(w)); len(got) != 1200 {
				t.Errorf("%d pods", len(got))
			}
			var asked []string
			for _, q := range server.Asked() {
				if strings.Contains(q, "pods") {
					asked = append(asked, strings.ReplaceAll(q, "&timeout=2m0s", ""))
				}
			}
			if diff := cmp.Diff(row.want, asked); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWhatMayNotBeRead(t *testing.T) {
	server := testkit.NewCluster(t,
		object("v1", "Namespace", "", "shop"), object("v1", "Node", "", "n1"), object("v1", "Pod", "shop", "web"),
		object("networking.k8s.io/v1", "NetworkPolicy", "shop", "web"),
		object("metrics.k8s.io/v1beta1", "PodMetrics", "shop", "web"),
		object("projectcalico.org/v3", "Tier", "", "base"),
	)
	server.Refuse["/api/v1/nodes"] = http.StatusForbidden
	server.Refuse["/api/v1/pods"] = http.StatusForbidden
	server.Refuse["/apis/networking.k8s.io/v1/networkpolicies"] = http.StatusForbidden
	server.Refuse["/apis/metrics.k8s.io/v1beta1"] = http.StatusServiceUnavailable
	server.Refuse["/apis/projectcalico.org/v3"] = http.StatusServiceUnavailable
	missing := []string{
		"group projectcalico.org/v3 cannot be served at the moment",
		"nodes may not be listed", "pods may not be listed", "networkpolicies.networking.k8s.io may not be listed",
	}

	_, err := Read(context.Background(), Options{Kubeconfig: server.Kubeconfig})
	if err == nil {
		t.Fatal("read as if it were all")
	}
	for _, want := range append(missing,
		`- {apiGroups: [""], resources: ["nodes", "pods"], verbs: ["list"]}`,
		`- {apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list"]}`,
	) {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %s:\n%v", want, err)
		}
	}

	w, err := Read(context.Background(), Options{Kubeconfig: server.Kubeconfig, AllowMissing: true})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(missing, w.Missing); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"Namespace /shop"}, names(w)); diff != "" {
		t.Error(diff)
	}
}

func TestCannotBeAsked(t *testing.T) {
	server := testkit.NewCluster(t)
	away := filepath.Join(t.TempDir(), "away")
	text, err := os.ReadFile(server.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	lines[4] = `clusters: [{name: test, cluster: {server: "http://127.0.0.1:1"}}]`
	if err := os.WriteFile(away, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", t.TempDir())
	t.Setenv("KUBECONFIG", filepath.Join(t.TempDir(), "absent"))
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	for _, row := range []struct {
		name    string
		options Options
		status  int // of the first request
		want    string
	}{
		{"no kubeconfig", Options{}, 0, "there is no cluster to read: no kubeconfig is found"},
		{"an absent one", Options{Kubeconfig: "absent.yaml"}, 0, "kubeconfig: stat absent.yaml: no such file"},
		{"no such context", Options{Kubeconfig: server.Kubeconfig, Context: "tset"}, 0, `there is no context "tset"; near it is test`},
		{"nobody there", Options{Kubeconfig: away}, 0, "the server cannot be reached: dial tcp 127.0.0.1:1"},
		{"a stale token", Options{Kubeconfig: server.Kubeconfig}, http.StatusUnauthorized, "does not accept the credentials"},
	} {
		t.Run(row.name, func(t *testing.T) {
			server.Refuse["/apis"] = row.status
			if _, err := Read(context.Background(), row.options); err == nil || !strings.Contains(err.Error(), row.want) {
				t.Errorf("%v, want %s", err, row.want)
			}
		})
	}
}

// answers is a server that answers anything.
type answers struct{}

func (answers) RoundTrip(*http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

func TestReadsOnly(t *testing.T) {
	guard := readOnly{answers{}, "/clusters/c1"}
	for _, row := range []struct {
		method, path string
		want         bool
	}{
		{"GET", "/clusters/c1/apis", true},
		{"GET", "/clusters/c1/api/v1", true},
		{"GET", "/clusters/c1/api/v1/pods", true},
		{"GET", "/clusters/c1/apis/apps/v1/deployments", true},
		{"GET", "/apis", false},
		{"GET", "/clusters/c1/api/v1/secrets", false},
		{"GET", "/clusters/c1/api/v1/secrets/", false},
		{"GET", "/clusters/c1/api/v1/configmaps", false},
		{"GET", "/clusters/c1/api/v1/namespaces/shop/secrets", false},
		{"GET", "/clusters/c1/api/v1/namespaces/shop/pods/web/exec", false},
		{"GET", "/clusters/c1/metrics", false},
		{"POST", "/clusters/c1/api/v1/pods", false},
		{"DELETE", "/clusters/c1/api/v1/pods", false},
		{"PATCH", "/clusters/c1/apis/apps/v1/deployments", false},
		{"PUT", "/clusters/c1/apis", false},
	} {
		q, err := http.NewRequest(row.method, "http://127.0.0.1"+row.path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := guard.RoundTrip(q)
		if err == nil {
			answer.Body.Close()
		}
		if got := err == nil; got != row.want {
			t.Errorf("%s %s: let through is %v", row.method, row.path, got)
		}
	}
}
