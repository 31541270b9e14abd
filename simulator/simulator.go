// Package simulator replays recorded flows under one or two policy sets: which
// would break or open, and how far the model agrees with what was recorded.
package simulator

import (
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Outcome is what a change does to a recorded flow.
type Outcome string

// The outcomes, worst first.
const (
	Breaks    Outcome = "breaks"  // recorded allowed, allowed before, denied after
	Opens     Outcome = "opens"   // recorded denied, denied before, allowed after
	Drifts    Outcome = "drifts"  // the recorded verdict is not what the model before the change says
	Undecided Outcome = "unknown" // the answer before or after is unknown, or the record carries no verdict
	Stays     Outcome = "stays"   // decided alike before and after, and as recorded
)

// Outcomes are all of them, worst first.
var Outcomes = [...]Outcome{Breaks, Opens, Drifts, Undecided, Stays}

// Row is recorded flows between two workloads on one port that share an
// outcome. Where it is Stays, peers outside are folded into all addresses of
// their family, or of the network set or kind of network that the record names,
// and a pod's own node has no name.
type Row struct {
	Outcome  Outcome
	From, To policies.Peer // workloads; Pod is never set
	Protocol netset.Protocol
	Port     uint16
	Recorded policies.Verdict
	// Before and After are Undecided where nothing was decided: After where
	// there is one model only, both where the record says too little.
	Before, After policies.Verdict
	Flows, Bytes  uint64
	First, Last   time.Time     // zero when no record says
	Example       policies.Flow // the earliest record
	// Decision is that of the example after the change, with rule and place;
	// for Drifts before it, since that is what the record contradicts. It is
	// zero for Stays and where nothing was decided.
	Decision policies.Decision
	// Base is that of the example before the change, for Breaks and Opens: what
	// differs between the two is what the change did.
	Base  policies.Decision
	Cause string // for Undecided: what was missing
}

// Cause counts flows for one reason.
type Cause struct {
	Text  string
	Flows uint64
}

// Result is what a replay found. Every flow read is counted in exactly one of
// Outcomes, Unresolved and Paired.
type Result struct {
	Flows       uint64 // flows read, aggregates counted by what they stand for
	Paired      uint64 // flows that the other side reported too, which is what counts
	Bytes       uint64 // without those of Paired
	First, Last time.Time
	Outcomes    map[Outcome]uint64 // all five, in flows
	Explained   uint64             // flows whose recorded verdict is the base model's
	Unresolved  uint64             // flows with an end that is not in the base model's world
	Questions   int                // distinct (from, to, protocol, port) decided, addresses outside that no rule tells apart being one
	Rows        Rows
	Causes      []Cause // of Unresolved and Undecided, most flows first
}

// Counted is how many flows there were: those read but for Paired.
func (r *Result) Counted() uint64 { return r.Flows - r.Paired }

// Fidelity is the share of flows that the base model explains, from 0 to 1.
func (r *Result) Fidelity() float64 {
	if r.Counted() == 0 {
		return 0
	}
	return float64(r.Explained) / float64(r.Counted())
}
