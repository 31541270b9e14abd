package k8s

import (
	"net/netip"
	"slices"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// networkPolicySpec writes a policy of Calico as a NetworkPolicy of Kubernetes,
// where that can say the same.
func (c *converter) networkPolicySpec(ref policies.Ref) *yaml.Node {
	spec := c.origin.field("spec")
	if c.From.Namespace == "" {
		c.lose(c.Conversion.Place, "it concerns the whole cluster, and a NetworkPolicy one namespace")
	}
	if c.Tier != Tier || c.hook != policies.Filtering {
		c.lose(spec.field("tier").orElse(spec).place(), "tier %s: every NetworkPolicy stands in tier %s", c.Tier, Tier)
	} else if len(c.Lost) == 0 {
		c.keepsOrder(ref, networkPolicyOrder)
	}
	if f := spec.field("performanceHints"); isSet(f) {
		c.change(f.place(), "performanceHints are left out; they change no answer")
	}
	if f := spec.field("order"); f.present() && c.Order != networkPolicyOrder {
		c.change(f.place(), "order %s is left out: nothing but allowing policies stands between it and %d", f.node.Value, networkPolicyOrder)
	}
	pods := c.plainPods(&c.Subject)
	var rules [2][]plainRule
	c.rules(func(d policies.Direction, rule *policies.Rule) []*yaml.Node {
		c.ruleAnnotations(spec.field(d.String()).items()[c.at.rule])
		if r, ok := c.plainRule(rule); ok {
			rules[d] = append(rules[d], r)
		}
		return nil
	})
	return newMapping(
		member{"podSelector", newSelector(pods)}, member{"policyTypes", c.types()},
		member{"ingress", plainRules(policies.Ingress, rules[policies.Ingress])}, member{"egress", plainRules(policies.Egress, rules[policies.Egress])},
	)
}

// ruleAnnotations says which annotations of a rule have no place in a
// NetworkPolicy: all but its name.
func (c *converter) ruleAnnotations(rule value) {
	annotations := rule.field("metadata").field("annotations")
	if !annotations.present() {
		return
	}
	for key, node := range pairs(annotations.node) {
		if key.Value != "name" {
			c.change(rule.at(node, key.Value).place(), "annotation %s of the rule is left out: rules of a NetworkPolicy have none", key.Value)
		}
	}
}

// plainRule is a rule of a NetworkPolicy: the peers and ports, each with a text
// that is the same for equal ones. No peers and no ports are all of them.
type plainRule struct {
	name         string
	peers, ports []keyed
}

type keyed struct {
	key  string
	node *yaml.Node
}

// plainRules writes rules, those together that Calico needs several for: a rule
// for each peer and each protocol.
func plainRules(d policies.Direction, rules []plainRule) *yaml.Node {
	rules = joined(rules, func(r *plainRule) (*[]keyed, *[]keyed) { return &r.ports, &r.peers })
	rules = joined(rules, func(r *plainRule) (*[]keyed, *[]keyed) { return &r.peers, &r.ports })
	written := newList()
	for i := range rules {
		r := &rules[i]
		node := newMapping(member{peersField[d], unlessEmpty(nodesOf(r.peers))}, member{"ports", unlessEmpty(nodesOf(r.ports))})
		if r.name != "" {
			node.HeadComment = comment(r.name)
		}
		written.Content = append(written.Content, node)
	}
	return unlessEmpty(written)
}

func nodesOf(all []keyed) *yaml.Node {
	nodes := newList()
	for _, k := range all {
		nodes.Content = append(nodes.Content, k.node)
	}
	return nodes
}

// joined joins rules that follow one another, have no names, and are the same in
// one of the two lists that parts returns, which the other is then joined of.
func joined(rules []plainRule, parts func(*plainRule) (same, other *[]keyed)) []plainRule {
	sameKey := func(a, b keyed) bool { return a.key == b.key }
	var all []plainRule
	for _, r := range rules {
		same, other := parts(&r)
		if n := len(all); n > 0 && r.name == "" && all[n-1].name == "" {
			lastSame, lastOther := parts(&all[n-1])
			if slices.EqualFunc(*same, *lastSame, sameKey) && len(*other) > 0 && len(*lastOther) > 0 {
				for _, k := range *other {
					if !slices.ContainsFunc(*lastOther, func(o keyed) bool { return sameKey(o, k) }) {
						*lastOther = append(*lastOther, k)
					}
				}
				continue
			}
		}
		all = append(all, r)
	}
	return all
}

// plainRule writes a rule; false where something of it would be lost.
func (c *converter) plainRule(rule *policies.Rule) (plainRule, bool) {
	lost := len(c.Lost)
	switch rule.Action {
	case policies.ActionAllow:
	case policies.ActionLog:
		c.lose(rule.Place, "a Log rule: a NetworkPolicy only allows")
		return plainRule{}, false
	default:
		c.lose(rule.Place, "a %s rule: a NetworkPolicy only allows", map[policies.Action]string{policies.ActionDeny: "Deny", policies.ActionPass: "Pass"}[rule.Action])
		return plainRule{}, false
	}
	if rule.Own != nil {
		c.lose(rule.Own.Place, "it is for some of those only that the policy applies to: %s", rule.Own)
	}
	if rule.Unclear != "" {
		c.lose(rule.Place, "%s: a NetworkPolicy cannot", rule.Unclear)
	}
	r := plainRule{name: rule.Name, ports: c.plainPorts(rule)}
	for i := range rule.Peers {
		r.peers = append(r.peers, c.plainPeer(&rule.Peers[i])...)
	}
	return r, len(c.Lost) == lost
}

// plainPorts writes the ports of a rule, none for every port.
func (c *converter) plainPorts(rule *policies.Rule) []keyed {
	transports := netset.EveryPort(netset.Transports[:]...)
	for _, n := range rule.NotNamed {
		c.lose(rule.Place, "notPorts %s: a NetworkPolicy cannot leave out a port by name", n.Name)
	}
	if !rule.NotPorts.IsEmpty() {
		c.lose(rule.Place, "ports by name that are none of %s: a NetworkPolicy cannot leave out a port that a name means", rule.NotPorts)
	}
	if !rule.Ports.Equal(netset.AllTraffic()) && !transports.Union(rule.Ports).Equal(transports) {
		c.lose(rule.Place, "it is for some protocols besides TCP, UDP and SCTP: a NetworkPolicy is for those, or for all there are")
		return nil
	}
	var all []keyed
	add := func(p *protocolPorts, key string, members ...member) {
		all = append(all, keyed{p.protocol.String() + "/" + key, newMapping(append([]member{{"protocol", newText(p.protocol.String())}}, members...)...)})
	}
	ports := portsByProtocol(rule)
	for i := range ports {
		p := &ports[i]
		if p.protocol == 0 {
			return nil
		}
		if p.whole {
			add(p, "")
		}
		for _, r := range p.ranges {
			var end *yaml.Node
			if r.First < r.Last {
				end = newNumber(int(r.Last))
			}
			add(p, netset.PortSpan(p.protocol, r.First, r.Last).String(), member{"port", newNumber(int(r.First))}, member{"endPort", end})
		}
		for _, name := range p.names {
			if !isPortName(name) {
				c.lose(rule.Place, "port name %q: a NetworkPolicy takes at most 15 lower-case letters, digits and '-'", name)
			}
			add(p, name, member{"port", newText(name)})
		}
	}
	if len(all) == 0 {
		c.lose(rule.Place, "it matches no port, and a NetworkPolicy cannot say so")
	}
	return all
}

// plainPeer writes a source or destination as peers of a NetworkPolicy.
func (c *converter) plainPeer(m *policies.Match) []keyed {
	var not []netip.Prefix
	for i := range m.Except {
		if e := &m.Except[i]; e.Block.CIDR.IsValid() {
			not = append(not, e.Block.CIDR)
		} else {
			c.lose(e.Place, "notSelector: a NetworkPolicy cannot leave out whom a selector describes")
		}
	}
	blocks := m.Any
	switch {
	case m.Anyone && len(not) == 0:
		return nil
	case m.Anyone:
		blocks = []policies.Match{block(netset.AllIPv4), block(netset.AllIPv6)}
	case len(m.All) > 0:
		c.lose(m.Place, "it asks for several things at once, as for a selector and an IP version: a peer of a NetworkPolicy is a selector or an ipBlock")
		return nil
	case m.Object != policies.Ref{}:
		c.lose(m.Place, "services: a NetworkPolicy cannot name a Service; select its pods")
		return nil
	case len(m.Domains) > 0:
		c.lose(m.Place, "domains: a NetworkPolicy has none")
		return nil
	case m.Block.CIDR.IsValid():
		blocks = []policies.Match{*m}
	}
	if len(blocks) > 0 {
		return c.plainBlocks(m, blocks, not)
	}
	if len(not) > 0 {
		c.lose(m.Place, "notNets beside a selector: a peer of a NetworkPolicy is a selector or an ipBlock")
		return nil
	}
	return c.plainSelected(m)
}

// plainBlocks writes networks, less others.
func (c *converter) plainBlocks(m *policies.Match, blocks []policies.Match, not []netip.Prefix) []keyed {
	var all []keyed
	for i := range blocks {
		b := netset.Block{CIDR: blocks[i].Block.CIDR}
		empty := false
		for _, n := range not {
			switch {
			case !n.Overlaps(b.CIDR):
			case n.Bits() <= b.CIDR.Bits():
				empty = true
			default:
				b.Except = append(b.Except, n)
			}
		}
		if empty {
			continue
		}
		slices.SortFunc(b.Except, netip.Prefix.Compare)
		b.Except = slices.Compact(b.Except)
		var except *yaml.Node
		if len(b.Except) > 0 {
			except = newList()
			for _, e := range b.Except {
				except.Content = append(except.Content, newText(e.String()))
			}
		}
		all = append(all, keyed{b.String(), newMapping(member{"ipBlock", newMapping(member{"cidr", newText(b.CIDR.String())}, member{"except", except})})})
	}
	if len(all) == 0 {
		c.lose(m.Place, "it matches no address, and a NetworkPolicy cannot say so")
	}
	return all
}

// plainSelected writes pods by their labels.
func (c *converter) plainSelected(m *policies.Match) []keyed {
	lost := len(c.Lost)
	pods, namespaces := c.plainPods(m), c.plainNamespaces(m)
	if len(c.Lost) > lost {
		return nil
	}
	if !selectsPodsOnly(m) {
		if other := c.alsoSelects(m); other != "" {
			c.lose(m.Place, "%s is among what it selects, and a NetworkPolicy selects pods only", other)
			return nil
		}
	}
	podSelector, namespaceSelector := newSelector(pods), newSelector(namespaces)
	switch {
	case namespaces.Key() == selector.Label(policies.NameLabel, c.From.Namespace).Key():
		namespaceSelector = nil
	case pods.IsEverything():
		podSelector = nil
	}
	return []keyed{{namespaces.Key() + "\x00" + pods.Key(), newMapping(member{"namespaceSelector", namespaceSelector}, member{"podSelector", podSelector})}}
}

// selectsPodsOnly reports whether a match describes nothing but pods.
func selectsPodsOnly(m *policies.Match) bool {
	return slices.ContainsFunc(m.Pods.Requirements(), isPodsOnly)
}

func isPodsOnly(r selector.Requirement) bool {
	return r.Key == policies.CalicoOrchestrator && r.Operator == selector.In && slices.Equal(r.Values, []string{"k8s"})
}

// plainPods returns the selector of pods, without what all pods meet.
func (c *converter) plainPods(m *policies.Match) selector.Selector {
	all := []selector.Selector{selector.Everything()}
	for _, r := range c.conjunction(m.Pods, m.Place) {
		switch {
		case isPodsOnly(r):
			continue
		case policies.IsInherited(r.Key):
			c.lose(m.Place, "%s: a NetworkPolicy sees the labels of pods only", requirementText(r))
		}
		all = append(all, selector.Where(r.Key, r.Operator, r.Values...))
	}
	return selector.And(all...)
}

// plainNamespaces returns the selector of namespaces, without what all namespaces
// meet.
func (c *converter) plainNamespaces(m *policies.Match) selector.Selector {
	c.seesNamespaces(m.Inherited.Keys(), m.Place)
	all := []selector.Selector{selector.Everything()}
	for _, r := range c.conjunction(m.Namespaces, m.Place) {
		switch {
		case r.Key == policies.NameLabel && r.Operator == selector.Exists:
			continue
		case r.Key == policies.NameLabel && r.Operator == selector.DoesNotExist && !selectsPodsOnly(m):
			c.lose(m.Place, "global(): a NetworkPolicy does not describe what is in no namespace")
		}
		all = append(all, selector.Where(r.Key, r.Operator, r.Values...))
	}
	return selector.And(all...)
}

// conjunction returns the requirements of a selector, as far as Kubernetes has
// words for them; the others are lost.
func (c *converter) conjunction(s selector.Selector, at policies.Place) []selector.Requirement {
	if !s.IsConjunction() {
		c.lose(at, "selector %s: a label selector joins its requirements by \"and\" only", s.Calico())
		return nil
	}
	for _, r := range s.Requirements() {
		known := slices.Contains([]selector.Operator{selector.In, selector.NotIn, selector.Exists, selector.DoesNotExist}, r.Operator)
		valid := c.isValid(labelKeys, r.Key) && !slices.ContainsFunc(r.Values, func(v string) bool { return !c.isValid(labelValues, v) })
		switch {
		case !known:
			c.lose(at, "%s: a label selector has no such operator", requirementText(r))
		case !valid:
			c.lose(at, "%s: a label selector does not take such a key or value", requirementText(r))
		}
	}
	return s.Requirements()
}

// requirementText prints a requirement as Calico writes it.
func requirementText(r selector.Requirement) string {
	return selector.Where(r.Key, r.Operator, r.Values...).Calico()
}

// alsoSelects names a network set or host endpoint that a match describes beside
// pods, or may; "" where there is none.
func (c *converter) alsoSelects(m *policies.Match) string {
	may := func(ref policies.Ref, labels map[string]string) bool {
		n := &policies.Namespace{}
		if i := slices.IndexFunc(c.world.Namespaces, func(n policies.Namespace) bool { return n.Name == ref.Namespace }); i >= 0 {
			n = &c.world.Namespaces[i]
		}
		label := func(key string) (string, bool, bool) {
			if value, has := labels[key]; has || ref.Namespace == "" {
				return value, has, true
			}
			return n.Inherited(key)
		}
		_, in := m.Inherited.Test(label)
		if m.Inherited.IsNothing() {
			_, in = m.Namespaces.Test(func(key string) (string, bool, bool) {
				value, has := n.Labels[key]
				return value, has, has || !n.Implied
			})
		}
		_, is := m.Pods.Test(label)
		return in && is
	}
	for i := range c.world.Sets {
		if s := &c.world.Sets[i]; may(s.Ref, s.Labels) {
			return s.Ref.Kind + " " + s.Ref.String()
		}
	}
	for i := range c.world.Hosts {
		if h := &c.world.Hosts[i]; may(h.Ref, h.Labels) {
			return h.Ref.Kind + " " + h.Ref.String()
		}
	}
	return ""
}
