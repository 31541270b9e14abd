package standing_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/standing"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

func clock() time.Time { return time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC) }

// sentences are invariants of every form that is not a program.
var sentences = []string{
	"never: {from: [{namespaceSelector: {matchLabels: {team: red}}}], to: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: db}}}]}",
	"never: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}], ports: [http]}",
	"never: {from: [{namespaceSelector: {}}], to: [{namespaceSelector: {}}], ports: [80]}\n  waivers: [{reason: r, owner: o, until: 2026-07-01, to: [{podSelector: {matchLabels: {app: db}}}]}]",
	"always: {from: [{namespaceSelector: {matchLabels: {team: red}}}], to: [{podSelector: {matchLabels: {app: db}}}], ports: [5432]}",
	"exists: {from: [{podSelector: {matchLabels: {app: web}}}], to: [{podSelector: {matchLabels: {app: db}}}], ports: [5432]}",
	"isolated: {pods: [{podSelector: {matchLabels: {app: db}}}]}",
}

func declare(t rapid.TB) []invariant.Invariant {
	var text strings.Builder
	for i, s := range sentences {
		fmt.Fprintf(&text, "---\napiVersion: weir.dev/v1alpha1\nkind: Invariant\nmetadata: {name: i%d}\nspec:\n  %s\n", i, s)
	}
	docs, err := k8s.Parse("invariants.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	all, err := k8s.ReadInvariants(docs, rego.Program)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// put has an object in a store.
func put(t rapid.TB, s *k8s.Store, format string, args ...any) {
	docs, err := k8s.Parse("live", fmt.Appendf(nil, format, args...))
	if err != nil {
		t.Fatal(err)
	}
	e, err := k8s.ReadEntry(docs[0], k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s.Put(e)
}

// step makes one object come, go or change.
func step(t *rapid.T, s *k8s.Store) {
	one := func(of ...string) string { return rapid.SampledFrom(of).Draw(t, "one") }
	kind, namespace, name := one("Pod", "Pod", "Pod", "Pod", "Namespace", "NetworkPolicy", "NetworkPolicy", "Service", "Node"), one("a", "b", "c"), one("p", "q", "r")
	if kind == "Namespace" || kind == "Node" {
		namespace, name = "", one("a", "b", "c")
	}
	if one("yes", "no", "no", "no") == "yes" {
		group := map[string]string{"NetworkPolicy": "networking.k8s.io"}[kind]
		s.Delete(k8s.Key{Group: group, Kind: kind, Namespace: namespace, Name: name})
		return
	}
	switch kind {
	case "Pod":
		status := one("", "podIPs: [{ip: 10.1.0."+one("1", "2", "3")+"}]", "podIPs: [{ip: 203.0.113.7}]")
		put(t, s, "{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: %s, labels: {app: %s, version: %s}}, spec: {hostNetwork: %s, nodeName: %s, containers: [{name: c, ports: [{name: http, containerPort: %s}]}]}, status: {%s}}",
			name, namespace, one("web", "db"), one("v1", "v2", "v3"), one("false", "false", "false", "true"), one("a", "b"), one("80", "8080"), status)
	case "Namespace":
		put(t, s, "{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {team: %s}}}", name, one("red", "blue"))
	case "Node":
		put(t, s, "{apiVersion: v1, kind: Node, metadata: {name: %s}, status: {addresses: [{type: InternalIP, address: 192.168.0.%s}]}}", name, one("1", "2"))
	case "Service":
		put(t, s, "{apiVersion: v1, kind: Service, metadata: {name: %s, namespace: %s}, spec: {selector: {app: %s}, ports: [{port: 80}]}}", name, namespace, one("web", "db"))
	case "NetworkPolicy":
		put(t, s, "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: %s, namespace: %s}, spec: {podSelector: %s, policyTypes: [%s], ingress: [{from: [%s], ports: [{port: %s}]}]}}",
			name, namespace, one("{}", "{matchLabels: {app: db}}"), one("Ingress", "Ingress, Egress"),
			one("{podSelector: {}}", "{namespaceSelector: {matchLabels: {team: red}}}", "{podSelector: {matchLabels: {app: web}}}", "{ipBlock: {cidr: 203.0.113.0/24}}"), one("80", "http", "5432"))
	}
}

// compare holds what a standing found against what a look at everything finds.
func compare(t *rapid.T, got *standing.Standing) {
	want, err := standing.Of(context.Background(), got.Model, got.Invariants, reach.Options{}, clock())
	if err != nil {
		t.Fatal(err)
	}
	type numbers struct {
		State                   invariant.State
		Broken, Waived, Unknown int
		Vacuous                 string
		Expired, Unused         int
	}
	for i := range want.Results {
		of := func(r invariant.Result) numbers {
			if r.Form == invariant.Exists {
				r.Broken = 0 // one crossing of many is shown
			}
			return numbers{r.State, r.Broken, r.Waived, r.Unknown, r.Vacuous, len(r.Expired), len(r.Unused)}
		}
		if want, got := of(*want.Results[i]), of(*got.Results[i]); got != want {
			t.Fatalf("%s: %+v, want %+v", sentences[i], got, want)
		}
		for _, x := range got.Results[i].Counterexamples {
			for _, p := range []policies.Peer{x.From, x.To} {
				if p.Pod != "" && !slices.ContainsFunc(got.Model.Pods, func(q policies.Pod) bool { return q.Ref.Namespace == p.Namespace && q.Ref.Name == p.Pod }) {
					t.Fatalf("%s: %s is shown, and not there", sentences[i], p.String())
				}
			}
		}
	}
}

// What a keeper says of a world that changes, object by object, is what a look at all of
// it says.
func TestKeeperSaysWhatAllOfItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := k8s.NewStore(k8s.Options{})
		keeper := standing.NewKeeper(reach.Options{}, clock)
		keeper.Declare(declare(t))
		for range rapid.IntRange(5, 30).Draw(t, "objects") {
			step(t, store)
		}
		keeper.Hear(store.Model())
		for range rapid.IntRange(1, 6).Draw(t, "looks") {
			for range rapid.IntRange(1, 3).Draw(t, "changes") {
				for range rapid.IntRange(1, 2).Draw(t, "steps") {
					step(t, store)
				}
				if m, c := store.Model(); !c.IsEmpty() {
					keeper.Hear(m, c)
				}
			}
			s, err := keeper.Standing(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			compare(t, s)
		}
	})
}

// What would stand after a change says what a look at that world says, and leaves what
// stands now as it was.
func TestAfterSaysWhatAllOfItSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		store := k8s.NewStore(k8s.Options{})
		for range rapid.IntRange(5, 30).Draw(t, "objects") {
			step(t, store)
		}
		m, _ := store.Model()
		s, err := standing.Of(context.Background(), m, declare(t), reach.Options{}, clock())
		if err != nil {
			t.Fatal(err)
		}
		s.Model = m
		for range rapid.IntRange(1, 4).Draw(t, "trials") {
			step(t, store)
			head, c := store.Model()
			after, err := s.After(context.Background(), &c, func() *policies.Model { return head }, clock())
			if err != nil {
				t.Fatal(err)
			}
			after.Model = head
			compare(t, after)
			compare(t, s)
			s = after
		}
	})
}
