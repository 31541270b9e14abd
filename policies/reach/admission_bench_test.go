package reach_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// sentence is what an invariant comes down to: no such connection, or every one.
type sentence struct {
	from, to policies.Match
	ports    netset.Ports
	breaks   policies.Verdict
}

// sentences are 1,001 invariants of the usual kinds about a world of package worlds:
// nothing from one team to the databases of another, or to those of any other; every
// pod of a namespace can reach another in it; nothing outside reaches a namespace but
// the edge; and one that is about everybody.
func sentences(m *policies.Model) []sentence {
	random := rand.New(rand.NewPCG(7, 7))
	pods := policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything()}
	outside := policies.Match{Anyone: true, Except: []policies.Match{pods, {Nodes: selector.Everything()}}}
	team := func() policies.Match {
		return policies.Match{Namespaces: selector.Label("team", fmt.Sprintf("team-%d", random.IntN(50))), Pods: selector.Everything()}
	}
	in := func(pods selector.Selector) policies.Match {
		n := m.Namespaces[1+random.IntN(len(m.Namespaces)-1)].Name
		return policies.Match{Namespaces: selector.Label(policies.NameLabel, n), Pods: pods}
	}
	db := netset.PortSpan(netset.TCP, 5432, 5432)
	all := []sentence{{outside, pods, netset.PortSpan(netset.TCP, 22, 22), policies.Allow}}
	for i := range 1000 {
		s := sentence{ports: db, breaks: policies.Allow}
		switch i % 5 {
		case 0:
			s.from, s.to = team(), in(selector.Label("layer", "db"))
		case 1:
			s.to = in(selector.Label("layer", "db"))
			s.from = policies.Match{Namespaces: selector.Everything(), Pods: selector.Everything(), Except: []policies.Match{{Namespaces: s.to.Namespaces, Pods: selector.Everything()}}}
		case 2:
			s.from, s.to, s.ports = outside, in(selector.Everything()), netset.TransportPorts()
		case 3:
			s.from, s.to, s.breaks = in(selector.Label("layer", "web")), in(selector.Label("layer", "api")), policies.Deny
			s.to.Namespaces, s.ports = s.from.Namespaces, netset.PortSpan(netset.TCP, 8080, 8080)
		case 4:
			s.from, s.to = team(), team()
		}
		all = append(all, s)
	}
	return all
}

// watched is a sentence with its groups.
type watched struct {
	sentence
	from, to reach.Group
}

func watch(b *testing.B, m *policies.Model) (*reach.Judge, []watched) {
	all := sentences(m)
	o := reach.Options{Lasting: true}
	for _, s := range all {
		o.Apart = append(o.Apart, s.from, s.to)
	}
	j := reach.New(m, o)
	list := make([]watched, len(all))
	for i, s := range all {
		w := &list[i]
		w.sentence = s
		var okFrom, okTo bool
		w.from, okFrom = j.GroupOf(s.from)
		w.to, okTo = j.GroupOf(s.to)
		if !okFrom || !okTo {
			b.Fatal("a sentence is not told apart")
		}
	}
	return j, list
}

// recheck returns the number of sentences that a change breaks more than before, each
// with its first counterexamples.
func recheck(c *reach.Change, list []watched) (worse int) {
	for i := range list {
		w := &list[i]
		if !c.Touches(policies.Egress, w.from) && !c.Touches(policies.Ingress, w.to) {
			continue
		}
		before, after := c.Count(w.from, w.to, w.ports, w.breaks)
		if after.Sure[w.breaks] <= before.Sure[w.breaks] {
			continue
		}
		worse++
		examples := 0
		for range c.After(w.from, w.to, w.ports, w.breaks) {
			if examples++; examples == 5 {
				break
			}
		}
	}
	return worse
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

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkAdmission makes the judge of a random change and looks again at 1,001
// sentences. The percentiles are of the processor's time that single changes take, the collection of
// garbage included.
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
			before := heap()
			j, list := watch(b, m)
			size := heap() - before
			first := cpu()
			broken := 0
			for i := range list {
				w := &list[i]
				if j.Count(w.from, w.to, w.ports, w.breaks).Sure[w.breaks] > 0 {
					broken++
				}
			}
			first = cpu() - first
			random := rand.New(rand.NewPCG(3, 3))
			var took, alone []time.Duration
			anew, worse := 0, 0
			b.ReportAllocs()
			for b.Loop() {
				e := candidate(random, m, row.wide)
				began := cpu()
				_, change := j.With(e)
				alone = append(alone, cpu()-began)
				if change.Anew() {
					anew++
				} else {
					worse += recheck(change, list)
				}
				took = append(took, cpu()-began)
			}
			slices.Sort(took)
			slices.Sort(alone)
			for _, p := range []float64{0.5, 0.9, 0.99, 0.999} {
				b.ReportMetric(float64(took[int(p*float64(len(took)-1))].Microseconds()), fmt.Sprintf("µs-p%g", 100*p))
				b.ReportMetric(float64(alone[int(p*float64(len(alone)-1))].Microseconds()), fmt.Sprintf("µs-with-p%g", 100*p))
			}
			b.ReportMetric(float64(size)/1e6, "MB-engine")
			b.ReportMetric(float64(anew), "anew")
			b.ReportMetric(float64(worse)/float64(len(took)), "worse/op")
			b.ReportMetric(float64(broken), "broken")
			b.ReportMetric(float64(first.Milliseconds()), "ms-first")
			runtime.KeepAlive(j)
		})
	}
}
