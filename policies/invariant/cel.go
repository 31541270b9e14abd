package invariant

import (
	"context"
	"errors"
	"fmt"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// ExpressionTypes are the types that the expression of an invariant may have. An
// empty list breaks nothing, of whatever it would be.
var ExpressionTypes = []string{"bool", "list(Connection)", "list(string)", "list(dyn)"}

// evaluate asks an expression. It fails when the context is done.
func (s *Set) evaluate(ctx context.Context, k int, f *finder) error {
	if s.world == nil {
		s.world = expression.NewWorld(s.judge, expression.Recorded{})
	}
	v, err := s.invariants[k].CEL.Eval(ctx, s.world, s.Steps)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var p policies.Problem
	switch v := v.(type) {
	case bool:
		if !v && !s.offending(ctx, k, f) {
			f.breaks(Counterexample{Because: "the expression is false", Pairs: 1})
		}
		return ctx.Err()
	case expression.List:
		for _, item := range v {
			s.listed(item, f)
		}
		return nil
	}
	if errors.As(err, &p) && p.Place.Line == 0 {
		err = errors.New(p.Message)
	}
	if err == nil {
		err = fmt.Errorf("it is a %T, and no bool and no list", v)
	}
	f.Problem = err.Error()
	return nil
}

// offending takes of what an expression is false, and reports whether that is known.
func (s *Set) offending(ctx context.Context, k int, f *finder) bool {
	o := s.invariants[k].CEL.Offending()
	if o == nil {
		return false
	}
	v, err := o.Eval(ctx, s.world, s.Steps)
	items, ok := v.(expression.List)
	if err != nil || !ok {
		return false
	}
	for _, item := range items {
		switch object, isObject := item.(*expression.Object); {
		case isObject && object.Connection != nil:
			s.listed(item, f)
		case isObject:
			f.breaks(Counterexample{Because: fmt.Sprintf(o.Says, object.Text), Pairs: 1})
		default:
			f.breaks(Counterexample{Because: fmt.Sprintf(o.Says, fmt.Sprint(item)), Pairs: 1})
		}
	}
	return len(items) > 0
}

// listed takes one item of the list of what breaks an invariant.
func (s *Set) listed(item expression.Value, f *finder) {
	switch item := item.(type) {
	case string:
		f.breaks(Counterexample{Because: item, Pairs: 1})
	case *expression.Object:
		if item.Connection == nil {
			f.breaks(Counterexample{Because: item.Text, Pairs: 1})
			return
		}
		c := item.Connection
		verdict, ports := policies.Allow, c.Allow
		if ports.IsEmpty() {
			verdict, ports = policies.Unknown, c.Unknown
		}
		from, to, ok := s.pairOf(c, ports, verdict)
		if !ok {
			f.breaks(Counterexample{Because: item.Text, Pairs: 1})
			return
		}
		x := f.counterexample(reach.Crossing{From: from, To: to, Ports: ports, Pairs: 1})
		x.named = c.From.String() + " " + c.To.String()
		f.breaks(x)
	default:
		f.breaks(Counterexample{Because: fmt.Sprint(item), Pairs: 1})
	}
}

// pairOf returns ends of the two peers of a connection between which there is
// this verdict on the lowest of some ports.
func (s *Set) pairOf(c *policies.Connection, ports netset.Ports, verdict policies.Verdict) (from, to reach.End, ok bool) {
	protocol, port, ok := lowest(ports)
	if !ok {
		return from, to, false
	}
	for _, from := range s.endsOf(c.From) {
		for _, to := range s.endsOf(c.To) {
			if from != to && s.judge.Verdict(from, to, protocol, port) == verdict {
				return from, to, true
			}
		}
	}
	return from, to, false
}

// endsOf returns the ends that a peer of a listing stands for.
func (s *Set) endsOf(p *policies.Peer) []reach.End {
	if p.IsOutside() {
		return s.judge.Ends(policies.Target{Addresses: netset.Block{CIDR: *p.CIDR, Except: p.Except}.Addresses()})
	}
	if s.workloads == nil {
		s.workloads = map[policies.Ref][]int{}
		for i := range s.judge.World().Pods {
			w := s.judge.World().Pods[i].Workload
			s.workloads[w] = append(s.workloads[w], i)
		}
	}
	return s.judge.Ends(policies.Target{Pods: s.workloads[policies.Ref{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}]})
}
