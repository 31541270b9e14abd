package reach

import (
	"encoding/binary"
	"slices"
	"sync"

	"github.com/weir-policy/weir/policies"
)

// governing is a policy that selects a class, or may select it.
type governing struct {
	policy int32
	truth  policies.Truth
}

// governed lists, for each direction, the policies that govern something, in the
// order of evaluation.
type governed [2][]governing

// govern lists the policies that govern each class, and for each node those that
// govern what it forwards.
func (b *builder) govern(m *policies.Model, of *book) (classes [2]pages[[]governing], hosts *hosts) {
	for _, d := range policies.Directions {
		classes[d] = newPages[[]governing](len(b.classes))
	}
	hosts = b.newHosts(m)
	for _, i := range of.evaluationOrder() {
		p := of.policy(i)
		governs := func(at int32, t policies.Truth) {
			for _, d := range policies.Directions {
				if p.Governs[d] {
					classes[d].set(at, append(classes[d].at(at), governing{i, t}))
				}
			}
		}
		b.subjectOf(p, governs)
		for node, t := range hosts.selectedBy(i, p) {
			for _, class := range hosts.classes[node] {
				governs(class, t)
			}
			for _, class := range hosts.classes[-1] {
				governs(class, policies.Maybe)
			}
			if p.Forwarded {
				hosts.forward(node, p.Governs, governing{i, t})
			}
		}
	}
	return classes, hosts
}

// subjectOf yields the classes of pods that a policy applies to, or may apply to.
func (b *builder) subjectOf(p *policies.Policy, yield func(int32, policies.Truth)) {
	namespaces, pods := b.selectorsOf(&p.Subject)
	in := b.namespacesOf(namespaces)
	b.classesOf(in.yes, pods, yield)
	b.classesOf(in.maybe, pods, func(class int32, _ policies.Truth) { yield(class, policies.Maybe) })
}

// stage is what one tier makes of the traffic that comes to it: what it may
// allow, what it may pass on, what it cannot deny, and what of that it cannot
// pass on either.
type stage struct {
	id                       int32
	allow, pass, safe, final relation
	// certain is a stage that is in no doubt about any traffic.
	certain bool
}

// outcome is what some tiers, one behind the other, make of the traffic that
// comes to the first: what they may allow, and what they cannot deny.
type outcome struct{ allow, safe relation }

// evaluation makes the rows of one model. Classes that the same policies of a
// tier govern share the stage, and those with the same stages share the row.
type evaluation struct {
	*builder
	*book
	hosts     *hosts
	forwarded map[int32]*governed   // by node
	rules     [2]pages[[]*compiled] // of each policy
	stages    [2]table[string, *stage]
	byStages  table[string, *row]
	outcomes  table[string, outcome]
	// sparing is what a tier that spares a pod's own node makes of its traffic,
	// by whether it selects the pod.
	sparing [policies.Yes + 1]*stage
	count   int32 // of stages
	// stamps are other numbers for policies whose rules are not known to match what
	// they did before, of which stamped were given.
	stamps  table[int32, int32]
	stamped int32
}

func newEvaluation(b *builder, of *book, h *hosts) evaluation {
	e := evaluation{builder: b, book: of, hosts: h, forwarded: h.forwarded}
	e.sparing[policies.Yes] = e.newStage(b.universe, nil, b.universe)
	e.sparing[policies.Maybe] = e.newStage(b.universe, b.universe, b.universe)
	for _, d := range policies.Directions {
		e.rules[d] = newPages[[]*compiled](int(of.policies.count))
	}
	return e
}

// judge makes the rows of every class of a model.
func (b *builder) judge(m *policies.Model, p placement) *Judge {
	b.turnTo(&m.World, p)
	j := &Judge{frame: b.frame, ports: b.ports, world: &m.World, book: bookOf(m), placement: p, tongues: tonguesOf(m), labelled: b.labelled, inherited: m.Inherited()}
	j.ipv6 = j.tongues.ipv6()
	j.grouping = &grouping{frame: j.frame, world: j.world, place: p, counters: &sync.Pool{}}
	j.governing, j.hosts = b.govern(m, j.book)
	e := newEvaluation(b, j.book, j.hosts)
	j.local = newPages[*row](len(b.classes))
	for _, d := range policies.Directions {
		j.rows[d] = newPages[*row](len(b.classes))
		for class, list := range j.governing[d].each() {
			j.rows[d].set(class, e.row(d, class, list))
		}
	}
	for class, list := range j.governing[policies.Ingress].each() {
		j.local.set(class, e.rowFromOwnNode(class, list))
	}
	if b.options.Lasting {
		j.maker = &e
		j.book.findByRef()
		j.shareLists()
	}
	return j
}

func (e *evaluation) newStage(allow, pass, safe relation) *stage {
	s := &stage{id: e.count, allow: allow, pass: pass, safe: safe, final: e.subtract(safe, pass)}
	s.certain = slices.Equal(s.final, allow) && len(e.subtract(pass, safe)) == 0
	e.count++
	return s
}

// row returns what becomes of a class's traffic, given the policies that govern
// it.
func (e *evaluation) row(d policies.Direction, class int32, list []governing) *row {
	switch c := &e.classes[class]; {
	case c.role == faced:
		return e.byFace(class, func(face int32) *row { return e.row(d, face, list) })
	case len(e.nodeIDs) == 0:
		return e.tiers(d, class, list, false)
	case c.host():
		return e.sparingPods(e.passing(d, class, list, e.passedBy(e.hosts, c)), c.node)
	}
	return e.throughHosts(d, class, e.tiers(d, class, list, false))
}

// rowFromOwnNode returns what becomes of what comes to a class from a pod's own
// node.
func (e *evaluation) rowFromOwnNode(class int32, list []governing) *row {
	if e.classes[class].role == faced {
		return e.byFace(class, func(face int32) *row { return e.rowFromOwnNode(face, list) })
	}
	return e.tiers(policies.Ingress, class, list, true)
}

// tiers returns what all tiers together make of a class's traffic, or of what
// comes from a pod's own node.
func (e *evaluation) tiers(d policies.Direction, class int32, list []governing, fromOwnNode bool) *row {
	if len(list) == 0 {
		return e.open
	}
	var buf [8]*stage
	stages, key := buf[:0], make([]byte, 0, 16)
	for len(list) > 0 {
		n := e.sameTier(list)
		var s *stage
		if fromOwnNode {
			s = e.sparing[e.spares(list[:n])]
		}
		if s == nil {
			s = e.stage(d, class, list[:n])
		}
		stages, key, list = append(stages, s), binary.LittleEndian.AppendUint32(key, uint32(s.id)), list[n:]
	}
	r, ok := find(&e.byStages, key)
	if !ok {
		o := e.through(stages[0], e.compose(stages[1:], key[4:]))
		allow := e.intersect(o.allow, o.safe)
		r = e.internRow(allow, e.subtract(o.allow, allow))
		e.byStages.put(string(key), r)
	}
	return r
}

// sameTier returns how many policies at the head of a list are of one tier.
func (b *book) sameTier(list []governing) int {
	n := 1
	for n < len(list) && b.policy(list[n].policy).Tier == b.policy(list[0].policy).Tier {
		n++
	}
	return n
}

// spares reports whether policies of one tier let in what comes from a pod's own
// node, whatever their rules say: not where one of them was not understood, and
// perhaps where they only may select the pod.
func (b *book) spares(list []governing) policies.Truth {
	if tier := b.tierOf(b.policy(list[0].policy)); tier == nil || !tier.SparesOwnNode {
		return policies.No
	}
	truth := policies.No
	for _, g := range list {
		if b.policy(g.policy).Opaque != "" {
			return policies.No
		}
		truth = truth.Or(g.truth)
	}
	return truth
}

// compose puts stages one behind the other, from the last to the first, so that
// what the namespaces' own policies keep small stays small. What passes every
// stage is allowed. The key names the stages.
func (e *evaluation) compose(stages []*stage, key []byte) outcome {
	if len(stages) == 0 {
		return outcome{e.universe, e.universe}
	}
	known, ok := find(&e.outcomes, key)
	if !ok {
		known = e.through(stages[0], e.compose(stages[1:], key[4:]))
		e.outcomes.put(string(key), known)
	}
	return known
}

// through puts a stage before what becomes of the traffic behind it.
func (e *evaluation) through(s *stage, rest outcome) outcome {
	allow := e.unite(s.allow, e.intersect(s.pass, rest.allow))
	if s.certain && slices.Equal(rest.allow, rest.safe) {
		return outcome{allow, allow}
	}
	return outcome{allow, e.unite(s.final, e.intersect(s.safe, rest.safe))}
}

// stage returns what one tier makes of a class's traffic, given the policies of
// the tier that govern it.
func (e *evaluation) stage(d policies.Direction, class int32, list []governing) *stage {
	key := binary.LittleEndian.AppendUint32(make([]byte, 0, 64), uint32(len(list)))
	for _, g := range list {
		key = binary.LittleEndian.AppendUint32(key, e.stamp(g.policy)<<2|uint32(g.truth))
	}
	key = e.appendSubjectKey(key, d, class, list)
	s, ok := find(&e.stages[d], key)
	if !ok {
		s = e.evaluate(d, class, list)
		e.stages[d].put(string(key), s)
	}
	return s
}

// appendSubjectKey appends what the rules of some policies depend on in the class
// that they govern.
func (e *evaluation) appendSubjectKey(key []byte, d policies.Direction, class int32, list []governing) []byte {
	c, named := &e.classes[class], false
	for _, g := range list {
		p := e.book.policies.at(g.policy)
		if !p.depends[d] {
			continue
		}
		rules := p.Rules[d]
		for i := range rules {
			if rules[i].Own != nil {
				yes, possible := e.ownFamilies(c, rules[i].Own)
				key = append(key, byte(c.families)|byte(yes)<<2|byte(possible)<<4)
			}
			named = named || d == policies.Ingress && len(rules[i].Named)+len(rules[i].NotNamed) > 0
		}
	}
	if named {
		for _, n := range c.named {
			key = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint32(key, uint32(n.name)), n.number)
		}
	}
	return key
}

// evaluate works out a stage. A policy that was not understood, in no tier of
// the model, may do anything.
func (e *evaluation) evaluate(d policies.Direction, class int32, list []governing) *stage {
	tier := e.tierOf(e.policy(list[0].policy))
	if tier == nil {
		return e.newStage(e.universe, nil, nil)
	}
	undefined := e.normal([]layer{{e.ports.id(tier.Undefined), e.all}})
	if s := e.evaluateUnion(d, class, list, tier, undefined); s != nil {
		return s
	}
	if s := e.evaluateOrdered(d, class, list, tier, undefined); s != nil {
		return s
	}
	var allow, deny, pass relation
	// inside is what is open where some policy of the tier selects the class;
	// open is what is where none does.
	open, inside := e.universe, relation(nil)
	for len(list) > 0 {
		n := e.sameRank(list)
		left := e.unite(open, inside)
		// missed is what some policy that selects the class leaves open, kept is
		// what each may leave open, whether it selects the class or not.
		missed, kept, certain := relation(nil), left, false
		for _, g := range list[:n] {
			a := e.apply(d, class, g, left, undefined)
			allow, deny, pass = e.unite(allow, a.allow), e.unite(deny, a.deny), e.unite(pass, a.pass)
			missed = e.unite(missed, a.left)
			if g.truth == policies.Yes {
				kept, certain = e.intersect(kept, a.left), true
			}
		}
		inside = e.intersect(e.unite(inside, e.intersect(open, missed)), kept)
		if certain {
			open = nil
		}
		list = list[n:]
	}
	if tier.End == policies.ActionDeny {
		deny, inside = e.unite(deny, inside), nil
	}
	pass = e.unite(pass, e.unite(open, inside))
	return e.newStage(allow, pass, e.subtract(e.universe, deny))
}

// applied is what a policy that selects a class may do to traffic, and what it
// may leave open.
type applied struct{ allow, deny, pass, left relation }

// apply applies the rules of one policy to what is left open before it.
func (e *evaluation) apply(d policies.Direction, class int32, g governing, left, undefined relation) applied {
	unclear := e.intersect(left, undefined)
	if e.policy(g.policy).Opaque != "" {
		unclear = left
	}
	a := applied{allow: unclear, deny: unclear, left: e.subtract(left, unclear)}
	for _, r := range e.compileRules(d, class, g.policy) {
		if r.action == policies.ActionLog {
			continue
		}
		hit := e.intersect(a.left, e.normal(r.possible))
		switch r.action {
		case policies.ActionAllow:
			a.allow = e.unite(a.allow, hit)
		case policies.ActionDeny:
			a.deny = e.unite(a.deny, hit)
		case policies.ActionPass:
			a.pass = e.unite(a.pass, hit)
		}
		a.left = e.subtract(a.left, e.normal(r.yes))
	}
	return a
}

// sameRank returns how many policies at the head of a list, all of one tier, are
// of one priority. Any of them may be evaluated first.
func (b *book) sameRank(list []governing) int {
	n := 1
	for n < len(list) && b.policy(list[n].policy).Priority == b.policy(list[0].policy).Priority {
		n++
	}
	return n
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
		if g.truth != policies.Yes || e.policy(g.policy).Opaque != "" {
			return nil
		}
		for _, r := range e.compileRules(d, class, g.policy) {
			switch r.action {
			case policies.ActionAllow:
			case policies.ActionLog:
				continue
			default:
				return nil
			}
			yes = append(yes, r.yes...)
			possible = append(possible, r.possible...)
		}
	}
	safe := e.normal(yes)
	allow := safe
	if !slices.Equal(possible, yes) {
		allow = e.normal(possible)
	}
	return e.newStage(e.unite(allow, undefined), nil, e.subtract(safe, undefined))
}

// compileRules returns the rules of a policy in one direction as traffic. What
// does not depend on the class is compiled once.
func (e *evaluation) compileRules(d policies.Direction, class, policy int32) []*compiled {
	rules := e.policy(policy).Rules[d]
	all := e.rules[d].at(policy)
	if all == nil {
		all = make([]*compiled, len(rules))
		e.rules[d].set(policy, all)
	}
	for i := range rules {
		r := &rules[i]
		switch {
		case dependsOnSubject(r, d):
			all = slices.Clone(all)
			all[i] = e.compileRule(r, d, &e.classes[class])
		case all[i] == nil:
			all[i] = e.compileRule(r, d, nil)
		}
	}
	return all
}
