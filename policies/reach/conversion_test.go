package reach_test

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// converted converts all policies of a text that lead to the target, and checks
// that everything is decided as before.
func converted(t rapid.TB, text string, to k8s.Target, podCIDRs ...netip.Prefix) *k8s.Conversion {
	docs, err := k8s.Parse("world.yaml", []byte(text))
	if err != nil {
		t.Fatalf("parse: %v\n%s", err, text)
	}
	c, err := k8s.Convert(docs, k8s.Options{PodCIDRs: podCIDRs}, to, "converted.yaml", nil)
	if err != nil {
		t.Fatalf("to %s: %v\n%s", to, err, text)
	}
	base, head := reach.Pair(c.Before, c.After, reach.Options{})
	for s := range reach.CompareAll(base, head) {
		t.Fatalf("to %s: %s to %s on %s was %s and is %s after\n%s\n%s", to, s.From, s.To, s.Ports, s.Before, s.After, c.YAML, text)
	}
	for i := range c.Before.Nodes {
		for k := range c.Before.Pods {
			for _, p := range points {
				for _, ends := range [][2]reach.End{{base.Pod(k), base.Node(i)}, {base.Node(i), base.Pod(k)}} {
					before := base.Verdict(ends[0], ends[1], p.protocol, p.port)
					if after := head.Verdict(ends[0], ends[1], p.protocol, p.port); after != before {
						t.Fatalf("to %s: pod %s and a node on %v: was %s and is %s\n%s\n%s", to, c.Before.Pods[k].Ref, p, before, after, c.YAML, text)
					}
				}
			}
		}
	}
	return c
}

// refused returns what could not be carried over.
func refused(c *k8s.Conversion) []string {
	var all []string
	for _, p := range c.Policies {
		for _, l := range p.Lost {
			all = append(all, p.From.String()+": "+l.Because)
		}
	}
	return all
}

// others returns the documents of the text but for those of some kind.
func others(text, apiVersion string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(text, "---\n"), func(document string) bool {
		return strings.Contains("\n"+document, "\napiVersion: "+apiVersion+"\n")
	}), "---\n")
}

func TestClusterWidePoliciesAreConverted(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := drawCluster(dice{t})
		c := converted(t, cluster.String(), k8s.ToClusterNetworkPolicy, cluster.podCIDRs...)
		for _, lost := range refused(c) {
			if !strings.Contains(lost, "has a field that is not known") && !strings.Contains(lost, "already, at") {
				t.Fatalf("lost: %s\n%s", lost, cluster)
			}
		}
	})
}

// A NetworkPolicy that becomes one of Calico, and comes back, says the same of
// every peer and port.
func TestNetworkPoliciesGoToCalicoAndBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cluster := drawCluster(dice{t})
		text := cluster.String()
		there := converted(t, text, k8s.ToCalico, cluster.podCIDRs...)
		if lost := refused(there); lost != nil {
			t.Fatalf("lost: %s\n%s", lost, text)
		}
		if len(there.Policies) == 0 {
			return
		}
		elsewhere := others(text, "networking.k8s.io/v1")
		back := converted(t, elsewhere+"---\n"+string(there.YAML), k8s.ToNetworkPolicy, cluster.podCIDRs...)
		if lost := refused(back); lost != nil {
			t.Fatalf("lost on the way back: %s\n%s\n%s", lost, there.YAML, text)
		}
		if d := cmp.Diff(sayings(there.Before), sayings(back.After)); d != "" {
			t.Fatalf("(-there +back):\n%s\n%s\n%s\n%s", d, text, there.YAML, back.YAML)
		}
	})
}

// sayings lists what NetworkPolicies say, however it is spread over rules: each
// peer with all of its ports.
func sayings(m *policies.Model) map[string]string {
	type granted struct {
		numbers netset.Ports
		names   map[policies.NamedPort]bool
	}
	said := map[string]string{}
	for i := range m.Policies {
		p := &m.Policies[i]
		if p.Ref.Kind != "NetworkPolicy" {
			continue
		}
		said[p.Ref.String()] = fmt.Sprintf("%s, governs %v", p.Subject, p.Governs)
		for _, d := range policies.Directions {
			all := map[string]granted{}
			for _, rule := range p.Rules[d] {
				for _, peer := range rule.Peers {
					peer.Namespaces = withoutName(peer.Namespaces)
					peer.Block.Except = slices.Compact(slices.Clone(peer.Block.Except))
					key := fmt.Sprintf("%s: %s %s", p.Ref, d, peer)
					g := granted{all[key].numbers.Union(rule.Ports), maps.Clone(all[key].names)}
					if g.names == nil {
						g.names = map[policies.NamedPort]bool{}
					}
					for _, n := range rule.Named {
						g.names[n] = true
					}
					all[key] = g
				}
			}
			for key, g := range all {
				// A name says nothing beside all of its protocol.
				maps.DeleteFunc(g.names, func(n policies.NamedPort, _ bool) bool {
					return netset.EveryPort(n.Protocol).Minus(g.numbers).IsEmpty()
				})
				said[key] = fmt.Sprint(g.numbers.Intersect(netset.EveryConnection()), g.names)
			}
		}
	}
	return said
}

// withoutName leaves out that a namespace has a name, which all namespaces do.
func withoutName(s selector.Selector) selector.Selector {
	all := []selector.Selector{selector.Everything()}
	for _, r := range s.Requirements() {
		if r.Key != policies.NameLabel || r.Operator != selector.Exists {
			all = append(all, selector.Where(r.Key, r.Operator, r.Values...))
		}
	}
	if s.IsNothing() {
		return s
	}
	return selector.And(all...)
}

// Of random policies of Calico, those that can become NetworkPolicies change
// nothing when they do.
func TestPoliciesOfCalicoAreConverted(t *testing.T) {
	some := 0
	rapid.Check(t, func(t *rapid.T) {
		d := dice{t}
		cluster := drawCluster(d)
		cluster.policies = nil
		for i := range cluster.pods {
			drawOwn(d, cluster.pods[i].Labels)
		}
		text := cluster.String()
		for i := range d.between(1, 4) {
			text += "---\n" + drawCalicoPolicy(d, i)
		}
		for i := range d.between(0, 1) {
			text += fmt.Sprintf("---\napiVersion: projectcalico.org/v3\nkind: NetworkSet\nmetadata: {name: set-%d, namespace: a, labels: {app: \"x\"%s}}\nspec: {nets: [203.0.113.0/24]}\n", i, pick(d, "", `, pcns.team: "x"`))
		}
		c := converted(t, text, k8s.ToNetworkPolicy, cluster.podCIDRs...)
		if len(c.YAML) > 0 {
			some++
		}
	})
	if some < 50 {
		t.Errorf("only %d of the worlds had a policy to convert", some)
	}
}

func drawCalicoPolicy(d dice, number int) string {
	order := pick(d, "", "  order: 10\n", "  order: 1000\n", "  order: 2000\n")
	text := fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: policy-%d, namespace: %s}\nspec:\n%s  selector: '%s'\n",
		number, pick(d, "a", "b"), order, pick(d, "all()", `app == "x"`, `app in {"x", "y"} && !has(tier)`, `app == "x" || tier == "y"`))
	text += pick(d, "", "  types: [Ingress]\n", "  types: [Ingress, Egress]\n")
	for _, direction := range policies.Directions {
		var rules []string
		for range d.between(0, 2) {
			rules = append(rules, "  - "+drawCalicoRule(d, direction)+"\n")
		}
		if len(rules) > 0 {
			text += "  " + direction.String() + ":\n" + strings.Join(rules, "")
		}
	}
	return text
}

func drawCalicoRule(d dice, direction policies.Direction) string {
	action := "Allow"
	if d.chance(10) {
		action = pick(d, "Deny", "Pass", "Log")
	}
	protocol := pick(d, "", "", "TCP", "UDP")
	if d.chance(5) {
		protocol = "ICMP"
	}
	var ports string
	switch {
	case protocol == "TCP" || protocol == "UDP":
		ports = pick(d, "", "ports: [80]", `ports: ["79:82", http]`, "ports: [dns]", "notPorts: [81]", `notPorts: ["1:80", 443]`, "ports: [http], notPorts: [81]")
	case protocol == "":
		ports = pick(d, "", "", "ports: [http]")
	}
	peer := pick(d, "", `selector: 'app == "x"'`, `selector: '!has(tier)'`, "nets: [10.0.0.0/24, 203.0.113.0/24]", "nets: [10.0.0.0/24], notNets: [10.0.0.0/29]",
		`namespaceSelector: 'team == "x"'`, `namespaceSelector: '!has(env)', selector: 'app == "x"'`, "namespaceSelector: all()",
		`namespaceSelector: 'projectcalico.org/name in {"a", "c"}'`)
	if d.chance(5) {
		peer = pick(d, `selector: 'app contains "x"'`, `notSelector: 'app == "x"'`, "namespaceSelector: global()")
	}
	source, destination := peer, ports
	if direction == policies.Egress {
		source, destination = "", strings.Trim(peer+", "+ports, ", ")
	}
	rule := "action: " + action
	if protocol != "" {
		rule += ", protocol: " + protocol
	}
	return "{" + rule + ", source: {" + source + "}, destination: {" + destination + "}}"
}
