package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/repo"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/simulator/flowlog"
)

func newPreview(s streams) *cobra.Command {
	in, out, flows := input{streams: s}, output{streams: s, kind: report.KindPreview}, flowFiles{}
	var change pullRequest
	failOn := failures{known: preview.Conditions}
	c := &cobra.Command{
		Use:   "preview",
		Short: "Report what a pull request does to connections and to recorded flows",
		Long: `Compare two revisions of a Git repository: which connections become possible or
impossible, which recorded flows would break or open, and by which line. Trees
are read from the object store; the work tree is not touched.

The base is the merge base of --base and --head, as forges compare; with
--exact-base it is --base itself. Where --base is not given it is main or
master, here or at the remote.`,
		Example: `  weir preview --path examples/shop/deploy --flows examples/shop/flows.jsonl.gz
  weir preview --path examples/shop/deploy --base main -o markdown=comment.md -o sarif=weir.sarif
  weir preview --path examples/shop/deploy --flows 'examples/shop/*.jsonl.gz' --fail-on breaks,opens`,
		Args: takes(0, 0, "preview takes no arguments; name revisions as in: weir preview --base main --head HEAD"),
		RunE: func(c *cobra.Command, _ []string) error {
			conditions, err := failOn.conditions()
			if err != nil {
				return err
			}
			if err := errors.Join(out.check(), readOnce(append(flows.patterns, change.world)...)); err != nil {
				return err
			}
			files, err := flows.files()
			if err != nil {
				return err
			}
			request := preview.Request{FailOn: conditions}
			if request.Options, err = in.options(); err != nil {
				return err
			}
			if err := change.load(c.Context(), &in, &request); err != nil {
				return err
			}
			if len(files) > 0 {
				request.Flows = func(ctx context.Context, each func(policies.Flow) error) (flowlog.Stats, error) {
					return flows.read(ctx, s, files, each)
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
	f := c.Flags()
	f.StringVar(&change.base, "base", "", "the `revision` to compare with (default: main or master)")
	f.StringVar(&change.head, "head", "HEAD", "the `revision` that changes it")
	f.BoolVar(&change.exact, "exact-base", false, "compare with --base itself rather than with the merge base")
	f.StringArrayVar(&change.paths, "path", nil, "read only this file or folder of each revision, a `path` from the top of the repository; repeatable")
	f.StringVar(&change.world, "world", "", "a `source` of the pods, namespaces and services that the policies meet (default: those of each revision)")
	failOn.addTo(c, "none")
	return c
}

// pullRequest is the flags by which a change is named.
type pullRequest struct {
	base, head string
	exact      bool
	paths      []string
	world      string
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
	if err := p.checkPaths(repository.Tree(base), repository.Tree(head)); err != nil {
		return err
	}
	var errBase, errHead, errWorld error
	if r.Base, errBase = loader.LoadTree(ctx, repository.Tree(base), p.paths...); errBase != nil {
		errBase = fmt.Errorf("at %s (%s):\n%w", r.BaseRevision.Name, base.Short(), errBase)
	}
	if r.Head, errHead = loader.LoadTree(ctx, repository.Tree(head), p.paths...); errHead != nil {
		errHead = fmt.Errorf("at %s (%s):\n%w", r.HeadRevision.Name, head.Short(), errHead)
	}
	var world *policies.Model
	if p.world != "" {
		world, errWorld = loader.Load(ctx, p.world)
	}
	if err := errors.Join(errBase, errHead, errWorld); err != nil {
		return err
	}
	if world != nil {
		r.Base, r.Head = k8s.WithWorldOf(r.Base, world), k8s.WithWorldOf(r.Head, world)
	}
	return nil
}

// checkPaths fails on paths that neither side of the change has.
func (p *pullRequest) checkPaths(base, head fs.FS) error {
	var errs []error
	for _, name := range p.paths {
		inTree := path.Clean(filepath.ToSlash(name))
		_, errBase := fs.Stat(base, inTree)
		_, errHead := fs.Stat(head, inTree)
		if errBase != nil && errHead != nil {
			errs = append(errs, fmt.Errorf("--path: there is no %s in either revision; paths begin at the top of the repository", name))
		}
	}
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
