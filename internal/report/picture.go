package report

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
)

// How many edges a picture may have before it is drawn by namespace.
const (
	mermaidEdges = 60
	svgEdges     = 400
)

// picture is who reaches whom, ready to be drawn: workloads with the same
// connections are one node.
type picture struct {
	nodes []node
	edges []edge
	notes []string // what was joined or left out, as sentences
	flows bool     // edges stand for flows, which are told
}

type node struct {
	box   string // the namespace it is drawn in; empty for none
	label string
	kind  nodeKind
	peers int
}

type nodeKind uint8

const (
	inside nodeKind = iota
	everyone
	outside
)

type edge struct {
	from, to int
	class    class // empty for what is simply allowed
	ports    netset.Ports
	what     uint32 // the same for the same class and ports
	pairs    int    // or flows
}

func (p *picture) labelOf(e *edge) string {
	label := e.class.sign()
	if label != "" {
		label += " "
	}
	ports := e.ports.String()
	if p.flows {
		ports = recordedPorts(e.ports)
	}
	if label += clip(ports, 40); p.flows {
		label += " · " + counted(e.pairs, "flow")
	}
	return label
}

// drawing collects a picture's parts.
type drawing struct {
	picture
	index map[string]int
	whats map[string]uint32
	key   []byte
}

func newDrawing() *drawing {
	return &drawing{index: map[string]int{}, whats: map[string]uint32{}}
}

func (d *drawing) node(p policies.Peer) int {
	d.key = appendPeerKey(p, d.key[:0])
	if i, ok := d.index[string(d.key)]; ok {
		return i
	}
	n := node{box: p.Namespace, label: p.Name, peers: 1}
	switch {
	case p.IsOutside():
		n.label, n.kind = p.String(), outside
	case p.Kind == "Node":
		n.box = "nodes"
	case p.Kind == "Namespace":
		n.box, n.label = "", p.String()
	case p.Pod != "":
		n.label = p.Pod
	}
	n.label, n.box = clean(n.label), clean(n.box)
	d.index[string(d.key)] = len(d.nodes)
	d.nodes = append(d.nodes, n)
	return len(d.nodes) - 1
}

func (d *drawing) edge(from, to int, class class, ports netset.Ports) {
	if ports.IsEmpty() {
		return
	}
	d.key = ports.AppendKey(append(append(d.key[:0], class...), 0))
	what, ok := d.whats[string(d.key)]
	if !ok {
		what = uint32(len(d.whats))
		d.whats[string(d.key)] = what
	}
	d.edges = append(d.edges, edge{from, to, class, ports, what, 1})
}

func pictureOfConnections(connections iter.Seq[policies.Connection]) *picture {
	d := newDrawing()
	for c := range connections {
		from, to := d.node(*c.From), d.node(*c.To)
		d.edge(from, to, "", c.Allow)
		d.edge(from, to, unknown, c.Unknown)
	}
	return d.finish()
}

// mostPairs is how many pairs of a change are looked at one by one to draw it.
const mostPairs = 200_000

func pictureOfChange(c *diff.Change) *picture {
	d := newDrawing()
	total := len(c.Differences)
	if total <= mostPairs {
		for _, x := range c.Differences {
			d.edge(d.node(*x.From), d.node(*x.To), classOf(x.Before, x.After), x.Ports)
		}
		return d.finish()
	}
	for i := range c.Groups {
		g := &c.Groups[i]
		of := classOf(g.Before, g.After)
		for _, from := range blur(g.From) {
			for _, to := range blur(g.To) {
				d.edge(d.node(from), d.node(to), of, g.Ports)
			}
		}
	}
	d.notes = append(d.notes, "Drawn by namespace, for "+grouped(total)+" pairs change.")
	return d.finish()
}

// blur returns the namespaces of peers, as peers, and those that have none.
func blur(peers []policies.Peer) []policies.Peer {
	var blurred []policies.Peer
	for _, namespace := range namespacesOf(peers) {
		if namespace != "" {
			blurred = append(blurred, policies.Peer{Kind: "Namespace", Name: namespace})
		}
	}
	for _, p := range peers {
		if p.Namespace == "" {
			blurred = append(blurred, p)
		}
	}
	return blurred
}

func (d *drawing) finish() *picture {
	p := &d.picture
	p.joinTwins()
	p.joinEveryone()
	p.sort()
	return p
}

// joinTwins makes one node of workloads of a namespace, and of address ranges,
// that reach the same and are reached by the same: first of those that reach
// each other too, then of those that do not.
func (p *picture) joinTwins() {
	signatures := p.signatures()
	leader := make([]int, len(p.nodes))
	members := make([][]int, len(p.nodes))
	joined := make([]bool, len(p.nodes))
	for i := range leader {
		leader[i] = i
	}
	for _, signature := range signatures {
		twins := map[string][]int{}
		for i := range p.nodes {
			if !joined[i] && signature[i] != "" {
				twins[signature[i]] = append(twins[signature[i]], i)
			}
		}
		for _, group := range twins {
			if len(group) < 2 {
				continue
			}
			members[group[0]] = group
			for _, i := range group {
				leader[i], joined[i] = group[0], true
			}
		}
	}
	for i, group := range members {
		if len(group) > 0 {
			p.nodes[i] = p.together(group)
			if p.nodes[i].label != outsideText {
				p.note("Those with the same connections are drawn as one.")
			}
		}
	}
	p.redraw(leader)
}

// signatures returns for each node a text that twins share, twice: as if each
// node reached itself as it does its neighbours, and as it is. Where the first
// makes no sense it is empty.
func (p *picture) signatures() [2][]string {
	type link struct{ other, what uint32 }
	links := make([][]link, len(p.nodes))
	for i := range p.edges {
		e := &p.edges[i]
		links[e.from] = append(links[e.from], link{uint32(e.to), e.what << 1})
		links[e.to] = append(links[e.to], link{uint32(e.from), e.what<<1 | 1})
	}
	order := func(a, b link) int { return cmp.Or(cmp.Compare(a.other, b.other), cmp.Compare(a.what, b.what)) }
	write := func(i int, links []link) string {
		slices.SortFunc(links, order)
		text := fmt.Appendf(nil, "%d %s\x00", p.nodes[i].kind, p.nodes[i].box)
		for _, l := range links {
			text = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(text, l.other), l.what)
		}
		return string(text)
	}
	signatures := [2][]string{make([]string, len(p.nodes)), make([]string, len(p.nodes))}
	for i := range p.nodes {
		uses := map[uint32]int{}
		for _, l := range links[i] {
			if l.what&1 == 0 && p.nodes[l.other].box == p.nodes[i].box && p.nodes[l.other].kind == p.nodes[i].kind {
				uses[l.what]++
			}
		}
		best, found := uint32(0), false
		for what, n := range uses {
			if !found || n > uses[best] || n == uses[best] && what < best {
				best, found = what, true
			}
		}
		if found {
			self := uint32(i)
			signatures[0][i] = write(i, append(slices.Clone(links[i]), link{self, best}, link{self, best | 1}))
		}
		signatures[1][i] = write(i, links[i])
	}
	return signatures
}

// together returns the node that stands for several.
func (p *picture) together(group []int) node {
	joined := p.nodes[group[0]]
	joined.peers = 0
	var labels []string
	for _, i := range group {
		labels = append(labels, p.nodes[i].label)
		joined.peers += p.nodes[i].peers
	}
	slices.Sort(labels)
	switch {
	case slices.Equal(labels, []string{netset.AllIPv4.String(), netset.AllIPv6.String()}):
		joined.label = outsideText
	case len(labels) <= named:
		joined.label = strings.Join(labels, ", ")
	case joined.kind == outside:
		joined.label = counted(len(labels), "range") + " outside"
	default:
		joined.label = fmt.Sprintf("%s, %s and %d more", labels[0], labels[1], len(labels)-2)
	}
	return joined
}

// redraw moves each edge to the leaders of its ends, makes one of edges that
// are then alike, and drops nodes without edges.
func (p *picture) redraw(leader []int) {
	type key struct {
		from, to int
		what     uint32
	}
	first := map[key]int{}
	edges := p.edges[:0]
	for _, e := range p.edges {
		e.from, e.to = leader[e.from], leader[e.to]
		k := key{e.from, e.to, e.what}
		if i, ok := first[k]; ok {
			edges[i].pairs += e.pairs
			continue
		}
		first[k] = len(edges)
		edges = append(edges, e)
	}
	p.edges = edges
	p.dropUnused()
}

func (p *picture) dropUnused() {
	used := make([]bool, len(p.nodes))
	for _, e := range p.edges {
		used[e.from], used[e.to] = true, true
	}
	var nodes []node
	place := make([]int, len(p.nodes))
	for i, n := range p.nodes {
		if used[i] {
			place[i] = len(nodes)
			nodes = append(nodes, n)
		}
	}
	for i := range p.edges {
		p.edges[i].from, p.edges[i].to = place[p.edges[i].from], place[p.edges[i].to]
	}
	p.nodes = nodes
}

// fewestForEveryone is from how many nodes on a node for all of them is drawn.
const fewestForEveryone = 5

// joinEveryone makes one edge of those that all workloads in the picture have
// alike, as to a name server.
func (p *picture) joinEveryone() {
	var insiders int
	for _, n := range p.nodes {
		if n.kind == inside {
			insiders++
		}
	}
	if insiders < fewestForEveryone {
		return
	}
	all := -1
	for _, outgoing := range []bool{true, false} {
		type key struct {
			hub  int
			what uint32
		}
		spokes := map[key][]int{}
		for i, e := range p.edges {
			spoke, hub := e.from, e.to
			if !outgoing {
				spoke, hub = hub, spoke
			}
			if p.nodes[spoke].kind == inside && spoke != hub {
				k := key{hub, e.what}
				spokes[k] = append(spokes[k], i)
			}
		}
		drop := make([]bool, len(p.edges))
		for k, edges := range spokes {
			others := insiders
			if p.nodes[k.hub].kind == inside {
				others--
			}
			if len(edges) < others {
				continue
			}
			if all < 0 {
				all = len(p.nodes)
				p.nodes = append(p.nodes, node{label: "every workload here", kind: everyone})
			}
			for _, i := range edges[1:] {
				drop[i] = true
				p.edges[edges[0]].pairs += p.edges[i].pairs
			}
			if outgoing {
				p.edges[edges[0]].from = all
			} else {
				p.edges[edges[0]].to = all
			}
		}
		edges := p.edges[:0]
		for i, e := range p.edges {
			if !drop[i] {
				edges = append(edges, e)
			}
		}
		p.edges = edges
	}
	p.dropUnused()
}

// atMost returns the picture with at most n edges: drawn by namespace if it has
// more, and if need be without the edges that stand for the fewest pairs.
func (p *picture) atMost(n int) *picture {
	if len(p.edges) <= n {
		return p
	}
	small := &picture{notes: slices.Clone(p.notes), flows: p.flows}
	if slices.ContainsFunc(p.nodes, func(n node) bool { return n.box != "" }) {
		small.note(fmt.Sprintf("Drawn by namespace: one by one it would have %s edges.", grouped(len(p.edges))))
	}
	leader := make([]int, len(p.nodes))
	index := map[string]int{}
	for i, whole := range p.nodes {
		if whole.kind == inside && whole.box != "" {
			whole.label, whole.box = whole.box, ""
		}
		if whole.kind == outside {
			whole.label = outsideText
		}
		key := fmt.Sprint(whole.kind, whole.label)
		at, ok := index[key]
		if !ok {
			at = len(small.nodes)
			index[key] = at
			small.nodes = append(small.nodes, node{label: whole.label, kind: whole.kind})
		}
		small.nodes[at].peers += whole.peers
		leader[i] = at
	}
	type key struct {
		from, to int
		class    class
	}
	first := map[key]int{}
	for _, e := range p.edges {
		e.from, e.to = leader[e.from], leader[e.to]
		k := key{e.from, e.to, e.class}
		if i, ok := first[k]; ok {
			small.edges[i].pairs += e.pairs
			small.edges[i].ports = small.edges[i].ports.Union(e.ports)
			continue
		}
		first[k] = len(small.edges)
		small.edges = append(small.edges, e)
	}
	small.sort()
	if left := len(small.edges) - n; left > 0 {
		slices.SortStableFunc(small.edges, func(a, b edge) int { return cmp.Compare(b.pairs, a.pairs) })
		small.edges = small.edges[:n]
		fewest := "between the fewest"
		if p.flows {
			fewest = "with the fewest flows"
		}
		small.note(fmt.Sprintf("%s %s are left out.", counted(left, "edge"), fewest))
		small.dropUnused()
		small.sort()
	}
	return small
}

func (p *picture) note(text string) {
	if !slices.Contains(p.notes, text) {
		p.notes = append(p.notes, text)
	}
}

// sort orders nodes by box and label, everyone first and outside last, and
// edges by their ends.
func (p *picture) sort() {
	order := make([]int, len(p.nodes))
	for i := range order {
		order[i] = i
	}
	rank := [...]int{inside: 1, everyone: 0, outside: 2}
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := p.nodes[a], p.nodes[b]
		return cmp.Or(cmp.Compare(rank[x.kind], rank[y.kind]), strings.Compare(x.box, y.box), strings.Compare(x.label, y.label))
	})
	nodes := make([]node, len(order))
	place := make([]int, len(order))
	for to, from := range order {
		nodes[to] = p.nodes[from]
		place[from] = to
	}
	p.nodes = nodes
	for i := range p.edges {
		p.edges[i].from, p.edges[i].to = place[p.edges[i].from], place[p.edges[i].to]
	}
	slices.SortFunc(p.edges, func(a, b edge) int {
		return cmp.Or(cmp.Compare(a.from, b.from), cmp.Compare(a.to, b.to), strings.Compare(string(a.class), string(b.class)), a.ports.Compare(b.ports))
	})
}

// boxes yields the runs of nodes that share a box, in order.
func (p *picture) boxes(yield func(box string, nodes []int)) {
	for i := 0; i < len(p.nodes); {
		run := []int{i}
		for j := i + 1; j < len(p.nodes) && p.nodes[j].box == p.nodes[i].box && p.nodes[j].kind == p.nodes[i].kind; j++ {
			run = append(run, j)
		}
		yield(p.nodes[i].box, run)
		i += len(run)
	}
}
