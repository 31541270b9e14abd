package diff_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// shop has three workloads in shop and one in ops.
var shop = workload("shop", "web") + workload("shop", "cart") + workload("shop", "db") + workload("ops", "shell")

func workload(namespace, name string) string {
	return fmt.Sprintf(`---
apiVersion: apps/v1
kind: Deployment
metadata: {name: %[2]s, namespace: %[1]s}
spec:
  selector: {matchLabels: {app: %[2]s}}
  template: {metadata: {labels: {app: %[2]s}}, spec: {containers: [{name: c}]}}
`, namespace, name)
}

func policy(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: %s, namespace: shop}\nspec: %s\n", name, spec)
}

const (
	denyAll  = `{podSelector: {}}`
	toDB     = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}]}]}`
	anyToDB  = `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{port: 5432}]}]}`
	cartToDB = `{podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: cart}}}], ports: [{port: 5432}]}]}`
)

func compare(t *testing.T, base, head string) *diff.Change {
	t.Helper()
	return diff.Compare(judges(t, base, head))
}

func judges(t *testing.T, base, head string) (b, h *reach.Judge) {
	t.Helper()
	read := func(file, text string) *policies.Model {
		docs, err := k8s.Parse(file, []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		m, err := k8s.Read(docs, k8s.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	return reach.Pair(read("base.yaml", base), read("head.yaml", head), reach.Options{})
}

// said prints a change as lines: groups, then workloads, then policies.
func said(c *diff.Change) string {
	var b strings.Builder
	names := func(peers []policies.Peer) string {
		var all []string
		for _, p := range peers {
			all = append(all, p.String())
		}
		return strings.Join(all, " ")
	}
	for _, g := range c.Groups {
		fmt.Fprintf(&b, "%s to %s: %s > %s, %s, %d pairs\n", g.Before, g.After, names(g.From), names(g.To), g.Ports, g.Pairs)
	}
	fmt.Fprintln(&b, "new", c.NewWorkloads, "gone", c.GoneWorkloads)
	for _, p := range c.Policies {
		fmt.Fprintln(&b, p.What, p.Ref, p.At)
	}
	return b.String()
}

func TestCompare(t *testing.T) {
	for _, row := range []struct {
		name, base, head, want string
	}{
		{"nothing", shop + policy("db", toDB), shop + policy("db", toDB), "new [] gone []\n"},
		{"the same, said otherwise", shop + policy("db", anyToDB), shop + policy("db", strings.Replace(anyToDB, "{port: 5432}", "{port: 5432, protocol: TCP}", 1)), "new [] gone []\n"},
		{"one is let in and another is not", shop + policy("db", toDB), shop + policy("db", cartToDB), `deny to allow: shop/cart > shop/db, TCP/5432, 1 pairs
allow to deny: shop/web > shop/db, TCP/5432, 1 pairs
new [] gone []
changed shop/db head.yaml:30:1
`},
		{"opening to outside comes first", shop + policy("db", toDB), shop + policy("db", anyToDB), `deny to allow: 0.0.0.0/0 ::/0 > shop/db, TCP/5432, 2 pairs
deny to allow: ops/shell shop/cart > shop/db, TCP/5432, 2 pairs
new [] gone []
changed shop/db head.yaml:30:1
`},
		{"a namespace is shut in one sentence", shop, shop + policy("deny", denyAll), `allow to deny: ops/shell shop/cart shop/db shop/web > shop/cart shop/db shop/web, any, 9 pairs
allow to deny: 0.0.0.0/0 ::/0 > shop/cart shop/db shop/web, any, 6 pairs
new [] gone []
added shop/deny head.yaml:30:1
`},
		{"a workload is new", shop + policy("db", toDB), shop + workload("shop", "job") + policy("db", toDB), `deny to allow: 0.0.0.0/0 ::/0 > shop/job, any, 2 pairs
deny to allow: shop/job > 0.0.0.0/0 ::/0, any, 2 pairs
deny to allow: ops/shell shop/cart shop/db shop/web > shop/job, any, 4 pairs
deny to allow: shop/job > ops/shell shop/cart shop/web, any, 3 pairs
new [shop/job] gone []
`},
		{"a policy goes", shop + policy("db", toDB), shop, `deny to allow: 0.0.0.0/0 ::/0 > shop/db, any, 2 pairs
deny to allow: ops/shell shop/cart > shop/db, any, 2 pairs
deny to allow: shop/web > shop/db, TCP/1-5431,5433-65535 UDP SCTP, 1 pairs
new [] gone []
removed shop/db base.yaml:30:1
`},
	} {
		t.Run(row.name, func(t *testing.T) {
			if d := cmp.Diff(row.want, said(compare(t, row.base, row.head))); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// Where nothing speaks of IPv6, nobody has an address of it. Where something does, all
// whose addresses are not known may have one, over which what IPv4 denies is allowed.
func TestWhoeverMaySpeakIPv6(t *testing.T) {
	pod := func(name, spec, status string) string {
		return fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {name: %s, namespace: shop}, spec: {%s containers: [{name: c}]}, status: {%s}}\n", name, spec, status)
	}
	const at7, at8 = "phase: Running, podIPs: [{ip: 10.0.0.7}]", "phase: Running, podIPs: [{ip: 10.0.0.8}]"
	const denied = `---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: shut}
spec:
  tier: Admin
  priority: 0
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]
`
	quiet := denied + policy("nobody", `{podSelector: {matchLabels: {app: none}}}`)
	speaks := denied + policy("nobody", `{podSelector: {matchLabels: {app: none}}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]}`)
	for _, row := range []struct{ name, world, want string }{
		{"addresses are not known", pod("web", "", "") + pod("db", "", ""), "shop/db > shop/web, shop/web > shop/db"},
		{"nor that of a node", pod("web", "", "") + pod("agent", "hostNetwork: true,", ""), "shop/web > shop/agent"},
		{"one is known", pod("web", "", at7) + pod("agent", "hostNetwork: true,", ""), ""},
		{"all are known", pod("web", "", at7) + pod("db", "", at8), ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			for _, way := range []struct {
				base, head    string
				before, after policies.Verdict
			}{{quiet, speaks, policies.Deny, policies.Unknown}, {speaks, quiet, policies.Unknown, policies.Deny}} {
				var got []string
				for _, x := range compare(t, row.world+way.base, row.world+way.head).Differences {
					got = append(got, fmt.Sprint(x.From, " > ", x.To))
					if x.Before != way.before || x.After != way.after {
						t.Errorf("%s > %s turns from %s to %s, want %s to %s", x.From, x.To, x.Before, x.After, way.before, way.after)
					}
				}
				slices.Sort(got)
				if d := cmp.Diff(row.want, strings.Join(got, ", ")); d != "" {
					t.Errorf("from %s to %s (-want +got):\n%s", way.before, way.after, d)
				}
			}
		})
	}
}

func TestGroupsCarryBothDecisions(t *testing.T) {
	c := compare(t, shop+policy("db", toDB), shop+policy("db", cartToDB))
	g := c.Groups[0]
	if g.Was.Verdict != policies.Deny || g.Is.Verdict != policies.Allow {
		t.Errorf("was %s and is %s, want deny and allow", g.Was.Verdict, g.Is.Verdict)
	}
	if at := g.Is.Sides[policies.Ingress].At.String(); at != "head.yaml:33:57" {
		t.Errorf("allowed at %s", at)
	}
}

func TestCounts(t *testing.T) {
	c := compare(t, shop+policy("db", toDB), shop+policy("db", cartToDB))
	if got, want := c.Count(), (diff.Counts{Added: 1, Removed: 1}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAGroupSpeaksOfAllItsPortsAndAddresses(t *testing.T) {
	c := compare(t, shop, shop+policy("out", `{podSelector: {matchLabels: {app: web}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}`))
	for _, g := range c.Groups {
		if !g.To[0].IsOutside() {
			continue
		}
		if got, want := g.Is.Because, "egress: no egress rule of NetworkPolicy shop/out allows any port to 0.0.0.0/0"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		if !g.Is.Ports.Equal(g.Ports) || g.Is.To.String() != "0.0.0.0/0" {
			t.Errorf("the decision is about %s to %s", g.Is.Ports, g.Is.To)
		}
		return
	}
	t.Error("no group leads outside")
}

// Whether an engine keeps ICMP out is unknown where a NetworkPolicy closes a pod
// to it. Compare speaks of TCP, UDP and SCTP only.
func TestEveryProtocolIsCompared(t *testing.T) {
	transports := `{podSelector: {matchLabels: {app: db}}, ingress: [{ports: [{}, {protocol: UDP}, {protocol: SCTP}]}]}`
	base, head := judges(t, shop, shop+policy("open", transports))
	if n := len(diff.Compare(base, head).Differences); n != 0 {
		t.Errorf("%d differences of TCP, UDP and SCTP", n)
	}
	all := diff.CompareAll(base, head)
	if len(all.Differences) == 0 {
		t.Error("no difference of other protocols")
	}
	for _, d := range all.Differences {
		if !d.Ports.Contains(netset.ICMP, 8<<8) || d.Ports.Contains(netset.TCP, 80) || d.After != policies.Unknown {
			t.Errorf("%s to %s on %s is %s", d.From, d.To, d.Ports, d.After)
		}
	}
}

func TestWhatCountsAsAnEdit(t *testing.T) {
	everyone := policies.Match{Anyone: true}
	for _, row := range []struct {
		name string
		edit func(*policies.Policy, *policies.Rule)
	}{
		{"order", func(p *policies.Policy, _ *policies.Rule) { p.Order = 1 }},
		{"forwarded", func(p *policies.Policy, _ *policies.Rule) { p.Forwarded = true }},
		{"peers", func(_ *policies.Policy, r *policies.Rule) { r.Peers = nil }},
		{"own pods", func(_ *policies.Policy, r *policies.Rule) { r.Own = &everyone }},
		{"names of ports it does not match", func(_ *policies.Policy, r *policies.Rule) { r.NotNamed = []policies.NamedPort{{Name: "http"}} }},
		{"what else it asks for", func(_ *policies.Policy, r *policies.Rule) { r.Unclear = "HTTP methods" }},
	} {
		t.Run(row.name, func(t *testing.T) {
			model := func() *policies.Model {
				return &policies.Model{Tiers: []policies.Tier{{Name: "default"}}, Policies: []policies.Policy{{
					Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: "db"}, Tier: "default", Subject: everyone,
					Rules: [2][]policies.Rule{policies.Ingress: {{Action: policies.ActionAllow, Peers: []policies.Match{everyone}}}},
				}}}
			}
			edited := model()
			row.edit(&edited.Policies[0], &edited.Policies[0].Rules[policies.Ingress][0])
			if c := diff.Compare(reach.Pair(model(), model(), reach.Options{})); len(c.Policies) != 0 {
				t.Errorf("the same counts as %v", c.Policies)
			}
			if c := diff.Compare(reach.Pair(model(), edited, reach.Options{})); len(c.Policies) != 1 {
				t.Error("the edit does not count")
			}
		})
	}
}
