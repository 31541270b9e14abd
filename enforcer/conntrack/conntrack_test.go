package conntrack_test

import (
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/policies/netset"
)

// attribute is one as the kernel writes it: of other attributes, or of a value in hex.
func attribute(kind uint16, content ...string) string {
	value := strings.Join(content, "")
	text := binary.NativeEndian.AppendUint16(nil, uint16(4+len(value)/2))
	text = binary.NativeEndian.AppendUint16(text, kind)
	return hex.EncodeToString(text) + value + strings.Repeat("00", -(len(value)/2)&3)
}

const nested = 0x8000

func tuple4(kind uint16, source, destination, protocol string) string {
	return attribute(nested|kind, attribute(nested|1, attribute(1, source), attribute(2, destination)), attribute(nested|2, protocol))
}

func ports(protocol, source, destination string) string {
	return attribute(1, protocol) + attribute(2, source) + attribute(3, destination)
}

var tcp = "02000000" +
	tuple4(1, "0a000001", "0a600001", ports("06", "9c40", "0050")) +
	tuple4(2, "0a000002", "0a000001", ports("06", "1f90", "9c40")) +
	attribute(3, "000001aa") +
	attribute(nested|4, attribute(nested|1, attribute(1, "03"), attribute(2, "07"))) +
	attribute(7, "00000078") + attribute(8, "00000005") +
	attribute(nested|9, attribute(1, "0000000000000003"), attribute(2, "0000000000000100")) +
	attribute(nested|10, attribute(1, "0000000000000002"), attribute(2, "0000000000000080")) +
	attribute(12, "deadbeef") + attribute(18, "0007") +
	attribute(nested|20, attribute(1, "1700000000000001"), attribute(2, "1700000000000002")) +
	attribute(22, "0102030405060000000000000000"+"0080") +
	attribute(27, "1700000000000003") + attribute(99, "ff")

var icmp = "02000000" + tuple4(1, "0a000001", "0a000002", attribute(1, "01")+attribute(4, "1234")+attribute(5, "08")+attribute(6, "00"))

func TestDecode(t *testing.T) {
	a := netip.MustParseAddr
	for _, tt := range []struct {
		name, text string
		want       conntrack.Connection
		err        string
	}{
		{"a connection over TCP to a Service, with all there is", tcp, conntrack.Connection{
			Original: conntrack.Tuple{a("10.0.0.1"), a("10.96.0.1"), netset.TCP, 40000, 80},
			Reply:    conntrack.Tuple{a("10.0.0.2"), a("10.0.0.1"), netset.TCP, 8080, 40000},
			Zone:     7, ID: 0xdeadbeef, Status: 0x1aa, TCP: conntrack.Established, Timeout: 120e9, Mark: 5,
			Label: [16]byte{1, 2, 3, 4, 5, 6, 15: 0x80}, Labelled: true,
			Counters: [2]conntrack.Counters{{3, 256}, {2, 128}}, Counted: true,
			Start: 0x1700000000000001, Stop: 0x1700000000000002, At: 0x1700000000000003,
		}, ""},
		{"a ping", icmp, conntrack.Connection{Original: conntrack.Tuple{a("10.0.0.1"), a("10.0.0.2"), netset.ICMP, 0x1234, 0x800}}, ""},
		{"nothing behind the header", "02000000", conntrack.Connection{}, ""},
		{"no header", "0200", conntrack.Connection{}, "a message about a connection is cut off"},
		{"cut off in an attribute", tcp[:60], conntrack.Connection{}, "a message about a connection is cut off"},
		{"a port of one byte", "02000000" + tuple4(1, "0a000001", "0a000002", attribute(2, "01")), conntrack.Connection{}, "attribute 2 of a message about a connection has 1 bytes, not 2"},
		{"an address of three bytes", "02000000" + tuple4(1, "0a0000", "0a000002", ""), conntrack.Connection{}, "attribute 1 of a message about a connection has 3 bytes, not 4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			body, err := hex.DecodeString(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			got := conntrack.Connection{ID: 1}
			if err := conntrack.Decode(body, &got); err != nil || tt.err != "" {
				if err == nil || err.Error() != tt.err {
					t.Errorf("error %v, want %q", err, tt.err)
				}
				return
			}
			if diff := cmp.Diff(tt.want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// What LabelUpdate asks for is what Decode reads.
func TestLabelUpdate(t *testing.T) {
	for _, text := range []string{tcp, icmp} {
		body, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		var c, back conntrack.Connection
		if err := conntrack.Decode(body, &c); err != nil {
			t.Fatal(err)
		}
		if err := conntrack.Decode(conntrack.LabelUpdate(nil, &c, [16]byte{15: 0x80}, [16]byte{15: 0x80}), &back); err != nil {
			t.Fatal(err)
		}
		if back.Original != c.Original || back.Zone != c.Zone || back.Label != [16]byte{15: 0x80} {
			t.Errorf("asks for %+v of %+v", back, c)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	body, err := hex.DecodeString(tcp)
	if err != nil {
		t.Fatal(err)
	}
	var c conntrack.Connection
	if n := testing.AllocsPerRun(100, func() { err = conntrack.Decode(body, &c) }); n != 0 || err != nil {
		t.Errorf("%g allocations, error %v", n, err)
	}
}

func BenchmarkDecode(b *testing.B) {
	body, err := hex.DecodeString(tcp)
	if err != nil {
		b.Fatal(err)
	}
	var c conntrack.Connection
	for b.Loop() {
		if err := conntrack.Decode(body, &c); err != nil {
			b.Fatal(err)
		}
	}
}

// No message makes the decoder fail otherwise than by an error, and what it reads of one
// with addresses, it can ask for.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{tcp, icmp} {
		body, err := hex.DecodeString(text)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(body)
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var c, back conntrack.Connection
		if conntrack.Decode(body, &c) != nil || !c.Original.Source.IsValid() || c.Original.Source.BitLen() != c.Original.Destination.BitLen() {
			return
		}
		if err := conntrack.Decode(conntrack.LabelUpdate(nil, &c, c.Label, c.Label), &back); err != nil {
			t.Fatal(err)
		}
		if back.Original != c.Original || back.Zone != c.Zone || back.Label != c.Label {
			t.Errorf("asks for %+v of %+v", back, c)
		}
	})
}
