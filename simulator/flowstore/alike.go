package flowstore

import (
	"context"

	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Alike hands the records of the tuples to a replayer, those together that get the
// same answer. An end's class is asked for once in each file, however many records
// have that end.
func (r *recorded) Alike(ctx context.Context, tuples []uint64, to *simulator.Replayer) error {
	s := &alikeSums{to: to, groups: map[alikeKey]*alikeGroup{}, apart: map[alikeKey]*alikeGroup{}}
	if err := r.rows(ctx, tuples, s.add); err != nil {
		return err
	}
	s.flush()
	return nil
}

// alikeSums adds up rows that get the same answer.
type alikeSums struct {
	to     *simulator.Replayer
	table  *table
	ends   []classedEnd             // by the table's ends
	groups map[alikeKey]*alikeGroup // by the classes of ends
	apart  map[alikeKey]*alikeGroup // by the table's ends, where an answer names these

	last      alikeKey
	lastGroup *alikeGroup
}

type classedEnd struct {
	known bool
	simulator.Class
	since int64 // Class.Since in microseconds
}

// alikeKey is what rows of a group have in common.
type alikeKey struct {
	from, to int    // classes, or ends
	ports    uint32 // protocol and port
	side     uint32
	isSelf   bool  // both ends are one pod
	hour     int64 // 0 where it does not matter
}

// alikeGroup is what rows come to.
type alikeGroup struct {
	sum         simulator.Alike
	first, last int64 // of the sum, in microseconds
	isApart     bool  // its rows are told apart by their ends
}

// maxAlike bounds how many groups are kept: each takes about a kilobyte.
const maxAlike = 1 << 12

// add takes a row of a table.
func (s *alikeSums) add(t *table, r *row) error {
	if s.table != t {
		flushGroups(s.to, s.apart)
		s.table, s.ends, s.lastGroup = t, s.ends[:0], nil
	}
	if r.start == flowrow.NoTime {
		return s.addAlone(r)
	}
	key, err := s.keyOf(r)
	if err != nil {
		return err
	}
	g := s.lastGroup
	if g == nil || key != s.last {
		if g, err = s.group(s.groups, key, r); err != nil {
			return err
		}
		s.last, s.lastGroup = key, g
	}
	if g.isApart {
		key.from, key.to = int(r.from), int(r.to)
		if g, err = s.group(s.apart, key, r); err != nil {
			return err
		}
	}
	switch {
	case g.sum.Flows > 0 && r.start == g.first:
		return s.addAlone(r) // for the replayer knows which of the two is the example
	case r.start < g.first:
		if g.sum.Flow, err = s.table.flow(r); err != nil {
			return err
		}
		g.first = r.start
	}
	g.sum.Flows += r.count
	g.sum.Bytes += r.bytes
	g.last = max(g.last, r.end)
	return nil
}

func (s *alikeSums) addAlone(r *row) error {
	f, err := s.table.flow(r)
	if err == nil {
		s.to.Add(f)
	}
	return err
}

func (s *alikeSums) keyOf(r *row) (alikeKey, error) {
	from, err := s.end(r.from)
	if err != nil {
		return alikeKey{}, err
	}
	source := *from
	to, err := s.end(r.to)
	if err != nil {
		return alikeKey{}, err
	}
	tuple := &s.table.tuples[r.tuple]
	key := alikeKey{
		from: source.at(r.start), to: to.at(r.start), ports: uint32(tuple.protocol)<<16 | uint32(tuple.port), side: sideKey(r.reporter, r.verdict, r.egressOnly),
	}
	a, b := &s.table.ends[r.from].texts, &s.table.ends[r.to].texts
	key.isSelf = a[flowrow.Pod] != "" && a[flowrow.Pod] == b[flowrow.Pod] && a[flowrow.Namespace] == b[flowrow.Namespace]
	if source.Twins && to.Twins {
		key.hour = flowrow.HourOf(r.start)
	}
	return key, nil
}

// at returns the class of an end of a record.
func (e *classedEnd) at(start int64) int {
	if start < e.since && start != flowrow.NoTime {
		return e.Before
	}
	return e.ID
}

// end returns an end of the table.
func (s *alikeSums) end(i uint32) (*classedEnd, error) {
	for len(s.ends) <= int(i) {
		s.ends = append(s.ends, classedEnd{})
	}
	e := &s.ends[i]
	if !e.known {
		p, err := s.table.peerOf(i)
		if err != nil {
			return nil, err
		}
		*e = classedEnd{known: true, Class: s.to.Class(p), since: flowrow.NoTime}
		if !e.Since.IsZero() {
			e.since = e.Since.UnixMicro()
		}
	}
	return e, nil
}

// group returns the group of a row, which may be the first that it has.
func (s *alikeSums) group(among map[alikeKey]*alikeGroup, key alikeKey, r *row) (*alikeGroup, error) {
	if g := among[key]; g != nil {
		return g, nil
	}
	if len(s.groups)+len(s.apart) >= maxAlike {
		s.flush()
	}
	f, err := s.table.flow(r)
	if err != nil {
		return nil, err
	}
	g := &alikeGroup{sum: simulator.Alike{Flow: f}, first: r.start, last: r.end, isApart: !s.to.Together(&f)}
	among[key] = g
	return g, nil
}

func (s *alikeSums) flush() {
	flushGroups(s.to, s.groups)
	flushGroups(s.to, s.apart)
	s.lastGroup = nil
}

// flushGroups hands groups over, and forgets them.
func flushGroups(to *simulator.Replayer, groups map[alikeKey]*alikeGroup) {
	for _, g := range groups {
		if g.sum.Flows > 0 {
			g.sum.First, g.sum.Last = flowrow.Moment(g.first), flowrow.Moment(g.last)
			to.AddAlike(&g.sum)
		}
	}
	clear(groups)
}
