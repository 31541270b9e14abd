package k8s

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
)

// convertText converts all policies of a text and returns what became of them.
func convertText(t *testing.T, to Target, text string) *Conversion {
	t.Helper()
	docs, err := Parse("p.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	c, err := Convert(docs, Options{}, to, "converted.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func networkPolicyText(rules string) string {
	return "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {podSelector: {}, ingress: " + rules + "}\n"
}

func adminText(rules string) string {
	return "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}\nspec: {priority: 5, subject: {namespaces: {}}, egress: " + rules + "}\n"
}

func calicoText(spec string) string {
	return "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: a}\nspec: {" + spec + "}\n"
}

// repeated writes n items with commas between them.
func repeated(n int, format string) string {
	items := make([]string, n)
	for i := range items {
		items[i] = fmt.Sprintf(format, i)
	}
	return strings.Join(items, ", ")
}

// rulesOf returns the rules of the one policy in a direction, each in short.
func rulesOf(c *Conversion, d policies.Direction) []string {
	var all []string
	for _, r := range c.After.Policies[0].Rules[d] {
		var peers []string
		for _, p := range r.Peers {
			peers = append(peers, p.String())
		}
		all = append(all, fmt.Sprintf("%s %s: %s %v", r.Action, strings.Join(peers, " or "), r.Ports, r.Named))
	}
	return all
}

func TestConvertedRules(t *testing.T) {
	for _, row := range []struct {
		name string
		to   Target
		text string
		want []string
	}{
		{
			"a rule for each protocol and peer", ToCalico,
			networkPolicyText("[{from: [{podSelector: {}}, {namespaceSelector: {}}], ports: [{port: 80}, {protocol: UDP, port: dns}]}]"),
			[]string{
				"allow endpoints projectcalico.org/orchestrator == \"k8s\" in a: TCP/80 []",
				"allow endpoints projectcalico.org/orchestrator == \"k8s\" in all namespaces: TCP/80 []",
				"allow endpoints projectcalico.org/orchestrator == \"k8s\" in a: none [{UDP dns}]",
				"allow endpoints projectcalico.org/orchestrator == \"k8s\" in all namespaces: none [{UDP dns}]",
			},
		},
		{"IP versions do not mix", ToCalico, networkPolicyText("[{from: [{ipBlock: {cidr: 10.0.0.0/8}}, {ipBlock: {cidr: '2001:db8::/32'}}, {ipBlock: {cidr: 11.0.0.0/8}}]}]"), []string{
			"allow 10.0.0.0/8 or 11.0.0.0/8: any []", "allow 2001:db8::/32: any []",
		}},
		{"no ports are everything, ICMP too", ToCalico, networkPolicyText("[{}]"), []string{"allow anyone: any []"}},
		{"no rules are none", ToCalico, networkPolicyText("[]"), nil},
		{
			"Calico's rules for one peer become one", ToNetworkPolicy,
			calicoText("ingress: [{action: Allow, protocol: TCP, source: {nets: [10.0.0.0/8]}}, {action: Allow, protocol: UDP, source: {nets: [10.0.0.0/8]}, destination: {ports: [53]}}]"),
			[]string{
				"allow 10.0.0.0/8: TCP UDP/53 []",
			},
		},
		{
			"rules with names stay apart", ToNetworkPolicy,
			calicoText("ingress: [{action: Allow, source: {nets: [10.0.0.0/8]}, metadata: {annotations: {name: one}}}, {action: Allow, source: {nets: [11.0.0.0/8]}}]"),
			[]string{
				"allow 10.0.0.0/8: any []", "allow 11.0.0.0/8: any []",
			},
		},
		{"what all addresses lack", ToNetworkPolicy, calicoText("ingress: [{action: Allow, source: {notNets: [10.0.0.0/8]}}]"), []string{
			"allow 0.0.0.0/0 except 10.0.0.0/8 or ::/0: any []",
		}},
		{"notNets may leave nothing of a net", ToNetworkPolicy, calicoText("ingress: [{action: Allow, source: {nets: [10.1.0.0/16, 11.0.0.0/8], notNets: [10.0.0.0/8]}}]"), []string{
			"allow 11.0.0.0/8: any []",
		}},
		{"one IP version", ToNetworkPolicy, calicoText("ingress: [{action: Allow, ipVersion: 6}]"), []string{"allow ::/0: any []"}},
		{"ports that are left out", ToNetworkPolicy, calicoText("ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [80]}}]"), []string{
			"allow anyone: TCP/1-79,81-65535 []",
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := convertText(t, row.to, row.text)
			if len(c.Policies[0].Lost) > 0 {
				t.Fatalf("lost %v", c.Policies[0].Lost)
			}
			if d := cmp.Diff(row.want, rulesOf(c, policies.Ingress)); d != "" {
				t.Errorf("(-want +got):\n%s\n%s", d, c.YAML)
			}
		})
	}
}

func TestWhatIsLeftOutIsTold(t *testing.T) {
	for _, row := range []struct {
		name string
		to   Target
		text string
		want []string
	}{
		{"annotations of a rule but its name", ToNetworkPolicy, calicoText("ingress: [{action: Allow}, {action: Allow, metadata: {annotations: {name: first, owner: me}}}]"), []string{
			"1: annotation owner of the rule is left out: rules of a NetworkPolicy have none",
		}},
		{"hints", ToNetworkPolicy, calicoText("performanceHints: [AssumeNeededOnEveryNode], ingress: [{action: Allow}]"), []string{
			"-1: performanceHints are left out; they change no answer",
		}},
		{"owners", ToCalico, strings.Replace(networkPolicyText("[{}]"), "namespace: a", "namespace: a, finalizers: [x.y/z]", 1), []string{"-1: finalizers are left out"}},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := convertText(t, row.to, row.text)
			var got []string
			for _, r := range c.Policies[0].Changed {
				got = append(got, fmt.Sprintf("%d: %s", r.Rule, r.Because))
			}
			if d := cmp.Diff(row.want, got); d != "" || c.Policies[0].To == (policies.Ref{}) {
				t.Errorf("(-want +got):\n%s\n%v", d, c.Policies[0].Lost)
			}
		})
	}
}

func TestRulesWithTooMuchAreSplit(t *testing.T) {
	for _, row := range []struct {
		name  string
		to    Target
		text  string
		rules int // 0 where the policy cannot be converted
	}{
		{"60 ports", ToCalico, networkPolicyText("[{ports: [" + repeated(60, "{port: 1%02d9}") + "]}]"), 2},
		{"300 networks", ToCalico, networkPolicyText("[{from: [" + repeated(300, "{ipBlock: {cidr: '2001:db8:%x::/64'}}") + "]}]"), 2},
		{"1024 rules", ToCalico, networkPolicyText("[" + repeated(1024, "{ports: [{port: %d5}]}") + "]"), 1024},
		{"1025 rules", ToCalico, networkPolicyText("[" + repeated(1025, "{ports: [{port: %d5}]}") + "]"), 0},
		{"a long selector", ToCalico, networkPolicyText("[{from: [{podSelector: {matchExpressions: [{key: app, operator: In, values: [" + repeated(100, "a-rather-long-value-%d") + "]}]}}]}]"), 0},
		{"30 peers", ToClusterNetworkPolicy, adminText("[{action: Deny, to: [" + repeated(30, "{namespaces: {matchLabels: {app: v%d}}}") + "]}]"), 2},
		{
			"60 ports and 30 peers", ToClusterNetworkPolicy,
			adminText("[{action: Deny, to: [" + repeated(30, "{namespaces: {matchLabels: {app: v%d}}}") + "], ports: [" + repeated(60, "{portNumber: {port: 1%02d9}}") + "]}]"), 6,
		},
		{"26 rules", ToClusterNetworkPolicy, adminText("[" + repeated(26, "{action: Deny, to: [{namespaces: {matchLabels: {app: v%d}}}]}") + "]"), 0},
		{"a peer that is not known", ToClusterNetworkPolicy, adminText("[{action: Deny, to: [{clouds: {}}]}]"), 0},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := convertText(t, row.to, row.text)
			if lost := c.Policies[0].Lost; row.rules == 0 && (len(lost) == 0 || len(c.YAML) > 0) || row.rules > 0 && len(lost) > 0 {
				t.Fatalf("lost %v", lost)
			}
			rules := c.After.Policies[0].Rules
			if n := len(slices.Concat(rules[0], rules[1])); row.rules > 0 && n != row.rules {
				t.Errorf("%d rules, want %d", n, row.rules)
			}
		})
	}
}

// A place among other policies counts only where those do something else than
// allow to the same traffic.
func TestPoliciesKeepTheirPlaces(t *testing.T) {
	other := func(namespace, spec string) string {
		return "---\napiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: other, namespace: " + namespace + "}\nspec: {" + spec + "}\n"
	}
	for _, row := range []struct {
		name        string
		order       string
		other       string
		isConverted bool
	}{
		{"alone", "5", "", true},
		{"before one that allows", "5", other("a", "order: 10, ingress: [{action: Allow}]"), true},
		{"before one that logs", "5", other("a", "order: 10, ingress: [{action: Log}]"), true},
		{"before one that denies", "5", other("a", "order: 10, ingress: [{action: Deny}]"), false},
		{"after it", "20", other("a", "order: 10, ingress: [{action: Deny}]"), true},
		{"before one that passes, far behind", "5", other("a", "order: 2000, ingress: [{action: Pass}]"), true},
		{"before one that denies egress", "5", other("a", "order: 10, egress: [{action: Deny}]"), true},
		{"before one of another namespace", "5", other("b", "order: 10, ingress: [{action: Deny}]"), true},
		{"after one of its order, by name", "1000", other("a", "order: 1000, ingress: [{action: Deny}]"), true},
		{"before one of another tier", "5", other("a", "tier: later, order: 10, ingress: [{action: Deny}]"), true},
	} {
		t.Run(row.name, func(t *testing.T) {
			c := convertText(t, ToNetworkPolicy, strings.Replace(calicoText("order: "+row.order+", ingress: [{action: Allow}]"), "name: p", "name: zz", 1)+row.other)
			i := slices.IndexFunc(c.Policies, func(p policies.Conversion) bool { return p.From.Name == "zz" })
			if got := c.Policies[i].To != (policies.Ref{}); got != row.isConverted {
				t.Errorf("converted %v, want %v: lost %v", got, row.isConverted, c.Policies[i].Lost)
			}
		})
	}
}

// A pod's own label comes before its namespace's to Calico only.
func TestNamespacesByLabelsThatPodsHaveAreNotConverted(t *testing.T) {
	const pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a, labels: {pcns.team: own, pcns.projectcalico.org/name: b}}\nspec: {containers: [{name: main}]}\n"
	for _, row := range []struct {
		to   Target
		text string
		want string
	}{
		{ToCalico, networkPolicyText("[{from: [{namespaceSelector: {matchLabels: {team: own}}}]}]"), "pcns.team"},
		{ToCalico, networkPolicyText("[{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]"), "pcns.projectcalico.org/name"},
		{ToCalico, networkPolicyText("[{from: [{namespaceSelector: {matchLabels: {env: own}}}, {podSelector: {}}]}]"), ""},
		{ToNetworkPolicy, calicoText("ingress: [{action: Allow, source: {namespaceSelector: team == 'own'}}]"), "pcns.team"},
		{ToNetworkPolicy, calicoText("ingress: [{action: Allow, source: {namespaceSelector: projectcalico.org/name == 'b'}}]"), "pcns.projectcalico.org/name"},
		{ToNetworkPolicy, calicoText("ingress: [{action: Allow, source: {namespaceSelector: kubernetes.io/metadata.name == 'b'}}]"), ""},
	} {
		var want, got []string
		if row.want != "" {
			want = []string{"pod a/x has label " + row.want + " itself: to Calico that comes before its namespace's, to Kubernetes it does not"}
		}
		for _, lost := range convertText(t, row.to, row.text+pod).Policies[0].Lost {
			got = append(got, lost.Because)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("to %s: (-want +got):\n%s\n%s", row.to, d, row.text)
		}
	}
}

func TestWhatIsNotConvertedStays(t *testing.T) {
	c := convertText(t, ToClusterNetworkPolicy, networkPolicyText("[{}]")+"---\n"+adminText("[{action: Allow, to: [{nodes: {}}]}]")+`---
apiVersion: policy.networking.k8s.io/v1alpha1
kind: BaselineAdminNetworkPolicy
metadata: {name: default}
spec: {subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [10.0.0.0/8]}]}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: default}
spec: {tier: Admin, priority: 5, subject: {namespaces: {}}}
`)
	var got []string
	for _, p := range c.After.Policies {
		got = append(got, fmt.Sprintf("%s %s %s %d", p.Ref.Kind, p.Ref, p.Tier, p.Priority))
	}
	want := []string{
		"NetworkPolicy a/p default 0", "BaselineAdminNetworkPolicy default kube-baseline 0",
		"ClusterNetworkPolicy default kube-admin 5", "ClusterNetworkPolicy p kube-admin 5",
	}
	slices.Sort(got)
	slices.Sort(want)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTextIsQuotedForEveryReader(t *testing.T) {
	for _, text := range []string{"y", "on", "NO", "true", "1", "1:20", "0x1f", "~", "", "# no", "a: b", "!has(a)", "2020-01-01", `app == "x"`, "*.example.com"} {
		out, err := encode([]any{newMapping(member{text, newText(text)})})
		if err != nil {
			t.Fatal(err)
		}
		docs, err := Parse("p.yaml", out)
		if err != nil || len(docs) != 1 {
			t.Fatalf("%q is written as %s: %v", text, out, err)
		}
		for _, n := range docs[0].Node.Content {
			if n.Value != text || !isText(n) {
				t.Errorf("%q is written as %s", text, out)
			}
		}
	}
	if got := newText("9000:59").Style; got != yaml.DoubleQuotedStyle {
		t.Error("9000:59 is written without quotes, and old readers take it for a number")
	}
	if got := comment("one\ntwo\x1b"); got != "# one two " {
		t.Errorf("got %q", got)
	}
}

func TestCalicoDecidesWithoutItsKinds(t *testing.T) {
	docs, err := Parse("p.yaml", []byte(networkPolicyText("[{}]")))
	if err != nil {
		t.Fatal(err)
	}
	for _, calico := range []bool{false, true} {
		m, err := Read(docs, Options{Calico: calico})
		if err != nil || isCalico(m) != calico {
			t.Errorf("Calico %v: read %v (error %v)", calico, isCalico(m), err)
		}
	}
}
