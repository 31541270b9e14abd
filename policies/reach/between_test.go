package reach_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// drawModel returns the model of a random world of any dialect.
func drawAnyModel(d dice, t rapid.TB) *policies.Model {
	switch d.between(0, 2) {
	case 0:
		c := drawCluster(d)
		return readModel(t, c.String(), c.podCIDRs)
	case 1:
		c := drawCalicoWorld(d)
		return readModel(t, c.String(), c.podCIDRs)
	}
	return readModel(t, drawHostWorld(d).String(), nil)
}

// drawMatch returns what some policy of a model names, or what several do together,
// or what invariants name besides.
func drawMatch(d dice, m *policies.Model, depth int) policies.Match {
	all := []policies.Match{
		{Anyone: true},
		{Namespaces: selector.Everything(), Pods: selector.Everything()},
		{Nodes: selector.Everything()},
		{Namespaces: selector.Everything(), Pods: selector.Label("tier", "other")},
		{Block: netset.Block{CIDR: netip.MustParsePrefix("198.51.100.0/30")}},
		{Block: netset.Block{CIDR: netip.MustParsePrefix("10.0.0.0/29")}},
		{Anyone: true, Except: []policies.Match{{Namespaces: selector.Everything(), Pods: selector.Everything()}, {Nodes: selector.Everything()}}},
	}
	for i := range m.Policies {
		all = append(all, m.Policies[i].Subject)
		for _, way := range policies.Directions {
			for _, r := range m.Policies[i].Rules[way] {
				all = append(all, r.Peers...)
			}
		}
	}
	if depth > 0 && d.chance(30) {
		parts := []policies.Match{drawMatch(d, m, depth-1), drawMatch(d, m, depth-1)}
		switch d.between(0, 2) {
		case 0:
			return policies.Match{Any: parts}
		case 1:
			return policies.Match{All: parts}
		}
		if len(parts[0].Except) == 0 {
			parts[0].Except = parts[1:]
		}
		return parts[0]
	}
	return pick(d, all...)
}

// endsOf returns every pod and node of a judge's model, and the lowest address of
// each range that nobody in it has.
func endsOf(j *reach.Judge) []reach.End {
	var all []reach.End
	m := j.Model()
	known := map[netip.Addr]bool{}
	for i := range m.Pods {
		all = append(all, j.Pod(i))
		for _, a := range m.Pods[i].Addresses {
			known[a] = true
		}
	}
	for i := range m.Nodes {
		all = append(all, j.Node(i))
		for _, a := range m.Nodes[i].Addresses {
			known[a] = true
		}
	}
	for _, span := range j.Ranges() {
		if span[0].Is6() && !j.SpeaksIPv6() {
			continue // nobody is there
		}
		for a := span[0]; a.IsValid() && a.Compare(span[1]) <= 0; a = a.Next() {
			at := slices.IndexFunc(m.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
			if at >= 0 {
				a = netset.LastAddress(m.PodCIDRs[at])
			} else if !known[a] {
				all = append(all, j.Outside(a))
				break
			}
		}
	}
	return all
}

func peopleAt(j *reach.Judge, e reach.End) int {
	for i := range j.Model().Pods {
		if j.Pod(i) == e {
			return max(1, j.Model().Pods[i].Replicas)
		}
	}
	return 1
}

// isOutsideEnd reports whether an end is an address outside.
func isOutsideEnd(j *reach.Judge, e reach.End) bool { p := j.Peer(e); return p.IsOutside() }

// pairsBetween asks about every pair of ends, and counts those decided alike.
func pairsBetween(j *reach.Judge, from, to func(reach.End) policies.Truth, ports netset.Ports) map[string]int {
	pairs := map[string]int{}
	all := endsOf(j)
	people := make([]int, len(all))
	for i, e := range all {
		people[i] = peopleAt(j, e)
	}
	for i, a := range all {
		for k, b := range all {
			in := from(a).And(to(b))
			n := people[i] * people[k]
			if i == k {
				n -= people[i]
			}
			if in == policies.No || n == 0 || isOutsideEnd(j, a) && isOutsideEnd(j, b) {
				continue
			}
			allow, unknown := j.Ports(a, b)
			for verdict, decided := range map[policies.Verdict]netset.Ports{policies.Allow: allow, policies.Unknown: unknown, policies.Deny: ports.Minus(allow).Minus(unknown)} {
				if decided = decided.Intersect(ports); !decided.IsEmpty() {
					pairs[fmt.Sprint(verdict, decided, in)] += n
				}
			}
		}
	}
	return pairs
}

// What is counted between groups is what is decided pair by pair.
func TestBetweenIsThePointAnswers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		m := drawAnyModel(d, t)
		froms, tos := several(d, 2, func() policies.Match { return drawMatch(d, m, 2) }), several(d, 2, func() policies.Match { return drawMatch(d, m, 2) })
		o := reach.Options{IgnorePodBlocks: d.chance(20), Apart: slices.Concat(froms, tos)}
		j := reach.New(m, o)
		ports := pick(d, netset.AllTraffic(), netset.TransportPorts(), netset.PortSpan(netset.TCP, 80, 80), netset.PortSpan(netset.UDP, 53, 90))
		checkBetween(t, j, froms, tos, ports)

		plain := reach.New(m, reach.Options{IgnorePodBlocks: o.IgnorePodBlocks})
		all := endsOf(plain)
		for range 20 {
			a, b := pick(d, all...), pick(d, all...)
			allow, unknown := j.Ports(a, b)
			if wantAllow, wantUnknown := plain.Ports(a, b); !allow.Equal(wantAllow) || !unknown.Equal(wantUnknown) {
				t.Fatalf("%v to %v: %v and unknown %v; without Apart %v, %v", j.Peer(a), j.Peer(b), allow, unknown, wantAllow, wantUnknown)
			}
		}
	})
}

func checkBetween(t *rapid.T, j *reach.Judge, froms, tos []policies.Match, ports netset.Ports) {
	from, okFrom := j.GroupOf(froms...)
	to, okTo := j.GroupOf(tos...)
	if !okFrom || !okTo {
		t.Fatalf("%v or %v is not told apart", froms, tos)
	}
	in := func(any []policies.Match) func(reach.End) policies.Truth {
		return func(e reach.End) policies.Truth {
			best := policies.No
			for i := range any {
				best = best.Or(j.Is(&any[i], e))
			}
			return best
		}
	}
	isFrom, isTo := in(froms), in(tos)
	got := map[string]int{}
	for c := range j.Between(from, to, ports) {
		sure := policies.Yes
		if c.Perhaps {
			sure = policies.Maybe
		}
		got[fmt.Sprint(c.Verdict, c.Ports, sure)] += c.Pairs
		for r := range c.Ports.Ranges() {
			if v := j.Verdict(c.From, c.To, r.Protocol, r.First); v != c.Verdict {
				t.Fatalf("%v to %v on %v: %v, it is %v", j.Peer(c.From), j.Peer(c.To), c.Ports, c.Verdict, v)
			}
		}
		if isFrom(c.From).And(isTo(c.To)) != sure {
			t.Fatalf("%v to %v is not of the groups %v to %v", j.Peer(c.From), j.Peer(c.To), froms, tos)
		}
		if c.From == c.To && peopleAt(j, c.From) == 1 {
			t.Fatalf("%v to itself", j.Peer(c.From))
		}
	}
	checkCount(t, j, from, to, ports)
	checkExamples(t, j, from, to, ports)
	want := pairsBetween(j, isFrom, isTo, ports)
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Fatalf("%v to %v on %v: -want +got\n%s\n%+v", froms, tos, ports, diff, j.Model().Policies)
	}
	for _, v := range []policies.Verdict{policies.Allow, policies.Deny, policies.Unknown} {
		of := map[string]int{}
		for c := range j.Between(from, to, ports, v) {
			sure := policies.Yes
			if c.Perhaps {
				sure = policies.Maybe
			}
			of[fmt.Sprint(c.Verdict, c.Ports, sure)] += c.Pairs
			if c.Verdict != v {
				t.Fatalf("%v is not wanted", c.Verdict)
			}
			delete(got, fmt.Sprint(c.Verdict, c.Ports, sure))
		}
		for k, n := range of {
			if want[k] != n {
				t.Fatalf("%v alone: %d, want %d", k, n, want[k])
			}
		}
	}
	if len(got) > 0 {
		t.Fatalf("no verdict by itself gives %v", got)
	}
}

// checkCount holds Count against what Between yields.
func checkCount(t *rapid.T, j *reach.Judge, from, to reach.Group, ports netset.Ports) {
	var all reach.Count
	for c := range j.Between(from, to, ports) {
		add(&all, 1, c)
	}
	for _, wanted := range [][]policies.Verdict{nil, {policies.Allow}, {policies.Deny}, {policies.Allow, policies.Unknown}} {
		want := all
		for v := range want.Sure {
			if len(wanted) > 0 && !slices.Contains(wanted, policies.Verdict(v)) {
				want.Sure[v], want.Perhaps[v] = 0, 0
			}
		}
		if got := j.Count(from, to, ports, wanted...); got != want {
			t.Fatalf("%v: counted %v, want %v", wanted, got, want)
		}
	}
}

func add(n *reach.Count, sign int, c reach.Crossing) {
	if c.Perhaps {
		n.Perhaps[c.Verdict] += sign * c.Pairs
	} else {
		n.Sure[c.Verdict] += sign * c.Pairs
	}
}

// checkExamples checks that there are examples where Between yields something, and that
// they are right.
func checkExamples(t *rapid.T, j *reach.Judge, from, to reach.Group, ports netset.Ports) {
	for _, wanted := range [][]policies.Verdict{nil, {policies.Allow}, {policies.Deny}, {policies.Allow, policies.Unknown}} {
		type what struct {
			verdict policies.Verdict
			perhaps bool
		}
		want, got := map[what]bool{}, map[what]bool{}
		for c := range j.Between(from, to, ports, wanted...) {
			want[what{c.Verdict, c.Perhaps}] = true
		}
		for c := range j.Examples(from, to, ports, wanted...) {
			got[what{c.Verdict, c.Perhaps}] = true
			checkCrossing(t, j, c)
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("%v: examples -want +got\n%s", wanted, diff)
		}
	}
}
