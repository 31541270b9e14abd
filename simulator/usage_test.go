package simulator_test

import (
	"testing"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

func TestUsageCountsWhatEachRuleDecides(t *testing.T) {
	docs, err := k8s.Parse("world.yaml", []byte(`
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: a, labels: {app: web}}, spec: {containers: [{name: c}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: a, labels: {app: db}}, spec: {containers: [{name: c}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: a}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 1}]}, {from: [{podSelector: {}}], ports: [{port: 2}]}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	usage := simulator.NewUsage(reach.New(m, reach.Options{}))
	at := func(day int) time.Time { return time.Date(2026, 1, day, 0, 0, 0, 0, time.UTC) }
	add := func(to string, port uint16, day int, count uint64) {
		usage.Add(policies.Flow{
			First: at(day), Last: at(day), From: policies.FlowPeer{Namespace: "a", Pod: "web"}, To: policies.FlowPeer{Namespace: "a", Pod: to},
			Protocol: netset.TCP, Port: port, Verdict: policies.Allow, Count: count,
		})
	}
	add("db", 1, 5, 2)
	add("db", 1, 3, 0) // a record without a count is one flow
	add("db", 3, 6, 1) // no rule decides it
	add("gone", 1, 9, 1)
	twin := policies.Flow{
		First: at(4), Last: at(4), From: policies.FlowPeer{Namespace: "a", Pod: "web"}, To: policies.FlowPeer{Namespace: "a", Pod: "db"},
		Protocol: netset.TCP, Port: 2, Verdict: policies.Allow, Count: 5, EgressOnly: true, Origin: policies.Origin{Reporter: policies.SourceSide},
	}
	usage.Add(twin)
	twin.EgressOnly, twin.Count, twin.Origin.Reporter = false, 4, policies.DestinationSide
	usage.Add(twin)
	if flows, last := usage.Of(reach.RuleID{Direction: policies.Ingress}); flows != 3 || !last.Equal(at(5)) {
		t.Errorf("the first rule decided %d flows, the last on %s; want 3, on %s", flows, last, at(5))
	}
	if flows, last := usage.Of(reach.RuleID{Direction: policies.Ingress, Rule: 1}); flows != 5 || !last.Equal(at(4)) {
		t.Errorf("the second rule decided %d flows, the last on %s; want 5, of which both sides report 4", flows, last)
	}
	if !usage.Newest().Equal(at(9)) {
		t.Errorf("the newest flow is of %s, want %s", usage.Newest(), at(9))
	}
}
