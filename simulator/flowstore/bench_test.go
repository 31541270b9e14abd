//go:build unix

package flowstore

import (
	"cmp"
	"flag"
	"syscall"
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/testkit/flows"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

var (
	benchRows = flag.Int("rows", 2_000_000, "how many flows the benchmarks store")
	benchDir  = flag.String("store", "", "a folder to make the benchmarks' stores in, which are kept; a temporary one otherwise")
)

// benchStore returns a store of generated flows, compacted or as imported.
func benchStore(b *testing.B, compacted bool) *Store {
	b.Helper()
	dir := cmp.Or(*benchDir, benchTemp)
	name := dir + "/raw"
	if compacted {
		name = dir + "/compacted"
	}
	s := openStore(b, name, Options{})
	st, err := s.Stats(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	if st.Records > 0 {
		return s
	}
	g, w := flows.New(flows.Options{}), s.NewWriter()
	began := processorTime()
	for range *benchRows {
		f := g.Next()
		if err := w.Add(b.Context(), &f); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Logf("made and imported: %.2f M rows a second of the processor", float64(*benchRows)/(processorTime()-began).Seconds()/1e6)
	if compacted {
		began = processorTime()
		compact(b, s, long)
		b.Logf("compacted: %.2f M rows a second of the processor", float64(*benchRows)/(processorTime()-began).Seconds()/1e6)
	}
	if st, err = s.Stats(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Logf("%.2f bytes a flow, and %.2f with the tuples", float64(st.FlowBytes)/float64(st.Records), float64(st.Bytes)/float64(st.Records))
	return s
}

// timed runs a benchmark, and reports how many millions of things were done in a
// second of the processor's time.
func timed(b *testing.B, unit string, once func() (things int)) {
	b.Helper()
	things, before := 0, processorTime()
	for b.Loop() {
		things += once()
	}
	b.ReportMetric(float64(things)/(processorTime()-before).Seconds()/1e6, "M"+unit+"/cpu-s")
}

func processorTime() time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func benchmarkCount(b *testing.B, compacted bool) {
	s := benchStore(b, compacted)
	timed(b, "rows", func() (records int) {
		if err := s.CountTuples(b.Context(), func(_, n uint64) { records += int(n) }); err != nil {
			b.Fatal(err)
		}
		return records
	})
}

func BenchmarkCountTuplesCompacted(b *testing.B) { benchmarkCount(b, true) }
func BenchmarkCountTuplesImported(b *testing.B)  { benchmarkCount(b, false) }

// tuples reads all tuples, and returns how many hours they have.
func tuples(b *testing.B, s *Store) (hours int) {
	b.Helper()
	err := recordedOf(b, s, Range{}).Tuples(b.Context(), func(t *simulator.Tuple) error { hours += len(t.Hours); return nil })
	if err != nil {
		b.Fatal(err)
	}
	return hours
}

func BenchmarkTuplesCompacted(b *testing.B) {
	s := benchStore(b, true)
	timed(b, "hours", func() int { return tuples(b, s) })
}

func BenchmarkTuplesImported(b *testing.B) {
	s := benchStore(b, false)
	timed(b, "rows", func() int { tuples(b, s); return *benchRows })
}

// BenchmarkTuplesOfDays reads the tuples of days in which most talk to each
// other in most hours.
func BenchmarkTuplesOfDays(b *testing.B) {
	s := openStore(b, cmp.Or(*benchDir, benchTemp)+"/days", Options{})
	if st, err := s.Stats(b.Context()); err != nil || st.Records == 0 {
		add(b, s, generate(flows.Options{Rate: 4, Workloads: 600, Edges: 2_000}, 1_500_000)...)
		compact(b, s, long)
	}
	timed(b, "hours", func() int { return tuples(b, s) })
}

func BenchmarkScan(b *testing.B) {
	s := benchStore(b, true)
	timed(b, "rows", func() (n int) {
		if err := s.Scan(b.Context(), Query{}, func(*policies.Flow) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
		return n
	})
}

func BenchmarkImport(b *testing.B) {
	made := generate(flows.Options{}, 1<<20)
	timed(b, "rows", func() int {
		add(b, openStore(b, b.TempDir(), Options{}), made...)
		return len(made)
	})
}
