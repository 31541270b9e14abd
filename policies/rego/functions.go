package rego

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/types"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// function is one that Rego does not have. It costs a number of steps.
type function struct {
	name   string
	args   []types.Type
	result types.Type
	cost   uint64
	call   func(w *World, m *meter, args []*ast.Term) (*ast.Term, error)
}

var (
	endType  = types.Named("end", types.NewAny(types.S, types.NewObject(nil, types.NewDynamicProperty(types.A, types.A))))
	portType = types.Named("port", types.NewAny(types.S, types.N))
)

var functions = []*function{
	{"weir.reach", []types.Type{endType, endType, portType}, types.S, 20, (*World).reach},
	{"weir.explain", []types.Type{endType, endType, portType}, types.S, 50, (*World).explain},
	{"weir.select", []types.Type{types.Named("namespaces", types.S), types.Named("pods", types.S)}, types.NewSet(types.S), 20, (*World).selectPods},
	{"weir.flows", nil, types.NewArray(nil, types.NewObject(nil, types.NewDynamicProperty(types.S, types.A))), 20, (*World).flows},
}

func (f *function) declaration() *ast.Builtin {
	return &ast.Builtin{Name: f.name, Decl: types.NewFunction(f.args, f.result)}
}

// Functions are the functions that Rego does not have, for OPA's own runner of
// tests. They may be called from one goroutine at a time.
func (w *World) Functions(ctx context.Context) []*topdown.Builtin {
	var all []*topdown.Builtin
	builtins := w.builtins(&meter{ctx: ctx, limit: math.MaxUint64})
	for _, f := range functions {
		all = append(all, builtins[f.name])
	}
	return all
}

// builtins are what an evaluation may call besides Rego's own functions.
func (w *World) builtins(m *meter) map[string]*topdown.Builtin {
	all := map[string]*topdown.Builtin{}
	for _, f := range functions {
		all[f.name] = &topdown.Builtin{
			Decl: f.declaration(),
			Func: func(bctx topdown.BuiltinContext, args []*ast.Term, yield func(*ast.Term) error) error {
				if err := m.spend(f.cost); err != nil {
					return err
				}
				v, err := f.call(w, m, args)
				if err != nil {
					return topdown.Halt{Err: &topdown.Error{Code: topdown.BuiltinErr, Message: fmt.Sprintf("%s: %s", f.name, err), Location: bctx.Location}}
				}
				return yield(v)
			},
		}
	}
	meteredBuiltins(m, all)
	return all
}

func question3(args []*ast.Term) (from, to, port string, err error) {
	if from, err = endText(args[0].Value); err != nil {
		return
	}
	if to, err = endText(args[1].Value); err != nil {
		return
	}
	port, err = portText(args[2].Value)
	return
}

func (w *World) reach(_ *meter, args []*ast.Term) (*ast.Term, error) {
	from, to, port, err := question3(args)
	if err != nil {
		return nil, err
	}
	v, err := w.verdict(from, to, port)
	return ast.InternedTerm(v.String()), err
}

func (w *World) explain(_ *meter, args []*ast.Term) (*ast.Term, error) {
	from, to, port, err := question3(args)
	if err != nil {
		return nil, err
	}
	d, err := w.decide(from, to, port)
	return ast.StringTerm(expression.Reason(&d)), err
}

// selectPods returns the names of the pods that two label selectors of Kubernetes
// select, one of their namespace and one of themselves.
func (w *World) selectPods(m *meter, args []*ast.Term) (*ast.Term, error) {
	var texts [2]string
	var selectors [2]selector.Selector
	for i := range texts {
		text, ok := args[i].Value.(ast.String)
		if !ok {
			return nil, fmt.Errorf("%s is no selector; give a text such as \"app=db\"", args[i])
		}
		var err error
		if selectors[i], err = selector.Parse(string(text)); err != nil {
			return nil, err
		}
		texts[i] = string(text)
	}
	model := w.judge.Model()
	if err := m.spend(uint64(len(model.Pods)) / 16); err != nil {
		return nil, err
	}
	if known := w.pods[texts]; known != nil {
		return known, nil
	}
	in := map[string]bool{}
	for i := range model.Namespaces {
		if n := &model.Namespaces[i]; reach.InNamespace(selectors[0], n) == policies.Yes {
			in[n.Name] = true
		}
	}
	var names []*ast.Term
	for i := range model.Pods {
		if p := &model.Pods[i]; in[p.Ref.Namespace] && selectors[1].Matches(p.Labels) {
			names = append(names, ast.StringTerm(p.Ref.String()))
		}
	}
	found := ast.SetTerm(names...)
	w.pods[texts] = found
	return found, nil
}

// flows returns what was recorded.
func (w *World) flows(m *meter, _ []*ast.Term) (*ast.Term, error) {
	if w.recorded.Find == nil {
		return nil, errors.New("there are no recorded flows here; weir check and weir preview take some by --flows")
	}
	section, err := w.section(m.ctx, "flows", recordedFlows, m)
	if err != nil {
		return nil, err
	}
	return ast.NewTerm(section), nil
}
