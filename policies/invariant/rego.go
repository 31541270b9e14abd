package invariant

import (
	"context"
	"errors"
	"fmt"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/reach"
)

// evaluateRego asks a policy in Rego. It fails when the context is done.
func (s *Set) evaluateRego(ctx context.Context, p expression.Program, f *finder) error {
	violations, memory, err := p.Evaluate(ctx, s.judge, s.Recorded, s.regoMemory, s.RegoSteps)
	s.regoMemory = memory
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, v := range violations {
		x := Counterexample{Says: v.Message, Because: v.Message, Pairs: 1}
		if err = s.locate(v, &x); err != nil {
			err = fmt.Errorf("%q: %w", v.Message, err)
			break
		}
		f.breaks(x)
	}
	if err != nil {
		if at := (policies.Problem{}); errors.As(err, &at) && at.Place.Line == 0 {
			err = errors.New(at.Message)
		}
		f.Problem = err.Error()
	}
	return nil
}

// locate gives a counterexample the ends and the ports that a violation names: of
// all that they stand for a pair that is decided as most say, first those that are
// allowed.
func (s *Set) locate(v expression.Violation, x *Counterexample) error {
	if v.From == "" {
		return nil
	}
	from, err := s.endsNamed(v.From)
	if err != nil {
		return err
	}
	x.ends[0] = from[0]
	x.From, x.named = s.judge.Peer(from[0]), v.From+" "+v.To
	if v.To == "" {
		return nil
	}
	to, err := s.endsNamed(v.To)
	if err != nil {
		return err
	}
	port, err := policies.ParsePort(v.Port)
	if err != nil {
		return err
	}
	for _, wanted := range []policies.Verdict{policies.Allow, policies.Deny, policies.Unknown} {
		for _, a := range from {
			for _, b := range to {
				ports := port.Ports
				if port.Name != "" {
					ports = s.judge.Named(b, port.Name)
				}
				if ports = s.judge.DecidedAs(wanted, a, b, ports); a != b && !ports.IsEmpty() {
					x.ends, x.Ports = [2]reach.End{a, b}, ports
					return nil
				}
			}
		}
	}
	return fmt.Errorf("from %s to %s on %s there is no connection to decide", v.From, v.To, v.Port)
}

// endsNamed returns the ends that a text stands for, at least one.
func (s *Set) endsNamed(text string) ([]reach.End, error) {
	t, err := s.judge.Model().Find(text)
	if err != nil {
		return nil, err
	}
	ends := s.judge.Ends(t)
	if len(ends) == 0 {
		return nil, fmt.Errorf("%s is nobody", text)
	}
	return ends, nil
}
