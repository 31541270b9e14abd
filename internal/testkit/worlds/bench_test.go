package worlds_test

import (
	"bufio"
	"io"
	"runtime"
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

var repositories = []worlds.Shape{worlds.OpenRepository, worlds.ClosedRepository, worlds.PolicyRepository}

// BenchmarkPath goes the whole way from manifests to a line of text for every
// connection. MB-from-os is all that the process has asked of the operating
// system so far, so it means something only where one shape runs alone.
func BenchmarkPath(b *testing.B) {
	for _, shape := range repositories {
		b.Run(shape.String(), func(b *testing.B) {
			files := worlds.Files(shape.Model(1))
			lines := 0
			b.ReportAllocs()
			for b.Loop() {
				model, err := k8s.Read(parse(b, files), k8s.Options{})
				if err != nil {
					b.Fatal(err)
				}
				lines = write(io.Discard, reach.New(model, reach.Options{}))
			}
			b.ReportMetric(float64(lines), "connections")
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			b.ReportMetric(float64(m.Sys)/1e6, "MB-from-os")
		})
	}
}

// write prints every connection on a line and returns how many there are.
func write(w io.Writer, judge *reach.Judge) int {
	out := bufio.NewWriter(w)
	lines := 0
	for c := range judge.Connections(reach.Listing{}) {
		out.WriteString(c.From.String())
		out.WriteString(" -> ")
		out.WriteString(c.To.String())
		out.WriteString(": ")
		out.WriteString(c.Allow.String())
		out.WriteByte('\n')
		lines++
	}
	out.Flush()
	return lines
}
