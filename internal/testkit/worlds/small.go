package worlds

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Outsiders are addresses outside that the policies of Small tell apart.
var Outsiders = []netip.Addr{
	netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.200"), netip.MustParseAddr("203.0.113.9"),
	netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db9::1"),
}

// Small returns the world of a few pods of both families, without policies: the
// first pods of the same world where there are fewer.
func Small(pods int) *policies.Model {
	m := &policies.Model{Tiers: []policies.Tier{
		{Name: "admin", End: policies.ActionPass},
		{Name: "security", End: policies.ActionDeny, SparesOwnNode: true},
		tiers()[1],
		{Name: "baseline", End: policies.ActionPass},
	}}
	m.Namespaces = []policies.Namespace{namespace("a", "red", "prod"), namespace("b", "blue", "dev")}
	for i := range pods {
		ref := policies.Ref{Kind: "Pod", Namespace: m.Namespaces[i%2].Name, Name: fmt.Sprintf("pod-%d", i)}
		p := policies.Pod{
			Ref: ref, Workload: ref, Replicas: 1, ServiceAccount: "default", Node: "node",
			Labels: map[string]string{"app": []string{"web", "api", "db"}[i/2%3]},
			Ports:  []policies.ContainerPort{{Name: "http", Protocol: netset.TCP, Number: uint16(8080 + i%2)}},
		}
		if i%4 != 2 {
			p.Addresses = append(p.Addresses, netip.AddrFrom4([4]byte{10, 0, byte(i % 3), byte(i + 1)}))
		}
		if i%4 != 3 {
			p.Addresses = append(p.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00::%d:%x", i%2, i+1)))
		}
		m.Pods = append(m.Pods, p)
	}
	return m
}

// Invented returns a model of some policies of every kind of tier, made up at random.
func Invented(random *rand.Rand, world *policies.Model, most int) *policies.Model {
	m, w := *world, inventor{random}
	m.Policies = nil
	for i := range 1 + random.IntN(most) {
		p := policies.Policy{
			Ref:     policies.Ref{Kind: "Policy", Name: fmt.Sprintf("policy-%d", i)},
			Tier:    m.Tiers[[]int{0, 1, 2, 2, 2, 3}[random.IntN(6)]].Name,
			Subject: w.pods(),
		}
		p.Governs = [][2]bool{{true, false}, {false, true}, {true, true}}[random.IntN(3)]
		if p.Tier != tier {
			p.Priority = i
		}
		for _, d := range policies.Directions {
			for range random.IntN(4) {
				if p.Governs[d] {
					p.Rules[d] = append(p.Rules[d], w.rule(p.Tier == tier))
				}
			}
		}
		m.Policies = append(m.Policies, p)
	}
	slices.SortFunc(m.Policies, policies.Policy.Compare)
	return &m
}

type inventor struct{ *rand.Rand }

func (w inventor) pods() policies.Match {
	namespaces := []selector.Selector{selector.Everything(), selector.Label("team", "red"), selector.Label("env", "dev")}
	pods := []selector.Selector{selector.Everything(), selector.Label("app", "web"), selector.Label("app", "db"), selector.Not(selector.Label("app", "api"))}
	return policies.Match{Namespaces: namespaces[w.IntN(len(namespaces))], Pods: pods[w.IntN(len(pods))]}
}

func (w inventor) rule(allows bool) policies.Rule {
	r := policies.Rule{Action: []policies.Action{policies.ActionAllow, policies.ActionDeny, policies.ActionPass}[w.IntN(3)]}
	if allows {
		r.Action = policies.ActionAllow
	}
	for range 1 + w.IntN(2) {
		r.Peers = append(r.Peers, w.peer())
	}
	switch w.IntN(4) {
	case 0:
		r.Named = []policies.NamedPort{{Protocol: netset.TCP, Name: "http"}}
	default:
		r.Ports = w.ports()
	}
	if w.IntN(5) == 0 {
		r.NotPorts = w.ports()
	}
	return r
}

func (w inventor) peer() policies.Match {
	block := func(cidr string, except ...string) policies.Match {
		b := netset.Block{CIDR: netip.MustParsePrefix(cidr)}
		for _, e := range except {
			b.Except = append(b.Except, netip.MustParsePrefix(e))
		}
		return policies.Match{Block: b}
	}
	switch w.IntN(9) {
	case 0:
		return policies.Match{Anyone: true}
	case 1:
		return block("0.0.0.0/0", "10.0.1.0/24", "192.0.2.128/25")
	case 2:
		return block("192.0.2.0/24")
	case 3:
		return block("10.0.0.0/22", "10.0.0.4/30")
	case 4:
		return block("::/0", "fd00::/112")
	case 5:
		return block("2001:db8::/32")
	}
	return w.pods()
}

func (w inventor) ports() netset.Ports {
	span := netset.PortSpan
	choices := []netset.Ports{
		span(netset.TCP, 80, 80), span(netset.TCP, 8080, 8080), span(netset.TCP, 8000, 9000), span(netset.TCP, 8079, 8081),
		span(netset.UDP, 53, 53), span(netset.UDP, 1, 65535), span(netset.SCTP, 80, 8080),
		netset.EveryPort(netset.TCP), netset.AllTraffic(), netset.AllTraffic(), span(47, 0, 0),
		netset.ICMPTypes(netset.ICMP, 8, 0, 255).Union(netset.ICMPTypes(netset.ICMPv6, 128, 0, 0)),
	}
	return choices[w.IntN(len(choices))].Union(choices[w.IntN(len(choices))])
}
