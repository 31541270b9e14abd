package conntest_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

const world = `
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 192.0.2.10}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: cart, namespace: shop, labels: {app: cart}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: db, image: db, ports: [{name: postgres, containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: replica, namespace: shop, labels: {app: replica}}
spec: {containers: [{name: db, image: db, ports: [{name: postgres, containerPort: 5433}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 15432, targetPort: postgres}]}
---
apiVersion: v1
kind: Service
metadata: {name: any, namespace: shop}
spec: {ports: [{port: 1, targetPort: postgres}], selector: {}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [db, replica]}]}
  policyTypes: [Ingress, Egress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: postgres}]
  - from: [{ipBlock: {cidr: 198.51.100.0/24}}]
    ports: [{port: 9000, endPort: 9010}]
  egress:
  - to: [{podSelector: {matchLabels: {app: db}}}]
`

func judge(t *testing.T, text string) *reach.Judge {
	t.Helper()
	docs, err := k8s.Parse("world.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return reach.New(m, reach.Options{})
}

// run runs one test, as it stands in a list.
func run(t *testing.T, j *reach.Judge, test string) ([]conntest.Result, error) {
	t.Helper()
	docs, err := k8s.Parse("t.yaml", []byte(`{apiVersion: weir.dev/v1alpha1, kind: ConnectivityTest, metadata: {name: t}, spec: {groups: {both: [shop/web, shop/cart]}, tests: [
`+test+"\n]}}"))
	if err != nil {
		t.Fatal(err)
	}
	suites, err := k8s.ReadTests(docs)
	if err != nil {
		t.Fatal(err)
	}
	return conntest.Run(j, suites)
}

func TestRun(t *testing.T) {
	j := judge(t, world)
	for _, test := range []struct {
		name, test string
		want       []string // "ok", or what is wrong
	}{
		{"the verdict is as expected", "{from: shop/web, to: shop/db, port: 5432, expect: allow}", []string{"ok"}},
		{"another one fails", "{from: shop/cart, to: shop/db, port: 5432, expect: allow}", []string{"deny"}},
		{"a group is asked end by end", "{from: both, to: shop/db, port: 5432, expect: allow}", []string{"ok", "deny"}},
		{"each port is a question", "{from: shop/web, to: shop/db, port: [5432, 5433], expect: allow}", []string{"ok", "deny"}},
		{"a Service leads to its pods", "{from: shop/web, to: shop/svc/db, port: 15432, expect: allow}", []string{"ok"}},
		{"without a port any is meant", "{from: shop/cart, to: shop/db, expect: deny}", []string{"unknown"}},
		{"what cannot be told is unknown", "{from: shop/cart, to: shop/db, port: 9000, expect: unknown}", []string{"ok"}},

		{"all are listed", "{to: shop/db, port: postgres, expectOnly: [shop/web]}", []string{"ok"}},
		{"one is not", "{to: shop/db, port: 5432, expectOnly: []}", []string{"+allow shop/web TCP/5432"}},
		{"one cannot", "{to: shop/db, port: 5432, expectOnly: [both]}", []string{"-deny shop/cart TCP/5432"}},
		{"one that cannot be told is not ruled out", "{to: shop/db, port: 9000, expectOnly: [198.51.100.0/24]}", []string{
			"+unknown shop/cart TCP/9000 +unknown shop/replica TCP/9000 +unknown shop/web TCP/9000",
		}},
		{"nor is it a way in", "{to: shop/db, port: 9000, expectOnly: [198.51.100.0/24, both, {from: shop/replica, expect: unknown}]}", []string{
			"-deny shop/web TCP/9000 -deny shop/cart TCP/9000",
		}},
		{"a Service's port is its pods'", "{to: shop/svc/db, expectOnly: [shop/web]}", []string{"ok"}},
		{"world is somewhere outside", "{to: shop/db, port: TCP/9000-9010, expectOnly: [world, {from: [both, shop/replica], expect: unknown}]}", []string{"ok"}},
		{"half a block leaves the other half", "{to: shop/db, port: 9000, expectOnly: [198.51.100.0/25, {from: [both, shop/replica], expect: unknown}]}", []string{
			"+allow 198.51.100.128/25 TCP/9000",
		}},
		{"some of the ports are enough, unless they are named", "{to: shop/db, expectOnly: [shop/web, {from: world, port: TCP/9000-9020}, {from: both, port: TCP/9000-9010, expect: unknown}, {from: shop/replica, port: TCP/9000-9010, expect: unknown}]}", []string{
			"-deny 0.0.0.0/0 ::/0 TCP/9011-9020",
		}},
		{"who gets out", "{to: world, port: 443, expectOnly: [shop/web]}", []string{"+allow shop/cart TCP/443"}},
		{"what is outside is told together", "{to: [198.51.100.0/24, 203.0.113.0/24], port: 443, expectOnly: [shop/web]}", []string{"+allow shop/cart TCP/443"}},
		{"a pod may list itself", "{to: shop/cart, port: 80, expectOnly: [shop/cart, shop/web, world]}", []string{"ok"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			results, err := run(t, j, test.test)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, r := range results {
				got = append(got, outcome(r))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func outcome(r conntest.Result) string {
	switch {
	case r.Passed:
		return "ok"
	case r.Decision != nil:
		return r.Decision.Verdict.String()
	}
	var said []string
	say := func(sign string, all []conntest.Difference) {
		for _, d := range all {
			words := []string{sign + d.Verdict.String()}
			for _, p := range d.From {
				words = append(words, p.String())
			}
			said = append(said, strings.Join(append(words, d.Ports.String()), " "))
		}
	}
	say("+", r.Surplus)
	say("-", r.Missing)
	return strings.Join(said, " ")
}

func TestWhatCannotBeAsked(t *testing.T) {
	j := judge(t, world)
	for _, test := range []struct{ name, test, want string }{
		{
			"an end that is not there", "{from: shop/wbe, to: shop/db, expect: deny}",
			`t.yaml:2:8: "shop/wbe": namespace shop has no pod or workload wbe; near it are db, web, cart, replica`,
		},
		{
			"a group that is not there", "{from: bots, to: shop/db, expect: deny}",
			`t.yaml:2:8: "bots" is none of namespace/name, namespace/kind/name, an address, a CIDR or world, nor a group of the test; near it is both`,
		},
		{"no port", "{from: shop/web, to: shop/db, port: 0, expect: deny}", `t.yaml:2:37: port "0": 0 is not between 1 and 65535`},
		{"a name that no pod gives a port", "{to: shop/db, port: http, expectOnly: []}", `t.yaml:2:21: shop/db has no port named "http"`},
		{
			"nodes are in no listing", "{to: 192.0.2.10, expectOnly: []}",
			"t.yaml:2:6: 192.0.2.10 is a node, and expectOnly is about pods and addresses outside; ask with expect",
		},
		{
			"nothing is decided outside", "{to: 203.0.113.0/24, expectOnly: [198.51.100.1]}",
			"t.yaml:2:35: it is outside, as what it is to reach: policies decide nothing between them",
		},
		{
			"all at once", "{from: a/b, to: c/d, port: x y, expect: deny}",
			"t.yaml:2:8: \"a/b\": there is no namespace a; near it is shop\nt.yaml:2:17: \"c/d\": there is no namespace c; near it is shop\n" +
				"t.yaml:2:28: port \"x y\" is none of 5432, UDP/53, TCP/8000-8100, a port's name, any",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			results, err := run(t, j, test.test)
			if err == nil || results != nil {
				t.Fatalf("got %d results and error %v", len(results), err)
			}
			if diff := cmp.Diff(test.want, err.Error()); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// TestGeneratedTestsPass writes tests of worlds, reads them back, and runs them;
// then it takes a rule away.
func TestGeneratedTestsPass(t *testing.T) {
	text := judge(t, world).Model()
	models := map[string]*policies.Model{"a world with unknowns": text}
	for seed := range uint64(5) {
		s := worlds.Sized(60, true)
		models[s.String()+strings.Repeat("'", int(seed))] = s.Model(seed)
	}
	for name, m := range models {
		t.Run(name, func(t *testing.T) {
			j := reach.New(m, reach.Options{})
			yaml, err := k8s.WriteTests(conntest.Generate(j))
			if err != nil {
				t.Fatal(err)
			}
			docs, err := k8s.Parse("generated.yaml", yaml)
			if err != nil {
				t.Fatal(err)
			}
			suites, err := k8s.ReadTests(docs)
			if err != nil {
				t.Fatal(err)
			}
			if n := failures(t, j, suites); n != 0 {
				t.Errorf("%d generated tests fail at once\n%s", n, yaml)
			}
			open := *m
			open.Policies = nil
			if len(m.Policies) > 0 && failures(t, reach.New(&open, reach.Options{}), suites) == 0 {
				t.Error("no generated test fails without the policies")
			}
		})
	}
}

func failures(t *testing.T, j *reach.Judge, suites []conntest.Suite) int {
	t.Helper()
	results, err := conntest.Run(j, suites)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, r := range results {
		if !r.Passed {
			t.Logf("%s: %s", r.Name(), outcome(r))
			n++
		}
	}
	return n
}
