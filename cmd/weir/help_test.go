package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
)

// TestHelpExamples runs the examples of every help page at the top of a
// checkout whose branch pr changes the shop.
func TestHelpExamples(t *testing.T) {
	dir := checkout(t)
	t.Setenv("KUBECONFIG", liveCluster(t).Kubeconfig)
	var run func(c *cobra.Command)
	run = func(c *cobra.Command) {
		if c.Runnable() && !c.HasSubCommands() && c.Example == "" {
			t.Errorf("%s has no example", c.CommandPath())
		}
		for example := range strings.Lines(c.Example) {
			if c.Name() == "serve" || c.Name() == "observe" { // for ever: TestServe and TestObserve run them
				continue
			}
			shell := exec.Command("sh", "-c", strings.TrimSpace(example))
			shell.Dir = dir
			shell.Env = append(os.Environ(), "PATH="+dir+string(os.PathListSeparator)+os.Getenv("PATH"))
			if output, err := shell.CombinedOutput(); shell.ProcessState.ExitCode() > 1 {
				t.Errorf("%s: %v\n%s", strings.TrimSpace(example), err, output)
			}
		}
		for _, verb := range c.Commands() {
			if verb.Name() != "help" && verb.Name() != "completion" {
				run(verb)
			}
		}
	}
	run(newRoot(streams{}))
}

// checkout makes a repository with the examples on main and the shop's pull
// request on pr, which is checked out, and a hubble that prints recorded flows.
func checkout(t *testing.T) string {
	t.Helper()
	dir, root := t.TempDir(), testkit.Root(t)
	if err := os.CopyFS(filepath.Join(dir, "examples"), os.DirFS(filepath.Join(root, "examples"))); err != nil {
		t.Fatal(err)
	}
	hubble := "#!/bin/sh\ngunzip -c examples/shop/flows.jsonl.gz\n"
	if err := os.WriteFile(filepath.Join(dir, "hubble"), []byte(hubble), 0o755); err != nil {
		t.Fatal(err)
	}
	script := exec.Command("sh", "-e", "-c", `
		git init --quiet --initial-branch=main
		git add --all
		git commit --quiet --message 'the shop'
		git checkout --quiet -b pr
		cp -R examples/shop/pull-request/. examples/shop/deploy/
		git commit --quiet --all --message 'catalog: load pictures from the CDN'`)
	script.Dir = dir
	script.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com")
	if output, err := script.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, output)
	}
	return dir
}

// liveCluster starts a small cluster.
func liveCluster(t *testing.T) *testkit.Cluster {
	object := func(version, kind string, metadata map[string]any) map[string]any {
		return map[string]any{"apiVersion": version, "kind": kind, "metadata": metadata, "spec": map[string]any{}}
	}
	return testkit.NewCluster(t,
		object("v1", "Namespace", map[string]any{"name": "shop"}),
		object("v1", "Pod", map[string]any{"namespace": "shop", "name": "web", "labels": map[string]any{"app": "web"}}),
		object("networking.k8s.io/v1", "NetworkPolicy", map[string]any{"namespace": "shop", "name": "web"}),
		object("weir.dev/v1alpha1", "PacketCapture", map[string]any{"namespace": "shop", "name": "dns"}),
	)
}

func TestTimeLeft(t *testing.T) {
	file := strings.NewReader(strings.Repeat("x", 400))
	if _, err := file.Seek(100, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	began := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	w := watch{to: io.Discard, began: began, flows: 120_000, before: 200, total: 1200, file: file}
	for after, want := range map[time.Duration]string{
		time.Second:      "120000 flows read, 120000 a second",
		10 * time.Second: "120000 flows read, 12000 a second, 25% of the files, 30s left",
	} {
		if got := w.text(began.Add(after)); got != want {
			t.Errorf("after %s: %q, want %q", after, got, want)
		}
	}
	w.total = 0 // standard input
	if got, want := w.text(began.Add(time.Minute)), "120000 flows read, 2000 a second"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestProgressIsForTerminals(t *testing.T) {
	var told bytes.Buffer
	flows := 0
	seen := newWatch(&told, nil)
	each := seen.each(func(policies.Flow) error { flows++; return nil })
	for range 100_000 {
		if err := each(policies.Flow{}); err != nil {
			t.Fatal(err)
		}
	}
	seen.done()
	if flows != 100_000 || told.Len() > 0 {
		t.Errorf("%d flows handed on, and told %q", flows, told.String())
	}
}
