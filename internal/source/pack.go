package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/bundle"
	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/library"
	"github.com/weir-policy/weir/policies/rego"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Pack is what a policy pack holds: Invariants, modules of Rego, of which some
// are policies and some their tests, and data for those.
type Pack struct {
	Name       string
	Invariants []invariant.Invariant // those in Rego among them
	Modules    []rego.Module         // without the tests
	Tests      []rego.Module
	Worlds     []PackTest // the tests that are no Rego
	Data       map[string]any
	Unverified bool // it is a bundle with a signature that was not looked at
}

// Verification says by which key bundles must be signed; nil is for any, or none.
type Verification = bundle.VerificationConfig

// mostOfBundle is how large a file of a bundle may be, in bytes.
const mostOfBundle = k8s.MaxFileSize

// ReadPack reads a pack: one that ships with Weir, by its name; a folder of
// Invariants as YAML and of Rego; or a bundle of OPA, a .tar.gz file. Of Rego every
// package that has a rule deny or violation is an invariant, which its metadata
// describe. The error joins every problem of every file. Where bundles must be signed,
// only those are read, and packs that ship with Weir.
func ReadPack(ctx context.Context, v *Verification, name string) (*Pack, error) {
	if library.Has(name) {
		return readPack(ctx, nil, name, library.Files, name, "library/")
	}
	info, err := os.Stat(name)
	switch {
	case err != nil && strings.ContainsAny(name, "/.\\"):
		return nil, fmt.Errorf("%s: there is no such folder or bundle", name)
	case err != nil:
		return nil, noPack(name)
	case info.IsDir():
		dir := filepath.Clean(name)
		return readPack(ctx, v, name, os.DirFS(dir), ".", filepath.ToSlash(dir)+"/")
	}
	dir, file := filepath.Split(name)
	return readPack(ctx, v, name, os.DirFS(cmp.Or(dir, ".")), file, dir)
}

// InTree reports whether a pack's name means a folder or a bundle that is in a tree.
func InTree(fsys fs.FS, name string) bool {
	if library.Has(name) {
		return false
	}
	_, err := fs.Stat(fsys, inTree(name))
	return err == nil
}

func inTree(name string) string { return path.Clean(filepath.ToSlash(name)) }

// TreePack reads a pack as ReadPack does that is a folder or a bundle in a tree.
// Messages call its files by their paths there.
func TreePack(ctx context.Context, v *Verification, fsys fs.FS, name string) (*Pack, error) {
	return readPack(ctx, v, name, fsys, inTree(name), "")
}

// readPack reads the pack of a name from where it is in some files, which messages
// call by a prefix.
func readPack(ctx context.Context, v *Verification, name string, fsys fs.FS, at, prefix string) (*Pack, error) {
	p := &packing{Pack: Pack{Name: name, Data: map[string]any{}}, ctx: ctx}
	info, err := fs.Stat(fsys, at)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir() && v != nil:
		return nil, fmt.Errorf("%s: a folder has no signature to verify; name a signed bundle, or leave out --verification-key", name)
	case info.IsDir():
		p.folder(fsys, at, prefix)
	case strings.HasSuffix(at, ".tar.gz") || strings.HasSuffix(at, ".tgz"):
		p.bundle(v, fsys, at, prefix+at)
	default:
		return nil, fmt.Errorf("%s: a pack is a folder, a bundle of OPA (.tar.gz), or one of %s", name, strings.Join(packNames(), ", "))
	}
	p.read()
	if err := join(p.problems...); err != nil {
		return nil, err
	}
	if len(p.Invariants)+len(p.Tests) == 0 {
		return nil, fmt.Errorf("%s: there is no Invariant in it, and no package of Rego with a rule deny or violation", name)
	}
	return &p.Pack, nil
}

func packNames() []string {
	var names []string
	for _, p := range library.Packs {
		names = append(names, p.Name)
	}
	return names
}

func noPack(name string) error {
	return fmt.Errorf("there is no pack %q%s; weir packs lists them, and a folder is written as ./%s", name, policies.Near(name, packNames()), name)
}

// packing is the reading of one pack.
type packing struct {
	Pack
	ctx       context.Context
	documents []k8s.Document
	problems  []error
}

func (p *packing) fail(err error) { p.problems = append(p.problems, err) }

// folder takes the files of a folder, which messages call by a prefix.
func (p *packing) folder(fsys fs.FS, root, prefix string) {
	err := fs.WalkDir(fsys, root, func(name string, entry fs.DirEntry, err error) error {
		if err := errors.Join(err, p.ctx.Err()); err != nil {
			return err
		}
		if name != root && strings.HasPrefix(entry.Name(), ".") {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !entry.IsDir() && (isManifest(name) || path.Ext(name) == ".rego") {
			p.file(careful{fsys}, name, prefix+name, path.Dir(name) == root)
		}
		return nil
	})
	if err != nil {
		p.fail(err)
	}
}

func (p *packing) file(files careful, name, called string, top bool) {
	data, err := files.ReadFile(name)
	if err != nil {
		p.fail(policies.Problem{Place: policies.Place{File: called}, Message: reason(err)})
		return
	}
	base := path.Base(name)
	switch isData := strings.TrimSuffix(base, path.Ext(base)) == "data"; {
	case path.Ext(name) == ".rego":
		p.module(called, string(data))
	case isData && top:
		var values map[string]any
		if err := yaml.Unmarshal(data, &values); err != nil {
			p.fail(policies.Problem{Place: policies.Place{File: called}, Message: "data for Rego is a mapping: " + err.Error()})
		}
		maps.Copy(p.Data, values)
	case isPackTest(name):
		tests, err := readPackTests(called, data)
		if err != nil {
			p.fail(err)
		}
		p.Worlds = append(p.Worlds, tests...)
	case isData:
		p.fail(policies.Problem{Place: policies.Place{File: called}, Message: "data for Rego stands at the top of a pack; move it there, under the names of this folder"})
	default:
		documents, err := k8s.Parse(called, data)
		if err != nil {
			p.fail(err)
		}
		if at := slices.IndexFunc(documents, func(d k8s.Document) bool { return identify(d).Kind == v1alpha1.KindInvariantTest }); at >= 0 {
			n := documents[at].Node
			p.fail(policies.Problem{Place: policies.Place{File: called, Line: n.Line, Column: n.Column}, Message: "an InvariantTest stands with its world in a file whose name ends in _test" + path.Ext(name)})
		}
		p.documents = append(p.documents, documents...)
	}
}

func (p *packing) module(file, text string) {
	m := rego.Module{File: file, Text: text}
	if strings.HasSuffix(file, "_test.rego") {
		p.Tests = append(p.Tests, m)
	} else {
		p.Modules = append(p.Modules, m)
	}
}

// bundle takes the modules and the data of a bundle, which messages call by a name.
func (p *packing) bundle(v *Verification, fsys fs.FS, at, name string) {
	read := func(skip bool) (bundle.Bundle, error) {
		file, err := fsys.Open(at)
		if err != nil {
			return bundle.Bundle{}, err
		}
		defer file.Close()
		return bundle.NewReader(file).WithBundleVerificationConfig(v).WithSkipBundleVerification(skip).WithSizeLimitBytes(mostOfBundle).Read()
	}
	b, err := read(false)
	if err != nil && v == nil { // without a key OPA reads none that is signed
		b, err = read(true)
		p.Unverified = err == nil
	}
	switch {
	case err != nil && v != nil:
		p.fail(fmt.Errorf("%s: it cannot be read as a bundle of OPA that is signed by the key: %w", name, err))
		return
	case err != nil:
		p.fail(fmt.Errorf("%s: it is no bundle of OPA that can be read: %w", name, err))
		return
	}
	p.Data = b.Data
	for _, m := range b.Modules {
		p.module(name+":"+strings.TrimPrefix(m.Path, "/"), string(m.Raw))
	}
}

// read makes Invariants of what was taken.
func (p *packing) read() {
	all, err := k8s.ReadInvariants(p.documents, rego.Program)
	if err != nil {
		p.fail(err)
	}
	found, err := rego.CompileAll(p.Modules, p.Data)
	if err != nil {
		p.fail(err)
		return
	}
	for _, policy := range found {
		i, err := invariantOf(policy)
		if err != nil {
			p.fail(err)
		}
		if other := invariant.Named(all, i.Ref.Name); other != nil {
			p.fail(policies.Problem{Place: i.Place, Message: fmt.Sprintf("package %s is the invariant %s, and so is %s; rename one", policy.Package, i.Ref.Name, other.Place)})
		}
		all = append(all, i)
	}
	for k := range all {
		all[k].Pack = p.Name
	}
	p.Invariants = all
}

// invariantOf makes an invariant of a package of Rego: shop.open_databases is
// shop-open-databases.
func invariantOf(p *rego.Policy) (invariant.Invariant, error) {
	i := invariant.Invariant{
		Ref: policies.Ref{Kind: v1alpha1.KindInvariant, Name: strings.NewReplacer(".", "-", "_", "-").Replace(p.Package)}, Description: p.Metadata.Title,
		Links: p.Metadata.Links, Form: invariant.Rego, Rego: p, Place: p.Place, FormPlace: p.Place,
	}
	for _, key := range slices.Sorted(maps.Keys(p.Metadata.Custom)) {
		text, ok := p.Metadata.Custom[key].(string)
		var err error
		switch key {
		case "owner":
			i.Owner = text
		case "severity":
			i.Severity, err = invariant.ParseSeverity(text)
		default:
			continue
		}
		if !ok {
			err = fmt.Errorf("%s is no text", key)
		}
		if err != nil {
			return i, policies.Problem{Place: p.Place, Message: "metadata, custom: " + err.Error()}
		}
	}
	return i, nil
}

// ReadPacks reads packs as ReadPack does, and reports every problem of each.
func ReadPacks(ctx context.Context, v *Verification, names ...string) ([]*Pack, error) {
	var all []*Pack
	var problems []error
	for _, name := range names {
		p, err := ReadPack(ctx, v, name)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		all = append(all, p)
	}
	return all, join(problems...)
}

// WithPacks adds the invariants of packs to others. One that others declare by its
// name takes its place.
func WithPacks(declared []invariant.Invariant, packs ...*Pack) ([]invariant.Invariant, error) {
	all := slices.Clone(declared)
	var problems []error
	for _, p := range packs {
		for _, i := range p.Invariants {
			switch other := invariant.Named(all, i.Ref.Name); {
			case other == nil:
				all = append(all, i)
			case invariant.Named(declared, i.Ref.Name) == nil:
				problems = append(problems, policies.Problem{Place: i.Place, Message: fmt.Sprintf("invariant %s is in another pack, too, at %s; leave one of them out", i.Ref.Name, other.Place)})
			}
		}
	}
	return all, join(problems...)
}
