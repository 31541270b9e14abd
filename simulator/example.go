package simulator

import (
	"cmp"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// example is a flow, in a fourth of the space: what many say is kept once, and what
// only a record says where there is one.
type example struct {
	seen          span
	from, to      *recorded
	addresses     *[2]netip.Addr // nil where there are none
	count, bytes  uint64
	protocol      netset.Protocol
	port          uint16
	verdict       policies.Verdict
	egressOnly    bool
	reporter      policies.Reporter
	sourcePort    uint16
	onlyOfRecords *recordOnly
	onlyOfFiles   *fileOnly
}

// recordOnly is what only a record says, and no tuple.
type recordOnly struct {
	packets, replyBytes, replyPackets uint64
	hits                              []policies.Hit
	format                            string
	window                            time.Duration
}

// fileOnly is what few records say.
type fileOnly struct {
	names [2][]string
	place policies.Place
}

// exampleOf keeps a flow whose ends these are.
func exampleOf(f *policies.Flow, from, to *recorded) *example {
	e := &example{
		seen: spanOf(f.First, f.Last), from: from, to: to, count: f.Count, bytes: f.Bytes,
		protocol: f.Protocol, port: f.Port, verdict: f.Verdict, egressOnly: f.EgressOnly, reporter: f.Origin.Reporter, sourcePort: f.SourcePort,
	}
	if f.From.Address.IsValid() || f.To.Address.IsValid() {
		e.addresses = &[2]netip.Addr{f.From.Address, f.To.Address}
	}
	if f.Hits != nil || f.Packets|f.ReplyBytes|f.ReplyPackets > 0 || f.Origin.Format != "" || f.Origin.Window != 0 {
		e.onlyOfRecords = &recordOnly{f.Packets, f.ReplyBytes, f.ReplyPackets, f.Hits, f.Origin.Format, f.Origin.Window}
	}
	if f.From.Names != nil || f.To.Names != nil || f.Record != (policies.Place{}) {
		e.onlyOfFiles = &fileOnly{[2][]string{f.From.Names, f.To.Names}, f.Record}
	}
	return e
}

// flow returns the flow that was kept.
func (e *example) flow() policies.Flow {
	f := policies.Flow{
		First: e.seen.First(), Last: e.seen.Last(), From: e.from.peer, To: e.to.peer, Count: e.count, Bytes: e.bytes,
		Protocol: e.protocol, Port: e.port, Verdict: e.verdict, EgressOnly: e.egressOnly, Origin: policies.Origin{Reporter: e.reporter}, SourcePort: e.sourcePort,
	}
	f.From.Address, f.To.Address = e.address(0), e.address(1)
	if more := e.onlyOfRecords; more != nil {
		f.Packets, f.ReplyBytes, f.ReplyPackets, f.Hits = more.packets, more.replyBytes, more.replyPackets, more.hits
		f.Origin.Format, f.Origin.Window = more.format, more.window
	}
	if more := e.onlyOfFiles; more != nil {
		f.From.Names, f.To.Names, f.Record = more.names[0], more.names[1], more.place
	}
	return f
}

// address returns that of the source, or else of the target.
func (e *example) address(end int) (a netip.Addr) {
	if e.addresses != nil {
		a = e.addresses[end]
	}
	return a
}

func (e *example) record() (at policies.Place) {
	if e.onlyOfFiles != nil {
		at = e.onlyOfFiles.place
	}
	return at
}

// compareExamples orders records by time and place; those without a time come
// last. What is still equal is told apart by all that it says.
func compareExamples(a, b *example) int {
	first, other := a.seen.First(), b.seen.First()
	if first.IsZero() != other.IsZero() {
		if first.IsZero() {
			return 1
		}
		return -1
	}
	if c := cmp.Or(first.Compare(other), a.record().Compare(b.record())); c != 0 || a == b {
		return c
	}
	return strings.Compare(fmt.Sprintf("%+v", a.flow()), fmt.Sprintf("%+v", b.flow()))
}

// keep keeps a flow, the ends of which these are, if it is the earliest. Its maps
// and slices may change, but for names and policies.
func (t *tally) keep(f *policies.Flow, from, to *recorded) {
	if t.example != nil {
		if first := t.example.seen.First(); !first.IsZero() && (f.First.IsZero() || f.First.After(first)) {
			return
		}
	}
	if e := exampleOf(f, from, to); t.example == nil || compareExamples(e, t.example) < 0 {
		t.example = e
	}
}
