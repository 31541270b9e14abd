package reach

import (
	"iter"
	"slices"
	"sync"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Group is pods, nodes and ranges of addresses outside that some matches describe
// among those of a judge. It serves the judges that share the judge's classes: see
// Serves. The zero Group is nobody.
//
// A pod or node is described where one of its addresses is. Ranges are as no rule
// tells their addresses apart; those that pods and nodes have in whole are left out,
// and those of IPv6 where that plays no part, for nobody is there.
type Group struct {
	frame *frame
	// sure and possible hold all columns of a pod or node, or none.
	sure, possible *set
}

// grouping makes the groups of a judge. It remembers what it was asked.
type grouping struct {
	frame  *frame
	world  *policies.World
	place  placement
	once   sync.Once
	mutex  sync.Mutex
	made   *builder
	census *census
	// placed are the known addresses of all pods and nodes.
	placing sync.Once
	placed  []placed
	// counters are for count to work with. A pool outlives what it is part of, which must
	// not be a world.
	counters *sync.Pool
}

// over returns the grouping of another world, of whose classes it is known who they are.
func (g *grouping) over(f *frame, w *policies.World, p placement, c *census) *grouping {
	g = &grouping{frame: f, world: w, place: p, census: c, counters: g.counters}
	g.once.Do(func() {})
	return g
}

// census returns who is of each class.
func (j *Judge) census() *census {
	j.grouping.once.Do(func() { j.grouping.census = j.count() })
	return j.grouping.census
}

// builder returns what the groups are built with. Its mutex must be held.
func (g *grouping) builder() *builder {
	if g.made == nil {
		g.made = newBuilder(g.frame)
		g.made.turnTo(g.world, g.place)
	}
	return g.made
}

// GroupOf returns whom any of the matches describe, for sure or perhaps. It is not
// ok where the judge cannot tell whom a match describes, for want of a policy that
// names its labels or addresses: see Options.Apart.
func (j *Judge) GroupOf(any ...policies.Match) (g Group, ok bool) {
	for i := range any {
		if !j.tells(&any[i], len(j.labelled) > 0) {
			return Group{}, false
		}
	}
	j.grouping.mutex.Lock()
	defer j.grouping.mutex.Unlock()
	b := j.grouping.builder()
	are := b.peersOf(any)
	sure := b.wholly(are.yes)
	return Group{j.frame, sure, b.or(sure, b.wholly(are.possible))}, true
}

// wholly returns all columns of each class that is in a set with one of them.
func (b *builder) wholly(s *set) *set {
	for column := range s.columns() {
		switch class := b.columns[column].class; {
		case class >= 0:
			b.addClass(class)
		case class != aSpare:
			b.add(column)
		}
	}
	return b.build()
}

// Without returns who is in the group and not in another: perhaps, where it is only
// perhaps in the one or perhaps in the other.
func (j *Judge) Without(g, not Group) Group {
	return j.operate(g, not, func(b *builder) (sure, possible *set) {
		return b.minus(g.sure, not.possible), b.minus(g.possible, not.sure)
	})
}

// Among returns who is in both groups.
func (j *Judge) Among(g, also Group) Group {
	return j.operate(g, also, func(b *builder) (sure, possible *set) {
		return b.and(g.sure, also.sure), b.and(g.possible, also.possible)
	})
}

func (j *Judge) operate(g, h Group, f func(*builder) (sure, possible *set)) Group {
	if g.frame == nil || h.frame == nil {
		return g
	}
	j.grouping.mutex.Lock()
	defer j.grouping.mutex.Unlock()
	sure, possible := f(j.grouping.builder())
	return Group{j.frame, sure, possible}
}

// Serves reports whether a group can be asked about: it was made by the judge or by
// one that shares its classes.
func (j *Judge) Serves(g Group) bool { return g.frame == nil || g.frame == j.frame }

// Member is pods and nodes that no rule tells apart, or a range of addresses outside.
type Member struct {
	End     End // one of them
	People  int // how many they are, each replica counted; 1 for a range
	Perhaps bool
}

// Members yields who is in a group. It is empty where nobody is.
func (j *Judge) Members(g Group) iter.Seq[Member] { return j.members(g, g.possible) }

// members yields those of a group that have some of the columns.
func (j *Judge) members(g Group, among *set) iter.Seq[Member] {
	return func(yield func(Member) bool) {
		if g.frame == nil {
			return
		}
		for s := range j.partiesIn(g, among) {
			if !yield(Member{s.first, s.people, s.perhaps}) {
				return
			}
		}
	}
}

// party is a class, or a range of addresses outside, at one end of connections.
type party struct {
	class   int32   // -1 for the outside
	columns []int32 // of all its addresses
	tally
	perhaps bool // in the group it is of
}

// partiesIn yields those of a group that have some of the columns.
func (j *Judge) partiesIn(g Group, among *set) iter.Seq[party] {
	return func(yield func(party) bool) {
		last := int32(-1)
		for column := range common(among, g.possible) {
			class := j.columns[column].class
			if class >= 0 && (class == last || class >= j.runs && !j.isLowest(column, among, g.possible)) {
				continue
			}
			last = class
			if x, ok := j.partyAt(g, column); ok && !yield(x) {
				return
			}
		}
	}
}

// partyAt returns those of a group who have a column; not ok where nobody does.
func (j *Judge) partyAt(g Group, column int32) (x party, ok bool) {
	c := j.census()
	x = party{class: j.columns[column].class, perhaps: !g.sure.has(column)}
	if x.class < 0 {
		x.columns, x.tally = j.alone[column-j.outside:][:1], tally{1, End{kind: outsideEnd, addr: c.outsiders[column-j.outside]}}
		return x, x.first.addr.IsValid() && (j.ipv6 || !x.first.addr.Is6())
	}
	if c.people[x.class] == 0 {
		return x, false
	}
	x.columns, x.tally = j.classes[x.class].columns, tally{c.people[x.class], c.members[x.class][0].end()}
	return x, true
}

// isLowest reports whether a column is the first of its class that is in two sets.
func (f *frame) isLowest(column int32, a, b *set) bool {
	for _, c := range f.classes[f.columns[column].class].columns {
		if c < column && a.has(c) && b.has(c) {
			return false
		}
	}
	return true
}

// tells reports whether the frame tells whom a match describes from all others.
// labelled says whether the world has network sets or host endpoints.
func (f *frame) tells(m *policies.Match, labelled bool) bool {
	_, pods := f.selectorsOf(m)
	for _, key := range pods.Keys() {
		if _, known := f.keys[key]; !known || m.Endpoints && policies.IsInherited(key) && !slices.Contains(f.inherited, key) {
			return false
		}
	}
	for _, key := range m.Nodes.Keys() {
		if !slices.Contains(f.nodes, key) {
			return false
		}
	}
	switch {
	case m.Block.CIDR.IsValid() && !f.cutsAt(m.Block),
		m.Object.Kind == "Service" && !slices.Contains(f.services, m.Object),
		labelled && !f.labelled && (m.Endpoints || m.Object != policies.Ref{} && m.Object.Kind != "Service"):
		return false
	}
	for _, parts := range [][]policies.Match{m.Any, m.All, m.Except} {
		for i := range parts {
			if !f.tells(&parts[i], labelled) {
				return false
			}
		}
	}
	return true
}

// cutsAt reports whether the frame tells the addresses of a block from all others.
func (f *frame) cutsAt(b netset.Block) bool {
	if len(f.blocks) == 0 || b.CIDR.Addr().Is6() && !f.dual {
		return false
	}
	for first, last := range b.Addresses().Spans() {
		if f.atoms[f.atomOf(first)].first != first || f.atoms[f.atomOf(last)].last != last {
			return false
		}
	}
	return true
}
