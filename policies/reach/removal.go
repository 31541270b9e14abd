package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// Effect is what a removal does in a world.
type Effect uint8

// The effects. The zero Effect is that something may change, so a forgotten one
// can never call a rule redundant.
const (
	Changes   Effect = iota // some connection is decided otherwise, or may be
	Elsewhere               // no connection: the other end denies it all the same, or is the pod itself
	Nothing                 // every decision of either end stays as it is
)

// Removal says what would change without a rule, or without a whole policy. It
// decides again what the policy governs, and nothing else. Addresses that no pod
// has count too, and a node may always be the pod's own. What meets traffic at
// another hook than all others may always change something: replies, or what
// comes to a Service, which no connection shows.
func (a *Audit) Removal(r RuleID) Effect {
	p := &a.model.Policies[r.Policy]
	if tier := a.book.tierOf(p); p.Opaque != "" || tier != nil && tier.Hook != policies.Filtering {
		return Changes
	}
	effect := Nothing
	for _, d := range policies.Directions {
		if r.Rule != WholePolicy && d != r.Direction {
			continue
		}
		e := a.without(r, d)
		for i := range a.groups[d] {
			g := &a.groups[d][i]
			if !governs(g.list, r.Policy) && !a.model.Policies[r.Policy].Forwarded {
				continue
			}
			list := g.list
			if r.Rule == WholePolicy {
				list = leaveOut(list, r.Policy)
			}
			effect = min(effect, a.compare(d, g, &e, list))
			if effect == Changes {
				break
			}
		}
		a.restore(r, d)
	}
	return effect
}

// without returns an evaluation in which a rule is not there.
func (a *Audit) without(r RuleID, d policies.Direction) evaluation {
	e := newEvaluation(a.e.builder, bookOf(&a.scratch), a.hosts)
	if r.Rule == WholePolicy && a.model.Policies[r.Policy].Forwarded {
		e.forwarded = map[int32]*governed{}
		for node, lists := range a.hosts.forwarded {
			e.forwarded[node] = &governed{leaveOut(lists[0], r.Policy), leaveOut(lists[1], r.Policy)}
		}
	}
	e.rules = a.e.rules
	if r.Rule != WholePolicy {
		rules := &a.scratch.Policies[r.Policy].Rules[d]
		*rules = slices.Delete(slices.Clone(*rules), r.Rule, r.Rule+1)
		e.rules[d].set(int32(r.Policy), nil)
	}
	return e
}

func (a *Audit) restore(r RuleID, d policies.Direction) {
	if r.Rule != WholePolicy {
		a.scratch.Policies[r.Policy].Rules[d] = a.model.Policies[r.Policy].Rules[d]
		a.e.rules[d].set(int32(r.Policy), nil)
	}
}

// compare decides a group again under a list, and says what that changes.
func (a *Audit) compare(d policies.Direction, g *group, e *evaluation, list []governing) Effect {
	now := e.row(d, g.classes[0], list)
	own := g.fromOwner
	if d == policies.Ingress {
		own = e.rowFromOwnNode(g.classes[0], list)
	}
	if now == g.row && own == g.fromOwner {
		return Nothing
	}
	for _, class := range g.classes {
		if a.tells(d, class, g.row, now, false) || own != g.fromOwner && a.tells(d, class, g.fromOwner, own, true) {
			return Changes
		}
	}
	return Elsewhere
}

// tells reports whether some connection of a class may be decided otherwise when
// its row is another: with anything, or only with what is on a node's network.
func (a *Audit) tells(d policies.Direction, class int32, was, is *row, hosts bool) bool {
	for _, l := range a.differ(was, is) {
		for column := range l.columns.columns() {
			c := &a.columns[column]
			switch {
			case c.class < 0 && hosts, c.class >= 0 && hosts && !a.classes[c.class].host():
				continue
			case c.class < 0 && c.families&a.classes[class].families != 0:
				return true
			case c.class < 0, a.people[c.class] == 0, c.class == class && a.people[class] == 1:
				continue
			}
			for _, mine := range a.classes[class].columns {
				if a.columns[mine].families&c.families == 0 {
					continue
				}
				before, after := a.grants.of(was, column), a.grants.of(is, column)
				for _, there := range a.rowsOf(1-d, c.class, a.classes[class].host()) {
					other := a.grants.of(there, mine)
					if a.grants.both(before, other) != a.grants.both(after, other) {
						return true
					}
				}
			}
		}
	}
	return false
}

// differ returns the traffic that two rows decide differently.
func (a *Audit) differ(x, y *row) relation {
	e := &a.e
	return slices.Concat(
		e.subtract(x.allow, y.allow), e.subtract(y.allow, x.allow),
		e.subtract(x.unknown, y.unknown), e.subtract(y.unknown, x.unknown),
	)
}

// rowsOf returns the row of a class, among those of the audit, and for what comes from a
// node's network the one for its own node.
func (a *Audit) rowsOf(d policies.Direction, class int32, fromHost bool) []*row {
	at := a.groupOf[d][class]
	if at < 0 {
		return []*row{a.e.open}
	}
	g := &a.groups[d][at]
	if d == policies.Ingress && fromHost && !a.classes[class].host() && g.fromOwner != g.row {
		return []*row{g.row, g.fromOwner}
	}
	return []*row{g.row}
}

func governs(list []governing, policy int) bool {
	return slices.ContainsFunc(list, func(g governing) bool { return int(g.policy) == policy })
}

// leaveOut returns a list without a policy.
func leaveOut(list []governing, policy int) []governing {
	return slices.DeleteFunc(slices.Clone(list), func(g governing) bool { return int(g.policy) == policy })
}
