package flowsql

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"modernc.org/sqlite/vtab"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// momentLayout is how a moment stands in the table: texts of it are in order of
// time, and SQLite's functions of time read it.
const momentLayout = "2006-01-02 15:04:05.000000"

// table is the flows that a question may read. Each cursor reads them anew.
type table struct {
	ctx     context.Context
	scan    Scan
	columns []flowrow.Column
	failed  error // what a cursor ended with
}

type module struct{ *table }

func (m module) Create(c vtab.Context, _ []string) (vtab.Table, error) {
	var columns []string
	for _, column := range m.columns {
		kind := map[flowrow.ColumnType]string{flowrow.TextColumn: "TEXT", flowrow.MomentColumn: "TEXT", flowrow.NumberColumn: "INTEGER"}[column.Type]
		columns = append(columns, `"`+column.Name+`" `+kind)
	}
	return m.table, c.Declare("CREATE TABLE flows (" + strings.Join(columns, ", ") + ")")
}

func (m module) Connect(c vtab.Context, args []string) (vtab.Table, error) { return m.Create(c, args) }

func (t *table) Disconnect() error { return nil }
func (t *table) Destroy() error    { return nil }

// comparisons are those of start that Filter takes over, and how it is told them.
var comparisons = map[vtab.ConstraintOp]byte{
	vtab.OpGE: 'g', vtab.OpGT: 'G', vtab.OpLE: 'l', vtab.OpLT: 'L', vtab.OpEQ: '=',
}

// BestIndex leaves comparisons of start to the cursor, which need not read what
// is of another time. The index text is these, and the columns that are used.
func (t *table) BestIndex(info *vtab.IndexInfo) error {
	var taken []byte
	for i := range info.Constraints {
		c := &info.Constraints[i]
		if op, ok := comparisons[c.Op]; ok && c.Usable && c.Column == 0 {
			c.ArgIndex, c.Omit = len(taken), true
			taken = append(taken, op)
		}
	}
	info.IdxStr = fmt.Sprintf("%s %x", taken, info.ColUsed)
	// A plan costs the same whatever it leaves to the cursor, so that one reading
	// is better than two that are joined by row: rows have no numbers.
	info.EstimatedRows, info.EstimatedCost = 10_000_000, 1e7
	return nil
}

func (t *table) Open() (vtab.Cursor, error) { return &cursor{table: t}, nil }

// batchRows is how many rows go from the scan to SQLite at a time.
const batchRows = 512

// cursor reads rows from a scan that runs beside it.
type cursor struct {
	*table
	used    []int // columns
	at      []int // of each column in a row; -1 for what is not used
	stop    context.CancelFunc
	batches chan []any
	ended   error // of the scan, once batches is closed
	batch   []any
}

func (c *cursor) Filter(_ int, plan string, values []vtab.Value) error {
	taken, mask, _ := strings.Cut(plan, " ")
	columns, err := strconv.ParseUint(mask, 16, 64)
	if err != nil {
		return err
	}
	if err := c.Close(); err != nil {
		return err
	}
	span, err := spanOf(taken, values)
	if err != nil {
		c.failed = err
		return err
	}
	c.used, c.at = nil, make([]int, len(c.columns))
	for i := range c.columns {
		if c.at[i] = -1; columns&(1<<min(i, 63)) != 0 {
			c.at[i] = len(c.used)
			c.used = append(c.used, i)
		}
	}
	ctx, stop := context.WithCancel(c.ctx)
	c.stop, c.batches, c.ended, c.batch = stop, make(chan []any, 4), nil, nil
	go c.read(ctx, span)
	return c.more()
}

// read hands over the rows of a span, as far as anybody wants them.
func (c *cursor) read(ctx context.Context, s span) {
	defer close(c.batches)
	width := max(1, len(c.used))
	var batch []any
	send := func() error {
		select {
		case c.batches <- batch:
			batch = make([]any, 0, batchRows*width)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	c.ended = c.scan(ctx, s.since, s.until, func(f *policies.Flow) error {
		if !s.holds(f.First) {
			return nil
		}
		for _, i := range c.used {
			v := c.columns[i].Of(f)
			if at, ok := v.(time.Time); ok {
				v = at.UTC().Format(momentLayout)
			}
			batch = append(batch, v)
		}
		if len(c.used) == 0 {
			batch = append(batch, nil)
		}
		if len(batch) < batchRows*width {
			return nil
		}
		return send()
	})
	if c.ended == nil && len(batch) > 0 {
		c.ended = send()
	}
	if c.ended == nil {
		c.ended = io.EOF
	}
}

// more waits for rows where there are none at hand.
func (c *cursor) more() error {
	if len(c.batch) > 0 {
		return nil
	}
	batch, ok := <-c.batches
	if !ok {
		err := noEnd(c.ended)
		if err != nil {
			c.failed = err
		}
		return err
	}
	c.batch = batch
	return nil
}

func (c *cursor) Next() error {
	c.batch = c.batch[max(1, len(c.used)):]
	return c.more()
}

func (c *cursor) Eof() bool { return len(c.batch) == 0 }

func (c *cursor) Column(column int) (vtab.Value, error) {
	if i := c.at[column]; i >= 0 {
		return c.batch[i], nil
	}
	return nil, fmt.Errorf("column %s was not asked for", c.columns[column].Name)
}

func (c *cursor) Rowid() (int64, error) {
	c.failed = errors.New("SQL: rows of flows have no rowid")
	return 0, c.failed
}

// Close ends the scan, and waits for it: what was on its way is dropped.
func (c *cursor) Close() error {
	if c.stop == nil {
		return nil
	}
	c.stop()
	for range c.batches {
	}
	c.stop = nil
	return nil
}

// span is the moments that comparisons leave.
type span struct {
	since, until time.Time
	nothing      bool // compared with NULL
	bounded      bool
}

func (s *span) holds(at time.Time) bool {
	switch {
	case s.nothing:
		return false
	case !s.bounded:
		return true
	case at.IsZero():
		return false
	}
	at = at.Truncate(time.Microsecond)
	return !at.Before(s.since) && (s.until.IsZero() || at.Before(s.until))
}

// spanOf reads what start is compared with: as the table has moments, or as RFC
// 3339 and people write them.
func spanOf(taken string, values []vtab.Value) (span, error) {
	var s span
	for i := range len(taken) {
		s.bounded = true
		if values[i] == nil {
			s.nothing = true
			continue
		}
		text, ok := values[i].(string)
		at, err := parseMoment(text)
		if !ok || err != nil {
			return s, fmt.Errorf("SQL: start is compared with %v, which is no moment such as '2026-03-01' or '2026-03-01 12:00:00'", values[i])
		}
		after := at.Add(time.Microsecond) // the next moment that a row may have
		switch taken[i] {
		case 'g':
			s.from(at)
		case 'G':
			s.from(after)
		case 'l':
			s.to(after)
		case 'L':
			s.to(at)
		case '=':
			s.from(at)
			s.to(after)
		}
	}
	return s, nil
}

func (s *span) from(at time.Time) {
	if at.After(s.since) {
		s.since = at
	}
}

func (s *span) to(at time.Time) {
	if s.until.IsZero() || at.Before(s.until) {
		s.until = at
	}
}

func parseMoment(text string) (time.Time, error) {
	for _, layout := range []string{time.DateTime, time.RFC3339, time.DateOnly, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02 15:04:05Z07:00"} {
		if at, err := time.Parse(layout, text); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no moment", text)
}
