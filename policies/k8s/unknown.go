package k8s

import (
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// effect is what a kind of policy that is not understood may do.
type effect struct {
	governs [2]bool // for each Direction
	scope   scope
	// harmless is why the kind changes no answer; empty for most.
	harmless string
}

type scope uint8

const (
	itsNamespace scope = iota
	everywhere
	// rootEverywhere is everywhere for objects in the mesh's root namespace.
	rootEverywhere
)

var (
	both        = [2]bool{true, true}
	ingressOnly = [2]bool{policies.Ingress: true}
	egressOnly  = [2]bool{policies.Egress: true}

	secondary = effect{harmless: "it concerns secondary networks only"}
)

// meshRoot is the root namespace of Istio unless its configuration says
// otherwise.
const meshRoot = "istio-system"

type groupKind struct{ group, kind string }

// foreign are the kinds of policy that other projects define, and versions of
// our kinds that are not read.
var foreign = map[groupKind]effect{
	{"cilium.io", "CiliumNetworkPolicy"}:                       {governs: both},
	{"cilium.io", "CiliumClusterwideNetworkPolicy"}:            {governs: both, scope: everywhere},
	{"policy.networking.k8s.io", "ClusterNetworkPolicy"}:       {governs: both, scope: everywhere},
	{"policy.networking.k8s.io", "AdminNetworkPolicy"}:         {governs: both, scope: everywhere},
	{"policy.networking.k8s.io", "BaselineAdminNetworkPolicy"}: {governs: both, scope: everywhere},
	{"crd.nsx.vmware.com", "SecurityPolicy"}:                   {governs: both},
	{"nsx.vmware.com", "SecurityPolicy"}:                       {governs: both, scope: everywhere},
	{"kubeovn.io", "SecurityGroup"}:                            {governs: both, scope: everywhere},
	{"crd.antrea.io", "NetworkPolicy"}:                         {governs: both},
	{"crd.antrea.io", "ClusterNetworkPolicy"}:                  {governs: both, scope: everywhere},
	{"k8s.ovn.org", "EgressFirewall"}:                          {governs: egressOnly},
	{"network.openshift.io", "EgressNetworkPolicy"}:            {governs: egressOnly},
	{"networking.k8s.aws", "ApplicationNetworkPolicy"}:         {governs: both},
	{"networking.k8s.aws", "ClusterNetworkPolicy"}:             {governs: both, scope: everywhere},
	{"security.istio.io", "AuthorizationPolicy"}:               {governs: ingressOnly, scope: rootEverywhere},
	{"policy.linkerd.io", "AuthorizationPolicy"}:               {governs: ingressOnly},
	{"policy.linkerd.io", "ServerAuthorization"}:               {governs: ingressOnly},
	{"policy.linkerd.io", "Server"}:                            {governs: ingressOnly},
	{"kuma.io", "MeshTrafficPermission"}:                       {governs: ingressOnly, scope: everywhere},
	{"kuma.io", "TrafficPermission"}:                           {governs: ingressOnly, scope: everywhere},
	{"consul.hashicorp.com", "ServiceIntentions"}:              {governs: ingressOnly, scope: everywhere},
	{"k8s.cni.cncf.io", "MultiNetworkPolicy"}:                  secondary,
}

// isPolicyGroup reports whether a group by its name holds network policies.
func isPolicyGroup(group string) bool {
	return strings.Contains(group, "networkpolicy") || strings.Contains(group, "policy.networking")
}

// foreignEffect returns what an object of a kind that is not understood may do;
// false when it has no bearing on policy. A kind that nobody listed is taken for
// a policy by its name.
func foreignEffect(kind, group string, namespaced bool) (effect, bool) {
	if e, listed := foreign[groupKind{group, kind}]; listed {
		return e, true
	}
	// These are rules about manifests, named after the kind they look at.
	if strings.HasSuffix(group, ".gatekeeper.sh") {
		return effect{}, false
	}
	if !isPolicyGroup(group) && !strings.HasSuffix(kind, "NetworkPolicy") {
		return effect{}, false
	}
	if namespaced {
		return effect{governs: both}, true
	}
	return effect{governs: both, scope: everywhere}, true
}

// readForeign makes an opaque policy of an object that bears policy, with a
// warning, and passes over all others.
func (r *reader) readForeign(v value, kind, group string) {
	e, ok := foreignEffect(kind, group, v.hasNamespace())
	if !ok {
		return
	}
	o, ok := r.object(v, kind, group, e.scope == everywhere && !v.hasNamespace())
	if !ok {
		return
	}
	if e.harmless != "" {
		o.warn("%s %s is left out: %s", kind, o.ref, e.harmless)
		return
	}
	subject := policies.Match{
		Namespaces: selector.Label(policies.NameLabel, o.ref.Namespace),
		Pods:       selector.Everything(),
		Place:      o.place(),
	}
	touched := "pods in namespace " + o.ref.Namespace
	if e.scope == everywhere || e.scope == rootEverywhere && o.ref.Namespace == meshRoot {
		subject.Namespaces = selector.Everything()
		touched = "pods in all namespaces"
	}
	r.add(o, policies.Policy{
		Ref:         o.ref,
		Subject:     subject,
		Governs:     e.governs,
		Opaque:      kind + " of " + group + " is not understood",
		Annotations: o.annotations(),
		Place:       o.place(),
	})
	o.warn("%s %s is not understood; answers about %s are unknown", kind, o.ref, touched)
}

func (v value) hasNamespace() bool {
	meta := v.field("metadata")
	if !meta.present() || meta.node.Kind != mapping {
		return false
	}
	namespace := meta.field("namespace")
	return namespace.present() && namespace.node.Value != ""
}
