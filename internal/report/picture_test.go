package report

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
)

// drawn writes a picture as lines "from -> to: label", and its notes.
func drawn(p *picture) []string {
	var lines []string
	for i := range p.edges {
		e := &p.edges[i]
		lines = append(lines, fmt.Sprintf("%s -> %s: %s", p.nodes[e.from].name(), p.nodes[e.to].name(), p.labelOf(e)))
	}
	return append(lines, p.notes...)
}

// connect returns connections of all from to all to, but for a peer to itself.
func connect(from, to []policies.Peer, port uint16) []policies.Connection {
	var rows []policies.Connection
	for _, f := range from {
		for _, t := range to {
			if comparePeers(f, t) != 0 {
				rows = append(rows, connection(f, t, tcp(port), netset.Ports{}))
			}
		}
	}
	return rows
}

func TestPictures(t *testing.T) {
	const together = "Those with the same connections are drawn as one."
	world := peerList("0.0.0.0/0", "::/0")
	for _, c := range []struct {
		name string
		rows []policies.Connection
		want []string
	}{
		{"nothing", nil, nil},
		{"one edge", connect(peerList("a/x"), peerList("b/y"), 80), []string{"a/x -> b/y: TCP/80"}},
		{"those that reach the same are one", connect(peerList("a/x", "a/z"), peerList("b/y"), 80), []string{"a/x, z -> b/y: TCP/80", together}},
		{"but not across namespaces", connect(peerList("a/x", "c/z"), peerList("b/y"), 80), []string{"a/x -> b/y: TCP/80", "c/z -> b/y: TCP/80"}},
		{
			"nor with other ports", slices.Concat(connect(peerList("a/x"), peerList("b/y"), 80), connect(peerList("a/z"), peerList("b/y"), 81)),
			[]string{"a/x -> b/y: TCP/80", "a/z -> b/y: TCP/81"},
		},
		{"those that all reach each other are one", connect(many(9, "a"), many(9, "a"), 80), []string{"a/w000, w001 and 7 more -> a/w000, w001 and 7 more: TCP/80", together}},
		{
			"a ring is not", slices.Concat(connect(peerList("a/x"), peerList("a/y"), 80), connect(peerList("a/y"), peerList("a/z"), 80), connect(peerList("a/z"), peerList("a/x"), 80)),
			[]string{"a/x -> a/y: TCP/80", "a/y -> a/z: TCP/80", "a/z -> a/x: TCP/80"},
		},
		{"both families of outside are one", connect(world, peerList("b/y"), 80), []string{"outside -> b/y: TCP/80"}},
		{
			"unless they differ", slices.Concat(connect(world[:1], peerList("b/y"), 80), connect(world[1:], peerList("b/y"), 81)),
			[]string{"0.0.0.0/0 -> b/y: TCP/80", "::/0 -> b/y: TCP/81"},
		},
		{"what all do is one edge", connect(many(1, "a", "b", "c", "d", "e"), many(1, "a"), 53), []string{"every workload here -> a/w000: TCP/53"}},
	} {
		if diff := cmp.Diff(c.want, drawn(pictureOfConnections(slices.Values(c.rows)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

func TestPicturesOfTooMuchAreDrawnByNamespace(t *testing.T) {
	var rows []policies.Connection
	for i := range 12 {
		rows = append(rows, connect(peerList(fmt.Sprintf("a/x%02d", i)), peerList(fmt.Sprintf("b/y%02d", i)), uint16(80+i))...)
	}
	rows = append(rows, connect(peerList("c/z"), peerList("a/x00"), 80)...)
	full := pictureOfConnections(slices.Values(rows))
	for _, c := range []struct {
		edges int
		want  []string
	}{
		{5, []string{"a -> b: TCP/80-91", "c -> a: TCP/80", "Drawn by namespace: one by one it would have 13 edges."}},
		{1, []string{"a -> b: TCP/80-91", "Drawn by namespace: one by one it would have 13 edges.", "1 edge between the fewest are left out."}},
	} {
		if diff := cmp.Diff(c.want, drawn(full.atMost(c.edges))); diff != "" {
			t.Errorf("at most %d (-want +got):\n%s", c.edges, diff)
		}
	}
	if full.atMost(13) != full {
		t.Error("a picture that is small enough is drawn by namespace")
	}
}

func TestAChangeOfVeryManyPairsIsDrawnByNamespace(t *testing.T) {
	c := &diff.Change{Groups: []diff.Group{{
		From: many(500, "a"), To: slices.Concat(many(500, "b"), peerList("0.0.0.0/0")), Ports: tcp(80),
		Before: policies.Allow, After: policies.Deny, Pairs: 500 * 501,
	}}}
	want := []string{"namespace a -> namespace b: − TCP/80", "namespace a -> 0.0.0.0/0: − TCP/80", "Drawn by namespace, for 250,500 pairs change."}
	if diff := cmp.Diff(want, drawn(pictureOfChange(withDifferences(c)))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestMermaidStaysWithinWhatForgesDraw(t *testing.T) {
	var rows []policies.Connection
	for i := range 90 {
		for j := range 90 {
			if (i*j)%3 == 0 {
				rows = append(rows, connect(peerList(fmt.Sprintf("n%02d/x", i)), peerList(fmt.Sprintf("n%02d/x", j)), uint16(1000+i))...)
			}
		}
	}
	var text strings.Builder
	out := bufio.NewWriter(&text)
	pictureOfConnections(slices.Values(rows)).atMost(mermaidEdges).mermaid(out)
	out.Flush()
	if n := strings.Count(text.String(), "-->"); n != mermaidEdges || text.Len() > 50_000 {
		t.Errorf("%d edges, %d characters", n, text.Len())
	}
}
