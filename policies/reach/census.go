package reach

import (
	"net/netip"
	"slices"
	"sync"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// census says who is of each class and column of a judge's frame.
type census struct {
	members [][]member // by class
	people  []int      // by class: how many they are, each replica counted
	// outsiders are, by atom, the lowest address that no pod and no node has; the
	// zero address where pods and nodes have all of them.
	outsiders []netip.Addr
	crowd     func() *crowd
	*layout
}

// layout says of a frame what counting needs.
type layout struct {
	// ways are the columns of one of those to whom ways of the same kind lead, and
	// waysOf and waysAt say which they are, by class and by atom.
	ways           [][]int32
	waysOf, waysAt []int32
	second         []bool   // by column, whether it is the second of its class
	seconds        []uint64 // the same, a bit each
	// asSource and asTarget are the columns of those about whom more counts than rows
	// and ways: the source's node, or the address.
	asSource, asTarget *set
	none               *set
}

// kind is what of an end's columns says which ways lead to it.
type kind [2]struct{ families, sure, perhaps family }

// member is a pod of the model by its index, or a node by the complement of its.
type member int32

func (m member) end() End {
	if m < 0 {
		return End{kind: nodeEnd, index: int32(^m)}
	}
	return End{kind: podEnd, index: int32(m)}
}

// count counts who is of which class.
func (j *Judge) count() *census {
	c := &census{members: j.placement.members(len(j.classes)), people: make([]int, len(j.classes)), outsiders: j.findOutsiders(), layout: j.layout()}
	for i, class := range j.placement.pods {
		c.people[class] += max(1, j.world.Pods[i].Replicas)
	}
	for _, class := range j.placement.nodes {
		c.people[class]++
	}
	w := j.world
	c.crowd = sync.OnceValue(func() *crowd { return crowdOf(w) })
	return c
}

func (f *frame) layout() *layout {
	l := &layout{waysOf: make([]int32, len(f.classes)), waysAt: make([]int32, len(f.atoms)), second: make([]bool, len(f.columns))}
	known := map[kind]int32{}
	find := func(columns []int32) int32 {
		var k kind
		for i, column := range columns {
			x := &f.columns[column]
			k[i].families, k[i].sure, k[i].perhaps = x.families, x.sure, x.perhaps
		}
		id, ok := known[k]
		if !ok {
			id = int32(len(l.ways))
			known[k], l.ways = id, append(l.ways, columns)
		}
		return id
	}
	for atom := range f.atoms {
		l.waysAt[atom] = find(f.alone[atom:][:1])
	}
	var sets [2][]int32
	for i := range f.classes {
		switch x := &f.classes[i]; {
		case x.role == aFace:
		case x.role == faced:
			sets[0], sets[1] = append(sets[0], x.columns...), append(sets[1], x.columns...)
		default:
			if x.host() {
				sets[0] = append(sets[0], x.columns...)
			}
			for _, column := range x.columns[1:] {
				l.second[column] = true
			}
			l.waysOf[i] = find(x.columns)
		}
	}
	seconds := newCanvas(len(f.columns))
	for column, is := range l.second {
		if is {
			seconds.add(int32(column))
		}
	}
	l.seconds = seconds.dense
	s := newSets(len(f.columns))
	l.none = s.none
	for i, to := range []**set{&l.asSource, &l.asTarget} {
		for _, column := range sets[i] {
			s.add(column)
		}
		*to = s.build()
	}
	return l
}

// members returns who is of each class.
func (p *placement) members(classes int) [][]member {
	sizes := make([]int32, classes)
	for _, class := range p.pods {
		sizes[class]++
	}
	for _, class := range p.nodes {
		sizes[class]++
	}
	members, all := make([][]member, classes), make([]member, len(p.pods)+len(p.nodes))
	for class, n := range sizes {
		members[class], all = all[:0:n], all[n:]
	}
	for i, class := range p.pods {
		members[class] = append(members[class], member(i))
	}
	for i, class := range p.nodes {
		members[class] = append(members[class], member(^i))
	}
	return members
}

// crowd is how many pods and nodes have each address beside the pod ranges.
type crowd struct {
	ranges netset.Addresses
	having table[netip.Addr, int]
}

func crowdOf(w *policies.World) *crowd {
	c := &crowd{ranges: netset.Prefixes(w.PodCIDRs...)}
	for i := range w.Pods {
		c.add(w.Pods[i].Addresses, 1)
	}
	for i := range w.Nodes {
		c.add(w.Nodes[i].Addresses, 1)
	}
	return c
}

func (c *crowd) add(addresses []netip.Addr, sign int) {
	for _, a := range addresses {
		if !c.ranges.Contains(a) {
			n, _ := c.having.get(a)
			c.having.put(a, n+sign)
		}
	}
}

// after returns the first address that nobody has, of those from a to last; the zero
// address where there is none.
func (c *crowd) after(a, last netip.Addr) netip.Addr {
	for ; a.IsValid() && a.Compare(last) <= 0; a = a.Next() {
		if c.ranges.Contains(a) {
			for first, end := range c.ranges.Spans() {
				if first.Compare(a) <= 0 && a.Compare(end) <= 0 {
					a = end
				}
			}
		} else if n, _ := c.having.get(a); n == 0 {
			return a
		}
	}
	return netip.Addr{}
}

func (j *Judge) findOutsiders() []netip.Addr {
	type span struct{ first, last netip.Addr }
	var inside []span
	for first, last := range j.insiders().Spans() {
		inside = append(inside, span{first, last})
	}
	lowest := make([]netip.Addr, len(j.atoms))
	for i, a := range j.atoms {
		lowest[i] = a.first
		at, found := slices.BinarySearchFunc(inside, a.first, func(s span, a netip.Addr) int { return s.first.Compare(a) })
		if !found {
			at--
		}
		// Spans do not touch, so right behind one there is somebody else.
		if at >= 0 && a.first.Compare(inside[at].last) <= 0 && a.first.Is4() == inside[at].first.Is4() {
			if lowest[i] = inside[at].last.Next(); !lowest[i].IsValid() || a.last.Less(lowest[i]) {
				lowest[i] = netip.Addr{}
			}
		}
	}
	return lowest
}

// insiders returns the addresses that pods and nodes have, or may have.
func (j *Judge) insiders() netset.Addresses {
	inside := netset.Prefixes(j.world.PodCIDRs...)
	var single []netip.Prefix
	add := func(addresses []netip.Addr) {
		for _, a := range addresses {
			if !inside.Contains(a) {
				single = append(single, netip.PrefixFrom(a, a.BitLen()))
			}
		}
	}
	for i := range j.world.Pods {
		add(j.world.Pods[i].Addresses)
	}
	for i := range j.world.Nodes {
		add(j.world.Nodes[i].Addresses)
	}
	return inside.Union(netset.Prefixes(single...))
}

// tally is how many there are of some kind, and the first of them.
type tally struct {
	people int
	first  End
}

func (t tally) and(e End, people int) tally {
	if t.people == 0 {
		t.first = e
	}
	t.people += people
	return t
}

// byNode counts who of a class is on each node, on "" where that is not known.
func (j *Judge) byNode(class int32) (nodes []string, on map[string]tally) {
	on = map[string]tally{}
	for _, m := range j.census().members[class] {
		e, people := m.end(), 1
		node := ""
		if e.kind == nodeEnd {
			node = j.world.Nodes[e.index].Name
		} else {
			node, people = j.world.Pods[e.index].Node, max(1, j.world.Pods[e.index].Replicas)
		}
		if _, known := on[node]; !known {
			nodes = append(nodes, node)
		}
		on[node] = on[node].and(e, people)
	}
	return nodes, on
}
