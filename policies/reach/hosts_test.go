package reach_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// A rule that names a port means, at a host endpoint, the port to which the
// endpoint gives that name.
func TestPortsByNameAtHostEndpoints(t *testing.T) {
	docs, err := k8s.Parse("hosts.yaml", []byte(`
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1, labels: {role: node}}, spec: {node: n1, interfaceName: "*", expectedIPs: [192.168.0.1], profiles: [projectcalico-default-allow], ports: [{name: metrics, protocol: TCP, port: 9100}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: nodes}, spec: {selector: role == 'node', ingress: [{action: Deny, protocol: TCP, destination: {ports: [metrics]}}, {action: Allow}]}}
`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	j := reach.New(m, reach.Options{})
	outside := j.Outside(netset.AllIPv4.Addr().Next())
	for port, want := range map[uint16]policies.Verdict{9100: policies.Deny, 9101: policies.Allow} {
		if got := j.Verdict(outside, j.Node(0), netset.TCP, port); got != want {
			t.Errorf("port %d: %s, want %s", port, got, want)
		}
		if got := j.Decide(outside, j.Node(0), netset.TCP, port); got.Verdict != want {
			t.Errorf("port %d is explained as %s, want %s: %+v", port, got.Verdict, want, got)
		}
	}
}

// What a policy selects is found for a pod of a node that no policy governs, however many
// nodes there are beside it whose host endpoints are under one for what they forward.
func TestPoliciesOfPodsOnUngovernedNodes(t *testing.T) {
	const other = `
{apiVersion: v1, kind: Node, metadata: {name: other}, status: {addresses: [{type: InternalIP, address: 192.168.1.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}}, spec: {nodeName: other, containers: [{name: main}]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: closed}, spec: {selector: app == 'web', types: [Ingress, Egress]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: forwarded}, spec: {selector: role == 'node', applyOnForward: true, ingress: [{action: Allow}]}}
`
	world := other
	for i := range 8 {
		world += fmt.Sprintf(`
---
{apiVersion: v1, kind: Node, metadata: {name: n%[1]d}, status: {addresses: [{type: InternalIP, address: 192.168.0.%[1]d}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n%[1]d, labels: {role: node}}, spec: {node: n%[1]d, interfaceName: "*"}}
`, i)
		m := readModel(t, world, nil)
		audit := reach.NewAudit(reach.New(m, reach.Options{}))
		for p := range m.Policies {
			if m.Policies[p].Ref.Name == "closed" && !audit.Selects(p) {
				t.Errorf("beside %d nodes the policy of a pod is said to select nothing", i+1)
			}
		}
	}
}

// A pod lets in what comes from its own node, whatever its policies say. So a rule about what
// nodes open to it counts where nobody else is let in, too.
func TestRulesForNodesTowardsPods(t *testing.T) {
	const world = `
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}, spec: {containers: [{name: main}]}}
---
{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: n1, labels: {role: node}}, spec: {node: n1, interfaceName: eth1, profiles: [projectcalico-default-allow]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: nodes}, spec: {tier: kube-admin, selector: role == 'node', egress: [{action: Deny, destination: {namespaceSelector: all()}}]}}
`
	const closed = `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop}, spec: {podSelector: {}}}
`
	for _, row := range []struct{ name, world string }{{"a pod that all may reach", world}, {"one that only its own node may", world + closed}} {
		m := readModel(t, row.world, nil)
		j := reach.New(m, reach.Options{})
		nodes := slices.IndexFunc(m.Policies, func(p policies.Policy) bool { return p.Ref.Name == "nodes" })
		if got := reach.NewAudit(j).Removal(reach.RuleID{Policy: nodes, Rule: reach.WholePolicy}); got != reach.Changes {
			t.Errorf("%s: the policy of nodes has effect %d, want %d", row.name, got, reach.Changes)
		}
	}
}
