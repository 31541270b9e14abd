package k8s

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// calicoRules is whose rules are read.
type calicoRules struct {
	namespace string // of the policy; "" where it has none
	direction policies.Direction
}

var calicoActions = []action{
	{"Allow", policies.ActionAllow}, {"Deny", policies.ActionDeny}, {"Log", policies.ActionLog}, {"Pass", policies.ActionPass},
}

// calicoRule is a rule while it is read.
type calicoRule struct {
	calicoRules
	value
	policies.Rule
	protocol      netset.Protocol // 0 where it is not given
	limits        netset.Ports    // the traffic that it asks for but for ports
	family        netip.Prefix    // all addresses of the one it asks for
	families      [2]value        // the first net of IPv4 and of IPv6
	mixesFamilies bool
}

func (c calicoRules) read(v value) policies.Rule {
	v.name = "a rule"
	v.only("action", "metadata", "protocol", "notProtocol", "icmp", "notICMP", "ipVersion", "source", "destination", "http")
	if !v.wants(mapping, "a mapping") {
		return policies.Rule{}
	}
	r := calicoRule{calicoRules: c, value: v, Rule: policies.Rule{Place: v.place()}}
	meta := v.field("metadata")
	meta.only("annotations")
	if annotations := meta.field("annotations"); annotations.wants(mapping, "a mapping") {
		r.Name = annotations.field("name").text()
	}
	r.Action = v.readAction(calicoActions)
	r.readTraffic()

	own, peer := v.field("source"), v.field("destination")
	if c.direction == policies.Ingress {
		own, peer = peer, own
	}
	r.checkEntity(v.field("source"))
	r.checkEntity(v.field("destination"))
	r.Peers = []policies.Match{r.match(peer, true)}
	if who := r.match(own, false); !who.Anyone || len(who.Except) > 0 {
		r.Own = &who
	}
	r.readPorts(v.field("destination"))
	r.readSourcePorts(v.field("source"))
	r.readHTTP(v.field("http"))
	return r.Rule
}

// readTraffic reads protocols and the IP version.
func (r *calicoRule) readTraffic() {
	r.limits = netset.AllTraffic()
	protocol, not, version := r.field("protocol"), r.field("notProtocol"), r.field("ipVersion")
	if p, ok := protocol.calicoProtocol(); ok {
		r.protocol, r.limits = p, netset.EveryPort(p)
	}
	if r.protocol == 0 && r.field("http").present() {
		r.limits = netset.EveryPort(netset.TCP)
	}
	excluded, _ := not.calicoProtocol()
	if excluded != 0 {
		r.limits = r.limits.Minus(netset.EveryPort(excluded))
	}
	given, isGiven := version.integer(4, 6)
	if isGiven && given == 5 {
		version.problem("ipVersion 5 is none of 4, 6")
	}
	for _, p := range []netset.Protocol{r.protocol, excluded} {
		if (p == netset.ICMP && given == 6) || (p == netset.ICMPv6 && given == 4) {
			version.problem("%s is not of IP version %d; write \"ipVersion: %d\" or leave it out", p, given, 10-given)
		}
	}
	icmp, hasICMP := r.readICMP("icmp")
	notICMP, hasNotICMP := r.readICMP("notICMP")
	if hasICMP {
		r.limits = r.limits.Intersect(icmp)
	}
	if hasNotICMP {
		r.limits = r.limits.Minus(notICMP)
	}
	if !isGiven && (hasICMP || hasNotICMP) {
		given = map[netset.Protocol]int64{netset.ICMP: 4, netset.ICMPv6: 6}[r.protocol]
	}
	switch given {
	case 4:
		r.family = netset.AllIPv4
	case 6:
		r.family = netset.AllIPv6
	}
}

// readICMP reads types and codes; false where the rule asks for none.
func (r *calicoRule) readICMP(name string) (netset.Ports, bool) {
	v := r.field(name)
	v.only("type", "code")
	if !v.wants(mapping, "a mapping") {
		return netset.Ports{}, false
	}
	if r.protocol != netset.ICMP && r.protocol != netset.ICMPv6 {
		v.problem("%s needs \"protocol: ICMP\" or \"protocol: ICMPv6\"", name)
	}
	kind, hasKind := v.field("type").integer(0, 254)
	code, hasCode := v.field("code").integer(0, 255)
	switch {
	case v.field("code").present() && !v.field("type").present():
		v.field("code").problem("a code needs a type beside it")
	case hasCode:
		return netset.ICMPTypes(r.protocol, uint8(kind), uint8(code), uint8(code)), true
	case hasKind:
		return netset.ICMPTypes(r.protocol, uint8(kind), 0, 255), true
	}
	return netset.Ports{}, false
}

const udpLite netset.Protocol = 136

// calicoProtocol reads a protocol by name, in any case, or number.
func (v value) calicoProtocol() (netset.Protocol, bool) {
	if !v.wants(scalar, "a protocol") {
		return 0, false
	}
	text := v.node.Value
	if strings.EqualFold(text, "UDPLite") {
		return udpLite, true
	}
	if v.node.Tag != "!!int" {
		text = v.text()
	}
	p, err := netset.ParseProtocol(text)
	if err != nil || p == 0 {
		v.problem("%s %q is none of TCP, UDP, SCTP, ICMP, ICMPv6, UDPLite or a number from 1 to 255", v.name, text)
		return 0, false
	}
	return p, true
}

var entityFields = []string{
	"nets", "notNets", "selector", "notSelector", "namespaceSelector", "ports", "notPorts", "services", "serviceAccounts", "domains",
}

// checkEntity reports what does not go together in a source or destination.
func (r *calicoRule) checkEntity(v value) {
	v.only(entityFields...)
	if !v.wants(mapping, "a mapping") {
		return
	}
	isPeer := (v.name == "destination") == (r.direction == policies.Egress)
	if services := v.field("services"); services.present() {
		if !isPeer {
			services.problem("services of an %s rule stand in its %s", r.direction, map[policies.Direction]string{policies.Ingress: "source", policies.Egress: "destination"}[r.direction])
		}
		for _, other := range []string{"selector", "notSelector", "namespaceSelector", "serviceAccounts", "nets", "notNets"} {
			if f := v.field(other); isSet(f) {
				f.problem("%s does not go with services; make two rules of it", other)
			}
		}
		for _, other := range []string{"ports", "notPorts"} {
			if f := v.field(other); isSet(f) && v.name == "destination" {
				f.problem("%s does not go with the services of a destination, whose own ports count; remove it", other)
			}
		}
	}
	if domains := v.field("domains"); domains.present() {
		if r.direction != policies.Egress || v.name != "destination" || r.Action != policies.ActionAllow {
			domains.problem("domains go into the destination of an egress rule that allows")
		}
		for _, other := range []string{"nets", "selector"} {
			if f := v.field(other); isSet(f) {
				f.problem("%s does not go with domains; make two rules of it", other)
			}
		}
	}
}

// isSet reports whether a field is there and not empty.
func isSet(v value) bool { return v.present() && !isZero(v.node) }

// match returns what a source or destination describes.
func (r *calicoRule) match(v value, isPeer bool) policies.Match {
	var parts []policies.Match
	add := func(m policies.Match, given bool) {
		if given {
			m.Place = v.orElse(r.value).place()
			parts = append(parts, m)
		}
	}
	add(r.selected(v))
	add(r.service(v.field("services")))
	if domains := v.field("domains").calicoDomains(); len(domains) > 0 {
		add(policies.Match{Domains: domains}, true)
	}
	nets := r.blocks(v.field("nets"))
	switch {
	case len(nets) == 1:
		add(nets[0], true)
	case len(nets) > 1:
		add(policies.Match{Any: nets}, true)
	case isPeer && r.family.IsValid():
		add(block(r.family), true)
	}
	m := policies.Match{Anyone: true}
	switch len(parts) {
	case 0:
	case 1:
		m = parts[0]
	default:
		m = policies.Match{All: parts}
	}
	m.Place = v.orElse(r.value).place()
	m.Except = r.blocks(v.field("notNets"))
	if not, given := v.field("notSelector").endpoints(); given {
		m.Except = append(m.Except, policies.Match{
			Endpoints: true, Namespaces: selector.Everything(), Pods: not, Place: v.field("notSelector").place(),
		})
	}
	return m
}

func block(p netip.Prefix) policies.Match {
	return policies.Match{Block: netset.Block{CIDR: p}, InCluster: true}
}

// selected returns what selectors describe; false where there are none. In a
// policy with a namespace they stay within it unless there is a
// namespaceSelector, even where a notSelector is all there is.
func (r *calicoRule) selected(v value) (policies.Match, bool) {
	m := policies.Match{Endpoints: true, Namespaces: selector.Everything()}
	pods, given := v.field("selector").endpoints()
	accounts := v.field("serviceAccounts")
	accounts.only("names", "selector")
	of, selectsAccounts := accounts.field("selector").accounts()
	named := selector.Everything()
	var names []string
	for _, item := range accounts.field("names").items() {
		names = append(names, item.text())
	}
	if len(names) > 0 {
		named, selectsAccounts = selector.Where(policies.CalicoServiceAccount, selector.In, names...), true
	}
	m.Pods = selector.And(pods, of, named)
	given = given || selectsAccounts
	field := v.field("namespaceSelector")
	switch e, byNamespace := field.namespaces(&m); {
	case byNamespace:
		if e.HasGlobal() && !e.IsGlobal() {
			field.problem("global() stands alone in a namespaceSelector; make two rules of it")
		}
		return m, true
	case r.namespace != "":
		m.Namespaces = selector.Label(policies.NameLabel, r.namespace)
		return m, given || v.field("notSelector").text() != ""
	}
	return m, given
}

func (r *calicoRule) service(v value) (policies.Match, bool) {
	v.only("name", "namespace")
	if !v.wants(mapping, "a mapping") {
		return policies.Match{}, false
	}
	name := v.need("name", "say which Service").text()
	if name == "" && v.field("name").present() {
		v.field("name").problem("services needs a name; say which Service")
	}
	namespace := v.field("namespace").text()
	if namespace == "" {
		namespace = r.namespace
	}
	return policies.Match{Object: policies.Ref{Kind: "Service", Namespace: namespace, Name: name}}, true
}

// blocks reads nets or notNets.
func (r *calicoRule) blocks(v value) []policies.Match {
	var matches []policies.Match
	for _, item := range v.atMost(mostNets) {
		cidr, ok := item.net()
		if !ok {
			continue
		}
		if v.name == "notNets" && cidr.Bits() == 0 {
			item.problem("notNets %s leaves nothing of its family; remove it", cidr)
		}
		r.noteFamily(item, cidr)
		m := block(cidr)
		m.Place = item.place()
		matches = append(matches, m)
	}
	return matches
}

// noteFamily reports a net of another family than the rule or an earlier net.
func (r *calicoRule) noteFamily(item value, cidr netip.Prefix) {
	family := 0
	if cidr.Addr().Is6() {
		family = 1
	}
	if given := r.field("ipVersion"); given.present() && r.family.IsValid() && r.family.Addr().Is4() != cidr.Addr().Is4() {
		item.problem("net %s is not of ipVersion %s", cidr, given.node.Value)
		return
	}
	if r.families[family].node == nil {
		r.families[family] = item
	}
	if other := r.families[1-family]; other.node != nil && !r.mixesFamilies {
		r.mixesFamilies = true
		item.problem("net %s is of another IP version than %s at %s; make two rules of it", cidr, other.node.Value, other.place())
	}
}

// calicoDomains reads names in which "*" may stand for one or more components.
func (v value) calicoDomains() []string {
	var domains []string
	for _, item := range v.items() {
		name := item.text()
		if !domainComponents.MatchString(name) {
			item.problem("%q is not a domain name such as example.com, *.example.com or api.*.example.com", name)
		}
		domains = append(domains, name)
	}
	return domains
}

// portItem is one item of ports: a range of numbers, or a name.
type portItem struct {
	value
	first, last uint16
	name        string
}

func (v value) calicoPorts() []portItem {
	var ports []portItem
	for _, item := range v.atMost(mostPorts) {
		if p, ok := item.calicoPort(); ok {
			ports = append(ports, p)
		}
	}
	return ports
}

func (v value) calicoPort() (portItem, bool) {
	if !v.wants(scalar, "a port") {
		return portItem{}, false
	}
	text := v.node.Value
	if v.node.Tag != "!!int" {
		text = v.text()
	}
	m := calicoPortRange.FindStringSubmatch(text)
	if m == nil {
		if !calicoPortName.MatchString(text) {
			if isText(v.node) {
				v.problem("port %q is none of 80, \"8000:8100\", or a name", text)
			}
			return portItem{}, false
		}
		return portItem{value: v, name: text}, true
	}
	if m[2] == "" {
		m[2] = m[1]
	}
	first, errFirst := strconv.ParseUint(m[1], 10, 16)
	last, errLast := strconv.ParseUint(m[2], 10, 16)
	switch {
	case errFirst != nil || errLast != nil || first == 0 || last == 0:
		v.problem("port %s is not from 1 to 65535", text)
	case first > last:
		v.problem("port range %s ends before it begins; swap its ends", text)
	default:
		return portItem{value: v, first: uint16(first), last: uint16(last)}, true
	}
	return portItem{}, false
}

// checkPorts reports ports that need another protocol, or any.
func (r *calicoRule) checkPorts(ports []portItem) {
	for _, p := range ports {
		switch {
		case r.protocol == 0 && p.name == "":
			p.problem("a port by number needs a protocol; give the rule \"protocol: TCP\", UDP or SCTP")
		case r.protocol != 0 && !r.protocol.HasPorts():
			p.problem("protocol %s has no ports; ports go with TCP, UDP and SCTP", r.protocol)
		}
	}
}

// readPorts reads the ports that traffic goes to.
func (r *calicoRule) readPorts(destination value) {
	ports, not := destination.field("ports").calicoPorts(), destination.field("notPorts").calicoPorts()
	r.checkPorts(ports)
	r.checkPorts(not)
	r.Ports = r.limits
	if len(ports) > 0 {
		r.Ports = netset.Ports{}
	}
	for _, p := range ports {
		if p.name != "" {
			r.Named = append(r.Named, r.named(p.name)...)
			continue
		}
		r.Ports = r.Ports.Union(netset.PortSpan(r.protocol, p.first, p.last).Intersect(r.limits))
	}
	for _, p := range not {
		if p.name != "" {
			r.NotNamed = append(r.NotNamed, r.named(p.name)...)
			continue
		}
		r.NotPorts = r.NotPorts.Union(netset.PortSpan(r.protocol, p.first, p.last))
	}
	r.Ports = r.Ports.Minus(r.NotPorts)
	if len(r.Named) == 0 {
		r.NotPorts = netset.Ports{}
	}
}

// named returns a name of a port for each protocol that the rule is for.
func (r *calicoRule) named(name string) []policies.NamedPort {
	var all []policies.NamedPort
	for _, p := range netset.Transports {
		if !r.limits.Intersect(netset.EveryPort(p)).IsEmpty() {
			all = append(all, policies.NamedPort{Protocol: p, Name: name})
		}
	}
	return all
}

func (r *calicoRule) readSourcePorts(source value) {
	ports, not := source.field("ports").calicoPorts(), source.field("notPorts").calicoPorts()
	r.checkPorts(ports)
	r.checkPorts(not)
	isAny := func(p portItem) bool { return p.first == 1 && p.last == 65535 }
	if len(not) > 0 || len(ports) > 0 && !slices.ContainsFunc(ports, isAny) {
		var asked []string
		for _, p := range ports {
			asked = append(asked, p.node.Value)
		}
		for _, p := range not {
			asked = append(asked, "not "+p.node.Value)
		}
		r.Unclear = "it asks for source port " + strings.Join(asked, " or ")
	}
}

// readHTTP reads what a rule asks of HTTP requests. Which it lets through, no
// port tells.
func (r *calicoRule) readHTTP(v value) {
	v.only("methods", "paths", "headers")
	if !v.wants(mapping, "a mapping") {
		return
	}
	if r.Action != policies.ActionAllow || r.direction != policies.Ingress {
		v.problem("http goes into ingress rules that allow")
	}
	if r.protocol != 0 && r.protocol != netset.TCP {
		r.field("protocol").problem("http goes with TCP; write \"protocol: TCP\"")
	}
	var asked []string
	for _, m := range v.field("methods").distinct(mostHTTP) {
		asked = append(asked, m.text())
	}
	for _, p := range v.field("paths").atMost(mostHTTP) {
		path, ok := p.one("exact", "prefix")
		if text := path.text(); ok && (!strings.HasPrefix(text, "/") || strings.ContainsAny(text, "? #")) {
			path.problem("path %q is not valid: it begins with / and holds no ?, # or space", text)
		} else if path.name == "prefix" {
			asked = append(asked, text+"...")
		} else {
			asked = append(asked, text)
		}
	}
	for _, h := range v.field("headers").items() {
		asked = append(asked, "header "+h.readHeader())
	}
	if len(asked) > 0 {
		r.Unclear = "it asks for HTTP " + strings.Join(asked, ", ")
	}
}

var headerOperators = []string{"Exists", "DoesNotExist", "HasPrefix", "HasSuffix", "In", "NotIn", "MatchesRegex"}

func (v value) readHeader() string {
	v.name = "a header"
	v.only("header", "operator", "values")
	text := []string{v.need("header", "name the header it is about").text()}
	operator := v.need("operator", "it takes "+strings.Join(headerOperators, ", "))
	name := operator.text()
	if name != "" && !slices.Contains(headerOperators, name) {
		operator.problem("operator %q is none of %s", name, strings.Join(headerOperators, ", "))
	}
	text = append(text, name)
	for _, item := range v.field("values").items() {
		text = append(text, item.text())
	}
	return strings.Join(text, " ")
}

// resolveRules gives the rules that mean Services the ports of those, where they
// stand for what traffic goes to. A Service whose pods are not known may stand
// for anything.
func resolveRules(p *policies.Policy, service func(policies.Ref) *policies.Service) {
	for _, d := range policies.Directions {
		for i := range p.Rules[d] {
			rule := &p.Rules[d][i]
			for _, peer := range rule.Peers {
				s := service(serviceOf(&peer))
				switch {
				case s == nil:
				case s.External != "":
					rule.Peers = []policies.Match{{Anyone: true, Place: peer.Place}}
					rule.Unclear = fmt.Sprintf("whom Service %s stands for is not known: %s", s.Ref, s.External)
				case d == policies.Egress:
					serve(rule, s)
				}
			}
		}
	}
}

// missingServices warns of rules about Services that nobody defines.
func missingServices(m *policies.Model) []policies.Warning {
	services := servicesOf(&m.World)
	var warnings []policies.Warning
	warn := func(p *policies.Policy) {
		for _, d := range policies.Directions {
			for i := range p.Rules[d] {
				for _, peer := range p.Rules[d][i].Peers {
					if ref := serviceOf(&peer); ref != (policies.Ref{}) && services[ref] == nil {
						warnings = append(warnings, warning(peer.Place, "Service %s is not in the input, so the rule matches nothing; add the Service or correct its name", ref))
					}
				}
			}
		}
	}
	for i := range m.Policies {
		warn(&m.Policies[i])
	}
	for i := range m.Staged {
		warn(&m.Staged[i].Policy)
	}
	return warnings
}

// servicesByName are Services by their names.
type servicesByName map[policies.Ref]*policies.Service

func (s servicesByName) get(ref policies.Ref) *policies.Service { return s[ref] }

func servicesOf(w *policies.World) servicesByName {
	services := servicesByName{}
	for i := range w.Services {
		services[w.Services[i].Ref] = &w.Services[i]
	}
	return services
}

// serviceOf returns the Service that a match is about, if any.
func serviceOf(m *policies.Match) policies.Ref {
	for _, part := range m.All {
		if part.Object != (policies.Ref{}) {
			return part.Object
		}
	}
	return m.Object
}

// serve narrows a rule to the ports behind a Service.
func serve(rule *policies.Rule, s *policies.Service) {
	limits := rule.Ports
	rule.Ports, rule.Named = netset.Ports{}, nil
	for _, p := range s.Ports {
		switch {
		case limits.Intersect(netset.EveryPort(p.Protocol)).IsEmpty():
		case p.TargetName != "":
			rule.Named = append(rule.Named, policies.NamedPort{Protocol: p.Protocol, Name: p.TargetName})
		default:
			rule.Ports = rule.Ports.Union(netset.PortSpan(p.Protocol, p.Target, p.Target))
		}
	}
}
