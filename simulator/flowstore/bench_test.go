//go:build unix

package flowstore

import (
	"cmp"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/testkit/flows"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

var (
	benchRows   = flag.Int("rows", 2_000_000, "how many flows the benchmarks store")
	benchTuples = flag.Int("tuples", 2_000, "how many tuples the month has that a benchmark reads")
	benchDir    = flag.String("store", "", "a folder to make the benchmarks' stores in, which are kept; a temporary one otherwise")
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

// BenchmarkEngine counts the same tuples of the same files as
// BenchmarkCountTuplesCompacted does, with engines that are installed, and makes
// sure that they come to the same.
func BenchmarkEngine(b *testing.B) {
	for _, engine := range []struct {
		command  string
		variable string // that may name another
		table    func(files []string) string
		args     []string
	}{
		{"duckdb", "WEIR_DUCKDB", func(files []string) string { return "read_parquet([" + strings.Join(files, ", ") + "])" }, []string{"-csv", "-noheader", "-cmd", "SET threads = 1", "-c"}},
		{"clickhouse", "", func(files []string) string {
			return "(SELECT tuple FROM file(" + strings.Join(files, ") UNION ALL SELECT tuple FROM file(") + "))"
		}, []string{"local", "--max_threads", "1", "--output-format", "CSV", "--query"}},
	} {
		b.Run(engine.command, func(b *testing.B) {
			path, err := exec.LookPath(cmp.Or(os.Getenv(engine.variable), engine.command))
			if err != nil {
				b.Skipf("there is no command %s to compare with: %v", engine.command, err)
			}
			s := benchStore(b, true)
			st, err := s.Stats(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			var files []string
			for _, f := range st.Files {
				if f.Kind == sorted {
					files = append(files, fmt.Sprintf("'%s/%s'", s.blobs, f.Name))
				}
			}
			query := "SELECT count(*), sum(n) FROM (SELECT tuple, count(*) AS n FROM " + engine.table(files) + " AS f GROUP BY tuple) AS t"
			tuples := 0
			if err := s.CountTuples(b.Context(), func(_, _ uint64) { tuples++ }); err != nil {
				b.Fatal(err)
			}
			var used time.Duration
			rows := 0
			for b.Loop() {
				command := exec.CommandContext(b.Context(), path, append(engine.args, query)...)
				out, err := command.Output()
				if err != nil {
					b.Fatalf("%s: %v\n%s", query, err, out)
				}
				if want := fmt.Sprintf("%d,%d", tuples, st.Records); strings.TrimSpace(string(out)) != want {
					b.Fatalf("%s counts %s tuples and rows instead of %s", engine.command, out, want)
				}
				rows += int(st.Records)
				used += command.ProcessState.UserTime() + command.ProcessState.SystemTime()
			}
			b.ReportMetric(float64(rows)/used.Seconds()/1e6, "Mrows/cpu-s")
		})
	}
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

// tuples reads all tuples and all their hours, and returns how many those are.
func tuples(b *testing.B, s *Store) (hours int) {
	b.Helper()
	var all []uint64
	r := recordedOf(b, s, Range{})
	if err := r.Tuples(b.Context(), func(t *simulator.Tuple) error { all = append(all, t.ID); return nil }); err != nil {
		b.Fatal(err)
	}
	days, err := r.Days(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	for _, day := range days {
		err := r.Hours(b.Context(), day, all, func(_ uint64, _ *simulator.Side, some []simulator.HourFlows) error { hours += len(some); return nil })
		if err != nil {
			b.Fatal(err)
		}
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

// BenchmarkTuplesOfMonth reads the tuples of thirty days, each of which is there
// in every hour, from both sides: the most that so many tuples can come to. The
// days are written as compaction would, without the flows that they are of.
func BenchmarkTuplesOfMonth(b *testing.B) {
	s := monthStore(b)
	timed(b, "hours", func() int { return tuples(b, s) })
	var most, now runtime.MemStats
	seen := 0
	err := recordedOf(b, s, Range{}).Tuples(b.Context(), func(*simulator.Tuple) error {
		if seen++; seen%64 == 0 {
			if runtime.ReadMemStats(&now); now.HeapInuse > most.HeapInuse {
				most = now
			}
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(most.HeapInuse)/1e6, "MB-heap")
}

func monthStore(b *testing.B) *Store {
	b.Helper()
	s := openStore(b, cmp.Or(*benchDir, benchTemp)+"/month", Options{})
	if st, err := s.Stats(b.Context()); err != nil || len(st.Files) > 0 {
		return s
	}
	t, g := newTable(), flows.New(flows.Options{Seed: 1})
	for len(t.tuples) < *benchTuples {
		f := g.Next()
		f.From.Address, f.To.Address = netip.Addr{}, netip.Addr{}
		t.row(&f)
	}
	slices.SortFunc(t.tuples, func(a, b tuple) int { return cmp.Compare(a.id, b.id) })
	began, c := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), &commit{}
	for day := range 30 {
		of := File{Kind: daily, Hour: began.AddDate(0, 0, day)}
		for hour := range 24 {
			at := of.Hour.Add(time.Duration(hour) * time.Hour)
			flows := File{Name: "flows/" + at.Format(time.RFC3339), Kind: sorted, Hour: at, Rows: 1}
			of.Of, c.Add = append(of.Of, flows.Name), append(c.Add, flows)
		}
		rolls := func(l *layout, f *File, add func(*rollWriter, *roll, *table) error) {
			random := rand.New(rand.NewPCG(1, uint64(day)))
			err := s.write(b.Context(), f, func(to io.Writer) error {
				w, err := newRollWriter(to, l, f)
				if err != nil {
					return err
				}
				for _, tuple := range t.tuples {
					r := roll{id: tuple.id, from: tuple.from, to: tuple.to, port: tuple.port, protocol: tuple.protocol, verdict: policies.Allow}
					for side := range 48 {
						r.hour, r.reporter = of.Hour.Add(time.Duration(side/2)*time.Hour).UnixMicro(), policies.Reporter(1+side%2)
						r.rows = 1 + random.Int64N(900)
						r.flows, r.packets, r.bytes = uint64(r.rows), uint64(r.rows)*(1+random.Uint64N(90)), uint64(r.rows)*random.Uint64N(90_000)
						r.first, r.last = r.hour+random.Int64N(flowrow.HourMicros/8), r.hour+flowrow.HourMicros-random.Int64N(flowrow.HourMicros/8)
						r.row += r.rows
						if err := add(w, &r, t); err != nil {
							return err
						}
					}
				}
				return w.close()
			})
			if err != nil {
				b.Fatal(err)
			}
			c.Add = append(c.Add, *f)
		}
		ofDay := of
		ofDay.Kind = whole
		rolls(rollLayout, &of, (*rollWriter).add)
		rolls(wholeLayout, &ofDay, (*rollWriter).addToDay)
	}
	if err := s.append(b.Context(), c, func(*state) error { return nil }); err != nil {
		b.Fatal(err)
	}
	return s
}

func BenchmarkScan(b *testing.B) {
	s := benchStore(b, true)
	timed(b, "rows", func() (n int) {
		if err := s.Scan(b.Context(), &simulator.Filter{}, func(*policies.Flow) error { n++; return nil }); err != nil {
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
