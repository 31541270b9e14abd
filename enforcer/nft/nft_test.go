package nft

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// The properties are worth more cases than rapid tries by itself.
func TestMain(m *testing.M) { os.Exit(testkit.Properties(m, 150)) }

// traffic is what is tried between each two addresses.
func traffic(four bool) []Packet {
	all := []Packet{
		{Protocol: netset.TCP, Port: 80},
		{Protocol: netset.TCP, Port: 8080},
		{Protocol: netset.TCP, Port: 8081},
		{Protocol: netset.TCP, Port: 8500},
		{Protocol: netset.TCP, Port: 9001},
		{Protocol: netset.UDP, Port: 53},
		{Protocol: netset.UDP, Port: 8080},
		{Protocol: netset.SCTP, Port: 80},
		{Protocol: 47},
	}
	if four {
		return append(all, Packet{Protocol: netset.ICMP, Port: 8 << 8}, Packet{Protocol: netset.ICMP, Port: 3<<8 | 1})
	}
	return append(all, Packet{Protocol: netset.ICMPv6, Port: 128 << 8}, Packet{Protocol: netset.ICMPv6, Port: 128<<8 | 1}, Packet{Protocol: netset.ICMPv6, Port: 1 << 8})
}

// pairs yields every two addresses of pods, or of a pod and somebody outside, with
// their ends.
func pairs(j *reach.Judge, yield func(a, b netip.Addr, from, to reach.End)) {
	type at struct {
		addr netip.Addr
		end  reach.End
		pod  int
	}
	var all []at
	for i := range j.Model().Pods {
		for _, a := range j.Model().Pods[i].Addresses {
			all = append(all, at{a, j.At(j.Pod(i), a), i})
		}
	}
	for _, a := range worlds.Outsiders {
		all = append(all, at{a, j.Outside(a), -1})
	}
	for _, x := range all {
		for _, y := range all {
			if x.addr.Is4() == y.addr.Is4() && (x.pod >= 0 || y.pod >= 0) {
				yield(x.addr, y.addr, x.end, y.end)
			}
		}
	}
}

func everyPod(m *policies.Model) []int {
	all := make([]int, len(m.Pods))
	for i := range all {
		all[i] = i
	}
	return all
}

// sources makes random numbers that rapid can repeat.
func sources(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
}

// What passes the ruleset is what the judge allows for sure.
func TestRulesetAgreesWithJudge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := sources(t)
		m := worlds.Invented(random, worlds.Small(2+random.IntN(7)), 6)
		judge := reach.New(m, reach.Options{})
		r := Compile(Input{Pods: everyPod(m), Judge: judge}, nil)
		pairs(judge, func(a, b netip.Addr, from, to reach.End) {
			for _, p := range traffic(a.Is4()) {
				p.Source, p.Destination = a, b
				fate := r.Fate(p)
				want := judge.Verdict(from, to, p.Protocol, p.Port) == policies.Allow
				if got := fate.Passes; got != want {
					t.Fatalf("%s to %s on %s/%d passes: %t, want %t\n%s", a, b, p.Protocol, p.Port, got, want, r)
				}
			}
		})
	})
}

// What is only observed passes where what is enforced lets it, and is counted where
// all policies would not.
func TestObserving(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := sources(t)
		world := worlds.Small(2 + random.IntN(5))
		all := worlds.Invented(random, world, 6)
		enforced, guards := *all, *all
		enforced.Policies, guards.Policies = nil, nil
		for _, p := range all.Policies {
			if random.IntN(2) == 0 {
				enforced.Policies = append(enforced.Policies, p)
			}
			if p.Tier == "admin" {
				guards.Policies = append(guards.Policies, p)
			}
		}
		in := Input{Pods: everyPod(all), Judge: reach.New(all, reach.Options{})}
		if random.IntN(4) > 0 {
			in.Enforced = reach.New(&enforced, reach.Options{})
		}
		if random.IntN(2) == 0 {
			in.Observed = map[string]bool{"b": true}
		}
		if random.IntN(2) == 0 {
			in.Guards = reach.New(&guards, reach.Options{})
		}
		r := Compile(in, nil)
		// by returns what passes an end's own side, and what would.
		by := func(d policies.Direction, end reach.End, at netip.Addr, from, to reach.End, p Packet) (passes, would bool) {
			pod := slices.IndexFunc(all.Pods, func(x policies.Pod) bool { return slices.Contains(x.Addresses, at) })
			if pod < 0 {
				return true, true
			}
			says := func(j *reach.Judge) bool {
				return j == nil || j.Decide(from, to, p.Protocol, p.Port).Sides[d].Verdict == policies.Allow
			}
			would = says(in.Judge)
			switch {
			case in.Observed[all.Pods[pod].Ref.Namespace]:
				return says(in.Guards), would
			case in.Enforced != nil:
				return says(in.Enforced), would
			}
			return would, would
		}
		pairs(in.Judge, func(a, b netip.Addr, from, to reach.End) {
			if from == to {
				return
			}
			for _, p := range traffic(a.Is4())[:5] {
				p.Source, p.Destination = a, b
				leaves, wouldLeave := by(policies.Egress, from, a, from, to, p)
				enters, wouldEnter := by(policies.Ingress, to, b, from, to, p)
				fate := r.Fate(p)
				if got := fate.Passes; got != (leaves && enters) {
					t.Fatalf("%s to %s on %s/%d passes: %t, want %t\n%s", a, b, p.Protocol, p.Port, got, leaves && enters, r)
				}
				seen := fate.Label.Has(ObservedBit) || fate.Label.Has(ObservedBit+1)
				if want := leaves && !wouldLeave || leaves && enters && !wouldEnter; seen != want {
					t.Fatalf("%s to %s on %s/%d is seen: %t, want %t\n%s", a, b, p.Protocol, p.Port, seen, want, r)
				}
			}
		})
	})
}

// A change leads from one ruleset to the other, and the same input always gives the
// same ruleset.
func TestChangesAddUp(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := sources(t)
		var last *Ruleset
		for range 3 {
			m := worlds.Invented(random, worlds.Small(2+random.IntN(7)), 6)
			compile := func() *Ruleset {
				return Compile(Input{Pods: everyPod(m), Judge: reach.New(m, reach.Options{})}, last)
			}
			next := compile()
			if again := compile(); again.String() != next.String() {
				t.Fatal(cmp.Diff(next.String(), again.String()))
			}
			if last != nil {
				if got := applied(last, Diff(last, next)); got.String() != next.String() {
					t.Fatal(cmp.Diff(next.String(), got.String()))
				}
			}
			last = next
		}
	})
}

// applied carries a change out.
func applied(r *Ruleset, c *Change) *Ruleset {
	out := &Ruleset{}
	for _, x := range slices.Concat(r.Counters, c.AddCounters) {
		if !slices.Contains(c.DeleteCounters, x) {
			out.Counters = append(out.Counters, x)
		}
	}
	for _, s := range slices.Concat(r.Sets, c.AddSets) {
		if slices.Contains(c.DeleteSets, s.Name) {
			continue
		}
		s.Elements = slices.Clone(s.Elements)
		for _, u := range c.Update {
			if u.Name == s.Name {
				s.Elements = slices.DeleteFunc(s.Elements, func(e Element) bool { return slices.Contains(u.Delete, e) })
				s.Elements = append(s.Elements, u.Add...)
			}
		}
		slices.SortFunc(s.Elements, func(x, y Element) int { return strings.Compare(x.First, y.First) })
		out.Sets = append(out.Sets, s)
	}
	for _, chain := range slices.Concat(r.Chains, c.AddChains) {
		for _, x := range c.Rewrite {
			if x.Name == chain.Name {
				chain = x
			}
		}
		if !slices.Contains(c.DeleteChains, chain.Name) {
			out.Chains = append(out.Chains, chain)
		}
	}
	slices.Sort(out.Counters)
	slices.SortFunc(out.Sets, func(x, y Set) int { return strings.Compare(x.Name, y.Name) })
	slices.SortFunc(out.Chains, func(x, y Chain) int { return strings.Compare(x.Name, y.Name) })
	return out
}

// A pod more is a handful of elements, on its own node and on all others.
func TestOnePodMore(t *testing.T) {
	shape := worlds.Shape{Namespaces: 10, Workloads: 100, Pods: 2_000, Policies: 200, Closed: true, Tiered: true}
	m := shape.Model(1)
	local := func(m *policies.Model) (pods []int) {
		for i := range m.Pods {
			if i%20 == 0 {
				pods = append(pods, i)
			}
		}
		return pods
	}
	last := Compile(Input{Pods: local(m), Judge: reach.New(m, reach.Options{})}, nil)
	for _, row := range []struct {
		name  string
		at    int // the pod that is like the new one
		local bool
		most  int
	}{
		{"elsewhere", 41, false, 4},
		{"here", 40, true, 40},
	} {
		more := *m
		pod := m.Pods[row.at]
		pod.Ref.Name = "zzz-new"
		pod.Addresses = []netip.Addr{netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("fd00:10::200:1")}
		more.Pods = append(slices.Clone(m.Pods), pod)
		pods := local(m)
		if row.local {
			pods = append(pods, len(more.Pods)-1)
		}
		c := Diff(last, Compile(Input{Pods: pods, Judge: reach.New(&more, reach.Options{})}, last))
		if n := c.Elements(); n == 0 || n > row.most || len(c.AddSets)+len(c.AddChains)+len(c.Rewrite) > 0 {
			t.Errorf("%s: %d elements, %d sets, %d chains and %d rewritten, want no more than %d elements",
				row.name, n, len(c.AddSets), len(c.AddChains), len(c.Rewrite), row.most)
		}
	}
}

func TestGolden(t *testing.T) {
	for _, seed := range []uint64{1, 2, 3} {
		m := worlds.Invented(rand.New(rand.NewPCG(seed, 0)), worlds.Small(5), 4)
		in := Input{Pods: everyPod(m), Judge: reach.New(m, reach.Options{}), LogGroup: 7}
		if seed == 3 {
			in.Observed = map[string]bool{"a": true}
		}
		testkit.Golden(t, "testdata/small-"+string('0'+rune(seed))+".nft", Compile(in, nil).String())
	}
}

// Pods on the node's own network are never kept from anything.
func TestHostNetworkIsNoSubject(t *testing.T) {
	m := worlds.Small(4)
	m.Pods[0].HostNetwork = true
	m = worlds.Invented(rand.New(rand.NewPCG(1, 0)), m, 6)
	r := Compile(Input{Pods: everyPod(m), Judge: reach.New(m, reach.Options{})}, nil)
	for _, s := range r.Sets {
		for _, e := range s.Elements {
			if strings.HasPrefix(s.Name, "isolated_") && slices.Contains(m.Pods[0].Addresses, addressOf(e.First)) {
				t.Errorf("%s lists the pod of the node's own network", s.Name)
			}
		}
	}
}

func addressOf(key string) netip.Addr {
	a, _ := netip.AddrFromSlice([]byte(key))
	return a
}

func TestLabels(t *testing.T) {
	const egress, ingress = 0x0102030405ff, 0xfedcba987654
	var label Bits
	for _, b := range []Bits{LabelOf(policies.Egress, egress), LabelOf(policies.Ingress, ingress), Bit(ObservedBit + int(policies.Ingress))} {
		for i := range label {
			label[i] |= b[i]
		}
	}
	if label.VectorIn(policies.Egress) != egress || label.VectorIn(policies.Ingress) != ingress {
		t.Errorf("label %s holds %x and %x", label, label.VectorIn(policies.Egress), label.VectorIn(policies.Ingress))
	}
	if label.Has(RevokedBit) || label.Has(ObservedBit+int(policies.Egress)) || !label.Has(ObservedBit+int(policies.Ingress)) {
		t.Errorf("label %s has the wrong bits", label)
	}
	if want := append(bytes.Repeat([]byte{0}, 15), 0x80); !bytes.Equal(want, func() []byte { b := Bit(RevokedBit); return b[:] }()) {
		t.Error("the bit of what is revoked is not the last")
	}
}

func TestMarks(t *testing.T) {
	m := Mark{'D', policies.Ingress, 0xb4d3c0fffbe2}
	if got, err := ParseMark(m.String()); err != nil || got != m || m.String() != "D|ingress|b4d3c0fffbe2" {
		t.Errorf("%s is read as %v, %v", m, got, err)
	}
	for _, text := range []string{"", "D|ingress", "D|inward|b4d3c0fffbe2", "D|ingress|b4d3c0fffb", "D|ingress|b4d3c0fffbe2|"} {
		if _, err := ParseMark(text); err == nil {
			t.Errorf("%q is read", text)
		}
	}
}

// What is of an address that only pods of the node have, and no known one, is denied.
func TestStrangers(t *testing.T) {
	m := worlds.Small(3)
	in := Input{Pods: everyPod(m), Judge: reach.New(m, reach.Options{}), Strangers: []netip.Prefix{netip.MustParsePrefix("10.77.0.0/16"), netip.MustParsePrefix("fd77::/64")}}
	known, stranger, outside := m.Pods[0].Addresses[0], netip.MustParseAddr("10.77.0.9"), netip.MustParseAddr("192.0.2.1")
	in.Strangers = append(in.Strangers, netip.PrefixFrom(known, 32))
	r := Compile(in, nil)
	tests := []struct {
		name   string
		from   netip.Addr
		to     netip.Addr
		passes bool
	}{
		{"a known pod reaches others", known, outside, true},
		{"and is reached", outside, known, true},
		{"a stranger reaches nobody", stranger, outside, false},
		{"and is not reached", known, stranger, false},
		{"others pass by", outside, netip.MustParseAddr("192.0.2.2"), true},
		{"of IPv6, too", netip.MustParseAddr("fd77::1"), netip.MustParseAddr("2001:db8::1"), false},
	}
	for _, test := range tests {
		if got := r.Fate(Packet{test.from, test.to, netset.TCP, 80}).Passes; got != test.passes {
			t.Errorf("%s: %s to %s passes: %t", test.name, test.from, test.to, got)
		}
	}
	if both := `counter name "strangers_ingress4" counter name "ingress4_none" limit`; !strings.Contains(r.String(), both) {
		t.Errorf("what is logged as nobody's is not counted as that, by %s:\n%s", both, r)
	}
}
