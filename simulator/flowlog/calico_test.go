package flowlog

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var (
	webPods = policies.FlowPeer{
		Namespace: "shop", PodPrefix: "web-7c9f8d5b6-",
		Labels: map[string]string{"app": "web", "pod-template-hash": "7c9f8d5b6", "team": "shop"}, LabelsPartial: true,
	}
	dbPods = policies.FlowPeer{
		Namespace: "shop", PodPrefix: "db-",
		Labels: map[string]string{"app": "db", "apps.kubernetes.io/pod-index": "0", "team": "shop"}, LabelsPartial: true,
	}
	tenHours  = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	shopTrace = []policies.Hit{
		{Tier: "security", Policy: policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkPolicy", Name: "security.tenant-shop"}, Action: policies.ActionPass, Rule: 1},
		{Tier: "default", Policy: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "web-egress"}, Action: policies.ActionAllow},
	}
)

// shopFlow is the flow of aggregated, read as a format.
func shopFlow(format string) policies.Flow {
	return policies.Flow{
		First: tenHours, Last: tenHours.Add(5 * time.Minute), From: webPods, To: dbPods, Protocol: netset.TCP, Port: 5432,
		Verdict: policies.Allow, EgressOnly: true, Count: 7, Bytes: 19233, Packets: 163, ReplyBytes: 48120, ReplyPackets: 151, Hits: shopTrace,
		Origin: policies.Origin{Format: format, Reporter: policies.SourceSide, Window: 5 * time.Minute},
		Record: policies.Place{File: "f.log", Line: 1},
	}
}

func TestCalicoRecord(t *testing.T) {
	flows, stats, err := read(t, aggregated+"\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, stats, Stats{Flows: 1})
	equal(t, flows, []policies.Flow{shopFlow("calico")})

	hit := `{"_index":"tigera_secure_ee_flows.cluster.20260301","_id":"x","_source":` + aggregated + `,"sort":[1]}`
	flows, _, err = read(t, hit, Options{Format: "calico", Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, flows, []policies.Flow{shopFlow("calico")})
}

func TestCalicoTextRecord(t *testing.T) {
	want := shopFlow("calico-text")
	want.Hits, want.From.Labels, want.To.Labels = nil, map[string]string{"app": "web"}, map[string]string{"app": "db"}
	flows, stats, err := read(t, textLine+"\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, stats, Stats{Flows: 1})
	equal(t, flows, []policies.Flow{want})
}

// says prints what became of a file with one record: the flow, or why it is bad.
func says(t *testing.T, text string) string {
	t.Helper()
	flows, stats, err := read(t, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range flows {
		line := fmt.Sprintf("%s > %s %s %d %s x%d by %q", peerText(f.From), peerText(f.To), f.Protocol, f.Port, f.Verdict, f.Count, f.Origin.Reporter)
		if f.SourcePort != 0 {
			line += fmt.Sprintf(" from port %d", f.SourcePort)
		}
		if f.EgressOnly {
			line += " egress only"
		}
		out = append(out, line)
	}
	for _, p := range stats.FirstBad {
		out = append(out, "bad: "+p.Message)
	}
	return strings.Join(out, "; ")
}

func peerText(p policies.FlowPeer) string {
	var words []string
	add := func(ok bool, word string) {
		if ok {
			words = append(words, word)
		}
	}
	add(p.Pod != "" || p.PodPrefix != "", p.Namespace+"/"+p.Pod+p.PodPrefix)
	add(p.PodPrefix != "", "pods")
	add(p.Set.Name != "", p.Set.Kind+" "+p.Set.String())
	add(p.Network != policies.AnyNetwork, p.Network.String())
	add(p.Host, "host")
	add(p.Host && len(p.Workloads) > 0, fmt.Sprint(p.Workloads))
	add(p.Address.IsValid(), p.Address.String())
	add(len(words) == 0, "nobody")
	return strings.Join(words, " ")
}

// edited replaces pairs of text in a record, and fails when one is not there.
func edited(t *testing.T, text string, pairs ...string) string {
	t.Helper()
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the record has no %s", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestCalicoFields(t *testing.T) {
	const (
		web      = "shop/web-7c9f8d5b6- pods > "
		toDB     = web + "shop/db- pods "
		tcp      = "TCP 5432 "
		allow    = `"action":"allow"`
		src      = `"reporter":"src"`
		times    = `"start_time":1772359200,"end_time":1772359500`
		destName = `"dest_name":"-","dest_name_aggr":"db-*"`
		dest     = destName + `,"dest_namespace":"shop"`
		destIP   = `"dest_ip":null`
		wep      = `"dest_type":"wep"`
	)
	rows := []struct {
		name string
		edit []string
		want string
	}{
		{"aggregated by prefix", nil, toDB + tcp + `allow x7 by "source" egress only`},
		{"reported by the destination, both sides agree", []string{src, `"reporter":"dst"`}, toDB + tcp + `allow x7 by "destination"`},
		{"reported on the way, the destination has not judged", []string{src, `"reporter":"fwd"`}, toDB + tcp + `allow x7 by "way" egress only`},
		{"a reporter that was filtered out", []string{src + ",", ""}, toDB + tcp + `allow x7 by ""`},
		{"a denial is one whoever reports it", []string{allow, `"action":"deny"`}, toDB + tcp + `deny x7 by "source"`},
		{"no action, no verdict", []string{allow + ",", ""}, toDB + tcp + `unknown x7 by "source"`},
		{"an action of the future", []string{allow, `"action":"log"`}, `bad: action "log" is neither allow nor deny`},
		{"both actions", []string{allow, allow + `,"action":"deny"`}, `bad: action is both "allow" and "deny"`},
		{"a list of actions", []string{allow, `"action":["allow","deny"]`}, `bad: field action cannot be an array`},
		{"another reporter", []string{src, `"reporter":"nobody"`}, `bad: reporter "nobody" is none of src, dst, fwd`},

		{"a pod by name", []string{`"dest_name":"-"`, `"dest_name":"db-0"`, destIP, `"dest_ip":"10.0.2.7"`}, web + "shop/db-0 10.0.2.7 " + tcp + `allow x7 by "source" egress only`},
		{"a pod that nothing generated", []string{`"db-*"`, `"debug"`}, web + "shop/debug " + tcp + `allow x7 by "source" egress only`},
		{"no common prefix", []string{`"db-*"`, `"*"`}, web + "nobody " + tcp + `allow x7 by "source" egress only`},
		{"an address of IPv4 in IPv6", []string{destIP, `"dest_ip":"::ffff:10.0.2.7"`}, web + "shop/db- pods 10.0.2.7 " + tcp + `allow x7 by "source" egress only`},
		{"no address", []string{destIP, `"dest_ip":"10.0.2.256"`}, `bad: dest_ip "10.0.2.256" is no IP address`},
		{"the internet", []string{wep, `"dest_type":"net"`, dest, `"dest_name":"-","dest_name_aggr":"pub","dest_namespace":"-"`}, web + "public " + tcp + `allow x7 by "source"`},
		{"a private network", []string{wep, `"dest_type":"net"`, dest, `"dest_name":"-","dest_name_aggr":"pvt","dest_namespace":"-"`}, web + "private " + tcp + `allow x7 by "source"`},
		{"a network whose address was kept", []string{wep, `"dest_type":"net"`, dest, `"dest_name":"-","dest_name_aggr":"pub","dest_namespace":"-"`, destIP, `"dest_ip":"198.51.100.7"`}, web + "198.51.100.7 " + tcp + `allow x7 by "source"`},
		{"another network", []string{wep, `"dest_type":"net"`}, `bad: dest_name_aggr "db-*" of a network is neither pub nor pvt`},
		{"a network set", []string{wep, `"dest_type":"ns"`, destName, `"dest_name":"-","dest_name_aggr":"partners"`}, web + "NetworkSet shop/partners " + tcp + `allow x7 by "source"`},
		{"a global network set", []string{wep, `"dest_type":"ns"`, dest, `"dest_name":"-","dest_name_aggr":"partners","dest_namespace":"-"`}, web + "GlobalNetworkSet partners " + tcp + `allow x7 by "source"`},
		{"a host", []string{wep, `"dest_type":"hep"`, dest, `"dest_name":"-","dest_name_aggr":"n1","dest_namespace":"-"`}, web + "host [n1] " + tcp + `allow x7 by "source" egress only`},
		{"another type", []string{wep, `"dest_type":"vm"`}, `bad: dest_type "vm" is none of wep, hep, ns, net`},

		{"a source port", []string{`"source_port":null`, `"source_port":43210`}, toDB + tcp + `allow x7 by "source" from port 43210 egress only`},
		{"a port that was aggregated away", []string{`"dest_port":5432`, `"dest_port":null`}, toDB + `TCP 0 allow x7 by "source" egress only`},
		{"port 70000", []string{`"dest_port":5432`, `"dest_port":70000`}, `bad: dest_port "70000" is no whole number from 0 to 65535`},
		{"a source port below 0", []string{`"source_port":null`, `"source_port":-1`}, `bad: source_port "-1" is no whole number from 0 to 65535`},
		{"a protocol by number", []string{`"tcp"`, `"17"`}, toDB + `UDP 5432 allow x7 by "source" egress only`},
		{"a protocol as a number", []string{`"tcp"`, `132`}, toDB + `SCTP 5432 allow x7 by "source" egress only`},
		{"ICMP has no ports", []string{`"tcp"`, `"icmp"`}, toDB + `ICMP 0 allow x7 by "source" egress only`},
		{"ICMP of IPv6", []string{`"tcp"`, `"icmp6"`}, toDB + `ICMPv6 0 allow x7 by "source" egress only`},
		{"IP in IP", []string{`"tcp"`, `"ipip"`}, toDB + `4 0 allow x7 by "source" egress only`},
		{"another protocol", []string{`"tcp"`, `"tpc"`}, `bad: proto: protocol "tpc" is none of TCP, UDP, SCTP, ICMP, ICMPv6 or a number up to 255`},

		{"end before start", []string{times, `"start_time":1772359500,"end_time":1772359200`}, `bad: end_time 2026-03-01T10:00:00Z is before start_time 2026-03-01T10:05:00Z`},
		{"more than a year", []string{times, `"start_time":1,"end_time":1772359200`}, `bad: end_time 2026-03-01T10:00:00Z is more than a year after start_time 1970-01-01T00:00:01Z`},
		{"no time", []string{times, `"start_time":"noon","end_time":1772359200`}, `bad: start_time "noon" is neither seconds or milliseconds since 1970 nor a time such as 2026-03-10T12:00:00Z`},
		{"a negative time", []string{times, `"start_time":-1,"end_time":1772359200`}, `bad: start_time "-1" is neither seconds or milliseconds since 1970 nor a time such as 2026-03-10T12:00:00Z`},
		{"bytes below 0", []string{`"bytes_in":48120`, `"bytes_in":-48120`}, `bad: bytes_in "-48120" is no whole number from 0 to 9223372036854775807`},
		{"a label that is none", []string{`"app=db"`, `"app"`}, `bad: dest_labels: "app" is not key=value`},
		{"a hit of nothing", []string{aggregated, `{"_source":"x"}`}, `bad: field _source cannot be a string`},
		{"a hit of another index", []string{aggregated, `{"_index":"dns","_source":{"qname":"example.com"}}`}, `bad: the record has no source_name_aggr and no dest_name_aggr, so it is no flow`},
		{"policies of three parts", []string{`1|default|shop/knp.default.web-egress|allow|0`, `1|default|x`}, `bad: policy "1|default|x": it has 3 parts, and not index|tier|name|action|rule`},
		{"cut off", []string{`,"host":"n1"}`, ``}, `bad: not valid JSON: unexpected end of JSON input`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := says(t, edited(t, aggregated, row.edit...)); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestCalicoTimes(t *testing.T) {
	for _, text := range []string{
		"1772359200", `"1772359200"`, "1772359200.0", "1772359200000", `"2026-03-01T10:00:00Z"`, `"2026-03-01T10:00:00.000Z"`, `"2026-03-01T11:00:00+01:00"`, "1.7723592e9",
	} {
		flows, _, err := read(t, edited(t, aggregated, `"start_time":1772359200`, `"start_time":`+text), Options{Strict: true})
		if err != nil || len(flows) != 1 {
			t.Errorf("%s: %v", text, err)
			continue
		}
		equal(t, flows[0].First, tenHours)
	}
}

// Counters are the reporting end's: what came in at the source went back.
func TestCalicoCounters(t *testing.T) {
	rows := []struct {
		reporter                                 string
		bytes, packets, replyBytes, replyPackets uint64
	}{
		{"src", 19233, 163, 48120, 151},
		{"dst", 48120, 151, 19233, 163},
		{"fwd", 0, 0, 0, 0}, // nobody says which way is in
	}
	for _, row := range rows {
		flows, _, err := read(t, edited(t, aggregated, `"src"`, `"`+row.reporter+`"`), Options{Strict: true})
		if err != nil || len(flows) != 1 {
			t.Fatalf("%s: %v", row.reporter, err)
		}
		f := flows[0]
		equal(t, []uint64{f.Bytes, f.Packets, f.ReplyBytes, f.ReplyPackets}, []uint64{row.bytes, row.packets, row.replyBytes, row.replyPackets})
	}
}

func TestCalicoLabels(t *testing.T) {
	const labels = `{"labels":["app=db","apps.kubernetes.io/pod-index=0","team=shop"]}`
	rows := []struct {
		name, labels, pod string
		want              map[string]string
		partial           bool
	}{
		{"what several pods have in common", labels, "-", dbPods.Labels, true},
		{"those of one pod", labels, "db-0", dbPods.Labels, false},
		{"a list", `["app=db"]`, "db-0", map[string]string{"app": "db"}, false},
		{"a value with an equals sign", `["a=b=c"]`, "db-0", map[string]string{"a": "b=c"}, false},
		{"Calico's own", `["projectcalico.org/namespace=shop"]`, "db-0", nil, false},
		{"aggregated away", `"-"`, "-", nil, false},
		{"not collected", `null`, "-", nil, false},
		{"none", `{"labels":[]}`, "-", nil, false},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			flows, _, err := read(t, edited(t, aggregated, labels, row.labels, `"dest_name":"-"`, `"dest_name":"`+row.pod+`"`), Options{Strict: true})
			if err != nil || len(flows) != 1 {
				t.Fatal(err)
			}
			equal(t, flows[0].To.Labels, row.want)
			equal(t, flows[0].To.LabelsPartial, row.partial)
		})
	}
}

func TestCalicoDomains(t *testing.T) {
	flows, _, err := read(t, edited(t, aggregated, `"dest_domains":null`, `"dest_domains":["example.com","example.org"]`, `"dest_ip":null`, `"dest_ip":"198.51.100.7"`), Options{Strict: true})
	if err != nil || len(flows) != 1 {
		t.Fatal(err)
	}
	equal(t, flows[0].To.Names, []string{"example.com", "example.org"})
	equal(t, flows[0].To.Address, netip.MustParseAddr("198.51.100.7"))
}

func TestCalicoText(t *testing.T) {
	const web = "shop/web-7c9f8d5b6- pods > "
	rows := []struct {
		name string
		edit []string
		want string
	}{
		{"as it is", nil, web + `shop/db- pods TCP 5432 allow x7 by "source" egress only`},
		{"by the old reporters", []string{" src ", " out "}, web + `shop/db- pods TCP 5432 allow x7 by "source" egress only`},
		{"and at the other end", []string{" src ", " in "}, web + `shop/db- pods TCP 5432 allow x7 by "destination"`},
		{"with addresses", []string{"] - - tcp -", "] 10.0.1.5 10.0.2.7 6 43210", "db-*", "db-0"}, `shop/web-7c9f8d5b6- pods 10.0.1.5 > shop/db-0 10.0.2.7 TCP 5432 allow x7 by "source" from port 43210 egress only`},
		{"to the internet", []string{"wep shop db-* [app=db]", "net - pub -"}, web + `public TCP 5432 allow x7 by "source"`},
		{"port 70000", []string{"5432", "70000"}, `bad: dstPort "70000" is no whole number from 0 to 65535`},
		{"no number", []string{" 7 5 ", " many 5 "}, `bad: numFlows "many" is no whole number from 0 to 9223372036854775807`},
		{"end before start", []string{"1772359500", "1772359100"}, `bad: end_time 2026-03-01T09:58:20Z is before start_time 2026-03-01T10:00:00Z`},
		{"a label that is none", []string{"[app=db]", "[app]"}, `bad: dest_labels: "app" is not key=value`},
		{"a field too many", []string{" allow", " allow x"}, "bad: line is not a JSON object, and no record of any known text format; is this a file of flows?"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := says(t, edited(t, textLine, row.edit...)); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}
