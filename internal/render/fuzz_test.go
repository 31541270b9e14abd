package render_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// noNetwork fails who tries.
type noNetwork struct{ t *testing.T }

func (n noNetwork) RoundTrip(r *http.Request) (*http.Response, error) {
	n.t.Errorf("a request to %s", r.URL)
	return nil, errors.New("no network")
}

// Whatever a kustomization says, building it neither panics nor fetches anything
// nor runs git.
func FuzzBuild(f *testing.F) {
	for _, seed := range []string{
		"resources: [a.yaml, base]\nnamespace: x\n",
		"resources: ['https://example.com/a.yaml', 'git@example.com:a/b', 'github.com/a/b']\n",
		"resources: ['a@b/c.git', '.git/x', 'HTTP:a', 'file:///a']\n",
		"transformers:\n- '{apiVersion: builtin, kind: PatchTransformer, metadata: {name: a}, path: \"http://example.com/\"}'\n",
		"<<: {resources: [http://example.com/a]}\n",
		"Resources: &r [a.yaml]\nresources: *r\n",
		"configMapGenerator:\n- {name: a, files: ['a=b=http://example.com/'], envs: [a.yaml]}\n",
		"patches:\n- {path: 'http://example.com/', patch: x}\nvars: [{name: a}]\n",
		"generators: [p.yaml]\nopenapi: {path: a.yaml}\ncrds: [a.yaml]\n",
		"resources: [github.com/a/b]\n",
		"components: [a@b/c.git]\n",
		"resources: [base]\ntransformers: [base]\n",
		"components: [part]\nnamePrefix: a-\nlabels: [{pairs: {a: b}}]\n",
	} {
		f.Add(seed, db)
	}
	bin := f.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "git"), []byte("#!/bin/sh\n: >\"$0.ran\"\n"), 0o755); err != nil {
		f.Fatal(err)
	}
	f.Setenv("PATH", bin)
	f.Fuzz(func(t *testing.T, kustomization, other string) {
		real := http.DefaultTransport
		http.DefaultTransport = noNetwork{t}
		defer func() { http.DefaultTransport = real }()
		_, _ = build(files(
			"kustomization.yaml", kustomization,
			"a.yaml", other, "p.yaml", other,
			"github.com/a/b/kustomization.yaml", "resources: []\n", "a@b/c.git/kustomization.yaml", "resources: []\n",
			"base/kustomization.yaml", "resources: [db.yaml]\n", "base/db.yaml", db,
			"part/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nnamespace: y\n",
		), ".")
		if _, err := os.Stat(filepath.Join(bin, "git.ran")); err == nil {
			t.Error("git was run")
		}
	})
}
