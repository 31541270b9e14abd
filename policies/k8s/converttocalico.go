package k8s

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// podsOnly is what Calico selects pods by, and neither network sets nor host
// endpoints.
var podsOnly = selector.Label(policies.CalicoOrchestrator, "k8s")

// calicoSpec writes a NetworkPolicy as one of Calico, as Calico itself does when
// it enforces one.
func (c *converter) calicoSpec(ref policies.Ref) *yaml.Node {
	c.fitsCalico(ref)
	c.keepsOrder(ref, networkPolicyOrder)
	order := newNumber(networkPolicyOrder)
	order.LineComment = comment("where Calico puts every NetworkPolicy")
	subject := c.calicoPods(&c.Subject)
	rules := c.rules(c.calicoRules)
	for _, d := range policies.Directions {
		if rules[d] != nil && len(rules[d].Content) > mostCalicoRules {
			c.lose(c.origin.field("spec").field(d.String()).place(), "%d %s rules: a policy of Calico takes %d", len(rules[d].Content), d, mostCalicoRules)
		}
	}
	return newMapping(
		member{"tier", newText(Tier)}, member{"order", order}, member{"selector", subject}, member{"types", c.types()},
		member{"ingress", rules[policies.Ingress]}, member{"egress", rules[policies.Egress]},
	)
}

// fitsCalico loses a policy whose name Calico does not take in tier default.
func (c *converter) fitsCalico(ref policies.Ref) {
	at := c.origin.meta.field("name").orElse(c.origin.value).place()
	prefix, _, prefixed := strings.Cut(ref.Name, ".")
	switch {
	case c.origin.nameless || convertedPolicy.MatchString(ref.Name):
	case !policyName.MatchString(ref.Name):
		c.lose(at, "name %q: Calico takes lower-case letters, digits and '-', and one '.' at most", ref.Name)
	case c.before("3.30") && prefixed && prefix != Tier:
		c.lose(at, "name %q: Calico %s takes what stands before the '.' for a tier", ref.Name, c.calicoVersion)
	}
}

// calicoPods writes a selector of pods.
func (c *converter) calicoPods(m *policies.Match) *yaml.Node {
	if i := slices.IndexFunc(m.Pods.Keys(), policies.IsInherited); i >= 0 {
		c.lose(m.Place, "label %s: to Calico it is more than a label of the pod", m.Pods.Keys()[i])
	}
	return c.calicoSelector(selector.And(m.Pods, podsOnly), m.Place)
}

func (c *converter) calicoSelector(s selector.Selector, at policies.Place) *yaml.Node {
	text := s.Calico()
	if len(text) > mostSelector {
		c.lose(at, "its selector has %d characters in Calico's language, which takes %d", len(text), mostSelector)
	}
	return newText(text)
}

// calicoRules writes a rule: one for each protocol and each peer, networks of one
// IP version together.
func (c *converter) calicoRules(d policies.Direction, rule *policies.Rule) []*yaml.Node {
	peers := c.calicoPeers(rule)
	var written []*yaml.Node
	for _, p := range portsByProtocol(rule) {
		var protocol *yaml.Node
		if p.protocol != 0 {
			protocol = newText(p.protocol.String())
		}
		for _, peer := range peers {
			for _, ports := range p.items() {
				source, destination := newMapping(peer...), newMapping(ports...)
				if d == policies.Egress {
					source, destination = newMapping(), newMapping(slices.Concat(peer, ports)...)
				}
				written = append(written, newMapping(
					member{"action", newText("Allow")}, member{"protocol", protocol},
					member{"source", unlessEmpty(source)}, member{"destination", unlessEmpty(destination)},
				))
			}
		}
	}
	return written
}

// unlessEmpty returns the node, nil where it holds nothing.
func unlessEmpty(n *yaml.Node) *yaml.Node {
	if len(n.Content) == 0 {
		return nil
	}
	return n
}

// calicoPeers writes the peers of a rule, each as the members of a source or
// destination.
func (c *converter) calicoPeers(rule *policies.Rule) [][]member {
	var peers [][]member
	var plain [2][]*yaml.Node // networks without exceptions, of IPv4 and of IPv6
	for i := range rule.Peers {
		m := &rule.Peers[i]
		switch {
		case m.Anyone:
			peers = append(peers, nil)
		case !m.Block.CIDR.IsValid():
			peers = append(peers, c.calicoSelected(m))
		case len(m.Block.Except) == 0:
			family := 0
			if m.Block.CIDR.Addr().Is6() {
				family = 1
			}
			plain[family] = append(plain[family], newText(m.Block.CIDR.String()))
		default:
			not := newList()
			for _, e := range slices.Compact(slices.Clone(m.Block.Except)) {
				not.Content = append(not.Content, newText(e.String()))
			}
			if len(not.Content) > mostNets {
				c.lose(m.Place, "an except of %d networks: notNets takes %d", len(not.Content), mostNets)
			}
			peers = append(peers, []member{{"nets", newTexts(m.Block.CIDR.String())}, {"notNets", not}})
		}
	}
	for _, nets := range plain {
		for some := range slices.Chunk(nets, mostNets) {
			peers = append(peers, []member{{"nets", newList(some...)}})
		}
	}
	return peers
}

// calicoSelected writes a peer of pods.
func (c *converter) calicoSelected(m *policies.Match) []member {
	selected := []member{{"selector", c.calicoPods(m)}}
	if m.Namespaces.Key() == selector.Label(policies.NameLabel, c.From.Namespace).Key() {
		return selected
	}
	all := []selector.Selector{selector.Everything()}
	for _, r := range m.Namespaces.Requirements() {
		switch r.Key {
		case policies.CalicoName:
			c.lose(m.Place, "namespace label %s: to Calico it is the namespace's name", r.Key)
		case policies.NameLabel:
			r.Key = policies.CalicoName
		}
		c.seesNamespaces([]string{policies.NamespacePrefix + r.Key}, m.Place)
		all = append(all, selector.Where(r.Key, r.Operator, r.Values...))
	}
	return append(selected, member{"namespaceSelector", c.calicoSelector(selector.And(all...), m.Place)})
}

// protocolPorts is ports of one protocol, or all traffic where it is 0.
type protocolPorts struct {
	protocol netset.Protocol
	whole    bool // all of the protocol
	ranges   []netset.PortRange
	names    []string
}

// portsByProtocol returns the ports of a rule that knows TCP, UDP and SCTP only,
// or all traffic. A range that begins at port 0 does so at 1, unless it is all of
// the protocol.
func portsByProtocol(rule *policies.Rule) []protocolPorts {
	if rule.Ports.Equal(netset.AllTraffic()) {
		return []protocolPorts{{whole: true}}
	}
	var all []protocolPorts
	for _, protocol := range netset.Transports {
		p := protocolPorts{protocol: protocol}
		for r := range rule.Ports.Intersect(netset.EveryPort(protocol)).Ranges() {
			p.whole = p.whole || r.First == 0 && r.Last == 65535
			if r.First = max(r.First, 1); r.First <= r.Last {
				p.ranges = append(p.ranges, r)
			}
		}
		for _, n := range rule.Named {
			if n.Protocol == protocol && !slices.Contains(p.names, n.Name) {
				p.names = append(p.names, n.Name)
			}
		}
		if p.whole {
			p.ranges, p.names = nil, nil
		}
		if p.whole || len(p.ranges)+len(p.names) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// items writes the ports as Calico has them, as many lists as they take; one
// without any for all of the protocol.
func (p *protocolPorts) items() [][]member {
	var items []*yaml.Node
	for _, r := range p.ranges {
		port := newNumber(int(r.First))
		if r.First < r.Last {
			port = newText(strconv.Itoa(int(r.First)) + ":" + strconv.Itoa(int(r.Last)))
		}
		items = append(items, port)
	}
	for _, name := range p.names {
		items = append(items, newText(name))
	}
	if p.whole {
		return [][]member{nil}
	}
	var lists [][]member
	for some := range slices.Chunk(items, mostPorts) {
		lists = append(lists, []member{{"ports", newList(some...)}})
	}
	return lists
}
