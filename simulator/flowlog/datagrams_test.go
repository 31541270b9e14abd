package flowlog

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowline"
)

// told says a flow in one line; what is not recorded is not said.
func told(f policies.Flow) string {
	var b strings.Builder
	end := func(p policies.FlowPeer, port uint16) {
		if p.Pod != "" {
			fmt.Fprintf(&b, "%s/%s=", p.Namespace, p.Pod)
		}
		fmt.Fprintf(&b, "%s", p.Address)
		if port != 0 {
			fmt.Fprintf(&b, ":%d", port)
		}
		if len(p.Labels) > 0 {
			fmt.Fprint(&b, p.Labels)
		}
	}
	end(f.From, f.SourcePort)
	b.WriteString(" > ")
	end(f.To, f.Port)
	fmt.Fprintf(&b, " %s %s", f.Protocol, f.Verdict)
	if f.EgressOnly {
		b.WriteString(" egress only")
	}
	if f.Count != 1 {
		fmt.Fprintf(&b, " x%d", f.Count)
	}
	if f.Bytes+f.Packets > 0 {
		fmt.Fprintf(&b, " %dB/%d", f.Bytes, f.Packets)
	}
	if f.ReplyBytes+f.ReplyPackets > 0 {
		fmt.Fprintf(&b, " back %dB/%d", f.ReplyBytes, f.ReplyPackets)
	}
	for _, h := range f.Hits {
		fmt.Fprintf(&b, " %s:%s", h.Policy, h.Action)
	}
	return b.String()
}

// became tells what became of datagrams of one exporter.
func became(t testing.TB, o Options, datagrams ...[]byte) string {
	t.Helper()
	var lines []string
	d, err := NewDatagrams(context.Background(), "udp", o, func(f policies.Flow) error {
		lines = append(lines, told(f))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range datagrams {
		if err := d.Decode(b, exporter1, time.Unix(exportedAt+5, 0)); err != nil {
			t.Fatal(err)
		}
	}
	return strings.Join(append(lines, besides(d.Finish())...), "\n")
}

// besides is what the statistics say besides the number of flows.
func besides(s Stats) (lines []string) {
	for _, p := range s.FirstBad {
		lines = append(lines, "bad: "+p.Message)
	}
	for _, cause := range slices.Sorted(maps.Keys(s.LeftOut)) {
		lines = append(lines, fmt.Sprintf("left out: %d %s", s.LeftOut[cause], cause))
	}
	if s.Lost > 0 {
		lines = append(lines, fmt.Sprintf("lost: %d", s.Lost))
	}
	return lines
}

type datagramRow struct {
	name      string
	datagrams [][]byte
	want      string
}

func checkDatagrams(t *testing.T, rows []datagramRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) { equal(t, became(t, Options{}, row.datagrams...), row.want) })
	}
}

// with is a template of the five-tuple and more, and one record of web to db.
func with(more []element, values ...any) []byte {
	t := templateOf(256, append(slices.Clone(fiveTuple), more...)...)
	return ipfixMessage(1, 0, set(2, t), set(256, tcp(web, db, 43210, 5432), be(values...)))
}

// one is with a single element.
func one(id uint16, value any) []byte {
	return with([]element{{id: id, length: uint16(len(be(value)))}}, value)
}

const webToDB = "10.0.1.5:43210 > 10.0.2.7:5432 TCP "

func TestIPFIXRecords(t *testing.T) {
	icmp := func(version int, elements []element, values ...any) []byte {
		from, to, protocol, addresses := web, db, uint8(1), []element{{id: 8, length: 4}, {id: 12, length: 4}}
		if version == 6 {
			from, to, protocol = ip("2001:db8::1"), ip("2001:db8::2"), 58
			addresses = []element{{id: 27, length: 16}, {id: 28, length: 16}}
		}
		all := append(append(addresses, element{id: 4, length: 1}), elements...)
		return ipfixMessage(1, 0, set(2, templateOf(256, all...)), set(256, from, to, protocol, be(values...)))
	}
	u8, u16, u64 := func(n uint8) uint8 { return n }, func(n uint16) uint16 { return n }, func(n uint64) uint64 { return n }
	checkDatagrams(t, []datagramRow{
		{"a five-tuple", [][]byte{with(nil)}, webToDB + "unknown"},
		{"bytes and packets", [][]byte{with([]element{{id: 1, length: 8}, {id: 2, length: 4}}, u64(4000), uint32(10))}, webToDB + "unknown 4000B/10"},
		{"totals, where there is nothing else", [][]byte{with([]element{{id: 85, length: 8}, {id: 86, length: 8}}, u64(9000), u64(20))}, webToDB + "unknown 9000B/20"},
		{"totals count less than what the record itself counts", [][]byte{with([]element{{id: 85, length: 8}, {id: 1, length: 8}}, u64(9000), u64(100))}, webToDB + "unknown 100B/0"},
		{"both directions", [][]byte{with([]element{{id: 1, length: 4}, {1, 4, reverse}, {2, 4, reverse}}, uint32(70), uint32(900), uint32(3))}, webToDB + "unknown 70B/0 back 900B/3"},
		{"initiator and responder", [][]byte{with([]element{{id: 231, length: 4}, {id: 232, length: 4}}, uint32(70), uint32(900))}, webToDB + "unknown 70B/0 back 900B/0"},
		{"several flows in one", [][]byte{one(3, u64(17))}, webToDB + "unknown x17"},

		{"forwarded", [][]byte{one(89, u8(64))}, webToDB + "allow"},
		{"dropped by an access list", [][]byte{one(89, u8(130))}, webToDB + "deny"},
		{"denied by an access list", [][]byte{one(89, uint32(129))}, webToDB + "deny"},
		{"dropped for no reason", [][]byte{one(89, u8(128))}, webToDB + "unknown"},
		{"dropped for want of a route", [][]byte{one(89, u8(131))}, "left out: 1 dropped, but not by policy: forwarding status 131"},
		{"consumed is not forwarded", [][]byte{one(89, u8(195))}, webToDB + "unknown"},
		{"a firewall saw it begin", [][]byte{one(233, u8(1))}, webToDB + "allow"},
		{"a firewall denied it", [][]byte{one(233, u8(3))}, webToDB + "deny"},
		{"a firewall's alert is no verdict", [][]byte{one(233, u8(4))}, webToDB + "unknown"},

		{"a single SYN-ACK is turned round", [][]byte{with([]element{{id: 6, length: 2}, {id: 1, length: 4}, {id: 2, length: 4}}, u16(0x12), uint32(60), uint32(1))}, "10.0.2.7:5432 > 10.0.1.5:43210 TCP unknown back 60B/1"},
		{"a caller's SYN and ACK are not", [][]byte{with([]element{{id: 6, length: 2}, {id: 2, length: 4}}, u16(0x1b), uint32(9))}, webToDB + "unknown 0B/9"},
		{"a denied SYN-ACK says nothing", [][]byte{with([]element{{id: 6, length: 2}, {id: 2, length: 4}, {id: 89, length: 1}}, u16(0x12), uint32(1), u8(130))}, "left out: 1 dropped reply: it says nothing about the request"},
		{"the called end first", [][]byte{with([]element{{id: 239, length: 1}, {id: 1, length: 4}, {1, 4, reverse}}, u8(2), uint32(5), uint32(7))}, "10.0.2.7:5432 > 10.0.1.5:43210 TCP unknown 7B/0 back 5B/0"},

		{"ICMP by type and code", [][]byte{icmp(4, []element{{id: 32, length: 2}}, u16(0x0301))}, "10.0.1.5 > 10.0.2.7:769 ICMP unknown"},
		{"ICMP in two fields", [][]byte{icmp(4, []element{{id: 177, length: 1}, {id: 176, length: 1}}, u8(1), u8(3))}, "10.0.1.5 > 10.0.2.7:769 ICMP unknown"},
		{"ICMP in the port", [][]byte{icmp(4, []element{{id: 7, length: 2}, {id: 11, length: 2}}, u16(9), u16(0x0800))}, "10.0.1.5 > 10.0.2.7:2048 ICMP unknown"},
		{"an echo reply is turned round", [][]byte{icmp(4, []element{{id: 32, length: 2}}, u16(0))}, "10.0.2.7 > 10.0.1.5:2048 ICMP unknown"},
		{"a port of 0 is no echo reply", [][]byte{icmp(4, []element{{id: 11, length: 2}}, u16(0))}, "10.0.1.5 > 10.0.2.7 ICMP unknown"},
		{"an echo reply of IPv6", [][]byte{icmp(6, []element{{id: 139, length: 2}}, u16(0x8100))}, "2001:db8::2 > 2001:db8::1:32768 ICMPv6 unknown"},

		{"no addresses", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, element{id: 1, length: 4})), set(256, uint32(1)))}, "left out: 1 record without the addresses of a flow"},
		{"a time beyond all calendars", [][]byte{one(153, ^uint64(0))}, "bad: time is beyond the year 9999"},
		{"a clock that went back", [][]byte{with([]element{{id: 150, length: 4}, {id: 151, length: 4}}, uint32(exportedAt), uint32(exportedAt-60))}, "bad: end 2026-03-01T09:59:00Z is before start 2026-03-01T10:00:00Z"},
	})
}

func TestTimes(t *testing.T) {
	const ntp = exportedAt + 2208988800
	rows := []struct {
		name     string
		datagram []byte
		want     string // first and last, behind 10:00:00
	}{
		{"none: when it was exported", with(nil), "0s 0s"},
		{"seconds", with([]element{{id: 150, length: 4}, {id: 151, length: 4}}, uint32(exportedAt-9), uint32(exportedAt-1)), "-9s -1s"},
		{"milliseconds", with([]element{{id: 152, length: 8}, {id: 153, length: 8}}, uint64(exportedAt*1000-9500), uint64(exportedAt*1000-10)), "-9.5s -10ms"},
		{"microseconds are a fraction", with([]element{{id: 154, length: 8}, {id: 155, length: 8}}, uint64(ntp-9)<<32|1<<31, uint64(ntp)<<32), "-8.5s 0s"},
		{"nanoseconds too", with([]element{{id: 157, length: 8}}, uint64(ntp)<<32|1<<30), "250ms 250ms"},
		{"before the export", with([]element{{id: 158, length: 4}, {id: 159, length: 4}}, uint32(2_000_000), uint32(500_000)), "-2s -500ms"},
		{"since the exporter started", with([]element{{id: 160, length: 8}, {id: 22, length: 4}, {id: 21, length: 4}}, uint64(exportedAt*1000-60_000), uint32(1000), uint32(30_000)), "-59s -30s"},
		{"an event", with([]element{{id: 323, length: 8}}, uint64(exportedAt*1000-250)), "-250ms -250ms"},
		{"uptimes of NetFlow 5", netflow5Message(0, 0, netflow5Flow(web, db, 1, 2, 3, 4, 0, 6)), "-10s -500ms"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			var got string
			d, _ := NewDatagrams(context.Background(), "udp", Options{}, func(f policies.Flow) error {
				base := time.Unix(exportedAt, 0)
				got = fmt.Sprint(f.First.Sub(base), " ", f.Last.Sub(base))
				return nil
			})
			if err := d.Decode(row.datagram, exporter1, time.Unix(0, 0)); err != nil {
				t.Fatal(err)
			}
			equal(t, got, row.want)
		})
	}
}

func TestTemplates(t *testing.T) {
	template, record := set(2, templateOf(256, fiveTuple...)), set(256, tcp(web, db, 43210, 5432))
	other := func(domain uint32, sets ...[]byte) []byte { return ipfixMessage(domain, 0, sets...) }
	checkDatagrams(t, []datagramRow{
		{"data that comes first waits", [][]byte{other(1, record), other(1, template)}, webToDB + "unknown"},
		{"within a message too", [][]byte{other(1, record, template)}, webToDB + "unknown"},
		{"another domain's template is no help", [][]byte{other(1, record), other(2, template)}, "left out: 1 data whose template never came\nlost: 1"},
		{"another version's template is none either", [][]byte{ipfixMessage(1, 0, record), netflow9Message(1, 0, set(0, templateOf(256, fiveTuple...)))}, "left out: 1 data whose template never came\nlost: 1"},
		{"a withdrawn template is gone", [][]byte{other(1, template, set(2, uint16(256), uint16(0)), record)}, "left out: 1 data whose template never came\nlost: 1"},
		{"a new template takes the place", [][]byte{other(1, template, set(2, templateOf(256, element{id: 8, length: 4}, element{id: 12, length: 4})), set(256, web, db))}, "10.0.1.5 > 10.0.2.7 0 unknown"},
		{"padding is no record", [][]byte{ipfixMessage(1, 0, template, be(uint16(256), uint16(4+13+3), tcp(web, db, 43210, 5432), []byte{0, 0, 0}))}, webToDB + "unknown"},
		{"values of any length", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, append([]element{{id: 371, length: variable}}, fiveTuple...)...)),
			set(256, short("user"), tcp(web, db, 43210, 5432), uint8(255), uint16(300), make([]byte, 300), tcp(web, db, 43210, 5432)))}, webToDB + "unknown\n" + webToDB + "unknown"},
		{"a value longer than its set", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, append([]element{{id: 371, length: variable}}, fiveTuple...)...)),
			set(256, uint8(200), tcp(web, db, 43210, 5432)))}, "bad: a record is longer than its set"},
		{"records without length have no end", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, element{id: 8})), set(256, uint32(1)))}, "left out: 1 data whose template never came\nleft out: 1 template of records without length\nlost: 1"},
		{"a template with more fields than it has", [][]byte{ipfixMessage(1, 0, set(2, uint16(256), uint16(9000), uint32(1)))}, "bad: not a whole message: unexpected EOF"},
		{"a number that no template may have", [][]byte{ipfixMessage(1, 0, set(2, templateOf(9, fiveTuple...)))}, "left out: 1 template with an impossible number"},
		{"not a datagram of any format", [][]byte{[]byte("GET / HTTP/1.1\r\n\r\n"), {}, {0, 10}}, "left out: 3 packet that is no flow export"},
	})
}

func TestSampling(t *testing.T) {
	counted := append(slices.Clone(fiveTuple), element{id: 1, length: 4}, element{id: 2, length: 4})
	sampler := append(slices.Clone(counted), element{id: 302, length: 1})
	record := be(tcp(web, db, 43210, 5432), uint32(100), uint32(2))
	options := func(scope element, fields ...element) []byte {
		return set(3, uint16(300), uint16(1+len(fields)), uint16(1), fieldsOf(scope), fieldsOf(fields...))
	}
	exporter := element{id: 144, length: 4}
	note := "\nleft out: 1 exporter's description of itself"
	checkDatagrams(t, []datagramRow{
		{"one in so many", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, counted...)), options(exporter, element{id: 34, length: 4}), set(300, uint32(1), uint32(100)), set(256, record))}, webToDB + "unknown 10000B/200" + note},
		{"so many and a pause", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, counted...)), options(exporter, element{id: 305, length: 4}, element{id: 306, length: 4}), set(300, uint32(1), uint32(1), uint32(9)), set(256, record))}, webToDB + "unknown 1000B/20" + note},
		{"so many of a population", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, counted...)), options(exporter, element{id: 309, length: 4}, element{id: 310, length: 4}), set(300, uint32(1), uint32(2), uint32(64)), set(256, record))}, webToDB + "unknown 3200B/64" + note},
		{"with a probability", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, counted...)), options(exporter, element{id: 311, length: 8}), set(300, uint32(1), 0.05), set(256, record))}, webToDB + "unknown 2000B/40" + note},
		{"that of its own sampler", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, sampler...)), options(element{id: 302, length: 1}, element{id: 34, length: 4}), set(300, uint8(7), uint32(50)), set(256, record, uint8(7), record, uint8(8)))}, webToDB + "unknown 5000B/100\n" + webToDB + "unknown 100B/2" + note},
		{"in the record itself", [][]byte{ipfixMessage(1, 0, set(2, templateOf(256, append(slices.Clone(counted), element{id: 34, length: 4})...)), set(256, record, uint32(3)))}, webToDB + "unknown 300B/6"},
		{"in the header of NetFlow 5", [][]byte{netflow5Message(0, 1<<14|10, netflow5Flow(web, db, 43210, 5432, 2, 100, 0x1b, 6))}, webToDB + "unknown 1000B/20"},
		{"of NetFlow 9", [][]byte{netflow9Message(1, 0, set(0, templateOf(256, counted...)), set(1, uint16(300), uint16(4), uint16(4), uint16(1), uint16(4), uint16(34), uint16(4)), set(300, uint32(1), uint32(10)), set(256, record))}, webToDB + "unknown 1000B/20" + note},
		{"a product beyond all numbers", [][]byte{with([]element{{id: 1, length: 8}, {id: 34, length: 4}}, ^uint64(0), uint32(9))}, "bad: it counts 18446744073709551615, which no record can: a counter that wrapped"},
	})
}

func TestSequences(t *testing.T) {
	ipfix := func(sequence uint32, n int) []byte {
		return ipfixMessage(1, sequence, set(2, templateOf(256, fiveTuple...)), set(256, bytes.Repeat(tcp(web, db, 1, 2), n)))
	}
	five := func(sequence uint32) []byte {
		return netflow5Message(sequence, 0, netflow5Flow(web, db, 1, 2, 3, 4, 0, 6))
	}
	nine := func(sequence uint32) []byte {
		return netflow9Message(1, sequence, set(0, templateOf(256, fiveTuple...)))
	}
	sample := func(sequence, drops uint32) []byte { return sflowDatagram(sflowSample(sequence, drops, 1)) }
	rows := []struct {
		name      string
		datagrams [][]byte
		want      uint64
	}{
		{"IPFIX counts records", [][]byte{ipfix(100, 2), ipfix(102, 3), ipfix(105, 1)}, 0},
		{"and so what is missing", [][]byte{ipfix(100, 2), ipfix(112, 1)}, 10},
		{"what comes late is not lost", [][]byte{ipfix(100, 2), ipfix(105, 1), ipfix(102, 3), ipfix(106, 1)}, 0},
		{"nobody knows how many wait", [][]byte{ipfixMessage(1, 100, set(400, uint32(1))), ipfix(105, 1)}, 1},
		{"a start at 0 is no loss", [][]byte{ipfix(1<<31, 2), ipfix(0, 1), ipfix(1, 1)}, 0},
		{"numbers go round", [][]byte{ipfix(1<<32-1, 2), ipfix(1, 1), ipfix(4, 1)}, 2},
		{"NetFlow 5 counts records", [][]byte{five(7), five(8), five(11)}, 2},
		{"NetFlow 9 counts datagrams", [][]byte{nine(7), nine(8), nine(11)}, 2},
		{"sFlow counts samples", [][]byte{sample(7, 0), sample(8, 0), sample(11, 0)}, 2},
		{"and what it had to drop", [][]byte{sample(7, 5), sample(8, 9)}, 4},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d, _ := NewDatagrams(context.Background(), "udp", Options{}, func(policies.Flow) error { return nil })
			for _, b := range row.datagrams {
				if err := d.Decode(b, exporter1, time.Time{}); err != nil {
					t.Fatal(err)
				}
			}
			if got := d.Finish(); got.Lost != row.want {
				t.Errorf("%d are lost, not %d (%+v)", got.Lost, row.want, got)
			}
		})
	}
}

// antreaRecord is what Antrea's aggregator exports of web to db.
func antreaRecord(toPod string, flowType, egress, ingress uint8) []byte {
	const pen = antreaElements
	more := []element{
		{100, variable, pen},
		{101, variable, pen},
		{102, variable, pen},
		{103, variable, pen},
		{137, 1, pen},
		{112, variable, pen},
		{113, variable, pen},
		{118, 1, pen},
		{140, 1, pen},
		{110, variable, pen},
		{115, 1, pen},
		{139, 1, pen},
		{143, variable, pen},
	}
	return with(more, short("shop"), short("web-1"), short("shop"), short(toPod), flowType,
		short("allow-db"), short("shop"), uint8(1), egress, short("lock"), uint8(3), ingress, short(`{"app":"web"}`))
}

func TestAntrea(t *testing.T) {
	const (
		ends  = "shop/web-1=10.0.1.5:43210map[app:web] > shop/db-0=10.0.2.7:5432 TCP "
		rules = " shop/allow-db:allow lock:"
	)
	checkDatagrams(t, []datagramRow{
		{"allowed by both", [][]byte{antreaRecord("db-0", 1, 1, 1)}, ends + "allow" + rules + "allow"},
		{"dropped by one", [][]byte{antreaRecord("db-0", 1, 1, 2)}, ends + "deny" + rules + "deny"},
		{"rejected by one", [][]byte{antreaRecord("db-0", 1, 1, 3)}, ends + "deny" + rules + "deny"},
		{"no rule said anything", [][]byte{antreaRecord("db-0", 1, 1, 0)}, ends + "allow" + rules + "none"},
		{"seen leaving for another node", [][]byte{antreaRecord("", 2, 1, 0)}, "shop/web-1=10.0.1.5:43210map[app:web] > 10.0.2.7:5432 TCP allow egress only" + rules + "none"},
	})
}

func TestSFlow(t *testing.T) {
	sample := func(output uint32, header []byte) [][]byte {
		return [][]byte{sflowDatagram(sflowSample(1, 0, output, sampledHeader(header)))}
	}
	tagged := frame(t, ethernet(layers.EthernetTypeQinQ), &layers.Dot1Q{VLANIdentifier: 5, Type: layers.EthernetTypeDot1Q}, &layers.Dot1Q{VLANIdentifier: 7, Type: layers.EthernetTypeIPv4},
		ipHeader(web, db, layers.IPProtocolUDP), &layers.UDP{SrcPort: 40000, DstPort: 53})
	expanded := func(records uint32) []byte {
		b := be(uint32(1), uint32(0), uint32(7), uint32(1000), uint32(1), uint32(0), uint32(0), uint32(3), uint32(1), uint32(258), records, sampledHeader(tcpFrame(t, web, db, 43210, 5432, true, false)))
		return sflowDatagram(be(uint32(3), uint32(len(b)), b))
	}
	counters := be(uint32(2), uint32(12), uint32(1), uint32(7), uint32(0))
	vendor := be(uint32(4413<<12|1), uint32(4), uint32(1))
	ipv4 := be(uint32(3), uint32(32), uint32(90), uint32(17), web, db, uint32(40000), uint32(53), uint32(0), uint32(0))
	syn := tcpFrame(t, web, db, 43210, 5432, true, false)
	checkDatagrams(t, []datagramRow{
		{"a packet stands for as many as were not looked at", sample(4, syn), webToDB + "unknown 1500000B/1000"},
		{"a SYN-ACK is turned round", sample(4, tcpFrame(t, db, web, 5432, 43210, true, true)), webToDB + "unknown back 1500000B/1000"},
		{"in the middle, nobody knows who called", sample(4, tcpFrame(t, db, web, 5432, 43210, false, true)), "10.0.2.7:5432 > 10.0.1.5:43210 TCP unknown 1500000B/1000"},
		{"two VLAN tags", sample(4, tagged), "10.0.1.5:40000 > 10.0.2.7:53 UDP unknown 1500000B/1000"},
		{"IPv6", sample(4, tcpFrame(t, ip("2001:db8::1"), ip("2001:db8::2"), 1, 443, true, false)), "2001:db8::1:1 > 2001:db8::2:443 TCP unknown 1500000B/1000"},
		{"discarded for an access list", sample(1<<30|258, syn), webToDB + "deny 1500000B/1000"},
		{"discarded for want of buffers", sample(1<<30|259, syn), "left out: 1 dropped, but not by policy: sFlow reason 259"},
		{"an expanded sample says so too", [][]byte{expanded(1)}, webToDB + "deny 1500000B/1000"},
		{"more records than there are", [][]byte{expanded(1 << 31)}, "bad: the sample announces more records than it has"},
		{"without the header itself", [][]byte{sflowDatagram(sflowSample(1, 0, 4, ipv4))}, "10.0.1.5:40000 > 10.0.2.7:53 UDP unknown 90000B/1000"},
		{"counters and strangers", [][]byte{sflowDatagram(counters, vendor, sflowSample(1, 0, 4, ipv4))}, "10.0.1.5:40000 > 10.0.2.7:53 UDP unknown 90000B/1000\nleft out: 1 interface counters\nleft out: 1 sample of an unknown format"},
		{"not IP", sample(4, frame(t, ethernet(layers.EthernetTypeARP), gopacket.Payload(make([]byte, 28)))), "left out: 1 sample of a packet that is not IP"},
		{"fewer samples than announced", [][]byte{be(uint32(5), uint32(1), ip("192.0.2.9"), uint32(0), uint32(1), uint32(1000), uint32(2))}, "bad: there are fewer samples than the header says"},
		{"more samples than fit", [][]byte{be(uint32(5), uint32(1), ip("192.0.2.9"), uint32(0), uint32(1), uint32(1000), uint32(1<<31))}, "bad: 2147483648 samples are more than fit into a datagram"},
	})
}

func TestDatagramsOfOneFormat(t *testing.T) {
	got := became(t, Options{Format: "netflow"}, with(nil), netflow5Message(0, 0, netflow5Flow(web, db, 43210, 5432, 2, 100, 0x1b, 6)))
	equal(t, got, webToDB+"unknown 100B/2\nleft out: 1 flow export of the format ipfix")
	if _, err := NewDatagrams(context.Background(), "udp", Options{Format: "hubble"}, nil); err == nil {
		t.Error("hubble comes in no datagrams")
	}
}

func TestCaptures(t *testing.T) {
	datagram := with(nil)
	plain := udpPacket(t, exporter1, datagram)
	payload := gopacket.Payload(plain)
	cooked := be(uint16(0), uint16(1), uint16(6), make([]byte, 8), uint16(0x0800), plain)
	cooked2 := be(uint16(0x0800), uint16(0), uint32(2), uint16(1), uint8(0), uint8(6), make([]byte, 8), plain)
	// Behind IPv4's header of 20 bytes, what goes into a fragment is a multiple of 8.
	fragment := func(from, to int, more bool) []byte {
		h := &layers.IPv4{Version: 4, Id: 77, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: exporter1.AsSlice(), DstIP: ip("192.0.2.100").AsSlice(), FragOffset: uint16(from / 8)}
		if more {
			h.Flags = layers.IPv4MoreFragments
		}
		return frame(t, h, gopacket.Payload(plain[20+from:20+to]))
	}
	end := len(plain) - 20
	const flow, waits = webToDB + "unknown", "\nleft out: 1 fragment of a packet: counted with the last one"
	rows := []struct {
		name    string
		link    layers.LinkType
		packets [][]byte
		want    string
	}{
		{"Ethernet", layers.LinkTypeEthernet, [][]byte{frame(t, ethernet(layers.EthernetTypeIPv4), payload)}, flow},
		{"a VLAN", layers.LinkTypeEthernet, [][]byte{frame(t, ethernet(layers.EthernetTypeDot1Q), &layers.Dot1Q{Type: layers.EthernetTypeIPv4}, payload)}, flow},
		{"a VLAN in a VLAN", layers.LinkTypeEthernet, [][]byte{frame(t, ethernet(layers.EthernetTypeQinQ), &layers.Dot1Q{Type: layers.EthernetTypeDot1Q}, &layers.Dot1Q{Type: layers.EthernetTypeIPv4}, payload)}, flow},
		{"all interfaces", layers.LinkTypeLinuxSLL, [][]byte{cooked}, flow},
		{"all interfaces, anew", layers.LinkTypeLinuxSLL2, [][]byte{cooked2}, flow},
		{"no link", layers.LinkTypeRaw, [][]byte{plain}, flow},
		{"no link, IPv6", 12, [][]byte{udpPacket(t, ip("2001:db8::1"), datagram)}, flow},
		{"loopback", layers.LinkTypeNull, [][]byte{be([]byte{2, 0, 0, 0}, plain)}, flow},
		{"an unknown link", layers.LinkTypePPP, [][]byte{plain}, "left out: 1 packet of the link type PPP"},
		{"other traffic", layers.LinkTypeEthernet, [][]byte{tcpFrame(t, web, db, 1, 2, true, false), frame(t, ethernet(layers.EthernetTypeARP))}, "left out: 2 packet that is no flow export"},
		{"fragments", layers.LinkTypeRaw, [][]byte{fragment(0, 24, true), fragment(24, end, false)}, flow + waits},
		{"fragments in the other order", layers.LinkTypeRaw, [][]byte{fragment(24, end, false), fragment(0, 24, true)}, flow + waits},
		{"a fragment alone", layers.LinkTypeRaw, [][]byte{fragment(0, 24, true)}, strings.TrimSpace(waits)},
		{"each exporter has its templates", layers.LinkTypeRaw, [][]byte{udpPacket(t, exporter1, ipfixMessage(1, 0, set(2, templateOf(256, fiveTuple...)))), udpPacket(t, ip("192.0.2.2"), ipfixMessage(1, 0, set(256, tcp(web, db, 1, 2))))}, "left out: 1 data whose template never came\nlost: 1"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			file := captureOf(t, row.link, row.packets...)
			flows, stats, err := read(t, string(file), Options{})
			if err != nil {
				t.Fatal(err)
			}
			var lines []string
			for _, f := range flows {
				lines = append(lines, told(f))
			}
			equal(t, strings.Join(append(lines, besides(stats)...), "\n"), row.want)
		})
	}
}

// TestExampleCaptures writes the example captures, which no other program made.
func TestExampleCaptures(t *testing.T) {
	packets := func(datagrams ...[]byte) (all [][]byte) {
		for _, b := range datagrams {
			all = append(all, udpPacket(t, exporter1, b))
		}
		return all
	}
	counted := append(slices.Clone(fiveTuple), element{id: 1, length: 4}, element{id: 2, length: 4})
	testkit.Golden(t, "testdata/ipfix.pcap", captureOf(t, layers.LinkTypeRaw, packets(one(89, uint8(64)), one(89, uint8(130)), antreaRecord("db-0", 1, 1, 3))...))
	testkit.Golden(t, "testdata/netflow.pcap", captureOf(t, layers.LinkTypeRaw, packets(
		netflow9Message(1, 7, set(256, tcp(web, db, 43210, 5432), uint32(4000), uint32(10))),
		netflow9Message(1, 8, set(0, templateOf(256, counted...))),
		netflow5Message(0, 1<<14|10, netflow5Flow(web, db, 43210, 5432, 2, 100, 0x1b, 6)))...))
	testkit.Golden(t, "testdata/sflow.pcap", captureOf(t, layers.LinkTypeRaw, packets(
		sflowDatagram(sflowSample(1, 0, 4, sampledHeader(tcpFrame(t, db, web, 5432, 43210, true, true)))),
		sflowDatagram(sflowSample(2, 3, 1<<30|258, sampledHeader(tcpFrame(t, web, db, 43211, 5432, true, false)))))...))
}

// TestCaptureFiles holds the kinds of capture file to one another.
func TestCaptureFiles(t *testing.T) {
	packet := udpPacket(t, exporter1, with(nil))
	info := gopacket.CaptureInfo{Timestamp: time.Unix(exportedAt, 0), CaptureLength: len(packet), Length: len(packet)}
	write := func(w interface {
		WritePacket(gopacket.CaptureInfo, []byte) error
	}, err error,
	) {
		t.Helper()
		if err == nil {
			err = w.WritePacket(info, packet)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	var micro, nano, next bytes.Buffer
	w := pcapgo.NewWriter(&micro)
	write(w, w.WriteFileHeader(65535, layers.LinkTypeRaw))
	w = pcapgo.NewWriterNanos(&nano)
	write(w, w.WriteFileHeader(65535, layers.LinkTypeRaw))
	ng, err := pcapgo.NewNgWriter(&next, layers.LinkTypeRaw)
	write(ng, err)
	if err := ng.Flush(); err != nil {
		t.Fatal(err)
	}
	big := be(uint32(0xa1b2c3d4), uint16(2), uint16(4), uint32(0), uint32(0), uint32(65535), uint32(101), uint32(exportedAt), uint32(0), uint32(len(packet)), uint32(len(packet)), packet)
	for name, file := range map[string][]byte{"microseconds": micro.Bytes(), "nanoseconds": nano.Bytes(), "big-endian": big, "pcapng": next.Bytes(), "gzip": zip(t, micro.String())} {
		t.Run(name, func(t *testing.T) {
			flows, stats, err := read(t, string(file), Options{})
			if err != nil || len(flows) != 1 {
				t.Fatalf("%d flows, %+v, %v", len(flows), stats, err)
			}
			at := time.Unix(exportedAt, 0).UTC()
			equal(t, flows[0], policies.Flow{
				First: at, Last: at, From: policies.FlowPeer{Address: web}, To: policies.FlowPeer{Address: db}, Protocol: 6, SourcePort: 43210, Port: 5432,
				Verdict: policies.Unknown, Count: 1, Origin: policies.Origin{Format: "ipfix", Reporter: policies.OnTheWay}, Record: policies.Place{File: "f.log", Line: 1},
			})
		})
	}
	cut := micro.String()[:micro.Len()-3]
	if _, _, err := read(t, micro.String()+cut[24:], Options{}); err == nil || !strings.Contains(err.Error(), "f.log:2: ") || !strings.Contains(err.Error(), "ends within a packet") {
		t.Error(err)
	}
	if _, _, err := read(t, micro.String()[:10], Options{}); err == nil || !strings.Contains(err.Error(), "capture") {
		t.Error(err)
	}
	if _, _, err := read(t, forwarded, Options{Format: "ipfix"}); err == nil || !strings.Contains(err.Error(), "neither pcap nor pcapng") {
		t.Error(err)
	}
}

// TestWaitingIsBounded sends more data without a template than may wait.
func TestWaitingIsBounded(t *testing.T) {
	d, _ := NewDatagrams(context.Background(), "udp", Options{}, func(policies.Flow) error { return nil })
	big := ipfixMessage(1, 0, set(300, make([]byte, 60_000)))
	for range 200 {
		if err := d.Decode(big, exporter1, time.Time{}); err != nil {
			t.Fatal(err)
		}
		if d.waiting.bytes > maxWaiting+60_000 {
			t.Fatalf("%d bytes wait", d.waiting.bytes)
		}
	}
	if s := d.Finish(); s.Lost != 200 || s.Records() != 200 {
		t.Errorf("%+v", s)
	}
}

// FuzzDatagrams feeds the decoder datagrams of any kind, two from one exporter.
func FuzzDatagrams(f *testing.F) {
	template := ipfixMessage(1, 0, set(2, templateOf(256, fiveTuple...)))
	for _, seed := range [][2][]byte{
		{template, ipfixMessage(1, 0, set(256, tcp(web, db, 43210, 5432)))},
		{ipfixMessage(1, 0, set(256, tcp(web, db, 43210, 5432))), template},
		{antreaRecord("db-0", 1, 1, 2), one(311, 0.01)},
		{netflow9Message(1, 0, set(0, templateOf(256, fiveTuple...)), set(1, uint16(300), uint16(4), uint16(4), uint16(1), uint16(4), uint16(34), uint16(4)), set(300, uint32(1), uint32(10))), netflow9Message(1, 2, set(256, tcp(web, db, 1, 2)))},
		{netflow5Message(0, 0, netflow5Flow(web, db, 1, 2, 3, 4, 0x12, 6)), nil},
		{sflowDatagram(sflowSample(1, 0, 4, sampledHeader(tcpFrame(f, web, db, 43210, 5432, true, true)))), nil},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, a, b []byte) {
		flows := uint64(0)
		d, err := NewDatagrams(context.Background(), "udp", Options{}, func(f policies.Flow) error {
			flows++
			if f.Last.Before(f.First) || f.Count == 0 || !f.From.Address.IsValid() {
				t.Errorf("%+v", f)
			}
			return flowline.NewWriter(&bytes.Buffer{}).Write(f)
		})
		if err != nil {
			t.Fatal(err)
		}
		for _, datagram := range [][]byte{a, b} {
			if err := d.Decode(datagram, netip.IPv4Unspecified(), time.Unix(exportedAt, 0)); err != nil {
				t.Fatal(err)
			}
		}
		if s := d.Finish(); s.Flows != flows || d.waiting.bytes != 0 {
			t.Errorf("%d flows, %+v", flows, s)
		}
	})
}
