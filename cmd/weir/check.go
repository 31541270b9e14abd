package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

func newCheck(s streams) *cobra.Command {
	in, out, flows := input{streams: s}, output{streams: s, kind: report.KindCheckRun}, flowFiles{}
	span := replaySpan{choice{streams: s}}
	var o lint.Options
	var failOn, today string
	var showWaived bool
	var elsewhere []string
	var packs packFlags
	c := &cobra.Command{
		Use:   "check [SRC...]",
		Short: "Find what is probably a mistake in policies",
		Long: `Look for policies that are well formed and mean something else than they seem to,
or nothing: selectors without a match, an isolation that isolates nothing, rules
without effect. docs/check.md lists the checks; each has a page.

The Invariants among the sources, and those that --invariants names, are checked
too: one of severity deny that is broken is an error, of warn a warning, of audit a
note. docs/invariants.md tells how to write them. --pack adds those of a policy pack:
one that weir packs lists, a folder (./FOLDER), or a bundle of OPA (.tar.gz).
--flows names recorded flows for invariants in Rego that ask for weir.flows.

A policy waives a finding by the annotation ` + lint.WaiveAnnotation + `, until a day and for
a reason: "open-isolation until 2027-01-31: the front door".

The exit status is 1 when a finding is as bad as --fail-on says, or worse.`,
		Example: `  weir check examples/shop/deploy
  weir check examples/shop/deploy --fail-on error --skip egress-without-dns
  weir check examples/shop/deploy --invariants examples/shop/invariants.yaml --only invariant
  weir check examples/shop/deploy --pack baseline,nsa --only invariant
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
			asked := slices.Contains(o.Only, report.InvariantCheck.Name)
			checks, invariants := chosen(&o)
			_, wrong = o.Checks()
			if err := errors.Join(err, wrong, out.check(), readOnce(slices.Concat(in.files, args, elsewhere, flows.patterns)...)); err != nil {
				return err
			}
			judge, declared, err := in.judgeInvariants(c.Context(), args, elsewhere, &packs)
			if err != nil {
				return err
			}
			run.Result = &lint.Result{Warnings: judge.Model().Warnings}
			if checks {
				if run.Result, err = lint.Run(judge, o); err != nil {
					return err
				}
			}
			if invariants && len(declared) > 0 {
				set, err := invariant.Prepare(judge, declared)
				if err != nil {
					return err
				}
				if len(flows.patterns) > 0 && invariant.AskFlows(declared) {
					recorded, err := span.tally(c.Context(), &flows)
					if err != nil {
						return err
					}
					set.Recorded = expression.Recorded{Flows: recorded, Find: simulator.Finder(judge)}
				}
				results, err := set.Check(c.Context(), o.Now)
				if err != nil {
					return err
				}
				run.AddInvariants(results, in.explain(args))
			}
			if asked && len(declared) == 0 {
				run.Warnings = append(run.Warnings, policies.Warning{Message: "there is no Invariant among the sources, so none was checked; --invariants and --pack name some"})
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
	names := []string{report.InvariantCheck.Name}
	for _, check := range lint.Checks() {
		names = append(names, check.Name)
	}
	f := c.Flags()
	f.StringArrayVar(&elsewhere, "invariants", nil, "a `source` of more Invariants, where they do not stand among the manifests; repeatable")
	flows.addTo(c)
	span.addTo(c)
	packs.addTo(c, "a policy `pack` of more invariants: its name, a folder or a bundle of OPA; repeatable")
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

// chosen reports whether any checks of policies are to be run, and whether
// invariants are to be checked, and leaves the options to those of policies.
func chosen(o *lint.Options) (checks, invariants bool) {
	name := report.InvariantCheck.Name
	o.Others = []string{name}
	invariants = (len(o.Only) == 0 || slices.Contains(o.Only, name)) && !slices.Contains(o.Skip, name)
	is := func(n string) bool { return n == name }
	only := slices.DeleteFunc(slices.Clone(o.Only), is)
	checks = len(o.Only) == 0 || len(only) > 0
	o.Only, o.Skip = only, slices.DeleteFunc(slices.Clone(o.Skip), is)
	return checks, invariants
}

// judgeInvariants is judge with the Invariants among the sources, in others and in
// packs, which the judge tells apart.
func (i *input) judgeInvariants(ctx context.Context, args, elsewhere []string, packs *packFlags) (*reach.Judge, []invariant.Invariant, error) {
	o, errOptions := i.options()
	l, errLoader := i.loader()
	if err := errors.Join(errOptions, errLoader); err != nil {
		return nil, nil, err
	}
	m, all, err := l.LoadInvariants(ctx, elsewhere, i.sources(args)...)
	if err != nil {
		return nil, nil, err
	}
	if len(all) == 0 && len(elsewhere) > 0 {
		return nil, nil, noneFound(elsewhere)
	}
	read, err := packs.read(ctx, i.streams, packs.names...)
	if err != nil {
		return nil, nil, err
	}
	if all, err = source.WithPacks(all, read...); err != nil {
		return nil, nil, err
	}
	return reach.New(m, invariant.Apart(o, all...)), all, nil
}

// noneFound is the error of --invariants where there are none.
func noneFound(sources []string) error {
	return fmt.Errorf("--invariants: no Invariant found in %s", strings.Join(sources, ", "))
}

// explain is the command that explains connections of the sources.
func (i *input) explain(args []string) string {
	command := "weir explain"
	for _, source := range i.sources(args) {
		if source != "." {
			command += " -f " + shellWord(source)
		}
	}
	return command
}

// shellWord quotes what a shell would not take for one word.
func shellWord(text string) string {
	if text != "" && strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./:_-@%+=") == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
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
