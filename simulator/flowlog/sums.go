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
	AddAlike(s *simulator.Alike)
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
	groups    []sumGroup // by their hash; those without a key are free
	firsts    []sumRow   // of groups, in the order in which they came
	files     []string
}

// Untimed is why rows are left out where only some of the time is asked for.
const Untimed = "no time recorded, and only some of the time is asked for"

// NewSums returns Sums that Flush hands to a taker.
func NewSums(to Taker) *Sums {
	s := &Sums{to: to, shapes: map[shape]int32{}}
	s.forgetEnds()
	s.forgetGroups()
	return s
}

func (s *Sums) forgetEnds() {
	s.ends, s.others, s.shapeKeys = newSumEnds(s.to), newVocabulary(), make([]int32, shapeKeys)
}

func (s *Sums) forgetGroups() {
	s.groups, s.firsts, s.files = make([]sumGroup, 1<<10), nil, nil
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
	earliest, latest int64 // in nanoseconds since 1970; noTime and 0 where no row has a time
	first            int32 // of Sums.firsts
	file             int32 // that one's; apart where the rows are in groups by their ends
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

// flowOf returns the flow of a row.
func (s *Sums) flowOf(r *sumRow) policies.Flow {
	start, end, is := moment(r.start), moment(r.end), s.shapeList[r.shape]
	return policies.Flow{
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
	groups := make([]*sumGroup, len(s.firsts))
	for i := range s.groups {
		if g := &s.groups[i]; g.rest != 0 {
			groups[g.first] = g
		}
	}
	for i, g := range groups {
		if g.file != apart {
			s.to.AddAlike(&simulator.Alike{Flow: s.flowOf(&s.firsts[i]), Flows: g.flows, Bytes: g.bytes, First: moment(g.earliest), Last: moment(g.latest)})
		}
	}
	s.forgetGroups()
}

// group returns the place of the group with a key, or the free one where it is to be.
func (s *Sums) group(ends, rest uint64) *sumGroup {
	mask := uint64(len(s.groups) - 1)
	for at := hashOf(ends, rest) & mask; ; at = (at + 1) & mask {
		if g := &s.groups[at]; g.rest == 0 || g.ends == ends && g.rest == rest {
			return g
		}
	}
}

// grow makes room for more groups where there is little.
func (s *Sums) grow() {
	if 3*len(s.firsts) <= 2*len(s.groups) {
		return
	}
	old := s.groups
	s.groups = make([]sumGroup, 2*len(old))
	for i := range old {
		if g := &old[i]; g.rest != 0 {
			*s.group(g.ends, g.rest) = *g
		}
	}
}
