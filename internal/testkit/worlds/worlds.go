// Package worlds makes synthetic models of any size, for benchmarks and for
// tests that need many objects: the same shape and seed give the same model on
// any machine. Files writes a model as the manifests that it would be read from.
package worlds

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// Shape says how much of what a world has. What there is of a kind is spread
// evenly over what holds it.
type Shape struct {
	Namespaces int
	Workloads  int // Deployments with labels of their own, so that policies can tell them apart
	// Pods is how many real pods there are. Without any, a workload is what a
	// repository holds of it: a template that stands for two.
	Pods     int
	Policies int
	// Closed makes the first policy of each namespace deny what no other allows:
	// in every fourth namespace both ways, with DNS let out by the second; else
	// what comes in. In a world that is not closed, policies only protect
	// single workloads, and most connections are open.
	Closed bool
	// Tiered adds 22 cluster-wide policies, in tiers before and after those of the
	// namespaces and beside them, and gives every pod an IPv6 address, too.
	Tiered bool
}

// The shapes that the benchmarks speak of.
var (
	Cluster5k    = Shape{Namespaces: 100, Workloads: 1_000, Pods: 5_000, Policies: 500, Closed: true}
	Cluster100k  = Shape{Namespaces: 1_000, Workloads: 10_000, Pods: 100_000, Policies: 10_000, Closed: true}
	OneNamespace = Shape{Namespaces: 1, Workloads: 1_000, Pods: 10_000, Policies: 10_000, Closed: true}
	// AllDifferent has no two pods that policies could not tell apart.
	AllDifferent = Shape{Namespaces: 1_000, Workloads: 100_000, Pods: 100_000, Policies: 10_000, Closed: true}
	// Scattered has many small namespaces.
	Scattered = Shape{Namespaces: 25_000, Workloads: 50_000, Pods: 100_000, Policies: 75_000, Closed: true}

	// Tiered100k, Tiered1m and TieredNamespace have policies of every dialect.
	Tiered100k      = Shape{Namespaces: 1_000, Workloads: 10_000, Pods: 100_000, Policies: 10_000, Closed: true, Tiered: true}
	Tiered1m        = Shape{Namespaces: 10_000, Workloads: 100_000, Pods: 1_000_000, Policies: 100_000, Closed: true, Tiered: true}
	TieredNamespace = Shape{Namespaces: 1, Workloads: 1_000, Pods: 10_000, Policies: 10_000, Closed: true, Tiered: true}

	OpenRepository   = Shape{Namespaces: 20, Workloads: 1_000, Policies: 100}
	ClosedRepository = Shape{Namespaces: 20, Workloads: 1_000, Policies: 100, Closed: true}
	PolicyRepository = Shape{Namespaces: 10, Workloads: 100, Policies: 5_000, Closed: true}
)

// Sized returns the shape of an ordinary cluster with this many pods: ten to a
// workload, ten workloads to a namespace. With policies there are ten to a
// namespace, and it is closed; without there are none.
func Sized(pods int, withPolicies bool) Shape {
	s := Shape{Namespaces: max(1, pods/100), Workloads: max(1, pods/10), Pods: pods}
	if withPolicies {
		s.Policies, s.Closed = 10*s.Namespaces, true
	}
	return s
}

// String prints the shape in words: "5000 pods, 500 policies".
func (s Shape) String() string {
	text := fmt.Sprintf("%d pods, %d policies", s.Pods, s.Policies)
	if s.Pods == 0 {
		text = fmt.Sprintf("%d workloads, %d policies", s.Workloads, s.Policies)
	}
	switch {
	case s.Pods > 0 && s.Pods == s.Workloads:
		text += ", all different"
	case s.Namespaces == 1 && s.Pods > 100:
		text += ", one namespace"
	case s.Policies > 0 && !s.Closed:
		text += ", open"
	}
	if s.Tiered {
		text += ", every dialect"
	}
	return text
}

// tiers are those of every model. All policies are NetworkPolicies, in the
// middle one.
func tiers() []policies.Tier {
	return []policies.Tier{
		{Name: "kube-admin", End: policies.ActionPass},
		{
			Name:          tier,
			End:           policies.ActionDeny,
			Undefined:     netset.AllTraffic().Minus(netset.EveryPort(netset.Transports[:]...)),
			SparesOwnNode: true,
		},
		{Name: "kube-baseline", End: policies.ActionPass},
	}
}

const tier = "default"

// PodCIDR holds the address of every pod, and PodCIDR6 its IPv6 address.
var (
	PodCIDR  = netip.MustParsePrefix("10.0.0.0/8")
	PodCIDR6 = netip.MustParsePrefix("fd00:10::/64")
)

// Model returns the model of a shape. Policies and pods are in the order in
// which package k8s would give them; places are left out.
func (s Shape) Model(seed uint64) *policies.Model {
	m := &policies.Model{Tiers: tiers()}
	m.PodCIDRs = []netip.Prefix{PodCIDR}
	if s.Tiered {
		m.Tiers = allTiers()
		m.PodCIDRs = append(m.PodCIDRs, PodCIDR6)
		m.Sets = networkSets()
		m.Policies = clusterWide()
	}
	m.Namespaces = append(m.Namespaces, namespace("kube-system", "platform", "prod"))
	m.Pods = append(m.Pods, s.dns())
	for n := range s.Namespaces {
		m.Namespaces = append(m.Namespaces, namespace(namespaceName(n), fmt.Sprintf("team-%d", n%50), environments[n%len(environments)]))
	}
	for w := range s.Workloads {
		m.Pods = append(m.Pods, s.workload(w)...)
	}
	w := writer{rand.New(rand.NewPCG(seed, 0)), s, max(1, s.Workloads/s.Namespaces)}
	for i := range s.Policies {
		m.Policies = append(m.Policies, w.policy(i%s.Namespaces, i/s.Namespaces))
	}
	slices.SortFunc(m.Namespaces, func(a, b policies.Namespace) int { return strings.Compare(a.Name, b.Name) })
	slices.SortFunc(m.Pods, func(a, b policies.Pod) int { return a.Ref.Compare(b.Ref) })
	slices.SortFunc(m.Policies, func(a, b policies.Policy) int { return a.Ref.Compare(b.Ref) })
	return m
}

var (
	environments = []string{"prod", "staging", "dev"}
	layers       = []string{"web", "api", "worker", "cache", "db"}
	ports        = []uint16{80, 443, 3306, 5432, 5672, 6379, 8080, 8443, 9090, 9200, 9092, 27017}
	blocks       = []netset.Block{
		{CIDR: netip.MustParsePrefix("0.0.0.0/0"), Except: []netip.Prefix{
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
		}},
		{CIDR: netip.MustParsePrefix("192.0.2.0/24")},
		{CIDR: netip.MustParsePrefix("198.51.100.0/25")},
		{CIDR: netip.MustParsePrefix("203.0.113.8/32")},
		{CIDR: netip.MustParsePrefix("172.20.0.0/16")},
		{CIDR: netip.MustParsePrefix("2001:db8::/32")},
	}
)

func namespaceName(n int) string { return fmt.Sprintf("ns-%04d", n) }

// appName is the name of the i-th workload of a namespace, and of its label.
func appName(i int) string { return fmt.Sprintf("app-%03d", i) }

func namespace(name, team, environment string) policies.Namespace {
	return policies.Namespace{Name: name, Labels: map[string]string{policies.NameLabel: name, "team": team, "env": environment}}
}

func (s Shape) dns() policies.Pod {
	ref := policies.Ref{Kind: "Deployment", Namespace: "kube-system", Name: "coredns"}
	p := policies.Pod{
		Ref: ref, Workload: ref, Replicas: 2, ServiceAccount: "default",
		Labels: map[string]string{"k8s-app": "kube-dns"},
		Ports:  []policies.ContainerPort{{Name: "dns", Protocol: netset.UDP, Number: 53}},
	}
	if s.Pods > 0 {
		p.Ref, p.Replicas = policies.Ref{Kind: "Pod", Namespace: ref.Namespace, Name: "coredns-6d4b75cb6d-x8zqm"}, 1
		p.Labels["pod-template-hash"] = "6d4b75cb6d"
		p.Addresses = []netip.Addr{netip.MustParseAddr("10.255.0.10")}
	}
	return p
}

// workload returns the pods of the i-th workload, or its template.
func (s Shape) workload(i int) []policies.Pod {
	number := i / s.Namespaces
	ref := policies.Ref{Kind: "Deployment", Namespace: namespaceName(i % s.Namespaces), Name: appName(number)}
	template := policies.Pod{
		Ref: ref, Workload: ref, Replicas: 2, ServiceAccount: "default",
		Labels: map[string]string{
			"app": ref.Name, "layer": layers[number%len(layers)],
			"version": fmt.Sprintf("v%d", i%7), "app.kubernetes.io/managed-by": "helm",
		},
		Ports: []policies.ContainerPort{
			{Name: "http", Protocol: netset.TCP, Number: 8080 + uint16(number%3)},
			{Name: "metrics", Protocol: netset.TCP, Number: 9090},
		},
	}
	if s.Pods == 0 {
		return []policies.Pod{template}
	}
	hash := fmt.Sprintf("%010x", i)
	template.Labels["pod-template-hash"] = hash
	template.Replicas = 1
	var pods []policies.Pod
	for p := i; p < s.Pods; p += s.Workloads {
		pod := template
		pod.Ref = policies.Ref{Kind: "Pod", Namespace: ref.Namespace, Name: fmt.Sprintf("%s-%s-%05d", ref.Name, hash, len(pods))}
		pod.Addresses = []netip.Addr{netip.AddrFrom4([4]byte{10, byte(p >> 16), byte(p >> 8), byte(p)})}
		if s.Tiered {
			address := PodCIDR6.Addr().As16()
			address[13], address[14], address[15] = byte(p>>16), byte(p>>8), byte(p)
			pod.Addresses = append(pod.Addresses, netip.AddrFrom16(address))
		}
		pods = append(pods, pod)
	}
	return pods
}

// writer makes up policies.
type writer struct {
	*rand.Rand
	Shape
	apps int // in each namespace
}

// policy returns the i-th policy of a namespace.
func (w writer) policy(n, i int) policies.Policy {
	p := policies.Policy{
		Ref:     policies.Ref{Kind: "NetworkPolicy", Namespace: namespaceName(n), Name: fmt.Sprintf("policy-%05d", i)},
		Tier:    tier,
		Subject: inNamespace(n, selector.Everything()),
	}
	strict := w.Closed && n%4 == 0
	switch {
	case w.Closed && i == 0:
		p.Governs = [2]bool{policies.Egress: strict, policies.Ingress: true}
		return p
	case strict && i == 1:
		dns := policies.Match{Namespaces: selector.Label(policies.NameLabel, "kube-system"), Pods: selector.Label("k8s-app", "kube-dns")}
		grant(&p, policies.Egress, netset.PortSpan(netset.TCP, 53, 53).Union(netset.PortSpan(netset.UDP, 53, 53)), dns)
		return p
	}
	p.Subject.Pods = w.app()
	chance := w.IntN(100)
	if !w.Closed {
		chance %= 75 // one egress rule would close all other egress of its subject
	}
	switch {
	case chance < 40:
		grant(&p, policies.Ingress, w.port(), inNamespace(n, w.app()))
	case chance < 60:
		team := selector.Label("team", fmt.Sprintf("team-%d", w.IntN(50)))
		grant(&p, policies.Ingress, w.port().Union(w.port()), policies.Match{Namespaces: team, Pods: selector.Label("layer", layers[w.IntN(len(layers))])})
	case chance < 70:
		several, _ := selector.New([]selector.Requirement{{Key: "env", Operator: selector.NotIn, Values: environments[1+w.IntN(2):]}})
		grant(&p, policies.Ingress, netset.PortSpan(netset.TCP, 9090, 9099), policies.Match{Namespaces: several, Pods: selector.Everything()})
	case chance < 75:
		grant(&p, policies.Ingress, netset.Ports{}, inNamespace(n, w.app()))
		p.Rules[policies.Ingress][0].Named = []policies.NamedPort{{Protocol: netset.TCP, Name: "http"}}
	case chance < 90:
		grant(&p, policies.Egress, w.port(), inNamespace(n, w.app()))
	default:
		grant(&p, policies.Egress, w.port(), policies.Match{Block: blocks[w.IntN(len(blocks))]})
	}
	return p
}

func (w writer) app() selector.Selector { return selector.Label("app", appName(w.IntN(w.apps))) }

func (w writer) port() netset.Ports {
	port := ports[w.IntN(len(ports))]
	return netset.PortSpan(netset.TCP, port, port)
}

func inNamespace(n int, pods selector.Selector) policies.Match {
	return policies.Match{Namespaces: selector.Label(policies.NameLabel, namespaceName(n)), Pods: pods}
}

func grant(p *policies.Policy, d policies.Direction, ports netset.Ports, peer policies.Match) {
	p.Governs[d] = true
	p.Rules[d] = []policies.Rule{{Action: policies.ActionAllow, Peers: []policies.Match{peer}, Ports: ports}}
}
