// Package policies holds the words of Weir.
//
//	world      the things policies talk about at one moment: namespaces,
//	           workloads, pods, nodes, services
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
	"strings"

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

// Compare orders by namespace, name and kind.
func (r Ref) Compare(q Ref) int {
	return cmp.Or(strings.Compare(r.Namespace, q.Namespace), strings.Compare(r.Name, q.Name), strings.Compare(r.Kind, q.Kind))
}

// Model is a world and the policies in it: all that an answer depends on.
type Model struct {
	World
	Tiers    []Tier   // in the order of evaluation
	Policies []Policy // of each tier in the order of their priorities
	Warnings []Warning
}

// World is the things that policies talk about at one moment.
type World struct {
	Namespaces []Namespace
	Pods       []Pod
	Services   []Service
	Nodes      []Node
	// PodCIDRs are the ranges pod addresses come from, as far as they are known.
	PodCIDRs []netip.Prefix
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
	Node           string // empty when it is not known
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

// Node is a node with its labels and addresses.
type Node struct {
	Name      string
	Labels    map[string]string
	Addresses []netip.Addr
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
}

// Action is what a rule does with the traffic it matches.
type Action uint8

// The zero Action is none, so a forgotten one can never allow.
const (
	NoAction Action = iota
	ActionAllow
	ActionDeny
	ActionPass // leaves the tier; allows nothing by itself
)

func (a Action) String() string { return [...]string{"none", "allow", "deny", "pass"}[a] }

// Policy is one policy object of any dialect.
type Policy struct {
	Ref  Ref
	Tier string // the name of a tier of the model
	// Priority orders the policies of a tier, lowest first. Those of equal
	// priority have no order among them: where they would do different things,
	// the answer is unknown.
	Priority int
	Subject  Match // the pods it applies to
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

// Rule matches traffic by the other end's peer and by port.
type Rule struct {
	Name   string // where the policy gives it one
	Action Action
	Peers  []Match      // any of them; none match nothing
	Ports  netset.Ports // any of these,
	Named  []NamedPort  // or a port with one of these names
	Place  Place
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
	Place   Place
}

// String prints what the match describes, in words: "pods app=web in
// namespaces team=shop".
func (m Match) String() string {
	switch {
	case m.Anyone:
		return "anyone"
	case m.Block.CIDR.IsValid():
		return m.Block.String()
	case m.Nodes.IsEverything():
		return "all nodes"
	case !m.Nodes.IsNothing():
		return "nodes " + m.Nodes.String()
	case len(m.Domains) > 0:
		return strings.Join(m.Domains, ", ")
	}
	pods := "all pods"
	if !m.Pods.IsEverything() {
		pods = "pods " + m.Pods.String()
	}
	switch {
	case m.Namespaces.IsNothing():
		return "nothing"
	case m.Namespaces.IsEverything():
		return pods + " in all namespaces"
	}
	if name, ok := strings.CutPrefix(m.Namespaces.String(), NameLabel+"="); ok && !strings.ContainsAny(name, ",") {
		return pods + " in " + name
	}
	return pods + " in namespaces " + m.Namespaces.String()
}
