package reach

import (
	"iter"
	"maps"
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
		newComparison(base, head).run(yield)
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
}

type comparison struct {
	base, head *lister
	units      []*jointUnit
	atoms      []int32
	changed    [2]map[joint]bool // by direction: joints whose rows differ
	peers      map[string]*policies.Peer
}

func newComparison(base, head *Judge) *comparison {
	c := &comparison{base: newLister(base, Listing{}), head: newLister(head, Listing{}), peers: map[string]*policies.Peer{}}
	// Both speak of ports and grants by the same numbers.
	c.head.grants = c.base.grants
	c.head.within, c.head.open, c.head.visible = c.base.within, c.base.open, c.base.visible
	c.atoms = slices.Clone(c.base.atoms)
	for _, a := range c.head.atoms {
		if !slices.Contains(c.atoms, a) {
			c.atoms = append(c.atoms, a)
		}
	}
	slices.Sort(c.atoms)
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
				j = &jointUnit{peer: &policies.Peer{Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name}, ref: ref, samples: map[joint][2]int32{}, several: map[joint]bool{}}
				byRef[ref] = j
			}
			if side == 0 {
				j.base = u
			} else {
				j.head = u
			}
			for _, i := range u.pods {
				pair, ok := pods[ls.model.Pods[i].Ref]
				if !ok {
					pair = [2]int32{-1, -1}
				}
				pair[side] = i
				pods[ls.model.Pods[i].Ref] = pair
			}
		}
	}
	for _, ref := range slices.SortedFunc(maps.Keys(byRef), policies.Ref.Compare) {
		j := byRef[ref]
		c.units = append(c.units, j)
		for _, i := range j.base.pods {
			c.addPod(j, pods[c.base.model.Pods[i].Ref])
		}
		for _, i := range j.head.pods {
			if pair := pods[c.head.model.Pods[i].Ref]; pair[0] < 0 {
				c.addPod(j, pair)
			}
		}
	}
	for _, d := range policies.Directions {
		c.changed[d] = map[joint]bool{}
		for _, u := range c.units {
			for _, x := range u.joints {
				c.changed[d][x] = x.base != x.head || c.base.rows[d][x.base] != c.head.rows[d][x.head]
			}
		}
	}
}

func (c *comparison) addPod(u *jointUnit, pair [2]int32) {
	x := joint{-1, -1}
	replicas := 0
	if pair[0] >= 0 {
		x.base = c.base.placement.pods[pair[0]]
		replicas = c.base.model.Pods[pair[0]].Replicas
	}
	if pair[1] >= 0 {
		x.head = c.head.placement.pods[pair[1]]
		replicas = max(replicas, c.head.model.Pods[pair[1]].Replicas)
	}
	if _, known := u.samples[x]; known {
		u.several[x] = true
		return
	}
	u.samples[x] = pair
	u.several[x] = replicas > 1
	u.joints = append(u.joints, x)
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

// moves reports whether a workload's rows, or where it runs, differ.
func (c *comparison) moves(d policies.Direction, u *jointUnit) bool {
	if u.base.host || u.head.host || len(c.base.model.Nodes) != len(c.head.model.Nodes) {
		return true
	}
	for _, x := range u.joints {
		if c.changed[d][x] {
			return true
		}
	}
	for _, pair := range u.samples {
		if pair[0] >= 0 && pair[1] >= 0 && c.base.model.Pods[pair[0]].Node != c.head.model.Pods[pair[1]].Node {
			return true
		}
	}
	return false
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

// turned returns the traffic that takes a turn from one grant to another.
func (c *comparison) turned(t turn, before, after grantID) portsID {
	g := c.base.grants
	return g.ports.and(g.ports.and(c.decided(before, t.before), c.decided(after, t.after)), c.base.within)
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
	for i, t := range turns {
		if ports := c.turned(t, before, after); ports != noPorts {
			if s.ports[i] == noPorts {
				s.samples[i] = sample
			}
			s.ports[i] = c.base.grants.ports.or(s.ports[i], ports)
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
			a, b := source.samples[x], target.samples[y]
			sample := [2][2]End{ends(a[0], b[0]), ends(a[1], b[1])}
			c.collect(&s, c.base.pairGrant(x.base, y.base, source.base, target.base), c.head.pairGrant(x.head, y.head, source.head, target.head), sample)
		}
	}
	return c.emit(&s, source.peer, target.peer, yield)
}

func ends(from, to int32) [2]End {
	var e [2]End
	if from >= 0 {
		e[0] = End{kind: podEnd, index: from}
	}
	if to >= 0 {
		e[1] = End{kind: podEnd, index: to}
	}
	return e
}

// pairGrant returns what one class is granted to another; nothing where the
// model does not have one of them.
func (ls *lister) pairGrant(source, target int32, from, to unit) grantID {
	if source < 0 || target < 0 {
		return noGrant
	}
	g := noGrant
	for _, a := range ls.classes[source].columns {
		for _, b := range ls.classes[target].columns {
			if ls.columns[a].families&ls.columns[b].families != 0 {
				g = ls.either(g, ls.both(ls.cell(policies.Egress, source, b), ls.cell(policies.Ingress, target, a)))
			}
		}
	}
	if from.host {
		g = ls.onSharedNode(g, &from, &to)
	}
	return g
}

// cell returns what the row of a class grants to a column, remembering it.
func (ls *lister) cell(d policies.Direction, class, column int32) grantID {
	key := cellKey{ls.rows[d][class], column}
	g, ok := ls.cells[key]
	if !ok {
		g = ls.of(key.row, column)
		ls.cells[key] = g
	}
	return g
}

type cellKey struct {
	row    *row
	column int32
}

// compareOutside compares what a workload and the addresses outside grant each
// other in one direction.
func (c *comparison) compareOutside(d policies.Direction, u *jointUnit, yield func(Shift) bool) bool {
	byTurn := map[outsideTurn]*outsideShift{}
	var order []outsideTurn
	for _, a := range c.atoms {
		var s shifts
		outside := End{kind: outsideEnd, addr: c.base.frame.atoms[a].first}
		for _, x := range u.joints {
			pair := u.samples[x]
			sample := [2][2]End{}
			for side := range sample {
				if pair[side] >= 0 {
					sample[side] = [2]End{{kind: podEnd, index: pair[side]}, outside}
					if d == policies.Ingress {
						slices.Reverse(sample[side][:])
					}
				}
			}
			c.collect(&s, c.base.outsideGrant(d, x.base, a), c.head.outsideGrant(d, x.head, a), sample)
		}
		for i := range turns {
			if s.ports[i] == noPorts {
				continue
			}
			key := outsideTurn{i, s.ports[i]}
			if byTurn[key] == nil {
				byTurn[key] = &outsideShift{samples: s.samples[i]}
				order = append(order, key)
			}
			span := c.base.frame.atoms[a]
			byTurn[key].addresses = byTurn[key].addresses.Union(netset.AddressSpan(span.first, span.last))
		}
	}
	for _, key := range order {
		o := byTurn[key]
		for _, b := range o.addresses.Blocks() {
			from, to := u.peer, c.outsidePeer(b)
			if d == policies.Ingress {
				from, to = to, from
			}
			t := turns[key.turn]
			if !yield(Shift{from, to, t.before, t.after, c.base.grants.ports.sets[key.ports], o.samples[0], o.samples[1]}) {
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

type outsideShift struct {
	addresses netset.Addresses
	samples   [2][2]End
}

func (c *comparison) outsidePeer(b netset.Block) *policies.Peer {
	key := b.String()
	if c.peers[key] == nil {
		p := policies.Outside(b)
		c.peers[key] = &p
	}
	return c.peers[key]
}

func (ls *lister) outsideGrant(d policies.Direction, class, atom int32) grantID {
	column := ls.outside + atom
	if class < 0 || ls.classes[class].families&ls.columns[column].families == 0 {
		return noGrant
	}
	return ls.cell(d, class, column)
}
