package folder

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies/k8s"
)

const (
	web    = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web}, status: {podIP: 10.0.0.1}}\n"
	db     = "{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db}, status: {podIP: 10.0.0.2}}\n"
	policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: all}, spec: {podSelector: {}}}\n"
)

// What a folder says after each step, and what is wrong with it.
func TestRead(t *testing.T) {
	dir := t.TempDir()
	f := New(dir, k8s.Options{})
	for _, step := range []struct {
		name  string
		write map[string]string // "-" removes
		want  string
		err   string
	}{
		{"nothing", nil, "", ""},
		{"files at any depth", map[string]string{"web.yaml": web, "more/db.yaml": db, "notes.txt": "kind: Nonsense"}, "db web", ""},
		{"lists, and what is no object", map[string]string{"list.yaml": "apiVersion: v1\nkind: List\nitems:\n- " + policy, "other.yaml": "a: 1\n"}, "db web all", ""},
		{"nothing counts while something is broken", map[string]string{"web.yaml": "-", "broken.yaml": "kind: Pod\napiVersion: v1\nmetadata: {name: x}\nspec: {hostNetwork: 7}\n"}, "db web all", "broken.yaml:4:21: "},
		{"and then all of it", map[string]string{"broken.yaml": "-"}, "db all", ""},
		{"given twice", map[string]string{"again.yaml": db}, "db all", "more/db.yaml: Pod shop/db is given twice"},
		{"a file that moved", map[string]string{"more/db.yaml": "-"}, "db all", ""},
		{"half a file", map[string]string{"list.yaml": ""}, "db all", "list.yaml: it is empty"},
		{"a kustomization", map[string]string{"list.yaml": "-", "kustomization.yaml": "resources: [a.yaml]\n"}, "db all", "kustomization.yaml:1:1: "},
		{"what is gone", map[string]string{"kustomization.yaml": "-"}, "db", ""},
		{"Weir's own kinds", map[string]string{"own.yaml": "{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: x}}\n"}, "db +1", ""},
	} {
		for name, text := range step.write {
			at := filepath.Join(dir, name)
			err := os.MkdirAll(filepath.Dir(at), 0o755)
			if text == "-" {
				err = os.Remove(at)
			} else if err == nil {
				err = os.WriteFile(at, []byte(text), 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		w, err := f.Read()
		if diff := cmp.Diff(step.want, said(w)); diff != "" {
			t.Errorf("%s: (-want +got)\n%s", step.name, diff)
		}
		switch got := strings.TrimPrefix(errorText(err), dir+"/"); {
		case step.err == "" && err != nil, !strings.HasPrefix(got, step.err):
			t.Errorf("%s: %q, want %q", step.name, got, step.err)
		}
		again, _ := f.Read()
		if again != w {
			t.Errorf("%s: read again, it is another world", step.name)
		}
	}
}

func said(w *World) string {
	if w == nil {
		return ""
	}
	var names []string
	for _, p := range w.Model.Pods {
		names = append(names, p.Ref.Name)
	}
	for _, p := range w.Model.Policies {
		names = append(names, p.Ref.Name)
	}
	if len(w.Own) > 0 {
		names = append(names, "+1")
	}
	return strings.Join(names, " ")
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestWatch(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan string, 16)
	ended := make(chan error)
	go func() {
		ended <- New(dir, k8s.Options{}).Watch(ctx, func(w *World, err error) { told <- said(w) + errorText(err) })
	}()
	write := func(name, text string) {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		// As whoever writes should: elsewhere, and then in its place.
		if err := os.WriteFile(at+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(at+".new", at); err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct{ name, text, want string }{
		{"", "", ""},
		{"web.yaml", web, "web"},
		{"deep/er/db.yaml", db, "db web"},
		{"deep/er/db.yaml", policy, "web all"},
	} {
		if step.name != "" {
			write(step.name, step.text)
		}
		for got := range told {
			if got == step.want {
				break
			}
		}
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A folder may go and come back, another one take its place, and a link to it lead
// elsewhere: what happens in the one that is there now is seen.
func TestWatchAnotherFolder(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(name, text string) {
		t.Helper()
		must(errors.Join(os.MkdirAll(filepath.Dir(at(name)), 0o755), os.WriteFile(at("new"), []byte(text), 0o600), os.Rename(at("new"), at(name))))
	}
	put("a/x.yaml", web)
	put("b/x.yaml", db)
	for _, root := range []string{"world", "link"} {
		f := New(at(root), k8s.Options{})
		f.seldom = time.Hour
		ctx, cancel := context.WithCancel(t.Context())
		told, ended := make(chan string, 16), make(chan error)
		go func() { ended <- f.Watch(ctx, func(w *World, err error) { told <- said(w) + errorText(err) }) }()
		until := func(want string) {
			t.Helper()
			for got := range told {
				if got == want {
					return
				}
			}
		}
		none := "stat " + at(root) + ": no such file or directory"
		until(none)
		if root == "world" {
			must(os.Rename(at("a"), at(root)))
			until("web")
			must(os.Rename(at(root), at("a")))
			until("web" + none)
			must(os.Rename(at("b"), at(root)))
			until("db")
			put("world/x.yaml", policy)
			until("all")
			must(os.Rename(at(root), at("b")))
		} else {
			must(os.Symlink(at("a"), at(root)))
			until("web")
			must(errors.Join(os.Symlink(at("b"), at("new")), os.Rename(at("new"), at(root))))
			until("all")
			put("b/x.yaml", db)
			until("db")
		}
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}
}
