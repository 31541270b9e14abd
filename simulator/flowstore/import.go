package flowstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Writer adds flows to a store. It is not safe for concurrent use, but a store
// may have many.
type Writer struct {
	store  *Store
	table  *table
	rows   []row
	source *flowrow.Source    // what was read of a file so far
	grown  *flowrow.SourceKey // what the file was when it was imported before
	was    uint64             // how much of it the last commit told
	added  uint64
}

// NewWriter returns a Writer of flows that come from nowhere in particular.
func (s *Store) NewWriter() *Writer { return &Writer{store: s, table: newTable()} }

// maxImportRows is how many rows are written to new files at once.
const maxImportRows = 1 << 20

// Add takes one flow. The flow's maps and slices must not change afterwards.
// Now and then it commits all that was taken so far.
func (w *Writer) Add(ctx context.Context, f *policies.Flow) error {
	if len(w.rows) == cap(w.rows) { // append would double small slices only
		w.rows = slices.Grow(w.rows, max(1<<10, len(w.rows)))
	}
	w.rows = append(w.rows, w.table.row(f))
	if w.source != nil {
		w.source.Flows++
	}
	if len(w.rows) >= min(maxImportRows, w.store.groupRows()) || w.table.size > w.store.tableSize() {
		return w.Commit(ctx)
	}
	return nil
}

// Commit makes the flows that were taken part of the store: all or, where it
// fails, none since the last commit.
func (w *Writer) Commit(ctx context.Context) error {
	c := &commit{}
	if w.source != nil {
		told := *w.source
		c.At, c.Source, c.Grown = time.Now(), &told, w.grown
	}
	var err error
	if c.Add, err = w.store.writeHours(ctx, w.table, w.rows); err != nil {
		return err
	}
	if len(c.Add) == 0 && c.Source == nil {
		return nil
	}
	err = w.store.append(ctx, c, func(st *state) error {
		if c.Source != nil && st.sources[c.Source.Key()].Flows != w.was {
			return fmt.Errorf("%s is being imported by another process: %w", c.Source.Name, errOvertaken)
		}
		return nil
	})
	if err != nil {
		return err
	}
	w.added += uint64(len(w.rows))
	w.rows, w.table = w.rows[:0], newTable()
	if c.Source != nil {
		w.was = c.Source.Flows
	}
	return nil
}

func compareInt(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// writeHours stores rows as a file for each of their hours. It orders the rows.
func (s *Store) writeHours(ctx context.Context, t *table, rows []row) ([]File, error) {
	var files []File
	slices.SortStableFunc(rows, func(a, b row) int { return compareInt(flowrow.HourOf(a.start), flowrow.HourOf(b.start)) })
	for len(rows) > 0 {
		hour, n := flowrow.HourOf(rows[0].start), 0
		for n < len(rows) && flowrow.HourOf(rows[n].start) == hour {
			n++
		}
		sortByTime(rows[:n])
		f := File{Kind: raw, Hour: flowrow.Moment(hour)}
		if err := s.writeFlows(ctx, &f, t, rows[:n]); err != nil {
			return nil, err
		}
		files = append(files, f)
		rows = rows[n:]
	}
	return files, nil
}

// writeFlows stores rows of one hour as a file.
func (s *Store) writeFlows(ctx context.Context, f *File, t *table, rows []row) error {
	return s.write(ctx, f, func(to io.Writer) error {
		g, err := newGroupWriter(to, flowLayout)
		if err != nil {
			return err
		}
		f.count(rows)
		if err := g.write(t.flowVectors(rows)); err != nil {
			return err
		}
		return g.close()
	})
}

// count adds to what the manifest says of a file's rows.
func (f *File) count(rows []row) {
	for i := range rows {
		r := &rows[i]
		f.Flows += r.count
		if first := flowrow.Moment(r.start); f.Rows+int64(i) == 0 || first.Before(f.First) {
			f.First = first
		}
		if last := flowrow.Moment(r.end); last.After(f.Last) {
			f.Last = last
		}
	}
	f.Rows += int64(len(rows))
}

// Imported is what became of a file.
type Imported = flowrow.Imported

// Import adds the flows of a file that read hands over, in the order in which
// they stand. What an earlier import of the same file has added is left out, also
// where that one was interrupted, or the file has grown since. Where read fails
// or ctx ends, the flows before are added. How says how it is read, which must be as
// before where read has reported that this reads the file only partly.
func (s *Store) Import(ctx context.Context, name, how string, file io.ReadSeeker, read func(each func(policies.Flow) error) (partly bool, err error)) (Imported, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return Imported{}, err
	}
	src, before, err := flowrow.Identify(ctx, name, how, file, st.sources)
	if err != nil {
		return Imported{}, err
	}
	known := src.Flows
	if src.Whole {
		return Imported{Known: known}, nil
	}
	w := s.NewWriter()
	w.source, w.was = &src, st.sources[src.Key()].Flows
	if earlier, ok := st.sources[before]; ok && earlier.Name == name && before != src.Key() {
		w.grown = &before
	}
	seen := uint64(0)
	var errAdd error
	partly, errRead := read(func(f policies.Flow) error {
		if seen++; seen <= known {
			return nil
		}
		errAdd = w.Add(ctx, &f)
		return errAdd
	})
	src.Whole = errRead == nil
	if partly {
		src.Partly = how
	}
	if errAdd == nil || ctx.Err() != nil {
		errRead = errors.Join(errRead, w.Commit(context.WithoutCancel(ctx)))
	}
	return Imported{Added: w.added, Known: min(seen, known)}, errRead
}
