package query

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// PeersOf says what a policy applies to, pods by workload and host endpoints, and
// what each of its rules matches. Of a staged policy it says what would be so if
// that one were enforced, and no other.
func PeersOf(j *reach.Judge, of Named) Answer {
	answer := Answer{Question: Peers}
	if of.Staged {
		s := &j.Model().Staged[of.Policies[0]]
		row := Row{What: "is staged", Tier: s.Policy.Tier, Policy: &s.Ref, At: s.Policy.Place, Because: "it would be new"}
		at := func(m *policies.Model) int {
			return slices.IndexFunc(m.Policies, func(p policies.Policy) bool { return p.Ref == s.Policy.Ref })
		}
		is := at(j.Model()) >= 0
		name := s.Policy.Ref.What() + " " + s.Policy.Ref.String()
		switch {
		case s.Deletes && is:
			row.Because = "it would remove " + name
		case s.Deletes:
			row.Because = fmt.Sprintf("it would remove %s, which is not there", name)
		case is:
			row.Because = "it would take the place of " + name
		}
		answer.Rows = append(answer.Rows, row)
		if s.Deletes && !is {
			return answer
		}
		if !s.Deletes {
			j = reach.New(j.Model().Enforce(of.Policies[0]), j.Options())
		}
		of.Policies = []int{at(j.Model())}
	}
	a := reach.NewAudit(j)
	answer.Rows = append(answer.Rows, appliesTo(a, of)...)
	sets := newSetsOf(j)
	type origin struct {
		direction policies.Direction
		place     policies.Place
	}
	seen := map[origin]bool{} // of a profile's rules: each host endpoint has them
	for _, id := range rules(j) {
		rule := &j.Model().Policies[id.Policy].Rules[id.Direction][id.Rule]
		from := origin{id.Direction, rule.Place}
		if !slices.Contains(of.Policies, id.Policy) || of.Profile != "" && (!isOfProfile(rule, of.Profile) || seen[from]) {
			continue
		}
		seen[from] = true
		answer.Rows = append(answer.Rows, matched(a, sets, id)...)
	}
	for _, p := range of.Policies {
		answer.Rows = append(answer.Rows, without(j.Model(), p)...)
	}
	if of.Staged {
		for i := range answer.Rows {
			answer.Rows[i].Policy = answer.Rows[0].Policy
		}
	}
	return answer
}

// appliesTo returns whom policies select.
func appliesTo(a *reach.Audit, of Named) []Row {
	m := a.Model()
	var sure, maybe, onHost members
	for i := range m.Pods {
		truth := policies.No
		for _, d := range policies.Directions {
			for _, g := range a.Governing(d, a.Pod(i)) {
				if slices.Contains(of.Policies, g.Policy) {
					truth = truth.Or(g.Truth)
				}
			}
		}
		switch p := &m.Pods[i]; {
		case truth == policies.No:
		case p.HostNetwork:
			onHost.add(p)
		case truth == policies.Yes:
			sure.add(p)
		default:
			maybe.add(p)
		}
	}
	row := func(what, because string) Row {
		row := rowOf(m, what, reach.RuleID{Policy: of.Policies[0], Rule: reach.WholePolicy})
		row.Because = because
		return row
	}
	all := sure.rows(row("applies to", ""))
	all = append(all, maybe.rows(row("may apply to", ""))...)
	seen := map[int]bool{}
	for _, p := range of.Policies {
		for _, i := range a.HostsOf(p) {
			if seen[i] {
				continue
			}
			seen[i] = true
			host := row("applies to", aboutHost(m, &m.Hosts[i], &m.Policies[p]))
			host.Peer = peerOf(m.Hosts[i].Ref)
			all = append(all, host)
		}
	}
	return append(all, onHost.rows(row("applies to", "on the network of their node, which has host endpoints"))...)
}

// aboutHost says which traffic of a host endpoint meets a policy.
func aboutHost(m *policies.Model, h *policies.HostEndpoint, p *policies.Policy) string {
	text := "on node " + h.Node
	if p.Forwarded {
		text += ", with what it forwards"
	}
	return text + [...]string{"", ", before connections are tracked", ", before the addresses of Services are resolved"}[hookOf(m, p)]
}

func hookOf(m *policies.Model, p *policies.Policy) policies.Hook {
	for i := range m.Tiers {
		if m.Tiers[i].Name == p.Tier {
			return m.Tiers[i].Hook
		}
	}
	return policies.Filtering
}

// without returns what is to say of a policy in place of rules.
func without(m *policies.Model, policy int) []Row {
	p := &m.Policies[policy]
	whole := reach.RuleID{Policy: policy, Rule: reach.WholePolicy}
	if p.Opaque != "" {
		row := rowOf(m, "is not understood", whole)
		row.Because = p.Opaque
		return []Row{row}
	}
	end := "passes on"
	for i := range m.Tiers {
		if m.Tiers[i].Name == p.Tier && m.Tiers[i].End == policies.ActionDeny {
			end = "denies"
		}
	}
	var rows []Row
	for _, d := range policies.Directions {
		if p.Governs[d] && len(p.Rules[d]) == 0 && !p.IsBuiltIn() {
			row := rowOf(m, "has no rule", whole)
			row.Direction, row.Because = d.String(), fmt.Sprintf("tier %s %s what no rule of it matches", p.Tier, end)
			rows = append(rows, row)
		}
	}
	return rows
}

// matched returns what one rule matches, a row for each peer, or one for anyone.
func matched(a *reach.Audit, sets *setsOf, id reach.RuleID) []Row {
	m := a.Model()
	rule := &m.Policies[id.Policy].Rules[id.Direction][id.Rule]
	among := sets.of(rule.Peers)
	if isForAnyone(rule) {
		row := rowOf(m, "matches anyone", id)
		row.Ports, row.Because = rule.Ports.Minus(rule.NotPorts), says(rule)
		if rule.Unclear != "" {
			row.What, row.Ports, row.Perhaps = "may match anyone", row.Perhaps, row.Ports
		}
		return []Row{row}
	}
	var rows []Row
	for _, x := range a.Matched(id) {
		row := rowOf(m, "matches", id)
		if x.Sure.IsEmpty() {
			row.What, row.Because = "may match", rule.Unclear
		}
		row.Peer, row.Ports, row.Perhaps = &x.Peer, x.Sure, x.Perhaps
		if x.Peer.IsOutside() {
			if names := sets.holding(among, netset.Block{CIDR: *x.Peer.CIDR, Except: x.Peer.Except}.Addresses()); names != "" {
				row.Because = strings.TrimPrefix(row.Because+"; "+names, "; ")
			}
		}
		rows = append(rows, row)
	}
	if len(rows) > 0 {
		return rows
	}
	row := rowOf(m, "matches nothing", id)
	row.Because = "it is for " + rule.String() + sets.empty(among)
	return []Row{row}
}

// setsOf tells which network sets the rules of a model mean.
type setsOf struct {
	all   []policies.NetworkSet
	parts *reach.Parts
}

func newSetsOf(j *reach.Judge) *setsOf { return &setsOf{j.Model().Sets, j.Parts()} }

// of returns the network sets that matches describe, or may describe, by their
// labels or names, as indexes.
func (s *setsOf) of(matches []policies.Match) []int {
	var found []int
	for i := range matches {
		m := &matches[i]
		found = append(found, s.of(m.Any)...)
		found = append(found, s.of(m.All)...)
		if len(m.Any)+len(m.All) == 0 {
			found = append(found, s.parts.Sets(m)...)
			for k := range s.all {
				if s.all[k].Ref == m.Object {
					found = append(found, k)
				}
			}
		}
	}
	slices.Sort(found)
	return slices.Compact(found)
}

// holding names those of some sets that have any of the addresses.
func (s *setsOf) holding(sets []int, addresses netset.Addresses) string {
	var names []string
	for _, i := range sets {
		if netset.Prefixes(s.all[i].Nets...).Overlaps(addresses) {
			names = append(names, "of "+s.all[i].Ref.What()+" "+s.all[i].Ref.String())
		}
	}
	return strings.Join(names, ", ")
}

// empty says which of some sets have no addresses.
func (s *setsOf) empty(sets []int) string {
	text := ""
	for _, i := range sets {
		if len(s.all[i].Nets)+len(s.all[i].Domains) == 0 {
			text += fmt.Sprintf("; %s %s has no addresses", s.all[i].Ref.What(), s.all[i].Ref)
		}
	}
	return text
}
