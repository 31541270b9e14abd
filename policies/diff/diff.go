// Package diff says what two policy sets decide differently.
package diff

import (
	"iter"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Difference is traffic between two workloads (or a workload and addresses outside) that is decided differently.
// Deny -> Allow is "added", Allow -> Deny is "removed", anything with Unknown on one side is "unknown".
type Difference struct {
	From, To      policies.Peer
	Ports         netset.Ports
	Before, After policies.Verdict
}

// Group is differences alike: everyone in From to everyone in To on Ports (a pod to itself left out).
type Group struct {
	From, To      []policies.Peer // sorted
	Ports         netset.Ports
	Before, After policies.Verdict
	Pairs         int             // how many (from, to) pairs it stands for
	Example       policies.Decision // of one pair and its lowest port, under the head (or the base when it is no longer decided there); carries rule and place
	Was           policies.Decision // the same question under the base
}

// Change is what two models decide differently.
type Change struct {
	Groups []Group // worst first: opened to outside, opened, uncertain, closed
	// workloads that exist in one model only
	NewWorkloads, GoneWorkloads []policies.Ref
	// policies that were added, removed or edited
	Policies []PolicyChange
	Warnings []policies.Warning // of both models, without duplicates
}

// PolicyChange names one edited policy.
type PolicyChange struct {
	Ref  policies.Ref
	What string // "added", "removed", "changed"
	At   policies.Place // in the head; in the base when removed
}

// Differences yields every pair, sorted by From and To.
func (c *Change) Differences() iter.Seq[Difference] { panic("api") }

// Count returns how many (from, to) pairs gained, lost, or became uncertain in some port.
func (c *Change) Count() (added, removed, unknown int) { panic("api") }

// Compare compares two judges made by reach.Pair.
func Compare(base, head *reach.Judge) *Change { panic("api") }
