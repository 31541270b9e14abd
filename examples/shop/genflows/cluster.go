package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

const clusterName = "shop-prod"

// nodes are the cluster's; node i hands out the pod addresses 10.0.i+1.0/24.
var nodes = [...]string{"node-a", "node-b", "node-c"}

// peer is whatever can be at one end of a flow.
type peer struct {
	endpoint
	ip    string
	node  int // index of the node that a pod runs on; -1 for everything else
	names []string
}

func (p peer) isPod() bool { return p.node >= 0 }

// seenFrom returns the endpoint as the node reports it.
func (p peer) seenFrom(node int) endpoint {
	e := p.endpoint
	if p.node != node {
		e.ID, e.Workloads = 0, nil
	}
	return e
}

// cluster has the pods of every workload, by "namespace/workload".
type cluster map[string][]peer

// newCluster makes the pods that the manifests in ../deploy ask for, and two that
// nothing there asks for: a workload since deleted, and somebody else's.
func newCluster(rng *rand.Rand) cluster {
	c := cluster{}
	hosts := [len(nodes)]int{}
	for i, w := range []struct {
		namespace, name, kind string
		owner                 string // of a Deployment the ReplicaSet, of a CronJob the Job
		pods, firstNode       int
	}{
		{"kube-system", "coredns", "Deployment", "coredns-668d6bf9bc", 2, 0},
		{"storefront", "gateway", "Deployment", "gateway-7c9f64b8d4", 2, 1},
		{"storefront", "web", "Deployment", "web-5b8c7d9f6c", 3, 0},
		{"storefront", "catalog", "Deployment", "catalog-86f4d7b5c9", 2, 1},
		{"storefront", "cart", "Deployment", "cart-6d79c8b4f5", 2, 2},
		{"storefront", "cache", "Deployment", "cache-74c5b9d8f6", 1, 0},
		{"payments", "orders", "Deployment", "orders-6b4f9c7d58", 2, 0},
		{"payments", "api", "Deployment", "api-8d5f7c6b94", 2, 1},
		{"payments", "settlement", "CronJob", "settlement-29551830", 1, 2},
		{"payments", "db", "StatefulSet", "", 2, 0},
		{"platform", "prometheus", "StatefulSet", "", 1, 2},
		{"platform", "grafana", "Deployment", "grafana-5f7b8c6d9d", 1, 1},
		{"platform", "node-exporter", "DaemonSet", "node-exporter", 3, 0},
		{"platform", "scanner", "CronJob", "scanner-29551875", 1, 0},
		{"storefront", "recommendations", "Deployment", "recommendations-6c8d9f7b45", 1, 0},
		{"marketing", "blog", "Deployment", "blog-7d6b5c9f84", 1, 2},
	} {
		labels := []string{
			"k8s:app=" + w.name,
			"k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=" + w.namespace,
			"k8s:io.cilium.k8s.policy.cluster=" + clusterName,
			"k8s:io.cilium.k8s.policy.serviceaccount=default",
			"k8s:io.kubernetes.pod.namespace=" + w.namespace,
		}
		switch {
		case w.name == "coredns":
			labels[0] = "k8s:k8s-app=kube-dns"
			labels[3] = "k8s:io.cilium.k8s.policy.serviceaccount=coredns"
		case w.kind == "CronJob":
			labels = append(labels, "k8s:job-name="+w.owner)
		}
		if w.namespace == "storefront" || w.namespace == "payments" || w.namespace == "platform" {
			labels = append(labels, "k8s:io.cilium.k8s.namespace.labels.monitoring=enabled")
		}
		slices.Sort(labels)
		for n := range w.pods {
			name := fmt.Sprintf("%s-%d", w.name, n)
			if w.kind != "StatefulSet" {
				name = w.owner + "-" + suffix(rng)
			}
			node := (w.firstNode + n) % len(nodes)
			hosts[node]++
			key := w.namespace + "/" + w.name
			c[key] = append(c[key], peer{
				endpoint: endpoint{
					ID:          100 + rng.IntN(3900),
					Identity:    10240 + 977*i,
					ClusterName: clusterName,
					Namespace:   w.namespace,
					Labels:      labels,
					PodName:     name,
					Workloads:   []workload{{w.name, w.kind}},
				},
				ip:   fmt.Sprintf("10.0.%d.%d", node+1, 20+7*hosts[node]),
				node: node,
			})
		}
	}
	return c
}

// suffix returns five letters as Kubernetes ends the names of pods with.
func suffix(rng *rand.Rand) string {
	const letters = "bcdfghjklmnpqrstvwxz2456789"
	s := make([]byte, 5)
	for i := range s {
		s[i] = letters[rng.IntN(len(letters))]
	}
	return string(s)
}

// host is the node as a pod on it sees it: where the kubelet's probes come from.
func host(node int) peer {
	return peer{
		endpoint: endpoint{Identity: 1, Labels: []string{"reserved:host"}},
		ip:       fmt.Sprintf("10.0.%d.1", node+1),
		node:     -1,
	}
}

func world(ip string) peer {
	return peer{endpoint: endpoint{Identity: 2, Labels: []string{"reserved:world"}}, ip: ip, node: -1}
}

// provider is a machine of the payment provider, in the range that a policy names.
func provider(last int) peer {
	return peer{
		endpoint: endpoint{Identity: 1<<24 + 1, Labels: []string{"cidr:203.0.113.0/24", "reserved:world"}},
		ip:       fmt.Sprintf("203.0.113.%d", last),
		node:     -1,
		names:    []string{"api.provider.example"},
	}
}
