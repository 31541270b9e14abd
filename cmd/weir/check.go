package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies/lint"
)

func newCheck(s streams) *cobra.Command {
	in, out := input{streams: s}, output{streams: s, kind: report.KindCheckRun}
	var o lint.Options
	var failOn, today string
	var showWaived bool
	c := &cobra.Command{
		Use:   "check [SRC...]",
		Short: "Find what is probably a mistake in policies",
		Long: `Look for policies that are well formed and mean something else than they seem to,
or nothing: selectors without a match, an isolation that isolates nothing, rules
without effect. docs/check.md lists the checks; each has a page.

A policy waives a finding by the annotation ` + lint.WaiveAnnotation + `, until a day and for
a reason: "open-isolation until 2027-01-31: the front door".

The exit status is 1 when a finding is as bad as --fail-on says, or worse.`,
		Example: `  weir check examples/shop/deploy
  weir check examples/shop/deploy --fail-on error --skip egress-without-dns
  weir check examples/shop/deploy --show-waived -o text -o sarif=check.sarif`,
		RunE: func(c *cobra.Command, args []string) error {
			var err error
			run := report.CheckRun{ShowWaived: showWaived}
			if failOn != "none" {
				severity, wrong := lint.ParseSeverity(failOn)
				if wrong != nil {
					err = fmt.Errorf("--fail-on: %w, or none", wrong)
				}
				run.FailOn = &severity
			}
			var wrong error
			if o.Now, wrong = moment(today); wrong != nil {
				err = errors.Join(err, wrong)
			}
			_, wrong = o.Checks()
			if err := errors.Join(err, wrong, out.check(), readOnce(slices.Concat(in.files, args)...)); err != nil {
				return err
			}
			judge, err := in.judge(c.Context(), args)
			if err != nil {
				return err
			}
			if run.Result, err = lint.Run(judge, o); err != nil {
				return err
			}
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteCheckRun(w, f, &run, style)
			})
			if err == nil && run.Fails() {
				err = errNo
			}
			return err
		},
	}
	in.addSourceTo(c)
	out.addTo(c)
	var names []string
	for _, check := range lint.Checks() {
		names = append(names, check.Name)
	}
	f := c.Flags()
	f.StringVar(&failOn, "fail-on", "warning", "exit with status 1 on findings of this `severity` or worse: error, warning, note, or none")
	complete(c, "fail-on", "error", "warning", "note", "none")
	f.StringSliceVar(&o.Only, "only", nil, "run only these `checks`")
	completeList(c, "only", names...)
	f.StringSliceVar(&o.Skip, "skip", nil, "do not run these `checks`")
	completeList(c, "skip", names...)
	f.BoolVar(&showWaived, "show-waived", false, "list the findings that are waived, too")
	f.StringVar(&today, "today", "", "the `day`, as 2027-01-31, on which waivers are or are not expired (default: today)")
	return c
}

// moment returns the beginning of a day in UTC, or the present for "".
func moment(day string) (time.Time, error) {
	if day == "" {
		return time.Now(), nil
	}
	t, err := time.Parse(time.DateOnly, day)
	if err != nil {
		return t, fmt.Errorf("--today: %q is not a day such as 2027-01-31", day)
	}
	return t, nil
}
