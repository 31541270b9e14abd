package standing_test

import (
	"context"
	"testing"
	"time"

	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

// A judge that happens to tell apart whom an invariant speaks of may be followed by one
// that does not, when the policies go that made it.
func TestWhatIsDeclaredLaterOutlivesTheJudge(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	docs, err := k8s.Parse("world.yaml", []byte(`
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web, tier: a}}, spec: {containers: []}}
---
{apiVersion: v1, kind: Pod, metadata: {name: db, namespace: shop, labels: {app: db, tier: b}}, spec: {containers: []}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: db, namespace: shop}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: tier, namespace: shop}, spec: {podSelector: {matchLabels: {tier: b}}, ingress: []}}
---
{apiVersion: weir.dev/v1alpha1, kind: Invariant, metadata: {name: i}, spec: {never: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}]}}}`))
	if err != nil {
		t.Fatal(err)
	}
	all, err := k8s.ReadInvariants(docs, rego.Program)
	if err != nil {
		t.Fatal(err)
	}
	store := k8s.NewStore(k8s.Options{})
	var entries []*k8s.Entry
	for _, d := range docs[:4] {
		e, err := k8s.ReadEntry(d, k8s.Options{})
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
	}
	for _, e := range entries[:3] {
		store.Put(e)
	}
	m, _ := store.Model()
	s, err := standing.Of(context.Background(), m, nil, reach.Options{}, now)
	if err != nil {
		t.Fatal(err)
	}
	if s, err = s.Declaring(context.Background(), all, now); err != nil || s.Results[0].State != invariant.Broken {
		t.Fatalf("%+v, %v", s, err)
	}
	store.Delete(entries[2].Key())
	store.Put(entries[3])
	m, c := store.Model()
	s, err = s.After(context.Background(), &c, func() *policies.Model { return m }, now)
	if err != nil || s.Results[0].State != invariant.Holds {
		t.Errorf("%+v, %v", s, err)
	}
}
