package reach_test

import (
	"math/rand/v2"
	"net/netip"
	"runtime"
	"testing"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

var clusters = []worlds.Shape{
	worlds.Sized(100, false), worlds.Sized(1_000, false), worlds.Sized(10_000, false), worlds.Sized(100_000, false),
	worlds.Sized(100, true), worlds.Sized(1_000, true), worlds.Sized(10_000, true),
	worlds.Cluster5k, worlds.Cluster100k, worlds.OneNamespace, worlds.AllDifferent, worlds.Scattered,
	worlds.Tiered100k, worlds.TieredNamespace, worlds.Tiered1m,
}

// BenchmarkNew sorts the pods into classes and works out every row. MB-engine is
// the heap that a judge keeps beside its model.
func BenchmarkNew(b *testing.B) {
	for _, shape := range clusters {
		b.Run(shape.String(), func(b *testing.B) {
			model := shape.Model(1)
			var judge *reach.Judge
			before := heap()
			b.ReportAllocs()
			for b.Loop() {
				judge = reach.New(model, reach.Options{})
			}
			b.ReportMetric(float64(heap()-before)/1e6, "MB-engine")
			runtime.KeepAlive(judge)
			runtime.KeepAlive(model)
		})
	}
}

// heap returns the bytes in use once everything unused is collected.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// question is a connection between two random pods on a port that policies use.
type question struct {
	from, to reach.End
	port     uint16
}

func questions(j *reach.Judge) []question {
	random := rand.New(rand.NewPCG(1, 1))
	ports := []uint16{53, 80, 443, 5432, 8080, 9095}
	all := make([]question, 1<<16)
	for i := range all {
		pods := len(j.Model().Pods)
		all[i] = question{j.Pod(random.IntN(pods)), j.Pod(random.IntN(pods)), ports[random.IntN(len(ports))]}
	}
	return all
}

func BenchmarkVerdict(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.Cluster5k, worlds.Cluster100k, worlds.OneNamespace} {
		b.Run(shape.String(), func(b *testing.B) {
			judge := reach.New(shape.Model(1), reach.Options{})
			asked := questions(judge)
			i := 0
			for b.Loop() {
				q := &asked[i%len(asked)]
				judge.Verdict(q.from, q.to, netset.TCP, q.port)
				i++
			}
		})
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.Cluster5k, worlds.Cluster100k} {
		b.Run(shape.String(), func(b *testing.B) {
			judge := reach.New(shape.Model(1), reach.Options{})
			asked := questions(judge)
			i := 0
			for b.Loop() {
				q := &asked[i%len(asked)]
				judge.Decide(q.from, q.to, netset.TCP, q.port)
				i++
			}
		})
	}
}

// BenchmarkConnections lists every connection by workload.
func BenchmarkConnections(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.OpenRepository, worlds.ClosedRepository, worlds.PolicyRepository, worlds.Cluster5k, worlds.Cluster100k} {
		b.Run(shape.String(), func(b *testing.B) {
			judge := reach.New(shape.Model(1), reach.Options{})
			n := 0
			b.ReportAllocs()
			for b.Loop() {
				n = 0
				for range judge.Connections(reach.Listing{}) {
					n++
				}
			}
			b.ReportMetric(float64(n), "connections")
		})
	}
}

// BenchmarkManyValues makes the judge of 100 workloads, and lists their
// connections, where 5,000 policies each name a port, a port range or an address
// range of their own.
func BenchmarkManyValues(b *testing.B) {
	for _, row := range []struct {
		name string
		edit func(i uint16, r *policies.Rule)
	}{
		{"ports", func(i uint16, r *policies.Rule) { r.Ports = netset.PortSpan(netset.TCP, 1000+2*i, 1000+2*i) }},
		{"port ranges", func(i uint16, r *policies.Rule) { r.Ports = netset.PortSpan(netset.TCP, 1000+2*i, 1100+2*i) }},
		{"address ranges", func(i uint16, r *policies.Rule) {
			address := netip.AddrFrom4([4]byte{172, byte(i >> 8), byte(i), 0})
			r.Peers = []policies.Match{{Block: netset.Block{CIDR: netip.PrefixFrom(address, 24)}}}
		}},
	} {
		b.Run(row.name, func(b *testing.B) {
			model := worlds.PolicyRepository.Model(1)
			for i := range model.Policies {
				for _, d := range policies.Directions {
					for k := range model.Policies[i].Rules[d] {
						row.edit(uint16(i), &model.Policies[i].Rules[d][k])
					}
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				for range reach.New(model, reach.Options{}).Connections(reach.Listing{}) {
				}
			}
		})
	}
}

// BenchmarkStore makes the judge of a large production cluster's share on one
// machine, and asks it.
func BenchmarkStore(b *testing.B) {
	model := worlds.Store(1)
	b.Run("New", func(b *testing.B) {
		var judge *reach.Judge
		before := heap()
		for b.Loop() {
			judge = reach.New(model, reach.Options{})
		}
		b.ReportMetric(float64(heap()-before)/1e6, "MB-engine")
		runtime.KeepAlive(judge)
	})
	b.Run("Verdict", func(b *testing.B) {
		judge := reach.New(model, reach.Options{})
		random := rand.New(rand.NewPCG(1, 1))
		var asked []reach.End
		for range 1 << 12 {
			nets := model.Sets[random.IntN(len(model.Sets))].Nets
			asked = append(asked, judge.Outside(nets[random.IntN(len(nets))].Addr()))
		}
		i := 0
		for b.Loop() {
			judge.Verdict(judge.Pod(i%10), asked[i%len(asked)], netset.TCP, uint16(1+i%2000))
			i++
		}
	})
}
