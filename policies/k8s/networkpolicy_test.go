package k8s

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
)

// describePolicy prints a policy as facts: whom it selects, and for each
// direction it governs what it allows.
func describePolicy(p policies.Policy) []string {
	lines := []string{p.Subject.String()}
	for _, d := range policies.Directions {
		if !p.Governs[d] {
			continue
		}
		if len(p.Rules[d]) == 0 {
			lines = append(lines, d.String()+" none")
		}
		for _, rule := range p.Rules[d] {
			var peers []string
			for _, m := range rule.Peers {
				peers = append(peers, m.String())
			}
			ports := rule.Ports.String()
			for _, n := range rule.Named {
				ports += fmt.Sprintf(" %s/%s", n.Protocol, n.Name)
			}
			lines = append(lines, fmt.Sprintf("%s %s %s: %s", d, rule.Action, strings.Join(peers, " or "), ports))
		}
	}
	return lines
}

func TestNetworkPolicy(t *testing.T) {
	for _, row := range []struct{ spec, want string }{
		// Which directions a policy governs.
		{"{podSelector: {}}", "all pods in shop; ingress none"},
		{"{}", "all pods in shop; ingress none"},
		{"{podSelector: {matchLabels: {app: db}}}", "pods app=db in shop; ingress none"},
		{"{ingress: [{}]}", "all pods in shop; ingress allow anyone: any"},
		{"{ingress: []}", "all pods in shop; ingress none"},
		{"{egress: [{}]}", "all pods in shop; egress allow anyone: any; ingress none"},
		{"{egress: []}", "all pods in shop; ingress none"},
		{"{policyTypes: []}", "all pods in shop; ingress none"},
		{"{policyTypes: null, egress: null}", "all pods in shop; ingress none"},
		{"{policyTypes: [Egress]}", "all pods in shop; egress none"},
		{"{policyTypes: [Egress, Ingress]}", "all pods in shop; egress none; ingress none"},
		{"{policyTypes: [Ingress], egress: [{}]}", "all pods in shop; ingress none"},
		{"{policyTypes: [Egress], ingress: [{}]}", "all pods in shop; egress none"},

		// Peers.
		{"{ingress: [{from: []}]}", "all pods in shop; ingress allow anyone: any"},
		{"{ingress: [{from: null, ports: null}]}", "all pods in shop; ingress allow anyone: any"},
		{"{ingress: [{from: [{podSelector: {}}]}]}", "all pods in shop; ingress allow all pods in shop: any"},
		{"{ingress: [{from: [{namespaceSelector: {}}]}]}", "all pods in shop; ingress allow all pods in all namespaces: any"},
		{
			"{ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: b}}}]}]}",
			"all pods in shop; ingress allow pods app=b in namespaces team=a: any",
		},
		{
			"{ingress: [{from: [{namespaceSelector: {matchLabels: {team: a}}}, {podSelector: {matchLabels: {app: b}}}]}]}",
			"all pods in shop; ingress allow all pods in namespaces team=a or pods app=b in shop: any",
		},
		{
			"{podSelector: {matchLabels: {app: a}, matchExpressions: [{key: x, operator: NotIn, values: [c, b]}, {key: z, operator: DoesNotExist}]}}",
			"pods app=a,x notin (b,c),!z in shop; ingress none",
		},
		{
			"{egress: [{to: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.2.0.0/16, 10.1.0.0/16]}}, {ipBlock: {cidr: '2001:db8::/32'}}]}], policyTypes: [Egress]}",
			"all pods in shop; egress allow 10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16 or 2001:db8::/32: any",
		},
		{"{ingress: [{from: [{ipBlock: {cidr: 10.0.0.5/8}}]}]}", "all pods in shop; ingress allow 10.0.0.0/8: any"},

		// Ports.
		{"{ingress: [{ports: []}]}", "all pods in shop; ingress allow anyone: any"},
		{"{ingress: [{ports: [{}]}]}", "all pods in shop; ingress allow anyone: TCP"},
		{"{ingress: [{ports: [{protocol: SCTP}]}]}", "all pods in shop; ingress allow anyone: SCTP"},
		{"{ingress: [{ports: [{port: 80}, {port: 53, protocol: UDP}]}]}", "all pods in shop; ingress allow anyone: TCP/80 UDP/53"},
		{"{ingress: [{ports: [{port: 80, endPort: 90}, {port: 85, endPort: 85}]}]}", "all pods in shop; ingress allow anyone: TCP/80-90"},
		{"{ingress: [{ports: [{port: 1, endPort: 65535}]}]}", "all pods in shop; ingress allow anyone: TCP"},
		{"{ingress: [{ports: [{port: http}, {port: dns, protocol: UDP}]}]}", "all pods in shop; ingress allow anyone: none TCP/http UDP/dns"},
		{"{egress: [{ports: [{port: http}, {port: 0x50}]}], policyTypes: [Egress]}", "all pods in shop; egress allow anyone: TCP/80 TCP/http"},
	} {
		m := read(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: "+row.spec)
		if got := strings.Join(describePolicy(m.Policies[0]), "; "); got != row.want {
			t.Errorf("%s\n got %s\nwant %s", row.spec, got, row.want)
		}
	}
}

func TestAnnotations(t *testing.T) {
	const text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, annotations: {weir.dev/waive: 'x until 2027-01-01: y', empty: null}}\nspec: {podSelector: {}}\n"
	got := read(t, text).Policies[0].Annotations
	if diff := cmp.Diff(map[string]string{"weir.dev/waive": "x until 2027-01-01: y"}, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestNetworkPolicyWarnings(t *testing.T) {
	for _, row := range []struct{ rest, want string }{
		{"", "a.yaml:1:1: NetworkPolicy shop/p has no spec: it denies all ingress to every pod of namespace shop"},
		{"spec: {egress: []}", "a.yaml:4:16: an empty egress section without policyTypes denies nothing; add \"policyTypes: [Ingress, Egress]\" if it should"},
		{"spec: {ingress: [{from: [{ipBlock: {cidr: 10.0.0.5/8}}]}]}", "a.yaml:4:43: CIDR 10.0.0.5/8 has bits set behind its prefix; it means 10.0.0.0/8"},
	} {
		m := read(t, "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n"+row.rest)
		if len(m.Warnings) != 1 || m.Warnings[0].String() != row.want {
			t.Errorf("got %v, want %s", m.Warnings, row.want)
		}
	}
}

func TestAliasesAndMergeKeys(t *testing.T) {
	m := read(t, `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
spec:
  podSelector: &labels
    matchLabels: &base {app: web, tier: front}
  ingress:
  - from:
    - podSelector: *labels
    - podSelector:
        matchLabels: {<<: *base, tier: back}
    - podSelector:
        matchLabels: {<<: [{tier: first}, *base], more: x}
`)
	want := "pods app=web,tier=front in shop; ingress allow pods app=web,tier=front in shop" +
		" or pods app=web,tier=back in shop or pods app=web,more=x,tier=first in shop: any"
	if got := strings.Join(describePolicy(m.Policies[0]), "; "); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestPolicyPlaces(t *testing.T) {
	m := read(t, `# a comment
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: p
spec:
  podSelector:
    matchLabels: {a: b}
  ingress:
  - from:
    - podSelector: {}
    - ipBlock:
        cidr: 10.0.0.0/8
  - ports:
    - port: 80
`)
	p := m.Policies[0]
	rules := p.Rules[policies.Ingress]
	got := fmt.Sprint(p.Place, p.Subject.Place, rules[0].Place, rules[0].Peers[0].Place, rules[0].Peers[1].Place, rules[1].Place)
	if want := "a.yaml:2:1 a.yaml:8:5 a.yaml:10:5 a.yaml:11:7 a.yaml:12:7 a.yaml:14:5"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTiers(t *testing.T) {
	admin, tier, baseline := tiers()[0], tiers()[1], tiers()[2]
	if tier.Name != Tier || tier.End != policies.ActionDeny || !tier.SparesOwnNode || !tier.Undefined.Contains(1, 0) || tier.Undefined.Contains(6, 80) || tier.Undefined.Contains(132, 0) {
		t.Errorf("got %+v", tier)
	}
	for _, tier := range []policies.Tier{admin, baseline} {
		if tier.End != policies.ActionPass || tier.SparesOwnNode || !tier.Undefined.IsEmpty() {
			t.Errorf("got %+v", tier)
		}
	}
}

func TestNearest(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"podselector", "podSelector"}, {"podSelectors", "podSelector"}, {"form", "from"}, {"app", ""}, {"", ""},
	} {
		if got := nearest(row.text, []string{"podSelector", "from", "ports"}); got != row.want {
			t.Errorf("%q: got %q, want %q", row.text, got, row.want)
		}
	}
}
