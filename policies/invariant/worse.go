package invariant

import (
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// whom is the ends that an item of an expression or of a policy in Rego names, and
// the ports on which it does.
type whom struct {
	ends  string
	ports netset.Ports
}

// namesMore reports whether an expression or a policy in Rego names ends, or ports of
// theirs, that it did not name before.
func namesMore(before, after *Result) bool {
	if len(after.whom) == 0 {
		return false
	}
	was := map[string]netset.Ports{}
	for _, w := range before.whom {
		was[w.ends] = was[w.ends].Union(w.ports)
	}
	for _, w := range after.whom {
		if ports, named := was[w.ends]; !named || !w.ports.Minus(ports).IsEmpty() {
			return true
		}
	}
	return false
}

// Worse returns something that breaks the k-th invariant and that did not break it in
// another set of the same invariants, whose judge shares its classes: a pair on some
// port, or a pod in some direction. It is nil where there is nothing, and for sentences
// that are not about pairs or pods: Exists, CEL and Rego. It is not explained yet.
func (s *Set) Worse(before *Set, k int, now time.Time) *Counterexample {
	i := &s.invariants[k]
	switch {
	case i.Form.isProgram() || i.Form == Exists:
		return nil
	case i.Form == Isolated:
		return s.worseIsolated(before, k, now)
	}
	g, is, was := &s.groups[k], s.finderOf(k, now), before.finderOf(k, now)
	for m := range s.judge.Newly(before.judge, g.from, g.to, g.ports, i.breaking()) {
		c := reach.Crossing{From: m.From.End, To: m.To.End, Ports: m.Ports, Pairs: 1}
		if !s.means(i, &c) {
			continue
		}
		x := is.counterexample(c)
		if is.forgives(&x) {
			continue
		}
		if x.Ports = x.Ports.Minus(before.brokenOn(k, was, m)); !x.Ports.IsEmpty() {
			x.judge = s.judge
			return &x
		}
	}
	return nil
}

// brokenOn returns the ports on which two ends broke an invariant that are of a later
// judge.
func (s *Set) brokenOn(k int, f *finder, m reach.Met) netset.Ports {
	i, g := &s.invariants[k], &s.groups[k]
	from, to := m.From.Was, m.To.Was
	if from == (reach.End{}) || to == (reach.End{}) || s.judge.Has(g.from, from) != policies.Yes || s.judge.Has(g.to, to) != policies.Yes {
		return netset.Ports{}
	}
	c := reach.Crossing{From: from, To: to, Ports: s.judge.DecidedAs(i.breaking(), from, to, g.ports)}
	x := f.counterexample(c)
	if !s.means(i, &c) || f.forgives(&x) {
		return netset.Ports{}
	}
	return c.Ports
}

func (s *Set) worseIsolated(before *Set, k int, now time.Time) *Counterexample {
	i, was := &s.invariants[k], before.finderOf(k, now)
	g, f := &s.groups[k], s.finderOf(k, now)
	for t := range s.judge.Twins(before.judge, g.from) {
		known := t.Was != (reach.End{}) && before.judge.Has(before.groups[k].from, t.Was) == policies.Yes &&
			!was.forgives(&Counterexample{ends: [2]reach.End{t.Was, {}}})
		for _, d := range i.Directions {
			if s.judge.Isolates(d, t.End) != policies.No || known && before.judge.Isolates(d, t.Was) == policies.No {
				continue
			}
			x := unisolated(s.judge, t.End, d)
			if x.Pairs = 1; !f.forgives(&x) {
				return &x
			}
		}
	}
	return nil
}

// finderOf returns a finder that has found nothing.
func (s *Set) finderOf(k int, now time.Time) *finder {
	i := &s.invariants[k]
	return &finder{Result: Result{Invariant: i}, judge: s.judge, waivers: s.groups[k].waivers, used: make([]bool, len(i.Waivers)), now: now}
}

// Foremost returns the result with a counterexample before all others.
func (r *Result) Foremost(x *Counterexample) *Result {
	led := *r
	led.Counterexamples = []Counterexample{*x}
	for _, other := range r.Counterexamples {
		if len(led.Counterexamples) < MostCounterexamples && other.ends != x.ends {
			led.Counterexamples = append(led.Counterexamples, other)
		}
	}
	return &led
}
