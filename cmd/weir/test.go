package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/internal/regotest"
	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/internal/source"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

func newTest(s streams) *cobra.Command {
	in, out := input{streams: s}, output{streams: s, kind: report.KindTestRun}
	var generate bool
	var packs packFlags
	c := &cobra.Command{
		Use:   "test [TESTS...] [-f SRC]",
		Short: "Run connectivity tests: who must reach whom, and who must not",
		Long: `Ask what files of kind ConnectivityTest ask, and compare the answers with those
that they expect. TESTS are sources that hold such files; -f names the manifests
to test. Where only one of the two is given, it is the source of both.

A failed test tells the decision and the rule behind it. The exit status is 0
when all tests pass, 1 when one fails, and 2 when one could not be asked, or
there are none.

With --pack, run the tests of a policy pack in Rego, by OPA's own runner: the rules
whose names begin with test_ in its files *_test.rego. They may call weir.reach and
its like, which ask the manifests that -f names.

--generate writes today's answers as tests instead: all that may reach each
workload, and all that may reach outside.`,
		Example: `  weir test examples/shop/tests -f examples/shop/deploy
  weir test examples/shop/tests -f examples/shop/deploy -o text -o junit=weir.xml
  weir test --pack cis,nsa
  weir test --generate -f examples/shop/deploy > connectivity.yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			if err := errors.Join(out.check(), readOnce(slices.Concat(in.files, args)...)); err != nil {
				return err
			}
			if generate {
				return generateTests(c, &in, args)
			}
			run, err := in.runTests(c.Context(), args, &packs)
			if err != nil {
				return err
			}
			err = out.write(func(w io.Writer, f report.Format, style report.Style) error {
				return report.WriteTestRun(w, f, *run, style)
			})
			if err == nil && run.Failed() > 0 {
				err = errNo
			}
			return err
		},
	}
	in.addSourceTo(c)
	out.addTo(c)
	packs.addTo(c, "a policy `pack` whose tests in Rego to run: its name, a folder or a bundle of OPA; repeatable")
	c.Flags().BoolVar(&generate, "generate", false, "write tests that hold today's answers, as YAML")
	return c
}

// runTests runs the connectivity tests of args, unless packs alone are named, and
// the tests in Rego of packs.
func (i *input) runTests(ctx context.Context, args []string, packs *packFlags) (*report.TestRun, error) {
	run := &report.TestRun{}
	judge := reach.New(&policies.Model{}, reach.Options{})
	var err error
	switch {
	case len(packs.names) == 0 || len(args) > 0:
		var suites []conntest.Suite
		if judge, suites, err = i.tests(ctx, args); err != nil {
			return nil, err
		}
		if run.Connectivity, err = conntest.Run(judge, suites); err != nil {
			return nil, err
		}
	case len(i.files) > 0:
		if judge, err = i.judge(ctx, nil); err != nil {
			return nil, err
		}
	}
	run.Warnings = judge.Model().Warnings
	v, err := packs.verification()
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, name := range packs.names {
		p, err := source.ReadPack(ctx, v, name)
		if err == nil {
			notice(i.streams, p)
		}
		if err == nil && len(p.Tests)+len(p.Worlds) == 0 {
			err = fmt.Errorf("--pack: %s has no tests; write them into files whose names end in _test.rego or _test.yaml", name)
		}
		if err == nil {
			var results []rego.TestResult
			if results, err = p.RunTests(ctx); err == nil {
				run.Rego = append(run.Rego, results...)
			}
		}
		if err == nil && len(p.Tests) > 0 {
			var results []rego.TestResult
			results, err = regotest.Run(ctx, rego.NewWorld(judge, expression.Recorded{}), slices.Concat(p.Modules, p.Tests), p.Data)
			if run.Rego = append(run.Rego, results...); err == nil && len(results) == 0 {
				err = fmt.Errorf("--pack: %s has no test in Rego; the name of a test begins with test_", name)
			}
		}
		errs = append(errs, err)
	}
	return run, errors.Join(errs...)
}

// tests loads the tests of args, or of the manifests without any, and judges the
// manifests that -f names, or those of args without it.
func (i *input) tests(ctx context.Context, args []string) (*reach.Judge, []conntest.Suite, error) {
	o, errOptions := i.options()
	l, errLoader := i.loader()
	if err := errors.Join(errOptions, errLoader); err != nil {
		return nil, nil, err
	}
	var m *policies.Model
	var suites []conntest.Suite
	var err error
	named := args
	if len(args) > 0 && len(i.files) > 0 {
		var errTests error
		suites, errTests = l.Tests(ctx, args...)
		m, err = l.Load(ctx, i.files...)
		err = errors.Join(errTests, err)
	} else {
		if named = slices.Concat(args, i.files); len(named) == 0 {
			named = []string{"."}
		}
		m, suites, err = l.LoadTests(ctx, named...)
	}
	if err == nil && len(suites) == 0 {
		err = fmt.Errorf("no ConnectivityTest found in %s; write one, or let weir test --generate do it", strings.Join(named, ", "))
	}
	if err != nil {
		return nil, nil, err
	}
	return reach.New(m, o), suites, nil
}

func generateTests(c *cobra.Command, in *input, args []string) error {
	if c.Flags().Changed("output") {
		return errors.New("--generate writes YAML; leave out --output, and send the tests to a file with >")
	}
	judge, err := in.judge(c.Context(), args)
	if err != nil {
		return err
	}
	text, err := k8s.WriteTests(conntest.Generate(judge))
	if err != nil {
		return err
	}
	_, errWrite := in.out.Write(text)
	for _, w := range judge.Model().Warnings {
		fmt.Fprintln(in.err, "warning:", w)
	}
	return errWrite
}
