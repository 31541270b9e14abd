package lint

import (
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies/reach"
)

// BenchmarkRun runs every check; the judge is made beforehand.
func BenchmarkRun(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.Cluster5k, worlds.Cluster100k, worlds.OneNamespace} {
		b.Run(shape.String(), func(b *testing.B) {
			judge := reach.New(shape.Model(1), reach.Options{})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Run(judge, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
