// Package reach.
package reach

import (
	"iter"
	"net/netip"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Options are choices on which engines differ.
type Options struct {
	// IgnorePodBlocks: ipBlock peers match no pod or node, as in Cilium.
	IgnorePodBlocks bool
}

// Judge answers who can talk to whom in one model. It is immutable and safe for concurrent use.
type Judge struct{}

// New returns the judge of m.
func New(m *policies.Model, o Options) *Judge { panic("api") }

// Pair returns judges of two models that share their classes, so that they can be compared fast.
func Pair(base, head *policies.Model, o Options) (b, h *Judge) { panic("api") }

// Model returns the model that is judged.
func (j *Judge) Model() *policies.Model { panic("api") }

// End is one end of a connection. It is comparable, so it can be a map key; it means something only to judges of the same model.
type End struct {
	pod  int32
	node int32
	addr netip.Addr
}

// Pod returns the end that is the i-th pod of the model.
func (j *Judge) Pod(i int) End { panic("api") }

// Node returns the end that is the i-th node of the model.
func (j *Judge) Node(i int) End { panic("api") }

// At returns the end that has an address: a pod of the model, a node, or an address outside.
func (j *Judge) At(a netip.Addr) End { panic("api") }

// Peer names an end as answers do (workload level: Pod set only for a real pod's name).
func (j *Judge) Peer(e End) policies.Peer { panic("api") }

// Verdict decides one connection. It is the same verdict that Decide explains, in under a microsecond.
func (j *Judge) Verdict(from, to End, p netset.Protocol, port uint16) policies.Verdict {
	panic("api")
}

// Decide decides one connection with its full reason.
func (j *Judge) Decide(from, to End, p netset.Protocol, port uint16) policies.Decision {
	panic("api")
}

// Grouping says what one row of a listing stands for.
type Grouping string

const (
	ByPod       Grouping = "pod"
	ByWorkload  Grouping = "workload"
	ByNamespace Grouping = "namespace"
)

// Connections yields every connection that is allowed, or for which the answer is unknown, sorted by from and to; a pod to itself is left out.
func (j *Judge) Connections(by Grouping) iter.Seq[policies.Connection] { panic("api") }
