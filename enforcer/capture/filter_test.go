//go:build linux

package capture

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/bpf"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func TestMain(m *testing.M) { os.Exit(testkit.Properties(m, 300)) }

// sight is what a filter sees of a packet.
type sight struct {
	protocol netset.Protocol
	ends     [2]netip.Addr
	hasPorts bool
}

// look reads a packet the slow way; false where it is not one of IP, or too short.
func look(packet []byte, link int) (s sight, rest []byte, ok bool) {
	kind := 0
	switch {
	case link > 0 && len(packet) >= link:
		kind = map[uint16]int{0x0800: 4, 0x86dd: 6}[binary.BigEndian.Uint16(packet[link-2:])]
	case link == 0 && len(packet) > 0:
		kind = int(packet[0] >> 4)
	}
	if len(packet) < link {
		return s, nil, false
	}
	packet = packet[link:]
	switch {
	case kind == 4 && len(packet) >= 20:
		later := binary.BigEndian.Uint16(packet[6:])&0x1fff != 0
		s.protocol = netset.Protocol(packet[9])
		s.ends = [2]netip.Addr{netip.AddrFrom4([4]byte(packet[12:])), netip.AddrFrom4([4]byte(packet[16:]))}
		s.hasPorts = !later
		return s, packet[min(len(packet), int(packet[0]&0xf)*4):], true
	case kind == 6 && len(packet) >= 40:
		s.ends = [2]netip.Addr{netip.AddrFrom16([16]byte(packet[8:])), netip.AddrFrom16([16]byte(packet[24:]))}
		s.protocol, s.hasPorts = netset.Protocol(packet[6]), true
		rest := packet[40:]
		for range 6 {
			length := 0
			switch s.protocol {
			default:
				return s, rest, true
			case 0, 43, 60, 135, 51:
				if len(rest) < 2 {
					return s, nil, false
				}
				length = (int(rest[1]) + 1) * 8
				if s.protocol == 51 {
					length = (int(rest[1]) + 2) * 4
				}
			case 44:
				if len(rest) < 4 {
					return s, nil, false
				}
				length = 8
				if binary.BigEndian.Uint16(rest[2:])&0xfff8 != 0 {
					s.protocol, s.hasPorts = netset.Protocol(rest[0]), false
					return s, rest, true
				}
			}
			s.protocol, rest = netset.Protocol(rest[0]), rest[min(length, len(rest)):]
		}
		return s, rest, true
	}
	return s, nil, false
}

// wants is what a program for some filters must say of a packet.
func wants(filters []policies.CaptureFilter, packet []byte, link int) bool {
	if len(filters) == 0 {
		return true
	}
	s, rest, ok := look(packet, link)
	if !ok {
		return false
	}
	for _, f := range filters {
		if f.Protocol != 0 && f.Protocol != s.protocol {
			continue
		}
		inBlock := func(p netip.Prefix) bool { return p.Contains(s.ends[0]) || p.Contains(s.ends[1]) }
		if len(f.Addresses) > 0 && !slices.ContainsFunc(f.Addresses, inBlock) {
			continue
		}
		if len(f.Ports) == 0 {
			return true
		}
		if !s.hasPorts || !slices.Contains([]netset.Protocol{6, 17, 132, 136}, s.protocol) {
			continue
		}
		for _, at := range []int{0, 2} {
			if len(rest) < at+2 {
				return false
			}
			port := binary.BigEndian.Uint16(rest[at:])
			if slices.ContainsFunc(f.Ports, func(p policies.PortSpan) bool { return p.First <= port && port <= p.Last }) {
				return true
			}
		}
	}
	return false
}

// agree runs the program for some filters on a packet.
func agree(t rapid.TB, filters []policies.CaptureFilter, packet []byte, snap, link int) {
	code, err := compile(filters, snap, link)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := bpf.Assemble(code); err != nil {
		t.Fatal(err)
	}
	vm, err := bpf.NewVM(code)
	if err != nil {
		t.Fatal(err)
	}
	kept, err := vm.Run(packet)
	if err != nil {
		t.Fatal(err)
	}
	want := 0
	if wants(filters, packet, link) {
		if want = snap; want == 0 {
			want = 256 << 10
		}
	}
	if kept != want {
		t.Fatalf("%+v keep %d bytes of % x, want %d", filters, kept, packet, want)
	}
}

var (
	somePorts     = []uint16{1, 53, 80, 81, 8000, 8050, 8100, 65535}
	someProtocols = []byte{0, 1, 6, 6, 17, 17, 43, 44, 47, 51, 58, 60, 132, 135, 136}
	someAddresses = []netip.Addr{
		netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.1"), netip.MustParseAddr("192.0.2.7"),
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8:0:1::1"), netip.MustParseAddr("fe80::1"),
	}
)

func drawFilters(t *rapid.T) []policies.CaptureFilter {
	return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) (f policies.CaptureFilter) {
		f.Protocol = netset.Protocol(rapid.SampledFrom(append([]byte{0, 0}, someProtocols...)).Draw(t, "protocol"))
		f.Ports = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policies.PortSpan {
			a, b := rapid.SampledFrom(somePorts).Draw(t, "port"), rapid.SampledFrom(somePorts).Draw(t, "port")
			return policies.PortSpan{First: min(a, b), Last: max(a, b)}
		}), 0, 3).Draw(t, "ports")
		f.Addresses = rapid.SliceOfN(rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := rapid.SampledFrom(someAddresses).Draw(t, "address")
			return netip.PrefixFrom(a, rapid.IntRange(0, a.BitLen()).Draw(t, "bits")).Masked()
		}), 0, 3).Draw(t, "addresses")
		return f
	}), 0, 4).Draw(t, "filters")
}

func drawPacket(t *rapid.T, link int) []byte {
	kind := rapid.SampledFrom([]int{4, 4, 6, 6, 6, 1}).Draw(t, "family")
	protocol := func() byte { return rapid.SampledFrom(someProtocols).Draw(t, "protocol") }
	var packet []byte
	if link > 0 {
		packet = make([]byte, link-2)
		packet = binary.BigEndian.AppendUint16(packet, map[int]uint16{4: 0x0800, 6: 0x86dd, 1: 0x0806}[kind])
	}
	ends := rapid.SliceOfN(rapid.SampledFrom(someAddresses[map[int]int{4: 0, 6: 3, 1: 0}[kind]:][:3]), 2, 2).Draw(t, "ends")
	next := protocol()
	if kind == 6 {
		packet = append(packet, 0x60, 0, 0, 0, 0, 0, next, 64)
	} else {
		words := rapid.IntRange(5, 7).Draw(t, "words")
		packet = append(packet, byte(kind<<4|words), 0, 0, 0, 0, 0)
		packet = binary.BigEndian.AppendUint16(packet, rapid.SampledFrom([]uint16{0, 0, 0x4000, 0x2000, 0x2001, 1}).Draw(t, "fragment"))
		packet = append(packet, 64, next, 0, 0)
	}
	packet = append(append(packet, ends[0].AsSlice()...), ends[1].AsSlice()...)
	if kind == 4 {
		packet = append(packet, make([]byte, int(packet[link]&0xf)*4-20)...)
	}
	for kind == 6 && slices.Contains([]byte{0, 43, 44, 51, 60, 135}, next) && rapid.IntRange(0, 9).Draw(t, "more") > 0 {
		header, length := next, rapid.IntRange(0, 2).Draw(t, "length")
		next = protocol()
		switch header {
		case 44:
			packet = append(packet, next, 0)
			packet = binary.BigEndian.AppendUint16(packet, rapid.SampledFrom([]uint16{0, 1, 8, 0xfff8}).Draw(t, "fragment"))
			packet = append(packet, 0, 0, 0, 0)
		case 51:
			packet = append(packet, next, byte(length))
			packet = append(packet, make([]byte, (length+2)*4-2)...)
		default:
			packet = append(packet, next, byte(length))
			packet = append(packet, make([]byte, (length+1)*8-2)...)
		}
	}
	for range 2 {
		packet = binary.BigEndian.AppendUint16(packet, rapid.SampledFrom(somePorts).Draw(t, "port"))
	}
	packet = append(packet, make([]byte, 16)...)
	return packet[:rapid.SampledFrom([]int{len(packet), len(packet), len(packet), rapid.IntRange(0, len(packet)).Draw(t, "cut")}).Draw(t, "size")]
}

// What the kernel keeps is what the filters want, read the slow way.
func TestFiltersKeepWhatTheyWant(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		link := rapid.SampledFrom([]int{14, 0}).Draw(t, "link")
		filters := drawFilters(t)
		for range 20 {
			agree(t, filters, drawPacket(t, link), rapid.SampledFrom([]int{0, 64, 128}).Draw(t, "snap"), link)
		}
	})
}

// FuzzFilters gives the programs what is no packet at all.
func FuzzFilters(f *testing.F) {
	f.Add([]byte{}, uint8(0))
	f.Add(slices.Concat(make([]byte, 12), []byte{0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, 44, 64}, make([]byte, 32), []byte{6, 0, 0, 0, 0, 0, 0, 0, 0, 53}), uint8(1))
	f.Add(slices.Concat(make([]byte, 12), []byte{0x08, 0, 0x4f, 0, 0, 0, 0, 0, 0, 0, 64, 17}, make([]byte, 60)), uint8(2))
	f.Fuzz(func(t *testing.T, packet []byte, which uint8) {
		filters := []policies.CaptureFilter{
			{Protocol: netset.Protocol(which)},
			{Protocol: netset.UDP, Ports: []policies.PortSpan{{First: 53, Last: 53}, {First: 8000, Last: 8100}}},
			{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/7"), netip.MustParsePrefix("2001:db8::/33")}, Ports: []policies.PortSpan{{First: 1, Last: 65535}}},
		}
		for _, link := range []int{0, 14} {
			agree(t, filters, packet, 0, link)
		}
	})
}

func TestFiltersThatTheKernelCannotTake(t *testing.T) {
	var long policies.CaptureFilter
	for i := range 100 {
		long.Addresses = append(long.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, byte(i)}), 128))
	}
	_, err := compile(slices.Repeat([]policies.CaptureFilter{long}, 4), 0, 14)
	if err == nil || !strings.Contains(err.Error(), "too long for the kernel") {
		t.Errorf("got %v", err)
	}
	var most policies.CaptureFilter
	for i := range 16 {
		most.Addresses = append(most.Addresses, netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, byte(i)}), 128))
		most.Ports = append(most.Ports, policies.PortSpan{First: uint16(i + 1), Last: uint16(i + 100)})
	}
	code, err := compile(slices.Repeat([]policies.CaptureFilter{most}, 4), 0, 14)
	if err != nil {
		t.Fatal(fmt.Errorf("%w: %d", err, len(code)))
	}
}
