package policies

import (
	"fmt"
	"net/netip"
	"slices"
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
	// Started and Ended are how many of those connections began and ended in the time of
	// the record; 0 when not recorded. A connection that lasts longer than one record is
	// counted by each.
	Started, Ended uint64
	// SourcePort is that of the end that opened the connection; 0 when the record
	// stands for several, or says none.
	SourcePort uint16
	// Bytes and Packets went from From to To, ReplyBytes and ReplyPackets back; 0
	// when not recorded.
	Bytes, Packets, ReplyBytes, ReplyPackets uint64
	Hits                                     []Hit // the rules that the recorder says took part, in order
	Origin                                   Origin
	Record                                   Place // where the record stands: file and line
}

// Origin is who recorded a flow, and how.
type Origin struct {
	Format   string        // as --flow-format names it; empty for one made in memory
	Reporter Reporter      // whose side of the connection was looked at
	Window   time.Duration // the time that the record aggregates; 0 for a single event
	Node     string        // whose recorder it was; empty when not recorded
	// Generation is the number of the node's policies that were in force, as it counts
	// them; 0 when not recorded.
	Generation uint64
}

// Reporter is the place on a connection's way at which it was recorded.
type Reporter uint8

// Where both ends' nodes report, there are two records of one connection: one
// of the SourceSide and one of the DestinationSide.
const (
	UnknownReporter Reporter = iota
	SourceSide               // the node or interface of From
	DestinationSide          // the node or interface of To
	OnTheWay                 // a node, gateway or router between the two
)

var reporters = [...]string{"", "source", "destination", "way"}

func (r Reporter) String() string { return reporters[r] }

// ParseReporter reads what String prints.
func ParseReporter(text string) (Reporter, error) {
	if i := slices.Index(reporters[:], text); i >= 0 {
		return Reporter(i), nil
	}
	return 0, fmt.Errorf("reporter %q is none of source, destination, way", text)
}

// Hit is one rule of a recorded decision, in the recorder's own words.
type Hit struct {
	Tier string
	// Policy is without a kind when the recorder says none. At the end of a tier it
	// is the one that made the tier concern the traffic, zero when not recorded.
	Policy Ref
	Action Action
	Rule   int  // counted from 0; EndOfTier or UnknownRule
	Staged bool // evaluated only, not enforced
}

// What stands in for the number of a rule.
const (
	EndOfTier   = -1 // no rule matched: what happens at the end of the tier
	UnknownRule = -2
)

// FlowPeer is one end of a flow, as far as the record tells.
type FlowPeer struct {
	Namespace string
	Pod       string
	PodPrefix string // that of the pods' names, with its "-", where the record stands for several
	Workloads []Ref  // the record's own claim, outermost owner first
	// Labels are the pod's, without the recorder's own prefixes. They are
	// complete unless LabelsPartial is set.
	Labels        map[string]string
	LabelsPartial bool
	Address       netip.Addr
	// Set is the NetworkSet or GlobalNetworkSet that the recorder says the
	// address is of.
	Set Ref
	// Network is all that is known of an address that was not kept.
	Network Network
	// Outside is set when the recorder says that the peer is not of the cluster.
	Outside bool
	// Host is set when the recorder says that the peer is a node, and OwnNode
	// when it says that it is the node of the pod at the other end.
	Host, OwnNode bool
	Names         []string // DNS names, for people
}

// Network is a kind of address.
type Network uint8

// An address of the PrivateNetwork is one of RFC 1918, of RFC 4193 or of a
// link; all others are of the PublicNetwork.
const (
	AnyNetwork Network = iota
	PublicNetwork
	PrivateNetwork
)

var networks = [...]string{"", "public", "private"}

func (n Network) String() string { return networks[n] }

// ParseNetwork reads what String prints.
func ParseNetwork(text string) (Network, error) {
	if i := slices.Index(networks[:], text); i >= 0 {
		return Network(i), nil
	}
	return 0, fmt.Errorf("network %q is none of public, private", text)
}
