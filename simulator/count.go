package simulator

import (
	"cmp"
	"fmt"
	"maps"
	"math/bits"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Counts is what some flows come to. Connections that both sides report are
// counted once.
type Counts struct {
	Flows               uint64
	Bytes, Packets      uint64 // from the end that opened the connection
	ReplyBytes, Replies uint64 // bytes and packets back to it
	First, Last         time.Time
}

func (c *Counts) add(f *policies.Flow) {
	c.Flows += max(1, f.Count)
	c.Bytes, c.Packets = c.Bytes+f.Bytes, c.Packets+f.Packets
	c.ReplyBytes, c.Replies = c.ReplyBytes+f.ReplyBytes, c.Replies+f.ReplyPackets
	c.First, c.Last = earliest(c.First, f.First), latest(c.Last, f.Last)
}

// without returns what is left when some of the flows are not counted, which had
// their share of the bytes.
func (c Counts) without(flows uint64) Counts {
	for _, n := range []*uint64{&c.Bytes, &c.Packets, &c.ReplyBytes, &c.Replies} {
		high, low := bits.Mul64(*n, flows)
		share, _ := bits.Div64(high, low, c.Flows)
		*n -= share
	}
	c.Flows -= flows
	return c
}

func (c *Counts) join(d Counts) {
	if d.Flows == 0 {
		return
	}
	c.Flows += d.Flows
	c.Bytes, c.Packets = c.Bytes+d.Bytes, c.Packets+d.Packets
	c.ReplyBytes, c.Replies = c.ReplyBytes+d.ReplyBytes, c.Replies+d.Replies
	c.First, c.Last = earliest(c.First, d.First), latest(c.Last, d.Last)
}

// MaxConnections bounds how many different connections are told apart at a time:
// a group, two ends and a port. Each takes a few hundred bytes.
const MaxConnections = 500_000

// TooManyError says that flows are of more different connections than can be told
// apart at a time.
type TooManyError struct{ Most int }

func (e *TooManyError) Error() string {
	return fmt.Sprintf("the flows are of more than %d different connections; choose some by --since, --from, --to, --peer or --port, or count them by fewer keys", e.Most)
}

// ledger counts flows by connection, so that both sides' reports of one can be
// found, and by group.
type ledger struct {
	most        int
	hours       bool // reports of different hours are kept apart
	connections map[connectionKey]*connection
	last        *connection // most records follow one of their kind
	lastKey     connectionKey
}

// connectionKey is what two reports of one connection have in common. Workloads
// go by namespace and name, for not every record says the kind.
type connectionKey struct {
	group    string
	from, to endName
	protocol netset.Protocol
	port     uint16
}

type connection struct {
	pairing pairing
	counts  map[report]*Counts
}

// report is how reports of one connection differ.
type report struct {
	verdict policies.Verdict
	side    side  // departed or not
	hour    int64 // since 1970, where hours are kept apart
}

func newLedger(most int, hours bool) *ledger {
	return &ledger{most: most, hours: hours, connections: map[connectionKey]*connection{}}
}

// add counts a flow to a group.
func (l *ledger) add(group string, f *policies.Flow) error {
	key := connectionKey{group, nameOf(&f.From), nameOf(&f.To), f.Protocol, f.Port}
	c := l.last
	if c == nil || key != l.lastKey {
		if c = l.connections[key]; c == nil {
			if len(l.connections) >= l.most {
				return &TooManyError{l.most}
			}
			c = &connection{counts: map[report]*Counts{}}
			l.connections[key] = c
		}
		l.last, l.lastKey = c, key
	}
	r := report{verdict: cmp.Or(f.Verdict, policies.Unknown), side: neither}
	if l.hours {
		r.hour = floorDiv(f.First.Unix(), 3600)
	}
	if s := sideOf(r.verdict, f.EgressOnly, f.Origin.Reporter); mayPair(f) {
		c.pairing.add(f.First, s, max(1, f.Count))
		if s == departed {
			r.side = departed
		}
	}
	if c.counts[r] == nil {
		c.counts[r] = &Counts{}
	}
	c.counts[r].add(f)
	return nil
}

// mayPair reports whether both ends of a flow have a recorder: nobody reports for
// an end that is not of the recorder's cluster, and a pod and its own node have
// one recorder.
func mayPair(f *policies.Flow) bool {
	return !isOutside(&f.From) && !isOutside(&f.To) && !f.From.OwnNode && !f.To.OwnNode
}

// each calls yield for all that was counted of each connection, reports of one
// flow counted once.
func (l *ledger) each(yield func(connectionKey, report, Counts)) {
	for key, c := range l.connections {
		matched := map[int64]uint64{}
		c.pairing.matches(c.pairing.days, func(hour int64, flows uint64) {
			if !l.hours {
				hour = 0
			}
			matched[hour] += flows
		})
		for _, r := range slices.SortedFunc(maps.Keys(c.counts), report.compare) {
			counts := *c.counts[r]
			if twins := min(matched[r.hour], counts.Flows); r.side == departed && twins > 0 {
				counts = counts.without(twins)
				matched[r.hour] -= twins
			}
			if counts.Flows > 0 {
				yield(key, r, counts)
			}
		}
	}
}

func (r report) compare(s report) int {
	return cmp.Or(cmp.Compare(r.hour, s.hour), cmp.Compare(r.verdict, s.verdict), cmp.Compare(r.side, s.side))
}

// endName is what an end is told apart by: a workload by its name, another end
// as Where says.
type endName struct{ namespace, name string }

func nameOf(p *policies.FlowPeer) endName {
	if isNamed(p) {
		if w := Owner(p); w.Name != "" {
			return endName{p.Namespace, w.Name}
		}
		return endName{p.Namespace, ""}
	}
	return endName{"", nameless(p)}
}

// What ends are called that have no name. No object of Kubernetes can have these.
const (
	Outside     = "(outside)"      // of which the recorder says that it is not of the cluster
	OnNode      = "(node)"         // a node
	NotRecorded = "(not recorded)" // of which the record says nothing
)

// nameless returns what an end is called that has no name in the cluster: outside
// the network set that the recorder says it is of.
func nameless(p *policies.FlowPeer) string {
	switch {
	case p.Host || p.OwnNode:
		return OnNode
	case p.Set.Name != "":
		return p.Set.Kind + "/" + p.Set.String()
	case isOutside(p):
		return Outside
	case p.Address.IsValid():
		return plain(p.Address).String()
	}
	return NotRecorded
}
