package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
)

// TestPicture keeps the picture in README.md what the program draws.
func TestPicture(t *testing.T) {
	root, dir := testkit.Root(t), filepath.Join(t.TempDir(), "shop")
	if out, err := exec.Command(filepath.Join(root, "examples/shop/make-repo.sh"), dir).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var svg, stderr bytes.Buffer
	args := []string{"weir", "diff", "--repo", dir, "git:main", "git:pr", "--fail-on", "none", "-o", "svg"}
	if status := run(context.Background(), args, streams{nil, &svg, &stderr}); status != 0 {
		t.Fatalf("exit status %d: %s", status, stderr.String())
	}
	testkit.Golden(t, filepath.Join(root, "docs/change.svg"), svg.Bytes())
}
