//go:build linux

package enforcer

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// acknowledged is a kernel that says when it has taken something.
type acknowledged struct {
	table
	done chan time.Time
}

func (k *acknowledged) Load(r *nft.Ruleset) error {
	err := k.table.Load(r)
	k.done <- time.Now()
	return err
}

func (k *acknowledged) Apply(c *nft.Change) error {
	err := k.table.Apply(c)
	k.done <- time.Now()
	return err
}

// entryOf returns a pod as an API server has it.
func entryOf(b *testing.B, p *policies.Pod, node string) *k8s.Entry {
	b.Helper()
	labels := map[string]any{}
	for key, value := range p.Labels {
		labels[key] = value
	}
	var ports, addresses []any
	for _, port := range p.Ports {
		ports = append(ports, map[string]any{"name": port.Name, "containerPort": int64(port.Number), "protocol": port.Protocol.String()})
	}
	for _, a := range p.Addresses {
		addresses = append(addresses, map[string]any{"ip": a.String()})
	}
	e, err := k8s.ReadEntry(k8s.Object("pod", map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": p.Ref.Name, "namespace": p.Ref.Namespace, "labels": labels,
			"ownerReferences": []any{map[string]any{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": p.Workload.Name + "-" + p.Labels["pod-template-hash"], "controller": true}},
		},
		"spec":   map[string]any{"nodeName": node, "containers": []any{map[string]any{"name": "main", "ports": ports}}},
		"status": map[string]any{"phase": "Running", "podIPs": addresses},
	}), k8s.Options{})
	if err != nil {
		b.Fatal(err)
	}
	return e
}

// storeOf returns the store of one of the nodes of a world, of a hundred pods each.
func storeOf(b *testing.B, m *policies.Model) *k8s.Store {
	b.Helper()
	store := k8s.NewStore(k8s.Options{Node: "node-0"})
	bare := *m
	bare.Pods = nil
	for name, file := range worlds.Files(&bare) {
		docs, err := k8s.Parse(name, file.Data)
		if err != nil {
			b.Fatal(err)
		}
		for _, d := range docs {
			e, err := k8s.ReadEntry(d, k8s.Options{})
			if err != nil {
				b.Fatal(err)
			}
			store.Put(e)
		}
	}
	nodes := max(1, len(m.Pods)/100)
	for i := range m.Pods {
		store.Put(entryOf(b, &m.Pods[i], fmt.Sprintf("node-%d", i%nodes)))
	}
	return store
}

// BenchmarkRealChange is from when the store is told of a pod until the kernel has
// acknowledged what follows: of another pod like those there are, of one like none
// before, and of one on this node. It says how much memory is held, too.
func BenchmarkRealChange(b *testing.B) {
	netns.Want(b)
	for _, shape := range []worlds.Shape{worlds.Cluster5k, worlds.Cluster100k} {
		b.Run(shape.String(), func(b *testing.B) {
			m := shape.Model(1)
			store := storeOf(b, m)
			a := New(Options{Netns: netns.New(b).FD(), Node: "node-0", Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
			k := &acknowledged{a.kernel, make(chan time.Time, 16)}
			a.kernel = k
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- a.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			world, _ := store.Model()
			a.Tell(world, nil)
			<-k.done
			testkit.Eventually(b, a.Ready)
			like := m.Pods[len(m.Pods)/2+3]
			m = nil
			held := func() float64 {
				var s runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&s)
				return float64(s.HeapAlloc) / (1 << 20)
			}
			for _, what := range []string{"like others", "like none", "on this node"} {
				b.Run(what, func(b *testing.B) {
					var took []time.Duration
					for b.Loop() {
						i := len(took) / 2
						p, node := like, "node-7"
						p.Ref.Name, p.Addresses = fmt.Sprintf("one-more-%d", i), []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})}
						switch what {
						case "like none":
							p.Labels = map[string]string{"app": p.Labels["app"], "layer": fmt.Sprintf("layer-%d", i)}
						case "on this node":
							node = "node-0"
						}
						e := entryOf(b, &p, node)
						time.Sleep(2 * a.options.Settle) // nothing is gathered
						begin := time.Now()
						if len(took)%2 == 0 {
							store.Put(e)
						} else {
							store.Delete(e.Key())
						}
						world, change := store.Model()
						a.Follow(world, nil, change)
						took = append(took, (<-k.done).Sub(begin))
					}
					slices.Sort(took)
					for _, percent := range []int{50, 90, 99} {
						b.ReportMetric(float64(took[len(took)*percent/100].Microseconds()), fmt.Sprintf("µs-p%d", percent))
					}
					b.ReportMetric(held(), "MiB-held")
				})
			}
		})
	}
}
