package repo_test

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/repo"
)

// work is a real repository, made with the git binary.
type work struct {
	t   *testing.T
	dir string
}

func newWork(t *testing.T) work {
	t.Helper()
	w := work{t, t.TempDir()}
	w.git("init", "--quiet", "--initial-branch=main")
	return w
}

func (w work) git(args ...string) string {
	w.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = w.dir
	cmd.Env = append(os.Environ(),
		"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null",
		"GIT_AUTHOR_NAME=Ada", "GIT_AUTHOR_EMAIL=ada@example.com", "GIT_AUTHOR_DATE=2026-01-01T00:00:00Z",
		"GIT_COMMITTER_NAME=Ada", "GIT_COMMITTER_EMAIL=ada@example.com", "GIT_COMMITTER_DATE=2026-01-01T00:00:00Z",
		"GIT_ALLOW_PROTOCOL=file")
	out, err := cmd.CombinedOutput()
	if err != nil {
		w.t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func (w work) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// commit commits everything and returns the hash.
func (w work) commit(subject string) string {
	w.t.Helper()
	w.git("add", "--all")
	w.git("commit", "--quiet", "--allow-empty", "--message", subject)
	return w.git("rev-parse", "HEAD")
}

func (w work) open(dir string) *repo.Repo {
	w.t.Helper()
	r, err := repo.Open(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { r.Close() })
	return r
}

func (w work) resolve(r *repo.Repo, rev string) repo.Commit {
	w.t.Helper()
	c, err := r.Resolve(rev)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func TestResolve(t *testing.T) {
	w := newWork(t)
	first := w.commit("first")
	w.git("tag", "light")
	second := w.commit("second")
	w.git("tag", "--annotate", "--message", "release", "v1.0")
	w.git("tag", "--annotate", "--message", "again", "v1.0-again", "v1.0")
	w.git("branch", "feature/web")
	w.git("update-ref", "refs/remotes/origin/main", first)
	w.git("update-ref", "refs/remotes/origin/ci", first)
	third := w.commit("third\n\nwith a body")
	w.git("branch", "beef", first)
	w.git("pack-refs", "--all")
	fourth := w.commit("fourth")
	w.git("gc", "--quiet")
	r := w.open(w.dir)
	for _, row := range []struct{ name, rev, want string }{
		{"HEAD", "HEAD", fourth},
		{"at sign", "@", fourth},
		{"a branch", "main", fourth},
		{"a packed branch with a slash", "feature/web", second},
		{"its whole name", "refs/heads/feature/web", second},
		{"a light tag", "light", first},
		{"an annotated tag", "v1.0", second},
		{"a tag of a tag", "v1.0-again", second},
		{"a remote branch", "origin/main", first},
		{"a branch only the remote has", "ci", first},
		{"a branch that looks like a hash", "beef", first},
		{"a whole hash", second, second},
		{"capital letters", strings.ToUpper(second), second},
		{"an abbreviated hash", second[:9], second},
		{"the parent", "HEAD^", third},
		{"two back", "HEAD~2", second},
		{"from a tag", "v1.0~1", first},
		{"step by step", "HEAD^{commit}^1~0^^0^{}", second},
	} {
		c, err := r.Resolve(row.rev)
		if err != nil || c.Hash != row.want {
			t.Errorf("%s: %s is %s, want %s (%v)", row.name, row.rev, c.Hash, row.want, err)
		}
	}
	if c := w.resolve(r, third); c.Subject != "third" || c.Short() != third[:12] {
		t.Errorf("subject %q, short %q", c.Subject, c.Short())
	}
	for _, row := range []struct{ name, rev, want string }{
		{"a slip of the finger", "mian", `"mian" is not in the repository`},
		{"names what is there", "v1.1", "which has v1.0, "},
		{"an unknown hash", strings.Repeat("ab", 20), "fetch it first"},
		{"no short hash either", "abababab", "is not in the repository"},
		{"too far back", "HEAD~9", "does not go that far back"},
		{"no third parent", "HEAD^3", "does not go that far back"},
		{"a search", "HEAD^{/first}", "only ^, ^N and ~N are understood"},
		{"half a step", "HEAD~x", "only ^, ^N and ~N are understood"},
		{"nothing", "", "is not in the repository"},
		{"a reflog", "HEAD@{1}", "reflogs, upstreams and paths are not understood"},
		{"a path", "HEAD:a.yaml", "reflogs, upstreams and paths are not understood"},
		{"a tree", w.git("rev-parse", "HEAD^{tree}"), "is not a commit"},
	} {
		if _, err := r.Resolve(row.rev); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, want %q", row.name, err, row.want)
		}
	}
}

func TestOpen(t *testing.T) {
	w := newWork(t)
	w.write("deep/down/a.yaml", "a")
	hash := w.commit("first")
	linked := filepath.Join(t.TempDir(), "linked")
	w.git("worktree", "add", "--quiet", "-b", "side", linked)
	side := work{t, linked}
	sideHash := side.commit("on the side")
	bare := filepath.Join(t.TempDir(), "bare.git")
	w.git("clone", "--quiet", "--bare", ".", bare)
	borrowed := filepath.Join(t.TempDir(), "borrowed")
	w.git("clone", "--quiet", "--shared", ".", borrowed)
	sparse := filepath.Join(t.TempDir(), "sparse")
	w.git("clone", "--quiet", "--no-local", "--sparse", ".", sparse)
	work{t, sparse}.git("config", "core.repositoryformatversion", "1")
	work{t, sparse}.git("config", "extensions.worktreeConfig", "true")
	for _, row := range []struct{ name, dir, want string }{
		{"the work tree", w.dir, hash},
		{"a folder in it", filepath.Join(w.dir, "deep/down"), hash},
		{"its .git", filepath.Join(w.dir, ".git"), hash},
		{"a linked work tree", linked, sideHash},
		{"a folder in a linked work tree", filepath.Join(linked, "deep"), sideHash},
		{"a bare repository", bare, hash},
		{"objects borrowed from another", borrowed, hash},
		{"a sparse checkout", sparse, hash},
	} {
		r, err := repo.Open(row.dir)
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if c, err := r.Resolve("HEAD"); err != nil || c.Hash != row.want {
			t.Errorf("%s: HEAD is %s, want %s (%v)", row.name, c.Hash, row.want, err)
		} else if data, err := fs.ReadFile(r.Tree(c), "deep/down/a.yaml"); err != nil || string(data) != "a" {
			t.Errorf("%s: file is %q (%v)", row.name, data, err)
		} else if info, err := fs.Stat(r.Tree(c), "deep/down/a.yaml"); err != nil || info.Size() != 1 {
			t.Errorf("%s: the file's size: %v, %v", row.name, info, err)
		}
		r.Close()
	}

	dir := t.TempDir()
	if _, err := repo.Open(dir); err == nil || !strings.Contains(err.Error(), dir+" is not a Git repository") {
		t.Errorf("a plain folder: %v", err)
	}
	if _, err := repo.Open(filepath.Join(dir, "absent")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an absent folder: %v", err)
	}
	empty := newWork(t)
	if _, err := empty.open(empty.dir).Resolve("HEAD"); err == nil || !strings.Contains(err.Error(), "has no commits") {
		t.Errorf("an empty repository: %v", err)
	}
}

func TestMergeBase(t *testing.T) {
	w := newWork(t)
	w.commit("root")
	fork := w.commit("fork")
	w.git("checkout", "--quiet", "-b", "feature")
	w.commit("f1")
	w.git("checkout", "--quiet", "main")
	m1 := w.commit("m1")
	w.git("checkout", "--quiet", "-b", "updated", "feature")
	w.git("merge", "--quiet", "--no-edit", "main")
	w.git("checkout", "--quiet", "main")
	m2 := w.commit("m2")
	w.git("checkout", "--quiet", "--orphan", "island")
	w.commit("island")
	r := w.open(w.dir)
	for _, row := range []struct{ name, a, b, want string }{
		{"where they forked", "main", "feature", fork},
		{"of the parents of a merge", "updated^1", "updated^2", fork},
		{"the other way round", "feature", "main", fork},
		{"after main was merged in", "main", "updated", m1},
		{"of itself", "main", "main", m2},
		{"of an ancestor", "main~1", "main", m1},
	} {
		c, err := r.MergeBase(w.resolve(r, row.a), w.resolve(r, row.b))
		if err != nil || c.Hash != row.want {
			t.Errorf("%s: %q, want %s (%v)", row.name, c.Subject, row.want, err)
		}
	}
	if _, err := r.MergeBase(w.resolve(r, "main"), w.resolve(r, "island")); err == nil || !strings.Contains(err.Error(), "no commit in common") {
		t.Errorf("unrelated histories: %v", err)
	}

	t.Run("shallow", func(t *testing.T) {
		clone := work{t, filepath.Join(t.TempDir(), "shallow")}
		w.git("clone", "--quiet", "--depth=1", "--no-single-branch", "file://"+w.dir, clone.dir)
		r := clone.open(clone.dir)
		main, feature := clone.resolve(r, "main"), clone.resolve(r, "feature")
		if _, err := r.MergeBase(main, feature); err == nil || !strings.Contains(err.Error(), "fetch-depth: 0") {
			t.Errorf("merge base: %v", err)
		}
		if _, err := r.Resolve("release"); err == nil || !strings.Contains(err.Error(), "fetch-depth: 0") {
			t.Errorf("release: %v", err)
		}
		if _, err := r.Resolve("main~1"); err == nil || !strings.Contains(err.Error(), "git fetch --unshallow") {
			t.Errorf("main~1: %v", err)
		}
		clone.git("fetch", "--quiet", "--unshallow")
		r = clone.open(clone.dir)
		if c, err := r.MergeBase(main, feature); err != nil || c.Hash != fork {
			t.Errorf("after --unshallow: %s (%v)", c.Hash, err)
		}
	})
}

func TestTree(t *testing.T) {
	w := newWork(t)
	w.write("a.yaml", "a: 1\n")
	w.write("base/db.yaml", "db: 1\n")
	w.write("base/web.yaml", "web: 1\n")
	w.write("empty.yaml", "")
	link := func(target, name string) {
		t.Helper()
		if err := os.Symlink(target, filepath.Join(w.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	plain := w.resolve(w.open(w.dir), w.commit("plain"))
	r := w.open(w.dir)
	if err := fstest.TestFS(r.Tree(plain), "a.yaml", "base/db.yaml", "base/web.yaml", "empty.yaml"); err != nil {
		t.Error(err)
	}

	link("base", "linked")
	link("../a.yaml", "base/up.yaml")
	link("/etc/passwd", "outside.yaml")
	link("../../x", "above.yaml")
	link("loop.yaml", "loop.yaml")
	w.git("add", ".")
	w.git("update-index", "--add", "--cacheinfo", "160000,"+plain.Hash+",module")
	w.git("commit", "--quiet", "--message", "links")
	tree := r.Tree(w.resolve(r, w.git("rev-parse", "HEAD")))
	for name, want := range map[string]string{"linked/db.yaml": "db: 1\n", "linked/up.yaml": "a: 1\n"} {
		if data, err := fs.ReadFile(tree, name); err != nil || string(data) != want {
			t.Errorf("%s: %q (%v)", name, data, err)
		}
	}
	for name, want := range map[string]string{
		"outside.yaml":    "leads out of the repository",
		"above.yaml":      "leads out of the repository",
		"loop.yaml":       "too many symbolic links",
		"absent.yaml":     "not exist",
		"a.yaml/b":        "not exist",
		"base":            "is a directory",
		"module":          repo.ErrSubmodule.Error(),
		"module/a.yaml":   repo.ErrSubmodule.Error(),
		"../a.yaml":       "invalid",
		"linked/../a.yml": "invalid",
	} {
		if _, err := fs.ReadFile(tree, name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", name, err, want)
		}
	}
	kinds := map[string]fs.FileMode{}
	entries, err := fs.ReadDir(tree, ".")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		kinds[e.Name()] = e.Type()
	}
	want := map[string]fs.FileMode{
		"a.yaml": 0, "base": fs.ModeDir, "empty.yaml": 0, "module": fs.ModeIrregular, "linked": fs.ModeSymlink,
		"outside.yaml": fs.ModeSymlink, "above.yaml": fs.ModeSymlink, "loop.yaml": fs.ModeSymlink,
	}
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}

	type hasher interface{ BlobHash(string) (string, bool) }
	hash, ok := tree.(hasher).BlobHash("linked/db.yaml")
	if want := w.git("rev-parse", "HEAD:base/db.yaml"); !ok || hash != want {
		t.Errorf("blob hash %s, want %s", hash, want)
	}
	for _, name := range []string{"base", "module", "absent"} {
		if hash, ok := tree.(hasher).BlobHash(name); ok {
			t.Errorf("%s has the blob hash %s", name, hash)
		}
	}
}
