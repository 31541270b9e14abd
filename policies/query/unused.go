package query

import (
	"fmt"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// UnusedRules says which policies select nothing, which rules of the others match
// nothing, and which network sets no rule means. Where used is not nil, it tells
// of a rule how many recorded flows it decided and when the last was seen; rules
// without any, or with none since the given time, are then named too, those
// longest unused first, but for rules that log, which decide none.
func UnusedRules(a *reach.Audit, used func(reach.RuleID) (uint64, time.Time), since time.Time) Answer {
	m, sets := a.Model(), newSetsOf(a.Judge)
	answer := Answer{Question: Unused}
	var nothing, idle []Row
	for _, p := range a.Order() {
		if m.Policies[p].IsBuiltIn() {
			continue
		}
		if !a.Selects(p) {
			answer.Rows = append(answer.Rows, selectsNothing(m, sets, p))
			continue
		}
		for _, d := range policies.Directions {
			for r := range m.Policies[p].Rules[d] {
				id := reach.RuleID{Policy: p, Direction: d, Rule: r}
				rule := &m.Policies[p].Rules[d][r]
				var flows uint64
				var last time.Time
				if used != nil {
					flows, last = used(id)
				}
				switch {
				case !a.MatchesAny(id):
					row := rowOf(m, "matches nothing", id)
					row.Because = "it is for " + rule.String() + sets.empty(sets.of(rule.Peers))
					nothing = append(nothing, row)
				case used == nil || rule.Action == policies.ActionLog:
				case flows == 0:
					idle = append(idle, rowOf(m, "never used", id))
				case last.Before(since):
					row := rowOf(m, "not used since", id)
					row.Flows, row.Last = flows, last
					idle = append(idle, row)
				}
			}
		}
	}
	slices.SortStableFunc(idle, func(x, y Row) int { return x.Last.Compare(y.Last) })
	answer.Rows = slices.Concat(answer.Rows, nothing, unmeant(m, sets), idle)
	return answer
}

func selectsNothing(m *policies.Model, sets *setsOf, policy int) Row {
	p := &m.Policies[policy]
	row := rowOf(m, "selects nothing", reach.RuleID{Policy: policy, Rule: reach.WholePolicy})
	row.Because = "it is for " + p.Subject.String()
	if found := sets.of([]policies.Match{p.Subject}); len(found) > 0 {
		ref := m.Sets[found[0]].Ref
		row.Because += fmt.Sprintf("; it finds %s %s, but policies apply to no sets", ref.What(), ref)
	}
	return row
}

// unmeant returns the network sets that no rule means, staged ones neither.
func unmeant(m *policies.Model, sets *setsOf) []Row {
	if len(m.Sets) == 0 {
		return nil
	}
	meant := make([]bool, len(m.Sets))
	mark := func(p *policies.Policy) {
		for _, d := range policies.Directions {
			for r := range p.Rules[d] {
				rule := &p.Rules[d][r]
				for _, matches := range [][]policies.Match{rule.Peers, exceptions(rule.Peers), own(rule)} {
					for _, i := range sets.of(matches) {
						meant[i] = true
					}
				}
			}
		}
	}
	for i := range m.Policies {
		mark(&m.Policies[i])
	}
	for i := range m.Staged {
		mark(&m.Staged[i].Policy)
	}
	var rows []Row
	for i := range m.Sets {
		if !meant[i] {
			rows = append(rows, Row{What: "in no rule", Peer: peerOf(m.Sets[i].Ref), Because: "no selector of a rule finds it", At: m.Sets[i].Place})
		}
	}
	return rows
}

func own(r *policies.Rule) []policies.Match {
	if r.Own == nil {
		return nil
	}
	return append(exceptions([]policies.Match{*r.Own}), *r.Own)
}

// exceptions returns what matches describe not after all.
func exceptions(matches []policies.Match) []policies.Match {
	var all []policies.Match
	for i := range matches {
		m := &matches[i]
		all = slices.Concat(all, m.Except, exceptions(m.Any), exceptions(m.All), exceptions(m.Except))
	}
	return all
}
