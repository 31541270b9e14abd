package report

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/rego"
	"github.com/weir-policy/weir/simulator"
)

func workload(name string) policies.Peer {
	var p policies.Peer
	p.Kind = "Deployment"
	for i, c := range name {
		if c == '/' {
			p.Namespace, p.Name = name[:i], name[i+1:]
		}
	}
	return p
}

func addresses(cidr string, except ...string) policies.Peer {
	b := netset.Block{CIDR: netip.MustParsePrefix(cidr)}
	for _, e := range except {
		b.Except = append(b.Except, netip.MustParsePrefix(e))
	}
	return policies.Outside(b)
}

func tcp(first uint16, last ...uint16) netset.Ports {
	if len(last) == 0 {
		return netset.PortSpan(netset.TCP, first, first)
	}
	return netset.PortSpan(netset.TCP, first, last[0])
}

func udp(port uint16) netset.Ports { return netset.PortSpan(netset.UDP, port, port) }

func place(file string, line, column int) policies.Place {
	return policies.Place{File: file, Line: line, Column: column}
}

func connection(from, to policies.Peer, allow, unknown netset.Ports) policies.Connection {
	return policies.Connection{From: &from, To: &to, Grant: &policies.Grant{Allow: allow, Unknown: unknown}}
}

// shop is the listing of a small application.
func shop() iter.Seq[policies.Connection] {
	web, api, db := workload("storefront/web"), workload("payments/api"), workload("payments/db")
	cart, worker, dns := workload("storefront/cart"), workload("payments/worker"), workload("kube-system/coredns")
	v4, v6 := addresses("0.0.0.0/0"), addresses("::/0")
	job, prometheus := workload("payments/report"), workload("monitoring/prometheus")
	job.Kind = "CronJob"
	var rows []policies.Connection
	add := func(from, to policies.Peer, allow, unknown netset.Ports) {
		rows = append(rows, connection(from, to, allow, unknown))
	}
	for _, w := range []policies.Peer{prometheus, api, db, job, worker, cart, web} {
		add(w, dns, udp(53).Union(tcp(53)), netset.Ports{})
	}
	for _, w := range []policies.Peer{api, db, worker, cart, web} {
		add(prometheus, w, tcp(9090, 9099), netset.Ports{})
	}
	add(api, db, tcp(5432), netset.Ports{})
	add(job, db, tcp(5432), netset.Ports{})
	add(worker, db, tcp(5432), netset.Ports{})
	add(worker, addresses("203.0.113.0/24"), tcp(443), netset.Ports{})
	add(cart, api, tcp(8080), udp(8125))
	add(web, api, tcp(8080), netset.Ports{})
	add(web, cart, tcp(7070), netset.Ports{})
	add(web, v4, netset.TransportPorts(), netset.Ports{})
	add(web, v6, netset.TransportPorts(), netset.Ports{})
	add(v4, web, tcp(443).Union(tcp(80)), netset.Ports{})
	add(v6, web, tcp(443).Union(tcp(80)), netset.Ports{})
	slices.SortStableFunc(rows, func(a, b policies.Connection) int {
		if c := comparePeers(*a.From, *b.From); c != 0 {
			return c
		}
		return comparePeers(*a.To, *b.To)
	})
	return slices.Values(rows)
}

var shopWarnings = []policies.Warning{
	{Place: place("deploy/mesh.yaml", 3, 1), Message: `policy kind "MeshPolicy" is not understood; what it may do is unknown`},
	{Message: "namespace storefront is not in the input; only its name is known"},
}

func decision(from, to policies.Peer, port uint16, verdict policies.Verdict, egress, ingress *policies.Side) policies.Decision {
	d := policies.Decision{From: from, To: to, Protocol: netset.TCP, Port: port, Verdict: verdict}
	open := policies.Side{Verdict: policies.Allow, Because: "no policy selects it"}
	d.Sides = [2]policies.Side{open, open}
	if egress != nil {
		d.Sides[policies.Egress] = *egress
	}
	if ingress != nil {
		d.Sides[policies.Ingress] = *ingress
	}
	return d
}

func side(verdict policies.Verdict, policy, because string, rule int, at policies.Place) *policies.Side {
	p := workload(policy)
	s := &policies.Side{
		Verdict: verdict, Tier: "default", Because: because, At: at,
		Policy: &policies.Ref{Kind: "NetworkPolicy", Namespace: p.Namespace, Name: p.Name},
	}
	if rule >= 0 {
		s.Rule = &rule
	}
	return s
}

// denied is a decision with all that one can have.
func denied() policies.Decision {
	in := side(policies.Deny, "payments/db", "no rule of payments/db matches", -1, place("deploy/payments/db.yaml", 3, 1))
	zero, one := 0, 1
	in.Trace = []policies.Step{
		{
			Tier: "default", Policy: *in.Policy, Rule: &zero, Action: policies.ActionAllow, Matches: policies.No,
			Because: "storefront/cart is not pods app=api in payments", At: place("deploy/payments/db.yaml", 14, 5),
		},
		{
			Tier: "default", Policy: *in.Policy, Rule: &one, Action: policies.ActionAllow, Matches: policies.Maybe,
			Because: "TCP/5432 is not TCP/9187", At: place("deploy/payments/db.yaml", 21, 5),
		},
	}
	d := decision(workload("storefront/cart"), workload("payments/db"), 5432, policies.Deny, nil, in)
	d.From.Pod = "cart-7d9f-x2x"
	d.Because = "ingress of payments/db denies it"
	return d
}

// edit is the change of a pull request: it breaks, opens, adds, and makes
// uncertain.
func edit() *diff.Change {
	web, api, db := workload("storefront/web"), workload("payments/api"), workload("payments/db")
	dbRule := place("deploy/payments/db.yaml", 14, 5)
	apiPolicy := place("deploy/payments/api.yaml", 3, 1)
	noRule := func(policy string) string { return "no rule of " + policy + " allows it" }
	var a, b []policies.Peer
	for i := range 4 {
		a = append(a, workload(fmt.Sprintf("batch/job-%d", i)))
	}
	for i := range 5 {
		b = append(b, workload(fmt.Sprintf("legacy/app-%d", i)))
	}
	v4 := addresses("0.0.0.0/0")
	return withDifferences(&diff.Change{
		Groups: []diff.Group{
			{
				From: []policies.Peer{v4}, To: []policies.Peer{db}, Ports: tcp(5432), Before: policies.Deny, After: policies.Allow, Pairs: 1,
				Is:  decision(v4, db, 5432, policies.Allow, nil, side(policies.Allow, "payments/db", "rule 2 of payments/db allows it", 1, dbRule)),
				Was: decision(v4, db, 5432, policies.Deny, nil, side(policies.Deny, "payments/db", noRule("payments/db"), -1, place("deploy/payments/db.yaml", 3, 1))),
			},
			{
				From: []policies.Peer{workload("storefront/cart")}, To: []policies.Peer{api, db}, Ports: tcp(8080).Union(tcp(9000, 9010)), Before: policies.Deny, After: policies.Allow, Pairs: 2,
				Is: decision(workload("storefront/cart"), api, 8080, policies.Allow, nil, side(policies.Allow, "payments/api", "rule 1 of payments/api allows it", 0, place("deploy/payments/api.yaml", 11, 5))),
			},
			{
				From: []policies.Peer{workload("payments/worker")}, To: []policies.Peer{workload("mesh/gateway")}, Ports: tcp(15443), Before: policies.Allow, After: policies.Unknown, Pairs: 1,
				Is: policies.Decision{
					Verdict: policies.Unknown, Because: "MeshPolicy mesh/strict is not understood",
					Sides: [2]policies.Side{{}, *side(policies.Unknown, "mesh/strict", "MeshPolicy mesh/strict is not understood", -1, place("deploy/mesh.yaml", 3, 1))},
				},
			},
			{
				From: []policies.Peer{web}, To: []policies.Peer{api}, Ports: tcp(8080), Before: policies.Allow, After: policies.Deny, Pairs: 1,
				Is:  decision(web, api, 8080, policies.Deny, nil, side(policies.Deny, "payments/api", noRule("payments/api"), -1, apiPolicy)),
				Was: decision(web, api, 8080, policies.Allow, nil, side(policies.Allow, "payments/api", "rule 1 of payments/api allows it", 0, place("deploy/payments/api.yaml", 12, 5))),
			},
			{
				From: a, To: b, Ports: tcp(80), Before: policies.Allow, After: policies.Deny, Pairs: 20,
				Is: decision(a[0], b[0], 80, policies.Deny, nil, side(policies.Deny, "legacy/default-deny", noRule("legacy/default-deny"), -1, place("deploy/legacy/deny.yaml", 1, 1))),
			},
		},
		NewWorkloads: []policies.Ref{{Kind: "Deployment", Namespace: "storefront", Name: "cart"}},
		Policies: []diff.PolicyChange{
			{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "payments", Name: "db"}, What: "changed", At: place("deploy/payments/db.yaml", 3, 1)},
			{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "payments", Name: "api"}, What: "changed", At: apiPolicy},
			{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "legacy", Name: "default-deny"}, What: "added", At: place("deploy/legacy/deny.yaml", 1, 1)},
		},
		Warnings: shopWarnings,
	})
}

// withDifferences spreads the groups of a change into its differences.
func withDifferences(c *diff.Change) *diff.Change {
	shared := map[string]*policies.Peer{}
	share := func(p policies.Peer) *policies.Peer {
		if shared[p.String()] == nil {
			shared[p.String()] = &p
		}
		return shared[p.String()]
	}
	for _, g := range c.Groups {
		for _, from := range g.From {
			for _, to := range g.To {
				if !from.IsOutside() && comparePeers(from, to) == 0 {
					continue
				}
				c.Differences = append(c.Differences, diff.Difference{From: share(from), To: share(to), Ports: g.Ports, Before: g.Before, After: g.After})
			}
		}
	}
	slices.SortStableFunc(c.Differences, func(a, b diff.Difference) int {
		return cmp.Or(comparePeers(*a.From, *b.From), comparePeers(*a.To, *b.To))
	})
	return c
}

func replayed() *simulator.Result {
	c := edit()
	web, api := workload("storefront/web"), workload("payments/api")
	first := time.Date(2026, 3, 3, 0, 0, 12, 0, time.UTC)
	last := time.Date(2026, 3, 10, 23, 58, 41, 0, time.UTC)
	flow := func(line int, from, to policies.FlowPeer) policies.Flow {
		return policies.Flow{
			First: last, Last: last, From: from, To: to, Protocol: netset.TCP, Verdict: policies.Allow, Count: 1,
			Record: policies.Place{File: "flows.jsonl.gz", Line: line},
		}
	}
	return &simulator.Result{
		Flows: 1_804_331, Paired: 600_000, Bytes: 88_123_456_789, First: first, Last: last,
		Outcomes: map[simulator.Outcome]uint64{
			simulator.Stays: 1_203_850, simulator.Breaks: 214, simulator.Opens: 31, simulator.Drifts: 180, simulator.Undecided: 12,
		},
		Explained: 1_204_095, Unresolved: 44, Questions: 312,
		Rows: simulator.RowsOf(
			simulator.Row{
				Outcome: simulator.Breaks, From: web, To: api, Protocol: netset.TCP, Port: 8080,
				Recorded: policies.Allow, Before: policies.Allow, After: policies.Deny, Flows: 214, Bytes: 1_234_567, First: first, Last: last,
				Example:  flow(4711, policies.FlowPeer{Namespace: "storefront", Pod: "web-5c9-abcde", Address: netip.MustParseAddr("10.1.2.3")}, policies.FlowPeer{Namespace: "payments", Pod: "api-0"}),
				Decision: c.Groups[3].Is,
			},
			simulator.Row{
				Outcome: simulator.Opens, From: addresses("203.0.113.7/32"), To: workload("payments/db"), Protocol: netset.TCP, Port: 5432,
				Recorded: policies.Deny, Before: policies.Deny, After: policies.Allow, Flows: 31, First: first, Last: last,
				Example:  flow(99, policies.FlowPeer{Address: netip.MustParseAddr("203.0.113.7"), Outside: true, Names: []string{"scanner.example"}}, policies.FlowPeer{Namespace: "payments", Pod: "db-0"}),
				Decision: c.Groups[0].Is,
			},
			simulator.Row{
				Outcome: simulator.Drifts, From: workload("monitoring/prometheus"), To: workload("storefront/cart"), Protocol: netset.TCP, Port: 9090,
				Recorded: policies.Deny, Before: policies.Allow, After: policies.Allow, Flows: 180, Bytes: 512, First: first, Last: last,
				Example: flow(12, policies.FlowPeer{}, policies.FlowPeer{}),
				Decision: decision(workload("monitoring/prometheus"), workload("storefront/cart"), 9090, policies.Allow, nil,
					side(policies.Allow, "storefront/cart", "rule 2 of storefront/cart allows it", 1, place("deploy/storefront/cart.yaml", 18, 5))),
			},
			simulator.Row{
				Outcome: simulator.Undecided, From: workload("payments/worker"), To: workload("mesh/gateway"), Protocol: netset.TCP, Port: 15443,
				Recorded: policies.Allow, Before: policies.Allow, After: policies.Unknown, Flows: 12, First: first, Last: last,
				Example: flow(77, policies.FlowPeer{}, policies.FlowPeer{}), Cause: "MeshPolicy mesh/strict is not understood",
			},
		),
		Causes: []simulator.Cause{{Text: "no workload has the address", Flows: 44}, {Text: "MeshPolicy mesh/strict is not understood", Flows: 12}},
	}
}

var shopReading = FlowReading{
	Records: 1_204_331, Bad: 2, Problems: []string{"flows.jsonl.gz:17: not JSON: unexpected end", "flows.jsonl.gz:18: no source"},
	LeftOut: []simulator.Cause{{Text: "replies without their request", Flows: 1_033}, {Text: "layer 7 records", Flows: 12}}, Lost: 5,
}

// tested is tests of which one passes, one got the other verdict, and one found
// others at the database's door.
func tested() []conntest.Result {
	suite, tests := policies.Ref{Kind: "ConnectivityTest", Namespace: "shop", Name: "db"}, "tests/db.yaml"
	refused, opened := denied(), decision(addresses("203.0.113.0/24"), workload("payments/db"), 5432, policies.Allow, nil,
		side(policies.Allow, "payments/db", "it allows 203.0.113.0/24 on TCP/5432", 1, place("deploy/db.yaml", 14, 7)))
	opened.Because = "ingress: it allows 203.0.113.0/24 on TCP/5432"
	mixed := opened
	mixed.Verdict, mixed.Because, mixed.Sides = policies.Unknown, "it depends on which is meant: 1 allow, 1 deny, 0 unknown", [2]policies.Side{}
	mixed.Parts = []policies.Decision{opened, refused}
	return []conntest.Result{
		{
			Suite: policies.Ref{Kind: "ConnectivityTest", Name: "front"}, From: "world", To: "storefront/web", Port: "https",
			Expect: policies.Deny, Passed: true, Decision: &refused, Place: place("tests/web.yaml", 7, 7),
		},
		{
			Suite: suite, Description: "#1: \"the\" <shell> opens it\\", From: "ops/shell", To: "payments/db", Port: "5432",
			Expect: policies.Allow, Decision: &refused, Place: place(tests, 8, 7),
		},
		{
			Suite: suite, From: "203.0.113.0/24", To: "payments/db", Port: "any",
			Expect: policies.Deny, Decision: &mixed, Place: place(tests, 12, 7),
		},
		{
			Suite: suite, Description: "nothing else opens it", To: "payments/db", Port: "postgres", Place: place(tests, 15, 7),
			Surplus: []conntest.Difference{{From: []policies.Peer{addresses("203.0.113.0/24"), addresses("::/0")}, To: "payments/db", Ports: tcp(5432), Verdict: policies.Allow, Decision: mixed}},
			Missing: []conntest.Difference{{From: []policies.Peer{workload("payments/api")}, To: "payments/db", Ports: tcp(5432), Verdict: policies.Deny, Decision: refused, Place: place(tests, 18, 9)}},
		},
	}
}

func pullRequest() *Preview {
	return &Preview{
		Base:   Revision{Name: "main", Commit: "1f0c3b5a9d2e4f60718293a4b5c6d7e8f9012345"},
		Head:   Revision{Name: "open-db", Commit: "9a8b7c6d5e4f30211203f4e5d6c7b8a901234567"},
		Change: edit(), Replay: replayed(), Reading: shopReading,
		Exposure: Exposure{
			Reachable: Span{Before: 1, After: 2, New: []policies.Peer{workload("payments/db")}},
			Reaching:  Span{Before: 2, After: 2},
		},
		Failed:   []string{"breaks", "adds"},
		Warnings: []policies.Warning{shopWarnings[0], {Place: place("deploy/kustomization.yaml", 9, 3), Message: "images are not looked at"}},
	}
}

// checked is a run with a finding of each severity, one of them with what would
// break out of an annotation, and one that is waived.
func checked() *CheckRun {
	policy := func(name string) policies.Ref {
		return policies.Ref{Kind: "NetworkPolicy", Namespace: "payments", Name: name}
	}
	warning := lint.Warning
	waived := lint.Finding{
		Check: "pod-range", Severity: lint.Warning, Place: place("deploy/payments/db.yaml", 30, 11), Policy: policy("db"),
		Message: "10.0.0.0/8 takes in addresses of pods (10.244.0.0/16)",
		Waiver:  &lint.Waiver{Check: "pod-range", Until: time.Date(2026, 12, 31, 0, 0, 0, 0, time.UTC), Reason: "the old cluster"},
	}
	return &CheckRun{
		FailOn: &warning, ShowWaived: true,
		Result: &lint.Result{
			Checks: lint.Checks(),
			Findings: []lint.Finding{
				{Check: "open-isolation", Severity: lint.Error, Place: place("deploy/payments/allow,all.yaml", 9, 7), Policy: policy("allow-all"), Message: "this rule lets everyone in on every port, so the default deny of payments/default-deny isolates nobody", See: place("deploy/payments/deny.yaml", 1, 1)},
				{Check: "peer-matches-nothing", Severity: lint.Note, Place: place("deploy/payments/api.yaml", 12, 11), Policy: policy("api"), Message: "this ingress peer is nobody: 100% of\nnothing"},
				{Check: "unknown-port", Severity: lint.Warning, Place: place("deploy/payments/db.yaml", 14, 7), Policy: policy("db"), Message: `no pod that the policy applies to has a TCP port named "postgre"`},
			},
			Waived:   []lint.Finding{waived},
			Warnings: shopWarnings[:1],
		},
	}
}

// rewritten is policies that were converted, but not all.
func rewritten() *Conversion {
	calico := policies.Ref{Group: policies.CalicoGroup, Kind: "NetworkPolicy", Namespace: "payments", Name: "db"}
	return &Conversion{
		To: "networkpolicy", YAML: []byte("kind: NetworkPolicy\n"), Change: &diff.Change{Warnings: shopWarnings}, Compared: 110, Calico: true,
		Policies: []policies.Conversion{
			{
				From: calico, To: policies.Ref{Kind: "NetworkPolicy", Namespace: "payments", Name: "db"}, Place: place("db.yaml", 1, 1),
				Changed: []policies.Remark{{Rule: -1, Because: "performanceHints are left out; they change no answer", Place: place("db.yaml", 8, 3)}},
			},
			{
				From: policies.Ref{Group: policies.CalicoGroup, Kind: "GlobalNetworkPolicy", Name: "guard"}, Place: place("guard.yaml", 1, 1),
				Lost: []policies.Remark{
					{Rule: -1, Because: "it concerns the whole cluster, and a NetworkPolicy one namespace", Place: place("guard.yaml", 1, 1)},
					{Direction: policies.Egress, Rule: 1, Because: "a Deny rule: a NetworkPolicy only allows", Place: place("guard.yaml", 12, 7)},
				},
			},
		},
	}
}

var shopSelection = Selection{Reading: shopReading, NotSaying: 3}

// listed is a page of flows as several recorders tell them.
func listed() *FlowList {
	at := time.Date(2026, 3, 10, 8, 0, 0, 123_000_000, time.UTC)
	web := policies.FlowPeer{Namespace: "storefront", Pod: "web-5b8c7d9f6c-4chzp", Address: netip.MustParseAddr("10.0.1.34"), Labels: map[string]string{"app": "web"}, LabelsPartial: true}
	db := policies.FlowPeer{Namespace: "payments", Workloads: []policies.Ref{{Kind: "StatefulSet", Namespace: "payments", Name: "db"}}, Labels: map[string]string{"app": "db"}}
	outside := policies.FlowPeer{Outside: true, Address: netip.MustParseAddr("203.0.113.7"), Names: []string{"cdn.example"}}
	set := policies.FlowPeer{Set: policies.Ref{Kind: "GlobalNetworkSet", Name: "partners"}, Network: policies.PublicNetwork}
	hit := policies.Hit{Tier: "default", Policy: policies.Ref{Kind: "NetworkPolicy", Namespace: "payments", Name: "db"}, Action: policies.ActionAllow}
	return &FlowList{
		Selection: shopSelection, Matched: 1_204, Next: "eyJzIjoic3RhcnQifQ",
		Encode: func(f policies.Flow) ([]byte, error) {
			return fmt.Appendf(nil, `{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","port":%d,"count":%d}`, f.Port, f.Count), nil
		},
		Flows: []policies.Flow{
			{First: at, Last: at, From: web, To: db, Protocol: netset.TCP, Port: 5432, Verdict: policies.Allow, EgressOnly: true, Count: 1, Bytes: 1_200, Origin: policies.Origin{Format: "hubble", Reporter: policies.SourceSide}, Record: place("a.jsonl", 7, 0)},
			{First: at.Add(time.Second), Last: at.Add(time.Minute), From: web, To: db, Protocol: netset.TCP, Port: 5432, Verdict: policies.Allow, Count: 12, Bytes: 1_200, Packets: 40, ReplyBytes: 99_000, ReplyPackets: 60, Hits: []policies.Hit{hit, hit}, Origin: policies.Origin{Format: "goldmane", Reporter: policies.DestinationSide, Window: time.Minute}, Record: place("b.jsonl", 1, 0)},
			{First: at.Add(time.Hour), Last: at.Add(time.Hour), From: outside, To: db, Protocol: netset.TCP, Port: 5432, Verdict: policies.Deny, Count: 3, Hits: []policies.Hit{{Tier: "default", Rule: policies.EndOfTier}}},
			{From: policies.FlowPeer{Host: true, OwnNode: true}, To: web, Protocol: netset.ICMP, Port: 8 << 8, Verdict: policies.Unknown, Count: 1},
			{First: at, Last: at, From: set, To: policies.FlowPeer{Namespace: "storefront", PodPrefix: "cart-"}, Verdict: policies.Allow, Count: 1},
			{First: at, Last: at, From: policies.FlowPeer{}, To: policies.FlowPeer{Namespace: "storefront"}, Protocol: netset.UDP, Verdict: policies.Allow, Count: 1},
		},
	}
}

func ranked(flows []policies.Flow) *simulator.Ranking {
	keys, err := simulator.ParseKeys("from.workload,port,verdict,hour")
	if err != nil {
		panic(err)
	}
	top := simulator.NewTop(keys, simulator.MaxConnections)
	for i := range flows {
		if err := top.Add(&flows[i]); err != nil {
			panic(err)
		}
	}
	return top.Ranking("bytes", 4)
}

func talked(flows []policies.Flow) *simulator.Graph {
	talk := simulator.NewTalk(false, simulator.MaxConnections)
	for i := range flows {
		if err := talk.Add(&flows[i]); err != nil {
			panic(err)
		}
	}
	return talk.Graph()
}

func censused(flows []policies.Flow) *simulator.Census {
	census := simulator.NewCensus(simulator.MaxConnections)
	for i := range flows {
		census.Add(&flows[i])
	}
	census.Close()
	return census
}

func storedFlows() *FlowStore {
	return &FlowStore{
		Where: "s3://flows/shop", Records: 1_234_567, Flows: 2_345_678, First: at(8), Last: at(20), Hours: 12, Compacted: 11, Files: 37,
		Bytes: 21_000_000, FlowBytes: 20_000_000, Work: &StoreWork{Hours: 3, Days: 1, Records: 300_000, Open: 1, Removed: 9, Forgotten: 2},
		Verified: true, Problems: []string{"s3://flows/shop/v1/flows/day=2026-03-10/hour=08/sorted-a.parquet: the file is missing"},
	}
}

func at(hour int) time.Time { return time.Date(2026, 3, 10, hour, 0, 0, 0, time.UTC) }

// testedRego is a run of tests in Rego.
func testedRego() []rego.TestResult {
	return []rego.TestResult{
		{Package: "shop.databases_test", Name: "test_open", Passed: true, Place: place("policies/databases_test.rego", 5, 1)},
		{Package: "shop.databases_test", Name: "test_closed", Because: "count(databases.deny) == 0 is not true at policies/databases_test.rego:12:2", Output: "found 1\n", Place: place("policies/databases_test.rego", 9, 1)},
		{Package: "shop.names_test", Name: "todo_test_names", Skipped: true, Place: place("policies/names_test.rego", 3, 1)},
	}
}
