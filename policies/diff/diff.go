// Package diff says what two policy sets decide differently.
package diff

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Change is what two models decide differently.
type Change struct {
	// Differences hold every pair of workloads, or of a workload and addresses
	// outside, that is decided differently, sorted by From and To.
	Differences []Difference
	Groups      []Group // the same differences together, worst first
	// Workloads that only one of the worlds has.
	NewWorkloads, GoneWorkloads []policies.Ref
	Policies                    []PolicyChange
	Warnings                    []policies.Warning // of both models, each once
}

// Difference is traffic from some pod of one peer to some pod of another that
// is decided differently. Peers are shared: equal ones are equal pointers.
type Difference struct {
	From, To      *policies.Peer
	Ports         netset.Ports
	Before, After policies.Verdict
}

// Group is differences alike: from everyone in From to everyone in To on Ports,
// save from a pod to itself.
type Group struct {
	From, To      []policies.Peer // sorted; either all workloads or all addresses
	Ports         netset.Ports
	Before, After policies.Verdict
	Pairs         int // how many differences it stands for
	// Was and Is decide one pair of the group, before and after: on the lowest
	// port, in the name of all its ports. One is zero where its model lacks one
	// of the ends.
	Was, Is policies.Decision
}

// PolicyChange names a policy that was edited.
type PolicyChange struct {
	Ref  policies.Ref
	What string         // "added", "removed" or "changed"
	At   policies.Place // in the head; in the base when it was removed
}

// Counts is how many pairs gained, lost, or became or ceased to be uncertain in
// some port. A pair may count in several.
type Counts struct{ Added, Removed, Unknown int }

// Count counts the differences.
func (c *Change) Count() Counts {
	var n Counts
	for _, d := range c.Differences {
		switch kindOf(d.Before, d.After) {
		case added:
			n.Added++
		case removed:
			n.Removed++
		default:
			n.Unknown++
		}
	}
	return n
}

type kind int

// In the order of how bad they are.
const (
	addedFromOutside kind = iota
	addedToOutside
	added
	uncertain
	removed
)

func kindOf(before, after policies.Verdict) kind {
	switch {
	case before == policies.Deny && after == policies.Allow:
		return added
	case before == policies.Allow && after == policies.Deny:
		return removed
	}
	return uncertain
}

// Compare compares two judges made by reach.Pair, over TCP, UDP and SCTP.
func Compare(base, head *reach.Judge) *Change {
	return compare(base, head, reach.Compare(base, head))
}

// CompareAll is Compare over every protocol.
func CompareAll(base, head *reach.Judge) *Change {
	return compare(base, head, reach.CompareAll(base, head))
}

func compare(base, head *reach.Judge, shifts iter.Seq[reach.Shift]) *Change {
	c := &Change{
		Policies: comparePolicies(base.Model().Policies, head.Model().Policies),
		Warnings: mergeWarnings(base.Model().Warnings, head.Model().Warnings),
	}
	g := grouper{rows: map[bucket]*rows{}}
	for s := range shifts {
		c.Differences = append(c.Differences, Difference{s.From, s.To, s.Ports, s.Before, s.After})
		g.add(s)
	}
	slices.SortStableFunc(c.Differences, func(a, b Difference) int {
		return cmp.Or(comparePeers(a.From, b.From), comparePeers(a.To, b.To))
	})
	c.Groups = g.groups(base, head)
	c.NewWorkloads = missing(head.Model(), base.Model())
	c.GoneWorkloads = missing(base.Model(), head.Model())
	return c
}

func comparePeers(a, b *policies.Peer) int {
	if a == b {
		return 0
	}
	if a.IsOutside() != b.IsOutside() {
		if a.IsOutside() {
			return 1
		}
		return -1
	}
	if a.IsOutside() {
		return cmp.Or(a.CIDR.Addr().Compare(b.CIDR.Addr()), cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()), strings.Compare(a.String(), b.String()))
	}
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name), strings.Compare(a.Kind, b.Kind))
}

// missing returns the workloads of one model that another lacks.
func missing(of, from *policies.Model) []policies.Ref {
	has := map[policies.Ref]bool{}
	for i := range from.Pods {
		has[from.Pods[i].Workload] = true
	}
	lacking := map[policies.Ref]bool{}
	for i := range of.Pods {
		if r := of.Pods[i].Workload; !has[r] {
			lacking[r] = true
		}
	}
	return slices.SortedFunc(maps.Keys(lacking), policies.Ref.Compare)
}

func mergeWarnings(base, head []policies.Warning) []policies.Warning {
	merged := slices.Concat(head, base)
	slices.SortFunc(merged, policies.Warning.Compare)
	return slices.Compact(merged)
}

func comparePolicies(base, head []policies.Policy) []PolicyChange {
	// Of a host endpoint there are several.
	type nth struct {
		policies.Ref
		n int
	}
	was, counts := map[nth]*policies.Policy{}, map[policies.Ref]int{}
	for i := range base {
		was[nth{base[i].Ref, counts[base[i].Ref]}] = &base[i]
		counts[base[i].Ref]++
	}
	clear(counts)
	var changes []PolicyChange
	for i := range head {
		h := &head[i]
		id := nth{h.Ref, counts[h.Ref]}
		counts[h.Ref]++
		b, had := was[id]
		switch {
		case !had:
			changes = append(changes, PolicyChange{h.Ref, "added", h.Place})
		case !b.Says(h):
			changes = append(changes, PolicyChange{h.Ref, "changed", h.Place})
		}
		delete(was, id)
	}
	for _, b := range was {
		changes = append(changes, PolicyChange{b.Ref, "removed", b.Place})
	}
	slices.SortFunc(changes, func(a, b PolicyChange) int { return a.Ref.Compare(b.Ref) })
	return slices.Compact(changes)
}
