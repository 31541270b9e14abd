package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// visit is one rule in its place before a group: what it matches there, what of
// that nothing before it settles, and what stands before it.
type visit struct {
	id           RuleID
	matches, hit relation
	before       []hider
}

// hider is a rule, or the end of a tier, with the traffic that it keeps for
// certain from what comes after it.
type hider struct {
	id       RuleID
	only     policies.Action // of every rule of its policy, where they have one
	priority int
	tier     int // how many tiers of the list stand before its own
	takes    relation
}

// hides reports whether a hider stands before a rule: in an earlier tier, in the
// same policy, in one of lower priority, or where there is no order, in one whose
// rules all do the same, so that either order decides alike.
func (h *hider) hides(r RuleID, only policies.Action, priority, tier int) bool {
	return h.tier < tier || h.id.Policy == r.Policy || h.priority < priority || h.only == only && only != policies.NoAction
}

// onlyAction returns the action of all rules that decide, or none where they have
// several.
func onlyAction(rules []policies.Rule) policies.Action {
	only := policies.NoAction
	for _, r := range rules {
		switch {
		case r.Action == policies.ActionLog:
		case only != policies.NoAction && only != r.Action:
			return policies.NoAction
		default:
			only = r.Action
		}
	}
	return only
}

// walk visits every rule that a group is governed by, in the order of evaluation.
func (a *Audit) walk(d policies.Direction, g *group, see func(*visit)) {
	e := &a.e
	coming := relation{{e.ports.id(netset.AllTraffic()), a.within(g)}}
	everything := coming
	var before []hider
	for tiers, list := 0, g.list; len(list) > 0; tiers++ {
		n := a.book.sameTier(list)
		among := list[:n]
		list = list[n:]
		tier := a.book.tierOf(a.book.policy(among[0].policy))
		if tier == nil {
			continue // nothing is for certain about what was not understood
		}
		undefined := e.normal([]layer{{e.ports.id(tier.Undefined), e.all}})
		arriving := e.subtract(coming, undefined)
		first := len(before)
		opaque := false
		// done is what earlier ranks settle, ranked what this one does so far.
		var done relation
		for len(among) > 0 {
			var ranked [policies.ActionPass + 1]relation
			k := a.book.sameRank(among)
			for _, at := range among[:k] {
				p := a.book.policy(at.policy)
				opaque = opaque || p.Opaque != ""
				only := onlyAction(p.Rules[d])
				var own relation
				mine := done
				if only != policies.NoAction {
					mine = e.unite(mine, ranked[only])
				}
				start := len(before)
				for i, r := range e.compileRules(d, g.classes[0], at.policy) {
					id := RuleID{int(at.policy), d, i}
					v := &visit{id: id, matches: e.subtract(e.intersect(everything, e.normal(r.possible)), undefined)}
					v.hit = e.subtract(e.intersect(v.matches, arriving), mine)
					for _, h := range before {
						if h.hides(id, only, p.Priority, tiers) {
							v.before = append(v.before, h)
						}
					}
					see(v)
					if r.action == policies.ActionLog {
						continue
					}
					yes := e.normal(r.yes)
					mine, own = e.unite(mine, yes), e.unite(own, yes)
					before = append(before, hider{id, only, p.Priority, tiers, yes})
				}
				if at.truth != policies.Yes || p.Opaque != "" {
					before = before[:start]
					continue
				}
				ranked[only] = e.unite(ranked[only], own)
			}
			for _, settled := range ranked {
				done = e.unite(done, settled)
			}
			among = among[k:]
		}
		if opaque {
			before = before[:first]
			continue
		}
		inTier := g.list[len(g.list)-len(list)-n:][:n]
		pass := e.stage(d, g.classes[0], inTier).pass
		for i := first; i < len(before); i++ {
			before[i].takes = e.subtract(before[i].takes, pass)
		}
		if tier.End == policies.ActionDeny {
			end := RuleID{int(inTier[0].policy), d, WholePolicy}
			before = append(before, hider{end, policies.NoAction, 0, tiers, e.subtract(coming, pass)})
		}
		coming = e.intersect(coming, pass)
	}
}

// within returns the columns that the classes of a group can have at the other
// end: those of an address family of theirs, and of what is in the world.
func (a *Audit) within(g *group) *set {
	var fams family
	for _, class := range g.classes {
		fams |= a.classes[class].families
	}
	if a.byFamily[fams] == nil {
		for i := range a.columns {
			if c := &a.columns[i]; c.families&fams != 0 && (c.class < 0 || a.people[c.class] > 0) {
				a.e.add(int32(i))
			}
		}
		a.byFamily[fams] = a.e.build()
	}
	return a.byFamily[fams]
}

// Hiders returns what hides a rule that matches something and never decides, in
// the order of evaluation: one rule where one is enough, else several; a
// WholePolicy among them is the end of that policy's tier. It is empty for every
// other rule.
func (a *Audit) Hiders(r RuleID) []RuleID {
	if !a.MatchesAny(r) || a.Decides(r) {
		return nil
	}
	var visits []*visit
	for i := range a.groups[r.Direction] {
		g := &a.groups[r.Direction][i]
		if !governs(g.list, r.Policy) {
			continue
		}
		a.walk(r.Direction, g, func(v *visit) {
			if v.id == r && len(v.matches) > 0 {
				visits = append(visits, v)
			}
		})
	}
	// What hides all of it in the first place may do so everywhere.
	for _, h := range visits[0].before {
		everywhere := !slices.ContainsFunc(visits, func(v *visit) bool {
			return !slices.ContainsFunc(v.before, func(o hider) bool { return o.id == h.id && a.covers(&o, v.matches) })
		})
		if everywhere {
			return []RuleID{h.id}
		}
	}
	var all []RuleID
	for _, v := range visits {
		left := v.matches
		for _, h := range v.before {
			rest := a.e.subtract(left, h.takes)
			if !slices.Equal(rest, left) && !slices.Contains(all, h.id) {
				all = append(all, h.id)
			}
			left = rest
		}
	}
	return all
}

func (a *Audit) covers(h *hider, r relation) bool { return len(a.e.subtract(r, h.takes)) == 0 }
