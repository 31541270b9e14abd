package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// pairing works out what is granted between classes, and remembers it.
type pairing struct {
	*Judge
	*grants
	cells map[cellKey]grantID // nil where it does not pay to remember
}

type cellKey struct {
	row    *row
	column int32
}

func newPairing(j *Judge) pairing {
	return pairing{Judge: j, grants: newGrants(j.ports)}
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
				leaves = p.cell(p.rows[policies.Egress].at(x.subject), b)
			}
			if y.subject >= 0 && leaves != noGrant {
				enters = p.cell(p.rows[policies.Ingress].at(y.subject), a)
				if onNode != policies.No {
					enters = p.fromNode(enters, p.cell(p.local.at(y.subject), a), onNode)
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
			return p.local.at(subject) != p.rows[policies.Ingress].at(subject)
		})
}
