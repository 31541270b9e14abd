package rego

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
)

// Steps is how many steps an evaluation may take by default: a second or two on
// one core.
const Steps = expression.ProgramSteps

// notOffered are the functions of Rego that a policy cannot call: those that ask
// the network, the clock, chance or the machine, that take a time without bound,
// or that have nothing to do here.
var notOffered = []string{
	"crypto.", "graph.reachable_paths", "graphql.", "http.", "io.jwt.", "json.match_schema", "json.verify_schema",
	"net.cidr_expand", "net.lookup_ip_addr", "opa.runtime", "providers.", "rand.", "regex.globs_match", "rego.parse_module",
	"strings.render_template", "time.now_ns", "trace", "uuid.rfc4122",
}

// Capabilities are what a policy may use, and its tests.
func Capabilities() *ast.Capabilities { return capabilities() }

var capabilities = sync.OnceValue(func() *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.AllowNet = []string{}
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		return slices.ContainsFunc(notOffered, func(name string) bool {
			return b.Name == name || strings.HasSuffix(name, ".") && strings.HasPrefix(b.Name, name)
		})
	})
	for _, f := range functions {
		c.Builtins = append(c.Builtins, f.declaration())
	}
	return c
})

// meter counts the steps of one evaluation. The evaluator asks it before each
// expression, and functions that work long ask it on the way.
type meter struct {
	ctx          context.Context
	spent, limit uint64
}

// Cancel ends the evaluation.
func (m *meter) Cancel() { m.spent = m.limit + 1 }

// Cancelled takes a step, and reports whether there are no more.
func (m *meter) Cancelled() bool {
	m.spent++
	return m.over() || m.spent%1000 == 0 && m.ctx.Err() != nil
}

func (m *meter) over() bool { return m.spent > m.limit }

// spend takes so many steps; it fails when there are no more.
func (m *meter) spend(steps uint64) error {
	if m.spent += min(steps, m.limit-min(m.spent, m.limit)+1); m.over() {
		return topdown.Halt{Err: &topdown.Error{Code: topdown.CancelErr, Message: "there are no more steps"}}
	}
	return nil
}

// characters is how long a text a function makes in one step.
const characters = 64

// walk takes the steps that it takes to write a value out, and reports whether
// there are as many. A small value can be long when it is written: that of pairs of
// pairs of pairs.
func (m *meter) walk(v ast.Value) bool {
	if m.Cancelled() {
		return false
	}
	whole := true
	each := func(t *ast.Term) bool {
		whole = whole && m.walk(t.Value)
		return !whole
	}
	switch v := v.(type) {
	case ast.String:
		return m.spend(uint64(len(v))/characters) == nil
	case *ast.Array:
		v.Until(each)
	case ast.Set:
		v.Until(each)
	case ast.Object:
		v.Until(func(key, value *ast.Term) bool { return each(key) || each(value) })
	}
	return whole
}

// growing are the functions of Rego whose result may be many times as large as what
// they are given, with what it costs in steps to make it. Of all others it costs
// something to have it.
var growing = map[string]func(m *meter, args []*ast.Term) error{
	"array.concat": func(m *meter, args []*ast.Term) error { return m.spend((size(args[0]) + size(args[1])) / items) },
	"bits.lsh":     func(m *meter, args []*ast.Term) error { return m.spend(number(args[1]) / 8) },
	"concat": func(m *meter, args []*ast.Term) error {
		if !m.walk(args[1].Value) {
			return m.spend(m.limit)
		}
		return m.spend(size(args[0]) * size(args[1]) / characters)
	},
	"internal.template_string":  written,
	"json.marshal":              written,
	"json.marshal_with_options": written,
	"numbers.range":             func(m *meter, args []*ast.Term) error { return m.spend(between(args[0], args[1])) },
	"numbers.range_step":        func(m *meter, args []*ast.Term) error { return m.spend(between(args[0], args[1])) },
	"regex.replace": func(m *meter, args []*ast.Term) error {
		return m.spend((size(args[0]) + 1) * (size(args[2]) + 1) / characters)
	},
	"replace": func(m *meter, args []*ast.Term) error {
		return m.spend((size(args[0]) + 1) * (size(args[2]) + 1) / characters)
	},
	"sprintf": func(m *meter, args []*ast.Term) error {
		if err := written(m, args); err != nil {
			return err
		}
		// Each verb may write the longest argument, or as many spaces as it says.
		format, _ := args[0].Value.(ast.String)
		verbs := uint64(strings.Count(string(format), "%"))
		if list, ok := args[1].Value.(*ast.Array); ok && strings.Contains(string(format), "[") {
			before := m.spent
			if !m.walk(list) {
				return m.spend(m.limit)
			}
			if err := m.spend((m.spent - before) * verbs); err != nil {
				return err
			}
		}
		if strings.Contains(string(format), "*") {
			verbs *= 1_000_000 / characters // as much as a width can be
		}
		return m.spend(verbs + widths(string(format))/characters)
	},
	"strings.replace_n": func(m *meter, args []*ast.Term) error {
		longest := uint64(0)
		if patterns, ok := args[0].Value.(ast.Object); ok {
			patterns.Foreach(func(_, to *ast.Term) { longest = max(longest, size(to)) })
		}
		return m.spend((size(args[1]) + 1) * (longest + 1) / characters)
	},
	"urlquery.encode_object": written,
	"yaml.marshal":           written,
}

func written(m *meter, args []*ast.Term) error {
	for _, a := range args {
		if !m.walk(a.Value) {
			return m.spend(m.limit)
		}
	}
	return nil
}

// size is how long a text or a collection is.
func size(t *ast.Term) uint64 {
	switch v := t.Value.(type) {
	case ast.String:
		return uint64(len(v))
	case ast.Number:
		return uint64(len(v))
	case *ast.Array:
		return uint64(v.Len())
	case ast.Set:
		return uint64(v.Len())
	}
	return 0
}

// number is a number, the largest there is if it is larger.
func number(t *ast.Term) uint64 {
	n, ok := t.Value.(ast.Number)
	if !ok {
		return 0
	}
	return whole(builtins.NumberToFloat(n))
}

func between(from, to *ast.Term) uint64 {
	a, isA := from.Value.(ast.Number)
	b, isB := to.Value.(ast.Number)
	if !isA || !isB {
		return 0
	}
	return whole(new(big.Float).Sub(builtins.NumberToFloat(a), builtins.NumberToFloat(b)))
}

func whole(f *big.Float) uint64 {
	n, _ := f.Abs(f).Uint64()
	return n
}

// widths is the sum of the numbers in a format.
func widths(format string) uint64 {
	sum, n := uint64(0), uint64(0)
	for _, r := range format {
		if r < '0' || r > '9' {
			sum, n = sum+n, 0
			continue
		}
		n = min(10*n+uint64(r-'0'), 1_000_000)
	}
	return sum + n
}

// have takes the steps that it costs to have a value, so that a text that is twice as
// long in each line of a policy ends with it.
func (m *meter) have(t *ast.Term) error {
	switch t.Value.(type) {
	case ast.String, ast.Number:
		return m.spend(size(t) / characters)
	}
	return m.spend(size(t) / items)
}

// items is how many items of a collection are had for one step.
const items = 16

// isMetered reports whether a function of Rego is called by way of the meter: all are
// but comparisons, and those of the evaluator itself.
func isMetered(name string) bool {
	b := ast.BuiltinMap[name]
	return growing[name] != nil || b != nil && (b.Infix == "" || slices.Contains([]string{"+", "-", "*", "/", "%"}, b.Infix)) && !strings.HasPrefix(name, "internal.")
}

// digits is how long a number may be that is counted with, and its exponent: squares of
// squares take all the time and memory there is. Longer ones are no Rego.
const digits = 1_000

// isModest reports whether a number is not too long to count with.
func isModest(n ast.Number) bool {
	_, exponent, _ := strings.Cut(strings.ToLower(string(n)), "e")
	size, err := strconv.Atoi(cmp.Or(exponent, "0"))
	return len(n) <= digits && err == nil && max(size, -size) <= digits
}

var errDigits = fmt.Errorf("a number has more than %d digits", digits)

// read takes the steps that it costs a function to look at what it is given. It fails
// where that is a number too long to count with.
func (m *meter) read(function string, t *ast.Term) error {
	if n, ok := t.Value.(ast.Number); ok && !isModest(n) {
		return errDigits
	}
	if function == "count" {
		return nil
	}
	return m.have(t)
}

// metered is the name of what is called in place of a function of Rego.
const metered = "weir.metered."

// meterCalls makes compiled modules call Rego's functions by way of the meter.
func meterCalls(c *ast.Compiler) {
	for _, m := range c.Modules {
		ast.WalkExprs(m, func(e *ast.Expr) bool {
			if e.IsCall() {
				terms := e.Terms.([]*ast.Term)
				if name := terms[0].String(); isMetered(name) {
					terms[0] = ast.NewTerm(ast.Ref{ast.VarTerm(metered + name)}).SetLocation(terms[0].Location)
				}
			}
			return false
		})
	}
}

// meteredBuiltins are what meterCalls has modules call.
func meteredBuiltins(m *meter, into map[string]*topdown.Builtin) {
	for _, b := range capabilities().Builtins {
		if !isMetered(b.Name) {
			continue
		}
		plain, cost := topdown.GetBuiltin(b.Name), growing[b.Name]
		into[metered+b.Name] = &topdown.Builtin{
			Decl: &ast.Builtin{Name: metered + b.Name, Decl: b.Decl},
			Func: func(bctx topdown.BuiltinContext, args []*ast.Term, yield func(*ast.Term) error) error {
				for _, a := range args {
					switch err := m.read(b.Name, a); {
					case errors.Is(err, errDigits):
						return topdown.Halt{Err: &topdown.Error{Code: topdown.BuiltinErr, Message: err.Error(), Location: bctx.Location}}
					case err != nil:
						return err
					}
				}
				if cost != nil {
					if err := cost(m, args); err != nil {
						return err
					}
				}
				return plain(bctx, args, func(t *ast.Term) error {
					if err := m.have(t); err != nil {
						return err
					}
					return yield(t)
				})
			},
		}
	}
}

// largest is how large a value a rule may put together of variables.
const largest = 10_000

// oversized reports the rules that put together a value of variables which hold
// one another, again and again: what it takes to write such a value out doubles
// with each line, and nothing meters that.
func oversized(c *ast.Compiler) []policies.Problem {
	var problems []policies.Problem
	for _, m := range c.Modules {
		for _, rule := range m.Rules {
			sizes, reported := map[ast.Var]int{}, false
			ast.WalkExprs(rule, func(e *ast.Expr) bool {
				if !e.IsEquality() && !e.IsAssignment() {
					return false
				}
				for side := range 2 {
					if v, ok := e.Operand(side).Value.(ast.Var); ok {
						sizes[v] = max(sizes[v], sizeWith(e.Operand(1-side).Value, sizes))
						if sizes[v] == largest && !reported {
							reported = true
							problems = append(problems, policies.Problem{Place: placeOf(e.Location), Message: "this puts together a value that doubles from line to line; make rules of its parts"})
						}
					}
				}
				return false
			})
		}
	}
	return problems
}

// sizeWith returns how many items a value has when variables have these sizes, at
// most the largest.
func sizeWith(v ast.Value, sizes map[ast.Var]int) int {
	sum := 1
	add := func(t *ast.Term) bool {
		sum = min(largest, sum+sizeWith(t.Value, sizes))
		return sum == largest
	}
	switch v := v.(type) {
	case ast.Var:
		sum = max(1, sizes[v])
	case *ast.Array:
		v.Until(add)
	case ast.Set:
		v.Until(add)
	case ast.Object:
		v.Until(func(key, value *ast.Term) bool { return add(key) || add(value) })
	}
	return sum
}
