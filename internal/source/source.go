// Package source reads worlds and policies from where people keep them: files
// and folders, revisions of a Git repository, Kustomize trees, standard input.
//
// A source is one of
//
//	a folder     its .yaml, .yml and .json files at any depth, or what its
//	             kustomization builds
//	a file       YAML or JSON, many documents
//	git:REV      the repository's files at a revision
//	git:REV:PATH one folder or file of them
//	cluster      the live cluster that a kubeconfig names
//	-            standard input
//
// Of one object there is to be one. But what the cluster has gives way to what another
// source says of it, as if that were applied.
package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/repo"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/rego"
)

// Loader reads sources. The zero Loader is ready. It remembers what it has read
// of Git, so that what two revisions share is read once; it serves one goroutine.
type Loader struct {
	RepoDir string    // a folder of the repository that git: sources mean; "" is the current one
	Stdin   io.Reader // what "-" reads; nil is empty
	Options k8s.Options
	Cluster cluster.Options // how "cluster" is read
	// Without names objects that are left out, as if they were deleted, with what a
	// Namespace holds: KIND[.GROUP]/NAMESPACE/NAME, or KIND/NAME.
	Without []string

	parsed memory[parsed]
	built  memory[parsed]
}

// Load reads all sources together as one world. The error joins every problem of
// every file, in the order of their places. A source without any Kubernetes
// object is an error, too.
func (l *Loader) Load(ctx context.Context, sources ...string) (*policies.Model, error) {
	r := l.gather(ctx, sources)
	defer r.close()
	return r.world(sources)
}

// LoadTests reads the ConnectivityTests of all sources, and the world that the
// same files describe.
func (l *Loader) LoadTests(ctx context.Context, sources ...string) (*policies.Model, []conntest.Suite, error) {
	r := l.gather(ctx, sources)
	defer r.close()
	suites, err := k8s.ReadTests(r.documents)
	m, errWorld := r.world(sources)
	if err := join(err, errWorld); err != nil {
		return nil, nil, err
	}
	return m, suites, nil
}

// Tests reads the ConnectivityTests of all sources; what else they hold is passed
// over.
func (l *Loader) Tests(ctx context.Context, sources ...string) ([]conntest.Suite, error) {
	r := l.gather(ctx, sources)
	defer r.close()
	suites, err := k8s.ReadTests(r.documents)
	if err := join(append(r.problems, err)...); err != nil {
		return nil, err
	}
	return suites, nil
}

// LoadInvariants reads the Invariants of all sources, and of others that may hold
// them elsewhere, and the world that the sources describe.
func (l *Loader) LoadInvariants(ctx context.Context, elsewhere []string, sources ...string) (*policies.Model, []invariant.Invariant, error) {
	r := l.gather(ctx, sources)
	defer r.close()
	own := r.documents
	r.gather(elsewhere)
	all, err := k8s.ReadInvariants(r.documents, rego.Program)
	r.documents = own
	m, errWorld := r.world(sources)
	if err := join(err, errWorld); err != nil {
		return nil, nil, err
	}
	return m, all, nil
}

// Convert reads all sources as Load does and converts the policies in them, as
// k8s.Convert does.
func (l *Loader) Convert(ctx context.Context, to k8s.Target, file string, wanted func(policies.Ref) bool, sources ...string) (*k8s.Conversion, error) {
	r := l.gather(ctx, sources)
	defer r.close()
	c, err := k8s.Convert(r.documents, l.Options, to, file, wanted)
	if err := join(append(r.problems, err)...); err != nil {
		return nil, err
	}
	r.warnOf(c.Before)
	return c, nil
}

// gather reads the documents of all sources.
func (l *Loader) gather(ctx context.Context, sources []string) *reading {
	r := &reading{ctx: ctx, loader: l, taken: map[string]bool{}, live: map[string]k8s.Key{}}
	r.gather(sources)
	r.overlay()
	r.leaveOut()
	return r
}

func (r *reading) gather(sources []string) {
	for _, source := range sources {
		documents, problems := len(r.documents), len(r.problems)
		r.repeated = false
		if err := r.source(source); err != nil {
			r.problems = append(r.problems, err)
		}
		if len(r.problems) == problems && !r.repeated && !slices.ContainsFunc(r.documents[documents:], isObject) {
			r.problems = append(r.problems, fmt.Errorf("no Kubernetes objects found in %s%s", source, r.hint()))
		}
	}
}

// world makes a model of what the sources hold, which must be something.
func (r *reading) world(sources []string) (*policies.Model, error) {
	m, err := r.model()
	if err != nil {
		return nil, err
	}
	if len(m.Namespaces)+len(m.Pods)+len(m.Policies)+len(m.Staged)+len(m.Services)+len(m.Nodes)+len(m.Sets)+len(m.Hosts) == 0 && len(sources) > 0 {
		return nil, fmt.Errorf("none of the objects in %s has a bearing on network policy; name a source with workloads or policies", strings.Join(sources, ", "))
	}
	return m, nil
}

// LoadTree reads the paths of a tree, such as repo.Tree gives, or all of it
// where no paths are given. Paths that are not in the tree are empty, and so may
// the whole be. Messages call the files by their paths in the tree.
func (l *Loader) LoadTree(ctx context.Context, fsys fs.FS, paths ...string) (*policies.Model, error) {
	r := &reading{ctx: ctx, loader: l, taken: map[string]bool{}}
	r.paths(r.tree("", fsys, func(name string) string { return name }), paths)
	return r.model()
}

// TreeInvariants is LoadTree with the Invariants there, and in other paths of the
// tree that may hold them elsewhere.
func (l *Loader) TreeInvariants(ctx context.Context, fsys fs.FS, elsewhere []string, paths ...string) (*policies.Model, []invariant.Invariant, error) {
	r := &reading{ctx: ctx, loader: l, taken: map[string]bool{}}
	t := r.tree("", fsys, func(name string) string { return name })
	r.paths(t, paths)
	own := r.documents
	if len(elsewhere) > 0 {
		r.paths(t, elsewhere)
	}
	all, err := k8s.ReadInvariants(r.documents, rego.Program)
	r.documents = own
	m, errModel := r.model()
	if err := join(err, errModel); err != nil {
		return nil, nil, err
	}
	return m, all, nil
}

// paths reads paths of a tree, or all of it where there are none.
func (r *reading) paths(t *tree, names []string) {
	if len(names) == 0 {
		names = []string{"."}
	}
	for _, name := range names {
		name = path.Clean(filepath.ToSlash(name))
		if err := r.path(t, name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.problems = append(r.problems, err)
		}
	}
}

func isObject(d k8s.Document) bool { return identify(d).Kind != "" }

// reading is one call of a Loader.
type reading struct {
	ctx       context.Context
	loader    *Loader
	repo      *repo.Repo
	documents []k8s.Document
	warnings  []policies.Warning
	problems  []error
	taken     map[string]bool    // files, by tree and path
	live      map[string]k8s.Key // objects of the cluster, by their files
	repeated  bool               // something was left out, for it was taken before
}

func (r *reading) close() {
	if r.repo != nil {
		_ = r.repo.Close() // it was only read
	}
}

// model makes a model of what was read, or an error of all problems.
func (r *reading) model() (*policies.Model, error) {
	m, err := k8s.Read(r.documents, r.loader.Options)
	if err := join(append(r.problems, err)...); err != nil {
		return nil, err
	}
	r.warnOf(m)
	return m, nil
}

// warnOf adds the warnings of the reading to those of its model.
func (r *reading) warnOf(m *policies.Model) {
	m.Warnings = append(m.Warnings, r.warnings...)
	slices.SortFunc(m.Warnings, func(a, b policies.Warning) int {
		return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Message, b.Message))
	})
	m.Warnings = slices.Compact(m.Warnings)
}

// join makes one error of all problems, each once and in the order of their
// places, those without a place first.
func join(problems ...error) error {
	var flat []error
	var flatten func(error)
	flatten = func(err error) {
		if joined, ok := err.(interface{ Unwrap() []error }); ok {
			for _, e := range joined.Unwrap() {
				flatten(e)
			}
		} else if err != nil {
			flat = append(flat, err)
		}
	}
	for _, err := range problems {
		flatten(err)
	}
	place := func(err error) policies.Place {
		var p policies.Problem
		errors.As(err, &p)
		return p.Place
	}
	slices.SortStableFunc(flat, func(a, b error) int { return place(a).Compare(place(b)) })
	return errors.Join(slices.CompactFunc(flat, func(a, b error) bool { return a.Error() == b.Error() })...)
}

// hint says what a source without objects may have meant.
func (r *reading) hint() string {
	var hints []string
	for _, w := range r.warnings {
		hints = append(hints, w.String())
	}
	if len(hints) == 0 {
		return "; .yaml, .yml and .json files are read, at any depth"
	}
	return "; " + strings.Join(hints, "; ")
}

func (r *reading) source(source string) error {
	switch rest, ok := strings.CutPrefix(source, "git:"); {
	case source == "":
		return errors.New("a source has an empty name; give a file, a folder, git:REV or -")
	case source == "-":
		return r.stdin()
	case source == Cluster:
		return r.cluster()
	case ok:
		return r.git(source, rest)
	}
	return r.disk(source)
}

func (r *reading) stdin() error {
	if r.loader.Stdin == nil {
		return nil
	}
	return r.stream("stdin", r.loader.Stdin)
}

// stream reads what can be read only once and has no size to ask for.
func (r *reading) stream(name string, from io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(from, k8s.MaxFileSize+1))
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	documents, err := k8s.Parse(name, data)
	r.documents = append(r.documents, documents...)
	return err
}

func (r *reading) git(source, rest string) error {
	rev, name, _ := strings.Cut(rest, ":")
	if r.repo == nil {
		opened, err := repo.Open(cmp.Or(r.loader.RepoDir, "."))
		if err != nil {
			return err
		}
		r.repo = opened
	}
	commit, err := r.repo.Resolve(rev)
	if err != nil {
		return err
	}
	name = path.Clean(strings.TrimPrefix(filepath.ToSlash(name), "/"))
	if !fs.ValidPath(name) {
		return fmt.Errorf("%s: the path leads out of the repository", source)
	}
	t := r.tree(commit.Hash, r.repo.Tree(commit), func(name string) string { return name })
	err = r.path(t, name)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: revision %s has no %s", source, rev, name)
	}
	return err
}

// disk reads a file or folder. Kustomizations in it may refer to any other file
// on the disk.
func (r *reading) disk(source string) error {
	info, err := os.Stat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: there is no such file or folder", source)
	}
	if err != nil {
		return err
	}
	if !info.IsDir() && !info.Mode().IsRegular() { // such as a shell's <(command)
		return r.pipe(source)
	}
	abs, err := filepath.Abs(source)
	if err != nil {
		return err
	}
	root := filepath.VolumeName(abs) + string(filepath.Separator)
	named := func(name string) string {
		relative, err := filepath.Rel(abs, filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return name
		}
		return filepath.ToSlash(filepath.Join(source, relative))
	}
	name, err := filepath.Rel(root, abs)
	if err != nil {
		return err
	}
	return r.path(r.tree("disk", os.DirFS(root), named), filepath.ToSlash(name))
}

func (r *reading) pipe(source string) error {
	f, err := os.Open(source)
	if err != nil {
		return err
	}
	err = r.stream(source, f)
	return errors.Join(err, f.Close())
}

// path reads one file or folder of a tree. The error is of the path itself;
// problems in files are gathered.
func (r *reading) path(t *tree, name string) error {
	info, err := fs.Stat(t.files, name)
	if err != nil {
		return err
	}
	if info.IsDir() {
		r.folder(t, name)
	} else {
		r.file(t, name)
	}
	return nil
}

func (r *reading) file(t *tree, name string) {
	if r.take(t, name) {
		documents, err := t.parse(name)
		if err != nil {
			r.problems = append(r.problems, err)
		}
		r.documents = append(r.documents, documents...)
	}
}

// take reports whether the file or kustomization is new to this reading, so that
// sources may overlap.
func (r *reading) take(t *tree, name string) bool { return r.once(t.id, name) }

func (r *reading) once(id, name string) bool {
	key := id + "\x00" + name
	if r.taken[key] {
		r.repeated = true
		return false
	}
	r.taken[key] = true
	return true
}
