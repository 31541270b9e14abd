package flowstore

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
)

// BatchKey names a batch for good, so that it is stored once however often it is
// sent. A sender numbers its batches upwards; gaps are allowed. The zero BatchKey
// names none.
type BatchKey struct {
	Sender   string `json:"sender"`
	Sequence uint64 `json:"sequence"`
}

// Batch is flows that become part of a store together. It is not safe for
// concurrent use.
type Batch struct {
	key   BatchKey
	table *table
	rows  []row
}

// NewBatch returns an empty batch, for any store.
func NewBatch(key BatchKey) *Batch { return &Batch{key: key, table: newTable()} }

// Add takes one flow. The flow's maps and slices must not change afterwards.
func (b *Batch) Add(f *policies.Flow) { b.rows = append(b.rows, b.table.row(f)) }

// Len returns how many records the batch has.
func (b *Batch) Len() int { return len(b.rows) }

// Size returns about how many bytes of memory the batch takes.
func (b *Batch) Size() int64 { return int64(cap(b.rows))*rowSize + int64(b.table.size) }

// Fate is what became of a batch.
type Fate int

// The fates. The zero Fate is that of a batch that is not in the store.
const (
	NotStored Fate = iota
	Stored
	Known     // the store had it from before: nothing was added
	Forgotten // so far behind its sender's others that nobody knows: nothing was added
)

// CommitBatches makes batches part of the store by one commit, and returns what
// became of each: where it fails, nothing of any. Two of one key are one, also
// where the other is of an earlier commit, or of another process.
//
// Of a sender, the store remembers for a week what it has sent; then, and of a
// batch of which Forgotten is the fate, only the sender can know.
func (s *Store) CommitBatches(ctx context.Context, now time.Time, batches []*Batch) ([]Fate, error) {
	for {
		st, err := s.refresh(ctx)
		if err != nil {
			return make([]Fate, len(batches)), err
		}
		fates, err := s.commitBatches(ctx, now, st, batches)
		if err == nil {
			return fates, nil
		}
		if !errors.Is(err, errOvertaken) {
			return make([]Fate, len(batches)), err
		}
	}
}

// commitBatches fails with errOvertaken where another process has stored one of
// the batches since st.
func (s *Store) commitBatches(ctx context.Context, now time.Time, st *state, batches []*Batch) ([]Fate, error) {
	fates, c := make([]Fate, len(batches)), &commit{At: now}
	senders := maps.Clone(st.senders)
	t := newTable()
	var rows []row
	for i, b := range batches {
		if fates[i] = fateOf(senders, b.key); fates[i] != Stored {
			continue
		}
		rows = t.adoptBatch(rows, b)
		if b.key != (BatchKey{}) {
			c.Batches = append(c.Batches, b.key)
			senders[b.key.Sender] = senders[b.key.Sender].with(b.key, now)
		}
	}
	var err error
	if c.Add, err = s.writeHours(ctx, t, rows); err != nil {
		return nil, err
	}
	if len(c.Add)+len(c.Batches) == 0 {
		return fates, nil
	}
	return fates, s.append(ctx, c, func(st *state) error {
		for _, key := range c.Batches {
			if fateOf(st.senders, key) != Stored {
				return errOvertaken
			}
		}
		return nil
	})
}

// adoptBatch appends a batch's rows, as rows of the table.
func (t *table) adoptBatch(rows []row, b *Batch) []row {
	ends, tuples, texts := make([]uint32, len(b.table.ends)), make([]uint32, len(b.table.tuples)), make([]uint32, len(b.table.texts))
	for i := range b.table.ends {
		ends[i] = t.end(&b.table.ends[i].texts)
	}
	for i, tuple := range b.table.tuples {
		tuples[i] = t.tupleOf(tuple.id, ends[tuple.from], ends[tuple.to], tuple.protocol, tuple.port)
	}
	for i, text := range b.table.texts {
		texts[i] = t.text(text)
	}
	for _, r := range b.rows {
		r.from, r.to, r.tuple, r.hits, r.format = ends[r.from], ends[r.to], tuples[r.tuple], texts[r.hits], texts[r.format]
		rows = append(rows, r)
	}
	return rows
}

// sender is what is known of the batches of a sender.
type sender struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"` // of its last batch
	// Below is where memory begins: of lower numbers nothing is known.
	Below uint64 `json:"below,omitempty"`
	// Spans are the numbers that are stored, from and to, both included, in order
	// and apart.
	Spans [][2]uint64 `json:"spans"`
}

// maxSpans bounds what is remembered of a sender: one that leaves no gaps has one
// span.
const maxSpans = 64

func fateOf(senders map[string]sender, key BatchKey) Fate {
	if key == (BatchKey{}) {
		return Stored
	}
	known := senders[key.Sender]
	return known.fate(key)
}

// fate returns what is to become of a batch: it is Stored where that is new.
func (s *sender) fate(key BatchKey) Fate {
	switch _, found := s.span(key.Sequence); {
	case found:
		return Known
	case key.Sequence < s.Below:
		return Forgotten
	}
	return Stored
}

// span returns the span that a number is in, or before which it belongs.
func (s *sender) span(n uint64) (int, bool) {
	return slices.BinarySearchFunc(s.Spans, n, func(span [2]uint64, n uint64) int {
		if span[0] <= n && n <= span[1] {
			return 0
		}
		return cmp.Compare(span[0], n)
	})
}

// with returns what is known when a batch is stored. It changes nothing of s.
func (s sender) with(key BatchKey, at time.Time) sender {
	s.Name, s.At, s.Spans = key.Sender, at, slices.Clone(s.Spans)
	n := key.Sequence
	i, found := s.span(n)
	if found {
		return s
	}
	s.Spans = slices.Insert(s.Spans, i, [2]uint64{n, n})
	if i+1 < len(s.Spans) && s.Spans[i+1][0] == n+1 {
		s.Spans[i][1] = s.Spans[i+1][1]
		s.Spans = slices.Delete(s.Spans, i+1, i+2)
	}
	if i > 0 && s.Spans[i-1][1] == n-1 {
		s.Spans[i-1][1] = s.Spans[i][1]
		s.Spans = slices.Delete(s.Spans, i, i+1)
	}
	if len(s.Spans) > maxSpans {
		s.Spans = slices.Delete(s.Spans, 0, 1)
		s.Below = s.Spans[0][0]
	}
	return s
}
