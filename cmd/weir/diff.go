package main

import (
	"errors"
	"io"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/preview"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies/diff"
)

func newDiff(s streams) *cobra.Command {
	in, out := input{streams: s}, output{streams: s, kind: report.KindChange}
	failOn := failures{known: []preview.Condition{preview.Adds, preview.Removes, preview.Unknowns}}
	c := &cobra.Command{
		Use:   "diff BASE HEAD",
		Short: "Say what two sets of policies decide differently",
		Long: `Say which connections one source allows and the other does not. The exit status
is 0 when both decide everything alike and 1 when they differ, as with diff(1);
--fail-on chooses which differences count.`,
		Example: `  weir diff git:main:examples/shop/deploy examples/shop/deploy
  weir diff git:main:examples/shop/deploy git:HEAD:examples/shop/deploy --fail-on adds
  weir diff git:main:examples/shop/deploy examples/shop/deploy -o svg=change.svg`,
		Args: takes(2, 2, "diff takes two sources, as in: weir diff git:main git:HEAD"),
		RunE: func(c *cobra.Command, args []string) error {
			conditions, err := failOn.conditions()
			if err != nil {
				return err
			}
			if err := errors.Join(out.check(), readOnce(args...)); err != nil {
				return err
			}
			base, head, err := in.pair(c.Context(), args[0], args[1])
			if err != nil {
				return err
			}
			change := diff.Compare(base, head)
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteChange(w, f, change, style)
			})
			if err == nil && len(preview.Failed(conditions, change, nil)) > 0 {
				err = errNo
			}
			return err
		},
	}
	in.addTo(c)
	out.addTo(c)
	failOn.addTo(c, "adds,removes,unknown")
	return c
}
