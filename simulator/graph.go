package simulator

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Graph is who talks to whom, as recorded.
type Graph struct {
	Nodes   []Node
	Edges   []Edge // from the first node to the last
	Total   Counts
	Records uint64
}

// Node is a workload, a namespace, or an end that has no name in the cluster.
type Node struct {
	Namespace, Name string
	Kind            string // as far as records tell, empty where they tell several
}

// String prints the node as keys of a Ranking do.
func (n Node) String() string {
	if n.Name == "" && n.Kind == "Namespace" {
		return n.Namespace
	}
	return endName{n.Namespace, n.Name}.String()
}

// Edge is what was recorded from one node to another with one verdict.
type Edge struct {
	From, To int // of Nodes
	Verdict  policies.Verdict
	Ports    netset.Ports // those that records tell
	Counts
}

// Talk collects a Graph. Its memory grows with the different connections.
type Talk struct {
	namespaces bool
	ledger     *ledger
	kinds      map[endName]string
	records    uint64
}

// NewTalk returns a Talk between workloads, or between namespaces, that tells at
// most so many connections apart.
func NewTalk(namespaces bool, most int) *Talk {
	return &Talk{namespaces: namespaces, ledger: newLedger(most, false), kinds: map[endName]string{}}
}

// Add counts a flow. It fails with a TooManyError.
func (t *Talk) Add(f *policies.Flow) error { return t.AddSum(f, 1) }

// AddSum counts what some records of one hour, side and verdict come to.
func (t *Talk) AddSum(f *policies.Flow, records uint64) error {
	t.records += records
	t.learn(&f.From)
	t.learn(&f.To)
	return t.ledger.add("", f)
}

// severalKinds stands for the kind of what has several.
const severalKinds = "\x00"

func (t *Talk) learn(p *policies.FlowPeer) {
	w := Owner(p)
	if w.Kind == "" || t.namespaces || !isNamed(p) {
		return
	}
	name := nameOf(p)
	if known, ok := t.kinds[name]; !ok {
		t.kinds[name] = w.Kind
	} else if known != w.Kind {
		t.kinds[name] = severalKinds
	}
}

// Graph returns what was collected, nodes by name, edges by their nodes.
func (t *Talk) Graph() *Graph {
	type pair struct {
		from, to Node
		verdict  policies.Verdict
	}
	g := &Graph{Records: t.records}
	edges, nodes := map[pair]*Edge{}, map[Node]int{}
	t.ledger.each(func(c connectionKey, r report, counts Counts) {
		key := pair{t.node(c.from), t.node(c.to), r.verdict}
		nodes[key.from], nodes[key.to] = 0, 0
		if edges[key] == nil {
			edges[key] = &Edge{Verdict: r.verdict}
		}
		e := edges[key]
		e.join(counts)
		if c.protocol != 0 && (c.port != 0 || !c.protocol.HasPorts()) {
			e.Ports = e.Ports.Union(netset.PortSpan(c.protocol, c.port, c.port))
		}
		g.Total.join(counts)
	})
	g.Nodes = slices.SortedFunc(maps.Keys(nodes), Node.compare)
	for i, n := range g.Nodes {
		nodes[n] = i
	}
	for key, e := range edges {
		e.From, e.To = nodes[key.from], nodes[key.to]
		g.Edges = append(g.Edges, *e)
	}
	slices.SortFunc(g.Edges, func(a, b Edge) int {
		return cmp.Or(cmp.Compare(a.From, b.From), cmp.Compare(a.To, b.To), cmp.Compare(a.Verdict, b.Verdict))
	})
	return g
}

func (n Node) compare(m Node) int {
	return cmp.Or(strings.Compare(n.Namespace, m.Namespace), strings.Compare(n.Name, m.Name), strings.Compare(n.Kind, m.Kind))
}

func (t *Talk) node(n endName) Node {
	switch {
	case n.namespace == "":
		return Node{Name: n.name}
	case t.namespaces:
		return Node{Namespace: n.namespace, Kind: "Namespace"}
	}
	kind := t.kinds[n]
	if kind == severalKinds {
		kind = ""
	}
	return Node{n.namespace, n.name, kind}
}
