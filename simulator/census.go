package simulator

import (
	"errors"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Census is what there is in a recording.
type Census struct {
	Records uint64
	// Total counts connections that both sides report once, which is not known
	// where TooMany is set. Its times are those of all records.
	Total       Counts
	TooMany     bool
	WithoutTime uint64
	Formats     map[string]uint64 // records, by Origin.Format
	Reporters   map[policies.Reporter]uint64
	Verdicts    map[policies.Verdict]uint64
	Windows     map[time.Duration]uint64 // the first few that records aggregate
	Ends        EndCensus

	ledger      *ledger
	first, last time.Time
}

// EndCensus is what records say of their ends, two of each record.
type EndCensus struct {
	Pods                        uint64 // with a namespace
	Nodes, Outside, AddressOnly uint64
	Nothing                     uint64 // of which nothing is said
	// Of the pods:
	Named, Workloads                      uint64 // with a pod's name, with a workload
	LabelsComplete, LabelsPartial, NoneOf uint64 // by how far labels are there
}

// NewCensus returns a Census of nothing that tells at most so many connections
// apart.
func NewCensus(most int) *Census {
	return &Census{
		Formats: map[string]uint64{}, Reporters: map[policies.Reporter]uint64{}, Verdicts: map[policies.Verdict]uint64{},
		Windows: map[time.Duration]uint64{}, ledger: newLedger(most, false),
	}
}

const mostWindows = 16

// Add counts a flow.
func (c *Census) Add(f *policies.Flow) {
	c.Records++
	c.Formats[f.Origin.Format]++
	c.Reporters[f.Origin.Reporter]++
	verdict := f.Verdict
	if verdict == policies.Undecided {
		verdict = policies.Unknown
	}
	c.Verdicts[verdict]++
	if _, known := c.Windows[f.Origin.Window]; known || len(c.Windows) < mostWindows {
		c.Windows[f.Origin.Window]++
	}
	if f.First.IsZero() {
		c.WithoutTime++
	}
	c.first, c.last = earliest(c.first, f.First), latest(c.last, f.Last)
	c.Ends.add(&f.From)
	c.Ends.add(&f.To)
	if c.ledger == nil {
		return
	}
	if tooMany := (*TooManyError)(nil); errors.As(c.ledger.add("", f), &tooMany) {
		c.ledger, c.TooMany = nil, true
	}
}

// Close fills in the Total.
func (c *Census) Close() {
	if c.ledger != nil {
		c.ledger.each(func(_ connectionKey, _ report, counts Counts) { c.Total.join(counts) })
		c.ledger = nil
	}
	c.Total.First, c.Total.Last = c.first, c.last
}

func (c *EndCensus) add(p *policies.FlowPeer) {
	switch {
	case p.Host || p.OwnNode:
		c.Nodes++
	case isOutside(p):
		c.Outside++
	case p.Namespace != "":
		c.addPod(p)
	case p.Address.IsValid():
		c.AddressOnly++
	default:
		c.Nothing++
	}
}

func (c *EndCensus) addPod(p *policies.FlowPeer) {
	c.Pods++
	if p.Pod != "" {
		c.Named++
	}
	if len(p.Workloads) > 0 {
		c.Workloads++
	}
	switch {
	case p.Labels == nil:
		c.NoneOf++
	case p.LabelsPartial:
		c.LabelsPartial++
	default:
		c.LabelsComplete++
	}
}
