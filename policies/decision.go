package policies

import (
	"fmt"
	"net/netip"

	"github.com/weir-policy/weir/policies/netset"
)

// Verdict is what becomes of a connection.
type Verdict uint8

// The zero Verdict is Undecided, so a forgotten decision can never allow.
// Unknown is an answer: it comes with what was missing.
const (
	Undecided Verdict = iota
	Allow
	Deny
	Unknown
)

var verdictNames = [...]string{"undecided", "allow", "deny", "unknown"}

func (v Verdict) String() string { return verdictNames[v] }

// MarshalText writes the verdict's name.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads a verdict's name.
func (v *Verdict) UnmarshalText(text []byte) error {
	for i, name := range verdictNames {
		if i > 0 && name == string(text) {
			*v = Verdict(i)
			return nil
		}
	}
	return fmt.Errorf("verdict %q is none of allow, deny, unknown", text)
}

// Peer is one end of a connection as answers name it: a workload (Name and Kind
// with its Namespace), one of its pods when Pod is set, a node, or addresses
// outside.
type Peer struct {
	Namespace string         `json:"namespace,omitempty"`
	Name      string         `json:"name,omitempty"`
	Kind      string         `json:"kind,omitempty"`
	Pod       string         `json:"pod,omitempty"`
	CIDR      *netip.Prefix  `json:"cidr,omitempty"`
	Except    []netip.Prefix `json:"except,omitempty"`
}

// Outside returns the peer that is the addresses of block.
func Outside(block netset.Block) Peer { return Peer{CIDR: &block.CIDR, Except: block.Except} }

// IsOutside reports whether the peer is addresses.
func (p Peer) IsOutside() bool { return p.CIDR != nil }

// String prints "shop/web", "shop/web (pod web-1)", "node n1" or a CIDR.
func (p Peer) String() string {
	switch {
	case p.CIDR != nil:
		return netset.Block{CIDR: *p.CIDR, Except: p.Except}.String()
	case p.Kind == "Node" && p.Name == "":
		return "the pod's own node"
	case p.Kind == "Node":
		return "node " + p.Name
	case p.Kind == "Namespace":
		return "namespace " + p.Name
	case p.Namespace == "":
		return p.Name
	}
	text := p.Namespace + "/" + p.Name
	if p.Pod != "" && p.Pod != p.Name {
		text += " (pod " + p.Pod + ")"
	}
	return text
}

// Decision is a verdict on one connection with its reason.
type Decision struct {
	From     Peer
	To       Peer
	Protocol netset.Protocol
	Port     uint16
	// Ports is what was asked where that is more than one port.
	Ports   netset.Ports
	Verdict Verdict
	Because string // one clause, lower case, no full stop
	// Sides holds what was decided in each Direction; both are empty where no
	// policy has a say, as for a pod that talks to itself.
	Sides [2]Side
	// Families holds the verdict of each address family where they differ.
	Families map[string]Verdict
	// Parts holds a decision for each group of pods or addresses where the
	// question named several that are decided differently, or a Service.
	Parts []Decision
}

// Asked returns the ports that the decision is about.
func (d *Decision) Asked() netset.Ports {
	if !d.Ports.IsEmpty() {
		return d.Ports
	}
	return netset.PortSpan(d.Protocol, d.Port, d.Port)
}

// Side is one direction of a decision.
type Side struct {
	Verdict Verdict
	Tier    string // of the policy or tier end that decided; empty when no policy had a say
	Policy  *Ref
	Rule    *int // index of the rule in its direction; nil when the tier's end decided
	Because string
	At      Place // of the rule, or of the policy where no rule matched
	Trace   []Step
	// Hops holds, where host endpoints have a say about a pod's traffic, what the
	// pod's own policies and each of those decide, in the order in which the
	// connection meets them. It needs all of them.
	Hops []Hop
}

// Hop is what one stop on the way decides: the host endpoints of a node about
// what it forwards, or the pod's own policies where Node is empty.
type Hop struct {
	Node string
	Side
}

// Step is one rule, or one policy without rules, that was looked at.
type Step struct {
	Tier    string
	Policy  Ref
	Rule    *int
	Action  Action
	Matches Truth
	Because string
	At      Place
}

// Truth is whether something holds, as far as the input tells.
type Truth uint8

// The zero Truth is No: what nobody looked at matches nothing.
const (
	No Truth = iota
	Maybe
	Yes
)

func (t Truth) String() string { return [...]string{"no", "maybe", "yes"}[t] }

// And is Yes when both are, No when one is.
func (t Truth) And(u Truth) Truth { return min(t, u) }

// Or is Yes when one is, No when both are.
func (t Truth) Or(u Truth) Truth { return max(t, u) }

// Connection is the traffic between two peers that is allowed, and that for
// which the answer is unknown. A listing shares its peers and grants: equal ones
// are equal pointers.
type Connection struct {
	From, To *Peer
	*Grant
}

// Grant is traffic that is allowed, and traffic for which the answer is
// unknown; all other traffic is denied.
type Grant struct{ Allow, Unknown netset.Ports }
