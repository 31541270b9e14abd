package netset

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// Ports are tried on few protocols and on the ports at either edge, where spans
// of neighbouring protocols touch.
var (
	someProtocols = []Protocol{0, 1, TCP, TCP + 1, UDP, SCTP, 254, 255}
	somePorts     = []uint16{0, 1, 2, 3, 79, 80, 81, 443, 65533, 65534, 65535}
)

type pairs map[uint32]bool

func eachPair(yield func(Protocol, uint16)) {
	for _, p := range someProtocols {
		for _, port := range somePorts {
			yield(p, port)
		}
	}
}

// portsOf makes a set of ports, and the same set naively, of pairs of bytes:
// each adds a span, or takes one away.
func portsOf(program []byte) (Ports, pairs) {
	var set Ports
	naive := pairs{}
	for len(program) >= 3 {
		protocol := someProtocols[int(program[0])%len(someProtocols)]
		first, last := somePorts[int(program[1])%len(somePorts)], somePorts[int(program[2])%len(somePorts)]
		take := program[0] >= 128
		if take {
			set = set.Minus(PortSpan(protocol, first, last))
		} else {
			set = set.Union(PortSpan(protocol, first, last))
		}
		eachPair(func(p Protocol, port uint16) {
			if p == protocol && first <= port && port <= last {
				naive[pair(p, port)] = !take
			}
		})
		program = program[3:]
	}
	return set, naive
}

func checkPorts(t rapid.TB, first, second []byte) {
	a, inA := portsOf(first)
	b, inB := portsOf(second)
	eachPair(func(p Protocol, port uint16) {
		x, y := inA[pair(p, port)], inB[pair(p, port)]
		for _, row := range []struct {
			what string
			set  Ports
			want bool
		}{
			{"itself", a, x},
			{"union", a.Union(b), x || y},
			{"intersect", a.Intersect(b), x && y},
			{"minus", a.Minus(b), x && !y},
			{"complement", AllTraffic().Minus(a), !x},
		} {
			if got := row.set.Contains(p, port); got != row.want {
				t.Fatalf("%s of %v and %v: %v/%d is in it: %v, want %v", row.what, a, b, p, port, got, row.want)
			}
		}
	})
	for _, law := range []struct {
		what string
		x, y Ports
	}{
		{"union commutes", a.Union(b), b.Union(a)},
		{"intersect commutes", a.Intersect(b), b.Intersect(a)},
		{"minus and intersect make the whole", a.Minus(b).Union(a.Intersect(b)), a},
		{"De Morgan", AllTraffic().Minus(a.Union(b)), AllTraffic().Minus(a).Intersect(AllTraffic().Minus(b))},
		{"ranges make the set", fromRanges(a), a},
	} {
		if !law.x.Equal(law.y) || law.x.Key() != law.y.Key() || law.x.Compare(law.y) != 0 {
			t.Fatalf("%s: %v and %v for %v and %v", law.what, law.x, law.y, a, b)
		}
	}
	if (a.Key() == b.Key()) != a.Equal(b) || (a.Compare(b) == 0) != a.Equal(b) || a.Compare(b) != -b.Compare(a) {
		t.Fatalf("%v and %v: key, order and equality disagree", a, b)
	}
	if a.IsEmpty() != (a.Key() == "") || a.IsEmpty() != (a.String() == "none") {
		t.Fatalf("%v: empty in one way only", a)
	}
}

func fromRanges(a Ports) Ports {
	var all Ports
	for r := range a.Ranges() {
		all = all.Union(PortSpan(r.Protocol, r.First, r.Last))
	}
	return all
}

func TestPortsAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		program := rapid.SliceOfN(rapid.Byte(), 0, 18)
		checkPorts(t, program.Draw(t, "a"), program.Draw(t, "b"))
	})
}

func FuzzPorts(f *testing.F) {
	f.Add([]byte{2, 0, 10}, []byte{2, 5, 5})
	f.Add([]byte{0, 0, 10, 1, 0, 10, 129, 4, 6}, []byte{7, 10, 10})
	f.Add([]byte{7, 0, 10, 6, 0, 10}, []byte{})
	f.Fuzz(func(t *testing.T, a, b []byte) { checkPorts(t, a[:min(len(a), 60)], b[:min(len(b), 60)]) })
}

func TestPortsPrint(t *testing.T) {
	for _, row := range []struct {
		set  Ports
		want string
	}{
		{Ports{}, "none"},
		{AllTraffic(), "any"},
		{TransportPorts(), "any"},
		{EveryPort(TCP), "TCP"},
		{PortSpan(TCP, 1, 65535), "TCP"},
		{EveryPort(ICMP), "ICMP"},
		{PortSpan(ICMP, 0, 0), "ICMP/0/0"},
		{ICMPTypes(ICMP, 8, 0, 255), "ICMP/8"},
		{ICMPTypes(ICMP, 3, 4, 4), "ICMP/3/4"},
		{ICMPTypes(ICMPv6, 3, 0, 4), "ICMPv6/3/0-4"},
		{PortSpan(ICMP, 2<<8, 5<<8|255), "ICMP/2-5"},
		{PortSpan(ICMP, 2<<8|7, 5<<8|1), "ICMP/2/7-255,3-4,5/0-1"},
		{EveryPort(ICMP).Minus(ICMPTypes(ICMP, 255, 0, 255)), "ICMP/0-254"},
		{EveryPort(ICMP).Minus(ICMPTypes(ICMP, 8, 0, 255)), "ICMP/0-7,9-255"},
		{AllTraffic().Minus(EveryPort(TCP)), "all but TCP"},
		{AllTraffic().Minus(PortSpan(TCP, 80, 80)).Minus(EveryPort(ICMP)), "all but ICMP TCP/80"},
		{AllTraffic().Minus(EveryPort(Transports[:]...)), "all but TCP UDP SCTP"},
		{EveryPort(TCP).Minus(PortSpan(TCP, 80, 80)), "TCP/1-79,81-65535"},
		{PortSpan(TCP, 80, 80).Union(PortSpan(TCP, 443, 443)).Union(PortSpan(UDP, 53, 53)), "TCP/80,443 UDP/53"},
		{PortSpan(TCP, 8000, 8100), "TCP/8000-8100"},
		{PortSpan(TCP, 65535, 65535).Union(PortSpan(TCP+1, 0, 0)), "TCP/65535 7"},
		{PortSpan(TCP, 81, 80), "none"},
	} {
		if got := row.set.String(); got != row.want {
			t.Errorf("got %q, want %q", got, row.want)
		}
	}
}

// Addresses are tried at the edges of both families.
var someAddresses = func() []netip.Addr {
	var all []netip.Addr
	for _, text := range []string{
		"0.0.0.0", "0.0.0.1", "9.255.255.255", "10.0.0.0", "10.0.0.1", "10.0.0.7", "10.0.0.8", "10.255.255.255", "11.0.0.0", "255.255.255.254", "255.255.255.255",
		"::", "::1", "2001:db8::", "2001:db8::7", "2001:db8::8", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	} {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}()

// prefixOf returns a prefix around one of the addresses.
func prefixOf(address, bits byte) netip.Prefix {
	a := someAddresses[int(address)%len(someAddresses)]
	lengths := []int{0, 1, 8, 24, 29, 31, 32}
	if a.Is6() {
		lengths = []int{0, 1, 32, 64, 125, 127, 128}
	}
	return netip.PrefixFrom(a, lengths[int(bits)%len(lengths)])
}

func addressesOf(program []byte) (Addresses, func(netip.Addr) bool) {
	type step struct {
		prefix netip.Prefix
		take   bool
	}
	var set Addresses
	var steps []step
	for ; len(program) >= 2; program = program[2:] {
		s := step{prefixOf(program[0], program[1]), program[1] >= 128}
		steps = append(steps, s)
		if s.take {
			set = set.Minus(Prefix(s.prefix))
		} else {
			set = set.Union(Prefix(s.prefix))
		}
	}
	return set, func(a netip.Addr) bool {
		in := false
		for _, s := range steps {
			if s.prefix.Contains(a) {
				in = !s.take
			}
		}
		return in
	}
}

func checkAddresses(t rapid.TB, first, second []byte) {
	a, inA := addressesOf(first)
	b, inB := addressesOf(second)
	for _, v := range someAddresses {
		x, y := inA(v), inB(v)
		for _, row := range []struct {
			what string
			set  Addresses
			want bool
		}{
			{"itself", a, x},
			{"union", a.Union(b), x || y},
			{"intersect", a.Intersect(b), x && y},
			{"minus", a.Minus(b), x && !y},
			{"complement", EveryAddress().Minus(a), !x},
		} {
			if got := row.set.Contains(v); got != row.want {
				t.Fatalf("%s of %v and %v: %v is in it: %v, want %v", row.what, a.CIDRs(), b.CIDRs(), v, got, row.want)
			}
		}
	}
	if !a.Minus(b).Union(a.Intersect(b)).Equal(a) || a.Covers(b) != b.Minus(a).IsEmpty() || a.Overlaps(b) != !a.Intersect(b).IsEmpty() {
		t.Fatalf("%v and %v: minus, intersect, covers and overlaps disagree", a.CIDRs(), b.CIDRs())
	}
	checkCover(t, a)
}

// checkCover checks that CIDRs and Blocks are disjoint, that each makes the set,
// and that Blocks takes no more CIDRs in all.
func checkCover(t rapid.TB, a Addresses) {
	var sum Addresses
	cidrs := a.CIDRs()
	for _, p := range cidrs {
		if sum.Overlaps(Prefix(p)) || p != p.Masked() {
			t.Fatalf("CIDRs %v overlap or have host bits", cidrs)
		}
		sum = sum.Union(Prefix(p))
	}
	if !sum.Equal(a) {
		t.Fatalf("CIDRs %v are not the set %v", cidrs, a)
	}
	sum = Addresses{}
	blocks := a.Blocks()
	for _, b := range blocks {
		if sum.Overlaps(b.Addresses()) {
			t.Fatalf("blocks %v overlap", blocks)
		}
		for _, e := range b.Except {
			if !b.CIDR.Overlaps(e) || e.Bits() <= b.CIDR.Bits() {
				t.Fatalf("%v excepts what is no part of it", b)
			}
		}
		sum = sum.Union(b.Addresses())
	}
	if !sum.Equal(a) {
		t.Fatalf("blocks %v are not the set %v", blocks, cidrs)
	}
	if cidrCount(blocks) > len(cidrs) {
		t.Fatalf("blocks %v take more CIDRs than %v", blocks, cidrs)
	}
}

func TestAddressesAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		program := rapid.SliceOfN(rapid.Byte(), 0, 12)
		checkAddresses(t, program.Draw(t, "a"), program.Draw(t, "b"))
	})
}

func FuzzAddresses(f *testing.F) {
	f.Add([]byte{0, 0, 4, 130}, []byte{3, 2})
	f.Add([]byte{11, 0, 13, 130, 14, 134}, []byte{18, 6})
	f.Add([]byte{10, 6, 11, 6}, []byte{10, 1})
	f.Fuzz(func(t *testing.T, a, b []byte) { checkAddresses(t, a[:min(len(a), 40)], b[:min(len(b), 40)]) })
}

func TestBlocks(t *testing.T) {
	prefixes := func(texts ...string) Addresses {
		var all []netip.Prefix
		for _, text := range texts {
			all = append(all, netip.MustParsePrefix(text))
		}
		return Prefixes(all...)
	}
	for _, row := range []struct {
		what string
		set  Addresses
		want []string
	}{
		{"nothing", Addresses{}, nil},
		{"everything", EveryAddress(), []string{"0.0.0.0/0", "::/0"}},
		{"all but one range", prefixes("0.0.0.0/0").Minus(prefixes("10.0.0.0/8")), []string{"0.0.0.0/0 except 10.0.0.0/8"}},
		{"halves join", prefixes("10.0.0.0/9", "10.128.0.0/9"), []string{"10.0.0.0/8"}},
		{"half is half", prefixes("0.0.0.0/0").Minus(prefixes("0.0.0.0/1")), []string{"128.0.0.0/1"}},
		{"the families stay apart", prefixes("255.255.255.255/32", "::/128"), []string{"255.255.255.255/32", "::/128"}},
		{"host bits are ignored", prefixes("10.1.2.3/8"), []string{"10.0.0.0/8"}},
	} {
		var got []string
		for _, b := range row.set.Blocks() {
			got = append(got, b.String())
		}
		if !slices.Equal(got, row.want) {
			t.Errorf("%s: got %v, want %v", row.what, got, row.want)
		}
	}
}

func cidrCount(blocks []Block) int {
	n := 0
	for _, b := range blocks {
		n += 1 + len(b.Except)
	}
	return n
}
