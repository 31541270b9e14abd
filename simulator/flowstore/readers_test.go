package flowstore

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// TestOthersReadTheSame reads columns with the library in place of our own decoder.
func TestOthersReadTheSame(t *testing.T) {
	made := generate(small(15), 3_000)
	s := openStore(t, t.TempDir(), Options{})
	add(t, s, made...)
	compact(t, s, long)
	st, err := s.refresh(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	starts, names := map[int64]int{}, map[string]int{}
	for _, f := range st.files {
		if f.Kind != sorted {
			continue
		}
		r, err := file.OpenParquetFile(s.blobs.(*folder).path(f.Name), false)
		if err != nil {
			t.Fatal(err)
		}
		for g := range r.NumRowGroups() {
			for _, column := range []int{flowStart, flowTarget + flowrow.Name} {
				c, err := r.RowGroup(g).Column(column)
				if err != nil {
					t.Fatal(err)
				}
				n := r.RowGroup(g).NumRows()
				switch c := c.(type) {
				case *file.Int64ColumnChunkReader:
					values := make([]int64, n)
					if _, _, err := c.ReadBatch(n, values, nil, nil); err != nil {
						t.Fatal(err)
					}
					for _, v := range values {
						starts[v]++
					}
				case *file.ByteArrayColumnChunkReader:
					values := make([]parquet.ByteArray, n)
					if _, _, err := c.ReadBatch(n, values, nil, nil); err != nil {
						t.Fatal(err)
					}
					for _, v := range values {
						names[string(v)]++
					}
				}
			}
		}
		r.Close()
	}
	wantStarts, wantNames := map[int64]int{}, map[string]int{}
	for _, f := range made {
		wantStarts[f.First.UnixMicro()]++
		name := ""
		if len(f.To.Workloads) > 0 {
			name = f.To.Workloads[0].Name
		}
		wantNames[name]++
	}
	if diff := gocmp.Diff(wantStarts, starts); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff(wantNames, names); diff != "" {
		t.Error(diff)
	}
}

// TestManyAtATime has several write while others compact and read.
func TestManyAtATime(t *testing.T) {
	where := t.TempDir()
	parts := slices.Collect(slices.Chunk(generate(small(16), 3_200), 200))
	var writers sync.WaitGroup
	var mu sync.Mutex
	acknowledged := map[string]bool{}
	written := make(chan struct{})
	for worker := range 4 {
		s := openStore(t, where, Options{})
		writers.Go(func() {
			for i := worker; i < len(parts); i += 4 {
				w := s.NewWriter()
				for j := range parts[i] {
					if err := w.Add(t.Context(), &parts[i][j]); err != nil {
						t.Error(err)
					}
				}
				// By the clock of those who compact, files lie about for years before they are
				// committed, and are swept. Nothing is acknowledged then.
				err := w.Commit(t.Context())
				for errors.Is(err, errOvertaken) || errors.Is(err, fs.ErrNotExist) {
					err = w.Commit(t.Context())
				}
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				acknowledged[parts[i][0].First.String()] = true
				mu.Unlock()
			}
		})
	}
	var others sync.WaitGroup
	for range 2 {
		s := openStore(t, where, Options{})
		others.Go(func() {
			for {
				if _, err := s.Compact(t.Context(), long, nil); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Error(err)
				}
				mu.Lock()
				known := maps.Clone(acknowledged)
				mu.Unlock()
				n := 0
				// A file may go while it is read: the grace is long over by the clock of the test.
				err := s.Scan(t.Context(), &simulator.Filter{}, func(*policies.Flow) error { n++; return nil })
				if err == nil && (n < 200*len(known) || n%200 != 0) || err != nil && !errors.Is(err, errMissing) {
					t.Errorf("%d flows of %d parts at least: %v", n, len(known), err)
				}
				select {
				case <-written:
					return
				default:
				}
			}
		})
	}
	writers.Wait()
	close(written)
	others.Wait()
	s := openStore(t, where, Options{})
	verify(t, s)
	if diff := gocmp.Diff(ordered(slices.Concat(parts...)), all(t, s, simulator.Filter{}), equal); diff != "" {
		t.Error(diff)
	}
}
