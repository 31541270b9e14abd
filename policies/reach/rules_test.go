package reach_test

import (
	"net/netip"
	"slices"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// edgeOutsiders are addresses in and beside every block that worlds mention.
var edgeOutsiders = func() []*party {
	var all []*party
	add := func(a netip.Addr) {
		if a.IsValid() {
			all = append(all, outsider(a))
		}
	}
	for _, text := range append(slices.Clone(blockCIDRs), "10.0.0.8/32", "10.0.1.0/32") {
		p := netip.MustParsePrefix(text).Masked()
		add(p.Addr())
		add(p.Addr().Prev())
		add(netset.LastAddress(p))
		add(netset.LastAddress(p).Next())
	}
	return all
}()

// hit reports whether a rule matches traffic, by a naive reading.
func (s *scene) hit(np *networkingv1.NetworkPolicy, d policies.Direction, r npRule, subject, other *party, q point) policies.Truth {
	destination := other
	if d == policies.Ingress {
		destination = subject
	}
	if !onPort(r.ports, destination, q.protocol, q.port) {
		return policies.No
	}
	found := policies.No
	for _, v6 := range []bool{false, true} {
		if other.speaks(v6) {
			found = found.Or(s.fromPeers(np, r.peers, other, v6))
		}
	}
	return found
}

// eachRule visits the rules of every policy with the pods that they apply to.
func eachRule(s *scene, visit func(i int, np *networkingv1.NetworkPolicy, d policies.Direction, rules []npRule, subjects []*party)) {
	m := s.judge.Model()
	for i := range m.Policies {
		at := slices.IndexFunc(s.policies, func(np networkingv1.NetworkPolicy) bool {
			return np.Namespace == m.Policies[i].Ref.Namespace && np.Name == m.Policies[i].Ref.Name
		})
		if at < 0 {
			continue
		}
		np := &s.policies[at]
		for _, d := range policies.Directions {
			if !governs(np, d) {
				continue
			}
			var subjects []*party
			for _, p := range s.parties {
				if p.isPod() && p.ref.Namespace == np.Namespace && matches(&np.Spec.PodSelector, p.labels) {
					subjects = append(subjects, p)
				}
			}
			visit(i, np, d, rulesOf(np, d), subjects)
		}
	}
}

// A rule is idle when no pod it applies to has traffic that it matches, as one
// sees by trying all of it.
func TestIdleRulesMatchNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newScene(t, drawCluster(dice{t}))
		parts := s.judge.Parts()
		eachRule(s, func(i int, np *networkingv1.NetworkPolicy, d policies.Direction, rules []npRule, subjects []*party) {
			if got := len(parts.Subject(i, d)); got != len(subjects) {
				t.Fatalf("%s applies to %d pods, want %d of\n%s", np.Name, got, len(subjects), s)
			}
			for r, rule := range rules {
				// ICMP takes part only where a rule has no ports, and 80 does then, too.
				tried := points[:len(points)-3]
				busy := slices.ContainsFunc(subjects, func(subject *party) bool {
					return slices.ContainsFunc(slices.Concat(s.parties, edgeOutsiders), func(other *party) bool {
						return slices.ContainsFunc(tried, func(q point) bool { return s.hit(np, d, rule, subject, other, q) != policies.No })
					})
				})
				if got := parts.Idle(i, d, r); got != (!busy && len(subjects) > 0) {
					t.Fatalf("%v rule %d of %s: idle %v, busy %v\n%s", d, r, np.Name, got, busy, s)
				}
			}
		})
	})
}

// Where one rule covers another, no decision changes without the other, and
// everything that the other matches the one matches too.
func TestCoveredRulesAddNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		c := drawCluster(d)
		for i := range c.policies { // so that there is something to cover
			spec := &c.policies[i].Spec
			if len(spec.Ingress) > 0 && d.chance(60) {
				twin := *spec.Ingress[0].DeepCopy()
				twin.Ports = append(twin.Ports, drawPolicyPorts(d)...)
				spec.Ingress = append(spec.Ingress, twin)
			}
			if len(spec.Egress) > 0 && d.chance(60) {
				twin := *spec.Egress[0].DeepCopy()
				twin.To = append(twin.To, drawPeers(d)...)
				spec.Egress = append(spec.Egress, twin)
			}
		}
		s := newScene(t, c)
		parts := s.judge.Parts()
		others := slices.Concat(s.parties, edgeOutsiders)
		eachRule(s, func(i int, np *networkingv1.NetworkPolicy, d policies.Direction, rules []npRule, subjects []*party) {
			for r := range rules {
				for by := range rules {
					if r == by || !parts.Covered(i, d, r, by) {
						continue
					}
					for _, subject := range subjects {
						for _, other := range others {
							for _, q := range points {
								if a, b := s.hit(np, d, rules[r], subject, other, q), s.hit(np, d, rules[by], subject, other, q); a > b {
									t.Fatalf("%v rule %d of %s is said to cover rule %d, but %v %v %v is %v and %v\n%s", d, by, np.Name, r, subject, other, q, b, a, s)
								}
							}
						}
					}
					s.sameWithout(t, i, d, r)
				}
			}
		})
	})
}

// sameWithout fails where a rule makes a difference to the answers.
func (s *scene) sameWithout(t *rapid.T, policy int, d policies.Direction, rule int) {
	less := *s.judge.Model()
	less.Policies = slices.Clone(less.Policies)
	p := &less.Policies[policy]
	p.Rules[d] = slices.Delete(slices.Clone(p.Rules[d]), rule, rule+1)
	without := reach.New(&less, reach.Options{IgnorePodBlocks: s.ignoreBlocks})
	for _, from := range s.parties {
		for _, to := range slices.Concat(s.parties, edgeOutsiders[:4]) {
			a, _ := endOfParty(s.judge, from)
			b, _ := endOfParty(s.judge, to)
			allow, unknown := s.judge.Ports(a, b)
			if x, y := without.Ports(a, b); !x.Equal(allow) || !y.Equal(unknown) {
				t.Fatalf("without %v rule %d of %v, %v to %v is %v and perhaps %v instead of %v and perhaps %v\n%s", d, rule, p.Ref, from, to, x, y, allow, unknown, s)
			}
		}
	}
}

// What Open and OpenTo say, the verdicts of one side say too.
func TestOpenAgreesWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		s := newScene(t, drawCluster(d))
		address := netip.MustParseAddr(pick(d, outsiders...))
		one := netset.Prefix(netip.PrefixFrom(address, address.BitLen()))
		others := slices.Concat(s.parties, edgeOutsiders)
		asked := several(d, 3, func() point { return pick(d, points...) })
		for _, p := range s.parties {
			if p.isNode() {
				continue
			}
			end, _ := endOfParty(s.judge, p)
			pod := slices.IndexFunc(s.judge.Model().Pods, func(q policies.Pod) bool { return q.Ref == p.ref })
			for _, direction := range policies.Directions {
				allow, _ := s.judge.Open(direction, pod)
				to := s.judge.OpenTo(direction, pod, one)
				for _, q := range asked {
					if p.speaks(address.Is6()) {
						want := s.side(direction, p, outsider(address), address.Is6(), q.protocol, q.port) == policies.Allow
						if to.Contains(q.protocol, q.port) != want {
							t.Fatalf("%v of %v (%v) with %v on %v: want %v\n%s", direction, p, end, address, q, want, s)
						}
					}
					for _, other := range others {
						if other.onHost() || p == other {
							continue // a pod's own node is another matter
						}
						for _, v6 := range []bool{false, true} {
							if other.speaks(v6) && s.side(direction, p, other, v6, q.protocol, q.port) == policies.Allow && !allow.Contains(q.protocol, q.port) {
								t.Fatalf("%v of %v with %v on %v is allowed but not open\n%s", direction, p, other, q, s)
							}
						}
					}
				}
			}
		}
	})
}
