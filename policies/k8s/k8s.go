// Package k8s reads manifests, YAML and JSON, of Kubernetes and of Calico into the
// values of package policies, each with the file, line and column it stands at.
//
// It owns how the two write things down, what their API servers accept and in
// what order Calico puts policies. What they mean together it does not know;
// package reach does.
//
// An object's place is where its mapping begins; a rule's and a peer's is where
// its list item does. What an alias or a merge key brings in stands where it was
// written down first.
package k8s

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/netset"
)

// Document is one YAML or JSON document.
type Document struct {
	File string
	Node *yaml.Node // the root of the content, a mapping
	// Elsewhere says for nodes of a rendered document that stand in another
	// file than File, such as a patch, in which.
	Elsewhere map[*yaml.Node]string

	blocks map[*yaml.Node]textBlock // expressions in it, as they stand in the file
}

// Options say what the documents themselves do not.
type Options struct {
	Namespace     string         // of objects that name none; "" means "default"
	PodCIDRs      []netip.Prefix // ranges that pod addresses come from
	CalicoVersion string         // whose behaviour counts, one of CalicoVersions; "" is the newest
	// Calico is set where Calico decides even if there is no object of its kinds.
	Calico bool
	// Node makes the models of a Store as that node needs them: of pods on other nodes
	// they have one of each kind, and the rest as their Crowd, but none of those that have
	// no address; of policies those that may apply to pods of the node.
	Node string

	replaced map[identity]policies.Place // objects that are passed over
}

// The names of the tiers, in the order of evaluation. Policies of the three
// cluster-wide kinds stand in the first and the last, every NetworkPolicy stands
// between them. Calico has others besides.
const (
	AdminTier    = "kube-admin"
	Tier         = "default"
	BaselineTier = "kube-baseline"
)

// Read makes a model of documents that come from Parse. Kinds that have no
// bearing on policy are left out; kinds of policy that are not understood become
// opaque policies, each with a warning.
//
// The error joins every policies.Problem found, in the order of their places;
// there is no model then. The order of the documents makes no difference to the
// model.
func Read(docs []Document, o Options) (*policies.Model, error) {
	r := newReader(o)
	r.take = r.readKind
	for _, d := range docs {
		r.document(d)
	}
	m := &policies.Model{World: r.world(), Tiers: tiers()}
	if r.calico {
		m.Tiers = r.arrange()
	}
	if len(r.problems) > 0 {
		return nil, join(r.problems)
	}
	r.addPolicies(m)
	m.Warnings = sortWarnings(slices.Concat(r.warnings, missingTiers(m), missingServices(m)))
	return m, nil
}

// addPolicies adds the policies that were read to the model, in their order.
func (r *reader) addPolicies(m *policies.Model) {
	slices.SortFunc(r.policies, func(a, b policy) int { return a.Compare(b.Policy) })
	services := servicesOf(&m.World)
	for _, p := range r.policies {
		resolveRules(&p.Policy, services.get)
		if p.staged == (policies.Ref{}) {
			m.Policies = append(m.Policies, p.Policy)
		} else {
			m.Staged = append(m.Staged, policies.Staged{Ref: p.staged, Policy: p.Policy, Deletes: p.deletes})
		}
	}
	slices.SortFunc(m.Staged, func(a, b policies.Staged) int { return a.Ref.Compare(b.Ref) })
}

func tiers() []policies.Tier {
	return []policies.Tier{
		{Name: AdminTier, End: policies.ActionPass},
		{
			Name:          Tier,
			End:           policies.ActionDeny,
			Undefined:     netset.AllTraffic().Minus(netset.EveryPort(netset.Transports[:]...)),
			SparesOwnNode: true,
		},
		{Name: BaselineTier, End: policies.ActionPass},
	}
}

func sortWarnings(all []policies.Warning) []policies.Warning {
	slices.SortFunc(all, policies.Warning.Compare)
	return slices.Compact(all)
}

// join returns the problems as one error, each once and in the order of their
// places; nil when there are none.
func join(problems []policies.Problem) error {
	slices.SortFunc(problems, func(a, b policies.Problem) int {
		return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Message, b.Message))
	})
	var all []error
	for _, p := range slices.Compact(problems) {
		all = append(all, p)
	}
	return errors.Join(all...)
}

// reader gathers what the documents say.
type reader struct {
	take func(v value, kind, version string)                                   // reads one object
	rego func(text string, lines []policies.Place) (expression.Program, error) // of invariants

	namespace     string
	implied       string // the namespace of the object that was read last
	podCIDRs      []netip.Prefix
	calicoVersion string
	replaced      map[identity]policies.Place

	problems  []policies.Problem
	warnings  []policies.Warning
	elsewhere map[*yaml.Node]string
	blocks    map[*yaml.Node]textBlock
	seen      map[identity]policies.Place
	valid     map[check]bool

	namespaces map[string]policies.Namespace
	owned
	services []service
	nodes    []policies.Node
	policies []policy

	calico   bool // Calico decides, as where there are objects of its kinds
	accounts []policies.ServiceAccount
	tiers    map[string]policies.Tier
	sets     []policies.NetworkSet
	hosts    []host
	profiles map[string]profile
}

func newReader(o Options) *reader {
	return &reader{
		namespace:     cmp.Or(o.Namespace, "default"),
		podCIDRs:      slices.Clone(o.PodCIDRs),
		calicoVersion: cmp.Or(o.CalicoVersion, CalicoVersions[len(CalicoVersions)-1]),
		calico:        o.Calico,
		replaced:      o.replaced,
		tiers:         map[string]policies.Tier{},
		profiles:      map[string]profile{},
		elsewhere:     map[*yaml.Node]string{},
		blocks:        map[*yaml.Node]textBlock{},
		seen:          map[identity]policies.Place{},
		namespaces:    map[string]policies.Namespace{},
		owned:         owned{workloads: map[policies.Ref]workload{}},
		valid:         map[check]bool{},
	}
}

// identity is what no two objects share.
type identity struct {
	group string
	ref   policies.Ref
}

// world puts together what the objects said of it.
func (r *reader) world() policies.World {
	slices.SortFunc(r.hosts, func(a, b host) int { return a.Ref.Compare(b.Ref) })
	r.nodes = implyNodes(r.nodes, r.hosts)
	slices.SortFunc(r.nodes, func(a, b policies.Node) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(r.podCIDRs, netip.Prefix.Compare)
	slices.SortFunc(r.accounts, func(a, b policies.ServiceAccount) int { return a.Ref.Compare(b.Ref) })
	slices.SortFunc(r.sets, func(a, b policies.NetworkSet) int { return a.Ref.Compare(b.Ref) })
	pods := r.owned.resolve(namesOf(r.nodes))
	services := resolveServices(r.services, pods)
	if r.calico {
		dropCalicoLabels(pods)
	}
	return policies.World{
		Namespaces: slices.SortedFunc(maps.Values(r.namespaces), func(a, b policies.Namespace) int {
			return strings.Compare(a.Name, b.Name)
		}),
		Pods:     pods,
		Services: services,
		Nodes:    r.nodes,
		Accounts: r.accounts,
		Sets:     r.sets,
		Hosts:    resolveHosts(r.hosts, r.profiles),
		PodCIDRs: slices.Compact(r.podCIDRs),
	}
}
