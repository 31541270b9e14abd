package diff_test

import (
	"slices"
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/reach"
)

// BenchmarkCompare compares a world with itself once one rule is opened to
// anyone: judged is with making both judges, compared is without.
func BenchmarkCompare(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.Cluster5k, worlds.Cluster100k, worlds.OpenRepository} {
		base := shape.Model(1)
		head := edited(base)
		b.Run("judged/"+shape.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				diff.Compare(reach.Pair(base, head, reach.Options{}))
			}
		})
		b.Run("compared/"+shape.String(), func(b *testing.B) {
			was, is := reach.Pair(base, head, reach.Options{})
			differences := 0
			b.ReportAllocs()
			for b.Loop() {
				differences = len(diff.Compare(was, is).Differences)
			}
			b.ReportMetric(float64(differences), "differences")
		})
	}
}

// BenchmarkCompareAll compares a world without policies with a closed one:
// nearly all connections of a million are lost.
func BenchmarkCompareAll(b *testing.B) {
	head := worlds.ClosedRepository.Model(1)
	base := *head
	base.Policies = nil
	was, is := reach.Pair(&base, head, reach.Options{})
	differences := 0
	b.ReportAllocs()
	for b.Loop() {
		differences = len(diff.Compare(was, is).Differences)
	}
	b.ReportMetric(float64(differences), "differences")
}

// edited returns the model with the last ingress rule open to anyone.
func edited(m *policies.Model) *policies.Model {
	head := *m
	head.Policies = slices.Clone(m.Policies)
	for i := range slices.Backward(head.Policies) {
		p := &head.Policies[i]
		if len(p.Rules[policies.Ingress]) > 0 {
			p.Rules[policies.Ingress] = slices.Clone(p.Rules[policies.Ingress])
			p.Rules[policies.Ingress][0].Peers = []policies.Match{{Anyone: true}}
			break
		}
	}
	return &head
}
