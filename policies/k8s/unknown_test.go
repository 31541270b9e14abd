package k8s

import (
	"fmt"
	"testing"

	"github.com/weir-policy/weir/policies"
)

func TestForeignPolicies(t *testing.T) {
	for _, row := range []struct{ apiVersion, kind, namespace, want string }{
		{"cilium.io/v2", "CiliumNetworkPolicy", "shop", "egress ingress of all pods in shop"},
		{"cilium.io/v2", "CiliumNetworkPolicy", "", "egress ingress of all pods in default"},
		{"cilium.io/v2", "CiliumClusterwideNetworkPolicy", "", "egress ingress of all pods in all namespaces"},
		{"cilium.io/v2", "CiliumLocalRedirectPolicy", "shop", "none"},
		{"policy.networking.k8s.io/v1beta1", "ClusterNetworkPolicy", "", "egress ingress of all pods in all namespaces"},
		{"policy.networking.k8s.io/v1alpha3", "BaselineAdminNetworkPolicy", "", "egress ingress of all pods in all namespaces"},
		{"projectcalico.org/v3", "IPPool", "", "none"},
		{"crd.projectcalico.org/v1", "GlobalThreatFeed", "", "none"},
		{"crd.antrea.io/v1beta1", "NetworkPolicy", "shop", "egress ingress of all pods in shop"},
		{"k8s.ovn.org/v1", "EgressFirewall", "shop", "egress of all pods in shop"},
		{"security.istio.io/v1", "AuthorizationPolicy", "shop", "ingress of all pods in shop"},
		{"security.istio.io/v1", "AuthorizationPolicy", "istio-system", "ingress of all pods in all namespaces"},
		{"k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", "shop", "warning"},
		{"networking.gke.io/v1", "FQDNNetworkPolicy", "shop", "egress ingress of all pods in shop"},
		{"example.com/v1", "NetworkPolicy", "", "egress ingress of all pods in all namespaces"},
		{"networkpolicy.example.com/v1", "Guard", "shop", "egress ingress of all pods in shop"},
		{"example.com/v1", "Policy", "shop", "none"},
	} {
		text := fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: p, namespace: %q}\nspec: [anything]\n", row.apiVersion, row.kind, row.namespace)
		m := read(t, text)
		got := "none"
		if len(m.Warnings) > 0 {
			got = "warning"
		}
		for _, p := range m.Policies {
			got = ""
			for _, d := range policies.Directions {
				if p.Governs[d] {
					got += d.String() + " "
				}
			}
			got += "of " + p.Subject.String()
			if p.Opaque == "" || p.Tier != "" || len(m.Warnings) != 1 {
				t.Errorf("%s %s: not opaque, or without a warning: %+v", row.apiVersion, row.kind, m)
			}
		}
		if got != row.want {
			t.Errorf("%s %s: got %q, want %q", row.apiVersion, row.kind, got, row.want)
		}
	}
}

func TestForeignWarnings(t *testing.T) {
	m := read(t, `
{apiVersion: cilium.io/v2, kind: CiliumNetworkPolicy, metadata: {name: db, namespace: shop}}
---
{apiVersion: k8s.cni.cncf.io/v1beta1, kind: MultiNetworkPolicy, metadata: {name: web, namespace: shop}}
`)
	want := "[a.yaml:2:1: CiliumNetworkPolicy shop/db is not understood; answers about pods in namespace shop are unknown" +
		" a.yaml:4:1: MultiNetworkPolicy shop/web is left out: it concerns secondary networks only]"
	if got := fmt.Sprint(m.Warnings); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
