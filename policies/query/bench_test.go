package query_test

import (
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/reach"
)

// BenchmarkAudit asks which rules do nothing, the judge and the audit made anew
// each time.
func BenchmarkAudit(b *testing.B) {
	tiered := worlds.Sized(10_000, true)
	tiered.Tiered = true
	for _, shape := range []worlds.Shape{worlds.Sized(1_000, true), worlds.Sized(10_000, true), tiered} {
		m := shape.Model(1)
		for _, question := range []struct {
			name string
			ask  func(*reach.Audit) query.Answer
		}{
			{"unused", func(a *reach.Audit) query.Answer { return query.UnusedRules(a, nil, time.Time{}) }},
			{"shadowed", query.ShadowedRules},
			{"redundant", query.RedundantRules},
		} {
			b.Run(question.name+" in "+shape.String(), func(b *testing.B) {
				b.ReportAllocs()
				rows := 0
				for b.Loop() {
					rows = len(question.ask(reach.NewAudit(reach.New(m, reach.Options{}))).Rows)
				}
				b.ReportMetric(float64(rows), "rows")
			})
		}
	}
}
