package expression_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

// shop has a Deployment web of two pods that differ in one label, a database
// with a policy, and a pod in a namespace whose labels are not in the files.
const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web, version: "1"}, ownerReferences: [{kind: StatefulSet, name: web, controller: true, apiVersion: apps/v1, uid: a}]}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-2, namespace: shop, labels: {app: web, version: "2"}, ownerReferences: [{kind: StatefulSet, name: web, controller: true, apiVersion: apps/v1, uid: a}]}, spec: {containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db, tier: db}}, spec: {containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bot, namespace: ops, labels: {app: bot}}, spec: {containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.4}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {zone: a}}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {clusterIP: 10.96.0.1, selector: {app: db}, ports: [{port: 5432}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}, {from: [{namespaceSelector: {matchLabels: {team: data}}}], ports: [{port: 5432}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: web, namespace: shop}, spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/24}}]}, {to: [{podSelector: {}}]}]}}
`

func judge(t testing.TB, text string) *reach.Judge {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return reach.New(m, reach.Options{})
}

func recorded() []policies.Flow {
	at := func(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
	address := netip.MustParseAddr
	return []policies.Flow{
		{First: at(1), Last: at(2), From: policies.FlowPeer{Namespace: "shop", Pod: "web-1"}, To: policies.FlowPeer{Address: address("10.0.0.3")}, Protocol: netset.TCP, Port: 5432, Verdict: policies.Allow, Count: 4, Bytes: 100},
		{First: at(3), Last: at(3), From: policies.FlowPeer{Namespace: "ops", Pod: "gone", Labels: map[string]string{"app": "gone"}}, To: policies.FlowPeer{Namespace: "shop", Pod: "db"}, Protocol: netset.UDP, Port: 53, Verdict: policies.Deny, Count: 1},
		{First: at(4), Last: at(4), From: policies.FlowPeer{Address: address("198.51.100.7"), Outside: true}, To: policies.FlowPeer{Namespace: "shop", Pod: "web-2"}, Protocol: netset.TCP, Port: 80, Verdict: policies.Allow, Count: 1},
	}
}

func shopWorld(t testing.TB) *expression.World {
	j := judge(t, shop)
	return expression.NewWorld(j, expression.Recorded{Flows: recorded(), Find: simulator.Finder(j)})
}

// said prints a value on one line.
func said(v expression.Value) string {
	switch v := v.(type) {
	case expression.List:
		var all []string
		for _, e := range v {
			all = append(all, said(e))
		}
		return "[" + strings.Join(all, ", ") + "]"
	case expression.Map:
		var all []string
		for _, e := range v {
			all = append(all, e.Key+": "+said(e.Value))
		}
		return "{" + strings.Join(all, ", ") + "}"
	case *expression.Object:
		return v.Text
	}
	return fmt.Sprint(v)
}

func eval(t testing.TB, w *expression.World, text string) (expression.Value, error) {
	t.Helper()
	x, err := expression.Compile(text)
	if err != nil {
		return nil, err
	}
	return x.Eval(context.Background(), w, expression.Steps)
}

func TestExpressions(t *testing.T) {
	tests := []struct{ text, want string }{
		{`workloads`, "[ops/bot, shop/db, shop/web]"},
		{`workloads.map(w, w.kind)`, "[Pod, Pod, StatefulSet]"},
		{`pods.filter(p, p.node == "n1")`, "[shop/web-1]"},
		{`pods.map(p, p.workload).distinct().size()`, "3"},
		{`namespaces.map(n, n.name)`, "[ops, shop]"},
		{`namespaces.filter(n, !n.labelsKnown)`, "[ops]"},
		{`nodes.map(n, n.labels["zone"])`, "[a]"},
		{`services.map(s, s.pods)`, "[[shop/db]]"},
		{`services[0].ports[0].target`, "5432"},
		{`services.filter(s, s.clusterIPs.exists(a, cidr("10.96.0.0/12").containsIP(a)))`, "[shop/db]"},
		{`policies.map(p, p.rules.size())`, "[2, 2]"},
		{`policies.filter(p, "egress" in p.directions)`, "[shop/web]"},
		{`policies.filter(p, p.rules.exists(r, r.cidrs.exists(c, cidr("203.0.0.0/8").containsCIDR(c))))`, "[shop/web]"},
		{`policies[0].pods`, "[shop/db]"},
		{`policies[0].rules.map(r, string(r.ports))`, "[TCP/5432, TCP/5432]"},

		// Labels: of a workload those that all its pods have; what is not there is "".
		{`workloads.filter(w, w.labels["tier"] == "db")`, "[shop/db]"},
		{`workloads.filter(w, w.labels["tier"] == "")`, "[ops/bot, shop/web]"},
		{`workloads.filter(w, "version" in w.labels)`, "[]"},
		{`pods.filter(p, has(p.labels.version)).map(p, p.labels.version)`, "[1, 2]"},
		{`pods.filter(p, p.labels[?"version"].hasValue()).size()`, "2"},
		{`pods.exists(p, {"app": "bot"} == p.labels)`, "true"},
		{`pods.exists(p, p.labels == {"app": "bot"})`, "true"},
		{`pods.all(p, {"app": "bot"} != p.labels)`, "false"},
		{`pods.filter(p, p.labels.exists(key, key == "tier"))`, "[shop/db]"},
		{`pods.filter(p, p.labels.exists(key, value, key == "app" && value.startsWith("b")))`, "[ops/bot]"},
		{`pods.filter(p, p.labels.selected("app in (web,db),!tier"))`, "[shop/web-1, shop/web-2]"},
		{`pods.filter(p, p.namespaceLabels["team"] == "shop").size()`, "3"},
		{`pods.map(p, p.labels.size())`, "[1, 2, 2, 2]"},
		{`{"a": "b"}.selected("a=b")`, "true"},

		// Connections.
		{`connections.filter(c, c.from.namespace != c.to.namespace && c.to.labels["tier"] == "db")`, "[ops/bot -> shop/db]"},
		{`connections.filter(c, c.from.namespace != c.to.namespace && c.to.labels["tier"] == "db").map(c, c.unknown)`, "[TCP/5432]"},
		{`connections.filter(c, c.to.name == "db" && !c.allow.empty)`, "[shop/web -> shop/db]"},
		{`connections.filter(c, c.to.name == "db" && c.allow.includes(5432))`, "[shop/web -> shop/db]"},
		{`connections.filter(c, c.to.name == "db" && c.allow.includes("TCP/5000-6000"))`, "[]"},
		{`connections.filter(c, c.from.name == "web" && c.to.outside).map(c, c.to.cidr)`, "[203.0.113.0/24]"},
		{`connections.exists(c, c.from in workloads && c.from.pods.size() == 2)`, "true"},
		{`connections.filter(c, c.to.labels["tier"] == "db").all(c, c.from.namespace == "shop")`, "false"},

		// Verdicts.
		{`reach("shop/web", "shop/db", 5432)`, "allow"},
		{`reach("shop/web", "shop/svc/db", 5432) == allow`, "true"},
		{`reach("shop/web", services[0], "5432")`, "allow"},
		{`reach("ops/bot", "shop/db", 5432)`, "unknown"},
		{`reach("world", pods[1], "UDP/53")`, "deny"},
		{`reach(nodes[0], "shop/web", 80)`, "allow"},
		{`workloads.filter(w, reach(w, "shop/db", 5432) != deny)`, "[ops/bot, shop/db, shop/web]"},
		{`workloads.map(w, string(reach(w, "shop/db", 80)) + "?")`, "[deny?, allow?, deny?]"},
		{`explain("ops/bot", "shop/web", 8080)`, "allow, egress: no policy selects ops/bot for egress; ingress: no policy selects shop/web (pod web-1) for ingress"},
		{`explain("world", "shop/db", 5432).contains("shop.yaml:")`, "true"},

		// Policies and pods.
		{`policies.filter(p, pods.exists(d, d.name == "db" && selects(p, d)))`, "[shop/db]"},
		{`pods.filter(p, maySelect(policies[1], p))`, "[shop/web-1, shop/web-2]"},
		{`pods.filter(p, p.policies.size() == 0)`, "[ops/bot]"},
		{`pods.filter(p, !p.egressIsolated && p.ingressIsolated)`, "[shop/db]"},

		// Flows.
		{`flows.map(f, f.from)`, "[shop/web, ops/gone, 198.51.100.7/32]"},
		{`flows.map(f, f.to)`, "[shop/db, shop/db, shop/web]"},
		{`flows.filter(f, f.verdict == deny).map(f, f.from.labels["app"])`, "[gone]"},
		{`flows.filter(f, f.last > timestamp("2026-01-02T12:00:00Z")).size()`, "2"},
		{`flows.map(f, reach(f.from, f.to, f.protocol + "/" + string(f.port)))`, "[allow, unknown, allow]"},
		{`reach("10.0.0.0/8", "world", 80)`, "unknown"},
		{`flows.map(f, explain(f.from, f.to, f.port))[1]`, "unknown, ops/gone is not in the world"},

		// The rest of the language.
		{`1 + 2`, "3"},
		{`1.5`, "1.5"},
		{`null`, "<nil>"},
		{`"a,b".split(",").join("-")`, "a-b"},
		{`"app-12".matches("^app-[0-9]+$")`, "true"},
		{`pods.map(p, p.namespace).distinct().sort()`, "[ops, shop]"},
		{`[[1], [2], [1]].distinct()`, "[[1], [2]]"},
		{`[1, 2, 3].sortBy(n, -n)`, "[3, 2, 1]"},
		{`namespaces.transformMapEntry(i, n, {n.name: pods.filter(p, p.namespace == n.name).size()})`, "{ops: 1, shop: 3}"},
		{`{"c": 1, "a": 2, "b": 3, "e": 4, "d": 5}.map(k, k)`, "[a, b, c, d, e]"},
		{`{3: "c", 1: "a", 2: "b"}.transformList(k, v, v + string(k))`, "[a1, b2, c3]"},
		{`[[{"b": 1, "a": 2}]].flatten().map(m, m.map(k, k))`, "[[a, b]]"},
		{`pods[1].labels.transformList(k, v, k + "=" + v).join(",")`, "app=db,tier=db"},
		{`[[1, true]].flatten().map(x, string(x))`, "[1, true]"},
		{`[[policies[0].pods[0].labels]].flatten()[0] == {"app": "db", "tier": "db"}`, "true"},
		{`connections.exists(c, has(c.to.cidr))`, "true"},
		{`connections.all(c, has(c.to.cidr))`, "false"},
		{`math.greatest(pods.map(p, p.replicas))`, "1"},
		{`cel.bind(team, "shop", namespaces.filter(n, n.labels["team"] == team))`, "[shop]"},
	}
	w := shopWorld(t)
	for _, test := range tests {
		v, err := eval(t, w, test.text)
		if err != nil {
			t.Errorf("%s: %v", test.text, err)
		} else if got := said(v); got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.text, got, test.want)
		}
	}
}

func TestWhatDoesNotCompile(t *testing.T) {
	tests := []struct {
		text string
		want []string
	}{
		{`connections.filter(c, c.form.namespace == "shop")`, []string{"1:25: no field form in Connection; did you mean from?"}},
		{`connections.filter(c, c.from.namspace == "" || c.to.lables["x"] == "")`, []string{
			"1:30: no field namspace in Peer; did you mean namespace?",
			"1:53: no field lables in Peer; did you mean labels?",
		}},
		{"pods.filter(p,\n  p . nam == \"\")", []string{"2:7: no field nam in Pod; did you mean name?"}},
		{`pods.map(p, p.zzzzzzzz)`, []string{"1:15: no field zzzzzzzz in Pod; it has namespace, name, kind, workload, labels, node, addresses, at, serviceAccount, hostNetwork, replicas, ports, namespaceLabels, policies, egressIsolated and ingressIsolated"}},
		{`conections.size()`, []string{"1:1: there is no value conections; did you mean connections?"}},
		{`xyzzy == 1`, []string{"1:1: there is no value xyzzy; there are policies, workloads, pods, namespaces, services, nodes, connections, flows, allow, deny and unknown"}},
		{`reech("a/b", "c/d", 80) == allow`, []string{"1:1: there is no function reech; did you mean reach?"}},
		{`pods.fliter(p, true)`, []string{"1:6: there is no function fliter; did you mean filter?"}},
		{`reach("a/b", 80) == allow`, []string{"1:1: reach does not take (string, int); write reach(from, to, port)"}},
		{`reach("a/b", "c/d", 80) == "allow"`, []string{"1:25: == does not go with Verdict and string; a verdict is allow, deny or unknown, without quotes"}},
		{`reach("a/b", "c/d", 80) == alow`, []string{"1:28: there is no value alow; did you mean allow?"}},
		{`connections.all(c, c.allow.includes(true))`, []string{"1:28: there is no includes(bool) of Ports; write ports.includes(port)"}},
		{`pods.map(p, p.labels).flatten()`, []string{"1:23: there is no flatten() of list(map(string, string))"}},
		{`pods + 1`, []string{"1:6: + does not go with list(Pod) and int"}},
		{`!pods`, []string{"1:1: ! does not go with list(Pod)"}},
		{`pods.name`, []string{"1:5: type 'list(Pod)' does not support field selection"}},
		{`pods.filter(p, p.name)`, []string{"1:6: the condition is a string, and must be a bool"}},
		{`Peer{name: "x"}.name`, nil},
		{`pods.filter(p, p.name == "a"`, []string{"1:29: missing ')' at '<EOF>'"}},
		{`"a`, []string{`1:1: token recognition error at: '"a'`, "1:3: mismatched input '<EOF>'"}},
		{``, []string{"1:1: mismatched input '<EOF>'"}},
	}
	for _, test := range tests {
		_, err := expression.Compile(test.text)
		var got []string
		for line := range strings.Lines(fmt.Sprint(err)) {
			if place, ok := strings.CutPrefix(line, "expression:"); ok {
				got = append(got, strings.TrimSpace(place))
			}
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: -want +got\n%s", test.text, diff)
		}
	}
}

func TestAProblemShowsItsPlace(t *testing.T) {
	_, err := expression.Compile("pods.filter(p,\n\tp.nam == \"é\" && p.node == 1)")
	want := `expression:2:4: no field nam in Pod; did you mean name?
     p.nam == "é" && p.node == 1)
       ^
expression:2:25: == does not go with string and int
     p.nam == "é" && p.node == 1)
                            ^`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Error(diff)
	}
	_, err = expression.Compile(strings.Repeat("true && ", 40) + "flase && " + strings.Repeat("true && ", 40) + "true")
	want = `expression:1:321: there is no value flase; there are policies, workloads, pods, namespaces, services, nodes, connections, flows, allow, deny and unknown
    …&& true && true && true && true && true && true && true && flase && true && true && true && true &…
                                                                ^`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Error(diff)
	}
}

func TestWhatCannotBeEvaluated(t *testing.T) {
	tests := []struct{ text, want string }{
		{`pods[9]`, "expression:1:5: index out of bounds: 9"},
		{`{"a": 1}["b"]`, "expression:1:9: no such key: b"},
		{`1 / 0`, "expression:1:3: division by zero"},
		{`reach("shop/wbe", "shop/db", 80)`, `expression:1:1: "shop/wbe": namespace shop has no pod or workload wbe; near it are db, web`},
		{`reach("shop/web", "shop/db", 0)`, `expression:1:1: port "0": 0 is not between 1 and 65535`},
		{`pods.all(p, p.labels.selected("a=b c"))`, `expression:1:22: selector "a=b c", column 5: a comma is missing between two requirements`},
		{`connections.all(c, c.allow.includes("http"))`, `expression:1:28: port "http" is a name, which pods give different numbers; give a number, as in 5432 or "UDP/53"`},
		{`Peer{name: "x"}.name`, "expression:1:5: a Peer comes from the world; an expression cannot make one"},
		{`[pods].flatten()[0].nme`, "expression:1:21: no field nme in Pod; did you mean name?"},
		{`[[true]].flatten(1).map(x, selects(policies[0], x))`, "expression:1:28: selects takes no bool"},
		{`"a".matches("(")`, "expression:1:5: error parsing regexp: missing closing ): `(`"},
	}
	w := expression.NewWorld(judge(t, shop), expression.Recorded{})
	for _, test := range tests {
		_, err := eval(t, w, test.text)
		got, _, _ := strings.Cut(fmt.Sprint(err), "\n")
		if got != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.text, got, test.want)
		}
	}
}

// An expression that would take for ever ends after its steps, at the same one
// on every machine.
func TestRunawayExpressionsEnd(t *testing.T) {
	w := expression.NewWorld(reach.New(worlds.Sized(10_000, true).Model(1), reach.Options{}), expression.Recorded{})
	for _, text := range []string{
		`pods.all(a, pods.all(b, a.name != "" || b.name != ""))`,
		`pods.exists(a, pods.exists(b, false))`,
		`pods.map(a, pods.filter(b, b.labels == a.labels)).size()`,
		`pods.map(a, pods.map(b, reach(a, b, 80)))`,
		`workloads.map(a, workloads.map(b, reach(a, b, 80)))`,
		`pods.all(a, a in pods)`,
		`pods.all(a, pods.map(b, b.name).sort().size() > 0)`,
		`pods.map(a, pods.map(b, b.labels)).flatten().distinct().size()`,
		`lists.range(100000).all(a, lists.range(100000).all(b, true))`,
		`["aaaaaaaaaaaaaaaa"]` + strings.Repeat(`.map(x, x + x)`, 40),
		`[pods]` + strings.Repeat(`.map(x, x + x)`, 40) + `[0].all(p, true)`,
		`connections.map(a, connections.map(b, a.allow == b.allow)).size()`,
	} {
		x, err := expression.Compile(text)
		if err != nil {
			t.Fatal(err)
		}
		_, err = x.Eval(context.Background(), w, 1_000_000)
		if !strings.Contains(fmt.Sprint(err), "it takes more than 1000000 steps") {
			t.Errorf("%.80s: %v", text, err)
		}
	}
}

func TestStepsDoNotDependOnTheMachine(t *testing.T) {
	w := expression.NewWorld(judge(t, shop), expression.Recorded{})
	x, err := expression.Compile(`connections.filter(c, c.to.labels["tier"] == "db").map(c, c.from.name)`)
	if err != nil {
		t.Fatal(err)
	}
	least := uint64(0)
	for ; least < 10_000; least++ {
		if _, err := x.Eval(context.Background(), w, least); err == nil {
			break
		}
	}
	if least != 42 {
		t.Errorf("it takes %d steps", least)
	}
}

// An expression about pods leaves reachability alone.
func TestOnlyWhatIsUsedIsWorkedOut(t *testing.T) {
	w := expression.NewWorld(judge(t, shop), expression.Recorded{})
	x, err := expression.Compile(`pods.filter(p, p.name == "db")`)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := x.Eval(context.Background(), w, 50); err != nil {
		t.Error(err)
	}
	if x.Uses("connections") || !x.Uses("pods") {
		t.Error("it uses pods and nothing else")
	}
}

func TestAnEvaluationCanBeStopped(t *testing.T) {
	w := expression.NewWorld(reach.New(worlds.Sized(10_000, true).Model(1), reach.Options{}), expression.Recorded{})
	x, err := expression.Compile(`pods.all(a, pods.all(b, true))`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	stop()
	if _, err := x.Eval(ctx, w, 1<<60); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`connections.filter(c, c.from.namespace != c.to.namespace && c.to.labels["tier"] == "db")`,
		`reach("shop/web", services[0], 5432) == allow`, `pods.map(p, p.nam)`, "a.\nb", `pods.all(p, pods.all(q, p.name == q.name))`, `!pods.exists(p, p.name == ")") // )`, "pods . all(p, true)\n",
		`pods.exists_one(p, p.name != ".all(")`, `pods.map(p, p.name).all(n, n != ".all(a,") && true`, `é + "`, `Peer{}`, `{1: [2]}[?3]`, `a(b).c(d)`,
	} {
		f.Add(seed)
	}
	w := shopWorld(f)
	f.Fuzz(func(t *testing.T, text string) {
		x, err := expression.Compile(text)
		if err != nil {
			return
		}
		v, err := x.Eval(context.Background(), w, 10_000)
		if strings.Contains(fmt.Sprint(err), "internal error") {
			t.Errorf("%q: %v", text, err)
		}
		said(v)
		o := x.Offending()
		if o == nil {
			return
		}
		items, errItems := o.Eval(context.Background(), w, 20_000)
		list, ok := items.(expression.List)
		if err == nil && errItems == nil && (!ok || (v == true) != (len(list) == 0) && !strings.Contains(text, "exists_one")) {
			t.Errorf("%q is %v, and false of %v", text, v, items)
		}
	})
}

// The filter goes over about 1,000,000 connections of 1,000 workloads, or
// over those of a closed repository.
func BenchmarkConnections(b *testing.B) {
	for name, shape := range map[string]worlds.Shape{"open": worlds.OpenRepository, "closed": worlds.ClosedRepository} {
		b.Run(name, func(b *testing.B) {
			j := reach.New(shape.Model(1), reach.Options{})
			x, err := expression.Compile(`connections.filter(c, c.from.namespace != c.to.namespace && c.to.labels["app"] == "app-001").size()`)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := x.Eval(context.Background(), expression.NewWorld(j, expression.Recorded{}), expression.Steps); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What is looked up is what the judge answers when it is asked.
func TestReachIsWhatTheJudgeAnswers(t *testing.T) {
	for seed := range uint64(5) {
		m := worlds.Shape{Namespaces: 2, Workloads: 8, Pods: 24, Policies: 12, Closed: seed%2 == 0}.Model(seed)
		j := reach.New(m, reach.Options{})
		v, err := eval(t, expression.NewWorld(j, expression.Recorded{}), `workloads.map(a, workloads.map(b, [a.namespace + "/" + a.name, b.namespace + "/" + b.name, string(reach(a, b, 8080))]))`)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range v.(expression.List) {
			for _, e := range row.(expression.List) {
				e := e.(expression.List)
				from, errFrom := m.Find(e[0].(string))
				to, errTo := m.Find(e[1].(string))
				if err := errors.Join(errFrom, errTo); err != nil {
					t.Fatal(err)
				}
				d, err := j.Ask(reach.Question{From: from, To: to, Port: policies.PortQuery{Ports: netset.PortSpan(netset.TCP, 8080, 8080)}})
				if err != nil {
					t.Fatal(err)
				}
				if got := d.Verdict.String(); e[2] != got {
					t.Errorf("seed %d: %s to %s: %s, and the judge answers %s", seed, e[0], e[1], e[2], got)
				}
			}
		}
	}
}
