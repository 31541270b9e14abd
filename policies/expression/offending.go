package expression

import (
	"fmt"
	"strings"

	"github.com/google/cel-go/common/ast"
	"github.com/google/cel-go/common/operators"
	"github.com/google/cel-go/common/types"
)

// Offending lists what makes an expression false, and says it of each of them.
type Offending struct {
	*Expression
	Says string // "it is not true of %s"
}

// Offending returns what lists the items that make the expression false, where its whole
// is X.all(v, e), X.exists_one(v, e) or !X.exists(v, e); nil elsewhere.
func (x *Expression) Offending() *Offending { return x.offending() }

func offending(text string, a *ast.AST) *Offending {
	e, macro, says := a.Expr(), "", "it is true of %s"
	if e.Kind() == ast.CallKind && e.AsCall().FunctionName() == operators.LogicalNot {
		e, macro = e.AsCall().Args()[0], ".exists("
		if text = strings.TrimSpace(text); !strings.HasPrefix(text, "!") {
			return nil
		}
		text = text[1:]
	}
	if e.Kind() != ast.ComprehensionKind || e.AsComprehension().HasIterVar2() {
		return nil
	}
	loop := e.AsComprehension()
	is := func(value any) bool {
		init := loop.AccuInit()
		return init.Kind() == ast.LiteralKind && init.AsLiteral().Value() == value
	}
	step := func(operator string) bool {
		return loop.LoopStep().Kind() == ast.CallKind && loop.LoopStep().AsCall().FunctionName() == operator
	}
	not := ""
	switch {
	case macro != "" && (!is(false) || !step(operators.LogicalOr)):
		return nil
	case macro != "":
	case is(true) && step(operators.LogicalAnd):
		macro, says, not = ".all(", "it is not true of %s", "!"
	case is(int64(0)) && step(operators.Conditional):
		macro, says = ".exists_one(", "it is true of %s, and may be of one only"
	default:
		return nil
	}
	return listing(text, loop.IterVar(), macro, not, says)
}

// listing writes X.filter(v, e) for a macro that is the whole of a text. Of several of the
// name that is the first whose X is a list by itself.
func listing(text, variable, macro, not, says string) *Offending {
	end := strings.LastIndexByte(text, ')')
	for at := 0; ; {
		next := strings.Index(text[at:], macro)
		if next < 0 {
			return nil
		}
		at += next
		given, condition, ok := strings.Cut(text[at+len(macro):max(end, at+len(macro))], ",")
		at += len(macro)
		if !ok || strings.TrimSpace(given) != variable {
			continue
		}
		over := text[:at-len(macro)]
		if x, err := Compile(over); err != nil || x.ast.OutputType().Kind() != types.ListKind {
			continue
		}
		if x, err := Compile(fmt.Sprintf("(%s\n).filter(%s, %s(%s\n))", over, variable, not, condition)); err == nil {
			return &Offending{x, says}
		}
	}
}
