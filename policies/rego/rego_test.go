package rego_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: ops}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: shop}, spec: {replicas: 2, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bot, namespace: ops, labels: {app: bot}}, spec: {containers: [{name: c}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {selector: {app: db}, ports: [{port: 5432}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: 5432}]
`

func judge(t testing.TB) *reach.Judge {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return reach.New(m, reach.Options{})
}

func world(t testing.TB) *rego.World { return rego.NewWorld(judge(t), expression.Recorded{}) }

// said is each violation on a line, or what went wrong.
func said(t testing.TB, text string) string {
	t.Helper()
	p, err := rego.Compile(text)
	if err != nil {
		return err.Error()
	}
	all, err := p.Eval(context.Background(), world(t), rego.Steps)
	if err != nil {
		return err.Error()
	}
	var lines []string
	for _, v := range all {
		lines = append(lines, strings.TrimSpace(strings.Join([]string{v.Message, v.From, v.To, v.Port}, " ")))
	}
	return strings.Join(lines, "\n")
}

func TestSections(t *testing.T) {
	for name, want := range map[string]string{
		"namespaces":  "at labels labelsKnown name",
		"pods":        "addresses at egressIsolated hostNetwork ingressIsolated kind labels name namespace namespaceLabels node ports replicas serviceAccount workload",
		"workloads":   "kind labels name namespace",
		"services":    "at clusterIPs external name namespace pods ports",
		"nodes":       "addresses at labels name",
		"policies":    "annotations at directions group kind name namespace opaque priority rules tier",
		"connections": "allow from to unknown",
	} {
		got := said(t, fmt.Sprintf(`deny contains concat(" ", sort(object.keys(data.weir.world.%s[0])))`, name))
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestFlows(t *testing.T) {
	flow := policies.Flow{
		From: policies.FlowPeer{Namespace: "shop", Pod: "web"}, To: policies.FlowPeer{Namespace: "shop", Pod: "db"},
		Protocol: netset.TCP, Port: 5432, Count: 7, Verdict: policies.Allow,
	}
	w := rego.NewWorld(judge(t), expression.Recorded{Flows: []policies.Flow{flow}, Find: func(*policies.FlowPeer) []reach.End { return nil }})
	p, err := rego.Compile(`deny contains sprintf("%s %s %s/%d %s %d", [f.from, f.to, f.protocol, f.port, f.verdict, f.count]) if some f in weir.flows()`)
	if err != nil {
		t.Fatal(err)
	}
	if !p.AsksFlows() {
		t.Error("it does not ask for flows")
	}
	all, err := p.Eval(context.Background(), w, rego.Steps)
	if diff := cmp.Diff([]rego.Violation{{Message: "shop/web shop/db TCP/5432 allow 7"}}, all); diff != "" || err != nil {
		t.Error(diff, err)
	}
}

func TestEval(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"texts", `deny contains "no" if true`, "no"},
		{"nothing", `deny contains "no" if false`, ""},
		{"both rules", "deny contains \"a\" if true\nviolation contains \"b\"", "a\nb"},
		{"a package of its own", "package shop.db\n\nviolation contains {\"msg\": \"open\", \"from\": \"shop/web\", \"to\": \"shop/db\", \"port\": 5432} if weir.reach(\"shop/web\", \"shop/db\", 5432) == \"allow\"", "open shop/web shop/db 5432"},
		{"objects of the world", `deny contains {"msg": p.name, "from": p, "to": "world", "port": "UDP/53"} if { some p in data.weir.world.pods; p.labels.app == "web"; weir.reach(p, "world", "UDP/53") == "allow" }`, "web shop/pod/web world UDP/53"},
		{"a service", `deny contains weir.reach("ops/bot", "shop/svc/db", 5432)`, "deny"},
		{"reasons", `deny contains weir.explain("ops/bot", "shop/db", 5432)`, "deny, ingress: no ingress rule of NetworkPolicy shop/db allows TCP/5432 from ops/bot (shop.yaml:16:1)"},
		{"selectors", `deny contains name if some name in weir.select("team=shop", "app in (db,web)")`, "shop/db\nshop/web"},
		{"isolation", `deny contains p.name if { some p in data.weir.world.pods; not p.ingressIsolated }`, "bot\nweb"},
		{"all of the world", `deny contains sprintf("%s %d", [k, count(data.weir.world[k])]) if some k in ["nodes", "services"]`, "nodes 1\nservices 1"},
		{"time stands still", `deny contains time.format(1e9 * 86400)`, "1970-01-02T00:00:00Z"},
		{"what grows is metered and right", `deny contains concat("-", [replace("aXb", "X", sprintf("%05d", [7])), sprintf("%v", [array.concat([1], numbers.range(2, 3))]), json.marshal({"a": 1}), $"{1 + 1}"])`, `a00007b-[1, 2, 3]-{"a":1}-2`},

		{"no rule", `allow := true`, "rego:1:1: there is no rule deny or violation; say what breaks the invariant, as in: deny contains \"…\" if { … }"},
		{"syntax", "deny contains \"no\" if {\n  x == \n}", "rego:3:1: unexpected } token"},
		{"an unsafe variable", "deny contains msg if true", "rego:1:15: var msg is unsafe"},
		{"no type", `deny contains "x" if upper(7) == "x"`, "rego:1:22: upper: invalid argument(s)\n    have: (number, ???)\n    want: (x: string, y: string)"},
		{"the network", `deny contains "x" if http.send({"method": "get", "url": "http://example.com"}).status_code == 200`, "rego:1:22: http.send is not for invariants: they ask about the world that is checked, and nothing else"},
		{"the clock", `deny contains "x" if time.now_ns() > 7`, "rego:1:22: time.now_ns is not for invariants: they ask about the world that is checked, and nothing else"},
		{"chance", `deny contains "x" if rand.intn("a", 7) > 3`, "rego:1:22: rand.intn is not for invariants: they ask about the world that is checked, and nothing else"},
		{"a misspelt function", `deny contains "x" if weir.raech("a", "b", 1) == "allow"`, "rego:1:22: there is no function weir.raech; near it are weir.reach, weir.select, weir.flows, weir.explain"},
		{"a misspelt section", `deny contains "x" if { some p in data.weir.world.podz }`, "rego:1:34: data.weir.world has no podz; near it are pods, nodes, policies, workloads, services"},
		{"a misspelt section that is imported", "import data.weir.world\ndeny contains \"x\" if count(world.pod) > 3", "rego:2:28: data.weir.world has no pod; near it are pods, nodes, policies, workloads, services"},
		{"a function replaced", `deny contains "x" if count([1]) == 2 with count as 2`, "rego:1:38: with replaces count, which only tests may do"},
		{"a package of Weir's", "package weir.world\ndeny contains \"x\"", "rego:1:1: package weir is Weir's own; give the package another name"},
		{"rules that go round", "deny contains \"x\" if a\na if b\nb if a", "rego:2:1: rule data.invariant.a is recursive: data.invariant.a -> data.invariant.b -> data.invariant.a\nrego:3:1: rule data.invariant.b is recursive: data.invariant.b -> data.invariant.a -> data.invariant.b"},

		{"nobody", `deny contains weir.reach("shop/wbe", "shop/db", 1)`, `rego:1:15: weir.reach: "shop/wbe": namespace shop has no pod or workload wbe; near it are db, web`},
		{"no port", `deny contains weir.reach("shop/web", "shop/db", "a b")`, `rego:1:15: weir.reach: port "a b" is none of 5432, UDP/53, TCP/8000-8100, a port's name, any`},
		{"no end", `deny contains weir.reach({"a": 1}, "shop/db", 1)`, `rego:1:15: weir.reach: {"a": 1} names no end of a connection; give a text such as "shop/web" or an address, or an object with namespace and name`},
		{"no selector", `deny contains "x" if weir.select("a b", "") == set()`, `rego:1:22: weir.select: selector "a b", column 3: after a comes one of =, !=, in, notin or a comma`},
		{"no flows", `deny contains "x" if weir.flows() == []`, "rego:1:22: weir.flows: there are no recorded flows here; weir check and weir preview take some by --flows"},
		{"an error of a function", `deny contains "x" if to_number("x") == 7`, `rego:1:22: to_number: strconv.ParseFloat: parsing "x": invalid syntax`},
		{"true", `deny := true`, "rego: deny is a boolean; it must be a set of texts, or of objects with msg, and from, to and port where they are known"},
		{"undefined", `deny := 7 if false`, "rego: deny is undefined; make it a set, as in: deny contains \"…\" if { … }"},
		{"numbers", `deny contains 7`, "rego: deny holds a number; it must hold texts, or objects with msg, and from, to and port where they are known"},
		{"fields", `deny contains {"message": "x"}`, `rego: deny has an object with "message"; it takes msg, from, to, port`},
		{"no message", `deny contains {"from": "shop/web"}`, "rego: deny holds what has no msg; say what is wrong"},
		{"half a connection", `deny contains {"msg": "x", "from": "shop/web", "to": "shop/db"}`, `rego: deny: a connection needs from, to and port; "x" has not all of them`},
		{"two answers", "deny := {\"a\"}\ndeny := {\"b\"}", "rego:2:1: rule data.invariant.deny produced conflicting values"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, said(t, test.text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Each of these would take hours, or all memory.
func TestBounds(t *testing.T) {
	const tooMany = "rego: it takes more than 100000 steps; let it go through less"
	const tooLong = "a number has more than 1000 digits"
	doubled := func(first, again string) string {
		text := "x0 := " + first + "\n"
		for i := range 60 {
			text += fmt.Sprintf("x%d := %s\n", i+1, strings.ReplaceAll(again, "X", fmt.Sprint("x", i)))
		}
		return text + "deny contains \"x\" if count(x60) > 0"
	}
	squared := func(first string) string { return strings.Replace(doubled(first, "X * X"), "count(x60)", "x60", 1) }
	tests := []struct{ name, text, want string }{
		{"a cross product", `deny contains "x" if { some a in numbers.range(1, 1000); some b in numbers.range(1, 1000); some c in numbers.range(1, 1000); a + b + c == 7000 }`, tooMany},
		{"a long range", `deny contains "x" if count(numbers.range(1, 1000000000000)) > 3`, tooMany},
		{"a wide format", `deny contains sprintf("%999999d%999999d%999999d%999999d%*d%*d%*d%*d%*d%*d%*d%*d%*d", numbers.range(1, 999))`, tooMany},
		{"doubled text", doubled(`"ab"`, `concat("", [X, X])`), tooMany},
		{"doubled template", doubled(`"ab"`, `$"{X}{X}"`), tooMany},
		{"doubled format", doubled(`"ab"`, `sprintf("%[1]s%[1]s", [X])`), tooMany},
		{"doubled lists", doubled(`[1, 2]`, `array.concat(X, X)`), tooMany},
		{"doubled code", doubled(`"ab"`, `hex.encode(X)`), tooMany},
		{"longer code", doubled(`"ab%"`, `urlquery.encode(base64.encode(X))`), tooMany},
		{"a read list", `deny contains "x" if { a := numbers.range(1, 1000); some b in numbers.range(1, 10000); sum(a) == b }`, tooMany},
		{"squares", squared("99999999"), "rego:9:7: " + tooLong},
		{"squares of fractions", squared("1.5e100"), "rego:6:7: " + tooLong},
		{"replaced", doubled(`"ab"`, `replace(X, "", X)`), tooMany},
		{"a huge number", `deny contains "x" if bits.lsh(1, 100000000000) > 7`, tooMany},
		{"pairs of pairs written out", doubled(`[1]`, `[X, X]`) + "\ndeny contains json.marshal(x60)", tooMany},
		{"pairs of pairs said", "deny := x60\n" + strings.Replace(doubled(`[1]`, `[X, X]`), "deny contains", "other contains", 1), "rego: deny says more than can be told; let it say less"},
		{
			"pairs of pairs in one rule", "deny contains \"x\" if {\n" + strings.Replace(doubled(`[1]`, `[X, X]`), "deny contains \"x\" if", "", 1) + "\n}",
			"rego:14:1: this puts together a value that doubles from line to line; make rules of its parts",
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := rego.Compile(test.text)
			if err == nil {
				_, err = p.Eval(context.Background(), world(t), 100_000)
			}
			if err == nil || err.Error() != test.want {
				t.Errorf("got %v, want %s", err, test.want)
			}
		})
	}
}

// What OPA adds is offered to policies unless it is decided that it is not.
func TestEveryFunctionIsLookedAt(t *testing.T) {
	if n := len(ast.CapabilitiesForThisVersion().Builtins); n != 206 {
		t.Errorf("OPA has %d functions: look at those that are new, whether a policy may call them and whether they grow (bounds.go), and then give their number here", n)
	}
}

func TestEvalEndsWithItsContext(t *testing.T) {
	p, err := rego.Compile(`deny contains "x" if { some a in numbers.range(1, 10000); some b in numbers.range(1, 10000); a + b == 0 }`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := p.Eval(ctx, world(t), rego.Steps); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A world is shared by the policies that ask it, and each is told the same however
// often it asks.
func TestCompileAll(t *testing.T) {
	modules := []rego.Module{
		{"a.rego", "# METADATA\n# title: Nothing is open\n# related_resources:\n# - https://example.com/open\n# custom:\n#   severity: warn\npackage a\n\nimport data.lib\n\ndeny contains p.name if { some p in data.weir.world.pods; lib.open(p); not p.namespace in data.system }"},
		{"lib.rego", "package lib\n\nopen(p) if not p.ingressIsolated"},
	}
	all, err := rego.CompileAll(modules, map[string]any{"system": []any{"ops"}})
	if err != nil || len(all) != 1 {
		t.Fatal(all, err)
	}
	if m := all[0].Metadata; m.Title != "Nothing is open" || m.Custom["severity"] != "warn" || !cmp.Equal(m.Links, []string{"https://example.com/open"}) {
		t.Errorf("metadata %+v", m)
	}
	w := world(t)
	for range 2 {
		found, err := all[0].Eval(context.Background(), w, rego.Steps)
		if diff := cmp.Diff([]rego.Violation{{Message: "web"}}, found); diff != "" || err != nil {
			t.Error(diff, err)
		}
	}
	if _, err := rego.CompileAll(modules, map[string]any{"weir": 7}); err == nil {
		t.Error("data takes the place of the world")
	}
}

func FuzzCompile(f *testing.F) {
	for _, seed := range []string{
		`deny contains "x" if weir.reach("a/b", "world", 7) == "allow"`, "package a\n\nviolation contains {\"msg\": \"x\"}",
		"deny := data.weir.world", `deny contains concat("", ["a"]) if some x in data.weir.world.pods`, "package", "# METADATA\n# title: x\npackage a",
		"deny contains x if { x := [y, y]; y := [1] }", "", "deny", "\x00",
	} {
		f.Add(seed)
	}
	w := world(f)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := rego.Compile(text)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a message")
			}
			return
		}
		first, err := p.Eval(context.Background(), w, 10_000)
		again, errAgain := p.Eval(context.Background(), w, 10_000)
		if diff := cmp.Diff(first, again); diff != "" || (err == nil) != (errAgain == nil) {
			t.Error(diff, err, errAgain)
		}
	})
}
