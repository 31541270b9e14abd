package reach_test

import (
	"net/netip"
	"testing"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// TestPodRangeSpeaksIPv6 denies a node over IPv4: where pods have IPv6
// addresses, the node may have one, too, and nobody denies that.
func TestPodRangeSpeaksIPv6(t *testing.T) {
	const world = `
apiVersion: v1
kind: Node
metadata: {name: node-1}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {containers: [{name: main}]}
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: shut}
spec:
  tier: Admin
  priority: 0
  subject: {namespaces: {}}
  egress: [{action: Deny, to: [{networks: [0.0.0.0/0]}]}]
`
	for _, row := range []struct {
		name   string
		ranges []netip.Prefix
		want   policies.Verdict
	}{
		{"pods of IPv4", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, policies.Deny},
		{"pods of both", []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}, policies.Unknown},
	} {
		judge := reach.New(readModel(t, world, row.ranges), reach.Options{})
		from, to := judge.Pod(0), judge.Node(0)
		if got := judge.Verdict(from, to, netset.TCP, 80); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
		if got := judge.Decide(from, to, netset.TCP, 80).Verdict; got != row.want {
			t.Errorf("%s: decided %s, want %s", row.name, got, row.want)
		}
	}
}
