package flowrow

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Range is a span of time, from Since, included, to Until, excluded. A zero time
// is no bound. A flow is of the time at which it was first seen.
type Range struct{ Since, Until time.Time }

// Micros returns the bounds as columns have them.
func (r Range) Micros() (since, until int64) {
	since, until = -1<<63, 1<<63-1
	if !r.Since.IsZero() {
		since = r.Since.UnixMicro()
	}
	if !r.Until.IsZero() {
		until = r.Until.UnixMicro()
	}
	return since, until
}

// Filter says which flows are asked for, and in which order. The zero Filter is
// all of them, the earliest first.
type Filter struct {
	Range
	From, To, Either Who // what the ends are; Either is what one of them is at least
	Protocol         netset.Protocol
	FirstPort        uint16 // of the destination
	LastPort         uint16 // no bound where it is 0
	Verdicts         []policies.Verdict
	Policy           policies.Ref // one of whose rules took part; of any kind where it names none
	Order            Order
	Descending       bool
	Offset, Limit    int // no limit where it is 0
}

// Who is what an end of a flow must be: all that is not zero.
type Who struct {
	Namespace  string
	Kind, Name string // of the workload, or of any kind
	Pod        string
	Labels     map[string]string // those that it has among others
	Addresses  netip.Prefix
}

// Order is by what flows are sorted.
type Order uint8

// Flows that are equal in that are in order of time.
const (
	ByTime Order = iota
	ByBytes
	ByFlows
)

// Matches reports whether a flow is asked for.
func (f *Filter) Matches(flow *policies.Flow) bool {
	since, until := f.Micros()
	at := flow.First.UnixMicro()
	last := f.LastPort
	if last == 0 {
		last = 1<<16 - 1
	}
	return since <= at && at < until &&
		f.From.matches(&flow.From) && f.To.matches(&flow.To) &&
		(f.Either.matches(&flow.From) || f.Either.matches(&flow.To)) &&
		(f.Protocol == 0 || f.Protocol == flow.Protocol) &&
		f.FirstPort <= flow.Port && flow.Port <= last &&
		(len(f.Verdicts) == 0 || slices.Contains(f.Verdicts, flow.Verdict)) &&
		(f.Policy == (policies.Ref{}) || slices.ContainsFunc(flow.Hits, func(h policies.Hit) bool { return f.namesPolicy(h.Policy) }))
}

func (f *Filter) namesPolicy(r policies.Ref) bool {
	if f.Policy.Kind == "" {
		return r.Namespace == f.Policy.Namespace && r.Name == f.Policy.Name
	}
	return r == f.Policy
}

func (w *Who) matches(p *policies.FlowPeer) bool {
	var workload policies.Ref
	if len(p.Workloads) > 0 {
		workload = p.Workloads[0]
	}
	for key, value := range w.Labels {
		if own, ok := p.Labels[key]; !ok || own != value {
			return false
		}
	}
	return (w.Namespace == "" || w.Namespace == p.Namespace) &&
		(w.Kind == "" || w.Kind == workload.Kind) && (w.Name == "" || w.Name == workload.Name) &&
		(w.Pod == "" || w.Pod == p.Pod) &&
		(!w.Addresses.IsValid() || p.Address.IsValid() && w.Addresses.Contains(p.Address))
}

// Compare orders flows as the filter says.
func (f *Filter) Compare(a, b *policies.Flow) int {
	c := 0
	switch f.Order {
	case ByBytes:
		c = cmp.Compare(a.Bytes, b.Bytes)
	case ByFlows:
		c = cmp.Compare(a.Count, b.Count)
	case ByTime:
		c = a.First.Compare(b.First)
	}
	if f.Descending {
		c = -c
	}
	return cmp.Or(c, a.First.Compare(b.First))
}
