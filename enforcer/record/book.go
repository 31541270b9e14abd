//go:build linux

package record

import (
	"encoding/binary"
	"hash/maphash"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// book knows the connections that are there, how much of each is recorded, and what is
// to be recorded at the end of the window. It has no clock and asks nobody.
type book struct {
	level   Level
	views   []*view // by Since, the last one in force
	entries map[key]*entry
	open    int
	look    uint32 // counts the looks at all connections
	looks   []look // the last ones
	// lost is a look so long ago that who was not seen since has ended, and nobody will tell.
	lost   uint32
	window uint32 // counts the windows
	// ended are connections whose end was told since the last look at all began, and
	// since the one before: such a look may still tell of them, and their end be told again.
	ended  [2]map[uint64]struct{}
	seed   maphash.Seed
	sums   map[line]*sum
	denial denials
	counts Counts
	// refresh, where it is set, is called where nothing in force explains what happened,
	// and reports whether something else is in force by now.
	refresh func() bool
	// told, where it is set, is called with what happens as it does.
	told func(*story, event)
}

// key is what tells connections from others that are there at the same time.
type key struct {
	source, target         [16]byte
	sourcePort, targetPort uint16
	zone                   uint16
	protocol               netset.Protocol
	ipv6                   bool
}

func keyOf(c *conntrack.Connection) key {
	t := &c.Original
	return key{t.Source.As16(), t.Destination.As16(), t.SourcePort, t.DestinationPort, c.Zone, t.Protocol, t.Source.Is6()}
}

// entry is what is known of a connection.
type entry struct {
	story      *story // nil for one that is remembered, until it is seen
	older      *entry // one of the same key whose end was not told yet
	counted    [2]conntrack.Counters
	start      int64 // in nanoseconds since 1970, as the kernel noted it; 0 where that is not known
	id         uint32
	look       uint32 // the last look at all that saw it
	window     uint32 // the last window that counts it
	sourcePort uint16
	heard      bool // its beginning was told
}

// look is when a look at all connections began.
type look struct {
	number uint32
	at     int64
}

// line is what a record is of.
type line struct {
	story      *story
	sourcePort uint16
}

// sum is what a record adds up.
type sum struct {
	first, last           int64
	count, started, ended uint64
	counters              [2]conntrack.Counters
}

// event is what happens to a connection, or a packet that is denied.
type event struct {
	at         int64
	sourcePort uint16
	sum        sum
}

func newBook(level Level) *book {
	return &book{
		level: level, entries: map[key]*entry{}, ended: [2]map[uint64]struct{}{{}, {}}, seed: maphash.MakeSeed(),
		sums: map[line]*sum{}, window: 1, look: 1, denial: newDenials(), counts: Counts{Lost: map[string]uint64{}, Decisions: map[Decision]Decided{}},
	}
}

// enforce says what is in force from some moment on.
func (b *book) enforce(v *view) { b.views = append(b.views, v) }

// keptViews is how long what was in force still explains what happened then.
const keptViews = 10 * time.Second

// forget drops views that nothing is explained by any more.
func (b *book) forget(now time.Time) {
	for len(b.views) > 1 && now.Sub(b.views[1].Since) > keptViews {
		b.views = slices.Delete(b.views, 0, 1)
	}
}

// tell returns what is said of something that happened at some time: by what was in
// force then, or about then where only that explains it.
func (b *book) tell(q question, at int64) *story {
	s := b.tellNow(q, at)
	if !s.certain && b.refresh != nil && b.refresh() {
		s = b.tellNow(q, at)
	}
	return s
}

func (b *book) tellNow(q question, at int64) *story {
	i := len(b.views) - 1
	for i > 0 && b.views[i].Since.UnixNano() > at {
		i--
	}
	s := b.views[i].tell(q)
	for n := len(b.views) - 1; n >= 0 && !s.certain; n-- {
		if other := b.views[n].tell(q); n != i && (other.certain || other.ours && !s.ours) {
			s = other
		}
	}
	return s
}

// portOf returns the port of the end that opened a connection; 0 where there are no ports.
func portOf(c *conntrack.Connection) uint16 {
	switch c.Original.Protocol {
	case netset.TCP, netset.UDP, netset.SCTP:
		return c.Original.SourcePort
	}
	return 0
}

// storyOf returns what is said of a connection that the kernel let through.
func (b *book) storyOf(c *conntrack.Connection, at int64) *story {
	q := question{from: c.Original.Source, to: c.Reply.Source, asked: c.Original.Destination, protocol: c.Original.Protocol}
	switch q.protocol {
	case netset.TCP, netset.UDP, netset.SCTP:
		q.port = c.Reply.SourcePort
	case netset.ICMP, netset.ICMPv6:
		q.port = c.Original.DestinationPort
	}
	if q.asked == q.to {
		q.asked = netip.Addr{}
	}
	for _, d := range policies.Directions {
		q.observed[d] = nft.Bits(c.Label).Has(nft.ObservedBit + int(d))
	}
	return b.tell(q, at)
}

// add adds something to what is recorded of the window.
func (b *book) add(s *story, e event) {
	l := line{s.told, e.sourcePort}
	if b.level > 0 {
		l.sourcePort = 0
	}
	t := b.sums[l]
	if t == nil {
		t = &sum{first: e.at, last: e.at}
		b.sums[l] = t
	}
	t.first, t.last = min(t.first, e.at), max(t.last, e.at)
	t.count += e.sum.count
	t.started += e.sum.started
	t.ended += e.sum.ended
	for way := range t.counters {
		t.counters[way].Packets += e.sum.counters[way].Packets
		t.counters[way].Bytes += e.sum.counters[way].Bytes
	}
}

// begin takes note of a connection that is new.
func (b *book) begin(c *conntrack.Connection, at int64) {
	k := keyOf(c)
	e := b.entries[k]
	if e != nil && !e.heard && e.id == c.ID { // a look at all saw it first
		e.heard = true
		return
	}
	s := b.storyOf(c, at)
	if !s.ours {
		b.counts.Ignored++
		return
	}
	b.enter(k, &entry{story: s, older: e, id: c.ID, look: b.look, sourcePort: portOf(c), heard: true}, at)
}

// enter enters a connection and counts its beginning.
func (b *book) enter(k key, e *entry, at int64) {
	b.entries[k] = e
	b.open++
	b.counts.Started++
	if !e.story.certain {
		b.counts.Unexplained++
	}
	e.window = b.window
	first := event{at, e.sourcePort, sum{count: 1, started: 1}}
	b.add(e.story, first)
	if b.told != nil {
		b.told(e.story, first)
	}
}

// is reports whether an entry is of a connection that the kernel tells of.
func (e *entry) is(c *conntrack.Connection) bool {
	return e.id == c.ID && (e.start == 0 || c.Start == 0 || e.start == c.Start)
}

// find returns the entry of a connection, the oldest that it may be, and the one of the
// same key that is newer.
func (b *book) find(k key, c *conntrack.Connection) (found, newer *entry) {
	var last *entry
	for e := b.entries[k]; e != nil; last, e = e, e.older {
		if e.is(c) {
			found, newer = e, last
		}
	}
	return found, newer
}

// end takes note of a connection that has ended.
func (b *book) end(c *conntrack.Connection, at int64) {
	k := keyOf(c)
	mark := b.markOf(k, c)
	again := b.hasEnded(mark)
	if again && c.Start != 0 {
		return
	}
	e, newer := b.find(k, c)
	if e == nil {
		if again {
			return
		}
		s := b.storyOf(c, orElse(c.Start, at))
		if !s.ours {
			return
		}
		e = &entry{story: s, id: c.ID, sourcePort: portOf(c), older: b.entries[k]}
		b.enter(k, e, orElse(c.Start, at))
		newer = nil
	}
	b.settle(e, c, at)
	b.leave(k, e, newer, orElse(c.Stop, at))
	b.ended[0][mark] = struct{}{}
}

func orElse(n, otherwise int64) int64 {
	if n != 0 {
		return n
	}
	return otherwise
}

// leave takes an entry out and counts its end.
func (b *book) leave(k key, e, newer *entry, at int64) {
	switch {
	case newer != nil:
		newer.older = e.older
	case e.older != nil:
		b.entries[k] = e.older
	default:
		delete(b.entries, k)
	}
	b.open--
	b.counts.Ended++
	if e.story == nil {
		return
	}
	b.add(e.story, event{at, e.sourcePort, sum{count: b.once(e), ended: 1}})
	if b.told != nil {
		b.told(e.story, event{at, e.sourcePort, sum{count: 1, ended: 1, counters: e.counted}})
	}
}

// once returns 1 where the window does not count a connection yet.
func (b *book) once(e *entry) uint64 {
	if e.window == b.window {
		return 0
	}
	e.window = b.window
	return 1
}

// settle adds what a connection carried since it was last settled.
func (b *book) settle(e *entry, c *conntrack.Connection, at int64) {
	if e.story == nil { // it is remembered
		e.story, e.sourcePort = b.storyOf(c, orElse(c.Start, at)), portOf(c)
	}
	if e.start == 0 {
		e.start = c.Start
	}
	if !c.Counted {
		return
	}
	var more [2]conntrack.Counters
	for way, now := range c.Counters {
		was := e.counted[way]
		if now.Packets < was.Packets || now.Bytes < was.Bytes { // somebody zeroed them
			was = conntrack.Counters{}
		}
		more[way] = conntrack.Counters{Packets: now.Packets - was.Packets, Bytes: now.Bytes - was.Bytes}
	}
	e.counted = c.Counters
	if more != [2]conntrack.Counters{} {
		b.add(e.story, event{at, e.sourcePort, sum{count: b.once(e), counters: more}})
	}
}

// patience is how long the kernel may take to tell of an end for which there was no room.
const patience = 5 * time.Minute

// lookAtAll begins a look at all connections.
func (b *book) lookAtAll(at int64) {
	b.look++
	b.looks = append(b.looks, look{b.look, at})
	for len(b.looks) > 0 && at-b.looks[0].at > int64(patience) {
		b.lost = b.looks[0].number
		b.looks = b.looks[1:]
	}
	b.ended[0], b.ended[1] = b.ended[1], b.ended[0]
	clear(b.ended[0])
	b.counts.Dumps++
}

// see takes note of a connection that a look at all tells of. What was told of
// connections before that look must have been taken note of.
func (b *book) see(c *conntrack.Connection, at int64) {
	k := keyOf(c)
	if b.hasEnded(b.markOf(k, c)) { // since it was looked at
		return
	}
	e, _ := b.find(k, c)
	if e == nil {
		s := b.storyOf(c, orElse(c.Start, at))
		if !s.ours {
			return
		}
		e = &entry{story: s, id: c.ID, sourcePort: portOf(c), older: b.entries[k], start: c.Start}
		b.enter(k, e, orElse(c.Start, at))
	}
	e.look = b.look
	b.settle(e, c, at)
}

// Why connections and packets are in no record.
const (
	lostEnd      = "connections that ended while nobody recorded, and what they carried since they were last seen"
	lostDowntime = "connections that began and ended while nobody recorded"
	lostRead     = "events of the kernel that could not be read"
	lostLog      = "log entries of denials that got lost; the counters count them"
	lostDisk     = "records that found no room on the disk"
)

// looked ends a look at all connections. Those that none has seen for so long, or the
// first one of those that are remembered, have ended and nobody told.
func (b *book) looked(at int64) {
	for k, newest := range b.entries {
		for e, newer := newest, (*entry)(nil); e != nil; e = e.older {
			if e.look < b.lost || e.look == 0 {
				b.leave(k, e, newer, at)
				b.counts.Lost[lostEnd]++
			} else {
				newer = e
			}
		}
	}
}

// markOf returns what an ended connection is known by.
func (b *book) markOf(k key, c *conntrack.Connection) uint64 {
	var text [56]byte
	copy(text[:], k.source[:])
	copy(text[16:], k.target[:])
	binary.NativeEndian.PutUint16(text[32:], k.sourcePort)
	binary.NativeEndian.PutUint16(text[34:], k.targetPort)
	binary.NativeEndian.PutUint16(text[36:], k.zone)
	text[38] = byte(k.protocol)
	binary.NativeEndian.PutUint32(text[40:], c.ID)
	binary.NativeEndian.PutUint64(text[44:], uint64(c.Start))
	return maphash.Bytes(b.seed, text[:])
}

func (b *book) hasEnded(mark uint64) bool {
	_, now := b.ended[0][mark]
	_, before := b.ended[1][mark]
	return now || before
}

// close ends the window, and returns what is to be recorded of it.
func (b *book) close() map[line]*sum {
	all := b.sums
	b.sums = make(map[line]*sum, len(all))
	b.window++
	return all
}

// flowOf returns the record of a line.
func flowOf(l line, s *sum) policies.Flow {
	f := l.story.flow
	f.First, f.Last = time.Unix(0, s.first), time.Unix(0, s.last)
	f.SourcePort = l.sourcePort
	f.Count, f.Started, f.Ended = s.count, s.started, s.ended
	f.Packets, f.Bytes = s.counters[0].Packets, s.counters[0].Bytes
	f.ReplyPackets, f.ReplyBytes = s.counters[1].Packets, s.counters[1].Bytes
	return f
}
