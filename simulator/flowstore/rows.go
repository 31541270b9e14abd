package flowstore

import (
	"cmp"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// end is one end of flows, as the columns say it.
type end struct {
	texts    flowrow.End
	identity uint64 // of what its tuples are told apart by
	peer     *policies.FlowPeer
}

// row is a flow whose texts are in a table.
type row struct {
	start, end                               int64 // in microseconds
	count                                    uint64
	bytes, packets, replyBytes, replyPackets uint64
	window                                   int64 // in microseconds
	from, to                                 uint32
	tuple                                    uint32
	hits, format                             uint32
	sourcePort                               uint16
	verdict                                  policies.Verdict
	reporter                                 policies.Reporter
	egressOnly                               bool
}

// rowSize is what a row takes in memory, with its place in an order.
const rowSize = 112

// tuple is what is decided once.
type tuple struct {
	id       uint64
	from, to uint32 // ends of any of its rows
	port     uint16
	protocol netset.Protocol
}

// table holds what rows share. Its size is that of the texts, about.
type table struct {
	ends    []end
	byTexts map[flowrow.End]uint32
	byPeer  map[peerKey]uint32
	tuples  []tuple
	byTuple map[uint64]uint32
	texts   []string // hits and formats
	byText  map[string]uint32
	hits    map[uint32][]policies.Hit
	byHits  map[*policies.Hit]uint32
	labels  map[string]map[string]string
	size    int
}

func newTable() *table {
	return &table{
		byTexts: map[flowrow.End]uint32{}, byPeer: map[peerKey]uint32{}, byTuple: map[uint64]uint32{},
		byText: map[string]uint32{}, hits: map[uint32][]policies.Hit{}, byHits: map[*policies.Hit]uint32{}, labels: map[string]map[string]string{},
	}
}

// peerKey leads to a peer that may be the same. Flows share their maps and slices,
// so that a peer is known again by those themselves, not by what is in them.
type peerKey struct {
	pod     string
	address netip.Addr
	labels  uintptr
}

// maxPeers bounds how many peers are known by their maps: those stay in memory.
const maxPeers = 1 << 16

func (t *table) peer(p *policies.FlowPeer) uint32 {
	key := peerKey{p.Pod, p.Address, reflect.ValueOf(p.Labels).Pointer()}
	if i, ok := t.byPeer[key]; ok && same(t.ends[i].peer, p) {
		return i
	}
	texts := flowrow.EndOf(p)
	i := t.end(&texts)
	if len(t.byPeer) >= maxPeers {
		clear(t.byPeer)
		for i := range t.ends {
			t.ends[i].peer = nil
		}
	}
	if t.ends[i].peer == nil {
		own := *p
		t.ends[i].peer = &own // keeps the maps, so that no others get their places
		t.byPeer[key] = i
	}
	return i
}

// same reports whether two peers share all that they have.
func same(a, b *policies.FlowPeer) bool {
	return a.Namespace == b.Namespace && a.Pod == b.Pod && a.PodPrefix == b.PodPrefix && a.Address == b.Address && a.Set == b.Set &&
		a.Network == b.Network && a.LabelsPartial == b.LabelsPartial && a.Outside == b.Outside && a.Host == b.Host && a.OwnNode == b.OwnNode &&
		len(a.Labels) == len(b.Labels) && reflect.ValueOf(a.Labels).Pointer() == reflect.ValueOf(b.Labels).Pointer() &&
		shared(a.Workloads, b.Workloads) && shared(a.Names, b.Names)
}

// shared reports whether two slices are one.
func shared[T any](a, b []T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// hitsOf returns the text of hits. It knows slices again that flows share.
func (t *table) hitsOf(hits []policies.Hit) uint32 {
	if len(hits) == 0 {
		return t.text("")
	}
	if i, ok := t.byHits[&hits[0]]; ok && len(t.hits[i]) == len(hits) && shared(t.hits[i], hits) {
		return i
	}
	i := t.text(flowrow.FormatHits(hits))
	if len(t.byHits) < maxPeers && t.hits[i] == nil {
		t.byHits[&hits[0]], t.hits[i] = i, hits
	}
	return i
}

func (t *table) end(texts *flowrow.End) uint32 {
	if i, ok := t.byTexts[*texts]; ok {
		return i
	}
	e := end{texts: *texts}
	e.identity = e.texts.Hash()
	i := uint32(len(t.ends))
	t.ends = append(t.ends, e)
	t.byTexts[*texts] = i
	t.size += 800
	for _, text := range texts {
		t.size += len(text)
	}
	return i
}

func (t *table) text(text string) uint32 {
	if i, ok := t.byText[text]; ok {
		return i
	}
	i := uint32(len(t.texts))
	t.texts = append(t.texts, text)
	t.byText[text] = i
	t.size += 64 + len(text)
	return i
}

func (t *table) tuple(from, to uint32, protocol netset.Protocol, port uint16) uint32 {
	a, b := &t.ends[from], &t.ends[to]
	return t.tupleOf(flowrow.TupleID(&a.texts, &b.texts, a.identity, b.identity, protocol, port), from, to, protocol, port)
}

func (t *table) tupleOf(id uint64, from, to uint32, protocol netset.Protocol, port uint16) uint32 {
	key := id
	if i, ok := t.byTuple[key]; ok {
		return i
	}
	i := uint32(len(t.tuples))
	t.tuples = append(t.tuples, tuple{id, from, to, port, protocol})
	t.byTuple[key] = i
	t.size += 80
	return i
}

// row returns a flow as a row. The flow's maps and slices must not change
// afterwards.
func (t *table) row(f *policies.Flow) row {
	from, to := t.peer(&f.From), t.peer(&f.To)
	return row{
		start: f.First.UnixMicro(), end: f.Last.UnixMicro(), count: max(1, f.Count),
		bytes: f.Bytes, packets: f.Packets, replyBytes: f.ReplyBytes, replyPackets: f.ReplyPackets,
		window: f.Origin.Window.Microseconds(), from: from, to: to, tuple: t.tuple(from, to, f.Protocol, f.Port),
		hits: t.hitsOf(f.Hits), format: t.text(f.Origin.Format), sourcePort: f.SourcePort,
		verdict: f.Verdict, reporter: f.Origin.Reporter, egressOnly: f.EgressOnly,
	}
}

// flow returns the flow of a row. Flows share their label maps and slices.
func (t *table) flow(r *row) (policies.Flow, error) {
	from, err := t.peerOf(r.from)
	if err != nil {
		return policies.Flow{}, err
	}
	to, err := t.peerOf(r.to)
	if err != nil {
		return policies.Flow{}, err
	}
	hits, known := t.hits[r.hits]
	if !known {
		if hits, err = flowrow.ParseHits(t.texts[r.hits]); err != nil {
			return policies.Flow{}, fmt.Errorf("policies: %w", err)
		}
		t.hits[r.hits] = hits
	}
	tuple := &t.tuples[r.tuple]
	return policies.Flow{
		First: flowrow.Moment(r.start), Last: flowrow.Moment(r.end), From: *from, To: *to, Protocol: tuple.protocol, Port: tuple.port,
		Verdict: r.verdict, EgressOnly: r.egressOnly, Count: r.count, SourcePort: r.sourcePort,
		Bytes: r.bytes, Packets: r.packets, ReplyBytes: r.replyBytes, ReplyPackets: r.replyPackets, Hits: hits,
		Origin: policies.Origin{Format: t.texts[r.format], Reporter: r.reporter, Window: time.Duration(r.window) * time.Microsecond},
	}, nil
}

func (t *table) peerOf(i uint32) (*policies.FlowPeer, error) {
	e := &t.ends[i]
	if e.peer == nil {
		p, err := t.parsePeer(&e.texts)
		if err != nil {
			return nil, err
		}
		e.peer = p
	}
	return e.peer, nil
}

// parsePeer returns the peer of an end. Those with the same labels share them.
func (t *table) parsePeer(texts *flowrow.End) (*policies.FlowPeer, error) {
	known, ok := t.labels[texts[flowrow.Labels]]
	if !ok {
		var err error
		if known, err = flowrow.ParseLabels(texts[flowrow.Labels]); err != nil {
			return nil, err
		}
		t.labels[texts[flowrow.Labels]] = known
	}
	p, err := texts.PeerWith(known)
	return &p, err
}

// compareTuples orders tuples as compacted files do: by destination, port,
// protocol and source.
func (t *table) compareTuples(a, b *tuple) int {
	x, y := &t.ends[a.to].texts, &t.ends[b.to].texts
	if c := compareEnds(x, y); c != 0 {
		return c
	}
	if c := cmp.Or(cmp.Compare(a.port, b.port), cmp.Compare(a.protocol, b.protocol)); c != 0 {
		return c
	}
	x, y = &t.ends[a.from].texts, &t.ends[b.from].texts
	return cmp.Or(compareEnds(x, y), cmp.Compare(a.id, b.id))
}

func compareEnds(a, b *flowrow.End) int {
	return cmp.Or(
		strings.Compare(a[flowrow.Namespace], b[flowrow.Namespace]), strings.Compare(a[flowrow.Kind], b[flowrow.Kind]), strings.Compare(a[flowrow.Name], b[flowrow.Name]),
	)
}

// compareWithin orders the rows of one tuple.
func compareWithin(a, b *row) int {
	return cmp.Or(
		cmp.Compare(a.reporter, b.reporter), cmp.Compare(a.verdict, b.verdict), compareBools(a.egressOnly, b.egressOnly),
		cmp.Compare(a.start, b.start), cmp.Compare(a.end, b.end), cmp.Compare(a.sourcePort, b.sourcePort),
	)
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// ranks returns for each tuple its place in the order of compacted files.
func (t *table) ranks() []uint32 {
	order := make([]uint32, len(t.tuples))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return t.compareTuples(&t.tuples[a], &t.tuples[b]) })
	ranks := make([]uint32, len(order))
	for rank, i := range order {
		ranks[i] = uint32(rank)
	}
	return ranks
}

// place is where a row stands before it is sorted, and what is compared of it
// first: who reported what, and when.
type place struct {
	by uint64
	at uint32
}

// sortByTuple sorts rows as compacted files do, in place. Rows that compare equal
// stay in their order.
func (t *table) sortByTuple(rows []row) {
	if len(rows) == 0 {
		return
	}
	ranks := t.ranks()
	ends := make([]int, len(ranks)+1) // of each tuple's places, once all have theirs
	began := rows[0].start
	for i := range rows {
		ends[ranks[rows[i].tuple]+1]++
		began = min(began, rows[i].start)
	}
	for i := range ranks {
		ends[i+1] += ends[i]
	}
	places := make([]place, len(rows))
	for i := range rows {
		r := &rows[i]
		side := uint64(r.reporter)<<3 | uint64(r.verdict)<<1 | uint64(asNumber(r.egressOnly))
		to := &ends[ranks[r.tuple]]
		places[*to] = place{side<<56 | min(uint64(r.start)-uint64(began), 1<<56-1), uint32(i)}
		*to++
	}
	last := 0
	for _, end := range ends[:len(ranks)] {
		slices.SortFunc(places[last:end], func(a, b place) int {
			if a.by != b.by {
				return cmp.Compare(a.by, b.by)
			}
			return cmp.Or(compareWithin(&rows[a.at], &rows[b.at]), cmp.Compare(a.at, b.at))
		})
		last = end
	}
	permute(rows, places)
}

// permute moves each row to the place that names it. It uses the places up.
func permute(rows []row, places []place) {
	for i := range places {
		first, to := rows[i], i
		for from := int(places[to].at); from != i; from = int(places[to].at) {
			rows[to] = rows[from]
			places[to].at = uint32(to)
			to = from
		}
		rows[to] = first
		places[to].at = uint32(to)
	}
}

func sortByTime(rows []row) {
	slices.SortStableFunc(rows, func(a, b row) int { return cmp.Compare(a.start, b.start) })
}
