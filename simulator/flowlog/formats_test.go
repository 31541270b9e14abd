package flowlog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// tell says in one line what a test is about: the ends, the verdict, and what
// else is there.
func tell(f policies.Flow) string {
	s := fmt.Sprintf("%s:%d > %s %s %d %s", f.From.Address, f.SourcePort, f.To.Address, f.Protocol, f.Port, f.Verdict)
	for _, word := range []struct {
		is   bool
		text string
	}{
		{f.EgressOnly, "egress only"},
		{f.Origin.Reporter != policies.UnknownReporter, "by " + f.Origin.Reporter.String()},
		{f.Count != 1, fmt.Sprintf("%d times", f.Count)},
		{f.Bytes+f.ReplyBytes != 0, fmt.Sprintf("%d/%d bytes", f.Bytes, f.ReplyBytes)},
		{f.Origin.Window != 0, "in " + f.Origin.Window.String()},
		{f.From.Outside, "from outside"},
		{f.To.Outside, "to outside"},
		{f.To.Host, "to a node"},
		{len(f.To.Names) > 0, "to " + strings.Join(f.To.Names, " ")},
	} {
		if word.is {
			s += ", " + word.text
		}
	}
	return s
}

// becomes says what became of a file: its flows, then what was left out, bad or
// lost.
func becomes(t *testing.T, text string, o Options) string {
	t.Helper()
	flows, stats, err := read(t, text, o)
	var lines []string
	for _, f := range flows {
		lines = append(lines, tell(f))
	}
	for _, cause := range slices.Sorted(maps.Keys(stats.LeftOut)) {
		lines = append(lines, fmt.Sprintf("left out: %d %s", stats.LeftOut[cause], cause))
	}
	for _, p := range stats.FirstBad {
		lines = append(lines, fmt.Sprintf("bad: %d: %s", p.Place.Line, p.Message))
	}
	if stats.Lost > 0 {
		lines = append(lines, fmt.Sprintf("lost: %d", stats.Lost))
	}
	if err != nil {
		lines = append(lines, "error: "+err.Error())
	}
	return strings.Join(lines, "\n")
}

type formatRow struct{ name, text, want string }

func testRows(t *testing.T, format string, rows []formatRow) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := becomes(t, row.text, Options{Format: format}); got != row.want {
				t.Errorf("%s\ngot  %s\nwant %s", row.text, got, row.want)
			}
		})
	}
}

func TestAWS(t *testing.T) {
	const (
		five  = "srcaddr dstaddr srcport dstport protocol action"
		flags = five + " tcp-flags flow-direction\n"
		ends  = "10.0.0.1 10.0.0.2 40000 443 6 "
		whole = "2 1 eni-1 10.0.0.1 10.0.0.2 40000 443 6 3 180 1772359200 1772359260 ACCEPT OK"
	)
	header := "left out: 1 header row"
	testRows(t, "", []formatRow{
		{"version 2", whole, "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, 180/0 bytes, in 1m0s"},
		{"behind the time of CloudWatch", "2026-03-01T10:00:00.000Z " + whole, "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, 180/0 bytes, in 1m0s"},
		{"a header of version 2", "version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status\n" + whole, "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, 180/0 bytes, in 1m0s\n" + header},
		{"rejected", five + "\n" + ends + "REJECT", "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny\n" + header},
		{"any order", "action dstport dstaddr srcaddr protocol\nREJECT 443 10.0.0.2 10.0.0.1 17", "10.0.0.1:0 > 10.0.0.2 UDP 443 deny\n" + header},
		{"underscores as in tables", "pkt_srcaddr pkt_dstaddr flow_direction\n10.0.0.1 10.0.0.2 egress", "10.0.0.1:0 > 10.0.0.2 0 0 unknown, by source\n" + header},
		{"absent is absent", five + "\n- - - - - -", "invalid IP:0 > invalid IP 0 0 unknown\n" + header},
		{"a field of the future", "srcaddr dstaddr mood\n10.0.0.1 10.0.0.2 fine", "10.0.0.1:0 > 10.0.0.2 0 0 unknown\n" + header},
		{
			"each header counts for what follows", "srcaddr dstaddr\n10.0.0.1 10.0.0.2\ndstaddr srcaddr\n10.0.0.1 10.0.0.2",
			"10.0.0.1:0 > 10.0.0.2 0 0 unknown\n10.0.0.2:0 > 10.0.0.1 0 0 unknown\nleft out: 2 header row",
		},
		{"the packet's addresses come first", "srcaddr dstaddr pkt-srcaddr pkt-dstaddr\n10.0.0.1 10.0.0.2 10.9.0.1 -", "10.9.0.1:0 > 10.0.0.2 0 0 unknown\n" + header},
		{"IPv4 in IPv6", "srcaddr dstaddr\n::ffff:10.0.0.1 2001:db8::1", "10.0.0.1:0 > 2001:db8::1 0 0 unknown\n" + header},

		{"SYN opens", flags + ends + "ACCEPT 2 ingress", "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by destination\n" + header},
		{"SYN and FIN: it was answered", flags + ends + "ACCEPT 3 egress", "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source\n" + header},
		{"SYN-ACK is turned round", flags + ends + "ACCEPT 18 egress", "10.0.0.2:443 > 10.0.0.1 TCP 40000 allow, by destination\n" + header},
		{"in the middle nobody knows who opened", flags + ends + "ACCEPT 0 egress", "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown, by source\n" + header},
		{"flags that were not recorded", flags + ends + "ACCEPT - egress", "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source\n" + header},
		{"a rejected packet opens", flags + ends + "REJECT 0 ingress", "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny, by destination\n" + header},
		{"a rejected reply", flags + ends + "REJECT 18 ingress", header + "\nleft out: 1 rejected reply: it says nothing about the request"},
		{"rejected by Block Public Access", "action reject-reason\nREJECT BPA", header + "\nleft out: 1 rejected, but not by policy: BPA"},

		{"no data", "2 1 eni-1 - - - - - - - 1 2 - NODATA", "left out: 1 NODATA: no traffic in the time of the record"},
		{"skipped data", "2 1 eni-1 - - - - - - - 1 2 - SKIPDATA", "left out: 1 SKIPDATA: report of lost records\nlost: 1"},

		{"an address", five + "\n10.0.0.256 10.0.0.2 1 2 6 ACCEPT", header + "\nbad: 2: srcaddr \"10.0.0.256\" is no IP address"},
		{"an address with zeros before it", five + "\n10.0.0.01 10.0.0.2 1 2 6 ACCEPT", header + "\nbad: 2: srcaddr \"10.0.0.01\" is no IP address"},
		{"a port", five + "\n10.0.0.1 10.0.0.2 1 65536 6 ACCEPT", header + "\nbad: 2: dstport \"65536\" is no whole number from 0 to 65535"},
		{"a number", five + "\n10.0.0.1 10.0.0.2 1 x 6 ACCEPT", header + "\nbad: 2: dstport \"x\" is no whole number from 0 to 65535"},
		{"a protocol", five + "\n10.0.0.1 10.0.0.2 1 2 256 ACCEPT", header + "\nbad: 2: protocol \"256\" is no whole number from 0 to 255"},
		{"an action", five + "\n" + ends + "MAYBE", header + "\nbad: 2: action \"MAYBE\" is neither ACCEPT nor REJECT"},
		{"a direction", flags + ends + "ACCEPT 2 up", header + "\nbad: 2: flow-direction \"up\" is neither ingress nor egress"},
		{"an end before its start", "start end\n1772359260 1772359200", header + "\nbad: 2: end 2026-03-01T10:00:00Z is before start 2026-03-01T10:01:00Z"},
		{"too many fields", five + "\n" + ends + "ACCEPT OK", header + "\nbad: 2: line has 7 fields, and should have 6"},
	})
	testRows(t, "aws-vpc", []formatRow{
		{"a custom format without its header", ends + "ACCEPT", "bad: 1: this is no aws-vpc record (it is no line of the 14 fields of version 2, and no header row stands before it); leave out the format to have each record looked at"},
	})
}

func TestGCP(t *testing.T) {
	record := func(rest string) string {
		return `{"connection":{"src_ip":"10.0.0.1","src_port":40000,"dest_ip":"10.0.0.2","dest_port":443,"protocol":6},"reporter":"SRC"` + rest + `}`
	}
	testRows(t, "", []formatRow{
		{"bare", record(""), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"a log entry", `{"jsonPayload":` + record("") + `}`, "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"an array of log entries", "[\n{\"jsonPayload\":" + record("") + "},\n" + record("") + "]", "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source\n10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"a page of entries", `{"entries":[{"jsonPayload":` + record("") + `}]}`, "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"pages, one a line", `{"entries":[` + record("") + "]}\n{\"entries\":[" + record("") + "]}", "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source\n10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"a round trip is an answer", record(`,"rtt_msec":"3"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source"},
		{"payload was let in", record(`,"bytes_sent":"70"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source, 70/0 bytes"},
		{"payload of UDP proves nothing", strings.Replace(record(`,"bytes_sent":70`), `"protocol":6`, `"protocol":17`, 1), "10.0.0.1:40000 > 10.0.0.2 UDP 443 allow, egress only, by source, 70/0 bytes"},
		{"seen where it arrived", strings.Replace(record(""), "SRC", "DEST", 1), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by destination"},
		{"seen at a gateway", strings.Replace(record(`,"dest_gateway":{"name":"vpn"}`), "SRC", "DEST_GATEWAY", 1), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by way, to outside"},
		{"from the internet", record(`,"src_location":{"country":"nld"}`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source, from outside"},
		{"a drop without its reason", record(`,"disposition":"DROPPED"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown, by source"},
		{"a Service", record(`,"dest_gke_details":{"service":[{"service_name":"web","service_namespace":"shop"}]}`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source, to web.shop.svc"},
		{"a machine", record(`,"dest_instance":{"vm_name":"db-1"}`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source, to db-1"},
		{"a pod on a machine", record(`,"dest_instance":{"vm_name":"node-1"},"dest_gke_details":{"pod":{"pod_name":"db-0","pod_namespace":"shop"}}`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"an address", strings.Replace(record(""), "10.0.0.1", "10.0.0", 1), `bad: 1: src_ip "10.0.0" is no IP address`},
		{"a time", record(`,"start_time":"noon"`), `bad: 1: start_time "noon" is not a time such as 2026-03-10T12:00:00Z`},
		{"a time that no other zone has", record(`,"end_time":"0000-01-01T00:00:00+01:00"`), `bad: 1: end_time "0000-01-01T00:00:00+01:00" is not a time such as 2026-03-10T12:00:00Z`},
		{"a port", strings.Replace(record(""), "443", "70000", 1), "bad: 1: dest_port \"70000\" is no whole number from 0 to 65535"},
		{"a negative port", strings.Replace(record(""), "443", "-1", 1), `bad: 1: dest_port "-1" is no whole number from 0 to 65535`},
		{"a reporter", strings.Replace(record(""), "SRC", "ME", 1), `bad: 1: reporter "ME" is none of SRC, DEST, SRC_GATEWAY, DEST_GATEWAY`},
		{"bytes", record(`,"bytes_sent":"many"`), `bad: 1: bytes_sent "many" is no whole number from 0 to 18446744073709551615`},
		{"an end before its start", record(`,"start_time":"2026-03-01T10:00:01Z","end_time":"2026-03-01T10:00:00Z"`), "bad: 1: end 2026-03-01T10:00:00Z is before start 2026-03-01T10:00:01Z"},
		{"another log entry", `{"jsonPayload":{"message":"hello"}}`, `bad: 1: a JSON object with the fields "jsonPayload", "jsonPayload.message" is no record of any known format`},
	})
}

func TestGKE(t *testing.T) {
	record := func(direction, rest string) string {
		return `{"connection":{"src_ip":"10.0.0.1","src_port":40000,"dest_ip":"10.0.0.2","dest_port":443,"protocol":"tcp","direction":"` + direction + `"},` + rest + `}`
	}
	testRows(t, "", []formatRow{
		{"allowed where it arrives", record("ingress", `"disposition":"allow"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by destination"},
		{"allowed where it leaves for a pod", record("egress", `"disposition":"allow","dest":{"pod_name":"db-0"}`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"},
		{"allowed to a node", record("egress", `"disposition":"allow","dest":{"node_name":"n1"}`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source, to a node"},
		{"denials are aggregated", record("ingress", `"disposition":"deny","count":7`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny, by destination, 7 times"},
		{"ICMP", strings.Replace(record("egress", `"disposition":"deny"`), "tcp", "icmp", 1), "10.0.0.1:40000 > 10.0.0.2 ICMP 443 deny, by source"},
		{"in a log entry", `{"jsonPayload":` + record("ingress", `"disposition":"deny"`) + `,"timestamp":"2026-03-01T10:00:00Z"}`, "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny, by destination"},
		{"two times", `{"timestamp":"2026-03-01T10:00:00Z","jsonPayload":` + record("ingress", `"disposition":"deny","timestamp":"noon"`) + `}`, `bad: 1: timestamp "noon" is not a time such as 2026-03-10T12:00:00Z`},
		{"a time", record("ingress", `"disposition":"deny","timestamp":"noon"`), `bad: 1: timestamp "noon" is not a time such as 2026-03-10T12:00:00Z`},
		{"a disposition", record("ingress", `"disposition":"log"`), `bad: 1: disposition "log" is neither allow nor deny`},
		{"a direction", record("up", `"disposition":"deny"`), `bad: 1: direction "up" is neither ingress nor egress`},
		{"a protocol", strings.Replace(record("ingress", `"disposition":"deny"`), "tcp", "tpc", 1), `bad: 1: protocol "tpc" is none of TCP, UDP, SCTP, ICMP, ICMPv6 or a number up to 255`},
	})
}

func TestAzure(t *testing.T) {
	vnet := func(tuples ...string) string {
		return `{"records":[{"macAddress":"0","flowRecords":{"flows":[{"flowGroups":[{"rule":"r","flowTuples":["` + strings.Join(tuples, `","`) + `"]}]}]}}]}`
	}
	nsg := func(tuples ...string) string {
		return `{"records":[{"category":"NetworkSecurityGroupFlowEvent","systemId":"0","properties":{"flows":[{"rule":"r","flows":[{"mac":"0","flowTuples":["` + strings.Join(tuples, `","`) + `"]}]}]}}]}`
	}
	const (
		ends  = "1772359200000,10.0.0.1,10.0.0.2,40000,443,6,"
		old   = "1772359200,10.0.0.1,10.0.0.2,40000,443,T,"
		fresh = "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by source"
		more  = "left out: 1 more of a connection that was counted before"
	)
	testRows(t, "", []formatRow{
		{"begin", vnet(ends + "O,B,NX,0,0,0,0"), fresh},
		{"begin, nothing counted", vnet(ends + "I,B,NX,,,,"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by destination"},
		{"begin and end are one connection", vnet(ends+"O,B,NX,0,0,0,0", ends+"O,E,NX,1,100,2,200"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source, 100/200 bytes\n" + more},
		{"its end in a later record", vnet(ends+"O,B,NX,0,0,0,0") + "\n" + vnet(ends+"O,E,NX,1,100,2,200"), fresh + "\n" + more},
		{"begun before the recording", vnet(ends + "O,C,NX,1,100,2,200"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source, 100/200 bytes"},
		{"a port that is used again", vnet(ends+"O,B,NX,0,0,0,0", ends+"O,E,NX,0,0,0,0", ends+"O,B,NX,0,0,0,0"), fresh + "\n" + fresh + "\n" + more},
		{"both sides are two connections", vnet(ends+"O,B,NX,0,0,0,0", ends+"I,B,NX,0,0,0,0"), fresh + "\n10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only, by destination"},
		{"denied", vnet(ends + "I,D,NX,0,0,0,0"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny, by destination"},
		{"dropped for want of encryption", vnet(ends + "I,D,NX_NOT_SUPPORTED,0,0,0,0"), "left out: 1 dropped, but not by policy: NX_NOT_SUPPORTED"},
		{"one bad tuple leaves the others", vnet("x", ends+"O,B,NX,0,0,0,0"), fresh + "\nbad: 1: flow tuple 1 of rule \"r\": there are 1 fields, and should be 13"},
		{"a port", vnet("1772359200000,10.0.0.1,10.0.0.2,40000,65536,6,O,B,NX,0,0,0,0"), "bad: 1: flow tuple 1 of rule \"r\": destination port \"65536\" is no whole number from 0 to 65535"},
		{"an address", vnet("1772359200000,ten,10.0.0.2,40000,1,6,O,B,NX,0,0,0,0"), "bad: 1: flow tuple 1 of rule \"r\": source \"ten\" is no IP address"},
		{"a state", vnet(ends + "O,X,NX,0,0,0,0"), "bad: 1: flow tuple 1 of rule \"r\": flow state \"X\" is none of B, C, E, D"},
		{"a direction", vnet(ends + "X,B,NX,0,0,0,0"), "bad: 1: flow tuple 1 of rule \"r\": direction \"X\" is neither I nor O"},

		{"security group, version 1", nsg(old + "O,A"), fresh},
		{"security group, version 1, denied", nsg(old + "I,D"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny, by destination"},
		{"security group, version 2", nsg(old+"O,A,B,,,,", old+"O,A,E,1,100,2,200"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, by source, 100/200 bytes\n" + more},
		{"security group, version 2, denied", nsg(old + "I,D,B,,,,"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny, by destination"},
		{"security group, a decision", nsg(old + "I,X"), "bad: 1: flow tuple 1 of rule \"r\": decision \"X\" is neither A nor D"},
		{"another category", `{"records":[{"category":"X","systemId":"0","properties":{}}]}`, "bad: 1: category \"X\" is not NetworkSecurityGroupFlowEvent"},
		{"security group, a protocol", nsg("1772359200,10.0.0.1,10.0.0.2,40000,443,X,I,A"), "bad: 1: flow tuple 1 of rule \"r\": protocol \"X\" is neither T nor U"},
	})
}

func TestNetObserv(t *testing.T) {
	record := func(rest string) string {
		return `{"SrcAddr":"10.0.0.1","DstAddr":"10.0.0.2","SrcPort":40000,"DstPort":443,"Proto":6,"TimeFlowStartMs":1772359200000,"TimeFlowEndMs":1772359200000` + rest + `}`
	}
	event := func(action, direction string) string {
		return record(`,"NetworkEvents":[{"Feature":"acl","Action":"` + action + `","Direction":"` + direction + `","Type":"NetworkPolicy","Name":"n"}]`)
	}
	testRows(t, "", []formatRow{
		{"seen, and no more", record(""), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"SYN alone may have been dropped", record(`,"Flags":2`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"a handshake was let through", record(`,"Flags":18`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow"},
		{"a SYN-ACK beside a SYN tells nothing", record(`,"Flags":258`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"flags by name", record(`,"Flags":["SYN","FIN_ACK"]`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow"},
		{"SYN-ACK is turned round", record(`,"Flags":272,"FlowDirection":1,"Bytes":7`), "10.0.0.2:443 > 10.0.0.1 TCP 40000 allow, by destination, 0/7 bytes"},
		{"in the middle nobody knows who opened", record(`,"Flags":16`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"UDP tells nothing", strings.Replace(record(`,"Flags":18`), `"Proto":6`, `"Proto":17`, 1), "10.0.0.1:40000 > 10.0.0.2 UDP 443 unknown"},
		{"where it arrives", record(`,"FlowDirection":"0"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown, by destination"},
		{"within a node", record(`,"FlowDirection":2`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"a duplicate", record(`,"Duplicate":true`), "left out: 1 duplicate: the flow was seen on another interface too"},
		{"a conversation counts once", record(`,"_RecordType":"newConnection","_HashId":"a"`) + "\n" + record(`,"_RecordType":"endConnection","_HashId":"a"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown\nleft out: 1 more of a conversation that was counted before"},
		{"policy allowed it in", event("allow-related", "Ingress"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow"},
		{"policy let it out", event("allow", "Egress"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 allow, egress only"},
		{"policy dropped it", event("drop", "Egress"), "10.0.0.1:40000 > 10.0.0.2 TCP 443 deny"},
		{"events for people", record(`,"NetworkEvents":["Allowed by default"]`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"behind a Service", record(`,"DstK8S_Type":"Service","DstK8S_Name":"web","DstK8S_Namespace":"shop","XlatDstAddr":"10.0.0.9","XlatDstPort":8443`), "10.0.0.1:40000 > 10.0.0.9 TCP 8443 unknown, to web.shop.svc"},
		{"a node", record(`,"DstK8S_Type":"Node","DstK8S_Name":"n1"`), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown, to a node"},
		{"ICMP", strings.Replace(record(`,"IcmpType":3,"IcmpCode":1`), `"Proto":6`, `"Proto":1`, 1), "10.0.0.1:0 > 10.0.0.2 ICMP 769 unknown"},
		{"a port", strings.Replace(record(""), "443", "65536", 1), "bad: 1: DstPort \"65536\" is no whole number from 0 to 65535"},
		{"an address", strings.Replace(record(""), "10.0.0.2", "10.0.0.2.1", 1), `bad: 1: DstAddr "10.0.0.2.1" is no IP address`},
		{"IPv4 in IPv6", strings.Replace(record(""), "10.0.0.2", "::ffff:10.0.0.2", 1), "10.0.0.1:40000 > 10.0.0.2 TCP 443 unknown"},
		{"a direction", record(`,"FlowDirection":7`), "bad: 1: FlowDirection \"7\" is none of 0, 1, 2"},
		{"an end before its start", strings.Replace(record(""), `EndMs":1772359200000`, `EndMs":1`, 1), "bad: 1: end 1970-01-01T00:00:00.001Z is before start 2026-03-01T10:00:00Z"},
	})
}

func TestOTLP(t *testing.T) {
	record := func(pairs ...string) string {
		var attributes []string
		for i := 0; i < len(pairs); i += 2 {
			attributes = append(attributes, `{"key":"`+pairs[i]+`","value":{"stringValue":"`+pairs[i+1]+`"}}`)
		}
		return `{"timeUnixNano":"1772359200000000000","attributes":[` + strings.Join(attributes, ",") + `]}`
	}
	flow := func(pairs ...string) string {
		return record(append([]string{"source.address", "10.0.0.1", "source.port", "40000", "destination.address", "10.0.0.2", "destination.port", "443", "network.transport", "tcp"}, pairs...)...)
	}
	one := "10.0.0.1:40000 > 10.0.0.2 TCP 443 "
	testRows(t, "", []formatRow{
		{"one a line", flow(), one + "unknown"},
		{"of a resource", `{"resourceLogs":[{"scopeLogs":[{"logRecords":[` + flow() + "," + flow() + `]}]}]}`, one + "unknown\n" + one + "unknown"},
		{"several documents", "{\"resourceLogs\":[\n{\"scopeLogs\":[{\"logRecords\":[" + flow() + "]}]}\n]}\n{\"resourceLogs\":[{\"scopeLogs\":[{\"logRecords\":[" + flow() + "]}]}]}", one + "unknown\n" + one + "unknown"},
		{"an action", flow("event.action", "denied"), one + "deny"},
		{"an outcome", flow("event.action", "network_flow", "event.outcome", "success"), one + "allow"},
		{"a type is worth more than an outcome", flow("event.type", "denied", "event.outcome", "success"), one + "deny"},
		{"a direction", flow("network.io.direction", "transmit"), one + "unknown, by source"},
		{"ICMP of IPv6", record("source.ip", "2001:db8::1", "destination.ip", "2001:db8::2", "network.transport", "icmp"), "2001:db8::1:0 > 2001:db8::2 ICMPv6 0 unknown"},
		{"a name is no address", record("source.address", "web.shop", "destination.address", "db.shop"), "invalid IP:0 > invalid IP 0 0 unknown, to db.shop"},
		{"an address is worth more than a name", record("destination.domain", "db.shop", "destination.ip", "10.0.0.2"), "invalid IP:0 > 10.0.0.2 0 0 unknown"},
		{"other logs", record("service.name", "web"), "left out: 1 log record without source and destination"},
		{"a port", flow("destination.bytes", "-1"), "bad: 1: destination.bytes \"-1\" is no whole number from 0 to 18446744073709551615"},
		{"a start", flow("event.start", "noon"), "bad: 1: event.start \"noon\" is not a time such as 2026-03-10T12:00:00Z"},
		{"an end before its start", flow("event.start", "2026-03-01T10:00:00Z", "event.end", "2026-03-01T09:00:00Z"), "bad: 1: end 2026-03-01T09:00:00Z is before start 2026-03-01T10:00:00Z"},
		{"a bad direction", flow("network.direction", "up"), "bad: 1: network.direction \"up\" is none of ingress, egress, inbound, outbound, internal, external, receive, transmit"},
	})
}

// otlpMessage is log data of one flow in protobuf.
func otlpMessage() []byte {
	field := func(number protowire.Number, inside ...[]byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), bytes.Join(inside, nil))
	}
	text := func(key, value string) []byte {
		return field(otlpAttributesField, field(1, []byte(key)), field(2, field(1, []byte(value))))
	}
	port := protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 443)
	at := protowire.AppendFixed64(protowire.AppendTag(nil, otlpTimeField, protowire.Fixed64Type), 1772359200000000000)
	resource := field(otlpResourceField, field(1, field(1, []byte("k8s.pod.name")), field(2, field(1, []byte("db-0")))))
	return field(otlpResourceLogsField, resource, field(otlpScopeLogsField, field(otlpLogRecordsField, at,
		text("source.address", "10.0.0.1"), text("destination.address", "10.0.0.2"), text("network.transport", "tcp"), text("network.direction", "ingress"),
		field(otlpAttributesField, field(1, []byte("destination.port")), field(2, port)))))
}

func framed(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
}

func TestOTLPProtobuf(t *testing.T) {
	message := otlpMessage()
	two := string(append(framed(message), framed(message)...))
	const flow = "10.0.0.1:0 > 10.0.0.2 TCP 443 allow"
	want := strings.Replace(flow, "allow", "unknown, by destination", 1)
	for _, asked := range []string{"", "otlp"} {
		testRows(t, asked, []formatRow{
			{"a message", string(message), want},
			{"two messages as one", string(message) + string(message), want + "\n" + want},
			{"messages with their lengths", two, want + "\n" + want},
			{"packed", string(zip(t, two)), want + "\n" + want},
			{"cut off", two[:len(two)-3], want + "\nerror: f.log:2: protobuf ends or is damaged in this message: unexpected EOF"},
		})
	}
	flows, _, err := read(t, string(message), Options{})
	if err != nil || len(flows) != 1 || flows[0].To.Pod != "db-0" || flows[0].Protocol != netset.TCP || flows[0].First.Unix() != 1772359200 {
		t.Errorf("%+v, error %v", flows, err)
	}
	for _, text := range []string{"\n", "\n\n\n\n\n\n", "\n{\"kind\":1}\n", "\n7\n5\n"} {
		if isOTLPFile([]byte(text)) {
			t.Errorf("%q is text", text)
		}
	}
}

func TestConntrack(t *testing.T) {
	const (
		ends  = "src=10.0.0.1 dst=10.96.0.1 sport=40000 dport=443 "
		reply = "src=10.0.0.2 dst=10.0.0.1 sport=8443 dport=40000 "
		one   = "10.0.0.1:40000 > 10.0.0.2 TCP 8443 allow"
	)
	testRows(t, "", []formatRow{
		{"behind a Service", "ipv4 2 tcp 6 10 ESTABLISHED " + ends + reply + "[ASSURED] mark=0 use=1", one},
		{"without the family", "tcp 6 10 ESTABLISHED " + ends + reply + "[ASSURED] mark=0 use=1", one},
		{"without an answer", "ipv4 2 tcp 6 10 SYN_SENT " + ends + "[UNREPLIED] " + reply, one + ", egress only"},
		{"accounted", "ipv4 2 tcp 6 10 CLOSE " + ends + "packets=1 bytes=60 " + reply + "packets=2 bytes=90", one + ", 60/90 bytes"},
		{"ping", "ipv4 2 icmp 1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1", "10.0.0.1:0 > 10.0.0.2 ICMP 2048 allow"},
		{"GRE", "ipv4 2 gre 47 29 src=10.0.0.1 dst=10.0.0.2 srckey=0x0 dstkey=0x1 src=10.0.0.2 dst=10.0.0.1 srckey=0x1 dstkey=0x0", "10.0.0.1:0 > 10.0.0.2 47 0 allow"},
		{"a number without a name", "ipv4 2 unknown 112 599 src=10.0.0.1 dst=10.0.0.2 [UNREPLIED] src=10.0.0.2 dst=10.0.0.1", "10.0.0.1:0 > 10.0.0.2 112 0 allow, egress only"},
		{"an event before an answer", "    [NEW] tcp 6 120 SYN_SENT " + ends + "[UNREPLIED] " + reply, "left out: 1 event before an answer: the connection is counted when it is answered, or ends"},
		{"an answer", " [UPDATE] tcp 6 60 SYN_RECV " + ends + reply, one},
		{
			"a whole life counts once", " [UPDATE] tcp 6 60 SYN_RECV " + ends + reply + "\n [UPDATE] tcp 6 60 ESTABLISHED " + ends + reply + "\n[DESTROY] tcp 6 " + ends + reply,
			one + "\nleft out: 1 change of a connection that was counted before\nleft out: 1 end of a connection that was counted before",
		},
		{"an end of what was not seen before", "[DESTROY] tcp 6 " + ends + "[UNREPLIED] " + reply, one + ", egress only"},
		{"another zone is another connection", " [UPDATE] tcp 6 60 " + ends + reply + "zone=1\n [UPDATE] tcp 6 60 " + ends + reply + "zone=2", one + "\n" + one},
		{"its own summary", "conntrack v1.4.8 (conntrack-tools): 6 flow entries have been shown.", "left out: 1 conntrack's own summary"},
		{"XML", `<?xml version="1.0" encoding="utf-8"?>`, "bad: 1: conntrack's XML is not read; record with 'conntrack -L -o extended', or 'conntrack -E -o extended,timestamp'"},
		{"an address", "ipv4 2 udp 17 10 src=10.0.0.1 dst=web sport=1 dport=2 " + reply, `bad: 1: dst "web" is no IP address`},
		{"a port", "ipv4 2 udp 17 10 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=65536 " + reply, "bad: 1: dport \"65536\" is no whole number from 0 to 65535"},
		{"one direction", "ipv4 2 udp 17 10 src=10.0.0.1 dst=10.0.0.2 sport=1 dport=2", "bad: 1: the reply direction has no src and dst"},
		{"three directions", "ipv4 2 udp 17 10 " + ends + reply + reply, "bad: 1: there are more than two directions"},
		{"a protocol", "ipv4 2 tcp six 10 " + ends + reply, `bad: 1: protocol "six" is no whole number from 0 to 255`},
		{"an event", "[LATER] tcp 6 " + ends + reply, `bad: 1: event "LATER" is none of NEW, UPDATE, DESTROY`},
		{"a line that is none", "tcp 6 10 CLOSE " + ends + reply + "\nhello", one + "\nbad: 2: line ends before the protocol's number"},
	})
}
