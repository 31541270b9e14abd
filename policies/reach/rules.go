package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Parts takes the policies of a model apart: it says what one match or one rule
// means by itself, whatever the others do. It serves one goroutine.
type Parts struct {
	judge    *Judge
	model    *policies.Model
	builder  *builder
	inClass  [][]int    // pods by class
	subject  [2][][]int // classes that each policy governs or may govern, by direction
	reaches  map[partKey]reached
	everyone map[*policies.Rule]bool
}

// partKey is a rule with this peer instead of its own, or its own for nil, and a
// class that its policy governs, where that makes a difference.
type partKey struct {
	rule  *policies.Rule
	peer  *policies.Match
	class int
}

// reached is the traffic that a rule matches for sure, and all that it may.
type reached struct{ yes, possible relation }

// Parts returns the parts of the judge's model.
func (j *Judge) Parts() *Parts {
	j = j.settled()
	p := &Parts{judge: j, model: j.Model(), builder: newBuilder(j.frame), inClass: make([][]int, len(j.classes)), reaches: map[partKey]reached{}, everyone: map[*policies.Rule]bool{}}
	p.builder.turnTo(j.world, j.placement)
	for i, class := range j.placement.pods {
		p.inClass[class] = append(p.inClass[class], i)
	}
	for _, d := range policies.Directions {
		p.subject[d] = make([][]int, len(p.model.Policies))
		for class, list := range j.governing[d].each() {
			for _, g := range list {
				i := j.book.index(g.policy)
				p.subject[d][i] = append(p.subject[d][i], int(class))
			}
		}
	}
	return p
}

// Subject returns the pods that the i-th policy applies to in one direction, or
// may apply to, as indexes of World.Pods.
func (p *Parts) Subject(i int, d policies.Direction) []int {
	var pods []int
	for _, class := range p.subject[d][i] {
		pods = append(pods, p.inClass[class]...)
	}
	slices.Sort(pods)
	return pods
}

// Selects reports whether the i-th policy applies, or may apply, to anything at
// all: pods, nodes, what hosts forward.
func (p *Parts) Selects(i int) bool {
	for _, d := range policies.Directions {
		if len(p.subject[d][i]) > 0 {
			return true
		}
		for _, lists := range p.judge.hosts.forwarded {
			if governs(lists[d], i) {
				return true
			}
		}
	}
	return false
}

// Pods returns the pods that a match describes, or may describe, as indexes of
// World.Pods.
func (p *Parts) Pods(m *policies.Match) []int {
	var pods []int
	for column := range p.builder.peers(m).possible.columns() {
		if class := p.builder.columns[column].class; class >= 0 {
			pods = append(pods, p.inClass[class]...)
		}
	}
	slices.Sort(pods)
	return slices.Compact(pods)
}

// Sets returns the network sets that a match describes, or may describe, by its
// selectors, as indexes of World.Sets.
func (p *Parts) Sets(m *policies.Match) []int {
	if !m.Endpoints {
		return nil
	}
	var sets []int
	for i := range p.builder.labelledLike(m.Pods) {
		if i < len(p.judge.world.Sets) && isLabelled(&p.model.World, m, &p.builder.labelled[i]) > policies.No {
			sets = append(sets, i)
		}
	}
	slices.Sort(sets)
	return slices.Compact(sets)
}

// Describes reports whether a match describes, or may describe, any pod, node
// or address at all.
func (p *Parts) Describes(m *policies.Match) bool { return !p.builder.peers(m).possible.empty() }

// Everyone reports whether a rule matches all TCP, UDP and SCTP traffic with
// whoever is at the other end. Blocks that hold every address do so, too.
func (p *Parts) Everyone(r *policies.Rule) bool {
	is, known := p.everyone[r]
	if !known {
		is = p.isEveryone(r)
		p.everyone[r] = is
	}
	return is
}

func (p *Parts) isEveryone(r *policies.Rule) bool { return p.builder.isEveryone(r) }

func (b *builder) isEveryone(r *policies.Rule) bool {
	return netset.TransportPorts().Minus(r.Ports).IsEmpty() && r.Own == nil && len(r.NotNamed) == 0 && r.NotPorts.IsEmpty() && r.Unclear == "" &&
		b.peersOf(r.Peers).possible.covers(b.everyone)
}

// Idle reports whether a rule of the i-th policy matches no traffic of any pod
// that the policy applies to. The rules of a policy that applies to no pod are
// not idle: they wait for one.
func (p *Parts) Idle(i int, d policies.Direction, rule int) bool {
	r := &p.model.Policies[i].Rules[d][rule]
	for _, class := range p.subject[d][i] {
		if len(p.reach(d, r, nil, class).possible) > 0 {
			return false
		}
	}
	return len(p.subject[d][i]) > 0
}

// Covered reports whether all that one rule of the i-th policy matches is
// matched by another, for every pod that the policy applies to. That is so for
// sure: where it cannot be told whom the peers describe, their words must be the
// same, or their blocks hold one another.
func (p *Parts) Covered(i int, d policies.Direction, rule, by int) bool {
	rules := p.model.Policies[i].Rules[d]
	r, other := &rules[rule], &rules[by]
	for _, class := range p.subject[d][i] {
		whole := p.reach(d, other, nil, class).yes
		for k := range r.Peers {
			peer := &r.Peers[k]
			part := p.reach(d, r, peer, class).possible
			if len(p.builder.subtract(part, whole)) == 0 {
				continue
			}
			if !sameTerms(r, other) || !among(peer, other.Peers) || len(p.builder.subtract(part, p.reach(d, other, peer, class).possible)) > 0 {
				return false
			}
		}
	}
	return len(p.subject[d][i]) > 0
}

// sameTerms reports whether two rules are for the same of their pods, and ask for
// nothing that no question tells.
func sameTerms(a, b *policies.Rule) bool {
	if a.Unclear != "" || b.Unclear != "" || (a.Own == nil) != (b.Own == nil) {
		return false
	}
	return a.Own == nil || a.Own.Anyone == b.Own.Anyone && a.Own.String() == b.Own.String()
}

// among reports whether whoever a match describes is described by others, too,
// whoever that is.
func among(m *policies.Match, others []policies.Match) bool {
	blocks := map[bool]netset.Addresses{} // by InCluster
	for i := range others {
		o := &others[i]
		if o.Anyone == m.Anyone && o.InCluster == m.InCluster && o.String() == m.String() {
			return true
		}
		for _, b := range anyOf(o) {
			if len(o.Except)+len(b.Except) == 0 {
				blocks[b.InCluster] = blocks[b.InCluster].Union(b.Block.Addresses())
			}
		}
	}
	return !slices.ContainsFunc(anyOf(m), func(b policies.Match) bool {
		return !b.Block.CIDR.IsValid() || !blocks[b.InCluster].Covers(b.Block.Addresses())
	})
}

// anyOf returns the matches any of which is enough: those of Any, or the match.
func anyOf(m *policies.Match) []policies.Match {
	if len(m.Any) > 0 {
		return m.Any
	}
	return []policies.Match{*m}
}

// reach returns what a rule matches for a class, with its own peers or with
// this one instead.
func (p *Parts) reach(d policies.Direction, r *policies.Rule, peer *policies.Match, class int) reached {
	key := partKey{r, peer, -1}
	if dependsOnSubject(r, d) {
		key.class = class
	}
	known, ok := p.reaches[key]
	if !ok {
		part := *r
		if peer != nil {
			part.Peers = []policies.Match{*peer}
		}
		c := p.builder.compileRule(&part, d, &p.builder.classes[class])
		known = reached{p.builder.normal(c.yes), p.builder.normal(c.possible)}
		p.reaches[key] = known
	}
	return known
}

// Open returns the traffic that the policies of a pod allow it in one direction
// with somebody, and the traffic for which the answer is unknown. Whether the
// other end's policies allow it, too, is another question.
func (j *Judge) Open(d policies.Direction, pod int) (allow, unknown netset.Ports) {
	j = j.whole()
	all := func(r relation) (ports netset.Ports) {
		for _, l := range r {
			ports = ports.Union(j.ports.sets[l.ports])
		}
		return ports
	}
	r := j.rows[d].at(j.placement.pods[pod])
	return all(r.allow), all(r.unknown)
}

// OpenTo returns the traffic that the policies of a pod allow it in one
// direction with each and every of these addresses outside.
func (j *Judge) OpenTo(d policies.Direction, pod int, outside netset.Addresses) netset.Ports {
	j = j.whole()
	row := j.rows[d].at(j.placement.pods[pod])
	ports := netset.AllTraffic()
	for first, last := range outside.Spans() {
		for a, end := j.atomOf(first), j.atomOf(last); a <= end; a++ {
			var here netset.Ports
			for _, l := range row.allow {
				if l.columns.has(j.outside + a) {
					here = here.Union(j.ports.sets[l.ports])
				}
			}
			ports = ports.Intersect(here)
		}
	}
	return ports
}
