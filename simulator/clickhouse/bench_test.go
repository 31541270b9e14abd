package clickhouse

import (
	"testing"
	"time"

	made "github.com/weir-policy/weir/internal/testkit/flows"
	"github.com/weir-policy/weir/simulator"
)

func BenchmarkRealServer(b *testing.B) { benchmark(b, start(b, 1, 1).url) }

func BenchmarkRealEngine(b *testing.B) { benchmark(b, startEngine(b).url("default")) }

// benchmark imports a million flows, and reads the tuples of all of them.
func benchmark(b *testing.B, url string) {
	const rows = 1_000_000
	s, err := Open(b.Context(), url, Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	g, w := made.New(made.Options{}), s.NewWriter()
	metrics := map[string]float64{}
	began := time.Now()
	for range rows {
		f := g.Next()
		if err := w.Add(b.Context(), &f); err != nil {
			b.Fatal(err)
		}
	}
	if err := w.Commit(b.Context()); err != nil {
		b.Fatal(err)
	}
	metrics["imported/s"] = rows / time.Since(began).Seconds()
	for _, table := range []string{"flows", "tuples"} {
		if err := s.conn.Exec(b.Context(), "OPTIMIZE TABLE "+s.table(table)+" FINAL"); err != nil {
			b.Fatal(err)
		}
		var size uint64
		err := s.conn.QueryRow(b.Context(), "SELECT toUInt64(sum(bytes_on_disk)) FROM system.parts WHERE active AND database = ? AND table = ?", s.database, table).Scan(&size)
		if err != nil {
			b.Fatal(err)
		}
		metrics[table+"-bytes/row"] = float64(size) / rows
	}
	var sums uint64
	began = time.Now()
	if err := s.conn.QueryRow(b.Context(), "SELECT toUInt64(count()) FROM (SELECT tuple, sum(flows) FROM "+s.table("flows")+" GROUP BY tuple)").Scan(&sums); err != nil {
		b.Fatal(err)
	}
	metrics["grouped-rows/s"] = rows / time.Since(began).Seconds()
	hours := 0
	for b.Loop() {
		hours = 0
		err := s.Summed(&simulator.Filter{}).Sums(b.Context(), func(_ *simulator.Tuple, of []simulator.Hour) error { hours += len(of); return nil })
		if err != nil {
			b.Fatal(err)
		}
	}
	metrics["hours"] = float64(hours)
	metrics["hours/s"] = float64(hours*b.N) / b.Elapsed().Seconds()
	for unit, value := range metrics {
		b.ReportMetric(value, unit)
	}
}
