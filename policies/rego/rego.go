// Package rego evaluates policies in Rego about what network policies do: sets of
// what breaks them, by the name of deny or violation.
//
// A policy asks the world of a judge, by weir.reach and its like and as
// data.weir.world, and nothing else: no network, no clock, no chance. It ends after
// a number of steps that does not depend on the machine.
package rego

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/reach"
)

// Rules are the names of the rules by which a package says what breaks it.
var Rules = []string{"deny", "violation"}

// Policy is a package of Rego that says what breaks it. It is immutable and safe
// for concurrent use.
type Policy struct {
	Package  string // as in "shop.databases"
	Place    policies.Place
	Metadata Metadata

	text     string
	compiler *ast.Compiler
	data     map[string]any
	queries  []question
	sections []string         // of the world, that its modules read
	unnamed  map[string]bool  // files to which a line was added
	flows    bool             // whether its modules ask for recorded flows
	lines    []policies.Place // where the lines of its module begin; nil where that is a file
}

// Metadata is what the annotations of a package say about it.
type Metadata struct {
	Title, Description string
	Links              []string
	Custom             map[string]any
}

// question is one rule that is asked for.
type question struct {
	rule string
	body ast.Body
}

// Module is a file of Rego. Without a package of its own it is one.
type Module struct{ File, Text string }

// Violation is one thing that breaks a policy.
type Violation = expression.Violation

// Program compiles a module as Compile does. What fails when it is evaluated is told at
// the places, in another file, where its lines begin.
func Program(text string, lines []policies.Place) (expression.Program, error) {
	p, err := Compile(text)
	if err != nil {
		return nil, err
	}
	p.lines = lines
	return p, nil
}

// Evaluate is Eval in a world that is made unless memory is one.
func (p *Policy) Evaluate(ctx context.Context, j *reach.Judge, recorded expression.Recorded, memory any, steps uint64) ([]Violation, any, error) {
	w, ok := memory.(*World)
	if !ok {
		w = NewWorld(j, recorded)
	}
	found, err := p.Eval(ctx, w, steps)
	return found, w, err
}

// TestResult is what became of one test of Rego.
type TestResult struct {
	Package, Name   string
	Passed, Skipped bool
	Because         string // why it failed, one clause
	Output          string // that it printed
	Place           policies.Place
}

// Compile reads one module, whose file is called rego. It fails with the
// policies.Problem, at its line and column, of everything that is wrong in it.
func Compile(text string) (*Policy, error) {
	all, err := CompileAll([]Module{{file, text}}, nil)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, policies.Problem{Place: policies.Place{File: file, Line: 1, Column: 1}, Message: nothingAsked}
	}
	return all[0], nil
}

const nothingAsked = `there is no rule deny or violation; say what breaks the invariant, as in: deny contains "…" if { … }`

// file is what stands for the name of a file where there is none.
const file = "rego"

// CompileAll reads modules that may use one another, and data that they find as
// data. The policies are the packages that have a rule deny or violation, in the
// order of their names.
func CompileAll(modules []Module, data map[string]any) ([]*Policy, error) {
	var problems []policies.Problem
	parsed := map[string]*ast.Module{}
	unnamed := map[string]bool{}
	for _, m := range modules {
		text := m.Text
		if !declaresPackage(text) {
			text = "package invariant\n" + text
			unnamed[m.File] = true
		}
		module, err := ast.ParseModuleWithOpts(m.File, text, ast.ParserOptions{
			Capabilities: capabilities(), RegoVersion: ast.RegoV1, ProcessAnnotation: true,
		})
		if err != nil {
			problems = append(problems, problemsOf(err)...)
			continue
		}
		problems = append(problems, foreign(module)...)
		parsed[m.File] = module
	}
	if _, taken := data["weir"]; taken {
		problems = append(problems, policies.Problem{Message: "data.weir is Weir's own; give the data another name"})
	}
	compiler := newCompiler()
	if len(problems) == 0 {
		if compiler.Compile(parsed); compiler.Failed() {
			problems = problemsOf(compiler.Errors)
		} else {
			problems = append(oversized(compiler), strangers(compiler)...)
		}
	}
	if len(problems) > 0 {
		for i := range problems {
			unshift(&problems[i].Place, unnamed)
		}
		return nil, joined(problems)
	}
	meterCalls(compiler)
	all := policiesOf(compiler, modules, data)
	for _, p := range all {
		p.unnamed = unnamed
		unshift(&p.Place, unnamed)
	}
	return all, nil
}

// unshift makes a place in a module that was given a package one in the module as
// it was written.
func unshift(p *policies.Place, unnamed map[string]bool) {
	if unnamed[p.File] && p.Line > 1 {
		p.Line--
	}
}

func newCompiler() *ast.Compiler {
	return ast.NewCompiler().WithCapabilities(capabilities()).WithDefaultRegoVersion(ast.RegoV1).SetErrorLimit(0)
}

// declaresPackage reports whether a module begins with a package, but for
// comments.
func declaresPackage(text string) bool {
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line != "" && line[0] != '#' {
			return line == "package" || strings.HasPrefix(line, "package ")
		}
	}
	return false
}

// foreign reports what compiles and has no place in a policy.
func foreign(m *ast.Module) []policies.Problem {
	var problems []policies.Problem
	add := func(at *ast.Location, format string, args ...any) {
		problems = append(problems, policies.Problem{Place: placeOf(at), Message: fmt.Sprintf(format, args...)})
	}
	if p := m.Package; len(p.Path) > 1 && p.Path[1].Equal(ast.StringTerm("weir")) {
		add(p.Location, "package weir is Weir's own; give the package another name")
	}
	ast.WalkWiths(m, func(w *ast.With) bool {
		if ref, ok := w.Target.Value.(ast.Ref); !ok || !ref.HasPrefix(ast.DefaultRootRef) && !ref.HasPrefix(ast.InputRootRef) {
			add(w.Location, "with replaces %s, which only tests may do", w.Target)
		}
		return false
	})
	return problems
}

// policiesOf returns the packages of a compiler that say what breaks them.
func policiesOf(c *ast.Compiler, modules []Module, data map[string]any) []*Policy {
	sections, flows := sectionsUsed(c), asksFlows(c)
	packages := map[string]*Policy{}
	for _, m := range modules {
		module := c.Modules[m.File]
		name := strings.TrimPrefix(module.Package.Path.String(), "data.")
		p := packages[name]
		if p == nil {
			p = &Policy{Package: name, Place: placeOf(module.Package.Location), compiler: c, data: data, sections: sections, flows: flows}
			packages[name] = p
		}
		p.text += m.Text
		for _, rule := range Rules {
			if slices.ContainsFunc(module.Rules, func(r *ast.Rule) bool { return r.Head.Ref()[0].Value.Compare(ast.Var(rule)) == 0 }) {
				p.ask(module.Package.Path, rule)
			}
		}
		for _, a := range module.Annotations {
			if a.Scope == "package" {
				p.Metadata = Metadata{Title: a.Title, Description: a.Description, Custom: a.Custom}
				for _, r := range a.RelatedResources {
					p.Metadata.Links = append(p.Metadata.Links, r.Ref.String())
				}
			}
		}
	}
	var all []*Policy
	var shared string // what any of them may mean: packages that are for others, and data
	for _, name := range slices.Sorted(maps.Keys(packages)) {
		if p := packages[name]; len(p.queries) > 0 {
			all = append(all, p)
		} else {
			shared += p.text
		}
	}
	if len(data) > 0 {
		shared += fmt.Sprint(data)
	}
	for _, p := range all {
		p.text += shared
	}
	return all
}

// ask makes a rule one of those that are asked for.
func (p *Policy) ask(path ast.Ref, rule string) {
	if slices.ContainsFunc(p.queries, func(q question) bool { return q.rule == rule }) {
		return
	}
	ref := path.Append(ast.StringTerm(rule))
	body := ast.NewBody(ast.Equality.Expr(ast.VarTerm("answer"), ast.NewTerm(ref)))
	p.queries = append(p.queries, question{rule, body})
}

// String returns the policy as it was written, with all that it may use of others'
// packages and of data.
func (p *Policy) String() string { return p.text }

// AsksFlows reports whether the policy, or another one of its modules, asks what was
// recorded, by weir.flows.
func (p *Policy) AsksFlows() bool { return p.flows }

// Eval returns what breaks the policy in a world, in at most so many steps, sorted.
// It fails with a policies.Problem where the policy asks for what is not there,
// says nonsense or takes more steps, and with the context's error when that is
// done.
func (p *Policy) Eval(ctx context.Context, w *World, steps uint64) ([]Violation, error) {
	m := &meter{ctx: ctx, limit: steps}
	data, err := w.data(ctx, p.data, p.sections, m)
	if err != nil {
		return nil, err
	}
	store := inmem.NewFromObjectWithOpts(data, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer store.Abort(ctx, txn)
	var all []Violation
	for _, q := range p.queries {
		results, err := topdown.NewQuery(q.body).
			WithCompiler(p.compiler).WithStore(store).WithTransaction(txn).
			WithCancel(m).WithBuiltins(w.builtins(m)).WithStrictBuiltinErrors(true).
			WithTime(time.Unix(0, 0)).WithSeed(strings.NewReader("")).
			Run(ctx)
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case m.over():
			return nil, problem("it takes more than %d steps; let it go through less", steps)
		case err != nil:
			return nil, p.failure(err)
		case len(results) == 0:
			return nil, problem("%s is undefined; make it a set, as in: %s contains \"…\" if { … }", q.rule, q.rule)
		}
		said, err := violations(q.rule, results[0][ast.Var("answer")].Value, m)
		if err != nil {
			return nil, err
		}
		all = append(all, said...)
	}
	slices.SortFunc(all, func(a, b Violation) int {
		return cmp.Or(strings.Compare(a.Message, b.Message), strings.Compare(a.From, b.From), strings.Compare(a.To, b.To), strings.Compare(a.Port, b.Port))
	})
	return slices.Compact(all), nil
}

// violations reads the set that a rule is.
func violations(rule string, v ast.Value, m *meter) ([]Violation, error) {
	var all []Violation
	var err error
	add := func(t *ast.Term) {
		one, wrong := violation(rule, t)
		if err = cmp.Or(err, wrong); wrong == nil {
			all = append(all, one)
		}
	}
	if !m.walk(v) {
		return nil, problem("%s says more than can be told; let it say less", rule)
	}
	switch v := v.(type) {
	case ast.Set:
		v.Foreach(add)
	case *ast.Array:
		v.Foreach(add)
	default:
		return nil, problem("%s is a %s; it must be a set of texts, or of objects with msg, and from, to and port where they are known", rule, ast.ValueName(v))
	}
	return all, err
}

var violationFields = []string{"msg", "from", "to", "port"}

func violation(rule string, t *ast.Term) (Violation, error) {
	var v Violation
	switch is := t.Value.(type) {
	case ast.String:
		v.Message = string(is)
	case ast.Object:
		for _, key := range is.Keys() {
			name, ok := key.Value.(ast.String)
			if !ok || !slices.Contains(violationFields, string(name)) {
				return v, problem("%s has an object with %s; it takes %s", rule, key, strings.Join(violationFields, ", "))
			}
			var err error
			switch of := is.Get(key).Value; name {
			case "msg":
				text, isText := of.(ast.String)
				if !isText {
					err = fmt.Errorf("msg is a %s, and no text", ast.ValueName(of))
				}
				v.Message = string(text)
			case "from":
				v.From, err = endText(of)
			case "to":
				v.To, err = endText(of)
			case "port":
				v.Port, err = portText(of)
			}
			if err != nil {
				return v, problem("%s: %s", rule, err)
			}
		}
	default:
		return v, problem("%s holds a %s; it must hold texts, or objects with msg, and from, to and port where they are known", rule, ast.ValueName(is))
	}
	if v.Message == "" {
		return v, problem("%s holds what has no msg; say what is wrong", rule)
	}
	if (v.To != "" || v.Port != "") && (v.From == "" || v.To == "" || v.Port == "") {
		return v, problem("%s: a connection needs from, to and port; %q has not all of them", rule, v.Message)
	}
	return v, nil
}

func problem(format string, args ...any) policies.Problem {
	return policies.Problem{Place: policies.Place{File: file}, Message: fmt.Sprintf(format, args...)}
}

// failure says where an evaluation ended.
func (p *Policy) failure(err error) error {
	why := problem("%s", err)
	if e := (*topdown.Error)(nil); errors.As(err, &e) {
		why.Message, _, _ = strings.Cut(e.Message, ":\n") // then come lines of the module
		if e.Location != nil {
			why.Place = placeOf(e.Location)
			unshift(&why.Place, p.unnamed)
			if at := why.Place; at.Line > 0 && at.Line <= len(p.lines) {
				why.Place = p.lines[at.Line-1]
				why.Place.Column += at.Column - 1
			}
		}
	}
	return why
}
