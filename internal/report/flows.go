package report

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// Selection says which recorded flows an answer is about.
type Selection struct {
	Reading FlowReading
	// NotSaying is how many records do not say enough to tell whether they were
	// asked for; they are left out.
	NotSaying uint64
}

// FlowList is a page of recorded flows.
type FlowList struct {
	Selection
	Flows   []policies.Flow
	Matched uint64 // on all pages
	Next    string // the cursor of the next page; empty on the last
	// Encode returns a flow as a JSON object, as docs/schemas/flow.json has it.
	Encode func(policies.Flow) ([]byte, error)
}

// FlowTop is the groups of flows that come to most.
type FlowTop struct {
	Selection
	*simulator.Ranking
	By string // flows, bytes or packets
}

// FlowGraph is who talks to whom.
type FlowGraph struct {
	Selection
	*simulator.Graph
}

// FlowStats is what there is in a recording.
type FlowStats struct {
	Selection
	*simulator.Census
	Files int
	Size  uint64 // of the files, in bytes; 0 where it is not known
}

// FlowExport says what was written for others to read.
type FlowExport struct {
	Selection
	Records uint64
	As      string            // the format
	Lost    []simulator.Cause // what it has no place for, with how many records said it
}

// FlowRows is the answer to a question in SQL. Values are nil, int64, uint64,
// float64 or string.
type FlowRows struct {
	Columns []string
	Rows    [][]any
}

// WriteFlowList writes a page of recorded flows.
func WriteFlowList(w io.Writer, format Format, l *FlowList, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		flowListText(out, l, palette(style))
	case JSON:
		if err := flowListJSON(newObject(out, KindFlowList), l); err != nil {
			return err
		}
	case CSV:
		flowListCSV(out, l)
	default:
		return unsupported(KindFlowList, format)
	}
	return out.Flush()
}

// WriteFlow writes one flow of a stream of them as a line; encode is that of JSON.
func WriteFlow(w io.Writer, format Format, f *policies.Flow, encode func(policies.Flow) ([]byte, error), style Style) error {
	out := bufio.NewWriter(w)
	if format == JSON {
		text, err := encode(*f)
		if err != nil {
			return err
		}
		out.Write(append(text, '\n'))
		return out.Flush()
	}
	paint := palette(style)
	what := "denied"
	switch {
	case f.Ended > 0:
		what = fmt.Sprintf("ended, %s sent, %s back", bytesText(f.Bytes), bytesText(f.ReplyBytes))
	case f.Started > 0:
		what = "began"
	case f.Verdict != policies.Deny:
		what = number(f.Count) + " flows"
	}
	fmt.Fprintf(out, "%s  %s  %s → %s  %s  %s", clock(f.First), paint.verdict(f.Verdict, fmt.Sprintf("%-5s", f.Verdict)), flowEnd(&f.From), flowEnd(&f.To), simulator.PortName(f), what)
	if names := hitNames(f); len(names) > 0 {
		fmt.Fprintf(out, "  by %s", strings.Join(names, ", "))
	}
	out.WriteString("\n")
	return out.Flush()
}

// WriteFlowTop writes the groups that come to most.
func WriteFlowTop(w io.Writer, format Format, t *FlowTop, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		flowTopText(out, t, palette(style))
	case JSON:
		flowTopJSON(newObject(out, KindFlowTop), t)
	case CSV:
		csvLine(out, append(escaped(t.Keys), "flows", "bytes", "reply_bytes", "packets", "reply_packets", "share", "first", "last")...)
		for i := range t.Rows {
			r := &t.Rows[i]
			csvLine(out, append(escaped(r.Values), number(r.Flows), number(r.Bytes), number(r.ReplyBytes), number(r.Packets), number(r.Replies),
				shareOf(r, t), timeText(r.First), timeText(r.Last))...)
		}
	default:
		return unsupported(KindFlowTop, format)
	}
	return out.Flush()
}

// WriteFlowGraph writes who talks to whom.
func WriteFlowGraph(w io.Writer, format Format, g *FlowGraph, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		flowGraphText(out, g, palette(style))
	case JSON:
		flowGraphJSON(newObject(out, KindFlowGraph), g)
	case DOT:
		pictureOfFlows(g.Graph).dot(out)
	case Mermaid:
		pictureOfFlows(g.Graph).atMost(mermaidEdges).mermaid(out)
	case SVG:
		pictureOfFlows(g.Graph).atMost(svgEdges).svg(out)
	default:
		return unsupported(KindFlowGraph, format)
	}
	return out.Flush()
}

// WriteFlowStats writes what there is in a recording.
func WriteFlowStats(w io.Writer, format Format, s *FlowStats, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		flowStatsText(out, s, palette(style))
	case JSON:
		flowStatsJSON(newObject(out, KindFlowStats), s)
	default:
		return unsupported(KindFlowStats, format)
	}
	return out.Flush()
}

// WriteFlowExport says what was written for others to read.
func WriteFlowExport(w io.Writer, format Format, e *FlowExport, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		paint := palette(style)
		fmt.Fprintf(out, "%s written as %s.\n", counted(e.Records, "record"), e.As)
		for _, l := range e.Lost {
			out.WriteString(paint.dim(clean(fmt.Sprintf("not kept, for %s has no place for it: %s, of %s", e.As, l.Text, counted(l.Flows, "record")))) + "\n")
		}
		selectionText(out, &e.Selection, paint)
	case JSON:
		o := newObject(out, KindFlowExport)
		o.text("as", e.As)
		o.number("records", e.Records)
		list(o, "lost", slices.Values(e.Lost), appendCause)
		selectionJSON(o, &e.Selection)
		o.close()
	default:
		return unsupported(KindFlowExport, format)
	}
	return out.Flush()
}

// WriteFlowRows writes the answer to a question in SQL.
func WriteFlowRows(w io.Writer, format Format, r *FlowRows, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	texts := func(row []any) []string {
		all := make([]string, len(row))
		for i, v := range row {
			if v != nil {
				all[i] = fmt.Sprint(v)
			}
		}
		return all
	}
	switch format {
	case Text:
		if len(r.Rows) == 0 {
			out.WriteString("No rows.\n")
		}
		rows := make([][]string, len(r.Rows))
		for i, row := range r.Rows {
			rows[i] = texts(row)
		}
		tableText(out, r.Columns, rows, palette(style), plainRow)
	case JSON:
		o := newObject(out, KindFlowRows)
		list(o, "columns", slices.Values(r.Columns), appendString)
		list(o, "rows", slices.Values(r.Rows), func(b []byte, row []any) []byte { return appendList(b, row, appendCell) })
		o.close()
	case CSV:
		csvLine(out, escaped(r.Columns)...)
		for _, row := range r.Rows {
			csvLine(out, escaped(texts(row))...)
		}
	default:
		return unsupported(KindFlowRows, format)
	}
	return out.Flush()
}

func appendCell(b []byte, v any) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case int64:
		return strconv.AppendInt(b, v, 10)
	case float64:
		return strconv.AppendFloat(b, v, 'g', -1, 64)
	}
	return appendString(b, fmt.Sprint(v))
}

func plainRow(_ int, text string) string { return text }

func number(n uint64) string { return strconv.FormatUint(n, 10) }

func timeText(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.RFC3339Nano)
}

// clock is a time that is read by people, to the second.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format(time.DateTime)
}

func flowListText(out *bufio.Writer, l *FlowList, paint paint) {
	if len(l.Flows) == 0 {
		out.WriteString("No flows.\n")
	}
	rows := make([][]string, len(l.Flows))
	for i := range l.Flows {
		f := &l.Flows[i]
		rows[i] = []string{
			clock(f.First), f.Verdict.String(), flowEnd(&f.From), "→", flowEnd(&f.To), simulator.PortName(f),
			number(f.Count), bytesText(f.Bytes + f.ReplyBytes), strings.Join(hitNames(f), ", "), f.Origin.Reporter.String(),
		}
	}
	tableText(out, []string{"time (UTC)", "verdict", "from", "", "to", "port", "flows", "bytes", "policy", "reporter"}, rows, paint,
		func(i int, text string) string { return paint.verdict(l.Flows[i].Verdict, text) })
	if l.Next != "" {
		out.WriteString(paint.dim(fmt.Sprintf("\n%s of %s records. The next page: --after %s", grouped(len(l.Flows)), grouped(l.Matched), l.Next)) + "\n")
	}
	selectionText(out, briefly(l.Selection), paint)
}

// flowEnd names an end by the best that the record has.
func flowEnd(p *policies.FlowPeer) string {
	name := ""
	switch {
	case p.Namespace != "" && p.Pod != "":
		name = p.Namespace + "/" + p.Pod
	case p.Namespace != "" && p.PodPrefix != "":
		name = p.Namespace + "/" + p.PodPrefix + "*"
	case p.Namespace != "":
		if w := simulator.Owner(p); w.Name != "" {
			return w.String()
		}
		name = p.Namespace + "/" + simulator.NotRecorded
	}
	address := ""
	if p.Address.IsValid() {
		address = p.Address.String()
	}
	switch {
	case name != "":
		return name
	case len(p.Names) > 0 && address != "":
		return p.Names[0] + " " + address
	case len(p.Names) > 0:
		return p.Names[0]
	case p.Host || p.OwnNode:
		return strings.TrimSpace(simulator.OnNode + " " + address)
	case p.Set.Name != "":
		return strings.TrimSpace(p.Set.String() + " " + address)
	case address != "":
		return address
	case p.Outside || p.Network != policies.AnyNetwork:
		return strings.TrimSpace(simulator.Outside + " " + p.Network.String())
	}
	return simulator.NotRecorded
}

// hitNames are the policies that a record names, those that were enforced.
func hitNames(f *policies.Flow) []string {
	var names []string
	for i := range f.Hits {
		h := &f.Hits[i]
		name := h.Policy.String()
		switch {
		case name != "":
		case h.Tier != "":
			name = "end of tier " + h.Tier
		case h.Rule == policies.EndOfTier:
			name = "end of all tiers"
		}
		if name != "" && !h.Staged && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

func selectionText(out *bufio.Writer, s *Selection, paint paint) {
	if s.NotSaying > 0 {
		out.WriteString(paint.dim("\n"+counted(s.NotSaying, "record")+verb(s.NotSaying, " does", " do")+" not say enough to tell, and "+verb(s.NotSaying, "is", "are")+" left out.") + "\n")
	}
	readingText(out, s.Reading, paint)
}

// briefly is a selection without the causes for which records were left out.
func briefly(s Selection) *Selection {
	var left uint64
	for _, c := range s.Reading.LeftOut {
		left += c.Flows
	}
	if s.Reading.LeftOut = nil; left > 0 {
		s.Reading.LeftOut = []simulator.Cause{{Text: "weir flows stats says why", Flows: left}}
	}
	return &s
}

func flowListJSON(o *object, l *FlowList) error {
	o.number("matched", l.Matched)
	var failed error
	list(o, "flows", slices.Values(l.Flows), func(b []byte, f policies.Flow) []byte {
		text, err := l.Encode(f)
		if err != nil {
			failed = err
		}
		return append(b, text...)
	})
	if l.Next != "" {
		o.text("next", l.Next)
	}
	selectionJSON(o, &l.Selection)
	o.close()
	return failed
}

func selectionJSON(o *object, s *Selection) {
	o.number("notSaying", s.NotSaying)
	o.value("reading", appendReading(nil, s.Reading))
}

func flowListCSV(out *bufio.Writer, l *FlowList) {
	names := []string{"first", "last", "verdict"}
	for _, end := range []string{"from", "to"} {
		for _, column := range []string{"namespace", "workload", "kind", "pod", "address", "name"} {
			names = append(names, end+"_"+column)
		}
	}
	csvLine(out, append(names, "protocol", "port", "flows", "bytes", "packets", "reply_bytes", "reply_packets", "policies", "reporter", "format", "record")...)
	for i := range l.Flows {
		f := &l.Flows[i]
		fields := []string{timeText(f.First), timeText(f.Last), f.Verdict.String()}
		for _, p := range []*policies.FlowPeer{&f.From, &f.To} {
			address, w := "", simulator.Owner(p)
			if p.Address.IsValid() {
				address = p.Address.String()
			}
			fields = append(fields, p.Namespace, w.Name, w.Kind, p.Pod, address, strings.Join(p.Names, " "))
		}
		protocol, port := "", ""
		if f.Protocol != 0 {
			protocol = f.Protocol.String()
			port = number(uint64(f.Port))
		}
		fields = append(fields, protocol, port, number(f.Count), number(f.Bytes), number(f.Packets), number(f.ReplyBytes), number(f.ReplyPackets),
			strings.Join(hitNames(f), " "), f.Origin.Reporter.String(), f.Origin.Format, f.Record.String())
		csvLine(out, escaped(fields)...)
	}
}

func flowTopText(out *bufio.Writer, t *FlowTop, paint paint) {
	if len(t.Rows) == 0 {
		out.WriteString("No flows.\n")
	}
	rows := make([][]string, len(t.Rows))
	for i := range t.Rows {
		r := &t.Rows[i]
		rows[i] = append(slices.Clone(r.Values), grouped(r.Flows), bytesText(r.Bytes+r.ReplyBytes), percentOf(r.Share(&t.Total, t.By)), clock(r.First), clock(r.Last))
	}
	share := "share"
	if t.By != "flows" {
		share = "share of " + t.By
	}
	tableText(out, append(slices.Clone(t.Keys), "flows", "bytes", share, "first", "last"), rows, paint, plainRow)
	total := fmt.Sprintf("\n%s in %s", counted(t.Total.Flows, "flow"), counted(t.Records, "record"))
	if size := bytesText(t.Total.Bytes + t.Total.ReplyBytes); size != "" {
		total += ", " + size
	}
	if t.Groups > len(t.Rows) {
		total += fmt.Sprintf("; %s of %s groups are shown", grouped(len(t.Rows)), grouped(t.Groups))
	}
	out.WriteString(paint.dim(total+".") + "\n")
	selectionText(out, briefly(t.Selection), paint)
}

func percentOf(share float64) string { return strconv.FormatFloat(100*share, 'f', 1, 64) + "%" }

func shareOf(r *simulator.Rank, t *FlowTop) string {
	return strconv.FormatFloat(r.Share(&t.Total, t.By), 'f', 6, 64)
}

func appendCounts(b []byte, c *simulator.Counts) []byte {
	for _, n := range []struct {
		name  string
		count uint64
	}{{"flows", c.Flows}, {"bytes", c.Bytes}, {"packets", c.Packets}, {"replyBytes", c.ReplyBytes}, {"replyPackets", c.Replies}} {
		b = appendNumber(b, n.name, n.count)
	}
	return appendSeen(appendName(b, "seen"), c.First, c.Last)
}

func flowTopJSON(o *object, t *FlowTop) {
	list(o, "by", slices.Values(t.Keys), appendString)
	o.text("sort", t.By)
	o.number("records", t.Records)
	o.value("total", append(appendCounts([]byte{'{'}, &t.Total), '}'))
	o.number("groups", uint64(t.Groups))
	list(o, "rows", slices.Values(t.Rows), func(b []byte, r simulator.Rank) []byte {
		b = append(appendName(append(b, '{'), "values"), '{')
		for i, v := range r.Values {
			b = appendMember(b, t.Keys[i], v)
		}
		b = appendCounts(append(b, '}'), &r.Counts)
		return append(append(appendName(b, "share"), shareOf(&r, t)...), '}')
	})
	selectionJSON(o, &t.Selection)
	o.close()
}

func flowGraphText(out *bufio.Writer, g *FlowGraph, paint paint) {
	if len(g.Edges) == 0 {
		out.WriteString("No flows.\n")
	}
	rows := make([][]string, len(g.Edges))
	for i := range g.Edges {
		e := &g.Edges[i]
		rows[i] = []string{g.Nodes[e.From].String(), "→", g.Nodes[e.To].String(), e.Verdict.String(), clip(recordedPorts(e.Ports), 40), grouped(e.Flows), bytesText(e.Bytes + e.ReplyBytes), clock(e.Last)}
	}
	tableText(out, []string{"from", "", "to", "verdict", "ports", "flows", "bytes", "last"}, rows, paint,
		func(i int, text string) string { return paint.verdict(g.Edges[i].Verdict, text) })
	out.WriteString(paint.dim(fmt.Sprintf("\n%s in %s.", counted(g.Total.Flows, "flow"), counted(g.Records, "record"))) + "\n")
	selectionText(out, briefly(g.Selection), paint)
}

func recordedPorts(p netset.Ports) string {
	if p.IsEmpty() {
		return simulator.NotRecorded
	}
	return p.String()
}

func flowGraphJSON(o *object, g *FlowGraph) {
	o.number("records", g.Records)
	o.value("total", append(appendCounts([]byte{'{'}, &g.Total), '}'))
	list(o, "nodes", slices.Values(g.Nodes), func(b []byte, n simulator.Node) []byte {
		b = appendSome(append(b, '{'), "namespace", n.Namespace)
		b = appendSome(b, "name", n.Name)
		return append(appendSome(b, "kind", n.Kind), '}')
	})
	list(o, "edges", slices.Values(g.Edges), func(b []byte, e simulator.Edge) []byte {
		b = appendNumber(append(b, '{'), "from", uint64(e.From))
		b = appendNumber(b, "to", uint64(e.To))
		b = appendMember(b, "verdict", e.Verdict.String())
		b = appendPorts(appendName(b, "ports"), e.Ports)
		return append(appendCounts(b, &e.Counts), '}')
	})
	selectionJSON(o, &g.Selection)
	o.close()
}

var classOfVerdict = map[policies.Verdict]class{policies.Allow: "", policies.Deny: refused, policies.Unknown: unknown}

// pictureOfFlows draws a graph with as many flows at each edge as it stands for.
func pictureOfFlows(g *simulator.Graph) *picture {
	d := newDrawing()
	d.flows = true
	places := make([]int, len(g.Nodes))
	for i, n := range g.Nodes {
		drawn := node{box: clean(n.Namespace), label: clean(n.Name), peers: 1}
		switch {
		case n.Kind == "Namespace":
			drawn.box, drawn.label = "", clean(n.Namespace)
		case n.Namespace == "":
			drawn.kind = outside
		case n.Name == "":
			drawn.label = simulator.NotRecorded
		}
		places[i] = len(d.nodes)
		d.nodes = append(d.nodes, drawn)
	}
	for i := range g.Edges {
		e := &g.Edges[i]
		d.key = e.Ports.AppendKey(append(append(d.key[:0], classOfVerdict[e.Verdict]...), 0))
		what, ok := d.whats[string(d.key)]
		if !ok {
			what = uint32(len(d.whats))
			d.whats[string(d.key)] = what
		}
		d.edges = append(d.edges, edge{places[e.From], places[e.To], classOfVerdict[e.Verdict], e.Ports, what, int(e.Flows)})
	}
	return d.finish()
}

func flowStatsText(out *bufio.Writer, s *FlowStats, paint paint) {
	head := counted(s.Records, "record")
	if s.Files > 0 {
		head += " in " + counted(s.Files, "file")
	}
	if s.Size > 0 {
		head += ", " + byteSize(s.Size)
	}
	if s.Records > 0 && s.Size > 0 {
		head += fmt.Sprintf(" (%.1f bytes a record)", float64(s.Size)/float64(s.Records))
	}
	out.WriteString(paint.bold(head+".") + "\n")
	if s.Records > 0 {
		var lines [][2]string
		line := func(name, text string) {
			if text != "" {
				lines = append(lines, [2]string{name, text})
			}
		}
		if s.TooMany {
			line("flows", "of too many different connections to count those once that both sides report")
		} else {
			line("flows", grouped(s.Total.Flows)+", those once that both sides report")
			line("bytes", bytesText(s.Total.Bytes+s.Total.ReplyBytes))
		}
		line("time", timeRange(s))
		for _, shares := range statShares(s) {
			var texts []string
			for _, share := range shares.of {
				texts = append(texts, share.name+" "+percent(share.n, shares.whole))
			}
			line(shares.name, strings.Join(texts, ", "))
		}
		for _, l := range lines {
			out.WriteString(pad(l[0], 10) + "  " + l[1] + "\n")
		}
	}
	selectionText(out, &s.Selection, paint)
}

func timeRange(s *FlowStats) string {
	text := clock(s.Total.First) + " to " + clock(s.Total.Last) + " UTC"
	switch {
	case s.Total.First.IsZero():
		return ""
	case s.WithoutTime > 0:
		text += ", " + counted(s.WithoutTime, "record") + " without"
	}
	return text
}

type shares struct {
	name  string
	whole uint64
	of    []share
}

type share struct {
	name string
	n    uint64
}

// statShares is the parts that a Census counts, the largest first.
func statShares(s *FlowStats) []shares {
	all := []shares{
		{"formats", s.Records, sharesOf(s.Formats, func(name string) string { return name })},
		{"reporters", s.Records, sharesOf(s.Reporters, policies.Reporter.String)},
		{"verdicts", s.Records, sharesOf(s.Verdicts, policies.Verdict.String)},
		{"windows", s.Records, sharesOf(s.Windows, func(w time.Duration) string {
			if w == 0 {
				return "single events"
			}
			return w.String()
		})},
	}
	e := &s.Ends
	all = append(all,
		shares{"ends", 2 * s.Records, some(share{"pods", e.Pods}, share{"nodes", e.Nodes}, share{"outside", e.Outside}, share{"addresses only", e.AddressOnly}, share{"nothing", e.Nothing})},
		shares{"pods", e.Pods, some(share{"named", e.Named}, share{"with a workload", e.Workloads})},
		shares{"labels", e.Pods, some(share{"complete", e.LabelsComplete}, share{"partial", e.LabelsPartial}, share{"none", e.NoneOf})},
	)
	return all
}

func sharesOf[K comparable](counts map[K]uint64, name func(K) string) []share {
	var all []share
	for k, n := range counts {
		text := name(k)
		if text == "" {
			text = simulator.NotRecorded
		}
		all = append(all, share{text, n})
	}
	slices.SortFunc(all, func(a, b share) int {
		if a.n != b.n {
			return map[bool]int{true: -1, false: 1}[a.n > b.n]
		}
		return strings.Compare(a.name, b.name)
	})
	return all
}

func some(all ...share) []share {
	return slices.DeleteFunc(all, func(s share) bool { return s.n == 0 })
}

func flowStatsJSON(o *object, s *FlowStats) {
	o.number("records", s.Records)
	o.number("files", uint64(s.Files))
	o.number("size", s.Size)
	if !s.TooMany {
		o.value("total", append(appendCounts([]byte{'{'}, &s.Total), '}'))
	}
	o.value("seen", appendSeen(nil, s.Total.First, s.Total.Last))
	o.number("withoutTime", s.WithoutTime)
	counts := func(name string, of []share) {
		list(o, name, slices.Values(of), func(b []byte, s share) []byte {
			return append(appendNumber(appendMember(append(b, '{'), "name", s.name), "records", s.n), '}')
		})
	}
	counts("formats", sharesOf(s.Formats, func(name string) string { return name }))
	counts("reporters", sharesOf(s.Reporters, policies.Reporter.String))
	counts("verdicts", sharesOf(s.Verdicts, policies.Verdict.String))
	counts("windows", sharesOf(s.Windows, time.Duration.String))
	b := []byte{'{'}
	e := &s.Ends
	for _, n := range []share{
		{"pods", e.Pods},
		{"nodes", e.Nodes},
		{"outside", e.Outside},
		{"addressOnly", e.AddressOnly},
		{"nothing", e.Nothing},
		{"namedPods", e.Named},
		{"workloads", e.Workloads},
		{"labelsComplete", e.LabelsComplete},
		{"labelsPartial", e.LabelsPartial},
		{"labelsNone", e.NoneOf},
	} {
		b = appendNumber(b, n.name, n.n)
	}
	o.value("ends", append(b, '}'))
	selectionJSON(o, &s.Selection)
	o.close()
}
