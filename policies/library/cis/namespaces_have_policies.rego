# METADATA
# title: Every namespace with pods has a network policy
# description: CIS Kubernetes Benchmark 5.3.2. Namespaces labelled weir.dev/system, and those of data.cis.system, are exempt.
# related_resources:
# - https://www.cisecurity.org/benchmark/kubernetes
# custom:
#   severity: warn
package cis.namespaces_have_policies

import data.weir.world

deny contains {"msg": msg, "from": pod} if {
	some namespace in world.namespaces
	not exempt(namespace)
	not namespace.name in with_policy
	pod := sort(pods[namespace.name])[0]
	msg := sprintf("namespace %s has pods and no network policy", [namespace.name])
}

exempt(namespace) if namespace.name in data.cis.system

exempt(namespace) if namespace.labels["weir.dev/system"] == "true"

# A policy counts in its own namespace; a cluster-wide one where it isolates a pod.
with_policy contains policy.namespace if some policy in world.policies

with_policy contains pod.namespace if {
	some pod in world.pods
	pod.ingressIsolated
}

pods[pod.namespace] contains sprintf("%s/pod/%s", [pod.namespace, pod.name]) if {
	some pod in world.pods
	pod.kind == "Pod"
	not pod.hostNetwork
}

pods[pod.namespace] contains sprintf("%s/%s/%s", [pod.namespace, lower(pod.workload.kind), pod.workload.name]) if {
	some pod in world.pods
	pod.kind != "Pod"
	not pod.hostNetwork
}
