package k8s

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func (r *reader) readServiceAccount(o object) {
	r.accounts = append(r.accounts, policies.ServiceAccount{Ref: o.ref, Labels: o.meta.field("labels").labels(), Place: o.place()})
}

// dropCalicoLabels drops labels of pods that Calico overwrites with what it knows
// better: which namespace and service account a pod is of, and that it is one.
func dropCalicoLabels(pods []policies.Pod) {
	for i := range pods {
		p := &pods[i]
		for _, key := range []string{policies.CalicoNamespace, policies.CalicoServiceAccount, policies.CalicoOrchestrator} {
			if _, has := p.Labels[key]; has {
				p.Labels = maps.Clone(p.Labels)
				delete(p.Labels, key)
			}
		}
	}
}

// readNetworkSet reads a NetworkSet or a GlobalNetworkSet.
func (r *reader) readNetworkSet(o object) {
	spec := o.field("spec")
	spec.only("nets", "allowedEgressDomains")
	s := policies.NetworkSet{Ref: o.ref, Labels: o.calicoLabels(), Place: o.place()}
	if _, has := s.Labels[policies.CalicoNamespace]; has {
		o.meta.field("labels").orElse(o.meta).problem("label %s is Calico's own; remove it", policies.CalicoNamespace)
	}
	for _, item := range spec.field("nets").items() {
		if p, ok := item.net(); ok && !slices.Contains(s.Nets, p) {
			s.Nets = append(s.Nets, p)
		}
	}
	slices.SortFunc(s.Nets, netip.Prefix.Compare)
	s.Domains = spec.field("allowedEgressDomains").calicoDomains()
	r.sets = append(r.sets, s)
}

// profile is a Profile as it was read.
type profile struct {
	labels map[string]string
	rules  [2][]policies.Rule
}

// The profiles that Calico makes by itself.
const (
	allowProfile    = "projectcalico-default-allow"
	namespacePrefix = "kns." // of the profile of each namespace
	accountPrefix   = "ksa." // of that of each service account
)

func (r *reader) readProfile(o object) {
	spec := o.field("spec")
	spec.only("ingress", "egress", "labelsToApply")
	p := profile{labels: spec.field("labelsToApply").labels()}
	for _, d := range policies.Directions {
		for _, v := range spec.field(d.String()).atMost(mostCalicoRules) {
			rule := calicoRules{"", d}.read(v)
			if rule.Action == policies.ActionPass {
				rule.Action = policies.ActionDeny
			}
			p.rules[d] = append(p.rules[d], rule)
		}
		needServiceNamespace(spec.field(d.String()))
	}
	for _, prefix := range []string{namespacePrefix, accountPrefix} {
		if strings.HasPrefix(o.ref.Name, prefix) && !p.isAutomatic(prefix) {
			o.warn("Profile %s is made by Calico for its pods; other rules in it have no effect on them", o.ref.Name)
		}
	}
	r.profiles[o.ref.Name] = p
}

// isAutomatic reports whether the rules are those that Calico gives the profile
// of a namespace, which allow everything, or of a service account, none.
func (p *profile) isAutomatic(prefix string) bool {
	for _, rules := range p.rules {
		if prefix == accountPrefix && len(rules) > 0 {
			return false
		}
		if prefix == namespacePrefix && (len(rules) != 1 || !allowsAll(&rules[0])) {
			return false
		}
	}
	return true
}

func allowsAll(rule *policies.Rule) bool {
	return rule.Action == policies.ActionAllow && rule.Own == nil && rule.Unclear == "" && rule.Ports.Equal(netset.AllTraffic()) &&
		len(rule.NotNamed) == 0 && rule.NotPorts.IsEmpty() && len(rule.Peers) == 1 && rule.Peers[0].Anyone && len(rule.Peers[0].Except) == 0
}

// host is a HostEndpoint as it was read.
type host struct {
	policies.HostEndpoint
	profiles []profileName
}

// profileName is a profile by name, and where the name stands.
type profileName struct {
	name string
	at   policies.Place
}

func (r *reader) readHostEndpoint(o object) {
	spec := o.field("spec")
	spec.only("node", "interfaceName", "expectedIPs", "profiles", "ports")
	h := host{HostEndpoint: policies.HostEndpoint{Ref: o.ref, Labels: o.calicoLabels(), Place: o.place()}}
	h.Node = spec.orElse(o.value).need("node", "name the node it is of").text()
	h.Interface = spec.field("interfaceName").text()
	if h.Interface != "" && !interfaceName.MatchString(h.Interface) {
		spec.field("interfaceName").problem("interface %q is not valid: it is * or at most 15 letters, digits, '-', '_' and '.'", h.Interface)
	}
	for _, item := range spec.field("expectedIPs").items() {
		h.Addresses = appendAddress(h.Addresses, item)
	}
	if h.Interface == "" && len(h.Addresses) == 0 {
		spec.orElse(o.value).problem("HostEndpoint %s needs an interfaceName, expectedIPs or both", o.ref)
	}
	for _, item := range spec.field("profiles").items() {
		h.profiles = append(h.profiles, profileName{item.text(), item.place()})
	}
	for _, v := range spec.field("ports").items() {
		v.only("name", "protocol", "port")
		name, protocol := v.need("name", "policies call the port by it").portName(), v.need("protocol", "write TCP, UDP or SCTP")
		p, ok := protocol.calicoProtocol()
		if ok && !p.HasPorts() {
			protocol.problem("protocol %s has no ports; it is TCP, UDP or SCTP", p)
		}
		if n, isNumber := v.need("port", "it is a number").integer(1, 65535); isNumber && ok {
			h.Ports = append(h.Ports, policies.ContainerPort{Name: name, Protocol: p, Number: uint16(n)})
		}
	}
	r.hosts = append(r.hosts, h)
}

// resolveHosts returns host endpoints with the labels that their profiles
// give them. Of several profiles the first that has a label counts, and the
// endpoint's own before that.
func resolveHosts(read []host, profiles map[string]profile) []policies.HostEndpoint {
	var hosts []policies.HostEndpoint
	for _, h := range read {
		labels := map[string]string{}
		for _, p := range slices.Backward(h.profiles) {
			maps.Copy(labels, profiles[p.name].labels)
		}
		maps.Copy(labels, h.Labels)
		h.Labels = labels
		hosts = append(hosts, h.HostEndpoint)
	}
	return hosts
}

// implyNodes adds the nodes that only host endpoints mention, hosts beyond the
// cluster among them, and gives every node the addresses that those expect.
func implyNodes(nodes []policies.Node, hosts []host) []policies.Node {
	known := map[string]int{}
	for i, n := range nodes {
		known[n.Name] = i
	}
	for _, h := range hosts {
		if h.Node == "" || len(h.Addresses) == 0 {
			continue
		}
		at, ok := known[h.Node]
		if !ok {
			at = len(nodes)
			known[h.Node] = at
			nodes = append(nodes, policies.Node{Name: h.Node, Implied: true, Place: h.Place})
		}
		n := &nodes[at]
		for _, a := range h.Addresses {
			if !slices.Contains(n.Addresses, a) {
				n.Addresses = append(slices.Clip(n.Addresses), a)
			}
		}
	}
	return nodes
}

// failsafe is what Felix lets a host do, whatever policies say, unless it is
// told otherwise.
var failsafe = [...]netset.Ports{
	policies.Egress:  netset.JoinPorts(spread(netset.UDP, 53, 67), spread(netset.TCP, 179, 2379, 2380, 5473, 6443, 6666, 6667)),
	policies.Ingress: netset.JoinPorts(spread(netset.UDP, 68), spread(netset.TCP, 22, 179, 2379, 2380, 5473, 6443, 6666, 6667)),
}

func spread(p netset.Protocol, numbers ...uint16) (all netset.Ports) {
	for _, n := range numbers {
		all = all.Union(netset.PortSpan(p, n, n))
	}
	return all
}

// readFelix warns of settings that would change answers and are not followed.
func (r *reader) readFelix(v value) {
	o, ok := r.object(v, "FelixConfiguration", policies.CalicoGroup, true)
	if !ok {
		return
	}
	spec := o.field("spec")
	for _, name := range []string{"failsafeInboundHostPorts", "failsafeOutboundHostPorts"} {
		if f := spec.field(name); f.present() {
			f.warn("FelixConfiguration %s sets %s: answers about host endpoints take Felix's default ones", o.ref.Name, name)
		}
	}
	if f := spec.field("defaultEndpointToHostAction"); f.present() && !strings.EqualFold(f.text(), "Accept") {
		f.warn("FelixConfiguration %s sets defaultEndpointToHostAction to %s: answers take it for Accept, that pods reach their own node", o.ref.Name, f.text())
	}
}

// hostPolicies returns what decides about each host endpoint before any policy,
// and what decides when no policy did: its profiles. The policies stand in these
// tiers.
func (r *reader) hostPolicies(failsafeTier, profileTier string) []policy {
	var all []policy
	for _, h := range r.hosts {
		anyone := []policies.Match{{Anyone: true, Place: h.Place}}
		first := policies.Policy{
			Ref:     h.Ref,
			Tier:    failsafeTier,
			Subject: policies.Match{Object: h.Ref, Place: h.Place},
			Governs: both,
			Place:   h.Place,
		}
		last := first
		last.Tier = profileTier
		for _, d := range policies.Directions {
			first.Rules[d] = []policies.Rule{{Name: "failsafe ports", Action: policies.ActionAllow, Peers: anyone, Ports: failsafe[d], Place: h.Place}}
			for _, p := range h.profiles {
				last.Rules[d] = append(last.Rules[d], r.profileRules(p, d)...)
			}
		}
		all = append(all, policy{Policy: first}, policy{Policy: last})
	}
	return all
}

// profileRules returns the rules of a profile in one direction, with its name in
// front of theirs. One that is not there drops everything.
func (r *reader) profileRules(of profileName, d policies.Direction) []policies.Rule {
	text := of.name
	p, given := r.profiles[text]
	rule := policies.Rule{
		Name:   text,
		Action: policies.ActionAllow,
		Peers:  []policies.Match{{Anyone: true, Place: of.at}},
		Ports:  netset.AllTraffic(),
		Place:  of.at,
	}
	switch {
	case given:
		rules := slices.Clone(p.rules[d])
		for i := range rules {
			rules[i].Name = strings.TrimSuffix(text+": "+rules[i].Name, ": ")
		}
		return rules
	case text == allowProfile || strings.HasPrefix(text, namespacePrefix):
	case strings.HasPrefix(text, accountPrefix):
		return nil
	default:
		rule.Name, rule.Action = text+" (missing)", policies.ActionDeny
		r.warn(of.at, "Profile %s is not in the input: what comes to it is denied; add the Profile", text)
	}
	return []policies.Rule{rule}
}

// net reads a CIDR, or an address for the CIDR that holds it alone.
func (v value) net() (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(v.text()); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	return v.cidr()
}
