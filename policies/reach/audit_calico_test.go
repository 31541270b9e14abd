package reach_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/reach"
)

// drawAnyCalicoWorld draws a world of all dialects, with host endpoints or not.
func drawAnyCalicoWorld(t *rapid.T) (*calicoWorld, *policies.Model) {
	d := dice{t}
	c := drawCalicoWorld(d)
	if d.chance(50) {
		c = drawHostWorld(d)
	}
	return c, readModel(t, c.String(), c.podCIDRs)
}

// What weir query finds in a world of all dialects holds when the world is judged
// again without it: what selects nothing, matches nothing, never decides or
// changes nothing leaves every verdict as it is. What logs is never said to change
// nothing, nor to hide something.
func TestCalicoFindingsHold(t *testing.T) {
	found := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		c, m := drawAnyCalicoWorld(t)
		j := reach.New(m, reach.Options{})
		audit := reach.NewAudit(j)
		for _, row := range slices.Concat(
			query.UnusedRules(audit, nil, time.Time{}).Rows, query.ShadowedRules(audit).Rows, query.RedundantRules(audit).Rows,
		) {
			found[row.What]++
			for _, by := range row.By {
				if by.Rule != nil && ruleOf(m, by.Policy, by.Direction, *by.Rule).Action == policies.ActionLog {
					t.Fatalf("a rule that logs hides another: %+v\n%s", row, c)
				}
			}
			if row.Policy == nil {
				continue
			}
			if row.What == "changes nothing" && row.Rule != nil && row.Action == policies.ActionLog {
				t.Fatalf("a rule that logs is said to change nothing: %+v\n%s", row, c)
			}
			if moved := difference(j, reach.New(without(m, idOf(m, row)), reach.Options{})); moved != "" {
				t.Fatalf("%+v, but without it %s\n%s", row, moved, c)
			}
		}
	})
	for _, what := range []string{"selects nothing", "matches nothing", "in no rule", "never decides", "never logs", "changes nothing"} {
		if found[what] == 0 {
			t.Errorf("no world had a finding %q: %v", what, found)
		}
	}
}

func ruleOf(m *policies.Model, policy policies.Ref, direction string, rule int) *policies.Rule {
	id := idOf(m, query.Row{Policy: &policy, Direction: direction, Rule: &rule})
	return &m.Policies[id.Policy].Rules[id.Direction][id.Rule]
}

func idOf(m *policies.Model, row query.Row) reach.RuleID {
	id := reach.RuleID{Rule: reach.WholePolicy}
	id.Policy = slices.IndexFunc(m.Policies, func(p policies.Policy) bool { return p.Ref == *row.Policy && !p.IsBuiltIn() })
	if row.Rule != nil {
		id.Rule = *row.Rule
	}
	for _, d := range policies.Directions {
		if d.String() == row.Direction {
			id.Direction = d
		}
	}
	return id
}

// Every question about a world of all dialects has an answer, and the same one
// twice. What decides a connection is among the policies of its ends, and is on
// its path.
func TestCalicoQuestions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c, m := drawAnyCalicoWorld(t)
		if d.chance(50) {
			c.drawStaged(d)
			m = readModel(t, c.String(), c.podCIDRs)
		}
		if len(m.Policies) == 0 || len(m.Pods) == 0 {
			return
		}
		asked := []policies.Ref{pick(d, m.Policies...).Ref, pick(d, m.Policies...).Ref}
		if len(m.Staged) > 0 {
			asked = append(asked, pick(d, m.Staged...).Ref)
		}
		ask := func() (all []query.Answer) {
			j := reach.New(m, reach.Options{})
			all = append(all, query.ExposureOf(j), query.Uncovered(j))
			for _, ref := range asked {
				for _, named := range query.Find(m, ref.Full()) {
					all = append(all, query.PeersOf(j, named))
				}
			}
			return all
		}
		exact := cmp.Exporter(func(reflect.Type) bool { return true })
		first := ask()
		if diff := cmp.Diff(first, ask(), exact); diff != "" {
			t.Fatalf("the same question twice (-first +second):\n%s\n%s", diff, c)
		}
		j := reach.New(m, reach.Options{})
		audit := reach.NewAudit(j)
		from, to := policies.Target{Pods: []int{d.between(0, len(m.Pods)-1)}}, policies.Target{Pods: []int{d.between(0, len(m.Pods)-1)}}
		q := pick(d, points...)
		path, verdict, err := query.PathOf(j, reach.Question{From: from, To: to, Port: policies.PortQuery{Ports: netset.PortSpan(q.protocol, q.port, q.port)}})
		if err != nil {
			t.Fatalf("%v\n%s", err, c)
		}
		if last := path.Rows[len(path.Rows)-1]; last.What != "to" || last.Verdict != verdict && verdict != policies.Unknown {
			t.Fatalf("the path ends in %+v and the verdict is %s\n%s", last, verdict, c)
		}
		concerned := map[policies.Ref]bool{}
		for _, t := range []policies.Target{from, to} {
			for _, r := range query.PoliciesOf(audit, t).Rows {
				concerned[*r.Policy] = concerned[*r.Policy] || r.What != "matches" && r.What != "may match"
			}
		}
		worst := policies.Allow
		for _, r := range path.Rows {
			if r.Policy != nil && !concerned[*r.Policy] {
				t.Fatalf("%s decides on the path and is not among the policies that select an end\n%s", r.Policy, c)
			}
			if r.Verdict == policies.Deny || r.Verdict == policies.Unknown && worst == policies.Allow {
				worst = r.Verdict
			}
		}
		if worst != verdict && !c.dual {
			t.Fatalf("the hops say %s, the answer %s: %+v\n%s", worst, verdict, path.Rows, c)
		}
	})
}
