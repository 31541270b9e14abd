package reach

import (
	"fmt"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// finding is a network set or host endpoint that an end is in, or may be in.
type finding struct {
	labelled *labelled
	truth    policies.Truth
}

// onPort reports whether the question's port is one of the rule's.
func (q *inquiry) onPort(r *policies.Rule) policies.Truth {
	is := r.Ports.Contains(q.protocol, q.port) || q.isNamed(r.Named)
	return truth(is && !q.isNamed(r.NotNamed) && !r.NotPorts.Contains(q.protocol, q.port))
}

// isNamed reports whether the destination gives the question's port one of these
// names.
func (q *inquiry) isNamed(names []policies.NamedPort) bool {
	destination := q.other
	if q.direction == policies.Ingress {
		destination = q.subject
	}
	for _, n := range names {
		for _, c := range q.portsOf(destination) {
			if n.Protocol == q.protocol && n.Name == c.Name && n.Protocol == c.Protocol && c.Number == q.port {
				return true
			}
		}
	}
	return false
}

// portsOf returns the ports to which an end gives names, for policies.
func (q *inquiry) portsOf(e End) []policies.ContainerPort {
	switch {
	case e.kind == podEnd && !q.world.Pods[e.index].HostNetwork:
		return q.world.Pods[e.index].Ports
	case e.kind == podEnd:
		return namedByHosts(q.world)(q.world.Pods[e.index].Node)(q.mayBeAt(e)...)
	case e.kind == nodeEnd && e != q.OwnNode():
		return namedByHosts(q.world)(q.world.Nodes[e.index].Name)(q.mayBeAt(e)...)
	}
	return nil
}

// anyPeer reports whether the other end is one of the rule's peers, and names
// the peer.
func (q *inquiry) anyPeer(r *policies.Rule) (policies.Truth, *policies.Match) {
	best := policies.No
	var which *policies.Match
	for i := range r.Peers {
		if t := q.is(&r.Peers[i], q.other); t > best {
			best, which = t, &r.Peers[i]
		}
	}
	return best, which
}

// is reports whether a match describes an end.
func (q *inquiry) is(m *policies.Match, end End) policies.Truth {
	t := q.isAtLeast(m, end)
	for i := range m.Except {
		t = t.And(policies.Yes - q.is(&m.Except[i], end))
	}
	return t
}

// isAtLeast is is without the exceptions.
func (q *inquiry) isAtLeast(m *policies.Match, end End) policies.Truth {
	pod := end.kind == podEnd && !q.world.Pods[end.index].HostNetwork
	switch {
	case len(m.Any) > 0:
		t := policies.No
		for i := range m.Any {
			t = t.Or(q.is(&m.Any[i], end))
		}
		return t
	case len(m.All) > 0:
		t := policies.Yes
		for i := range m.All {
			t = t.And(q.is(&m.All[i], end))
		}
		return t
	case m.Anyone:
		return policies.Yes
	case m.Block.CIDR.IsValid():
		if end.kind != outsideEnd && q.options.IgnorePodBlocks && !m.InCluster {
			return policies.No
		}
		return q.isIn(m.Block.Addresses(), end)
	case !m.Nodes.IsNothing():
		return q.isNode(m.Nodes, end)
	case len(m.Domains) > 0:
		return truth(mayBeNamed(m.Domains, pod)).And(policies.Maybe)
	case m.Object.Kind == "Service":
		return q.isBehind(m.Object, end)
	}
	t := policies.No
	if pod {
		t = q.isSelected(m, &q.world.Pods[end.index], end)
	}
	if !m.Endpoints && m.Object == (policies.Ref{}) {
		return t
	}
	for _, f := range q.findings(end) {
		t = t.Or(isLabelled(q.world, m, f.labelled).Or(truth(f.labelled.ref == m.Object)).And(f.truth))
	}
	return t
}

// findings returns the network sets and host endpoints that an end is in.
func (q *inquiry) findings(end End) []finding {
	known, ok := q.found[end]
	if ok {
		return known
	}
	pod := end.kind == podEnd && !q.world.Pods[end.index].HostNetwork
	for i := range q.labelled {
		l := &q.labelled[i]
		t := q.isIn(l.addresses, end)
		if len(l.domains) > 0 {
			t = t.Or(truth(mayBeNamed(l.domains, pod)).And(policies.Maybe))
		}
		if t > policies.No {
			known = append(known, finding{l, t})
		}
	}
	q.found[end] = known
	return known
}

func (q *inquiry) isSelected(m *policies.Match, pod *policies.Pod, end End) policies.Truth {
	ns := &q.namespaces[q.classes[q.classOf(end)].namespace]
	label := func(key string) (string, bool, bool) { return q.inherited(pod, key) }
	in := matches(m.Namespaces, ns.labels, ns.implied)
	switch {
	case !m.Endpoints:
		return in.And(truth(m.Pods.Matches(pod.Labels)))
	case !m.Inherited.IsNothing():
		in = truths(m.Inherited.Test(label))
	}
	if in == policies.No {
		return in
	}
	return in.And(truths(m.Pods.Test(label)))
}

// isBehind reports whether an end is a pod behind a Service.
func (q *inquiry) isBehind(service policies.Ref, end End) policies.Truth {
	at := slices.IndexFunc(q.world.Services, func(s policies.Service) bool { return s.Ref == service })
	switch {
	case at < 0:
		return policies.No
	case q.world.Services[at].External != "":
		return policies.Maybe
	}
	for _, i := range q.world.Services[at].Pods {
		onHost := q.world.Pods[i].HostNetwork
		switch {
		case onHost && q.placement.pods[i] == q.classOf(end):
			return policies.Maybe // others may have the host's address
		case !onHost && end.kind == podEnd && int(end.index) == i:
			return policies.Yes
		}
	}
	return policies.No
}

// isNode reports whether an end is one of the nodes in the selector, or on its
// network.
func (q *inquiry) isNode(s selector.Selector, end End) policies.Truth {
	class := q.classOf(end)
	if class < 0 || !q.classes[class].host() {
		return policies.No
	}
	return q.machines[q.classes[class].machine].in(s)
}

// isIn reports whether the address of an end is in a set.
func (q *inquiry) isIn(addresses netset.Addresses, end End) policies.Truth {
	if end.kind == outsideEnd {
		return truth(addresses.Contains(end.addr))
	}
	if a := q.addressOf(end, q.family); a.IsValid() {
		return truth(addresses.Contains(a))
	}
	return q.unplacedIn(addresses, q.classes[q.classOf(end)].host(), q.family)
}

func truth(b bool) policies.Truth {
	if b {
		return policies.Yes
	}
	return policies.No
}

// whyMaybeSelected says what is missing to tell whether a policy applies.
func (q *inquiry) whyMaybeSelected(p *policies.Policy) string {
	if q.subject.kind == podEnd && !q.world.Pods[q.subject.index].HostNetwork {
		pod := &q.world.Pods[q.subject.index]
		in := func(n policies.Namespace) bool { return n.Name == pod.Ref.Namespace && n.Implied }
		account := func(a policies.ServiceAccount) bool {
			return a.Ref.Namespace == pod.Ref.Namespace && a.Ref.Name == pod.ServiceAccount
		}
		switch {
		case slices.ContainsFunc(q.world.Namespaces, in):
			return fmt.Sprintf("it is not known whether %s selects %s, because the labels of its namespace are not known", p.Ref, q.subjectName())
		case !slices.ContainsFunc(q.world.Accounts, account) && !p.Forwarded:
			return fmt.Sprintf("it is not known whether %s selects %s, because the labels of its service account are not known", p.Ref, q.subjectName())
		}
	}
	which := fmt.Sprintf("a host endpoint that %s selects", p.Ref)
	if p.IsBuiltIn() {
		which = p.Ref.What() + " " + p.Ref.String()
	}
	return fmt.Sprintf("it is not known whether traffic of %s passes %s", q.subjectName(), which)
}

// whyMaybe says what is missing to tell whether a peer matches.
func (q *inquiry) whyMaybe(m *policies.Match) string {
	if m.Block.CIDR.IsValid() {
		return fmt.Sprintf("the address of %s is not known, so it may be in %s", q.otherName(), m.Block)
	}
	switch {
	case !m.Nodes.IsNothing():
		return fmt.Sprintf("the labels of the node that %s is on are not known, so it may be one of %s", q.otherName(), m)
	case len(m.Any)+len(m.All)+len(m.Except) > 0 || m.Endpoints || m.Object != policies.Ref{}:
		return fmt.Sprintf("it is not known whether %s is among %s", q.otherName(), m)
	case len(m.Domains) > 0:
		return fmt.Sprintf("which addresses have the name %s is not known, so %s may be one of them", m, q.otherName())
	}
	return fmt.Sprintf("the labels of namespace %s are not known, so %s may be among %s", q.otherName().Namespace, q.otherName(), m)
}
