package reach

import (
	"encoding/binary"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// row is what policies say of one class in one direction: the traffic, by port
// and by the column at the other end, that is allowed, and that for which both
// allow and deny are possible. Equal rows are one pointer.
type row struct {
	id             int32
	allow, unknown relation
}

// peers is the columns that a match describes for sure, and those that it may
// describe; possible includes yes.
type peers struct{ yes, possible *set }

// compiled is a rule as traffic. Rules with a port name depend, at ingress, on
// the class they protect.
type compiled struct {
	action        policies.Action
	yes, possible []layer
}

// builder makes the rows of judges that share a frame.
type builder struct {
	*frame
	algebra
	all       *set
	universe  relation
	matches   map[string]peers
	rows      []*row
	rowsByKey map[string]*row
	open      *row
}

func newBuilder(f *frame) *builder {
	b := &builder{
		frame:     f,
		algebra:   newAlgebra(len(f.columns)),
		matches:   map[string]peers{},
		rowsByKey: map[string]*row{},
	}
	b.addRange(0, int32(len(f.columns)))
	b.all = b.build()
	b.universe = relation{{b.ports.id(netset.AllTraffic()), b.all}}
	b.open = b.internRow(b.universe, nil)
	return b
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
	known, ok := b.rowsByKey[string(key)]
	if !ok {
		known = &row{id: int32(len(b.rows)), allow: allow, unknown: unknown}
		b.rows = append(b.rows, known)
		b.rowsByKey[string(key)] = known
	}
	return known
}

// compileRule returns a rule as traffic. A port name means what the destination
// gives it: at ingress the class itself, at egress each column.
func (b *builder) compileRule(r *policies.Rule, d policies.Direction, subject *class) *compiled {
	who := b.peersOf(r.Peers)
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
		name := b.names[n]
		if d == policies.Ingress {
			for _, number := range subject.numbersOf(name) {
				grant(b.ports.id(netset.PortSpan(n.Protocol, number, number)), nil)
			}
			continue
		}
		for number, columns := range b.named[name] {
			for _, c := range columns {
				b.add(c)
			}
			grant(b.ports.id(netset.PortSpan(n.Protocol, number, number)), b.build())
		}
	}
	return c
}

func (b *builder) peersOf(matches []policies.Match) peers {
	if len(matches) == 1 {
		return b.peers(&matches[0])
	}
	all := peers{b.none, b.none}
	for i := range matches {
		p := b.peers(&matches[i])
		all = peers{b.or(all.yes, p.yes), b.or(all.possible, p.possible)}
	}
	return all
}

func (b *builder) peers(m *policies.Match) peers {
	if m.Anyone {
		return peers{b.all, b.all}
	}
	key := m.Pods.Key() + "\x00" + m.Namespaces.Key()
	find := func() peers { return b.selected(m) }
	switch {
	case m.Block.CIDR.IsValid():
		key, find = m.Block.String()+strconv.FormatBool(m.InCluster), func() peers { return b.inBlock(m.Block, m.InCluster) }
	case !m.Nodes.IsNothing():
		key, find = "nodes\x00"+m.Nodes.Key(), func() peers { return b.onNodes(m.Nodes) }
	case len(m.Domains) > 0:
		key, find = "domains\x00"+strings.Join(m.Domains, ","), func() peers { return b.withNames(m.Domains) }
	}
	known, ok := b.matches[key]
	if !ok {
		known = find()
		b.matches[key] = known
	}
	return known
}

// selected returns the columns of the pods that a match selects.
func (b *builder) selected(m *policies.Match) peers {
	in := b.namespacesOf(m.Namespaces)
	addClass := func(class int32) {
		for _, c := range b.classes[class].columns {
			b.add(c)
		}
	}
	b.classesOf(in.yes, m.Pods, addClass)
	yes := b.build()
	if len(in.maybe) == 0 {
		return peers{yes, yes}
	}
	b.addSet(yes)
	b.classesOf(in.maybe, m.Pods, addClass)
	return peers{yes, b.build()}
}

// onNodes returns the columns of the nodes in a selector, and of the pods on
// their network.
func (b *builder) onNodes(s selector.Selector) peers {
	atLeast := func(least policies.Truth) *set {
		for i := range b.classes {
			c := &b.classes[i]
			if !c.host() || b.machines[c.machine].in(s) < least {
				continue
			}
			for _, column := range c.columns {
				b.add(column)
			}
		}
		return b.build()
	}
	return peers{atLeast(policies.Yes), atLeast(policies.Maybe)}
}

// withNames returns the columns that may have one of the domain names.
func (b *builder) withNames(domains []string) peers {
	for i, c := range b.columns {
		if mayBeNamed(domains, c.class >= 0 && !b.classes[c.class].host()) {
			b.add(int32(i))
		}
	}
	return peers{b.none, b.build()}
}

// mayBeNamed reports whether a pod, or else a node or an address outside, may
// have one of these domain names: a pod has none but those of cluster.local.
func mayBeNamed(domains []string, pod bool) bool {
	return !pod || slices.ContainsFunc(domains, func(name string) bool {
		return strings.HasSuffix(strings.TrimSuffix(strings.ToLower("."+name), "."), ".cluster.local")
	})
}

// inBlock returns the columns whose addresses are in a block. An address that
// is not known may be in any block that does not miss its space.
func (b *builder) inBlock(block netset.Block, inCluster bool) peers {
	addresses := block.Addresses()
	add := func(column int32) {
		if b.columns[column].class < 0 || inCluster || !b.options.IgnorePodBlocks {
			b.add(column)
		}
	}
	for first, last := range addresses.Spans() {
		for a, end := b.atomOf(first), b.atomOf(last); a <= end; a++ {
			add(b.outside + a)
			for _, column := range b.atomCols[a] {
				add(column)
			}
		}
	}
	var maybe []int32
	for host, byFamily := range b.unplaced {
		for i, columns := range byFamily {
			switch b.unplacedIn(addresses, host == 1, families[i]) {
			case policies.Yes:
				for _, column := range columns {
					add(column)
				}
			case policies.Maybe:
				maybe = append(maybe, columns...)
			}
		}
	}
	yes := b.build()
	b.addSet(yes)
	for _, column := range maybe {
		add(column)
	}
	return peers{yes, b.build()}
}

// unplacedIn reports whether an address that is not known is in the set, as far
// as the set is of its family: that of a pod is somewhere in the pods' space,
// that of a node anywhere.
func (f *frame) unplacedIn(addresses netset.Addresses, host bool, fam family) policies.Truth {
	i := 0
	if fam == ipv6 {
		i = 1
	}
	space, sure := f.space[i], f.spaceIs[i]
	if host {
		space, sure = [...]netset.Addresses{netset.Prefix(netset.AllIPv4), netset.Prefix(netset.AllIPv6)}[i], i == 0
	}
	switch {
	case !addresses.Overlaps(space):
		return policies.No
	case sure && addresses.Covers(space):
		return policies.Yes
	}
	return policies.Maybe
}
