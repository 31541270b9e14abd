// Package regotest runs tests of policies in Rego by OPA's own runner, with the
// functions that Weir adds.
package regotest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	oparego "github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/rego"
)

// Run runs every test of some modules, in a world and with data of their own, and
// returns what became of them by package and name. A test is a rule whose name
// begins with test_; one that begins with todo_ is skipped, and one that takes more
// than five seconds fails. It fails where the modules do not compile.
func Run(ctx context.Context, w *rego.World, modules []rego.Module, data map[string]any) ([]rego.TestResult, error) {
	parsed := map[string]*ast.Module{}
	var errs []error
	for _, m := range modules {
		module, err := ast.ParseModuleWithOpts(m.File, m.Text, ast.ParserOptions{Capabilities: rego.Capabilities(), RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			errs = append(errs, rego.Problems(err))
			continue
		}
		parsed[m.File] = module
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	found, err := w.Data(ctx, data)
	if err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(found, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	results, err := run(ctx, w, parsed, store, "")
	var failed []string
	for _, r := range results {
		if r.Fail {
			failed = append(failed, regexp.QuoteMeta(r.Package+"."+r.Name))
		}
	}
	if len(failed) > 0 && err == nil { // run again for where they fail, which takes much more to find
		var again []*tester.Result
		again, err = run(ctx, w, parsed, store, "^("+strings.Join(failed, "|")+")$")
		results = append(slices.DeleteFunc(results, func(r *tester.Result) bool { return r.Fail }), again...)
	}
	if err != nil {
		return nil, rego.Problems(err)
	}
	all := make([]rego.TestResult, len(results))
	for i, r := range results {
		all[i] = resultOf(r)
	}
	slices.SortFunc(all, func(a, b rego.TestResult) int {
		return cmp.Or(strings.Compare(a.Package, b.Package), a.Place.Compare(b.Place), strings.Compare(a.Name, b.Name))
	})
	return all, nil
}

// run runs the tests whose names match, all of them and without a trace where there
// is nothing to match.
func run(ctx context.Context, w *rego.World, modules map[string]*ast.Module, store storage.Store, matching string) ([]*tester.Result, error) {
	copies := map[string]*ast.Module{}
	for file, m := range modules {
		copies[file] = m.Copy() // compiling changes them
	}
	compiler := ast.NewCompiler().WithCapabilities(rego.Capabilities()).WithEnablePrintStatements(true).SetErrorLimit(0)
	// One at a time: what is asked of the world is remembered there.
	runner := tester.NewRunner().SetParallel(1).SetCompiler(compiler).SetStore(store).SetModules(copies).
		RaiseBuiltinErrors(true).EnableTracing(matching != "").Filter(matching).AddCustomBuiltins(builtins(w.Functions(ctx)))
	var results []*tester.Result
	err := storage.Txn(ctx, store, storage.TransactionParams{}, func(txn storage.Transaction) error {
		ran, err := runner.RunTests(ctx, txn)
		if err != nil {
			return err
		}
		for r := range ran {
			results = append(results, r)
		}
		return ctx.Err()
	})
	return results, err
}

// failedAt returns the expression of a test that is not true; nil where the trace
// does not tell.
func failedAt(r *tester.Result) *ast.Expr {
	for i := len(r.Trace) - 1; i >= 0; i-- {
		e, ok := r.Trace[i].Node.(*ast.Expr)
		if ok && r.Trace[i].Op == topdown.FailOp && e.Location != nil && e.Location.File == r.Location.File && e.Location.Row >= r.Location.Row {
			return e
		}
	}
	return nil
}

func resultOf(r *tester.Result) rego.TestResult {
	result := rego.TestResult{
		Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name, Passed: r.Pass(), Skipped: r.Skip,
		Output: string(r.Output), Place: placeOf(r.Location),
	}
	switch e := (*topdown.Error)(nil); {
	case errors.As(r.Error, &e) && topdown.IsCancel(r.Error):
		result.Because = "it takes too long"
	case errors.As(r.Error, &e):
		result.Because = e.Message
		if e.Location != nil {
			result.Because += " at " + placeOf(e.Location).String()
		}
	case r.Error != nil:
		result.Because = r.Error.Error()
	case r.Fail && failedAt(r) != nil:
		e := failedAt(r)
		result.Because = fmt.Sprintf("%s is not true at %s", written(e), placeOf(e.Location))
	case r.Fail:
		result.Because = "it is not true"
	}
	var cases []string
	for name, sub := range r.SubResults.Iter {
		if sub.Fail && len(sub.SubResults) == 0 {
			cases = append(cases, strings.Join(name, "/"))
		}
	}
	if len(cases) > 0 && !result.Passed {
		result.Because += " in the cases " + strings.Join(cases, ", ")
	}
	return result
}

// written is an expression as it stands in its file.
func written(e *ast.Expr) string {
	if e.Location != nil && len(e.Location.Text) > 0 {
		text, _, more := strings.Cut(string(e.Location.Text), "\n")
		if more {
			text += " …"
		}
		return text
	}
	return e.String()
}

func placeOf(l *ast.Location) policies.Place {
	if l == nil {
		return policies.Place{}
	}
	return policies.Place{File: l.File, Line: l.Row, Column: max(1, l.Col)}
}

// builtins are functions as the runner takes them.
func builtins(functions []*topdown.Builtin) []*tester.Builtin {
	var all []*tester.Builtin
	for _, f := range functions {
		all = append(all, &tester.Builtin{
			Decl: f.Decl,
			Func: oparego.FunctionDyn(&oparego.Function{Name: f.Decl.Name, Decl: f.Decl.Decl}, func(bctx oparego.BuiltinContext, args []*ast.Term) (*ast.Term, error) {
				var result *ast.Term
				err := f.Func(bctx, args, func(t *ast.Term) error {
					result = t
					return nil
				})
				if e := (*topdown.Error)(nil); errors.As(err, &e) { // which the runner wraps into one of its own
					err = errors.New(strings.TrimPrefix(e.Message, f.Decl.Name+": "))
				}
				return result, err
			}),
		})
	}
	return all
}
