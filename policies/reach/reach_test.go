package reach_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// shopWorld is a small world that the rows below share. Objects are written one
// a line.
const shopWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: front}}}
{apiVersion: v1, kind: Namespace, metadata: {name: data, labels: {team: back}}}
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 172.18.0.1}]}}
{apiVersion: v1, kind: Node, metadata: {name: n2}, status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}}
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: n2}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
{apiVersion: v1, kind: Pod, metadata: {name: six, namespace: shop, labels: {app: six}}, spec: {nodeName: n2}, status: {phase: Running, podIPs: [{ip: "fd00::6"}]}}
{apiVersion: v1, kind: Pod, metadata: {name: done, namespace: shop, labels: {app: web}}, status: {phase: Succeeded, podIPs: [{ip: 10.0.0.9}]}}
{apiVersion: apps/v1, kind: Deployment, metadata: {name: api, namespace: shop, labels: {app: not-the-pods}}, spec: {replicas: 2, template: {metadata: {labels: {app: api}}}}}
{apiVersion: v1, kind: Pod, metadata: {name: db-0, namespace: data, labels: {app: db}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}, spec: {nodeName: n1, containers: [{name: pg, ports: [{name: pg, containerPort: 5432}]}], initContainers: [{name: proxy, restartPolicy: Always, ports: [{name: metrics, containerPort: 9090}]}, {name: setup, ports: [{name: setup, containerPort: 9191}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.1.1}]}}
{apiVersion: v1, kind: Pod, metadata: {name: db-1, namespace: data, labels: {app: db, canary: yes-it-is}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}, spec: {nodeName: n2, containers: [{name: pg, ports: [{name: pg, containerPort: 6432}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.1.2}]}}
{apiVersion: v1, kind: Pod, metadata: {name: agent, namespace: data, labels: {app: agent}}, spec: {hostNetwork: true, nodeName: n1}, status: {phase: Running, podIPs: [{ip: 172.18.0.1}]}}
{apiVersion: v1, kind: Pod, metadata: {name: drifter, namespace: data, labels: {app: drifter}}, spec: {hostNetwork: true}}
{apiVersion: v1, kind: Pod, metadata: {name: job, namespace: lost, labels: {app: job}}, status: {phase: Running, podIPs: [{ip: 10.0.2.1}]}}
{apiVersion: v1, kind: Service, metadata: {name: db, namespace: data}, spec: {selector: {app: db}, ports: [{name: sql, port: 80, targetPort: pg}, {name: fixed, port: 81, targetPort: 5432}]}}
{apiVersion: v1, kind: Service, metadata: {name: canary, namespace: data}, spec: {selector: {canary: yes-it-is}, ports: [{port: 80, targetPort: pg}]}}
`

// twoAddresses is a node and a pod of two addresses of one family.
const twoAddresses = `
{apiVersion: v1, kind: Node, metadata: {name: n3}, status: {addresses: [{type: InternalIP, address: 172.18.0.3}, {type: ExternalIP, address: 203.0.113.5}]}}
{apiVersion: v1, kind: Pod, metadata: {name: wide, namespace: shop, labels: {app: wide}}, spec: {nodeName: n2}, status: {phase: Running, podIPs: [{ip: 10.0.3.1}, {ip: 10.0.4.1}]}}
`

// modelWith returns the model of the shop and of objects written one a line,
// where "NAMESPACE {spec}" is short for a NetworkPolicy, and "cluster {spec}",
// "admin {spec}" and "baseline {spec}" for the cluster-wide kinds.
func modelWith(t *testing.T, lines string) *policies.Model {
	t.Helper()
	var docs []string
	for i, line := range strings.Split(shopWorld+lines, "\n") {
		line = strings.TrimSpace(line)
		if namespace, spec, ok := strings.Cut(line, " {"); ok && !strings.HasPrefix(line, "{") {
			wide := map[string]string{
				"cluster":  "v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: p%d}",
				"admin":    "v1alpha1, kind: AdminNetworkPolicy, metadata: {name: p%d}",
				"baseline": "v1alpha1, kind: BaselineAdminNetworkPolicy, metadata: {name: default}",
			}
			if form := wide[namespace]; form != "" {
				line = "{apiVersion: policy.networking.k8s.io/" + strings.ReplaceAll(form, "%d", fmt.Sprint(i)) + ", spec: {" + spec + "}"
				docs = append(docs, line+"\n")
				continue
			}
			line = fmt.Sprintf("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: p%d, namespace: %s}, spec: {%s}", i, namespace, spec)
		}
		docs = append(docs, line+"\n")
	}
	return readModel(t, strings.Join(docs, "---\n"), nil)
}

func askOf(t *testing.T, m *policies.Model, o reach.Options, from, to, port string) (policies.Decision, error) {
	t.Helper()
	a, err := m.Find(from)
	if err != nil {
		return policies.Decision{}, err
	}
	b, err := m.Find(to)
	if err != nil {
		return policies.Decision{}, err
	}
	p, err := policies.ParsePort(port)
	if err != nil {
		t.Fatal(err)
	}
	return reach.New(m, o).Ask(reach.Question{From: a, To: b, Port: p})
}

// Each rule of what Kubernetes policies mean, by name: some policies, a
// question, the verdict and a part of the reason.
func TestRules(t *testing.T) {
	for _, row := range []struct {
		rule, policies string
		from, to, port string
		want           policies.Verdict
		because        string
	}{
		{"without policies everything is allowed", ``, "shop/web", "data/db-0", "5432", policies.Allow, "no policy has a say"},
		{"a policy in another namespace has no say", `shop {podSelector: {}}`, "shop/web", "data/db-0", "5432", policies.Allow, "no policy has a say"},

		// Selection and defaults
		{"policyTypes absent: ingress always", `data {podSelector: {}}`, "shop/web", "data/db-0", "5432", policies.Deny, "and has no ingress rule"},
		{"policyTypes absent and no egress section: egress stays open", `data {podSelector: {}}`, "data/db-0", "shop/web", "80", policies.Allow, "no policy has a say"},
		{"policyTypes absent and an egress section: egress too", `data {podSelector: {}, egress: [{to: [{podSelector: {}}]}]}`, "data/db-0", "shop/web", "80", policies.Deny, "egress: no egress rule"},
		{"policyTypes Ingress: an egress section is ignored", `data {podSelector: {}, policyTypes: [Ingress], egress: [{to: [{podSelector: {}}]}]}`, "data/db-0", "shop/web", "80", policies.Allow, "no policy has a say"},
		{"policyTypes Egress: ingress stays open", `data {podSelector: {}, policyTypes: [Egress]}`, "shop/web", "data/db-0", "5432", policies.Allow, "no policy has a say"},
		{"an empty ingress list denies all", `data {podSelector: {}, ingress: []}`, "shop/web", "data/db-0", "5432", policies.Deny, "has no ingress rule"},
		{"an empty rule allows all", `data {podSelector: {}, ingress: [{}]}`, "shop/web", "data/db-0", "SCTP/9", policies.Allow, "allows anyone on any port"},
		{"an empty from is everyone, outside too", `data {podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}`, "203.0.113.9", "data/db-0", "80", policies.Allow, "allows anyone on TCP/80"},
		{"empty ports are all ports", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}], ports: []}]}`, "shop/web", "data/db-0", "UDP/9", policies.Allow, "on any port"},
		{"an empty podSelector is all pods of the policy's namespace", `data {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, "data/db-1", "data/db-0", "5432", policies.Allow, "all pods in data"},
		{"and of no other namespace", `data {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, "shop/web", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"an empty namespaceSelector is all namespaces", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, "shop/web", "data/db-0", "5432", policies.Allow, "all pods in all namespaces"},
		{"but not addresses outside", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, "203.0.113.9", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"both selectors in one item: both must match", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: front}}, podSelector: {matchLabels: {app: db}}}]}]}`, "shop/web", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"two items: either will do", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: front}}}, {podSelector: {matchLabels: {app: db}}}]}]}`, "shop/web", "data/db-0", "5432", policies.Allow, "in namespaces team=front"},
		{"NotIn matches what lacks the key", `data {podSelector: {matchExpressions: [{key: tier, operator: NotIn, values: [x]}]}}`, "shop/web", "data/db-0", "5432", policies.Deny, "has no ingress rule"},
		{"DoesNotExist matches what lacks the key", `data {podSelector: {matchExpressions: [{key: canary, operator: DoesNotExist}]}}`, "shop/web", "data/db-0", "5432", policies.Deny, "has no ingress rule"},
		{"DoesNotExist does not match what has it", `data {podSelector: {matchExpressions: [{key: canary, operator: DoesNotExist}]}}`, "shop/web", "data/db-1", "5432", policies.Allow, "no policy has a say"},
		{"every namespace has its name as a label", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}]}]}`, "shop/web", "data/db-0", "5432", policies.Allow, "all pods in shop"},
		{"also one that has no Namespace object", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: lost}}}]}]}`, "lost/job", "data/db-0", "5432", policies.Allow, "all pods in lost"},
		{"whose other labels are not known", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: front}}}]}]}`, "lost/job", "data/db-0", "5432", policies.Unknown, "the labels of namespace lost are not known"},
		{"selectors see the template's labels", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: api}}}]}]}`, "shop/api", "data/db-0", "5432", policies.Allow, "pods app=api"},
		{"and not the Deployment's", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: not-the-pods}}}]}]}`, "shop/api", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"pods of one owner are told apart by their labels", `data {podSelector: {matchLabels: {canary: yes-it-is}}}`, "shop/web", "data/db", "5432", policies.Unknown, "it depends on which is meant: 1 allow, 1 deny, 0 unknown"},
		{"a rule for SCTP isolates for TCP", `data {podSelector: {}, ingress: [{ports: [{protocol: SCTP}]}]}`, "shop/web", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"policies add up", "data {podSelector: {}}\ndata {podSelector: {}, ingress: [{ports: [{port: 5432}]}]}", "shop/web", "data/db-0", "5432", policies.Allow, "allows anyone on TCP/5432"},

		// Ports
		{"the protocol is TCP by default", `data {podSelector: {}, ingress: [{ports: [{port: 53}]}]}`, "shop/web", "data/db-0", "UDP/53", policies.Deny, "no ingress rule"},
		{"a protocol without port is all its ports", `data {podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`, "shop/web", "data/db-0", "UDP/65535", policies.Allow, "on UDP"},
		{"and of that protocol only", `data {podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`, "shop/web", "data/db-0", "53", policies.Deny, "no ingress rule"},
		{"a named port is the destination's", `shop {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: pg}]}]}`, "shop/web", "data/db-1", "6432", policies.Allow, "TCP/pg"},
		{"not another pod's", `shop {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: pg}]}]}`, "shop/web", "data/db-1", "5432", policies.Deny, "no egress rule"},
		{"the name's protocol must match too", `data {podSelector: {}, ingress: [{ports: [{port: pg, protocol: UDP}]}]}`, "shop/web", "data/db-0", "UDP/5432", policies.Deny, "no ingress rule"},
		{"an unknown name matches nothing", `data {podSelector: {}, ingress: [{ports: [{port: mysql}]}]}`, "shop/web", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"a named port means nothing outside", `shop {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: pg}]}]}`, "shop/web", "203.0.113.9", "5432", policies.Deny, "no egress rule"},
		{"sidecars name ports", `data {podSelector: {}, ingress: [{ports: [{port: metrics}]}]}`, "shop/web", "data/db-0", "9090", policies.Allow, "TCP/metrics"},
		{"other init containers do not", `data {podSelector: {}, ingress: [{ports: [{port: setup}]}]}`, "shop/web", "data/db-0", "9191", policies.Deny, "no ingress rule"},
		{"endPort is inside", `data {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`, "shop/web", "data/db-0", "90", policies.Allow, "TCP/80-90"},
		{"what follows endPort is not", `data {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`, "shop/web", "data/db-0", "91", policies.Deny, "no ingress rule"},
		{"both sides must have the port in common", "shop {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 80}]}]}\ndata {podSelector: {}, ingress: [{ports: [{port: 81}]}]}", "shop/web", "data/db-0", "any", policies.Deny, ""},

		// Addresses
		{"a block matches a pod's address", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/32}}]}]}`, "shop/web", "data/db-0", "5432", policies.Allow, "allows 10.0.0.1/32"},
		{"a node of two addresses is judged by the one it is named by", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/16}}]}]}`, "172.18.0.3", "data/db-0", "5432", policies.Allow, "allows 172.18.0.0/16"},
		{"and denied by the other", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/16}}]}]}`, "203.0.113.5", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"by its name it may be at either", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/16}}]}]}`, "node/n3", "data/db-0", "5432", policies.Unknown, "it depends on the address: allow for 172.18.0.3 of node n3, deny for 203.0.113.5 of node n3"},
		{"rules that each allow one of them allow it", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/16}}]}, {from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`, "node/n3", "data/db-0", "5432", policies.Allow, "allows"},
		{"egress to it as well", twoAddresses + `data {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.5/32}}]}]}`, "data/db-0", "node/n3", "443", policies.Unknown, "it depends on the address"},
		{"by the address", twoAddresses + `data {podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 203.0.113.5/32}}]}]}`, "data/db-0", "203.0.113.5", "443", policies.Allow, "allows 203.0.113.5/32"},
		{"a pod of two addresses too", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.3.0/24}}]}]}`, "shop/wide", "data/db-0", "5432", policies.Unknown, "allow for 10.0.3.1 of shop/wide, deny for 10.0.4.1 of shop/wide"},
		{"and by its address", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.3.0/24}}]}]}`, "10.0.4.1", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"what both addresses are told alike is known", twoAddresses + `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/16}}]}]}`, "shop/wide", "data/db-0", "5432", policies.Allow, "allows 10.0.0.0/16"},
		{"a pod of two families is judged by the address it is named by", `shop {podSelector: {matchLabels: {app: six}}, ingress: [{from: [{ipBlock: {cidr: "fd00::/64"}}]}]}`, "10.0.0.1", "shop/six", "80", policies.Deny, "no address family in common"},
		{"an address that is not known may be in a block", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}`, "shop/api", "data/db-0", "5432", policies.Unknown, "the address of shop/api is not known"},
		{"but is somewhere", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`, "shop/api", "data/db-0", "5432", policies.Allow, "allows 0.0.0.0/0"},
		{"it is not in IPv4 for a pod that has IPv6 only", `shop {podSelector: {matchLabels: {app: six}}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`, "shop/api", "shop/six", "80", policies.Deny, "no ingress rule"},
		{"nor in IPv6 for a pod that has IPv4 only", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "::/0"}}]}]}`, "shop/api", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"except narrows its block", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}]}]}`, "shop/web", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"another rule may still allow what is excepted", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.0.0/24]}}]}, {from: [{ipBlock: {cidr: 10.0.0.0/30}}]}]}`, "shop/web", "data/db-0", "5432", policies.Allow, "allows 10.0.0.0/30"},
		{"a block matches its own family only", `shop {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`, "2001:db8::1", "shop/web", "80", policies.Deny, "no ingress rule"},
		{"one family will do", `shop {podSelector: {matchLabels: {app: six}}, ingress: [{from: [{ipBlock: {cidr: "fd00::/64"}}]}]}`, "shop/web", "shop/six", "80", policies.Allow, "allows fd00::/64"},
		{"no family in common", ``, "shop/six", "data/db-0", "5432", policies.Deny, "no address family in common"},

		// Who is always, or never, allowed
		{"a pod reaches itself", `data {podSelector: {}, policyTypes: [Ingress, Egress]}`, "data/db-0", "data/db-0", "5432", policies.Allow, "a pod always reaches itself"},
		{"two replicas are not the same pod", `shop {podSelector: {}, policyTypes: [Ingress]}`, "shop/api", "shop/api", "80", policies.Deny, "has no ingress rule"},
		{"a pod's own node is let in", `data {podSelector: {}}`, "172.18.0.1", "data/db-0", "5432", policies.Allow, "the pod's own node is always allowed in"},
		{"other nodes are not", `data {podSelector: {}}`, "172.18.0.2", "data/db-0", "5432", policies.Deny, "has no ingress rule"},
		{"nor may a pod always reach its node", `data {podSelector: {}, policyTypes: [Egress]}`, "data/db-0", "172.18.0.1", "10250", policies.Deny, "has no egress rule"},
		{"a pod on the node's network is its node", `data {podSelector: {}}`, "data/agent", "data/db-0", "5432", policies.Allow, "own node is always allowed in"},
		{"unless its node is another", `data {podSelector: {}}`, "data/agent", "data/db-1", "5432", policies.Deny, "has no ingress rule"},
		{"or is not known", `data {podSelector: {}}`, "data/drifter", "data/db-0", "5432", policies.Unknown, "it is not known whether data/drifter runs on the node"},
		{"policies do not select pods on the node's network", `data {podSelector: {}, policyTypes: [Ingress, Egress]}`, "shop/web", "data/agent", "9100", policies.Allow, "no policy has a say"},
		{"selectors do not match them", `data {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: agent}}}]}]}`, "data/agent", "data/db-1", "5432", policies.Deny, "no ingress rule"},
		{"their node's address does", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.18.0.0/16}}]}]}`, "data/agent", "data/db-1", "5432", policies.Allow, "allows 172.18.0.0/16"},
		{"an address of a finished pod is outside", `data {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, "10.0.0.9", "data/db-0", "5432", policies.Deny, "no ingress rule"},
		{"replies are not asked about", `data {podSelector: {}, policyTypes: [Egress]}`, "shop/web", "data/db-0", "5432", policies.Allow, "no policy has a say"},

		// Protocols
		{"SCTP is a protocol of its own", `data {podSelector: {}, ingress: [{ports: [{port: 9003, protocol: SCTP}]}]}`, "shop/web", "data/db-0", "SCTP/9003", policies.Allow, "SCTP/9003"},
		{"ICMP is undefined", `data {podSelector: {}, ingress: [{}]}`, "shop/web", "data/db-0", "ICMP", policies.Unknown, "ICMP is not defined for NetworkPolicy"},
		{"ICMP is allowed where no policy selects", ``, "shop/web", "data/db-0", "ICMP", policies.Allow, "no policy has a say"},
		{"what one side denies is denied, whatever the other", "shop {podSelector: {}, policyTypes: [Egress]}\ndata {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}", "shop/api", "data/db-0", "5432", policies.Deny, "egress: NetworkPolicy shop/p"},

		// Tiers
		{"Admin comes before NetworkPolicy", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}\ndata {podSelector: {}}", "shop/web", "data/db-0", "5432", policies.Allow, "allows all pods in all namespaces"},
		{"its Deny cannot be overridden", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{name: closed, action: Deny, from: [{namespaces: {}}]}]}\ndata {podSelector: {}, ingress: [{}]}", "shop/web", "data/db-0", "5432", policies.Deny, `by rule "closed"`},
		{"Pass leaves it to NetworkPolicy", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}\ndata {podSelector: {}, ingress: [{}]}", "shop/web", "data/db-0", "5432", policies.Allow, "allows anyone"},
		{"Pass allows nothing by itself", "admin {priority: 5, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}\ndata {podSelector: {}}", "shop/web", "data/db-0", "5432", policies.Deny, "has no ingress rule"},
		{"Pass in the last tier leads to allow", "cluster {tier: Baseline, priority: 5, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}, {action: Deny, from: [{namespaces: {}}]}]}", "shop/web", "data/db-0", "5432", policies.Allow, "so it is allowed"},
		{"NetworkPolicy comes before Baseline", "baseline {subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ndata {podSelector: {}, ingress: [{}]}", "shop/web", "data/db-0", "5432", policies.Allow, "allows anyone"},
		{"Baseline is for pods without NetworkPolicy", "baseline {subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\nshop {podSelector: {}, ingress: [{}]}", "shop/web", "data/db-0", "5432", policies.Deny, "denies all pods in all namespaces"},
		{"in that direction", "baseline {subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ndata {podSelector: {}, policyTypes: [Egress], egress: [{}]}", "shop/web", "data/db-0", "5432", policies.Deny, "denies all pods in all namespaces"},
		{"they isolate nobody", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 1}}}]}]}", "shop/web", "data/db-0", "5432", policies.Allow, "so it is allowed"},
		{"an Accept at egress does not skip ingress", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{namespaces: {}}]}]}\ndata {podSelector: {}}", "shop/web", "data/db-0", "5432", policies.Deny, "ingress: "},
		{"the lower priority comes first", "admin {priority: 6, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ncluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}", "shop/web", "data/db-0", "5432", policies.Allow, "allows all pods in all namespaces"},
		{"equal priorities that disagree leave it open", "admin {priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ncluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}", "shop/web", "data/db-0", "5432", policies.Unknown, "are both of priority 5 and disagree: one denies, the other allows"},
		{"only where they disagree", "admin {priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ncluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}", "shop/web", "data/db-0", "5432", policies.Deny, "denies all pods"},
		{"equal priorities of two tiers are no tie", "cluster {tier: Baseline, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ncluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}]}", "shop/web", "data/db-0", "5432", policies.Allow, "allows all pods"},
		{"rules without protocols cover ICMP", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}\ndata {podSelector: {}}", "shop/web", "data/db-0", "ICMP", policies.Deny, "denies all pods"},
		{"networks cover pods", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}", "data/db-1", "data/db-0", "5432", policies.Deny, "denies 0.0.0.0/0"},
		{"networks cover nodes", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [172.18.0.0/16]}]}]}", "data/db-1", "data/agent", "9100", policies.Deny, "denies 172.18.0.0/16"},
		{"networks of one family leave the other open", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}", "shop/web", "shop/six", "80", policies.Allow, "so it is allowed"},
		{"which a pod that has no address yet may have", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}", "shop/web", "shop/api", "80", policies.Unknown, "not known whether both have an IPv6 address"},
		{"a named port is of any protocol", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{destinationNamedPort: pg}]}]}", "shop/web", "data/db-1", "6432", policies.Deny, "port pg"},
		{"nodes are matched by their labels", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}]}\n{apiVersion: v1, kind: Node, metadata: {name: n3, labels: {role: edge}}, status: {addresses: [{type: InternalIP, address: 172.18.0.3}]}}", "shop/web", "172.18.0.3", "22", policies.Deny, "denies nodes role=edge"},
		{"and no others", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}]}", "shop/web", "172.18.0.2", "22", policies.Allow, "so it is allowed"},
		{"with the pods on their network", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {}}]}]}", "shop/web", "data/agent", "9100", policies.Deny, "denies all nodes"},
		{"of a node that is not known, labels are not", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}]}", "shop/web", "data/drifter", "9100", policies.Unknown, "the labels of the node that data/drifter is on are not known"},
		{"save that it runs Linux", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Deny, to: [{nodes: {matchLabels: {kubernetes.io/os: linux}}}]}]}", "shop/web", "data/drifter", "9100", policies.Deny, "denies nodes kubernetes.io/os=linux"},
		{"an address may have any domain name", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ['*.example.com']}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]}", "shop/web", "203.0.113.9", "443", policies.Unknown, "which addresses have the name *.example.com is not known"},
		{"a pod has none", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, egress: [{action: Accept, to: [{domainNames: ['*.example.com']}]}, {action: Deny, to: [{networks: [0.0.0.0/0]}]}]}", "data/db-1", "data/db-0", "5432", policies.Deny, "denies 0.0.0.0/0"},
		{"a pod's own node is let in by NetworkPolicy", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{namespaces: {}}]}]}\ndata {podSelector: {}}", "172.18.0.1", "data/db-0", "5432", policies.Allow, "the pod's own node is always allowed in"},
		{"which the Admin tier does not promise", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{hosts: {}}]}]}\ndata {podSelector: {}}", "172.18.0.1", "data/db-0", "5432", policies.Deny, "denies anyone"},
		{"an Accept with a peer that is not understood accepts nothing", "cluster {tier: Admin, priority: 5, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}, {hosts: {}}]}]}\ndata {podSelector: {}}", "shop/web", "data/db-0", "5432", policies.Deny, "has no ingress rule"},

		// Policies that nobody understands
		{"a policy that is not understood makes answers unknown", `{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: data}}`, "shop/web", "data/db-0", "5432", policies.Unknown, "CiliumNetworkPolicy of cilium.io is not understood"},
		{"those about the pod's own node too", `{apiVersion: policy.networking.k8s.io/v1beta1, kind: ClusterNetworkPolicy, metadata: {name: c}}`, "172.18.0.1", "data/db-0", "5432", policies.Unknown, "ClusterNetworkPolicy of policy.networking.k8s.io is not understood"},
		{"but not what another side denies", "{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: c, namespace: data}}\nshop {podSelector: {}, policyTypes: [Egress]}", "shop/web", "data/db-0", "5432", policies.Deny, "has no egress rule"},

		// Questions
		{"a Service leads to its pods and their ports", `data {podSelector: {}, ingress: [{ports: [{port: 6432}]}]}`, "shop/web", "data/svc/canary", "80", policies.Allow, "service data/canary leads to 1 pod at TCP/6432"},
		{"never to its own port", `data {podSelector: {}, ingress: [{ports: [{port: 80}]}]}`, "shop/web", "data/svc/canary", "80", policies.Deny, "service data/canary leads to 1 pod at TCP/6432"},
		{"the pods of a Service may name different ports", `data {podSelector: {}, ingress: [{ports: [{port: 5432}]}]}`, "shop/web", "data/svc/db", "sql", policies.Unknown, "1 allow, 1 deny, 0 unknown; service data/db leads to 2 pods at TCP/5432 or TCP/6432"},
		{"a port name is each destination's", `data {podSelector: {}, ingress: [{ports: [{port: pg}]}]}`, "shop/web", "data/db", "pg", policies.Allow, "TCP/pg"},
		{"a range that is decided in two ways", `data {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`, "shop/web", "data/db-0", "TCP/85-95", policies.Unknown, "1 allow, 1 deny, 0 unknown"},
		{"a range that is decided in one way", `data {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`, "shop/web", "data/db-0", "TCP/81-89", policies.Allow, "TCP/80-90"},
		{"a range of addresses that is decided in two ways", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/25}}]}]}`, "203.0.113.0/24", "data/db-0", "80", policies.Unknown, "1 allow, 1 deny, 0 unknown"},
		{"a range of addresses that is decided in one way", `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]}`, "203.0.113.0/25", "data/db-0", "80", policies.Allow, "allows 203.0.113.0/24"},
		{"everything outside", `data {podSelector: {}}`, "world", "data/db-0", "any", policies.Deny, "has no ingress rule"},
		{"an address of a pod is that pod", `data {podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]}`, "10.0.1.2", "data/db-0", "5432", policies.Allow, "pods app=db"},
	} {
		t.Run(row.rule, func(t *testing.T) {
			d, err := askOf(t, modelWith(t, row.policies), reach.Options{}, row.from, row.to, row.port)
			if err != nil {
				t.Fatal(err)
			}
			if d.Verdict != row.want || !strings.Contains(d.Because, row.because) {
				t.Errorf("%s to %s on %s: %v because %q, want %v because %q", row.from, row.to, row.port, d.Verdict, d.Because, row.want, row.because)
			}
		})
	}
}

func TestBlocksMayLeaveOutPods(t *testing.T) {
	m := modelWith(t, `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]}`)
	for _, row := range []struct {
		from string
		want policies.Verdict
	}{{"shop/web", policies.Deny}, {"shop/api", policies.Deny}, {"172.18.0.2", policies.Deny}, {"203.0.113.9", policies.Allow}} {
		d, err := askOf(t, m, reach.Options{IgnorePodBlocks: true}, row.from, "data/db-0", "5432")
		if err != nil || d.Verdict != row.want {
			t.Errorf("%s: got %v, %v, want %v", row.from, d.Verdict, err, row.want)
		}
	}
}

func TestDecisionNamesRuleAndPlace(t *testing.T) {
	docs := "apiVersion: v1\nkind: Pod\nmetadata: {name: db}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web}\n---\n" +
		"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: db}\nspec:\n  podSelector: {}\n  ingress:\n  - ports: [{port: 80}]\n  - ports: [{port: 81}]\n"
	d, err := askOf(t, readModel(t, docs, nil), reach.Options{}, "default/web", "default/db", "81")
	if err != nil {
		t.Fatal(err)
	}
	side := d.Sides[policies.Ingress]
	if side.At.String() != "world.yaml:16:5" || *side.Rule != 1 || side.Policy.String() != "default/db" || side.Tier != "default" {
		t.Errorf("got %v rule %v of %v in %v", side.At, *side.Rule, side.Policy, side.Tier)
	}
	var trace []string
	for _, s := range side.Trace {
		trace = append(trace, fmt.Sprintf("%d %v %v %s", *s.Rule, s.Action, s.Matches, s.Because))
	}
	want := "0 allow no port: it is for TCP/80\n1 allow yes it allows anyone on TCP/81"
	if got := strings.Join(trace, "\n"); got != want {
		t.Errorf("got trace\n%s\nwant\n%s", got, want)
	}
}

func TestFamiliesAreReportedWhereTheyDiffer(t *testing.T) {
	m := modelWith(t, `{apiVersion: v1, kind: Pod, metadata: {name: two, namespace: data, labels: {app: two}}, status: {phase: Running, podIPs: [{ip: 10.0.1.7}, {ip: "fd00::7"}]}}
data {podSelector: {matchLabels: {app: two}}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8}}]}]}`)
	d, err := askOf(t, m, reach.Options{}, "shop/web", "data/two", "80")
	if err != nil || d.Verdict != policies.Allow || d.Families["IPv4"] != policies.Allow || d.Families["IPv6"] != policies.Deny {
		t.Errorf("got %v by family %v, %v", d.Verdict, d.Families, err)
	}
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	m := modelWith(t, "")
	for _, row := range []struct{ what, from, to, port, want string }{
		{"a port the Service does not offer", "shop/web", "data/svc/db", "5432", "service data/db has no port TCP/5432; it offers TCP/80, TCP/81"},
		{"a port name the Service does not offer", "shop/web", "data/svc/db", "pg", "service data/db has no port pg"},
		{"a port name no destination has", "shop/web", "data/db", "http", `data/db has no port named "http"`},
		{"a port name outside", "shop/web", "world", "http", `world has no port named "http"`},
		{"nothing but outside", "203.0.113.9", "198.51.100.1", "80", "both 203.0.113.9 and 198.51.100.1 are outside"},
		{"a namespace that is not there", "nowhere/web", "data/db", "80", "there is no namespace nowhere"},
		{"a finished pod", "shop/done", "data/db", "80", "namespace shop has no pod or workload done"},
	} {
		d, err := askOf(t, m, reach.Options{}, row.from, row.to, row.port)
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, %v, want %q", row.what, d.Verdict, err, row.want)
		}
	}
}

func TestALabelNamedAllIsNotEverything(t *testing.T) {
	m := modelWith(t, `
shop {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}]}]}
data {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: all, operator: Exists}]}}]}]}`)
	j := reach.New(m, reach.Options{})
	if got := j.Verdict(endOf(t, j, "shop/web"), endOf(t, j, "data/db-0"), netset.TCP, 5432); got != policies.Deny {
		t.Errorf("got %v, want deny", got)
	}
}

// A name may stand for several numbers, whose bytes may look like another one.
func TestNameOfManyPorts(t *testing.T) {
	m := modelWith(t, `{apiVersion: v1, kind: Pod, metadata: {name: many, namespace: shop}, spec: {containers: [{name: main, ports: [{name: x, containerPort: 8016}, {name: x, containerPort: 20511}, {name: x, containerPort: 20560}]}]}}
shop {podSelector: {}, ingress: [{ports: [{port: x}]}]}`)
	judge := reach.New(m, reach.Options{})
	for port, want := range map[uint16]policies.Verdict{8016: policies.Allow, 20511: policies.Allow, 20560: policies.Allow, 20561: policies.Deny} {
		if got := judge.Verdict(endOf(t, judge, "shop/web"), endOf(t, judge, "shop/many"), netset.TCP, port); got != want {
			t.Errorf("port %d: got %v, want %v", port, got, want)
		}
	}
}

func TestAddressesThatNoRuleTellsApart(t *testing.T) {
	j := reach.New(modelWith(t, `data {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]}`), reach.Options{})
	for _, row := range []struct {
		a, b string
		want bool
	}{
		{"192.0.2.1", "192.0.2.127", true},
		{"192.0.2.127", "192.0.2.128", false},
		{"192.0.1.255", "192.0.2.0", false},
		{"192.0.3.0", "255.255.255.255", true},
		{"192.0.2.1", "::ffff:192.0.2.2", true},
		{"fe80::1%eth0", "::", true},
	} {
		if got := j.Alike(netip.MustParseAddr(row.a)) == j.Alike(netip.MustParseAddr(row.b)); got != row.want {
			t.Errorf("%s is like %s: %v", row.a, row.b, got)
		}
	}
	four := readModel(t, "{apiVersion: v1, kind: Pod, metadata: {name: a}, status: {phase: Running, podIP: 10.0.0.1}}\n", nil)
	if !j.SpeaksIPv6() || reach.New(four, reach.Options{}).SpeaksIPv6() {
		t.Error("a model speaks IPv6 where something of it does, and nowhere else")
	}
}
