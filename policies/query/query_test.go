package query_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

const shop = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: shop}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: ops}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: n1, containers: [{name: c, ports: [{name: http, containerPort: 8080}]}]}, status: {podIPs: [{ip: 10.0.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db}}, spec: {nodeName: n2, containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: bot, namespace: ops, labels: {app: bot}}, spec: {containers: [{name: c}]}, status: {podIPs: [{ip: 10.0.0.3}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: shop}, spec: {selector: {app: db}, ports: [{port: 5432}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a-db, namespace: shop}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 5432}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: b-db, namespace: shop}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}, {from: [{namespaceSelector: {matchLabels: {team: data}}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: c-gone, namespace: shop}, spec: {podSelector: {matchLabels: {app: gone}}}}
`

func judge(t *testing.T, text string) *reach.Judge {
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

// said prints the rows of an answer, one a line.
func said(a query.Answer) []string {
	var lines []string
	for _, r := range a.Rows {
		line := r.What
		add := func(format string, value any, is bool) {
			if is {
				line += fmt.Sprintf(" "+format, value)
			}
		}
		add("%s", r.Policy, r.Policy != nil)
		add("%s", r.Direction, r.Direction != "")
		if r.Rule != nil {
			line += fmt.Sprintf(" rule %d", *r.Rule)
		}
		add("[%s]", r.Peer, r.Peer != nil)
		add("{%s}", r.Other, r.Other != nil)
		add("{%s}", r.Could, r.Could != "")
		add("on %s", r.Ports, !r.Ports.IsEmpty())
		add("perhaps on %s", r.Perhaps, !r.Perhaps.IsEmpty())
		add("%s", r.Verdict, r.Verdict != policies.Undecided)
		add("because %s", r.Because, r.Because != "")
		lines = append(lines, line)
	}
	return lines
}

func target(t *testing.T, j *reach.Judge, text string) policies.Target {
	t.Helper()
	found, err := j.Model().Find(text)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestAnswers(t *testing.T) {
	j := judge(t, shop)
	path := func(from, to string, port uint16) query.Answer {
		a, _, err := query.PathOf(j, reach.Question{From: target(t, j, from), To: target(t, j, to), Port: policies.PortQuery{Ports: netset.PortSpan(netset.TCP, port, port)}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	used := func(r reach.RuleID) (uint64, time.Time) {
		if r.Policy == 0 {
			return 3, time.Unix(100, 0)
		}
		return 0, time.Time{}
	}
	for _, row := range []struct {
		name string
		got  query.Answer
		want []string
	}{
		{"policies of the database", query.PoliciesOf(reach.NewAudit(j), target(t, j, "shop/db")), []string{
			"selects shop/a-db ingress rule 0 because all pods in shop on TCP/5432",
			"selects shop/b-db ingress rule 0 because pods app=web in shop on TCP/5432",
			"selects shop/b-db ingress rule 1 because all pods in namespaces team=data on any port",
			"matches shop/a-db ingress rule 0 on TCP/5432 because all pods in shop on TCP/5432",
		}},
		{"policies of a stranger", query.PoliciesOf(reach.NewAudit(j), target(t, j, "ops/bot")), nil},
		{"peers of a policy", query.PeersOf(j, query.Find(j.Model(), "networkpolicy/shop/b-db")[0]), []string{
			"applies to shop/b-db [shop/db]",
			"matches shop/b-db ingress rule 0 [shop/web] on TCP/5432",
			"matches nothing shop/b-db ingress rule 1 because it is for all pods in namespaces team=data on any port",
		}},
		{"a selector", query.Selected(j, selector.Label("team", "shop")), []string{"namespace [namespace shop]"}},
		{"a selector of pods", query.Selected(j, selector.Label("app", "db")), []string{"pods [shop/db]"}},
		{"unused", query.UnusedRules(reach.NewAudit(j), nil, time.Time{}), []string{
			"selects nothing shop/c-gone because it is for pods app=gone in shop",
			"matches nothing shop/b-db ingress rule 1 because it is for all pods in namespaces team=data on any port",
		}},
		{"unused by flows", query.UnusedRules(reach.NewAudit(j), used, time.Unix(200, 0)), []string{
			"selects nothing shop/c-gone because it is for pods app=gone in shop",
			"matches nothing shop/b-db ingress rule 1 because it is for all pods in namespaces team=data on any port",
			"never used shop/b-db ingress rule 0",
			"not used since shop/a-db ingress rule 0",
		}},
		{"shadowed", query.ShadowedRules(reach.NewAudit(j)), []string{
			"never decides shop/b-db ingress rule 0 because ingress rule 1 of NetworkPolicy shop/a-db allows all that it matches",
		}},
		{"redundant", query.RedundantRules(reach.NewAudit(j)), []string{
			"changes nothing shop/a-db because the other end denies what it alone decides, or is the pod itself",
			"changes nothing shop/b-db because other policies decide the same without it",
		}},
		{"coverage", query.Uncovered(j), []string{
			"not isolated ingress [ops/bot] because no policy selects it",
			"not isolated ingress [shop/web] because no policy selects it",
			"not isolated egress [ops/bot] because no policy selects it",
			"not isolated egress [shop/db] because no policy selects it",
			"not isolated egress [shop/web] because no policy selects it",
		}},
		{"a path", path("shop/web", "shop/svc/db", 5432), []string{
			"from [shop/web] on TCP/5432",
			"service [shop/db] on TCP/5432 because it leads to shop/db on TCP/5432",
			"egress egress [shop/web] allow because no policy selects shop/web for egress",
			"leaves node [node n1]",
			"comes to node [node n2]",
			"ingress shop/a-db ingress rule 0 [shop/db] allow because it allows all pods in shop on TCP/5432",
			"to [shop/db] on TCP/5432 allow because ingress: it allows all pods in shop on TCP/5432; service shop/db leads to 1 pod at TCP/5432",
		}},
	} {
		if diff := cmp.Diff(row.want, said(row.got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.name, diff)
		}
	}
}

func TestExposure(t *testing.T) {
	got := said(query.ExposureOf(judge(t, shop)))
	for _, want := range []string{
		"is reached by [shop/web] {0.0.0.0/0} on any",
		"reaches [shop/db] {0.0.0.0/0} on any",
		"could be reached by [shop/web] {any pod of a new namespace} on any",
		"could be reached by [shop/db] {all pods in namespaces team=data} on any",
		"could reach [shop/db] {any pod of a new namespace} on any",
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not among\n%s", want, strings.Join(got, "\n"))
		}
	}
	if slices.ContainsFunc(got, func(line string) bool {
		return strings.Contains(line, "[shop/db]") && strings.Contains(line, "reached by") && strings.Contains(line, "new namespace")
	}) {
		t.Errorf("any new namespace reaches the database, says\n%s", strings.Join(got, "\n"))
	}
}

// Every row of an exposure says who and on which ports, and the same question has
// the same answer.
func TestExposureIsTheSameTwice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := worlds.Shape{Namespaces: rapid.IntRange(1, 4).Draw(t, "namespaces"), Workloads: 8, Policies: 12, Closed: rapid.Bool().Draw(t, "closed")}
		m := shape.Model(rapid.Uint64().Draw(t, "seed"))
		a := query.ExposureOf(reach.New(m, reach.Options{}))
		b := query.ExposureOf(reach.New(m, reach.Options{}))
		if diff := cmp.Diff(said(a), said(b)); diff != "" {
			t.Fatalf("the same question twice (-first +second):\n%s", diff)
		}
		for _, r := range a.Rows {
			if (r.Could == "") == (r.Other == nil) || r.Peer == nil || r.Ports.IsEmpty() && r.Perhaps.IsEmpty() {
				t.Fatalf("a row says too little: %+v", r)
			}
		}
	})
}

// Without a rule or policy that is called redundant, or shadowed, every
// connection of the listing stays.
func TestFindingsHoldWhenTheRuleIsGone(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		shape := worlds.Shape{Namespaces: rapid.IntRange(1, 3).Draw(t, "namespaces"), Workloads: 6, Policies: 14, Closed: rapid.Bool().Draw(t, "closed")}
		m := shape.Model(rapid.Uint64().Draw(t, "seed"))
		audit := reach.NewAudit(reach.New(m, reach.Options{}))
		for _, r := range append(query.RedundantRules(audit).Rows, query.ShadowedRules(audit).Rows...) {
			found++
			less := *m
			less.Policies = slices.Clone(m.Policies)
			at := slices.IndexFunc(less.Policies, func(p policies.Policy) bool { return p.Ref == *r.Policy })
			if r.Rule == nil {
				less.Policies = slices.Delete(less.Policies, at, at+1)
			} else {
				for _, d := range policies.Directions {
					if d.String() == r.Direction {
						less.Policies[at].Rules[d] = slices.Delete(slices.Clone(less.Policies[at].Rules[d]), *r.Rule, *r.Rule+1)
					}
				}
			}
			base, head := reach.Pair(m, &less, reach.Options{})
			for shift := range reach.Compare(base, head) {
				t.Fatalf("without %s %v, %s → %s goes from %s to %s on %s", r.Policy, r.Rule, shift.From, shift.To, shift.Before, shift.After, shift.Ports)
			}
		}
	})
	if found == 0 {
		t.Error("no world had a finding")
	}
}

func TestSelectedByCalico(t *testing.T) {
	m := judge(t, shop).Model()
	m.Accounts = []policies.ServiceAccount{{Ref: policies.Ref{Kind: "ServiceAccount", Namespace: "ops", Name: "default"}, Labels: map[string]string{"robot": "yes"}}}
	for _, ref := range []policies.Ref{{Kind: "NetworkSet", Namespace: "shop", Name: "banks"}, {Kind: "NetworkSet", Namespace: "new", Name: "mirrors"}, {Kind: "GlobalNetworkSet", Name: "office"}} {
		m.Sets = append(m.Sets, policies.NetworkSet{Ref: ref, Labels: map[string]string{"net": ref.Name}})
	}
	m.Hosts = []policies.HostEndpoint{{Ref: policies.Ref{Kind: "HostEndpoint", Name: "n1-eth0"}, Labels: map[string]string{"app": "node"}}}
	j := reach.New(m, reach.Options{})
	for _, row := range []struct {
		text string
		want []string
	}{
		{`app == "web"`, []string{"pods [shop/web]"}},
		{`app starts with "b" || net contains "a"`, []string{"pods [ops/bot]", "network set [shop/banks]"}},
		{`pcns.team == "shop"`, []string{"pods [shop/db]", "pods [shop/web]", "network set [shop/banks]", "network set, perhaps [new/mirrors] because the labels of its namespace are not known, for it is not in the files"}},
		{`projectcalico.org/namespace == "new"`, []string{"network set [new/mirrors]"}},
		{`team == "shop"`, []string{"namespace [namespace shop]"}},
		{`projectcalico.org/name == "ops"`, []string{"namespace [namespace ops]"}},
		{`pcsa.robot == "yes"`, []string{
			"pods [ops/bot]",
			"pods, perhaps [shop/db] because labels that they inherit are not known, for their namespace or service account is not in the files",
			"pods, perhaps [shop/web] because labels that they inherit are not known, for their namespace or service account is not in the files",
		}},
		{`has(net) && !has(pcns.team)`, []string{"network set, perhaps [new/mirrors] because the labels of its namespace are not known, for it is not in the files", "network set [office]"}},
		{"global()", []string{"network set [office]", "host endpoint [n1-eth0]"}},
		{`app == "node"`, []string{"host endpoint [n1-eth0]"}},
	} {
		e, err := selector.ParseCalico(row.text)
		if err != nil {
			t.Fatal(err)
		}
		got := said(query.SelectedByCalico(j, e))
		slices.Sort(got)
		slices.Sort(row.want)
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got)\n%s", row.text, diff)
		}
	}
}
