package reach_test

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// calicoPoints is traffic of every kind that rules can tell apart.
var calicoPoints = append(slices.Clone(points), point{netset.ICMP, 8<<8 | 1}, point{netset.ICMPv6, 8 << 8}, point{47, 0}, point{136, 80})

// Where everything is known, the judge says of every connection what a naive
// reading of the specification says. Where something is not, it knows at least as
// much as that, and what it says holds however things are in truth.
func TestCalicoAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		for range 3 {
			c := drawCalicoWorld(d)
			judge := reach.New(readModel(t, c.String(), c.podCIDRs), reach.Options{})
			asked := []point{pick(d, points[:30]...), pick(d, calicoPoints...), pick(d, calicoPoints[30:]...), {netset.TCP, 80}, {netset.UDP, 81}}
			for range 3 {
				asked = append(asked, c.drawNamedPoint(d))
			}
			all := append(each(c.parties()), outsider(netip.MustParseAddr(pick(d, outsiders[:3]...))))
			if c.dual {
				all = append(all, outsider(netip.MustParseAddr(pick(d, outsiders[3:]...))))
			}
			truths := rand.New(rand.NewPCG(uint64(d.between(0, 99)), 0))
			for _, from := range all {
				for _, to := range all {
					if from.isPod() || to.isPod() {
						c.compare(t, judge, truths, from, to, asked)
					}
				}
			}
		}
	})
}

// What is staged decides nothing; once it is enforced, what it replaced or removed
// decides nothing.
func TestStagedAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := drawCalicoWorld(d)
		c.drawStaged(d)
		m := readModel(t, c.String(), c.podCIDRs)
		var some []int
		wanted := map[policies.Ref]bool{}
		for i := range m.Staged {
			if d.chance(60) {
				some = append(some, i)
				wanted[m.Staged[i].Ref] = true
			}
		}
		before, after := reach.New(m, reach.Options{}), reach.New(m.Enforce(some...), reach.Options{})
		enforced := c.enforcing(wanted)
		all := append(c.parties(), outsider(netip.MustParseAddr(outsiders[0])))
		asked := []point{pick(d, points[:30]...), {netset.TCP, 80}}
		truths := rand.New(rand.NewPCG(1, 0))
		for _, from := range all {
			for _, to := range all {
				if from.isPod() || to.isPod() {
					c.compare(t, before, truths, from, to, asked)
					enforced.compare(t, after, truths, from, to, asked)
				}
			}
		}
	})
}

// Host endpoints guard what their nodes send and receive, and what they forward.
func TestHostEndpointsAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		for range 2 {
			c := drawHostWorld(d)
			judge := reach.New(readModel(t, c.String(), nil), reach.Options{})
			asked := []point{pick(d, points[:30]...), pick(d, calicoPoints[30:]...), {netset.TCP, 80}, pick(d, point{netset.TCP, 22}, point{netset.UDP, 53}, point{netset.TCP, 6443})}
			truths := rand.New(rand.NewPCG(uint64(d.between(0, 99)), 0))
			all := append(each(c.parties()), outsider(netip.MustParseAddr(pick(d, outsiders[:3]...))))
			for _, from := range all {
				for _, to := range all {
					if !from.isOutside() || !to.isOutside() {
						c.compare(t, judge, truths, from, to, asked)
					}
				}
			}
		}
	})
}

func (c *calicoWorld) compare(t *rapid.T, judge *reach.Judge, truths *rand.Rand, from, to *party, asked []point) {
	a, okA := endOfParty(judge, from)
	b, okB := endOfParty(judge, to)
	if !okA || !okB {
		t.Fatalf("%v or %v was not read from\n%s", from, to, c)
	}
	allow, unknown := judge.Ports(a, b)
	for i, q := range asked {
		want := c.decide(from, to, q)
		got := judge.Verdict(a, b, q.protocol, q.port)
		ports := inPorts(allow, unknown, q)
		decided := got
		if i%3 == 0 {
			decided = judge.Decide(a, b, q.protocol, q.port).Verdict
		}
		if got != ports || got != decided || got != want && want != policies.Unknown {
			t.Fatalf("%v to %v on %v/%d: want %v; Verdict %v, Decide %v, Ports %v\npod CIDRs %v\n%s",
				from, to, q.protocol, q.port, want, got, decided, ports, c.podCIDRs, c)
		}
		if got != policies.Unknown && want == policies.Unknown {
			c.checkTruths(t, truths, from, to, q, got)
		}
	}
}

// checkTruths holds a verdict against the world as it may be in truth.
func (c *calicoWorld) checkTruths(t *rapid.T, r *rand.Rand, from, to *party, q point, got policies.Verdict) {
	if from.isSame(to) && from.replicas <= 1 {
		return
	}
	for range 10 {
		w, one, other := c.completed(r, from, to)
		// Two ends that could talk are taken to have a family in common.
		if !slices.ContainsFunc([]bool{false, true}, func(v6 bool) bool { return one.speaks(v6) && other.speaks(v6) }) {
			continue
		}
		if truth := w.decideBetween(one, other, q); truth != got && truth != policies.Unknown {
			t.Fatalf("%v to %v on %v/%d: Verdict %v; but %v where they have the addresses %v and %v, in\n%s\nof\n%s",
				from, to, q.protocol, q.port, got, truth, one.addresses, other.addresses, w, c)
		}
	}
}

// What the naive reading says of a world that is not known in full holds however
// it is in truth.
func TestNaiveCalicoHoldsInTruth(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := drawCalicoWorld(d)
		all := append(c.parties(), outsider(netip.MustParseAddr(outsiders[0])))
		truths := rand.New(rand.NewPCG(uint64(d.between(0, 99)), 0))
		for range 10 {
			from, to, q := pick(d, all...), pick(d, all...), pick(d, calicoPoints...)
			if from.isPod() || to.isPod() {
				if v := c.decide(from, to, q); v != policies.Unknown {
					c.checkTruths(t, truths, from, to, q, v)
				}
			}
		}
	})
}

// What Kubernetes itself decides, Calico's order decides alike, but for what comes
// from a pod's own node, which no tier of Calico keeps out.
func TestOrdersAgreeWhereBothApply(t *testing.T) {
	const nobody = "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: nobody}}\n"
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := drawCluster(d)
		o := reach.Options{IgnorePodBlocks: c.ignoreBlocks}
		before, after := reach.New(readModel(t, c.String(), c.podCIDRs), o), reach.New(readModel(t, c.String()+nobody, c.podCIDRs), o)
		all := append(c.parties(), outsider(netip.MustParseAddr(pick(d, outsiders...))))
		asked := []point{pick(d, points[:30]...), pick(d, points[:30]...)}
		for _, from := range all {
			for _, to := range all {
				if from.isOutside() && to.isOutside() || to.isPod() && !from.isOutside() && from.onHost() {
					continue
				}
				a, _ := endOfParty(before, from)
				b, _ := endOfParty(before, to)
				for _, q := range asked {
					want, got := before.Verdict(a, b, q.protocol, q.port), after.Verdict(a, b, q.protocol, q.port)
					if want != policies.Unknown && got != want {
						t.Fatalf("%v to %v on %v/%d: %v by the order of Kubernetes, %v by that of Calico\n%s", from, to, q.protocol, q.port, want, got, c)
					}
				}
			}
		}
	})
}

// Listings and differences say of worlds of Calico what the judges say point by
// point.
func TestCalicoListingsAndDiffsAreThePointAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := pick(d, drawCalicoWorld, drawHostWorld)(d)
		c.drawStaged(d)
		m := readModel(t, c.String(), c.podCIDRs)
		var all []int
		for i := range m.Staged {
			all = append(all, i)
		}
		base, head := reach.Pair(m, m.Enforce(all...), reach.Options{})
		listed := map[pairOf]policies.Grant{}
		for x := range base.Connections(reach.Listing{By: reach.ByPod}) {
			listed[pairOf{keyOf(*x.From), keyOf(*x.To)}] = *x.Grant
		}
		q := pick(d, point{netset.TCP, 80}, point{netset.TCP, 443}, c.drawNamedPoint(d))
		want, got := map[turn]bool{}, map[turn]bool{}
		for from := range m.Pods {
			for to := range m.Pods {
				if from == to && m.Pods[from].Replicas <= 1 {
					continue
				}
				a, b := base.Pod(from), base.Pod(to)
				allow, unknown := base.Ports(a, b)
				grant := listed[pairOf{keyOf(base.Peer(a)), keyOf(base.Peer(b))}]
				if !grant.Allow.Equal(allow.Intersect(netset.TransportPorts())) || !grant.Unknown.Equal(unknown.Intersect(netset.TransportPorts())) {
					t.Fatalf("%v to %v: listed as %v and %v, want %v and %v\n%s", base.Peer(a), base.Peer(b), grant.Allow, grant.Unknown, allow, unknown, c)
				}
				was, is := base.Verdict(a, b, q.protocol, q.port), head.Verdict(a, b, q.protocol, q.port)
				if was != is {
					one, other := base.Peer(a), base.Peer(b)
					one.Pod, other.Pod = "", ""
					want[turn{pairOf{keyOf(one), keyOf(other)}, was, is}] = true
				}
			}
		}
		for _, x := range diff.Compare(base, head).Differences {
			if !x.From.IsOutside() && !x.To.IsOutside() && x.Ports.Contains(q.protocol, q.port) {
				got[turn{pairOf{keyOf(*x.From), keyOf(*x.To)}, x.Before, x.After}] = true
			}
		}
		if !maps.Equal(got, want) {
			t.Fatalf("on %v: differences %v, want %v\n%s", q, got, want, c)
		}
	})
}
