package reach_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/weir-policy/weir/policies/netset"
)

// What Calico's objects are drawn from, beside what others are.
var (
	calicoAccountNames = []string{"default", "robot"}
	blocks4            = []string{"10.0.0.0/24", "10.0.0.0/29", "10.0.0.5/30", "10.0.0.2/32", "10.0.0.3", "172.18.0.0/16", "203.0.113.0/24", "0.0.0.0/0"}
	blocks6            = []string{"fd00::/64", "fd00::/126", "fd00::3/128", "2001:db8::/32", "::/0"}
	calicoPorts        = []any{80, 81, 443, "80:82", "81:8080", "http", "dns", "http"}
	// candidates are addresses of each part of what the blocks cut.
	candidates = [2][]string{
		{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6", "10.0.0.77", "10.7.0.1", "172.18.0.1", "172.18.0.9", "203.0.113.1", "192.0.2.1"},
		{"fd00::2", "fd00::3", "fd00::5", "fd00::77", "2001:db8::7", "fd00:18::1", "fd99::1"},
	}
)

// drawCalicoWorld draws a world in which all dialects meet. One without IPv6 has
// none at all; in all others it plays a part for certain.
func drawCalicoWorld(d dice) *calicoWorld {
	c := &calicoWorld{cluster: &cluster{}, dual: d.chance(50)}
	names := []string{"a", "b", "c"}[:d.between(1, 3)]
	for _, name := range names {
		if !d.chance(20) {
			c.namespaces = append(c.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: drawLabels(d, "team", "env")}})
		}
		for _, account := range calicoAccountNames {
			if d.chance(60) {
				c.accounts = append(c.accounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: account, Labels: drawLabels(d, "role")}})
			}
		}
	}
	for i := range d.between(0, 1) {
		c.nodes = append(c.nodes, drawNode(d, i+1))
	}
	if d.chance(20) {
		c.podCIDRs = podCIDRs[:1+number(c.dual)]
	}
	for i := range d.between(1, 4) {
		namespace := pick(d, names...)
		if d.chance(20) {
			deployment := drawDeployment(d, namespace, i)
			deployment.Spec.Template.Spec.ServiceAccountName = pick(d, "", "robot")
			if deployment.Spec.Template.Spec.HostNetwork {
				deployment.Spec.Template.Labels = nil // of no Service
			}
			c.deployments = append(c.deployments, deployment)
			continue
		}
		pod := drawPod(d, namespace, i)
		pod.Spec.ServiceAccountName = pick(d, "", "robot")
		if pod.Spec.HostNetwork {
			pod.Labels = nil
		}
		c.pods = append(c.pods, pod)
	}
	for i := range d.between(0, 2) {
		c.services = append(c.services, drawService(d, pick(d, names...), i))
	}
	c.policies = several(d, 2, func() networkingv1.NetworkPolicy { return drawPolicy(d, pick(d, names...)) })
	for i := range c.policies {
		c.policies[i].Name = fmt.Sprintf("policy-%d", i)
	}
	if d.chance(50) {
		c.wide = drawWide(d)
	}
	c.drawCalico(d, names)
	c.settleFamilies()
	return c
}

// drawOwn adds labels that others inherit to someone's own, in some cases.
func drawOwn(d dice, labels map[string]string) {
	if labels == nil || d.chance(75) {
		return
	}
	for range d.between(1, 2) {
		label := pick(d, ownLabels...)
		labels[label[0]] = pick(d, label[1:]...)
	}
}

// drawCalico draws the objects of Calico's own kinds.
func (c *calicoWorld) drawCalico(d dice, names []string) {
	for i := range c.pods {
		drawOwn(d, c.pods[i].Labels)
	}
	for i := range c.deployments {
		drawOwn(d, c.deployments[i].Spec.Template.Labels)
	}
	for i := range c.hosts {
		drawOwn(d, c.hosts[i].Labels)
	}
	for i := range c.profiles {
		drawOwn(d, c.profiles[i].Spec.LabelsToApply)
	}
	for _, name := range []string{"first", "second", "kube-admin", "default", "kube-baseline"} {
		var t calicoTier
		t.Name = name
		switch name {
		case "first", "second":
			if d.chance(20) {
				continue // a tier that is missing
			}
			t.Spec.Order = pick(d, nil, order(500), order(500), order(5_000_000))
			t.Spec.DefaultAction = pick(d, "", "Deny", "Pass")
		case "default":
			t.Spec.Order = order(1_000_000)
		case "kube-admin":
			t.Spec.Order, t.Spec.DefaultAction = order(1_000), "Pass"
		case "kube-baseline":
			t.Spec.Order, t.Spec.DefaultAction = order(10_000_000), "Pass"
		}
		if len(t.Name) < 7 || d.chance(20) {
			c.tiers = append(c.tiers, t)
		}
	}
	for i := range d.between(0, 3) {
		var s calicoSet
		s.Name, s.Namespace, s.Labels = fmt.Sprintf("set-%d", i), pick(d, append(names, "", "")...), drawLabels(d, "app", "tier")
		drawOwn(d, s.Labels)
		s.Spec.Nets = several(d, 2, func() string { return c.drawNet(d, c.dual && d.chance(30)) })
		c.sets = append(c.sets, s)
	}
	for i := range d.between(1, 5) {
		c.calico = append(c.calico, c.drawCalicoPolicy(d, names, i))
	}
}

func order(o float64) *float64 { return &o }

// drawStaged draws staged policies, most of them for policies that are there.
func (c *calicoWorld) drawStaged(d dice) {
	for i, p := range c.calico {
		if !p.isEnforced() || d.chance(50) {
			continue
		}
		s := c.drawCalicoPolicy(d, []string{p.Namespace}, i)
		for s.Namespace != p.Namespace {
			s = c.drawCalicoPolicy(d, []string{p.Namespace}, i)
		}
		s.kind, s.Name = "Staged"+p.kind, p.Name
		if d.chance(30) {
			s.Spec = calicoSpec{StagedAction: "Delete", Tier: p.Spec.Tier}
		}
		c.calico = append(c.calico, s)
	}
	for _, p := range c.policies {
		if d.chance(50) {
			continue
		}
		s := stagedNP{ObjectMeta: p.ObjectMeta}
		if d.chance(30) {
			s.Spec.StagedAction = "Delete"
		} else if p := drawPolicy(d, p.Namespace); c.dual || !speaksOfIPv6(document("", "", &p)) {
			s.Spec.NetworkPolicySpec = p.Spec
		}
		c.staged = append(c.staged, s)
	}
}

// drawNamedPoint draws traffic to a port that some pod gives a name.
func (c *calicoWorld) drawNamedPoint(d dice) point {
	var all []point
	for _, p := range c.parties() {
		if p.spec == nil {
			continue
		}
		for _, port := range p.spec.Containers[0].Ports {
			if protocol, err := netset.ParseProtocol(string(port.Protocol)); err == nil && port.Name != "" {
				all = append(all, point{protocol, uint16(port.ContainerPort)})
			}
		}
	}
	return pick(d, append(all, point{netset.UDP, 81})...)
}

// settleFamilies takes out all that speaks of IPv6, or makes sure that something
// does.
func (c *calicoWorld) settleFamilies() {
	if c.dual {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-6"}}
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "fd00:18::6"}}
		c.nodes = append(c.nodes, node)
		return
	}
	for i := range c.nodes {
		c.nodes[i].Status.Addresses = slices.DeleteFunc(c.nodes[i].Status.Addresses, func(a corev1.NodeAddress) bool { return speaksOfIPv6(a.Address) })
	}
	for i := range c.pods {
		s := &c.pods[i].Status
		s.PodIPs = slices.DeleteFunc(s.PodIPs, func(a corev1.PodIP) bool { return speaksOfIPv6(a.IP) })
	}
	c.policies = slices.DeleteFunc(c.policies, func(p networkingv1.NetworkPolicy) bool { return speaksOfIPv6(document("", "", &p)) })
	c.wide = slices.DeleteFunc(c.wide, func(w widePolicy) bool { return speaksOfIPv6(w.document()) })
}

func speaksOfIPv6(text string) bool { return strings.Contains(text, "::") }

func drawService(d dice, namespace string, i int) corev1.Service {
	s := corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("svc-%d", i)}}
	s.Spec.Selector = map[string]string{pick(d, "app", "tier"): pick(d, "x", "y")}
	for i := range d.between(1, 2) {
		port := corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Protocol: pick(d, protocols...), Port: pick[int32](d, 80, 443)}
		port.TargetPort = pick(d, intstr.IntOrString{}, intstr.FromInt32(81), intstr.FromString("http"))
		s.Spec.Ports = append(s.Spec.Ports, port)
	}
	return s
}

func (c *calicoWorld) drawNet(d dice, v6 bool) string {
	if v6 {
		return pick(d, blocks6...)
	}
	return pick(d, blocks4...)
}

func (c *calicoWorld) drawCalicoPolicy(d dice, names []string, i int) calicoPolicy {
	p := calicoPolicy{kind: pick(d, "GlobalNetworkPolicy", "NetworkPolicy")}
	if p.kind == "NetworkPolicy" {
		p.Namespace = pick(d, names...)
	}
	if d.chance(15) {
		p.kind = "Staged" + p.kind
	}
	// Names of both sides of those that other dialects use.
	p.Name = fmt.Sprintf("%s-%d", pick(d, "a", "z"), i)
	s := &p.Spec
	s.Tier = pick(d, "", "", "default", "first", "first", "second", "second", "kube-admin", "kube-baseline")
	s.Order = pick(d, nil, order(10), order(10), order(10.5), order(1000), order(2))
	s.Selector = pick(d, "", drawExpression(d, endpointLabels))
	if p.Namespace == "" && d.chance(30) {
		s.NamespaceSelector = pick(d, "all()", drawExpression(d, namespaceLabels))
	}
	if d.chance(20) {
		s.ServiceAccountSelector = drawExpression(d, accountLabels)
	}
	s.Types = pick(d, nil, nil, []string{"Ingress"}, []string{"Egress"}, []string{"Ingress", "Egress"})
	s.Ingress = several(d, 3, func() calicoRule { return c.drawCalicoRule(d, p.Namespace, names, true) })
	s.Egress = several(d, 3, func() calicoRule { return c.drawCalicoRule(d, p.Namespace, names, false) })
	return p
}

func (c *calicoWorld) drawCalicoRule(d dice, namespace string, names []string, ingress bool) calicoRule {
	r := calicoRule{Action: pick(d, "Allow", "Allow", "Deny", "Deny", "Pass", "Log")}
	v6 := c.dual && d.chance(30)
	if d.chance(10) {
		r.IPVersion = 4 + 2*number(v6)
	}
	if d.chance(50) {
		r.Protocol = pick[any](d, "TCP", "TCP", "UDP", "tcp", "SCTP", 6, 17, 47, "UDPLite", "ICMP")
	}
	if d.chance(10) {
		r.NotProtocol = pick[any](d, "UDP", 6, "ICMP", 132)
	}
	if d.chance(10) {
		r.Protocol, r.NotProtocol, r.IPVersion = "ICMP", nil, 0
		if v6 {
			r.Protocol = "ICMPv6"
		}
		icmp := &calicoICMP{Type: pick(d, 0, 8, 128)}
		if d.chance(40) {
			icmp.Code = pick(d, new(int), intPointer(1))
		}
		if d.chance(70) {
			r.ICMP = icmp
		} else {
			r.NotICMP = icmp
		}
	}
	if r.Protocol == "ICMP" || r.NotProtocol == "ICMP" {
		r.IPVersion = 0
	}
	if r.Action == "Allow" && ingress && d.chance(3) {
		r.HTTP = &calicoHTTP{Methods: []string{"GET"}}
		r.Protocol, r.NotProtocol, r.ICMP, r.NotICMP = pick[any](d, "TCP", nil), nil, nil, nil
	}
	r.Source, r.Destination = c.drawEntity(d, namespace, names, v6, ingress), c.drawEntity(d, namespace, names, v6, !ingress)
	c.drawEntityPorts(d, &r)
	return r
}

func intPointer(i int) *int { return &i }

// drawEntity draws one end of a rule: mostly something where it is the other
// end, mostly nothing where it is the policy's own.
func (c *calicoWorld) drawEntity(d dice, namespace string, names []string, v6, other bool) *calicoEntity {
	e := &calicoEntity{}
	if !other && d.chance(85) {
		return e
	}
	if other && d.chance(10) && len(c.services) > 0 {
		s := pick(d, c.services...)
		e.Services = &calicoService{Name: s.Name, Namespace: s.Namespace}
		if namespace == s.Namespace && d.chance(50) {
			e.Services.Namespace = ""
		}
		return e
	}
	busy := pick(d, 1, 1, 1, 2)
	if d.chance(35 * busy) {
		e.Selector = drawExpression(d, endpointLabels)
	}
	if d.chance(30 * busy) {
		e.NamespaceSelector = pick(d, "all()", "global()", ofName+" == '"+pick(d, names...)+"'", drawExpression(d, namespaceLabels), drawExpression(d, namespaceLabels))
	}
	if d.chance(15 * busy) {
		e.NotSelector = drawExpression(d, endpointLabels)
	}
	if d.chance(15 * busy) {
		e.ServiceAccounts = &calicoAccounts{}
		if d.chance(50) {
			e.ServiceAccounts.Names = pick(d, []string{"robot"}, []string{"robot", "default"}, []string{"default"})
		} else {
			e.ServiceAccounts.Selector = drawExpression(d, accountLabels)
		}
	}
	if d.chance(25 * busy) {
		e.Nets = append(several(d, 1, func() string { return c.drawNet(d, v6) }), c.drawNet(d, v6))
	}
	if d.chance(15 * busy) {
		if net := c.drawNet(d, v6); !strings.HasSuffix(net, "/0") {
			e.NotNets = []string{net}
		}
	}
	return e
}

// drawEntityPorts draws ports where the rule's protocol takes them.
func (c *calicoWorld) drawEntityPorts(d dice, r *calicoRule) {
	numeric := r.Protocol == "TCP" || r.Protocol == "tcp" || r.Protocol == "UDP" || r.Protocol == "SCTP" || r.Protocol == 6 || r.Protocol == 17
	if r.Protocol != nil && !numeric {
		return
	}
	draw := func() []any {
		ports := several(d, 2, func() any { return pick(d, calicoPorts...) })
		if !numeric {
			ports = slices.DeleteFunc(ports, func(p any) bool { return p != "http" && p != "dns" })
		}
		return ports
	}
	if r.Destination.Services == nil && d.chance(40) {
		r.Destination.Ports = draw()
	}
	if r.Destination.Services == nil && d.chance(20) {
		r.Destination.NotPorts = draw()
	}
	if numeric && d.chance(3) {
		r.Source.Ports = []any{1000}
	}
	if numeric && d.chance(2) {
		r.Source.NotPorts = []any{1000}
	}
}

// The labels that selectors of one place use, each with values.
var (
	endpointLabels = [][]string{
		{"app", "x", "y"},
		{"tier", "x", "y"},
		{"app", "x", "y"},
		{"tier", "x", "y"},
		{ofNamespace, "a", "b"},
		{ofAccount, "default", "robot"},
		{ofOrchestrator, "k8s", "x"},
		{"pcns.team", "x", "y"},
		{"pcsa.role", "x", "y"},
	}
	namespaceLabels = [][]string{{"team", "x", "y"}, {"env", "x", "y"}, {ofName, "a", "b"}, {"kubernetes.io/metadata.name", "a", "b"}}
	accountLabels   = [][]string{{"role", "x", "y"}, {ofName, "robot", "default"}}
	ownLabels       = [][]string{
		{"pcns.team", "x", "y", "z"},
		{"pcns.team", "x", "y", "z"},
		{"pcns.env", "x", "y"},
		{"pcns." + ofName, "a", "b"},
		{"pcns.kubernetes.io/metadata.name", "a", "b"},
		{"pcsa.role", "x", "y", "z"},
		{"pcsa." + ofName, "robot", "default"},
	}
)

// drawExpression draws a selector in Calico's language.
func drawExpression(d dice, labels [][]string) string {
	switch d.between(0, 9) {
	case 7:
		return "!(" + drawExpression(d, labels) + ")"
	case 8:
		return drawTerm(d, labels) + " && " + drawTerm(d, labels)
	case 9:
		return "(" + drawTerm(d, labels) + " || " + drawExpression(d, labels) + ")"
	}
	return drawTerm(d, labels)
}

func drawTerm(d dice, labels [][]string) string {
	label := pick(d, labels...)
	key, value := label[0], pick(d, label[1:]...)
	return pick(d,
		fmt.Sprintf("%s == '%s'", key, value), fmt.Sprintf("%s != '%s'", key, value), fmt.Sprintf(`%s in {%q, 'z'}`, key, value),
		fmt.Sprintf("%s not in {'%s'}", key, value), "has("+key+")", "!has("+key+")", "all()",
		fmt.Sprintf("%s contains '%s'", key, value[:1]), fmt.Sprintf("%s starts with '%s'", key, value[:1]), fmt.Sprintf("%s ends with '%s'", key, value[len(value)-1:]))
}

// documents are the objects as YAML, each document by itself.
func (c *calicoWorld) documents() []string {
	const v3, crd = "projectcalico.org/v3", "crd.projectcalico.org/v1"
	all := c.cluster.documents()
	for i := range c.accounts {
		all = append(all, document("v1", "ServiceAccount", &c.accounts[i]))
	}
	for i := range c.services {
		all = append(all, document("v1", "Service", &c.services[i]))
	}
	for i := range c.tiers {
		all = append(all, document(v3, "Tier", &c.tiers[i]))
	}
	for i := range c.calico {
		all = append(all, document([...]string{v3, v3, v3, crd}[i%4], c.calico[i].kind, &c.calico[i]))
	}
	for i := range c.staged {
		text := document(v3, "StagedKubernetesNetworkPolicy", &c.staged[i])
		if c.staged[i].Spec.StagedAction == "Delete" {
			text = strings.Replace(text, "    podSelector: {}\n", "", 1)
		}
		all = append(all, text)
	}
	for i := range c.sets {
		kind := "NetworkSet"
		if c.sets[i].Namespace == "" {
			kind = "GlobalNetworkSet"
		}
		all = append(all, document(v3, kind, &c.sets[i]))
	}
	for i := range c.hosts {
		all = append(all, document(v3, "HostEndpoint", &c.hosts[i]))
	}
	for i := range c.profiles {
		all = append(all, document(v3, "Profile", &c.profiles[i]))
	}
	return all
}

func (c *calicoWorld) String() string { return strings.Join(c.documents(), "---\n") }

// completed returns the world as it may be in truth, all of it known, with the
// two ends of a connection there. What no world tells, a source port for
// instance, stays open.
func (c *calicoWorld) completed(r *rand.Rand, from, to *party) (*calicoWorld, *party, *party) {
	w := *c
	inner := *c.cluster
	w.cluster = &inner
	w.namespaces, w.accounts = slices.Clone(c.namespaces), slices.Clone(c.accounts)
	guess := func(keys ...string) map[string]string {
		labels := map[string]string{}
		for _, key := range keys {
			if value := []string{"", "x", "y", "z"}[r.IntN(4)]; value != "" {
				labels[key] = value
			}
		}
		return labels
	}
	for _, name := range []string{"a", "b", "c"} {
		if !slices.ContainsFunc(w.namespaces, func(n corev1.Namespace) bool { return n.Name == name }) {
			w.namespaces = append(w.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: guess("team", "env")}})
		}
		for _, account := range calicoAccountNames {
			if !slices.ContainsFunc(w.accounts, func(a corev1.ServiceAccount) bool { return a.Namespace == name && a.Name == account }) {
				w.accounts = append(w.accounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: account, Labels: guess("role")}})
			}
		}
	}
	one, other := *from, *to
	for _, p := range []*party{&one, &other} {
		if len(p.addresses) == 0 {
			p.addresses = c.guessAddresses(r, p)
		}
		if p.spec != nil && p.spec.NodeName == "" {
			spec := *p.spec
			spec.NodeName = []string{"node-1", "node-2", "node-3"}[r.IntN(3)]
			p.spec = &spec
		}
	}
	return &w, &one, &other
}

func (c *calicoWorld) guessAddresses(r *rand.Rand, p *party) []netip.Addr {
	var addresses []netip.Addr
	for i, texts := range candidates {
		way := c.has(p, i == 1)
		if way == 0 || i == 1 && !c.dual || way == 1 && r.IntN(2) == 0 {
			continue
		}
		fits := slices.DeleteFunc(slices.Clone(texts), func(text string) bool {
			if len(c.podCIDRs) == 0 || p.onHost() {
				return false
			}
			return !slices.ContainsFunc(c.podCIDRs, func(range_ netip.Prefix) bool { return range_.Contains(netip.MustParseAddr(text)) })
		})
		addresses = append(addresses, netip.MustParseAddr(fits[r.IntN(len(fits))]))
	}
	return addresses
}

// drawHostWorld draws a world whose nodes have host endpoints. Of some pods it is
// not known on which node they run.
func drawHostWorld(d dice) *calicoWorld {
	c := &calicoWorld{cluster: &cluster{}}
	names := []string{"a", "b"}
	for _, name := range names {
		c.namespaces = append(c.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: drawLabels(d, "team")}})
		for _, account := range calicoAccountNames {
			c.accounts = append(c.accounts, corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: account, Labels: drawLabels(d, "role")}})
		}
	}
	for i := range 2 {
		node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", i+1)}}
		address := fmt.Sprintf("172.18.0.%d", i+1)
		node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}}
		if d.chance(30) {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: fmt.Sprintf("203.0.113.%d", i+1)})
		}
		c.nodes = append(c.nodes, node)
		if i == 0 || d.chance(50) {
			var h calicoHost
			h.Name, h.Labels, h.Spec.Node, h.Spec.InterfaceName = node.Name, drawLabels(d, "app", "tier"), node.Name, "*"
			if d.chance(50) {
				h.Spec.ExpectedIPs = []string{address}
				h.Spec.InterfaceName = pick(d, "*", "eth0", "")
			}
			if d.chance(10) {
				h.Spec.ExpectedIPs, h.Spec.InterfaceName = pick(d, nil, []string{"172.18.1.1"}), "eth0"
			}
			h.Spec.Profiles = pick(d, nil, []string{"projectcalico-default-allow"}, []string{"lend"}, []string{"lend", "projectcalico-default-allow"}, []string{"gone", "lend"})
			c.hosts = append(c.hosts, h)
			if d.chance(40) {
				h.Name, h.Labels = node.Name+"-more", drawLabels(d, "app", "tier")
				h.Spec.ExpectedIPs = pick(d, nil, []string{fmt.Sprintf("203.0.113.%d", i+1)}, []string{address}, []string{"172.18.1.1", address})
				h.Spec.InterfaceName = pick(d, "eth1", "eth2", "*")
				if len(h.Spec.ExpectedIPs) > 0 {
					h.Spec.InterfaceName = pick(d, "eth1", "", "*")
				}
				c.hosts = append(c.hosts, h)
			}
		}
	}
	c.expectAddresses()
	for i := range d.between(1, 3) {
		pod := corev1.Pod{ObjectMeta: drawMeta(d, pick(d, names...), i)}
		pod.Spec.NodeName, pod.Spec.HostNetwork = pick(d, "node-1", "node-2", "node-2", ""), d.chance(15)
		pod.Spec.Containers = []corev1.Container{{Name: "main", Ports: drawContainerPorts(d)}}
		pod.Status.Phase, pod.Status.PodIPs = corev1.PodRunning, []corev1.PodIP{{IP: fmt.Sprintf("10.0.0.%d", i+1)}}
		if pod.Spec.HostNetwork {
			pod.Labels, pod.Status = nil, corev1.PodStatus{} // its address is the node's
			pod.Spec.NodeName = pick(d, "node-1", "node-2")
		}
		c.pods = append(c.pods, pod)
	}
	var lend calicoProfile
	lend.Name, lend.Spec.LabelsToApply = "lend", drawLabels(d, "app")
	lend.Spec.Ingress = several(d, 2, func() calicoRule { return c.drawCalicoRule(d, "", names, true) })
	lend.Spec.Egress = several(d, 2, func() calicoRule { return c.drawCalicoRule(d, "", names, false) })
	c.profiles = append(c.profiles, lend)
	c.drawCalico(d, names)
	for i := range c.calico {
		if p := &c.calico[i]; p.Namespace == "" {
			p.drawHook(d)
		}
	}
	return c
}

// drawHook makes a global policy one of host endpoints, in many cases.
func (p *calicoPolicy) drawHook(d dice) {
	s := &p.Spec
	switch form := d.between(0, 9); {
	case form >= 8:
		s.DoNotTrack, s.ApplyOnForward = true, true
	case form >= 6:
		s.PreDNAT, s.ApplyOnForward, s.Egress, s.Types = true, true, nil, []string{"Ingress"}
	case form >= 3:
		s.ApplyOnForward = true
	}
}

// expectAddresses makes the addresses that host endpoints expect those of their
// nodes.
func (c *calicoWorld) expectAddresses() {
	c.expected = map[string][]netip.Addr{}
	for _, h := range c.hosts {
		for _, text := range h.Spec.ExpectedIPs {
			c.expected[h.Spec.Node] = append(c.expected[h.Spec.Node], netip.MustParseAddr(text))
		}
	}
}
