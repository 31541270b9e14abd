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
	x := &removal{Audit: a, id: r, now: [2]map[int32][2]*row{{}, {}}}
	for _, d := range policies.Directions {
		if !x.concerns(d) {
			continue
		}
		x.e = a.without(r, d)
		for at := range a.groups[d] {
			effect = min(effect, x.compare(d, int32(at)))
			if effect == Changes {
				break
			}
		}
		a.restore(r, d)
	}
	return effect
}

// removal is what is left without a rule or a policy.
type removal struct {
	*Audit
	id  RuleID
	e   evaluation
	now [2]map[int32][2]*row // the rows of groups, and those from their own nodes
}

func (x *removal) concerns(d policies.Direction) bool {
	return x.id.Rule == WholePolicy || d == x.id.Direction
}

// rows returns the row of a group that is left, and what comes from its own node.
func (x *removal) rows(d policies.Direction, at int32) [2]*row {
	g := &x.groups[d][at]
	if !x.concerns(d) || !governs(g.list, x.id.Policy) && !x.model.Policies[x.id.Policy].Forwarded {
		return [2]*row{g.row, g.fromOwner}
	}
	now, known := x.now[d][at]
	if !known {
		list := g.list
		if x.id.Rule == WholePolicy {
			list = leaveOut(list, x.id.Policy)
		}
		now = [2]*row{x.e.row(d, g.classes[0], list), g.fromOwner}
		if d == policies.Ingress {
			now[1] = x.e.rowFromOwnNode(g.classes[0], list)
		}
		x.now[d][at] = now
	}
	return now
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

// compare decides a group again, and says what that changes.
func (x *removal) compare(d policies.Direction, at int32) Effect {
	g, now := &x.groups[d][at], x.rows(d, at)
	if now == [2]*row{g.row, g.fromOwner} {
		return Nothing
	}
	for _, class := range g.classes {
		if x.tells(d, class, g.row, now[0], false) || now[1] != g.fromOwner && x.tells(d, class, g.fromOwner, now[1], true) {
			return Changes
		}
	}
	return Elsewhere
}

// tells reports whether some connection of a class may be decided otherwise when
// its row is another: with anything, or only with what is on a node's network. The row
// of the other end may be another, too.
func (x *removal) tells(d policies.Direction, class int32, was, is *row, hosts bool) bool {
	a := x.Audit
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
				for _, there := range x.others(1-d, c.class, a.classes[class].host()) {
					if a.grants.both(before, a.grants.of(there[0], mine)) != a.grants.both(after, a.grants.of(there[1], mine)) {
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

// others returns the row of a class as it was and as it is, and for what comes from a
// node's network the one for its own node.
func (x *removal) others(d policies.Direction, class int32, fromHost bool) [][2]*row {
	at := x.groupOf[d][class]
	if at < 0 {
		return [][2]*row{{x.Audit.e.open, x.Audit.e.open}}
	}
	g, now := &x.groups[d][at], x.rows(d, at)
	all := [][2]*row{{g.row, now[0]}}
	if d == policies.Ingress && fromHost && !x.classes[class].host() {
		all = append(all, [2]*row{g.fromOwner, now[1]})
	}
	return all
}

func governs(list []governing, policy int) bool {
	return slices.ContainsFunc(list, func(g governing) bool { return int(g.policy) == policy })
}

// leaveOut returns a list without a policy.
func leaveOut(list []governing, policy int) []governing {
	return slices.DeleteFunc(slices.Clone(list), func(g governing) bool { return int(g.policy) == policy })
}
