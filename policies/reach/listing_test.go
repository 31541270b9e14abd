package reach_test

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// pairOf is two peers of a listing by what they print.
type pairOf struct{ from, to string }

func keyOf(p policies.Peer) string { return p.Kind + " " + p.String() }

// peerOf is the peer that stands for a pod in a listing.
func (p *party) peerOf(by reach.Grouping) policies.Peer {
	peer := policies.Peer{Namespace: p.workload.Namespace, Name: p.workload.Name, Kind: p.workload.Kind}
	switch {
	case by == reach.ByNamespace:
		return policies.Peer{Kind: "Namespace", Name: p.ref.Namespace}
	case by == reach.ByPod && p.ref != p.workload:
		peer.Pod = p.ref.Name
	}
	return peer
}

// onlyPods leaves out the nodes, which listings leave out too.
func onlyPods(all []*party) []*party {
	return slices.DeleteFunc(slices.Clone(all), (*party).isNode)
}

// some draws a few of the pods, and what a question would name them by; nil
// and all of them in most cases.
func (s *scene) some(d dice) (*policies.Target, []*party) {
	pods := onlyPods(s.parties)
	if !d.chance(30) {
		return nil, pods
	}
	var chosen []*party
	target := &policies.Target{}
	for _, p := range pods {
		if d.chance(50) {
			chosen = append(chosen, p)
		}
	}
	for i := range s.judge.Model().Pods {
		if slices.ContainsFunc(chosen, func(p *party) bool { return p.ref == s.judge.Model().Pods[i].Ref }) {
			target.Pods = append(target.Pods, i)
		}
	}
	return target, chosen
}

// A listing says of every two peers what the naive answers say of some pod of
// one and some other pod of the other, and of every address outside too.
func TestConnectionsAreThePointAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		s := newScene(t, drawCluster(d))
		l := reach.Listing{By: pick(d, reach.ByWorkload, reach.ByPod, reach.ByNamespace)}
		var sources, targets []*party
		l.From, sources = s.some(d)
		l.To, targets = s.some(d)
		asked := []point{{netset.TCP, 80}, {netset.UDP, 53}, pick(d, points[:30]...)}
		if d.chance(20) {
			only := netset.PortSpan(netset.TCP, 80, 82)
			l.Ports = &only
		}
		listed := s.list(t, l)
		for _, q := range asked {
			want := map[pairOf]policies.Verdict{}
			for _, from := range sources {
				for _, to := range targets {
					if from == to && from.replicas <= 1 || l.Ports != nil && !l.Ports.Contains(q.protocol, q.port) {
						continue
					}
					pair := pairOf{keyOf(from.peerOf(l.By)), keyOf(to.peerOf(l.By))}
					want[pair] = better(want[pair], s.between(from, to, q.protocol, q.port))
				}
			}
			s.checkInside(t, listed, q, want)
			if l.Ports == nil {
				s.checkOutside(t, l, listed, q, sources, targets)
			}
		}
	})
}

// better is the verdict of a connection for which one of two ways will do.
func better(a, b policies.Verdict) policies.Verdict {
	for _, v := range []policies.Verdict{policies.Allow, policies.Unknown} {
		if a == v || b == v {
			return v
		}
	}
	return policies.Deny
}

// list returns the listing and checks its form.
func (s *scene) list(t *rapid.T, l reach.Listing) []policies.Connection {
	listed := slices.Collect(s.judge.Connections(l))
	seen := map[pairOf]bool{}
	for _, c := range listed {
		pair := pairOf{keyOf(*c.From), keyOf(*c.To)}
		if seen[pair] {
			t.Fatalf("%v is listed twice in\n%s", pair, s)
		}
		seen[pair] = true
		all := c.Allow.Union(c.Unknown)
		if all.IsEmpty() || !c.Allow.Intersect(c.Unknown).IsEmpty() || !all.Minus(netset.TransportPorts()).IsEmpty() {
			t.Fatalf("%v: allow %v, unknown %v in\n%s", pair, c.Allow, c.Unknown, s)
		}
	}
	return listed
}

func (s *scene) checkInside(t *rapid.T, listed []policies.Connection, q point, want map[pairOf]policies.Verdict) {
	got := map[pairOf]policies.Verdict{}
	for _, c := range listed {
		if !c.From.IsOutside() && !c.To.IsOutside() {
			got[pairOf{keyOf(*c.From), keyOf(*c.To)}] = inPorts(c.Allow, c.Unknown, q)
		}
	}
	for pair, w := range want {
		if g := max(got[pair], policies.Allow); got[pair] == policies.Undecided && w != policies.Deny || got[pair] != policies.Undecided && g != w {
			t.Fatalf("%v on %v: listed as %v, want %v in\n%s", pair, q, got[pair], w, s)
		}
	}
	for pair, g := range got {
		if _, ok := want[pair]; !ok && g != policies.Deny {
			t.Fatalf("%v on %v: listed as %v, want nothing in\n%s", pair, q, g, s)
		}
	}
}

func (s *scene) checkOutside(t *rapid.T, l reach.Listing, listed []policies.Connection, q point, sources, targets []*party) {
	for _, text := range outsiders {
		a := netip.MustParseAddr(text)
		if slices.ContainsFunc(s.podCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			continue
		}
		outside := outsider(a)
		out, in := map[string]policies.Verdict{}, map[string]policies.Verdict{}
		if l.To == nil {
			for _, from := range sources {
				key := keyOf(from.peerOf(l.By))
				out[key] = better(out[key], s.between(from, outside, q.protocol, q.port))
			}
		}
		if l.From == nil {
			for _, to := range targets {
				key := keyOf(to.peerOf(l.By))
				in[key] = better(in[key], s.between(outside, to, q.protocol, q.port))
			}
		}
		for _, c := range listed {
			var want map[string]policies.Verdict
			inside, other := *c.From, *c.To
			switch {
			case c.To.IsOutside():
				want = out
			case c.From.IsOutside():
				inside, other, want = *c.To, *c.From, in
			default:
				continue
			}
			if !(netset.Block{CIDR: *other.CIDR, Except: other.Except}).Addresses().Contains(a) {
				continue
			}
			key := keyOf(inside)
			if got := inPorts(c.Allow, c.Unknown, q); want[key] != got {
				t.Fatalf("%v and %v on %v: listed as %v, want %v in\n%s", inside, other, q, got, want[key], s)
			}
			delete(want, key)
		}
		for _, left := range []map[string]policies.Verdict{out, in} {
			for key, v := range left {
				if v != policies.Deny {
					t.Fatalf("%s and %v on %v: not listed, want %v in\n%s", key, a, q, v, s)
				}
			}
		}
	}
}
