package k8s

import (
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// clusterSpec writes an AdminNetworkPolicy or BaselineAdminNetworkPolicy as a
// ClusterNetworkPolicy.
func (c *converter) clusterSpec(policies.Ref) *yaml.Node {
	tier, priority := newText("Admin"), newNumber(c.Priority)
	if c.Tier == BaselineTier {
		tier = newText("Baseline")
		priority.LineComment = comment("a BaselineAdminNetworkPolicy has none; 0 comes first")
		c.change(c.Conversion.Place, "priority 0, the first of tier Baseline: a BaselineAdminNetworkPolicy has no priority")
	}
	rules := c.rules(c.clusterRules)
	for _, d := range policies.Directions {
		if rules[d] != nil && len(rules[d].Content) > clusterDialect.most {
			c.lose(c.origin.field("spec").field(d.String()).place(), "%d %s rules: a ClusterNetworkPolicy takes %d", len(rules[d].Content), d, clusterDialect.most)
		}
	}
	return newMapping(
		member{"tier", tier}, member{"priority", priority}, member{"subject", clusterPods(&c.Subject)},
		member{"ingress", rules[policies.Ingress]}, member{"egress", rules[policies.Egress]},
	)
}

// clusterPods writes the pods of a subject or a peer.
func clusterPods(m *policies.Match) *yaml.Node {
	if m.Pods.IsEverything() {
		return newMapping(member{"namespaces", newSelector(m.Namespaces)})
	}
	return newMapping(member{"pods", newMapping(
		member{"namespaceSelector", newSelector(m.Namespaces)}, member{"podSelector", newSelector(m.Pods)},
	)})
}

// clusterRules writes a rule, or several where it has more peers or ports than
// one takes.
func (c *converter) clusterRules(d policies.Direction, rule *policies.Rule) []*yaml.Node {
	action := clusterDialect.actions[slices.IndexFunc(clusterDialect.actions, func(a action) bool { return a.Action == rule.Action })].name
	var name *yaml.Node
	if rule.Name != "" {
		name = newText(rule.Name)
	}
	peers := c.clusterPeers(rule)
	if peers == nil {
		return nil
	}
	protocols := [][]*yaml.Node{nil} // every port
	if all := clusterPorts(rule); len(all) > 0 {
		protocols = slices.Collect(slices.Chunk(all, clusterDialect.most))
	}
	var written []*yaml.Node
	for some := range slices.Chunk(peers, clusterDialect.most) {
		for _, p := range protocols {
			var ports *yaml.Node
			if p != nil {
				ports = newList(p...)
			}
			written = append(written, newMapping(
				member{"name", name}, member{"action", newText(action)}, member{peersField[d], newList(some...)}, member{"protocols", ports},
			))
		}
	}
	if len(written) > 1 {
		c.change(rule.Place, "%d rules are made of it: one takes %d peers and %[2]d ports", len(written), clusterDialect.most)
	}
	return written
}

// clusterPeers writes the peers of a rule, networks that follow one another in
// one of them; nil where they are not understood, so that the rule has others in
// their place.
func (c *converter) clusterPeers(rule *policies.Rule) []*yaml.Node {
	if len(rule.Peers) == 0 || rule.Peers[0].Anyone {
		c.lose(rule.Place, "a peer of the rule has a field that is not known, perhaps that of a newer version")
		return nil
	}
	var peers, networks []*yaml.Node
	given := map[string]bool{}
	flush := func() {
		for some := range slices.Chunk(networks, mostNetworks) {
			peers = append(peers, newMapping(member{"networks", newList(some...)}))
		}
		networks = nil
	}
	for i := range rule.Peers {
		m := &rule.Peers[i]
		if m.Block.CIDR.IsValid() {
			if text := m.Block.CIDR.String(); !given[text] {
				given[text] = true
				networks = append(networks, newText(text))
			}
			continue
		}
		flush()
		switch {
		case len(m.Domains) > 0:
			peers = append(peers, newMapping(member{"domainNames", newTexts(m.Domains...)}))
		case !m.Nodes.IsNothing():
			peers = append(peers, newMapping(member{"nodes", newSelector(m.Nodes)}))
		default:
			peers = append(peers, clusterPods(m))
		}
	}
	flush()
	return peers
}

// clusterPorts writes the ports of a rule, none for every port.
func clusterPorts(rule *policies.Rule) []*yaml.Node {
	if rule.Ports.Equal(netset.AllTraffic()) {
		return nil
	}
	fields := map[netset.Protocol]string{netset.TCP: "tcp", netset.UDP: "udp", netset.SCTP: "sctp"}
	var all []*yaml.Node
	for r := range rule.Ports.Ranges() {
		port := member{"number", newNumber(int(r.First))}
		if r.First < r.Last {
			port = member{"range", newMapping(member{"start", newNumber(int(r.First))}, member{"end", newNumber(int(r.Last))})}
		}
		all = append(all, newMapping(member{fields[r.Protocol], newMapping(member{"destinationPort", newMapping(port)})}))
	}
	var names []string
	for _, n := range rule.Named {
		if !slices.Contains(names, n.Name) { // it is there for each protocol
			names = append(names, n.Name)
			all = append(all, newMapping(member{"destinationNamedPort", newText(n.Name)}))
		}
	}
	return all
}
