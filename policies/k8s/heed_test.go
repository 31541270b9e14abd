package k8s

import "testing"

func TestHeeds(t *testing.T) {
	for _, row := range []struct {
		apiVersion, kind string
		namespaced       bool
		heeds, knows     bool
	}{
		{"v1", "Pod", true, true, true},
		{"v1", "ServiceAccount", true, true, true},
		{"v1", "Secret", true, false, false},
		{"v1", "ConfigMap", true, false, false},
		{"apps/v1", "Deployment", true, true, true},
		{"extensions/v1beta1", "NetworkPolicy", true, false, false},
		{"networking.k8s.io/v1", "NetworkPolicy", true, true, true},
		{"networking.k8s.io/v1", "Ingress", true, false, false},
		{"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", false, true, true},
		{"policy.networking.k8s.io/v1beta7", "ClusterNetworkPolicy", false, true, false},
		{"projectcalico.org/v3", "GlobalNetworkSet", false, true, true},
		{"crd.projectcalico.org/v1", "StagedNetworkPolicy", true, true, true},
		{"projectcalico.org/v3", "IPPool", false, false, false},
		{"crd.projectcalico.org/v1", "IPAMBlock", false, false, false},
		{"cilium.io/v2", "CiliumClusterwideNetworkPolicy", false, true, false},
		{"acme.example/v1", "FirewallNetworkPolicy", true, true, false},
		{"controlplane.antrea.io/v1beta2", "NetworkPolicy", true, false, false},
		{"weir.dev/v1alpha1", "ConnectivityTest", true, true, false},
	} {
		if got := Heeds(row.apiVersion, row.kind, row.namespaced); got != row.heeds {
			t.Errorf("%s of %s: heeds is %v", row.kind, row.apiVersion, got)
		}
		if got := Understands(row.apiVersion, row.kind); got != row.knows {
			t.Errorf("%s of %s: understands is %v", row.kind, row.apiVersion, got)
		}
	}
}
