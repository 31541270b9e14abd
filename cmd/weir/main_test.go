package main

import (
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
func TestDocs(t *testing.T) { testkit.Docs(t, nil) }
