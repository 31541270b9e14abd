package flowstore

import (
	"context"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Query says which flows are wanted. A zero field asks for nothing.
type Query struct {
	Range
	From, To EndQuery
	Port     uint16
	Verdict  policies.Verdict
}

// EndQuery says which ends are wanted.
type EndQuery struct{ Namespace, Kind, Name, Pod string }

// texts returns the columns of an end that are asked for.
func (q *EndQuery) texts() map[int]string {
	wanted := map[int]string{}
	for column, text := range map[int]string{flowrow.Namespace: q.Namespace, flowrow.Kind: q.Kind, flowrow.Name: q.Name, flowrow.Pod: q.Pod} {
		if text != "" {
			wanted[column] = text
		}
	}
	return wanted
}

// Scan calls each for the flows that a query asks for, by hour. What lies in
// another time or has not the names asked for is not read. The flow is valid
// until each returns; its maps and slices are shared, and must not be changed.
func (s *Store) Scan(ctx context.Context, q Query, each func(*policies.Flow) error) error {
	st, err := s.refresh(ctx)
	if err != nil {
		return err
	}
	r := &recorded{s, st, q.Range}
	hours, _ := r.hours()
	for _, h := range hours {
		for _, f := range h.all() {
			if err := s.scanFile(ctx, f, &q, each); err != nil {
				return err
			}
		}
	}
	return nil
}

func (s *Store) scanFile(ctx context.Context, f File, q *Query, each func(*policies.Flow) error) error {
	since, until := q.Micros()
	if f.First.UnixMicro() >= until {
		return nil
	}
	b, err := s.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	r, err := newFlowReader(b, newTable())
	if err != nil {
		return err
	}
	from, to := q.From.texts(), q.To.texts()
	mayHave := func() bool {
		for column, text := range from {
			if !slices.Contains(r.vectors[flowSource+column].texts, text) {
				return false
			}
		}
		for column, text := range to {
			if !slices.Contains(r.vectors[flowTarget+column].texts, text) {
				return false
			}
		}
		return (q.Port == 0 || slices.Contains(r.vectors[flowPort].numbers, int64(q.Port))) &&
			(q.Verdict == policies.Undecided || slices.Contains(r.vectors[flowVerdict].texts, q.Verdict.String()))
	}
	has := func(texts *flowrow.End, wanted map[int]string) bool {
		for column, text := range wanted {
			if texts[column] != text {
				return false
			}
		}
		return true
	}
	return r.eachGroup(ctx, mayHave, func(rows []row) error {
		if r.table.size > s.tableSize() {
			defer r.setTable(newTable())
		}
		for i := range rows {
			row := &rows[i]
			if row.start < since || row.start >= until || q.Port != 0 && r.table.tuples[row.tuple].port != q.Port ||
				q.Verdict != policies.Undecided && row.verdict != q.Verdict ||
				!has(&r.table.ends[row.from].texts, from) || !has(&r.table.ends[row.to].texts, to) {
				continue
			}
			found, err := r.table.flow(row)
			if err != nil {
				return r.damage(err)
			}
			if err := each(&found); err != nil {
				return err
			}
		}
		return nil
	})
}
