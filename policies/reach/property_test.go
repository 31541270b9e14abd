package reach_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// The properties are worth more cases than rapid tries by itself.
func TestMain(m *testing.M) { os.Exit(testkit.Properties(m, 150)) }

// point is traffic to ask about.
type point struct {
	protocol netset.Protocol
	port     uint16
}

// points are ports at and beside the edges of everything that worlds mention.
var points = func() []point {
	var all []point
	for _, port := range []uint16{1, 79, 80, 81, 82, 83, 443, 8080, 8082, 65535} {
		for _, p := range netset.Transports {
			all = append(all, point{p, port})
		}
	}
	return append(all, point{netset.ICMP, 0}, point{netset.ICMP, 8 << 8}, point{netset.ICMPv6, 128 << 8})
}()

// scene is a random world with its judge, and the judge's end for each party.
type scene struct {
	*cluster
	parties []*party // pods and nodes
	judge   *reach.Judge
}

func newScene(t *rapid.T, c *cluster) *scene {
	s := &scene{cluster: c, parties: c.parties()}
	s.judge = reach.New(readModel(t, c.String(), c.podCIDRs), reach.Options{IgnorePodBlocks: c.ignoreBlocks})
	pods := 0
	for _, p := range s.parties {
		if !p.isNode() {
			pods++
		}
	}
	if got := len(s.judge.Model().Pods); got != pods {
		t.Fatalf("%d pods were read, want %d of\n%s", got, pods, c)
	}
	return s
}

func readModel(t rapid.TB, text string, podCIDRs []netip.Prefix) *policies.Model {
	docs, err := k8s.Parse("world.yaml", []byte(text))
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	m, err := k8s.Read(docs, k8s.Options{PodCIDRs: podCIDRs})
	if err != nil {
		t.Fatalf("read: %v\n%s", err, text)
	}
	return m
}

// end returns the judge's end for a party; false for a party of another world.
func endOfParty(j *reach.Judge, p *party) (reach.End, bool) {
	m := j.Model()
	switch {
	case p.isOutside():
		return j.Outside(p.addresses[0]), true
	case p.isNode():
		for i := range m.Nodes {
			if m.Nodes[i].Name == p.ref.Name {
				return endAt(j, j.Node(i), p), true
			}
		}
	}
	for i := range m.Pods {
		if m.Pods[i].Ref == p.ref {
			return endAt(j, j.Pod(i), p), true
		}
	}
	return reach.End{}, false
}

// endAt returns the end of a party that is known by one address at that address.
func endAt(j *reach.Judge, e reach.End, p *party) reach.End {
	if len(p.addresses) == 1 {
		return j.At(e, p.addresses[0])
	}
	return e
}

func (p *party) String() string {
	if p.isOutside() {
		return p.addresses[0].String()
	}
	return p.ref.Kind + " " + p.ref.String()
}

// Everything the judge says about one connection is what a naive reading of the
// specification says about it.
func TestJudgeAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		s := newScene(t, drawCluster(d))
		asked := several(d, 5, func() point { return pick(d, points...) })
		asked = append(asked, point{netset.TCP, 80}, point{netset.TCP, 81}, point{netset.UDP, 80}, point{netset.ICMP, 0})
		all := slices.Concat(each(s.parties), []*party{outsider(netip.MustParseAddr(pick(d, outsiders...))), outsider(netip.MustParseAddr(pick(d, outsiders...)))})
		for _, from := range all {
			for _, to := range all {
				if from.isOutside() && to.isOutside() {
					continue
				}
				s.compare(t, from, to, asked)
			}
		}
	})
}

func (s *scene) compare(t *rapid.T, from, to *party, asked []point) {
	a, okA := endOfParty(s.judge, from)
	b, okB := endOfParty(s.judge, to)
	if !okA || !okB {
		t.Fatalf("%v or %v was not read from\n%s", from, to, s)
	}
	allow, unknown := s.judge.Ports(a, b)
	for i, q := range asked {
		want := s.verdict(from, to, q.protocol, q.port)
		got := s.judge.Verdict(a, b, q.protocol, q.port)
		ports := inPorts(allow, unknown, q)
		decided := want
		if i%3 == 0 {
			decided = s.judge.Decide(a, b, q.protocol, q.port).Verdict
		}
		if got != want || ports != want || decided != want {
			t.Fatalf("%v to %v on %v/%d: want %v; Verdict %v, Decide %v, Ports %v\npod CIDRs %v, blocks ignored %v\n%s",
				from, to, q.protocol, q.port, want, got, decided, ports, s.podCIDRs, s.ignoreBlocks, s)
		}
	}
}

// inPorts is what two sets of ports say of one point.
func inPorts(allow, unknown netset.Ports, q point) policies.Verdict {
	switch {
	case allow.Contains(q.protocol, q.port) && unknown.Contains(q.protocol, q.port):
		return policies.Undecided
	case allow.Contains(q.protocol, q.port):
		return policies.Allow
	case unknown.Contains(q.protocol, q.port):
		return policies.Unknown
	}
	return policies.Deny
}

// shuffled returns the documents of a world in another order, in one file.
func shuffled(d dice, c *cluster) string {
	return strings.Join(rapid.Permutation(c.documents()).Draw(d.T, "order"), "---\n")
}
