package lint

import (
	"math/bits"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// Policies of one priority have no order, and Calico goes by the names of those
// of one order. That makes a difference only where they decide otherwise about
// the same traffic, which the engine tells.
func priorityTie(l *look) {
	type rank struct {
		tier  string
		order float64
	}
	tied := map[rank][]int{}
	does := make([]actions, len(l.Policies))
	for i := range l.Policies {
		does[i] = actionsOf(&l.Policies[i])
		if p := &l.Policies[i]; p.Opaque == "" && !p.IsBuiltIn() {
			at := rank{p.Tier, p.Order}
			tied[at] = append(tied[at], i)
		}
	}
	for i := range l.Policies {
		p := &l.Policies[i]
		others := tied[rank{p.Tier, p.Order}]
		at := slices.Index(others, i)
		if at < 1 {
			continue
		}
		var harmless, harmful []int
		for _, k := range others[:at] {
			switch {
			case !does[i].contend(does[k]) || !l.meet(i, k):
			case l.audit().OrderMatters(i, k):
				harmful = append(harmful, k)
			case p.Priority == l.Policies[k].Priority:
				harmless = append(harmless, k)
			}
		}
		switch {
		case len(harmful) > 0:
			other := &l.Policies[harmful[0]]
			if p.Priority == other.Priority {
				l.report(Error, p.Place, i, "%s has the priority of this policy, too, and decides otherwise about some of the same traffic, so what happens to it is not defined; give them different priorities", l.names(harmful)).See = other.Place
				continue
			}
			l.report(Warning, p.Place, i, "only its name puts this policy behind %s, of the same %s in tier %s, which decides otherwise about some of the same traffic; give them different ones", l.names(harmful), rankOf(p), p.Tier).See = other.Place
		case len(harmless) > 0:
			l.report(Note, p.Place, i, "%s has the priority of this policy, too, for some of the same pods; what they say about them now does not depend on the order, but give them different priorities", l.names(harmless)).See = l.Policies[harmless[0]].Place
		}
	}
}

// rankOf is what the kind of a policy calls its order.
func rankOf(p *policies.Policy) string {
	if p.Ref.Group == "" && p.Ref.Namespace == "" {
		return "priority"
	}
	return "order"
}

// actions are those that the rules of a policy take in each direction, as bits.
type actions [2]uint8

func actionsOf(p *policies.Policy) (all actions) {
	for _, d := range policies.Directions {
		for _, r := range p.Rules[d] {
			if r.Action != policies.ActionLog {
				all[d] |= 1 << r.Action
			}
		}
	}
	return all
}

// contend reports whether two policies could decide otherwise: not where all
// rules of both do the same.
func (a actions) contend(b actions) bool {
	for d := range a {
		if a[d] != 0 && b[d] != 0 && bits.OnesCount8(a[d]|b[d]) > 1 {
			return true
		}
	}
	return false
}

// meet reports whether two policies govern some of the same pods, or may govern
// the same hosts.
func (l *look) meet(i, k int) bool {
	for _, d := range policies.Directions {
		if overlap(l.subjects[d][i], l.subjects[d][k]) {
			return true
		}
	}
	return len(l.Hosts) > 0 && l.parts.Selects(i) && l.parts.Selects(k)
}

// names names policies, the first few of them.
func (l *look) names(of []int) string {
	var names []string
	for _, i := range of {
		names = append(names, l.Policies[i].Ref.What()+" "+l.Policies[i].Ref.String())
	}
	return firstOf(names)
}
