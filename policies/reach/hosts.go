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
	nodes     []int32 // that have some, ascending
	onNode    map[int32][]*endpoint
	passed    map[int32][]*endpoint // those that some traffic of the node may pass, as at returns them
	classes   map[int32][]int32     // classes that stand on the node's network; at -1, on some node's
	forwarded map[int32]*governed
}

// endpoint is a host endpoint with the policies that apply to it, or may.
type endpoint struct {
	*policies.HostEndpoint
	policies map[int32]policies.Truth
}

func (b *builder) newHosts(m *policies.Model) *hosts {
	h := &hosts{
		world: &m.World, onNode: map[int32][]*endpoint{}, passed: map[int32][]*endpoint{},
		classes: map[int32][]int32{}, forwarded: map[int32]*governed{},
	}
	for i := range m.Hosts {
		node := b.nodeIDs[m.Hosts[i].Node]
		h.onNode[node] = append(h.onNode[node], &endpoint{&m.Hosts[i], map[int32]policies.Truth{}})
	}
	if len(h.onNode) == 0 {
		return h
	}
	h.nodes = slices.Sorted(maps.Keys(h.onNode))
	for i := range b.classes {
		if c := &b.classes[i]; c.host() && (c.node < 0 || len(h.onNode[c.node]) > 0) {
			h.classes[c.node] = append(h.classes[c.node], int32(i))
		}
	}
	addresses := map[int32][]netip.Addr{}
	for _, n := range m.Nodes {
		addresses[b.nodeID(n.Name)] = n.Addresses
	}
	for _, node := range h.nodes {
		if len(addresses[node]) == 0 {
			h.passed[node] = h.at(node, netip.Addr{})
		}
		for _, a := range addresses[node] {
			for _, e := range h.at(node, a) {
				if !slices.Contains(h.passed[node], e) {
					h.passed[node] = append(h.passed[node], e)
				}
			}
		}
	}
	return h
}

// at returns the host endpoints that the traffic of one address of a node may
// pass, nil among them where it may pass none. That of an interface comes before
// that of all interfaces.
func (h *hosts) at(node int32, a netip.Addr) []*endpoint {
	var expecting, blank, others, wild []*endpoint
	named, expected := false, false
	for _, e := range h.onNode[node] {
		expects := slices.Contains(e.Addresses, a)
		expected = expected || expects
		switch {
		case e.Interface == "*":
			wild = append(wild, e)
			continue
		case expects:
			expecting = append(expecting, e)
			named = named || e.Interface != ""
		case len(e.Addresses) == 0:
			blank = append(blank, e)
		}
		others = append(others, e)
	}
	switch {
	case named:
		return expecting
	case len(expecting) > 0:
		return slices.Concat(expecting, blank)
	case len(wild) == 0:
		return append(others, nil)
	case expected:
		others = blank
	}
	return slices.Concat(others, wild)
}

// passedBy returns the host endpoints that the traffic of a class on a node's
// network may pass; none at all where it is not known of which node it is.
func (f *frame) passedBy(h *hosts, c *class) []*endpoint {
	switch {
	case c.node < 0 || len(h.onNode[c.node]) == 0:
		return nil
	case c.atoms[0] == unknownAtom:
		return h.passed[c.node]
	}
	// What host endpoints expect is an atom by itself.
	return h.at(c.node, f.atoms[max(c.atoms[0], c.atoms[1])].first)
}

// of returns those policies of a list that apply to a host endpoint, none of them
// where it is nil.
func (e *endpoint) of(list []governing) []governing {
	var applying []governing
	if e == nil {
		return nil
	}
	for _, g := range list {
		if t := e.policies[g.policy]; t > policies.No {
			applying = append(applying, governing{g.policy, t})
		}
	}
	return applying
}

// namedByHosts returns what tells the ports to which host endpoints give names on
// a node with some addresses, which are the node's where there are none. As with
// selectors, a host endpoint stands for its expected addresses, so one that lacks
// an address of those names nothing there.
func namedByHosts(w *policies.World) func(node string) func(...netip.Addr) []policies.ContainerPort {
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
	return func(node string) func(...netip.Addr) []policies.ContainerPort {
		if naming[node] == nil {
			return noPortNames
		}
		return func(addresses ...netip.Addr) []policies.ContainerPort {
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
}

func noPortNames(...netip.Addr) []policies.ContainerPort { return nil }

// selectedBy yields the nodes whose traffic the i-th policy governs, or may govern.
func (h *hosts) selectedBy(i int32, p *policies.Policy) iter.Seq2[int32, policies.Truth] {
	return func(yield func(int32, policies.Truth) bool) {
		for _, node := range h.nodes {
			some := policies.No
			for _, e := range h.onNode[node] {
				if t := h.isSubject(p, e.HostEndpoint); t > policies.No {
					e.policies[i] = t
					some = some.Or(t)
				}
			}
			if some == policies.No {
				continue
			}
			every := policies.Yes
			for _, e := range h.passed[node] {
				if e == nil {
					every = policies.No
				} else {
					every = every.And(e.policies[i])
				}
			}
			if !yield(node, max(every, policies.Maybe)) {
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

// passing returns what some policies make of a class's traffic that may pass any of
// some host endpoints: what they do not agree on is unknown. Without any, all the
// policies count.
func (e *evaluation) passing(d policies.Direction, class int32, list []governing, endpoints []*endpoint) *row {
	if len(endpoints) == 0 {
		return e.tiers(d, class, list, false)
	}
	rows := make([]*row, len(endpoints))
	for i, at := range endpoints {
		rows[i] = e.tiers(d, class, at.of(list), false)
	}
	return e.agreed(rows)
}

// agreed returns what rows agree on; what they do not is unknown.
func (e *evaluation) agreed(rows []*row) *row {
	first := rows[0]
	allow, possible := first.allow, e.unite(first.allow, first.unknown)
	for _, r := range rows[1:] {
		if r != first {
			allow, possible = e.intersect(allow, r.allow), e.unite(possible, e.unite(r.allow, r.unknown))
		}
	}
	return e.internRow(allow, e.subtract(possible, allow))
}

// byFace returns the row of a class of several addresses, given that of each: what
// they do not agree on, family by family, is unknown.
func (e *evaluation) byFace(class int32, of func(face int32) *row) *row {
	var byFamily [2][]*row
	for _, face := range e.faces[class] {
		i := e.classes[face].families >> 1
		byFamily[i] = append(byFamily[i], of(face))
	}
	for i, rows := range byFamily {
		if len(rows) == 0 {
			return e.agreed(byFamily[1-i])
		}
	}
	var allow, unknown relation
	for i, rows := range byFamily {
		r, in := e.agreed(rows), relation{{e.ports.id(netset.AllTraffic()), e.inFamily(families[i])}}
		allow, unknown = e.unite(allow, e.intersect(r.allow, in)), e.unite(unknown, e.intersect(r.unknown, in))
	}
	return e.internRow(allow, unknown)
}

// inFamily returns the columns of a family.
func (e *evaluation) inFamily(fam family) *set {
	for i := range e.columns {
		if e.columns[i].families&fam != 0 {
			e.add(int32(i))
		}
	}
	return e.build()
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
		through := e.sparingPods(e.passing(d, class, lists[d], e.hosts.passed[at]), at)
		allow = e.intersect(allow, through.allow)
		if node >= 0 {
			possible = e.intersect(possible, e.unite(through.allow, through.unknown))
		}
	}
	return e.internRow(allow, e.subtract(possible, allow))
}
