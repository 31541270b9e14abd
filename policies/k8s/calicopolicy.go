package k8s

import (
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// policy is a policy as it was read, with what its place in the model depends
// on.
type policy struct {
	policies.Policy
	origin  *object // that it was read from; nil in an Entry
	hook    policies.Hook
	staged  policies.Ref // the staged object, zero for what is enforced
	deletes bool
	label   int // its priority in a Store, where Calico decides
}

// isZero reports whether a node is what the API takes for nothing.
func isZero(n *yaml.Node) bool {
	switch n.Kind {
	case scalar:
		return isNull(n) || n.Value == "" || n.Tag == "!!bool" && strings.EqualFold(n.Value, "false")
	case mapping, list:
		return len(n.Content) == 0
	}
	return false
}

// add adds a policy of a kind that is not Calico's, read from an object.
func (r *reader) add(o object, p policies.Policy) {
	r.policies = append(r.policies, policy{Policy: p, origin: &o})
}

var (
	policyFields = []string{"tier", "order", "selector", "types", "ingress", "egress", "serviceAccountSelector", "performanceHints"}
	globalFields = append(slices.Clone(policyFields), "doNotTrack", "preDNAT", "applyOnForward", "namespaceSelector")
)

// readCalicoPolicy reads a NetworkPolicy or GlobalNetworkPolicy of Calico,
// enforced or staged.
func (r *reader) readCalicoPolicy(o object) {
	p := policy{Policy: policies.Policy{Ref: o.ref, Annotations: o.annotations(), Place: o.place()}, origin: &o}
	spec, fields := o.field("spec"), policyFields
	if o.ref.Namespace == "" {
		fields = globalFields
	}
	if kind, isStaged := strings.CutPrefix(o.ref.Kind, "Staged"); isStaged {
		p.staged, p.Ref.Kind = o.ref, kind
		fields = append(slices.Clone(fields), "stagedAction")
	}
	spec.only(fields...)
	p.Tier = spec.field("tier").text()
	if p.Tier == "" {
		p.Tier = Tier
	}
	checkTierName(spec.field("tier"), p.Tier)
	r.checkName(o, p.Tier)
	if !r.takeStaged(o, &p, "tier", "stagedAction") {
		return
	}
	if !spec.present() && p.staged == (policies.Ref{}) {
		o.warn("%s %s has no spec: it denies all ingress to everything in its scope", p.Ref.What(), o.ref)
	}
	p.Order = spec.field("order").order()
	p.Governs = calicoTypes(spec)
	for _, hint := range spec.field("performanceHints").distinct(1) {
		if text := hint.text(); text != "AssumeNeededOnEveryNode" {
			hint.problem("performance hint %q is not known; it takes AssumeNeededOnEveryNode", text)
		}
	}
	p.Subject = subject(spec, o)
	for _, d := range policies.Directions {
		var rules []policies.Rule
		for _, v := range spec.field(d.String()).atMost(mostCalicoRules) {
			rules = append(rules, calicoRules{o.ref.Namespace, d}.read(v))
		}
		if p.Governs[d] {
			p.Rules[d] = rules
		}
	}
	if o.ref.Namespace == "" {
		readHooks(spec, &p)
		for _, d := range policies.Directions {
			needServiceNamespace(spec.field(d.String()))
		}
	}
	r.policies = append(r.policies, p)
}

// subject returns what the policy applies to.
func subject(spec value, o object) policies.Match {
	at := spec.field("selector").orElse(spec).orElse(o.value)
	pods, _ := spec.field("selector").endpoints()
	accounts, _ := spec.field("serviceAccountSelector").accounts()
	m := policies.Match{
		Endpoints:  true,
		Namespaces: selector.Everything(),
		Pods:       selector.And(pods, accounts),
		Place:      at.place(),
	}
	if o.ref.Namespace != "" {
		m.Namespaces = selector.Label(policies.NameLabel, o.ref.Namespace)
		return m
	}
	field := spec.field("namespaceSelector")
	e, _ := field.namespaces(&m)
	field.rejectGlobal(e)
	return m
}

// calicoTypes reads types. Where there are none, the rules tell: a policy with
// egress rules only governs egress only, one without any governs ingress.
func calicoTypes(spec value) (governs [2]bool) {
	field := spec.field("types")
	for _, t := range field.distinct(len(policies.Directions)) {
		switch text := t.text(); text {
		case "Ingress":
			governs[policies.Ingress] = true
		case "Egress":
			governs[policies.Egress] = true
		default:
			t.problem("policy type %q is none of Ingress, Egress", text)
		}
	}
	if field.present() {
		return governs
	}
	has := func(d policies.Direction) bool {
		rules := spec.field(d.String())
		return rules.present() && len(rules.node.Content) > 0
	}
	governs[policies.Egress] = has(policies.Egress)
	governs[policies.Ingress] = has(policies.Ingress) || !governs[policies.Egress]
	return governs
}

// readHooks reads what only a GlobalNetworkPolicy has, all of it for host
// endpoints.
func readHooks(spec value, p *policy) {
	doNotTrack, dnat, forward := spec.field("doNotTrack"), spec.field("preDNAT"), spec.field("applyOnForward")
	p.Forwarded = forward.boolean()
	switch isUntracked, isPreDNAT := doNotTrack.boolean(), dnat.boolean(); {
	case isUntracked && isPreDNAT:
		dnat.problem("a policy is doNotTrack or preDNAT, not both; make two policies of it")
	case isUntracked:
		p.hook = policies.Untracked
	case isPreDNAT:
		p.hook = policies.PreDNAT
		if egress := spec.field("egress"); egress.present() && len(egress.node.Content) > 0 {
			egress.problem("a preDNAT policy has no egress rules; remove them")
		} else if p.Governs[policies.Egress] {
			spec.field("types").problem("a preDNAT policy has no type Egress; write \"types: [Ingress]\"")
		}
	}
	if p.hook == policies.Filtering {
		return
	}
	if !p.Forwarded {
		forward.orElse(spec).problem("a policy that is doNotTrack or preDNAT needs \"applyOnForward: true\"")
	}
	p.Subject.Namespaces = selector.And(p.Subject.Namespaces, selector.Where(policies.NameLabel, selector.DoesNotExist))
	p.Subject.Inherited = selector.And(p.Subject.Inherited, selector.Where(policies.CalicoNamespace, selector.DoesNotExist))
}

// needServiceNamespace reports the Services of rules that do not say of which
// namespace they are, where the policy has none itself.
func needServiceNamespace(rules value) {
	if !rules.present() || rules.node.Kind != list {
		return
	}
	for _, node := range rules.node.Content {
		rule := rules.at(resolve(node), "a rule")
		if rule.node.Kind != mapping {
			continue
		}
		for _, side := range []string{"source", "destination"} {
			if entity := rule.field(side); entity.present() && entity.node.Kind == mapping {
				if services := entity.field("services"); services.present() && services.node.Kind == mapping && services.field("namespace").text() == "" {
					services.problem("services of a cluster-wide policy needs a namespace")
				}
			}
		}
	}
}

// takeStaged reads the stagedAction of a staged policy. It is false where
// nothing else of the policy is to be read: where it only removes another one,
// which is then taken note of, or where it is no proposal.
func (r *reader) takeStaged(o object, p *policy, mayBeSet ...string) bool {
	if p.staged == (policies.Ref{}) {
		return true
	}
	spec := o.field("spec")
	field := spec.field("stagedAction")
	switch action := field.text(); action {
	case "", "Set":
		return true
	case "Delete":
		for key, node := range pairs(spec.node) {
			if key.Kind == scalar && !slices.Contains(mayBeSet, key.Value) && !isZero(node) {
				spec.at(key, "").problem("stagedAction Delete takes no %s; leave out all but %s", key.Value, strings.Join(mayBeSet, " and "))
			}
		}
		p.deletes = true
		p.Annotations = nil
		r.policies = append(r.policies, *p)
	case "Learn", "Ignore":
		o.warn("%s %s is left out: with stagedAction %s it proposes nothing", o.ref.Kind, o.ref, action)
	default:
		field.problem("stagedAction %q is none of Set, Delete, Learn, Ignore", action)
	}
	return false
}

// readStagedNetworkPolicy reads a staged NetworkPolicy of Kubernetes.
func (r *reader) readStagedNetworkPolicy(o object) {
	p := policy{staged: o.ref}
	p.Policy = policies.Policy{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: o.ref.Namespace, Name: o.ref.Name}, Tier: Tier, Place: o.place()}
	if r.takeStaged(o, &p, "stagedAction") {
		ref := p.Ref
		p.Policy = networkPolicy(o, append(slices.Clone(networkPolicyFields), "stagedAction")...)
		p.Ref = ref
		r.policies = append(r.policies, p)
	} else {
		o.field("spec").only(append(slices.Clone(networkPolicyFields), "stagedAction")...)
	}
}
