package report

import (
	"bufio"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// paint colours text, or leaves it alone.
type paint struct{ on bool }

func palette(s Style) paint { return paint{s.Color} }

func (p paint) in(codes, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + codes + "m" + text + "\x1b[0m"
}

func (p paint) bold(text string) string { return p.in("1", text) }
func (p paint) dim(text string) string  { return p.in("2", text) }

func (p paint) verdict(v policies.Verdict, text string) string {
	return p.in([...]string{"0", "32", "31", "33"}[v], text)
}

func (p paint) class(c class, text string) string {
	return p.in(map[class]string{adds: "32", removes: "31", unknown: "33"}[c], text)
}

func (p paint) level(level, text string) string {
	return p.in(map[string]string{"error": "1;31", "warning": "1;33", "note": "1"}[level], text)
}

// clean drops what could steer a terminal.
func clean(text string) string {
	if strings.IndexFunc(text, steers) < 0 {
		return text
	}
	return strings.Map(func(r rune) rune {
		if steers(r) {
			return ' '
		}
		return r
	}, text)
}

// steers reports whether r is a control character, or turns the direction of
// writing round so that a line reads as another.
func steers(r rune) bool {
	return r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) ||
		(r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) || r == 0x2028 || r == 0x2029
}

func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(0, width-utf8.RuneCountInString(text)))
}

const outsideText = "outside"

func peerText(p policies.Peer) string { return clean(p.String()) }

// textRow is a connection whose outside ends may be of both address families.
type textRow struct{ from, to, allow, unknown string }

func (r *textRow) ports() string {
	switch {
	case r.unknown == "":
		return r.allow
	case r.allow == "":
		return "?" + r.unknown
	}
	return r.allow + "  ?" + r.unknown
}

func reachabilityText(out *bufio.Writer, connections iter.Seq[policies.Connection], warnings []policies.Warning, paint paint) {
	peers := rememberPeers(peerText)
	allow, unknown := rememberGrants(func(p netset.Ports) string {
		if p.IsEmpty() {
			return ""
		}
		return p.String()
	})
	var source *policies.Peer
	var block []textRow
	total, doubtful := 0, false
	var widths widths
	flush := func() {
		block = mergeFamilies(block)
		total += len(block)
		writeBlock(out, block, &widths, paint)
		block = block[:0]
	}
	for c := range connections {
		if len(block) > 0 && source != c.From && !sameSource(*source, *c.From) {
			flush()
		}
		source = c.From
		row := textRow{peers.of(c.From), peers.of(c.To), allow.of(c.Grant), unknown.of(c.Grant)}
		doubtful = doubtful || row.unknown != ""
		block = append(block, row)
	}
	flush()
	if total == 0 {
		out.WriteString("No connection is allowed.\n")
	} else {
		out.WriteString("\n" + counted(total, "connection") + ".\n")
	}
	if doubtful {
		out.WriteString("Ports behind a ? may be allowed or denied: something that decides them is not in the input" +
			" (see the warnings, or ask weir explain).\n")
	}
	warningsText(out, warnings, paint)
}

// sameSource reports whether rows of b belong in the block of a: the two
// families of outside are one source.
func sameSource(a, b policies.Peer) bool {
	return isWhole(a) && isWhole(b) || a.CIDR == nil && b.CIDR == nil &&
		a.Name == b.Name && a.Namespace == b.Namespace && a.Kind == b.Kind && a.Pod == b.Pod ||
		a.CIDR != nil && b.CIDR != nil && comparePeers(a, b) == 0
}

// mergeFamilies makes one row of two that differ only in the address family of
// an outside end.
func mergeFamilies(rows []textRow) []textRow {
	v4, v6 := netset.AllIPv4.String(), netset.AllIPv6.String()
	type end struct{ from, to string }
	merged := func(name string) string {
		if name == v4 || name == v6 {
			return outsideText
		}
		return name
	}
	seen := map[end]int{}
	kept := rows[:0]
	for _, r := range rows {
		if r.from != v4 && r.from != v6 && r.to != v4 && r.to != v6 {
			kept = append(kept, r)
			continue
		}
		key := end{merged(r.from), merged(r.to)}
		if i, ok := seen[key]; ok && kept[i].allow == r.allow && kept[i].unknown == r.unknown &&
			(kept[i].from != r.from || kept[i].to != r.to) {
			kept[i].from, kept[i].to = key.from, key.to
			continue
		}
		seen[key] = len(kept)
		kept = append(kept, r)
	}
	return kept
}

// widths of the columns only grow, so that most sources are aligned with one
// another although none is known before it comes.
type widths struct{ from, to int }

func writeBlock(out *bufio.Writer, rows []textRow, w *widths, paint paint) {
	for i := range rows {
		w.from = max(w.from, utf8.RuneCountInString(rows[i].from))
		w.to = max(w.to, utf8.RuneCountInString(rows[i].to))
	}
	for i := range rows {
		r := &rows[i]
		out.WriteString(r.from)
		spaces(out, w.from-utf8.RuneCountInString(r.from))
		out.WriteString(" → ")
		out.WriteString(r.to)
		spaces(out, w.to-utf8.RuneCountInString(r.to)+2)
		if paint.on && r.unknown != "" {
			out.WriteString(paint.verdict(policies.Unknown, r.ports()))
		} else {
			out.WriteString(r.ports())
		}
		out.WriteByte('\n')
	}
}

func spaces(out *bufio.Writer, n int) {
	const many = "                                                                "
	for ; n > 0; n -= len(many) {
		out.WriteString(many[:min(n, len(many))])
	}
}

func warningsText(out *bufio.Writer, warnings []policies.Warning, paint paint) {
	for i, w := range warnings {
		if i == 0 {
			out.WriteByte('\n')
		}
		out.WriteString(paint.verdict(policies.Unknown, "warning:") + " " + clean(w.String()) + "\n")
	}
}

func changeText(out *bufio.Writer, c *Change, paint paint) {
	if len(c.Staged) > 0 {
		out.WriteString(stagedTitle("With", c.Staged, paint))
	}
	changesText(out, c.Change, paint)
	warnings := c.Warnings
	if len(c.Staged) > 1 && len(c.Each) > 0 {
		for i, alone := range c.Each {
			out.WriteString("\n" + stagedTitle("With only", c.Staged[i:i+1], paint))
			changesText(out, alone, paint)
			warnings = slices.Concat(warnings, alone.Warnings)
		}
		slices.SortFunc(warnings, policies.Warning.Compare)
		warnings = slices.Compact(warnings)
	}
	warningsText(out, warnings, paint)
}

// stagedTitle says which staged policies are taken for enforced.
func stagedTitle(with string, staged []policies.Staged, paint paint) string {
	if n := len(staged); n > 1 {
		return paint.bold(with+" "+grouped(n)+" staged policies enforced:") + "\n"
	}
	return paint.bold(with+" "+clean(stagedPhrase(staged[0]).plain())+" enforced:") + paint.dim("  "+clean(staged[0].Policy.Place.String())) + "\n"
}

func changesText(out *bufio.Writer, c *diff.Change, paint paint) {
	t := tallyOf(c)
	if t.added()+t.removed+t.unknown == 0 {
		out.WriteString(paint.bold("No connection changes.") + "\n")
	} else {
		out.WriteString(paint.bold(fmt.Sprintf("%s added, %s removed, %s uncertain.",
			counted(t.added(), "connection"), grouped(t.removed), grouped(t.unknown))) + "\n\n")
		movesText(out, movesOf(c), paint)
	}
	objectsText(out, c)
}

// movesText writes a line for each move, with its columns aligned.
func movesText(out *bufio.Writer, moves []move, paint paint) {
	type line struct{ from, to, ports, note string }
	lines := make([]line, len(moves))
	var from, to, ports int
	for i := range moves {
		m := &moves[i]
		l := line{clean(peersPhrase(m.from).plain()), clean(peersPhrase(m.to).plain()), portsText(m.ports), clean(m.at.String())}
		if m.pairs > 1 {
			l.ports += " (" + grouped(m.pairs) + " pairs)"
		}
		if m.class == unknown {
			l.ports += fmt.Sprintf(" %s → %s", m.before, m.after)
		}
		if m.atBase {
			l.note += " in the base"
		}
		lines[i] = l
		const widest = 60
		from = max(from, min(widest, utf8.RuneCountInString(l.from)))
		to = max(to, min(widest, utf8.RuneCountInString(l.to)))
		ports = max(ports, min(widest, utf8.RuneCountInString(l.ports)))
	}
	for i, l := range lines {
		text := moves[i].class.sign() + " " + pad(l.from, from) + " → " + pad(l.to, to) + "  " + pad(l.ports, ports)
		if l.note == "" {
			text = strings.TrimRight(text, " ")
		}
		out.WriteString(paint.class(moves[i].class, text))
		if l.note != "" {
			out.WriteString("  " + paint.dim(l.note))
		}
		out.WriteByte('\n')
	}
}

// objectsText lists the workloads and policies that come, go or change.
func objectsText(out *bufio.Writer, c *diff.Change) {
	if len(c.NewWorkloads)+len(c.GoneWorkloads)+len(c.Policies) > 0 {
		out.WriteByte('\n')
	}
	for _, w := range c.NewWorkloads {
		fmt.Fprintf(out, "%s %s added\n", w.Kind, clean(w.String()))
	}
	for _, w := range c.GoneWorkloads {
		fmt.Fprintf(out, "%s %s removed\n", w.Kind, clean(w.String()))
	}
	for _, p := range c.Policies {
		fmt.Fprintf(out, "%s %s %s  %s\n", p.Ref.What(), clean(p.Ref.String()), p.What, clean(p.At.String()))
	}
}

func decisionText(out *bufio.Writer, d *policies.Decision, paint paint, trace bool) {
	fmt.Fprintf(out, "%s  %s → %s %s\n", verdictText(d.Verdict, paint), endsText(d, fromOf), endsText(d, toOf), askedText(d))
	if d.Because != "" {
		fmt.Fprintf(out, "  because %s\n", clean(d.Because))
	}
	for _, family := range slices.Sorted(maps.Keys(d.Families)) {
		fmt.Fprintf(out, "  %s: %s\n", family, verdictPast(d.Families[family]))
	}
	if len(d.Parts) > 0 && trace {
		for i := range d.Parts {
			out.WriteByte('\n')
			decisionText(out, &d.Parts[i], paint, trace)
		}
		return
	}
	for _, direction := range policies.Directions {
		sideText(out, d, direction, paint, trace)
	}
	if len(d.Parts) > 0 && d.Verdict == policies.Unknown {
		partsText(out, d.Parts, paint)
	}
}

func verdictText(v policies.Verdict, paint paint) string {
	return paint.verdict(v, paint.bold([...]string{"UNDECIDED", "ALLOWED", "DENIED", "UNKNOWN"}[v]))
}

func fromOf(d *policies.Decision) policies.Peer { return d.From }
func toOf(d *policies.Decision) policies.Peer   { return d.To }

// endsText names one end of a decision, or all that its parts have there, at
// most three of them.
func endsText(d *policies.Decision, end func(*policies.Decision) policies.Peer) string {
	const most = 3
	names := []string{peerText(end(d))}
	for i := range d.Parts {
		if name := peerText(end(&d.Parts[i])); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) > most {
		names = append(names[:most], grouped(len(names)-most)+" more")
	}
	return strings.Join(names, ", ")
}

// partsText says of each part what was decided, and by what.
func partsText(out *bufio.Writer, parts []policies.Decision, paint paint) {
	for i := range parts {
		p := &parts[i]
		fmt.Fprintf(out, "\n  %s  %s → %s %s\n      because %s", verdictText(p.Verdict, paint), peerText(p.From), peerText(p.To), askedText(p), clean(p.Because))
		for _, direction := range policies.Directions {
			if side := &p.Sides[direction]; side.Verdict == p.Verdict && side.At.File != "" {
				fmt.Fprintf(out, "  at %s", paint.bold(clean(side.At.String())))
				break
			}
		}
		out.WriteByte('\n')
	}
}

func sideText(out *bufio.Writer, d *policies.Decision, direction policies.Direction, paint paint, trace bool) {
	side := &d.Sides[direction]
	if side.Verdict == policies.Undecided {
		return
	}
	end := [...]string{"out of " + endsText(d, fromOf), "into " + endsText(d, toOf)}[direction]
	fmt.Fprintf(out, "\n%s %s: %s", direction, end, paint.verdict(side.Verdict, verdictPast(side.Verdict)))
	if side.Because != "" {
		fmt.Fprintf(out, ", because %s", clean(side.Because))
	}
	out.WriteByte('\n')
	if side.Policy != nil {
		fmt.Fprintf(out, "  by %s %s", side.Policy.What(), clean(side.Policy.String()))
		if side.Rule != nil {
			fmt.Fprintf(out, ", %s rule %d", direction, *side.Rule+1)
		}
		if side.At.File != "" {
			fmt.Fprintf(out, "  at %s", paint.bold(clean(side.At.String())))
		}
		out.WriteByte('\n')
	}
	if trace {
		traceText(out, side.Trace, paint)
	} else if len(side.Trace) > 1 {
		out.WriteString(paint.dim("  "+counted(len(side.Trace), "rule")+" looked at in all") + "\n")
	}
}

func traceText(out *bufio.Writer, steps []policies.Step, paint paint) {
	var width int
	names := make([]string, len(steps))
	for i, s := range steps {
		names[i] = clean(policyText(s.Policy))
		if s.Rule != nil {
			names[i] += fmt.Sprintf(" rule %d", *s.Rule+1)
		}
		width = max(width, utf8.RuneCountInString(names[i]))
	}
	for i, s := range steps {
		mark := [...]string{"✗", "?", "✓"}[s.Matches]
		does := ""
		if s.Action != policies.NoAction {
			does = s.Action.String() + ", "
		}
		line := fmt.Sprintf("  %2d. %s %s  %s%s", i+1, mark, pad(names[i], width), does,
			[...]string{"no match", "may match", "match"}[s.Matches])
		if s.Because != "" {
			line += ": " + clean(s.Because)
		}
		if s.At.File != "" {
			line += "  " + paint.dim(clean(s.At.String()))
		}
		out.WriteString(line + "\n")
	}
}

func replayText(out *bufio.Writer, r *simulator.Result, reading FlowReading, paint paint) {
	if r.Flows == 0 {
		out.WriteString("No recorded flow was read.\n")
	} else {
		out.WriteString(counted(r.Counted(), "flow"))
		if r.Bytes > 0 {
			out.WriteString(" of " + byteSize(r.Bytes))
		}
		if first, last := moment(r.First), moment(r.Last); first != "" && last != "" {
			fmt.Fprintf(out, ", %s to %s UTC", first, last)
		}
		fmt.Fprintf(out, ", decided in %s.\n", counted(r.Questions, "question"))
		fmt.Fprintf(out, "The model explains %s of them.\n\n", percent(r.Explained, r.Counted()))
	}
	for _, outcome := range simulator.Outcomes {
		if n := r.Outcomes[outcome]; n > 0 {
			fmt.Fprintf(out, "%12s  %s\n", grouped(n), outcomeMeaning[outcome])
		}
	}
	if r.Unresolved > 0 {
		fmt.Fprintf(out, "%12s  unresolved: an end is not in the world\n", grouped(r.Unresolved))
	}
	if r.Paired > 0 {
		fmt.Fprintf(out, "%12s  of them were reported by the other side too, and are counted once\n", grouped(r.Paired))
	}
	for _, outcome := range simulator.Outcomes[:4] {
		rowsText(out, outcome, r.Rows, paint)
	}
	causesText(out, r.Causes)
	readingText(out, reading, paint)
}

var outcomeMeaning = map[simulator.Outcome]string{
	simulator.Breaks:    "break: recorded and modelled as allowed, denied after the change",
	simulator.Opens:     "open: recorded and modelled as denied, allowed after the change",
	simulator.Drifts:    "drift: the recorded verdict is not what the model says",
	simulator.Undecided: "unknown: something that decides them is missing",
	simulator.Stays:     "stay as they are",
}

var outcomeTitle = map[simulator.Outcome]string{
	simulator.Breaks:    "Flows that break",
	simulator.Opens:     "Flows that open",
	simulator.Drifts:    "Drift: recorded otherwise than the model says",
	simulator.Undecided: "Flows without an answer",
}

// mostTextRows is how many rows of a kind the text names; JSON has them all.
const mostTextRows = 50

func rowsText(out *bufio.Writer, outcome simulator.Outcome, rows simulator.Rows, paint paint) {
	all := rows.Count(outcome)
	if all == 0 {
		return
	}
	fmt.Fprintf(out, "\n%s\n", paint.bold(outcomeTitle[outcome]))
	said := 0
	for r := range rows.Of(outcome) {
		if said == mostTextRows {
			fmt.Fprintf(out, "  and %s more; -o json has them all\n", grouped(all-said))
			return
		}
		said++
		fmt.Fprintf(out, "  %s → %s %s  %s", peerText(r.From), peerText(r.To), portText(r.Protocol, r.Port), counted(r.Flows, "flow"))
		if r.Bytes > 0 {
			fmt.Fprintf(out, ", %s", byteSize(r.Bytes))
		}
		if last := moment(r.Last); last != "" {
			fmt.Fprintf(out, ", last %s", last)
		}
		out.WriteByte('\n')
		detail := r.Cause
		because, at, _, _ := causeOf(&r.Decision, &r.Base)
		switch r.Outcome {
		case simulator.Drifts:
			detail = fmt.Sprintf("recorded as %s, the model says %s", verdictPast(r.Recorded), verdictPast(r.Before))
			if because != "" {
				detail += ": " + because
			}
		case simulator.Breaks, simulator.Opens:
			detail = because
		}
		if at.File != "" && r.Cause == "" {
			detail = strings.TrimPrefix(detail+"  "+at.String(), "  ")
		}
		if example := exampleText(&r.Example); example != "" {
			detail = strings.TrimPrefix(detail+"  e.g. "+example, "  ")
		}
		if detail != "" {
			out.WriteString(paint.dim("      "+clean(detail)) + "\n")
		}
	}
}

func causesText(out *bufio.Writer, causes []simulator.Cause) {
	if len(causes) == 0 {
		return
	}
	out.WriteString("\nWithout an answer, by cause\n")
	first, rest := foremostCauses(causes)
	for _, c := range first {
		fmt.Fprintf(out, "%12s  %s\n", grouped(c.Flows), clean(c.Text))
	}
	if rest != nil {
		fmt.Fprintf(out, "%12s  %s\n", grouped(rest.Flows), rest.Text)
	}
}

// mostCauses is how many causes are named; JSON has them all.
const mostCauses = 10

// foremostCauses returns the causes of most flows, and what the others come to,
// if there are others.
func foremostCauses(causes []simulator.Cause) ([]simulator.Cause, *simulator.Cause) {
	if len(causes) <= mostCauses {
		return causes, nil
	}
	others := causes[mostCauses:]
	rest := simulator.Cause{Text: counted(len(others), "other cause") + "; the json report has them all"}
	for _, c := range others {
		rest.Flows += c.Flows
	}
	return causes[:mostCauses], &rest
}

func readingText(out *bufio.Writer, reading FlowReading, paint paint) {
	for i, said := range readingPhrases(reading) {
		if i == 0 {
			out.WriteByte('\n')
		}
		out.WriteString(paint.dim(clean(said.plain())) + "\n")
	}
}

func previewText(out *bufio.Writer, p *Preview, paint paint) {
	out.WriteString(paint.bold(clean(headline(p).plain())) + "\n")
	if said := fidelity(p); said != nil {
		out.WriteString(clean(said.plain()) + "\n")
	}
	said := changing(p)
	for i, s := range said {
		if i == 0 {
			out.WriteByte('\n')
		}
		if i == mostTextRows {
			fmt.Fprintf(out, "and %s more; -o json has them all\n", grouped(len(said)-i))
			break
		}
		fmt.Fprintf(out, "- %s %s%s\n", paint.level(s.Level, clean(s.Lead.plain())), clean(s.Body.plain()), paint.dim(clean(s.AtPhrase().plain())))
	}
	if said := invariantTally(p); said != nil {
		out.WriteString("\n" + clean(said.plain()) + "\n")
	}
	objectsText(out, p.Change)
	if len(p.Each) > 0 {
		fmt.Fprintf(out, "\n%s\n", paint.bold(eachTitle))
	}
	for i, alone := range p.Each {
		s := &p.Staged[i]
		fmt.Fprintf(out, "- %s: %s%s\n", clean(stagedPhrase(*s).plain()), clean(headline(alone).plain()), paint.dim(" — "+clean(s.Policy.Place.String())))
	}
	fmt.Fprintf(out, "\n%s\n", paint.bold("Exposure"))
	for _, s := range exposurePhrases(p) {
		out.WriteString(clean(s.plain()) + "\n")
	}
	if p.Replay != nil {
		for _, outcome := range []simulator.Outcome{simulator.Drifts, simulator.Undecided} {
			rowsText(out, outcome, p.Replay.Rows, paint)
		}
		causesText(out, p.Replay.Causes)
		readingText(out, p.Reading, paint)
	}
	warningsText(out, p.warnings(), paint)
	out.WriteString("\n" + clean(madeOf(p).plain()) + "\n")
	if len(p.Failed) > 0 {
		fmt.Fprintf(out, "%s on %s.\n", paint.level("error", "Fails"), strings.Join(p.Failed, ", "))
	}
}
