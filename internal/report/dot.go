package report

import (
	"bufio"
	"fmt"
	"strings"
)

// dotString quotes text as DOT has it.
func dotString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", " ").Replace(text) + `"`
}

var dotEdge = map[class]string{
	"":      `color="#57606a"`,
	adds:    `color="#1a7f37", fontcolor="#1a7f37", penwidth=2`,
	removes: `color="#cf222e", fontcolor="#cf222e", style=dashed`,
	unknown: `color="#9a6700", fontcolor="#9a6700", style=dotted`,
}

func (p *picture) dot(out *bufio.Writer) {
	out.WriteString("digraph weir {\n  rankdir=LR\n  node [shape=box, style=rounded, fontname=\"sans-serif\"]\n  edge [fontname=\"sans-serif\", fontsize=10]\n")
	for _, note := range p.notes {
		out.WriteString("  // " + note + "\n")
	}
	p.boxes(func(box string, nodes []int) {
		indent := "  "
		if box != "" {
			fmt.Fprintf(out, "  subgraph %s {\n    label=%s\n", dotString("cluster "+box), dotString(box))
			indent = "    "
		}
		for _, i := range nodes {
			shape := ""
			if p.nodes[i].kind == outside {
				shape = ", shape=ellipse, style=dashed"
			}
			fmt.Fprintf(out, "%sn%d [label=%s%s]\n", indent, i, dotString(p.nodes[i].label), shape)
		}
		if box != "" {
			out.WriteString("  }\n")
		}
	})
	for i := range p.edges {
		e := &p.edges[i]
		fmt.Fprintf(out, "  n%d -> n%d [label=%s, %s]\n", e.from, e.to, dotString(p.labelOf(e)), dotEdge[e.class.style()])
	}
	out.WriteString("}\n")
}
