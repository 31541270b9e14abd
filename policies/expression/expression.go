// Package expression evaluates CEL expressions about policies and what they do:
// connections.filter(c, c.to.labels["tier"] == "db").
//
// What an expression may use is declared, with types: docs/query.md lists it.
// Values are worked out when an expression uses them. An evaluation ends after a
// number of steps that does not depend on the machine.
package expression

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/ext"
	"github.com/google/cel-go/interpreter"

	"github.com/weir-policy/weir/policies"
)

// Steps is how many steps an evaluation may take by default: a second or two on
// one core.
const Steps = 20_000_000

// Expression is an expression whose types are right. It is immutable and safe
// for concurrent use.
type Expression struct {
	text string
	ast  *cel.Ast
	plan plan
	at   func(line, column int) policies.Place // nil where the text is a file of its own

	offending func() *Offending
}

// Compile reads an expression. It fails with the policies.Problem, at its line
// and column, of everything in the expression that is wrong; the file of their
// places is "expression".
func Compile(text string) (*Expression, error) {
	e := environment()
	checked, issues := e.Compile(text)
	if issues.Err() != nil {
		return nil, e.problems(text, issues)
	}
	lists := sync.OnceValue(func() *Offending { return offending(text, checked.NativeRep()) })
	return &Expression{text, checked, newPlan(checked.NativeRep()), nil, lists}, nil
}

// Placed returns the expression as a part of a file, where at says where its lines and
// columns are: what fails when it is evaluated is told there, in one line.
func (x *Expression) Placed(at func(line, column int) policies.Place) *Expression {
	placed := *x
	placed.at = at
	return &placed
}

// String returns the expression as it was written.
func (x *Expression) String() string { return x.text }

// Type names the type of what the expression is, as in "list(Connection)".
func (x *Expression) Type() string { return cel.FormatCELType(x.ast.OutputType()) }

// Uses reports whether the expression uses a variable, such as flows.
func (x *Expression) Uses(variable string) bool {
	uses := false
	ast.PreOrderVisit(x.ast.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		uses = uses || e.Kind() == ast.IdentKind && e.AsIdent() == variable
	}))
	return uses
}

// Eval evaluates the expression about a world, in at most so many steps. It
// fails with a policies.Problem where the expression asks for what is not there,
// or takes more steps, and with the context's error when that is done.
func (x *Expression) Eval(ctx context.Context, w *World, steps uint64) (value Value, err error) {
	w.meter = &meter{limit: steps, inside: map[*object]*Object{}}
	defer func() {
		if r := recover(); r != nil {
			cancelled, ok := r.(interpreter.EvalCancelledError)
			if !ok {
				panic(r)
			}
			value, err = nil, x.failure(cancelled)
		}
	}()
	program, err := environment().Program(x.ast, cel.InterruptCheckFrequency(1000),
		cel.CustomDecoratorV2(func(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
			return x.plan.decorate(w, i), nil
		}))
	if err != nil {
		return nil, x.failure(err)
	}
	result, _, err := program.ContextEval(ctx, variables{w})
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		return nil, x.failure(err)
	}
	return w.valueOf(result, false), nil
}

// failure says where in the expression an evaluation ended, as far as that is
// known.
func (x *Expression) failure(err error) error {
	p := policies.Problem{Place: policies.Place{File: file}, Message: err.Error()}
	if at := (*types.Err)(nil); errors.As(err, &at) {
		if id := at.NodeID(); id > 0 {
			if l := x.ast.NativeRep().SourceInfo().GetStartLocation(id); l.Line() > 0 {
				column := nameStart(lineOf(x.text, l.Line()), l.Column())
				if x.at != nil {
					return policies.Problem{Place: x.at(l.Line(), column+1), Message: err.Error()}
				}
				return problem(x.text, l.Line(), column, err.Error())
			}
		}
	}
	return p
}

// env is what expressions are checked against.
type env struct {
	*cel.Env
	classes *classes
}

// variableTypes are the variables with their types, in the order in which a hint
// lists them.
var variableTypes = []struct {
	name string
	typ  *cel.Type
}{
	{"policies", cel.ListType(policyType)},
	{"workloads", cel.ListType(peerType)},
	{"pods", cel.ListType(podType)},
	{"namespaces", cel.ListType(namespaceType)},
	{"services", cel.ListType(serviceType)},
	{"nodes", cel.ListType(nodeType)},
	{"connections", cel.ListType(connectionType)},
	{"flows", cel.ListType(flowType)},
	{"allow", verdictType},
	{"deny", verdictType},
	{"unknown", verdictType},
}

// Variables returns the names of the variables that expressions may use.
func Variables() []string {
	var names []string
	for _, v := range variableTypes {
		names = append(names, v.name)
	}
	return names
}

// environment returns the one environment. Making it takes milliseconds, so it
// is made when the first expression needs it.
var environment = sync.OnceValue(func() *env {
	e := &env{classes: newClasses()}
	var err error
	e.Env, err = e.with(nil)
	if err != nil {
		panic(fmt.Errorf("declare what expressions may use: %w", err)) // a mistake in this package
	}
	return e
})

// with returns an environment that notes the fields that no class has.
func (e *env) with(misses *[]miss) (*cel.Env, error) {
	options := []cel.EnvOption{
		cel.OptionalTypes(),
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.EnableHiddenAccumulatorName(true),
		ext.Strings(),
		ext.Lists(ext.ListsMaxRangeSize(100_000)),
		ext.Math(),
		ext.Bindings(),
		ext.TwoVarComprehensions(),
		ext.Network(),
		func(c *cel.Env) (*cel.Env, error) {
			return cel.CustomTypeProvider(provider{c.CELTypeProvider(), e.classes.byName, misses})(c)
		},
	}
	for _, v := range variableTypes {
		options = append(options, cel.Variable(v.name, v.typ))
	}
	for i := range functions {
		options = append(options, functions[i].declare())
	}
	return cel.NewEnv(slices.Clip(options)...)
}
