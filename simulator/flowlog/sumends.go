package flowlog

import (
	"math"
	"math/bits"
	"net/netip"

	"github.com/weir-policy/weir/policies"
)

// endFields are the fields of both ends, in the order of rowEnd.
var endFields = [2][5]string{
	{srcIP, "src_namespace", srcPod, "src_kind", srcName}, {dstIP, "dst_namespace", dstPod, "dst_kind", dstName},
}

// endTexts are the numbers of the texts that an end has, in the order of rowEnd.
type endTexts [5]int32

// sumEnds are the ends of rows, by number.
type sumEnds struct {
	to    Taker
	texts [5]*vocabulary // of each field, on both sides
	all   []sumEnd
	peers []*policies.FlowPeer // of those that have more than an address
	pods  []int32              // of those with a pod's name, what others with the same have too; else 0
	index index

	widths [5]uint        // of numbers of texts, in bits
	recent [5][]recentEnd // by the text of the field that says most; one for each number of its width
	names  map[podName]int32
	asked  policies.FlowPeer // of Taker.Class
}

// sumEnd is an end of rows.
type sumEnd struct {
	texts                 endTexts
	address               [16]byte // of an end of which that is all
	class, before, member int32
	since                 int64 // in nanoseconds since 1970: records from before it are of the class before
	isBad, is6            bool
	isNode, isLoose       bool
}

type podName struct{ namespace, name string }

// recentEnd is the end that was the last with some text.
type recentEnd struct {
	key       uint64
	end, sort int32
}

func newSumEnds(to Taker) *sumEnds {
	s := &sumEnds{
		to: to, names: map[podName]int32{},
		all: make([]sumEnd, 1), peers: make([]*policies.FlowPeer, 1), pods: make([]int32, 1), // the number 0 is of none
	}
	for i := range s.texts {
		s.texts[i], s.recent[i] = newVocabulary(), make([]recentEnd, 1)
	}
	s.index.forget()
	return s
}

// size returns how much there is to remember, in things of which each takes some
// hundred bytes.
func (s *sumEnds) size() int {
	const text = 100
	n := len(s.all)
	for _, t := range s.texts {
		n += t.len() + len(t.bytes)/text
	}
	return n
}

// fit has keys hold all texts. It reports whether they can.
func (s *sumEnds) fit() bool {
	total, grown := uint(0), false
	for i, t := range s.texts {
		if t.len() > 1<<s.widths[i] {
			s.widths[i], grown = uint(bits.Len(uint(t.len()))), true
		}
		total += s.widths[i]
	}
	if grown {
		for i, width := range s.widths {
			s.recent[i] = make([]recentEnd, 1<<width)
		}
	}
	return total < 64
}

// hash returns that of an end's texts.
func (t *endTexts) hash() uint64 {
	two := func(i int) uint64 { return uint64(t[i])<<32 | uint64(t[i+1]) }
	return hashOf(hashOf(two(0), two(2)), uint64(t[4]))
}

// end returns the number of an end.
func (s *sumEnds) end(texts endTexts) int32 {
	hash := texts.hash()
	known, at := s.index.next(hash, hash)
	for known != 0 && s.all[known].texts != texts {
		known, at = s.index.next(hash, at)
	}
	if known != 0 {
		return int32(known)
	}
	s.index.add(hash)
	id := int32(len(s.all))
	var err error
	s.asked, err = s.said(texts)
	p := &s.asked
	end := sumEnd{texts: texts, isBad: err != nil, is6: p.Address.Is6(), since: math.MinInt64}
	if err == nil {
		c := s.to.Class(p)
		end.class, end.before, end.member, end.isNode, end.isLoose = int32(c.ID), int32(c.Before), int32(c.Member), c.IsNode, c.IsLoose
		if !c.Since.IsZero() {
			end.since = c.Since.UnixNano()
		}
	}
	if texts[1]|texts[2]|texts[3]|texts[4] == 0 && p.Address.IsValid() {
		end.address = p.Address.As16()
		s.peers = append(roomy(s.peers), nil)
	} else {
		peer := *p
		s.peers = append(roomy(s.peers), &peer)
	}
	s.all, s.pods = append(roomy(s.all), end), append(roomy(s.pods), 0)
	if p.Pod != "" {
		name := podName{p.Namespace, p.Pod}
		if s.names[name] == 0 {
			s.names[name] = int32(len(s.names)) + 1
		}
		s.pods[id] = s.names[name]
	}
	return id
}

// said returns what an end's texts say.
func (s *sumEnds) said(texts endTexts) (policies.FlowPeer, error) {
	text := func(i int) []byte { return s.texts[i].text(texts[i]) }
	e := rowEnd{address: text(0), namespace: text(1), pod: text(2), kind: text(3), name: text(4)}
	return e.peer()
}

func (s *sumEnds) peer(id int32) policies.FlowPeer {
	if p := s.peers[id]; p != nil {
		return *p
	}
	return policies.FlowPeer{Address: netip.AddrFrom16(s.all[id].address).Unmap()}
}

// sort returns a number for the class of an end and its family; negative where
// rows differ in it, or it is bad.
func (e *sumEnd) sort() int32 {
	if e.isBad || e.isNode || e.since != math.MinInt64 {
		return -1
	}
	return sortOf(e.class, e.is6)
}

func sortOf(class int32, is6 bool) int32 {
	if is6 {
		return class<<1 | 1
	}
	return class << 1
}

// sortsAt returns numbers for two ends of a row, and whether they are the same
// member of a class.
func sortsAt(start int64, from, to *sumEnd) (source, target int32, areSame bool) {
	numbers := [2]int32{}
	for i, e := range [2]*sumEnd{from, to} {
		switch {
		case start < e.since:
			numbers[i] = sortOf(e.before, e.is6)
		case from.isNode || to.isNode:
			numbers[i] = sortOf(e.member, e.is6)
		default:
			numbers[i] = sortOf(e.class, e.is6)
		}
	}
	return numbers[0], numbers[1], from.member == to.member
}

// endColumns find one end of each row of a batch.
type endColumns struct {
	packedTexts
	ids   []int32
	sorts []int32
}

// widest returns which column says most.
func (e *endColumns) widest() int {
	widest := -1
	for i, k := range e.columns {
		if k != nil && (widest < 0 || k.texts.len() > e.columns[widest].texts.len()) {
			widest = i
		}
	}
	return widest
}

// find finds one end of each of n rows.
func (s *sumEnds) find(e *endColumns, n int) error {
	e.ids, e.sorts = resized(e.ids, n), resized(e.sorts, n)
	if !s.fit() {
		if err := e.settle(); err != nil {
			return err
		}
		for row := range e.ids {
			id := s.end(e.textsAt(row))
			e.ids[row], e.sorts[row] = id, s.all[id].sort()
		}
		return nil
	}
	if err := e.pack(n, s.widths); err != nil {
		return err
	}
	widest := e.widest()
	shift, recent := e.shifts[widest]&63, s.recent[widest]
	ids, sorts, mask := e.ids[:n], e.sorts[:n], uint64(len(recent)-1)
	for row, key := range e.keys {
		r := &recent[key>>shift&mask]
		if r.key != key || r.end == 0 {
			if int64(key) < 0 {
				return errCode
			}
			id := s.end(e.textsAt(row))
			*r = recentEnd{key, id, s.all[id].sort()}
		}
		ids[row], sorts[row] = r.end, r.sort
	}
	return nil
}

// resized returns a slice of n things, whatever they are.
func resized[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}
