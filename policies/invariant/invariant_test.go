package invariant_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: ops}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: db, namespace: shop}, spec: {replicas: 2, selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}, spec: {containers: [{name: c}]}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bot, namespace: ops, labels: {app: bot}}, spec: {containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: stray, namespace: lost, labels: {app: stray}}, spec: {containers: [{name: c}]}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}, {namespaceSelector: {matchLabels: {team: ops}}}]
    ports: [{port: 5432}, {port: 5433}]
---
`

func check(t *testing.T, world, text string) []invariant.Result {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(strings.TrimPrefix(world, "\n")+text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	all, err := k8s.ReadInvariants(docs, rego.Program)
	if err != nil {
		t.Fatal(err)
	}
	set, err := invariant.Prepare(reach.New(m, invariant.Apart(reach.Options{}, all...)), all)
	if err != nil {
		t.Fatal(err)
	}
	set.Steps, set.RegoSteps = 10_000, 10_000
	results, err := set.Check(context.Background(), today)
	if err != nil {
		t.Fatal(err)
	}
	return results
}

// said prints a result with all that it has to say.
func said(r *invariant.Result) []string {
	lines := []string{r.State.String() + ": " + r.Say()}
	all := r.Counterexamples
	if r.Doubt != nil {
		all = append(all, *r.Doubt)
	}
	for _, x := range all {
		line := ""
		if rule := x.Rule(); rule != "" {
			line = rule
		}
		if q := x.Question(); q != nil {
			line += ": weir explain " + strings.Join(q, " ")
		}
		if x.Waiver != nil {
			line += ", " + x.Waiver.String()
		}
		if line != "" {
			lines = append(lines, line)
		}
	}
	for _, w := range r.Expired {
		lines = append(lines, "expired "+w.Reason)
	}
	for _, w := range r.Unused {
		lines = append(lines, "unused "+w.Reason)
	}
	return lines
}

func TestForms(t *testing.T) {
	const web, db, bot = "{podSelector: {matchLabels: {app: web}}}", "{podSelector: {matchLabels: {app: db}}}", "{podSelector: {matchLabels: {app: bot}}}"
	for _, row := range []struct{ name, spec, want string }{
		{
			"never, and it is", "never: {from: [" + bot + "], to: [" + db + "]}",
			`broken: ops/bot can open TCP/5432 to shop/db; 1 other pair breaks it too
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432`,
		},
		{"never, and it is not", "never: {from: [{outside: true}], to: [" + db + "]}", `holds: it holds`},
		{
			"always, and one port is missing", "always: {from: [" + web + "], to: [" + db + "], ports: [5432, 5434]}",
			`broken: shop/web cannot open TCP/5434 to shop/db; 1 other pair breaks it too
NetworkPolicy shop/db at shop.yaml:13:1: weir explain shop/pod/web shop/deployment/db TCP/5434`,
		},
		{"always, of two replicas", "always: {from: [" + db + "], to: [" + web + "]}", `holds: it holds`},
		{
			"only, from outside", "only: {from: [{podSelector: {}}], to: [" + web + "], ports: [http]}",
			`broken: address 0.0.0.0 can open TCP/8080 to shop/web
: weir explain 0.0.0.0 shop/pod/web TCP/8080`,
		},
		{
			"only, to others", "only: {from: [" + web + "], to: [" + db + "], direction: egress, ports: [443]}",
			`broken: shop/web can open TCP/443 to lost/stray; 2 other pairs break it too
: weir explain shop/pod/web lost/pod/stray TCP/443
: weir explain shop/pod/web ops/pod/bot TCP/443
: weir explain shop/pod/web 0.0.0.0 TCP/443`,
		},
		{"exists", "exists: {from: [" + web + "], to: [" + db + "]}", `holds: it holds`},
		{
			"exists not", "exists: {from: [" + web + "], to: [" + db + "], ports: [80]}",
			`broken: there is no such connection; shop/web, for one, cannot open TCP/80 to shop/db
NetworkPolicy shop/db at shop.yaml:13:1: weir explain shop/pod/web shop/deployment/db TCP/80`,
		},
		{"exists, of nobody", "exists: {from: [" + web + "], to: [{podSelector: {matchLabels: {app: gone}}}]}", `broken: nobody is described by its to`},
		{"never, of nobody", "never: {from: [{podSelector: {matchLabels: {app: gone}}}], to: [" + web + "]}", `holds: it holds, for nobody is described by its from`},
		{"isolated", "isolated: {pods: [" + db + "], directions: [ingress]}", `holds: it holds`},
		{"isolated not", "isolated: {pods: [" + db + ", " + bot + "]}", `broken: ops/bot: no policy isolates it at egress; 2 other pods break it too`},
		{
			"a namespace that is not there has labels that are not known", "never: {from: [{namespaceSelector: {matchLabels: {team: x}}}], to: [" + db + "], ports: [80]}",
			`holds: it holds`,
		},
		{
			"and so whether it breaks", "never: {from: [{namespaceSelector: {matchLabels: {team: x}}}], to: [" + web + "], ports: [80]}",
			`unknown: it cannot be told whether lost/stray can open TCP/80 to shop/web: whether the invariant speaks of them cannot be told, for labels of a namespace are not known
: weir explain lost/pod/stray shop/pod/web TCP/80`,
		},
		{"an expression", `cel: 'reach("shop/web", "shop/db", 5432) == allow'`, `holds: it holds`},
		{"an expression that is false", `cel: 'size(pods) == 0'`, `broken: the expression is false`},
		{"an expression that is false of some", `cel: 'pods.all(p, p.namespace == "shop")'`, `broken: it is not true of lost/stray; 1 other item breaks it too`},
		{"an expression that is false of several", `cel: 'pods.filter(p, pods.all(q, true)).all(p, p.namespace == "none")'`, `broken: it is not true of lost/stray; 3 other items break it too`},
		{"an expression that must be true of nobody", `cel: '!pods.exists(p, p.namespace == "shop" && p.name != "")'`, `broken: it is true of shop/db; 1 other item breaks it too`},
		{"an expression that must be true of one", `cel: 'pods.exists_one(p, p.namespace == "shop")'`, `broken: it is true of shop/db, and may be of one only; 1 other item breaks it too`},
		{"an expression that is true of none", `cel: 'pods.exists_one(p, p.namespace == "none")'`, `broken: the expression is false`},
		{"an expression about numbers", `cel: '[1, 2, 3].all(n, n < 3)'`, `broken: it is not true of 3`},
		{
			"an expression about connections", `cel: 'connections.all(c, c.from.namespace != "ops" || c.to.name != "db")'`,
			`broken: ops/bot can open TCP/5432 to shop/db
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432`,
		},
		{
			"an expression that lists connections", `cel: 'connections.filter(c, c.to.name == "db" && c.from.namespace == "ops")'`,
			`broken: ops/bot can open TCP/5432 to shop/db
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432`,
		},
		{"an expression that lists texts", `cel: 'pods.filter(p, p.namespace != "shop").map(p, p.name)'`, `broken: stray; 1 other item breaks it too`},
		{"an expression that errs", `cel: 'pods[99].name == "x"'`, `invalid: it could not be evaluated: shop.yaml:26:17: index out of bounds: 99`},
		{"an expression of several lines that errs", "cel: |\n    pods.all(p,\n      1 / (p.name.size() - p.name.size()) == 0)", `invalid: it could not be evaluated: shop.yaml:28:9: division by zero`},
		{"an expression of folded lines that errs", "cel: >\n    pods.all(p,\n    1 / (p.name.size() - p.name.size()) == 0)", `invalid: it could not be evaluated: shop.yaml:28:7: division by zero`},
		{"an expression that takes too long", `cel: 'pods.all(a, pods.all(b, pods.all(c, pods.all(d, pods.all(e, pods.all(f, pods.all(g, true)))))))'`, `invalid: it could not be evaluated: it takes more than 10000 steps; let it go through less`},
		{"Rego that says nothing", `rego: 'deny contains "x" if weir.reach("shop/web", "shop/db", 5432) != "allow"'`, `holds: it holds`},
		{"Rego that says texts", `rego: 'deny contains p.name if { some p in data.weir.world.pods; p.namespace != "shop" }'`, `broken: bot; 1 other item breaks it too`},
		{
			"Rego that names a connection", `rego: 'deny contains {"msg": "ops opens the database", "from": p, "to": "shop/db", "port": "any"} if { some p in data.weir.world.pods; p.namespace == "ops" }'`,
			`broken: ops opens the database
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432`,
		},
		{
			"Rego that names one that is denied", `rego: 'deny contains {"msg": "ops needs 9090", "from": "ops/bot", "to": "shop/db", "port": 9090}'`,
			`broken: ops needs 9090
NetworkPolicy shop/db at shop.yaml:13:1: weir explain ops/pod/bot shop/deployment/db TCP/9090`,
		},
		{"Rego that names a pod", `rego: 'deny contains {"msg": "who is it?", "from": "ops/bot"}'`, `broken: who is it?`},
		{"Rego that names nobody", `rego: 'deny contains {"msg": "who is it?", "from": "ops/bob"}'`, `invalid: it could not be evaluated: "who is it?": "ops/bob": namespace ops has no pod or workload bob; near it is bot`},
		{"Rego that errs", `rego: 'deny contains weir.reach("ops/bob", "world", 1)'`, `invalid: it could not be evaluated: shop.yaml:26:24: weir.reach: "ops/bob": namespace ops has no pod or workload bob; near it is bot`},
		{"Rego that takes too long", `rego: 'deny contains "x" if { some a in numbers.range(1, 1000); some b in numbers.range(1, 1000); a + b == 7000 }'`, `invalid: it could not be evaluated: it takes more than 10000 steps; let it go through less`},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := check(t, shop, "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: i}\nspec:\n  "+row.spec)
			if diff := cmp.Diff(row.want, strings.Join(said(&r[0]), "\n")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestWaivers(t *testing.T) {
	const broken = "never: {from: [{namespaceSelector: {matchLabels: {team: ops}}}], to: [{podSelector: {matchLabels: {app: db}}}]}\n  waivers: "
	for _, row := range []struct{ name, waivers, want string }{
		{
			"all of it", "[{reason: move, owner: ann, until: 2026-06-01}]",
			`waived: ops/bot can open TCP/5432 to shop/db; 1 other pair breaks it too
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432, waived until 2026-06-01 by ann: move`,
		},
		{
			"one that has expired", "[{reason: move, owner: ann, until: 2026-05-31}]",
			`broken: ops/bot can open TCP/5432 to shop/db; 1 other pair breaks it too
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432
expired move`,
		},
		{
			"one of others", "[{reason: move, owner: ann, until: 2027-06-01, from: [{outside: true}]}]",
			`broken: ops/bot can open TCP/5432 to shop/db; 1 other pair breaks it too
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432
unused move`,
		},
		{
			"one of these, and others that may be meant", "[{reason: move, owner: ann, until: 2027-06-01, from: [{podSelector: {matchLabels: {app: bot}}}], to: [{namespaceSelector: {}}]}]",
			`unknown: it cannot be told whether lost/stray can open TCP/5432 to shop/db: whether the invariant speaks of them cannot be told, for labels of a namespace are not known
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain lost/pod/stray shop/deployment/db TCP/5432`,
		},
		{
			"one of these", "[{reason: move, owner: ann, until: 2027-06-01, from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}}], to: [{namespaceSelector: {}}]}]",
			`waived: ops/bot can open TCP/5432 to shop/db; 1 other pair breaks it too
NetworkPolicy shop/db, ingress rule 1 at shop.yaml:19:5: weir explain ops/pod/bot shop/deployment/db TCP/5432, waived until 2027-06-01 by ann: move`,
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := check(t, shop, "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: i}\nspec:\n  "+broken+row.waivers)
			if diff := cmp.Diff(row.want, strings.Join(said(&r[0]), "\n")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

// A network set that nobody declares is named, with those near it, whatever else is found.
func TestSetsThatAreNotThere(t *testing.T) {
	const sets = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: partners}
spec: {nets: [203.0.113.0/24]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: probes, namespace: shop}
spec: {nets: [198.51.100.0/24]}
---
`
	db := "{podSelector: {matchLabels: {app: db}}}"
	for _, row := range []struct {
		spec, want string
		absent     []string
	}{
		{"never: {from: [{set: partners}, {set: shop/probes}], to: [" + db + "]}", "it holds", nil},
		{
			"never: {from: [{set: partner}], to: [" + db + "]}", "it holds, for there is no GlobalNetworkSet partner; near it are partners, shop/probes",
			[]string{"there is no GlobalNetworkSet partner; near it are partners, shop/probes"},
		},
		{
			"never: {from: [{set: shop/partners}, {set: partners, not: {set: gone}}], to: [" + db + "]}", "it holds",
			[]string{"there is no NetworkSet shop/partners; near it are shop/probes, partners", "there is no GlobalNetworkSet gone; near it are partners, shop/probes"},
		},
	} {
		text := "apiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: it}\nspec: {" + row.spec + "}\n"
		for _, r := range check(t, shop+strings.TrimPrefix(sets, "\n"), text) {
			if diff := cmp.Diff(row.absent, r.Absent); diff != "" || r.Say() != row.want {
				t.Errorf("%s: %s: %s", row.spec, r.Say(), diff)
			}
		}
	}
}
