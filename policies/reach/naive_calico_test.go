package reach_test

import (
	"cmp"
	"math"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha2"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// calicoWorld is a cluster whose policies, of whatever dialect, Calico enforces,
// and what they mean then: one packet at a time, rule by rule.
type calicoWorld struct {
	*cluster
	dual     bool // IPv6 plays a part
	accounts []corev1.ServiceAccount
	services []corev1.Service
	tiers    []calicoTier
	calico   []calicoPolicy
	staged   []stagedNP
	sets     []calicoSet
	hosts    []calicoHost
	profiles []calicoProfile
}

// The kinds of Calico as its API writes them down.
type (
	calicoTier struct {
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Order         *float64 `json:"order,omitempty"`
			DefaultAction string   `json:"defaultAction,omitempty"`
		} `json:"spec"`
	}
	calicoPolicy struct {
		kind              string
		metav1.ObjectMeta `json:"metadata"`
		Spec              calicoSpec `json:"spec"`
	}
	stagedNP struct { // a StagedKubernetesNetworkPolicy
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			StagedAction                   string `json:"stagedAction,omitempty"`
			networkingv1.NetworkPolicySpec `json:",inline"`
		} `json:"spec"`
	}
	calicoSpec struct {
		StagedAction           string       `json:"stagedAction,omitempty"`
		Tier                   string       `json:"tier,omitempty"`
		Order                  *float64     `json:"order,omitempty"`
		Selector               string       `json:"selector,omitempty"`
		NamespaceSelector      string       `json:"namespaceSelector,omitempty"`
		ServiceAccountSelector string       `json:"serviceAccountSelector,omitempty"`
		Types                  []string     `json:"types,omitempty"`
		DoNotTrack             bool         `json:"doNotTrack,omitempty"`
		PreDNAT                bool         `json:"preDNAT,omitempty"`
		ApplyOnForward         bool         `json:"applyOnForward,omitempty"`
		Ingress                []calicoRule `json:"ingress,omitempty"`
		Egress                 []calicoRule `json:"egress,omitempty"`
	}
	calicoRule struct {
		Action      string        `json:"action"`
		IPVersion   int           `json:"ipVersion,omitempty"`
		Protocol    any           `json:"protocol,omitempty"`
		NotProtocol any           `json:"notProtocol,omitempty"`
		ICMP        *calicoICMP   `json:"icmp,omitempty"`
		NotICMP     *calicoICMP   `json:"notICMP,omitempty"`
		HTTP        *calicoHTTP   `json:"http,omitempty"`
		Source      *calicoEntity `json:"source,omitempty"`
		Destination *calicoEntity `json:"destination,omitempty"`
	}
	calicoICMP struct {
		Type int  `json:"type"`
		Code *int `json:"code,omitempty"`
	}
	calicoHTTP struct {
		Methods []string `json:"methods,omitempty"`
	}
	calicoEntity struct {
		Nets              []string        `json:"nets,omitempty"`
		NotNets           []string        `json:"notNets,omitempty"`
		Selector          string          `json:"selector,omitempty"`
		NotSelector       string          `json:"notSelector,omitempty"`
		NamespaceSelector string          `json:"namespaceSelector,omitempty"`
		Services          *calicoService  `json:"services,omitempty"`
		ServiceAccounts   *calicoAccounts `json:"serviceAccounts,omitempty"`
		Ports             []any           `json:"ports,omitempty"`
		NotPorts          []any           `json:"notPorts,omitempty"`
	}
	calicoService struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace,omitempty"`
	}
	calicoAccounts struct {
		Names    []string `json:"names,omitempty"`
		Selector string   `json:"selector,omitempty"`
	}
	calicoSet struct { // a NetworkSet, or where it has no namespace a GlobalNetworkSet
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Nets []string `json:"nets,omitempty"`
		} `json:"spec"`
	}
	calicoHost struct {
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			Node          string   `json:"node"`
			InterfaceName string   `json:"interfaceName,omitempty"`
			ExpectedIPs   []string `json:"expectedIPs,omitempty"`
			Profiles      []string `json:"profiles,omitempty"`
		} `json:"spec"`
	}
	calicoProfile struct {
		metav1.ObjectMeta `json:"metadata"`
		Spec              struct {
			LabelsToApply map[string]string `json:"labelsToApply,omitempty"`
			Ingress       []calicoRule      `json:"ingress,omitempty"`
			Egress        []calicoRule      `json:"egress,omitempty"`
		} `json:"spec"`
	}
)

// The labels that things go by in Calico's selectors besides their own.
const (
	ofNamespace    = "projectcalico.org/namespace"
	ofAccount      = "projectcalico.org/serviceaccount"
	ofOrchestrator = "projectcalico.org/orchestrator"
	ofName         = "projectcalico.org/name"
)

// labelled looks up a label; whether there is one may not be known.
type labelled func(key string) (value string, has policies.Truth)

func plain(labels map[string]string) labelled {
	return func(key string) (string, policies.Truth) {
		value, has := labels[key]
		return value, truthOf(has)
	}
}

// labelsOfPod gives what Calico knows of a pod first, then the pod's own labels,
// then those that it has of its namespace and service account.
func (c *calicoWorld) labelsOfPod(p *party) labelled {
	return func(key string) (string, policies.Truth) {
		account := cmp.Or(p.spec.ServiceAccountName, "default")
		switch key {
		case ofNamespace:
			return p.ref.Namespace, policies.Yes
		case ofAccount:
			return account, policies.Yes
		case ofOrchestrator:
			return "k8s", policies.Yes
		}
		if value, has := p.labels[key]; has {
			return value, policies.Yes
		}
		if name, ok := strings.CutPrefix(key, "pcsa."); ok {
			return c.accountLabel(p.ref.Namespace, account, name)
		}
		return c.namespaceLabel(p.ref.Namespace, key)
	}
}

func (c *calicoWorld) accountLabel(namespace, account, key string) (string, policies.Truth) {
	if key == ofName {
		return account, policies.Yes
	}
	for i := range c.accounts {
		if a := &c.accounts[i]; a.Namespace == namespace && a.Name == account {
			return plain(a.Labels)(key)
		}
	}
	return "", policies.Maybe
}

func (c *calicoWorld) namespaceLabel(namespace, prefixed string) (string, policies.Truth) {
	key, ok := strings.CutPrefix(prefixed, "pcns.")
	switch {
	case !ok:
		return "", policies.No
	case key == ofName || key == corev1.LabelMetadataName:
		return namespace, policies.Yes
	}
	for i := range c.namespaces {
		if c.namespaces[i].Name == namespace {
			return plain(c.namespaces[i].Labels)(key)
		}
	}
	return "", policies.Maybe
}

func (c *calicoWorld) labelsOfSet(s *calicoSet) labelled {
	return func(key string) (string, policies.Truth) {
		if value, has := s.Labels[key]; has || s.Namespace == "" {
			return value, truthOf(has)
		}
		if key == ofNamespace {
			return s.Namespace, policies.Yes
		}
		return c.namespaceLabel(s.Namespace, key)
	}
}

func (c *calicoWorld) labelsOfHost(h *calicoHost) labelled {
	return func(key string) (string, policies.Truth) {
		if value, has := h.Labels[key]; has {
			return value, policies.Yes
		}
		for _, name := range h.Spec.Profiles {
			for i := range c.profiles {
				if value, has := c.profiles[i].Spec.LabelsToApply[key]; has && c.profiles[i].Name == name {
					return value, policies.Yes
				}
			}
		}
		return "", policies.No
	}
}

// expression reads a selector by the grammar of the specification.
type expression struct {
	rest   []string
	prefix string // of every label
	of     labelled
}

var words = regexp.MustCompile(`"[^"]*"|'[^']*'|has\(|all\(|global\(|starts with|ends with|not in|[A-Za-z0-9_./-]+|==|!=|&&|\|\||[!(){},]`)

// evaluate says whether a selector, with a prefix before every label in it,
// describes what goes by these labels.
func evaluate(text, prefix string, of labelled) policies.Truth {
	if strings.TrimSpace(text) == "" {
		return policies.Yes
	}
	x := expression{wordsOf(text), prefix, of}
	return x.or()
}

var readBefore = map[string][]string{}

func wordsOf(text string) []string {
	if _, ok := readBefore[text]; !ok {
		readBefore[text] = words.FindAllString(text, -1)
	}
	return readBefore[text]
}

func (x *expression) take() string {
	word := x.rest[0]
	x.rest = x.rest[1:]
	return word
}

func (x *expression) takes(word string) bool {
	if len(x.rest) == 0 || x.rest[0] != word {
		return false
	}
	x.take()
	return true
}

func (x *expression) or() policies.Truth {
	t := x.and()
	for x.takes("||") {
		t = t.Or(x.and())
	}
	return t
}

func (x *expression) and() policies.Truth {
	t := x.unary()
	for x.takes("&&") {
		t = t.And(x.unary())
	}
	return t
}

func not(t policies.Truth) policies.Truth { return policies.Yes - t }

func (x *expression) unary() policies.Truth {
	switch {
	case x.takes("!"):
		return not(x.unary())
	case x.takes("("):
		t := x.or()
		x.take()
		return t
	case x.takes("all("):
		x.take()
		return x.inNamespace(policies.Yes)
	case x.takes("global("):
		x.take()
		return not(x.inNamespace(policies.No))
	case x.takes("has("):
		_, has := x.of(x.prefix + x.take())
		x.take()
		return has
	}
	value, has := x.of(x.prefix + x.take())
	holds := func(is bool) policies.Truth {
		if has == policies.Yes {
			return truthOf(is)
		}
		return has
	}
	switch operator := x.take(); operator {
	case "==":
		return holds(value == x.text())
	case "!=":
		return not(holds(value == x.text()))
	case "contains":
		return holds(strings.Contains(value, x.text()))
	case "starts with", "startswith":
		return holds(strings.HasPrefix(value, x.text()))
	case "ends with", "endswith":
		return holds(strings.HasSuffix(value, x.text()))
	case "in":
		return holds(x.set(value))
	default:
		return not(holds(x.set(value)))
	}
}

// inNamespace is what all() and global() look at in a namespaceSelector: whether
// there is a namespace. Elsewhere they look at nothing.
func (x *expression) inNamespace(elsewhere policies.Truth) policies.Truth {
	if x.prefix != "pcns." {
		return elsewhere
	}
	_, has := x.of(ofNamespace)
	return has
}

func (x *expression) text() string {
	word := x.take()
	return word[1 : len(word)-1]
}

func (x *expression) set(value string) bool {
	found := false
	for x.take(); !x.takes("}"); x.takes(",") {
		found = x.text() == value || found
	}
	return found
}

// describes is the selector of a rule's source or destination, as far as it says
// whom the rule is for.
func (e *calicoEntity) describes(namespace string, of labelled) policies.Truth {
	t := policies.Yes
	switch {
	case e.NamespaceSelector != "":
		t = evaluate(e.NamespaceSelector, "pcns.", of)
	case namespace != "" && (e.Selector != "" || e.NotSelector != "" || e.ServiceAccounts != nil):
		t = evaluate(ofNamespace+" == '"+namespace+"'", "", of)
	}
	if e.Selector != "" {
		t = t.And(evaluate(e.Selector, "", of))
	}
	if a := e.ServiceAccounts; a != nil {
		t = t.And(evaluate(a.Selector, "pcsa.", of))
		if len(a.Names) > 0 {
			t = t.And(evaluate(ofAccount+" in {'"+strings.Join(a.Names, "','")+"'}", "", of))
		}
	}
	return t
}

// selective reports whether the entity describes anything by labels.
func (e *calicoEntity) selective() bool {
	return e.Selector != "" || e.NotSelector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil
}

// owned reports whether the party's address is one of something that is described:
// of a pod, of a network set, or of a host endpoint that tells its addresses.
func (c *calicoWorld) owned(p *party, v6 bool, described func(labelled) policies.Truth) policies.Truth {
	found := policies.No
	if p.isPod() {
		found = described(c.labelsOfPod(p))
	}
	for i := range c.sets {
		if t := described(c.labelsOfSet(&c.sets[i])); t != policies.No {
			found = found.Or(t.And(c.within(c.sets[i].Spec.Nets, p, v6)))
		}
	}
	for i := range c.hosts {
		if t := described(c.labelsOfHost(&c.hosts[i])); t != policies.No {
			found = found.Or(t.And(c.within(c.hosts[i].Spec.ExpectedIPs, p, v6)))
		}
	}
	return found
}

// within reports whether the party's address is in some of the ranges.
func (c *calicoWorld) within(nets []string, p *party, v6 bool) policies.Truth {
	found := policies.No
	for _, text := range nets {
		if a, err := netip.ParseAddr(text); err == nil {
			text = netip.PrefixFrom(a, a.BitLen()).String()
		}
		found = found.Or(c.holds(&networkingv1.IPBlock{CIDR: text}, p, v6))
	}
	return found
}

// isEntity reports whether a party is who a rule is for.
func (c *calicoWorld) isEntity(e *calicoEntity, namespace string, p *party, m *matter) policies.Truth {
	if e == nil {
		return policies.Yes
	}
	t := c.onPorts(e, p, m)
	if len(e.Nets) > 0 {
		t = t.And(c.within(e.Nets, p, m.v6))
	}
	t = t.And(not(c.within(e.NotNets, p, m.v6)))
	if e.Services != nil {
		t = t.And(truthOf(c.isBehind(e.Services, namespace, p, m)))
	}
	if t == policies.No {
		return t
	}
	if e.selective() && (e.Selector != "" || e.NamespaceSelector != "" || e.ServiceAccounts != nil || namespace != "") {
		t = t.And(c.owned(p, m.v6, func(of labelled) policies.Truth { return e.describes(namespace, of) }))
	}
	if e.NotSelector != "" {
		t = t.And(not(c.owned(p, m.v6, func(of labelled) policies.Truth { return evaluate(e.NotSelector, "", of) })))
	}
	return t
}

// onPorts reports whether the packet's port at this end is one that an entity
// means. Nobody asks about source ports, so those may be any.
func (c *calicoWorld) onPorts(e *calicoEntity, p *party, m *matter) policies.Truth {
	t := policies.Yes
	atSource := p != m.destination()
	if len(e.Ports) > 0 {
		t = truthOf(anyPort(e.Ports, p, m))
		if atSource {
			t = policies.Maybe
		}
	}
	if len(e.NotPorts) > 0 {
		if atSource {
			return t.And(policies.Maybe)
		}
		t = t.And(truthOf(!anyPort(e.NotPorts, p, m)))
	}
	return t
}

func anyPort(ports []any, p *party, m *matter) bool {
	return slices.ContainsFunc(ports, func(item any) bool {
		switch item := item.(type) {
		case int:
			return item == int(m.port)
		case float64:
			return item == float64(m.port)
		case string:
			if first, last, ok := strings.Cut(item, ":"); ok {
				return atoi(first) <= int(m.port) && int(m.port) <= atoi(last)
			}
			return p.isPod() && names(p.spec, item, corev1.Protocol(m.protocol.String()), m.port)
		}
		panic(item)
	})
}

func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}

// isBehind reports whether the party is a pod of a Service and, as a
// destination, whether the packet goes to a port that the Service leads to.
func (c *calicoWorld) isBehind(s *calicoService, namespace string, p *party, m *matter) bool {
	for i := range c.services {
		service := &c.services[i]
		if service.Name != s.Name || service.Namespace != cmp.Or(s.Namespace, namespace) {
			continue
		}
		if !p.isPod() || p.ref.Namespace != service.Namespace || !matches(&metav1.LabelSelector{MatchLabels: service.Spec.Selector}, p.labels) {
			return false
		}
		return p != m.destination() || slices.ContainsFunc(service.Spec.Ports, func(port corev1.ServicePort) bool {
			if string(port.Protocol) != m.protocol.String() {
				return false
			}
			if port.TargetPort.StrVal != "" {
				return names(p.spec, port.TargetPort.StrVal, port.Protocol, m.port)
			}
			return cmp.Or(port.TargetPort.IntVal, port.Port) == int32(m.port)
		})
	}
	return false
}

func (m *matter) source() *party {
	if m.d == policies.Ingress {
		return m.other
	}
	return m.subject
}

// hitsCalico reports whether a rule of a policy of the namespace, "" for a global
// one, matches.
func (c *calicoWorld) hitsCalico(r *calicoRule, namespace string, m *matter) policies.Truth {
	if r.Protocol != nil && !isProtocol(r.Protocol, m.protocol) ||
		r.NotProtocol != nil && isProtocol(r.NotProtocol, m.protocol) {
		return policies.No
	}
	if r.ICMP != nil && !r.ICMP.is(m.port) || r.NotICMP != nil && r.NotICMP.is(m.port) {
		return policies.No
	}
	t := c.isOfFamily(r.family(), m).And(c.isEntity(r.Source, namespace, m.source(), m))
	if t != policies.No {
		t = t.And(c.isEntity(r.Destination, namespace, m.destination(), m))
	}
	if r.HTTP != nil {
		t = t.And(truthOf(m.protocol == netset.TCP)).And(policies.Maybe)
	}
	return t
}

// family is the IP version that a rule asks for, 0 for none.
func (r *calicoRule) family() int {
	switch {
	case r.IPVersion != 0 || r.ICMP == nil && r.NotICMP == nil:
		return r.IPVersion
	case isProtocol(r.Protocol, netset.ICMPv6):
		return 6
	}
	return 4
}

// isOfFamily takes an IP version for a range that holds all of its addresses.
func (c *calicoWorld) isOfFamily(version int, m *matter) policies.Truth {
	switch version {
	case 4:
		return c.within([]string{"0.0.0.0/0"}, m.other, m.v6)
	case 6:
		return c.within([]string{"::/0"}, m.other, m.v6)
	}
	return policies.Yes
}

func (i *calicoICMP) is(port uint16) bool {
	return i.Type == int(port>>8) && (i.Code == nil || *i.Code == int(port&255))
}

func isProtocol(name any, p netset.Protocol) bool {
	switch name := name.(type) {
	case int:
		return name == int(p)
	case float64:
		return name == float64(p)
	case string:
		if strings.EqualFold(name, "UDPLite") {
			return p == 136
		}
		return strings.EqualFold(name, p.String()) || name == strconv.Itoa(int(p))
	}
	return false
}

// stage is a tier with the policies in it that may select a subject.
type stage struct {
	name     string
	order    float64
	missing  bool
	passes   bool // what no rule matches
	policies []stagePolicy
}

type stagePolicy struct {
	order   float64
	tie     string
	selects policies.Truth
	rules   []stageRule
}

type stageRule struct {
	action string
	hits   policies.Truth
}

// orderOf is an order, of which none is the last.
func orderOf(o *float64) float64 {
	if o == nil {
		return math.Inf(1)
	}
	return *o
}

// types returns the directions that a policy concerns.
func (s *calicoSpec) types() []string {
	switch {
	case len(s.Types) > 0:
		return s.Types
	case len(s.Egress) == 0:
		return []string{"Ingress"}
	case len(s.Ingress) == 0:
		return []string{"Egress"}
	}
	return []string{"Ingress", "Egress"}
}

func (s *calicoSpec) rules(d policies.Direction) []calicoRule {
	return [...][]calicoRule{s.Egress, s.Ingress}[d]
}

// selectsCalico reports whether a policy applies to what goes by these labels.
func (p *calicoPolicy) selectsCalico(of labelled) policies.Truth {
	s := &p.Spec
	t := evaluate(s.Selector, "", of)
	if p.Namespace != "" {
		t = t.And(evaluate(ofNamespace+" == '"+p.Namespace+"'", "", of))
	}
	t = t.And(evaluate(s.NamespaceSelector, "pcns.", of))
	return t.And(evaluate(s.ServiceAccountSelector, "pcsa.", of))
}

// isEnforced reports whether the policy is not staged.
func (p *calicoPolicy) isEnforced() bool { return !strings.HasPrefix(p.kind, "Staged") }

// enforcing returns the world once some of its staged policies are enforced: each
// in the place of the policy of its name, or as one more; or gone with that one.
func (c *calicoWorld) enforcing(wanted map[policies.Ref]bool) *calicoWorld {
	w := *c
	inner := *c.cluster
	w.cluster, w.calico, w.policies = &inner, nil, slices.Clone(c.policies)
	enforced := map[policies.Ref]bool{}
	for _, p := range c.calico {
		kind, staged := strings.CutPrefix(p.kind, "Staged")
		if !staged || !wanted[p.ref()] {
			continue
		}
		enforced[policies.Ref{Kind: kind, Namespace: p.Namespace, Name: p.Name}] = true
		if p.Spec.StagedAction != "Delete" {
			p.kind = kind
			w.calico = append(w.calico, p)
		}
	}
	for _, p := range c.calico {
		if !wanted[p.ref()] && !enforced[policies.Ref{Kind: p.kind, Namespace: p.Namespace, Name: p.Name}] {
			w.calico = append(w.calico, p)
		}
	}
	for _, s := range c.staged {
		if !wanted[s.ref()] {
			continue
		}
		w.policies = slices.DeleteFunc(w.policies, func(p networkingv1.NetworkPolicy) bool { return p.Namespace == s.Namespace && p.Name == s.Name })
		if s.Spec.StagedAction != "Delete" {
			w.policies = append(w.policies, networkingv1.NetworkPolicy{ObjectMeta: s.ObjectMeta, Spec: s.Spec.NetworkPolicySpec})
		}
	}
	return &w
}

func (p *calicoPolicy) ref() policies.Ref {
	return policies.Ref{Group: policies.CalicoGroup, Kind: p.kind, Namespace: p.Namespace, Name: p.Name}
}

func (s *stagedNP) ref() policies.Ref {
	return policies.Ref{Group: policies.CalicoGroup, Kind: "StagedKubernetesNetworkPolicy", Namespace: s.Namespace, Name: s.Name}
}

// stages returns the tiers with those of Calico's policies that are wanted and may
// select what goes by these labels, in the order of evaluation. For a pod those
// of Kubernetes are among them.
func (c *calicoWorld) stages(m *matter, of labelled, wanted func(*calicoSpec) bool) []*stage {
	all := map[string]*stage{
		"kube-admin":    {name: "kube-admin", order: 1_000, passes: true},
		"default":       {name: "default", order: 1_000_000},
		"kube-baseline": {name: "kube-baseline", order: 10_000_000, passes: true},
	}
	for i := range c.tiers {
		t := &c.tiers[i]
		all[t.Name] = &stage{name: t.Name, order: orderOf(t.Spec.Order), passes: t.Spec.DefaultAction == "Pass"}
	}
	add := func(tier string, p stagePolicy) {
		if all[tier] == nil {
			all[tier] = &stage{name: tier, order: math.Inf(1), missing: true}
		}
		if p.selects != policies.No {
			all[tier].policies = append(all[tier].policies, p)
		}
	}
	for i := range c.calico {
		p := &c.calico[i]
		if !p.isEnforced() || !wanted(&p.Spec) || !slices.Contains(p.Spec.types(), [...]string{"Egress", "Ingress"}[m.d]) {
			continue
		}
		s := stagePolicy{orderOf(p.Spec.Order), p.Name + "/" + p.Namespace + "/" + p.kind, p.selectsCalico(of), nil}
		if s.selects != policies.No {
			s.rules = c.hitsAmong(p.Spec.rules(m.d), p.Namespace, m)
		}
		add(cmp.Or(p.Spec.Tier, "default"), s)
	}
	if m.subject.isPod() {
		c.addKubernetes(m, add)
	}
	order := make([]*stage, 0, len(all))
	for _, s := range all {
		slices.SortFunc(s.policies, func(p, q stagePolicy) int {
			return cmp.Or(cmp.Compare(p.order, q.order), strings.Compare(p.tie, q.tie))
		})
		order = append(order, s)
	}
	slices.SortFunc(order, func(s, t *stage) int {
		return cmp.Or(number(s.missing)-number(t.missing), cmp.Compare(s.order, t.order), strings.Compare(s.name, t.name))
	})
	return order
}

func (c *calicoWorld) hitsAmong(rules []calicoRule, namespace string, m *matter) []stageRule {
	var all []stageRule
	for i := range rules {
		all = append(all, stageRule{rules[i].Action, c.hitsCalico(&rules[i], namespace, m)})
	}
	return all
}

// addKubernetes adds the policies of Kubernetes as Calico takes them over.
func (c *calicoWorld) addKubernetes(m *matter, add func(string, stagePolicy)) {
	for i := range c.policies {
		np := &c.policies[i]
		if np.Namespace != m.subject.ref.Namespace || !governs(np, m.d) || !matches(&np.Spec.PodSelector, m.subject.labels) {
			continue
		}
		p := stagePolicy{1000, np.Name + "/" + np.Namespace + "/NetworkPolicy", policies.Yes, nil}
		for _, r := range rulesOf(np, m.d) {
			if onPort(r.ports, m.destination(), m.protocol, m.port) {
				p.rules = append(p.rules, stageRule{"Allow", c.fromPeers(np, r.peers, m.other, m.v6)})
			}
		}
		add("default", p)
	}
	for i := range c.wide {
		w := &c.wide[i]
		if len(w.rules(m.d)) == 0 {
			continue
		}
		p := stagePolicy{float64(w.Spec.Priority), w.Name + "//" + w.kind, c.subjectOf(w, m.subject), nil}
		for _, r := range w.rules(m.d) {
			action := string(r.action)
			switch {
			case r.action == accept:
				action = "Allow"
			case slices.ContainsFunc(r.peers, func(p v1alpha2.ClusterNetworkPolicyEgressPeer) bool { return isBlank(&p) }):
				action = "Deny"
			}
			p.rules = append(p.rules, stageRule{action, c.hits(&r, m)})
		}
		add(map[v1alpha2.Tier]string{v1alpha2.AdminTier: "kube-admin", v1alpha2.BaselineTier: "kube-baseline"}[w.Spec.Tier], p)
	}
}

// through says what may become of a packet that goes through the stages, and
// whether it may come out behind the last of them.
func through(stages []*stage) (fate fates, out bool) {
	for _, s := range stages {
		// Whether the packet is still on its way: where no policy has selected the
		// subject yet, and where one has.
		unselected, selected, passes := true, false, false
		for _, p := range s.policies {
			open := unselected || selected
			for i := 0; i < len(p.rules) && open; i++ {
				r := p.rules[i]
				switch {
				case r.hits == policies.No || r.action == "Log":
					continue
				case r.action == "Allow":
					fate.allow = true
				case r.action == "Deny":
					fate.deny = true
				default:
					passes = true
				}
				open = r.hits != policies.Yes
			}
			if p.selects == policies.Yes {
				unselected, selected = false, false
			}
			selected = selected || open
		}
		passes = passes || unselected || selected && s.passes
		fate.deny = fate.deny || selected && !s.passes
		if !passes {
			return fate, false
		}
	}
	return fate, true
}

// fateOf says what may become of a packet at one of its ends.
func (c *calicoWorld) fateOf(m *matter) fates {
	if !m.subject.isPod() {
		return c.fateAtHost(m, (*calicoSpec).isNormal, false)
	}
	fate, out := through(c.stages(m, c.labelsOfPod(m.subject), func(s *calicoSpec) bool { return s.isNormal() }))
	if out {
		fate.allow = true // by the profile of the namespace
	}
	if m.d == policies.Ingress && m.other.onHost() {
		switch here, there := m.subject.nodeName(), m.other.nodeName(); {
		case here == "" || there == "":
			fate.allow = true
		case here == there:
			return fates{allow: true}
		}
	}
	forwarded := c.fateAtHost(m, func(s *calicoSpec) bool { return s.isNormal() && s.ApplyOnForward }, true)
	return fates{fate.allow && forwarded.allow, fate.deny || forwarded.deny}
}

func (s *calicoSpec) isNormal() bool { return !s.DoNotTrack && !s.PreDNAT }

// fateAtHost says what may become of a packet at the host endpoints of the
// subject's node: the host's own, or one that it forwards for a pod. Within a node
// a packet comes to no host endpoint.
func (c *calicoWorld) fateAtHost(m *matter, normal func(*calicoSpec) bool, forwarded bool) (fate fates) {
	if m.subject.isOutside() {
		return fates{allow: true}
	}
	at := m.subject.nodeName()
	fate.allow = at == "" || !m.other.isOutside() && (m.other.nodeName() == "" || m.other.nodeName() == at)
	if fate.allow && at != "" && m.other.nodeName() == at {
		return fate
	}
	if at == "" {
		for i := range c.hosts {
			fate = fate.or(c.fateAtEndpoint(&c.hosts[i], m, normal, forwarded))
		}
		fate.allow = true
		return fate
	}
	// What a host forwards may take any of its interfaces; its own traffic takes
	// that of the address.
	addresses := c.nodeAddresses(at)
	if !forwarded && len(m.subject.addresses) > 0 {
		addresses = slices.DeleteFunc(slices.Clone(m.subject.addresses), func(a netip.Addr) bool { return a.Is6() != m.v6 })
	}
	if len(addresses) == 0 {
		addresses = []netip.Addr{{}}
	}
	for _, a := range addresses {
		guards, open := c.guardsOf(at, a)
		for _, h := range guards {
			fate = fate.or(c.fateAtEndpoint(h, m, normal, forwarded))
		}
		fate.allow = fate.allow || open
	}
	return fate
}

// guardsOf returns the host endpoints that may be those of the interface with an
// address of a node, and whether there may be none. A host endpoint is of the
// interface that it names, or else of the one that has an address it expects; what
// those of all interfaces guard is the rest. An address is on the interface of the
// host endpoint that expects it. Where one without a name does, that may be one for
// which another has the name but no address. One that nobody expects may be anywhere.
func (c *calicoWorld) guardsOf(node string, a netip.Addr) (guards []*calicoHost, open bool) {
	var all, wild []*calicoHost
	for i := range c.hosts {
		switch h := &c.hosts[i]; {
		case h.Spec.Node != node:
		case h.Spec.InterfaceName == "*":
			wild = append(wild, h)
		default:
			all = append(all, h)
		}
	}
	among := func(hosts []*calicoHost, is func(*calicoHost) bool) (some []*calicoHost) {
		for _, h := range hosts {
			if is(h) {
				some = append(some, h)
			}
		}
		return some
	}
	expects := func(h *calicoHost) bool { return slices.Contains(h.Spec.ExpectedIPs, a.String()) }
	expecting, silent := among(all, expects), among(all, func(h *calicoHost) bool { return len(h.Spec.ExpectedIPs) == 0 })
	switch {
	case slices.ContainsFunc(expecting, func(h *calicoHost) bool { return h.Spec.InterfaceName != "" }):
		return expecting, false
	case len(expecting) > 0:
		return slices.Concat(expecting, silent), false
	case slices.ContainsFunc(wild, expects):
		return slices.Concat(silent, wild), false
	}
	return slices.Concat(all, wild), len(wild) == 0
}

func (c *calicoWorld) fateAtEndpoint(h *calicoHost, m *matter, normal func(*calicoSpec) bool, forwarded bool) fates {
	of := c.labelsOfHost(h)
	if !forwarded && isFailsafe(m) {
		return fates{allow: true}
	}
	var fate fates
	for _, special := range []func(*calicoSpec) bool{
		func(s *calicoSpec) bool { return s.DoNotTrack },
		func(s *calicoSpec) bool { return s.PreDNAT },
	} {
		stages := c.stages(m, of, special)
		for _, s := range stages {
			s.passes = true
		}
		f, out := through(stages)
		if fate = fate.or(f); !out {
			return fate
		}
	}
	f, out := through(c.stages(m, of, normal))
	switch fate = fate.or(f); {
	case out && forwarded:
		fate.allow = true
	case out:
		fate = fate.or(c.byProfiles(h, m))
	}
	return fate
}

// byProfiles says what the profiles of a host endpoint make of a packet.
func (c *calicoWorld) byProfiles(h *calicoHost, m *matter) fates {
	p := stagePolicy{selects: policies.Yes}
	for _, name := range h.Spec.Profiles {
		at := slices.IndexFunc(c.profiles, func(p calicoProfile) bool { return p.Name == name })
		switch {
		case name == "projectcalico-default-allow":
			p.rules = append(p.rules, stageRule{"Allow", policies.Yes})
		case at < 0:
			p.rules = append(p.rules, stageRule{"Deny", policies.Yes})
		default:
			p.rules = append(p.rules, c.hitsAmong([][]calicoRule{c.profiles[at].Spec.Egress, c.profiles[at].Spec.Ingress}[m.d], "", m)...)
		}
	}
	for i := range p.rules {
		if p.rules[i].action == "Pass" {
			p.rules[i].action = "Deny"
		}
	}
	fate, _ := through([]*stage{{policies: []stagePolicy{p}}})
	return fate
}

// isFailsafe reports whether the packet is of those that no host endpoint keeps
// out, unless it is configured otherwise.
func isFailsafe(m *matter) bool {
	ports := []uint16{179, 2379, 2380, 5473, 6443, 6666, 6667}
	switch {
	case m.d == policies.Ingress && m.protocol == netset.TCP:
		return m.port == 22 || slices.Contains(ports, m.port)
	case m.protocol == netset.TCP:
		return slices.Contains(ports, m.port)
	case m.d == policies.Ingress:
		return m.protocol == netset.UDP && m.port == 68
	}
	return m.protocol == netset.UDP && (m.port == 53 || m.port == 67)
}

// decide decides one connection.
func (c *calicoWorld) decide(from, to *party, q point) policies.Verdict {
	if from.isSame(to) && from.replicas <= 1 {
		return policies.Allow
	}
	return c.decideBetween(from, to, q)
}

// decideBetween decides one connection of two pods that are not the same one.
func (c *calicoWorld) decideBetween(from, to *party, q point) policies.Verdict {
	if from == to {
		twin := *to
		to = &twin
	}
	return c.overFamilies(from, to, c.dual, func(from, to *party, v6 bool) policies.Verdict {
		egress := c.fateOf(&matter{policies.Egress, from, to, v6, q})
		ingress := c.fateOf(&matter{policies.Ingress, to, from, v6, q})
		switch {
		case !egress.allow || !ingress.allow:
			return policies.Deny
		case !egress.deny && !ingress.deny:
			return policies.Allow
		}
		return policies.Unknown
	})
}
