package v1alpha1

import (
	_ "embed" // the definition beside the types
	"encoding/json"
	"fmt"
	"strconv"
)

// KindInvariant is the kind of an Invariant.
const KindInvariant = "Invariant"

// KindInvariantTest is the kind of an InvariantTest: which invariants of a policy pack hold
// in the world of its file.
const KindInvariantTest = "InvariantTest"

// InvariantCRD is the CustomResourceDefinition of Invariant, as YAML.
//
//go:embed crd/weir.dev_invariants.yaml
var InvariantCRD []byte

// Invariant is a sentence about reachability that must hold. It is cluster-wide.
type Invariant struct {
	APIVersion string          `json:"apiVersion" yaml:"apiVersion"`
	Kind       string          `json:"kind" yaml:"kind"`
	Metadata   Metadata        `json:"metadata" yaml:"metadata"`
	Spec       InvariantSpec   `json:"spec" yaml:"spec"`
	Status     InvariantStatus `json:"status,omitzero" yaml:"status,omitempty"`
}

// InvariantSpec is the sentence, in exactly one of its forms, and who answers for
// it.
type InvariantSpec struct {
	Description string   `json:"description,omitempty" yaml:"description,omitempty"`
	Owner       string   `json:"owner,omitempty" yaml:"owner,omitempty"`
	Links       []string `json:"links,omitempty" yaml:"links,omitempty"`
	Severity    string   `json:"severity,omitempty" yaml:"severity,omitempty"` // deny (the default), warn or audit
	// Adopt lets admission take the invariant although it does not hold today.
	Adopt bool `json:"adopt,omitempty" yaml:"adopt,omitempty"`

	Never    *Traffic  `json:"never,omitempty" yaml:"never,omitempty"`       // no such connection is allowed
	Always   *Traffic  `json:"always,omitempty" yaml:"always,omitempty"`     // every such connection is
	Only     *Only     `json:"only,omitempty" yaml:"only,omitempty"`         // nobody else reaches, or is reached
	Isolated *Isolated `json:"isolated,omitempty" yaml:"isolated,omitempty"` // policies deny by default
	Exists   *Traffic  `json:"exists,omitempty" yaml:"exists,omitempty"`     // at least one such connection is allowed
	CEL      string    `json:"cel,omitempty" yaml:"cel,omitempty"`           // true, or an empty list of what breaks it
	Rego     string    `json:"rego,omitempty" yaml:"rego,omitempty"`         // a module whose deny is an empty set

	Waivers []Waiver `json:"waivers,omitempty" yaml:"waivers,omitempty"`
}

// Traffic is connections from any of From to any of To on any of Ports; without
// ports, on any of TCP, UDP and SCTP.
type Traffic struct {
	From  []Peer `json:"from" yaml:"from"`
	To    []Peer `json:"to" yaml:"to"`
	Ports []Port `json:"ports,omitempty" yaml:"ports,omitempty"`
}

// Only is traffic that nobody else takes part in: but From none reaches To, or,
// with the direction egress, From reaches none but To.
type Only struct {
	Traffic   `json:",inline" yaml:",inline"`
	Direction string `json:"direction,omitempty" yaml:"direction,omitempty"` // ingress (the default) or egress
}

// Isolated is pods each of which some policy must isolate, so that what no rule
// allows is denied.
type Isolated struct {
	Pods       []Peer   `json:"pods" yaml:"pods"`
	Directions []string `json:"directions,omitempty" yaml:"directions,omitempty"` // both where none is given
}

// Peer describes pods (NamespaceSelector, PodSelector and ServiceAccounts
// together), or in one other way addresses, nodes, or anyone; Not takes out of
// that whom it describes.
type Peer struct {
	PlainPeer `json:",inline" yaml:",inline"`
	Not       *PlainPeer `json:"not,omitempty" yaml:"not,omitempty"`
}

// PlainPeer is a Peer without exceptions.
type PlainPeer struct {
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty" yaml:"namespaceSelector,omitempty"`
	PodSelector       *LabelSelector `json:"podSelector,omitempty" yaml:"podSelector,omitempty"`
	ServiceAccounts   []string       `json:"serviceAccounts,omitempty" yaml:"serviceAccounts,omitempty"`
	CIDR              string         `json:"cidr,omitempty" yaml:"cidr,omitempty"`       // those of its addresses that are outside
	Except            []string       `json:"except,omitempty" yaml:"except,omitempty"`   // parts of CIDR that are not meant
	Outside           bool           `json:"outside,omitempty" yaml:"outside,omitempty"` // addresses that are no pod and no node
	Set               string         `json:"set,omitempty" yaml:"set,omitempty"`         // namespace/name, or a global one's name
	Nodes             *LabelSelector `json:"nodes,omitempty" yaml:"nodes,omitempty"`     // and the pods on their network
	Anyone            bool           `json:"anyone,omitempty" yaml:"anyone,omitempty"`   // every pod, and all outside
}

// LabelSelector is Kubernetes' own.
type LabelSelector struct {
	MatchLabels      map[string]string  `json:"matchLabels,omitempty" yaml:"matchLabels,omitempty"`
	MatchExpressions []LabelRequirement `json:"matchExpressions,omitempty" yaml:"matchExpressions,omitempty"`
}

// LabelRequirement is one condition on a label.
type LabelRequirement struct {
	Key      string   `json:"key" yaml:"key"`
	Operator string   `json:"operator" yaml:"operator"` // In, NotIn, Exists or DoesNotExist
	Values   []string `json:"values,omitempty" yaml:"values,omitempty"`
}

// Port is ports as weir explain takes them. A number is written as one.
type Port string

// MarshalJSON writes a number as a number.
func (p Port) MarshalJSON() ([]byte, error) {
	if n, err := strconv.ParseUint(string(p), 10, 16); err == nil {
		return strconv.AppendUint(nil, n, 10), nil
	}
	return json.Marshal(string(p))
}

// UnmarshalJSON reads a number or a text.
func (p *Port) UnmarshalJSON(text []byte) error {
	var value any
	if err := json.Unmarshal(text, &value); err != nil {
		return err
	}
	switch v := value.(type) {
	case float64:
		*p = Port(text)
	case string:
		*p = Port(v)
	default:
		return fmt.Errorf("port %s is neither a number nor a text", text)
	}
	return nil
}

// Waiver forgives what breaks an invariant, until the end of a day in UTC: all of
// it, or what is between From and To.
type Waiver struct {
	Reason string `json:"reason" yaml:"reason"`
	Owner  string `json:"owner" yaml:"owner"`
	Until  string `json:"until" yaml:"until"` // as 2027-01-31
	From   []Peer `json:"from,omitempty" yaml:"from,omitempty"`
	To     []Peer `json:"to,omitempty" yaml:"to,omitempty"`
}

// InvariantStatus is what was found at the last evaluation.
type InvariantStatus struct {
	ObservedGeneration int64 `json:"observedGeneration,omitempty" yaml:"observedGeneration,omitempty"`
	// LastHandledReconcileAt is the last value of reconcile.fluxcd.io/requestedAt that
	// was answered.
	LastHandledReconcileAt string `json:"lastHandledReconcileAt,omitempty" yaml:"lastHandledReconcileAt,omitempty"`

	Conditions    []Condition `json:"conditions,omitempty" yaml:"conditions,omitempty"`
	State         string      `json:"state,omitempty" yaml:"state,omitempty"` // holds, broken, unknown, waived or invalid
	Message       string      `json:"message,omitempty" yaml:"message,omitempty"`
	LastEvaluated string      `json:"lastEvaluated,omitempty" yaml:"lastEvaluated,omitempty"` // RFC 3339
	// Broken is how many pairs break it, Waived how many of them are forgiven.
	Broken          int64            `json:"broken,omitempty" yaml:"broken,omitempty"`
	Waived          int64            `json:"waived,omitempty" yaml:"waived,omitempty"`
	Counterexamples []Counterexample `json:"counterexamples,omitempty" yaml:"counterexamples,omitempty"`
}

// Counterexample is one connection, or pod, that breaks an invariant.
type Counterexample struct {
	From    string `json:"from,omitempty" yaml:"from,omitempty"`
	To      string `json:"to,omitempty" yaml:"to,omitempty"`
	Port    string `json:"port,omitempty" yaml:"port,omitempty"` // as TCP/5432
	Because string `json:"because,omitempty" yaml:"because,omitempty"`
	// Policy is the kind and name of the policy whose rule decides, At where that
	// rule stands.
	Policy string `json:"policy,omitempty" yaml:"policy,omitempty"`
	At     string `json:"at,omitempty" yaml:"at,omitempty"`
	Pairs  int64  `json:"pairs,omitempty" yaml:"pairs,omitempty"` // that are decided like this one
}

// Condition is Kubernetes' own.
type Condition struct {
	Type               string `json:"type" yaml:"type"`
	Status             string `json:"status" yaml:"status"` // True, False or Unknown
	ObservedGeneration int64  `json:"observedGeneration,omitempty" yaml:"observedGeneration,omitempty"`
	LastTransitionTime string `json:"lastTransitionTime" yaml:"lastTransitionTime"` // RFC 3339
	Reason             string `json:"reason" yaml:"reason"`
	Message            string `json:"message" yaml:"message"`
}
