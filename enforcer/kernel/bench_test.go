//go:build linux

package kernel_test

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// everyFewth returns n pods of a model, as if they were those of one node.
func everyFewth(m *policies.Model, n int) []int {
	var pods []int
	for i := range n {
		pods = append(pods, i*len(m.Pods)/n)
	}
	return pods
}

// measure runs a benchmark and reports the processor time of one operation, that of the
// kernel on its behalf, too.
func measure(b *testing.B, do func()) {
	spent := func() (user, system time.Duration) {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano()), time.Duration(u.Stime.Nano())
	}
	user, system := spent()
	for b.Loop() {
		do()
	}
	userAfter, systemAfter := spent()
	b.ReportMetric((userAfter-user).Seconds()*1000/float64(b.N), "ms-user")
	b.ReportMetric((systemAfter-system).Seconds()*1000/float64(b.N), "ms-system")
}

// BenchmarkRealLoad loads the policies of a node, in the last world 300,000 elements.
func BenchmarkRealLoad(b *testing.B) {
	netns.Want(b)
	for _, of := range []struct {
		worlds.Shape
		pods int // of the node
	}{{worlds.Cluster5k, 200}, {worlds.Cluster100k, 200}, {worlds.Tiered100k, 225}} {
		b.Run(of.String(), func(b *testing.B) {
			m := of.Model(1)
			k := kernel.New(netns.New(b).FD())
			r := nft.Compile(nft.Input{Pods: everyFewth(m, of.pods), Judge: reach.New(m, reach.Options{})}, nil)
			measure(b, func() {
				if err := k.Load(r); err != nil {
					b.Fatal(err)
				}
			})
			elements := 0
			for i := range r.Sets {
				elements += len(r.Sets[i].Elements)
			}
			b.ReportMetric(float64(elements), "elements")
			b.ReportMetric(float64(len(r.Vectors)), "vectors")
		})
	}
}

// BenchmarkRealOnePod changes what is loaded for a pod that comes and goes elsewhere,
// and compiles it.
func BenchmarkRealOnePod(b *testing.B) {
	netns.Want(b)
	m := worlds.Tiered100k.Model(1)
	k := kernel.New(netns.New(b).FD())
	pods := everyFewth(m, 200)
	more := *m
	pod := m.Pods[7]
	pod.Ref.Name, pod.Addresses = "zzz-new", []netip.Addr{netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("fd00:10::200:1")}
	more.Pods = append(slices.Clone(m.Pods), pod)
	inputs := []nft.Input{{Pods: pods, Judge: reach.New(&more, reach.Options{})}, {Pods: pods, Judge: reach.New(m, reach.Options{})}}
	rulesets := []*nft.Ruleset{nil, nft.Compile(inputs[1], nil)}
	rulesets[0] = nft.Compile(inputs[0], rulesets[1])
	if err := k.Load(rulesets[1]); err != nil {
		b.Fatal(err)
	}
	changes := []*nft.Change{nft.Diff(rulesets[1], rulesets[0]), nft.Diff(rulesets[0], rulesets[1])}
	b.Run("compile", func(b *testing.B) {
		measure(b, func() { nft.Compile(inputs[0], rulesets[1]) })
	})
	b.Run("diff", func(b *testing.B) {
		measure(b, func() { nft.Diff(rulesets[1], rulesets[0]) })
	})
	b.Run("apply", func(b *testing.B) {
		i := 0
		measure(b, func() {
			if err := k.Apply(changes[i%2]); err != nil {
				b.Fatal(err)
			}
			i++
		})
		if i%2 == 1 {
			if err := k.Apply(changes[1]); err != nil {
				b.Fatal(err)
			}
		}
	})
}
