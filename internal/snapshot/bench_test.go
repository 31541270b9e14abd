package snapshot_test

import (
	"io"
	"testing"

	"github.com/weir-policy/weir/internal/snapshot"
	"github.com/weir-policy/weir/internal/testkit/worlds"
)

// BenchmarkSnapshot writes a world of 5,000 pods, and gives it made-up names.
func BenchmarkSnapshot(b *testing.B) {
	objects := trimmed(b, synthetic(worlds.Cluster5k))
	run := func(name string, f func() error) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if err := f(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("yaml", func() error { return snapshot.WriteYAML(io.Discard, objects, nil) })
	run("json", func() error { return snapshot.WriteJSON(io.Discard, objects, nil) })
	run("names", func() error { snapshot.Anonymize(objects, []byte("key")); return nil })
}
