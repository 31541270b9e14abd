package main

import (
	"context"
	"errors"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/reach"
)

func newDiff(s streams) *cobra.Command {
	in, out, staged := input{streams: s}, output{streams: s, kind: report.KindChange}, staging{}
	failOn := failures{known: []preview.Condition{preview.Adds, preview.Removes, preview.Unknowns}}
	c := &cobra.Command{
		Use:   "diff BASE HEAD",
		Short: "Say what two sets of policies decide differently",
		Long: `Say which connections one source allows and the other does not. The exit status
is 0 when both decide everything alike and 1 when they differ, as with diff(1);
--fail-on chooses which differences count.

With --staged it takes one source, and says what would be decided differently if
its staged policies were enforced: each in place of the policy of its name, or
without that one where its stagedAction is Delete. They are taken together, and
with --each one at a time too; a difference of either kind counts.`,
		Example: `  weir diff git:main:examples/shop/deploy examples/shop/deploy
  weir diff git:main:examples/shop/deploy git:HEAD:examples/shop/deploy --fail-on adds
  weir diff git:main:examples/shop/deploy examples/shop/deploy -o svg=change.svg
  weir diff --staged examples/staged --each`,
		Args: func(c *cobra.Command, args []string) error {
			if staged.on {
				return takes(1, 1, "diff --staged takes one source, as in: weir diff --staged deploy")(c, args)
			}
			return takes(2, 2, "diff takes two sources, as in: weir diff git:main git:HEAD")(c, args)
		},
		RunE: func(c *cobra.Command, args []string) error {
			conditions, err := failOn.conditions()
			if err != nil {
				return err
			}
			if err := errors.Join(staged.check(), out.check(), readOnce(args...)); err != nil {
				return err
			}
			change, err := in.change(c.Context(), args, staged)
			if err != nil {
				return err
			}
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteChange(w, f, change, style)
			})
			differs := func(c *diff.Change) bool { return len(preview.Failed(conditions, c, nil)) > 0 }
			if err == nil && (differs(change.Change) || slices.ContainsFunc(change.Each, differs)) {
				err = errNo
			}
			return err
		},
	}
	in.addTo(c)
	out.addTo(c)
	staged.addTo(c)
	failOn.addTo(c, "adds,removes,unknown")
	return c
}

// change compares two sources, or one with itself and its staged policies.
func (i *input) change(ctx context.Context, sources []string, staged staging) (*report.Change, error) {
	if !staged.on {
		base, head, err := i.pair(ctx, sources[0], sources[1])
		if err != nil {
			return nil, err
		}
		return &report.Change{Change: diff.Compare(base, head)}, nil
	}
	m, o, err := i.model(ctx, sources)
	if err != nil {
		return nil, err
	}
	e, err := staged.enforce(m)
	if err != nil {
		return nil, err
	}
	change := &report.Change{Change: diff.Compare(reach.Pair(m, e.head, o)), Staged: e.staged}
	if e.each != nil {
		change.Each = []*diff.Change{}
	}
	for _, i := range e.each {
		change.Each = append(change.Each, diff.Compare(reach.Pair(m, m.Enforce(i), o)))
	}
	return change, nil
}
