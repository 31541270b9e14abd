package query

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// PoliciesOf says which policies select what a target names, rule by rule in the
// order of evaluation, and which rules of any policy match it at the other end.
func PoliciesOf(a *reach.Audit, t policies.Target) Answer {
	answer := Answer{Question: Policies}
	ends := a.Ends(t)
	for _, d := range policies.Directions {
		answer.Rows = append(answer.Rows, selecting(a, d, ends)...)
	}
	for _, r := range rules(a.Judge) {
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
		row.Ports, row.Perhaps = sure, perhaps.Minus(sure)
		answer.Rows = append(answer.Rows, row)
	}
	return answer
}

// selecting returns the rules of the policies that govern any of the ends.
func selecting(a *reach.Audit, d policies.Direction, ends []reach.End) []Row {
	truth := map[int]policies.Truth{}
	for _, e := range ends {
		for _, g := range a.Governing(d, e) {
			truth[g.Policy] = max(truth[g.Policy], g.Truth)
		}
	}
	var rows []Row
	for _, p := range a.Order() {
		if truth[p] == policies.No {
			continue
		}
		what := "selects"
		if truth[p] == policies.Maybe {
			what = "may select"
		}
		these := a.Model().Policies[p].Rules[d]
		for r := range these {
			row := rowOf(a.Model(), what, reach.RuleID{Policy: p, Direction: d, Rule: r})
			row.Because = matchText(&these[r])
			rows = append(rows, row)
		}
		if len(these) == 0 {
			row := rowOf(a.Model(), what, reach.RuleID{Policy: p, Rule: reach.WholePolicy})
			row.Direction, row.Because = d.String(), "it has no "+d.String()+" rule"
			if opaque := a.Model().Policies[p].Opaque; opaque != "" {
				row.Because = opaque
			}
			rows = append(rows, row)
		}
	}
	return rows
}

// matchText says what a rule is for, in words.
func matchText(r *policies.Rule) string {
	var who []string
	for i := range r.Peers {
		if text := r.Peers[i].String(); !slices.Contains(who, text) {
			who = append(who, text)
		}
	}
	text := "nobody"
	for i, w := range who {
		switch {
		case i == 0:
			text = w
		case i == 3:
			return text + " and more on " + portsText(r)
		default:
			text += "; " + w
		}
	}
	return text + " on " + portsText(r)
}

func portsText(r *policies.Rule) string {
	text := r.Ports.String()
	if r.Ports.IsEmpty() {
		text = ""
	} else if text == "any" {
		text = "any port"
	}
	for _, n := range r.Named {
		if text != "" {
			text += " "
		}
		text += n.Protocol.String() + "/" + n.Name
	}
	if text == "" {
		return "no port"
	}
	return text
}
