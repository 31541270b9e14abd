package k8s

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// A misspelt field of a policy would silently change what it means, so its
// fields are known and no others are taken.
var (
	objectFields = []string{"apiVersion", "kind", "metadata", "spec", "status"}
	metaFields   = []string{
		"name", "namespace", "labels", "annotations", "generateName", "uid", "resourceVersion", "generation",
		"creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "ownerReferences", "finalizers",
		"managedFields", "selfLink", "clusterName",
	}
	networkPolicyFields = []string{"podSelector", "policyTypes", "ingress", "egress"}
	peersField          = [...]string{policies.Egress: "to", policies.Ingress: "from"}
)

func (r *reader) readNetworkPolicy(o object) { r.add(o, networkPolicy(o, networkPolicyFields...)) }

// networkPolicy reads a NetworkPolicy of Kubernetes, enforced or staged, whose
// spec has these fields.
func networkPolicy(o object, fields ...string) policies.Policy {
	o.only(objectFields...)
	o.meta.only(metaFields...)
	spec := o.field("spec")
	if !spec.present() {
		o.warn("%s %s has no spec: it denies all ingress to every pod of namespace %s", o.ref.Kind, o.ref, o.ref.Namespace)
	}
	spec.only(fields...)

	namespace := selector.Label(policies.NameLabel, o.ref.Namespace)
	subject := spec.field("podSelector")
	policy := policies.Policy{
		Ref:  o.ref,
		Tier: Tier,
		Subject: policies.Match{
			Namespaces: namespace,
			Pods:       subject.selector(),
			Place:      subject.orElse(o.value).place(),
		},
		Governs:     governs(spec),
		Annotations: o.annotations(),
		Place:       o.place(),
	}
	for _, d := range policies.Directions {
		var rules []policies.Rule
		for _, rule := range spec.field(d.String()).items() {
			rules = append(rules, readRule(rule, peersField[d], namespace))
		}
		if policy.Governs[d] {
			policy.Rules[d] = rules
		}
	}
	return policy
}

// governs reads policyTypes. Absent or empty, it stands for ingress, and for
// egress too where the policy has egress rules.
func governs(spec value) (governs [2]bool) {
	field := spec.field("policyTypes")
	types := field.items()
	if len(types) > len(policies.Directions) {
		field.problem("policyTypes takes Ingress and Egress once each")
	}
	for _, t := range types {
		switch text := t.text(); text {
		case "Ingress":
			governs[policies.Ingress] = true
		case "Egress":
			governs[policies.Egress] = true
		case "":
		default:
			t.problem("policy type %q is none of Ingress, Egress", text)
		}
	}
	if len(types) > 0 {
		return governs
	}
	governs[policies.Ingress] = true
	if egress := spec.field("egress"); egress.present() {
		governs[policies.Egress] = len(egress.node.Content) > 0
		if !governs[policies.Egress] {
			egress.warn("an empty egress section without policyTypes denies nothing; add \"policyTypes: [Ingress, Egress]\" if it should")
		}
	}
	return governs
}

func readRule(v value, peers string, namespace selector.Selector) policies.Rule {
	v.only(peers, "ports")
	if !v.wants(mapping, "a mapping") {
		return policies.Rule{}
	}
	rule := policies.Rule{Action: policies.ActionAllow, Place: v.place()}
	for _, p := range v.field(peers).items() {
		rule.Peers = append(rule.Peers, readPeer(p, namespace))
	}
	if len(rule.Peers) == 0 {
		rule.Peers = []policies.Match{{Anyone: true, Place: v.place()}}
	}
	ports := v.field("ports").items()
	if len(ports) == 0 {
		rule.Ports = netset.AllTraffic()
	}
	for _, p := range ports {
		readPort(p, &rule)
	}
	return rule
}

func readPeer(v value, namespace selector.Selector) policies.Match {
	v.only("podSelector", "namespaceSelector", "ipBlock")
	if !v.wants(mapping, "a mapping") {
		return policies.Match{}
	}
	pods, namespaces, block := v.field("podSelector"), v.field("namespaceSelector"), v.field("ipBlock")
	match := policies.Match{Place: v.place()}
	switch {
	case block.present():
		if pods.present() || namespaces.present() {
			v.problem("a peer takes an ipBlock or selectors, not both; make two peers of it")
		}
		match.Block = block.block()
		return match
	case !pods.present() && !namespaces.present():
		v.problem("a peer needs a podSelector, a namespaceSelector or an ipBlock; write \"podSelector: {}\" for all pods of the namespace")
		return match
	}
	match.Namespaces, match.Pods = namespace, selector.Everything()
	if namespaces.present() {
		match.Namespaces = namespaces.selector()
	}
	if pods.present() {
		match.Pods = pods.selector()
	}
	return match
}

// readPort adds the ports of one item to the rule.
func readPort(v value, rule *policies.Rule) {
	v.only("port", "protocol", "endPort")
	if !v.wants(mapping, "a mapping") {
		return
	}
	protocol := v.field("protocol").protocol()
	port, end := v.field("port"), v.field("endPort")
	switch {
	case !port.present():
		if end.present() {
			end.problem("endPort needs a port, the first of the range")
		}
		rule.Ports = rule.Ports.Union(netset.EveryPort(protocol))
	case port.isText():
		if end.present() {
			end.problem("endPort needs a port that is a number, not a name")
		}
		if name := port.portName(); name != "" {
			rule.Named = append(rule.Named, policies.NamedPort{Protocol: protocol, Name: name})
		}
	default:
		first, ok := port.integer(1, 65535)
		last := first
		if end.present() {
			var lastOK bool
			last, lastOK = end.integer(1, 65535)
			ok = ok && lastOK
		}
		if ok && last < first {
			end.problem("endPort %d is below port %d; swap them", last, first)
		}
		if ok {
			rule.Ports = rule.Ports.Union(netset.PortSpan(protocol, uint16(first), uint16(last)))
		}
	}
}

// portName returns the name of a port; "" when it was reported.
func (v value) portName() string {
	name := v.text()
	switch {
	case !v.present() || v.node.Kind != scalar || !isText(v.node):
		return ""
	case name != "" && strings.Trim(name, "0123456789") == "":
		v.problem("port %q is text; write %s without quotes", name, name)
	case !isPortName(name):
		v.problem("port name %q is not valid: it wants at most 15 lower-case letters, digits and single '-' between them, at least one of them a letter", name)
	default:
		return name
	}
	return ""
}

// isPortName reports whether the name has the form that RFC 6335 gives to the
// names of services.
func isPortName(name string) bool {
	letters := strings.Trim(name, "0123456789-") != ""
	return letters && len(name) <= 15 && strings.Trim(name, "-") == name && !strings.Contains(name, "--") &&
		strings.IndexFunc(name, func(c rune) bool { return c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') }) < 0
}

// selector reads a label selector; absent, it is the empty one, which matches
// everything.
func (v value) selector() selector.Selector {
	v.only("matchLabels", "matchExpressions")
	var all []selector.Requirement
	for key, value := range v.field("matchLabels").labels() {
		all = append(all, selector.Requirement{Key: key, Operator: selector.In, Values: []string{value}})
	}
	for _, e := range v.field("matchExpressions").items() {
		all = append(all, e.requirement()...)
	}
	// Each requirement was found good by itself.
	s, _ := selector.New(all)
	return s
}

// requirement returns the one requirement, or none when it was reported.
func (v value) requirement() []selector.Requirement {
	v.only("key", "operator", "values")
	key, operator := v.field("key"), v.field("operator")
	r := selector.Requirement{Operator: selector.Operator(operator.text())}
	if !key.present() {
		v.problem("a requirement without key; name the label it is about")
	} else if r.Key = key.labelKey(); r.Key == "" && isText(key.node) {
		key.problem("key is empty; name the label the requirement is about")
	}
	for _, item := range v.field("values").items() {
		r.Values = append(r.Values, item.labelValue())
	}
	if _, err := selector.New([]selector.Requirement{r}); err != nil {
		operator.orElse(v).problem("%s", err)
		return nil
	}
	return []selector.Requirement{r}
}

func (v value) block() netset.Block {
	v.only("cidr", "except")
	cidr := v.field("cidr")
	if v.node.Kind == mapping && !cidr.present() {
		v.problem("an ipBlock needs a cidr, such as 10.0.0.0/8")
	}
	whole, ok := cidr.cidr()
	block := netset.Block{CIDR: whole}
	for _, item := range v.field("except").items() {
		part, partOK := item.cidr()
		if ok && partOK && (part.Bits() <= whole.Bits() || !whole.Contains(part.Addr())) {
			item.problem("except %s is not a part of the ipBlock's cidr %s; remove it or widen the cidr", part, whole)
		}
		if partOK {
			block.Except = append(block.Except, part)
		}
	}
	slices.SortFunc(block.Except, netip.Prefix.Compare)
	return block
}

// cidr returns an address range. Host bits are dropped with a warning, as the
// API server does.
func (v value) cidr() (netip.Prefix, bool) {
	text := v.text()
	if !v.present() || v.node.Kind != scalar || !isText(v.node) {
		return netip.Prefix{}, false
	}
	if a, err := netip.ParseAddr(text); err == nil {
		v.problem("%q is an address, not a CIDR; write %s", text, netip.PrefixFrom(a, a.BitLen()))
		return netip.Prefix{}, false
	}
	p, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		v.problem("%q is not a CIDR; write one such as 10.0.0.0/8 or 2001:db8::/32", text)
		return netip.Prefix{}, false
	case p.Addr().Is4In6():
		v.problem("CIDR %s is an IPv4 range in IPv6 form; write it as IPv4", text)
		return netip.Prefix{}, false
	case p != p.Masked():
		v.warn("CIDR %s has bits set behind its prefix; it means %s", text, p.Masked())
	}
	return p.Masked(), true
}
