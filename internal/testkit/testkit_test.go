package testkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestRootHoldsTheModule(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(Root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(text), "module github.com/weir-policy/weir\n") {
		t.Errorf("another module's root: %.80s", text)
	}
}

func TestGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "report.txt")
	t.Setenv("WEIR_GOLDEN", "0")
	if !fails(func(t testing.TB) { Golden(t, path, "three flows break\n") }) {
		t.Error("a missing file passes")
	}
	t.Setenv("WEIR_GOLDEN", "1")
	Golden(t, path, "two flows break\n")
	t.Setenv("WEIR_GOLDEN", "0")
	Golden(t, path, []byte("two flows break\n"))
	if !fails(func(t testing.TB) { Golden(t, path, "three flows break\n") }) {
		t.Error("other text passes")
	}
}

// fails reports whether the check fails its test.
func fails(check func(testing.TB)) bool {
	r := &recorder{}
	check(r)
	return r.failed
}

// recorder is a test that only notes that it failed.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }
func (r *recorder) Fatal(...any)          { r.failed = true }
func (r *recorder) Fatalf(string, ...any) { r.failed = true }
