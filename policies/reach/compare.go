package reach

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Shift is traffic from some pods of a workload to some pods of another, or to
// or from addresses outside, that two models decide differently.
type Shift struct {
	From, To      *policies.Peer // equal peers are equal pointers
	Before, After policies.Verdict
	Ports         netset.Ports
	// Base and Head are the source and the destination of one connection that
	// shifts, in each model; zero ends where a model does not have them.
	Base, Head [2]End
}

// Compare yields what two judges made by Pair decide differently, by workload,
// over TCP, UDP and SCTP, sorted by source and destination. Where a world lacks
// a workload, all its connections count as denied there. What both decide by
// the same rows is not looked at again.
func Compare(base, head *Judge) iter.Seq[Shift] {
	return func(yield func(Shift) bool) {
		newComparison(base.whole(), head.whole(), netset.TransportPorts()).run(yield)
	}
}

// CompareAll is Compare over every protocol.
func CompareAll(base, head *Judge) iter.Seq[Shift] {
	return func(yield func(Shift) bool) {
		newComparison(base.whole(), head.whole(), netset.EveryConnection()).run(yield)
	}
}

// joint is pods that are of one class in the base and of one in the head; -1
// where a model does not have them.
type joint struct{ base, head int32 }

// jointUnit is a workload in both models.
type jointUnit struct {
	peer    *policies.Peer
	ref     policies.Ref
	base    unit // without pods where the model lacks it
	head    unit
	joints  []joint
	samples map[joint][2]int32 // one pod of each, -1 for none
	several map[joint]bool     // more than one pod
	spots   map[joint][]spot   // where its pods run, where that matters
}

// spot is the nodes that some pods of a joint run on, in the base and in the
// head, and one of those pods. Where a model lacks them, they stay.
type spot struct {
	nodes [2]string
	pod   [2]int32
}

type comparison struct {
	base, head *lister
	units      []*jointUnit
	atoms      []int32
	changed    [2]map[joint]bool // by direction: joints whose rows differ
	hosts      bool              // some pod is on its node's network
	spots      map[spotKey]bool
	turns      map[[2]grantID]*[len(turns)]portsID // what turned returned
}

func newComparison(base, head *Judge, ports netset.Ports) *comparison {
	l := Listing{Ports: &ports}
	c := &comparison{base: newLister(base, l), head: newLister(head, l), spots: map[spotKey]bool{}, turns: map[[2]grantID]*[len(turns)]portsID{}}
	// Both speak of ports and grants by the same numbers.
	c.head.grants = c.base.grants
	c.head.within, c.head.visible = c.base.within, c.base.visible
	c.atoms = slices.Clone(c.base.atoms)
	for _, a := range c.head.atoms {
		if !slices.Contains(c.atoms, a) {
			c.atoms = append(c.atoms, a)
		}
	}
	slices.Sort(c.atoms)
	for _, u := range slices.Concat(c.base.units, c.head.units) {
		c.hosts = c.hosts || u.host
	}
	c.pairUp()
	return c
}

// pairUp finds each workload in both models.
func (c *comparison) pairUp() {
	byRef := map[policies.Ref]*jointUnit{}
	pods := map[policies.Ref][2]int32{}
	for side, ls := range []*lister{c.base, c.head} {
		for _, u := range ls.units {
			ref := policies.Ref{Kind: u.peer.Kind, Namespace: u.peer.Namespace, Name: u.peer.Name}
			j := byRef[ref]
			if j == nil {
				j = &jointUnit{peer: &policies.Peer{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}, ref: ref, samples: map[joint][2]int32{}, several: map[joint]bool{}, spots: map[joint][]spot{}}
				byRef[ref] = j
			}
			if side == 0 {
				j.base = u
			} else {
				j.head = u
			}
			for _, i := range u.pods {
				pair, ok := pods[ls.world.Pods[i].Ref]
				if !ok {
					pair = [2]int32{-1, -1}
				}
				pair[side] = i
				pods[ls.world.Pods[i].Ref] = pair
			}
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(byRef), policies.Ref.Compare) {
		j := byRef[ref]
		c.units = append(c.units, j)
		for _, i := range j.base.pods {
			c.addPod(j, pods[c.base.world.Pods[i].Ref])
		}
		for _, i := range j.head.pods {
			if pair := pods[c.head.world.Pods[i].Ref]; pair[0] < 0 {
				c.addPod(j, pair)
			}
		}
	}
	for _, d := range policies.Directions {
		c.changed[d] = map[joint]bool{}
		for _, u := range c.units {
			for _, x := range u.joints {
				c.changed[d][x] = x.base != x.head || c.base.rows[d].at(x.base) != c.head.rows[d].at(x.head)
			}
		}
	}
}

func (c *comparison) addPod(u *jointUnit, pair [2]int32) {
	x := joint{-1, -1}
	replicas := 0
	if pair[0] >= 0 {
		x.base = c.base.placement.pods[pair[0]]
		replicas = c.base.world.Pods[pair[0]].Replicas
	}
	if pair[1] >= 0 {
		x.head = c.head.placement.pods[pair[1]]
		replicas = max(replicas, c.head.world.Pods[pair[1]].Replicas)
	}
	if c.hosts {
		c.addSpot(u, x, pair)
	}
	if _, known := u.samples[x]; known {
		u.several[x] = true
		return
	}
	u.samples[x] = pair
	u.several[x] = replicas > 1
	u.joints = append(u.joints, x)
}

func (c *comparison) addSpot(u *jointUnit, x joint, pair [2]int32) {
	var at spot
	for side, ls := range []*lister{c.base, c.head} {
		if pair[side] >= 0 {
			at.nodes[side] = ls.world.Pods[pair[side]].Node
		}
	}
	switch {
	case pair[0] < 0:
		at.nodes[0] = at.nodes[1]
	case pair[1] < 0:
		at.nodes[1] = at.nodes[0]
	}
	at.pod = pair
	key := spotKey{u, x, at.nodes}
	if !c.spots[key] {
		c.spots[key] = true
		u.spots[x] = append(u.spots[x], at)
	}
}

type spotKey struct {
	unit  *jointUnit
	joint joint
	nodes [2]string
}

func (c *comparison) run(yield func(Shift) bool) {
	var moved []*jointUnit // targets that may answer differently
	for _, u := range c.units {
		if c.moves(policies.Ingress, u) {
			moved = append(moved, u)
		}
	}
	for _, source := range c.units {
		targets := moved
		if c.moves(policies.Egress, source) {
			targets = c.units
		}
		for _, target := range targets {
			if !c.compareUnits(source, target, yield) {
				return
			}
		}
		if c.moves(policies.Egress, source) && !c.compareOutside(policies.Egress, source, yield) {
			return
		}
	}
	for _, target := range moved {
		if !c.compareOutside(policies.Ingress, target, yield) {
			return
		}
	}
}

// moves reports whether a workload's rows differ, or may let in other traffic
// because of the nodes, or of addresses that IPv6 gives it in one model only.
func (c *comparison) moves(d policies.Direction, u *jointUnit) bool {
	if d == policies.Egress && (u.base.host || u.head.host) {
		return true
	}
	for _, x := range u.joints {
		if c.changed[d][x] || c.base.ipv6 != c.head.ipv6 && (c.base.mayGainIPv6(x.base) || c.head.mayGainIPv6(x.head)) {
			return true
		}
	}
	return false
}

// mayGainIPv6 reports whether those of a class are taken to have an IPv6 address,
// perhaps, where IPv6 plays a part.
func (f *frame) mayGainIPv6(class int32) bool {
	return class >= 0 && slices.ContainsFunc(f.classes[class].columns, func(column int32) bool { return f.columns[column].perhaps&ipv6 != 0 })
}

// turn is a pair of verdicts that differ.
type turn struct{ before, after policies.Verdict }

var turns = [...]turn{
	{policies.Deny, policies.Allow},
	{policies.Allow, policies.Deny},
	{policies.Deny, policies.Unknown},
	{policies.Allow, policies.Unknown},
	{policies.Unknown, policies.Allow},
	{policies.Unknown, policies.Deny},
}

// turned returns the traffic that takes each turn from one grant to another.
func (c *comparison) turned(before, after grantID) *[len(turns)]portsID {
	key := [2]grantID{before, after}
	known := c.turns[key]
	if known == nil {
		known = new([len(turns)]portsID)
		t := c.base.grants.ports
		for i, turn := range turns {
			known[i] = t.and(t.and(c.decided(before, turn.before), c.decided(after, turn.after)), c.base.within)
		}
		c.turns[key] = known
	}
	return known
}

func (c *comparison) decided(x grantID, v policies.Verdict) portsID {
	g := c.base.grants
	switch v {
	case policies.Allow:
		return g.all[x].allow
	case policies.Unknown:
		return g.all[x].unknown
	}
	return g.ports.minus(c.base.within, g.ports.or(g.all[x].allow, g.all[x].unknown))
}

// shifts collects what turns between two peers.
type shifts struct {
	ports   [len(turns)]portsID
	samples [len(turns)][2][2]End
}

func (c *comparison) collect(s *shifts, before, after grantID, sample [2][2]End) {
	if before == after {
		return
	}
	table := c.base.grants.ports
	for i, ports := range c.turned(before, after) {
		if ports != noPorts {
			// The sample shifts on the lowest port of all.
			if s.ports[i] == noPorts || table.sets[ports].Compare(table.sets[s.ports[i]]) < 0 {
				s.samples[i] = sample
			}
			s.ports[i] = table.or(s.ports[i], ports)
		}
	}
}

func (c *comparison) emit(s *shifts, from, to *policies.Peer, yield func(Shift) bool) bool {
	for i, t := range turns {
		if s.ports[i] == noPorts {
			continue
		}
		if !yield(Shift{from, to, t.before, t.after, c.base.grants.ports.sets[s.ports[i]], s.samples[i][0], s.samples[i][1]}) {
			return false
		}
	}
	return true
}

func (c *comparison) compareUnits(source, target *jointUnit, yield func(Shift) bool) bool {
	var s shifts
	for _, x := range source.joints {
		for _, y := range target.joints {
			if source == target && x == y && !source.several[x] {
				continue
			}
			before, after := c.base.pairGrant(x.base, y.base), c.head.pairGrant(x.head, y.head)
			local := [2]grantID{c.base.localGrant(x.base, y.base), c.head.localGrant(x.head, y.head)}
			for _, m := range c.meetings(source, x, target, y) {
				c.collect(&s, c.base.fromNode(before, local[0], m.onNode[0]), c.head.fromNode(after, local[1], m.onNode[1]), m.sample)
			}
		}
	}
	return c.emit(&s, source.peer, target.peer, yield)
}

// meeting is whether some pods of two joints run on one node, where such traffic
// is always let in, in the base and in the head, and two of those pods.
type meeting struct {
	onNode [2]policies.Truth
	sample [2][2]End
}

// meetings returns one meeting of each kind there is between two joints.
func (c *comparison) meetings(source *jointUnit, x joint, target *jointUnit, y joint) []meeting {
	excusable := [2]bool{c.base.excusable(x.base, y.base), c.head.excusable(x.head, y.head)}
	meet := func(a, b spot) meeting {
		var m meeting
		for side, ls := range []*lister{c.base, c.head} {
			m.sample[side] = ls.ends(a.pod[side], b.pod[side])
			if excusable[side] {
				m.onNode[side] = sameNode(a.nodes[side], b.nodes[side])
			}
		}
		return m
	}
	if excusable == [2]bool{} {
		return []meeting{meet(spot{pod: source.samples[x]}, spot{pod: target.samples[y]})}
	}
	// Two that stay where they are meet in one of three ways, so it is enough
	// to look for one in the same place and for one elsewhere.
	at := map[[2]string]spot{}
	var few []spot
	staying := 0
	for _, b := range target.spots[y] {
		at[b.nodes] = b
		if b.nodes[0] == b.nodes[1] && b.nodes[0] != "" {
			if staying++; staying > 2 {
				continue
			}
		}
		few = append(few, b)
	}
	var found []meeting
	note := func(m meeting) {
		if !slices.ContainsFunc(found, func(f meeting) bool { return f.onNode == m.onNode }) {
			found = append(found, m)
		}
	}
	for _, a := range source.spots[x] {
		others := few
		if a.nodes[0] != a.nodes[1] {
			others = target.spots[y]
		}
		for _, b := range others {
			note(meet(a, b))
		}
		if b, ok := at[a.nodes]; ok {
			note(meet(a, b))
		}
	}
	return found
}

// ends returns the ends of a connection between two pods; zero ends where there
// are no two, a pod being -1 or the only one of its kind.
func (ls *lister) ends(from, to int32) [2]End {
	if from < 0 || to < 0 {
		return [2]End{}
	}
	e := [2]End{ls.Pod(int(from)), ls.Pod(int(to))}
	if ls.self(e[0], e[1]) {
		return [2]End{}
	}
	return e
}

// compareOutside compares what a workload and the addresses outside grant each
// other in one direction.
func (c *comparison) compareOutside(d policies.Direction, u *jointUnit, yield func(Shift) bool) bool {
	byTurn := map[outsideTurn]*outsideShift{}
	var order []outsideTurn
	for _, a := range c.atoms {
		var s shifts
		for _, x := range u.joints {
			// The other end is an address of the block, once that is known.
			pair := u.samples[x]
			sample := [2][2]End{}
			for side := range sample {
				if pair[side] >= 0 {
					sample[side][d] = End{kind: podEnd, index: pair[side]}
				}
			}
			c.collect(&s, c.base.outsideGrant(d, x.base, a), c.head.outsideGrant(d, x.head, a), sample)
		}
		for i := range turns {
			if s.ports[i] == noPorts {
				continue
			}
			key := outsideTurn{i, s.ports[i]}
			o := byTurn[key]
			if o == nil {
				o = &outsideShift{}
				byTurn[key] = o
				order = append(order, key)
			}
			o.samples = append(o.samples, outsideSample{c.base.frame.atoms[a], s.samples[i]})
		}
	}
	for _, key := range order {
		o := byTurn[key]
		for _, b := range o.addresses().Blocks() {
			from, to := u.peer, c.base.outsidePeer(b)
			if d == policies.Ingress {
				from, to = to, from
			}
			t, sample := turns[key.turn], o.sampleIn(b, d)
			if !yield(Shift{from, to, t.before, t.after, c.base.grants.ports.sets[key.ports], sample[0], sample[1]}) {
				return false
			}
		}
	}
	return true
}

type outsideTurn struct {
	turn  int
	ports portsID
}

// outsideShift holds a sample of each atom that shifts, in their order.
type outsideShift struct{ samples []outsideSample }

// outsideSample is a connection, in each model, of an address of an atom.
type outsideSample struct {
	atom atom
	ends [2][2]End // without the end that is outside
}

func (o *outsideShift) addresses() netset.Addresses {
	parts := make([]netset.Addresses, len(o.samples))
	for i, s := range o.samples {
		parts[i] = s.atom.addresses()
	}
	return netset.JoinAddresses(parts...)
}

// sampleIn returns a connection of the first address in the block, all of which
// shifts.
func (o *outsideShift) sampleIn(b netset.Block, d policies.Direction) (ends [2][2]End) {
	for first := range b.Addresses().Spans() {
		i, found := slices.BinarySearchFunc(o.samples, first, func(s outsideSample, a netip.Addr) int { return s.atom.first.Compare(a) })
		if !found {
			i--
		}
		ends = o.samples[i].ends
		for side := range ends {
			if ends[side][d] != (End{}) {
				ends[side][1-d] = End{kind: outsideEnd, addr: first}
			}
		}
		break
	}
	return ends
}

func (ls *lister) outsideGrant(d policies.Direction, class, atom int32) grantID {
	column := ls.outside + atom
	if class < 0 || ls.classes[class].families&ls.columns[column].families == 0 {
		return noGrant
	}
	return ls.cell(ls.rows[d].at(class), column)
}
