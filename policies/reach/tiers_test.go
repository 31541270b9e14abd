package reach_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// drawModel draws a model whose tiers hold everything that tiers can hold.
func drawModel(d dice) *policies.Model {
	m := &policies.Model{}
	for _, name := range []string{"a", "b", "c"} {
		n := policies.Namespace{Name: name, Labels: map[string]string{}, Implied: d.chance(25)}
		if !n.Implied {
			n.Labels = drawLabels(d, "team")
		}
		n.Labels[policies.NameLabel] = name
		m.Namespaces = append(m.Namespaces, n)
	}
	for i := range d.between(2, 5) {
		ref := policies.Ref{Kind: "Pod", Namespace: pick(d, "a", "b", "c"), Name: fmt.Sprintf("p%d", i)}
		pod := policies.Pod{Ref: ref, Workload: ref, Replicas: 1, Labels: drawLabels(d, "app")}
		if d.chance(70) {
			pod.Addresses = []netip.Addr{netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", i))}
		}
		pod.Ports = several(d, 2, func() policies.ContainerPort {
			return policies.ContainerPort{Name: pick(d, portNames...), Protocol: pick(d, netset.TCP, netset.UDP), Number: pick(d, uint16(80), 81)}
		})
		m.Pods = append(m.Pods, pod)
	}
	for i := range d.between(1, 3) {
		tier := policies.Tier{Name: fmt.Sprintf("tier-%d", i), End: pick(d, policies.ActionDeny, policies.ActionPass)}
		if d.chance(20) {
			tier.Undefined = netset.EveryPort(netset.ICMP)
		}
		m.Tiers = append(m.Tiers, tier)
	}
	for i := range d.between(0, 6) {
		m.Policies = append(m.Policies, drawModelPolicy(d, m.Tiers, i))
	}
	return m
}

func drawModelPolicy(d dice, tiers []policies.Tier, i int) policies.Policy {
	p := policies.Policy{
		Ref:     policies.Ref{Kind: "Policy", Name: fmt.Sprintf("policy-%d", i)},
		Tier:    pick(d, tiers...).Name,
		Subject: policies.Match{Namespaces: drawModelSelector(d, "team", policies.NameLabel), Pods: drawModelSelector(d, "app")},
		Governs: pick(d, [2]bool{true, true}, [2]bool{true, false}, [2]bool{false, true}),
	}
	if d.chance(75) {
		p.Priority = d.between(0, 4)
	}
	if d.chance(10) {
		p.Opaque = "it is not understood"
		if d.chance(50) {
			p.Tier = ""
		}
		return p
	}
	for _, direction := range policies.Directions {
		if p.Governs[direction] {
			p.Rules[direction] = several(d, 3, func() policies.Rule { return drawModelRule(d) })
		}
	}
	return p
}

func drawModelRule(d dice) policies.Rule {
	r := policies.Rule{Action: pick(d, policies.ActionAllow, policies.ActionDeny, policies.ActionPass)}
	r.Peers = several(d, 2, func() policies.Match {
		switch d.between(0, 3) {
		case 0:
			return policies.Match{Anyone: true}
		case 1:
			block := netset.Block{CIDR: netip.MustParsePrefix(pick(d, "0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/30"))}
			if d.chance(30) {
				block.Except = []netip.Prefix{netip.MustParsePrefix("10.0.0.2/31")}
			}
			return policies.Match{Block: block}
		}
		return policies.Match{Namespaces: drawModelSelector(d, "team", policies.NameLabel), Pods: drawModelSelector(d, "app")}
	})
	switch d.between(0, 3) {
	case 0:
		r.Ports = netset.AllTraffic()
	case 1:
		r.Ports = netset.PortSpan(pick(d, netset.TCP, netset.UDP), 80, 80+uint16(d.between(0, 1)))
	case 2:
		r.Ports = netset.EveryPort(netset.ICMP, netset.TCP)
	}
	if d.chance(30) {
		r.Named = []policies.NamedPort{{Protocol: pick(d, netset.TCP, netset.UDP), Name: pick(d, portNames...)}}
	}
	return r
}

func drawModelSelector(d dice, keys ...string) selector.Selector {
	key := pick(d, keys...)
	requirements := []selector.Requirement{
		{Key: key, Operator: selector.In, Values: []string{pick(d, "x", "a")}},
		{Key: key, Operator: selector.NotIn, Values: []string{"x", "b"}},
		{Key: key, Operator: selector.Exists},
		{Key: key, Operator: selector.DoesNotExist},
	}
	s, err := selector.New(several(d, 1, func() selector.Requirement { return pick(d, requirements...) }))
	if err != nil {
		d.Fatal(err)
	}
	return s
}

// outcomes is what may become of traffic.
type outcomes struct{ allow, deny bool }

func (o outcomes) or(p outcomes) outcomes { return outcomes{o.allow || p.allow, o.deny || p.deny} }

// ask is one direction of one question to a model, and how it is decided: rule
// by rule, each in turn, in every order that the priorities leave open and in every
// way that is possible as far as the model tells.
// What is not known of one policy or rule says nothing of another.
type ask struct {
	m              *policies.Model
	d              policies.Direction
	subject, other *policies.Pod // nil is an address outside
	address        netip.Addr    // of other; invalid when it is not known
	point
}

func (a ask) verdict() outcomes {
	if a.subject == nil {
		return outcomes{allow: true}
	}
	for i := range a.m.Policies {
		p := &a.m.Policies[i]
		if p.Opaque != "" && p.Tier == "" && p.Governs[a.d] && a.selects(p) != policies.No {
			return outcomes{true, true}
		}
	}
	return a.tier(0)
}

func (a ask) tier(i int) outcomes {
	if i == len(a.m.Tiers) {
		return outcomes{allow: true}
	}
	var of []*policies.Policy
	for k := range a.m.Policies {
		if p := &a.m.Policies[k]; p.Tier == a.m.Tiers[i].Name && p.Governs[a.d] && a.selects(p) != policies.No {
			of = append(of, p)
		}
	}
	return a.policies(i, of, false)
}

func (a ask) policies(tier int, list []*policies.Policy, concerned bool) outcomes {
	t := &a.m.Tiers[tier]
	switch {
	case concerned && t.Undefined.Contains(a.protocol, a.port):
		return outcomes{true, true}
	case len(list) == 0 && concerned && t.End == policies.ActionDeny:
		return outcomes{deny: true}
	case len(list) == 0:
		return a.tier(tier + 1)
	}
	first := slices.MinFunc(list, func(p, q *policies.Policy) int { return p.Priority - q.Priority }).Priority
	var all outcomes
	for i, p := range list {
		if p.Priority == first {
			all = all.or(a.policy(tier, p, slices.Concat(list[:i], list[i+1:]), concerned))
		}
	}
	return all
}

func (a ask) policy(tier int, p *policies.Policy, rest []*policies.Policy, concerned bool) outcomes {
	selects := a.selects(p)
	var all outcomes
	if selects != policies.Yes {
		all = a.policies(tier, rest, concerned)
	}
	switch {
	case selects == policies.No:
	case p.Opaque != "", a.m.Tiers[tier].Undefined.Contains(a.protocol, a.port):
		all = outcomes{true, true}
	default:
		all = all.or(a.rules(tier, rest, p.Rules[a.d]))
	}
	return all
}

func (a ask) rules(tier int, rest []*policies.Policy, rules []policies.Rule) outcomes {
	if len(rules) == 0 {
		return a.policies(tier, rest, true)
	}
	var all outcomes
	matches := a.matches(&rules[0])
	if matches != policies.Yes {
		all = a.rules(tier, rest, rules[1:])
	}
	if matches == policies.No {
		return all
	}
	switch rules[0].Action {
	case policies.ActionAllow:
		all.allow = true
	case policies.ActionDeny:
		all.deny = true
	case policies.ActionPass:
		all = all.or(a.tier(tier + 1))
	}
	return all
}

func (a ask) selects(p *policies.Policy) policies.Truth { return a.describes(&p.Subject, a.subject) }

func (a ask) describes(m *policies.Match, pod *policies.Pod) policies.Truth {
	if !m.Pods.Matches(pod.Labels) {
		return policies.No
	}
	for _, n := range a.m.Namespaces {
		if n.Name != pod.Ref.Namespace {
			continue
		}
		found := policies.Yes
		for _, r := range m.Namespaces.Requirements() {
			switch {
			case n.Implied && r.Key != policies.NameLabel:
				found = min(found, policies.Maybe)
			case !r.Matches(n.Labels):
				return policies.No
			}
		}
		return found
	}
	return policies.No
}

func (a ask) matches(r *policies.Rule) policies.Truth {
	destination := a.other
	if a.d == policies.Ingress {
		destination = a.subject
	}
	onPort := r.Ports.Contains(a.protocol, a.port)
	for _, n := range r.Named {
		onPort = onPort || destination != nil && n.Protocol == a.protocol && slices.Contains(destination.Ports, policies.ContainerPort{Name: n.Name, Protocol: n.Protocol, Number: a.port})
	}
	if !onPort {
		return policies.No
	}
	found := policies.No
	for i := range r.Peers {
		m := &r.Peers[i]
		switch {
		case m.Anyone:
			found = policies.Yes
		case m.Block.CIDR.IsValid() && a.address.IsValid():
			if m.Block.Addresses().Contains(a.address) {
				found = policies.Yes
			}
		case m.Block.CIDR.IsValid():
			if m.Block.CIDR.Bits() == 0 && len(m.Block.Except) == 0 {
				found = policies.Yes
			}
			found = max(found, policies.Maybe)
		case a.other != nil:
			found = max(found, a.describes(m, a.other))
		}
	}
	return found
}

// Tiers decide as rules read one after the other do.
func TestTiersAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		m := drawModel(d)
		judge := reach.New(m, reach.Options{})
		outside := netip.MustParseAddr(pick(d, "10.0.0.200", "203.0.113.9"))
		asked := []point{{netset.TCP, 80}, {netset.TCP, 81}, {netset.UDP, 80}, {netset.UDP, 53}, {netset.ICMP, 0}}
		for from := range len(m.Pods) + 1 {
			for to := range len(m.Pods) + 1 {
				if from == to {
					continue
				}
				source, sourceAddress, a := sideOf(judge, from, outside)
				target, targetAddress, b := sideOf(judge, to, outside)
				allow, unknown := judge.Ports(a, b)
				for _, q := range asked {
					egress := ask{m, policies.Egress, source, target, targetAddress, q}.verdict()
					ingress := ask{m, policies.Ingress, target, source, sourceAddress, q}.verdict()
					want := policies.Unknown
					switch {
					case !egress.allow || !ingress.allow:
						want = policies.Deny
					case !egress.deny && !ingress.deny:
						want = policies.Allow
					}
					got, decided := judge.Verdict(a, b, q.protocol, q.port), judge.Decide(a, b, q.protocol, q.port).Verdict
					if ports := inPorts(allow, unknown, q); got != want || decided != want || ports != want {
						t.Fatalf("%v to %v on %v: want %v; Verdict %v, Decide %v, Ports %v\n%s", judge.Peer(a), judge.Peer(b), q, want, got, decided, ports, describe(m))
					}
				}
			}
		}
	})
}

// sideOf returns the i-th pod, its address and its end; after the last pod, the
// outside.
func sideOf(j *reach.Judge, i int, outside netip.Addr) (*policies.Pod, netip.Addr, reach.End) {
	if i == len(j.Model().Pods) {
		return nil, outside, j.Outside(outside)
	}
	pod := &j.Model().Pods[i]
	var address netip.Addr
	if len(pod.Addresses) > 0 {
		address = pod.Addresses[0]
	}
	return pod, address, j.Pod(i)
}

func describe(m *policies.Model) string {
	var text strings.Builder
	for _, n := range m.Namespaces {
		fmt.Fprintf(&text, "namespace %s implied %v %v\n", n.Name, n.Implied, n.Labels)
	}
	for _, p := range m.Pods {
		fmt.Fprintf(&text, "pod %s %v %v %v\n", p.Ref, p.Labels, p.Addresses, p.Ports)
	}
	for _, t := range m.Tiers {
		fmt.Fprintf(&text, "tier %s end %v undefined %v\n", t.Name, t.End, t.Undefined)
		for _, p := range m.Policies {
			if p.Tier != t.Name && p.Tier != "" {
				continue
			}
			fmt.Fprintf(&text, "  %s priority %d %q for %v governs %v\n", p.Ref, p.Priority, p.Opaque, p.Subject, p.Governs)
			for _, d := range policies.Directions {
				for _, r := range p.Rules[d] {
					fmt.Fprintf(&text, "    %v %v %v on %v %v\n", d, r.Action, r.Peers, r.Ports, r.Named)
				}
			}
		}
	}
	return text.String()
}
