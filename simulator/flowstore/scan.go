package flowstore

import (
	"cmp"
	"context"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Scan calls each for the flows that a filter chooses, by hour, and for some that
// it does not. Hours of another time, and most of the flows between other ends, on
// other ports and with other verdicts, are not read. The flow is valid until each
// returns; its maps and slices are shared, and must not be changed.
func (s *Store) Scan(ctx context.Context, f *simulator.Filter, each func(*policies.Flow) error) error {
	r, err := s.recorded(ctx, Range{Since: f.Since, Until: f.Until}, true)
	if err != nil {
		return err
	}
	scan := &scan{recorded: r, filter: f, each: each}
	hours, _ := scan.hours()
	spans := map[int64][]span{}
	if scan.bySpans() {
		if spans, err = scan.chosenSpans(ctx, hours); err != nil {
			return err
		}
	}
	for _, h := range hours {
		for _, file := range h.raw {
			if err := scan.file(ctx, file); err != nil {
				return err
			}
		}
		if h.sorted == nil {
			continue
		}
		found, rows := spans[h.hour.UnixMicro()], int64(0)
		for _, at := range found {
			rows += at.rows
		}
		if scan.bySpans() && rows < h.sorted.Rows/2 {
			err = s.readSpans(ctx, *h.sorted, found, scan.take)
		} else {
			err = scan.file(ctx, *h.sorted)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// scan is a reading of the flows that a filter may choose.
type scan struct {
	*recorded
	filter *simulator.Filter
	each   func(*policies.Flow) error
	of     *table
	wanted []answer // by the tuples of that table
}

type answer uint8

const (
	notAsked answer = iota
	isWanted
	isNot
)

// bySpans reports whether the filter leaves out anything that the tuples know.
func (s *scan) bySpans() bool {
	f := s.filter
	return len(f.From)+len(f.To)+len(f.Either)+len(f.Verdicts)+len(f.Reporters) > 0 || !f.Ports.IsEmpty()
}

// isOf reports whether the filter asks for a verdict of a side.
func (s *scan) isOf(v policies.Verdict, r policies.Reporter) bool {
	return (len(s.filter.Verdicts) == 0 || slices.Contains(s.filter.Verdicts, cmp.Or(v, policies.Unknown))) &&
		(len(s.filter.Reporters) == 0 || slices.Contains(s.filter.Reporters, r))
}

// chosenSpans returns where in the sorted files there are flows that the filter
// may choose, by hour.
func (s *scan) chosenSpans(ctx context.Context, hours []*hourFiles) (map[int64][]span, error) {
	columns := append([]int{rollReporter, rollVerdict, rollSource + flowrow.IP, rollTarget + flowrow.IP}, placeNumbers...)
	known := peers{}
	return s.spansOf(ctx, hours, columns, func(r *rollReader) (func(i int) bool, error) {
		var f policies.Flow
		err := r.readFlow(known, &f)
		if err != nil {
			return nil, err
		}
		for i, peer := range [...]*policies.FlowPeer{&f.From, &f.To} {
			if ip := r.address(i); ip != several {
				if peer.Address, err = flowrow.ParseAddress(ip); err != nil {
					return nil, r.numbers.damage(err)
				}
			}
		}
		if !s.filter.MayChoose(&f) {
			return nil, nil
		}
		v := r.vectors
		return func(i int) bool {
			return s.isOf(r.verdicts[v[rollVerdict].codes[i]], r.reporters[v[rollReporter].codes[i]])
		}, nil
	})
}

// file reads a file of flows.
func (s *scan) file(ctx context.Context, f File) error {
	if _, until := s.Micros(); f.First.UnixMicro() >= until {
		return nil
	}
	b, err := s.store.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	r, err := newFlowReader(b, newTable())
	if err != nil {
		return err
	}
	mayHave := func() bool {
		return slices.ContainsFunc(r.vectors[flowVerdict].texts, func(text string) bool {
			v, err := flowrow.ParseVerdict(text)
			return err != nil || slices.ContainsFunc(r.vectors[flowReporter].texts, func(text string) bool {
				side, err := policies.ParseReporter(text)
				return err != nil || s.isOf(v, side)
			})
		})
	}
	return r.eachGroup(ctx, mayHave, func(rows []row) error {
		if r.table.size > s.store.tableSize() {
			defer r.setTable(newTable())
		}
		if err := s.take(r.table, rows); err != nil {
			return r.damage(err)
		}
		return nil
	})
}

// take hands over rows.
func (s *scan) take(t *table, rows []row) error {
	if s.of != t {
		s.of, s.wanted = t, s.wanted[:0]
	}
	for i := range rows {
		row := &rows[i]
		if !s.holds(row.start) || !s.isOf(row.verdict, row.reporter) {
			continue
		}
		if wanted, err := s.wants(row.tuple); err != nil || !wanted {
			if err != nil {
				return err
			}
			continue
		}
		found, err := t.flow(row)
		if err != nil {
			return err
		}
		if err := s.each(&found); err != nil {
			return err
		}
	}
	return nil
}

// wants reports whether the filter may choose flows of a tuple of the table.
func (s *scan) wants(i uint32) (bool, error) {
	if !s.bySpans() {
		return true, nil
	}
	for len(s.wanted) <= int(i) {
		s.wanted = append(s.wanted, notAsked)
	}
	if s.wanted[i] == notAsked {
		tuple := &s.of.tuples[i]
		f := policies.Flow{Protocol: tuple.protocol, Port: tuple.port}
		for _, side := range []struct {
			end  uint32
			peer *policies.FlowPeer
		}{{tuple.from, &f.From}, {tuple.to, &f.To}} {
			identity := s.of.ends[side.end].texts.Identity()
			p, err := s.of.parsePeer(&identity)
			if err != nil {
				return false, err
			}
			*side.peer = *p
		}
		s.wanted[i] = isNot
		if s.filter.MayChoose(&f) {
			s.wanted[i] = isWanted
		}
	}
	return s.wanted[i] == isWanted, nil
}
