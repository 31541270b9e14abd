package reach_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// widePolicy is a policy of one of the cluster-wide kinds, whose form is that of
// a ClusterNetworkPolicy whatever the kind. A peer without fields stands for one
// that has a field of a newer version.
type widePolicy struct {
	kind string
	v1alpha2.ClusterNetworkPolicy
}

// wideRule is a rule of either direction.
type wideRule struct {
	action    v1alpha2.ClusterNetworkPolicyRuleAction
	peers     []v1alpha2.ClusterNetworkPolicyEgressPeer
	protocols []v1alpha2.ClusterNetworkPolicyProtocol
}

func (w *widePolicy) rules(d policies.Direction) []wideRule {
	var rules []wideRule
	if d == policies.Egress {
		for _, r := range w.Spec.Egress {
			rules = append(rules, wideRule{r.Action, r.To, r.Protocols})
		}
		return rules
	}
	for _, r := range w.Spec.Ingress {
		rules = append(rules, wideRule{r.Action, as[[]v1alpha2.ClusterNetworkPolicyEgressPeer](r.From), r.Protocols})
	}
	return rules
}

// as turns an object of the API into one with the same fields.
func as[T any](from any) T {
	var to T
	text, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(text, &to)
	}
	if err != nil {
		panic(err)
	}
	return to
}

// fates is what may become of traffic.
type fates struct{ allow, deny bool }

func (f fates) or(g fates) fates { return fates{f.allow || g.allow, f.deny || g.deny} }

// matter is one direction of one question.
type matter struct {
	d              policies.Direction
	subject, other *party
	v6             bool
	point
}

func (m *matter) destination() *party {
	if m.d == policies.Ingress {
		return m.subject
	}
	return m.other
}

// inTier is what one of the cluster-wide tiers makes of traffic, next being what
// becomes of it after the tier. Policies are looked at in the order of their
// priorities, those of equal priority in any order.
func (c *cluster) inTier(tier v1alpha2.Tier, m *matter, next fates) fates {
	var concerned []*widePolicy
	for i := range c.wide {
		w := &c.wide[i]
		if w.Spec.Tier == tier && len(w.rules(m.d)) > 0 && c.subjectOf(w, m.subject) != policies.No {
			concerned = append(concerned, w)
		}
	}
	return c.inOrder(concerned, m, next)
}

func (c *cluster) inOrder(list []*widePolicy, m *matter, next fates) fates {
	if len(list) == 0 {
		return next
	}
	first := list[0].Spec.Priority
	for _, w := range list {
		first = min(first, w.Spec.Priority)
	}
	var all fates
	for i, w := range list {
		if w.Spec.Priority != first {
			continue
		}
		rest := slices.Concat(list[:i], list[i+1:])
		if c.subjectOf(w, m.subject) != policies.Yes {
			all = all.or(c.inOrder(rest, m, next))
		}
		all = all.or(c.byRules(w.rules(m.d), rest, m, next))
	}
	return all
}

func (c *cluster) byRules(rules []wideRule, rest []*widePolicy, m *matter, next fates) fates {
	if len(rules) == 0 {
		return c.inOrder(rest, m, next)
	}
	hits := c.hits(&rules[0], m)
	action := rules[0].action
	if action == v1alpha2.ClusterNetworkPolicyRuleActionPass && slices.ContainsFunc(rules[0].peers, func(p v1alpha2.ClusterNetworkPolicyEgressPeer) bool { return isBlank(&p) }) {
		action = v1alpha2.ClusterNetworkPolicyRuleActionDeny
	}
	var all fates
	if hits != policies.Yes {
		all = c.byRules(rules[1:], rest, m, next)
	}
	switch {
	case hits == policies.No:
	case action == v1alpha2.ClusterNetworkPolicyRuleActionAccept:
		all.allow = true
	case action == v1alpha2.ClusterNetworkPolicyRuleActionDeny:
		all.deny = true
	default:
		all = all.or(next)
	}
	return all
}

func (c *cluster) subjectOf(w *widePolicy, subject *party) policies.Truth {
	s := w.Spec.Subject
	return c.isWidePeer(&v1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: s.Namespaces, Pods: s.Pods}, subject, false)
}

// hits reports whether a rule matches. One with a peer that nobody understands
// fails closed.
func (c *cluster) hits(r *wideRule, m *matter) policies.Truth {
	for i := range r.peers {
		if isBlank(&r.peers[i]) {
			if r.action == v1alpha2.ClusterNetworkPolicyRuleActionAccept {
				return policies.No
			}
			return policies.Yes
		}
	}
	if len(r.protocols) > 0 && !slices.ContainsFunc(r.protocols, func(p v1alpha2.ClusterNetworkPolicyProtocol) bool { return onProtocol(p, m) }) {
		return policies.No
	}
	found := policies.No
	for i := range r.peers {
		found = found.Or(c.isWidePeer(&r.peers[i], m.other, m.v6))
	}
	return found
}

// mentionsIPv6 reports whether a rule in force does.
func (r wideRule) mentionsIPv6() bool {
	found := false
	for i := range r.peers {
		if isBlank(&r.peers[i]) {
			return false
		}
		for _, cidr := range r.peers[i].Networks {
			found = found || strings.Contains(string(cidr), ":")
		}
	}
	return found
}

func isBlank(p *v1alpha2.ClusterNetworkPolicyEgressPeer) bool {
	return p.Namespaces == nil && p.Pods == nil && p.Nodes == nil && p.Networks == nil && p.DomainNames == nil
}

func onProtocol(item v1alpha2.ClusterNetworkPolicyProtocol, m *matter) bool {
	var port *v1alpha2.Port
	switch {
	case item.DestinationNamedPort != "":
		to := m.destination()
		return to.isPod() && names(to.spec, item.DestinationNamedPort, corev1.Protocol(m.protocol.String()), m.port)
	case item.TCP != nil && m.protocol == netset.TCP:
		port = item.TCP.DestinationPort
	case item.UDP != nil && m.protocol == netset.UDP:
		port = item.UDP.DestinationPort
	case item.SCTP != nil && m.protocol == netset.SCTP:
		port = item.SCTP.DestinationPort
	default:
		return false
	}
	if port.Range != nil {
		return port.Range.Start <= int32(m.port) && int32(m.port) <= port.Range.End
	}
	return port.Number == int32(m.port)
}

func (c *cluster) isWidePeer(p *v1alpha2.ClusterNetworkPolicyEgressPeer, other *party, v6 bool) policies.Truth {
	switch {
	case p.Namespaces != nil && other.isPod():
		return c.inNamespace(p.Namespaces, other.ref.Namespace)
	case p.Pods != nil && other.isPod() && matches(&p.Pods.PodSelector, other.labels):
		return c.inNamespace(&p.Pods.NamespaceSelector, other.ref.Namespace)
	case p.Nodes != nil && !other.isOutside() && other.onHost():
		return c.isOnNode(p.Nodes, other)
	case p.DomainNames != nil && !other.isPod():
		return policies.Maybe
	case p.DomainNames != nil && slices.Contains(p.DomainNames, "db.shop.svc.cluster.local"):
		return policies.Maybe
	}
	found := policies.No
	for _, cidr := range p.Networks {
		found = found.Or(c.holds(&networkingv1.IPBlock{CIDR: string(cidr)}, other, v6))
	}
	return found
}

// isOnNode reports whether a node, or a pod on a node's network, is of a node
// that is selected. Of a node without an object only what the pod asks for is
// known, and that it runs Linux.
func (c *cluster) isOnNode(s *metav1.LabelSelector, p *party) policies.Truth {
	for i := range c.nodes {
		if n := &c.nodes[i]; n.Name == p.nodeName() {
			if matches(s, n.Labels) {
				return policies.Yes
			}
			return policies.No
		}
	}
	known := map[string]string{"kubernetes.io/os": "linux"}
	for key, value := range p.spec.NodeSelector {
		known[key] = value
	}
	return mayMatch(s, known)
}

// wideFate says what becomes of traffic by all tiers, given that the other end
// is, or is not, the subject's own node.
func (c *cluster) wideFate(m *matter, ownNode bool) fates {
	fate := c.inTier(v1alpha2.BaselineTier, m, fates{allow: true})
	switch isolated, allowed := c.networkPolicies(m); {
	case !isolated:
	case ownNode || allowed == policies.Yes && m.protocol.HasPorts():
		fate = fates{allow: true}
	case allowed == policies.Maybe || !m.protocol.HasPorts():
		fate = fates{allow: true, deny: true}
	default:
		fate = fates{deny: true}
	}
	return c.inTier(v1alpha2.AdminTier, m, fate)
}

const accept, deny, pass = v1alpha2.ClusterNetworkPolicyRuleActionAccept, v1alpha2.ClusterNetworkPolicyRuleActionDeny, v1alpha2.ClusterNetworkPolicyRuleActionPass

// drawWide draws policies of the cluster-wide kinds.
func drawWide(d dice) []widePolicy {
	var all []widePolicy
	for i := range d.between(0, 4) {
		w := widePolicy{kind: pick(d, "ClusterNetworkPolicy", "ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")}
		w.Name = fmt.Sprintf("wide-%d", i)
		w.Spec.Tier = pick(d, v1alpha2.AdminTier, v1alpha2.BaselineTier)
		w.Spec.Priority = int32(d.between(0, 3))
		switch w.kind {
		case "AdminNetworkPolicy":
			w.Spec.Tier = v1alpha2.AdminTier
		case "BaselineAdminNetworkPolicy":
			if slices.ContainsFunc(all, func(o widePolicy) bool { return o.kind == w.kind }) {
				continue
			}
			w.Name, w.Spec.Tier, w.Spec.Priority = "default", v1alpha2.BaselineTier, 0
		}
		subject := drawWidePods(d)
		w.Spec.Subject = v1alpha2.ClusterNetworkPolicySubject{Namespaces: subject.Namespaces, Pods: subject.Pods}
		w.Spec.Ingress = several(d, 2, func() v1alpha2.ClusterNetworkPolicyIngressRule {
			r := drawWideRule(d, policies.Ingress, w.kind)
			return v1alpha2.ClusterNetworkPolicyIngressRule{Action: r.action, From: as[[]v1alpha2.ClusterNetworkPolicyIngressPeer](r.peers), Protocols: r.protocols}
		})
		w.Spec.Egress = several(d, 3, func() v1alpha2.ClusterNetworkPolicyEgressRule {
			r := drawWideRule(d, policies.Egress, w.kind)
			return v1alpha2.ClusterNetworkPolicyEgressRule{Action: r.action, To: r.peers, Protocols: r.protocols}
		})
		all = append(all, w)
	}
	return all
}

func drawWidePods(d dice) v1alpha2.ClusterNetworkPolicyEgressPeer {
	namespaces := drawSelector(d, "team", "env")
	if d.chance(30) {
		namespaces = metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelMetadataName: pick(d, "a", "b")}}
	}
	if d.chance(50) {
		return v1alpha2.ClusterNetworkPolicyEgressPeer{Namespaces: &namespaces}
	}
	return v1alpha2.ClusterNetworkPolicyEgressPeer{Pods: &v1alpha2.NamespacedPod{NamespaceSelector: namespaces, PodSelector: drawSelector(d, "app", "tier")}}
}

func drawWideRule(d dice, direction policies.Direction, kind string) wideRule {
	baseline := kind == "BaselineAdminNetworkPolicy"
	r := wideRule{action: pick(d, accept, deny)}
	if !baseline && d.chance(30) {
		r.action = pick(d, pass)
	}
	onlyPods := direction == policies.Ingress
	for range d.between(0, 2) {
		p := drawWideProtocol(d)
		onlyPods = onlyPods || p.DestinationNamedPort != ""
		r.protocols = append(r.protocols, p)
	}
	for range d.between(1, 2) {
		peer := drawWidePods(d)
		switch form := d.between(0, 9); {
		case form == 9 && d.chance(30):
			peer = v1alpha2.ClusterNetworkPolicyEgressPeer{}
		case onlyPods:
		case form >= 6:
			peer = v1alpha2.ClusterNetworkPolicyEgressPeer{Networks: []v1alpha2.CIDR{v1alpha2.CIDR(pick(d, blockCIDRs...))}}
			if second := v1alpha2.CIDR(pick(d, blockCIDRs...)); second != peer.Networks[0] {
				peer.Networks = append(peer.Networks, second)
			}
		case form == 5:
			s := drawSelector(d, "role", "kubernetes.io/os")
			if d.chance(30) {
				s = metav1.LabelSelector{MatchLabels: map[string]string{"kubernetes.io/os": "linux"}}
			}
			peer = v1alpha2.ClusterNetworkPolicyEgressPeer{Nodes: &s}
		case form == 4 && r.action == accept && !baseline:
			peer = v1alpha2.ClusterNetworkPolicyEgressPeer{DomainNames: []v1alpha2.DomainName{pick[v1alpha2.DomainName](d, "*.example.com", "db.shop.svc.cluster.local")}}
		}
		r.peers = append(r.peers, peer)
	}
	return r
}

func drawWideProtocol(d dice) v1alpha2.ClusterNetworkPolicyProtocol {
	port := &v1alpha2.Port{Number: pick(d, numbers...)}
	if end := port.Number + int32(d.between(1, 3)); d.chance(30) && end <= 65535 {
		port = &v1alpha2.Port{Range: &v1alpha2.PortRange{Start: port.Number, End: end}}
	}
	switch d.between(0, 3) {
	case 0:
		return v1alpha2.ClusterNetworkPolicyProtocol{TCP: &v1alpha2.ClusterNetworkPolicyProtocolTCP{DestinationPort: port}}
	case 1:
		return v1alpha2.ClusterNetworkPolicyProtocol{UDP: &v1alpha2.ClusterNetworkPolicyProtocolUDP{DestinationPort: port}}
	case 2:
		return v1alpha2.ClusterNetworkPolicyProtocol{SCTP: &v1alpha2.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port}}
	}
	return v1alpha2.ClusterNetworkPolicyProtocol{DestinationNamedPort: pick(d, portNames...)}
}

// document writes the policy as its own kind.
func (w *widePolicy) document() string {
	meta := metav1.ObjectMeta{Name: w.Name}
	var text string
	switch w.kind {
	case "ClusterNetworkPolicy":
		text = document("policy.networking.k8s.io/v1alpha2", w.kind, &w.ClusterNetworkPolicy)
	case "AdminNetworkPolicy":
		p := v1alpha1.AdminNetworkPolicy{ObjectMeta: meta}
		p.Spec.Priority, p.Spec.Subject = w.Spec.Priority, as[v1alpha1.AdminNetworkPolicySubject](w.Spec.Subject)
		for _, r := range w.rules(policies.Ingress) {
			p.Spec.Ingress = append(p.Spec.Ingress, v1alpha1.AdminNetworkPolicyIngressRule{Action: adminActions[r.action], From: as[[]v1alpha1.AdminNetworkPolicyIngressPeer](r.peers), Ports: r.adminPorts()})
		}
		for _, r := range w.rules(policies.Egress) {
			p.Spec.Egress = append(p.Spec.Egress, v1alpha1.AdminNetworkPolicyEgressRule{Action: adminActions[r.action], To: as[[]v1alpha1.AdminNetworkPolicyEgressPeer](r.peers), Ports: r.adminPorts()})
		}
		text = document("policy.networking.k8s.io/v1alpha1", w.kind, &p)
	default:
		p := v1alpha1.BaselineAdminNetworkPolicy{ObjectMeta: meta}
		p.Spec.Subject = as[v1alpha1.AdminNetworkPolicySubject](w.Spec.Subject)
		for _, r := range w.rules(policies.Ingress) {
			p.Spec.Ingress = append(p.Spec.Ingress, v1alpha1.BaselineAdminNetworkPolicyIngressRule{Action: v1alpha1.BaselineAdminNetworkPolicyRuleAction(adminActions[r.action]), From: as[[]v1alpha1.AdminNetworkPolicyIngressPeer](r.peers), Ports: r.adminPorts()})
		}
		for _, r := range w.rules(policies.Egress) {
			p.Spec.Egress = append(p.Spec.Egress, v1alpha1.BaselineAdminNetworkPolicyEgressRule{Action: v1alpha1.BaselineAdminNetworkPolicyRuleAction(adminActions[r.action]), To: as[[]v1alpha1.BaselineAdminNetworkPolicyEgressPeer](r.peers), Ports: r.adminPorts()})
		}
		text = document("policy.networking.k8s.io/v1alpha1", w.kind, &p)
	}
	return strings.ReplaceAll(text, "- {}\n", "- {services: {}}\n")
}

var adminActions = map[v1alpha2.ClusterNetworkPolicyRuleAction]v1alpha1.AdminNetworkPolicyRuleAction{
	accept: v1alpha1.AdminNetworkPolicyRuleActionAllow, deny: v1alpha1.AdminNetworkPolicyRuleActionDeny, pass: v1alpha1.AdminNetworkPolicyRuleActionPass,
}

func (r *wideRule) adminPorts() *[]v1alpha1.AdminNetworkPolicyPort {
	var ports []v1alpha1.AdminNetworkPolicyPort
	for _, p := range r.protocols {
		var port *v1alpha2.Port
		var protocol corev1.Protocol
		switch {
		case p.TCP != nil:
			port, protocol = p.TCP.DestinationPort, corev1.ProtocolTCP
		case p.UDP != nil:
			port, protocol = p.UDP.DestinationPort, corev1.ProtocolUDP
		case p.SCTP != nil:
			port, protocol = p.SCTP.DestinationPort, corev1.ProtocolSCTP
		}
		switch {
		case port == nil:
			ports = append(ports, v1alpha1.AdminNetworkPolicyPort{NamedPort: &p.DestinationNamedPort})
		case port.Range != nil:
			ports = append(ports, v1alpha1.AdminNetworkPolicyPort{PortRange: &v1alpha1.PortRange{Protocol: protocol, Start: port.Range.Start, End: port.Range.End}})
		default:
			ports = append(ports, v1alpha1.AdminNetworkPolicyPort{PortNumber: &v1alpha1.Port{Protocol: protocol, Port: port.Number}})
		}
	}
	if ports == nil {
		return nil
	}
	return &ports
}
