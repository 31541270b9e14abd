package query

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// PoliciesOf says which policies select what a target names, or host endpoints of
// its node, rule by rule in the order in which a connection meets them, and which
// rules of any policy match it at the other end. What a host endpoint lets
// everybody do by itself is left out of the latter.
func PoliciesOf(a *reach.Audit, t policies.Target) Answer {
	answer := Answer{Question: Policies}
	ends := a.Ends(t)
	own := func(d policies.Direction) []Row {
		return selecting(a, d, "", func(e reach.End) []reach.Governs { return a.Governing(d, e) }, ends)
	}
	node := func(d policies.Direction) []Row {
		return selecting(a, d, " its node", func(e reach.End) []reach.Governs { return a.Forwarding(d, e) }, ends)
	}
	answer.Rows = slices.Concat(own(policies.Egress), node(policies.Egress), node(policies.Ingress), own(policies.Ingress))
	for _, r := range rules(a.Judge) {
		rule := &a.Model().Policies[r.Policy].Rules[r.Direction][r.Rule]
		if a.Model().Policies[r.Policy].IsBuiltIn() && isForAnyone(rule) {
			continue
		}
		var sure, perhaps netset.Ports
		for _, e := range ends {
			s, p := a.Matches(r, e)
			sure, perhaps = sure.Union(s), perhaps.Union(p)
		}
		if sure.IsEmpty() && perhaps.IsEmpty() {
			continue
		}
		row := rowOf(a.Model(), "matches", r)
		if sure.IsEmpty() {
			row.What = "may match"
		}
		row.Ports, row.Perhaps, row.Because = sure, perhaps.Minus(sure), says(rule)
		answer.Rows = append(answer.Rows, row)
	}
	return answer
}

// selecting returns the rules of the policies that govern any of the ends.
func selecting(a *reach.Audit, d policies.Direction, what string, governing func(reach.End) []reach.Governs, ends []reach.End) []Row {
	truth := map[int]policies.Truth{}
	for _, e := range ends {
		for _, g := range governing(e) {
			truth[g.Policy] = truth[g.Policy].Or(g.Truth)
		}
	}
	var rows []Row
	for _, p := range a.Order() {
		if truth[p] == policies.No {
			continue
		}
		does := "selects" + what
		if truth[p] == policies.Maybe {
			does = "may select" + what
		}
		these := a.Model().Policies[p].Rules[d]
		for r := range these {
			row := rowOf(a.Model(), does, reach.RuleID{Policy: p, Direction: d, Rule: r})
			row.Because = says(&these[r])
			rows = append(rows, row)
		}
		if len(these) == 0 {
			row := rowOf(a.Model(), does, reach.RuleID{Policy: p, Rule: reach.WholePolicy})
			row.Direction, row.Because = d.String(), "it has no "+d.String()+" rule"
			if opaque := a.Model().Policies[p].Opaque; opaque != "" {
				row.Because = opaque
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// says says what a rule matches, behind the name that it has.
func says(r *policies.Rule) string {
	if r.Name == "" {
		return r.String()
	}
	return r.Name + ": " + r.String()
}

// isForAnyone reports whether a rule matches whoever is at the other end, on the
// same ports.
func isForAnyone(r *policies.Rule) bool {
	return len(r.Named)+len(r.NotNamed) == 0 && slices.ContainsFunc(r.Peers, func(m policies.Match) bool { return m.Anyone && len(m.Except) == 0 })
}
