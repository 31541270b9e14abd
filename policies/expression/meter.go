package expression

import (
	"fmt"
	"strings"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"github.com/google/cel-go/interpreter"
)

// meter counts the steps of one evaluation and ends it at a limit, always at the
// same step.
//
// The interpreter has a cost limit of its own, but keeping that takes the square of
// what a loop goes through: over 10,000 elements it is 100 times slower.
type meter struct {
	spent, limit uint64
	listed       bool                // connections are paid for
	inside       map[*object]*Object // what stands inside other objects of the answer
}

// spend takes so many steps, and ends the evaluation when there are no more.
func (m *meter) spend(steps uint64) {
	m.spent += steps
	if m.spent > m.limit {
		panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: fmt.Sprintf(
			"it takes more than %d steps; let it go through less", m.limit)})
	}
}

// characters is how long a text a function makes in one step.
const characters = 16

// sorting is what an element of a list costs that is sorted.
const sorting = 20

// plan says what a step is at each part of an expression.
type plan struct {
	rounds map[int64]bool // loop conditions: each round of a loop is a step
	walked map[int64]int  // lists that a function goes through: so many steps for each element
	calls  map[int64]*function
	plain  map[int64]bool // maps that a function is given
	looped map[int64]bool // maps that a loop goes through
}

func newPlan(a *ast.AST) plan {
	p := plan{rounds: map[int64]bool{}, walked: map[int64]int{}, calls: map[int64]*function{}, plain: map[int64]bool{}, looped: map[int64]bool{}}
	ast.PreOrderVisit(a.Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.ComprehensionKind:
			loop := e.AsComprehension()
			p.rounds[loop.LoopCondition().ID()] = true
			p.looped[loop.IterRange().ID()] = mayBeMap(a, loop.IterRange())
		case ast.CallKind:
			p.addCall(a, e)
		}
	}))
	return p
}

func (p *plan) addCall(a *ast.AST, e ast.Expr) {
	call := e.AsCall()
	if f := replaced[call.FunctionName()]; f != nil {
		p.calls[e.ID()] = f
	}
	if reference := a.ReferenceMap()[e.ID()]; reference != nil {
		for _, id := range reference.OverloadIDs {
			if f := bindings[id]; f != nil {
				p.calls[e.ID()] = f
			}
		}
	}
	arguments := call.Args()
	if call.IsMemberFunction() {
		arguments = append([]ast.Expr{call.Target()}, arguments...)
	}
	switch call.FunctionName() {
	case operators.Add, operators.Index, operators.OptIndex, operators.Conditional, "size":
		return // none of these goes through a list
	}
	for _, argument := range arguments {
		if a.GetType(argument.ID()).Kind() == types.ListKind {
			p.walked[argument.ID()] = 1
			if strings.Contains(strings.ToLower(call.FunctionName()), "sort") {
				p.walked[argument.ID()] = sorting
			}
		}
		p.plain[argument.ID()] = mayBeMap(a, argument)
	}
}

func mayBeMap(a *ast.AST, e ast.Expr) bool {
	kind := a.GetType(e.ID()).Kind()
	return kind == types.MapKind || kind == types.DynKind
}

// decorate puts the meter, and the functions that ask the world, into a program.
func (p *plan) decorate(w *World, i interpreter.InterpretableV2) interpreter.InterpretableV2 {
	if call, ok := i.(interpreter.InterpretableCall); ok {
		if f := p.calls[i.ID()]; f != nil {
			i = &asking{call, w, f}
		}
		i = &metered{i, w.meter}
	}
	switch id := i.ID(); {
	case p.rounds[id]:
		return &round{i, w.meter}
	case p.walked[id] > 0:
		return &walked{i, w.meter, p.walked[id]}
	case p.plain[id]:
		return &plain{i, w.meter}
	case p.looped[id]:
		return &looped{plain{i, w.meter}}
	}
	return i
}

// metered costs a step, and more where it makes a long text.
type metered struct {
	interpreter.InterpretableV2
	*meter
}

func (m *metered) Exec(f *interpreter.ExecutionFrame) ref.Val {
	m.spend(1)
	v := m.InterpretableV2.Exec(f)
	if text, ok := v.(types.String); ok {
		m.spend(uint64(len(text)) / characters)
	}
	return v
}

func (m *metered) Eval(a interpreter.Activation) ref.Val { return m.Exec(interpreter.AsFrame(a)) }

// round costs a step each time that a loop goes round.
type round struct {
	interpreter.InterpretableV2
	*meter
}

func (r *round) Exec(f *interpreter.ExecutionFrame) ref.Val {
	r.spend(1)
	return r.InterpretableV2.Exec(f)
}

func (r *round) Eval(a interpreter.Activation) ref.Val { return r.Exec(interpreter.AsFrame(a)) }

// walked is a list that costs so many steps for each element.
type walked struct {
	interpreter.InterpretableV2
	*meter
	each int
}

func (l *walked) Exec(f *interpreter.ExecutionFrame) ref.Val {
	v := l.InterpretableV2.Exec(f)
	if all, ok := v.(traits.Sizer); ok {
		l.spend(uint64(l.each) * uint64(all.Size().(types.Int)))
	}
	return v
}

func (l *walked) Eval(a interpreter.Activation) ref.Val { return l.Exec(interpreter.AsFrame(a)) }

// asking is a call of a function that needs the world.
type asking struct {
	interpreter.InterpretableCall
	world    *World
	function *function
}

func (c *asking) Exec(f *interpreter.ExecutionFrame) ref.Val {
	var arguments []ref.Val
	for _, a := range c.Args() {
		v := a.Exec(f)
		if types.IsUnknownOrError(v) {
			return v
		}
		arguments = append(arguments, v)
	}
	if err := c.function.check(arguments); err != nil {
		return types.LabelErrNode(c.ID(), types.WrapErr(err))
	}
	return types.LabelErrNode(c.ID(), c.function.call(c.world, arguments))
}

func (c *asking) Eval(a interpreter.Activation) ref.Val { return c.Exec(interpreter.AsFrame(a)) }

// plain is a map that is what the interpreter takes for one: labels are not.
type plain struct {
	interpreter.InterpretableV2
	*meter
}

func (p *plain) Exec(f *interpreter.ExecutionFrame) ref.Val {
	v := p.InterpretableV2.Exec(f)
	if l, ok := v.(labels); ok {
		p.spend(uint64(5 + len(l)))
		return l.plain()
	}
	return v
}

func (p *plain) Eval(a interpreter.Activation) ref.Val { return p.Exec(interpreter.AsFrame(a)) }

// looped is a map that a loop goes through in the order of its keys; maps of Go
// have none.
type looped struct{ plain }

func (l *looped) Exec(f *interpreter.ExecutionFrame) ref.Val {
	v := l.plain.Exec(f)
	if m, ok := v.(traits.Mapper); ok {
		l.spend(uint64(m.Size().(types.Int)))
		return newOrdered(m)
	}
	return v
}

func (l *looped) Eval(a interpreter.Activation) ref.Val { return l.Exec(interpreter.AsFrame(a)) }
