package source_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

func policy(namespace, name string) string {
	return fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: %s}\nspec: {podSelector: {}}\n", name, namespace)
}

// write puts "path: content" pairs into dir.
func write(t *testing.T, dir string, pairs ...string) {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		file := filepath.Join(dir, pairs[i])
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(pairs[i+1]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func git(t *testing.T, dir string, args ...string) {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_AUTHOR_DATE=2026-01-01T00:00:00Z",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// show prints the policies of a model, each with its place.
func show(m *policies.Model) string {
	var lines []string
	for _, p := range m.Policies {
		lines = append(lines, fmt.Sprintf("%s at %s", p.Ref, p.Place))
	}
	return strings.Join(lines, "\n")
}

// check compares what was loaded, or the beginnings of the lines of the error.
func check(t *testing.T, m *policies.Model, err error, want, wantErr string) {
	t.Helper()
	if wantErr == "" {
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(strings.TrimSpace(want), show(m)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		return
	}
	if err == nil {
		t.Fatal("no error")
	}
	lines, wanted := strings.Split(err.Error(), "\n"), strings.Split(strings.TrimSpace(wantErr), "\n")
	for i := range max(len(lines), len(wanted)) {
		if i >= len(lines) || i >= len(wanted) || !strings.HasPrefix(lines[i], wanted[i]) {
			t.Fatalf("got\n%v\nwant lines that begin with\n%s", err, wantErr)
		}
	}
}

func TestLoad(t *testing.T) {
	base := t.TempDir()
	t.Chdir(base)
	write(t, base,
		"plain/b.yaml", policy("b", "b")+"---\n"+policy("b", "b2"),
		"plain/a/a.yml", policy("a", "a"),
		"plain/c.json", `{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "c", "namespace": "c"}, "spec": {"podSelector": {}}}`,
		"plain/.github/workflow.yaml", "jobs: {",
		"plain/.hidden.yaml", "a: {",
		"plain/package.json", `{"name": "web"}`,
		"plain/tsconfig.json", `{ // with a comment`,
		"plain/list.json", `[{"kind": "x"}]`,
		"plain/values.yaml", "replicas: 3\n",
		"plain/readme.md", "# policies",
		"chart/Chart.yaml", "name: x\n", "chart/templates/a.yaml", "{{ .Values }}",
		"broken/a.yaml", "a: b: c\n", "broken/sub/b.yaml", policy("b", "B!"), "broken/c.yaml", "kind: NetworkPolicy\n",
		"configs/c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n",
		"nothing/readme.md", "",
		"values/values.yaml", "a: b\n",
		"apps/shop/base/kustomization.yaml", "resources: [db.yaml]\n", "apps/shop/base/db.yaml", policy("x", "db"),
		"apps/shop/prod/kustomization.yaml", "resources: [../base, ../../shared/deny.yaml]\ncomponents: [../part]\nnamespace: shop\n",
		"apps/shop/part/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches: [{path: ../../patches/p.yaml}]\n",
		"apps/patches/p.yaml", "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db, namespace: x}\nspec: {policyTypes: [Egress]}\n",
		"apps/shared/deny.yaml", policy("x", "deny"),
		"apps/raw.yaml", policy("raw", "raw"),
		"overlays/base/kustomization.yaml", "resources: [db.yaml]\n", "overlays/base/db.yaml", policy("x", "db"),
		"overlays/dev/kustomization.yaml", "resources: [../base]\n",
		"overlays/prod/kustomization.yaml", "resources: [../base]\n",
		"linked/readme.md", "",
		"lfs.yaml", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n",
		"huge.yaml", "",
		"binary.yaml", "\x00\x01",
	)
	if err := os.Truncate("huge.yaml", k8s.MaxFileSize+1); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("gone.yaml", "linked/dangling.yaml"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name    string
		sources []string
		want    string
		wantErr string
	}{
		{"a folder", []string{"plain"}, `
a/a at plain/a/a.yml:1:1
b/b at plain/b.yaml:1:1
b/b2 at plain/b.yaml:6:1
c/c at plain/c.json:1:1`, ""},
		{"a file", []string{"plain/a/a.yml"}, "a/a at plain/a/a.yml:1:1", ""},
		{"sources that overlap", []string{"plain/a", "plain/a/a.yml", "./plain/a"}, "a/a at plain/a/a.yml:1:1", ""},
		{"the whole path", []string{filepath.Join(base, "plain", "a")}, "a/a at " + filepath.ToSlash(base) + "/plain/a/a.yml:1:1", ""},
		{"standard input", []string{"-"}, "in/in at stdin:1:1", ""},
		{"a kustomization", []string{"apps/shop/prod"}, `
shop/db at apps/shop/base/db.yaml:1:1
shop/deny at apps/shared/deny.yaml:1:1`, ""},
		{"the roots among kustomizations, and the files none of them reads", []string{"apps"}, `
raw/raw at apps/raw.yaml:1:1
shop/db at apps/shop/base/db.yaml:1:1
shop/deny at apps/shared/deny.yaml:1:1`, ""},
		{"a kustomization twice", []string{"apps/shop/prod", "apps/shop/prod"}, `
shop/db at apps/shop/base/db.yaml:1:1
shop/deny at apps/shared/deny.yaml:1:1`, ""},
		{"overlays of the same things", []string{"overlays"}, "", "overlays/prod/kustomization.yaml: builds NetworkPolicy x/db, and so does overlays/dev/kustomization.yaml; name the one"},
		{"all problems, by place", []string{"absent", "broken", "lfs.yaml"}, "", `
absent: there is no such file or folder
broken/a.yaml:1:
broken/c.yaml:1:
broken/sub/b.yaml:3:18: name "B!" is not valid
lfs.yaml: the file is in Git LFS`},
		{"a huge file", []string{"huge.yaml"}, "", "huge.yaml: the file has 64 MiB, more than"},
		{"a binary file", []string{"binary.yaml"}, "", "binary.yaml:1:1: byte 0x00 is not text"},
		{"a link to nothing", []string{"linked"}, "", "linked/dangling.yaml: no such file"},
		{"an empty folder", []string{"nothing"}, "", "no Kubernetes objects found in nothing; .yaml, .yml and .json files are read"},
		{"YAML of something else", []string{"values"}, "", "no Kubernetes objects found in values"},
		{"a chart", []string{"chart"}, "", "no Kubernetes objects found in chart; chart/Chart.yaml: Helm charts are not rendered"},
		{"nothing to do with networks", []string{"configs"}, "", "none of the objects in configs has a bearing on network policy"},
		{"a cluster that nobody names", []string{"cluster"}, "", "there is no cluster to read"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := source.Loader{Stdin: strings.NewReader(policy("in", "in"))}
			m, err := l.Load(context.Background(), row.sources...)
			check(t, m, err, row.want, row.wantErr)
		})
	}
}

func TestGit(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(t.TempDir())
	git(t, dir, "init", "--quiet", "--initial-branch=main")
	write(t, dir, "policies/a.yaml", policy("a", "a"), "top.yaml", policy("t", "t"))
	git(t, dir, "add", ".")
	git(t, dir, "commit", "--quiet", "--message", "one")
	write(t, dir, "policies/a.yaml", "no longer: {")
	for _, row := range []struct{ name, source, want, wantErr string }{
		{"a revision", "git:main", "a/a at policies/a.yaml:1:1\nt/t at top.yaml:1:1", ""},
		{"a folder", "git:HEAD:policies/", "a/a at policies/a.yaml:1:1", ""},
		{"a file", "git:HEAD:./policies/a.yaml", "a/a at policies/a.yaml:1:1", ""},
		{"no such revision", "git:mian", "", `revision "mian" is not in the repository`},
		{"no such path", "git:main:gone", "", "git:main:gone: revision main has no gone"},
		{"out of it", "git:main:../x", "", "git:main:../x: the path leads out of the repository"},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := source.Loader{RepoDir: dir}
			m, err := l.Load(context.Background(), row.source)
			check(t, m, err, row.want, row.wantErr)
		})
	}
	l := source.Loader{}
	_, err := l.Load(context.Background(), "git:main")
	check(t, nil, err, "", ". is not a Git repository")
}

// counted is a tree with blob hashes that counts how often each file is read.
type counted struct {
	fstest.MapFS
	reads map[string]int
}

func (c counted) ReadFile(name string) ([]byte, error) {
	c.reads[name]++
	return c.MapFS.ReadFile(name)
}

func (c counted) BlobHash(name string) (string, bool) {
	if f, ok := c.MapFS[name]; ok {
		return string(f.Data), true
	}
	return "", false
}

func TestLoadTree(t *testing.T) {
	reads := map[string]int{}
	base := counted{fstest.MapFS{
		"shop/kustomization.yaml": {Data: []byte("resources: [db.yaml]\nnamespace: shop\n")},
		"shop/db.yaml":            {Data: []byte(policy("x", "db"))},
		"a.yaml":                  {Data: []byte(policy("a", "a"))},
		"b.yaml":                  {Data: []byte(policy("b", "b"))},
	}, reads}
	head := counted{fstest.MapFS{
		"shop/kustomization.yaml": base.MapFS["shop/kustomization.yaml"],
		"shop/db.yaml":            base.MapFS["shop/db.yaml"],
		"a.yaml":                  base.MapFS["a.yaml"],
		"b.yaml":                  {Data: []byte("# edited\n" + policy("b", "b"))},
	}, reads}
	l := source.Loader{}
	m, err := l.LoadTree(context.Background(), base)
	check(t, m, err, "a/a at a.yaml:1:1\nb/b at b.yaml:1:1\nshop/db at shop/db.yaml:1:1", "")
	clear(reads)
	m, err = l.LoadTree(context.Background(), head)
	check(t, m, err, "a/a at a.yaml:1:1\nb/b at b.yaml:2:1\nshop/db at shop/db.yaml:1:1", "")
	if diff := cmp.Diff(map[string]int{"b.yaml": 1, "shop/kustomization.yaml": 1}, reads); diff != "" {
		t.Errorf("unchanged files were read again (-want +got):\n%s", diff)
	}
	m, err = l.LoadTree(context.Background(), head, "shop/", "gone", "a.yaml")
	check(t, m, err, "a/a at a.yaml:1:1\nshop/db at shop/db.yaml:1:1", "")
	if m, err = l.LoadTree(context.Background(), fstest.MapFS{}); err != nil || len(m.Policies) > 0 {
		t.Errorf("an empty tree: %v", err)
	}
}

func TestLoadStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	l := source.Loader{}
	if _, err := l.LoadTree(ctx, fstest.MapFS{"a.yaml": {Data: []byte(policy("a", "a"))}}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestOnlineBoutique(t *testing.T) {
	const dir = "../../../shared/real/online-boutique"
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		t.Skip("the real tree is not here")
	}
	l := source.Loader{}
	m, err := l.Load(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Pods) != 12 || len(m.Policies) != 13 {
		t.Errorf("%d workloads and %d policies, want 12 and 13", len(m.Pods), len(m.Policies))
	}
	for _, p := range m.Policies {
		if p.Ref.Namespace != "boutique" || !strings.HasPrefix(p.Place.File, dir+"/components/network-policies/") || p.Place.Line != 15 {
			t.Errorf("%s at %s", p.Ref, p.Place)
		}
		if p.Ref.Name == "adservice" && p.Rules[policies.Ingress][0].Place.String() != dir+"/components/network-policies/network-policy-adservice.yaml:27:5" {
			t.Errorf("its rule at %s", p.Rules[policies.Ingress][0].Place)
		}
	}
}
