package flowlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowline"
)

// forwarded is a packet of web to db, as Cilium 1.20's exporter writes it.
const forwarded = `{"flow":{"time":"2026-03-01T10:00:00.000000001Z","uuid":"5a1b","verdict":"FORWARDED","ethernet":{"source":"0a:58:0a:00:00:01","destination":"0a:58:0a:00:00:02"},"IP":{"source":"10.0.1.5","destination":"10.0.2.7","ipVersion":"IPv4"},"l4":{"TCP":{"source_port":43210,"destination_port":5432,"flags":{"SYN":true}}},"source":{"ID":1234,"identity":54321,"cluster_name":"default","namespace":"shop","labels":["k8s:app=web","k8s:io.cilium.k8s.namespace.labels.team=shop","k8s:io.cilium.k8s.policy.cluster=default","k8s:io.cilium.k8s.policy.serviceaccount=web","k8s:io.kubernetes.pod.namespace=shop"],"pod_name":"web-7c9f8d5b6-abcde","workloads":[{"name":"web","kind":"Deployment"}]},"destination":{"ID":77,"identity":999,"namespace":"shop","labels":["k8s:app=db","k8s:io.kubernetes.pod.namespace=shop"],"pod_name":"db-0","workloads":[{"name":"db","kind":"StatefulSet"}]},"Type":"L3_L4","node_name":"default/n1","event_type":{"type":4,"sub_type":0},"traffic_direction":"INGRESS","trace_observation_point":"TO_ENDPOINT","trace_reason":"NEW","is_reply":false,"interface":{"index":12,"name":"lxc1"},"ingress_allowed_by":[{"name":"db","namespace":"shop","revision":"7"}],"Summary":"TCP Flags: SYN"},"node_name":"default/n1","time":"2026-03-01T10:00:00.000000001Z"}`

var (
	shopWeb = policies.FlowPeer{
		Namespace: "shop", Pod: "web-7c9f8d5b6-abcde", Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: "web"}},
		Labels: map[string]string{"app": "web"}, LabelsPartial: true, Address: netip.MustParseAddr("10.0.1.5"),
	}
	shopDB = policies.FlowPeer{
		Namespace: "shop", Pod: "db-0", Workloads: []policies.Ref{{Kind: "StatefulSet", Namespace: "shop", Name: "db"}},
		Labels: map[string]string{"app": "db"}, LabelsPartial: true, Address: netip.MustParseAddr("10.0.2.7"),
	}
	atTen = time.Date(2026, 3, 1, 10, 0, 0, 1, time.UTC)
)

func read(t *testing.T, text string, o Options) ([]policies.Flow, Stats, error) {
	t.Helper()
	var flows []policies.Flow
	stats, err := Read(context.Background(), strings.NewReader(text), "f.log", o, func(f policies.Flow) error {
		flows = append(flows, f)
		return nil
	})
	return flows, stats, err
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); d != "" {
		t.Error("(-want +got)\n" + d)
	}
}

func TestHubbleRecord(t *testing.T) {
	flows, stats, err := read(t, forwarded+"\n", Options{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, stats, Stats{Flows: 1})
	equal(t, flows, []policies.Flow{{
		First: atTen, Last: atTen, From: shopWeb, To: shopDB, Protocol: netset.TCP, Port: 5432,
		Verdict: policies.Allow, Count: 1, SourcePort: 43210,
		Origin: policies.Origin{Format: "hubble", Reporter: policies.DestinationSide}, Record: policies.Place{File: "f.log", Line: 1},
	}})
}

// edit replaces pairs of text in forwarded, and fails when one is not there.
func edit(t *testing.T, pairs ...string) string {
	t.Helper()
	text := forwarded
	for i := 0; i < len(pairs); i += 2 {
		if !strings.Contains(text, pairs[i]) {
			t.Fatalf("the record has no %s", pairs[i])
		}
		text = strings.Replace(text, pairs[i], pairs[i+1], 1)
	}
	return text
}

func TestHubbleReporters(t *testing.T) {
	const isReply, ingress, syn = `"is_reply":false,`, `"traffic_direction":"INGRESS"`, `"SYN":true`
	const egress = `"traffic_direction":"EGRESS"`
	for _, test := range []struct {
		fact string
		edit []string
		want policies.Reporter
	}{
		{"a request that arrives", nil, policies.DestinationSide},
		{"a request that leaves", []string{ingress, egress}, policies.SourceSide},
		{"a reply has the direction of its request: it leaves where that arrived", []string{isReply, `"is_reply":true,`}, policies.DestinationSide},
		{"and arrives where that left", []string{isReply, `"is_reply":true,`, ingress, egress}, policies.SourceSide},
		{"a reply that only its flags tell has its own", []string{isReply, ``, syn, `"SYN":true,"ACK":true`}, policies.SourceSide},
		{"none", []string{ingress + ",", ``}, policies.UnknownReporter},
	} {
		var got []policies.Reporter
		_, err := Read(t.Context(), strings.NewReader(edit(t, test.edit...)), "flows", Options{}, func(f policies.Flow) error {
			got = append(got, f.Origin.Reporter)
			return nil
		})
		if err != nil || len(got) != 1 || got[0] != test.want {
			t.Errorf("%s: %v %v, want %v", test.fact, got, err, test.want)
		}
	}
}

func TestHubbleVerdicts(t *testing.T) {
	const (
		isReply = `"is_reply":false,`
		syn     = `"flags":{"SYN":true}`
		verdict = `"verdict":"FORWARDED"`
		trace   = `"event_type":{"type":4,"sub_type":0}`
		drop    = `"event_type":{"type":1,"sub_type":133}`
		ingress = `"traffic_direction":"INGRESS"`
		tcp     = `"TCP":{"source_port":43210,"destination_port":5432,"flags":{"SYN":true}}`
		web     = `web > db `
		db      = `db > web `
	)
	rows := []struct {
		name string
		edit []string
		want string // flow, "left out: cause" or "bad: …"
	}{
		{"forwarded is allowed", nil, web + "TCP 5432 allow"},
		{"by number too", []string{verdict, `"verdict":1`}, web + "TCP 5432 allow"},
		{"redirected to the proxy is allowed by policy", []string{verdict, `"verdict":"REDIRECTED"`}, web + "TCP 5432 allow"},
		{"audit is neither", []string{verdict, `"verdict":"AUDIT"`}, web + "TCP 5432 unknown"},
		{"a masked verdict is unknown", []string{verdict + ",", ``}, web + "TCP 5432 unknown"},
		{"traced says no verdict", []string{verdict, `"verdict":"TRACED"`}, "left out: trace without a verdict"},
		{"translated says no verdict", []string{verdict, `"verdict":7`}, "left out: address translation"},
		{"error is left out", []string{verdict, `"verdict":"ERROR"`}, "left out: error while processing the packet"},
		{"a verdict of the future is left out", []string{verdict, `"verdict":"MANGLED"`}, "left out: verdict that Weir does not know"},
		{"denied by default", []string{verdict, `"verdict":"DROPPED","drop_reason_desc":"POLICY_DENIED"`, trace, drop, isReply, ``}, web + "TCP 5432 deny"},
		{"denied by a rule", []string{verdict, `"verdict":"DROPPED","drop_reason_desc":"POLICY_DENY"`, isReply, ``}, web + "TCP 5432 deny"},
		{"denied, all in numbers", []string{verdict, `"verdict":2,"drop_reason_desc":133`, isReply, ``}, web + "TCP 5432 deny"},
		{"denied, by the old field", []string{verdict, `"verdict":"DROPPED","drop_reason":181`, isReply, ``}, web + "TCP 5432 deny"},
		{"a drop by a verdict event is policy's", []string{verdict, `"verdict":"DROPPED"`, trace, `"event_type":{"type":5}`}, web + "TCP 5432 deny"},
		{"a drop without a reason is unknown", []string{verdict, `"verdict":"DROPPED"`, trace, drop, isReply, ``}, web + "TCP 5432 unknown"},
		{"another drop is no policy's", []string{verdict, `"verdict":"DROPPED","drop_reason_desc":"CT_MAP_INSERTION_FAILED"`}, "left out: dropped, but not by policy: CT_MAP_INSERTION_FAILED"},
		{"authentication is no policy's denial", []string{verdict, `"verdict":"DROPPED","drop_reason_desc":189`}, "left out: dropped, but not by policy: 189"},

		{"a reply is turned round", []string{isReply, `"is_reply":true,`}, db + "TCP 43210 allow"},
		{"a reply by the old field", []string{isReply, `"reply":true,`}, db + "TCP 43210 allow"},
		{"the first packet needs no mark", []string{isReply, ``}, web + "TCP 5432 allow"},
		{"its answer needs none either", []string{isReply, ``, `"SYN":true`, `"SYN":true,"ACK":true`}, db + "TCP 43210 allow"},
		{"a trace without direction is not guessed", []string{isReply, ``, syn, `"flags":{"ACK":true}`}, "left out: trace of a packet whose direction was not recorded"},
		{"a null mark is none", []string{isReply, `"is_reply":null,`, syn, `"flags":{"ACK":true}`}, "left out: trace of a packet whose direction was not recorded"},
		{"a masked event type is taken as it stands", []string{isReply, ``, trace + ",", ``, syn, `"flags":{"ACK":true}`}, web + "TCP 5432 allow"},
		{"a dropped reply is no verdict", []string{verdict, `"verdict":"DROPPED","drop_reason_desc":"POLICY_DENIED"`, isReply, ``, `"SYN":true`, `"SYN":true,"ACK":true`}, "left out: dropped reply: it says nothing about the request"},

		{"seen leaving for a pod", []string{ingress, `"traffic_direction":"EGRESS"`}, web + "TCP 5432 allow egress only"},
		{"seen leaving, direction masked", []string{ingress + ",", ``, "TO_ENDPOINT", "TO_OVERLAY"}, web + "TCP 5432 allow egress only"},
		{"a reply proves both sides", []string{ingress, `"traffic_direction":"EGRESS"`, isReply, `"is_reply":true,`}, db + "TCP 43210 allow"},
		{"not yet judged", []string{"TO_ENDPOINT", "FROM_ENDPOINT"}, "left out: trace point before policy"},
		{"not yet judged, by number", []string{`"TO_ENDPOINT"`, "10"}, "left out: trace point before policy"},

		{"UDP", []string{tcp, `"UDP":{"source_port":40000,"destination_port":53}`}, web + "UDP 53 allow"},
		{"SCTP", []string{tcp, `"SCTP":{"source_port":40000,"destination_port":9003}`}, web + "SCTP 9003 allow"},
		{"a masked port is missing", []string{tcp, `"TCP":{}`}, web + "TCP 0 allow"},
		{"a masked protocol is missing", []string{`"l4":{` + tcp + `},`, ``}, web + "0 0 allow"},
		{"ICMP type and code", []string{tcp, `"ICMPv4":{"type":3,"code":1}`}, web + "ICMP 769 allow"},
		{"an echo reply is turned round", []string{tcp, `"ICMPv4":{}`, isReply, ``}, db + "ICMP 2048 allow"},
		{"so is that of IPv6", []string{tcp, `"ICMPv6":{"type":129}`, isReply, ``}, db + "ICMPv6 32768 allow"},
		{"an error is no request", []string{tcp, `"ICMPv4":{"type":3}`, isReply, `"is_reply":true,`}, "left out: ICMP reply to a request that it does not tell"},
		{"VRRP has no ports", []string{tcp, `"VRRP":{"vrid":1}`}, web + "112 0 allow"},
		{"IGMP has none", []string{tcp, `"IGMP":{}`}, web + "2 0 allow"},
		{"a port above 65535", []string{"5432", "65536"}, `bad: destination_port "65536" is no whole number from 0 to 65535`},
		{"an ICMP type above 255", []string{tcp, `"ICMPv4":{"type":256}`}, `bad: type "256" is no whole number from 0 to 255`},

		{"layer 7", []string{`"L3_L4"`, `"L7"`}, "left out: layer 7 event: its connection was reported too"},
		{"layer 7 by number", []string{`"L3_L4"`, `2`}, "left out: layer 7 event: its connection was reported too"},
		{"socket", []string{`"L3_L4"`, `"SOCK"`}, "left out: socket event: it comes before policy"},
		{"debug capture", []string{trace, `"event_type":{"type":3}`}, "left out: debug capture"},
		{"health check", []string{`"k8s:app=web"`, `"reserved:health"`}, "left out: Cilium's own health check"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			flows, stats, err := read(t, edit(t, row.edit...), Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got string
			for _, f := range flows {
				got = fmt.Sprintf("%s > %s %s %d %s", f.From.Workloads[0].Name, f.To.Workloads[0].Name, f.Protocol, f.Port, f.Verdict)
				if f.EgressOnly {
					got += " egress only"
				}
			}
			for cause := range stats.LeftOut {
				got += "left out: " + cause
			}
			for _, p := range stats.FirstBad {
				got += "bad: " + p.Message
			}
			if got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestHubblePeers(t *testing.T) {
	rows := []struct {
		name, source string
		want         policies.FlowPeer
	}{
		{"the world", `{"identity":2,"labels":["reserved:world"]}`, policies.FlowPeer{Outside: true}},
		{"the world, of one family", `{"labels":["reserved:world-ipv6"]}`, policies.FlowPeer{Outside: true}},
		{"an address of a policy", `{"labels":["cidr:192.0.2.0/24","reserved:world"]}`, policies.FlowPeer{Outside: true}},
		{"this node", `{"identity":1,"labels":["reserved:host"]}`, policies.FlowPeer{Host: true, OwnNode: true}},
		{"a node of the control plane", `{"labels":["reserved:kube-apiserver","reserved:remote-node"]}`, policies.FlowPeer{Host: true}},
		{"a control plane elsewhere", `{"labels":["reserved:kube-apiserver","reserved:world"]}`, policies.FlowPeer{Outside: true}},
		{"only its address is known", `{"labels":["reserved:kube-apiserver"]}`, policies.FlowPeer{}},
		{"not of Cilium", `{"labels":["reserved:unmanaged"]}`, policies.FlowPeer{}},
		{"masked", `{}`, policies.FlowPeer{}},
		{"null", `null`, policies.FlowPeer{}},
		{
			"labels without a source", `{"namespace":"a","labels":["app=x","tier"]}`,
			policies.FlowPeer{Namespace: "a", Labels: map[string]string{"app": "x", "tier": ""}, LabelsPartial: true},
		},
		{
			"only Kubernetes labels", `{"labels":["container:a=b","k8s:c=d=e","fqdn:x"]}`,
			policies.FlowPeer{Labels: map[string]string{"c": "d=e"}, LabelsPartial: true},
		},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			flows, _, err := read(t, `{"flow":{"verdict":"FORWARDED","source":`+row.source+`}}`, Options{})
			if err != nil || len(flows) != 1 {
				t.Fatalf("%d flows, error %v", len(flows), err)
			}
			equal(t, flows[0].From, row.want)
		})
	}
}

func TestHubbleCounts(t *testing.T) {
	lines := []string{
		edit(t, `"is_reply":false`, `"is_reply":false,"aggregate":{"ingress_flow_count":3,"egress_flow_count":4,"unknown_direction_flow_count":5}`),
		`{"lost_events":{"source":"HUBBLE_RING_BUFFER","num_events_lost":"17"},"node_name":"n1","time":"2026-03-01T10:00:00Z"}`,
		`{"lost_events":{"num_events_lost":3}}`,
		`{"lost_events":{}}`,
		`{"node_status":{"state_change":"NODE_CONNECTED","node_names":["n1"]}}`,
		`{"agent_event":{"type":"POLICY_UPDATED"}}`,
	}
	flows, stats, err := read(t, strings.Join(lines, "\n"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, flows[0].Count, uint64(12))
	equal(t, stats, Stats{Flows: 1, Lost: 20, LeftOut: map[string]uint64{"report of lost events": 3, "node status": 1, "agent or debug event": 1}})
}

// Memory is used again from line to line, but not that of flows.
func TestFlowsOutliveTheirLines(t *testing.T) {
	line := `{"flow":{"verdict":"FORWARDED","source":{"namespace":"%s","labels":["k8s:app=%[1]s"]},"source_names":["%[1]s"]}}` + "\n"
	var text string
	names := []string{"a", "b", "c"}
	for _, name := range names {
		text += fmt.Sprintf(line, name)
	}
	flows, _, err := read(t, text, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range names {
		equal(t, flows[i].From, policies.FlowPeer{Namespace: want, Labels: map[string]string{"app": want}, LabelsPartial: true, Names: []string{want}})
	}
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestWeirRoundTrip(t *testing.T) {
	flows := []policies.Flow{
		{
			First: atTen, Last: atTen.Add(time.Hour), From: shopWeb, To: shopDB, Protocol: netset.TCP, Port: 5432, Verdict: policies.Allow, EgressOnly: true,
			Count: 12, Bytes: 34567, Packets: 99, ReplyBytes: 12, ReplyPackets: 3, SourcePort: 43210,
			Origin: policies.Origin{Format: "calico", Reporter: policies.SourceSide, Window: 5 * time.Minute},
			Hits: []policies.Hit{
				{Tier: "platform", Policy: policies.Ref{Kind: "GlobalNetworkPolicy", Name: "dns"}, Action: policies.ActionPass, Rule: 2, Staged: true},
				{Tier: "default", Rule: policies.EndOfTier, Action: policies.ActionDeny},
				{Policy: policies.Ref{Namespace: "shop", Name: "db"}, Rule: policies.UnknownRule},
			},
		},
		{From: policies.FlowPeer{Namespace: "shop", PodPrefix: "web-"}, To: policies.FlowPeer{Outside: true, Network: policies.PublicNetwork, Set: policies.Ref{Kind: "GlobalNetworkSet", Name: "partners"}}, Verdict: policies.Unknown, Count: 1},
		{From: policies.FlowPeer{Host: true, Address: netip.MustParseAddr("10.0.0.1")}, To: shopDB, Protocol: netset.ICMP, Port: 8 << 8, Verdict: policies.Deny, Count: 1},
		{From: shopWeb, To: policies.FlowPeer{Outside: true, Address: netip.MustParseAddr("2001:db8::1"), Names: []string{"example.com"}}, Protocol: 47, Verdict: policies.Unknown, Count: 1},
	}
	var text bytes.Buffer
	w := flowline.NewWriter(&text)
	for _, f := range flows {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	equal(t, strings.SplitN(text.String(), "\n", 2)[0], `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-01T10:00:00.000000001Z","last":"2026-03-01T11:00:00.000000001Z",`+
		`"from":{"namespace":"shop","pod":"web-7c9f8d5b6-abcde","workload":{"kind":"Deployment","name":"web"},"labels":{"app":"web"},"labelsPartial":true,"address":"10.0.1.5"},`+
		`"to":{"namespace":"shop","pod":"db-0","workload":{"kind":"StatefulSet","name":"db"},"labels":{"app":"db"},"labelsPartial":true,"address":"10.0.2.7"},`+
		`"protocol":"TCP","port":5432,"verdict":"allow","egressOnly":true,"count":12,"sourcePort":43210,"bytes":34567,"packets":99,"replyBytes":12,"replyPackets":3,`+
		`"policies":[{"tier":"platform","kind":"GlobalNetworkPolicy","name":"dns","action":"pass","rule":2,"staged":true},{"tier":"default","action":"deny","endOfTier":true},{"namespace":"shop","name":"db"}],`+
		`"origin":{"format":"calico","reporter":"source","window":300}}`)
	back, stats, err := read(t, text.String(), Options{Format: "weir"})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, stats, Stats{Flows: 4})
	for i := range flows {
		flows[i].Origin.Format = first(flows[i].Origin.Format, "weir")
		flows[i].Record = policies.Place{File: "f.log", Line: i + 1}
	}
	equal(t, back, flows)
}

// What the Writer writes is what the schema describes, and so is the record in
// the documentation.
func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("../../docs/schemas/flow.json")
	if err != nil {
		t.Fatal(err)
	}
	check := func(line string) {
		t.Helper()
		record, err := jsonschema.UnmarshalJSON(strings.NewReader(line))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(record); err != nil {
			t.Errorf("%s: %v", line, err)
		}
	}
	var text bytes.Buffer
	w := flowline.NewWriter(&text)
	flows, _, err := read(t, forwarded, Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range append(flows, policies.Flow{From: policies.FlowPeer{Outside: true, Host: true, Names: []string{"a"}}, EgressOnly: true, Bytes: 1}) {
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text.String()) {
		check(line)
		if strings.Contains(line, "null") {
			t.Errorf("%s: what was not recorded is absent, not null", line)
		}
	}
	page, err := os.ReadFile("../../docs/flows.md")
	if err != nil {
		t.Fatal(err)
	}
	_, record, _ := strings.Cut(string(page), "```json\n")
	record, _, _ = strings.Cut(record, "\n")
	check(record)
	if _, stats, err := read(t, record, Options{Format: "weir", Strict: true}); err != nil || stats.Flows != 1 {
		t.Errorf("%+v, error %v", stats, err)
	}
}

func TestDocuments(t *testing.T) {
	const own = `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow"}`
	spread := strings.NewReplacer("{", "{\n  ", ",", ",\n  ").Replace(own)
	rows := []struct {
		name, text string
		lines      []int
	}{
		{"an array", "[\n" + own + ",\n" + own + "\n]\n", []int{2, 3}},
		{"an array in one line", "[" + own + "," + own + "]", []int{1, 1}},
		{"an empty array", "[]", nil},
		{"several arrays", "[\n" + own + "]\n[" + own + "]", []int{2, 3}},
		{"a page of items", `{"total":{"items":7},"items":[` + own + "\n," + own + `],"next":[1]}`, []int{1, 2}},
		{"two pages", `{"items":[` + own + "\n]}\n{\"items\":[" + own + "]}\n", []int{1, 3}},
		{"no items", `{"items":null}`, nil},
		{"an answer of Elasticsearch", `{"took":3,"hits":{"total":{"value":2},"hits":[` + "\n" + own + "," + own + "\n]},\"aggregations\":{}}\n{\"hits\":{\"hits\":[" + own + `]}}`, []int{2, 2, 4}},
		{"no hits", `{"took":3,"hits":{"total":0}}`, nil},
		{"spread over lines", spread + "\n\n" + spread, []int{1, 5}},
		{"behind a byte order mark", "\xef\xbb\xbf[" + own + "]", []int{1}},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			flows, stats, err := read(t, row.text, Options{})
			if err != nil || stats.Bad != 0 {
				t.Fatalf("%+v, error %v", stats, err)
			}
			var lines []int
			for _, f := range flows {
				lines = append(lines, f.Record.Line)
			}
			equal(t, lines, row.lines)
		})
	}
	for _, text := range []string{"[" + own, "[" + own + ",", "[" + own + "\n", `{"flows":[` + own, `{"flows":[` + own + "]", `{"flows":[` + own + "],"} {
		if _, _, err := read(t, text, Options{}); err == nil || !strings.Contains(err.Error(), "unexpected EOF") {
			t.Errorf("%.10s…%s is cut off, and read with error %v", text, text[len(text)-3:], err)
		}
	}
	flows, stats, err := read(t, "[\n"+own+",\n{\"kind\":7},\n{\"kind\" 7}]", Options{})
	if err == nil || !strings.HasPrefix(err.Error(), "f.log:3: not valid JSON from here on") || len(flows) != 1 || stats.Bad != 1 {
		t.Errorf("%d flows, %+v, error %v", len(flows), stats, err)
	}
}

func TestBadLines(t *testing.T) {
	weir := func(rest string) string { return `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow"` + rest + `}` }
	rows := []struct{ name, line, want string }{
		{"not JSON", `{"flow":`, "not valid JSON"},
		{"text", `Mar 1 10:00 hello`, "line is not a JSON object, and no record of any known text format; is this a file of flows?"},
		{"a list", `[{"flow":{}}]`, "line is not a JSON object"},
		{"binary", "\x00\x01\x02", "line is not a JSON object"},
		{"something else", `{"level":"info"}`, `a JSON object with the fields "level" is no record of any known format`},
		{"an address", `{"flow":{"verdict":"FORWARDED","IP":{"source":"10.0.0.256"}}}`, "10.0.0.256"},
		{"a time", `{"flow":{"verdict":"FORWARDED","time":"yesterday"}}`, "yesterday"},
		{"a year that JSON does not have", `{"flow":{"verdict":"FORWARDED","time":"9999-12-31T23:59:59-01:00"}}`, "9999-12-31T23:59:59-01:00"},
		{"a type", `{"flow":{"verdict":"FORWARDED","l4":{"TCP":{"destination_port":"http"}}}}`, `destination_port "http" is no whole number from 0 to 65535`},
		{"a negative port", `{"flow":{"verdict":"FORWARDED","l4":{"TCP":{"destination_port":-1}}}}`, `destination_port "-1" is no whole number from 0 to 65535`},
		{"labels as text", `{"flow":{"verdict":"FORWARDED","source":{"labels":"a=b"}}}`, "source: field labels cannot be a string"},
		{"a version", `{"apiVersion":"weir.dev/v9","kind":"Flow"}`, `apiVersion "weir.dev/v9" is not weir.dev/v1alpha1`},
		{"a verdict", weir(`,"verdict":"maybe"`), `verdict "maybe" is none of allow, deny, unknown`},
		{"a protocol", weir(`,"protocol":"TPC"`), `protocol "TPC" is none of`},
		{"a port above 65535", weir(`,"port":65536`), "65536"},
		{"an end before its beginning", weir(`,"first":"2026-03-01T10:00:00Z","last":"2026-03-01T09:00:00Z"`), "last 2026-03-01T09:00:00Z is before first 2026-03-01T10:00:00Z"},
		{"too long", `{"flow":{"Summary":"` + strings.Repeat("x", MaxLine) + `"}}`, "line is longer than 1048576 bytes"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			text := forwarded + "\r\n\r\n" + row.line + "\n" + forwarded
			flows, stats, err := read(t, text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			if len(flows) != 2 || stats.Records() != 4 || stats.Bad != 1 || stats.Blank != 1 {
				t.Errorf("%d flows, %+v", len(flows), stats)
			}
			p := stats.FirstBad[0]
			if p.Place != (policies.Place{File: "f.log", Line: 3}) || !strings.Contains(p.Message, row.want) {
				t.Errorf("problem %q, want %q", p, row.want)
			}
			flows, _, err = read(t, text, Options{Strict: true})
			var strict policies.Problem
			if len(flows) != 1 || !errors.As(err, &strict) || strict != p {
				t.Errorf("strict: %d flows, error %v", len(flows), err)
			}
		})
	}
}

func TestFormatAsked(t *testing.T) {
	const own = `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow"}`
	_, stats, err := read(t, own+"\n"+forwarded, Options{Format: "hubble"})
	if err != nil || stats.Flows != 1 || stats.Bad != 1 {
		t.Errorf("%+v, error %v", stats, err)
	}
	_, stats, err = read(t, own+"\n"+forwarded, Options{Format: "weir"})
	if err != nil || stats.Flows != 1 || stats.Bad != 1 {
		t.Errorf("%+v, error %v", stats, err)
	}
	if _, _, err = read(t, "", Options{Format: "tea leaves"}); err == nil {
		t.Error("an unknown format is an error")
	}
}

func zip(t testing.TB, parts ...string) []byte {
	var b bytes.Buffer
	for _, part := range parts {
		w := gzip.NewWriter(&b)
		io.WriteString(w, part)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func zst(t testing.TB, parts ...string) []byte {
	var b bytes.Buffer
	for _, part := range parts {
		w, err := zstd.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, part)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestPacked(t *testing.T) {
	part := strings.Repeat(forwarded+"\n", 50)
	for name, text := range map[string][]byte{
		"plain": []byte(part + part), "gzip": zip(t, part+part), "two gzip members": zip(t, part, part),
		"zstd": zst(t, part+part), "two zstd frames": zst(t, part, part),
	} {
		t.Run(name, func(t *testing.T) {
			_, stats, err := read(t, string(text), Options{})
			if err != nil || stats.Flows != 100 || stats.Records() != 100 {
				t.Errorf("%+v, error %v", stats, err)
			}
		})
	}
}

func TestCutOff(t *testing.T) {
	var part strings.Builder
	for i := range 3000 {
		part.WriteString(strings.Replace(forwarded, "5a1b", fmt.Sprintf("%x", i*i*2654435761), 1) + "\n")
	}
	for name, text := range map[string][]byte{"gzip": zip(t, part.String()), "zstd": zst(t, part.String())} {
		t.Run(name, func(t *testing.T) {
			_, stats, err := read(t, string(text[:len(text)*2/3]), Options{})
			var p policies.Problem
			if !errors.As(err, &p) || !strings.Contains(p.Message, name+" data ends or is damaged here") {
				t.Fatalf("error %v", err)
			}
			if stats.Flows == 0 || stats.Bad != 0 || p.Place != (policies.Place{File: "f.log", Line: int(stats.Flows) + 1}) {
				t.Errorf("%+v, error %v", stats, err)
			}
		})
	}
	if _, _, err := read(t, string(zip(t, "x")[:5]), Options{}); err == nil || err.Error() != "f.log: gzip data ends within its header" {
		t.Errorf("error %v", err)
	}
}

// TestUnpacked is of a file that is known again after it was packed.
func TestUnpacked(t *testing.T) {
	text := strings.Repeat(forwarded+"\n", 50)
	for name, data := range map[string][]byte{"plain": []byte(text), "gzip": zip(t, text), "two gzip members": zip(t, text[:99], text[99:]), "zstd": zst(t, text)} {
		file, err := Unpacked(bytes.NewReader(data), Options{})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if got, err := io.ReadAll(file); err != nil || string(got) != text {
				t.Errorf("%s: %d bytes, want %d (%v)", name, len(got), len(text), err)
			}
			if _, err := file.Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
		}
	}
	cut, err := Unpacked(bytes.NewReader(zip(t, text)[:60]), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(cut); err != nil || !strings.HasPrefix(text, string(got)) {
		t.Errorf("cut off: %q (%v)", got, err)
	}
}

func TestWhatIsNoText(t *testing.T) {
	for text, want := range map[string]string{
		"BZh91AY&SY":           "f.log: it is bzip2 data; unpack it, as in bzcat FILE | weir flows import -",
		"\xfd7zXZ\x00\x00":     "f.log: it is xz data; unpack it, as in xzcat FILE | weir flows import -",
		"PK\x03\x04\x14":       "f.log: it is a zip archive; unpack it, as in unzip -p FILE | weir flows import -",
		"\x04\x22\x4d\x18\x64": "f.log: it is lz4 data; unpack it, as in lz4cat FILE | weir flows import -",
		"\xff\xfe{\x00":        "f.log: it is text in UTF-16; make it UTF-8, as in iconv -f UTF-16 -t UTF-8",
		"\xfe\xff\x00{":        "f.log: it is text in UTF-16; make it UTF-8, as in iconv -f UTF-16 -t UTF-8",
	} {
		if _, _, err := read(t, text, Options{}); err == nil || err.Error() != want {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// TestCountersThatWrapped is of records that would make sums wrap.
func TestCountersThatWrapped(t *testing.T) {
	const record = `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","from":{"namespace":"a"},"to":{"namespace":"b"},"protocol":"TCP","port":1,"verdict":"allow","%s":%d}`
	for _, field := range []string{"count", "bytes", "packets", "replyBytes", "replyPackets"} {
		if _, stats, err := read(t, fmt.Sprintf(record, field, uint64(1<<56)), Options{}); err != nil || stats.Flows != 1 {
			t.Errorf("%s: %+v, error %v", field, stats, err)
		}
		_, stats, err := read(t, fmt.Sprintf(record, field, uint64(1<<64-1)), Options{})
		if want := "it counts 18446744073709551615, which no record can: a counter that wrapped"; err != nil || stats.Flows != 0 || stats.Bad != 1 || stats.FirstBad[0].Message != want {
			t.Errorf("%s: %+v, error %v", field, stats, err)
		}
	}
}

func TestEmpty(t *testing.T) {
	for name, text := range map[string][]byte{"plain": nil, "gzip": zip(t, ""), "zstd": zst(t, "")} {
		if _, stats, err := read(t, string(text), Options{Strict: true}); err != nil || stats.Records() != 0 {
			t.Errorf("%s: %+v, error %v", name, stats, err)
		}
	}
}

func TestStops(t *testing.T) {
	enough := errors.New("enough")
	stats, err := Read(context.Background(), strings.NewReader(forwarded+"\n"+forwarded), "f.log", Options{}, func(policies.Flow) error { return enough })
	if !errors.Is(err, enough) || stats.Flows != 1 {
		t.Errorf("%+v, error %v", stats, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Read(ctx, strings.NewReader(forwarded), "f.log", Options{}, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestStatsAdd(t *testing.T) {
	var all Stats
	for range 2 {
		_, one, err := read(t, strings.Repeat("x\n", 7)+"{\"node_status\":{}}\n\n"+forwarded, Options{})
		if err != nil {
			t.Fatal(err)
		}
		all.Add(one)
	}
	equal(t, len(all.FirstBad), 10)
	all.FirstBad = nil
	equal(t, all, Stats{Flows: 2, Bad: 14, Blank: 2, LeftOut: map[string]uint64{"node status": 2}})
}
