package k8s

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

const (
	cluster  = "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: p}\nspec: "
	admin    = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\nmetadata: {name: p}\nspec: "
	baseline = "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: BaselineAdminNetworkPolicy\nmetadata: {name: default}\nspec: "
)

func TestClusterWidePolicies(t *testing.T) {
	for _, row := range []struct{ kind, spec, want string }{
		// Tiers, priorities and subjects.
		{cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}}", "kube-admin 7; all pods in all namespaces"},
		{cluster, "{tier: Baseline, priority: 1000, subject: {namespaces: {matchLabels: {team: a}}}}", "kube-baseline 1000; all pods in namespaces team=a"},
		{cluster, "{tier: Admin, priority: 0, subject: {pods: {podSelector: {matchLabels: {app: a}}}}}", "kube-admin 0; pods app=a in all namespaces"},
		{admin, "{priority: 7, subject: {pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {}}}}", "kube-admin 7; all pods in shop"},
		{baseline, "{subject: {namespaces: {}}}", "kube-baseline 0; all pods in all namespaces"},

		// Without rules in a direction a policy has no say there.
		{cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [], egress: null}", "kube-admin 7; all pods in all namespaces"},

		// Actions and peers.
		{
			cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}]}, {action: Deny, from: [{pods: {podSelector: {}}}]}, {action: Pass, from: [{namespaces: {}}]}]}",
			"kube-admin 7; all pods in all namespaces; ingress allow all pods in all namespaces: any; ingress deny all pods in all namespaces: any; ingress pass all pods in all namespaces: any",
		},
		{
			cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, egress: [{action: Accept, to: [{nodes: {}}, {nodes: {matchLabels: {role: edge}}}, {networks: [10.0.0.0/8, '::/0']}, {domainNames: ['*.example.com', example.com.]}]}]}",
			"kube-admin 7; all pods in all namespaces; egress allow all nodes or nodes role=edge or 10.0.0.0/8 or ::/0 or *.example.com, example.com.: any",
		},
		{
			baseline, "{subject: {namespaces: {}}, egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}, {action: Allow, to: [{nodes: {}}]}]}",
			"kube-baseline 0; all pods in all namespaces; egress deny 0.0.0.0/0: any; egress allow all nodes: any",
		},

		// Ports.
		{
			cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}, {udp: {destinationPort: {range: {start: 53, end: 54}}}}, {sctp: {destinationPort: {number: 9}}}]}]}",
			"kube-admin 7; all pods in all namespaces; ingress allow all pods in all namespaces: TCP/80 UDP/53-54 SCTP/9",
		},
		{
			cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: web}]}]}",
			"kube-admin 7; all pods in all namespaces; ingress allow all pods in all namespaces: none TCP/web UDP/web SCTP/web",
		},
		{
			admin, "{priority: 7, subject: {namespaces: {}}, egress: [{action: Allow, to: [{namespaces: {}}], ports: [{portNumber: {port: 80}}, {portNumber: {protocol: SCTP, port: 9}}, {portRange: {start: 1, end: 9, protocol: UDP}}, {namedPort: web}]}]}",
			"kube-admin 7; all pods in all namespaces; egress allow all pods in all namespaces: TCP/80 UDP/1-9 SCTP/9 TCP/web UDP/web SCTP/web",
		},

		// A peer of a form that is not known: the rule fails closed.
		{
			cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Accept, from: [{services: {}}, {namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}",
			"kube-admin 7; all pods in all namespaces; ingress allow : TCP/80",
		},
		{
			cluster, "{tier: Admin, priority: 7, subject: {namespaces: {}}, ingress: [{action: Deny, from: [{services: {}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}",
			"kube-admin 7; all pods in all namespaces; ingress deny anyone: any",
		},
		{
			admin, "{priority: 7, subject: {namespaces: {}}, ingress: [{action: Pass, from: [{networks: [10.0.0.0/8]}]}]}",
			"kube-admin 7; all pods in all namespaces; ingress deny anyone: any",
		},
		{
			baseline, "{subject: {namespaces: {}}, egress: [{action: Allow, to: [{domainNames: [example.com]}]}]}",
			"kube-baseline 0; all pods in all namespaces; egress allow : any",
		},
	} {
		p := read(t, row.kind+row.spec).Policies[0]
		got := strings.Join(append([]string{fmt.Sprintf("%s %d", p.Tier, p.Priority)}, describePolicy(p)...), "; ")
		if got != row.want {
			t.Errorf("%s\n got %s\nwant %s", row.spec, got, row.want)
		}
	}
}

func TestUnknownPeersWarn(t *testing.T) {
	for _, row := range []struct{ rule, want string }{
		{"{action: Accept, to: [{services: {}}]}", `a.yaml:4:93: peer field "services" is not known, so the rule fails closed: it matches nothing`},
		{"{action: Deny, to: [{network: [a]}]}", `a.yaml:4:91: peer field "network" is not known, so the rule fails closed: it denies everything; did you mean "networks"?`},
		{"{action: Pass, to: [{services: {}}]}", `a.yaml:4:91: peer field "services" is not known, so the rule fails closed: it denies everything`},
	} {
		m := read(t, cluster+"{tier: Admin, priority: 7, subject: {namespaces: {}}, egress: ["+row.rule+"]}")
		if got := fmt.Sprint(m.Warnings); got != "["+row.want+"]" {
			t.Errorf("%s\n got %s\nwant %s", row.rule, got, row.want)
		}
	}
}

func TestClusterWideOrder(t *testing.T) {
	m := read(t, strings.Join([]string{
		cluster + "{tier: Admin, priority: 50, subject: {namespaces: {}}}",
		strings.Replace(cluster, "name: p", "name: first", 1) + "{tier: Admin, priority: 5, subject: {namespaces: {}}}",
		admin + "{priority: 50, subject: {namespaces: {}}}",
	}, "\n---\n"))
	var got []string
	for _, p := range m.Policies {
		got = append(got, fmt.Sprint(p.Priority, " ", p.Ref.Kind, " ", p.Ref))
	}
	if want := "5 ClusterNetworkPolicy first, 50 AdminNetworkPolicy p, 50 ClusterNetworkPolicy p"; strings.Join(got, ", ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

func TestClusterWidePlaces(t *testing.T) {
	p := read(t, `apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: p}
spec:
  tier: Admin
  priority: 5
  subject:
    namespaces: {}
  egress:
  - name: to-db
    action: Deny
    to:
    - namespaces: {}
    - networks:
      - 10.0.0.0/8
`).Policies[0]
	rule := p.Rules[policies.Egress][0]
	got := fmt.Sprint(rule.Name, " ", p.Place, p.Subject.Place, rule.Place, rule.Peers[0].Place, rule.Peers[1].Place)
	if want := "to-db a.yaml:1:1 a.yaml:8:17 a.yaml:10:5 a.yaml:13:7 a.yaml:15:9"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLabelsOfNodes(t *testing.T) {
	m := read(t, `
{apiVersion: v1, kind: Node, metadata: {name: n1, labels: {role: edge}}, status: {addresses: [{type: InternalIP, address: 172.18.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {hostNetwork: true, nodeSelector: {role: core}}, status: {podIPs: [{ip: 172.18.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: b}, spec: {hostNetwork: true, os: {name: windows}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: c}, spec: {hostNetwork: true, securityContext: {windowsOptions: {hostProcess: true}}}}
---
{apiVersion: v1, kind: Pod, metadata: {name: d}, spec: {nodeSelector: {role: core}}}
`)
	got := []string{fmt.Sprint(m.Nodes[0].Labels)}
	for _, p := range m.Pods {
		got = append(got, strings.TrimSpace(fmt.Sprint(p.Node, " ", p.NodeLabels)))
	}
	want := "map[role:edge]; n1 map[kubernetes.io/os:linux role:core]; map[kubernetes.io/os:windows]; map[]; map[]"
	if strings.Join(got, "; ") != want {
		t.Errorf("got %s\nwant %s", strings.Join(got, "; "), want)
	}
}
