package flowstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"
)

// Compacted is what Compact did.
type Compacted struct {
	Hours, Days   int    // that were written anew
	Records       uint64 // in those hours
	Removed       int    // files that nobody needs any more
	Before, After int64  // bytes of the hours' files
	OpenHours     int    // that are left as they are, for records may still come
}

// Progress is told, now and then, how much of a long work is done.
type Progress func(done, of int64)

// Compact sorts the flows of every hour that has closed and has new files, and
// removes what nobody needs any more. It may be stopped at any time, and several
// may run: an hour is compacted whole or not at all.
func (s *Store) Compact(ctx context.Context, now time.Time, progress Progress) (Compacted, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return Compacted{}, err
	}
	var done Compacted
	hours := st.byHour()
	var total, sofar int64
	var due []time.Time
	for _, hour := range slices.SortedFunc(maps.Keys(hours), time.Time.Compare) {
		files := hours[hour]
		if len(files.raw) == 0 {
			continue
		}
		if now.Before(hour.Add(time.Hour + s.options.Settle)) {
			done.OpenHours++
			continue
		}
		due = append(due, hour)
		total += files.rows()
	}
	for _, hour := range due {
		err := s.compactHour(ctx, now, hours[hour], &done)
		if err != nil && !errors.Is(err, errOvertaken) {
			return done, fmt.Errorf("compact the hour of %s: %w", hour.Format(time.DateTime), err)
		}
		sofar += hours[hour].rows()
		if progress != nil {
			progress(sofar, total)
		}
	}
	if err := s.compactDays(ctx, now, &done); err != nil {
		return done, err
	}
	done.Removed, err = s.sweep(ctx, now)
	return done, err
}

// hourFiles is the files of an hour that hold its flows.
type hourFiles struct {
	hour   time.Time
	raw    []File
	sorted *File
	hourly *File // of the sorted file, unless a daily one has it
}

func (h *hourFiles) rows() int64 {
	var n int64
	for _, f := range h.all() {
		n += f.Rows
	}
	return n
}

// all returns the files that hold flows.
func (h *hourFiles) all() []File {
	all := slices.Clone(h.raw)
	if h.sorted != nil {
		all = append(all, *h.sorted)
	}
	return all
}

func (s *state) byHour() map[time.Time]*hourFiles {
	hours := map[time.Time]*hourFiles{}
	for _, f := range s.files {
		if f.Kind == daily || f.Kind == whole {
			continue
		}
		h := hours[f.Hour]
		if h == nil {
			h = &hourFiles{hour: f.Hour}
			hours[f.Hour] = h
		}
		switch f.Kind {
		case raw:
			h.raw = append(h.raw, f)
		case sorted:
			h.sorted = &f
		case hourly:
			h.hourly = &f
		}
	}
	for _, h := range hours {
		slices.SortFunc(h.raw, func(a, b File) int {
			if c := a.First.Compare(b.First); c != 0 {
				return c
			}
			return strings.Compare(a.Name, b.Name)
		})
	}
	return hours
}

func (s *Store) compactHour(ctx context.Context, now time.Time, files *hourFiles, done *Compacted) error {
	c := &commit{At: now}
	for _, f := range files.all() {
		c.Remove = append(c.Remove, f.Name)
		done.Before += f.Size
	}
	if files.hourly != nil {
		c.Remove = append(c.Remove, files.hourly.Name)
	}
	flows, tuples := File{Kind: sorted, Hour: files.hour}, File{Kind: hourly, Hour: files.hour}
	roller := s.newRoller()
	defer roller.discard()
	err := s.write(ctx, &flows, func(to io.Writer) error {
		g, err := newGroupWriter(to, flowLayout)
		if err != nil {
			return err
		}
		err = s.sortFlows(ctx, files, func(t *table, rows []row) error {
			flows.count(rows)
			if err := roller.add(t, rows); err != nil {
				return err
			}
			return g.write(t.flowVectors(rows))
		})
		if err != nil {
			return err
		}
		return g.close()
	})
	if err != nil {
		return err
	}
	if flows.Rows != files.rows() {
		return fmt.Errorf("%d flows came of %d; nothing was changed", flows.Rows, files.rows())
	}
	tuples.Of = []string{flows.Name}
	err = s.write(ctx, &tuples, func(to io.Writer) error {
		w, err := newRollWriter(to, rollLayout, &tuples)
		if err != nil {
			return err
		}
		if err := roller.write(ctx, w); err != nil {
			return err
		}
		return w.close()
	})
	if err != nil {
		return err
	}
	if tuples.Flows != flows.Flows {
		return fmt.Errorf("the tuples have %d flows of %d; nothing was changed", tuples.Flows, flows.Flows)
	}
	c.Add = []File{flows, tuples}
	if err := s.append(ctx, c, func(*state) error { return nil }); err != nil {
		return err
	}
	done.Hours++
	done.Records += uint64(flows.Rows)
	done.After += flows.Size + tuples.Size
	return nil
}

// sortFlows hands over the flows of an hour in the order of compacted files, in
// parts that are a row group each. Where they are more than memory may hold,
// it sorts parts of them into files, and merges those.
func (s *Store) sortFlows(ctx context.Context, files *hourFiles, emit func(*table, []row) error) (err error) {
	t, rows := newTable(), make([]row, 0, min(files.rows(), int64(s.groupRows())))
	var runs []blob
	defer func() {
		for _, b := range runs {
			b.close()
		}
	}()
	for _, f := range files.all() {
		err := s.readFlows(ctx, f, t, func(r *flowReader, some []row) error {
			if f.Kind == sorted && files.rows() > int64(s.groupRows()) {
				return errIsRun
			}
			for len(some) > 0 {
				n := min(len(some), s.groupRows()-len(rows))
				rows = append(rows, some[:n]...)
				some = some[n:]
				if len(rows) < s.groupRows() && t.size <= s.tableSize() {
					continue
				}
				rest := slices.Clone(some)
				run, err := s.spoolRun(t, rows)
				if err != nil {
					return err
				}
				runs = append(runs, run)
				fresh := newTable()
				for i := range rest {
					rest[i] = fresh.adopt(t, &rest[i])
				}
				t, rows, some = fresh, rows[:0], rest
				r.setTable(t)
			}
			return nil
		})
		if errors.Is(err, errIsRun) {
			var run blob
			if run, err = s.blobs.open(ctx, f.Name); err == nil {
				runs = append(runs, run)
			}
		}
		if err != nil {
			return err
		}
	}
	if len(runs) == 0 {
		if len(rows) == 0 {
			return nil
		}
		t.sortByTuple(rows)
		return emit(t, rows)
	}
	if len(rows) > 0 {
		run, err := s.spoolRun(t, rows)
		if err != nil {
			return err
		}
		runs = append(runs, run)
	}
	return s.mergeRuns(ctx, runs, rows[:0], emit)
}

// errIsRun says that a file need not be sorted, for it is.
var errIsRun = errors.New("is sorted")

// readFlows hands over the flows of a file as rows of a table.
func (s *Store) readFlows(ctx context.Context, f File, t *table, each func(*flowReader, []row) error) error {
	b, err := s.openFile(ctx, f)
	if err != nil {
		return err
	}
	defer b.close()
	r, err := newFlowReader(b, t)
	if err != nil {
		return err
	}
	if r.total() != f.Rows {
		return r.damage(fmt.Errorf("it has %d rows instead of %d", r.total(), f.Rows))
	}
	for {
		rows, err := r.next()
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := each(r, rows); err != nil {
			return err
		}
	}
}

var errMissing = errors.New("the file is missing")

func (s *Store) openFile(ctx context.Context, f File) (blob, error) {
	b, err := s.blobs.open(ctx, f.Name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("%s/%s: %w; the store was compacted meanwhile (then do it again), or somebody removed it", s.blobs, f.Name, errMissing)
	case err != nil:
		return nil, err
	case b.size() != f.Size:
		size := b.size()
		b.close()
		return nil, fmt.Errorf("%s: it has %d bytes instead of %d: it was cut off or changed", b.name(), size, f.Size)
	}
	return b, nil
}

// adopt returns a row of another table as one of this.
func (t *table) adopt(of *table, r *row) row {
	own := *r
	own.from, own.to = t.end(&of.ends[r.from].texts), t.end(&of.ends[r.to].texts)
	tuple := of.tuples[r.tuple]
	own.tuple = t.tupleOf(tuple.id, own.from, own.to, tuple.protocol, tuple.port)
	own.hits, own.format = t.text(of.texts[r.hits]), t.text(of.texts[r.format])
	return own
}

// runGroup is the rows of a row group of a run: small, so that many runs can be
// read at a time.
const runGroup = 1 << 18

// spoolRun sorts rows into a file that is gone when it is closed.
func (s *Store) spoolRun(t *table, rows []row) (_ blob, err error) {
	t.sortByTuple(rows)
	spooled, err := s.blobs.spool()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			discard(spooled)
		}
	}()
	g, err := newGroupWriter(spooled, flowLayout)
	if err != nil {
		return nil, err
	}
	for part := range slices.Chunk(rows, runGroup) {
		if err := g.write(t.flowVectors(part)); err != nil {
			return nil, err
		}
	}
	if err := g.close(); err != nil {
		return nil, err
	}
	info, err := spooled.Stat()
	if err != nil {
		return nil, err
	}
	return &spooledBlob{localBlob{spooled, info.Size(), spooled.Name()}}, nil
}

type spooledBlob struct{ localBlob }

func (b *spooledBlob) close() { discard(b.File) }

// mergeRuns merges sorted files of flows. It uses the space of out.
func (s *Store) mergeRuns(ctx context.Context, runs []blob, out []row, emit func(*table, []row) error) error {
	t := newTable()
	type head struct {
		*flowReader
		rest []row
	}
	var heads []*head
	for _, run := range runs {
		r, err := newFlowReader(run, t)
		if err != nil {
			return err
		}
		h := &head{flowReader: r}
		if h.rest, err = r.next(); err != nil {
			return err
		}
		if len(h.rest) > 0 {
			heads = append(heads, h)
		}
	}
	before := func(a, b *row) bool {
		if a.tuple != b.tuple {
			return t.compareTuples(&t.tuples[a.tuple], &t.tuples[b.tuple]) < 0
		}
		return compareWithin(a, b) < 0
	}
	flush := func() error {
		if err := emit(t, out); err != nil {
			return err
		}
		fresh := newTable()
		for _, h := range heads {
			for i := range h.rest {
				h.rest[i] = fresh.adopt(t, &h.rest[i])
			}
			h.setTable(fresh)
		}
		t, out = fresh, out[:0]
		return ctx.Err()
	}
	for len(heads) > 0 {
		first, second := heads[0], (*head)(nil)
		for _, h := range heads[1:] {
			switch {
			case before(&h.rest[0], &first.rest[0]):
				first, second = h, first
			case second == nil || before(&h.rest[0], &second.rest[0]):
				second = h
			}
		}
		n := 1
		for n < len(first.rest) && (second == nil || !before(&second.rest[0], &first.rest[n])) {
			n++
		}
		n = min(n, s.groupRows()-len(out))
		out = append(out, first.rest[:n]...)
		if first.rest = first.rest[n:]; len(first.rest) == 0 {
			var err error
			if first.rest, err = first.next(); err != nil {
				return err
			}
			if len(first.rest) == 0 {
				heads = slices.DeleteFunc(heads, func(h *head) bool { return h == first })
			}
		}
		if len(out) == s.groupRows() || t.size > s.tableSize() {
			if err := flush(); err != nil {
				return err
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return emit(t, out)
}

// compactDays joins the tuples of the hours of every day that has closed.
func (s *Store) compactDays(ctx context.Context, now time.Time, done *Compacted) error {
	st, err := s.refresh(ctx)
	if err != nil {
		return err
	}
	type dayFiles struct {
		of     []string
		tuples []File
		whole  []File
		open   bool
		fresh  bool
	}
	days := map[time.Time]*dayFiles{}
	at := func(hour time.Time) *dayFiles {
		day := dayOf(hour)
		if days[day] == nil {
			days[day] = &dayFiles{}
		}
		return days[day]
	}
	for _, f := range st.files {
		d := at(f.Hour)
		switch f.Kind {
		case raw:
			d.open = true
		case sorted:
			d.of = append(d.of, f.Name)
		case hourly:
			d.fresh = true
			d.tuples = append(d.tuples, f)
		case daily:
			d.tuples = append(d.tuples, f)
		case whole:
			d.whole = append(d.whole, f)
		}
	}
	for day, d := range days {
		isJoined := !d.fresh && len(d.whole) > 0
		if d.open || len(d.tuples) == 0 || isJoined || now.Before(day.Add(24*time.Hour+s.options.Settle)) {
			continue
		}
		slices.Sort(d.of)
		c := &commit{At: now, Add: []File{{Kind: daily, Hour: day, Of: d.of}, {Kind: whole, Hour: day, Of: d.of}}}
		for _, t := range slices.Concat(d.tuples, d.whole) {
			c.Remove = append(c.Remove, t.Name)
		}
		err := s.writeDay(ctx, st, d.tuples, &c.Add[0], rollLayout, (*rollWriter).add)
		if err == nil {
			err = s.writeDay(ctx, st, d.tuples, &c.Add[1], wholeLayout, (*rollWriter).addToDay)
		}
		if err == nil {
			err = s.append(ctx, c, func(*state) error { return nil })
		}
		if err != nil && !errors.Is(err, errOvertaken) {
			return fmt.Errorf("join the hours of %s: %w", day.Format(time.DateOnly), err)
		}
		if err == nil {
			done.Days++
		}
	}
	return nil
}

// writeDay writes the tuples of some files as those of a day.
func (s *Store) writeDay(ctx context.Context, st *state, of []File, f *File, l *layout, add func(*rollWriter, *roll, *table) error) error {
	return s.write(ctx, f, func(to io.Writer) error {
		w, err := newRollWriter(to, l, f)
		if err != nil {
			return err
		}
		sources, err := s.openRolls(ctx, st, of, rollNumbers, nil)
		if err != nil {
			return err
		}
		defer closeAll(sources)
		err = mergeRolls(ctx, sources, func(r *rollReader) error {
			own, err := r.roll()
			if err != nil {
				return err
			}
			return add(w, own, r.table)
		})
		if err != nil {
			return err
		}
		return w.close()
	})
}

func dayOf(hour time.Time) time.Time {
	y, m, d := hour.UTC().Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// openRolls opens files of tuples. Of their rolls of hours those count whose hour's
// sorted file is still the one that they were made of, and that are wanted.
func (s *Store) openRolls(ctx context.Context, st *state, files []File, columns []int, wanted func(hour int64) bool) ([]*rollReader, error) {
	current := map[int64]string{}
	for _, f := range st.files {
		if f.Kind == sorted {
			current[f.Hour.UnixMicro()] = f.Name
		}
	}
	var all []*rollReader
	for _, f := range files {
		b, err := s.openFile(ctx, f)
		if err == nil {
			l, valid := rollLayout, func(hour int64) bool {
				name, ok := current[hour]
				return ok && slices.Contains(f.Of, name) && (wanted == nil || wanted(hour))
			}
			if f.Kind == whole {
				l, valid = wholeLayout, nil
			}
			var r *rollReader
			r, err = newRollReader(b, l, columns, valid)
			if err == nil {
				all = append(all, r)
			}
		}
		if err != nil {
			closeAll(all)
			return nil, err
		}
	}
	return all, nil
}

// dataFolders are those of the files that commits name.
var dataFolders = []string{"flows/", "tuples/"}

// uncommitted reports whether no commit has named a file.
func (s *state) uncommitted(name string) bool {
	_, needed := s.files[name]
	_, replaced := s.gone[name]
	return !needed && !replaced
}

// sweep removes files that were replaced, or never committed, longer ago than
// the grace, and entries of the manifest that were summed up.
func (s *Store) sweep(ctx context.Context, now time.Time) (int, error) {
	st, err := s.refresh(ctx)
	if err != nil {
		return 0, err
	}
	before := now.Add(-s.options.Grace)
	var old []string
	forget := &commit{At: now}
	for _, under := range dataFolders {
		err := s.blobs.list(ctx, under, "", func(e entry) error {
			at, replaced := st.gone[e.name]
			switch {
			case replaced && !at.After(before):
				old = append(old, e.name)
			case st.uncommitted(e.name) && !e.modified.After(before):
				forget.Forget = append(forget.Forget, e.name)
			}
			return nil
		})
		if err != nil {
			return 0, err
		}
	}
	if len(forget.Forget) > 0 {
		// Who has not committed them yet is told, and does not.
		err := s.append(ctx, forget, func(st *state) error {
			forget.Forget = slices.DeleteFunc(forget.Forget, func(name string) bool { _, needed := st.files[name]; return needed })
			return nil
		})
		if err != nil {
			return 0, err
		}
		old = append(old, forget.Forget...)
	}
	summed := ""
	var entries []string
	err = s.blobs.list(ctx, logFolder, "", func(e entry) error {
		if !e.modified.After(before) {
			entries = append(entries, e.name)
			if strings.HasSuffix(e.name, ".all.json") {
				summed = e.name
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	for _, name := range entries {
		if name < summed {
			old = append(old, name)
		}
	}
	for _, name := range old {
		if err := s.blobs.remove(ctx, name); err != nil {
			return 0, fmt.Errorf("remove %s/%s: %w", s.blobs, name, err)
		}
	}
	return len(old), s.blobs.sweep(before)
}
