package reach

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies/netset"
)

// portsID names an interned port set; equal sets have equal ids.
type portsID int32

// noPorts is the id of the empty port set.
const noPorts portsID = 0

// portTable interns port sets and remembers what was computed of them, so that
// the same few sets are never intersected twice.
type portTable struct {
	sets []netset.Ports
	ids  table[string, portsID]

	unions, intersections, differences table[portsPair, portsID]
}

type portsPair struct{ a, b portsID }

func newPortTable() *portTable {
	t := &portTable{}
	t.id(netset.Ports{})
	return t
}

// fork returns a table that holds all sets of t under the same ids, and to
// which more can be added without a trace in t. Nothing may be added to t after.
func (t *portTable) fork() *portTable {
	return &portTable{slices.Clip(t.sets), t.ids.over(), t.unions.over(), t.intersections.over(), t.differences.over()}
}

func (t *portTable) id(p netset.Ports) portsID {
	key := p.Key()
	id, ok := t.ids.get(key)
	if !ok {
		id = portsID(len(t.sets))
		if len(t.sets) == cap(t.sets) {
			// A fork adds few to many, and appending would make room for as many again.
			t.sets = append(make([]netset.Ports, 0, len(t.sets)+len(t.sets)/8+8), t.sets...)
		}
		t.sets = append(t.sets, p)
		t.ids.put(key, id)
	}
	return id
}

func (t *portTable) compute(known *table[portsPair, portsID], a, b portsID, f func(a, b netset.Ports) netset.Ports) portsID {
	id, ok := known.get(portsPair{a, b})
	if !ok {
		id = t.id(f(t.sets[a], t.sets[b]))
		known.put(portsPair{a, b}, id)
	}
	return id
}

func (t *portTable) or(a, b portsID) portsID {
	if a == b || b == noPorts {
		return a
	}
	if a == noPorts {
		return b
	}
	return t.compute(&t.unions, min(a, b), max(a, b), netset.Ports.Union)
}

func (t *portTable) and(a, b portsID) portsID {
	if a == b || a == noPorts {
		return a
	}
	if b == noPorts {
		return b
	}
	return t.compute(&t.intersections, min(a, b), max(a, b), netset.Ports.Intersect)
}

func (t *portTable) minus(a, b portsID) portsID {
	if a == b {
		return noPorts
	}
	if a == noPorts || b == noPorts {
		return a
	}
	return t.compute(&t.differences, a, b, netset.Ports.Minus)
}

// layer is the traffic on some ports with some columns.
type layer struct {
	ports   portsID
	columns *set
}

// relation is a set of (port, column) pairs. In normal form its layers have
// disjoint ports and distinct columns, in the order of their ports, so that
// equal relations are equal slices.
type relation []layer

// algebra computes with relations. It remembers what was computed of ports, for
// the same few combinations of port sets come again in row after row.
type algebra struct {
	*sets
	ports      *portTable
	partitions *table[string, []part]
	unions     *table[string, portsID]
	key        *[]byte // of what is looked up in them
}

// part is ports that are in the same port sets of several.
type part struct {
	ports portsID
	sets  []int // indexes of the port sets
}

func newAlgebra(columns int) algebra {
	return algebra{newSets(columns), newPortTable(), &table[string, []part]{}, &table[string, portsID]{}, new([]byte)}
}

// over returns an algebra that knows what this one knows, to which nothing may be
// added from now on.
func (a algebra) over() algebra {
	partitions, unions := a.partitions.over(), a.unions.over()
	return algebra{a.sets.over(), a.ports.fork(), &partitions, &unions, new([]byte)}
}

// partition cuts the ports of layers into parts.
func (a algebra) partition(layers ...[]layer) []part {
	key := a.keyOf(layers...)
	parts, ok := find(a.partitions, key)
	if !ok {
		for _, p := range netset.Partition(a.ports.setsOf(idsOf(layers...))) {
			parts = append(parts, part{a.ports.id(p.Ports), p.Sets})
		}
		a.partitions.put(string(key), parts)
	}
	return parts
}

// join returns the ports of all layers.
func (a algebra) join(layers []layer) portsID {
	if len(layers) == 1 {
		return layers[0].ports
	}
	key := a.keyOf(layers)
	id, ok := find(a.unions, key)
	if !ok {
		id = a.ports.id(netset.JoinPorts(a.ports.setsOf(idsOf(layers))...))
		a.unions.put(string(key), id)
	}
	return id
}

// keyOf returns a text that names the ports of layers. It is good until the next
// call.
func (a algebra) keyOf(layers ...[]layer) []byte {
	key := (*a.key)[:0]
	for _, some := range layers {
		for _, l := range some {
			key = binary.LittleEndian.AppendUint32(key, uint32(l.ports))
		}
	}
	*a.key = key
	return key
}

func idsOf(layers ...[]layer) []portsID {
	var ids []portsID
	for _, some := range layers {
		for _, l := range some {
			ids = append(ids, l.ports)
		}
	}
	return ids
}

func (t *portTable) setsOf(ids []portsID) []netset.Ports {
	all := make([]netset.Ports, len(ids))
	for i, id := range ids {
		all[i] = t.sets[id]
	}
	return all
}

// normal returns the union of layers in normal form.
func (a algebra) normal(layers []layer) relation {
	joined := a.byColumns(a.byPorts(layers))
	if len(joined) < 2 {
		return joined
	}
	// In one order, so that partition knows the combination again.
	slices.SortFunc(joined, func(x, y layer) int { return cmp.Compare(x.ports, y.ports) })
	parts := a.partition(joined)
	apart := make(relation, 0, len(parts))
	for _, p := range parts {
		columns := joined[p.sets[0]].columns
		if len(p.sets) > 1 {
			for _, i := range p.sets {
				a.addSet(joined[i].columns)
			}
			columns = a.build()
		}
		apart = append(apart, layer{p.ports, columns})
	}
	return a.sorted(a.byColumns(apart))
}

// byPorts returns the layers that hold something, those of equal ports joined.
func (a algebra) byPorts(layers []layer) relation {
	left := make(relation, 0, len(layers))
	for _, l := range layers {
		if l.ports != noPorts && !l.columns.empty() {
			left = append(left, l)
		}
	}
	slices.SortFunc(left, func(x, y layer) int { return cmp.Compare(x.ports, y.ports) })
	joined := left[:0]
	for len(left) > 0 {
		n := 1
		for n < len(left) && left[n].ports == left[0].ports {
			n++
		}
		l := left[0]
		if n > 1 {
			for _, same := range left[:n] {
				a.addSet(same.columns)
			}
			l.columns = a.build()
		}
		joined, left = append(joined, l), left[n:]
	}
	return joined
}

// byColumns joins layers of equal columns, in place.
func (a algebra) byColumns(left relation) relation {
	slices.SortFunc(left, func(x, y layer) int { return cmp.Compare(x.columns.id, y.columns.id) })
	joined := left[:0]
	for len(left) > 0 {
		n := 1
		for n < len(left) && left[n].columns == left[0].columns {
			n++
		}
		joined, left = append(joined, layer{a.join(left[:n]), left[0].columns}), left[n:]
	}
	return joined
}

func (a algebra) sorted(r relation) relation {
	slices.SortFunc(r, func(x, y layer) int { return a.ports.sets[x.ports].Compare(a.ports.sets[y.ports]) })
	return r
}

// combine applies an operation on columns to two relations, port by port.
func (a algebra) combine(r, s relation, op func(x, y *set) *set) relation {
	parts := a.partition(r, s)
	combined := make(relation, 0, len(parts))
	for _, p := range parts {
		x, y := a.none, a.none
		for _, i := range p.sets {
			if i < len(r) {
				x = r[i].columns
			} else {
				y = s[i-len(r)].columns
			}
		}
		if columns := op(x, y); !columns.empty() {
			combined = append(combined, layer{p.ports, columns})
		}
	}
	return a.sorted(a.byColumns(combined))
}

func (a algebra) unite(r, s relation) relation {
	switch {
	case len(r) == 0 || slices.Equal(r, s):
		return s
	case len(s) == 0:
		return r
	}
	return a.combine(r, s, a.or)
}

func (a algebra) intersect(r, s relation) relation {
	switch {
	case len(r) == 0 || len(s) == 0:
		return nil
	case slices.Equal(r, s):
		return r
	}
	return a.combine(r, s, a.and)
}

func (a algebra) subtract(r, s relation) relation {
	switch {
	case len(r) == 0 || len(s) == 0:
		return r
	case slices.Equal(r, s):
		return nil
	}
	return a.combine(r, s, a.minus)
}
