package simulator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

type labels = map[string]string

func deployed(ns, kind, name string, replicas int, l labels) policies.Pod {
	ref := policies.Ref{Kind: kind, Namespace: ns, Name: name}
	return policies.Pod{Ref: ref, Workload: ref, Replicas: replicas, Labels: l}
}

// of is one of a workload's real pods.
func of(kind, workload string, p policies.Pod) policies.Pod {
	p.Workload = policies.Ref{Kind: kind, Namespace: p.Ref.Namespace, Name: workload}
	return p
}

// ingress lets only the pods with app=from reach those with app=to in their
// namespace, on one TCP port.
func ingress(ns, to, from string, port uint16, line int) policies.Policy {
	in := selector.Label(policies.NameLabel, ns)
	at := policies.Place{File: "shop.yaml", Line: line}
	return policies.Policy{
		Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: ns, Name: to}, Tier: "default", Place: at,
		Subject: policies.Match{Namespaces: in, Pods: selector.Label("app", to)},
		Governs: [2]bool{policies.Ingress: true},
		Rules: [2][]policies.Rule{policies.Ingress: {{
			Action: policies.ActionAllow, Ports: netset.PortSpan(netset.TCP, port, port), Place: at,
			Peers: []policies.Match{{Namespaces: in, Pods: selector.Label("app", from)}},
		}}},
	}
}

// egress lets the pods with app=from reach nothing.
func noEgress(ns, from string, line int) policies.Policy {
	return policies.Policy{
		Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: ns, Name: from}, Tier: "default", Place: policies.Place{File: "shop.yaml", Line: line},
		Subject: policies.Match{Namespaces: selector.Label(policies.NameLabel, ns), Pods: selector.Label("app", from)},
		Governs: [2]bool{policies.Egress: true},
	}
}

func world() policies.World {
	namespace := func(name string) policies.Namespace {
		return policies.Namespace{Name: name, Labels: labels{policies.NameLabel: name}}
	}
	return policies.World{
		Namespaces: []policies.Namespace{namespace("shop"), namespace("ops")},
		Pods: []policies.Pod{
			deployed("shop", "Deployment", "web", 3, labels{"app": "web"}),
			deployed("shop", "StatefulSet", "db", 1, labels{"app": "db"}),
			deployed("shop", "DaemonSet", "web-canary", 2, labels{"app": "web", "track": "canary"}),
			deployed("shop", "CronJob", "report", 1, labels{"app": "report"}),
			deployed("shop", "Job", "load", 1, labels{"app": "load"}),
			deployed("shop", "DaemonSet", "agent", 1, labels{"app": "agent"}),
			deployed("shop", "Job", "agent", 1, labels{"app": "agent-job"}),
			of("Deployment", "api", policies.Pod{
				Ref: policies.Ref{Kind: "Pod", Namespace: "ops", Name: "api-6d4b75cb6d-hlm9x"}, Replicas: 1,
				Labels: labels{"app": "api"}, Addresses: []netip.Addr{netip.MustParseAddr("10.1.0.7")},
			}),
			of("Deployment", "api", policies.Pod{
				Ref: policies.Ref{Kind: "Pod", Namespace: "ops", Name: "api-6d4b75cb6d-new22"}, Replicas: 1,
				Labels: labels{"app": "api", "debug": "true"},
			}),
		},
		Sets: []policies.NetworkSet{
			{Ref: policies.Ref{Kind: "GlobalNetworkSet", Name: "partners"}, Nets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
			{Ref: policies.Ref{Kind: "GlobalNetworkSet", Name: "saas"}, Domains: []string{"example.com"}},
			{Ref: policies.Ref{Kind: "GlobalNetworkSet", Name: "empty"}},
		},
		Hosts:    []policies.HostEndpoint{{Ref: policies.Ref{Kind: "HostEndpoint", Name: "n1-eth0"}, Node: "n1"}},
		Nodes:    []policies.Node{{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		Services: []policies.Service{{Ref: policies.Ref{Kind: "Service", Namespace: "shop", Name: "db"}, ClusterIP: []netip.Addr{netip.MustParseAddr("10.96.0.9")}}},
	}
}

func model(w policies.World, list ...policies.Policy) *policies.Model {
	return &policies.Model{World: w, Tiers: []policies.Tier{{Name: "default", End: policies.ActionDeny}}, Policies: list}
}

// end reads "ns/pod", "outside ADDRESS", "host ADDRESS" or "ADDRESS", with
// labels behind it: "shop/x app=web". A pod with "*" at its end is a prefix.
func end(text string) policies.FlowPeer {
	var p policies.FlowPeer
	for _, word := range strings.Fields(text) {
		switch key, value, isLabel := strings.Cut(word, "="); {
		case key == "set":
			p.Set = policies.Ref{Kind: "GlobalNetworkSet", Name: value}
		case isLabel && strings.HasPrefix(key, "owner:"):
			p.Workloads = append(p.Workloads, policies.Ref{Kind: strings.TrimPrefix(key, "owner:"), Namespace: p.Namespace, Name: value})
		case isLabel:
			if p.Labels == nil {
				p.Labels = labels{}
			}
			p.Labels[key] = value
		case word == "outside":
			p.Outside = true
		case word == "host":
			p.Host = true
		case word == "own":
			p.OwnNode = true
		case word == "public":
			p.Network = policies.PublicNetwork
		case word == "private":
			p.Network = policies.PrivateNetwork
		case word == "partial":
			p.LabelsPartial = true
		case strings.Contains(word, "/"):
			p.Namespace, p.Pod, _ = strings.Cut(word, "/")
			if prefix, ok := strings.CutSuffix(p.Pod, "*"); ok {
				p.Pod, p.PodPrefix = "", prefix
			}
		default:
			p.Address = netip.MustParseAddr(word)
		}
	}
	return p
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func flow(from, to string, port uint16, v policies.Verdict) policies.Flow {
	return policies.Flow{First: noon, Last: noon, From: end(from), To: end(to), Protocol: netset.TCP, Port: port, Verdict: v, Count: 1}
}

const (
	web = "shop/web-7c9f8d5b6-2x4z6"
	db  = "shop/db-0"
)

func TestOutcomes(t *testing.T) {
	w := world()
	before := model(w, ingress("shop", "db", "web", 5432, 3))
	after := model(w, ingress("shop", "db", "report", 5433, 7))
	const allow, deny, unknown = policies.Allow, policies.Deny, policies.Unknown
	gone := world()
	gone.Pods = gone.Pods[1:]
	opaque := ingress("shop", "db", "web", 5432, 3)
	opaque.Tier, opaque.Opaque = "", "kind Riddle is not understood"

	rows := []struct {
		name          string
		before, after *policies.Model
		flow          policies.Flow
		want          string
		explained     bool
	}{
		{"used and closed", before, after, flow(web, db, 5432, allow), "breaks allow allow deny at shop.yaml:7", true},
		{"denied and opened", before, after, flow("shop/report-29387520-abcde", db, 5433, deny), "opens deny deny allow at shop.yaml:7", true},
		{"not touched", before, after, flow(db, web, 80, allow), "stays allow allow allow", true},
		{"denied as ever", before, after, flow("shop/load-abcde", db, 5432, deny), "stays deny deny deny", true},
		{"allowed, says the record; denied, says the model", before, after, flow("shop/load-abcde", db, 5432, allow), "drifts allow deny deny at shop.yaml:3", false},
		{"denied, says the record; allowed, says the model", before, after, flow(web, db, 5432, deny), "drifts deny allow deny at shop.yaml:3", false},
		{"no recorded verdict", before, after, flow(web, db, 5432, unknown), "unknown unknown allow deny at shop.yaml:7: the record carries no verdict", false},
		{"no port", before, after, flow(web, db, 0, allow), "unknown allow undecided undecided: the record has no destination port", false},
		{"no protocol", before, after, func() policies.Flow { f := flow(web, db, 1, allow); f.Protocol = 0; return f }(), "unknown allow undecided undecided: the record has no protocol", false},
		{"workload gone", before, model(gone), flow(web, db, 5432, allow), "unknown allow allow undecided: shop/web is not in the world after the change", true},
		{"unknown before", model(w, opaque), after, flow(web, db, 5432, allow), "unknown allow unknown deny at shop.yaml:7: before the change: ingress: kind Riddle is not understood", false},
		{"unknown after", before, model(w, opaque), flow(web, db, 5432, allow), "unknown allow allow unknown at shop.yaml:3: after the change: ingress: kind Riddle is not understood", true},
		{"between pods of a namespace alike", before, after, flow(web, "shop/web-7c9f8d5b6-99999", 80, allow), "stays allow allow allow", true},
		{"a pod to itself", before, model(w, noEgress("shop", "web", 9)), flow(web, web, 80, allow), "stays allow allow allow", true},
		{"a pod to another of its workload", before, model(w, noEgress("shop", "web", 9)), flow(web, "shop/web-7c9f8d5b6-99999", 80, allow), "breaks allow allow deny at shop.yaml:9", true},

		{"one model: as it says", before, nil, flow(web, db, 5432, allow), "stays allow allow undecided", true},
		{"one model: not as it says", before, nil, flow(web, db, 5432, deny), "drifts deny allow undecided at shop.yaml:3", false},
		{"one model: it does not know", model(w, opaque), nil, flow(web, db, 5432, allow), "unknown allow unknown undecided at shop.yaml:3: ingress: kind Riddle is not understood", false},

		{"left the source, and denied at the destination", before, after, leaving(flow("shop/load-abcde", db, 5432, allow)), "stays allow deny deny", true},
		{"left the source, though it may not", model(w, noEgress("shop", "load", 5)), nil, leaving(flow("shop/load-abcde", db, 5432, allow)), "drifts allow deny undecided at shop.yaml:5", false},
		{
			"left the source, and opened at the destination", before, after, leaving(flow("shop/report-29387520-abcde", db, 5433, allow)),
			"unknown allow deny allow at shop.yaml:7: recorded where it left the source, before the destination's policies had a say", true,
		},
		{"left the source, and closed at the destination", before, after, leaving(flow(web, db, 5432, allow)), "breaks allow allow deny at shop.yaml:7", true},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			result := replay(row.before, row.after, row.flow)
			rows := slices.Collect(result.Rows.All())
			if len(rows) != 1 {
				t.Fatalf("%d rows, causes %v", len(rows), result.Causes)
			}
			r := rows[0]
			got := fmt.Sprintf("%s %s %s %s", r.Outcome, r.Recorded, r.Before, r.After)
			for _, d := range policies.Directions {
				if s := r.Decision.Sides[d]; s.At.File != "" {
					got += " at " + s.At.String()
				}
			}
			if r.Cause != "" {
				got += ": " + r.Cause
			}
			if got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			if changed := r.Outcome == Breaks || r.Outcome == Opens; changed && r.Base.Verdict != r.Before || !changed && r.Base.Because != "" {
				t.Errorf("before the change: %v, because %q", r.Base.Verdict, r.Base.Because)
			}
			if explained := result.Explained == 1; explained != row.explained {
				t.Errorf("explained %v, want %v", explained, row.explained)
			}
			if result.Outcomes[r.Outcome] != 1 {
				t.Errorf("outcomes %v", result.Outcomes)
			}
		})
	}
}

func leaving(f policies.Flow) policies.Flow {
	f.EgressOnly = true
	return f
}

func replay(before, after *policies.Model, flows ...policies.Flow) *Result {
	b, h := reach.New(before, reach.Options{}), (*reach.Judge)(nil)
	if after != nil {
		b, h = reach.Pair(before, after, reach.Options{})
	}
	r := New(b, h)
	for _, f := range flows {
		r.Add(f)
	}
	return r.Result()
}

func TestResolve(t *testing.T) {
	rows := []struct{ name, end, want string }{
		{"a Deployment's pod", "shop/web-7c9f8d5b6-2x4z6", "shop/web"},
		{"a word is no hash", "shop/web-stage-2x4z6", "no workload of shop matches pod web-stage-2x4z6"},
		{"a DaemonSet's pod", "shop/web-canary-2x4z6", "shop/web-canary"},
		{"a StatefulSet's pod", "shop/db-12", "shop/db"},
		{"a StatefulSet's pods have numbers", "shop/db-x", "no workload of shop matches pod db-x"},
		{"a CronJob's pod", "shop/report-29387520-2x4z6", "shop/report"},
		{"a Job's pod", "shop/load-2x4z6", "shop/load"},
		{"an indexed Job's pod", "shop/load-3-2x4z6", "shop/load"},
		{"a real pod", "ops/api-6d4b75cb6d-hlm9x", "ops/api (pod api-6d4b75cb6d-hlm9x)"},
		{"the record's workload", "shop/anything owner:Deployment=web", "shop/web"},
		{"the record's workload, with labels of another time", "shop/anything owner:Deployment=web app=frontend", "shop/web"},
		{"its ReplicaSet", "shop/anything owner:ReplicaSet=web-7c9f8d5b6", "shop/web"},
		{"its Job", "shop/anything owner:Job=report-29387520", "shop/report"},
		{"a workload of another kind", "shop/ owner:StatefulSet=web", "no workload of shop matches StatefulSet web"},
		{"a name that the labels contradict", "shop/web-7c9f8d5b6-2x4z6 app=db", "shop/db"},
		{"a name that complete labels contradict by what they lack", "shop/web-canary-2x4z6 app=web", "shop/web"},
		{"labels that may lack some do not", "shop/web-canary-2x4z6 partial app=web", "shop/web-canary"},
		{"generated labels", "shop/web-7c9f8d5b6-2x4z6 app=web pod-template-hash=7c9f8d5b6", "shop/web"},
		{"labels alone", "shop/ app=db", "shop/db"},
		{"labels exactly", "shop/ app=web", "shop/web"},
		{"labels exactly, with more", "shop/ app=web track=canary", "shop/web-canary"},
		{"labels among others", "shop/ app=db version=7", "shop/db"},
		{"labels of two workloads among others", "shop/ app=web track=canary version=7", "several workloads of shop match labels app=web,track=canary,version=7: web and web-canary"},
		{"other labels", "shop/ app=mail", "no workload of shop matches labels app=mail"},
		{"a namespace that is not there", "legacy/web-7c9f8d5b6-2x4z6", "namespace legacy is not in the world"},
		{"nothing", "", "a record says nothing about one of its ends"},
		{"a pod by its address", "10.1.0.7", "ops/api (pod api-6d4b75cb6d-hlm9x)"},
		{"a pod by its address, its name being unknown", "ops/renamed 10.1.0.7", "ops/api (pod api-6d4b75cb6d-hlm9x)"},
		{"a node by its address", "host 10.0.0.1", "node n1"},
		{"a node by its address alone", "10.0.0.1", "node n1"},
		{"another node", "host 10.0.0.2", "a node is not in the world"},
		{"a node without an address", "host", "a record does not say which node it means"},
		{"the outside", "outside 192.0.2.1", "192.0.2.1/32"},
		{"an address of nobody, all being known", "172.16.0.1", "172.16.0.1/32"},
		{"an address of a pod that is not known", "10.1.0.8", "an address is of no pod and no node in the world"},
		{"a Service's address", "outside 10.96.0.9", "a record names the address of a Service, not of the pod behind it"},
		{"outside without an address", "outside", "0.0.0.0/32"},

		{"a Deployment's pods", "shop/web-7c9f8d5b6-*", "shop/web"},
		{"a word is no hash of pods", "shop/web-stage-*", "no workload of shop matches pod web-stage-*"},
		{"a DaemonSet's pods", "shop/web-canary-*", "shop/web-canary"},
		{"a StatefulSet's pods", "shop/db-*", "shop/db"},
		{"a CronJob's pods", "shop/report-29387520-*", "shop/report"},
		{"a Job's pods", "shop/load-*", "shop/load"},
		{"an indexed Job's pods", "shop/load-3-*", "shop/load"},
		{"a prefix of nobody", "shop/*", "no workload of shop matches a record without a name"},
		{"half a prefix", "shop/we*", "no workload of shop matches pod we*"},
		{"pods of two workloads", "shop/agent-*", "several workloads of shop match pod agent-*: agent and agent"},
		{"pods of two workloads, with labels", "shop/agent-* app=agent-job", "shop/agent"},
		{"a node by its name", "host/n1 host", "node n1"},
		{"a node by that of its host endpoint", "host/n1-eth0 host", "node n1"},
		{"a node by a name that is not there", "host/n7 host", "node n7 is not in the world"},
		{"a pod's own node", "own", "the pod's own node"},
		{"a network set", "set=partners", "192.0.2.0/32"},
		{"an address of it", "set=partners 192.0.2.77", "192.0.2.77/32"},
		{"a private address of it, though the world may have it", "set=partners 10.1.0.99", "10.1.0.99/32"},
		{"a network set with domains may be anywhere", "set=saas", "0.0.0.0/32"},
		{"a network set of nothing", "set=empty", "GlobalNetworkSet empty has no address in the world"},
		{"a network set that is not there", "set=gone", "GlobalNetworkSet gone is not in the world"},
		{"the public network", "public", "0.0.0.0/32"},
		{"the private network", "private", "10.0.0.0/32"},
	}
	judge := reach.New(model(world()), reach.Options{})
	d := newDirectory(judge)
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			p := end(row.end)
			found := d.find(&p)
			got := strings.TrimSpace(found.cause + " " + found.example)
			for _, e := range found.ends {
				got += judge.Peer(e).String()
			}
			if got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
		})
	}
}

func TestAddressesWhereFewAreKnown(t *testing.T) {
	d := newDirectory(reach.New(model(policies.World{}), reach.Options{}))
	for text, outside := range map[string]bool{"8.8.8.8": true, "2606:4700::1": true, "10.0.0.1": false, "100.64.1.1": false, "fd00::1": false} {
		p := end(text)
		if got := d.find(&p).cause == ""; got != outside {
			t.Errorf("%s is outside: %v, want %v", text, got, outside)
		}
	}
}

// A workload's pods may differ; a record that does not say which it means is
// decided only where they are decided alike.
func TestSeveralPods(t *testing.T) {
	m := model(world(), ingress("ops", "api", "nobody", 80, 1))
	debug := ingress("ops", "true", "nobody", 80, 2)
	debug.Subject.Pods = selector.Label("debug", "true")
	debug.Rules[policies.Ingress][0].Peers = []policies.Match{{Anyone: true}}
	m.Policies = append(m.Policies, debug)
	to := "ops/api-6d4b75cb6d-zzzzz owner:Deployment=api"
	for name, row := range map[string]struct {
		flow policies.Flow
		want string
	}{
		"alike":           {flow(web, to, 81, policies.Deny), "stays "},
		"not alike":       {flow(web, to, 80, policies.Deny), "unknown pods of one workload are decided differently, and the record does not say which is meant"},
		"labels tell":     {flow(web, to+" app=api", 80, policies.Deny), "stays "},
		"labels do not":   {flow(web, to+" partial app=api", 80, policies.Deny), "unknown pods of one workload are decided differently, and the record does not say which is meant"},
		"so they do here": {flow(web, to+" app=api debug=true", 80, policies.Allow), "stays "},
		"more labels":     {flow(web, to+" app=api debug=true version=2", 80, policies.Deny), "unknown pods of one workload are decided differently, and the record does not say which is meant"},
	} {
		r := firstRow(replay(m, nil, row.flow))
		if got := string(r.Outcome) + " " + r.Cause; got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}

// An address that is known now was perhaps another's before.
func TestAPodThatIsYoungerThanTheRecord(t *testing.T) {
	w := world()
	for i := range w.Pods {
		if len(w.Pods[i].Addresses) > 0 {
			w.Pods[i].Since = noon
		}
	}
	for _, row := range []struct {
		to      string
		minutes time.Duration
		want    uint64
	}{
		{"10.1.0.7", -1, 1},
		{"10.1.0.7", 0, 0},
		{"ops/renamed 10.1.0.7", -1, 1},
		{"ops/renamed 10.1.0.7", 1, 0},
		{"ops/api-6d4b75cb6d-hlm9x 10.1.0.7", -1, 0},
	} {
		f := flow(web, row.to, 80, policies.Allow)
		f.First = noon.Add(row.minutes * time.Minute)
		result := replay(model(w), nil, f)
		kept, _, err := replayRecorded(model(w), nil, shelve([]policies.Flow{f}, false))
		if result.Unresolved != row.want || err != nil || kept.Unresolved != row.want {
			t.Errorf("%s after %d minutes: %d and %d unresolved (%v), want %d: %v", row.to, row.minutes, result.Unresolved, kept.Unresolved, err, row.want, result.Causes)
		}
	}
	f := flow(web, "10.1.0.7", 80, policies.Allow)
	f.First = time.Time{}
	if result := replay(model(w), nil, f); result.Unresolved != 0 {
		t.Errorf("a record without a time: %v", result.Causes)
	}
}

// A workload whose labels the change edits is still that workload.
func TestRelabelled(t *testing.T) {
	w := world()
	w.Pods[0].Labels = labels{"app": "frontend"}
	policy := ingress("shop", "db", "web", 5432, 3)
	r := firstRow(replay(model(world(), policy), model(w, policy), flow(web+" app=web", db, 5432, policies.Allow)))
	if r.Outcome != Breaks {
		t.Errorf("outcome %s, cause %s", r.Outcome, r.Cause)
	}
}

func TestRows(t *testing.T) {
	m := model(world(), ingress("shop", "db", "web", 5432, 3))
	at := func(minutes int, f policies.Flow) policies.Flow {
		f.First = noon.Add(time.Duration(minutes) * time.Minute)
		f.Last = f.First.Add(time.Second)
		f.Bytes = 10
		return f
	}
	late := at(9, flow("shop/web-7c9f8d5b6-99999", db, 5432, policies.Allow))
	early := at(1, flow(web, db, 5432, policies.Allow))
	early.Count = 5
	result := replay(m, nil, late, early,
		at(2, flow("outside 192.0.2.1", web, 443, policies.Allow)), at(3, flow("outside 192.0.2.2", web, 443, policies.Allow)),
		at(4, flow("legacy/x", db, 1, policies.Allow)), at(5, flow("legacy/y", db, 1, policies.Allow)), at(6, flow(web, "ops/z", 1, policies.Deny)))

	peer := func(kind, name string) policies.Peer {
		return policies.Peer{Namespace: "shop", Name: name, Kind: kind}
	}
	want := &Result{
		Flows: 11, Bytes: 70, First: noon.Add(time.Minute), Last: noon.Add(9*time.Minute + time.Second),
		Outcomes:  map[Outcome]uint64{Breaks: 0, Opens: 0, Drifts: 0, Undecided: 0, Stays: 8},
		Explained: 8, Unresolved: 3, Questions: 2,
		Rows: RowsOf(
			Row{
				Outcome: Stays, From: peer("Deployment", "web"), To: peer("StatefulSet", "db"), Protocol: netset.TCP, Port: 5432,
				Recorded: policies.Allow, Before: policies.Allow, Flows: 6, Bytes: 20, First: early.First, Last: late.Last, Example: early,
			},
			Row{
				Outcome: Stays, From: policies.Outside(netset.Block{CIDR: netset.AllIPv4}), To: peer("Deployment", "web"), Protocol: netset.TCP, Port: 443,
				Recorded: policies.Allow, Before: policies.Allow, Flows: 2, Bytes: 20, First: noon.Add(2 * time.Minute), Last: noon.Add(3*time.Minute + time.Second),
				Example: at(2, flow("outside 192.0.2.1", web, 443, policies.Allow)),
			},
		),
		Causes: []Cause{{"namespace legacy is not in the world", 2}, {"no workload of ops matches pod z", 1}},
	}
	if d := cmp.Diff(want, result, exact); d != "" {
		t.Error("(-want +got)\n" + d)
	}
	if got := result.Fidelity(); got != 8.0/11 {
		t.Errorf("fidelity %v", got)
	}
	if got := (&Result{}).Fidelity(); got != 0 {
		t.Errorf("fidelity of nothing %v", got)
	}
}

var exact = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.AllowUnexported(netset.Ports{}),
	cmp.Transformer("rows", func(r Rows) []Row { return slices.Collect(r.All()) }),
}

// firstRow returns the first row of a result.
func firstRow(result *Result) (first Row) {
	for row := range result.Rows.All() {
		return row
	}
	return first
}

func TestEndsThatAreNowhereAreGroupedByTheirNamespace(t *testing.T) {
	var flows []policies.Flow
	for i := range 50 {
		flows = append(flows, flow(fmt.Sprintf("ops/gone-%02d", 49-i), db, 80, policies.Allow), flow(fmt.Sprintf("shop/gone-%d", i%2), db, 80, policies.Allow))
	}
	result := replay(model(world()), nil, append(flows, flow("data/z", db, 80, policies.Allow))...)
	want := []Cause{
		{"no workload of ops matches pod gone-00, for one", 50},
		{"no workload of shop matches pod gone-0, for one", 50},
		{"namespace data is not in the world", 1},
	}
	if d := cmp.Diff(want, result.Causes); d != "" || result.Unresolved != 101 {
		t.Errorf("%d unresolved (-want +got)\n%s", result.Unresolved, d)
	}
}

// blocks lets only addresses of these blocks reach the pods with app=to.
func blocks(to string, port uint16, line int, cidrs ...string) policies.Policy {
	p := ingress("shop", to, "nobody", port, line)
	var peers []policies.Match
	for _, c := range cidrs {
		peers = append(peers, policies.Match{Block: netset.Block{CIDR: netip.MustParsePrefix(c)}})
	}
	p.Rules[policies.Ingress][0].Peers = peers
	return p
}

// An end whose address was not kept is decided where all that it may be are
// decided alike.
func TestWithoutAnAddress(t *testing.T) {
	const allow, deny = policies.Allow, policies.Deny
	unknown := func(what string) string {
		return "unknown: the record does not say which address " + what + " it means, and they are decided differently"
	}
	for name, row := range map[string]struct {
		from   string
		v      policies.Verdict
		blocks []string
		want   string
	}{
		"all of the set":                     {"set=partners", allow, []string{"192.0.2.0/24"}, "stays from partners"},
		"all of the set, by more":            {"set=partners", allow, []string{"192.0.0.0/16"}, "stays from partners"},
		"none of the set":                    {"set=partners", deny, []string{"198.51.100.0/24"}, "stays from partners"},
		"part of the set":                    {"set=partners", allow, []string{"192.0.2.0/25"}, unknown("of the set partners")},
		"part of the set, by address":        {"set=partners 192.0.2.7", allow, []string{"192.0.2.0/25"}, "stays from partners"},
		"the rest of the set":                {"set=partners 192.0.2.200", allow, []string{"192.0.2.0/25"}, "drifts from 192.0.2.200/32"},
		"not as recorded":                    {"set=partners", allow, []string{"198.51.100.0/24"}, "drifts from partners"},
		"domains, and one address":           {"set=saas", deny, []string{"192.0.2.1/32"}, unknown("of the set saas")},
		"the public network":                 {"public", allow, []string{"0.0.0.0/0"}, "stays from public network"},
		"the public network, private ones":   {"public", deny, []string{"10.0.0.0/8"}, "stays from public network"},
		"the public network, in part":        {"public", allow, []string{"0.0.0.0/1"}, unknown("of the public network")},
		"the private network":                {"private", allow, []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"}, "stays from private network"},
		"the private network, in part":       {"private", deny, []string{"10.0.0.0/8"}, unknown("of the private network")},
		"only what the world has":            {"private", deny, []string{"10.1.0.0/16", "10.0.0.1/32"}, "stays from private network"},
		"outside":                            {"outside", deny, nil, "stays from 0.0.0.0/0"},
		"outside, not as recorded":           {"outside", allow, nil, "drifts from outside"},
		"outside, in part":                   {"outside", deny, []string{"192.0.2.0/25"}, unknown("outside")},
		"IPv6, which plays no part":          {"public", allow, []string{"0.0.0.0/0"}, "stays from public network"},
		"IPv6, which plays a part":           {"public", allow, []string{"0.0.0.0/0", "2001:db8::/32"}, unknown("of the public network")},
		"IPv6, which plays a part, as a set": {"set=partners", allow, []string{"0.0.0.0/0", "2001:db8::/32"}, "stays from partners"},
	} {
		r := firstRow(replay(model(world(), blocks("db", 5432, 3, row.blocks...)), nil, flow(row.from, db, 5432, row.v)))
		got := string(r.Outcome) + " from " + r.From.String()
		if r.Outcome == Undecided {
			got = string(r.Outcome) + ": " + r.Cause
		}
		if got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
	}
}

// Of a set whose addresses the change edits, a record means those it had.
func TestASetThatChanges(t *testing.T) {
	m := model(world(), blocks("db", 5432, 3, "192.0.2.0/24"))
	edited := world()
	edited.Sets[0].Nets = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	r := firstRow(replay(m, model(edited, blocks("db", 5432, 3, "198.51.100.0/24")), flow("set=partners", db, 5432, policies.Allow)))
	if got := fmt.Sprint(r.Outcome, " ", r.From, " ", r.Decision.From, " ", r.Base.From); got != "breaks partners partners partners" {
		t.Errorf("got %s", got)
	}
}

// Addresses that no rule tells apart are one question; what does not stay has
// each in its row.
func TestAddressesAreDecidedTogether(t *testing.T) {
	before, after := model(world(), blocks("db", 5432, 3, "192.0.2.0/24")), model(world(), blocks("db", 5432, 7, "192.0.2.0/25"))
	var flows []policies.Flow
	for i := range 256 {
		flows = append(flows, flow(fmt.Sprintf("outside 192.0.2.%d", i), db, 5432, policies.Allow))
	}
	result := replay(before, after, flows...)
	rows := slices.Collect(result.Rows.All())
	if len(rows) != 129 || result.Questions != 2 || result.Outcomes[Breaks] != 128 {
		t.Fatalf("%d rows of %d questions, %v", len(rows), result.Questions, result.Outcomes)
	}
	r := rows[3]
	want := netip.MustParsePrefix("192.0.2.131/32")
	if *r.From.CIDR != want || *r.Decision.From.CIDR != want || *r.Base.From.CIDR != want || r.Example.From.Address != want.Addr() {
		t.Errorf("from %s, example %s, decided %s and %s", r.From, r.Example.From.Address, r.Base.From, r.Decision.From)
	}
}

// reported is a flow as one side of it reports it.
func reported(side policies.Reporter, minutes int, count, bytes uint64, f policies.Flow) policies.Flow {
	f.First = noon.Add(time.Duration(minutes) * time.Minute)
	f.Last, f.Count, f.Bytes, f.Origin.Reporter = f.First, count, bytes, side
	f.EgressOnly = side == policies.SourceSide && f.Verdict == policies.Allow
	return f
}

func TestBothSidesReport(t *testing.T) {
	const source, destination = policies.SourceSide, policies.DestinationSide
	m := model(world(), ingress("shop", "db", "web", 5432, 3))
	fine, refused, mute := flow(web, db, 5432, policies.Allow), flow("shop/load-abcde", db, 5432, policies.Deny), flow(web, db, 5432, policies.Unknown)
	left := refused
	left.Verdict = policies.Allow
	for name, row := range map[string]struct {
		flows                                []policies.Flow
		paired, explained, stays, mute, size uint64
	}{
		"both":                               {[]policies.Flow{reported(source, 1, 3, 30, fine), reported(destination, 2, 3, 31, fine)}, 3, 3, 3, 0, 31},
		"the source's alone":                 {[]policies.Flow{reported(source, 1, 3, 30, fine)}, 0, 3, 3, 0, 30},
		"the source's has more":              {[]policies.Flow{reported(source, 1, 3, 30, fine), reported(destination, 2, 2, 21, fine)}, 2, 3, 3, 0, 31},
		"the destination's has more":         {[]policies.Flow{reported(source, 1, 3, 30, fine), reported(destination, 2, 4, 41, fine)}, 3, 4, 4, 0, 41},
		"the destination's denies":           {[]policies.Flow{reported(source, 1, 3, 30, left), reported(destination, 2, 3, 0, refused)}, 3, 3, 3, 0, 0},
		"the source's denies":                {[]policies.Flow{reported(source, 1, 3, 30, refused), reported(destination, 2, 3, 0, refused)}, 0, 6, 6, 0, 30},
		"the next hour":                      {[]policies.Flow{reported(source, 59, 3, 30, fine), reported(destination, 60, 3, 31, fine)}, 3, 3, 3, 0, 31},
		"the hour after":                     {[]policies.Flow{reported(source, 59, 3, 30, fine), reported(destination, 120, 3, 31, fine)}, 0, 6, 6, 0, 61},
		"neither has a verdict":              {[]policies.Flow{reported(source, 1, 3, 30, mute), reported(destination, 2, 3, 31, mute)}, 3, 0, 0, 3, 31},
		"nobody says who reports":            {[]policies.Flow{reported(policies.UnknownReporter, 1, 3, 30, fine), reported(destination, 2, 3, 31, fine)}, 0, 6, 6, 0, 61},
		"a gateway reports, too":             {[]policies.Flow{reported(policies.OnTheWay, 1, 3, 30, fine), reported(destination, 2, 3, 31, fine)}, 0, 6, 6, 0, 61},
		"other pods of the same workload":    {[]policies.Flow{reported(source, 1, 1, 10, fine), reported(destination, 2, 1, 11, flow("shop/web-7c9f8d5b6-99999", db, 5432, policies.Allow))}, 1, 1, 1, 0, 11},
		"the outside has nobody who reports": {[]policies.Flow{reported(source, 1, 1, 10, flow("outside 192.0.2.1", web, 1, policies.Allow)), reported(destination, 2, 1, 11, flow("outside 192.0.2.1", web, 1, policies.Allow))}, 0, 2, 2, 0, 21},
	} {
		r := replay(m, nil, row.flows...)
		got := [...]uint64{r.Paired, r.Explained, r.Outcomes[Stays], r.Outcomes[Undecided], r.Bytes}
		if want := [...]uint64{row.paired, row.explained, row.stays, row.mute, row.size}; got != want {
			t.Errorf("%s: paired, explained, staying, without a verdict, bytes: %v, want %v", name, got, want)
		}
	}
}

// shop is two models between which something breaks and something opens.
func shop() (before, after *policies.Model) {
	before = model(world(), ingress("shop", "db", "web", 5432, 3), noEgress("shop", "load", 5), blocks("web", 80, 9, "192.0.2.0/31", "198.51.100.0/24"))
	after = model(world(), ingress("shop", "db", "report", 5433, 7), blocks("web", 80, 9, "192.0.2.1/32", "198.51.100.0/24"))
	after.Pods = after.Pods[:4]
	return before, after
}

// someFlows draws flows, no two of which begin together.
func someFlows(t *rapid.T) []policies.Flow {
	ends := rapid.SampledFrom([]string{
		web, "shop/web-7c9f8d5b6-99999", "shop/ app=web", "shop/web-7c9f8d5b6-*", db, db, "shop/load-abcde", "shop/report-29387520-abcde",
		"ops/api-6d4b75cb6d-hlm9x", "ops/api-6d4b75cb6d-zzzzz", "ops/renamed 10.1.0.7", "ops/renamed 10.1.0.8",
		"outside 192.0.2.0", "outside 192.0.2.1", "outside 192.0.2.2", "outside 198.51.100.7", "outside", "set=partners", "set=partners 192.0.2.1",
		"public", "private", "host 10.0.0.1", "own", "own 10.0.0.1", "host", "legacy/x", "10.1.0.7", "10.1.0.8", "203.0.113.9", "",
	})
	flows := make([]policies.Flow, rapid.IntRange(0, 40).Draw(t, "flows"))
	for i := range flows {
		f := flow(ends.Draw(t, "from"), ends.Draw(t, "to"), rapid.SampledFrom([]uint16{0, 80, 5432, 5433}).Draw(t, "port"),
			rapid.SampledFrom([]policies.Verdict{policies.Allow, policies.Deny, policies.Unknown}).Draw(t, "verdict"))
		f.First = noon.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "hour"))*time.Hour + time.Duration(i)*time.Second)
		f.Last, f.Count, f.Bytes = f.First, rapid.Uint64Range(0, 3).Draw(t, "count"), rapid.Uint64Range(0, 99).Draw(t, "bytes")
		f.Origin.Reporter = policies.Reporter(rapid.IntRange(0, 3).Draw(t, "reporter"))
		f.EgressOnly = f.Origin.Reporter == policies.SourceSide && rapid.Bool().Draw(t, "egressOnly")
		f.Record = policies.Place{File: "flows.jsonl", Line: i + 1}
		flows[i] = f
	}
	return flows
}

// TestOrderMakesNoDifference shuffles flows; and each is counted once.
func TestOrderMakesNoDifference(t *testing.T) {
	before, after := shop()
	rapid.Check(t, func(t *rapid.T) {
		flows := someFlows(t)
		for i := range flows {
			flows[i].First = flows[i].First.Truncate(time.Minute)
		}
		want := replay(before, after, flows...)
		got := replay(before, after, rapid.Permutation(flows).Draw(t, "shuffled")...)
		if d := cmp.Diff(want, got, exact); d != "" {
			t.Fatal("(-want +got)\n" + d)
		}
		sum, inRows := want.Unresolved+want.Paired, want.Unresolved+want.Paired
		for _, n := range want.Outcomes {
			sum += n
		}
		for r := range want.Rows.All() {
			inRows += r.Flows
		}
		if sum != want.Flows || inRows != want.Flows || want.Explained > want.Counted() {
			t.Fatalf("%d flows, %d counted, %d in rows", want.Flows, sum, inRows)
		}
	})
}

func BenchmarkReplay(b *testing.B) {
	before, after := reach.Pair(model(world(), ingress("shop", "db", "web", 5432, 3)), model(world()), reach.Options{})
	var flows []policies.Flow
	for i := range 1000 {
		f := flow(fmt.Sprintf("shop/web-7c9f8d5b6-%05d partial app=web version=3 team=shop", i%100), db+" partial app=db team=data", 5432, policies.Allow)
		f.First = f.First.Add(time.Duration(i) * time.Second)
		flows = append(flows, f)
	}
	r := New(before, after)
	b.ReportAllocs()
	for b.Loop() {
		for i := range flows {
			r.Add(flows[i])
		}
	}
	b.ReportMetric(float64(b.N*len(flows))/b.Elapsed().Seconds(), "flows/s")
}
