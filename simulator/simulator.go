// Package simulator replays recorded flows under one or two policy sets.
package simulator

import (
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Outcome is what a change does to a recorded flow.
type Outcome string

const (
	Stays     Outcome = "stays"   // decided alike before and after, and as recorded
	Breaks    Outcome = "breaks"  // recorded allowed, allowed before, denied after
	Opens     Outcome = "opens"   // recorded denied, denied before, allowed after
	Drifts    Outcome = "drifts"  // the recorded verdict is not what the model before the change says
	Undecided Outcome = "unknown" // the answer before or after is unknown, or the record carries no verdict
)

// Row is recorded flows between two workloads on one port that share an outcome.
type Row struct {
	Outcome                 Outcome
	From, To                policies.Peer
	Protocol                netset.Protocol
	Port                    uint16
	Recorded, Before, After policies.Verdict
	Flows, Bytes            uint64
	First, Last             time.Time
	Example                 policies.Flow     // one record
	Decision                policies.Decision // after the change, with rule and place; zero for Stays
	Cause                   string            // for Undecided: what was missing
}

// Cause counts flows for one reason.
type Cause struct {
	Text  string
	Flows uint64
}

// Result is what a replay found. Every flow read is counted in exactly one of
// Stays, Breaks, Opens, Drifts, Undecided or Unresolved.
type Result struct {
	Flows       uint64 // flows read, aggregates counted by what they stand for
	Bytes       uint64
	First, Last time.Time
	Outcomes    map[Outcome]uint64
	Explained   uint64  // recorded verdict equals the base model's
	Unresolved  uint64  // an end is not in the world
	Questions   int     // distinct (from, to, protocol, port) decided
	Rows        []Row   // worst first, then by flows
	Causes      []Cause // of Unresolved and Undecided, most flows first
}

// Fidelity is the share of flows that the base model explains, from 0 to 1.
func (r *Result) Fidelity() float64 {
	if r.Flows == 0 {
		return 0
	}
	return float64(r.Explained) / float64(r.Flows)
}
