package reach

import (
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
	ids  map[string]portsID
	memo map[portsOp]portsID
}

type portsOp struct {
	op   byte
	a, b portsID
}

func newPortTable() *portTable {
	t := &portTable{ids: map[string]portsID{}, memo: map[portsOp]portsID{}}
	t.id(netset.Ports{})
	return t
}

func (t *portTable) id(p netset.Ports) portsID {
	key := p.Key()
	id, ok := t.ids[key]
	if !ok {
		id = portsID(len(t.sets))
		t.sets = append(t.sets, p)
		t.ids[key] = id
	}
	return id
}

func (t *portTable) compute(op byte, a, b portsID, f func(a, b netset.Ports) netset.Ports) portsID {
	key := portsOp{op, a, b}
	id, ok := t.memo[key]
	if !ok {
		id = t.id(f(t.sets[a], t.sets[b]))
		t.memo[key] = id
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
	return t.compute('|', min(a, b), max(a, b), netset.Ports.Union)
}

func (t *portTable) and(a, b portsID) portsID {
	if a == b || a == noPorts {
		return a
	}
	if b == noPorts {
		return b
	}
	return t.compute('&', min(a, b), max(a, b), netset.Ports.Intersect)
}

func (t *portTable) minus(a, b portsID) portsID {
	if a == b {
		return noPorts
	}
	if a == noPorts || b == noPorts {
		return a
	}
	return t.compute('-', a, b, netset.Ports.Minus)
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

// algebra computes with relations.
type algebra struct {
	*sets
	ports *portTable
}

// normal returns the union of layers in normal form.
func (a algebra) normal(layers []layer) relation {
	parts := a.byPorts(layers)
	if len(parts) > 1 && !a.disjoint(parts) {
		parts = a.split(parts)
	}
	return a.byColumns(parts)
}

// byPorts joins layers of equal ports, in order of first appearance.
func (a algebra) byPorts(layers []layer) relation {
	var joined relation
	for _, l := range layers {
		if l.ports == noPorts || l.columns.empty() {
			continue
		}
		if i := slices.IndexFunc(joined, func(j layer) bool { return j.ports == l.ports }); i >= 0 {
			joined[i].columns = a.or(joined[i].columns, l.columns)
			continue
		}
		joined = append(joined, l)
	}
	return joined
}

func (a algebra) disjoint(r relation) bool {
	seen := noPorts
	for _, l := range r {
		if a.ports.and(seen, l.ports) != noPorts {
			return false
		}
		seen = a.ports.or(seen, l.ports)
	}
	return true
}

// split cuts layers where their ports overlap.
func (a algebra) split(layers relation) relation {
	var parts relation
	for _, l := range layers {
		rest := l.ports
		for i, n := 0, len(parts); i < n && rest != noPorts; i++ {
			common := a.ports.and(parts[i].ports, rest)
			if common == noPorts {
				continue
			}
			rest = a.ports.minus(rest, common)
			if apart := a.ports.minus(parts[i].ports, common); apart != noPorts {
				parts = append(parts, layer{apart, parts[i].columns})
			}
			parts[i] = layer{common, a.or(parts[i].columns, l.columns)}
		}
		if rest != noPorts {
			parts = append(parts, layer{rest, l.columns})
		}
	}
	return parts
}

// byColumns joins layers of equal columns and sorts by ports.
func (a algebra) byColumns(parts relation) relation {
	var joined relation
	for _, l := range parts {
		if i := slices.IndexFunc(joined, func(j layer) bool { return j.columns == l.columns }); i >= 0 {
			joined[i].ports = a.ports.or(joined[i].ports, l.ports)
			continue
		}
		joined = append(joined, l)
	}
	slices.SortFunc(joined, func(x, y layer) int { return a.ports.sets[x.ports].Compare(a.ports.sets[y.ports]) })
	return joined
}

func (a algebra) unite(r, s relation) relation {
	switch {
	case len(r) == 0:
		return s
	case len(s) == 0:
		return r
	}
	return a.normal(slices.Concat(r, s))
}

func (a algebra) intersect(r, s relation) relation {
	var common []layer
	for _, x := range r {
		for _, y := range s {
			if ports := a.ports.and(x.ports, y.ports); ports != noPorts {
				common = append(common, layer{ports, a.and(x.columns, y.columns)})
			}
		}
	}
	return a.normal(common)
}

func (a algebra) subtract(r, s relation) relation {
	if len(s) == 0 {
		return r
	}
	var left []layer
	for _, x := range r {
		rest := x.ports
		for _, y := range s {
			if ports := a.ports.and(rest, y.ports); ports != noPorts {
				left = append(left, layer{ports, a.minus(x.columns, y.columns)})
				rest = a.ports.minus(rest, ports)
			}
		}
		left = append(left, layer{rest, x.columns})
	}
	return a.normal(left)
}
