package k8s

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
)

// calicoObject returns a document in the namespace shop, or in none.
func calicoObject(kind, name, spec string) string {
	namespace := ", namespace: shop"
	if calicoKinds[kind].clusterWide {
		namespace = ""
	}
	return fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s%s}\nspec: %s\n---\n", kind, name, namespace, spec)
}

// describeCalico prints a policy and what only Calico's have.
func describeCalico(p policies.Policy) string {
	lines := describePolicy(p)
	if p.Forwarded {
		lines[0] += " forwarded"
	}
	at := 0
	for _, d := range policies.Directions {
		for _, rule := range p.Rules[d] {
			at++
			for _, n := range rule.NotNamed {
				lines[at] += fmt.Sprintf(" not %s/%s", n.Protocol, n.Name)
			}
			if !rule.NotPorts.IsEmpty() {
				lines[at] += " not " + rule.NotPorts.String()
			}
			if rule.Own != nil {
				lines[at] += " of " + rule.Own.String()
			}
			if rule.Unclear != "" {
				lines[at] += " where " + rule.Unclear
			}
			if rule.Name != "" {
				lines[at] += " named " + rule.Name
			}
		}
		if p.Governs[d] && len(p.Rules[d]) == 0 {
			at++
		}
	}
	return strings.Join(lines, "; ")
}

func TestCalicoPolicies(t *testing.T) {
	const np, gnp = "NetworkPolicy", "GlobalNetworkPolicy"
	for _, row := range []struct{ kind, spec, want string }{
		// Which directions a policy governs.
		{np, "{}", "all endpoints in shop; ingress none"},
		{np, "{ingress: [], egress: []}", "all endpoints in shop; ingress none"},
		{np, "{egress: [{action: Allow}]}", "all endpoints in shop; egress allow anyone: any"},
		{np, "{ingress: [{action: Deny}]}", "all endpoints in shop; ingress deny anyone: any"},
		{np, "{ingress: [{action: Deny}], egress: [{action: Pass}]}", "all endpoints in shop; egress pass anyone: any; ingress deny anyone: any"},
		{np, "{types: [Egress, Ingress]}", "all endpoints in shop; egress none; ingress none"},
		{np, "{types: [Egress], ingress: [{action: Deny}]}", "all endpoints in shop; egress none"},
		{np, "{ingress: [{action: Log}]}", "all endpoints in shop; ingress log anyone: any"},

		// Whom it applies to.
		{np, "{selector: app == 'db', performanceHints: [AssumeNeededOnEveryNode]}", "endpoints app == \"db\" in shop; ingress none"},
		{np, "{selector: '!has(app)', serviceAccountSelector: role != 'ops'}", "endpoints !has(app) && pcsa.role != \"ops\" in shop; ingress none"},
		{np, "{serviceAccountSelector: projectcalico.org/name == 'web'}", "endpoints pcsa.projectcalico.org/name == \"web\" in shop; ingress none"},
		{gnp, "{}", "all endpoints; ingress none"},
		{gnp, "{selector: app == 'db'}", "endpoints app == \"db\"; ingress none"},
		{gnp, "{namespaceSelector: team == 'a'}", "all endpoints in namespaces team == \"a\"; ingress none"},
		{gnp, "{namespaceSelector: all()}", "all endpoints in all namespaces; ingress none"},
		{gnp, "{namespaceSelector: projectcalico.org/name == 'shop'}", "all endpoints in shop; ingress none"},
		{gnp, "{namespaceSelector: '!has(team)'}", "all endpoints in namespaces !has(team); ingress none"},
		{gnp, "{applyOnForward: true}", "all endpoints forwarded; ingress none"},
		{gnp, "{applyOnForward: true, doNotTrack: true, types: [Ingress, Egress]}", "all endpoints in no namespace forwarded; egress none; ingress none"},
		{gnp, "{applyOnForward: true, preDNAT: true}", "all endpoints in no namespace forwarded; ingress none"},

		// How selectors are scoped.
		{np, "{ingress: [{action: Allow, source: {namespaceSelector: team == 'a'}}]}", "all endpoints in shop; ingress allow all endpoints in namespaces team == \"a\": any"},
		{np, "{ingress: [{action: Allow, source: {namespaceSelector: all()}}]}", "all endpoints in shop; ingress allow all endpoints in all namespaces: any"},
		{np, "{ingress: [{action: Allow, source: {namespaceSelector: global()}}]}", "all endpoints in shop; ingress allow all endpoints in no namespace: any"},
		{np, "{ingress: [{action: Allow, source: {namespaceSelector: global(), selector: has(bad)}}]}", "all endpoints in shop; ingress allow endpoints has(bad) in no namespace: any"},
		{np, "{ingress: [{action: Allow, source: {namespaceSelector: \"projectcalico.org/name == 'b'\", selector: app == 'web'}}]}", "all endpoints in shop; ingress allow endpoints app == \"web\" in b: any"},
		{np, "{ingress: [{action: Allow, source: {serviceAccounts: {selector: \"role == 'web'\"}}}]}", "all endpoints in shop; ingress allow endpoints pcsa.role == \"web\" in shop: any"},
		{np, "{ingress: [{action: Allow, source: {serviceAccounts: {names: [b, a], selector: has(x)}}}]}", "all endpoints in shop; ingress allow endpoints has(pcsa.x) && projectcalico.org/serviceaccount in {\"a\", \"b\"} in shop: any"},
		{np, "{ingress: [{action: Allow, source: {serviceAccounts: {}}}]}", "all endpoints in shop; ingress allow anyone: any"},
		{np, "{ingress: [{action: Allow, source: {selector: app == 'web'}}]}", "all endpoints in shop; ingress allow endpoints app == \"web\" in shop: any"},
		{np, "{ingress: [{action: Allow, source: {selector: all()}}]}", "all endpoints in shop; ingress allow all endpoints in shop: any"},
		{np, "{ingress: [{action: Allow, source: {selector: app == 'web', notSelector: has(bad)}}]}", "all endpoints in shop; ingress allow endpoints app == \"web\" in shop except endpoints has(bad): any"},
		{np, "{ingress: [{action: Allow, source: {notSelector: has(bad)}}]}", "all endpoints in shop; ingress allow all endpoints in shop except endpoints has(bad): any"},
		{np, "{ingress: [{action: Allow, source: {}}]}", "all endpoints in shop; ingress allow anyone: any"},
		{np, "{ingress: [{action: Allow, source: {nets: [10.0.0.0/8]}}]}", "all endpoints in shop; ingress allow 10.0.0.0/8: any"},
		{gnp, "{ingress: [{action: Allow, source: {selector: app == 'web'}}]}", "all endpoints; ingress allow endpoints app == \"web\": any"},
		{gnp, "{ingress: [{action: Allow, source: {notSelector: has(bad)}}]}", "all endpoints; ingress allow anyone except endpoints has(bad): any"},
		{gnp, "{ingress: [{action: Allow, source: {namespaceSelector: global()}}]}", "all endpoints; ingress allow all endpoints in no namespace: any"},
		{gnp, "{egress: [{action: Deny, destination: {namespaceSelector: '!has(team)'}}]}", "all endpoints; egress deny all endpoints in namespaces !has(team): any"},

		// The other parts of a source or destination.
		{np, "{egress: [{action: Allow, destination: {nets: [10.0.0.0/8, 192.168.0.0/16], notNets: [10.1.0.0/16]}}]}", "all endpoints in shop; egress allow 10.0.0.0/8 or 192.168.0.0/16 except 10.1.0.0/16: any"},
		{np, "{egress: [{action: Allow, destination: {nets: [10.0.0.0/8], selector: all()}}]}", "all endpoints in shop; egress allow all endpoints in shop among 10.0.0.0/8: any"},
		{np, "{egress: [{action: Allow, ipVersion: 6}]}", "all endpoints in shop; egress allow ::/0: any"},
		{np, "{egress: [{action: Allow, ipVersion: 4, destination: {selector: all()}}]}", "all endpoints in shop; egress allow all endpoints in shop among 0.0.0.0/0: any"},
		{np, "{egress: [{action: Allow, destination: {domains: ['*.example.com', api.*.example.org]}}]}", "all endpoints in shop; egress allow *.example.com, api.*.example.org: any"},
		{np, "{egress: [{action: Allow, source: {selector: app == 'db'}, destination: {selector: app == 'web'}}]}", "all endpoints in shop; egress allow endpoints app == \"web\" in shop: any of endpoints app == \"db\" in shop"},
		{np, "{ingress: [{action: Allow, destination: {notNets: [10.0.0.0/8]}}]}", "all endpoints in shop; ingress allow anyone: any of anyone except 10.0.0.0/8"},
		{np, "{ingress: [{action: Allow, metadata: {annotations: {name: web, a: b}}}]}", "all endpoints in shop; ingress allow anyone: any named web"},

		// Protocols and ports.
		{np, "{ingress: [{action: Allow, protocol: tcp}]}", "all endpoints in shop; ingress allow anyone: TCP"},
		{np, "{ingress: [{action: Allow, protocol: 17}]}", "all endpoints in shop; ingress allow anyone: UDP"},
		{np, "{ingress: [{action: Allow, protocol: UDPLite}]}", "all endpoints in shop; ingress allow anyone: 136"},
		{np, "{ingress: [{action: Allow, notProtocol: TCP}]}", "all endpoints in shop; ingress allow anyone: all but TCP"},
		{np, "{ingress: [{action: Allow, protocol: TCP, notProtocol: TCP}]}", "all endpoints in shop; ingress allow anyone: none"},
		{np, "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [80, '8000:8100', http, '443']}}]}", "all endpoints in shop; ingress allow anyone: TCP/80,443,8000-8100 TCP/http"},
		{np, "{ingress: [{action: Allow, destination: {ports: [http]}}]}", "all endpoints in shop; ingress allow anyone: none TCP/http UDP/http SCTP/http"},
		{np, "{ingress: [{action: Allow, notProtocol: UDP, destination: {ports: [http]}}]}", "all endpoints in shop; ingress allow anyone: none TCP/http SCTP/http"},
		{np, "{ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [80, '90:99']}}]}", "all endpoints in shop; ingress allow anyone: TCP/1-79,81-89,100-65535"},
		{np, "{ingress: [{action: Allow, protocol: TCP, destination: {ports: ['80:90'], notPorts: [81]}}]}", "all endpoints in shop; ingress allow anyone: TCP/80,82-90"},
		{np, "{ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [http]}}]}", "all endpoints in shop; ingress allow anyone: TCP not TCP/http"},
		{np, "{ingress: [{action: Allow, protocol: TCP, destination: {ports: [http], notPorts: [80]}}]}", "all endpoints in shop; ingress allow anyone: none TCP/http not TCP/80"},
		{np, "{egress: [{action: Allow, protocol: TCP, source: {ports: [80, '90:99']}}]}", "all endpoints in shop; egress allow anyone: TCP where it asks for source port 80 or 90:99"},
		{np, "{egress: [{action: Allow, protocol: TCP, source: {ports: ['1:65535']}}]}", "all endpoints in shop; egress allow anyone: TCP"},
		{np, "{ingress: [{action: Allow, protocol: TCP, source: {notPorts: [80]}, destination: {ports: [1]}}]}", "all endpoints in shop; ingress allow anyone: TCP/1 where it asks for source port not 80"},
		{np, "{ingress: [{action: Allow, protocol: ICMP}]}", "all endpoints in shop; ingress allow anyone: ICMP"},
		{np, "{ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}]}", "all endpoints in shop; ingress allow 0.0.0.0/0: ICMP/8"},
		{np, "{ingress: [{action: Allow, protocol: 1, icmp: {type: 3, code: 4}}]}", "all endpoints in shop; ingress allow 0.0.0.0/0: ICMP/3/4"},
		{np, "{ingress: [{action: Allow, protocol: ICMPv6, notICMP: {type: 128}}]}", "all endpoints in shop; ingress allow ::/0: ICMPv6/0-127,129-255"},
		{np, "{ingress: [{action: Allow, protocol: TCP, http: {methods: [GET], paths: [{exact: /a}, {prefix: /b}]}}]}", "all endpoints in shop; ingress allow anyone: TCP where it asks for HTTP GET, /a, /b..."},
		{np, "{ingress: [{action: Allow, http: {headers: [{header: x, operator: In, values: [a]}]}}]}", "all endpoints in shop; ingress allow anyone: TCP where it asks for HTTP header x In a"},
	} {
		for _, group := range []string{"projectcalico.org/v3", "crd.projectcalico.org/v1"} {
			text := strings.Replace(calicoObject(row.kind, "p", row.spec), "projectcalico.org/v3", group, 1)
			m := read(t, text)
			got := describeCalico(m.Policies[0])
			if got != row.want {
				t.Errorf("%s %s\n got %s\nwant %s", row.kind, row.spec, got, row.want)
			}
			if g := m.Policies[0].Ref.Group; g != policies.CalicoGroup {
				t.Errorf("%s: the group is %q", row.spec, g)
			}
		}
	}
}

func TestCalicoServices(t *testing.T) {
	const world = `apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {selector: {app: db}, ports: [{port: 5432}, {port: 80, targetPort: 8080}, {port: 53, protocol: UDP, targetPort: dns}]}
---
apiVersion: v1
kind: Service
metadata: {name: out, namespace: shop}
spec: {type: ExternalName, externalName: example.com}
---
`
	for _, row := range []struct{ rules, want string }{
		{"egress: [{action: Allow, destination: {services: {name: db}}}]", "egress allow Service shop/db: TCP/5432,8080 UDP/dns"},
		{"egress: [{action: Allow, protocol: UDP, destination: {services: {name: db}}}]", "egress allow Service shop/db: none UDP/dns"},
		{"egress: [{action: Allow, ipVersion: 4, destination: {services: {name: db, namespace: shop}}}]", "egress allow Service shop/db among 0.0.0.0/0: TCP/5432,8080 UDP/dns"},
		{"egress: [{action: Allow, destination: {services: {name: db, namespace: bank}}}]", "egress allow Service bank/db: any"},
		{"ingress: [{action: Allow, protocol: TCP, source: {services: {name: db}}, destination: {ports: [9]}}]", "ingress allow Service shop/db: TCP/9"},
		{"egress: [{action: Allow, destination: {services: {name: out}}}]", "egress allow anyone: any where whom Service shop/out stands for is not known: it is an alias of example.com"},
	} {
		m := read(t, world+calicoObject("NetworkPolicy", "p", "{"+row.rules+"}"))
		if got, want := describeCalico(m.Policies[0]), "all endpoints in shop; "+row.want; got != want {
			t.Errorf("%s\n got %s\nwant %s", row.rules, got, want)
		}
	}
}

// describeTiers prints tiers and the policies in each, in order.
func describeTiers(m *policies.Model) string {
	var text []string
	for _, tier := range m.Tiers {
		line := tier.Name
		if tier.End == policies.ActionDeny {
			line += "!"
		}
		for _, p := range m.Policies {
			if p.Tier == tier.Name {
				line += fmt.Sprintf(" %s/%s", strings.ReplaceAll(p.Ref.What(), " ", ""), p.Ref)
			}
		}
		text = append(text, line)
	}
	return strings.Join(text, ", ")
}

func TestCalicoTiers(t *testing.T) {
	const (
		np     = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: k, namespace: shop}\n---\n"
		cnp    = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c}\nspec: {tier: Baseline, priority: 5, subject: {namespaces: {}}}\n---\n"
		anp    = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: a}\nspec: {priority: 5, subject: {namespaces: {}}}\n---\n"
		banp   = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: default}\nspec: {subject: {namespaces: {}}}\n---\n"
		hostEP = "{node: n1, interfaceName: '*'}"
	)
	tierObject := func(name, spec string) string { return calicoObject("Tier", name, spec) }
	gnp := func(name, spec string) string { return calicoObject("GlobalNetworkPolicy", name, spec) }
	for _, row := range []struct{ what, version, text, want string }{
		{"the fixed ones", "", tierObject("x", "{order: 1}"), "x!, kube-admin, default!, kube-baseline"},
		{"the fixed ones of 3.31", "3.31", tierObject("x", "{order: 1}"), "x!, adminnetworkpolicy, default!, baselineadminnetworkpolicy"},
		{"order ascending, none last, ties by name", "", tierObject("z", "{order: 5}") + tierObject("b", "{}") + tierObject("a", "{}") + tierObject("c", "{order: 5}"), "c!, z!, kube-admin, default!, kube-baseline, a!, b!"},
		{"fractions and negative orders", "", tierObject("a", "{order: 2.5}") + tierObject("b", "{order: -1}"), "b!, a!, kube-admin, default!, kube-baseline"},
		{"a default action", "", tierObject("x", "{order: 1, defaultAction: Pass}") + tierObject("yy", "{order: 2, defaultAction: Deny}"), "x, yy!, kube-admin, default!, kube-baseline"},
		{"a missing tier comes last and denies", "", tierObject("a", "{}") + gnp("p", "{tier: gone}") + gnp("q", "{tier: away}"), "kube-admin, default!, kube-baseline, a!, away! GlobalNetworkPolicy/q, gone! GlobalNetworkPolicy/p"},
		{"the fixed ones may be given", "", tierObject("default", "{order: 1000000, defaultAction: Deny}") + tierObject("kube-admin", "{order: 1000}"), "kube-admin, default!, kube-baseline"},

		{"policies by order, none last", "", gnp("a", "{}") + gnp("b", "{order: 2}") + gnp("c", "{order: 1}"), "kube-admin, default! GlobalNetworkPolicy/c GlobalNetworkPolicy/b GlobalNetworkPolicy/a, kube-baseline"},
		{"a tie by name", "", gnp("b", "{order: 1}") + gnp("a", "{order: 1}"), "kube-admin, default! GlobalNetworkPolicy/a GlobalNetworkPolicy/b, kube-baseline"},
		{"then by namespace, then by kind", "", gnp("a", "{}") + calicoObject("NetworkPolicy", "a", "{}"), "kube-admin, default! GlobalNetworkPolicy/a CalicoNetworkPolicy/shop/a, kube-baseline"},
		{"a NetworkPolicy of Kubernetes has order 1000", "", gnp("a", "{order: 999}") + gnp("b", "{order: 1001}") + gnp("z", "{}") + np, "kube-admin, default! GlobalNetworkPolicy/a NetworkPolicy/shop/k GlobalNetworkPolicy/b GlobalNetworkPolicy/z, kube-baseline"},
		{"its name in a tie", "3.32", gnp("kk", "{order: 1000}") + gnp("a", "{order: 1000}") + np, "kube-admin, default! GlobalNetworkPolicy/a NetworkPolicy/shop/k GlobalNetworkPolicy/kk, kube-baseline"},
		{"its name in a tie, before 3.32", "3.31", gnp("kk", "{order: 1000}") + gnp("l", "{order: 1000}") + np, "adminnetworkpolicy, default! GlobalNetworkPolicy/kk NetworkPolicy/shop/k GlobalNetworkPolicy/l, baselineadminnetworkpolicy"},
		{"names of 3.29 have the prefix of the tier", "3.29", gnp("z", "{order: 1}") + gnp("default.a", "{order: 1}"), "adminnetworkpolicy, default! GlobalNetworkPolicy/default.a GlobalNetworkPolicy/z, baselineadminnetworkpolicy"},
		{"names of 3.30 are as they are", "3.30", gnp("a", "{order: 1}") + gnp("default.a", "{order: 1}"), "adminnetworkpolicy, default! GlobalNetworkPolicy/a GlobalNetworkPolicy/default.a, baselineadminnetworkpolicy"},
		{"the cluster-wide kinds", "", cnp + anp + banp + gnp("a", "{}"), "kube-admin AdminNetworkPolicy/a, default! GlobalNetworkPolicy/a, kube-baseline BaselineAdminNetworkPolicy/default ClusterNetworkPolicy/c"},
		{"the cluster-wide kinds before 3.32", "3.30", cnp + anp + banp + gnp("a", "{}"), "adminnetworkpolicy AdminNetworkPolicy/a, default! GlobalNetworkPolicy/a, baselineadminnetworkpolicy BaselineAdminNetworkPolicy/default ClusterNetworkPolicy/c"},

		{
			"untracked, then preDNAT, then the others", "",
			tierObject("x", "{order: 1}") + gnp("a", "{}") + gnp("b", "{applyOnForward: true, doNotTrack: true}") + gnp("c", "{applyOnForward: true, preDNAT: true}") + gnp("d", "{tier: x, applyOnForward: true, doNotTrack: true}"),
			"x (untracked) GlobalNetworkPolicy/d, default (untracked) GlobalNetworkPolicy/b, default (preDNAT) GlobalNetworkPolicy/c, x!, kube-admin, default! GlobalNetworkPolicy/a, kube-baseline",
		},
		{
			"host endpoints", "", calicoObject("HostEndpoint", "h", hostEP),
			"failsafe HostEndpoint/h, kube-admin, default!, kube-baseline, profile! HostEndpoint/h",
		},
		{
			"tiers with the names of those of host endpoints", "", tierObject("profile", "{order: 1}") + tierObject("failsafe", "{}") + calicoObject("HostEndpoint", "h", hostEP),
			"failsafe (host endpoints) HostEndpoint/h, profile!, kube-admin, default!, kube-baseline, failsafe!, profile (host endpoints)! HostEndpoint/h",
		},
	} {
		m := readWith(t, row.text, Options{CalicoVersion: row.version})
		if got := describeTiers(m); got != row.want {
			t.Errorf("%s:\n got %s\nwant %s", row.what, got, row.want)
		}
		for _, tier := range m.Tiers {
			if !tier.SparesOwnNode || !tier.Undefined.IsEmpty() {
				t.Errorf("%s: tier %s does not spare the own node, or has something undefined", row.what, tier.Name)
			}
		}
	}
}

// Every policy of a tier has a rank of its own, so that none tie.
func TestCalicoRanks(t *testing.T) {
	text := ""
	for _, name := range []string{"c", "a", "b"} {
		text += calicoObject("GlobalNetworkPolicy", name, "{order: 3}") + calicoObject("StagedGlobalNetworkPolicy", name, "{order: 3}")
	}
	m := read(t, text+calicoObject("StagedGlobalNetworkPolicy", "aa", "{order: 3}"))
	got := map[string]int{}
	for _, p := range m.Policies {
		got[p.Ref.Name] = p.Priority
	}
	for _, s := range m.Staged {
		got["staged "+s.Ref.Name] = s.Policy.Priority
	}
	want := map[string]int{"a": 0, "b": 2, "c": 3, "staged a": 0, "staged aa": 1, "staged b": 2, "staged c": 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestCalicoWarnings(t *testing.T) {
	const kubernetes = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: a}\nspec: {priority: 5, subject: {namespaces: {}}}\n---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c}\nspec: {tier: Admin, priority: 5, subject: {namespaces: {}}}\n---\n"
	for _, row := range []struct{ version, text, want string }{
		{"", calicoObject("GlobalNetworkPolicy", "p", "{tier: gone}"), "[a.yaml:1:1: tier gone of GlobalNetworkPolicy p is not in the input: it is taken for one that comes last and denies what no rule of it matches; add the Tier]"},
		{"", calicoObject("StagedGlobalNetworkPolicy", "p", "{tier: gone}"), "[a.yaml:1:1: tier gone of StagedGlobalNetworkPolicy p is not in the input: it is taken for one that comes last and denies what no rule of it matches; add the Tier]"},
		{"3.32", kubernetes + calicoObject("Tier", "x", "{}"), "[a.yaml:1:1: Calico 3.32 does not enforce AdminNetworkPolicy a, and answers take it for enforced; write a ClusterNetworkPolicy]"},
		{"3.31", kubernetes + calicoObject("Tier", "x", "{}"), "[a.yaml:6:1: Calico 3.31 does not enforce ClusterNetworkPolicy c; answers take it for enforced]"},
		{"3.32", kubernetes, "[]"},
		{"", calicoObject("StagedNetworkPolicy", "p", "{stagedAction: Learn}"), "[a.yaml:1:1: StagedNetworkPolicy shop/p is left out: with stagedAction Learn it proposes nothing]"},
		{"", calicoObject("Profile", "kns.shop", "{ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.a: b}}"), "[]"},
		{"", calicoObject("Profile", "kns.shop", "{ingress: [{action: Allow}]}"), "[a.yaml:1:1: Profile kns.shop is made by Calico for its pods; other rules in it have no effect on them]"},
		{"", calicoObject("Profile", "ksa.shop.web", "{labelsToApply: {pcsa.a: b}}"), "[]"},
		{"", calicoObject("HostEndpoint", "h", "{node: n1, interfaceName: eth0, profiles: [gone]}"), "[a.yaml:4:50: Profile gone is not in the input: what comes to it is denied; add the Profile]"},
		{"", calicoObject("NetworkPolicy", "p", "{egress: [{action: Deny, destination: {services: {name: gone}}}]}"), "[a.yaml:4:45: Service shop/gone is not in the input, so the rule matches nothing; add the Service or correct its name]"},
		{"", calicoObject("FelixConfiguration", "default", "{failsafeInboundHostPorts: [], defaultEndpointToHostAction: Drop}"), "[a.yaml:4:34: FelixConfiguration default sets failsafeInboundHostPorts: answers about host endpoints take Felix's default ones a.yaml:4:67: FelixConfiguration default sets defaultEndpointToHostAction to Drop: answers take it for Accept, that pods reach their own node]"},
		{"", calicoObject("FelixConfiguration", "default", "{bpfEnabled: true, defaultEndpointToHostAction: ACCEPT}"), "[]"},
		{"", "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p}\n", "[a.yaml:1:1: Calico NetworkPolicy default/p has no spec: it denies all ingress to everything in its scope]"},
	} {
		if got := fmt.Sprint(readWith(t, row.text, Options{CalicoVersion: row.version}).Warnings); got != row.want {
			t.Errorf("%s\n got %s\nwant %s", row.text, got, row.want)
		}
	}
}

func TestStaged(t *testing.T) {
	for _, row := range []struct{ kind, spec, want string }{
		{"StagedNetworkPolicy", "{selector: has(a)}", "StagedNetworkPolicy shop/p sets Calico NetworkPolicy shop/p in default: endpoints has(a) in shop; ingress none"},
		{"StagedNetworkPolicy", "{stagedAction: Set, tier: x, types: [Egress]}", "StagedNetworkPolicy shop/p sets Calico NetworkPolicy shop/p in x: all endpoints in shop; egress none"},
		{"StagedNetworkPolicy", "{stagedAction: Delete, tier: x}", "StagedNetworkPolicy shop/p deletes Calico NetworkPolicy shop/p in x"},
		{"StagedNetworkPolicy", "{stagedAction: Delete, selector: '', ingress: []}", "StagedNetworkPolicy shop/p deletes Calico NetworkPolicy shop/p in default"},
		{"StagedGlobalNetworkPolicy", "{applyOnForward: true, preDNAT: true}", "StagedGlobalNetworkPolicy p sets GlobalNetworkPolicy p in default (preDNAT): all endpoints in no namespace forwarded; ingress none"},
		{"StagedGlobalNetworkPolicy", "{stagedAction: Delete}", "StagedGlobalNetworkPolicy p deletes GlobalNetworkPolicy p in default"},
		{"StagedKubernetesNetworkPolicy", "{podSelector: {matchLabels: {a: b}}, policyTypes: [Egress]}", "StagedKubernetesNetworkPolicy shop/p sets NetworkPolicy shop/p in default: pods a=b in shop; egress none"},
		{"StagedKubernetesNetworkPolicy", "{stagedAction: Delete}", "StagedKubernetesNetworkPolicy shop/p deletes NetworkPolicy shop/p in default"},
		{"StagedNetworkPolicy", "{stagedAction: Ignore}", ""},
		{"StagedKubernetesNetworkPolicy", "{stagedAction: Learn, podSelector: {}}", ""},
	} {
		m := read(t, calicoObject(row.kind, "p", row.spec))
		if len(m.Policies) > 0 {
			t.Errorf("%s: it is enforced", row.spec)
		}
		var got []string
		for _, s := range m.Staged {
			what := s.Policy.Ref.What() + " " + s.Policy.Ref.String() + " in " + s.Policy.Tier
			if s.Deletes {
				got = append(got, s.Ref.What()+" "+s.Ref.String()+" deletes "+what)
				if diff := cmp.Diff(policies.Policy{Ref: s.Policy.Ref, Tier: s.Policy.Tier, Place: s.Policy.Place}, s.Policy, equateValues); diff != "" {
					t.Error(diff)
				}
				continue
			}
			got = append(got, s.Ref.What()+" "+s.Ref.String()+" sets "+what+": "+describeCalico(s.Policy))
		}
		if text := strings.Join(got, "; "); text != row.want {
			t.Errorf("%s %s\n got %s\nwant %s", row.kind, row.spec, text, row.want)
		}
	}
}

func TestNetworkSets(t *testing.T) {
	m := read(t, `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: bad, labels: {role: bad}}
spec: {nets: [10.1.2.3, 2001:db8::/32, 192.0.2.0/24, 10.1.2.3/32], allowedEgressDomains: ['*.example.com']}
---
apiVersion: crd.projectcalico.org/v1
kind: NetworkSet
metadata:
  name: own
  namespace: shop
  labels: {projectcalico.org/x: a, other: b}
  annotations: {projectcalico.org/metadata: '{"labels":{"role":"own"},"creationTimestamp":null}'}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop, labels: {role: web}}
`)
	var got []string
	for _, s := range m.Sets {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
			labels = append(labels, key+"="+s.Labels[key])
		}
		got = append(got, fmt.Sprint(s.Ref.Kind, " ", s.Ref, labels, s.Nets, s.Domains, s.Place))
	}
	want := []string{
		"GlobalNetworkSet bad [role=bad] [10.1.2.3/32 192.0.2.0/24 2001:db8::/32] [*.example.com] a.yaml:2:1",
		"NetworkSet shop/own [projectcalico.org/x=a role=own] [] [] a.yaml:7:1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if a := m.Accounts[0]; a.Ref.String() != "shop/web" || a.Labels["role"] != "web" {
		t.Errorf("got %+v", a)
	}
}

// A Node has the addresses that its host endpoints expect besides its own.
func TestNodesHaveExpectedAddresses(t *testing.T) {
	m := read(t, `
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: a}, spec: {node: n1, expectedIPs: [192.0.2.1, 192.0.2.2]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: b}, spec: {node: n1, interfaceName: eth1, expectedIPs: [192.0.2.3]}}
`)
	if n := m.Nodes; len(n) != 1 || n[0].Implied || fmt.Sprint(n[0].Addresses) != "[192.0.2.1 192.0.2.2 192.0.2.3]" {
		t.Errorf("got %+v", n)
	}
}

func TestHostEndpoints(t *testing.T) {
	m := read(t, `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: h, labels: {own: h, both: h}}
spec: {node: n1, expectedIPs: [192.0.2.1, "2001:db8::1"], profiles: [a, b, gone], ports: [{name: http, protocol: TCP, port: 80}]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: a}
spec: {labelsToApply: {both: a, shared: a}, ingress: [{action: Pass}]}
---
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: b}
spec: {labelsToApply: {shared: b, last: b}, egress: [{action: Log}, {action: Allow, protocol: TCP}]}
`)
	h := m.Hosts[0]
	if got, want := fmt.Sprint(h.Node, h.Interface, h.Addresses, h.Labels, h.Ports), "n1[192.0.2.1 2001:db8::1] map[both:h last:b own:h shared:a] [{http TCP 80}]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if n := m.Nodes[0]; !n.Implied || fmt.Sprint(n.Name, n.Addresses) != "n1[192.0.2.1 2001:db8::1]" {
		t.Errorf("got %+v", n)
	}
	var got []string
	for _, p := range m.Policies {
		got = append(got, p.Tier+": "+describeCalico(p))
	}
	want := []string{
		"failsafe: HostEndpoint h; egress allow anyone: TCP/179,2379-2380,5473,6443,6666-6667 UDP/53,67 named failsafe ports; ingress allow anyone: TCP/22,179,2379-2380,5473,6443,6666-6667 UDP/68 named failsafe ports",
		"profile: HostEndpoint h; egress log anyone: any named b; egress allow anyone: TCP named b; egress deny anyone: any named gone (missing); ingress deny anyone: any named a; ingress deny anyone: any named gone (missing)",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestDefaultAllowProfile(t *testing.T) {
	m := read(t, calicoObject("HostEndpoint", "h", "{node: n1, interfaceName: '*', profiles: [projectcalico-default-allow]}"))
	want := "HostEndpoint h; egress allow anyone: any named projectcalico-default-allow; ingress allow anyone: any named projectcalico-default-allow"
	if got := describeCalico(m.Policies[1]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestCalicoObjectsGivenTwice(t *testing.T) {
	stored := func(text string) string {
		return strings.Replace(text, "projectcalico.org/v3", "crd.projectcalico.org/v1", 1)
	}
	np := calicoObject("NetworkPolicy", "p", "{}")
	gnp := calicoObject("GlobalNetworkPolicy", "p", "{}")
	long := calicoObject("GlobalNetworkPolicy", "default.p", "{}")
	for _, row := range []struct{ version, text, want string }{
		{"", np + stored(np), "a.yaml:6:1: Calico NetworkPolicy shop/p is given twice, first at a.yaml:1:1; remove one"},
		{"", gnp + long, ""},
		{"3.29", gnp + stored(long), "a.yaml:6:1: GlobalNetworkPolicy default.p is given twice, first at a.yaml:1:1; remove one"},
		{"", np + "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\n", ""},
	} {
		_, err := Read(mustParse(t, "a.yaml", row.text), Options{CalicoVersion: row.version})
		if got := fmt.Sprint(err); got != row.want && (err != nil || row.want != "") {
			t.Errorf("got %v, want %s", err, row.want)
		}
	}
}

func TestCalicoNames(t *testing.T) {
	for _, row := range []struct{ version, kind, name, tier, want string }{
		{"3.32", "GlobalNetworkPolicy", "a", "x", ""},
		{"3.32", "GlobalNetworkPolicy", "x.a", "x", ""},
		{"3.31", "GlobalNetworkPolicy", "a", "default", ""},
		{"3.31", "GlobalNetworkPolicy", "x.a", "x", ""},
		{"3.31", "GlobalNetworkPolicy", "a", "x", `name "a" lacks the prefix that Calico 3.31 wants of the policies of tier x; call it "x.a"`},
		{"3.30", "StagedNetworkPolicy", "y.a", "x", `name "y.a" lacks the prefix that Calico 3.30 wants of the policies of tier x; call it "x.y.a"`},
		{"3.29", "GlobalNetworkPolicy", "y.a", "default", `name "y.a" has the prefix of another tier than its own, default; call it "default.a"`},
		{"3.29", "NetworkPolicy", "knp.default.a.b", "default", ""},
		{"3.32", "NetworkPolicy", "ossg.default.a.b", "default", ""},
		{"3.32", "NetworkPolicy", "a.b.c", "default", `name "a.b.c" is not valid`},
		{"3.32", "GlobalNetworkPolicy", "knp.default.a", "default", `name "knp.default.a" is not valid`},
	} {
		text := calicoObject("Tier", "x", "{}") + calicoObject(row.kind, row.name, "{tier: "+row.tier+"}")
		_, err := Read(mustParse(t, "a.yaml", text), Options{CalicoVersion: row.version})
		if got := fmt.Sprint(err); row.want == "" && err != nil || !strings.Contains(got, row.want) {
			t.Errorf("%s %s %s: got %v, want %s", row.version, row.name, row.tier, err, row.want)
		}
	}
}

// What of a namespaceSelector an endpoint's own label answers is told by the
// world, wherever that comes from; labels that are Calico's own are no pod's.
func TestWithWorldOfOwnLabels(t *testing.T) {
	first := read(t, calicoObject("GlobalNetworkPolicy", "p", "{namespaceSelector: team == 'own'}"))
	second := read(t, "apiVersion: v1\nkind: Pod\nmetadata: {name: x, namespace: a, labels: {pcns.team: own, projectcalico.org/namespace: b}}\nspec: {containers: [{name: main}]}\n")
	m := WithWorldOf(first, second)
	s, label := m.Policies[0].Subject, m.Inherited()
	if sure, _ := s.Inherited.Test(func(key string) (string, bool, bool) { return label(&m.Pods[0], key) }); !sure {
		t.Errorf("%s does not select the pod by %s", s, s.Inherited)
	}
	if value, _, _ := label(&m.Pods[0], policies.CalicoNamespace); value != "a" {
		t.Errorf("the pod is of namespace %s", value)
	}
	if len(second.Pods[0].Labels) != 2 {
		t.Errorf("the second model's pod has now %v", second.Pods[0].Labels)
	}
}

func TestWithWorldOfCalico(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: shop}\nspec: {selector: {app: db}, ports: [{port: 5432}]}\n---\n"
	first := read(t, calicoObject("GlobalNetworkPolicy", "p", "{tier: x, egress: [{action: Allow, destination: {services: {name: db, namespace: shop}}}]}")+
		calicoObject("StagedGlobalNetworkPolicy", "s", "{tier: gone}")+calicoObject("HostEndpoint", "old", "{node: n1, interfaceName: '*'}"))
	second := read(t, service+calicoObject("Tier", "x", "{order: 3}")+calicoObject("GlobalNetworkPolicy", "other", "{}")+calicoObject("HostEndpoint", "h", "{node: n1, interfaceName: '*'}"))
	m := WithWorldOf(first, second)
	if got, want := describeTiers(m), "failsafe HostEndpoint/h, x! GlobalNetworkPolicy/p, kube-admin, default!, kube-baseline, gone!, profile! HostEndpoint/h"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := describeCalico(m.Policies[0]), "all endpoints; egress allow Service shop/db: TCP/5432"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, p := range first.Policies {
		if p.Ref.Name == "p" && p.Rules[policies.Egress][0].Ports.String() != "any" {
			t.Errorf("the first model has now %s", describeCalico(p))
		}
	}
	if len(m.Warnings) != 1 || !strings.HasPrefix(m.Warnings[0].Message, "tier gone of StagedGlobalNetworkPolicy s") || len(m.Staged) != 1 {
		t.Errorf("got %v and %d staged", m.Warnings, len(m.Staged))
	}
}
