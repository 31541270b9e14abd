package flowstore

import (
	"errors"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

func batch(key BatchKey, all ...policies.Flow) *Batch {
	b := NewBatch(key)
	for i := range all {
		b.Add(&all[i])
	}
	return b
}

func commitBatches(t *testing.T, s *Store, now time.Time, batches ...*Batch) []Fate {
	t.Helper()
	fates, err := s.CommitBatches(t.Context(), now, batches)
	if err != nil {
		t.Fatal(err)
	}
	return fates
}

func TestBatchesAreStoredOnce(t *testing.T) {
	where := t.TempDir()
	s, other := openStore(t, where, Options{}), openStore(t, where, Options{})
	made := generate(small(3), 4000)
	key := func(n uint64) BatchKey { return BatchKey{"node-1", n} }
	for _, step := range []struct {
		name    string
		to      *Store
		batches []*Batch
		want    []Fate
	}{
		{"new", s, []*Batch{batch(key(1), made[:1000]...), batch(key(2), made[1000:2000]...)}, []Fate{Stored, Stored}},
		{"again", s, []*Batch{batch(key(2), made[1000:2000]...)}, []Fate{Known}},
		{"again to another process", other, []*Batch{batch(key(1), made[:1000]...)}, []Fate{Known}},
		{"twice at a time", other, []*Batch{batch(key(3), made[2000:3000]...), batch(key(3), made[2000:3000]...)}, []Fate{Stored, Known}},
		{"without a name", s, []*Batch{batch(BatchKey{}, made[3000:]...)}, []Fate{Stored}},
		{"without flows", s, []*Batch{batch(key(4)), batch(BatchKey{})}, []Fate{Stored, Stored}},
		{"without flows, again", s, []*Batch{batch(key(4))}, []Fate{Known}},
	} {
		if diff := gocmp.Diff(step.want, commitBatches(t, step.to, long, step.batches...)); diff != "" {
			t.Errorf("%s: %s", step.name, diff)
		}
	}
	verify(t, s)
	if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
	// A week later it may have been anybody.
	commitBatches(t, s, long.Add(8*24*time.Hour), batch(BatchKey{"node-2", 1}))
	if got := commitBatches(t, openStore(t, where, Options{}), long, batch(key(1)))[0]; got != Stored {
		t.Errorf("a batch that was forgotten is %v", got)
	}
}

func TestOneBatchToManyStoresAtATime(t *testing.T) {
	where, made := t.TempDir(), generate(small(4), 300)
	var mu sync.Mutex
	var fates []Fate
	var group sync.WaitGroup
	for range 4 {
		s := openStore(t, where, Options{})
		group.Go(func() {
			got, err := s.CommitBatches(t.Context(), long, []*Batch{batch(BatchKey{"node-1", 7}, made...)})
			mu.Lock()
			defer mu.Unlock()
			if fates = append(fates, got...); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	slices.Sort(fates)
	if diff := gocmp.Diff([]Fate{Stored, Known, Known, Known}, fates); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff(ordered(made), all(t, openStore(t, where, Options{}), simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
}

func TestBatchesOnAFullDisk(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("this system has no /dev/full")
	}
	s, made := openStore(t, t.TempDir(), Options{}), generate(small(5), 100)
	disk := &fullDisk{folder: s.blobs.(*folder)}
	full, err := open(t.Context(), disk, s.options)
	if err != nil {
		t.Fatal(err)
	}
	one := batch(BatchKey{"node-1", 1}, made...)
	if fates, err := full.CommitBatches(t.Context(), long, []*Batch{one}); !errors.Is(err, ErrNoSpace) || fates[0] != NotStored {
		t.Errorf("%v, %v", fates, err)
	}
	disk.left = 1000
	if got := commitBatches(t, full, long, one)[0]; got != Stored {
		t.Errorf("with space again, it is %v", got)
	}
	if diff := gocmp.Diff(ordered(made), all(t, s, simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
}

// TestWhatASenderHasSent compares spans with a set.
func TestWhatASenderHasSent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var known sender
		stored := map[uint64]bool{}
		for _, n := range rapid.SliceOf(rapid.Uint64Range(0, 300)).Draw(t, "numbers") {
			key := BatchKey{"node", n}
			switch got := known.fate(key); {
			case got == Forgotten && n < known.Below:
			case stored[n] != (got == Known):
				t.Fatalf("%d is %v, and stored: %v", n, got, stored[n])
			}
			if known.fate(key) == Stored {
				known = known.with(key, long)
				stored[n] = true
			}
			if len(known.Spans) > maxSpans {
				t.Fatalf("%d spans", len(known.Spans))
			}
		}
	})
}

func TestBatchesAreRememberedInSummaries(t *testing.T) {
	where := t.TempDir()
	s := openStore(t, where, Options{Grace: time.Nanosecond})
	for n := range uint64(summaryEvery + 3) {
		commitBatches(t, s, long, batch(BatchKey{"node-1", n}))
	}
	compact(t, s, long)
	if got := commitBatches(t, openStore(t, where, Options{}), long, batch(BatchKey{"node-1", 0}))[0]; got != Known {
		t.Errorf("the first of many is %v", got)
	}
}
