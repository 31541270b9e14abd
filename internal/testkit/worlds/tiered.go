package worlds

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// allTiers are the tiers of a cluster that has them all.
func allTiers() []policies.Tier {
	return []policies.Tier{
		{Name: "kube-admin", End: policies.ActionPass, SparesOwnNode: true},
		{Name: "security", End: policies.ActionPass, SparesOwnNode: true},
		{Name: tier, End: policies.ActionDeny, SparesOwnNode: true},
		{Name: "kube-baseline", End: policies.ActionPass, SparesOwnNode: true},
	}
}

func networkSets() []policies.NetworkSet {
	sets := make([]policies.NetworkSet, 20)
	for i := range sets {
		sets[i] = policies.NetworkSet{
			Ref:    policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkSet", Name: fmt.Sprintf("feed-%02d", i)},
			Labels: map[string]string{"feed": fmt.Sprintf("f%d", i%4)},
		}
		for k := range 50 {
			sets[i].Nets = append(sets[i].Nets, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(100 + i), byte(k), 7, 0}), 24))
		}
	}
	return sets
}

// clusterWide returns 22 policies for all or many pods, in order: what an
// administrator, a security team and a platform team lay over what the
// namespaces say for themselves.
func clusterWide() []policies.Policy {
	everyone := policies.Match{Anyone: true}
	allPods := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
	team := func(i int) policies.Match {
		return policies.Match{Namespaces: selector.Label("team", fmt.Sprintf("team-%d", i)), Pods: selector.Everything()}
	}
	feed := func(s selector.Selector) policies.Match {
		return policies.Match{Namespaces: selector.Everything(), Pods: s, Endpoints: true}
	}
	not := func(m policies.Match, but ...policies.Match) policies.Match {
		return policies.Match{All: []policies.Match{m}, Except: but}
	}
	tcp := func(first, last uint16) netset.Ports { return netset.PortSpan(netset.TCP, first, last) }
	var all []policies.Policy
	add := func(tier string, d policies.Direction, subject policies.Match, action policies.Action, ports netset.Ports, peers ...policies.Match) *policies.Policy {
		p := policies.Policy{
			Ref:  policies.Ref{Kind: "ClusterNetworkPolicy", Name: fmt.Sprintf("cluster-%02d", len(all))},
			Tier: tier, Priority: len(all), Subject: subject,
		}
		p.Governs[d] = true
		p.Rules[d] = []policies.Rule{{Action: action, Ports: ports, Peers: peers}}
		all = append(all, p)
		return &all[len(all)-1]
	}
	monitoring := policies.Match{Namespaces: selector.Label("team", "platform"), Pods: selector.Everything()}
	for i := range 4 {
		add("kube-admin", policies.Egress, team(i), policies.ActionDeny, tcp(uint16(25+i), uint16(25+i)), everyone)
	}
	add("kube-admin", policies.Ingress, allPods, policies.ActionAllow, tcp(9090, 9090), monitoring)
	add("kube-admin", policies.Ingress, team(7), policies.ActionPass, netset.AllTraffic(), team(7))
	add("kube-admin", policies.Ingress, team(7), policies.ActionDeny, tcp(5432, 5432), allPods)
	add("kube-admin", policies.Egress, allPods, policies.ActionDeny, netset.AllTraffic(),
		policies.Match{Block: netset.Block{CIDR: netip.MustParsePrefix("169.254.169.254/32")}, InCluster: true},
		policies.Match{Block: netset.Block{CIDR: netip.MustParsePrefix("fd00:ec2::254/128")}, InCluster: true})
	for i := range 4 {
		p := add("security", policies.Egress, allPods, policies.ActionDeny, netset.AllTraffic(), feed(selector.Label("feed", fmt.Sprintf("f%d", i))))
		p.Rules[policies.Egress] = append(p.Rules[policies.Egress], policies.Rule{Action: policies.ActionLog, Ports: tcp(22, 22), Peers: []policies.Match{everyone}})
	}
	add("security", policies.Ingress, policies.Match{Namespaces: selector.Everything(), Pods: selector.Label("layer", "db")}, policies.ActionDeny,
		tcp(5432, 5432), not(everyone, feed(selector.Or(selector.Label("layer", "api"), selector.Label("layer", "worker")))))
	add("security", policies.Egress, policies.Match{Namespaces: selector.Label("env", "dev"), Pods: selector.Everything()}, policies.ActionDeny,
		netset.AllTraffic(), policies.Match{Namespaces: selector.Label("env", "prod"), Pods: selector.Everything()})
	named := add("security", policies.Ingress, policies.Match{Namespaces: selector.Label("env", "prod"), Pods: selector.Label("layer", "web")}, policies.ActionPass, netset.Ports{}, allPods)
	named.Rules[policies.Ingress][0].Named = []policies.NamedPort{{Protocol: netset.TCP, Name: "http"}}
	add("security", policies.Ingress, team(3), policies.ActionAllow, tcp(8443, 8443), team(4), team(5))
	for i := range 3 {
		add("kube-baseline", policies.Ingress, team(20+i), policies.ActionDeny, tcp(22, 22), everyone)
	}
	add("kube-baseline", policies.Egress, allPods, policies.ActionAllow, tcp(443, 443), everyone)
	add("kube-baseline", policies.Ingress, allPods, policies.ActionAllow, tcp(443, 443), allPods)
	add("kube-baseline", policies.Ingress, allPods, policies.ActionDeny, netset.AllTraffic(), policies.Match{Block: netset.Block{CIDR: netset.AllIPv4}, InCluster: true})
	return all
}

// Store returns the model of one machine's share of a large production cluster,
// of the shape of the one that Calico publishes for its own checker: 294 policies
// of 68 rules for one endpoint, over 3,708 network sets of 256,000 addresses in
// all, the largest of 54,566.
func Store(seed uint64) *policies.Model {
	const sets, members, largest, rules, count = 3_708, 256_000, 54_566, 68, 294
	random := rand.New(rand.NewPCG(seed, 1))
	m := &policies.Model{Tiers: allTiers()}
	m.PodCIDRs = []netip.Prefix{PodCIDR}
	m.Namespaces = []policies.Namespace{namespace("prod", "team-0", "prod")}
	for i := range 10 {
		ref := policies.Ref{Kind: "Pod", Namespace: "prod", Name: fmt.Sprintf("pod-%d", i)}
		m.Pods = append(m.Pods, policies.Pod{
			Ref: ref, Workload: ref, Replicas: 1, ServiceAccount: "default", Labels: map[string]string{"app": fmt.Sprintf("app-%d", i%3)},
			Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, 0, byte(1 + i)})},
		})
	}
	left := members
	for i := range sets {
		size := largest
		if i > 0 {
			// What is left over is spread with a few large sets and many small.
			size = min(1+int(random.ExpFloat64()*float64(left)/float64(sets-i)), left-(sets-i-1))
		}
		if i == sets-1 {
			size = left
		}
		left -= size
		s := policies.NetworkSet{
			Ref:    policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkSet", Name: fmt.Sprintf("set-%04d", i)},
			Labels: map[string]string{"set": fmt.Sprintf("s%04d", i)},
		}
		for range size {
			address := netip.AddrFrom4([4]byte{byte(11 + random.IntN(150)), byte(random.Uint32()), byte(random.Uint32()), byte(random.Uint32())})
			s.Nets = append(s.Nets, netip.PrefixFrom(address, 32))
		}
		m.Sets = append(m.Sets, s)
	}
	for i := range count {
		p := policies.Policy{
			Ref:  policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkPolicy", Name: fmt.Sprintf("policy-%03d", i)},
			Tier: tier, Priority: i, Subject: policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything(), Endpoints: true},
			Governs: [2]bool{true, true},
		}
		for k := range rules {
			d := policies.Directions[k%2]
			port := uint16(1 + random.IntN(2_000))
			action := policies.ActionAllow
			if random.IntN(4) == 0 {
				action = policies.ActionDeny
			}
			p.Rules[d] = append(p.Rules[d], policies.Rule{
				Action: action, Ports: netset.PortSpan(netset.TCP, port, port+uint16(random.IntN(3))),
				Peers: []policies.Match{{
					Namespaces: selector.Everything(), Pods: selector.Label("set", fmt.Sprintf("s%04d", random.IntN(sets))), Endpoints: true,
				}},
			})
		}
		m.Policies = append(m.Policies, p)
	}
	return m
}
