package report

import (
	"bufio"
	"fmt"
	"strings"
)

// mermaidEscapes holds what means something inside a quoted label, or to the
// Markdown around it, as the character codes that mermaid reads.
var mermaidEscapes = strings.NewReplacer(
	"#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;", "|", "#124;",
	"\\", "#92;", "@", "#64;", ";", "#59;", "\n", " ", "\r", " ",
)

func mermaidString(text string) string { return `"` + mermaidEscapes.Replace(text) + `"` }

var (
	mermaidArrow = map[class]string{"": "-->", adds: "==>", removes: "-.->", unknown: "-.->"}
	mermaidColor = map[class]string{adds: "#1a7f37", removes: "#cf222e", unknown: "#9a6700"}
)

func (p *picture) mermaid(out *bufio.Writer) {
	out.WriteString("flowchart LR\n")
	for _, note := range p.notes {
		out.WriteString("  %% " + note + "\n")
	}
	if len(p.edges) == 0 {
		out.WriteString("  n0[\"nothing to draw\"]\n")
	}
	p.boxes(func(box string, nodes []int) {
		indent := "  "
		if box != "" {
			fmt.Fprintf(out, "  subgraph b%d[%s]\n", nodes[0], mermaidString(box))
			indent = "    "
		}
		for _, i := range nodes {
			left, right := "[", "]"
			if p.nodes[i].kind == outside {
				left, right = "([", "])"
			}
			fmt.Fprintf(out, "%sn%d%s%s%s\n", indent, i, left, mermaidString(p.nodes[i].label), right)
		}
		if box != "" {
			out.WriteString("  end\n")
		}
	})
	for i := range p.edges {
		e := &p.edges[i]
		fmt.Fprintf(out, "  n%d %s|%s| n%d\n", e.from, mermaidArrow[e.class.style()], mermaidString(p.labelOf(e)), e.to)
	}
	for i := range p.edges {
		if color := mermaidColor[p.edges[i].class.style()]; color != "" {
			fmt.Fprintf(out, "  linkStyle %d stroke:%s,color:%s\n", i, color, color)
		}
	}
}
