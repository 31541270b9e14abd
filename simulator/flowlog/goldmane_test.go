package flowlog

import (
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

func TestGoldmaneRecord(t *testing.T) {
	want := shopFlow("goldmane")
	want.From.Labels, want.To.Labels = map[string]string{"app": "web", "pod-template-hash": "7c9f8d5b6"}, map[string]string{"app": "db"}
	want.Hits = []policies.Hit{
		{Tier: "security", Policy: policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkPolicy", Name: "tenant-shop"}, Action: policies.ActionPass, Rule: 1},
		shopTrace[1],
	}
	// As protobuf writes JSON: other names of fields, numbers as text, names of
	// enums, and nothing that is zero.
	camel := strings.NewReplacer(
		"source_name", "sourceName", "source_type\":1", "sourceType\":\"WorkloadEndpoint\"", "dest_name", "destName", "dest_type\":1", "destType\":\"WorkloadEndpoint\"",
		"space_", "space", "dest_port\":5432", "destPort\":\"5432\"", "start_time\":1772359200", "startTime\":\"1772359200\"", "end_time\":1772359500", "endTime\":\"1772359500\"",
		"_labels", "Labels", "packets_in\":151", "packetsIn\":\"151\"", "packets_out\":163", "packetsOut\":\"163\"", "bytes_in\":48120", "bytesIn\":\"48120\"",
		"bytes_out\":19233", "bytesOut\":\"19233\"", "num_connections_live\":7", "numConnectionsLive\":\"7\"", `"reporter":1`, `"reporter":"Src"`,
		`"action":1`, `"action":"Allow"`, `"action":3`, `"action":"Pass"`, `"kind":2`, `"kind":"GlobalNetworkPolicy"`, `"kind":6`, `"kind":"NetworkPolicy"`,
		"enforced_policies", "enforcedPolicies", "rule_index\":1", "ruleIndex\":\"1\"", "policy_index\":1", "policyIndex\":\"1\"",
	).Replace(pushed)
	for name, text := range map[string]string{
		"pushed": pushed, "by protobuf": camel, "a result": `{"id":7,"flow":` + pushed + `}`, "a list of results": `{"meta":{},"flows":[{"id":7,"flow":` + pushed + `}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			flows, stats, err := read(t, text, Options{})
			if err != nil {
				t.Fatal(err)
			}
			equal(t, stats, Stats{Flows: 1})
			equal(t, flows, []policies.Flow{want})
		})
	}
}

func TestGoldmaneFields(t *testing.T) {
	const (
		toDB = "shop/web-7c9f8d5b6- pods > shop/db- pods TCP 5432 "
		web  = "shop/web-7c9f8d5b6- pods > "
		dest = `"dest_name":"db-*","dest_namespace":"shop","dest_type":1`
	)
	rows := []struct {
		name string
		edit []string
		want string
	}{
		{"as it is", nil, toDB + `allow x7 by "source" egress only`},
		{"the destination's side", []string{`"reporter":1`, `"reporter":2`}, toDB + `allow x7 by "destination"`},
		{"an unspecified reporter", []string{`"reporter":1,`, ``}, toDB + `allow x7 by ""`},
		{"denied", []string{`"reporter":1,"action":1`, `"reporter":"Src","action":"Deny"`}, toDB + `deny x7 by "source"`},
		{"passed on is no verdict", []string{`"reporter":1,"action":1`, `"reporter":1,"action":3`}, toDB + `unknown x7 by "source"`},
		{"an action that nobody knows", []string{`"reporter":1,"action":1`, `"reporter":1,"action":4`}, `bad: action "4" is neither allow nor deny`},
		{"the internet", []string{dest, `"dest_name":"pub","dest_namespace":"-","dest_type":4`}, web + `public TCP 5432 allow x7 by "source"`},
		{"a network set", []string{dest, `"dest_name":"partners","dest_namespace":"shop","dest_type":"NetworkSet"`}, web + `NetworkSet shop/partners TCP 5432 allow x7 by "source"`},
		{"a global network set", []string{dest, `"dest_name":"partners","dest_namespace":"","dest_type":3`}, web + `GlobalNetworkSet partners TCP 5432 allow x7 by "source"`},
		{"a host", []string{dest, `"dest_name":"n1","dest_namespace":"-","dest_type":2`}, web + `host [n1] TCP 5432 allow x7 by "source" egress only`},
		{"pods without a type", []string{`,"dest_type":1`, ``}, toDB + `allow x7 by "source" egress only`},
		{"a name without type and namespace is not guessed", []string{dest, `"dest_name":"partners"`}, web + `nobody TCP 5432 allow x7 by "source"`},
		{"as Whisker shows a network", []string{dest, `"dest_name":"PRIVATE NETWORK","dest_namespace":"Global"`}, web + `private TCP 5432 allow x7 by "source"`},
		{"as early versions wrote it", []string{`"reporter":1,"action":1`, `"reporter":"src","action":"allow"`, `"dest_type":1`, `"dest_type":"wep"`}, toDB + `allow x7 by "source" egress only`},
		{"no connection was counted", []string{`,"num_connections_live":7`, ``, `"num_connections_started":5,"num_connections_completed":4`, `"x":0`}, toDB + `allow x1 by "source" egress only`},
		{"port 70000", []string{`"dest_port":5432`, `"dest_port":70000`}, `bad: dest_port "70000" is no whole number from 0 to 65535`},
		{"a type that nobody knows", []string{`"dest_type":1`, `"dest_type":5`}, `bad: dest_type "5" is none of wep, hep, ns, net`},
		{"end before start", []string{`"end_time":1772359500`, `"end_time":1772359100`}, `bad: end_time 2026-03-01T09:58:20Z is before start_time 2026-03-01T10:00:00Z`},
		{"both actions", []string{`"start_time"`, `"action":2,"start_time"`}, `bad: action is both "1" and "2"`},
		{"a key of nothing", []string{pushed, `{"Key":{},"start_time":1}`}, `bad: the record has no source_name and no dest_name of Goldmane, so it is no flow`},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			if got := says(t, edited(t, pushed, row.edit...)); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

// Records of one format are not taken for another's, whatever came before them.
func TestMixedFormats(t *testing.T) {
	records := map[string]string{
		"hubble": forwarded, "calico": aggregated, "calico-text": textLine, "goldmane": pushed,
		"weir": `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","from":{"pod":"a"}}`,
	}
	row := `{"start_time":"2026-03-01T10:00:00Z","action":"Allow","source_name":"a-*","source_namespace":"shop","dest_name":"b","dest_namespace":"shop","protocol":"tcp","reporter":"Dst"}`
	for before, first := range records {
		for after, second := range records {
			flows, stats, err := read(t, first+"\n"+second+"\n"+row+"\n"+first, Options{})
			if err != nil || stats.Flows != 4 || stats.Records() != 4 {
				t.Fatalf("%s, %s: %+v, error %v", before, after, stats, err)
			}
			var got []string
			for _, f := range flows {
				got = append(got, f.Origin.Format)
			}
			equal(t, got, []string{before, after, "goldmane", before})
		}
	}
}
