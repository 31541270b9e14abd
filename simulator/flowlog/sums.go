package flowlog

import (
	"math"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// Taker takes flows together that get the same answer, as simulator.Replayers do:
// those of which Together says so, or both ends' classes do.
type Taker interface {
	Class(p *policies.FlowPeer) simulator.Class
	Together(f *policies.Flow) bool
	AddAlike(s *simulator.Alike) // which then becomes another
}

// Sums adds up the rows of tables, of any number of files, so that few of them
// become flows. It takes up to some 300 MB.
type Sums struct {
	// Since and Until, unless zero, choose rows by when they were first seen; Until is
	// excluded. The others are read and not added up; those without a time are
	// left out as Untimed. Flows that are handed over one by one are not chosen.
	Since, Until time.Time

	to        Taker
	ends      *sumEnds
	others    *vocabulary // of protocols and verdicts
	shapes    map[shape]int32
	shapeList []shape
	shapeKeys []int32    // shapes by shapeColumns.keys, plus one; 0 where that is not known
	groups    []sumGroup // in the order in which they came, behind one without a key
	firsts    []sumRow   // of groups
	index     index      // of groups
	files     []string

	mostEnds, mostGroups int // that are kept at a time
}

// Untimed is why rows are left out where only some of the time is asked for.
const Untimed = "no time recorded, and only some of the time is asked for"

// NewSums returns Sums that Flush hands to a taker.
func NewSums(to Taker) *Sums {
	s := &Sums{to: to, shapes: map[shape]int32{}, mostEnds: 1 << 20, mostGroups: 1 << 18}
	s.forgetEnds()
	s.forgetGroups()
	return s
}

func (s *Sums) forgetEnds() {
	s.ends, s.others, s.shapeKeys = newSumEnds(s.to), newVocabulary(), make([]int32, shapeKeys)
}

func (s *Sums) forgetGroups() {
	s.index.forget()
	s.groups, s.firsts, s.files = append(s.groups[:0], sumGroup{}), append(s.firsts[:0], sumRow{}), nil
}

// shape is what else rows have in common that get the same answer.
type shape struct {
	protocol netset.Protocol
	verdict  policies.Verdict
}

const badShape = -1

// sumGroup is what rows come to that get the same answer.
type sumGroup struct {
	ends, rest       uint64 // the key; rest is never 0
	flows, bytes     uint64
	earliest, latest int64    // in nanoseconds since 1970; noTime and 0 where no row has a time
	file             int32    // of the first row; apart where the rows are in groups by their ends
	_                [3]int32 // so that none is in two lines of memory
}

// A time that no row has is behind all others.
const noTime = math.MaxInt64

const apart = -1

// The parts of sumGroup.rest, behind the port.
const (
	restShape = 16
	restUsed  = 1 << 60
	restSame  = 1 << 61 // both ends are one member of a class
	restSelf  = 1 << 62 // both ends have one pod's name
	restEnds  = 1 << 63 // ends are told apart one by one, and not by class
)

// sumRow is a row that may be an example.
type sumRow struct {
	file         int32
	line         int
	from, to     int32
	shape        int32
	port         uint16
	start, end   int64 // as sumTable.began and ended have them
	flows, bytes uint64
	more         [len(moreFields)]uint64
}

// moreFields are those that only examples need.
var moreFields = [...]string{"src_port", "packets", "reply_bytes", "reply_packets"}

// flowOf makes the flow of a row.
func (s *Sums) flowOf(r *sumRow, to *policies.Flow) {
	start, end, is := moment(r.start), moment(r.end), s.shapeList[r.shape]
	*to = policies.Flow{
		First: start, Last: end, From: s.ends.peer(r.from), To: s.ends.peer(r.to), Protocol: is.protocol, Port: r.port, SourcePort: uint16(r.more[0]),
		Verdict: is.verdict, Count: r.flows, Bytes: r.bytes, Packets: r.more[1], ReplyBytes: r.more[2], ReplyPackets: r.more[3],
		Origin: policies.Origin{Format: parquetName, Window: end.Sub(start).Round(time.Microsecond)},
		Record: policies.Place{File: s.files[r.file], Line: r.line},
	}
}

func moment(nanos int64) time.Time {
	if nanos == 0 || nanos == noTime {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// isSpan reports whether only some of the time is asked for.
func (s *Sums) isSpan() bool { return !s.Since.IsZero() || !s.Until.IsZero() }

// nanos returns a time as rows have it, or the first or the last that one can have.
func nanos(t time.Time) int64 {
	switch seconds := t.Unix(); {
	case seconds <= math.MinInt64/int64(time.Second):
		return math.MinInt64
	case seconds >= math.MaxInt64/int64(time.Second):
		return noTime - 1
	}
	return t.UnixNano()
}

// Flush hands over what was added up.
func (s *Sums) Flush() {
	var alike simulator.Alike
	for i := range s.groups {
		if g := &s.groups[i]; i > 0 && g.file != apart {
			s.flowOf(&s.firsts[i], &alike.Flow)
			alike.Flows, alike.Bytes, alike.First, alike.Last = g.flows, g.bytes, moment(g.earliest), moment(g.latest)
			s.to.AddAlike(&alike)
		}
	}
	s.forgetGroups()
}

// group returns the number of the group with a key; 0 where there is none.
func (s *Sums) group(ends, rest uint64) uint32 {
	hash := hashOf(ends, rest)
	number, at := s.index.next(hash, hash)
	for number != 0 && (s.groups[number].ends != ends || s.groups[number].rest != rest) {
		number, at = s.index.next(hash, at)
	}
	return number
}

// begin begins a group with its first row, and returns its number.
func (s *Sums) begin(g sumGroup, first sumRow) uint32 {
	s.groups, s.firsts = append(roomy(s.groups), g), append(roomy(s.firsts), first)
	s.index.add(hashOf(g.ends, g.rest))
	return uint32(len(s.groups) - 1)
}

// roomy returns a slice with room for one more. It grows to four times its size:
// what is not yet used costs little.
func roomy[T any](s []T) []T {
	if len(s) < cap(s) {
		return s
	}
	return append(make([]T, 0, max(1<<8, 4*len(s))), s...)
}

// index leads from the hashes of things that have numbers, from 1 in the order in
// which they came, to those numbers.
type index struct {
	slots  []uint64 // the hash's upper half, and a number; 0 where none is
	hashes []uint64 // of all
}

func (x *index) forget() {
	if x.slots == nil {
		x.slots = make([]uint64, 1<<10)
	}
	clear(x.slots)
	x.hashes = x.hashes[:0]
}

// next returns a number that may be of the thing with a hash, and where to look
// for the next such; first, that is the hash. It is 0 where there are no more.
func (x *index) next(hash, from uint64) (number uint32, then uint64) {
	mask := uint64(len(x.slots) - 1)
	for at := from & mask; ; at = (at + 1) & mask {
		if slot := x.slots[at]; slot == 0 || slot>>32 == hash>>32 {
			return uint32(slot), at + 1
		}
	}
}

// add adds the next number.
func (x *index) add(hash uint64) {
	x.hashes = append(roomy(x.hashes), hash)
	if 2*len(x.hashes) <= len(x.slots) {
		x.note(uint32(len(x.hashes)), hash)
		return
	}
	x.slots = make([]uint64, 2*len(x.slots))
	for i, hash := range x.hashes {
		x.note(uint32(i)+1, hash)
	}
}

func (x *index) note(number uint32, hash uint64) {
	mask := uint64(len(x.slots) - 1)
	at := hash & mask
	for x.slots[at] != 0 {
		at = (at + 1) & mask
	}
	x.slots[at] = hash>>32<<32 | uint64(number)
}
