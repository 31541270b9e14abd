package cis.namespaces_have_policies_test

import data.cis.namespaces_have_policies as checked

shop := {"name": "shop", "labels": {}}

web := {
	"namespace": "shop", "name": "web", "kind": "Pod",
	"workload": {"namespace": "shop", "name": "web", "kind": "Pod"},
	"hostNetwork": false, "ingressIsolated": false,
}

test_a_namespace_without_a_policy if {
	checked.deny == {{"msg": "namespace shop has pods and no network policy", "from": "shop/pod/web"}} with data.weir.world as {
		"namespaces": [shop], "pods": [web], "policies": [],
	}
}

test_a_namespace_with_a_policy if {
	count(checked.deny) == 0 with data.weir.world as {
		"namespaces": [shop], "pods": [web], "policies": [{"namespace": "shop"}],
	}
}

test_a_cluster_wide_policy_that_isolates if {
	count(checked.deny) == 0 with data.weir.world as {
		"namespaces": [shop], "pods": [object.union(web, {"ingressIsolated": true})], "policies": [{"namespace": ""}],
	}
}

test_a_namespace_without_pods if {
	count(checked.deny) == 0 with data.weir.world as {"namespaces": [shop], "pods": [], "policies": []}
}

test_system_namespaces_are_exempt if {
	count(checked.deny) == 0 with data.weir.world as {
		"namespaces": [object.union(shop, {"labels": {"weir.dev/system": "true"}})], "pods": [web], "policies": [],
	}
}
