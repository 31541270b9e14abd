package flowlog

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

// BenchmarkReadHubble reads 4,000 records of 400 pods.
func BenchmarkReadHubble(b *testing.B) {
	var text strings.Builder
	const records = 4000
	for i := range records {
		line := strings.Replace(forwarded, "web-7c9f8d5b6-abcde", fmt.Sprintf("web-7c9f8d5b6-%05d", i%400), 1)
		line = strings.Replace(line, "10.0.1.5", fmt.Sprintf("10.0.%d.%d", i/256%256, i%256), 1)
		text.WriteString(strings.Replace(line, "5a1b", fmt.Sprintf("%08x-5d2f-4a6e-9c0b-7f1e2d3c4b5a", i), 1) + "\n")
	}
	input := text.String()
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(context.Background(), strings.NewReader(input), "f", Options{}, func(policies.Flow) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*records)/b.Elapsed().Seconds(), "records/s")
}
