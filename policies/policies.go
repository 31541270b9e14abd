// Package policies holds the words of Weir.
//
//	world      the things policies talk about at one moment: namespaces,
//	           workloads, pods, nodes, services, network sets, host endpoints
//	workload   pods with one owner (Deployment, StatefulSet, …), or a bare pod
//	peer       whatever can be at one end of a connection: a pod, a node, or
//	           addresses outside
//	policy     ordered rules for the peers it selects, in a tier; all dialects
//	           become this one form
//	flow       one recorded connection or an aggregate of them
//	verdict    allow, deny or unknown
//	decision   a verdict with its reason and the place of the rule behind it
//	model      a world and the policies in it
//
// It is pure data: what the words mean together, package reach says.
package policies

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Place is where something stands in the input. Line and Column count from 1;
// 0 is unknown.
type Place struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
}

// String prints "db.yaml:14:7", or less when less is known.
func (p Place) String() string {
	switch {
	case p.Line == 0:
		return p.File
	case p.Column == 0:
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Column)
}

// Compare orders places by file, line and column.
func (p Place) Compare(q Place) int {
	return cmp.Or(strings.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Column, q.Column))
}

// Problem is something wrong with the input, at its place. It is an error.
type Problem struct {
	Place   Place
	Message string // lower case, no full stop: what is wrong and what to do
}

func (p Problem) Error() string { return p.Place.String() + ": " + p.Message }

// Warning is something the reader of an answer should know: what was not
// understood, or had to be taken for granted.
type Warning struct {
	Place   Place
	Message string
}

func (w Warning) String() string {
	if w.Place.File == "" {
		return w.Message
	}
	return w.Place.String() + ": " + w.Message
}

// Ref names an object. Namespace is empty for cluster-wide objects.
type Ref struct {
	// Group is the API group of Calico's kinds, CalicoGroup, for some of them
	// have the names of others. It is empty for all other kinds.
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String prints "shop/web", or "web" for cluster-wide objects.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Name
	}
	return r.Namespace + "/" + r.Name
}

// What returns the kind as people tell it from others: Calico's NetworkPolicy is
// a "Calico NetworkPolicy".
func (r Ref) What() string {
	if r.Group == CalicoGroup && r.Kind == "NetworkPolicy" {
		return "Calico " + r.Kind
	}
	return r.Kind
}

// Full returns the name with the kind in front, as a question names it:
// "NetworkPolicy/shop/db", "CalicoNetworkPolicy/shop/db".
func (r Ref) Full() string { return strings.ReplaceAll(r.What(), " ", "") + "/" + r.String() }

// CalicoGroup is the API group of Calico's kinds, however they are stored.
const CalicoGroup = "projectcalico.org"

// Compare orders by namespace, name, kind and group.
func (r Ref) Compare(q Ref) int {
	return cmp.Or(strings.Compare(r.Namespace, q.Namespace), strings.Compare(r.Name, q.Name), strings.Compare(r.Kind, q.Kind), strings.Compare(r.Group, q.Group))
}

// Model is a world and the policies in it: all that an answer depends on.
type Model struct {
	World
	Tiers    []Tier   // in the order of evaluation
	Policies []Policy // of each tier in the order of their priorities
	// Staged are policies that are not enforced, in the order of their names. They
	// change no answer until they are, see Enforce.
	Staged   []Staged
	Warnings []Warning
}

// Staged is a policy that is not enforced, but may be one day. Ref names the
// staged object itself; Policy is what it would put in place of the policy of
// its name, if there is one. Where Deletes is set it would only remove that one,
// and Policy holds nothing but its Ref, Tier and Place.
type Staged struct {
	Ref     Ref
	Policy  Policy
	Deletes bool
}

// World is the things that policies talk about at one moment.
type World struct {
	Namespaces []Namespace
	Pods       []Pod
	Services   []Service
	Nodes      []Node
	Accounts   []ServiceAccount
	Sets       []NetworkSet
	Hosts      []HostEndpoint
	// PodCIDRs are the ranges pod addresses come from, as far as they are known.
	PodCIDRs []netip.Prefix
	// Crowd is those pods for which others of the world stand; nil where all are in it.
	Crowd *Crowd
}

// NameLabel is the label that every namespace carries with its own name.
const NameLabel = "kubernetes.io/metadata.name"

// Namespace is a namespace with its labels, NameLabel always among them.
type Namespace struct {
	Name   string
	Labels map[string]string
	// Implied is set when only other objects mention the namespace: its labels
	// but NameLabel are then unknown.
	Implied bool
	Place   Place
}

// Pod is one pod, or the pods that a workload's template stands for.
type Pod struct {
	Ref      Ref // Kind "Pod"; for a template the workload's own
	Workload Ref // the outermost owner; a bare pod is its own workload
	// Replicas is how many pods this stands for: 1 for a real pod, the number
	// that a template asks for otherwise. Pods of a DaemonSet count as 2.
	Replicas       int
	Labels         map[string]string
	ServiceAccount string
	Ports          []ContainerPort
	Addresses      []netip.Addr // empty when they are not known
	HostNetwork    bool
	Kind           int32     // where it is not 0, it stands for the members of World.Crowd of that kind
	Node           string    // empty when it is not known
	Since          time.Time // when a real pod was made; zero when it is not known
	// NodeLabels are labels that the pod's node has for certain. They are read
	// only of pods on the host's network, for nodes that are not in the world.
	NodeLabels map[string]string
	Place      Place
}

// ContainerPort is a port that a pod gives a name to.
type ContainerPort struct {
	Name     string
	Protocol netset.Protocol
	Number   uint16
}

// Service is a Service, resolved to the pods behind it.
type Service struct {
	Ref       Ref
	ClusterIP []netip.Addr
	Pods      []int // indexes of World.Pods
	Ports     []ServicePort
	// External is why the Service has no pods of its own: it has no selector,
	// or it is an alias of a name outside. Empty otherwise.
	External string
	Place    Place
}

// ServicePort leads a port of the Service to a port of the pods behind it.
type ServicePort struct {
	Name       string
	Protocol   netset.Protocol
	Port       uint16
	Target     uint16 // 0 when TargetName is set
	TargetName string // a port name, resolved on each pod
}

// Node is a node with its labels and addresses, those among them that its host
// endpoints expect.
type Node struct {
	Name      string
	Labels    map[string]string
	Addresses []netip.Addr
	PodCIDRs  []netip.Prefix // ranges that addresses of its pods come from, sorted
	// Implied is set when only host endpoints mention the node: its labels are
	// then unknown.
	Implied bool
	Place   Place
}

// ServiceAccount is a service account with its labels.
type ServiceAccount struct {
	Ref    Ref
	Labels map[string]string
	Place  Place
}

// NetworkSet is addresses that go by labels. Its Ref has a namespace or not.
type NetworkSet struct {
	Ref    Ref
	Labels map[string]string
	Nets   []netip.Prefix
	// Domains are names whose addresses are of the set, too; which those are is
	// not known.
	Domains []string
	Place   Place
}

// HostEndpoint is one interface of a node, or all of them, to which policies can
// apply.
type HostEndpoint struct {
	Ref       Ref
	Node      string
	Interface string // "*" for all of the node's, "" for the one with these addresses
	Addresses []netip.Addr
	Labels    map[string]string // those that its profiles give it among them
	Ports     []ContainerPort
	Place     Place
}

// Direction is one of the two ways a policy looks at a peer.
type Direction uint8

// A connection needs its source's egress and its destination's ingress.
const (
	Egress Direction = iota
	Ingress
)

// Directions are both, in the order in which they are decided.
var Directions = [...]Direction{Egress, Ingress}

func (d Direction) String() string { return [...]string{"egress", "ingress"}[d] }

// Tier is a stage of evaluation. It concerns a peer, in one direction, only
// when a policy of the tier selects that peer in that direction.
type Tier struct {
	Name string
	// End is what happens to traffic that no rule of a concerned tier matches:
	// Deny, or Pass to the next tier. Traffic that passes every tier is allowed.
	End Action
	// Undefined is traffic about which the tier's kinds say nothing, so that
	// engines differ: where the tier is concerned, its verdict is unknown.
	Undefined netset.Ports
	// SparesOwnNode is set where the tier's kinds never keep a pod's own node,
	// its kubelet's probes for instance, from a pod that they select.
	SparesOwnNode bool
	// Order is by what a tier of Calico comes before others, +Inf for none.
	// Missing is set where policies name the tier and nobody defines it.
	Order   float64
	Missing bool
	// Hook is where the traffic of host endpoints meets the tier.
	Hook  Hook
	Place Place // where somebody defines it
}

// Hook is where the traffic of host endpoints meets a policy.
type Hook uint8

// What meets a policy at Untracked and PreDNAT is not quite what a question
// asks about: replies meet it too, or the address and port that a Service has.
const (
	Filtering Hook = iota // where all other policies do
	Untracked             // before connections are tracked
	PreDNAT               // before the addresses of Services are resolved
)

func (h Hook) String() string { return [...]string{"", "untracked", "preDNAT"}[h] }

// Action is what a rule does with the traffic it matches.
type Action uint8

// The zero Action is none, so a forgotten one can never allow.
const (
	NoAction Action = iota
	ActionAllow
	ActionDeny
	ActionPass // leaves the tier; allows nothing by itself
	ActionLog  // decides nothing
)

var actions = [...]string{"none", "allow", "deny", "pass", "log"}

func (a Action) String() string { return actions[a] }

// ParseAction reads what String prints; empty is NoAction.
func ParseAction(text string) (Action, error) {
	if text == "" {
		return NoAction, nil
	}
	if i := slices.Index(actions[:], text); i >= 0 {
		return Action(i), nil
	}
	return 0, fmt.Errorf("action %q is none of allow, deny, pass, log", text)
}

// Policy is one policy object of any dialect.
type Policy struct {
	Ref  Ref
	Tier string // the name of a tier of the model
	// Priority orders the policies of a tier, lowest first. Those of equal
	// priority have no order among them: where they would do different things,
	// the answer is unknown.
	Priority int
	// Order is what the policy itself says of its place in the tier, +Inf where
	// it says nothing and so comes last. It changes no answer, Priority does.
	Order   float64
	Subject Match // the pods, and perhaps host endpoints, that it applies to
	// Forwarded is set where the policy concerns, at a host endpoint, what the
	// host forwards to and from its pods as well as its own traffic.
	Forwarded bool
	// Governs says for each Direction whether the policy concerns it, even
	// when it has no rules there.
	Governs [2]bool
	Rules   [2][]Rule // for each Direction
	// Opaque is why the policy could not be understood; empty when it was. What
	// it may do to its subject, in the directions it governs, is then unknown.
	Opaque string
	// Annotations are those of the object. They change no answer.
	Annotations map[string]string
	Place       Place
}

// IsBuiltIn reports whether the policy is what Calico does at a host endpoint by
// itself, which nobody wrote as a policy.
func (p *Policy) IsBuiltIn() bool { return p.Ref.Group == CalicoGroup && p.Ref.Kind == "HostEndpoint" }

// Rule matches traffic by the other end's peer and by port.
type Rule struct {
	Name   string // where the policy gives it one
	Action Action
	Peers  []Match      // any of them; none match nothing
	Ports  netset.Ports // any of these,
	Named  []NamedPort  // or a port with one of these names
	// NotNamed are names of ports that the rule does not match. They mean the
	// destination's ports, as all names do.
	NotNamed []NamedPort
	// NotPorts are ports that the rule does not match by any name either.
	NotPorts netset.Ports
	// Own describes the pods, of those that the policy applies to, that the rule
	// is for: all of them where it is nil.
	Own *Match
	// Unclear is what else the rule asks for that no question tells, such as an
	// HTTP method or a source port. It matches nothing for sure then.
	Unclear string
	Place   Place
}

// NamedPort is a port by name, which means the port that the destination pod
// gives that name for that protocol.
type NamedPort struct {
	Protocol netset.Protocol
	Name     string
}

// Match describes peers. The zero Match describes none.
type Match struct {
	// Anyone describes every peer, addresses outside included.
	Anyone bool
	// Namespaces and Pods describe the pods with these labels in namespaces
	// with these labels. Pods on the host's network are never among them.
	Namespaces, Pods selector.Selector
	// Endpoints is set where these are Calico's selectors: they see the labels
	// that pods inherit, see World.Inherited, and describe network sets and host
	// endpoints, too. Those mean addresses, and where they are in no namespace
	// they have no namespace labels, NameLabel neither.
	Endpoints bool
	// Inherited is what Namespaces says where that is a namespaceSelector of
	// Calico, about the labels that endpoints inherit; nothing elsewhere. It counts,
	// and Namespaces does not, for those that have such a label themselves: their
	// own comes first.
	Inherited selector.Selector
	// Object describes what the one object of this name stands for: the pods
	// behind a Service, a NetworkSet or GlobalNetworkSet, a HostEndpoint. An
	// object that is not there stands for nothing.
	Object Ref
	// Block describes peers by address, where its CIDR is valid.
	Block netset.Block
	// InCluster is set where Block is promised to describe pods and nodes too,
	// so that reach.Options.IgnorePodBlocks does not concern it.
	InCluster bool
	// Nodes describes the nodes with these labels, and the pods on their network.
	Nodes selector.Selector
	// Domains describes addresses by domain names, "*." in front of one standing
	// for one label or more. Which addresses those are is not known.
	Domains []string
	// Any, if not empty, describes whom any of these describe; All, if not empty,
	// whom each of these does. Nothing else but Except and Place is set beside
	// either.
	Any, All []Match
	// Except describes whom the match does not describe after all.
	Except []Match
	Place  Place
}

// String prints what the match describes, in words: "pods app=web in
// namespaces team=shop".
func (m Match) String() string {
	switch {
	case len(m.Except) > 0:
		but := m
		but.Except = nil
		return but.String() + " except " + list(m.Except, " and ")
	case len(m.Any) > 0:
		return list(m.Any, " or ")
	case len(m.All) > 0:
		return list(m.All, " among ")
	case m.Anyone:
		return "anyone"
	case m.Object != Ref{}:
		return m.Object.Kind + " " + m.Object.String()
	case m.Block.CIDR.IsValid():
		return m.Block.String()
	case m.Nodes.IsEverything():
		return "all nodes"
	case !m.Nodes.IsNothing():
		return "nodes " + m.Nodes.String()
	case len(m.Domains) > 0:
		return strings.Join(m.Domains, ", ")
	}
	what, print := "pods", selector.Selector.String
	if m.Endpoints {
		what, print = "endpoints", selector.Selector.Calico
	}
	pods := "all " + what
	if !m.Pods.IsEverything() {
		pods = what + " " + print(m.Pods)
	}
	switch {
	case m.Namespaces.IsNothing():
		return "nothing"
	case m.Namespaces.IsEverything() && m.Endpoints:
		return pods
	case m.Namespaces.IsEverything(), m.Namespaces.String() == NameLabel:
		return pods + " in all namespaces"
	case m.Namespaces.String() == "!"+NameLabel:
		return pods + " in no namespace"
	}
	if name, ok := strings.CutPrefix(m.Namespaces.String(), NameLabel+"="); ok && !strings.ContainsAny(name, ",") {
		return pods + " in " + name
	}
	return pods + " in namespaces " + print(m.Namespaces)
}

func list(matches []Match, between string) string {
	texts := make([]string, len(matches))
	for i, m := range matches {
		texts[i] = m.String()
	}
	return strings.Join(texts, between)
}
