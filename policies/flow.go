package policies

import (
	"net/netip"
	"time"

	"github.com/weir-policy/weir/policies/netset"
)

// Flow is one recorded connection, or an aggregate of them, in the direction in
// which it was opened.
type Flow struct {
	First, Last time.Time // when it was seen
	From, To    FlowPeer
	Protocol    netset.Protocol
	// Port is the destination port; for ICMP it is type<<8 | code.
	Port    uint16
	Verdict Verdict // as recorded: Allow, Deny, or Unknown when the record has none
	// EgressOnly is set when an Allow is that of the source's side alone: the
	// destination had not yet judged the connection when it was recorded.
	EgressOnly bool
	Count      uint64 // connections or events that the record stands for, at least 1
	Bytes      uint64 // 0 when not recorded
	Record     Place  // where the record stands: file and line
}

// FlowPeer is one end of a flow, as far as the record tells.
type FlowPeer struct {
	Namespace string
	Pod       string
	Workloads []Ref // the record's own claim, outermost owner first
	// Labels are the pod's, without the recorder's own prefixes. They are
	// complete unless LabelsPartial is set.
	Labels        map[string]string
	LabelsPartial bool
	Address       netip.Addr
	// Outside is set when the recorder says that the peer is not of the cluster.
	Outside bool
	// Host is set when the recorder says that the peer is a node, and OwnNode
	// when it says that it is the node of the pod at the other end.
	Host, OwnNode bool
	Names         []string // DNS names, for people
}
