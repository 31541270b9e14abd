package reach

import (
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// governing is a policy that selects a class, or may select it.
type governing struct {
	policy int32
	truth  policies.Truth
}

// govern lists, for each direction and class, the policies that govern it, in
// the order of evaluation.
func (b *builder) govern(m *policies.Model) [2][][]governing {
	var lists [2][][]governing
	for _, d := range policies.Directions {
		lists[d] = make([][]governing, len(b.classes))
	}
	for _, i := range evaluationOrder(m) {
		p := &m.Policies[i]
		in := b.namespacesOf(p.Subject.Namespaces)
		for _, s := range []struct {
			in    []int32
			truth policies.Truth
		}{{in.yes, policies.Yes}, {in.maybe, policies.Maybe}} {
			if len(s.in) == 0 {
				continue
			}
			b.classesOf(s.in, p.Subject.Pods, func(class int32) {
				for _, d := range policies.Directions {
					if p.Governs[d] {
						lists[d][class] = append(lists[d][class], governing{int32(i), s.truth})
					}
				}
			})
		}
	}
	return lists
}

// evaluationOrder returns the indexes of the policies by tier; within a tier
// they stand in order already. Policies that were not understood come first.
func evaluationOrder(m *policies.Model) []int {
	order := make([]int, len(m.Policies))
	for i := range order {
		order[i] = i
	}
	rank := func(i int) int {
		return slices.IndexFunc(m.Tiers, func(t policies.Tier) bool { return t.Name == m.Policies[i].Tier })
	}
	slices.SortStableFunc(order, func(x, y int) int { return rank(x) - rank(y) })
	return order
}

// stage is what one tier makes of the traffic that comes to it: what it may
// allow, what it may pass on, and what it cannot deny.
type stage struct {
	id                int32
	allow, pass, safe relation
}

// evaluation makes the rows of one model. Classes that the same policies of a
// tier govern share the stage, and those with the same stages share the row.
type evaluation struct {
	*builder
	model    *policies.Model
	rules    [2][][]*compiled // of each policy
	stages   [2]map[string]*stage
	byStages map[string]*row
	count    int32 // of stages
}

// judge makes the rows of every class of a model.
func (b *builder) judge(m *policies.Model, p placement) *Judge {
	j := &Judge{frame: b.frame, ports: b.ports, model: m, placement: p, governing: b.govern(m)}
	e := evaluation{builder: b, model: m, byStages: map[string]*row{}}
	for _, d := range policies.Directions {
		e.rules[d] = make([][]*compiled, len(m.Policies))
		e.stages[d] = map[string]*stage{}
		j.rows[d] = make([]*row, len(b.classes))
		for class, list := range j.governing[d] {
			j.rows[d][class] = e.row(d, int32(class), list)
		}
	}
	return j
}

// row returns what all tiers together make of a class's traffic.
func (e *evaluation) row(d policies.Direction, class int32, list []governing) *row {
	if len(list) == 0 {
		return e.open
	}
	var buf [8]*stage
	stages, key := buf[:0], make([]byte, 0, 16)
	for len(list) > 0 {
		n := sameTier(e.model, list)
		s := e.stage(d, class, list[:n])
		stages, key, list = append(stages, s), binary.LittleEndian.AppendUint32(key, uint32(s.id)), list[n:]
	}
	r, ok := e.byStages[string(key)]
	if !ok {
		r = e.compose(stages)
		e.byStages[string(key)] = r
	}
	return r
}

// sameTier returns how many policies at the head of a list are of one tier.
func sameTier(m *policies.Model, list []governing) int {
	n := 1
	for n < len(list) && m.Policies[list[n].policy].Tier == m.Policies[list[0].policy].Tier {
		n++
	}
	return n
}

// compose puts stages one behind the other. Traffic that may come to a stage
// and that the stage may deny is not allowed for certain; what passes every
// stage is allowed.
func (e *evaluation) compose(stages []*stage) *row {
	var possible relation
	coming := e.universe
	for _, s := range stages {
		possible = e.unite(possible, e.intersect(coming, s.allow))
		coming = e.intersect(coming, s.pass)
	}
	possible = e.unite(possible, coming)
	allow := possible
	coming = e.universe
	for _, s := range stages {
		allow = e.unite(e.intersect(allow, s.safe), e.subtract(allow, coming))
		coming = e.intersect(coming, s.pass)
	}
	return e.internRow(allow, e.subtract(possible, allow))
}

// stage returns what one tier makes of a class's traffic, given the policies of
// the tier that govern it.
func (e *evaluation) stage(d policies.Direction, class int32, list []governing) *stage {
	key := make([]byte, 0, 64)
	for _, g := range list {
		key = binary.LittleEndian.AppendUint32(key, uint32(g.policy)<<2|uint32(g.truth))
	}
	if d == policies.Ingress && e.useNames(list) {
		for _, numbers := range e.classes[class].named {
			key = append(append(key, '|'), numbers...)
		}
	}
	s, ok := e.stages[d][string(key)]
	if !ok {
		s = e.evaluate(d, class, list)
		s.id = e.count
		e.count++
		e.stages[d][string(key)] = s
	}
	return s
}

// useNames reports whether some ingress rule means ports by name, so that what
// it means depends on the class.
func (e *evaluation) useNames(list []governing) bool {
	return slices.ContainsFunc(list, func(g governing) bool {
		return slices.ContainsFunc(e.model.Policies[g.policy].Rules[policies.Ingress], func(r policies.Rule) bool { return len(r.Named) > 0 })
	})
}

// evaluate works out a stage. A policy that was not understood, in no tier of
// the model, may do anything.
func (e *evaluation) evaluate(d policies.Direction, class int32, list []governing) *stage {
	name := e.model.Policies[list[0].policy].Tier
	at := slices.IndexFunc(e.model.Tiers, func(t policies.Tier) bool { return t.Name == name })
	if at < 0 {
		return &stage{allow: e.universe}
	}
	tier := &e.model.Tiers[at]
	undefined := e.normal([]layer{{e.ports.id(tier.Undefined), e.all}})
	if s := e.evaluateUnion(d, class, list, tier, undefined); s != nil {
		return s
	}
	var allow, deny, pass relation
	// inside is what is open where some policy of the tier selects the class;
	// open is what is where none does.
	open, inside := e.universe, relation(nil)
	for _, g := range list {
		left := e.unite(open, inside)
		unclear := e.intersect(left, undefined)
		if e.model.Policies[g.policy].Opaque != "" {
			unclear = left
		}
		allow, deny, left = e.unite(allow, unclear), e.unite(deny, unclear), e.subtract(left, unclear)
		for _, r := range e.compileRules(d, class, g.policy) {
			hit := e.intersect(left, e.normal(r.possible))
			switch r.action {
			case policies.ActionAllow:
				allow = e.unite(allow, hit)
			case policies.ActionDeny:
				deny = e.unite(deny, hit)
			case policies.ActionPass:
				pass = e.unite(pass, hit)
			}
			left = e.subtract(left, e.normal(r.yes))
		}
		if g.truth == policies.Yes {
			open, inside = nil, left
		} else {
			inside = e.unite(inside, left)
		}
	}
	if tier.End == policies.ActionDeny {
		deny, inside = e.unite(deny, inside), nil
	}
	pass = e.unite(pass, e.unite(open, inside))
	return &stage{allow: allow, pass: pass, safe: e.subtract(e.universe, deny)}
}

// evaluateUnion is evaluate for the common case: a tier that ends in deny, and
// rules that only allow. Their order makes no difference then, so the peers of
// equal ports are joined before ports are compared. It returns nil where a rule
// does otherwise.
func (e *evaluation) evaluateUnion(d policies.Direction, class int32, list []governing, tier *policies.Tier, undefined relation) *stage {
	if tier.End != policies.ActionDeny {
		return nil
	}
	var yes, possible []layer
	for _, g := range list {
		if g.truth != policies.Yes || e.model.Policies[g.policy].Opaque != "" {
			return nil
		}
		for _, r := range e.compileRules(d, class, g.policy) {
			if r.action != policies.ActionAllow {
				return nil
			}
			yes = append(yes, r.yes...)
			possible = append(possible, r.possible...)
		}
	}
	return &stage{allow: e.unite(e.normal(possible), undefined), safe: e.subtract(e.normal(yes), undefined)}
}

// compileRules returns the rules of a policy in one direction as traffic. What
// does not depend on the class is compiled once.
func (e *evaluation) compileRules(d policies.Direction, class, policy int32) []*compiled {
	rules := e.model.Policies[policy].Rules[d]
	if e.rules[d][policy] == nil {
		e.rules[d][policy] = make([]*compiled, len(rules))
	}
	all := e.rules[d][policy]
	for i := range rules {
		r := &rules[i]
		switch {
		case d == policies.Ingress && len(r.Named) > 0:
			all = slices.Clone(all)
			all[i] = e.compileRule(r, d, &e.classes[class])
		case all[i] == nil:
			all[i] = e.compileRule(r, d, nil)
		}
	}
	return all
}
