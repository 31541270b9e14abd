package reach_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"pgregory.net/rapid"

	"go.yaml.in/yaml/v3"
)

// dice draws what random worlds are made of. Lower draws are plainer, so that a
// world that fails shrinks to a plain one.
type dice struct{ *rapid.T }

// between draws each number about as often, as rapid's own ranges do not: they
// favour small numbers.
func (d dice) between(low, high int) int {
	n := 0
	for range 7 {
		n *= 2
		if rapid.Bool().Draw(d.T, "bit") {
			n++
		}
	}
	return low + n*(high-low+1)>>7
}

// chance is true in so many of a hundred cases.
func (d dice) chance(percent int) bool { return d.between(0, 99) >= 100-percent }

func pick[T any](d dice, from ...T) T { return from[d.between(0, len(from)-1)] }

// several draws up to most values.
func several[T any](d dice, most int, draw func() T) []T {
	var all []T
	for range d.between(0, most) {
		all = append(all, draw())
	}
	return all
}

// Everything is drawn from few names and numbers, so that rules often hit.
var (
	protocols  = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
	portNames  = []string{"http", "dns"}
	numbers    = []int32{80, 81, 82, 443, 8080, 65535}
	podCIDRs   = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")}
	blockCIDRs = []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/29", "10.0.0.5/30", "10.0.0.2/32", "172.18.0.0/16", "172.18.0.1/32",
		"203.0.113.0/24", "::/0", "fd00::/64", "fd00::/126", "fd00::3/128", "2001:db8::/32",
	}
	outsiders = []string{"203.0.113.9", "10.0.0.200", "10.9.9.9", "2001:db8::1", "fd00::99"}
)

func drawCluster(d dice) *cluster {
	c := &cluster{ignoreBlocks: d.chance(10)}
	names := []string{"a", "b", "c", "d"}[:d.between(1, 4)]
	for _, name := range names {
		if !d.chance(25) {
			c.namespaces = append(c.namespaces, corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: drawLabels(d, "team", "env")}})
		}
	}
	for i := range d.between(0, 2) {
		c.nodes = append(c.nodes, drawNode(d, i+1))
	}
	if d.chance(30) {
		c.podCIDRs = podCIDRs[:d.between(1, len(podCIDRs))]
	}
	for i := range d.between(1, 8) {
		namespace := pick(d, names...)
		if d.chance(30) {
			c.deployments = append(c.deployments, drawDeployment(d, namespace, i))
		} else {
			c.pods = append(c.pods, drawPod(d, namespace, i))
		}
	}
	c.policies = several(d, 6, func() networkingv1.NetworkPolicy { return drawPolicy(d, pick(d, names...)) })
	for i := range c.policies {
		c.policies[i].Name = fmt.Sprintf("policy-%d", i)
	}
	c.wide = drawWide(d)
	if d.chance(5) {
		c.foreign = append(c.foreign, metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "foreign", Namespace: pick(d, names...)}})
	}
	return c
}

func drawLabels(d dice, keys ...string) map[string]string {
	labels := map[string]string{}
	for _, key := range keys {
		if value := pick(d, "", "x", "y"); value != "" {
			labels[key] = value
		}
	}
	return labels
}

func drawNode(d dice, number int) corev1.Node {
	node := corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("node-%d", number), Labels: drawLabels(d, "role")}}
	for _, form := range []string{"172.18.0.%d", "fd00:18::%d"} {
		if d.chance(60) {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: fmt.Sprintf(form, number)})
		}
	}
	if d.chance(25) {
		for _, address := range pick(d, []string{"203.0.113.1"}, []string{"203.0.113.2", "10.0.0.2"}, []string{"2001:db8::9"}) {
			node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeExternalIP, Address: address})
		}
	}
	return node
}

func drawMeta(d dice, namespace string, number int) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: fmt.Sprintf("w%d", number), Labels: drawLabels(d, "app", "tier")}
}

func drawPod(d dice, namespace string, number int) corev1.Pod {
	pod := corev1.Pod{ObjectMeta: drawMeta(d, namespace, number), Spec: drawPodSpec(d)}
	if d.chance(30) {
		yes := true
		pod.OwnerReferences = []metav1.OwnerReference{{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "set", Controller: &yes}}
	}
	pod.Status.Phase = pick(d, "", corev1.PodRunning, corev1.PodRunning, corev1.PodRunning, corev1.PodPending, corev1.PodSucceeded, corev1.PodFailed)
	if pod.Status.Phase != "" && !pod.Spec.HostNetwork {
		for _, form := range pick(d, []string{"10.0.0.%d"}, []string{"10.0.0.%d", "fd00::%d"}, []string{"fd00::%d"}, []string{"10.0.0.%d", "10.9.0.%d", "fd00::%d"}, nil) {
			pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: fmt.Sprintf(form, number)})
		}
	}
	return pod
}

func drawDeployment(d dice, namespace string, number int) appsv1.Deployment {
	deployment := appsv1.Deployment{ObjectMeta: drawMeta(d, namespace, number)}
	if replicas := int32(d.between(0, 3)); replicas > 0 {
		deployment.Spec.Replicas = &replicas
	}
	deployment.Spec.Template.Labels = drawLabels(d, "app", "tier")
	deployment.Spec.Template.Spec = drawPodSpec(d)
	return deployment
}

func drawPodSpec(d dice) corev1.PodSpec {
	always := corev1.ContainerRestartPolicyAlways
	spec := corev1.PodSpec{
		HostNetwork: d.chance(15),
		NodeName:    pick(d, "", "node-1", "node-2"),
		Containers:  []corev1.Container{{Name: "main", Ports: drawContainerPorts(d)}},
	}
	if spec.HostNetwork && d.chance(30) {
		spec.NodeSelector = map[string]string{"role": pick(d, "x", "y")}
	}
	if d.chance(20) {
		spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: "prepare", Ports: drawContainerPorts(d)})
	}
	if d.chance(20) {
		spec.InitContainers = append(spec.InitContainers, corev1.Container{Name: "sidecar", RestartPolicy: &always, Ports: drawContainerPorts(d)})
	}
	return spec
}

func drawContainerPorts(d dice) []corev1.ContainerPort {
	return several(d, 2, func() corev1.ContainerPort {
		return corev1.ContainerPort{
			Name:          pick(d, append(portNames, "")...),
			ContainerPort: pick(d, numbers...),
			Protocol:      pick(d, append(protocols, "")...),
		}
	})
}

func drawPolicy(d dice, namespace string) networkingv1.NetworkPolicy {
	policy := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace}}
	policy.Spec.PodSelector = drawSelector(d, "app", "tier")
	policy.Spec.PolicyTypes = pick(d, nil, []networkingv1.PolicyType{"Ingress"}, []networkingv1.PolicyType{"Egress"}, []networkingv1.PolicyType{"Ingress", "Egress"})
	policy.Spec.Ingress = several(d, 2, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: drawPeers(d), Ports: drawPolicyPorts(d)}
	})
	policy.Spec.Egress = several(d, 2, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: drawPeers(d), Ports: drawPolicyPorts(d)}
	})
	return policy
}

func drawSelector(d dice, keys ...string) metav1.LabelSelector {
	var s metav1.LabelSelector
	if d.chance(40) {
		s.MatchLabels = map[string]string{pick(d, keys...): pick(d, "x", "y")}
	}
	s.MatchExpressions = several(d, 1, func() metav1.LabelSelectorRequirement {
		r := metav1.LabelSelectorRequirement{Key: pick(d, keys...), Operator: pick(d, metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = pick(d, []string{"x"}, []string{"y", "x"}, []string{"z", "a"})
		}
		return r
	})
	return s
}

func drawPeers(d dice) []networkingv1.NetworkPolicyPeer {
	return several(d, 2, func() networkingv1.NetworkPolicyPeer {
		var peer networkingv1.NetworkPolicyPeer
		form := d.between(0, 4)
		if form >= 3 {
			peer.IPBlock = drawBlock(d)
			return peer
		}
		if form != 1 {
			s := drawSelector(d, "app", "tier")
			peer.PodSelector = &s
		}
		if form != 0 {
			s := drawSelector(d, "team", "env", corev1.LabelMetadataName)
			peer.NamespaceSelector = &s
			if d.chance(30) {
				s.MatchLabels = map[string]string{corev1.LabelMetadataName: pick(d, "a", "b")}
			}
		}
		return peer
	})
}

func drawBlock(d dice) *networkingv1.IPBlock {
	block := &networkingv1.IPBlock{CIDR: pick(d, blockCIDRs...)}
	whole := netip.MustParsePrefix(block.CIDR).Masked()
	for range d.between(0, 2) {
		text := pick(d, blockCIDRs...)
		if part := netip.MustParsePrefix(text); part.Bits() > whole.Bits() && whole.Contains(part.Addr()) {
			block.Except = append(block.Except, text)
		}
	}
	return block
}

func drawPolicyPorts(d dice) []networkingv1.NetworkPolicyPort {
	return several(d, 2, func() networkingv1.NetworkPolicyPort {
		var p networkingv1.NetworkPolicyPort
		if protocol := pick(d, append(protocols, "")...); protocol != "" {
			p.Protocol = &protocol
		}
		switch d.between(0, 4) {
		case 0:
		case 1:
			port := intstr.FromString(pick(d, portNames...))
			p.Port = &port
		default:
			port := intstr.FromInt32(pick(d, numbers...))
			p.Port = &port
			if end := port.IntVal + int32(d.between(0, 2)); d.chance(30) && end <= 65535 {
				p.EndPort = &end
			}
		}
		return p
	})
}

// documents are the objects as YAML, each document by itself.
func (c *cluster) documents() []string {
	var all []string
	for i := range c.namespaces {
		all = append(all, document("v1", "Namespace", &c.namespaces[i]))
	}
	for i := range c.nodes {
		all = append(all, document("v1", "Node", &c.nodes[i]))
	}
	for i := range c.pods {
		all = append(all, document("v1", "Pod", &c.pods[i]))
	}
	for i := range c.deployments {
		all = append(all, document("apps/v1", "Deployment", &c.deployments[i]))
	}
	for i := range c.policies {
		all = append(all, document("networking.k8s.io/v1", "NetworkPolicy", &c.policies[i]))
	}
	for i := range c.wide {
		all = append(all, c.wide[i].document())
	}
	for i := range c.foreign {
		all = append(all, document("cilium.io/v2", "CiliumNetworkPolicy", &c.foreign[i]))
	}
	return all
}

func document(apiVersion, kind string, object any) string {
	text, err := json.Marshal(object)
	if err != nil {
		panic(err)
	}
	fields := map[string]any{}
	if err := json.Unmarshal(text, &fields); err != nil {
		panic(err)
	}
	fields["apiVersion"], fields["kind"] = apiVersion, kind
	if status, ok := fields["status"].(map[string]any); ok && kind == "Node" {
		fields["status"] = map[string]any{"addresses": status["addresses"]}
	}
	text, err = yaml.Marshal(fields)
	if err != nil {
		panic(err)
	}
	return string(text)
}

func (c *cluster) String() string { return strings.Join(c.documents(), "---\n") }
