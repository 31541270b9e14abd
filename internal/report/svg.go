package report

import (
	"bufio"
	"cmp"
	"fmt"
	"html"
	"slices"
	"unicode/utf8"
)

// Measures of the drawing, in pixels.
const (
	svgMargin   = 16
	svgSlot     = 22 // an edge's share of a node's side
	svgNodePad  = 6
	svgGap      = 8
	svgBoxHead  = 24
	svgBoxPad   = 8
	svgCurve    = 150 // between a source and the label of an edge, at least,
	svgSteep    = 9   // and this part of the height, for curves that can be followed
	svgCrowd    = 40  // edges from which on their labels say where they come from
	svgHeader   = 30
	svgNoteLine = 20
	svgLetter   = 7.4 // width of a letter of a node's name
	svgSmall    = 6.7 // width of a letter of an edge's label
	svgLongest  = 34  // letters of a node's name
)

// svgStyle makes one drawing fit light and dark pages; in a page that sets the
// colours itself it takes those.
const svgStyle = `
.weir{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;--ink:#1f2328;--soft:#59636e;--line:#8c959f;--paper:#fff;--box:#f6f8fa;--edge:#d1d9e0;--add:#1a7f37;--del:#cf222e;--may:#9a6700;--out:#8250df}
@media (prefers-color-scheme:dark){.weir{--ink:#f0f6fc;--soft:#9198a1;--line:#6e7681;--paper:#0d1117;--box:#151b23;--edge:#3d444d;--add:#3fb950;--del:#f85149;--may:#d29922;--out:#ab7df8}}
.weir .paper{fill:var(--paper)}.weir .box{fill:var(--box);stroke:var(--edge)}.weir .node{fill:var(--paper);stroke:var(--line)}
.weir .outside{stroke:var(--out);stroke-dasharray:5 3}.weir .everyone{stroke-dasharray:1 3}.weir text{fill:var(--ink)}
.weir .soft{fill:var(--soft);font-size:12px}.weir .port{font:11px ui-monospace,SFMono-Regular,Menlo,monospace;fill:var(--soft)}
.weir path{fill:none;stroke:var(--line);stroke-width:1.4}.weir .tip{fill:var(--line);stroke:none}
.weir .adds path{stroke:var(--add);stroke-width:2.2}.weir .adds .tip,.weir .adds .port{fill:var(--add)}
.weir .removes path{stroke:var(--del);stroke-width:1.8;stroke-dasharray:7 4}.weir .removes .tip,.weir .removes .port{fill:var(--del)}
.weir .unknown path{stroke:var(--may);stroke-width:1.8;stroke-dasharray:2 4}.weir .unknown .tip,.weir .unknown .port{fill:var(--may)}
.weir path.tip{stroke:none!important}.weir g:hover>path:not(.tip){stroke-width:3.4}
`

// svgColumn is the sources, or the destinations, from top to bottom.
type svgColumn struct {
	x, width int
	top      map[int]int // of each node
	height   map[int]int
	boxes    []svgBox
	bottom   int
	slots    map[int]int // y of each edge's end
}

type svgBox struct {
	label       string
	top, height int
}

// svg draws sources on the left and destinations on the right, each edge with
// its own place on both sides, so that labels never lie on one another.
func (p *picture) svg(out *bufio.Writer) {
	left := p.column(func(e *edge) (int, int) { return e.from, e.to })
	right := p.column(func(e *edge) (int, int) { return e.to, e.from })
	texts := make([]string, len(p.edges))
	labels := 0
	for i := range p.edges {
		texts[i] = p.labelOf(&p.edges[i])
		if len(p.edges) >= svgCrowd {
			texts[i] = clip(p.nodes[p.edges[i].from].name(), svgLongest) + " " + texts[i]
		}
		labels = max(labels, int(svgSmall*float64(utf8.RuneCountInString(texts[i])))+22)
	}
	left.x = svgMargin
	right.x = left.x + left.width + max(svgCurve, max(left.bottom, right.bottom)/svgSteep) + labels
	width := max(right.x+right.width+svgMargin, 420)
	bottom := max(left.bottom, right.bottom) + svgGap
	legend := p.legend()
	height := bottom + svgNoteLine*(len(p.notes)+len(legend)) + svgMargin

	fmt.Fprintf(out, `<svg xmlns="http://www.w3.org/2000/svg" class="weir" role="img" aria-label="Connections" width="%d" height="%d" viewBox="0 0 %d %d">`+"\n", width, height, width, height)
	fmt.Fprintf(out, "<style>%s</style>\n<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n", svgStyle)
	if len(p.edges) == 0 {
		fmt.Fprintf(out, "<text x=\"%d\" y=\"%d\">Nothing to draw.</text>\n</svg>\n", svgMargin, svgMargin+14)
		return
	}
	svgText(out, left.x, svgMargin+8, "soft", "from")
	svgText(out, right.x, svgMargin+8, "soft", "to")
	for _, c := range []*svgColumn{left, right} {
		for _, b := range c.boxes {
			fmt.Fprintf(out, `<rect class="box" x="%d" y="%d" width="%d" height="%d" rx="8"/>`+"\n", c.x, b.top, c.width, b.height)
			svgText(out, c.x+svgBoxPad, b.top+16, "soft", clip(b.label, svgLongest))
		}
	}
	for i := range p.edges {
		e := &p.edges[i]
		x1, y1 := left.x+left.width-svgBoxPad, left.slots[i]
		x2, y2 := right.x+svgBoxPad, right.slots[i]
		straight := x2 - labels
		middle := (x1 + straight) / 2
		fmt.Fprintf(out, `<g class="%s"><title>%s</title><path d="M%d %dC%d %d %d %d %d %dH%d"/><path class="tip" d="M%d %dl-8 -4v8z"/>`,
			e.class.style(), html.EscapeString(fmt.Sprintf("%s → %s %s", p.nodes[e.from].name(), p.nodes[e.to].name(), p.labelOf(e))),
			x1, y1, middle, y1, middle, y2, straight, y2, x2-7, x2, y2)
		fmt.Fprintf(out, `<text class="port" x="%d" y="%d" text-anchor="end">%s</text></g>`+"\n", x2-12, y2-4, html.EscapeString(texts[i]))
	}
	for _, c := range []*svgColumn{left, right} {
		for i, n := range p.nodes {
			if c.height[i] == 0 {
				continue
			}
			corner := 5
			if n.kind == outside {
				corner = min(c.height[i]/2, 17)
			}
			fmt.Fprintf(out, `<g><title>%s</title><rect class="node %s" x="%d" y="%d" width="%d" height="%d" rx="%d"/>`,
				html.EscapeString(n.name()), [...]string{"inside", "everyone", "outside"}[n.kind], c.x+svgBoxPad, c.top[i], c.width-2*svgBoxPad, c.height[i], corner)
			fmt.Fprintf(out, `<text x="%d" y="%d">%s</text></g>`+"\n", c.x+2*svgBoxPad+2, c.top[i]+c.height[i]/2+5, html.EscapeString(clip(n.label, svgLongest)))
		}
	}
	y := bottom + svgNoteLine
	for _, note := range slices.Concat(legend, p.notes) {
		svgText(out, svgMargin, y, "soft", note)
		y += svgNoteLine
	}
	out.WriteString("</svg>\n")
}

// name is the node's label with its namespace.
func (n *node) name() string {
	if n.box == "" {
		return n.label
	}
	return n.box + "/" + n.label
}

// legend explains the signs that the picture uses.
func (p *picture) legend() []string {
	var text []string
	for _, sign := range []struct {
		class   class
		meaning string
	}{{adds, "+ and solid: newly allowed"}, {removes, "− and dashed: no longer allowed"}, {refused, "× and dashed: denied"}, {unknown, "? and dotted: cannot be told"}} {
		if slices.ContainsFunc(p.edges, func(e edge) bool { return e.class == sign.class }) {
			text = append(text, sign.meaning)
		}
	}
	return text
}

func svgText(out *bufio.Writer, x, y int, class, text string) {
	fmt.Fprintf(out, `<text class="%s" x="%d" y="%d">%s</text>`+"\n", class, x, y, html.EscapeString(text))
}

// column lays out the nodes that are at the near end of edges, and gives each
// edge its slot there, ordered by its far end.
func (p *picture) column(ends func(*edge) (near, far int)) *svgColumn {
	at := map[int][]int{}
	for i := range p.edges {
		near, _ := ends(&p.edges[i])
		at[near] = append(at[near], i)
	}
	c := &svgColumn{top: map[int]int{}, height: map[int]int{}, slots: map[int]int{}, bottom: svgHeader + svgMargin/2}
	letters := 8
	p.boxes(func(box string, nodes []int) {
		nodes = slices.DeleteFunc(nodes, func(i int) bool { return len(at[i]) == 0 })
		if len(nodes) == 0 {
			return
		}
		b := svgBox{label: box, top: c.bottom}
		letters = max(letters, min(svgLongest, utf8.RuneCountInString(box)))
		y := c.bottom
		if box != "" {
			y += svgBoxHead
		}
		for _, i := range nodes {
			letters = max(letters, min(svgLongest, utf8.RuneCountInString(p.nodes[i].label)))
			edges := at[i]
			slices.SortStableFunc(edges, func(a, b int) int {
				_, x := ends(&p.edges[a])
				_, y := ends(&p.edges[b])
				return cmp.Compare(x, y)
			})
			c.top[i], c.height[i] = y, len(edges)*svgSlot+svgNodePad*2
			for k, e := range edges {
				c.slots[e] = y + svgNodePad + svgSlot*k + svgSlot/2 + 3
			}
			y += c.height[i] + svgGap
		}
		if box != "" {
			b.height = y - b.top
			c.boxes = append(c.boxes, b)
		}
		c.bottom = y + svgGap
	})
	c.width = int(svgLetter*float64(letters)) + 5*svgBoxPad
	return c
}
