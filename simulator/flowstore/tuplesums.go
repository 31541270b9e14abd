package flowstore

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// tupleSums is what tuples come to, of many files one after another: those from one
// ID to another, as many as may be held.
type tupleSums struct {
	from, to uint64 // to is one of them
	most     int    // that are held

	index map[uint64]int32 // of the tuples
	all   []knownTuple
	sides []sideSum
	peers peers
}

// knownTuple is what there is of one.
type knownTuple struct {
	id       uint64
	from, to *policies.FlowPeer // but for their addresses
	ips      [2]string          // several where there are
	first    int32              // of its sides; they are a list
	port     uint16
	protocol netset.Protocol
}

// sideSum is what one side reported of a tuple with one verdict.
type sideSum struct {
	key          uint32 // of who reported what
	next         int32  // of the tuple; negative at the end
	flows, bytes uint64
	first, last  int64
}

func newSideSum(key uint32) sideSum {
	return sideSum{key: key, next: -1, first: math.MaxInt64, last: flowrow.NoTime}
}

// sideKey tells apart what is summed apart.
func sideKey(r policies.Reporter, v policies.Verdict, egressOnly bool) uint32 {
	return uint32(r)<<16 | uint32(v)<<8 | uint32(asNumber(egressOnly))
}

// setKey says of whom and of what a key is.
func setKey(side *simulator.Side, key uint32) {
	side.Reporter, side.Verdict, side.EgressOnly = policies.Reporter(key>>16), policies.Verdict(key>>8&0xff), key&1 == 1
}

// heldTuples is how many tuples are held at a time, of some 300 bytes.
func (s *Store) heldTuples() int { return int(max(64, s.options.Memory>>13)) }

// newTupleSums returns the sums of tuples from an ID on.
func newTupleSums(from uint64, most int) *tupleSums {
	return &tupleSums{from: from, to: math.MaxUint64, most: most, index: map[uint64]int32{}, peers: peers{}}
}

// drop leaves the upper half of the tuples to others: their IDs are hashes.
func (s *tupleSums) drop() {
	kept := tupleSums{from: s.from, to: s.to, most: s.most, index: s.index, peers: s.peers}
	for left := len(s.all); left > s.most*3/4 && kept.to > kept.from; {
		kept.to = kept.from + (kept.to-kept.from)/2
		left = 0
		for i := range s.all {
			if s.all[i].id <= kept.to {
				left++
			}
		}
	}
	clear(kept.index)
	for i := range s.all {
		t := s.all[i]
		if t.id > kept.to {
			continue
		}
		at := t.first
		t.first = -1
		kept.index[t.id] = int32(len(kept.all))
		kept.all = append(kept.all, t)
		own := &kept.all[len(kept.all)-1]
		for ; at >= 0; at = s.sides[at].next {
			sum := kept.side(own, s.sides[at].key)
			next := sum.next
			*sum = s.sides[at]
			sum.next = next
		}
	}
	*s = kept
}

// of returns the tuple that a reader is at.
func (s *tupleSums) of(m *rollReader) (*knownTuple, error) {
	if i, known := s.index[m.now.id]; known {
		t := &s.all[i]
		for end, ip := range t.ips {
			if ip != several && ip != m.address(end) {
				t.ips[end] = several
			}
		}
		return t, nil
	}
	t := knownTuple{id: m.now.id, first: -1, ips: [2]string{m.address(0), m.address(1)}}
	var err error
	if t.from, t.to, t.protocol, t.port, err = m.readEnds(s.peers); err != nil {
		return nil, err
	}
	s.index[t.id] = int32(len(s.all))
	s.all = append(s.all, t)
	return &s.all[len(s.all)-1], nil
}

// add adds the run that a reader is at.
func (s *tupleSums) add(m *rollReader) error {
	if m.now.id < s.from || m.now.id > s.to {
		return nil
	}
	t, err := s.of(m)
	if err == nil {
		s.addTo(t, m)
	}
	if len(s.all) > s.most && s.to > s.from {
		s.drop()
	}
	return err
}

func (s *tupleSums) addTo(t *knownTuple, m *rollReader) {
	n, v := m.i, m.vectors
	hour, reporter, verdict, egressOnly := v[rollHour].codes[:n], v[rollReporter].codes[:n], v[rollVerdict].codes[:n], v[rollEgressOnly].codes[:n]
	flows, bytes, first, last := v[rollFlows].numbers[:n], v[rollBytes].numbers[:n], v[rollStart].numbers[:n], v[rollEnd].numbers[:n]
	var sum *sideSum
	for i := m.at; i < n; i++ {
		if !m.allKnown && !m.known[hour[i]] {
			continue
		}
		if key := m.reporterKeys[reporter[i]] | m.verdictKeys[verdict[i]] | m.egressKeys[egressOnly[i]]; sum == nil || sum.key != key {
			sum = s.side(t, key)
		}
		sum.flows += uint64(flows[i])
		sum.bytes += uint64(bytes[i])
		sum.last = max(sum.last, last[i])
		if first[i] < sum.first && first[i] != flowrow.NoTime {
			sum.first = first[i]
		}
	}
}

// side returns the sum of a tuple's side.
func (s *tupleSums) side(t *knownTuple, key uint32) *sideSum {
	to := &t.first
	for *to >= 0 {
		if sum := &s.sides[*to]; sum.key == key {
			return sum
		}
		to = &s.sides[*to].next
	}
	*to = int32(len(s.sides))
	s.sides = append(s.sides, newSideSum(key))
	return &s.sides[len(s.sides)-1]
}

// each hands over the tuples in the order of their IDs, and holds them no longer.
func (s *tupleSums) each(ctx context.Context, take func(*simulator.Tuple) error) error {
	s.index, s.peers = nil, nil
	slices.SortFunc(s.all, func(a, b knownTuple) int { return cmp.Compare(a.id, b.id) })
	var tuple simulator.Tuple
	for i := range s.all {
		t := &s.all[i]
		tuple.ID, tuple.Flow, tuple.Sides = t.id, policies.Flow{From: *t.from, To: *t.to, Protocol: t.protocol, Port: t.port}, tuple.Sides[:0]
		for end, peer := range [...]*policies.FlowPeer{&tuple.Flow.From, &tuple.Flow.To} {
			if t.ips[end] == several {
				continue
			}
			var err error
			if peer.Address, err = flowrow.ParseAddress(t.ips[end]); err != nil {
				return err
			}
		}
		for at := t.first; at >= 0; at = s.sides[at].next {
			sum := &s.sides[at]
			side := simulator.Side{Flows: sum.flows, Bytes: sum.bytes, Last: flowrow.Moment(sum.last)}
			setKey(&side, sum.key)
			if sum.first != math.MaxInt64 {
				side.First = flowrow.Moment(sum.first)
			}
			tuple.Sides = append(tuple.Sides, side)
		}
		if err := take(&tuple); err != nil {
			return err
		}
		if i%batchRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// sideHours is in which hours one side reported a tuple with one verdict.
type sideHours struct {
	key   uint32
	hours []simulator.HourFlows
}

// hoursBySide is that of a tuple.
type hoursBySide []sideHours

// at returns the hours of a side, with the space that they had for the tuple before.
func (s hoursBySide) at(key uint32) (hoursBySide, *sideHours) {
	at := 0
	for at < len(s) && s[at].key != key {
		at++
	}
	if at == len(s) {
		s = slices.Grow(s, 1)[:at+1]
		s[at] = sideHours{key, s[at].hours[:0]}
	}
	return s, &s[at]
}
