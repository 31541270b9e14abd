package invariant_test

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// sentences are 1,001 invariants of the usual kinds about a world of package worlds:
// nothing from one team to the databases of another, or to those of any other; every
// pod of a namespace can reach another in it; nothing outside reaches a namespace but
// the edge; and one that is about everybody.
func sentences(m *policies.Model) []invariant.Invariant {
	random := rand.New(rand.NewPCG(7, 7))
	team := func() policies.Match {
		return policies.Match{Namespaces: selector.Label("team", fmt.Sprintf("team-%d", random.IntN(50))), Pods: selector.Everything()}
	}
	in := func(pods selector.Selector) policies.Match {
		n := m.Namespaces[1+random.IntN(len(m.Namespaces)-1)].Name
		return policies.Match{Namespaces: selector.Label(policies.NameLabel, n), Pods: pods}
	}
	var all []invariant.Invariant
	add := func(form invariant.Form, from, to policies.Match, port uint16) {
		i := invariant.Invariant{Ref: policies.Ref{Kind: "Invariant", Name: fmt.Sprint(len(all))}, Form: form, From: []policies.Match{from}, To: []policies.Match{to}}
		if port > 0 {
			i.Ports = []policies.PortQuery{{Ports: netset.PortSpan(netset.TCP, port, port)}}
		}
		all = append(all, i)
	}
	add(invariant.Never, invariant.Everywhere(), invariant.Pods(), 22)
	for i := range 1000 {
		switch i % 5 {
		case 0:
			add(invariant.Never, team(), in(selector.Label("layer", "db")), 5432)
		case 1:
			to, others := in(selector.Label("layer", "db")), invariant.Pods()
			others.Except = []policies.Match{{Namespaces: to.Namespaces, Pods: selector.Everything()}}
			add(invariant.Never, others, to, 5432)
		case 2:
			add(invariant.Never, invariant.Everywhere(), in(selector.Everything()), 0)
		case 3:
			from, to := in(selector.Label("layer", "web")), in(selector.Label("layer", "api"))
			to.Namespaces = from.Namespaces
			add(invariant.Always, from, to, 8080)
		case 4:
			add(invariant.Never, team(), team(), 5432)
		}
	}
	return all
}

// candidate is a random change: a policy of a namespace put in place of another one,
// or beside it, or taken out; or a policy that selects pods of the whole cluster.
func candidate(random *rand.Rand, m *policies.Model, wide bool) reach.Edit {
	p := m.Policies[random.IntN(len(m.Policies))]
	for wide == (p.Ref.Namespace != "") {
		p = m.Policies[random.IntN(len(m.Policies))]
	}
	if !wide {
		another := m.Policies[random.IntN(len(m.Policies))]
		for another.Ref.Namespace == "" {
			another = m.Policies[random.IntN(len(m.Policies))]
		}
		switch random.IntN(4) {
		case 0:
			return reach.Edit{Delete: []policies.Ref{p.Ref}}
		case 1:
			p.Ref.Name += "-more"
		}
		p.Rules, p.Governs = another.Rules, another.Governs
		return reach.Edit{Put: []policies.Policy{p}}
	}
	p.Rules = [2][]policies.Rule{slices.Clone(p.Rules[0]), slices.Clone(p.Rules[1])}
	for d := range p.Rules {
		for i := range p.Rules[d] {
			p.Rules[d][i].Ports = netset.PortSpan(netset.TCP, 5432, 5432+uint16(random.IntN(3)))
		}
	}
	switch random.IntN(3) {
	case 0:
		return reach.Edit{Delete: []policies.Ref{p.Ref}}
	case 1:
		p.Ref.Name += "-more"
	}
	return reach.Edit{Put: []policies.Policy{p}}
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAdmission makes the judge of a random change and checks 1,001 invariants
// again, with counterexamples. The percentiles are of the processor's time that single
// changes take, the collection of garbage included.
func BenchmarkAdmission(b *testing.B) {
	for _, row := range []struct {
		shape worlds.Shape
		wide  bool
	}{{worlds.Cluster5k, false}, {worlds.Cluster100k, false}, {worlds.Tiered100k, false}, {worlds.Tiered100k, true}, {worlds.OneNamespace, false}} {
		name := row.shape.String() + "/namespaced"
		if row.wide {
			name = row.shape.String() + "/cluster-wide"
		}
		b.Run(name, func(b *testing.B) {
			m := row.shape.Model(1)
			all := sentences(m)
			before := heap()
			j := reach.New(m, invariant.Apart(reach.Options{Lasting: true}, all...))
			set, err := invariant.Prepare(j, all)
			if err != nil {
				b.Fatal(err)
			}
			size := heap() - before
			first := cpu()
			found, err := set.Check(b.Context(), today)
			if err != nil {
				b.Fatal(err)
			}
			first = cpu() - first
			broken := 0
			for i := range found {
				if found[i].State == invariant.Broken {
					broken++
				}
			}
			random := rand.New(rand.NewPCG(3, 3))
			var took, alone []time.Duration
			anew, again, worse := 0, 0, 0
			b.ReportAllocs()
			for b.Loop() {
				e := candidate(random, m, row.wide)
				began := cpu()
				head, change := j.With(e)
				alone = append(alone, cpu()-began)
				if change.Anew() {
					anew++
				}
				_, checked, err := set.Recheck(b.Context(), head, change, today)
				if err != nil {
					b.Fatal(err)
				}
				shown := false // what an answer shows: the first that is worse
				for i := range checked {
					if checked[i].Broken > found[checked[i].Index].Broken {
						if worse++; !shown {
							shown = checked[i].Explained().Say() != ""
						}
					}
				}
				took = append(took, cpu()-began)
				again += len(checked)
			}
			slices.Sort(took)
			slices.Sort(alone)
			for _, p := range []float64{0.5, 0.9, 0.99, 0.999} {
				b.ReportMetric(float64(took[int(p*float64(len(took)-1))].Microseconds()), fmt.Sprintf("µs-p%g", 100*p))
				b.ReportMetric(float64(alone[int(p*float64(len(alone)-1))].Microseconds()), fmt.Sprintf("µs-with-p%g", 100*p))
			}
			b.ReportMetric(float64(size)/1e6, "MB-engine")
			b.ReportMetric(float64(anew), "anew")
			b.ReportMetric(float64(again)/float64(len(took)), "checked/op")
			b.ReportMetric(float64(worse)/float64(len(took)), "worse/op")
			b.ReportMetric(float64(broken), "broken")
			b.ReportMetric(float64(first.Milliseconds()), "ms-first")
			runtime.KeepAlive(j)
		})
	}
}

// BenchmarkPod makes the judge of a world in which one pod came, went or changed, and
// checks 1,001 invariants again, with counterexamples: a pod in place of one of its
// owner's, and a pod like none before.
func BenchmarkPod(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.Cluster100k, worlds.Tiered100k} {
		m := shape.Model(1)
		slices.SortFunc(m.Pods, func(a, b policies.Pod) int { return a.Ref.Compare(b.Ref) })
		all := sentences(m)
		o := invariant.Apart(reach.Options{Lasting: true}, all...)
		for _, row := range []struct {
			name   string
			change func(n int, p *policies.Pod)
		}{
			{"another of its owner's", func(n int, p *policies.Pod) { p.Ref.Name += fmt.Sprint("-", n) }},
			{"without an address", func(n int, p *policies.Pod) { p.Addresses = nil }},
			{"of a new version", func(n int, p *policies.Pod) {
				p.Labels = maps.Clone(p.Labels)
				p.Labels["version"] = fmt.Sprint("new-", n)
			}},
		} {
			b.Run(shape.String()+"/"+row.name, func(b *testing.B) {
				j := reach.New(m, o)
				set, err := invariant.Prepare(j, all)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := set.Check(b.Context(), today); err != nil {
					b.Fatal(err)
				}
				random := rand.New(rand.NewPCG(3, 3))
				var took, alone []time.Duration
				anew, n, again := 0, 0, 0
				for b.Loop() {
					w := m.World
					w.Pods = slices.Clone(m.Pods)
					at := random.IntN(len(w.Pods))
					e := reach.Edit{World: &w, Pods: []policies.Ref{w.Pods[at].Ref}}
					row.change(n, &w.Pods[at])
					e.Pods = append(e.Pods, w.Pods[at].Ref)
					n++
					began := cpu()
					head, change := j.With(e)
					alone = append(alone, cpu()-began)
					if change.Anew() {
						anew++
					}
					_, checked, err := set.Recheck(b.Context(), head, change, today)
					if err != nil {
						b.Fatal(err)
					}
					took = append(took, cpu()-began)
					again += len(checked)
				}
				slices.Sort(took)
				slices.Sort(alone)
				for _, p := range []float64{0.5, 0.9, 0.99} {
					b.ReportMetric(float64(took[int(p*float64(len(took)-1))].Microseconds()), fmt.Sprintf("µs-p%g", 100*p))
					b.ReportMetric(float64(alone[int(p*float64(len(alone)-1))].Microseconds()), fmt.Sprintf("µs-with-p%g", 100*p))
				}
				b.ReportMetric(float64(anew), "anew")
				b.ReportMetric(float64(again)/float64(n), "checked/op")
			})
		}
	}
}
