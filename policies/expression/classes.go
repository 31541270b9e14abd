package expression

import (
	"net/netip"
	"slices"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// What an object of each class is of.
type (
	peer struct {
		policies.Peer
		pods   []int // indexes of the world's pods that it stands for
		labels labels
		end    *end
	}
	pod struct {
		*policies.Pod
		index int
		end   *end
	}
	policy struct {
		*policies.Policy
		index int
		rules []*object
	}
	rule struct {
		*policies.Rule
		policy    *object
		direction policies.Direction
		index     int
	}
	connection struct{ from, to, allow, unknown *object }
	flow       struct {
		*policies.Flow
		from, to *object
	}
)

var (
	stringList = cel.ListType(cel.StringType)
	labelsType = cel.MapType(cel.StringType, cel.StringType)

	peerType       = cel.ObjectType("Peer")
	podType        = cel.ObjectType("Pod")
	namespaceType  = cel.ObjectType("Namespace")
	serviceType    = cel.ObjectType("Service")
	nodeType       = cel.ObjectType("Node")
	policyType     = cel.ObjectType("Policy")
	ruleType       = cel.ObjectType("Rule")
	connectionType = cel.ObjectType("Connection")
	flowType       = cel.ObjectType("Flow")
	portsType      = cel.ObjectType("Ports")
	portType       = cel.ObjectType("Port")
)

func str(s string) ref.Val { return types.String(s) }

func prefixes(all []netip.Prefix) ref.Val { return texts(all, netip.Prefix.String) }

func addresses(all []netip.Addr) ref.Val { return texts(all, netip.Addr.String) }

func peerClass() *class {
	return &class{
		name: "Peer", typ: peerType,
		text: func(of any) string { return of.(*peer).String() },
		fields: []field{
			of("namespace", cel.StringType, always, func(_ *World, p *peer) ref.Val { return str(p.Namespace) }),
			of("name", cel.StringType, always, func(_ *World, p *peer) ref.Val { return str(p.Name) }),
			of("kind", cel.StringType, always, func(_ *World, p *peer) ref.Val { return str(p.Kind) }),
			of("cidr", cel.StringType, always, func(_ *World, p *peer) ref.Val {
				if p.CIDR == nil {
					return str("")
				}
				return str(p.CIDR.String())
			}),
			of("except", stringList, always, func(_ *World, p *peer) ref.Val { return prefixes(p.Except) }),
			of("labels", labelsType, alone, func(_ *World, p *peer) ref.Val { return p.labels }),
			of("outside", cel.BoolType, hidden, func(_ *World, p *peer) ref.Val { return types.Bool(!p.end.Addresses.IsEmpty()) }),
			of("namespaceLabels", labelsType, hidden, func(w *World, p *peer) ref.Val { return w.namespaceLabels(p.Namespace) }),
			of("pods", cel.ListType(podType), hidden, func(w *World, p *peer) ref.Val { return w.podList(p.pods) }),
		},
	}
}

func podClass() *class {
	return &class{
		name: "Pod", typ: podType,
		text: func(of any) string { return of.(*pod).Ref.String() },
		fields: []field{
			of("namespace", cel.StringType, always, func(_ *World, p *pod) ref.Val { return str(p.Ref.Namespace) }),
			of("name", cel.StringType, always, func(_ *World, p *pod) ref.Val { return str(p.Ref.Name) }),
			of("kind", cel.StringType, always, func(_ *World, p *pod) ref.Val { return str(p.Ref.Kind) }),
			of("workload", peerType, alone, func(w *World, p *pod) ref.Val { return w.workload(p.Workload) }),
			of("labels", labelsType, alone, func(_ *World, p *pod) ref.Val { return labels(p.Labels) }),
			of("node", cel.StringType, alone, func(_ *World, p *pod) ref.Val { return str(p.Node) }),
			of("addresses", stringList, alone, func(_ *World, p *pod) ref.Val { return addresses(p.Addresses) }),
			of("at", cel.StringType, alone, func(_ *World, p *pod) ref.Val { return str(p.Place.String()) }),
			of("serviceAccount", cel.StringType, hidden, func(_ *World, p *pod) ref.Val { return str(p.ServiceAccount) }),
			of("hostNetwork", cel.BoolType, hidden, func(_ *World, p *pod) ref.Val { return types.Bool(p.HostNetwork) }),
			of("replicas", cel.IntType, hidden, func(_ *World, p *pod) ref.Val { return types.Int(p.Replicas) }),
			of("ports", cel.ListType(portType), hidden, func(w *World, p *pod) ref.Val {
				return list(p.Ports, func(c *policies.ContainerPort) ref.Val {
					return &object{w.classes.port, w, port{c.Name, c.Protocol, c.Number, ""}}
				})
			}),
			of("namespaceLabels", labelsType, hidden, func(w *World, p *pod) ref.Val { return w.namespaceLabels(p.Ref.Namespace) }),
			of("policies", cel.ListType(policyType), hidden, func(w *World, p *pod) ref.Val { return w.policiesOf(p.index) }),
			of("egressIsolated", cel.BoolType, hidden, func(w *World, p *pod) ref.Val { return w.isolated(policies.Egress, p.index) }),
			of("ingressIsolated", cel.BoolType, hidden, func(w *World, p *pod) ref.Val { return w.isolated(policies.Ingress, p.index) }),
		},
	}
}

func namespaceClass() *class {
	return &class{
		name: "Namespace", typ: namespaceType,
		text: func(of any) string { return of.(*policies.Namespace).Name },
		fields: []field{
			of("name", cel.StringType, always, func(_ *World, n *policies.Namespace) ref.Val { return str(n.Name) }),
			of("labels", labelsType, alone, func(_ *World, n *policies.Namespace) ref.Val { return labels(n.Labels) }),
			of("labelsKnown", cel.BoolType, hidden, func(_ *World, n *policies.Namespace) ref.Val { return types.Bool(!n.Implied) }),
			of("at", cel.StringType, alone, func(_ *World, n *policies.Namespace) ref.Val { return str(n.Place.String()) }),
		},
	}
}

func serviceClass() *class {
	return &class{
		name: "Service", typ: serviceType,
		text: func(of any) string { return of.(*policies.Service).Ref.String() },
		fields: []field{
			of("namespace", cel.StringType, always, func(_ *World, s *policies.Service) ref.Val { return str(s.Ref.Namespace) }),
			of("name", cel.StringType, always, func(_ *World, s *policies.Service) ref.Val { return str(s.Ref.Name) }),
			of("clusterIPs", stringList, alone, func(_ *World, s *policies.Service) ref.Val { return addresses(s.ClusterIP) }),
			of("ports", cel.ListType(portType), alone, func(w *World, s *policies.Service) ref.Val {
				return list(s.Ports, func(p *policies.ServicePort) ref.Val {
					target := p.TargetName
					if target == "" {
						target = itoa(p.Target)
					}
					return &object{w.classes.port, w, port{p.Name, p.Protocol, p.Port, target}}
				})
			}),
			of("pods", cel.ListType(podType), hidden, func(w *World, s *policies.Service) ref.Val { return w.podList(s.Pods) }),
			of("external", cel.StringType, hidden, func(_ *World, s *policies.Service) ref.Val { return str(s.External) }),
			of("at", cel.StringType, alone, func(_ *World, s *policies.Service) ref.Val { return str(s.Place.String()) }),
		},
	}
}

// port is a port of a Service or of a pod; target is that of a Service's port.
type port struct {
	name     string
	protocol netset.Protocol
	number   uint16
	target   string
}

func portClass() *class {
	return &class{
		name: "Port", typ: portType,
		text: func(of any) string { p := of.(port); return p.protocol.String() + "/" + itoa(p.number) },
		fields: []field{
			of("name", cel.StringType, always, func(_ *World, p port) ref.Val { return str(p.name) }),
			of("protocol", cel.StringType, always, func(_ *World, p port) ref.Val { return str(p.protocol.String()) }),
			of("number", cel.IntType, always, func(_ *World, p port) ref.Val { return types.Int(p.number) }),
			of("target", cel.StringType, always, func(_ *World, p port) ref.Val { return str(p.target) }),
		},
	}
}

func nodeClass() *class {
	return &class{
		name: "Node", typ: nodeType,
		text: func(of any) string { return of.(*policies.Node).Name },
		fields: []field{
			of("name", cel.StringType, always, func(_ *World, n *policies.Node) ref.Val { return str(n.Name) }),
			of("labels", labelsType, alone, func(_ *World, n *policies.Node) ref.Val { return labels(n.Labels) }),
			of("addresses", stringList, alone, func(_ *World, n *policies.Node) ref.Val { return addresses(n.Addresses) }),
			of("at", cel.StringType, alone, func(_ *World, n *policies.Node) ref.Val { return str(n.Place.String()) }),
		},
	}
}

func policyClass() *class {
	return &class{
		name: "Policy", typ: policyType,
		text: func(of any) string { return of.(*policy).Ref.String() },
		fields: []field{
			of("group", cel.StringType, always, func(_ *World, p *policy) ref.Val { return str(p.Ref.Group) }),
			of("kind", cel.StringType, always, func(_ *World, p *policy) ref.Val { return str(p.Ref.Kind) }),
			of("namespace", cel.StringType, always, func(_ *World, p *policy) ref.Val { return str(p.Ref.Namespace) }),
			of("name", cel.StringType, always, func(_ *World, p *policy) ref.Val { return str(p.Ref.Name) }),
			of("tier", cel.StringType, alone, func(_ *World, p *policy) ref.Val { return str(p.Tier) }),
			of("priority", cel.IntType, alone, func(_ *World, p *policy) ref.Val { return types.Int(p.Priority) }),
			of("directions", stringList, alone, func(_ *World, p *policy) ref.Val {
				governed := slices.DeleteFunc(slices.Clone(policies.Directions[:]), func(d policies.Direction) bool { return !p.Governs[d] })
				return texts(governed, policies.Direction.String)
			}),
			of("rules", cel.ListType(ruleType), hidden, func(_ *World, p *policy) ref.Val {
				return list(p.rules, func(r **object) ref.Val { return *r })
			}),
			of("pods", cel.ListType(podType), hidden, func(w *World, p *policy) ref.Val { return w.podsOf(p.index) }),
			of("annotations", labelsType, hidden, func(_ *World, p *policy) ref.Val { return labels(p.Annotations) }),
			of("opaque", cel.StringType, hidden, func(_ *World, p *policy) ref.Val { return str(p.Opaque) }),
			of("at", cel.StringType, alone, func(_ *World, p *policy) ref.Val { return str(p.Place.String()) }),
		},
	}
}

func ruleClass() *class {
	return &class{
		name: "Rule", typ: ruleType,
		text: func(of any) string {
			r := of.(*rule)
			return r.policy.text(r.policy.of) + " " + r.direction.String() + " " + itoa(r.index)
		},
		fields: []field{
			of("policy", policyType, always, func(_ *World, r *rule) ref.Val { return r.policy }),
			of("direction", cel.StringType, always, func(_ *World, r *rule) ref.Val { return str(r.direction.String()) }),
			of("index", cel.IntType, always, func(_ *World, r *rule) ref.Val { return types.Int(r.index) }),
			of("name", cel.StringType, alone, func(_ *World, r *rule) ref.Val { return str(r.Name) }),
			of("action", cel.StringType, alone, func(_ *World, r *rule) ref.Val { return str(r.Action.String()) }),
			of("peers", stringList, alone, func(_ *World, r *rule) ref.Val { return texts(r.Peers, policies.Match.String) }),
			of("anyone", cel.BoolType, hidden, func(_ *World, r *rule) ref.Val {
				return types.Bool(slices.ContainsFunc(r.Peers, func(m policies.Match) bool { return m.Anyone }))
			}),
			of("cidrs", stringList, hidden, func(_ *World, r *rule) ref.Val {
				var all []netip.Prefix
				for _, m := range r.Peers {
					if m.Block.CIDR.IsValid() {
						all = append(all, m.Block.CIDR)
					}
				}
				return prefixes(all)
			}),
			of("ports", portsType, alone, func(w *World, r *rule) ref.Val { return w.portsOf(r.Ports) }),
			of("namedPorts", stringList, alone, func(_ *World, r *rule) ref.Val {
				return texts(r.Named, func(n policies.NamedPort) string { return n.Name })
			}),
			of("at", cel.StringType, alone, func(_ *World, r *rule) ref.Val { return str(r.Place.String()) }),
		},
	}
}

func portsClass() *class {
	return &class{
		name: "Ports", typ: portsType,
		text: func(of any) string { return of.(netset.Ports).String() },
		fields: []field{
			of("empty", cel.BoolType, hidden, func(_ *World, p netset.Ports) ref.Val { return types.Bool(p.IsEmpty()) }),
			of("protocols", stringList, hidden, func(_ *World, p netset.Ports) ref.Val {
				var all []string
				for r := range p.Ranges() {
					all = append(all, r.Protocol.String())
				}
				return texts(slices.Compact(all), func(s string) string { return s })
			}),
		},
	}
}

func connectionClass() *class {
	return &class{
		name: "Connection", typ: connectionType,
		text: func(of any) string {
			c := of.(*connection)
			return c.from.text(c.from.of) + " -> " + c.to.text(c.to.of)
		},
		fields: []field{
			of("from", peerType, always, func(_ *World, c *connection) ref.Val { return c.from }),
			of("to", peerType, always, func(_ *World, c *connection) ref.Val { return c.to }),
			of("allow", portsType, always, func(_ *World, c *connection) ref.Val { return c.allow }),
			of("unknown", portsType, always, func(_ *World, c *connection) ref.Val { return c.unknown }),
		},
	}
}

func flowClass() *class {
	return &class{
		name: "Flow", typ: flowType,
		text: func(of any) string {
			f := of.(*flow)
			return f.from.text(f.from.of) + " -> " + f.to.text(f.to.of) + " " + f.Protocol.String() + "/" + itoa(f.Port)
		},
		fields: []field{
			of("from", peerType, always, func(_ *World, f *flow) ref.Val { return f.from }),
			of("to", peerType, always, func(_ *World, f *flow) ref.Val { return f.to }),
			of("protocol", cel.StringType, always, func(_ *World, f *flow) ref.Val { return str(f.Protocol.String()) }),
			of("port", cel.IntType, always, func(_ *World, f *flow) ref.Val { return types.Int(f.Port) }),
			of("verdict", verdictType, always, func(_ *World, f *flow) ref.Val { return verdict(f.Verdict) }),
			of("count", cel.IntType, alone, func(_ *World, f *flow) ref.Val { return types.Int(f.Count) }),
			of("bytes", cel.IntType, alone, func(_ *World, f *flow) ref.Val { return types.Int(f.Bytes) }),
			of("first", cel.TimestampType, alone, func(_ *World, f *flow) ref.Val { return types.Timestamp{Time: f.First} }),
			of("last", cel.TimestampType, alone, func(_ *World, f *flow) ref.Val { return types.Timestamp{Time: f.Last} }),
			of("at", cel.StringType, hidden, func(_ *World, f *flow) ref.Val { return str(f.Record.String()) }),
		},
	}
}

// classes are all of them.
type classes struct {
	peer, pod, namespace, service, port, node, policy, rule, ports, connection, flow *class

	byName map[string]*class
}

func newClasses() *classes {
	c := &classes{
		peer: peerClass(), pod: podClass(), namespace: namespaceClass(), service: serviceClass(), port: portClass(),
		node: nodeClass(), policy: policyClass(), rule: ruleClass(), ports: portsClass(), connection: connectionClass(),
		flow: flowClass(), byName: map[string]*class{},
	}
	for _, one := range []*class{
		c.peer, c.pod, c.namespace, c.service, c.port, c.node, c.policy, c.rule, c.ports, c.connection, c.flow,
	} {
		c.byName[one.name] = one
	}
	return c
}
