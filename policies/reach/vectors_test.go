package reach_test

import (
	"net/netip"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// What a vector says of two addresses is what the ends that have them are told of
// that direction, and every address is in one vector.
func TestVectorsAgreeWithDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		var judge *reach.Judge
		var text string
		switch d.between(0, 2) {
		case 0:
			s := newScene(t, drawCluster(d))
			judge, text = s.judge, s.String()
		case 1:
			c := drawCalicoWorld(d)
			judge, text = reach.New(readModel(t, c.String(), c.podCIDRs), reach.Options{}), c.String()
		default:
			c := drawHostWorld(d)
			judge, text = reach.New(readModel(t, c.String(), nil), reach.Options{}), c.String()
		}
		v := vectorCheck{t, judge, text, judge.Model(), addressed(judge), []point{pick(d, points...), pick(d, calicoPoints...), {6, 80}}}
		for _, node := range nodesOf(v.model) {
			for _, direction := range policies.Directions {
				v.check(direction, node)
			}
		}
	})
}

// What is remembered of one judge serves the next ones, whatever they are made of.
func TestVectorsOfOneJudgeAfterTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		m, another := drawTwoModels(d, t)
		j := reach.New(m, reach.Options{Lasting: true, Apart: []policies.Match{{Any: peersOf(another.Policies)}}})
		var follow [2]*reach.Vectors
		for _, way := range policies.Directions {
			follow[way] = reach.NewVectors(way)
		}
		for range d.between(2, 6) {
			for _, way := range policies.Directions {
				pods := pick(d, append(nodesOf(j.Model()), nil)...)
				want, got := j.Vectors(way, pods), follow[way].Of(j, pods)
				for _, some := range [][]reach.Vector{want, got} {
					for _, v := range some {
						for i := range v.Grants {
							v.Grants[i].Traffic = 0 // is of one question
						}
					}
				}
				if !reflect.DeepEqual(want, got) {
					t.Fatalf("%v of %v: got\n%+v, want\n%+v", way, pods, got, want)
				}
			}
			e := drawEdit(d, j.Model(), another.Policies)
			if d.chance(60) {
				e = reach.Edit{}
			}
			if d.chance(80) {
				drawMoves(d, &e, &j.Model().World, &another.World)
			}
			if head, _ := j.With(e); d.chance(80) {
				j = head
			} else { // which is no judge of the last one
				for _, way := range policies.Directions {
					follow[way].Of(head, pick(d, append(nodesOf(head.Model()), nil)...))
				}
			}
		}
	})
}

type vectorCheck struct {
	*rapid.T
	judge *reach.Judge
	text  string
	model *policies.Model
	peers map[netip.Addr][]reach.End
	asked []point
}

// nodesOf returns the pods of a model by their nodes.
func nodesOf(m *policies.Model) [][]int {
	index := map[string]int{}
	var all [][]int
	for i := range m.Pods {
		at, known := index[m.Pods[i].Node]
		if !known {
			at = len(all)
			index[m.Pods[i].Node] = at
			all = append(all, nil)
		}
		all[at] = append(all[at], i)
	}
	return all
}

// addressed returns the ends at each address of a model, and some outside.
func addressed(j *reach.Judge) map[netip.Addr][]reach.End {
	peers := map[netip.Addr][]reach.End{}
	for i := range j.Model().Pods {
		for _, a := range j.Model().Pods[i].Addresses {
			peers[a] = append(peers[a], j.At(j.Pod(i), a))
		}
	}
	for i := range j.Model().Nodes {
		for _, a := range j.Model().Nodes[i].Addresses {
			peers[a] = append(peers[a], j.At(j.Node(i), a))
		}
	}
	for _, text := range outsiders {
		if a := netip.MustParseAddr(text); peers[a] == nil {
			peers[a] = []reach.End{j.Outside(a)}
		}
	}
	return peers
}

func (v *vectorCheck) check(direction policies.Direction, pods []int) {
	vectors := v.judge.Vectors(direction, pods)
	for _, pod := range pods {
		p := &v.model.Pods[pod]
		if p.HostNetwork {
			continue
		}
		for _, at := range p.Addresses {
			for peer, ends := range v.peers {
				if peer.Is4() != at.Is4() || slices.Contains(ends, v.judge.At(v.judge.Pod(pod), peer)) {
					continue
				}
				found := vectorOf(vectors, peer)
				if len(found) != 1 {
					v.Fatalf("%v is in %d vectors of\n%s", peer, len(found), v.text)
				}
				for _, q := range v.asked {
					want := v.decided(direction, v.subjects(pods, at), ends, q)
					if got := granted(found[0], at, q); got != want {
						v.Fatalf("%v of %v with %v on %v/%d: got %v, want %v\n%s", direction, at, peer, q.protocol, q.port, got, want, v.text)
					}
				}
			}
		}
	}
}

// subjects returns those of some pods that have an address.
func (v *vectorCheck) subjects(pods []int, at netip.Addr) []reach.End {
	var all []reach.End
	for _, i := range pods {
		if p := &v.model.Pods[i]; !p.HostNetwork && slices.Contains(p.Addresses, at) {
			all = append(all, v.judge.At(v.judge.Pod(i), at))
		}
	}
	return all
}

// decided is what Decide says of one direction, for all that have two addresses.
func (v *vectorCheck) decided(direction policies.Direction, subjects, peers []reach.End, q point) policies.Verdict {
	var all []policies.Verdict
	for _, subject := range subjects {
		for _, peer := range peers {
			from, to := subject, peer
			if direction == policies.Ingress {
				from, to = peer, subject
			}
			all = append(all, v.judge.Decide(from, to, q.protocol, q.port).Sides[direction].Verdict)
		}
	}
	if slices.Max(all) != slices.Min(all) {
		return policies.Unknown
	}
	return all[0]
}

func vectorOf(all []reach.Vector, peer netip.Addr) []*reach.Vector {
	var exact, wide []*reach.Vector
	for i := range all {
		if slices.Contains(all[i].Peers, peer) {
			exact = append(exact, &all[i])
		}
		if all[i].Outside.Contains(peer) {
			wide = append(wide, &all[i])
		}
	}
	if len(exact) > 0 {
		return exact
	}
	return wide
}

func granted(v *reach.Vector, at netip.Addr, q point) policies.Verdict {
	verdict := policies.Deny
	for _, g := range v.Grants {
		if slices.Contains(g.At, at) {
			verdict = inPorts(g.Allow, g.Unknown, q)
		}
	}
	return verdict
}

// Where several pods claim an address, what they do not agree on is unknown.
func TestVectorsOfASharedAddress(t *testing.T) {
	m := readModel(t, `
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cart}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.3}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}}
`, nil)
	judge := reach.New(m, reach.Options{})
	db := slices.IndexFunc(m.Pods, func(p policies.Pod) bool { return p.Ref.Name == "db" })
	found := vectorOf(judge.Vectors(policies.Ingress, []int{db}), netip.MustParseAddr("10.0.0.1"))
	for port, want := range map[uint16]policies.Verdict{5432: policies.Unknown, 80: policies.Deny} {
		if got := granted(found[0], netip.MustParseAddr("10.0.0.3"), point{6, port}); got != want {
			t.Errorf("port %d: got %v, want %v", port, got, want)
		}
	}
}

func BenchmarkVectors(b *testing.B) {
	for _, shape := range []worlds.Shape{worlds.Cluster5k, worlds.Cluster100k, worlds.AllDifferent, worlds.Tiered100k} {
		b.Run(shape.String(), func(b *testing.B) {
			judge := reach.New(shape.Model(1), reach.Options{})
			var pods []int
			for i := range 200 {
				pods = append(pods, i*len(judge.Model().Pods)/200)
			}
			n := 0
			for b.Loop() {
				n = 0
				for _, d := range policies.Directions {
					n += len(judge.Vectors(d, pods))
				}
			}
			b.ReportMetric(float64(n), "vectors")
		})
	}
}
