package enforcer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// cluster is objects that come and go, as an API server has them.
type cluster struct {
	*rand.Rand
	*k8s.Store
	t *rapid.T
}

func (c *cluster) put(text string) {
	docs, err := k8s.Parse("api", []byte(text))
	if err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	e, err := k8s.ReadEntry(docs[0], k8s.Options{})
	if err != nil {
		c.t.Fatalf("%s: %v", text, err)
	}
	c.Put(e)
}

func (c *cluster) one(of ...string) string { return of[c.IntN(len(of))] }

// turn changes one object.
func (c *cluster) turn() {
	namespace, gone := c.one("a", "b", "c"), c.IntN(3) == 0
	switch kind := c.IntN(9); {
	case kind < 5:
		number := c.IntN(10)
		name := fmt.Sprintf("pod-%d", number)
		if gone {
			c.Delete(k8s.Key{Kind: "Pod", Namespace: namespace, Name: name})
			return
		}
		c.put(fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {namespace: %s, name: %s, labels: {app: %s, tier: %s}}, spec: {nodeName: %s}, status: {phase: Running, podIPs: [{ip: 10.0.%d.%d}, {ip: "fd00::%s:%d"}]}}`,
			namespace, name, c.one("web", "api", "db"), c.one("x", "y", fmt.Sprintf("of-%d", number)), c.one("n1", "n2", "n3"), int(namespace[0]-'a'), number, namespace, number))
	case kind < 7:
		name := c.one("p", "q")
		if gone {
			c.Delete(k8s.Key{Kind: "NetworkPolicy", Group: "networking.k8s.io", Namespace: namespace, Name: name})
			return
		}
		peer := c.one("{podSelector: {matchLabels: {app: "+c.one("web", "api")+"}}}", "{namespaceSelector: {}, podSelector: {matchLabels: {tier: "+c.one("x", "of-3")+"}}}", "{ipBlock: {cidr: 10.0.0.0/24}}", "{namespaceSelector: {matchLabels: {team: red}}}")
		way := c.one("ingress: [{from: [PEER], ports: [{port: 80}]}]", "egress: [{to: [PEER]}]", "ingress: [{from: [PEER]}], egress: [{ports: [{port: 53, protocol: UDP}]}]")
		c.put(fmt.Sprintf(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: %s, name: %s, annotations: {%s}}, spec: {podSelector: {matchLabels: {app: %s}}, %s}}`,
			namespace, name, c.one("", "", `"weir.dev/mode": observe`), c.one("web", "db"), strings.ReplaceAll(way, "PEER", peer)))
	case kind < 8:
		c.put(fmt.Sprintf(`{apiVersion: v1, kind: Namespace, metadata: {name: %s, labels: {%s}}}`, namespace, c.one("", "team: red", "team: red", `"weir.dev/mode": observe`)))
	case gone:
		c.Delete(k8s.Key{Kind: "ClusterNetworkPolicy", Group: "policy.networking.k8s.io", Name: "all"})
	default:
		to := c.one("{domainNames: [example.com]}", "{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}")
		c.put(fmt.Sprintf(`{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: all}, spec: {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [%s]}]}}`, to))
	}
}

// What an agent makes of change after change is what one that has just begun makes of the
// whole.
func TestChangesLeadToTheWhole(t *testing.T) {
	rejudged := 0
	rapid.Check(t, func(t *rapid.T) {
		c := &cluster{rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)), k8s.NewStore(k8s.Options{Node: "n1"}), t}
		options := Options{Node: "n1", Observe: c.IntN(4) == 0, Closed: c.IntN(2) == 0, Ranges: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/16")}}
		var guards []policies.Policy
		if c.IntN(3) == 0 {
			guards = []policies.Policy{{Ref: policies.Ref{Kind: "ClusterNetworkPolicy", Name: "guard"}, Tier: "admin", Governs: [2]bool{true, true}}}
		}
		a := New(options)
		var loaded *nft.Ruleset
		for range 6 {
			for range 1 + c.IntN(4) {
				c.turn()
			}
			m, change := c.Model()
			fresh := New(options)
			fresh.accepted = maps.Clone(a.accepted)
			if !change.Whole && a.judged.model != nil {
				rejudged++
			}
			got, want := a.compile(told{model: m, guards: guards}, change, loaded), fresh.compile(told{model: m, guards: guards}, k8s.Change{Whole: true}, loaded)
			if got.String() != want.String() {
				t.Fatalf("another ruleset after %+v (-anew +changed)\n%s", change, cmp.Diff(want.String(), got.String()))
			}
			type judged struct {
				Accepted        nft.Accepted
				Policies, Rules int
				Refused         []string
			}
			of := func(a *Agent) judged {
				j := judged{a.accepted, a.judged.policies, a.judged.rules, nil}
				for _, r := range slices.Concat(a.judged.refused, a.judged.modes.refusals, nft.Doubts(a.judged.in)) {
					j.Refused = append(j.Refused, r.String())
				}
				slices.Sort(j.Refused)
				return j
			}
			if diff := cmp.Diff(of(fresh), of(a), cmp.Comparer(func(a, b nft.Accepted) bool {
				return maps.EqualFunc(a, b, func(p, q policies.Policy) bool { return p.Says(&q) })
			})); diff != "" {
				t.Fatalf("another judgement after %+v (-anew +changed)\n%s", change, diff)
			}
			loaded = got
		}
	})
	t.Logf("%d changes were followed", rejudged)
}
