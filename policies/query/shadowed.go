package query

import (
	"fmt"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// ShadowedRules says which rules match something and never decide, or never log,
// because what comes before them settles it all, and names that.
func ShadowedRules(a *reach.Audit) Answer {
	answer := Answer{Question: Shadowed}
	m := a.Model()
	for _, id := range rules(a.Judge) {
		if m.Policies[id.Policy].IsBuiltIn() {
			continue
		}
		hiders := a.Hiders(id)
		if len(hiders) == 0 {
			continue
		}
		what := "never decides"
		if m.Policies[id.Policy].Rules[id.Direction][id.Rule].Action == policies.ActionLog {
			what = "never logs"
		}
		row := rowOf(m, what, id)
		for _, h := range hiders {
			p := &m.Policies[h.Policy]
			by := Rule{Policy: p.Ref, Direction: h.Direction.String(), At: p.Place}
			if h.Rule != reach.WholePolicy {
				by.Rule, by.At = &h.Rule, m.Policies[h.Policy].Rules[h.Direction][h.Rule].Place
			}
			row.By = append(row.By, by)
		}
		row.Because = hiding(m, id, hiders)
		answer.Rows = append(answer.Rows, row)
	}
	return answer
}

// hiding says what hides a rule.
func hiding(m *policies.Model, id reach.RuleID, hiders []reach.RuleID) string {
	if len(hiders) > 1 {
		return fmt.Sprintf("%d rules before it settle together all that it matches", len(hiders))
	}
	h := hiders[0]
	p := &m.Policies[h.Policy]
	if h.Rule == reach.WholePolicy {
		return fmt.Sprintf("tier %s ends in deny for all that it applies to", p.Tier)
	}
	does := map[policies.Action]string{policies.ActionAllow: "allows", policies.ActionDeny: "denies", policies.ActionPass: "passes on"}
	of := p.Ref.What() + " " + p.Ref.String()
	if h.Policy == id.Policy {
		of = "the same policy"
	}
	return fmt.Sprintf("%s rule %d of %s %s all that it matches", h.Direction, h.Rule+1, of, does[p.Rules[h.Direction][h.Rule].Action])
}
