package report

import (
	"bufio"
	"iter"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
)

// csvField quotes a field as RFC 4180 has it, where it needs quotes.
func csvField(text string) string {
	if !strings.ContainsAny(text, "\",\r\n") && !strings.HasPrefix(text, " ") && !strings.HasSuffix(text, " ") {
		return text
	}
	return `"` + strings.ReplaceAll(text, `"`, `""`) + `"`
}

func csvLine(out *bufio.Writer, fields ...string) {
	for i, f := range fields {
		if i > 0 {
			out.WriteByte(',')
		}
		out.WriteString(f)
	}
	out.WriteString("\r\n")
}

// csvPeer writes a peer as its two fields: name and kind.
func csvPeer(p policies.Peer) string {
	kind := p.Kind
	switch {
	case p.IsOutside():
		kind = "Outside"
	case p.Pod != "" && p.Pod != p.Name:
		return csvField(p.Namespace+"/"+p.Pod) + ",Pod"
	}
	name := p.Namespace + "/" + p.Name
	if p.IsOutside() {
		name = p.String()
	} else if p.Namespace == "" {
		name = p.Name
	}
	return csvField(name) + "," + csvField(kind)
}

func csvPorts(p netset.Ports) string {
	if p.IsEmpty() {
		return ""
	}
	return csvField(p.String())
}

func reachabilityCSV(out *bufio.Writer, connections iter.Seq[policies.Connection]) {
	csvLine(out, "from", "from_kind", "to", "to_kind", "allow", "unknown")
	peers := rememberPeers(csvPeer)
	allow, unknown := rememberGrants(csvPorts)
	for c := range connections {
		csvLine(out, peers.of(c.From), peers.of(c.To), allow.of(c.Grant), unknown.of(c.Grant))
	}
}

func changeCSV(out *bufio.Writer, c *Change) {
	head := []string{"change", "from", "from_kind", "to", "to_kind", "ports", "before", "after"}
	if c.Each == nil {
		csvLine(out, head...)
		changeLines(out, c.Change)
		return
	}
	csvLine(out, append(head, "staged")...)
	changeLines(out, c.Change, "")
	for i, alone := range c.Each {
		changeLines(out, alone, csvField(c.Staged[i].Ref.Kind+"/"+c.Staged[i].Ref.String()))
	}
}

// changeLines writes a line for each difference, with more fields at its end.
func changeLines(out *bufio.Writer, c *diff.Change, more ...string) {
	differences := byClass(c)
	peers := rememberPeers(csvPeer)
	for _, of := range []class{adds, removes, unknown} {
		for _, d := range differences[of] {
			csvLine(out, append([]string{of.past(), peers.of(d.From), peers.of(d.To), csvPorts(d.Ports), d.Before.String(), d.After.String()}, more...)...)
		}
	}
}
