//go:build linux

package kernel_test

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// road is a node that forwards from one of its pods to another.
type road struct {
	*netns.Lab
	name string
	load *netns.Load
}

const roadPort = 7000

// newRoad makes a node with some of a world's pods, two of which talk to each other where
// policies keep both from everything else. It has no table yet.
func newRoad(b *testing.B, name string, s worlds.Shape) (*road, nft.Input) {
	m := s.Model(1)
	isolate(m)
	var ends []int
	for i := range m.Pods {
		if p := &m.Pods[i]; p.Ref.Namespace == m.Pods[1].Ref.Namespace && len(ends) < 2 {
			ends = append(ends, i)
		}
	}
	l := netns.New(b)
	from, to := l.Add(m.Pods[ends[0]].Addresses...), l.Add(m.Pods[ends[1]].Addresses...)
	pods := append(everyFewth(m, min(200, len(m.Pods))), ends...)
	slices.Sort(pods)
	return &road{l, name, l.Load(from, to, roadPort)}, nft.Input{Pods: slices.Compact(pods), Judge: reach.New(m, reach.Options{}), LogGroup: 5}
}

// isolate lets pods of a namespace talk to each other on ten ports, if there are any policies.
func isolate(m *policies.Model) {
	if len(m.Policies) == 0 {
		return
	}
	all := policies.Match{Namespaces: selector.Label(policies.NameLabel, m.Pods[1].Ref.Namespace), Pods: selector.Everything()}
	ports := netset.PortSpan(netset.TCP, roadPort, roadPort+9).Union(netset.PortSpan(netset.UDP, roadPort, roadPort+9))
	p := policies.Policy{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: m.Pods[1].Ref.Namespace, Name: "road"}, Tier: "default", Subject: all}
	for _, d := range policies.Directions {
		p.Governs[d] = true
		p.Rules[d] = []policies.Rule{{Action: policies.ActionAllow, Peers: []policies.Match{all}, Ports: ports}}
	}
	m.Policies = append(m.Policies, p)
	slices.SortFunc(m.Policies, func(x, y policies.Policy) int { return x.Ref.Compare(y.Ref) })
}

// roads returns the nodes that are compared: one without any table, one that tracks
// connections as every node does that has Services, and others under Weir.
func roads(b *testing.B) []*road {
	none := worlds.Sized(1000, false)
	bare, _ := newRoad(b, "nothing", none)
	tracks, _ := newRoad(b, "conntrack", none)
	tracks.Inside(func() {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader("table inet other { chain forward { type filter hook forward priority 0; ct state established,related accept; }; }\n")
		if said, err := load.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, said)
		}
	})
	all := []*road{tracks, bare}
	for _, s := range []worlds.Shape{
		none, {Namespaces: 1, Workloads: 100, Pods: 1000, Policies: 10, Closed: true}, worlds.Sized(10_000, true), worlds.Cluster100k, worlds.Tiered100k,
	} {
		name := fmt.Sprintf("policies=%d", s.Policies)
		if s.Tiered {
			name += ",every-dialect"
		}
		r, in := newRoad(b, name, s)
		if err := kernel.New(r.FD()).Load(nft.Compile(in, nil)); err != nil {
			b.Fatal(err)
		}
		all = append(all, r)
	}
	return all
}

// The kinds of traffic that are measured.
var traffic = []struct {
	name string
	cost func(*road) float64 // processor's nanoseconds for each of something
}{
	{"connection", func(r *road) float64 { return ofEach(2000, func(n int) { r.load.Connections(n, 0) }) }},
	{"new", func(r *road) float64 { return ofEach(20_000, func(n int) { r.load.Datagrams(n, 0, true) }) }},
	{"established", func(r *road) float64 {
		r.load.Establish()
		return ofEach(20_000, func(n int) { r.load.Datagrams(n, 0, false) })
	}},
}

func ofEach(many int, do func(n int)) float64 {
	return float64(processor(func() { do(many) })) / float64(many)
}

// processor returns how much of the processor something takes, that of the kernel, too.
func processor(do func()) time.Duration {
	spent := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			panic(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := spent()
	do()
	return spent() - before
}

// BenchmarkRealTraffic sends the same through nodes with more and more policies, in turns,
// and reports medians of the ratios to what it costs on a node that only tracks connections,
// and what that is.
//
//	connection    over TCP, opened and closed
//	new           a datagram that is a connection of its own
//	established   one of a connection that was let in
func BenchmarkRealTraffic(b *testing.B) {
	netns.Want(b)
	all := roads(b)
	for _, kind := range traffic {
		b.Run(kind.name, func(b *testing.B) {
			ratios := make([][]float64, len(all))
			var base []float64
			for b.Loop() {
				for range 8 {
					var cost []float64
					for _, r := range all {
						r.Forget()
						kind.cost(r)
						cost = append(cost, kind.cost(r))
					}
					base = append(base, cost[0])
					for i := range all {
						ratios[i] = append(ratios[i], cost[i]/cost[0])
					}
				}
			}
			for i, r := range all[1:] {
				b.ReportMetric(median(ratios[i+1]), r.name)
			}
			b.ReportMetric(median(base), "ns")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
