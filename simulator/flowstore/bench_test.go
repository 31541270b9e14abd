package flowstore

import (
	"context"
	"flag"
	"os"
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
	dir := *benchDir
	if dir == "" {
		dir = benchTemp
	}
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
	began := time.Now()
	for range *benchRows {
		f := g.Next()
		if err := w.Add(b.Context(), &f); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Logf("made and imported: %.2f M rows a second", float64(*benchRows)/time.Since(began).Seconds()/1e6)
	if compacted {
		began = time.Now()
		compact(b, s, long)
		b.Logf("compacted: %.2f M rows a second", float64(*benchRows)/time.Since(began).Seconds()/1e6)
	}
	if st, err = s.Stats(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Logf("%.2f bytes a flow, and %.2f with the tuples", float64(st.FlowBytes)/float64(st.Records), float64(st.Bytes)/float64(st.Records))
	return s
}

var benchTemp string

func TestMain(m *testing.M) {
	if where := os.Getenv(childStore); where != "" {
		child(where)
		return
	}
	flag.Parse()
	var err error
	if benchTemp, err = os.MkdirTemp("", "weir-bench-*"); err != nil {
		panic(err)
	}
	status := m.Run()
	os.RemoveAll(benchTemp)
	os.Exit(status)
}

func perRow(b *testing.B, records uint64) {
	b.ReportMetric(float64(records)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mrows/s")
}

func benchmarkCount(b *testing.B, compacted bool) {
	s := benchStore(b, compacted)
	var records uint64
	for b.Loop() {
		records = 0
		if err := s.CountTuples(b.Context(), func(_, n uint64) { records += n }); err != nil {
			b.Fatal(err)
		}
	}
	perRow(b, records)
}

func BenchmarkCountTuplesCompacted(b *testing.B) { benchmarkCount(b, true) }
func BenchmarkCountTuplesImported(b *testing.B)  { benchmarkCount(b, false) }

func BenchmarkTuples(b *testing.B) {
	s := benchStore(b, true)
	hours := 0
	for b.Loop() {
		hours = 0
		err := recordedOf(b, s, Range{}).Tuples(b.Context(), func(t *simulator.Tuple) error { hours += len(t.Hours); return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(hours)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mhours/s")
}

func BenchmarkTuplesImported(b *testing.B) {
	s := benchStore(b, false)
	for b.Loop() {
		if err := recordedOf(b, s, Range{}).Tuples(b.Context(), func(*simulator.Tuple) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	perRow(b, uint64(*benchRows))
}

func BenchmarkScan(b *testing.B) {
	s := benchStore(b, true)
	var n uint64
	for b.Loop() {
		n = 0
		if err := s.Scan(b.Context(), Query{}, func(*policies.Flow) error { n++; return nil }); err != nil {
			b.Fatal(err)
		}
	}
	perRow(b, n)
}

func BenchmarkImport(b *testing.B) {
	made := generate(flows.Options{}, 1<<20)
	for b.Loop() {
		s := openStore(b, b.TempDir(), Options{})
		add(b, s, made...)
	}
	perRow(b, uint64(len(made)))
}

func BenchmarkGenerate(b *testing.B) {
	g := flows.New(flows.Options{})
	for b.Loop() {
		g.Next()
	}
}

// month is many days of rolls, without their flows.
func BenchmarkMonth(b *testing.B) {
	s := openStore(b, benchTemp+"/month", Options{})
	made := generate(flows.Options{Rate: 12}, 1_000_000)
	if st, _ := s.Stats(context.Background()); st.Records == 0 {
		add(b, s, made...)
		compact(b, s, long)
	}
	hours := 0
	for b.Loop() {
		hours = 0
		err := recordedOf(b, s, Range{}).Tuples(b.Context(), func(t *simulator.Tuple) error { hours += len(t.Hours); return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(hours)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mhours/s")
}
