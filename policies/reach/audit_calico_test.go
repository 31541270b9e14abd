package reach_test

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// What an audit of a world of all dialects says of a rule or policy holds when the
// world is judged again without it: one that selects nothing, matches nothing,
// never decides or changes nothing leaves every verdict as it is.
func TestCalicoFindingsHold(t *testing.T) {
	found := map[string]int{}
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := drawCalicoWorld(d)
		if d.chance(50) {
			c = drawHostWorld(d)
		}
		m := readModel(t, c.String(), c.podCIDRs)
		j := reach.New(m, reach.Options{})
		audit := reach.NewAudit(j)
		hold := func(r reach.RuleID, finding string) {
			found[finding]++
			if moved := difference(j, reach.New(without(m, r), reach.Options{})); moved != "" {
				t.Fatalf("%s %v of %s is said to be %s, but without it %s\n%s", r.Direction, r.Rule, m.Policies[r.Policy].Ref, finding, moved, c)
			}
		}
		for p := range m.Policies {
			whole := reach.RuleID{Policy: p, Rule: reach.WholePolicy}
			switch {
			case m.Policies[p].IsBuiltIn():
			case !audit.Selects(p):
				hold(whole, "for nobody")
			case audit.Removal(whole) != reach.Changes:
				hold(whole, "redundant as a whole")
			}
		}
		for _, r := range everyRule(m) {
			rule := &m.Policies[r.Policy].Rules[r.Direction][r.Rule]
			switch {
			case m.Policies[r.Policy].IsBuiltIn():
			case !audit.MatchesAny(r):
				hold(r, "idle")
			case len(audit.Hiders(r)) > 0:
				hold(r, "hidden")
			case audit.Removal(r) != reach.Changes:
				hold(r, "redundant")
			case rule.Action == policies.ActionLog && isFiltering(m, r.Policy):
				t.Fatalf("a rule that logs changes something, says the audit of %s\n%s", m.Policies[r.Policy].Ref, c)
			}
			for _, h := range audit.Hiders(r) {
				if h.Rule != reach.WholePolicy && m.Policies[h.Policy].Rules[h.Direction][h.Rule].Action == policies.ActionLog {
					t.Fatalf("a rule that logs hides another\n%s", c)
				}
			}
		}
	})
	for _, finding := range []string{"for nobody", "idle", "hidden", "redundant", "redundant as a whole"} {
		if found[finding] == 0 {
			t.Errorf("no world had a finding that something is %s: %v", finding, found)
		}
	}
}

func isFiltering(m *policies.Model, policy int) bool {
	for _, tier := range m.Tiers {
		if tier.Name == m.Policies[policy].Tier {
			return tier.Hook == policies.Filtering
		}
	}
	return false
}
