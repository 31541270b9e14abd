package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/weir-policy/weir/internal/testkit"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"weir": main, "kubectl-weir": main})
}

// TestScripts runs the sessions in testdata.
func TestScripts(t *testing.T) { testkit.Scripts(t, "testdata") }

// TestDocs runs every command that README.md, docs and examples show.
func TestDocs(t *testing.T) {
	t.Setenv("KUBECONFIG", liveCluster(t).Kubeconfig)
	testkit.Docs(t, nil)
}

// TestEveryVerbReadsTheCluster asks a live cluster without writing it down first.
func TestEveryVerbReadsTheCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", liveCluster(t).Kubeconfig)
	var out, told bytes.Buffer
	if status := run(context.Background(), []string{"weir", "explain", "-f", "cluster", "world", "shop/web", "80", "-o", "json"}, streams{nil, &out, &told}); status != 1 {
		t.Errorf("status %d: %s", status, told.String())
	}
	if !strings.Contains(out.String(), `"cluster/NetworkPolicy/shop/web:`) {
		t.Errorf("the decision does not say which object it is of: %s", out.String())
	}
}

// A file beside the cluster counts as if it were applied, and what is left out as if it
// were deleted.
func TestWhatTheClusterWouldBe(t *testing.T) {
	t.Setenv("KUBECONFIG", liveCluster(t).Kubeconfig)
	file := filepath.Join(t.TempDir(), "open.yaml")
	text := "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web}, spec: {podSelector: {}, ingress: [{}]}}"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args   []string
		status int
		told   string
	}{
		{[]string{"-f", "cluster"}, 1, ""},
		{[]string{"-f", "cluster", "-f", file}, 1, ""}, // it is of another namespace
		{[]string{"-f", "cluster", "-f", file, "-n", "shop"}, 0, ""},
		{[]string{"-f", file, "-f", "cluster", "-n", "shop"}, 0, ""},
		{[]string{"-f", "cluster", "--without", "networkpolicy/shop/web"}, 0, ""},
		{[]string{"-f", "cluster", "--without", "NetworkPolicy.networking.k8s.io/shop/web"}, 0, ""},
		{[]string{"-f", "cluster", "--without", "networkpolicy.projectcalico.org/shop/web"}, 2, "without networkpolicy.projectcalico.org/shop/web: there is no such object, as a document of its own\n"},
		{[]string{"-f", "cluster", "--without", "web"}, 2, "without web: it is no KIND/NAMESPACE/NAME, nor KIND/NAME of what has no namespace\n"},
		{[]string{"-f", "cluster", "--without", "namespace/shop"}, 2, "none of the objects in cluster has a bearing on network policy; name a source with workloads or policies\n"},
	} {
		var out, told bytes.Buffer
		if status := run(context.Background(), append([]string{"weir", "explain", "world", "shop/web", "80"}, row.args...), streams{nil, &out, &told}); status != row.status || told.String() != row.told {
			t.Errorf("%s: status %d: %s%s", row.args, status, out.String(), told.String())
		}
	}
}

func TestSnapshotOfWhatMayBeRead(t *testing.T) {
	server := liveCluster(t)
	server.Refuse["/apis/networking.k8s.io/v1/networkpolicies"] = http.StatusForbidden
	t.Setenv("KUBECONFIG", server.Kubeconfig)
	snapshot := func(args ...string) (status int, out, told string) {
		var o, e bytes.Buffer
		status = run(context.Background(), append([]string{"weir", "snapshot"}, args...), streams{nil, &o, &e})
		return status, o.String(), e.String()
	}
	if status, out, told := snapshot(); status != 2 || out != "" || !strings.Contains(told, `resources: ["networkpolicies"], verbs: ["list"]`) {
		t.Errorf("status %d, wrote %q, told %q", status, out, told)
	}
	const missing = "missing: networkpolicies.networking.k8s.io may not be listed\n"
	if status, out, told := snapshot("--allow-missing"); status != 0 || !strings.HasPrefix(out, "# "+missing) || told != "warning: "+missing {
		t.Errorf("status %d, wrote %q, told %q", status, out, told)
	}
}
