// Package flows makes up recorded flows, as many as are asked for, that look like
// those of a busy cluster: few workloads that many talk to, DNS from everywhere,
// the internet on both sides, probes, some that are denied, and both sides'
// records of one connection.
package flows

import (
	"fmt"
	"hash/crc32"
	"maps"
	"math"
	"math/rand/v2"
	"net/netip"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Options say what is made up. A zero field has the value of a large cluster.
type Options struct {
	Seed       uint64
	Start      time.Time // 2026-03-01 00:00 UTC
	Rate       float64   // flows a second: 12,000
	Namespaces int       // 400
	Workloads  int       // 6,000
	Edges      int       // which workloads talk to which, and on which port: 67,000
	Outside    int       // addresses outside: 300,000
}

// Generator makes flows in order of time. Equal Options give equal flows.
type Generator struct {
	random    *rand.Rand
	now       time.Time
	gap       time.Duration
	workloads []workload
	edges     []edge
	popular   *rand.Zipf // among edges
	client    *rand.Zipf // among workloads
	outside   *rand.Zipf
	dns       *workload
	pending   []policies.Flow
	hits      [2][][]policies.Hit // of allows and denials
}

type workload struct {
	pods  []policies.FlowPeer
	ports []uint16
}

type edge struct {
	from, to *workload
	port     uint16
}

var (
	servicePorts = [...]uint16{8080, 80, 443, 5432, 6379, 9090, 9092, 3306, 8443, 50051, 27017, 9200, 5672, 11211}
	ownNode      = policies.FlowPeer{Host: true, OwnNode: true}
)

// New returns a Generator.
func New(o Options) *Generator {
	if o.Start.IsZero() {
		o.Start = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	}
	if o.Rate == 0 {
		o.Rate = 12_000
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&o.Namespaces, 400}, {&o.Workloads, 6_000}, {&o.Edges, 67_000}, {&o.Outside, 300_000}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	r := rand.New(rand.NewPCG(o.Seed, 0x77656972))
	g := &Generator{
		random: r, now: o.Start, gap: time.Duration(float64(time.Second) / o.Rate), workloads: make([]workload, o.Workloads),
		popular: rand.NewZipf(r, 1.05, 1, uint64(o.Edges-1)), client: rand.NewZipf(r, 1.05, 8, uint64(o.Workloads-1)),
		outside: rand.NewZipf(r, 1.01, 4, uint64(o.Outside-1)),
	}
	address := netip.MustParseAddr("10.64.0.1")
	for i := range g.workloads {
		namespace := fmt.Sprintf("team-%03d", int(float64(o.Namespaces)*math.Pow(r.Float64(), 1.7)))
		g.workloads[i] = g.newWorkload(i, namespace, &address)
	}
	g.dns = &g.workloads[0]
	for i := range g.dns.pods {
		g.dns.pods[i].Namespace, g.dns.pods[i].Workloads = "kube-system", []policies.Ref{{Kind: "Deployment", Namespace: "kube-system", Name: "coredns"}}
	}
	for range o.Edges {
		to := &g.workloads[r.IntN(o.Workloads)]
		g.edges = append(g.edges, edge{&g.workloads[g.client.Uint64()], to, to.ports[r.IntN(len(to.ports))]})
	}
	for i := range 200 {
		policy := policies.Ref{Kind: "NetworkPolicy", Namespace: fmt.Sprintf("team-%03d", i), Name: "allow-clients"}
		g.hits[0] = append(g.hits[0], []policies.Hit{{Tier: "default", Policy: policy, Action: policies.ActionAllow, Rule: i % 7}})
		g.hits[1] = append(g.hits[1], []policies.Hit{{Tier: "default", Policy: policy, Action: policies.ActionDeny, Rule: policies.EndOfTier}})
	}
	return g
}

const safe = "bcdfghjklmnpqrstvwxz2456789"

func (g *Generator) suffix(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = safe[g.random.IntN(len(safe))]
	}
	return string(b)
}

func (g *Generator) newWorkload(i int, namespace string, address *netip.Addr) workload {
	name, hash := fmt.Sprintf("svc-%04d", i), g.suffix(9)
	labels := map[string]string{
		"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": namespace, "pod-template-hash": hash,
		"tier": [...]string{"front", "back", "data"}[i%3], "version": fmt.Sprintf("v1.%d.0", i%40),
	}
	owners := []policies.Ref{{Kind: "Deployment", Namespace: namespace, Name: name}}
	var w workload
	for range 1 + int(g.random.ExpFloat64()*5.7) {
		*address = address.Next()
		w.pods = append(w.pods, policies.FlowPeer{
			Namespace: namespace, Pod: name + "-" + hash + "-" + g.suffix(5), Workloads: owners, Labels: labels, Address: *address,
		})
	}
	for range 1 + g.random.IntN(2) {
		w.ports = append(w.ports, servicePorts[g.random.IntN(len(servicePorts))])
	}
	return w
}

func (g *Generator) pod(w *workload) policies.FlowPeer { return w.pods[g.random.IntN(len(w.pods))] }

func (g *Generator) world() policies.FlowPeer {
	n := g.outside.Uint64()
	h := n*0x9e3779b97f4a7c15>>32 | 1
	return policies.FlowPeer{
		Outside: true, Address: netip.AddrFrom4([4]byte{byte(23 + h%60), byte(h >> 8), byte(h >> 16), byte(h >> 24)}), Network: policies.PublicNetwork,
	}
}

// Next returns the next flow. It shares maps and slices with others.
func (g *Generator) Next() policies.Flow {
	if n := len(g.pending); n > 0 {
		f := g.pending[n-1]
		g.pending = g.pending[:n-1]
		return f
	}
	f := g.connection()
	if f.From.Outside {
		f.Origin.Reporter = policies.DestinationSide
	}
	if !f.From.Outside && !f.To.Outside && !f.From.Host {
		other := f
		other.Origin.Reporter = policies.DestinationSide
		other.First, other.Last = f.First.Add(37*time.Microsecond), f.Last.Add(37*time.Microsecond)
		g.pending = append(g.pending, other)
	}
	return f
}

func (g *Generator) connection() policies.Flow {
	r := g.random
	g.now = g.now.Add(time.Duration(float64(g.gap) * r.ExpFloat64() * 1.8))
	f := policies.Flow{
		First: g.now.Truncate(time.Microsecond), Protocol: netset.TCP, Verdict: policies.Allow, Count: 1,
		SourcePort: uint16(32768 + r.IntN(28232)), Origin: policies.Origin{Format: "hubble", Reporter: policies.SourceSide},
	}
	bytes, packets := uint64(math.Exp(6+1.6*r.NormFloat64())), uint64(3+r.ExpFloat64()*8)
	f.Bytes, f.Packets, f.ReplyBytes, f.ReplyPackets = bytes+60*packets, packets, bytes*uint64(1+r.IntN(9))+52*packets, packets
	lasts := time.Duration(r.ExpFloat64() * float64(400*time.Millisecond))
	switch draw := r.IntN(100); {
	case draw < 18:
		f.From, f.To, f.Protocol, f.Port = g.pod(&g.workloads[g.client.Uint64()]), g.pod(g.dns), netset.UDP, 53
		f.Bytes, f.Packets, f.ReplyBytes, f.ReplyPackets, lasts = 70+uint64(r.IntN(40)), 1, 130+uint64(r.IntN(90)), 1, time.Duration(r.IntN(2000))*time.Microsecond
	case draw < 26:
		f.From, f.To, f.Port = g.pod(&g.workloads[g.client.Uint64()]), g.world(), 443
	case draw < 30:
		to := &g.workloads[g.client.Uint64()%64]
		f.From, f.To, f.Port = g.world(), g.pod(to), to.ports[0]
	case draw < 35:
		to := &g.workloads[r.IntN(len(g.workloads))]
		f.From, f.To, f.Port = ownNode, g.pod(to), to.ports[0]
		f.Origin.Reporter = policies.DestinationSide
	case draw < 36:
		f.From, f.To = g.pod(&g.workloads[r.IntN(len(g.workloads))]), g.pod(&g.workloads[g.client.Uint64()])
		f.Port, f.Verdict = servicePorts[r.IntN(len(servicePorts))], policies.Deny
		f.Bytes, f.Packets, f.ReplyBytes, f.ReplyPackets, lasts = 60, 1, 0, 0, 0
	default:
		e := &g.edges[g.popular.Uint64()]
		f.From, f.To, f.Port = g.pod(e.from), g.pod(e.to), e.port
	}
	f.Last = f.First.Add(lasts.Truncate(time.Microsecond))
	side := 0
	if f.Verdict == policies.Deny {
		side = 1
	}
	policy := int(f.Port)
	if len(f.To.Workloads) > 0 {
		policy += int(crc32.ChecksumIEEE([]byte(f.To.Workloads[0].Name)))
	}
	f.Hits = g.hits[side][policy%len(g.hits[side])]
	return f
}

// Model returns the world that the flows are of: its workloads without their pods.
func (g *Generator) Model() *policies.Model {
	m, known := &policies.Model{}, map[string]bool{}
	for i := range g.workloads {
		of := &g.workloads[i].pods[0]
		if !known[of.Namespace] {
			known[of.Namespace] = true
			m.Namespaces = append(m.Namespaces, policies.Namespace{Name: of.Namespace, Labels: map[string]string{policies.NameLabel: of.Namespace}})
		}
		labels := maps.Clone(of.Labels)
		delete(labels, "pod-template-hash")
		pod := policies.Pod{Ref: of.Workloads[0], Workload: of.Workloads[0], Replicas: len(g.workloads[i].pods), Labels: labels}
		for n, port := range g.workloads[i].ports {
			pod.Ports = append(pod.Ports, policies.ContainerPort{Name: fmt.Sprintf("port-%d", n), Protocol: netset.TCP, Number: port})
		}
		m.Pods = append(m.Pods, pod)
	}
	return m
}
