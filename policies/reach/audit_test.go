package reach_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// everyRule yields every rule of a model.
func everyRule(m *policies.Model) []reach.RuleID {
	var all []reach.RuleID
	for p := range m.Policies {
		for _, d := range policies.Directions {
			for r := range m.Policies[p].Rules[d] {
				all = append(all, reach.RuleID{Policy: p, Direction: d, Rule: r})
			}
		}
	}
	return all
}

// without returns the model without a rule, or without a policy.
func without(m *policies.Model, r reach.RuleID) *policies.Model {
	less := *m
	less.Policies = slices.Clone(m.Policies)
	if r.Rule == reach.WholePolicy {
		less.Policies = slices.Delete(less.Policies, r.Policy, r.Policy+1)
		return &less
	}
	rules := &less.Policies[r.Policy].Rules[r.Direction]
	*rules = slices.Delete(slices.Clone(*rules), r.Rule, r.Rule+1)
	return &less
}

// acting returns the model with another action in a rule's place.
func acting(m *policies.Model, r reach.RuleID, action policies.Action) *policies.Model {
	other := *m
	other.Policies = slices.Clone(m.Policies)
	rules := &other.Policies[r.Policy].Rules[r.Direction]
	*rules = slices.Clone(*rules)
	(*rules)[r.Rule].Action = action
	return &other
}

var edges = []netip.Addr{
	netip.MustParseAddr("10.0.0.0"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.4"), netip.MustParseAddr("10.0.0.9"),
	netip.MustParseAddr("10.0.1.0"), netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"),
}

func everyEnd(j *reach.Judge) []reach.End {
	all := []reach.End{j.OwnNode()}
	for i := range j.Model().Pods {
		all = append(all, j.Pod(i))
	}
	for i := range j.Model().Nodes {
		all = append(all, j.Node(i))
	}
	for _, a := range edges {
		all = append(all, j.Outside(a))
	}
	return all
}

// difference returns a connection that two judges of one world decide otherwise,
// or "".
func difference(a, b *reach.Judge) string {
	outside := len(everyEnd(a)) - len(edges)
	for i, from := range everyEnd(a) {
		for k, to := range everyEnd(a) {
			if i >= outside && k >= outside {
				continue
			}
			for _, q := range points {
				if x, y := a.Verdict(from, to, q.protocol, q.port), b.Verdict(from, to, q.protocol, q.port); x != y {
					return fmt.Sprintf("%s → %s %s/%d: %s, %s", a.Peer(from), a.Peer(to), q.protocol, q.port, x, y)
				}
			}
		}
	}
	return ""
}

// What is called redundant changes nothing when it is gone, by brute force: the
// world is judged again without it.
func TestRemovalsThatChangeNothing(t *testing.T) {
	found := map[reach.Effect]int{}
	cautious := 0
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(dice{t})
		j := reach.New(m, reach.Options{})
		audit := reach.NewAudit(j)
		rules := everyRule(m)
		for p := range m.Policies {
			rules = append(rules, reach.RuleID{Policy: p, Rule: reach.WholePolicy})
		}
		for _, r := range rules {
			effect := audit.Removal(r)
			found[effect]++
			moved := difference(j, reach.New(without(m, r), reach.Options{}))
			switch {
			case effect != reach.Changes && moved != "":
				t.Fatalf("%+v has effect %d, but without it %s\n%+v", r, effect, moved, m.Policies)
			case effect == reach.Changes && moved == "":
				cautious++
			}
		}
	})
	if found[reach.Nothing] == 0 || found[reach.Elsewhere] == 0 || found[reach.Changes] == 0 {
		t.Errorf("the worlds lack an effect: %v", found)
	}
	t.Logf("%v; %d changes that no connection asked about shows", found, cautious)
}

// A policy that keeps two pods apart at both ends, each of which would be enough, is what
// keeps them apart.
func TestRemovalOfBothEnds(t *testing.T) {
	const world = `
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: main}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {containers: [{name: main}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop}, spec: {podSelector: {}, policyTypes: [Ingress, Egress]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkPolicy, metadata: {name: early, namespace: shop}, spec: {tier: early, ingress: [{action: Pass, source: {selector: app == 'web'}}], egress: [{action: Pass, destination: {selector: all()}}]}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: early}, spec: {order: 1}}
`
	m := readModel(t, world, nil)
	audit := reach.NewAudit(reach.New(m, reach.Options{}))
	closed := slices.IndexFunc(m.Policies, func(p policies.Policy) bool { return p.Ref.Name == "closed" })
	if got := audit.Removal(reach.RuleID{Policy: closed, Rule: reach.WholePolicy}); got != reach.Changes {
		t.Errorf("without it: effect %d, want %d", got, reach.Changes)
	}
}

// A rule that never decides may go, and may do anything else where order counts.
func TestRulesThatNeverDecide(t *testing.T) {
	hidden := 0
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(dice{t})
		ordered := rapid.Bool().Draw(t, "ordered")
		for i := range m.Policies {
			if ordered {
				m.Policies[i].Priority = i
			}
		}
		j := reach.New(m, reach.Options{})
		audit := reach.NewAudit(j)
		for _, r := range everyRule(m) {
			hiders := audit.Hiders(r)
			if audit.MatchesAny(r) == audit.Decides(r) {
				if hiders != nil {
					t.Fatalf("%+v decides, or matches nothing, and is hidden by %+v", r, hiders)
				}
				continue
			}
			hidden++
			if moved := difference(j, reach.New(without(m, r), reach.Options{})); moved != "" {
				t.Fatalf("%+v never decides, but without it %s\n%+v", r, moved, m.Policies)
			}
			if ordered {
				for _, action := range []policies.Action{policies.ActionAllow, policies.ActionDeny, policies.ActionPass} {
					if moved := difference(j, reach.New(acting(m, r, action), reach.Options{})); moved != "" {
						t.Fatalf("%+v never decides, but were it to %s, %s\n%+v", r, action, moved, m.Policies)
					}
				}
			}
			if len(hiders) == 0 {
				t.Fatalf("nothing hides %+v, which never decides\n%+v", r, m.Policies)
			}
			if kept := reach.NewAudit(reach.New(only(m, r, hiders), reach.Options{})); kept.Decides(r) {
				t.Fatalf("%+v hide %+v, but it decides among them alone\n%+v", hiders, r, m.Policies)
			}
		}
	})
	if hidden == 0 {
		t.Error("no world had a hidden rule")
	}
}

// only returns the model in which every rule but one and its hiders matches
// nothing.
func only(m *policies.Model, r reach.RuleID, hiders []reach.RuleID) *policies.Model {
	less := *m
	less.Policies = slices.Clone(m.Policies)
	for p := range less.Policies {
		for _, d := range policies.Directions {
			rules := slices.Clone(less.Policies[p].Rules[d])
			for i := range rules {
				id := reach.RuleID{Policy: p, Direction: d, Rule: i}
				ends := slices.ContainsFunc(hiders, func(h reach.RuleID) bool { return h.Rule == reach.WholePolicy })
				if id != r && !ends && !slices.Contains(hiders, id) {
					rules[i].Peers = nil
				}
			}
			less.Policies[p].Rules[d] = rules
		}
	}
	return &less
}

// In a total order where everything is known, a rule that matches and whose
// action never matters is found.
func TestEveryHiddenRuleIsFound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(dice{t})
		for i := range m.Namespaces {
			m.Namespaces[i].Implied = false
		}
		for i := range m.Pods {
			m.Pods[i].Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})}
			m.Pods[i].Replicas = 2
		}
		for i := range m.Policies {
			m.Policies[i].Priority, m.Policies[i].Opaque, m.Policies[i].Tier = i, "", m.Tiers[i%len(m.Tiers)].Name
		}
		for _, r := range everyRule(m) {
			for i := range m.Policies[r.Policy].Rules[r.Direction][r.Rule].Peers {
				// A node's address may not be known.
				if p := &m.Policies[r.Policy].Rules[r.Direction][r.Rule].Peers[i]; p.Block.CIDR.IsValid() {
					*p = policies.Match{Anyone: true}
				}
			}
		}
		audit := reach.NewAudit(reach.New(m, reach.Options{}))
		for _, r := range everyRule(m) {
			if !audit.MatchesAny(r) || !audit.Decides(r) {
				continue
			}
			a := reach.New(acting(m, r, policies.ActionAllow), reach.Options{})
			b := reach.New(acting(m, r, policies.ActionDeny), reach.Options{})
			if !differsAtOneEnd(a, b, r.Direction) {
				t.Fatalf("%+v is said to decide, but its action makes no difference\n%+v", r, m.Policies)
			}
		}
	})
}

func differsAtOneEnd(a, b *reach.Judge, d policies.Direction) bool {
	for _, from := range everyEnd(a) {
		for _, to := range everyEnd(a) {
			for _, q := range points {
				x, y := a.Decide(from, to, q.protocol, q.port), b.Decide(from, to, q.protocol, q.port)
				if x.Sides[d].Verdict != y.Sides[d].Verdict || x.Verdict != y.Verdict {
					return true
				}
			}
		}
	}
	return false
}

// What a rule is said to match is what the trace of a decision says.
func TestMatchesAreThoseOfTheTrace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawModel(dice{t})
		j := reach.New(m, reach.Options{})
		audit := reach.NewAudit(j)
		for i := range m.Pods {
			for _, other := range everyEnd(j) {
				if other == j.Pod(i) {
					continue
				}
				for _, d := range policies.Directions {
					var ends [2]reach.End
					ends[d], ends[1-d] = j.Pod(i), other
					q := pick(dice{t}, points...)
					for _, s := range j.Decide(ends[0], ends[1], q.protocol, q.port).Sides[d].Trace {
						p := slices.IndexFunc(m.Policies, func(p policies.Policy) bool { return p.Ref == s.Policy })
						if s.Rule == nil || s.Matches == policies.No {
							continue
						}
						sure, perhaps := audit.Matches(reach.RuleID{Policy: p, Direction: d, Rule: *s.Rule}, other)
						if !sure.Union(perhaps).Contains(q.protocol, q.port) {
							t.Fatalf("%s rule %d matches %s on %s/%d, says the trace\n%+v", s.Policy, *s.Rule, j.Peer(other), q.protocol, q.port, m.Policies)
						}
					}
				}
			}
		}
	})
}

func BenchmarkAudit(b *testing.B) {
	for _, shape := range []worlds.Shape{
		{Namespaces: 100, Workloads: 1_000, Pods: 10_000, Policies: 1_000, Closed: true},
		{Namespaces: 1, Workloads: 1_000, Pods: 10_000, Policies: 1_000, Closed: true},
		worlds.PolicyRepository,
	} {
		b.Run(shape.String(), func(b *testing.B) {
			m := shape.Model(1)
			j := reach.New(m, reach.Options{})
			for b.Loop() {
				audit := reach.NewAudit(j)
				effects := map[reach.Effect]int{}
				hidden := 0
				for _, r := range everyRule(m) {
					effects[audit.Removal(r)]++
					hidden += min(1, len(audit.Hiders(r)))
				}
				for p := range m.Policies {
					effects[audit.Removal(reach.RuleID{Policy: p, Rule: reach.WholePolicy})]++
				}
				b.ReportMetric(float64(effects[reach.Nothing]+effects[reach.Elsewhere]), "redundant")
				b.ReportMetric(float64(hidden), "hidden")
			}
		})
	}
}
