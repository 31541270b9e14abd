package reach_test

import (
	"net/netip"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/selection"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// cluster is the objects of a world as Kubernetes writes them down, and what
// NetworkPolicy and the cluster-wide kinds mean for them: one question at a time, pod by pod and policy by
// policy, with nothing prepared and nothing shared with the judge.
type cluster struct {
	namespaces   []corev1.Namespace
	nodes        []corev1.Node
	pods         []corev1.Pod
	deployments  []appsv1.Deployment
	policies     []networkingv1.NetworkPolicy
	wide         []widePolicy
	foreign      []metav1.PartialObjectMetadata // policies of a kind that nobody understands
	podCIDRs     []netip.Prefix
	ignoreBlocks bool // address blocks match no pod and no node
	// expected are addresses of nodes that others than the nodes tell.
	expected map[string][]netip.Addr
}

// party is one end of a connection.
type party struct {
	ref       policies.Ref // Kind "Node" for a node; zero for an address outside
	workload  policies.Ref // of a pod or a template
	labels    map[string]string
	spec      *corev1.PodSpec // nil for a node and for an address outside
	replicas  int
	addresses []netip.Addr // empty when they are not known
}

// at returns the party once for each of its addresses of a family, with no other
// of that family; as it is where it has not several.
func (p *party) at(v6 bool) []*party {
	var all []*party
	for _, a := range p.addresses {
		if a.Is6() == v6 {
			one := *p
			one.addresses = slices.DeleteFunc(slices.Clone(p.addresses), func(b netip.Addr) bool { return b.Is6() == v6 && b != a })
			all = append(all, &one)
		}
	}
	if len(all) < 2 {
		return []*party{p}
	}
	return all
}

// isSame reports whether two parties are one, at whatever address.
func (p *party) isSame(q *party) bool { return !p.isOutside() && p.ref == q.ref }

func (p *party) isOutside() bool { return p.ref == policies.Ref{} }
func (p *party) isNode() bool    { return p.ref.Kind == "Node" }
func (p *party) onHost() bool    { return p.isNode() || p.spec != nil && p.spec.HostNetwork }

// isPod reports whether selectors can see the party.
func (p *party) isPod() bool { return p.spec != nil && !p.spec.HostNetwork }

// nodeName is the node that a pod runs on, or that a node is.
func (p *party) nodeName() string {
	if p.isNode() {
		return p.ref.Name
	}
	return p.spec.NodeName
}

func outsider(a netip.Addr) *party { return &party{addresses: []netip.Addr{a}} }

// parties returns every pod that takes part in the network, and every template
// and node.
func (c *cluster) parties() []*party {
	var all []*party
	for i := range c.pods {
		p := &c.pods[i]
		addresses := addressesOf(p.Status.PodIPs)
		finished := p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
		starting := p.Status.Phase != "" && len(addresses) == 0
		if finished || starting && !p.Spec.HostNetwork {
			continue
		}
		if p.Spec.HostNetwork && len(addresses) == 0 {
			addresses = c.nodeAddresses(p.Spec.NodeName)
		}
		ref := policies.Ref{Kind: "Pod", Namespace: p.Namespace, Name: p.Name}
		workload := ref
		for _, o := range p.OwnerReferences {
			workload = policies.Ref{Kind: o.Kind, Namespace: p.Namespace, Name: o.Name}
		}
		all = append(all, &party{ref, workload, p.Labels, &p.Spec, 1, addresses})
	}
	for i := range c.deployments {
		d := &c.deployments[i]
		template := &d.Spec.Template
		ref := policies.Ref{Kind: "Deployment", Namespace: d.Namespace, Name: d.Name}
		replicas := 1
		if d.Spec.Replicas != nil {
			replicas = int(*d.Spec.Replicas)
		}
		var addresses []netip.Addr
		if template.Spec.HostNetwork {
			addresses = c.nodeAddresses(template.Spec.NodeName)
		}
		all = append(all, &party{ref, ref, template.Labels, &template.Spec, replicas, addresses})
	}
	for i := range c.nodes {
		n := &c.nodes[i]
		all = append(all, &party{ref: policies.Ref{Kind: "Node", Name: n.Name}, addresses: c.nodeAddresses(n.Name)})
	}
	return all
}

// each returns the parties, and for each address of one that has several, the party
// as it is named by that address.
func each(parties []*party) []*party {
	all := slices.Clone(parties)
	for _, p := range parties {
		for _, a := range p.addresses {
			if one := *p; len(p.addresses) > 1 {
				one.addresses = []netip.Addr{a}
				all = append(all, &one)
			}
		}
	}
	return all
}

func addressesOf(ips []corev1.PodIP) []netip.Addr {
	var addresses []netip.Addr
	for _, ip := range ips {
		addresses = append(addresses, netip.MustParseAddr(ip.IP))
	}
	return addresses
}

func (c *cluster) nodeAddresses(name string) []netip.Addr {
	var addresses []netip.Addr
	for i := range c.nodes {
		if c.nodes[i].Name != name {
			continue
		}
		for _, a := range c.nodes[i].Status.Addresses {
			if a.Type == corev1.NodeInternalIP || a.Type == corev1.NodeExternalIP {
				addresses = append(addresses, netip.MustParseAddr(a.Address))
			}
		}
	}
	for _, a := range c.expected[name] {
		if !slices.Contains(addresses, a) {
			addresses = append(addresses, a)
		}
	}
	return addresses
}

// verdict decides one connection.
func (c *cluster) verdict(from, to *party, p netset.Protocol, port uint16) policies.Verdict {
	if from.isSame(to) && from.replicas <= 1 {
		return policies.Allow
	}
	return c.between(from, to, p, port)
}

// between decides one connection of two pods that are not the same one,
// although one template may stand for both.
func (c *cluster) between(from, to *party, p netset.Protocol, port uint16) policies.Verdict {
	return c.overFamilies(from, to, c.mentionsIPv6(), func(from, to *party, v6 bool) policies.Verdict {
		egress := c.side(policies.Egress, from, to, v6, p, port)
		ingress := c.side(policies.Ingress, to, from, v6, p, port)
		switch {
		case egress == policies.Allow && ingress == policies.Allow:
			return policies.Allow
		case egress == policies.Deny || ingress == policies.Deny:
			return policies.Deny
		}
		return policies.Unknown
	})
}

// overFamilies decides a connection that one address family or the other lets
// through; dual is set where IPv6 plays a part. Where it depends on which of several
// addresses of one family is used, nobody knows what that family lets through.
func (c *cluster) overFamilies(from, to *party, dual bool, decide func(from, to *party, v6 bool) policies.Verdict) policies.Verdict {
	overAll := func(v6 bool) policies.Verdict {
		sum := policies.Undecided
		for _, one := range from.at(v6) {
			for _, other := range to.at(v6) {
				switch v := decide(one, other, v6); sum {
				case policies.Undecided, v:
					sum = v
				default:
					return policies.Unknown
				}
			}
		}
		return sum
	}
	var best [policies.Yes + 1]policies.Verdict // by whether there is such a way
	for _, v6 := range []bool{false, true} {
		if from.speaks(v6) && to.speaks(v6) {
			way := c.has(from, v6).And(c.has(to, v6))
			best[way] = looser(best[way], overAll(v6))
		}
	}
	switch certain, perhaps := best[policies.Yes], best[policies.Maybe]; {
	case certain == policies.Deny && perhaps != policies.Undecided && perhaps != policies.Deny && dual:
		return policies.Unknown
	case certain != policies.Undecided:
		return certain
	}
	return looser(policies.Deny, looser(best[policies.Maybe], best[policies.No]))
}

// looser is the verdict of two that lets more through.
func looser(a, b policies.Verdict) policies.Verdict {
	order := []policies.Verdict{policies.Undecided, policies.Deny, policies.Unknown, policies.Allow}
	return order[max(slices.Index(order, a), slices.Index(order, b))]
}

// speaks reports whether the party may have an address of the family, as far as
// its own addresses tell.
func (p *party) speaks(v6 bool) bool {
	return len(p.addresses) == 0 || slices.ContainsFunc(p.addresses, func(a netip.Addr) bool { return a.Is6() == v6 })
}

// has reports whether the party has an address of the family. Addresses that are
// not known are those of the pod ranges; without any, one of IPv4, and perhaps
// one of IPv6.
func (c *cluster) has(p *party, v6 bool) policies.Truth {
	switch {
	case len(p.addresses) > 0:
		return truthOf(p.speaks(v6))
	case len(c.podCIDRs) > 0 && !p.onHost():
		return truthOf(slices.ContainsFunc(c.podCIDRs, func(r netip.Prefix) bool { return r.Addr().Is6() == v6 }))
	case v6:
		return policies.Maybe
	}
	return policies.Yes
}

func truthOf(b bool) policies.Truth { return [...]policies.Truth{policies.No, policies.Yes}[number(b)] }

// mentionsIPv6 reports whether IPv6 plays a part: in the address of somebody who
// takes part, in a pod range, or in a rule in force.
func (c *cluster) mentionsIPv6() bool {
	is6 := func(a netip.Addr) bool { return a.Is6() }
	if slices.ContainsFunc(c.podCIDRs, func(p netip.Prefix) bool { return is6(p.Addr()) }) {
		return true
	}
	for _, p := range c.parties() {
		if slices.ContainsFunc(p.addresses, is6) {
			return true
		}
	}
	for _, d := range policies.Directions {
		for i := range c.policies {
			if governs(&c.policies[i], d) && slices.ContainsFunc(rulesOf(&c.policies[i], d), npRule.mentionsIPv6) {
				return true
			}
		}
		for i := range c.wide {
			if slices.ContainsFunc(c.wide[i].rules(d), wideRule.mentionsIPv6) {
				return true
			}
		}
	}
	return false
}

func (r npRule) mentionsIPv6() bool {
	return slices.ContainsFunc(r.peers, func(p networkingv1.NetworkPolicyPeer) bool {
		return p.IPBlock != nil && strings.Contains(p.IPBlock.CIDR, ":")
	})
}

// side decides one direction: for subject, about other.
func (c *cluster) side(d policies.Direction, subject, other *party, v6 bool, p netset.Protocol, port uint16) policies.Verdict {
	if !subject.isPod() {
		return policies.Allow
	}
	for i := range c.foreign {
		if c.foreign[i].Namespace == subject.ref.Namespace {
			return policies.Unknown
		}
	}
	m := &matter{d, subject, other, v6, point{p, port}}
	fate := c.wideFate(m, false)
	if d == policies.Ingress && other.onHost() {
		switch here, there := subject.nodeName(), other.nodeName(); {
		case here == "" || there == "":
			fate = fate.or(c.wideFate(m, true))
		case here == there:
			fate = c.wideFate(m, true)
		}
	}
	switch fate {
	case fates{allow: true}:
		return policies.Allow
	case fates{deny: true}:
		return policies.Deny
	}
	return policies.Unknown
}

// networkPolicies reports whether some NetworkPolicy isolates the subject, and
// whether one then allows the traffic.
func (c *cluster) networkPolicies(m *matter) (isolated bool, allowed policies.Truth) {
	for i := range c.policies {
		np := &c.policies[i]
		if np.Namespace != m.subject.ref.Namespace || !governs(np, m.d) || !matches(&np.Spec.PodSelector, m.subject.labels) {
			continue
		}
		isolated = true
		for _, r := range rulesOf(np, m.d) {
			if onPort(r.ports, m.destination(), m.protocol, m.port) {
				allowed = allowed.Or(c.fromPeers(np, r.peers, m.other, m.v6))
			}
		}
	}
	return isolated, allowed
}

// governs reports whether a policy has a say about a direction.
func governs(np *networkingv1.NetworkPolicy, d policies.Direction) bool {
	if len(np.Spec.PolicyTypes) > 0 {
		return slices.Contains(np.Spec.PolicyTypes, [...]networkingv1.PolicyType{"Egress", "Ingress"}[d])
	}
	return d == policies.Ingress || len(np.Spec.Egress) > 0
}

type npRule struct {
	peers []networkingv1.NetworkPolicyPeer
	ports []networkingv1.NetworkPolicyPort
}

func rulesOf(np *networkingv1.NetworkPolicy, d policies.Direction) []npRule {
	var rules []npRule
	if d == policies.Ingress {
		for _, r := range np.Spec.Ingress {
			rules = append(rules, npRule{r.From, r.Ports})
		}
		return rules
	}
	for _, r := range np.Spec.Egress {
		rules = append(rules, npRule{r.To, r.Ports})
	}
	return rules
}

// onPort reports whether the ports of a rule include one of the destination.
func onPort(ports []networkingv1.NetworkPolicyPort, destination *party, p netset.Protocol, port uint16) bool {
	if len(ports) == 0 {
		return true
	}
	for _, item := range ports {
		protocol := corev1.ProtocolTCP
		if item.Protocol != nil {
			protocol = *item.Protocol
		}
		if string(protocol) != p.String() {
			continue
		}
		switch {
		case item.Port == nil:
			return true
		case item.Port.StrVal != "":
			if destination.isPod() && names(destination.spec, item.Port.StrVal, protocol, port) {
				return true
			}
		case item.EndPort != nil:
			if item.Port.IntVal <= int32(port) && int32(port) <= *item.EndPort {
				return true
			}
		case item.Port.IntVal == int32(port):
			return true
		}
	}
	return false
}

// names reports whether a pod gives a port this name.
func names(spec *corev1.PodSpec, name string, protocol corev1.Protocol, port uint16) bool {
	containers := slices.Clone(spec.Containers)
	for _, c := range spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, c)
		}
	}
	for _, c := range containers {
		for _, p := range c.Ports {
			of := p.Protocol
			if of == "" {
				of = corev1.ProtocolTCP
			}
			if p.Name == name && of == protocol && p.ContainerPort == int32(port) {
				return true
			}
		}
	}
	return false
}

// fromPeers reports whether other is one of the peers of a rule.
func (c *cluster) fromPeers(np *networkingv1.NetworkPolicy, peers []networkingv1.NetworkPolicyPeer, other *party, v6 bool) policies.Truth {
	if len(peers) == 0 {
		return policies.Yes
	}
	found := policies.No
	for _, peer := range peers {
		switch {
		case peer.IPBlock != nil:
			found = found.Or(c.inBlock(peer.IPBlock, other, v6))
		case !other.isPod(), peer.PodSelector != nil && !matches(peer.PodSelector, other.labels):
		case peer.NamespaceSelector != nil:
			found = found.Or(c.inNamespace(peer.NamespaceSelector, other.ref.Namespace))
		case other.ref.Namespace == np.Namespace:
			found = policies.Yes
		}
	}
	return found
}

func (c *cluster) inBlock(block *networkingv1.IPBlock, other *party, v6 bool) policies.Truth {
	if c.ignoreBlocks && !other.isOutside() {
		return policies.No
	}
	return c.holds(block, other, v6)
}

// holds is inBlock for blocks that always match pods and nodes.
func (c *cluster) holds(block *networkingv1.IPBlock, other *party, v6 bool) policies.Truth {
	holds := func(text string, a netip.Addr) bool { return netip.MustParsePrefix(text).Contains(a) }
	if len(other.addresses) == 0 {
		return c.mayBeInBlock(block, other, v6)
	}
	for _, a := range other.addresses {
		if a.Is6() == v6 && holds(block.CIDR, a) && !slices.ContainsFunc(block.Except, func(e string) bool { return holds(e, a) }) {
			return policies.Yes
		}
	}
	return policies.No
}

// mayBeInBlock speaks of an address that is not known. A pod has one in each of
// the pod CIDRs' families, or else an IPv4 address and perhaps an IPv6 one. It
// is in a block for sure when the block holds all of where it can be.
func (c *cluster) mayBeInBlock(block *networkingv1.IPBlock, other *party, v6 bool) policies.Truth {
	var space []netip.Prefix
	sure := true
	if len(c.podCIDRs) > 0 && !other.onHost() {
		for _, p := range c.podCIDRs {
			if p.Addr().Is6() == v6 {
				space = append(space, p)
			}
		}
	} else {
		space = []netip.Prefix{[...]netip.Prefix{netset.AllIPv4, netset.AllIPv6}[number(v6)]}
		sure = !v6
	}
	cidr := netip.MustParsePrefix(block.CIDR).Masked()
	covered, overlaps := true, false
	for _, p := range space {
		within := cidr.Overlaps(p) && cidr.Bits() <= p.Bits()
		part := cidr.Overlaps(p)
		for _, text := range block.Except {
			if e := netip.MustParsePrefix(text).Masked(); e.Overlaps(p) {
				within = false
				part = part && e.Bits() > p.Bits() && e != cidr
			}
		}
		covered = covered && within
		overlaps = overlaps || part
	}
	switch {
	case !overlaps:
		return policies.No
	case covered && sure:
		return policies.Yes
	}
	return policies.Maybe
}

func number(b bool) int {
	if b {
		return 1
	}
	return 0
}

// inNamespace reports whether a namespace is selected. Of one that has no
// object only the name is known.
func (c *cluster) inNamespace(s *metav1.LabelSelector, name string) policies.Truth {
	for i := range c.namespaces {
		if n := &c.namespaces[i]; n.Name == name {
			all := map[string]string{}
			for k, v := range n.Labels {
				all[k] = v
			}
			all[corev1.LabelMetadataName] = name
			if matches(s, all) {
				return policies.Yes
			}
			return policies.No
		}
	}
	return mayMatch(s, map[string]string{corev1.LabelMetadataName: name})
}

// mayMatch reports whether something is selected of which only some labels are
// known.
func mayMatch(s *metav1.LabelSelector, known map[string]string) policies.Truth {
	requirements, _ := asSelector(s).Requirements()
	found := policies.Yes
	for _, r := range requirements {
		switch _, has := known[r.Key()]; {
		case !has:
			found = found.And(policies.Maybe)
		case !r.Matches(labels.Set(known)):
			return policies.No
		}
	}
	return found
}

func matches(s *metav1.LabelSelector, set map[string]string) bool {
	return asSelector(s).Matches(labels.Set(set))
}

func asSelector(s *metav1.LabelSelector) labels.Selector {
	all := labels.NewSelector()
	add := func(key string, operator selection.Operator, values []string) {
		r, err := labels.NewRequirement(key, operator, values)
		if err != nil {
			panic(err)
		}
		all = all.Add(*r)
	}
	for k, v := range s.MatchLabels {
		add(k, selection.Equals, []string{v})
	}
	operators := map[metav1.LabelSelectorOperator]selection.Operator{
		metav1.LabelSelectorOpIn: selection.In, metav1.LabelSelectorOpNotIn: selection.NotIn,
		metav1.LabelSelectorOpExists: selection.Exists, metav1.LabelSelectorOpDoesNotExist: selection.DoesNotExist,
	}
	for _, e := range s.MatchExpressions {
		add(e.Key, operators[e.Operator], e.Values)
	}
	return all
}
