package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/repo"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowlog"
)

func newPreview(s streams) *cobra.Command {
	in, out, flows := input{streams: s}, output{streams: s, kind: report.KindPreview}, flowFiles{}
	change := pullRequest{streams: s}
	span := replaySpan{choice{streams: s}}
	failOn := failures{known: preview.Conditions}
	var today string
	c := &cobra.Command{
		Use:   "preview",
		Short: "Report what a pull request does to connections and to recorded flows",
		Long: `Compare two revisions of a Git repository: which connections become possible or
impossible, which recorded flows would break or open, which declared invariants
fall, and by which line. Trees are read from the object store; the work tree is
not touched.

The invariants are those of --head, wherever they stand among its manifests or
where --invariants says; of those that only the base has it is told that they are
removed. --pack adds those of a policy pack to both sides; a folder or a bundle that
is in the repository is read from each revision. Unless --fail-on says otherwise,
the exit status is 1 when the change breaks one of severity deny, or declares one
that does not hold.

The base is the merge base of --base and --head, as forges compare; with
--exact-base it is --base itself. Where --base is not given it is main or
master, here or at the remote.

With --staged there is one side only, --head or what -f names, and the report is
of what would change if its staged policies were enforced: together, and with
--each one at a time too.`,
		Example: `  weir preview --path examples/shop/deploy --flows examples/shop/flows.jsonl.gz
  weir preview --path examples/shop/deploy --base main -o markdown=comment.md -o sarif=weir.sarif
  weir preview --path examples/shop/deploy --flows 'examples/shop/*.jsonl.gz' --fail-on breaks,opens
  weir preview --path examples/shop/deploy --pack baseline
  weir preview --staged --path examples/staged --each
  weir preview --staged -f examples/staged --flows examples/staged/flows.jsonl --only shop/db`,
		Args: takes(0, 0, "preview takes no arguments; name revisions as in: weir preview --base main --head HEAD"),
		RunE: func(c *cobra.Command, _ []string) error {
			conditions, err := failOn.conditions()
			if err != nil {
				return err
			}
			if err := errors.Join(change.check(c, &in), out.check(), readOnce(slices.Concat(flows.patterns, in.files, []string{change.world})...)); err != nil {
				return err
			}
			recorded, leftOut, err := span.store(c.Context(), &flows)
			if err != nil {
				return err
			}
			var files []string
			if recorded == nil {
				if files, err = flows.files(); err != nil {
					return err
				}
			}
			room := newScratches(c.Context().Err)
			defer room.close()
			request := preview.Request{FailOn: conditions, Recorded: recorded, LeftOut: leftOut, Scratch: room.open}
			if request.Declared.Now, err = moment(today); err != nil {
				return err
			}
			if request.Options, err = in.options(); err != nil {
				return err
			}
			load := change.load
			if change.staged.on {
				load = change.loadStaged
			}
			if err := load(c.Context(), &in, &request); err != nil {
				return err
			}
			isOfPack := func(i invariant.Invariant) bool { return i.Pack != "" }
			found := slices.DeleteFunc(slices.Concat(request.Declared.Base, request.Declared.Head), isOfPack)
			if len(found) == 0 && len(change.invariants) > 0 {
				return noneFound(change.invariants)
			}
			if len(flows.patterns) > 0 && request.Declared.AskFlows() {
				if readsStdin(flows.patterns) {
					return errors.New("--flows: an invariant asks for recorded flows, so they are read twice, and standard input cannot be; give them as a file")
				}
				if request.Declared.Flows, err = span.tally(c.Context(), &flows); err != nil {
					return err
				}
			}
			if len(files) > 0 {
				request.Flows = func(ctx context.Context, to *simulator.Replayers) (flowlog.Stats, error) {
					return span.read(ctx, &flows, s, files, to)
				}
			}
			result, err := preview.Run(c.Context(), request)
			if err != nil {
				return err
			}
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WritePreview(w, f, result, style)
			})
			if err == nil && len(result.Failed) > 0 {
				err = errNo
			}
			return err
		},
	}
	in.addTo(c)
	out.addTo(c)
	flows.addTo(c)
	span.addTo(c)
	change.staged.addTo(c)
	f := c.Flags()
	f.StringArrayVarP(&in.files, "filename", "f", nil, "with --staged: a `source` of manifests to read rather than --head; repeatable")
	f.StringVar(&change.base, "base", "", "the `revision` to compare with (default: main or master)")
	f.StringVar(&change.head, "head", "HEAD", "the `revision` that changes it")
	f.BoolVar(&change.exact, "exact-base", false, "compare with --base itself rather than with the merge base")
	f.StringArrayVar(&change.paths, "path", nil, "read only this file or folder of each revision, a `path` from the top of the repository; repeatable")
	f.StringVar(&change.world, "world", "", "a `source` of the pods, namespaces and services that the policies meet (default: those of each revision)")
	f.StringArrayVar(&change.invariants, "invariants", nil, "a file or folder of each revision that holds more Invariants, a `path` from the top of the repository; with -f, a source; repeatable")
	f.StringVar(&today, "today", "", "the `day`, as 2027-01-31, on which waivers are or are not expired (default: today)")
	change.packs.addTo(c, "a policy `pack` of more invariants: its name, a folder or a bundle of OPA, a path from the top of the repository where it is in there; repeatable")
	failOn.addTo(c, string(preview.Invariants))
	return c
}

// pullRequest is the flags by which a change is named.
type pullRequest struct {
	base, head string
	exact      bool
	paths      []string
	world      string
	streams    streams
	invariants []string // more paths, or sources where -f names some
	packs      packFlags
	staged     staging
}

// check fails on flags that contradict one another.
func (p *pullRequest) check(c *cobra.Command, in *input) error {
	given := func(flags ...string) bool { return slices.ContainsFunc(flags, c.Flags().Changed) }
	errs := []error{p.staged.check()}
	if p.staged.on && given("base", "exact-base") {
		errs = append(errs, errors.New("--staged compares --head with itself, so it takes no --base; to compare two revisions, leave out --staged"))
	}
	if len(in.files) > 0 && !p.staged.on {
		errs = append(errs, errors.New("-f is for --staged; name what to compare by --base and --head, or compare sources with weir diff"))
	}
	if len(in.files) > 0 && p.staged.on && given("head", "path") {
		errs = append(errs, errors.New("-f is read rather than --head and --path; give either"))
	}
	return errors.Join(errs...)
}

// load reads both sides of the change into the request.
func (p *pullRequest) load(ctx context.Context, in *input, r *preview.Request) error {
	repository, err := repo.Open(in.repo)
	if err != nil {
		return err
	}
	defer repository.Close()
	base, head, err := p.resolve(repository, r)
	if err != nil {
		return err
	}
	loader, err := in.loader()
	if err != nil {
		return err
	}
	sides := []fs.FS{repository.Tree(base), repository.Tree(head)}
	if err := p.checkPaths(sides...); err != nil {
		return err
	}
	packs, err := p.packsElsewhere(ctx, sides...)
	if err != nil {
		return err
	}
	var errBase, errHead error
	if r.Base, r.Declared.Base, errBase = p.loadSide(ctx, loader, sides[0], packs); errBase != nil {
		errBase = fmt.Errorf("at %s (%s):\n%w", r.BaseRevision.Name, base.Short(), errBase)
	}
	if r.Head, r.Declared.Head, errHead = p.loadSide(ctx, loader, sides[1], packs); errHead != nil {
		errHead = fmt.Errorf("at %s (%s):\n%w", r.HeadRevision.Name, head.Short(), errHead)
	}
	world, errWorld := p.loadWorld(ctx, loader)
	if err := errors.Join(errBase, errHead, errWorld); err != nil {
		return err
	}
	if world != nil {
		r.Base, r.Head = k8s.WithWorldOf(r.Base, world), k8s.WithWorldOf(r.Head, world)
	}
	return nil
}

// loadSide reads one side of a change and its invariants, with those of the packs that it has
// and of others.
func (p *pullRequest) loadSide(ctx context.Context, loader *source.Loader, side fs.FS, packs []*source.Pack) (*policies.Model, []invariant.Invariant, error) {
	m, all, err := loader.TreeInvariants(ctx, side, p.invariants, p.paths...)
	v, errKey := p.packs.verification()
	errs := []error{err, errKey}
	for _, name := range p.packs.names {
		if source.InTree(side, name) {
			pack, err := source.TreePack(ctx, v, side, name)
			packs, errs = append(packs[:len(packs):len(packs)], pack), append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, nil, err
	}
	all, err = source.WithPacks(all, packs...)
	return m, all, err
}

// packsElsewhere reads the packs that no side of the change has.
func (p *pullRequest) packsElsewhere(ctx context.Context, sides ...fs.FS) ([]*source.Pack, error) {
	return p.packs.read(ctx, p.streams, slices.DeleteFunc(slices.Clone(p.packs.names), func(name string) bool {
		return slices.ContainsFunc(sides, func(side fs.FS) bool { return source.InTree(side, name) })
	})...)
}

// loadStaged reads one side, and makes the other of its staged policies.
func (p *pullRequest) loadStaged(ctx context.Context, in *input, r *preview.Request) error {
	loader, err := in.loader()
	if err != nil {
		return err
	}
	if len(in.files) > 0 {
		r.BaseRevision.Name = strings.Join(in.files, ", ")
		r.Base, r.Declared.Head, err = p.loadFiles(ctx, loader, in.files)
	} else {
		r.Base, r.Declared.Head, err = p.loadHead(ctx, in.repo, loader, &r.BaseRevision)
	}
	r.Declared.Base = r.Declared.Head
	world, errWorld := p.loadWorld(ctx, loader)
	if err := errors.Join(err, errWorld); err != nil {
		return err
	}
	if world != nil {
		r.Base = k8s.WithWorldOf(r.Base, world)
	}
	e, err := p.staged.enforce(r.Base)
	r.HeadRevision, r.Head, r.Staged, r.Each = r.BaseRevision, e.head, e.staged, e.each
	return err
}

// loadFiles reads sources, and the invariants there.
func (p *pullRequest) loadFiles(ctx context.Context, loader *source.Loader, files []string) (*policies.Model, []invariant.Invariant, error) {
	m, all, err := loader.LoadInvariants(ctx, p.invariants, files...)
	packs, errPacks := p.packsElsewhere(ctx)
	if err := errors.Join(err, errPacks); err != nil {
		return nil, nil, err
	}
	all, err = source.WithPacks(all, packs...)
	return m, all, err
}

func (p *pullRequest) loadHead(ctx context.Context, dir string, loader *source.Loader, revision *report.Revision) (*policies.Model, []invariant.Invariant, error) {
	repository, err := repo.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	defer repository.Close()
	head, err := repository.Resolve(p.head)
	if err != nil {
		return nil, nil, err
	}
	*revision = report.Revision{Name: p.head, Commit: head.Hash}
	tree := repository.Tree(head)
	if err := p.checkPaths(tree); err != nil {
		return nil, nil, err
	}
	packs, err := p.packsElsewhere(ctx, tree)
	if err != nil {
		return nil, nil, err
	}
	m, all, err := p.loadSide(ctx, loader, tree, packs)
	if err != nil {
		return nil, nil, fmt.Errorf("at %s (%s):\n%w", p.head, head.Short(), err)
	}
	return m, all, nil
}

// loadWorld reads the world that --world names; nil where it names none.
func (p *pullRequest) loadWorld(ctx context.Context, loader *source.Loader) (*policies.Model, error) {
	if p.world == "" {
		return nil, nil
	}
	return loader.Load(ctx, p.world)
}

// checkPaths fails on paths that no side of the change has.
func (p *pullRequest) checkPaths(sides ...fs.FS) error {
	where := "either revision"
	if len(sides) == 1 {
		where = "the revision"
	}
	var errs []error
	check := func(flag string, names []string) {
		for _, name := range names {
			inTree := path.Clean(filepath.ToSlash(name))
			if !slices.ContainsFunc(sides, func(side fs.FS) bool { _, err := fs.Stat(side, inTree); return err == nil }) {
				errs = append(errs, fmt.Errorf("--%s: there is no %s in %s; paths begin at the top of the repository", flag, name, where))
			}
		}
	}
	check("path", p.paths)
	check("invariants", p.invariants)
	return errors.Join(errs...)
}

// resolve finds the commits to compare.
func (p *pullRequest) resolve(repository *repo.Repo, r *preview.Request) (base, head repo.Commit, err error) {
	name := p.base
	if name == "" {
		if name, err = defaultBase(repository); err != nil {
			return base, head, err
		}
	}
	base, errBase := repository.Resolve(name)
	head, errHead := repository.Resolve(p.head)
	if err := errors.Join(errBase, errHead); err != nil {
		return base, head, err
	}
	if !p.exact {
		if base, err = repository.MergeBase(base, head); err != nil {
			return base, head, fmt.Errorf("%w; or compare with %s itself by --exact-base", err, name)
		}
	}
	r.BaseRevision = report.Revision{Name: name, Commit: base.Hash}
	r.HeadRevision = report.Revision{Name: p.head, Commit: head.Hash}
	return base, head, nil
}

func defaultBase(repository *repo.Repo) (string, error) {
	for _, name := range []string{"main", "master"} {
		if _, err := repository.Resolve(name); err == nil {
			return name, nil
		}
	}
	err := errors.New("there is no branch main or master to compare with; name one with --base")
	if repository.IsShallow() {
		err = fmt.Errorf("%w; this is a shallow clone: %s", err, repo.Unshallow)
	}
	return "", err
}
