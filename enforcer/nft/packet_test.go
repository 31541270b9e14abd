package nft

import (
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

func BenchmarkFate(b *testing.B) {
	shape := worlds.Sized(20_000, true)
	m := shape.Model(1)
	var pods []int
	for i := 0; i < len(m.Pods); i += 200 {
		pods = append(pods, i)
	}
	r := Compile(Input{Pods: pods, Judge: reach.New(m, reach.Options{})}, nil)
	p := Packet{m.Pods[7].Addresses[0], m.Pods[200].Addresses[0], netset.TCP, 8080}
	b.ReportAllocs()
	for b.Loop() {
		r.Fate(p)
	}
}
