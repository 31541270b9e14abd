package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// pairing works out what is granted between classes, and remembers it.
type pairing struct {
	*Judge
	*grants
	cells map[cellKey]grantID // nil where it does not pay to remember
	// rows of a draft as they are in terms of the port sets at hand, by the class and by
	// what they are there
	asked [2]sparse[*[2]*row]
	taken map[*row]*row
}

type cellKey struct {
	row    *row
	column int32
}

func newPairing(j *Judge) pairing {
	return pairing{Judge: j, grants: newGrants(j.ports)}
}

// rowOf returns the row of a class.
func (p *pairing) rowOf(d policies.Direction, class int32) *row {
	if p.draft == nil || !p.draft.in[d] || p.draft.marks.at(class) == 0 {
		return p.rows[d].at(class)
	}
	return p.ask(d, class)[0]
}

// localOf returns the row of what comes to a class from a pod's own node.
func (p *pairing) localOf(class int32) *row {
	if p.draft == nil || !p.draft.in[policies.Ingress] || p.draft.marks.at(class) == 0 {
		return p.local.at(class)
	}
	return p.ask(policies.Ingress, class)[1]
}

// ask returns what a draft says of a class that an edited policy applies to.
func (p *pairing) ask(d policies.Direction, class int32) *[2]*row {
	if p.asked[d].count == 0 {
		p.asked[d] = newSparse[*[2]*row](len(p.classes))
	}
	known := p.asked[d].of(class)
	if *known == nil {
		rows, ports := p.rowsOf(d, class)
		*known = &[2]*row{p.take(rows[0], ports), p.take(rows[1], ports)}
	}
	return *known
}

// take returns a row of a draft in terms of the port sets at hand. Those that the
// draft did not make are.
func (p *pairing) take(r *row, ports []netset.Ports) *row {
	if r == nil || r.id < p.draft.rows {
		return r
	}
	known, ok := p.taken[r]
	if !ok {
		known = &row{id: r.id, allow: p.grants.take(r.allow, ports), unknown: p.grants.take(r.unknown, ports)}
		if p.taken == nil {
			p.taken = map[*row]*row{}
		}
		p.taken[r] = known
	}
	return known
}

// take returns a relation that names some port sets in terms of those at hand.
func (g *grants) take(r relation, ports []netset.Ports) relation {
	taken := slices.Clone(r)
	for i, l := range taken {
		taken[i].ports = g.ports.id(ports[l.ports])
	}
	return taken
}

// cell returns what a row grants to a column, remembering it where that is asked often.
func (p *pairing) cell(r *row, column int32) grantID {
	if p.cells == nil {
		return p.of(r, column)
	}
	key := cellKey{r, column}
	g, ok := p.cells[key]
	if !ok {
		g = p.of(key.row, column)
		p.cells[key] = g
	}
	return g
}

// granted returns what the columns of one end are granted to those of another,
// given whether the first is on the node of the second.
func (p *pairing) granted(sources, targets []int32, onNode policies.Truth) grantID {
	var ways waysGranted
	for _, a := range sources {
		for _, b := range targets {
			x, y := &p.columns[a], &p.columns[b]
			way := p.frame.between(a, b, ipv4|ipv6, p.ipv6)
			if way == noWay {
				continue
			}
			leaves, enters := p.open, p.open
			if x.subject >= 0 {
				leaves = p.cell(p.rowOf(policies.Egress, x.subject), b)
			}
			if y.subject >= 0 && leaves != noGrant {
				enters = p.cell(p.rowOf(policies.Ingress, y.subject), a)
				if onNode != policies.No {
					enters = p.fromNode(enters, p.cell(p.localOf(y.subject), a), onNode)
				}
			}
			ways.add(p.grants, x.families&y.families, p.over(way, leaves, enters))
		}
	}
	return ways.sum(p.grants)
}

// pairGrant returns what one class is granted to another on another node;
// nothing where the model does not have one of them.
func (p *pairing) pairGrant(source, target int32) grantID {
	if source < 0 || target < 0 {
		return noGrant
	}
	return p.granted(p.classes[source].columns, p.classes[target].columns, policies.No)
}

// localGrant is pairGrant where the source is on its node's network and the
// target runs on that node.
func (p *pairing) localGrant(source, target int32) grantID {
	if source < 0 || target < 0 {
		return noGrant
	}
	return p.granted(p.classes[source].columns, p.classes[target].columns, policies.Yes)
}

// excusable reports whether pods of one class, on their node's network, are
// granted something else by pods of another that run on the same node.
func (p *pairing) excusable(source, target int32) bool {
	return source >= 0 && target >= 0 && p.classes[source].host() && !p.classes[target].host() &&
		slices.ContainsFunc(p.classes[target].columns, func(c int32) bool {
			subject := p.columns[c].subject
			return p.localOf(subject) != p.rowOf(policies.Ingress, subject)
		})
}
