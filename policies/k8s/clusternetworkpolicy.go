package k8s

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// dialect is where the cluster-wide kinds of policy differ.
type dialect struct {
	fields  []string // of the spec
	actions []action
	most    int // rules in one direction, peers and ports in one rule
	// egressPeers are the forms of a peer that traffic may go to. It comes from
	// namespaces and pods only.
	egressPeers []string
	// scoped is set where the pods of a subject or peer need a
	// namespaceSelector.
	scoped   bool
	ports    string // the field of a rule that holds its ports
	readPort func(v value, rule *policies.Rule)
}

// action is an action by the name that a dialect has for it.
type action struct {
	name string
	policies.Action
}

const (
	mostPriority = 1000
	mostName     = 100 // characters of a rule's name
	mostNetworks = 25
	mostDomains  = 25
)

var (
	allEgressPeers = []string{"namespaces", "pods", "nodes", "networks", "domainNames"}
	ingressPeers   = []string{"namespaces", "pods"}
)

var clusterDialect = &dialect{
	fields:      []string{"tier", "priority", "subject", "ingress", "egress"},
	actions:     []action{{"Accept", policies.ActionAllow}, {"Deny", policies.ActionDeny}, {"Pass", policies.ActionPass}},
	most:        25,
	egressPeers: allEgressPeers,
	ports:       "protocols",
	readPort:    readProtocol,
}

func (r *reader) readClusterNetworkPolicy(o object) {
	tier := o.field("spec").need("tier", "write Admin or Baseline")
	switch text := tier.text(); text {
	case "", "Admin":
		clusterDialect.read(r, o, AdminTier)
	case "Baseline":
		clusterDialect.read(r, o, BaselineTier)
	default:
		tier.problem("tier %q is none of Admin, Baseline", text)
		clusterDialect.read(r, o, AdminTier)
	}
}

// read reads a policy of any of the cluster-wide kinds.
func (d *dialect) read(r *reader, o object, tier string) {
	o.only(objectFields...)
	o.meta.only(metaFields...)
	if !o.field("spec").present() {
		o.problem("%s %s has no spec; it takes %s", o.ref.Kind, o.ref, strings.Join(d.fields, ", "))
		return
	}
	spec := o.field("spec")
	spec.only(d.fields...)
	policy := policies.Policy{Ref: o.ref, Tier: tier, Annotations: o.annotations(), Place: o.place()}
	if slices.Contains(d.fields, "priority") {
		priority, _ := spec.need("priority", "write a number from 0, which comes first, to 1000").integer(0, mostPriority)
		policy.Priority, policy.Order = int(priority), float64(priority)
	}
	if subject, ok := spec.need("subject", "write \"namespaces: {}\" below it for all pods").one("namespaces", "pods"); ok {
		policy.Subject = d.selected(subject)
	}
	for _, direction := range policies.Directions {
		rules := spec.field(direction.String())
		for _, v := range rules.atMost(d.most) {
			policy.Rules[direction] = append(policy.Rules[direction], d.readRule(v, direction))
		}
		policy.Governs[direction] = len(policy.Rules[direction]) > 0
	}
	r.add(o, policy)
}

// selected returns the pods that a "namespaces" or a "pods" describes.
func (d *dialect) selected(v value) policies.Match {
	match := policies.Match{Pods: selector.Everything(), Place: v.place()}
	if v.name == "namespaces" {
		match.Namespaces = v.selector()
		return match
	}
	v.only("namespaceSelector", "podSelector")
	match.Pods = v.need("podSelector", "write {} for all pods").selector()
	namespaces := v.field("namespaceSelector")
	if d.scoped {
		namespaces = v.need("namespaceSelector", "write {} for all namespaces")
	}
	match.Namespaces = namespaces.selector()
	return match
}

func (d *dialect) readRule(v value, direction policies.Direction) policies.Rule {
	peers := peersField[direction]
	v.only("name", "action", peers, d.ports)
	if !v.wants(mapping, "a mapping") {
		return policies.Rule{}
	}
	rule := policies.Rule{Name: v.field("name").text(), Action: v.readAction(d.actions), Place: v.place()}
	if utf8.RuneCountInString(rule.Name) > mostName {
		v.field("name").problem("name has more than %d characters; shorten it", mostName)
	}
	understood := true
	for _, p := range v.need(peers, "name at least one peer").atLeastOne(d.most) {
		matches, ok := d.readPeer(p, direction, rule.Action)
		rule.Peers = append(rule.Peers, matches...)
		understood = understood && ok
	}
	ports := v.field(d.ports)
	if !ports.present() {
		rule.Ports = netset.AllTraffic()
	}
	for _, p := range ports.atLeastOne(d.most) {
		d.readPort(p, &rule)
	}
	if direction == policies.Egress && len(rule.Named) > 0 && slices.ContainsFunc(rule.Peers, hasNoNames) {
		ports.problem("a named port goes with pods only, and %s holds nodes, networks or domainNames; make two rules of it", peers)
	}
	switch {
	case understood:
	case rule.Action == policies.ActionAllow:
		rule.Peers = nil
	default:
		rule.Action = policies.ActionDeny
		rule.Peers, rule.Ports, rule.Named = []policies.Match{{Anyone: true, Place: v.place()}}, netset.AllTraffic(), nil
	}
	return rule
}

// hasNoNames reports whether a match describes what gives no ports names.
func hasNoNames(m policies.Match) bool {
	return m.Block.CIDR.IsValid() || !m.Nodes.IsNothing() || len(m.Domains) > 0
}

// readAction reads the action of a rule, one of these.
func (v value) readAction(actions []action) policies.Action {
	names := make([]string, len(actions))
	for i, a := range actions {
		names[i] = a.name
	}
	field := v.need("action", "write one of "+strings.Join(names, ", "))
	text := field.text()
	for _, a := range actions {
		if a.name == text {
			return a.Action
		}
	}
	if field.present() && isText(field.node) {
		cure := "it takes " + strings.Join(names, ", ")
		if near := nearest(text, names); near != "" {
			cure = fmt.Sprintf("did you mean %q?", near)
		}
		field.problem("action %q is not known; %s", text, cure)
	}
	return policies.NoAction
}

// readPeer returns what a peer describes; false where it has a form that is not
// known, perhaps that of a newer version of the API.
func (d *dialect) readPeer(v value, direction policies.Direction, action policies.Action) ([]policies.Match, bool) {
	forms := ingressPeers
	if direction == policies.Egress {
		forms = d.egressPeers
	}
	if !v.wants(mapping, "a mapping") {
		return nil, true
	}
	if key := v.soleKey(); key.present() && !slices.Contains(forms, key.node.Value) {
		key.warnOfForm(forms, action)
		return nil, false
	}
	form, ok := v.one(forms...)
	if !ok {
		return nil, true
	}
	switch form.name {
	case "nodes":
		return []policies.Match{{Nodes: form.selector(), Place: v.place()}}, true
	case "networks":
		return form.networks(), true
	case "domainNames":
		if action == policies.ActionDeny || action == policies.ActionPass {
			form.problem("domainNames go with %s only", d.actions[0].name)
		}
		return []policies.Match{{Domains: form.domains(), Place: v.place()}}, true
	}
	match := d.selected(form)
	match.Place = v.place()
	return []policies.Match{match}, true
}

// soleKey returns the key of a mapping that has one, and a value for it.
func (v value) soleKey() (sole value) {
	n := 0
	for key, node := range pairs(v.node) {
		n++
		if key.Kind == scalar && !isNull(node) {
			sole = v.at(key, "")
		}
	}
	if n != 1 {
		return value{}
	}
	return sole
}

// warnOfForm says what becomes of a rule with a peer of this form.
func (v value) warnOfForm(known []string, action policies.Action) {
	form := v.node.Value
	effect := "denies everything"
	if action == policies.ActionAllow {
		effect = "matches nothing"
	}
	hint := ""
	if near := nearest(form, known); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	v.warn("peer field %q is not known, so the rule fails closed: it %s%s", form, effect, hint)
}

func (v value) networks() []policies.Match {
	var matches []policies.Match
	for _, item := range v.distinct(mostNetworks) {
		if cidr, ok := item.cidr(); ok {
			matches = append(matches, policies.Match{Block: netset.Block{CIDR: cidr}, InCluster: true, Place: item.place()})
		}
	}
	return matches
}

var domainName = regexp.MustCompile(`^(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?$`)

func (v value) domains() []string {
	var domains []string
	for _, item := range v.distinct(mostDomains) {
		name := item.text()
		if !domainName.MatchString(name) {
			item.problem("%q is not a domain name such as example.com or *.example.com", name)
		}
		domains = append(domains, name)
	}
	return domains
}

// readProtocol adds the ports of one item of "protocols" to the rule.
func readProtocol(v value, rule *policies.Rule) {
	one, ok := v.one("tcp", "udp", "sctp", "destinationNamedPort")
	if !ok {
		return
	}
	if one.name == "destinationNamedPort" {
		one.addNamed(rule)
		return
	}
	protocol, _ := netset.ParseProtocol(one.name)
	one.only("destinationPort")
	port, ok := one.need("destinationPort", "leave out protocols for every port").one("number", "range")
	if !ok {
		return
	}
	if port.name == "range" {
		port.only("start", "end")
		port.addRange(protocol, rule)
		return
	}
	if n, ok := port.integer(1, 65535); ok {
		rule.Ports = rule.Ports.Union(netset.PortSpan(protocol, uint16(n), uint16(n)))
	}
}

// addNamed adds a port by name, whatever its protocol, to the rule.
func (v value) addNamed(rule *policies.Rule) {
	name := v.text()
	if name == "" && isText(v.node) {
		v.problem("%s is empty; name a port", v.name)
	}
	for _, p := range netset.Transports {
		rule.Named = append(rule.Named, policies.NamedPort{Protocol: p, Name: name})
	}
}

// addRange adds the ports from start to end to the rule.
func (v value) addRange(protocol netset.Protocol, rule *policies.Rule) {
	first, ok := v.need("start", "it is the first port").integer(1, 65535)
	last, lastOK := v.need("end", "it is the last port").integer(1, 65535)
	switch {
	case !ok || !lastOK:
	case first >= last:
		v.field("end").problem("end %d is not above start %d; a single port is a number, not a range", last, first)
	default:
		rule.Ports = rule.Ports.Union(netset.PortSpan(protocol, uint16(first), uint16(last)))
	}
}

// need returns a field that must be there.
func (v value) need(name, cure string) value {
	field := v.field(name)
	if v.present() && v.node.Kind == mapping && !field.present() {
		v.problem("%s needs %s; %s", v.name, name, cure)
	}
	return field
}

// one returns the one field that is given of those of which there must be one.
func (v value) one(fields ...string) (value, bool) {
	v.only(fields...)
	if !v.wants(mapping, "a mapping") {
		return value{}, false
	}
	var given []string
	for _, name := range fields {
		if v.field(name).present() {
			given = append(given, name)
		}
	}
	unknown := 0
	for key := range pairs(v.node) {
		if !slices.Contains(fields, key.Value) {
			unknown++
		}
	}
	switch {
	case len(given) == 1:
		return v.field(given[0]), true
	case len(given) == 0 && unknown == 0:
		v.problem("%s takes one of %s, and has none", v.name, strings.Join(fields, ", "))
	case len(given) > 1:
		v.problem("%s takes one of %s, not %s together; make several of it", v.name, strings.Join(fields, ", "), strings.Join(given, " and "))
	}
	return value{}, false
}

// atMost returns the items of a list that takes so many.
func (v value) atMost(most int) []value {
	items := v.items()
	if len(items) > most {
		items[most].problem("%s takes at most %d items, found %d; make two policies or rules of it", v.name, most, len(items))
	}
	return items
}

// atLeastOne is atMost for a list that must not be empty.
func (v value) atLeastOne(most int) []value {
	if v.present() && v.node.Kind == list && len(v.node.Content) == 0 {
		v.problem("%s is empty; it takes at least one item", v.name)
	}
	return v.atMost(most)
}

// distinct is atLeastOne for a list of texts, all different.
func (v value) distinct(most int) []value {
	first := map[string]value{}
	items := v.atLeastOne(most)
	for _, item := range items {
		if earlier, given := first[item.node.Value]; given && item.node.Kind == scalar {
			item.problem("%s is given twice, first at %s; remove one", item.node.Value, earlier.place())
		}
		first[item.node.Value] = item
	}
	return items
}
