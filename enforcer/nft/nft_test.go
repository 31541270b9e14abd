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

// packet is the first of a connection.
type packet struct {
	source, destination netip.Addr
	protocol            netset.Protocol
	port                uint16 // of ICMP the type and code
}

// walker carries out the rules of a ruleset, as the kernel does.
type walker struct {
	sets   map[string]*Set
	chains map[string]*Chain
	packet
	counted []string
}

func newWalker(r *Ruleset, p packet) *walker {
	w := &walker{sets: map[string]*Set{}, chains: map[string]*Chain{}, packet: p}
	for i := range r.Sets {
		w.sets[r.Sets[i].Name] = &r.Sets[i]
	}
	for i := range r.Chains {
		w.chains[r.Chains[i].Name] = &r.Chains[i]
	}
	return w
}

// passes reports whether the packet passes a base chain.
func (w *walker) passes(chain string) bool { return w.chain(chain) != Drop }

// chain returns Accept, Drop, or Return where the chain comes to its end.
func (w *walker) chain(name string) Action {
	for _, r := range w.chains[name].Rules {
		v, ends := w.rule(r)
		if !ends {
			continue
		}
		switch v.Action {
		case Jump:
			if a := w.chain(v.Chain); a != Return {
				return a
			}
		case Goto:
			return w.chain(v.Chain)
		default:
			return v.Action
		}
	}
	return Return
}

func (w *walker) rule(r Rule) (v Verdict, ends bool) {
	for _, s := range r {
		switch s := s.(type) {
		case Established, Labelled:
			return Verdict{}, false
		case In:
			if _, found := w.find(s.Fields, s.Set); !found {
				return Verdict{}, false
			}
		case Dispatch:
			return w.find(s.Fields, s.Map)
		case Count:
			w.counted = append(w.counted, s.Counter)
		case Verdict:
			return s, true
		}
	}
	return Verdict{}, false
}

// find looks the packet's fields up in a set.
func (w *walker) find(all []Field, set string) (Verdict, bool) {
	var values [][]byte
	for _, f := range all {
		v, has := w.field(f)
		if !has {
			return Verdict{}, false
		}
		values = append(values, v)
	}
	k, s := key(values...), w.sets[set]
	for _, e := range s.Elements {
		if !s.Interval && e.First == k || s.Interval && within(s.Key, e, values) {
			return e.To, true
		}
	}
	return Verdict{}, false
}

// within reports whether every field is in its range.
func within(types []Type, e Element, values [][]byte) bool {
	first, last := e.First, e.Last
	for i, v := range values {
		if string(v) < first[:len(v)] || string(v) > last[:len(v)] {
			return false
		}
		if len(types) > 1 {
			first, last = first[filled(types[i].Size()):], last[filled(types[i].Size()):]
		}
	}
	return true
}

func (w *walker) field(f Field) ([]byte, bool) {
	four, icmp, icmp6 := w.source.Is4(), w.protocol == netset.ICMP, w.protocol == netset.ICMPv6
	switch f {
	case Source4:
		return w.source.AsSlice(), four
	case Destination4:
		return w.destination.AsSlice(), four
	case Source6:
		return w.source.AsSlice(), !four
	case Destination6:
		return w.destination.AsSlice(), !four
	case FieldProtocol:
		return []byte{byte(w.protocol)}, true
	case DestinationPort:
		return []byte{byte(w.port >> 8), byte(w.port)}, w.protocol.HasPorts()
	case FieldICMPType:
		return []byte{byte(w.port >> 8)}, four && icmp
	case FieldICMPCode:
		return []byte{byte(w.port)}, four && icmp
	case FieldICMPv6Type:
		return []byte{byte(w.port >> 8)}, !four && icmp6
	}
	return []byte{byte(w.port)}, !four && icmp6
}

// traffic is what is tried between each two addresses.
func traffic(four bool) []packet {
	all := []packet{
		{protocol: netset.TCP, port: 80},
		{protocol: netset.TCP, port: 8080},
		{protocol: netset.TCP, port: 8081},
		{protocol: netset.TCP, port: 8500},
		{protocol: netset.TCP, port: 9001},
		{protocol: netset.UDP, port: 53},
		{protocol: netset.UDP, port: 8080},
		{protocol: netset.SCTP, port: 80},
		{protocol: 47},
	}
	if four {
		return append(all, packet{protocol: netset.ICMP, port: 8 << 8}, packet{protocol: netset.ICMP, port: 3<<8 | 1})
	}
	return append(all, packet{protocol: netset.ICMPv6, port: 128 << 8}, packet{protocol: netset.ICMPv6, port: 128<<8 | 1}, packet{protocol: netset.ICMPv6, port: 1 << 8})
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
				p.source, p.destination = a, b
				w := newWalker(r, p)
				want := judge.Verdict(from, to, p.protocol, p.port) == policies.Allow
				if got := w.passes(forward); got != want {
					t.Fatalf("%s to %s on %s/%d passes: %t, want %t\n%s", a, b, p.protocol, p.port, got, want, r)
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
		by := func(d policies.Direction, end reach.End, at netip.Addr, from, to reach.End, p packet) (passes, would bool) {
			pod := slices.IndexFunc(all.Pods, func(x policies.Pod) bool { return slices.Contains(x.Addresses, at) })
			if pod < 0 {
				return true, true
			}
			says := func(j *reach.Judge) bool {
				return j == nil || j.Decide(from, to, p.protocol, p.port).Sides[d].Verdict == policies.Allow
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
				p.source, p.destination = a, b
				leaves, wouldLeave := by(policies.Egress, from, a, from, to, p)
				enters, wouldEnter := by(policies.Ingress, to, b, from, to, p)
				w := newWalker(r, p)
				if got := w.passes(forward); got != (leaves && enters) {
					t.Fatalf("%s to %s on %s/%d passes: %t, want %t\n%s", a, b, p.protocol, p.port, got, leaves && enters, r)
				}
				seen := slices.ContainsFunc(w.counted, func(c string) bool { return strings.HasSuffix(c, "_observed") })
				if want := leaves && !wouldLeave || leaves && enters && !wouldEnter; seen != want {
					t.Fatalf("%s to %s on %s/%d is seen: %t, want %t\n%s", a, b, p.protocol, p.port, seen, want, r)
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
