package simulator_test

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func TestParseMoment(t *testing.T) {
	for text, want := range map[string]string{
		"2026-02-01":                "2026-02-01T00:00:00Z",
		"2026-02-01T12:00:00+02:00": "2026-02-01T10:00:00Z",
		"12h":                       "2026-02-28T12:00:00Z",
		"1d":                        "2026-02-28T00:00:00Z",
		"1w1d90m":                   "2026-02-20T22:30:00Z",
	} {
		at, err := simulator.ParseMoment(text, march)
		if got := at.Format(time.RFC3339); err != nil || got != want {
			t.Errorf("%s is %s, want %s (error %v)", text, got, want, err)
		}
	}
	for _, text := range []string{"", "d", "yesterday", "-1h", "1d-1h", "99999999999d", "2026-13-01", "-3d"} {
		if at, err := simulator.ParseMoment(text, march); err == nil {
			t.Errorf("%q is %v", text, at)
		}
	}
}

func TestOwner(t *testing.T) {
	claim := func(kind, name string) policies.FlowPeer {
		return policies.FlowPeer{Namespace: "shop", Pod: "x", Workloads: []policies.Ref{{Kind: kind, Namespace: "shop", Name: name}}}
	}
	pod := func(name string) policies.FlowPeer { return policies.FlowPeer{Namespace: "shop", Pod: name} }
	for _, row := range []struct {
		peer policies.FlowPeer
		want string
	}{
		{claim("Deployment", "web"), "Deployment/shop/web"},
		{claim("ReplicaSet", "web-7c9f8d5b6"), "Deployment/shop/web"},
		{claim("ReplicaSet", "web"), "ReplicaSet/shop/web"},
		{claim("Job", "report-29387520"), "CronJob/shop/report"},
		{claim("Job", "once-1"), "Job/shop/once-1"},
		{pod("web-7c9f8d5b6-2x4z6"), "Deployment/shop/web"},
		{pod("report-29387520-2x4z6"), "CronJob/shop/report"},
		{pod("db-0"), "StatefulSet/shop/db"},
		{pod("proxy-2x4z6"), "/shop/proxy"},
		{pod("shell"), "/shop/shell"},
		{policies.FlowPeer{Namespace: "shop", PodPrefix: "web-7c9f8d5b6-"}, "Deployment/shop/web"},
		{policies.FlowPeer{Namespace: "shop", PodPrefix: "db-"}, "/shop/db"},
		{policies.FlowPeer{Namespace: "shop"}, "/"},
	} {
		if got := simulator.Owner(&row.peer); got.Full() != row.want {
			t.Errorf("%+v is of %s, want %s", row.peer, got.Full(), row.want)
		}
	}
}

func TestFilterOfEnds(t *testing.T) {
	web := policies.FlowPeer{
		Namespace: "shop", Pod: "web-7c9f8d5b6-2x4z6", Labels: map[string]string{"app": "web"}, LabelsPartial: true, Address: netip.MustParseAddr("10.0.0.1"),
	}
	whole := policies.FlowPeer{Namespace: "shop", Labels: map[string]string{"app": "db"}}
	bare := policies.FlowPeer{Address: netip.MustParseAddr("::ffff:10.0.0.9")}
	outside := policies.FlowPeer{Outside: true}
	for _, row := range []struct {
		end  string
		peer policies.FlowPeer
		want simulator.Answer
	}{
		{"shop/*", web, simulator.Yes},
		{"shop/*", bare, simulator.NotSay},
		{"shop/*", outside, simulator.No},
		{"bank/*", web, simulator.No},
		{"shop/web", web, simulator.Yes},
		{"shop/web", whole, simulator.NotSay},
		{"bank/web", whole, simulator.No},
		{"shop/deployment/web", web, simulator.Yes},
		{"shop/DaemonSet/web", web, simulator.No},
		{"shop/web-7c9f8d5b6-2x4z6", web, simulator.Yes},
		{"shop/pod/web-7c9f8d5b6-2x4z6", web, simulator.Yes},
		{"shop/pod/web", web, simulator.No},
		{"shop/pod/web", whole, simulator.NotSay},
		{"app=web", web, simulator.Yes},
		{"app=web,tier=front", web, simulator.NotSay},
		{"!tier", web, simulator.NotSay},
		{"!tier", whole, simulator.Yes},
		{"app in (db,web)", whole, simulator.Yes},
		{"app=web", bare, simulator.NotSay},
		{"app=web", outside, simulator.No},
		{"shop/app=db", whole, simulator.Yes},
		{"bank/app=db", whole, simulator.No},
		{"10.0.0.0/8", web, simulator.Yes},
		{"10.0.0.9", bare, simulator.Yes},
		{"10.0.0.0/8", whole, simulator.NotSay},
		{"192.168.0.0/16", web, simulator.No},
		{"world", outside, simulator.Yes},
		{"world", bare, simulator.NotSay},
		{"world", web, simulator.No},
	} {
		e, err := simulator.ParseEnd(row.end)
		if err != nil {
			t.Fatal(err)
		}
		f := simulator.Filter{From: []simulator.End{e}}
		if got := f.Match(&policies.Flow{From: row.peer}); got != row.want {
			t.Errorf("%s of %+v: %d, want %d", row.end, row.peer, got, row.want)
		}
		f = simulator.Filter{Either: []simulator.End{e}}
		if got := f.Match(&policies.Flow{From: policies.FlowPeer{Host: true}, To: row.peer}); got != row.want && row.end != "10.0.0.0/8" && row.end != "10.0.0.9" && row.end != "192.168.0.0/16" {
			t.Errorf("either end %s of %+v: %d, want %d", row.end, row.peer, got, row.want)
		}
	}
	for _, text := range []string{"", "web", "shop/", "/web", "a/b/c/d", "shop/app in (", "10.0.0.0/33"} {
		if e, err := simulator.ParseEnd(text); err == nil {
			t.Errorf("%q is read as %+v", text, e)
		}
	}
}

func TestFilterOfRecords(t *testing.T) {
	flow := policies.Flow{
		First: march, Protocol: netset.TCP, Port: 443, Verdict: policies.Deny,
		Hits:   []policies.Hit{{Tier: "default", Policy: policies.Ref{Namespace: "shop", Name: "db"}}, {Tier: "security", Policy: policies.Ref{Kind: "GlobalNetworkPolicy", Name: "guard"}}},
		Origin: policies.Origin{Format: "goldmane", Reporter: policies.SourceSide},
	}
	hit := func(text string) simulator.Filter {
		p, err := simulator.ParseHit(text)
		if err != nil {
			t.Fatal(err)
		}
		return simulator.Filter{Policies: []simulator.HitPattern{p}}
	}
	port := func(text string) simulator.Filter {
		p, err := policies.ParsePort(text)
		if err != nil {
			t.Fatal(err)
		}
		return simulator.Filter{Ports: p.Ports}
	}
	without := flow
	without.Hits, without.Port, without.First = nil, 0, time.Time{}
	for name, row := range map[string]struct {
		filter simulator.Filter
		flow   policies.Flow
		want   simulator.Answer
	}{
		"everything":                   {simulator.Filter{}, flow, simulator.Yes},
		"since is included":            {simulator.Filter{Since: march}, flow, simulator.Yes},
		"until is excluded":            {simulator.Filter{Until: march}, flow, simulator.No},
		"no time":                      {simulator.Filter{Since: march}, without, simulator.NotSay},
		"a port":                       {port("443"), flow, simulator.Yes},
		"another protocol":             {port("UDP"), flow, simulator.No},
		"no port, but the protocol":    {port("1-1024"), without, simulator.NotSay},
		"no port of another protocol":  {port("UDP/53"), without, simulator.No},
		"a verdict":                    {simulator.Filter{Verdicts: []policies.Verdict{policies.Allow, policies.Deny}}, flow, simulator.Yes},
		"another verdict":              {simulator.Filter{Verdicts: []policies.Verdict{policies.Allow}}, without, simulator.No},
		"a reporter":                   {simulator.Filter{Reporters: []policies.Reporter{policies.SourceSide}}, flow, simulator.Yes},
		"another format":               {simulator.Filter{Formats: []string{"hubble"}}, flow, simulator.No},
		"a policy":                     {hit("shop/db"), flow, simulator.Yes},
		"a policy without a kind":      {hit("NetworkPolicy/shop/db"), flow, simulator.NotSay},
		"a cluster-wide policy":        {hit("guard"), flow, simulator.Yes},
		"a cluster-wide policy's kind": {hit("GlobalNetworkPolicy/guard"), flow, simulator.Yes},
		"another kind":                 {hit("AdminNetworkPolicy/guard"), flow, simulator.No},
		"a tier":                       {hit("tier:security"), flow, simulator.Yes},
		"no policies recorded":         {hit("shop/db"), without, simulator.NotSay},
		"no wins over not said":        {simulator.Filter{Since: march, Formats: []string{"hubble"}}, without, simulator.No},
	} {
		if got := row.filter.Match(&row.flow); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
	}
}

// flows draws records of few ends, as both sides report them.
var flows = rapid.Custom(func(t *rapid.T) policies.Flow {
	peer := func(label string) policies.FlowPeer {
		return rapid.SampledFrom([]policies.FlowPeer{
			{Namespace: "shop", Pod: "web-7c9f8d5b6-2x4z6"},
			{Namespace: "shop", Pod: "web-7c9f8d5b6-9x4z6"},
			{Namespace: "shop", Pod: "db-0"},
			{Namespace: "bank", Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "bank", Name: "web"}}},
			{Outside: true, Address: netip.MustParseAddr("192.0.2.1")},
			{Host: true},
			{},
		}).Draw(t, label)
	}
	f := policies.Flow{
		First: march.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "minute")) * time.Minute), From: peer("from"), To: peer("to"),
		Protocol: netset.TCP, Port: rapid.SampledFrom([]uint16{80, 443}).Draw(t, "port"),
		Verdict: rapid.SampledFrom([]policies.Verdict{policies.Allow, policies.Deny}).Draw(t, "verdict"),
		Count:   uint64(rapid.IntRange(1, 3).Draw(t, "count")), Bytes: uint64(rapid.IntRange(0, 100).Draw(t, "bytes")),
		Origin: policies.Origin{Reporter: rapid.SampledFrom([]policies.Reporter{policies.SourceSide, policies.DestinationSide}).Draw(t, "reporter")},
	}
	f.Last = f.First
	f.EgressOnly = f.Verdict == policies.Allow && f.Origin.Reporter == policies.SourceSide
	return f
})

func keys(t rapid.TB, text string) []simulator.Key {
	t.Helper()
	all, err := simulator.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func rank(t rapid.TB, by string, all []policies.Flow) *simulator.Ranking {
	top := simulator.NewTop(keys(t, by), 1000)
	for i := range all {
		if err := top.Add(&all[i]); err != nil {
			t.Fatal(err)
		}
	}
	return top.Ranking("flows", 1000)
}

// Where no record has a twin, counts are those of a naive sum, row by row.
func TestTopAgreesWithASum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(flows, 0, 40).Draw(t, "flows")
		for i := range all {
			all[i].Origin.Reporter, all[i].EgressOnly = policies.DestinationSide, false
		}
		type sums struct{ flows, bytes uint64 }
		want := map[string]sums{}
		for i := range all {
			f := &all[i]
			namespace := func(p policies.FlowPeer) string {
				switch {
				case p.Host:
					return "(node)"
				case p.Outside:
					return "(outside)"
				}
				return cmp.Or(p.Namespace, "(not recorded)")
			}
			key := fmt.Sprintf("%s|TCP/%d|%s|%s", namespace(f.From), f.Port, f.Verdict, f.First.Format("2006-01-02T15:00Z"))
			want[key] = sums{want[key].flows + f.Count, want[key].bytes + f.Bytes}
		}
		got := map[string]sums{}
		for _, row := range rank(t, "from.namespace,port,verdict,hour", all).Rows {
			got[strings.Join(row.Values, "|")] = sums{row.Flows, row.Bytes}
		}
		if !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

// Of each connection, as many reports of the source's side as have one of the
// destination's in the same hour or beside it are not counted.
func TestTopCountsBothSidesOnce(t *testing.T) {
	flow := func(at int, reporter policies.Reporter, verdict policies.Verdict, count uint64) policies.Flow {
		return policies.Flow{
			First: march.Add(time.Duration(at) * time.Hour), Protocol: netset.TCP, Port: 80, Verdict: verdict, Count: count, Bytes: 10 * count,
			From: policies.FlowPeer{Namespace: "shop", Pod: "web-7c9f8d5b6-2x4z6"}, To: policies.FlowPeer{Namespace: "shop", Pod: "db-0"},
			EgressOnly: reporter == policies.SourceSide && verdict == policies.Allow, Origin: policies.Origin{Reporter: reporter},
		}
	}
	all := []policies.Flow{
		flow(0, policies.SourceSide, policies.Allow, 5), flow(1, policies.DestinationSide, policies.Allow, 3), flow(1, policies.DestinationSide, policies.Deny, 1),
		flow(9, policies.SourceSide, policies.Allow, 2), flow(20, policies.DestinationSide, policies.Allow, 2),
	}
	// The record of the source's workload names the kind, that of the destination does not.
	all[0].From.Workloads = []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: "web"}}
	for by, want := range map[string][]string{
		"workload":       {"shop/db 9", "shop/web 9"},
		"verdict":        {"allow 8", "deny 1"},
		"day":            {"2026-03-01 9"},
		"hour":           {"2026-03-01T01:00Z 4", "2026-03-01T09:00Z 2", "2026-03-01T20:00Z 2", "2026-03-01T00:00Z 1"},
		"reporter":       {"source 7", "destination 6"},
		"from.workload,": nil,
	} {
		if strings.HasSuffix(by, ",") {
			if _, err := simulator.ParseKeys(by); err == nil {
				t.Errorf("%q is read", by)
			}
			continue
		}
		r := rank(t, by, all)
		var got []string
		for _, row := range r.Rows {
			got = append(got, fmt.Sprint(strings.Join(row.Values, "|"), " ", row.Flows))
		}
		if diff := gocmp.Diff(want, got); diff != "" || r.Total.Flows != 9 || r.Total.Bytes != 90 {
			t.Errorf("%s: total %+v\n%s", by, r.Total, diff)
		}
	}
	talk := simulator.NewTalk(false, 10)
	census := simulator.NewCensus(10)
	for i := range all {
		if err := talk.Add(&all[i]); err != nil {
			t.Fatal(err)
		}
		census.Add(&all[i])
	}
	census.Close()
	g := talk.Graph()
	if len(g.Nodes) != 2 || g.Nodes[1].Kind != "Deployment" || len(g.Edges) != 2 || g.Edges[0].Flows != 8 || g.Total.Flows != 9 || census.Total.Flows != 9 {
		t.Errorf("the graph is %+v, the census %+v", g, census)
	}
}

// No name takes the place of another key's.
func TestTopOfNamesThatAreNone(t *testing.T) {
	r := rank(t, "from.pod,port", []policies.Flow{{From: policies.FlowPeer{Namespace: "shop", Pod: "a\x00b"}, Protocol: netset.TCP, Port: 80, Count: 1}})
	if len(r.Rows) != 1 || !slices.Equal(r.Rows[0].Values, []string{"shop/a\ufffdb", "TCP/80"}) {
		t.Errorf("got %+v", r.Rows)
	}
}

func TestTooManyConnections(t *testing.T) {
	top := simulator.NewTop(keys(t, "port"), 2)
	var err error
	for port := range uint16(3) {
		err = top.Add(&policies.Flow{Protocol: netset.TCP, Port: 80 + port})
	}
	if err == nil || !strings.Contains(err.Error(), "more than 2 different connections; choose some by --since") {
		t.Error(err)
	}
}

// Pages of any size, of flows in any order, come to all of them in the same order.
func TestPagesAreTheWholeList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(flows, 1, 30).Draw(t, "flows")
		order := rapid.SampledFrom(simulator.Sorts).Draw(t, "sort")
		if rapid.Bool().Draw(t, "reverse") {
			order = "-" + order
		}
		page := func(limit int, after string, shuffled []policies.Flow) ([]policies.Flow, string) {
			p, err := simulator.NewPage(order, limit, after)
			if err != nil {
				t.Fatal(err)
			}
			for i := range shuffled {
				p.Add(&shuffled[i])
			}
			return p.Flows()
		}
		whole, next := page(100, "", all)
		if next != "" || len(whole) != len(all) {
			t.Fatalf("%d flows of %d, then %q", len(whole), len(all), next)
		}
		var paged []policies.Flow
		limit := rapid.IntRange(1, 7).Draw(t, "limit")
		for after := ""; ; {
			some, next := page(limit, after, rapid.Permutation(all).Draw(t, "order"))
			paged = append(paged, some...)
			if after = next; next == "" {
				break
			}
		}
		if diff := gocmp.Diff(texts(whole), texts(paged)); diff != "" {
			t.Error(diff)
		}
		if order == "bytes" && !slices.IsSortedFunc(whole, func(a, b policies.Flow) int { return cmp.Compare(b.Bytes, a.Bytes) }) {
			t.Error("the flows with most bytes do not come first")
		}
	})
}

func texts(flows []policies.Flow) (all []string) {
	for _, f := range flows {
		all = append(all, fmt.Sprintf("%+v", f))
	}
	return all
}

func TestPagesThatCannotBe(t *testing.T) {
	_, cursor := func() ([]policies.Flow, string) {
		p, _ := simulator.NewPage("start", 1, "")
		p.Add(&policies.Flow{Count: 1})
		p.Add(&policies.Flow{Count: 2})
		return p.Flows()
	}()
	for _, row := range []struct {
		sort   string
		limit  int
		after  string
		wanted string
	}{
		{"size", 1, "", `sort "size" is none of start, bytes, flows, from, to, port`},
		{"start", 0, "", "limit 0 is not from 1 to 100000"},
		{"start", 1, "x!", `cursor "x!": it is not one that a listing gave`},
		{"bytes", 1, cursor, "it is of a listing sorted by start"},
	} {
		if _, err := simulator.NewPage(row.sort, row.limit, row.after); err == nil || !strings.Contains(err.Error(), row.wanted) {
			t.Errorf("%+v: %v", row, err)
		}
	}
}

func FuzzParseEnd(f *testing.F) {
	for _, seed := range []string{"shop/*", "shop/Deployment/web", "app=web", "shop/app in (a,b)", "10.0.0.0/8", "::1", "world", "tier:x", "30d"} {
		f.Add(seed)
	}
	flow := policies.Flow{From: policies.FlowPeer{Namespace: "shop", Pod: "web-0"}, Hits: []policies.Hit{{Tier: "default"}}}
	f.Fuzz(func(_ *testing.T, text string) {
		var filter simulator.Filter
		if e, err := simulator.ParseEnd(text); err == nil {
			filter.Either = append(filter.Either, e)
		}
		if p, err := simulator.ParseHit(text); err == nil {
			filter.Policies = append(filter.Policies, p)
		}
		filter.Since, _ = simulator.ParseMoment(text, march)
		filter.Match(&flow)
		_, _ = simulator.NewPage("start", 1, text)
		_, _ = simulator.ParseKeys(text)
	})
}
