package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// move is one thing that a rule does with columns on some ports: it may take
// them, or takes them for sure from the rules behind it.
type move struct {
	action  policies.Action
	sure    bool
	columns *set
}

// evaluateOrdered is evaluate for policies that have an order among them, all of
// which select the class: the rules that are for a port are followed one by one,
// once for all ports that the same rules are for. It returns nil for others.
func (e *evaluation) evaluateOrdered(d policies.Direction, class int32, list []governing, tier *policies.Tier, undefined relation) *stage {
	if len(undefined) > 0 {
		return nil
	}
	for i, g := range list {
		p := e.policy(g.policy)
		if g.truth != policies.Yes || p.Opaque != "" || i > 0 && p.Priority == e.policy(list[i-1].policy).Priority {
			return nil
		}
	}
	var moves []move
	byPorts := map[portsID][]int32{} // moves, ascending
	var ids []portsID
	note := func(action policies.Action, sure bool, layers []layer) {
		for _, l := range layers {
			if byPorts[l.ports] == nil {
				ids = append(ids, l.ports)
			}
			byPorts[l.ports] = append(byPorts[l.ports], int32(len(moves)))
			moves = append(moves, move{action, sure, l.columns})
		}
	}
	for _, g := range list {
		for _, r := range e.compileRules(d, class, g.policy) {
			if r.action != policies.ActionLog {
				note(r.action, false, r.possible)
				note(r.action, true, r.yes)
			}
		}
	}
	return e.follow(moves, byPorts, ids, tier.End)
}

// follow works out the stage that some moves make.
func (e *evaluation) follow(moves []move, byPorts map[portsID][]int32, ids []portsID, end policies.Action) *stage {
	var allow, pass, safe []layer
	keep := func(to *[]layer, ports portsID, columns *set) {
		if !columns.empty() {
			*to = append(*to, layer{ports, columns})
		}
	}
	taken := newCanvas(len(e.columns))
	var hit [policies.ActionPass + 1]canvas
	for i := range hit {
		hit[i] = newCanvas(len(e.columns))
	}
	rest := netset.AllTraffic()
	for _, part := range netset.Partition(e.ports.setsOf(ids)) {
		var here []int32
		for _, i := range part.Sets {
			here = append(here, byPorts[ids[i]]...)
		}
		slices.Sort(here)
		for _, i := range here {
			if m := &moves[i]; m.sure {
				taken.addSet(m.columns)
			} else {
				hit[m.action].addBeyond(m.columns, &taken)
			}
		}
		ports := e.ports.id(part.Ports)
		rest = rest.Minus(part.Ports)
		if end == policies.ActionPass {
			left := e.beyond(e.all, &taken)
			keep(&safe, ports, e.beyond(e.all, &hit[policies.ActionDeny]))
			keep(&pass, ports, e.or(left, e.take(&hit[policies.ActionPass])))
		} else {
			keep(&safe, ports, e.beyond(e.take(&taken), &hit[policies.ActionDeny]))
			keep(&pass, ports, e.take(&hit[policies.ActionPass]))
		}
		keep(&allow, ports, e.take(&hit[policies.ActionAllow]))
		hit[policies.ActionDeny].clear()
		taken.clear()
	}
	if end == policies.ActionPass && !rest.IsEmpty() {
		keep(&pass, e.ports.id(rest), e.all)
		keep(&safe, e.ports.id(rest), e.all)
	}
	return e.newStage(e.disjoint(allow), e.disjoint(pass), e.disjoint(safe))
}

// disjoint returns layers whose ports are disjoint in normal form.
func (a algebra) disjoint(layers []layer) relation { return a.sorted(a.byColumns(layers)) }
