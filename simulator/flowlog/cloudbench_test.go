package flowlog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

// BenchmarkReadFormats reads 4,000 records of 400 source ports of the first
// record of each example that has one flow a line.
func BenchmarkReadFormats(b *testing.B) {
	for _, name := range []string{"aws-vpc.log", "conntrack.log", "gcp-vpc.json", "gke-policy.json", "netobserv.json"} {
		b.Run(name, func(b *testing.B) {
			record, _, _ := strings.Cut(example(b, name), "\n")
			var text strings.Builder
			const records = 4000
			for i := range records {
				line := strings.Replace(record, "43210", fmt.Sprint(43000+i%400), 1)
				text.WriteString(strings.Replace(line, "abcde", fmt.Sprintf("%05d", i%400), 1) + "\n")
			}
			input := text.String()
			b.SetBytes(int64(len(input)))
			b.ReportAllocs()
			for b.Loop() {
				stats, err := Read(context.Background(), strings.NewReader(input), "f", Options{}, func(policies.Flow) error { return nil })
				if err != nil || stats.Flows != records {
					b.Fatal(stats, err)
				}
			}
			b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
		})
	}
}
