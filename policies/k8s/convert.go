package k8s

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
)

// Target is what policies can be converted to.
type Target string

// The targets.
const (
	// ToClusterNetworkPolicy takes AdminNetworkPolicies and
	// BaselineAdminNetworkPolicies.
	ToClusterNetworkPolicy Target = "clusternetworkpolicy"
	// ToCalico takes NetworkPolicies, and makes Calico NetworkPolicies of them.
	ToCalico Target = "calico"
	// ToNetworkPolicy takes the policies of Calico that are in force.
	ToNetworkPolicy Target = "networkpolicy"
)

// Targets are all of them.
var Targets = [...]Target{ToClusterNetworkPolicy, ToCalico, ToNetworkPolicy}

// Takes reports whether policies with such a Ref lead to the target.
func (t Target) Takes(r policies.Ref) bool {
	switch t {
	case ToClusterNetworkPolicy:
		return r.Group == "" && strings.HasSuffix(r.Kind, "AdminNetworkPolicy")
	case ToCalico:
		return r.Group == "" && r.Kind == "NetworkPolicy"
	case ToNetworkPolicy:
		return r.Group == policies.CalicoGroup && strings.HasSuffix(r.Kind, "NetworkPolicy")
	}
	return false
}

// Kinds names the kinds of policy that lead to the target, for messages.
func (t Target) Kinds() string {
	return map[Target]string{
		ToClusterNetworkPolicy: "AdminNetworkPolicy or BaselineAdminNetworkPolicy",
		ToCalico:               "NetworkPolicy",
		ToNetworkPolicy:        "policy of Calico",
	}[t]
}

// Conversion is what Convert returns.
type Conversion struct {
	Policies []policies.Conversion // those that lead to the target, in the order of their names
	YAML     []byte                // a document for each that could be converted
	// Before is the model of the documents, and After that of the same with what
	// YAML holds in the place of what it was made of. Where Calico's kinds are at
	// one end, Calico decides in both.
	Before, After *policies.Model
}

// Convert writes policies among documents that come from Parse as policies of
// another kind: all that lead to the target and are wanted, which nil stands for
// all. After is read from YAML itself, which File stands for in its places.
//
// A policy that would lose anything is not converted, never in parts. The error
// is that of Read.
func Convert(docs []Document, o Options, to Target, file string, wanted func(policies.Ref) bool) (*Conversion, error) {
	o.Calico = o.Calico || to != ToClusterNetworkPolicy
	before, err := Read(docs, o)
	if err != nil {
		return nil, err
	}
	// Read again, for a model has its policies in order already and nothing else
	// of the objects they were.
	r := newReader(o)
	r.take = r.readKind
	for _, d := range docs {
		r.document(d)
	}
	world := r.world()
	slices.SortFunc(r.policies, func(a, b policy) int { return cmp.Or(a.Ref.Compare(b.Ref), a.Place.Compare(b.Place)) })
	c := &Conversion{Before: before}
	var written []*yaml.Node
	taken, staged, ordered, own := r.names(), r.proposals(), r.ordered(), world.PodsWithNamespaceLabels()
	o.replaced = map[identity]policies.Place{}
	for i := range r.policies {
		p := &r.policies[i]
		if !to.Takes(p.Ref) || p.staged != (policies.Ref{}) || wanted != nil && !wanted(p.Ref) {
			continue
		}
		one := converter{
			reader: r, policy: p, world: &world, taken: taken, staged: staged, ordered: ordered, own: own,
			Conversion: policies.Conversion{From: p.Ref, Place: p.Place},
		}
		if node := one.convert(to); node != nil {
			written = append(written, node)
			o.replaced[identity{p.origin.group, p.origin.ref}] = p.Place
		}
		c.Policies = append(c.Policies, one.Conversion)
	}
	if len(r.problems) > 0 { // in metadata, which a model does not have
		return nil, join(r.problems)
	}
	if c.YAML, err = encode(written); err != nil {
		return nil, err
	}
	converted, err := Parse(file, c.YAML)
	if err == nil {
		c.After, err = Read(append(slices.Clone(docs), converted...), o)
	}
	return c, err
}

// names returns where the policies stand, by what no two of them share.
func (r *reader) names() map[policies.Ref]policies.Place {
	names := map[policies.Ref]policies.Place{}
	for i := range r.policies {
		if p := &r.policies[i]; p.staged == (policies.Ref{}) {
			names[r.known(p.Ref)] = p.Place
		}
	}
	return names
}

// proposals returns the staged policies by what they would put another in the
// place of.
func (r *reader) proposals() map[policies.Ref]*policy {
	staged := map[policies.Ref]*policy{}
	for i := range r.policies {
		if p := &r.policies[i]; p.staged != (policies.Ref{}) {
			staged[p.Ref] = p
		}
	}
	return staged
}

// ordered returns the policies in the tier of NetworkPolicies whose place among
// the others counts, for they do something else than allow.
func (r *reader) ordered() []*policy {
	var all []*policy
	for i := range r.policies {
		p := &r.policies[i]
		if p.Tier == Tier && p.hook == policies.Filtering && p.staged == (policies.Ref{}) && (p.decides(policies.Egress) || p.decides(policies.Ingress)) {
			all = append(all, p)
		}
	}
	return all
}

// decides reports whether a rule of the policy does something else than allow.
func (p *policy) decides(d policies.Direction) bool {
	return slices.ContainsFunc(p.Rules[d], func(r policies.Rule) bool {
		return r.Action != policies.ActionAllow && r.Action != policies.ActionLog
	})
}

// known returns a Ref with the name by which Calico knows the policy.
func (r *reader) known(ref policies.Ref) policies.Ref {
	ref.Name = r.fullName(ref)
	return ref
}

// converter writes one policy as another.
type converter struct {
	*reader
	*policy
	policies.Conversion
	world   *policies.World
	taken   map[policies.Ref]policies.Place // the names of policies
	staged  map[policies.Ref]*policy        // by what they propose to change
	ordered []*policy
	own     map[string]*policies.Pod // by the labels of namespaces that they have themselves
	at      rulePlace
}

// rulePlace is the rule that is converted, or the whole policy.
type rulePlace struct {
	direction policies.Direction
	rule      int
}

// whole is no rule.
var whole = rulePlace{rule: -1}

// lose notes what cannot be carried over, of the rule at hand.
func (c *converter) lose(at policies.Place, format string, args ...any) {
	c.Lost = append(c.Lost, c.remark(at, format, args...))
}

// seesNamespaces loses a selector of namespaces by labels, as Calico has them of
// endpoints, that some pod has itself.
func (c *converter) seesNamespaces(keys []string, at policies.Place) {
	for _, key := range keys {
		if p := c.own[key]; p != nil {
			c.lose(at, "pod %s has label %s itself: to Calico that comes before its namespace's, to Kubernetes it does not", p.Ref, key)
		}
	}
}

// change notes what is written otherwise, of the rule at hand.
func (c *converter) change(at policies.Place, format string, args ...any) {
	c.Changed = append(c.Changed, c.remark(at, format, args...))
}

func (c *converter) remark(at policies.Place, format string, args ...any) policies.Remark {
	if at.File == "" {
		at = c.Conversion.Place
	}
	return policies.Remark{Direction: c.at.direction, Rule: c.at.rule, Because: fmt.Sprintf(format, args...), Place: at}
}

// convert returns the object, nil where something would be lost.
func (c *converter) convert(to Target) *yaml.Node {
	c.at = whole
	ref := policies.Ref{Kind: "NetworkPolicy", Namespace: c.From.Namespace, Name: c.From.Name}
	apiVersion := kinds["NetworkPolicy"].apiVersion
	spec := c.networkPolicySpec
	switch to {
	case ToClusterNetworkPolicy:
		ref.Kind, spec = "ClusterNetworkPolicy", c.clusterSpec
		apiVersion = kinds[ref.Kind].apiVersion
	case ToCalico:
		ref.Group, spec = policies.CalicoGroup, c.calicoSpec
		apiVersion = calicoVersion
	}
	switch other, has := c.taken[c.known(ref)]; {
	case c.origin.nameless:
		c.lose(c.Conversion.Place, "it has a generateName only; give it a name")
	case c.Opaque != "":
		c.lose(c.Conversion.Place, "%s", c.Opaque)
		return nil
	case has:
		c.lose(c.Conversion.Place, "there is a %s %s already, at %s; rename one of them", ref.What(), ref, other)
	}
	if p := c.staged[c.From]; p != nil {
		c.lose(p.Place, "%s %s would no longer find it; enforce or remove that first", p.staged.Kind, p.staged)
	}
	body := spec(ref)
	if len(c.Lost) > 0 {
		return nil
	}
	c.taken[c.known(ref)] = c.Conversion.Place
	c.To = ref
	node := newMapping(
		member{"apiVersion", newText(apiVersion)}, member{"kind", newText(ref.Kind)}, member{"metadata", c.metadata(ref)}, member{"spec", body},
	)
	node.HeadComment = comment(fmt.Sprintf("%s %s at %s", c.From.What(), c.From, c.Conversion.Place))
	return node
}

// storedLabels speak of how an object was stored.
var storedLabels = []string{policies.CalicoGroup + "/tier"}

func (c *converter) metadata(ref policies.Ref) *yaml.Node {
	meta := c.origin.meta
	labels := maps.Clone(meta.field("labels").labels())
	if c.From.Group == policies.CalicoGroup {
		labels = maps.Clone(c.origin.calicoLabels())
	}
	annotations := c.origin.annotations()
	for _, key := range storedLabels {
		delete(labels, key)
	}
	for _, name := range []string{"ownerReferences", "finalizers"} {
		if f := meta.field(name); isSet(f) {
			c.change(f.place(), "%s are left out", name)
		}
	}
	m := newMapping(member{"name", newText(ref.Name)})
	if ref.Namespace != "" {
		m.Content = append(m.Content, newText("namespace"), newText(ref.Namespace))
	}
	m.Content = append(m.Content, newMapping(member{"labels", newLabels(labels)}, member{"annotations", newLabels(annotations)}).Content...)
	return m
}

// rules writes the rules of both directions, as one does with each of them. What
// the policy does not govern has no effect, and is left out.
func (c *converter) rules(one func(d policies.Direction, rule *policies.Rule) []*yaml.Node) [2]*yaml.Node {
	var written [2]*yaml.Node
	for _, d := range policies.Directions {
		if field := c.origin.field("spec").field(d.String()); !c.Governs[d] && isSet(field) {
			c.change(field.place(), "the %s rules are left out: by its types the policy does not concern %[1]s", d)
		}
		rules := newList()
		for i := range c.Rules[d] {
			c.at = rulePlace{d, i}
			rules.Content = append(rules.Content, one(d, &c.Rules[d][i])...)
		}
		c.at = whole
		if len(rules.Content) > 0 {
			written[d] = rules
		}
	}
	return written
}

// types writes which directions the policy governs.
func (c *converter) types() *yaml.Node {
	var types []string
	for _, d := range []policies.Direction{policies.Ingress, policies.Egress} {
		if c.Governs[d] {
			types = append(types, map[policies.Direction]string{policies.Ingress: "Ingress", policies.Egress: "Egress"}[d])
		}
	}
	return newTexts(types...)
}

// keepsOrder loses a policy that only allows where, as the other with this order,
// it would change places with one that does something else to the same traffic.
func (c *converter) keepsOrder(to policies.Ref, order float64) {
	after := policy{Policy: policies.Policy{Ref: to}}
	was := func(p *policy) float64 {
		if p.Ref.Group == "" {
			return networkPolicyOrder
		}
		return p.Order
	}
	for _, p := range c.ordered {
		if p == c.policy || !c.meets(p) {
			continue
		}
		before := cmp.Or(cmp.Compare(was(c.policy), was(p)), strings.Compare(c.tie(c.policy), c.tie(p)))
		now := cmp.Or(cmp.Compare(order, was(p)), strings.Compare(c.tie(&after), c.tie(p)))
		if before != now {
			side := map[bool]string{true: "before", false: "after"}
			c.lose(c.Conversion.Place, "it comes %s %s %s at %s, and would come %s it", side[before < 0], p.Ref.What(), p.Ref, p.Place, side[now < 0])
		}
	}
}

// meets reports whether another policy may do something else than allow to
// traffic of the same endpoints.
func (c *converter) meets(p *policy) bool {
	if p.Ref.Namespace != "" && c.From.Namespace != p.Ref.Namespace {
		return false
	}
	for _, d := range policies.Directions {
		if c.Governs[d] && p.decides(d) {
			return true
		}
	}
	return false
}
