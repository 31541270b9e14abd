package arch

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
)

func TestTheHouse(t *testing.T) {
	problems, err := check(os.DirFS(testkit.Root(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Error(p)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name, file, source string
		want               []string
	}{
		{"down is fine", "policies/reach/a.go", `package reach; import "github.com/weir-policy/weir/policies/netset"`, nil},
		{"up is not", "policies/netset/a.go", `package netset; import "github.com/weir-policy/weir/policies"`, []string{
			"policies/netset/a.go:1: policies/netset is on floor 1 and may not import policies on floor 2",
		}},
		{"nor next door", "policies/selector/a.go", `package selector; import "github.com/weir-policy/weir/policies/netset"`, []string{
			"policies/selector/a.go:1: policies/selector is on floor 1 and may not import policies/netset on floor 1",
		}},
		{"but for a language that neighbours share", "policies/invariant/a.go", `package invariant; import "github.com/weir-policy/weir/policies/expression"`, nil},
		{"which does not import them", "policies/expression/a.go", `package expression; import "github.com/weir-policy/weir/policies/query"`, []string{
			"policies/expression/a.go:1: policies/expression is on floor 4 and may not import policies/query on floor 4",
		}},
		{"a program does not import the tests' kit", "cmd/weir/a.go", `package main; import "github.com/weir-policy/weir/internal/testkit"`, []string{
			"cmd/weir/a.go:1: cmd/weir is on floor 8 and may not import internal/testkit on floor 9",
		}},
		{"files for another system count", "policies/reach/a_plan9.go", "//go:build plan9\n\npackage reach\n\nimport \"os\"", []string{
			"policies/reach/a_plan9.go:5: policies/reach is pure and may not import os",
		}},
		{"tests do as they need", "policies/reach/a_test.go", `package reach; import "os"`, nil},
		{"a package without a floor", "policies/wonder/a.go", `package wonder`, []string{
			"policies/wonder: has no floor; add its row to internal/arch",
		}},
		{"a folder that is not in the plan", "pkg/a.go", `package pkg`, []string{
			"pkg: Go code lives in charts, cmd, docs, enforcer, examples, internal, policies, simulator, tools, webhook",
			"pkg: has no floor; add its row to internal/arch",
		}},
		{"data for tests is no package", "policies/testdata/a.go", `package nonsense`, nil},
		{"addresses are values", "policies/a.go", `package policies; import "net/netip"`, nil},
		{"sockets are not", "policies/a.go", `package policies; import "net"`, []string{"policies/a.go:1: policies is pure and may not import net"}},
		{"nor is what lies below them", "simulator/a.go", `package simulator; import "net/http"`, []string{
			"simulator/a.go:1: simulator is pure and may not import net/http",
		}},
		{"no dice", "simulator/a.go", `package simulator; import "math/rand/v2"`, []string{
			"simulator/a.go:1: simulator is pure and may not import math/rand/v2",
		}},
		{"no Kubernetes", "policies/a.go", `package policies; import "k8s.io/api/core/v1"`, []string{
			"policies/a.go:1: policies is pure and may not import k8s.io/api/core/v1",
		}},
		{"but an evaluator where it belongs", "policies/expression/a.go", `package expression; import "github.com/google/cel-go/cel"`, nil},
		{"and only there", "policies/reach/a.go", `package reach; import "github.com/google/cel-go/cel"`, []string{
			"policies/reach/a.go:1: policies/reach is pure and may not import github.com/google/cel-go/cel",
		}},
		{"a moment is a value", "policies/a.go", "package policies; import \"time\"; type Flow struct { First time.Time }", nil},
		{"the clock is not", "policies/a.go", "package policies\nimport clock \"time\"\nvar started = clock.Now()", []string{
			"policies/a.go:3: policies is pure and may not use time.Now; take the moment from the caller",
		}},
		{"letters may read files", "policies/k8s/a.go", `package k8s; import ("os"; "time"); var now = time.Now`, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := check(fstest.MapFS{test.file: {Data: []byte(test.source)}})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestNestedModulesAreNotOfTheHouse(t *testing.T) {
	got, err := check(fstest.MapFS{"tools/go.mod": {}, "tools/a.go": {Data: []byte("package tools")}})
	if err != nil || got != nil {
		t.Errorf("%v, %v", got, err)
	}
}

// The agent may do anything on its node, so it brings along no more than it needs.
func TestAgentIsLean(t *testing.T) {
	list := exec.Command("go", "list", "-deps", "./cmd/weir-agent")
	list.Dir = testkit.Root(t)
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range strings.Fields(string(out)) {
		for _, unwanted := range []string{
			"github.com/go-git", "github.com/open-policy-agent", "sigs.k8s.io/controller-runtime", "sigs.k8s.io/kustomize", "github.com/fluxcd",
			"google.golang.org/grpc", "modernc.org/sqlite", module + "/webhook", module + "/internal/controller",
		} {
			if isOrBelow(name, unwanted) {
				t.Errorf("cmd/weir-agent brings along %s", name)
			}
		}
	}
}
