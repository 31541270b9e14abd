package reach

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// row is what policies say of one class in one direction: the traffic, by port
// and by the column at the other end, that is allowed, and that for which both
// allow and deny are possible. Equal rows are one pointer.
type row struct {
	id             int32
	allow, unknown relation
	onPort         []portLayers // by port, where there are many layers
}

// portLayers is what a row says of the ports from first on: the columns that are
// allowed, and those that are unknown.
type portLayers struct {
	first          uint32
	allow, unknown *set
}

// compiled is a rule as traffic. Rules with a port name depend, at ingress, on
// the class they protect.
type compiled struct {
	action        policies.Action
	yes, possible []layer
}

// builder makes the rows of judges that share a frame, one model after the other.
type builder struct {
	*frame
	algebra
	all       *set // with the spare columns
	everyone  *set // without them
	universe  relation
	rowsByKey table[string, *row]
	rowCount  int32
	open      *row

	world    *policies.World
	labelled []labelled
	byLabel  map[[2]string][]int // indexes of labelled, by each key and value
	place    placement
	matches  table[string, peers]
	scopes   table[string, scope] // namespaces by selector, as far as asked
}

func newBuilder(f *frame) *builder {
	b := &builder{
		frame:   f,
		algebra: newAlgebra(len(f.columns)),
	}
	b.addRange(0, int32(len(f.columns)))
	b.all = b.build()
	b.addSpares(ipv4 | ipv6)
	b.everyone = b.minus(b.all, b.build())
	b.universe = relation{{b.ports.id(netset.AllTraffic()), b.all}}
	b.open = b.internRow(b.universe, nil)
	return b
}

// turnTo makes what follows be about a world.
func (b *builder) turnTo(w *policies.World, p placement) {
	b.world, b.labelled, b.place, b.matches = w, labelledOf(w), p, table[string, peers]{}
	b.byLabel = map[[2]string][]int{}
	for i := range b.labelled {
		for k, v := range b.labelled[i].labels {
			b.byLabel[[2]string{k, v}] = append(b.byLabel[[2]string{k, v}], i)
		}
	}
}

func (b *builder) internRow(allow, unknown relation) *row {
	key := make([]byte, 0, 8*(len(allow)+len(unknown)+1))
	for _, r := range []relation{allow, unknown} {
		for _, l := range r {
			key = binary.LittleEndian.AppendUint32(key, uint32(l.ports))
			key = binary.LittleEndian.AppendUint32(key, uint32(l.columns.id))
		}
		key = append(key, '|')
	}
	known, ok := find(&b.rowsByKey, key)
	if !ok {
		known = &row{id: b.rowCount, allow: allow, unknown: unknown}
		if len(allow)+len(unknown) > fewLayers {
			known.onPort = b.index(known)
		}
		b.rowCount++
		b.rowsByKey.put(string(key), known)
	}
	return known
}

// fewLayers is how many layers are looked through faster than searched.
const fewLayers = 16

// index sorts the layers of a row by port.
func (b *builder) index(r *row) []portLayers {
	type edge struct {
		at      uint32
		layer   *set
		unknown bool
		begins  bool
	}
	var edges []edge
	for k, layers := range []relation{r.allow, r.unknown} {
		for _, l := range layers {
			for p := range b.ports.sets[l.ports].Ranges() {
				first, last := uint32(p.Protocol)<<16|uint32(p.First), uint32(p.Protocol)<<16|uint32(p.Last)
				edges = append(edges, edge{first, l.columns, k == 1, true}, edge{last + 1, l.columns, k == 1, false})
			}
		}
	}
	slices.SortFunc(edges, func(x, y edge) int {
		if x.at != y.at {
			return cmp.Compare(x.at, y.at)
		}
		if x.begins != y.begins { // what ends comes first
			if y.begins {
				return -1
			}
			return 1
		}
		return 0
	})
	now := portLayers{allow: b.none, unknown: b.none}
	index := []portLayers{now}
	for i, e := range edges {
		now.first = e.at
		columns := b.none
		if e.begins {
			columns = e.layer
		}
		if e.unknown {
			now.unknown = columns
		} else {
			now.allow = columns
		}
		switch {
		case i+1 < len(edges) && edges[i+1].at == e.at:
		case index[len(index)-1].first == e.at:
			index[len(index)-1] = now
		default:
			index = append(index, now)
		}
	}
	return index
}

// compileRule returns a rule as traffic. A port name means what the destination
// gives it: at ingress the class itself, at egress each column. The subject is
// not looked at where the rule does not depend on it.
func (b *builder) compileRule(r *policies.Rule, d policies.Direction, subject *class) *compiled {
	who := b.peersOf(r.Peers)
	if r.Own != nil {
		who = b.seenBy(subject, r.Own, who)
	}
	if r.Unclear != "" {
		who.yes = b.none
	}
	c := &compiled{action: r.Action}
	grant := func(ports portsID, among *set) {
		yes, possible := who.yes, who.possible
		if among != nil {
			yes, possible = b.and(yes, among), b.and(possible, among)
		}
		c.yes = append(c.yes, layer{ports, yes})
		c.possible = append(c.possible, layer{ports, possible})
	}
	if !r.Ports.IsEmpty() {
		grant(b.ports.id(r.Ports), nil)
	}
	for _, n := range r.Named {
		b.eachNumber(n, d, subject, grant)
	}
	remove := func(ports portsID, among *set) {
		if among == nil {
			among = b.all
		}
		not := relation{{ports, among}}
		c.yes, c.possible = b.subtract(b.normal(c.yes), not), b.subtract(b.normal(c.possible), not)
	}
	for _, n := range r.NotNamed {
		b.eachNumber(n, d, subject, remove)
	}
	if !r.NotPorts.IsEmpty() {
		remove(b.ports.id(r.NotPorts), nil)
	}
	return c
}

// eachNumber yields the numbers that destinations give a port name: the subject
// at ingress, and at egress the columns that do.
func (b *builder) eachNumber(n policies.NamedPort, d policies.Direction, subject *class, yield func(ports portsID, among *set)) {
	name := b.names[n]
	if d == policies.Ingress {
		for _, own := range subject.named {
			if own.name == name {
				yield(b.ports.id(netset.PortSpan(n.Protocol, own.number, own.number)), nil)
			}
		}
		return
	}
	for number, columns := range b.named[name] {
		for _, c := range columns {
			b.add(c)
		}
		yield(b.ports.id(netset.PortSpan(n.Protocol, number, number)), b.build())
	}
}

// dependsOnSubject reports whether what a rule means depends on whom its policy
// selects.
func dependsOnSubject(r *policies.Rule, d policies.Direction) bool {
	return d == policies.Ingress && len(r.Named)+len(r.NotNamed) > 0 || r.Own != nil
}

// seenBy returns those of some peers with whom the subject has traffic that is,
// as far as its own side goes, among what own describes.
func (b *builder) seenBy(subject *class, own *policies.Match, who peers) peers {
	yes, possible := b.ownFamilies(subject, own)
	narrow := func(s *set, in func(shared family) bool) *set {
		for column := range s.columns() {
			if in(b.columns[column].families & subject.families) {
				b.add(column)
			}
		}
		return b.build()
	}
	return peers{
		narrow(who.yes, func(shared family) bool { return shared&^yes == 0 }),
		narrow(who.possible, func(shared family) bool { return shared&possible != 0 }),
	}
}

// ownFamilies returns the families over which a match describes a class for
// sure, and those over which it may.
func (b *builder) ownFamilies(subject *class, own *policies.Match) (yes, possible family) {
	is := b.peers(own)
	yes = ipv4 | ipv6
	for _, column := range subject.columns {
		if !is.yes.has(column) {
			yes &^= b.columns[column].families
		}
		if is.possible.has(column) {
			possible |= b.columns[column].families
		}
	}
	return yes, possible
}
