package reach

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Count is how many pairs of ends there are by verdict, as Crossing.Pairs counts them:
// those that are in the groups for sure, and those that are perhaps. A pair counts once
// for each verdict that it has on some of the ports.
type Count struct{ Sure, Perhaps [policies.Unknown + 1]int }

func (n *Count) add(v policies.Verdict, perhaps bool, pairs int) {
	if perhaps {
		n.Perhaps[v] += pairs
	} else {
		n.Sure[v] += pairs
	}
}

// Count is the sum of what Between yields. It takes those together whom the same
// policies govern, so that it is fast where many pairs are decided alike.
func (j *Judge) Count(from, to Group, ports netset.Ports, want ...policies.Verdict) (n Count) {
	if from.frame == nil || to.frame == nil || ports.IsEmpty() {
		return n
	}
	x := newCrossings(j)
	x.want(ports, want)
	x.count(from, to, from.possible, to.possible, &n)
	return n
}

// Count counts what Before and After yield, and beside those the same pairs in both
// that are decided now as they were.
func (c *Change) Count(from, to Group, ports netset.Ports, want ...policies.Verdict) (before, after Count) {
	if from.frame == nil || to.frame == nil || ports.IsEmpty() {
		return before, after
	}
	c.look(ports)
	leavers, comers := c.moved(policies.Egress), c.moved(policies.Ingress)
	for _, some := range [...]struct{ sources, targets *set }{
		{leavers, c.sets.or(c.about(policies.Egress), comers)},
		{c.sets.minus(c.about(policies.Ingress), leavers), comers},
	} {
		if !meets(some.sources, from.possible) || !meets(some.targets, to.possible) {
			continue
		}
		for side, n := range []*Count{&before, &after} {
			c.side(side, ports, want).count(from, to, some.sources, some.targets, n)
		}
	}
	return before, after
}

// about returns the columns about which anybody may decide otherwise than before, on
// the ports at hand.
func (c *Change) about(d policies.Direction) *set {
	known, ok := c.objects[d][c.within]
	if !ok {
		all := newCanvas(len(c.base.columns))
		last := int32(-1)
		for column := range c.moved(d).columns() {
			if class := c.base.columns[column].class; class != last {
				all.addSet(c.differs(d, class))
				last = class
			}
		}
		known = c.sets.take(&all)
		c.objects[d][c.within] = known
	}
	return known
}

// heap is ends of a group that have the same policies and addresses of the same kinds.
type heap struct {
	row     *row // nil for addresses outside
	kind    kind
	perhaps bool
	people  int
	columns []int32 // of one of them
	next    int32   // another heap of this row, its index plus one
}

// kind is what of an end's columns says which ways lead to it.
type kind [2]struct{ families, sure, perhaps family }

// heaps are those of one group.
type heaps struct {
	all     []heap
	rows    []*row  // of them
	byRow   []int32 // by the id of a row plus one: a heap's index plus one
	of      []int32 // by column: its heap's index plus one
	columns *set    // that have one
}

// counter is what count works with: of the sources and of the destinations, and what
// they grant each other.
type counter struct {
	heaps   [2]heaps
	enters  []split // by row of the destinations
	leaves  split
	offered []grantID // by column
	touched []int32
}

// takeCounter returns a blank counter, to be given back as blank.
func (g *grouping) takeCounter() *counter {
	if c, ok := g.counters.Get().(*counter); ok {
		return c
	}
	c := &counter{offered: make([]grantID, len(g.frame.columns))}
	for k := range c.heaps {
		c.heaps[k].of = make([]int32, len(g.frame.columns))
	}
	return c
}

// put adds an end.
func (h *heaps) put(x *crossings, d policies.Direction, p *party) {
	one := heap{perhaps: p.perhaps, columns: p.columns}
	id := int32(0)
	if p.class >= 0 {
		one.row = x.rows[d].at(p.class)
		id = one.row.id + 1
	}
	for i, column := range p.columns {
		c := &x.columns[column]
		one.kind[i].families, one.kind[i].sure, one.kind[i].perhaps = c.families, c.sure, c.perhaps
	}
	if int(id) >= len(h.byRow) {
		h.byRow = append(h.byRow, make([]int32, int(id)+1-len(h.byRow))...)
	}
	at := h.byRow[id]
	if at == 0 {
		h.rows = append(h.rows, one.row)
	}
	for at != 0 && (h.all[at-1].kind != one.kind || h.all[at-1].perhaps != one.perhaps) {
		at = h.all[at-1].next
	}
	if at == 0 {
		one.next = h.byRow[id]
		h.all = append(h.all, one)
		at = int32(len(h.all))
		h.byRow[id] = at
	}
	h.all[at-1].people += p.people
	for _, column := range p.columns {
		h.of[column] = at
		x.sets.add(column)
	}
}

func (h *heaps) clear() {
	for _, r := range h.rows {
		h.byRow[rowNumber(r)] = 0
	}
	for column := range h.columns.columns() {
		h.of[column] = 0
	}
	clear(h.all)
	clear(h.rows)
	h.all, h.rows, h.columns = h.all[:0], h.rows[:0], nil
}

func rowNumber(r *row) int32 {
	if r == nil {
		return 0
	}
	return r.id + 1
}

// split says what a row of the other side grants to those in heaps.
type split struct {
	first  []int32 // by heap: the index of a share plus one
	shares []share
}

// share is those of a heap to whose columns a row grants the same.
type share struct {
	grants [2]grantID
	people int
	next   int32 // another share of the heap, its index plus one
}

// split returns the shares of heaps to which a row grants something on the ports at
// hand.
func (x *crossings) split(h *heaps, r *row, s *split) {
	s.first, s.shares = append(s.first[:0], make([]int32, len(h.all))...), s.shares[:0]
	if r == nil {
		for i := range h.all {
			s.add(int32(i), [2]grantID{x.open, x.open}, h.all[i].people)
		}
		return
	}
	touched := x.touched[:0]
	add := func(g grant, columns *set) {
		if g == (grant{}) {
			return
		}
		id := x.id(g)
		for c := range common(columns, h.columns) {
			if x.offered[c] == noGrant {
				touched = append(touched, c)
			}
			x.offered[c] = x.either(x.offered[c], id)
		}
	}
	for _, l := range r.allow {
		add(grant{allow: x.clip(l.ports)}, l.columns)
	}
	for _, l := range r.unknown {
		add(grant{unknown: x.clip(l.ports)}, l.columns)
	}
	for _, c := range touched {
		class, people, columns := x.columns[c].class, 1, []int32{c}
		if class >= 0 {
			people, columns = x.census().people[class], x.classes[class].columns
		}
		if c != columns[0] && x.offered[columns[0]] != noGrant {
			continue // it was with the first
		}
		var grants [2]grantID
		for i, column := range columns {
			grants[i] = x.offered[column]
		}
		s.add(h.of[c]-1, grants, people)
	}
	for _, c := range touched {
		x.offered[c] = noGrant
	}
	x.touched = touched
}

func (s *split) add(heap int32, grants [2]grantID, people int) {
	for at := s.first[heap]; at != 0; at = s.shares[at-1].next {
		if s.shares[at-1].grants == grants {
			s.shares[at-1].people += people
			return
		}
	}
	s.shares = append(s.shares, share{grants, people, s.first[heap]})
	s.first[heap] = int32(len(s.shares))
}

// fewEnds is how many destinations are asked one by one before all are counted.
const fewEnds = 16

// refused reports whether a few destinations grant none of the sources anything, which
// is often so, and found out fast.
func (x *crossings) refused(from, to Group, sources, targets *set) bool {
	if x.wanted[policies.Deny] {
		return false
	}
	n := 0
	for other := range x.partiesIn(to, targets) {
		if n++; n > fewEnds || allMeet(x.concern(policies.Ingress, &other), sources, from.possible) {
			return false
		}
	}
	return true
}

// mostHeaps is how many heaps of destinations are looked at together.
const mostHeaps = 64

// count adds what is between some of one group and some of another.
func (x *crossings) count(from, to Group, sources, targets *set, n *Count) {
	if x.refused(from, to, sources, targets) {
		return
	}
	x.counter = x.grouping.takeCounter()
	defer func() {
		x.grouping.counters.Put(x.counter)
		x.counter = nil
	}()
	single := func(source, target *party) {
		x.cross(source, target, func(c Crossing) bool {
			n.add(c.Verdict, c.Perhaps, c.Pairs)
			return true
		})
	}
	var hard []party // sources that are looked at one by one
	leaving, coming := &x.heaps[0], &x.heaps[1]
	for one := range x.partiesIn(from, sources) {
		if one.class >= 0 && (x.classes[one.class].host() || x.classes[one.class].role == faced) {
			hard = append(hard, one)
		} else {
			leaving.put(x, policies.Egress, &one)
		}
	}
	leaving.columns = x.sets.build()
	flush := func() {
		coming.columns = x.sets.build()
		x.countHeaps(n)
		coming.clear()
	}
	for other := range x.partiesIn(to, targets) {
		for i := range hard {
			single(&hard[i], &other)
		}
		if other.class >= 0 && x.classes[other.class].role == faced {
			for one := range x.partiesIn(from, leaving.columns) {
				single(&one, &other)
			}
			continue
		}
		if coming.put(x, policies.Ingress, &other); len(coming.all) >= mostHeaps {
			flush()
		}
	}
	flush()
	leaving.clear()
}

// countHeaps adds what is between the heaps at hand.
func (x *crossings) countHeaps(n *Count) {
	leaving, coming := &x.heaps[0], &x.heaps[1]
	if len(leaving.all) == 0 || len(coming.all) == 0 {
		return
	}
	for len(x.enters) < len(coming.rows) {
		x.enters = append(x.enters, split{})
	}
	for i, r := range coming.rows {
		x.split(leaving, r, &x.enters[i])
	}
	for _, r := range leaving.rows {
		x.split(coming, r, &x.leaves)
		if len(x.leaves.shares) == 0 && !x.wanted[policies.Deny] {
			continue
		}
		for a := leaving.byRow[rowNumber(r)]; a != 0; a = leaving.all[a-1].next {
			for i, q := range coming.rows {
				if x.enters[i].first[a-1] == 0 && !x.wanted[policies.Deny] {
					continue
				}
				for b := coming.byRow[rowNumber(q)]; b != 0; b = coming.all[b-1].next {
					x.countShares(&leaving.all[a-1], &coming.all[b-1], &x.enters[i], x.enters[i].first[a-1], x.leaves.first[b-1], n)
				}
			}
		}
	}
	for column := range common(leaving.columns, coming.columns) {
		class := x.columns[column].class
		if class < 0 || x.classes[class].columns[0] != column {
			continue
		}
		perhaps := leaving.all[leaving.of[column]-1].perhaps || coming.all[coming.of[column]-1].perhaps
		columns := x.classes[class].columns
		x.verdicts(x.granted(columns, columns, policies.No), func(v policies.Verdict) {
			n.add(v, perhaps, -x.census().people[class]) // each to itself
		})
	}
}

// countShares adds what is between two heaps, given the first of the shares of each.
func (x *crossings) countShares(source, target *heap, enters *split, entering, leaving int32, n *Count) {
	if source.row == nil && target.row == nil {
		return
	}
	perhaps, rest := source.perhaps || target.perhaps, source.people*target.people
	for a := entering; a != 0; a = enters.shares[a-1].next {
		for b := leaving; b != 0; b = x.leaves.shares[b-1].next {
			s, t := &enters.shares[a-1], &x.leaves.shares[b-1]
			x.verdicts(x.decide(source, target, s.grants, t.grants), func(v policies.Verdict) { n.add(v, perhaps, s.people*t.people) })
			rest -= s.people * t.people
		}
	}
	x.verdicts(noGrant, func(v policies.Verdict) { n.add(v, perhaps, rest) })
}

// sharesKey is all that it depends on what is decided between two shares.
type sharesKey struct {
	source, target kind
	enters, leaves [2]grantID
}

// decide returns what is granted from one share to another: it is pairing.granted of
// any two of them.
func (x *crossings) decide(source, target *heap, enters, leaves [2]grantID) grantID {
	key := sharesKey{source.kind, target.kind, enters, leaves}
	known, ok := x.decided[key]
	if !ok {
		if x.decided == nil {
			x.decided = map[sharesKey]grantID{}
		}
		var ways waysGranted
		for i, a := range source.columns {
			for k, b := range target.columns {
				if way := x.frame.between(a, b, ipv4|ipv6, x.ipv6); way != noWay {
					ways.add(x.grants, x.columns[a].families&x.columns[b].families, x.over(way, leaves[k], enters[i]))
				}
			}
		}
		known = ways.sum(x.grants)
		x.decided[key] = known
	}
	return known
}

// verdicts yields those wanted that a grant comes to on some of the ports at hand.
func (x *crossings) verdicts(g grantID, yield func(policies.Verdict)) {
	t, is := x.grants.ports, x.all[g]
	for _, v := range [...]policies.Verdict{policies.Allow, policies.Deny, policies.Unknown} {
		if x.wanted[v] && x.decidedAs(v, is, t) != noPorts {
			yield(v)
		}
	}
}
