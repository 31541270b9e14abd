package reach_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"pgregory.net/rapid"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// calicoBase is who takes part in the rows of TestCalicoRules.
const calicoBase = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: sales}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: platform}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: robot, namespace: ops, labels: {trust: high}}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: ops}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: default, namespace: shop}}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.0.1}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {nodeName: n1, containers: [{name: main, ports: [{name: sql, containerPort: 5432}]}]}
status: {phase: Running, podIP: 10.0.0.2}
---
apiVersion: v1
kind: Pod
metadata: {name: agent, namespace: ops, labels: {app: web, pcns.team: own, projectcalico.org/namespace: shop}}
spec: {nodeName: n2, serviceAccountName: robot, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.1.1}
---
apiVersion: v1
kind: Pod
metadata: {name: shell, namespace: ops}
spec: {nodeName: n2, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.1.2}
---
apiVersion: v1
kind: Pod
metadata: {name: claimer, namespace: ops, labels: {app: claim, pcns.projectcalico.org/name: shop, pcsa.trust: own}}
spec: {nodeName: n2, serviceAccountName: robot, containers: [{name: main}]}
status: {phase: Running, podIP: 10.0.1.3}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 172.18.0.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: sql, namespace: shop}, spec: {selector: {app: db}, ports: [{port: 80, protocol: TCP, targetPort: sql}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: partners, labels: {app: web}}, spec: {nets: [203.0.113.0/24]}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: printers, namespace: ops, labels: {app: print, pcns.env: own}}, spec: {nets: [198.51.100.0/24]}}
`

// The two ends of addresses in rows: one of a global network set, one of a
// network set in ops, and one of neither.
const partner, printer, stranger = "203.0.113.9", "198.51.100.9", "192.0.2.9"

// The short forms of objects in rows.
func np(name, spec string) string   { return calicoDocument("NetworkPolicy", name, spec) }
func gnp(name, spec string) string  { return calicoDocument("GlobalNetworkPolicy", name, spec) }
func tier(name, spec string) string { return calicoDocument("Tier", name, spec) }

// globalSet is one with a label, of the stranger's addresses.
func globalSet(label string) string {
	return "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: own, labels: {" + label + "}}, spec: {nets: [192.0.2.0/24]}}\n"
}

// calicoDocument is an object of Calico's, in the namespace before the slash.
func calicoDocument(kind, name, spec string) string {
	meta := "name: " + name
	if namespace, name, ok := strings.Cut(name, "/"); ok {
		meta = "namespace: " + namespace + ", name: " + name
	}
	return fmt.Sprintf("---\n{apiVersion: projectcalico.org/v3, kind: %s, metadata: {%s}, spec: {%s}}\n", kind, meta, spec)
}

func kubernetesNP(name, spec string) string {
	return strings.Replace(np(name, spec), "projectcalico.org/v3", "networking.k8s.io/v1", 1)
}

func clusterNP(name, spec string) string {
	return strings.Replace(calicoDocument("ClusterNetworkPolicy", name, spec), "projectcalico.org/v3", "policy.networking.k8s.io/v1alpha2", 1)
}

// calicoRow is a fact: with these policies, this connection meets this verdict,
// and this decides it.
type calicoRow struct {
	name     string
	world    string
	from, to string
	port     string // TCP/80 where it is empty
	want     policies.Verdict
	// by is the tier, the policy and the rule that decide, "default shop/db 0", or
	// for a tier's end only the tier and the policy; of the side that denies, or
	// else of ingress. It is empty where no policy has a say.
	by string
}

const allowed, denied = policies.Allow, policies.Deny

// allowAll, denyAll, passAll are rules; both ways they make a policy do so with
// all that comes in.
const (
	allowAll = "ingress: [{action: Allow}]"
	denyAll  = "ingress: [{action: Deny}]"
	passAll  = "ingress: [{action: Pass}]"
)

// admits is a policy for the database that lets in what one source describes.
func admits(source string) string {
	return np("shop/p", "selector: app == 'db', ingress: [{action: Allow, source: {"+source+"}}]")
}

// admitsGlobally is the same as a global policy.
func admitsGlobally(source string) string {
	return gnp("p", "selector: app == 'db', ingress: [{action: Allow, source: {"+source+"}}]")
}

const (
	byRule       = "default shop/p 0"
	byEnd        = "default shop/p"
	byGlobalRule = "default p 0"
	byGlobalEnd  = "default p"
)

// Section 4: how selectors are scoped.
var scopeRows = []calicoRow{
	{"a namespaceSelector looks at labels of namespaces", admits("namespaceSelector: team == 'platform'"), "ops/shell", "shop/db", "", allowed, byRule},
	{"not at those of pods", admits("namespaceSelector: app == 'web'"), "shop/web", "shop/db", "", denied, byEnd},
	{"a pod's own label comes before that of its namespace", admitsGlobally("selector: pcns.team == 'own'"), "ops/agent", "shop/db", "", allowed, byGlobalRule},
	{"also in a namespaceSelector", admitsGlobally("namespaceSelector: team == 'own'"), "ops/agent", "shop/db", "", allowed, byGlobalRule},
	{"so that its namespace's counts no more", admitsGlobally("namespaceSelector: team == 'platform'"), "ops/agent", "shop/db", "", denied, byGlobalEnd},
	{"but for the pod alone", admitsGlobally("namespaceSelector: team == 'platform'"), "ops/shell", "shop/db", "", allowed, byGlobalRule},
	{"even where it claims the name of another", admits("namespaceSelector: projectcalico.org/name == 'shop'"), "ops/claimer", "shop/db", "", allowed, byRule},
	{"in one of the two words for it", admits("namespaceSelector: kubernetes.io/metadata.name == 'shop'"), "ops/claimer", "shop/db", "", denied, byEnd},
	{"a policy without namespaceSelector keeps to its namespace", admits("selector: app == 'claim'"), "ops/claimer", "shop/db", "", denied, byEnd},
	{"a pod labels itself out of a global policy", gnp("p", "namespaceSelector: team == 'platform'"), "shop/web", "ops/agent", "", allowed, ""},
	{"and leaves those beside it in", gnp("p", "namespaceSelector: team == 'platform'"), "shop/web", "ops/shell", "", denied, byGlobalEnd},
	{"a pod labels itself into one", gnp("p", "namespaceSelector: team == 'own', "+denyAll), "shop/web", "ops/agent", "", denied, byGlobalRule},
	{"a global network set labels itself into a namespaceSelector", globalSet("pcns.team: own") + admits("namespaceSelector: team == 'own'"), stranger, "shop/db", "", allowed, byRule},
	{"but is in no namespace for all()", globalSet("pcns.team: own") + admits("namespaceSelector: all()"), stranger, "shop/db", "", denied, byEnd},
	{"a network set has its own label first", admits("namespaceSelector: env == 'own'"), printer, "shop/db", "", allowed, byRule},
	{"a pod's own label comes before that of its service account", admits("namespaceSelector: all(), serviceAccounts: {selector: trust == 'own'}"), "ops/claimer", "shop/db", "", allowed, byRule},
	{"also in a serviceAccountSelector", gnp("p", "serviceAccountSelector: trust == 'high', "+denyAll), "shop/web", "ops/claimer", "", allowed, ""},
	{"all() are the pods of every namespace", admits("namespaceSelector: all()"), "ops/shell", "shop/db", "", allowed, byRule},
	{"all() are the network sets of every namespace", admits("namespaceSelector: all()"), printer, "shop/db", "", allowed, byRule},
	{"all() are no global network sets", admits("namespaceSelector: all()"), partner, "shop/db", "", denied, byEnd},
	{"all() are no addresses of nobody", admits("namespaceSelector: all()"), stranger, "shop/db", "", denied, byEnd},
	{"global() are global network sets", admits("namespaceSelector: global()"), partner, "shop/db", "", allowed, byRule},
	{"global() are no pods", admits("namespaceSelector: global()"), "shop/web", "shop/db", "", denied, byEnd},
	{"global() are no addresses of nobody", admits("namespaceSelector: global()"), stranger, "shop/db", "", denied, byEnd},
	{"global() narrows a selector", admits("namespaceSelector: global(), selector: app == 'db'"), partner, "shop/db", "", denied, byEnd},
	{"a namespace lacks the label that a global network set lacks", admits("namespaceSelector: '!has(team)'"), partner, "shop/db", "", allowed, byRule},
	{"a namespace by its name", admits("namespaceSelector: projectcalico.org/name == 'ops'"), "ops/shell", "shop/db", "", allowed, byRule},
	{"a network set has the labels of its namespace", admits("namespaceSelector: team == 'platform', selector: all()"), printer, "shop/db", "", allowed, byRule},
	{"service accounts by label", admits("namespaceSelector: all(), serviceAccounts: {selector: trust == 'high'}"), "ops/agent", "shop/db", "", allowed, byRule},
	{"service accounts by label, another", admits("namespaceSelector: all(), serviceAccounts: {selector: trust == 'high'}"), "ops/shell", "shop/db", "", denied, byEnd},
	{"service accounts by name", admits("namespaceSelector: all(), serviceAccounts: {names: [robot, other]}"), "ops/agent", "shop/db", "", allowed, byRule},
	{"service accounts by name, another", admits("namespaceSelector: all(), serviceAccounts: {names: [robot]}"), "ops/shell", "shop/db", "", denied, byEnd},
	{"service accounts by name and label", admits("namespaceSelector: all(), serviceAccounts: {names: [robot], selector: '!has(trust)'}"), "ops/agent", "shop/db", "", denied, byEnd},
	{"service accounts of the policy's namespace", admits("serviceAccounts: {names: [default]}"), "shop/web", "shop/db", "", allowed, byRule},
	{"service accounts of no other namespace", admits("serviceAccounts: {names: [default]}"), "ops/shell", "shop/db", "", denied, byEnd},
	{"a selector means the policy's namespace", admits("selector: app == 'web'"), "shop/web", "shop/db", "", allowed, byRule},
	{"a selector means no other namespace", admits("selector: app == 'web'"), "ops/agent", "shop/db", "", denied, byEnd},
	{"a selector of a global policy means every namespace", admitsGlobally("selector: app == 'web'"), "ops/agent", "shop/db", "", allowed, byGlobalRule},
	{"a selector of a global policy means global network sets", admitsGlobally("selector: app == 'web'"), partner, "shop/db", "", allowed, byGlobalRule},
	{"a notSelector alone keeps to the namespace", admits("notSelector: app == 'db'"), "ops/shell", "shop/db", "", denied, byEnd},
	{"a notSelector alone, in the namespace", admits("notSelector: app == 'db'"), "shop/web", "shop/db", "", allowed, byRule},
	{"a notSelector itself is of every namespace", admits("namespaceSelector: all(), notSelector: app == 'web'"), "ops/agent", "shop/db", "", denied, byEnd},
	{"no selector means every address", admits(""), stranger, "shop/db", "", allowed, byRule},
	{"no selector means every pod", admits("nets: [10.0.1.0/24]"), "ops/shell", "shop/db", "", allowed, byRule},
	{"selector !has(x) means known things only", admitsGlobally("selector: '!has(app)'"), stranger, "shop/db", "", denied, byGlobalEnd},
	{"selector !has(x) means those without x", admitsGlobally("selector: '!has(app)'"), "ops/shell", "shop/db", "", allowed, byGlobalRule},
	{"notSelector has(x) means addresses outside too", admitsGlobally("notSelector: has(app)"), stranger, "shop/db", "", allowed, byGlobalRule},
	{"notSelector has(x) means no network set with x", admitsGlobally("notSelector: has(app)"), partner, "shop/db", "", denied, byGlobalEnd},
	{"a pod has its namespace as a label", admitsGlobally("selector: projectcalico.org/namespace == 'ops'"), "ops/shell", "shop/db", "", allowed, byGlobalRule},
	{"a pod has its service account as a label", admitsGlobally("selector: projectcalico.org/serviceaccount == 'robot'"), "ops/agent", "shop/db", "", allowed, byGlobalRule},
	{"a pod is of Kubernetes", admitsGlobally("selector: projectcalico.org/orchestrator == 'k8s'"), "ops/agent", "shop/db", "", allowed, byGlobalRule},
	{"a pod cannot claim another namespace", admitsGlobally("selector: projectcalico.org/namespace == 'shop'"), "ops/agent", "shop/db", "", denied, byGlobalEnd},
	{"a network set is not", admitsGlobally("selector: projectcalico.org/orchestrator == 'k8s'"), partner, "shop/db", "", denied, byGlobalEnd},
	{"a policy selects in its namespace", np("ops/p", "selector: all(), "+denyAll), "shop/web", "shop/db", "", allowed, ""},
	{"a policy without selector selects all of its namespace", np("shop/p", denyAll), "shop/web", "shop/db", "", denied, byRule},
	{"a global policy without namespaceSelector selects in every namespace", gnp("p", "selector: app == 'db', "+denyAll), "shop/web", "shop/db", "", denied, byGlobalRule},
	{"a global policy of some namespaces", gnp("p", "namespaceSelector: team == 'platform', "+denyAll), "shop/web", "shop/db", "", allowed, ""},
	{"a global policy of all namespaces", gnp("p", "namespaceSelector: all(), "+denyAll), "shop/web", "shop/db", "", denied, byGlobalRule},
	{"a policy of some service accounts", gnp("p", "serviceAccountSelector: trust == 'high', "+denyAll), "shop/web", "ops/agent", "", denied, byGlobalRule},
	{"a policy of other service accounts", gnp("p", "serviceAccountSelector: trust == 'high', "+denyAll), "shop/web", "ops/shell", "", allowed, ""},
	{"a source Service means its pods", np("shop/p", "selector: app == 'web', ingress: [{action: Allow, source: {services: {name: sql}}}]"), "shop/db", "shop/web", "TCP/9", allowed, byRule},
	{"a destination Service means its pods on its ports", np("shop/p", "selector: app == 'web', egress: [{action: Allow, destination: {services: {name: sql}}}]"), "shop/web", "shop/db", "TCP/5432", allowed, ""},
	{"a destination Service means no other port", np("shop/p", "selector: app == 'web', egress: [{action: Allow, destination: {services: {name: sql}}}]"), "shop/web", "shop/db", "TCP/80", denied, byEnd},
}

// Section 5: the order of evaluation.
var orderRows = []calicoRow{
	{"no policy", "", "shop/web", "shop/db", "", allowed, ""},
	{"tiers go by their order", tier("late", "order: 20") + tier("early", "order: 10") + gnp("open", "tier: late, "+allowAll) + gnp("shut", "tier: early, "+denyAll), "shop/web", "shop/db", "", denied, "early shut 0"},
	{"a tier without order is the last", tier("late", "") + gnp("open", "tier: late, "+allowAll) + gnp("shut", "tier: default, "+denyAll), "shop/web", "shop/db", "", denied, "default shut 0"},
	{"tiers of one order go by name", tier("b", "order: 10") + tier("a", "order: 10") + gnp("open", "tier: b, "+allowAll) + gnp("shut", "tier: a, "+denyAll), "shop/web", "shop/db", "", denied, "a shut 0"},
	{"a tier that is missing is the last of all", tier("z", "") + gnp("open", "tier: gone, "+allowAll) + gnp("shut", "tier: z, "+denyAll), "shop/web", "shop/db", "", denied, "z shut 0"},
	{"a tier that is missing is evaluated", gnp("shut", "tier: gone, "+denyAll), "shop/web", "shop/db", "", denied, "gone shut 0"},
	{"a tier that is missing ends in deny", gnp("some", "tier: gone, ingress: [{action: Allow, protocol: UDP}]"), "shop/web", "shop/db", "", denied, "gone some"},
	{"a tier ends in deny", tier("first", "order: 1") + gnp("some", "tier: first, ingress: [{action: Allow, protocol: UDP}]"), "shop/web", "shop/db", "", denied, "first some"},
	{"a tier may pass at its end", tier("first", "order: 1, defaultAction: Pass") + gnp("some", "tier: first, ingress: [{action: Deny, protocol: UDP}]"), "shop/web", "shop/db", "", allowed, ""},
	{"a tier that selects nobody is skipped with its end", tier("first", "order: 1") + gnp("some", "tier: first, selector: app == 'x', "+denyAll), "shop/web", "shop/db", "", allowed, ""},
	{"a tier without policies is skipped", tier("first", "order: 1"), "shop/web", "shop/db", "", allowed, ""},
	{"a tier concerns the directions of its policies", tier("first", "order: 1") + gnp("some", "tier: first, selector: app == 'db', types: [Egress]"), "shop/web", "shop/db", "", allowed, ""},
	{"and those only", tier("first", "order: 1") + gnp("some", "tier: first, selector: app == 'db', types: [Egress]"), "shop/db", "shop/web", "", denied, "first some"},
	{"a policy without rules is for ingress", gnp("p", "selector: app == 'db'"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"and not for egress", gnp("p", "selector: app == 'db'"), "shop/db", "shop/web", "", allowed, ""},
	{"a policy with egress rules only is for egress", gnp("p", "selector: app == 'db', egress: [{action: Deny}]"), "shop/web", "shop/db", "", allowed, ""},
	{"rules of a direction that is not among the types are void", gnp("p", "selector: app == 'db', types: [Egress], "+denyAll+", egress: [{action: Allow}]"), "shop/web", "shop/db", "", allowed, ""},
	{"policies go by their order", gnp("a", "order: 20, "+allowAll) + gnp("b", "order: 10, "+denyAll), "shop/web", "shop/db", "", denied, "default b 0"},
	{"orders have fractions", gnp("a", "order: 10.5, "+allowAll) + gnp("b", "order: 10.25, "+denyAll), "shop/web", "shop/db", "", denied, "default b 0"},
	{"orders may be negative", gnp("a", "order: 0, "+allowAll) + gnp("b", "order: -1, "+denyAll), "shop/web", "shop/db", "", denied, "default b 0"},
	{"a policy without order is the last", gnp("a", allowAll) + gnp("b", "order: 1000000, "+denyAll), "shop/web", "shop/db", "", denied, "default b 0"},
	{"policies of one order go by name", gnp("b", "order: 10, "+allowAll) + gnp("a", "order: 10, "+denyAll), "shop/web", "shop/db", "", denied, "default a 0"},
	{"then by namespace", gnp("p", denyAll) + np("shop/p", allowAll), "shop/web", "shop/db", "", denied, "default p 0"},
	{"the name counts before the namespace", gnp("q", allowAll) + np("shop/p", denyAll), "shop/web", "shop/db", "", denied, byRule},
	{"the first rule that matches decides", gnp("p", "ingress: [{action: Allow, protocol: TCP}, {action: Deny}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"a rule that does not match decides nothing", gnp("p", "ingress: [{action: Allow, protocol: UDP}, {action: Deny}]"), "shop/web", "shop/db", "", denied, "default p 1"},
	{"allow is final", tier("first", "order: 1") + gnp("open", "tier: first, "+allowAll) + gnp("shut", denyAll), "shop/web", "shop/db", "", allowed, "first open 0"},
	{"deny is final", tier("first", "order: 1") + gnp("shut", "tier: first, "+denyAll) + gnp("open", allowAll), "shop/web", "shop/db", "", denied, "first shut 0"},
	{"pass leaves the tier", tier("first", "order: 1") + gnp("a", "tier: first, "+passAll) + gnp("b", "tier: first, "+denyAll) + gnp("open", allowAll), "shop/web", "shop/db", "", allowed, "default open 0"},
	{"pass out of the last tier comes to the profiles", gnp("p", passAll), "shop/web", "shop/db", "", allowed, ""},
	{"log goes on", gnp("p", "ingress: [{action: Log}, {action: Deny}]"), "shop/web", "shop/db", "", denied, "default p 1"},
	{"log allows nothing", gnp("p", "ingress: [{action: Log}]"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"egress counts as well", gnp("p", "selector: app == 'web', egress: [{action: Deny}]") + gnp("q", allowAll), "shop/web", "shop/db", "", denied, byGlobalRule},
	{"an allow at egress opens no ingress", gnp("p", "selector: app == 'web', egress: [{action: Allow}]") + gnp("q", "selector: app == 'db', "+denyAll), "shop/web", "shop/db", "", denied, "default q 0"},
	{"a pod's own node is always let in", gnp("p", denyAll), "node n1", "shop/db", "", allowed, ""},
	{"another node is not", gnp("p", denyAll), "node n2", "shop/db", "", denied, byGlobalRule},
	{"a pod to itself", gnp("p", denyAll), "shop/db", "shop/db", "", allowed, ""},
}

// Section 3: what a rule matches.
var ruleRows = []calicoRow{
	{"a protocol by name, in any case", gnp("p", "ingress: [{action: Allow, protocol: tcp}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"a protocol by number", gnp("p", "ingress: [{action: Allow, protocol: 6}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"a protocol that has no ports", gnp("p", "ingress: [{action: Allow, protocol: 47}]"), "shop/web", "shop/db", "47/0", allowed, byGlobalRule},
	{"not a protocol", gnp("p", "ingress: [{action: Allow, notProtocol: TCP}]"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"a range of ports", gnp("p", "ingress: [{action: Allow, protocol: TCP, destination: {ports: ['79:81']}}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"a port by name", gnp("p", "ingress: [{action: Allow, protocol: TCP, destination: {ports: [sql]}}]"), "shop/web", "shop/db", "TCP/5432", allowed, byGlobalRule},
	{"a port by name, of no protocol", gnp("p", "ingress: [{action: Allow, destination: {ports: [sql]}}]"), "shop/web", "shop/db", "TCP/5432", allowed, byGlobalRule},
	{"a port by name, of another protocol", gnp("p", "ingress: [{action: Allow, protocol: UDP, destination: {ports: [sql]}}]"), "shop/web", "shop/db", "UDP/5432", denied, byGlobalEnd},
	{"not these ports", gnp("p", "ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [80, '90:99']}}]"), "shop/web", "shop/db", "TCP/95", denied, byGlobalEnd},
	{"not a port by name", gnp("p", "ingress: [{action: Allow, protocol: TCP, destination: {notPorts: [sql]}}]"), "shop/web", "shop/db", "TCP/5432", denied, byGlobalEnd},
	{"ports and not ports", gnp("p", "ingress: [{action: Allow, protocol: TCP, destination: {ports: ['1:100'], notPorts: [80]}}]"), "shop/web", "shop/db", "TCP/81", allowed, byGlobalRule},
	{"nets", gnp("p", "ingress: [{action: Allow, source: {nets: [10.0.0.1/32, 192.0.2.0/24]}}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"nets but not these", gnp("p", "ingress: [{action: Allow, source: {nets: [10.0.0.0/8], notNets: [10.0.0.0/31]}}]"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"not these nets", gnp("p", "ingress: [{action: Allow, source: {notNets: [10.0.0.0/8]}}]"), stranger, "shop/db", "", allowed, byGlobalRule},
	{"nets and a selector both", gnp("p", "ingress: [{action: Allow, source: {nets: [10.0.1.0/24], selector: app == 'web'}}]"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"the policy's own end", gnp("p", "ingress: [{action: Allow, destination: {selector: app == 'db'}}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"another end than the policy's own", gnp("p", "ingress: [{action: Allow, destination: {selector: app == 'web'}}]"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"one address family", gnp("p", "ingress: [{action: Allow, ipVersion: 4}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
	{"the other address family", gnp("p", "ingress: [{action: Allow, ipVersion: 6}]"), "shop/web", "shop/db", "", denied, byGlobalEnd},
	{"a type of ICMP", gnp("p", "ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8}}]"), "shop/web", "shop/db", "ICMP/2049", allowed, byGlobalRule},
	{"a type and code of ICMP", gnp("p", "ingress: [{action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}]"), "shop/web", "shop/db", "ICMP/2049", denied, byGlobalEnd},
	{"not a type of ICMP", gnp("p", "ingress: [{action: Allow, protocol: ICMP, notICMP: {type: 8}}]"), "shop/web", "shop/db", "ICMP/0", allowed, byGlobalRule},
	{"HTTP is never UDP", gnp("p", "ingress: [{action: Allow, http: {methods: [GET]}}]"), "shop/web", "shop/db", "UDP/80", denied, byGlobalEnd},
	{"HTTP may be of this method", gnp("p", "ingress: [{action: Allow, protocol: TCP, http: {methods: [GET]}}]"), "shop/web", "shop/db", "", policies.Unknown, ""},
	{"HTTP that would decide nothing else", gnp("p", "ingress: [{action: Allow, protocol: TCP, http: {methods: [GET]}}, {action: Allow}]"), "shop/web", "shop/db", "", allowed, byGlobalRule},
}

// Section 6: the tiers that are always there, and policies of other dialects.
var dialectRows = []calicoRow{
	{"kube-admin comes before default", gnp("open", "tier: kube-admin, "+allowAll) + gnp("shut", denyAll), "shop/web", "shop/db", "", allowed, "kube-admin open 0"},
	{"kube-admin passes at its end", gnp("some", "tier: kube-admin, ingress: [{action: Deny, protocol: UDP}]"), "shop/web", "shop/db", "", allowed, ""},
	{"a tier before kube-admin", tier("first", "order: 999") + gnp("open", "tier: first, "+allowAll) + clusterNP("shut", denyWide), "shop/web", "shop/db", "", allowed, "first open 0"},
	{"a tier behind kube-admin", tier("first", "order: 1001") + gnp("open", "tier: first, "+allowAll) + clusterNP("shut", denyWide), "shop/web", "shop/db", "", denied, "kube-admin shut 0"},
	{"kube-baseline comes after default", gnp("shut", "tier: kube-baseline, "+denyAll) + gnp("open", allowAll), "shop/web", "shop/db", "", allowed, "default open 0"},
	{"kube-baseline decides what default leaves", gnp("shut", "tier: kube-baseline, "+denyAll) + gnp("p", passAll), "shop/web", "shop/db", "", denied, "kube-baseline shut 0"},
	{"a tier without order comes after kube-baseline", tier("late", "") + gnp("open", "tier: late, "+allowAll) + gnp("shut", "tier: kube-baseline, "+denyAll), "shop/web", "shop/db", "", denied, "kube-baseline shut 0"},
	{"a ClusterNetworkPolicy has its priority as order", gnp("open", "tier: kube-admin, order: 4, "+allowAll) + clusterNP("shut", denyWide), "shop/web", "shop/db", "", allowed, "kube-admin open 0"},
	{"a Calico policy after that priority", gnp("open", "tier: kube-admin, order: 6, "+allowAll) + clusterNP("shut", denyWide), "shop/web", "shop/db", "", denied, "kube-admin shut 0"},
	{"ClusterNetworkPolicies of one priority go by name", clusterNP("b", strings.ReplaceAll(denyWide, "Deny", "Accept")) + clusterNP("a", denyWide), "shop/web", "shop/db", "", denied, "kube-admin a 0"},
	{"a Pass goes on to default", clusterNP("a", strings.ReplaceAll(denyWide, "Deny", "Pass")) + gnp("shut", denyAll), "shop/web", "shop/db", "", denied, "default shut 0"},
	{"a NetworkPolicy has the order 1000", kubernetesNP("shop/np", "podSelector: {}, ingress: [{}]") + gnp("shut", "order: 999, "+denyAll), "shop/web", "shop/db", "", denied, "default shut 0"},
	{"a Calico policy after a NetworkPolicy", kubernetesNP("shop/np", "podSelector: {}, ingress: [{}]") + gnp("shut", "order: 1001, "+denyAll), "shop/web", "shop/db", "", allowed, "default shop/np 0"},
	{"a NetworkPolicy leaves to later policies what it does not allow", kubernetesNP("shop/np", "podSelector: {}") + gnp("open", "order: 1001, "+allowAll), "shop/web", "shop/db", "", allowed, "default open 0"},
	{"a NetworkPolicy makes its tier deny", kubernetesNP("shop/np", "podSelector: {}"), "shop/web", "shop/db", "", denied, "default shop/np"},
	{"a NetworkPolicy means pods, and no network sets", kubernetesNP("shop/np", "podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]"), printer, "shop/db", "", denied, "default shop/np"},
	{"a NetworkPolicy of all ports allows ICMP", kubernetesNP("shop/np", "podSelector: {}, ingress: [{}]"), "shop/web", "shop/db", "ICMP/2048", allowed, "default shop/np 0"},
	{"a NetworkPolicy of one port denies ICMP", kubernetesNP("shop/np", "podSelector: {}, ingress: [{ports: [{port: 80}]}]"), "shop/web", "shop/db", "ICMP/2048", denied, "default shop/np"},
	{"both groups", strings.Replace(gnp("shut", denyAll), "projectcalico.org/v3", "crd.projectcalico.org/v1", 1), "shop/web", "shop/db", "", denied, "default shut 0"},
}

const denyWide = "tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]"

// Section 5, the special cases: host endpoints. The node n1 has one of all its
// interfaces.
var hostRows = []calicoRow{
	{"a host endpoint without policy denies", host(""), stranger, "node n1", "", denied, "profile n1"},
	{"both ways", host(""), "node n1", stranger, "", denied, "profile n1"},
	{"but for failsafe ports", host(""), stranger, "node n1", "TCP/22", allowed, "failsafe n1 0"},
	{"the failsafe ports of the other way", host(""), "node n1", stranger, "UDP/53", allowed, ""},
	{"other nodes are open", host(""), stranger, "node n2", "", allowed, ""},
	{"one that Calico made allows", host(", profiles: [projectcalico-default-allow]"), stranger, "node n1", "", allowed, "profile n1 0"},
	{"a profile decides what no policy does", host(", profiles: [open]") + calicoDocument("Profile", "open", "ingress: [{action: Allow, protocol: TCP}]"), stranger, "node n1", "", allowed, "profile n1 0"},
	{"what no profile matches is denied", host(", profiles: [open]") + calicoDocument("Profile", "open", "ingress: [{action: Allow, protocol: UDP}]"), stranger, "node n1", "", denied, "profile n1"},
	{"a pass in a profile denies", host(", profiles: [a, open]") + calicoDocument("Profile", "a", passAll) + calicoDocument("Profile", "open", allowAll), stranger, "node n1", "", denied, "profile n1 0"},
	{"a profile that is missing denies", host(", profiles: [gone, open]") + calicoDocument("Profile", "open", allowAll), stranger, "node n1", "", denied, "profile n1 0"},
	{"a profile lends its labels", host(", profiles: [lend]") + calicoDocument("Profile", "lend", "labelsToApply: {zone: dmz}") + gnp("p", "selector: zone == 'dmz', "+allowAll), stranger, "node n1", "", allowed, byGlobalRule},
	{"a global policy applies to host endpoints", host("") + gnp("p", "selector: has(host), "+allowAll), stranger, "node n1", "", allowed, byGlobalRule},
	{"one of all namespaces does not", host("") + gnp("p", "namespaceSelector: all(), "+allowAll), stranger, "node n1", "", denied, "profile n1"},
	{"a host and its own pods pass no host endpoint", host(""), "node n1", "shop/db", "", allowed, ""},
	{"forwarded traffic is open where no policy applies to it", host("") + gnp("p", "selector: has(host), "+denyAll), stranger, "shop/db", "", allowed, ""},
	{"applyOnForward applies to it", host("") + gnp("p", "selector: has(host), applyOnForward: true, "+denyAll), stranger, "shop/db", "", denied, byGlobalRule},
	{"and to the host's own", host("") + gnp("p", "selector: has(host), applyOnForward: true, "+allowAll), stranger, "node n1", "", allowed, byGlobalRule},
	{"applyOnForward in one direction leaves the other open", host("") + gnp("p", "selector: has(host), applyOnForward: true, "+denyAll), "shop/db", stranger, "", allowed, ""},
	{"pods of one node pass no host endpoint", host("") + gnp("p", "selector: has(host), applyOnForward: true, "+denyAll), "shop/web", "shop/db", "", allowed, ""},
	{"untracked comes before all tiers", host("") + tier("first", "order: 1") + gnp("open", "tier: first, selector: has(host), "+allowAll) + gnp("shut", "selector: has(host), doNotTrack: true, applyOnForward: true, "+denyAll), stranger, "node n1", "", denied, "default (untracked) shut 0"},
	{"an untracked tier has no end", host("") + gnp("some", "selector: has(host), doNotTrack: true, applyOnForward: true, ingress: [{action: Deny, protocol: UDP}]") + gnp("open", "selector: has(host), "+allowAll), stranger, "node n1", "", allowed, "default open 0"},
	{"preDNAT comes before other policies", host("") + tier("first", "order: 1") + gnp("open", "tier: first, selector: has(host), "+allowAll) + gnp("shut", "selector: has(host), preDNAT: true, applyOnForward: true, "+denyAll), stranger, "node n1", "", denied, "default (preDNAT) shut 0"},
	{"a preDNAT tier has no end", host("") + gnp("some", "selector: has(host), preDNAT: true, applyOnForward: true, ingress: [{action: Deny, protocol: UDP}]") + gnp("open", "selector: has(host), "+allowAll), stranger, "node n1", "", allowed, "default open 0"},
	{"untracked comes before preDNAT", host("") + gnp("a", "selector: has(host), preDNAT: true, applyOnForward: true, "+denyAll) + gnp("b", "selector: has(host), doNotTrack: true, applyOnForward: true, "+allowAll), stranger, "node n1", "", allowed, "default (untracked) b 0"},
	{"a selector means a host endpoint by its addresses", host(", expectedIPs: [172.18.0.1]") + gnp("p", "selector: app == 'db', ingress: [{action: Allow, source: {selector: has(host)}}]"), "node n2", "shop/db", "", denied, byGlobalEnd},
	{"and by those only", calicoDocument("HostEndpoint", "n2", "node: n2, interfaceName: eth0, expectedIPs: [172.18.0.2], profiles: [projectcalico-default-allow]") + gnp("p", "selector: app == 'db', ingress: [{action: Allow, source: {notSelector: has(app)}}]"), "node n2", "shop/db", "", allowed, byGlobalRule},
}

// host is a host endpoint of all interfaces of n1.
func host(more string) string {
	text := calicoDocument("HostEndpoint", "n1", "node: n1, interfaceName: '*'"+more)
	return strings.Replace(text, "{name: n1}", "{name: n1, labels: {host: n1}}", 1)
}

// Section 8: what is staged is not enforced.
var stagedRows = []calicoRow{
	{"a staged policy decides nothing", calicoDocument("StagedNetworkPolicy", "shop/p", denyAll), "shop/web", "shop/db", "", allowed, ""},
	{"a staged global policy decides nothing", calicoDocument("StagedGlobalNetworkPolicy", "p", denyAll), "shop/web", "shop/db", "", allowed, ""},
	{"a staged NetworkPolicy decides nothing", calicoDocument("StagedKubernetesNetworkPolicy", "shop/p", "podSelector: {}"), "shop/web", "shop/db", "", allowed, ""},
	{"a tier with staged policies only is skipped", tier("first", "order: 1") + calicoDocument("StagedGlobalNetworkPolicy", "p", "tier: first, "+allowAll) + gnp("q", allowAll), "shop/web", "shop/db", "", allowed, "default q 0"},
	{"a staged edit leaves the policy as it is", np("shop/p", allowAll) + calicoDocument("StagedNetworkPolicy", "shop/p", denyAll), "shop/web", "shop/db", "", allowed, byRule},
	{"a staged delete leaves the policy where it is", np("shop/p", denyAll) + calicoDocument("StagedNetworkPolicy", "shop/p", "stagedAction: Delete"), "shop/web", "shop/db", "", denied, byRule},
}

// TestCalicoRules holds the judge, and the naive reading that it is held against
// elsewhere, against the rules of the specification one by one.
func TestCalicoRules(t *testing.T) {
	for _, rows := range [][]calicoRow{ruleRows, scopeRows, orderRows, hostRows, dialectRows, stagedRows} {
		for _, row := range rows {
			t.Run(row.name, func(t *testing.T) {
				text := calicoBase + row.world
				c := parseCalicoWorld(t, text)
				parties := c.parties()
				from, to, q := partyNamed(t, parties, row.from), partyNamed(t, parties, row.to), point{netset.TCP, 80}
				if name, port, ok := strings.Cut(row.port, "/"); ok {
					protocol, err := netset.ParseProtocol(name)
					if err != nil {
						t.Fatal(err)
					}
					q = point{protocol, uint16(atoi(port))}
				}
				if got := c.decide(from, to, q); got != row.want {
					t.Errorf("the naive reading says %v, want %v", got, row.want)
				}
				judge := reach.New(readModel(t, text, nil), reach.Options{})
				a, _ := endOfParty(judge, from)
				b, _ := endOfParty(judge, to)
				d := judge.Decide(a, b, q.protocol, q.port)
				if got := judge.Verdict(a, b, q.protocol, q.port); got != row.want || d.Verdict != row.want {
					t.Fatalf("Verdict %v, Decide %v (%s), want %v", got, d.Verdict, d.Because, row.want)
				}
				if by := decidedBy(&d); row.want != policies.Unknown && by != row.by {
					t.Errorf("decided by %q, want %q", by, row.by)
				}
			})
		}
	}
}

// twoHosts are host endpoints of two interfaces of n1; more is of the first.
func twoHosts(more string) string {
	in := calicoDocument("HostEndpoint", "in", "node: n1, interfaceName: eth0, expectedIPs: [172.18.0.1]"+more)
	out := calicoDocument("HostEndpoint", "out", "node: n1, interfaceName: eth1, expectedIPs: [203.0.113.1]")
	return strings.Replace(in, "{name: in}", "{name: in, labels: {side: in}}", 1) + strings.Replace(out, "{name: out}", "{name: out, labels: {side: out}}", 1)
}

// What selectors mean is the same where the policies are of one source and the
// world is of another.
func TestCalicoRulesInAnotherWorld(t *testing.T) {
	for _, row := range scopeRows {
		t.Run(row.name, func(t *testing.T) {
			m := k8s.WithWorldOf(readModel(t, row.world, nil), readModel(t, calicoBase+row.world, nil))
			d, err := askOf(t, m, reach.Options{}, row.from, row.to, cmp.Or(row.port, "TCP/80"))
			if err != nil || d.Verdict != row.want {
				t.Errorf("%v because %q (error %v), want %v", d.Verdict, d.Because, err, row.want)
			}
		})
	}
}

// TestHostsByAddress is about host endpoints that policies know by an address:
// their port names, and nodes that no Node is there for.
func TestHostsByAddress(t *testing.T) {
	const (
		named   = ", ports: [{name: metrics, protocol: TCP, port: 9100}]"
		shut    = "selector: has(host), ingress: [{action: Deny, destination: {ports: [metrics]}}, {action: Allow}]"
		spared  = "selector: has(host), ingress: [{action: Deny, destination: {notPorts: [metrics]}}, {action: Allow}]"
		metrics = "selector: app == 'db', egress: [{action: Allow, destination: {ports: [metrics]}}]"
		agent   = "---\n{apiVersion: v1, kind: Pod, metadata: {name: exporter, namespace: ops}, spec: {nodeName: n1, hostNetwork: true, containers: [{name: main}]}}\n"
	)
	const ghost = "---\n{apiVersion: v1, kind: Pod, metadata: {name: ghost, namespace: ops}, spec: {serviceAccountName: ghost, containers: [{name: main}]}}\n"
	const at = ", expectedIPs: [172.18.0.1]"
	beyond := calicoDocument("HostEndpoint", "edge", "node: edge, interfaceName: '*', expectedIPs: [192.0.2.7]")
	for _, row := range []struct {
		name, world    string
		from, to, port string
		want           policies.Verdict
		because        string
	}{
		{"a host endpoint gives names to ports", host(at+named) + gnp("p", shut), stranger, "172.18.0.1", "9100", denied, "port metrics"},
		{"of those numbers only", host(at+named) + gnp("p", shut), stranger, "172.18.0.1", "9101", allowed, ""},
		{"and of all others for notPorts", host(at+named) + gnp("p", spared), stranger, "172.18.0.1", "9101", denied, ""},
		{"but not of its own", host(at+named) + gnp("p", spared), stranger, "172.18.0.1", "9100", allowed, ""},
		{"to pods on the host's network too", host(at+named) + gnp("p", shut) + agent, stranger, "ops/exporter", "9100", denied, "port metrics"},
		{"egress means them by its names", host(at+named+", profiles: [projectcalico-default-allow]") + np("shop/p", metrics), "shop/db", "172.18.0.1", "9100", allowed, ""},
		{"and not another node", host(at+named+", profiles: [projectcalico-default-allow]") + np("shop/p", metrics), "shop/db", "172.18.0.2", "9100", denied, ""},
		{"without an address it names nothing", host(named) + gnp("p", shut), stranger, "172.18.0.1", "9100", allowed, ""},
		{"a host that is no Node is known by its addresses", beyond, "shop/db", "192.0.2.7", "80", denied, "HostEndpoint edge selects node edge and has no ingress rule"},
		{"its failsafe ports are open", beyond, "shop/db", "192.0.2.7", "22", allowed, "failsafe"},
		{"it cannot reach out", beyond, "192.0.2.7", "shop/db", "80", denied, ""},
		{"its labels are not known", beyond + clusterNP("c", "tier: Admin, priority: 1, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}]"), "shop/db", "192.0.2.7", "22", policies.Unknown, "the labels of the node"},
		{"one of an interface without addresses is passed perhaps", strings.Replace(host(""), "'*'", "eth0", 1), stranger, "172.18.0.1", "80", policies.Unknown, "it is not known whether traffic of node n1 passes HostEndpoint n1, which denies it"},
		{"its failsafe ports are open whether or not", strings.Replace(host(""), "'*'", "eth0", 1), stranger, "172.18.0.1", "22", allowed, "failsafe"},
		{"of two named interfaces neither keeps out failsafe ports", twoHosts(""), stranger, "node/n1", "22", allowed, "failsafe"},
		{"what one allows and the other denies depends on the address", twoHosts("") + gnp("p", "selector: side == 'in', "+allowAll), stranger, "node/n1", "80", policies.Unknown, "it depends on the address: allow for 172.18.0.1 of node n1, deny for 203.0.113.1 of node n1"},
		{"the address tells which is passed", twoHosts("") + gnp("p", "selector: side == 'in', "+allowAll), stranger, "172.18.0.1", "80", allowed, ""},
		{"or the other", twoHosts("") + gnp("p", "selector: side == 'in', "+allowAll), stranger, "203.0.113.1", "80", denied, "HostEndpoint out"},
		{"an address that a host endpoint expects is the node's", twoHosts("") + gnp("p", "selector: side == 'in', "+allowAll), "203.0.113.1", stranger, "80", denied, "HostEndpoint out"},
		{"where no address tells them apart both must allow", strings.ReplaceAll(twoHosts(""), "expectedIPs", "profiles") + gnp("p", "selector: side == 'in', "+allowAll), stranger, "172.18.0.1", "80", policies.Unknown, ""},
		{"what both allow is allowed", twoHosts("") + gnp("p", "selector: has(side), "+allowAll), stranger, "node/n1", "80", allowed, ""},
		{"one of an interface comes before one of all", twoHosts("") + host(", expectedIPs: [172.18.0.1], profiles: [projectcalico-default-allow]"), stranger, "172.18.0.1", "80", denied, "HostEndpoint in"},
		{"names of ports are those of the address", twoHosts(named) + gnp("p", strings.ReplaceAll(shut, "has(host)", "has(side)")), stranger, "172.18.0.1", "9100", denied, "port metrics"},
		{"and of no other", twoHosts(named) + gnp("p", strings.ReplaceAll(shut, "has(host)", "has(side)")), stranger, "203.0.113.1", "9100", allowed, ""},
		{"a policy by the labels of an account that is not there", ghost + gnp("p", "serviceAccountSelector: role == 'x', ingress: []"), stranger, "ops/ghost", "80", policies.Unknown, "the labels of its service account are not known"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d, err := askOf(t, readModel(t, calicoBase+row.world, nil), reach.Options{}, row.from, row.to, row.port)
			if err != nil {
				t.Fatal(err)
			}
			if d.Verdict != row.want || !strings.Contains(d.Because, row.because) {
				t.Errorf("%v because %q, want %v because %q", d.Verdict, d.Because, row.want, row.because)
			}
		})
	}
}

// TestEnforcedRules asks from shop/web to shop/db on TCP/80, before and after all
// that is staged is enforced.
func TestEnforcedRules(t *testing.T) {
	const learn, ignore = "stagedAction: Learn, " + denyAll, "stagedAction: Ignore, " + denyAll
	const allowAllNP, denyAllNP = "podSelector: {}, ingress: [{}]", "podSelector: {}"
	staged := func(name, spec string) string { return calicoDocument("StagedNetworkPolicy", name, spec) }
	stagedGlobal := func(name, spec string) string { return calicoDocument("StagedGlobalNetworkPolicy", name, spec) }
	stagedNP := func(name, spec string) string { return calicoDocument("StagedKubernetesNetworkPolicy", name, spec) }
	for _, row := range []struct {
		name          string
		world         string
		before, after policies.Verdict
		by            string // afterwards
	}{
		{"a new one decides", staged("shop/p", denyAll), allowed, denied, byRule},
		{"a new global one decides", stagedGlobal("p", denyAll), allowed, denied, byGlobalRule},
		{"a new NetworkPolicy decides", stagedNP("shop/p", denyAllNP), allowed, denied, byEnd},
		{"an edit takes the place of what it edits", np("shop/p", allowAll) + staged("shop/p", denyAll), allowed, denied, byRule},
		{"a global edit", gnp("p", denyAll) + stagedGlobal("p", allowAll), denied, allowed, byGlobalRule},
		{"an edit of a NetworkPolicy", kubernetesNP("shop/p", denyAllNP) + stagedNP("shop/p", allowAllNP), denied, allowed, byRule},
		{"an edit of the order", np("shop/p", "order: 1, "+allowAll) + np("shop/q", "order: 2, "+denyAll) + staged("shop/p", "order: 3, "+allowAll), allowed, denied, "default shop/q 0"},
		{"an edit of the tier", tier("first", "order: 1") + np("shop/p", denyAll) + np("shop/a", allowAll) + staged("shop/p", "tier: first, "+denyAll), allowed, denied, "first shop/p 0"},
		{"a policy of another kind stays", gnp("p", "order: 2, "+allowAll) + staged("shop/p", "order: 1, "+denyAll), allowed, denied, byRule},
		{"Calico's policy of the name of a NetworkPolicy stays", np("shop/p", "order: 1, "+allowAll) + stagedNP("shop/p", denyAllNP), allowed, allowed, byRule},
		{"a delete removes", np("shop/p", denyAll) + staged("shop/p", "stagedAction: Delete"), denied, allowed, ""},
		{"a global delete", gnp("p", denyAll) + stagedGlobal("p", "stagedAction: Delete"), denied, allowed, ""},
		{"a delete of a NetworkPolicy", kubernetesNP("shop/p", denyAllNP) + stagedNP("shop/p", "stagedAction: Delete"), denied, allowed, ""},
		{"a tier begins to count with its end", tier("first", "order: 1") + stagedGlobal("p", "tier: first, ingress: [{action: Allow, protocol: UDP}]"), allowed, denied, "first p"},
		{"what is learnt proposes nothing", staged("shop/p", learn), allowed, allowed, ""},
		{"what is to be ignored proposes nothing", staged("shop/p", ignore), allowed, allowed, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := readModel(t, calicoBase+row.world, nil)
			var all []int
			for i := range m.Staged {
				all = append(all, i)
			}
			for i, m := range []*policies.Model{m, m.Enforce(all...)} {
				judge := reach.New(m, reach.Options{})
				d := judge.Decide(endOf(t, judge, "shop/web"), endOf(t, judge, "shop/db"), netset.TCP, 80)
				if want := [...]policies.Verdict{row.before, row.after}[i]; d.Verdict != want {
					t.Errorf("%s: got %v, want %v", [...]string{"before", "after"}[i], d.Verdict, want)
				}
				if by := decidedBy(&d); i == 1 && by != row.by {
					t.Errorf("decided by %q, want %q", by, row.by)
				}
			}
		})
	}
}

// decidedBy names what decided: at the side that denies, or else at ingress.
func decidedBy(d *policies.Decision) string {
	side := d.Sides[policies.Ingress]
	if d.Sides[policies.Egress].Verdict == policies.Deny {
		side = d.Sides[policies.Egress]
	}
	if side.Policy == nil {
		return side.Tier
	}
	by := side.Tier + " " + side.Policy.String()
	if side.Rule != nil {
		by += fmt.Sprint(" ", *side.Rule)
	}
	return by
}

// partyNamed finds a party by its name in a row.
func partyNamed(t *testing.T, parties []*party, name string) *party {
	t.Helper()
	if a, err := netip.ParseAddr(name); err == nil {
		return outsider(a)
	}
	for _, p := range parties {
		if p.String() == "Pod "+name || strings.EqualFold(p.String(), name) {
			return p
		}
	}
	t.Fatalf("nobody is called %q", name)
	return nil
}

// parseCalicoWorld reads documents the way they are written.
func parseCalicoWorld(t rapid.TB, text string) *calicoWorld {
	t.Helper()
	c := &calicoWorld{cluster: &cluster{}}
	decoder := yaml.NewDecoder(strings.NewReader(text))
	for {
		var fields map[string]any
		if err := decoder.Decode(&fields); err != nil {
			c.expectAddresses()
			return c
		}
		into(t, c, fields)
	}
}

func into(t rapid.TB, c *calicoWorld, fields map[string]any) {
	kind := fields["kind"].(string)
	version := fields["apiVersion"].(string)
	switch {
	case strings.Contains(version, "projectcalico.org") && strings.HasSuffix(kind, "NetworkPolicy"):
		p := decoded[calicoPolicy](t, fields)
		p.kind = kind
		c.calico = append(c.calico, p)
	case kind == "NetworkPolicy":
		c.policies = append(c.policies, decoded[networkingv1.NetworkPolicy](t, fields))
	case kind == "ClusterNetworkPolicy":
		w := decoded[widePolicy](t, fields)
		w.kind = kind
		c.wide = append(c.wide, w)
	case kind == "Namespace":
		c.namespaces = append(c.namespaces, decoded[corev1.Namespace](t, fields))
	case kind == "ServiceAccount":
		c.accounts = append(c.accounts, decoded[corev1.ServiceAccount](t, fields))
	case kind == "Node":
		c.nodes = append(c.nodes, decoded[corev1.Node](t, fields))
	case kind == "Pod":
		p := decoded[corev1.Pod](t, fields)
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
		c.pods = append(c.pods, p)
	case kind == "Deployment":
		c.deployments = append(c.deployments, decoded[appsv1.Deployment](t, fields))
	case kind == "Service":
		c.services = append(c.services, decoded[corev1.Service](t, fields))
	case kind == "Tier":
		c.tiers = append(c.tiers, decoded[calicoTier](t, fields))
	case strings.HasSuffix(kind, "NetworkSet"):
		c.sets = append(c.sets, decoded[calicoSet](t, fields))
	case kind == "HostEndpoint":
		c.hosts = append(c.hosts, decoded[calicoHost](t, fields))
	case kind == "Profile":
		c.profiles = append(c.profiles, decoded[calicoProfile](t, fields))
	default:
		t.Fatalf("a row holds a %s", kind)
	}
}

func decoded[T any](t rapid.TB, fields map[string]any) T {
	var object T
	text, err := json.Marshal(fields)
	if err == nil {
		err = json.Unmarshal(text, &object)
	}
	if err != nil {
		t.Fatalf("%v: %v", fields, err)
	}
	return object
}
