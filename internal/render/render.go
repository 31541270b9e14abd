// Package render builds Kustomize trees with Kustomize's own library, in this
// process, and keeps for every object the file, line and column it came from.
//
// It reads files of one fs.FS and nothing else: no network, no programs. What
// would need them is a problem at the entry that asks for it.
package render

import (
	"cmp"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kustomize/api/konfig"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/api/resmap"
	"sigs.k8s.io/kustomize/api/types"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Tree is the files that kustomizations may refer to. A kustomization may go up
// and sideways in it, for its files and its bases, but never out of it.
type Tree struct {
	Files fs.FS
	// Name is what messages call the file at a path.
	Name func(path string) string
	// Parse returns the objects of the file at a path.
	Parse func(path string) ([]k8s.Document, error)
}

// Find returns the path of the file that makes dir a kustomization, or "".
func Find(fsys fs.FS, dir string) string {
	for _, name := range konfig.RecognizedKustomizationFileNames() {
		file := path.Join(dir, name)
		if info, err := fs.Stat(fsys, file); err == nil && !info.IsDir() {
			return file
		}
	}
	return ""
}

// Plan is a kustomization and all that it refers to, found without building it.
type Plan struct {
	// Component is set when the kustomization is only to be part of others.
	Component bool
	// Dirs are the kustomizations that this one is made of, itself not among
	// them, and Files the files they all read, their own included. Both are
	// sorted paths in the tree.
	Dirs, Files []string
	// Warnings are about files that are absent without harm.
	Warnings []policies.Warning

	tree Tree
	dir  string
	file string // the kustomization of dir
	own  bool   // it asks for origins by itself
	// contents are those of kustomizations, changed so as to tell origins and
	// not to be warned of.
	contents map[string][]byte
	// absent files are read as empty.
	absent map[string]bool
	// patchEntries are in the order in which the patches are applied.
	patchEntries []patchEntry
}

// Kustomize's openapi schema is one for the whole process.
var building sync.Mutex

// Build returns the objects that the kustomization stands for, in Kustomize's
// order. Every node has the place in the file that it came from, be it the object's
// own or a patch's. A value that a transformer put there stands where its field
// does and, where there is none, where the object begins; an object that was made
// has only a file.
func (p *Plan) Build() ([]k8s.Document, error) {
	objects, err := p.run()
	if err != nil {
		return nil, policies.Problem{Place: policies.Place{File: p.tree.Name(p.file)}, Message: "kustomize: " + p.explain(err)}
	}
	patches := p.patches()
	var documents []k8s.Document
	for _, object := range objects.Resources() {
		node := bare(object.YNode())
		file, made := p.origin(node)
		var written *yaml.Node
		if !made {
			sources, err := p.tree.Parse(file)
			if err != nil {
				return nil, err
			}
			written = source(node, sources)
		}
		var brought []origin
		for _, patch := range patches {
			brought = append(brought, patch.origins(node, written)...)
		}
		elsewhere := graft(node, origin{file, cmp.Or(written, &yaml.Node{})}, brought)
		for at, file := range elsewhere {
			elsewhere[at] = p.tree.Name(file)
		}
		documents = append(documents, k8s.Document{File: p.tree.Name(file), Node: node, Elsewhere: elsewhere})
	}
	return documents, nil
}

func (p *Plan) run() (objects resmap.ResMap, err error) {
	building.Lock()
	defer building.Unlock()
	// A panic there would be caused by input that nobody here controls.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v", r)
		}
	}()
	options := krusty.MakeDefaultOptions()
	// The tree is the boundary; overlays commonly share files beside them.
	options.LoadRestrictions = types.LoadRestrictionsNone
	return krusty.MakeKustomizer(options).Run(files{p}, "/"+p.dir)
}

// explain puts Kustomize's error on one line, with the names of folders as people
// know them.
func (p *Plan) explain(err error) string {
	var names []string
	for _, dir := range append(p.Dirs, p.dir) {
		names = append(names, "'/"+dir+"'", p.tree.Name(dir))
	}
	return strings.NewReplacer(names...).Replace(strings.Join(strings.Fields(err.Error()), " "))
}

const originAnnotation = "config.kubernetes.io/origin"

// origin takes the origin out of the object's annotations, unless the
// kustomization itself asks for it. It returns the path of the object's file and
// whether the object was made by that file, not written in it.
func (p *Plan) origin(object *yaml.Node) (file string, made bool) {
	var origin struct {
		Path         string
		ConfiguredIn string `yaml:"configuredIn"`
	}
	metadata := child(object, "metadata")
	annotations := child(metadata, "annotations")
	if text := child(annotations, originAnnotation); text != nil {
		_ = yaml.Unmarshal([]byte(text.Value), &origin)
	}
	if !p.own {
		remove(annotations, originAnnotation)
		if annotations != nil && len(annotations.Content) == 0 {
			remove(metadata, "annotations")
		}
	}
	if origin.Path != "" {
		return path.Join(p.dir, origin.Path), false
	}
	return path.Join(p.dir, origin.ConfiguredIn), true
}

func (p *Plan) read(file string) ([]byte, error) {
	if p.absent[file] {
		return nil, nil
	}
	if content, ok := p.contents[file]; ok {
		return content, nil
	}
	return fs.ReadFile(p.tree.Files, file)
}
