// Package folder holds the world that a folder of manifests describes, and sees it
// change. It reads what package source reads of plain files, and no more: no
// repositories, no kustomizations.
//
// Files that did not change are not read again. A change counts as a whole or not at
// all: while any file has a problem, the world stays what it was.
package folder

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// World is what a folder says.
type World struct {
	Model *policies.Model
	// Own are the objects of Weir's own kinds, in the order of the files.
	Own []k8s.Document
	// Files is how many manifests there are.
	Files int
}

// Folder is a folder, or one file, of manifests. It serves one goroutine.
type Folder struct {
	path    string
	options k8s.Options
	files   map[string]*file // as last read, with or without problems
	held    map[string]*file // those that the store has
	store   *k8s.Store
	world   *World
	folders []string          // that were walked through, and others in which something may turn up
	watched map[string]uint64 // by name, the inodes of those that are watched
	seldom  time.Duration
}

// file is what one file said at some moment.
type file struct {
	stamp    stamp
	entries  []*k8s.Entry
	own      []k8s.Document
	problems []error
}

// stamp changes when a file does.
type stamp struct {
	size, time int64
	inode      uint64
}

func inodeOf(info fs.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}

// New returns the folder at a path. Nothing is read yet.
func New(path string, o k8s.Options) *Folder {
	return &Folder{path: path, options: o, files: map[string]*file{}, held: map[string]*file{}, store: k8s.NewStore(o), watched: map[string]uint64{}, seldom: seldom}
}

// Read returns what the folder says now; the same pointer where that is what it said
// before. The error joins all problems of all files, each with its place; the world is
// then what it was before, nil where it never was anything.
func (f *Folder) Read() (*World, error) {
	names, err := f.walk()
	if err != nil {
		return f.world, err
	}
	changed := f.world == nil
	next := make(map[string]*file, len(names))
	for _, name := range names {
		last := f.files[name]
		read, err := f.read(name, last)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it went since
		}
		if err != nil {
			read = &file{problems: []error{policies.Problem{Place: policies.Place{File: name}, Message: reason(err)}}}
		}
		changed = changed || read != f.held[name]
		next[name] = read
	}
	changed = changed || len(next) != len(f.held)
	f.files = next
	if err := f.problems(next); err != nil {
		return f.world, err
	}
	if changed {
		f.take(next)
	}
	return f.world, nil
}

// walk returns the names of all files that count.
func (f *Folder) walk() (names []string, err error) {
	f.folders = nil
	info, err := os.Stat(f.path)
	if err != nil || !info.IsDir() {
		f.folders = []string{filepath.Dir(f.path)} // where it may be put
		return []string{f.path}, err
	}
	if link, err := os.Lstat(f.path); err == nil && !link.Mode().IsDir() {
		f.folders = []string{filepath.Dir(f.path)} // where it may be led elsewhere
	}
	// A path that leads elsewhere by a link is walked through where it leads.
	root := f.path + string(filepath.Separator)
	err = filepath.WalkDir(root, func(name string, entry fs.DirEntry, err error) error {
		name = filepath.Clean(name)
		switch {
		case err != nil && name != filepath.Clean(f.path):
			return nil // it went since
		case err != nil:
			return err
		case name != filepath.Clean(f.path) && strings.HasPrefix(entry.Name(), "."):
			if entry.IsDir() {
				return fs.SkipDir
			}
		case entry.IsDir():
			f.folders = append(f.folders, name)
		case isManifest(name):
			names = append(names, name)
		}
		return nil
	})
	return names, err
}

func isManifest(name string) bool {
	return slices.Contains([]string{".yaml", ".yml", ".json"}, strings.ToLower(filepath.Ext(name)))
}

// read returns what a file says, which is last where it did not change.
func (f *Folder) read(name string, last *file) (*file, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	now := stamp{size: info.Size(), time: info.ModTime().UnixNano(), inode: inodeOf(info)}
	if last != nil && last.stamp == now {
		return last, nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	read := &file{stamp: now}
	if len(text) == 0 && f.held[name] != nil && len(f.held[name].entries) > 0 {
		read.problem(policies.Place{File: name}, "it is empty, as files are while they are written; to take away what it said, remove it")
		return read, nil
	}
	documents, err := k8s.Parse(name, text)
	if err != nil {
		read.problems = append(read.problems, err)
	}
	for _, d := range documents {
		read.document(d, f.options)
	}
	return read, nil
}

func (r *file) problem(at policies.Place, message string) {
	r.problems = append(r.problems, policies.Problem{Place: at, Message: message})
}

// document reads an object, or the objects of a list.
func (r *file) document(d k8s.Document, o k8s.Options) {
	var head struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Namespace string }
		Items      []yaml.Node
	}
	_ = d.Node.Decode(&head) // what is wrong in it, ReadEntry says
	place := policies.Place{File: d.File, Line: d.Node.Line, Column: d.Node.Column}
	group, _, _ := strings.Cut(head.APIVersion, "/")
	base := filepath.Base(d.File)
	switch {
	case group == "kustomize.config.k8s.io" || strings.TrimSuffix(base, filepath.Ext(base)) == "kustomization":
		r.problem(place, "kustomizations are not built here; put the output of kustomize build in its place")
	case head.Kind == "":
	case strings.HasSuffix(head.Kind, "List") && head.Items != nil:
		for i := range head.Items {
			r.document(k8s.Document{File: d.File, Node: &head.Items[i]}, o)
		}
	case group == v1alpha1.Group:
		r.own = append(r.own, d)
	default:
		e, err := k8s.ReadEntry(d, o)
		if err != nil {
			r.problems = append(r.problems, err)
			return
		}
		for _, p := range e.Problems() {
			r.problems = append(r.problems, p)
		}
		if k8s.Heeds(head.APIVersion, head.Kind, e.Key().Namespace != "") {
			r.entries = append(r.entries, e)
		}
	}
}

// problems joins those of all files, with those that files have together.
func (f *Folder) problems(files map[string]*file) error {
	var all []error
	at := map[k8s.Key]string{}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		all = append(all, files[name].problems...)
		for _, e := range files[name].entries {
			if first, given := at[e.Key()]; given {
				ref := e.Key().Ref()
				all = append(all, policies.Problem{
					Place:   policies.Place{File: name},
					Message: fmt.Sprintf("%s %s is given twice, first in %s; remove one", ref.What(), ref, first),
				})
			}
			at[e.Key()] = name
		}
	}
	return errors.Join(all...)
}

// take makes the store hold what the files say.
func (f *Folder) take(files map[string]*file) {
	wanted := map[k8s.Key]bool{}
	var own []k8s.Document
	for _, name := range slices.Sorted(maps.Keys(files)) {
		own = append(own, files[name].own...)
		if files[name] == f.held[name] {
			continue
		}
		for _, e := range files[name].entries {
			wanted[e.Key()] = true
			f.store.Put(e)
		}
	}
	for name, old := range f.held {
		if files[name] == old {
			continue
		}
		for _, e := range old.entries {
			if !wanted[e.Key()] {
				f.store.Delete(e.Key())
			}
		}
	}
	f.held = files
	m, _ := f.store.Model()
	f.world = &World{m, own, len(files)}
}

// reason is what an error says besides the path, which its place names.
func reason(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err.Error()
	}
	return err.Error()
}
