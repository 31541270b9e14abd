// Package testkit holds what tests of several packages share: where the module
// and its shared material lie, expected outputs kept in files, command-line
// sessions, and the commands that the documentation shows.
package testkit

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Root returns the folder that holds the module's go.mod.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.mod in the working folder or above it")
		}
		dir = parent
	}
}

// Shared returns the path of a file or folder of ../shared, which lies beside
// the module and holds suites and real applications too large to carry along.
// It skips the test where that is absent.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	inside := filepath.Join(elem...)
	path := filepath.Join(Root(t), "..", "shared", inside)
	if _, err := os.Stat(path); err != nil {
		t.Skipf("needs %s in the folder shared beside the module", inside)
	}
	return path
}

// Golden fails the test unless the file at path holds got. With WEIR_GOLDEN=1
// in the environment, as `make golden` sets it, it writes the file instead.
func Golden[Text ~string | ~[]byte](t testing.TB, path string, got Text) {
	t.Helper()
	if rewriting() {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v; `make golden` writes it", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not what came out (-file +got); if it should be, `make golden` rewrites it\n%s", path, diff)
	}
}

func rewriting() bool { return os.Getenv("WEIR_GOLDEN") == "1" }
