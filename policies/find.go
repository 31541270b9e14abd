package policies

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies/netset"
)

// Target is what a question names as one end of a connection: pods, a Service
// that leads to pods, a node, or addresses outside.
type Target struct {
	Text    string
	Pods    []int    // indexes of World.Pods
	Service *Service // the Service by which the pods were named; nil otherwise
	Nodes   []int    // indexes of World.Nodes
	// Address is the one by which the pod or node was named; invalid otherwise.
	Address   netip.Addr
	Addresses netset.Addresses
}

// kinds are the kinds a question may name, by the words kubectl knows them by.
var kinds = map[string]string{
	"pod": "Pod", "po": "Pod", "pods": "Pod",
	"deployment": "Deployment", "deploy": "Deployment", "deployments": "Deployment",
	"statefulset": "StatefulSet", "sts": "StatefulSet", "statefulsets": "StatefulSet",
	"daemonset": "DaemonSet", "ds": "DaemonSet", "daemonsets": "DaemonSet",
	"replicaset": "ReplicaSet", "rs": "ReplicaSet", "replicasets": "ReplicaSet",
	"replicationcontroller": "ReplicationController", "rc": "ReplicationController",
	"job": "Job", "jobs": "Job", "cronjob": "CronJob", "cj": "CronJob", "cronjobs": "CronJob",
	"service": "Service", "svc": "Service", "services": "Service",
	"networkset": "NetworkSet", "networksets": "NetworkSet",
}

// clusterKinds are those whose objects have no namespace.
var clusterKinds = map[string]string{
	"node": "Node", "no": "Node", "nodes": "Node",
	"globalnetworkset": "GlobalNetworkSet", "globalnetworksets": "GlobalNetworkSet",
	"hostendpoint": "HostEndpoint", "hostendpoints": "HostEndpoint", "hep": "HostEndpoint",
}

// Find resolves "ns/pod", "ns/workload", "ns/kind/name", "ns/svc/name",
// "node/name", an address, a CIDR, or "world" for everything outside. The address
// of a Service is the Service, for policies never see that address. What
// "ns/networkset/name" and "globalnetworkset/name" mean is their addresses; what
// "hostendpoint/name" means is its node. It fails where the world
// has no such thing, naming what comes near, and where the name is ambiguous.
func (w *World) Find(text string) (Target, error) {
	if text == "world" {
		return Target{Text: text, Addresses: netset.EveryAddress()}, nil
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return w.findAddress(text, a.Unmap().WithZone(""))
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		return Target{Text: text, Addresses: netset.Prefix(p)}, nil
	}
	parts := strings.Split(text, "/")
	if _, err := netip.ParseAddr(parts[0]); err == nil {
		return Target{}, fmt.Errorf("%q is not a CIDR such as 10.0.0.0/8 or 2001:db8::/32", text)
	}
	switch {
	case slices.Contains(parts, "") || len(parts) < 2 || len(parts) > 3:
		return Target{}, fmt.Errorf("%q is none of namespace/name, namespace/kind/name, an address, a CIDR or world", text)
	case w.isClusterWide(parts):
		return w.findClusterWide(text, clusterKinds[strings.ToLower(parts[0])], parts[1])
	case !w.hasNamespace(parts[0]):
		return Target{}, fmt.Errorf("%q: there is no namespace %s%s", text, parts[0], Near(parts[0], w.namespaceNames()))
	case len(parts) == 2:
		return w.findNamed(text, parts[0], "", parts[1])
	}
	kind, ok := kinds[strings.ToLower(parts[1])]
	if !ok {
		return Target{}, fmt.Errorf("%q: kind %s is none of pod, deployment, statefulset, daemonset, replicaset, replicationcontroller, job, cronjob, svc, networkset", text, parts[1])
	}
	switch kind {
	case "Service":
		return w.findService(text, parts[0], parts[2])
	case "NetworkSet":
		return w.findSet(text, Ref{CalicoGroup, kind, parts[0], parts[2]})
	}
	return w.findNamed(text, parts[0], kind, parts[2])
}

func (w *World) hasNamespace(name string) bool {
	return slices.ContainsFunc(w.Namespaces, func(n Namespace) bool { return n.Name == name })
}

// isClusterWide reports whether the parts of a name are a kind without
// namespaces and a name, rather than a namespace and a name.
func (w *World) isClusterWide(parts []string) bool {
	return len(parts) == 2 && clusterKinds[strings.ToLower(parts[0])] != "" && !w.hasNamespace(parts[0])
}

func (w *World) findClusterWide(text, kind, name string) (Target, error) {
	if kind == "GlobalNetworkSet" {
		return w.findSet(text, Ref{Group: CalicoGroup, Kind: kind, Name: name})
	}
	var names []string
	node := name
	if kind == "HostEndpoint" {
		node = ""
		for i := range w.Hosts {
			names = append(names, w.Hosts[i].Ref.Name)
			if w.Hosts[i].Ref.Name == name {
				node = w.Hosts[i].Node
			}
		}
		if node == "" {
			return Target{}, fmt.Errorf("%q: there is no %s %s%s", text, kind, name, Near(name, names))
		}
	}
	names = nil
	for i := range w.Nodes {
		names = append(names, w.Nodes[i].Name)
		if w.Nodes[i].Name == node {
			return Target{Text: text, Nodes: []int{i}}, nil
		}
	}
	return Target{}, fmt.Errorf("%q: there is no Node %s%s", text, node, Near(node, names))
}

func (w *World) findSet(text string, ref Ref) (Target, error) {
	var names []string
	for i := range w.Sets {
		if w.Sets[i].Ref == ref {
			if len(w.Sets[i].Nets) == 0 {
				return Target{}, fmt.Errorf("%q: the set at %s has no addresses", text, w.Sets[i].Place)
			}
			return Target{Text: text, Addresses: netset.Prefixes(w.Sets[i].Nets...)}, nil
		}
		if w.Sets[i].Ref.Namespace == ref.Namespace {
			names = append(names, w.Sets[i].Ref.Name)
		}
	}
	return Target{}, fmt.Errorf("%q: there is no %s %s%s", text, ref.Kind, ref, Near(ref.Name, names))
}

func (w *World) findAddress(text string, a netip.Addr) (Target, error) {
	for i := range w.Nodes {
		if slices.Contains(w.Nodes[i].Addresses, a) {
			return Target{Text: text, Nodes: []int{i}, Address: a}, nil
		}
	}
	for i := range w.Pods {
		if slices.Contains(w.Pods[i].Addresses, a) {
			return Target{Text: text, Pods: []int{i}, Address: a}, nil
		}
	}
	for _, s := range w.Services {
		if slices.Contains(s.ClusterIP, a) {
			return w.findService(text, s.Ref.Namespace, s.Ref.Name)
		}
	}
	return Target{Text: text, Addresses: netset.Prefix(netip.PrefixFrom(a, a.BitLen()))}, nil
}

func (w *World) findNamed(text, namespace, kind, name string) (Target, error) {
	found := map[Ref][]int{}
	for i := range w.Pods {
		p := &w.Pods[i]
		for _, r := range []Ref{p.Ref, p.Workload} {
			if r.Namespace == namespace && r.Name == name && (kind == "" || r.Kind == kind) && !slices.Contains(found[r], i) {
				found[r] = append(found[r], i)
			}
		}
	}
	switch len(found) {
	case 0:
		what := "pod or workload"
		if kind != "" {
			what = kind
		}
		return Target{}, fmt.Errorf("%q: namespace %s has no %s %s%s", text, namespace, what, name, Near(name, w.workloadNames(namespace)))
	case 1:
		for _, pods := range found {
			return Target{Text: text, Pods: pods}, nil
		}
	}
	var choices []string
	for r := range found {
		choices = append(choices, namespace+"/"+strings.ToLower(r.Kind)+"/"+name)
	}
	slices.Sort(choices)
	return Target{}, fmt.Errorf("%q is ambiguous: say %s", text, strings.Join(choices, " or "))
}

func (w *World) findService(text, namespace, name string) (Target, error) {
	for i := range w.Services {
		s := &w.Services[i]
		if s.Ref.Namespace != namespace || s.Ref.Name != name {
			continue
		}
		if s.External != "" {
			return Target{}, fmt.Errorf("%q: %s, so it cannot be resolved to pods; name an address instead", text, s.External)
		}
		if len(s.Pods) == 0 {
			return Target{}, fmt.Errorf("%q: the selector of the Service at %s matches no pod", text, s.Place)
		}
		return Target{Text: text, Pods: s.Pods, Service: s}, nil
	}
	var names []string
	for _, s := range w.Services {
		if s.Ref.Namespace == namespace {
			names = append(names, s.Ref.Name)
		}
	}
	return Target{}, fmt.Errorf("%q: namespace %s has no Service %s%s", text, namespace, name, Near(name, names))
}

func (w *World) namespaceNames() []string {
	var names []string
	for _, n := range w.Namespaces {
		names = append(names, n.Name)
	}
	return names
}

func (w *World) workloadNames(namespace string) []string {
	var names []string
	for i := range w.Pods {
		if r := w.Pods[i].Workload; r.Namespace == namespace {
			names = append(names, r.Name)
		}
	}
	return names
}

// Near returns the hint "; near it are a, b" with up to five of the names, those
// most like name first, or nothing where there are none.
func Near(name string, names []string) string {
	names = slices.Compact(slices.Sorted(slices.Values(names)))
	slices.SortStableFunc(names, func(a, b string) int { return Distance(name, a) - Distance(name, b) })
	if len(names) == 0 {
		return ""
	}
	are := "are"
	if len(names) == 1 {
		are = "is"
	}
	return "; near it " + are + " " + strings.Join(names[:min(5, len(names))], ", ")
}

// PortQuery is the port of a question: a set of ports, or a port name.
type PortQuery struct {
	Ports netset.Ports
	Name  string
}

// ParsePort reads "5432" (TCP), "UDP/53", "TCP/8000-8100", "SCTP/9003",
// "ICMP" for all of its types, "ICMP/8" for one, "ICMP/3/4" for one with a code,
// a port's name, or "any" for all of TCP, UDP and SCTP.
func ParsePort(text string) (PortQuery, error) {
	if text == "any" {
		return PortQuery{Ports: netset.TransportPorts()}, nil
	}
	protocol, port, split := strings.Cut(text, "/")
	if !split {
		protocol, port = "TCP", text
		if p, err := netset.ParseProtocol(text); err == nil && !isDigits(text) {
			switch p {
			case netset.TCP, netset.UDP, netset.SCTP:
				return PortQuery{Ports: netset.PortSpan(p, 1, 65535)}, nil
			case netset.ICMP, netset.ICMPv6:
				return PortQuery{Ports: netset.EveryPort(p)}, nil
			}
			return PortQuery{Ports: netset.PortSpan(p, 0, 0)}, nil
		}
		if !isDigits(strings.ReplaceAll(text, "-", "")) {
			return namedPort(text)
		}
	}
	p, err := netset.ParseProtocol(protocol)
	if err != nil {
		return PortQuery{}, fmt.Errorf("port %q: %w", text, err)
	}
	if p == netset.ICMP || p == netset.ICMPv6 {
		return parseICMP(text, p, port)
	}
	first, last, isRange := strings.Cut(port, "-")
	if !isRange {
		last = first
	}
	low, err := portNumber(first)
	if err != nil {
		return PortQuery{}, fmt.Errorf("port %q: %w", text, err)
	}
	high, err := portNumber(last)
	if err != nil {
		return PortQuery{}, fmt.Errorf("port %q: %w", text, err)
	}
	if high < low {
		return PortQuery{}, fmt.Errorf("port %q: the range ends before it begins", text)
	}
	return PortQuery{Ports: netset.PortSpan(p, low, high)}, nil
}

// parseICMP reads a type of ICMP, or a type and a code: "8", "3/4", or as flows
// have it, type*256 + code.
func parseICMP(text string, p netset.Protocol, port string) (PortQuery, error) {
	kind, code, hasCode := strings.Cut(port, "/")
	t, errType := strconv.ParseUint(kind, 10, 16)
	c, errCode := uint64(0), error(nil)
	if hasCode {
		c, errCode = strconv.ParseUint(code, 10, 8)
	}
	switch {
	case errType != nil || errCode != nil || hasCode && t > 255:
		return PortQuery{}, fmt.Errorf("port %q: %s has types, and codes, from 0 to 255, as in %[2]s/8 or %[2]s/3/4", text, p)
	case hasCode:
		return PortQuery{Ports: netset.ICMPTypes(p, uint8(t), uint8(c), uint8(c))}, nil
	case t > 255:
		return PortQuery{Ports: netset.PortSpan(p, uint16(t), uint16(t))}, nil
	}
	return PortQuery{Ports: netset.ICMPTypes(p, uint8(t), 0, 255)}, nil
}

func namedPort(name string) (PortQuery, error) {
	for _, c := range name {
		if !(c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z') {
			return PortQuery{}, fmt.Errorf("port %q is none of 5432, UDP/53, TCP/8000-8100, a port's name, any", name)
		}
	}
	if name == "" {
		return PortQuery{}, fmt.Errorf("the port is empty: give 5432, UDP/53, TCP/8000-8100, a port's name, or any")
	}
	return PortQuery{Name: name}, nil
}

func isDigits(text string) bool {
	for _, c := range text {
		if c < '0' || c > '9' {
			return false
		}
	}
	return text != ""
}

func portNumber(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return 0, fmt.Errorf("%q is not a number", text)
	}
	if n < 1 || n > 65535 {
		return 0, fmt.Errorf("%d is not between 1 and 65535", n)
	}
	return uint16(n), nil
}
