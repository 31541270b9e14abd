package main

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
)

// BenchmarkReach goes the whole way from a folder of manifests to a listing of
// every connection. MB-from-os is all that the process has asked of the
// operating system so far, so it means something only where one row runs alone.
func BenchmarkReach(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.OpenRepository, worlds.ClosedRepository, worlds.PolicyRepository} {
		folder := b.TempDir()
		for name, file := range worlds.Files(shape.Model(1)) {
			if err := os.WriteFile(filepath.Join(folder, name), file.Data, 0o600); err != nil {
				b.Fatal(err)
			}
		}
		for _, format := range []string{"text", "json", "csv"} {
			b.Run(format+"/"+shape.String(), func(b *testing.B) {
				b.ReportAllocs()
				size := counter(0)
				for b.Loop() {
					size = 0
					var problems bytes.Buffer
					if status := run(b.Context(), []string{"weir", "reach", folder, "-o", format}, streams{strings.NewReader(""), &size, &problems}); status != 0 {
						b.Fatalf("exit status %d: %s", status, &problems)
					}
				}
				b.ReportMetric(float64(size)/1e6, "MB-written")
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				b.ReportMetric(float64(m.Sys)/1e6, "MB-from-os")
			})
		}
	}
}

// counter counts what is written to it.
type counter int

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}
