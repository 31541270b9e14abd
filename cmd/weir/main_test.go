package main

import (
	"bytes"
	"context"
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
	t.Setenv("KUBECONFIG", liveCluster(t))
	testkit.Docs(t, nil)
}

// TestEveryVerbReadsTheCluster asks a live cluster without writing it down first.
func TestEveryVerbReadsTheCluster(t *testing.T) {
	t.Setenv("KUBECONFIG", liveCluster(t))
	var out, told bytes.Buffer
	if status := run(context.Background(), []string{"weir", "explain", "-f", "cluster", "world", "shop/web", "80", "-o", "json"}, streams{nil, &out, &told}); status != 1 {
		t.Errorf("status %d: %s", status, told.String())
	}
	if !strings.Contains(out.String(), `"cluster/NetworkPolicy/shop/web:`) {
		t.Errorf("the decision does not say which object it is of: %s", out.String())
	}
}
