package report

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

// document is the report of a pull request as Markdown and HTML lay it out.
type document struct {
	Headline phrase
	Facts    []phrase // fidelity, and the conditions that failed
	Said     []sentence
	Tables   []table // before the picture the first, after it the others
	Exposure []phrase
	Picture  *picture
	Warnings []policies.Warning
	MadeOf   phrase
}

// table is rows of cells; the first rows are shown, the others folded away.
type table struct {
	Title   string
	Intro   phrase
	Columns []string
	Rows    [][]phrase
	Open    int
	Numbers []int // the columns that hold numbers
}

// withoutEmpty leaves out the columns that are empty in every row.
func (t table) withoutEmpty() table {
	slim := table{Title: t.Title, Intro: t.Intro, Open: t.Open, Rows: make([][]phrase, len(t.Rows))}
	for i, column := range t.Columns {
		if !slices.ContainsFunc(t.Rows, func(row []phrase) bool { return row[i].plain() != "" }) {
			continue
		}
		if slices.Contains(t.Numbers, i) {
			slim.Numbers = append(slim.Numbers, len(slim.Columns))
		}
		slim.Columns = append(slim.Columns, column)
		for r, row := range t.Rows {
			slim.Rows[r] = append(slim.Rows[r], row[i])
		}
	}
	return slim
}

func documentOf(p *Preview) *document {
	d := &document{
		Headline: headline(p), Exposure: exposurePhrases(p), Picture: pictureOfChange(p.Change),
		Warnings: p.warnings(), MadeOf: madeOf(p), Said: changing(p),
	}
	if said := fidelity(p); said != nil {
		d.Facts = append(d.Facts, said)
	}
	if len(p.Failed) > 0 {
		var conditions []phrase
		for _, f := range p.Failed {
			conditions = append(conditions, say(code(f)))
		}
		d.Facts = append(d.Facts, say("This change fails on ", enumerate(conditions), "."))
	}
	for _, t := range []table{
		connectionTable(p), eachTable(p), invariantTable(p), flowTable(p, simulator.Breaks, "Denied by"), flowTable(p, simulator.Opens, "Allowed by"),
		driftTable(p), causeTable(p), flowTable(p, simulator.Undecided, "Why"), policyTable(p), readingTable(p),
	} {
		if len(t.Rows) > 0 {
			d.Tables = append(d.Tables, t.withoutEmpty())
		}
	}
	return d
}

func connectionTable(p *Preview) table {
	t := table{
		Title: connectionsTitle, Columns: []string{"", "From", "To", "Ports", "Pairs", "Decided at"},
		Open: 30, Numbers: []int{4},
	}
	moves := movesOf(p.Change)
	for i := range moves {
		m := &moves[i]
		ports := portsPhrase(m.ports)
		if m.class == unknown {
			ports = say(ports, " ", m.before.String(), " → ", m.after.String())
		}
		at := placePhrase(m.at)
		if m.atBase {
			at = say(at, " in the base")
		}
		t.Rows = append(t.Rows, []phrase{
			say(m.class.sign()), peersPhrase(m.from), peersPhrase(m.to), ports, say(grouped(m.pairs)), at,
		})
	}
	return t
}

const connectionsTitle = "Connections"

// eachTitle is over what each staged policy by itself would do.
const eachTitle = "Each staged policy by itself"

func eachTable(p *Preview) table {
	t := table{Title: eachTitle, Columns: []string{"Staged policy", "Enforced alone", "Fails on", "Place"}, Open: 30}
	for i, alone := range p.Each {
		s := p.Staged[i]
		t.Rows = append(t.Rows, []phrase{stagedPhrase(s), headline(alone), say(strings.Join(alone.Failed, ", ")), placePhrase(s.Policy.Place)})
	}
	return t
}

func placePhrase(at policies.Place) phrase {
	if at.File == "" {
		return nil
	}
	return say(code(at.String()))
}

func flowTable(p *Preview, outcome simulator.Outcome, why string) table {
	t := table{
		Title: outcomeTitle[outcome], Columns: []string{"From", "To", "Port", "Flows", "Bytes", "Last seen (UTC)", why, "For example"},
		Open: 10, Numbers: []int{3, 4},
	}
	if outcome == simulator.Undecided {
		t.Open = 0
	}
	for r := range p.rowsOf(outcome) {
		t.Rows = append(t.Rows, []phrase{
			peersPhrase([]policies.Peer{r.From}), peersPhrase([]policies.Peer{r.To}), say(portPhrase(r.Protocol, r.Port)),
			say(grouped(r.Flows)), say(bytesText(r.Bytes)), say(moment(r.Last)), reasonPhrase(&r), examplePhrase(&r.Example),
		})
	}
	return t
}

func examplePhrase(f *policies.Flow) phrase {
	if text := exampleText(f); text != "" {
		return say(code(text))
	}
	return nil
}

// exampleText is where a recorded flow stands or, where it has no such place, as in a
// store, what it says that its row does not.
func exampleText(f *policies.Flow) string {
	if f.Record.File != "" {
		return f.Record.String()
	}
	end := func(p *policies.FlowPeer) string {
		switch {
		case p.Pod == "" && !p.Address.IsValid():
			return ""
		case p.Pod == "":
			return p.Address.String()
		case !p.Address.IsValid():
			return p.Pod
		}
		return p.Pod + " (" + p.Address.String() + ")"
	}
	from, to := end(&f.From), end(&f.To)
	if from+to == "" {
		return ""
	}
	return strings.TrimSpace(clock(f.Last) + " " + cmp.Or(from, simulator.NotRecorded) + " → " + cmp.Or(to, simulator.NotRecorded))
}

// reasonPhrase is why a recorded flow is decided as it is, and where that stands.
func reasonPhrase(r *simulator.Row) phrase {
	because, at, _, _ := causeOf(&r.Decision, &r.Base)
	if r.Cause != "" {
		return say(r.Cause)
	}
	if at.File == "" {
		return say(because)
	}
	return say(because, " (", placePhrase(at), ")")
}

// bytesText is empty for bytes that were not recorded.
func bytesText(n uint64) string {
	if n == 0 {
		return ""
	}
	return byteSize(n)
}

func driftTable(p *Preview) table {
	t := table{
		Title:   outcomeTitle[simulator.Drifts],
		Intro:   say("Where the records and the policies of the base disagree, something else decides, or the records are older than the policies."),
		Columns: []string{"From", "To", "Port", "Recorded", "The model says", "Flows", "Because", "For example"},
		Open:    5, Numbers: []int{5},
	}
	for r := range p.rowsOf(simulator.Drifts) {
		t.Rows = append(t.Rows, []phrase{
			peersPhrase([]policies.Peer{r.From}), peersPhrase([]policies.Peer{r.To}), say(portPhrase(r.Protocol, r.Port)),
			say(verdictPast(r.Recorded)), say(verdictPast(r.Before)), say(grouped(r.Flows)), reasonPhrase(&r), examplePhrase(&r.Example),
		})
	}
	return t
}

func causeTable(p *Preview) table {
	t := table{Title: "Flows without an answer, by cause", Columns: []string{"Flows", "Cause"}, Open: mostCauses + 1, Numbers: []int{0}}
	if p.Replay == nil {
		return t
	}
	first, rest := foremostCauses(p.Replay.Causes)
	for _, c := range first {
		t.Rows = append(t.Rows, []phrase{say(grouped(c.Flows)), say(c.Text)})
	}
	if rest != nil {
		t.Rows = append(t.Rows, []phrase{say(grouped(rest.Flows)), say(rest.Text)})
	}
	return t
}

func policyTable(p *Preview) table {
	t := table{Title: "What was edited", Columns: []string{"", "Kind", "Name", "Place"}, Open: 10}
	row := func(what, kind, name string, at policies.Place) {
		t.Rows = append(t.Rows, []phrase{say(what), say(code(kind)), say(code(name)), placePhrase(at)})
	}
	for _, c := range p.Change.Policies {
		row(c.What, c.Ref.What(), c.Ref.String(), c.At)
	}
	for _, w := range p.Change.NewWorkloads {
		row("added", w.Kind, w.String(), policies.Place{})
	}
	for _, w := range p.Change.GoneWorkloads {
		row("removed", w.Kind, w.String(), policies.Place{})
	}
	return t
}

func readingTable(p *Preview) table {
	t := table{Title: "How the flows were read", Columns: []string{"What"}}
	for _, said := range readingPhrases(p.Reading) {
		t.Rows = append(t.Rows, []phrase{said})
	}
	return t
}
