package source

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/render"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// folder reads a folder: what its kustomization builds; without one, its files
// and those of the folders in it, and what kustomizations further down build
// that no other one there refers to.
func (r *reading) folder(t *tree, dir string) {
	if render.Find(t.files, dir) != "" {
		plan, err := render.NewPlan(t.forRender(), dir)
		r.build(t, dir, plan, err, map[policies.Ref]string{})
		return
	}
	var w walk
	r.walk(t, dir, &w)

	type planned struct {
		dir  string
		plan *render.Plan
		err  error
	}
	var plans []planned
	referred := map[string]bool{}
	for _, dir := range w.kustomizations {
		plan, err := render.NewPlan(t.forRender(), dir)
		plans = append(plans, planned{dir, plan, err})
		for _, name := range plan.Dirs {
			referred[name] = true
		}
		for _, name := range plan.Files {
			referred[name] = true
		}
	}
	for _, name := range w.files {
		if !referred[name] {
			r.file(t, name)
		}
	}
	builders := map[policies.Ref]string{}
	for _, p := range plans {
		if !referred[p.dir] && !p.plan.Component {
			r.build(t, p.dir, p.plan, p.err, builders)
		}
	}
}

// build adds what a kustomization builds. Builders says which kustomization an
// object came from: what two of them build are alternatives, never one world.
func (r *reading) build(t *tree, dir string, plan *render.Plan, err error, builders map[policies.Ref]string) {
	if err != nil {
		r.problems = append(r.problems, err)
		return
	}
	if !r.take(t, dir) {
		return
	}
	r.warnings = append(r.warnings, plan.Warnings...)
	built := r.loader.built.get(t.fingerprint(dir, plan), func() parsed {
		documents, err := plan.Build()
		return parsed{documents, err}
	})
	if built.err != nil {
		r.problems = append(r.problems, built.err)
		return
	}
	file := t.name(render.Find(t.files, dir))
	for _, d := range built.documents {
		object := identify(d)
		if other, ok := builders[object]; ok {
			r.problems = append(r.problems, policies.Problem{
				Place:   policies.Place{File: file},
				Message: fmt.Sprintf("builds %s %s, and so does %s; name the one of the two that you mean", object.What(), object, other),
			})
			return
		}
	}
	for _, d := range built.documents {
		if isObject(d) {
			builders[identify(d)] = file
		}
	}
	r.documents = append(r.documents, built.documents...)
}

func (t *tree) forRender() render.Tree {
	return render.Tree{Files: t.files, Name: t.name, Parse: t.parse}
}

// fingerprint is equal for plans that build the same, or empty where the tree
// has no hashes.
func (t *tree) fingerprint(dir string, plan *render.Plan) string {
	parts := []string{t.name(dir)}
	for _, name := range plan.Files {
		hash, ok := t.files.blobHash(name)
		if !ok {
			return ""
		}
		parts = append(parts, name, hash)
	}
	for _, absent := range plan.Warnings {
		parts = append(parts, absent.String())
	}
	return strings.Join(parts, "\x00")
}

// identify names an object; the zero Ref is for what is none.
func identify(d k8s.Document) policies.Ref {
	var o struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name, Namespace yaml.Node }
	}
	_ = d.Node.Decode(&o) // what is wrong in it, k8s.Read says
	ref := policies.Ref{Kind: o.Kind, Namespace: o.Metadata.Namespace.Value, Name: o.Metadata.Name.Value}
	if group, _, _ := strings.Cut(o.APIVersion, "/"); strings.HasSuffix(group, policies.CalicoGroup) {
		ref.Group = policies.CalicoGroup
	}
	return ref
}

// walk is what a folder without a kustomization holds, in order of the paths.
type walk struct{ files, kustomizations []string }

func (r *reading) walk(t *tree, dir string, w *walk) {
	if err := r.ctx.Err(); err != nil {
		r.problems = append(r.problems, err)
		return
	}
	list, err := fs.ReadDir(t.files, dir)
	if err != nil {
		r.problems = append(r.problems, policies.Problem{Place: policies.Place{File: t.name(dir)}, Message: reason(err)})
		return
	}
	if chart := path.Join(dir, "Chart.yaml"); exists(t.files, chart) {
		r.warn(t, chart, "Helm charts are not rendered; render it with helm template and pass the output as a source")
		return
	}
	for _, entry := range list {
		name := path.Join(dir, entry.Name())
		kind := entry.Type()
		if strings.HasPrefix(entry.Name(), ".") {
			continue
		}
		if kind&fs.ModeSymlink != 0 && isManifest(name) {
			kind = 0 // reading it says where it leads
		}
		switch {
		case kind.IsDir() && render.Find(t.files, name) != "":
			w.kustomizations = append(w.kustomizations, name)
		case kind.IsDir():
			r.walk(t, name, w)
		case kind&fs.ModeIrregular != 0:
			r.warn(t, name, "a submodule's files are not in this repository; pass its folder as a source of its own")
		case kind&fs.ModeSymlink != 0:
			if info, err := fs.Stat(t.files, name); err == nil && info.IsDir() {
				r.warn(t, name, "links to folders are not followed; pass the folder as a source of its own")
			}
		case kind.IsRegular() && isManifest(name) && !t.isData(name):
			w.files = append(w.files, name)
		}
	}
}

func (r *reading) warn(t *tree, name, message string) {
	r.warnings = append(r.warnings, policies.Warning{Place: policies.Place{File: t.name(name)}, Message: message})
}

func exists(fsys fs.FS, name string) bool {
	_, err := fs.Stat(fsys, name)
	return err == nil
}

func isManifest(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".yaml", ".yml", ".json":
		return true
	}
	return false
}

// isData reports whether a JSON file is none of Kubernetes objects. Such files
// are about, and not all that are called JSON are JSON.
func (t *tree) isData(name string) bool {
	if !strings.EqualFold(path.Ext(name), ".json") {
		return false
	}
	data, err := fs.ReadFile(t.files, name)
	return err == nil && (!bytes.Contains(data, []byte(`"kind"`)) || bytes.HasPrefix(bytes.TrimSpace(data), []byte("[")))
}
