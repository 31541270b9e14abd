package reach

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// hosts are the host endpoints of a model by the nodes they are on. What a host
// exchanges with its own pods passes no host endpoint; what it forwards to and
// from them passes its host endpoints as other traffic does.
type hosts struct {
	world     *policies.World
	onNode    map[int32][]*policies.HostEndpoint
	certain   map[int32]bool    // other traffic of the node passes one of them for sure
	classes   map[int32][]int32 // classes that stand on the node's network; at -1, on some node's
	forwarded map[int32]*governed
}

func (b *builder) newHosts(m *policies.Model) *hosts {
	h := &hosts{
		world: &m.World, onNode: map[int32][]*policies.HostEndpoint{}, certain: map[int32]bool{},
		classes: map[int32][]int32{}, forwarded: map[int32]*governed{},
	}
	for i := range m.Hosts {
		node := b.nodeIDs[m.Hosts[i].Node]
		h.onNode[node] = append(h.onNode[node], &m.Hosts[i])
	}
	if len(h.onNode) == 0 {
		return h
	}
	for i := range b.classes {
		if c := &b.classes[i]; c.host() && (c.node < 0 || len(h.onNode[c.node]) > 0) {
			h.classes[c.node] = append(h.classes[c.node], int32(i))
		}
	}
	for _, n := range m.Nodes {
		var covered netset.Addresses
		for _, e := range h.onNode[b.nodeID(n.Name)] {
			covered = covered.Union(labelledHost(e).addresses)
		}
		outside := slices.ContainsFunc(n.Addresses, func(a netip.Addr) bool { return !covered.Contains(a) })
		h.certain[b.nodeID(n.Name)] = len(n.Addresses) > 0 && !outside
	}
	for i := range m.Hosts {
		if m.Hosts[i].Interface == "*" {
			h.certain[b.nodeIDs[m.Hosts[i].Node]] = true
		}
	}
	return h
}

// namedByHosts returns what tells the ports to which host endpoints give names on
// a node with some addresses, which are the node's where there are none. As with
// selectors, a host endpoint stands for its expected addresses, so one that lacks
// an address of those names nothing there.
func namedByHosts(w *policies.World) func(node string, addresses []netip.Addr) []policies.ContainerPort {
	naming := map[string][]*policies.HostEndpoint{}
	for i := range w.Hosts {
		if h := &w.Hosts[i]; len(h.Ports) > 0 {
			naming[h.Node] = append(naming[h.Node], h)
		}
	}
	nodes := map[string][]netip.Addr{}
	for i := range w.Nodes {
		if n := &w.Nodes[i]; naming[n.Name] != nil {
			nodes[n.Name] = n.Addresses
		}
	}
	return func(node string, addresses []netip.Addr) []policies.ContainerPort {
		if len(addresses) == 0 {
			addresses = nodes[node]
		}
		var ports []policies.ContainerPort
		for _, h := range naming[node] {
			lacks := func(a netip.Addr) bool { return !slices.Contains(h.Addresses, a) }
			if len(addresses) > 0 && !slices.ContainsFunc(addresses, lacks) {
				ports = append(ports, h.Ports...)
			}
		}
		return ports
	}
}

// selectedBy yields the nodes whose traffic a policy governs, or may govern.
func (h *hosts) selectedBy(p *policies.Policy) iter.Seq2[int32, policies.Truth] {
	return func(yield func(int32, policies.Truth) bool) {
		for _, node := range slices.Sorted(maps.Keys(h.onNode)) {
			every, some := policies.Yes, policies.No
			for _, e := range h.onNode[node] {
				t := h.isSubject(p, e)
				every, some = every.And(t), some.Or(t)
			}
			if !h.certain[node] {
				every = every.And(policies.Maybe)
			}
			if some > policies.No && !yield(node, max(every, policies.Maybe)) {
				return
			}
		}
	}
}

func (h *hosts) isSubject(p *policies.Policy, e *policies.HostEndpoint) policies.Truth {
	if p.Subject.Object != (policies.Ref{}) {
		return truth(p.Subject.Object == e.Ref)
	}
	return isLabelled(h.world, &p.Subject, &labelled{ref: e.Ref, labels: e.Labels})
}

func (h *hosts) forward(node int32, governs [2]bool, g governing) {
	if h.forwarded[node] == nil {
		h.forwarded[node] = &governed{}
	}
	for _, d := range policies.Directions {
		if governs[d] {
			h.forwarded[node][d] = append(h.forwarded[node][d], g)
		}
	}
}

// onSameNode reports whether two classes are on one node: perhaps, where it is
// not known of one of them.
func (f *frame) onSameNode(a, b int32) policies.Truth {
	x, y := f.classes[a].node, f.classes[b].node
	if x < 0 || y < 0 {
		return policies.Maybe
	}
	return truth(x == y)
}

// sparingPods returns a row but for the traffic within a node, which is open.
func (e *evaluation) sparingPods(r *row, node int32) *row {
	same, perhaps := e.within(node)
	open, inDoubt := relation{{e.ports.id(netset.AllTraffic()), same}}, relation{{e.ports.id(netset.AllTraffic()), perhaps}}
	allow := e.unite(r.allow, e.normal(open))
	return e.internRow(allow, e.subtract(e.unite(r.unknown, e.normal(inDoubt)), allow))
}

// within returns the columns on a node, and those of which it is not known.
func (e *evaluation) within(node int32) (same, perhaps *set) {
	mark := func(is func(int32) bool) *set {
		for i := range e.columns {
			if c := e.columns[i].class; c >= 0 && is(e.classes[c].node) {
				e.add(int32(i))
			}
		}
		return e.build()
	}
	return mark(func(n int32) bool { return n == node && n >= 0 }), mark(func(n int32) bool { return n < 0 })
}

// throughHosts returns what is left of a pod's row after its node has forwarded
// the traffic.
func (e *evaluation) throughHosts(d policies.Direction, class int32, r *row) *row {
	node := e.classes[class].node
	possible := e.unite(r.allow, r.unknown)
	allow := r.allow
	for _, at := range slices.Sorted(maps.Keys(e.forwarded)) {
		lists := e.forwarded[at]
		if node >= 0 && at != node || len(lists[d]) == 0 {
			continue
		}
		through := e.sparingPods(e.tiers(d, class, lists[d], false), at)
		allow = e.intersect(allow, through.allow)
		if node >= 0 {
			possible = e.intersect(possible, e.unite(through.allow, through.unknown))
		}
	}
	return e.internRow(allow, e.subtract(possible, allow))
}
