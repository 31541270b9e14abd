package clickhouse

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	driver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/cespare/xxhash/v2"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// Writer adds flows to a store. It is not safe for concurrent use, but a store
// may have many.
type Writer struct {
	store  *Store
	ends   flowrow.Ends
	flows  []policies.Flow
	source *flowrow.Source // what was read of a file so far
	was    uint64          // how much of it is in the store
	// pending is a batch of which an earlier import of the file did not hear
	// whether it arrived.
	pending *batch
	added   uint64
}

// batch is flows that are sent at once.
type batch struct {
	id       uint64
	position uint64 // how many flows of the file come before
	taken    uint64
}

// NewWriter returns a Writer of flows that come from nowhere in particular.
func (s *Store) NewWriter() *Writer { return &Writer{store: s} }

// Add takes one flow. The flow's maps and slices must not change afterwards.
// Now and then it commits all that was taken so far.
func (w *Writer) Add(ctx context.Context, f *policies.Flow) error {
	w.flows = append(w.flows, *f)
	if w.source != nil {
		w.source.Flows++
	}
	full := w.store.options.Batch
	if w.pending != nil {
		full = int(w.pending.taken)
	}
	if len(w.flows) >= full {
		return w.Commit(ctx)
	}
	return nil
}

// Commit brings the flows that were taken into the store. Where servers are away
// it waits for them, as long as the store has patience. Where it fails, some of
// the flows may be in the store; only importing the same file again knows which.
func (w *Writer) Commit(ctx context.Context) error {
	if len(w.flows) == 0 && (w.source == nil || !w.source.Whole) {
		return nil
	}
	b := &batch{id: rand.Uint64(), position: w.was, taken: uint64(len(w.flows))}
	resumed := false
	if w.source != nil && len(w.flows) > 0 {
		b.id = hash(w.source.Key(), b.position, b.taken)
		if resumed = w.pending != nil; resumed {
			b.id = w.pending.id
		}
		if err := w.begin(ctx, b); err != nil {
			return err
		}
	}
	days := map[int64][]*policies.Flow{}
	for i := range w.flows {
		day := dayIn(w.flows[i].First.UnixMicro())
		days[day] = append(days[day], &w.flows[i])
	}
	here := false // whether any of it was there
	for day, flows := range days {
		found, err := w.store.send(ctx, w.block(flows, hash(flowrow.SourceKey{}, b.id, uint64(day))), resumed)
		if err != nil {
			return err
		}
		here = here || found
	}
	if err := w.end(ctx, b); err != nil {
		return err
	}
	w.added += b.taken
	w.was += b.taken
	w.flows = w.flows[:0]
	w.pending = nil
	return nil
}

func hash(key flowrow.SourceKey, numbers ...uint64) uint64 {
	b := binary.LittleEndian.AppendUint64([]byte(key.SHA256), uint64(key.Size))
	for _, n := range numbers {
		b = binary.LittleEndian.AppendUint64(b, n)
	}
	return xxhash.Sum64(b)
}

// dayIn returns the day of a time, both as partitions have them: so each block
// is of one partition, and arrives as a whole or not at all.
func dayIn(micros int64) int64 {
	return min(max(micros, 0), 4102444799000000) / (24 * flowrow.HourMicros)
}

// begin tells the store what is about to be sent, so that whoever goes on where
// this import stops knows for what to look.
func (w *Writer) begin(ctx context.Context, b *batch) error {
	if err := w.note(ctx, b.id, b.position, b.taken, "begun"); err != nil {
		return err
	}
	var there uint64
	err := w.store.patiently(ctx, func() error {
		return w.store.conn.QueryRow(ctx, "SELECT max(`position`) FROM "+w.store.table("imports")+" WHERE `sha256` = ? AND `size` = ?",
			w.source.SHA256, uint64(w.source.Size)).Scan(&there)
	})
	if err == nil && there > b.position {
		err = fmt.Errorf("%s is being imported by another process, which is ahead", w.source.Name)
	}
	return err
}

func (w *Writer) end(ctx context.Context, b *batch) error {
	if w.source == nil {
		return nil
	}
	state := "done"
	switch {
	case w.source.Whole && w.source.Partly != "":
		state = statePartly + w.source.Partly
	case w.source.Whole:
		state = "whole"
	}
	return w.note(ctx, b.id, b.position+b.taken, b.taken, state)
}

// statePartly begins the state of a file that was read, but not all of it could be;
// how it was read follows.
const statePartly = "whole but for bad records, "

func (w *Writer) note(ctx context.Context, id, position, taken uint64, state string) error {
	return w.store.patiently(ctx, func() error {
		return w.store.insert(ctx, "imports", []string{"at", "name", "size", "sha256", "batch", "position", "taken", "state"}, "", []any{
			[]time.Time{time.Now().UTC()},
			[]string{w.source.Name},
			[]uint64{uint64(w.source.Size)},
			[]string{w.source.SHA256},
			[]uint64{id},
			[]uint64{position},
			[]uint64{taken},
			[]string{state},
		})
	})
}

// Import adds the flows of a file that read hands over, in the order in which
// they stand. What an earlier import of the same file has added is left out, also
// where that one was interrupted, or the file has grown since. Where read fails,
// the flows before are added. How says how it is read, which must be as before where
// read has reported that this reads the file only partly.
func (s *Store) Import(ctx context.Context, name, how string, file io.ReadSeeker, read func(each func(policies.Flow) error) (partly bool, err error)) (flowrow.Imported, error) {
	known, err := s.sources(ctx)
	if err != nil {
		return flowrow.Imported{}, err
	}
	source, before, err := flowrow.Identify(ctx, name, how, file, known)
	if err != nil {
		return flowrow.Imported{}, err
	}
	had := source.Flows
	if source.Whole {
		return flowrow.Imported{Known: had}, nil
	}
	w := s.NewWriter()
	w.source, w.was = &source, had
	if w.pending, err = s.pendingOf(ctx, before, had); err != nil {
		return flowrow.Imported{}, err
	}
	seen := uint64(0)
	var errAdd error
	partly, errRead := read(func(f policies.Flow) error {
		if seen++; seen <= had {
			return nil
		}
		errAdd = w.Add(ctx, &f)
		return errAdd
	})
	source.Whole = errRead == nil
	if partly {
		source.Partly = how
	}
	if errAdd == nil && ctx.Err() == nil {
		errRead = errors.Join(errRead, w.Commit(ctx))
	}
	return flowrow.Imported{Added: w.added, Known: min(seen, had)}, errRead
}

// sources returns all files of which something was imported.
func (s *Store) sources(ctx context.Context) (map[flowrow.SourceKey]flowrow.Source, error) {
	all := map[flowrow.SourceKey]flowrow.Source{}
	rows, err := s.conn.Query(ctx, "SELECT any(`name`), `size`, `sha256`, max(`position`), toUInt8(max(`state` = 'whole' OR position(`state`, ?) = 1)), max(if(position(`state`, ?) = 1, `state`, '')) FROM "+
		s.table("imports")+" GROUP BY `size`, `sha256`", statePartly, statePartly)
	if err != nil {
		return nil, fmt.Errorf("read what was imported into %s: %w", s.name, err)
	}
	err = scan(rows, func(fetch func(...any) error) error {
		var source flowrow.Source
		var size uint64
		var whole uint8
		err := fetch(&source.Name, &size, &source.SHA256, &source.Flows, &whole, &source.Partly)
		source.Partly = strings.TrimPrefix(source.Partly, statePartly)
		source.Size, source.Whole = int64(size), whole == 1
		all[source.Key()] = source
		return err
	})
	return all, err
}

// pendingOf returns the batch of a file that was begun after some of its flows,
// and did not end; nil where there is none.
func (s *Store) pendingOf(ctx context.Context, key flowrow.SourceKey, position uint64) (*batch, error) {
	rows, err := s.conn.Query(ctx, "SELECT `batch`, `taken` FROM "+s.table("imports")+
		" WHERE `sha256` = ? AND `size` = ? AND `position` = ? AND `state` = 'begun' ORDER BY `at` LIMIT 1", key.SHA256, uint64(key.Size), position)
	if err != nil {
		return nil, err
	}
	var found *batch
	err = scan(rows, func(fetch func(...any) error) error {
		found = &batch{position: position}
		return fetch(&found.id, &found.taken)
	})
	return found, err
}

// block is flows of one day as columns.
type block struct {
	id          uint64
	rows        int
	first, last int64 // of their starts
	columns     []any
}

func (w *Writer) block(flows []*policies.Flow, id uint64) *block {
	b := &block{id: id, rows: len(flows), first: 1<<63 - 1, last: -1 << 63}
	ends := [2][]*flowrow.KnownEnd{make([]*flowrow.KnownEnd, len(flows)), make([]*flowrow.KnownEnd, len(flows))}
	for i, f := range flows {
		ends[0][i], ends[1][i] = w.ends.Of(&f.From), w.ends.Of(&f.To)
		at := f.First.UnixMicro()
		b.first, b.last = min(b.first, at), max(b.last, at)
	}
	b.columns = append(b.columns,
		each(flows, func(f *policies.Flow) int64 { return f.First.UnixMicro() }),
		each(flows, func(f *policies.Flow) int64 { return f.Last.UnixMicro() }))
	for side := range ends {
		for i := range flowrow.Texts {
			b.columns = append(b.columns, each(ends[side], func(e *flowrow.KnownEnd) string { return e.End[i] }))
		}
	}
	tuples := make([]uint64, len(flows))
	for i, f := range flows {
		from, to := ends[0][i], ends[1][i]
		tuples[i] = flowrow.TupleID(&from.End, &to.End, from.Hash, to.Hash, f.Protocol, f.Port)
	}
	b.columns = append(b.columns,
		each(flows, func(f *policies.Flow) string { return flowrow.ProtocolText(f.Protocol) }),
		each(flows, func(f *policies.Flow) uint16 { return f.SourcePort }),
		each(flows, func(f *policies.Flow) uint16 { return f.Port }),
		each(flows, func(f *policies.Flow) string { return flowrow.VerdictText(f.Verdict) }),
		each(flows, func(f *policies.Flow) uint8 { return flag(f.EgressOnly) }),
		each(flows, func(f *policies.Flow) string { return f.Origin.Reporter.String() }),
		each(flows, func(f *policies.Flow) string { return f.Origin.Format }),
		each(flows, func(f *policies.Flow) int64 { return f.Origin.Window.Microseconds() }),
		each(flows, func(f *policies.Flow) uint64 { return max(1, f.Count) }),
		each(flows, func(f *policies.Flow) uint64 { return f.Bytes }),
		each(flows, func(f *policies.Flow) uint64 { return f.Packets }),
		each(flows, func(f *policies.Flow) uint64 { return f.ReplyBytes }),
		each(flows, func(f *policies.Flow) uint64 { return f.ReplyPackets }),
		each(flows, func(f *policies.Flow) string { return flowrow.FormatHits(f.Hits) }),
		tuples,
		each(flows, func(*policies.Flow) uint64 { return id }),
	)
	return b
}

func each[From, To any](all []From, of func(From) To) []To {
	column := make([]To, len(all))
	for i, v := range all {
		column[i] = of(v)
	}
	return column
}

var flowNames = each(flowColumns, func(c column) string { return c.name })

// insert sends columns to a table. The id, where there is one, is that of the
// query, and what the server knows the block by when it is sent again.
func (s *Store) insert(ctx context.Context, table string, columns []string, id string, values []any) error {
	settings := driver.Settings{}
	if s.cluster != "" {
		settings["insert_distributed_sync"] = 1
	}
	if s.dedups && id != "" {
		settings["insert_deduplicate"] = 1
		settings["insert_deduplication_token"] = id
		settings["deduplicate_blocks_in_dependent_materialized_views"] = 1
	}
	options := []driver.QueryOption{driver.WithSettings(settings)}
	if id != "" {
		options = append(options, driver.WithQueryID(fmt.Sprintf("%s-%08x", id, rand.Uint32())))
	}
	b, err := s.conn.PrepareBatch(driver.Context(ctx, options...), "INSERT INTO "+s.table(table)+" (`"+strings.Join(columns, "`, `")+"`) VALUES")
	if err != nil {
		return err
	}
	for i, column := range values {
		if err := b.Column(i).Append(column); err != nil {
			return errors.Join(&misfit{columns[i], err}, b.Abort())
		}
	}
	return b.Send()
}

// misfit is a column that a table does not take.
type misfit struct {
	column string
	error
}

func (m *misfit) Error() string { return "column " + m.column + ": " + m.error.Error() }

// send brings a block into the store exactly once, and reports whether it was
// there already. Doubted is a block that an earlier import may have sent.
func (s *Store) send(ctx context.Context, b *block, doubted bool) (was bool, err error) {
	id := fmt.Sprintf("weir-%016x", b.id)
	// A server that knows a block again, itself and in what is fed from it, can
	// simply be sent it once more, if that is soon.
	look := doubted
	err = s.patiently(ctx, func() error {
		if look {
			if was, err = s.has(ctx, b, id); err != nil {
				return err
			}
		}
		if !was {
			if err := s.insert(ctx, "flows", flowNames, id, b.columns); err != nil {
				look = look || !s.dedups
				return err
			}
		}
		if look {
			return s.reconcile(ctx, b.first, b.last)
		}
		return nil
	})
	return was, err
}

// has reports whether a block has arrived. It waits until no server is busy
// with it any more.
func (s *Store) has(ctx context.Context, b *block, id string) (bool, error) {
	for {
		var busy uint64
		if err := s.conn.QueryRow(ctx, "SELECT toUInt64(count()) FROM system.processes WHERE `query_id` LIKE ?", id+"-%").Scan(&busy); err != nil {
			return false, err
		}
		if busy == 0 {
			break
		}
		if err := pause(ctx, time.Second); err != nil {
			return false, err
		}
	}
	var rows uint64
	err := s.conn.QueryRow(ctx, "SELECT toUInt64(count()) FROM "+s.table("flows")+" WHERE `batch` = ? AND `start` >= ? AND `start` <= ?",
		b.id, b.first, b.last).Scan(&rows)
	return rows == uint64(b.rows), err
}

// reconcile makes the tuples of some hours what the flows come to: a server that
// dies between a block of flows and what is fed from it leaves them too small.
func (s *Store) reconcile(ctx context.Context, first, last int64) error {
	from, until := flowrow.HourOf(first), flowrow.HourOf(last)+flowrow.HourMicros
	columns, rolled := rollupOf(s.table("flows"), "\nWHERE `start` >= ? AND `start` < ?")
	var terms, keys, had []string
	for _, c := range rollupColumns {
		switch {
		case c.key:
			keys = append(keys, "`"+c.name+"`")
			terms = append(terms, "`"+c.name+"`")
		case c.summed():
			had = append(had, "sum(`"+c.name+"`) AS `had_"+c.name+"`")
			terms = append(terms, "toUInt64(`"+c.name+"` - `had_"+c.name+"`)")
		default:
			terms = append(terms, "`"+c.name+"`")
		}
	}
	by := strings.Join(keys, ", ")
	settings := driver.Settings{}
	if s.cluster != "" {
		settings["insert_distributed_sync"] = 1
	}
	return s.conn.Exec(driver.Context(ctx, driver.WithSettings(settings)), "INSERT INTO "+s.table("tuples")+" ("+columns+")\nSELECT "+strings.Join(terms, ", ")+
		"\nFROM (\n"+rolled+"\n) AS `fresh` ANY LEFT JOIN (\nSELECT "+by+", "+strings.Join(had, ", ")+"\nFROM "+s.table("tuples")+
		"\nWHERE `hour` >= ? AND `hour` < ?\nGROUP BY "+by+"\n) AS `known` USING ("+by+")\nWHERE `records` != `had_records`", from, until, from, until)
}

// transient are the codes of what passes: servers that are away, busy or lagging.
var transient = []int32{
	3, 32, 159, 173, 198, 202, 203, 209, 210, 225, 236, 241, 242, 243, 246, 252, 254, 265, 279, 285, 286, 289, 290, 319, 335, 341, 394, 399, 425, 439, 519, 999,
}

// passes reports whether an error is worth another try.
func passes(err error) bool {
	var wrong *misfit
	if errors.As(err, &wrong) || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var said *driver.Exception
	return !errors.As(err, &said) || slices.Contains(transient, said.Code)
}

// patiently does something until it succeeds, or fails for good.
func (s *Store) patiently(ctx context.Context, do func() error) error {
	begun, wait := time.Now(), 100*time.Millisecond
	for {
		err := do()
		if err == nil || ctx.Err() != nil {
			return errors.Join(err, ctx.Err())
		}
		if !passes(err) {
			return fmt.Errorf("import into %s: %w", s.name, s.withCure(err))
		}
		if time.Since(begun) > s.options.Patience {
			return fmt.Errorf("import into %s: %w; nothing is lost: import the same file again, and it goes on from there", s.name, err)
		}
		s.options.Told(fmt.Sprintf("%s: %v; trying again", s.name, err))
		if err := pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, 5*time.Second)
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
