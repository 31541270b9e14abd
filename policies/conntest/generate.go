package conntest

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Generate returns tests that hold what a judge answers now: for each namespace,
// what may reach each workload on which ports, and what may reach outside. They
// fail as soon as anything else may, and when what may no longer can.
func Generate(j *reach.Judge) []v1alpha1.ConnectivityTest {
	g := generator{names: map[string]map[policies.Ref]bool{}, arriving: map[string][]policies.Connection{}}
	for i := range j.Model().Pods {
		p := &j.Model().Pods[i]
		for _, ref := range []policies.Ref{p.Ref, p.Workload} {
			if g.names[ref.String()] == nil {
				g.names[ref.String()] = map[policies.Ref]bool{}
			}
			g.names[ref.String()][ref] = true
		}
	}
	var outward []policies.Connection
	for c := range j.Connections(reach.Listing{}) {
		if c.To.IsOutside() {
			outward = append(outward, c)
		} else {
			name := g.name(*c.To)
			g.arriving[name] = append(g.arriving[name], c)
		}
	}
	return append(g.inward(j.Model()), g.outward(outward)...)
}

type generator struct {
	names    map[string]map[policies.Ref]bool // by "namespace/name"
	arriving map[string][]policies.Connection
}

// name names a peer so that only it is meant.
func (g *generator) name(p policies.Peer) string {
	if p.IsOutside() {
		return p.CIDR.String()
	}
	if name := p.Namespace + "/" + p.Name; len(g.names[name]) == 1 {
		return name
	}
	return p.Namespace + "/" + strings.ToLower(p.Kind) + "/" + p.Name
}

func (g *generator) inward(m *policies.Model) []v1alpha1.ConnectivityTest {
	byNamespace := map[string][]string{}
	for i := range m.Pods {
		w := m.Pods[i].Workload
		name := g.name(policies.Peer{Namespace: w.Namespace, Name: w.Name, Kind: w.Kind})
		byNamespace[w.Namespace] = append(byNamespace[w.Namespace], name)
	}
	var all []v1alpha1.ConnectivityTest
	for _, n := range m.Namespaces {
		names := byNamespace[n.Name]
		if len(names) == 0 {
			continue
		}
		slices.Sort(names)
		t := newTest(n.Name)
		for _, name := range slices.Compact(names) {
			t.Spec.Tests = append(t.Spec.Tests, v1alpha1.Test{To: v1alpha1.OneOrMore{name}, ExpectOnly: g.sources(g.arriving[name])})
		}
		all = append(all, t)
	}
	return all
}

func newTest(namespace string) v1alpha1.ConnectivityTest {
	return v1alpha1.ConnectivityTest{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindConnectivityTest,
		Metadata: v1alpha1.Metadata{Name: "connectivity", Namespace: namespace},
	}
}

// outward cuts the addresses outside so that all of a part can be reached by the
// same sources, and makes a test of each part.
func (g *generator) outward(connections []policies.Connection) []v1alpha1.ConnectivityTest {
	parts := []netset.Addresses{netset.EveryAddress()}
	blocks := map[*policies.Peer]netset.Addresses{}
	for _, c := range connections {
		if _, known := blocks[c.To]; known {
			continue
		}
		block := netset.Block{CIDR: *c.To.CIDR, Except: c.To.Except}.Addresses()
		blocks[c.To] = block
		var cut []netset.Addresses
		for _, p := range parts {
			for _, piece := range []netset.Addresses{p.Intersect(block), p.Minus(block)} {
				if !piece.IsEmpty() {
					cut = append(cut, piece)
				}
			}
		}
		parts = cut
	}
	test := newTest("")
	test.Metadata.Name = "outside"
	test.Spec.Groups = map[string]v1alpha1.OneOrMore{}
	alike := map[string]int{} // index of a test, by what reaches its part
	var to []netset.Addresses
	for _, p := range parts {
		var into []policies.Connection
		for _, c := range connections {
			if blocks[c.To].Covers(p) {
				into = append(into, c)
			}
		}
		sources := g.sources(into)
		key := fmt.Sprint(*sources)
		at, known := alike[key]
		if !known {
			at = len(to)
			alike[key] = at
			to = append(to, netset.Addresses{})
			test.Spec.Tests = append(test.Spec.Tests, v1alpha1.Test{ExpectOnly: sources})
		}
		to[at] = to[at].Union(p)
	}
	for i, part := range to {
		var cidrs v1alpha1.OneOrMore
		for _, c := range part.CIDRs() {
			cidrs = append(cidrs, c.String())
		}
		t := &test.Spec.Tests[i]
		const few = 4
		switch {
		case part.Equal(netset.EveryAddress()):
			t.To = v1alpha1.OneOrMore{"world"}
		case len(cidrs) <= few:
			t.To = cidrs
		default:
			name := fmt.Sprintf("outside-%d", i+1)
			test.Spec.Groups[name] = cidrs
			t.To = v1alpha1.OneOrMore{name}
		}
	}
	return []v1alpha1.ConnectivityTest{test}
}

// sources lists where connections come from, those with the same ports together.
func (g *generator) sources(connections []policies.Connection) *[]v1alpha1.Source {
	sources := []v1alpha1.Source{}
	index := map[string]int{}
	add := func(from v1alpha1.OneOrMore, ports netset.Ports, expect string) {
		key := expect + ports.Key()
		at, known := index[key]
		if !known {
			if ports.IsEmpty() {
				return
			}
			at = len(sources)
			index[key] = at
			sources = append(sources, v1alpha1.Source{Port: portTexts(ports), Expect: expect})
		}
		for _, name := range from {
			if !slices.Contains(sources[at].From, name) {
				sources[at].From = append(sources[at].From, name)
			}
		}
	}
	for _, c := range connections {
		from := v1alpha1.OneOrMore{g.name(*c.From)}
		if c.From.IsOutside() {
			from = nil
			for _, cidr := range (netset.Block{CIDR: *c.From.CIDR, Except: c.From.Except}).Addresses().CIDRs() {
				from = append(from, cidr.String())
			}
		}
		add(from, c.Allow, "")
		add(from, c.Unknown, policies.Unknown.String())
	}
	return &sources
}

func portTexts(ports netset.Ports) v1alpha1.OneOrMore {
	if ports.Equal(netset.TransportPorts()) {
		return v1alpha1.OneOrMore{"any"}
	}
	var texts v1alpha1.OneOrMore
	for r := range ports.Ranges() {
		switch text := fmt.Sprintf("%s/%d", r.Protocol, max(r.First, 1)); {
		case r.First <= 1 && r.Last == 65535:
			texts = append(texts, r.Protocol.String())
		case r.First == r.Last:
			texts = append(texts, text)
		default:
			texts = append(texts, fmt.Sprintf("%s-%d", text, r.Last))
		}
	}
	return texts
}
