//go:build unix

package flowlog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/weir-policy/weir/policies"
)

// benchmarkRead reads records of 400 pods, every one with an own time and own
// counters. Beside the usual it reports records a second of processor time.
func benchmarkRead(b *testing.B, record string) {
	var text strings.Builder
	const records = 20000
	for i := range records {
		pod := fmt.Sprintf("web-%05d", i%400)
		edits := strings.NewReplacer(
			"web-7c9f8d5b6-abcde", pod+"-abcde", "web-7c9f8d5b6-*", pod+"-*", "10.0.1.5", fmt.Sprintf("10.0.%d.%d", i/256%256, i%256),
			"5a1b", fmt.Sprintf("%08x-5d2f-4a6e-9c0b-7f1e2d3c4b5a", i), "48120", fmt.Sprint(48120+i), "1772359200", fmt.Sprint(1772359200+i/100),
		)
		text.WriteString(edits.Replace(record) + "\n")
	}
	input := []byte(text.String())
	flows := 0
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	before := processorTime(b)
	for b.Loop() {
		stats, err := Read(context.Background(), bytes.NewReader(input), "f", Options{Strict: true}, func(policies.Flow) error { flows++; return nil })
		if err != nil || stats.Flows != records {
			b.Fatalf("%+v, error %v", stats, err)
		}
	}
	b.ReportMetric(float64(flows)/(processorTime(b)-before).Seconds(), "records/cpu-s")
}

// processorTime is what the process has used, which says more than the clock
// does on a machine that others use too.
func processorTime(b *testing.B) time.Duration {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		b.Fatal(err)
	}
	return time.Duration(used.Utime.Nano() + used.Stime.Nano())
}

func BenchmarkReadHubble(b *testing.B)     { benchmarkRead(b, forwarded) }
func BenchmarkReadCalico(b *testing.B)     { benchmarkRead(b, aggregated) }
func BenchmarkReadCalicoText(b *testing.B) { benchmarkRead(b, textLine) }
func BenchmarkReadGoldmane(b *testing.B)   { benchmarkRead(b, pushed) }
func BenchmarkReadWeir(b *testing.B)       { benchmarkRead(b, ownLine) }

func BenchmarkReadAWS(b *testing.B)       { benchmarkRead(b, firstLine(b, "aws-vpc.log")) }
func BenchmarkReadConntrack(b *testing.B) { benchmarkRead(b, firstLine(b, "conntrack.log")) }
func BenchmarkReadGCP(b *testing.B)       { benchmarkRead(b, firstLine(b, "gcp-vpc.json")) }
func BenchmarkReadGKE(b *testing.B)       { benchmarkRead(b, firstLine(b, "gke-policy.json")) }
func BenchmarkReadNetObserv(b *testing.B) { benchmarkRead(b, firstLine(b, "netobserv.json")) }

// firstLine returns the first record of an example, with its end at its start.
func firstLine(b *testing.B, name string) string {
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		b.Fatal(err)
	}
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.NewReplacer("1772359260", "1772359200", "1772359205", "1772359200").Replace(line)
}
