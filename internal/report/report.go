// Package report writes answers for people and for programs.
//
// It alone knows how an answer looks: the shapes of its JSON (documented in
// docs/json.md, with schemas beside it), the words of its sentences, and its
// pictures. It decides nothing, and the same values give the same bytes.
package report

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/policies/rego"
	"github.com/weir-policy/weir/simulator"
)

// Format is a form in which an answer can be written.
type Format string

// The forms.
const (
	Text     Format = "text"
	JSON     Format = "json"
	CSV      Format = "csv"
	DOT      Format = "dot"
	Mermaid  Format = "mermaid"
	SVG      Format = "svg"
	HTML     Format = "html"
	Markdown Format = "markdown"
	SARIF    Format = "sarif"
	JUnit    Format = "junit"
	TAP      Format = "tap"
	GitHub   Format = "github"
	YAML     Format = "yaml"
)

// Kind is a kind of answer, as its JSON names it.
type Kind string

// The kinds of answers.
const (
	KindReachability Kind = "Reachability"
	KindChange       Kind = "Change"
	KindDecision     Kind = "Decision"
	KindReplay       Kind = "Replay"
	KindPreview      Kind = "Preview"
	KindFlowImport   Kind = "FlowImport"
	KindFlowIngest   Kind = "FlowIngest"
	KindFlowStore    Kind = "FlowStore"
	KindFlowSchema   Kind = "FlowSchema"
	KindTestRun      Kind = "TestRun"
	KindCheckRun     Kind = "CheckRun"
	KindAnswer       Kind = "Answer"
	KindConversion   Kind = "Conversion"
	KindValue        Kind = "Value"
	KindFlowList     Kind = "FlowList"
	KindFlowTop      Kind = "FlowTop"
	KindFlowGraph    Kind = "FlowGraph"
	KindFlowStats    Kind = "FlowStats"
	KindFlowRows     Kind = "FlowRows"
	KindFlowExport   Kind = "FlowExport"
	KindPackList     Kind = "PackList"
	KindCaptureList  Kind = "CaptureList"
)

var formats = map[Kind][]Format{
	KindReachability: {Text, JSON, CSV, DOT, Mermaid, SVG, HTML},
	KindChange:       {Text, JSON, CSV, DOT, Mermaid, SVG},
	KindDecision:     {Text, JSON},
	KindReplay:       {Text, JSON},
	KindPreview:      {Text, Markdown, JSON, SARIF, HTML},
	KindFlowImport:   {Text, JSON},
	KindFlowIngest:   {Text, JSON},
	KindFlowStore:    {Text, JSON},
	KindFlowSchema:   {Text, JSON},
	KindTestRun:      {Text, JSON, JUnit, TAP},
	KindCheckRun:     {Text, JSON, SARIF, JUnit, GitHub},
	KindAnswer:       {Text, JSON, CSV},
	KindConversion:   {YAML, Text, JSON},
	KindValue:        {Text, JSON, CSV},
	KindFlowList:     {Text, JSON, CSV},
	KindFlowTop:      {Text, JSON, CSV},
	KindFlowGraph:    {Text, JSON, DOT, Mermaid, SVG},
	KindFlowStats:    {Text, JSON},
	KindFlowRows:     {Text, JSON, CSV},
	KindPackList:     {Text, JSON},
	KindCaptureList:  {Text, JSON},
	KindFlowExport:   {Text, JSON},
}

// Formats returns the forms in which answers of a kind can be written, the
// usual one first.
func Formats(kind Kind) []Format { return slices.Clone(formats[kind]) }

func unsupported(kind Kind, format Format) error {
	var names []string
	for _, f := range formats[kind] {
		names = append(names, string(f))
	}
	return fmt.Errorf("format %q is not one that a %s can have; use %s or %s", format, kind,
		strings.Join(names[:len(names)-1], ", "), names[len(names)-1])
}

// Style is how text for people looks. The zero Style is plain.
type Style struct {
	Color bool // with ANSI colours
	Trace bool // with every rule that was looked at, where the answer knows
}

// Revision is a commit and the name that it was asked for by.
type Revision struct {
	Name   string
	Commit string // empty for what is not committed
}

// Exposure counts the workloads that addresses outside can reach on some port,
// and those that can reach addresses outside.
type Exposure struct {
	Reachable, Reaching Span
}

// Span is a count of workloads before the change and after it, and those that
// are counted on one side only, sorted.
type Span struct {
	Before, After int
	New, Gone     []policies.Peer
}

// FlowReading says how the reading of recorded flows went.
type FlowReading struct {
	Records  uint64            // read and understood
	Bad      uint64            // lines that could not be read
	Problems []string          // the first of those, with file and line
	LeftOut  []simulator.Cause // records that are no connection to replay, by cause
	Lost     uint64            // records that the recorder itself says it lost
}

// CheckRun is what the checks of policies found.
type CheckRun struct {
	*lint.Result
	// FailOn is the mildest severity that fails the run; nil when none does.
	FailOn *lint.Severity
	// ShowWaived is set to write the findings that are waived, and not only how
	// many they are.
	ShowWaived bool
	// Invariants are those that were checked; see AddInvariants.
	Invariants []invariant.Result
}

// Fails reports whether a finding is as bad as FailOn or worse.
func (r *CheckRun) Fails() bool {
	worst, some := r.Worst()
	return some && r.FailOn != nil && worst >= *r.FailOn
}

// Change is what two policy sets decide differently.
type Change struct {
	*diff.Change
	// Staged, if any, are the staged policies that the second set is the first
	// with. Each, if not nil, is then what each of them by itself would change.
	Staged []policies.Staged
	Each   []*diff.Change
}

// Preview is what a pull request changes, or what staged policies would.
type Preview struct {
	Base, Head Revision
	Change     *diff.Change
	Replay     *simulator.Result // nil without recorded flows
	Reading    FlowReading       // of Replay
	Exposure   Exposure
	Invariants []invariant.Change
	Failed     []string // the conditions asked for that the change, or one of Each, meets
	Warnings   []policies.Warning
	// Staged, if any, are the staged policies that the head is the base with. Each,
	// if not nil, is then the preview of each of them by itself.
	Staged []policies.Staged
	Each   []*Preview
}

// WriteReachability writes every connection; those of one source must follow
// one another. Text, JSON and CSV are streamed: memory does not grow with the
// number of connections.
func WriteReachability(w io.Writer, format Format, connections iter.Seq[policies.Connection], warnings []policies.Warning, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		reachabilityText(out, connections, warnings, palette(style))
	case JSON:
		reachabilityJSON(out, connections, warnings)
	case CSV:
		reachabilityCSV(out, connections)
	case DOT:
		pictureOfConnections(connections).dot(out)
	case Mermaid:
		pictureOfConnections(connections).atMost(mermaidEdges).mermaid(out)
	case SVG:
		pictureOfConnections(connections).atMost(svgEdges).svg(out)
	case HTML:
		if err := reachabilityHTML(out, pictureOfConnections(connections).atMost(svgEdges), warnings); err != nil {
			return err
		}
	default:
		return unsupported(KindReachability, format)
	}
	return out.Flush()
}

// WriteChange writes what two policy sets decide differently. Pictures show no
// staged policy by itself.
func WriteChange(w io.Writer, format Format, change *Change, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		changeText(out, change, palette(style))
	case JSON:
		changeJSON(newObject(out, KindChange), change)
	case CSV:
		changeCSV(out, change)
	case DOT:
		pictureOfChange(change.Change).dot(out)
	case Mermaid:
		pictureOfChange(change.Change).atMost(mermaidEdges).mermaid(out)
	case SVG:
		pictureOfChange(change.Change).atMost(svgEdges).svg(out)
	default:
		return unsupported(KindChange, format)
	}
	return out.Flush()
}

// WriteDecision writes one decision with its reason.
func WriteDecision(w io.Writer, format Format, decision *policies.Decision, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		decisionText(out, decision, palette(style), style.Trace)
	case JSON:
		if err := decisionJSON(out, decision); err != nil {
			return err
		}
	default:
		return unsupported(KindDecision, format)
	}
	return out.Flush()
}

// WriteReplay writes what recorded flows would have met.
func WriteReplay(w io.Writer, format Format, result *simulator.Result, reading FlowReading, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		replayText(out, result, reading, palette(style))
	case JSON:
		replayJSON(newObject(out, KindReplay), result, reading)
	default:
		return unsupported(KindReplay, format)
	}
	return errors.Join(out.Flush(), result.Rows.Err())
}

// Stored is what an import added to a store of flows.
type Stored struct {
	Added uint64 // flows that are new in it
	Known uint64 // flows that an earlier import of the same file had added
}

// Resolved is what became of the ends of flows that were recorded by their
// address alone.
type Resolved struct {
	Named uint64            // ends that got the name of whoever had the address then
	Left  []simulator.Cause // those that did not, by cause; Flows counts ends
}

// WriteImport writes how the reading of recorded flows went, and what was stored
// of them where they went to a store; resolved is nil where no addresses were
// looked up.
func WriteImport(w io.Writer, format Format, reading FlowReading, stored *Stored, resolved *Resolved, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		fmt.Fprintf(out, "%s read", counted(reading.Records, "flow"))
		if stored != nil {
			fmt.Fprintf(out, ", %s added", grouped(stored.Added))
		}
		out.WriteString(".\n")
		if stored != nil && stored.Known > 0 {
			fmt.Fprintf(out, "%s known from an earlier import.\n", counted(stored.Known, "flow"))
		}
		if resolved != nil {
			fmt.Fprintf(out, "%s of addresses alone named.\n", counted(resolved.Named, "end"))
			for _, left := range resolved.Left {
				fmt.Fprintf(out, "%s not: %s\n", counted(left.Flows, "end"), left.Text)
			}
		}
		readingText(out, reading, palette(style))
	case JSON:
		importJSON(newObject(out, KindFlowImport), reading, stored, resolved)
	default:
		return unsupported(KindFlowImport, format)
	}
	return out.Flush()
}

// WriteIngest writes what a server took, of one batch or of all.
func WriteIngest(w io.Writer, format Format, reading FlowReading, stored Stored, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		fmt.Fprintf(out, "%s taken, %s added.\n", counted(reading.Records, "flow"), grouped(stored.Added))
		if stored.Known > 0 {
			fmt.Fprintf(out, "%s known from a batch that came before.\n", counted(stored.Known, "flow"))
		}
		readingText(out, reading, palette(style))
	case JSON:
		importJSON(newObject(out, KindFlowIngest), reading, &stored, nil)
	default:
		return unsupported(KindFlowIngest, format)
	}
	return out.Flush()
}

// TestRun is how tests went: those of connectivity, where those of a suite must
// follow one another, and those in Rego, where those of a package must.
type TestRun struct {
	Connectivity []conntest.Result
	Rego         []rego.TestResult
	Warnings     []policies.Warning
}

// Failed counts the tests that failed.
func (r *TestRun) Failed() int {
	n := failed(r.Connectivity)
	for i := range r.Rego {
		if t := &r.Rego[i]; !t.Passed && !t.Skipped {
			n++
		}
	}
	return n
}

func (r *TestRun) skipped() int {
	n := 0
	for i := range r.Rego {
		if r.Rego[i].Skipped {
			n++
		}
	}
	return n
}

// WriteTestRun writes how tests went.
func WriteTestRun(w io.Writer, format Format, run TestRun, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		testRunText(out, &run, palette(style))
	case JSON:
		testRunJSON(newObject(out, KindTestRun), &run)
	case JUnit:
		if err := testRunJUnit(out, &run); err != nil {
			return err
		}
	case TAP:
		testRunTAP(out, &run)
	default:
		return unsupported(KindTestRun, format)
	}
	return out.Flush()
}

// WriteCheckRun writes what the checks of policies found.
func WriteCheckRun(w io.Writer, format Format, run *CheckRun, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case Text:
		checkRunText(out, run, palette(style))
	case JSON:
		checkRunJSON(newObject(out, KindCheckRun), run)
	case SARIF:
		checkRunSARIF(out, run)
	case JUnit:
		if err := checkRunJUnit(out, run); err != nil {
			return err
		}
	case GitHub:
		checkRunGitHub(out, run)
	default:
		return unsupported(KindCheckRun, format)
	}
	return out.Flush()
}

// WriteConversion writes what became of policies that were to be converted. As
// YAML, it is the manifests alone.
func WriteConversion(w io.Writer, format Format, c *Conversion, style Style) error {
	out := bufio.NewWriter(w)
	switch format {
	case YAML:
		out.Write(c.Manifests())
	case Text:
		conversionText(out, c, palette(style))
	case JSON:
		conversionJSON(newObject(out, KindConversion), c)
	default:
		return unsupported(KindConversion, format)
	}
	return out.Flush()
}

// WritePreview writes the report of a pull request. Markdown has at most
// MarkdownLimit characters, whatever the change.
func WritePreview(w io.Writer, format Format, preview *Preview, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		previewText(out, preview, palette(style))
	case Markdown:
		out.WriteString(previewMarkdown(preview))
	case JSON:
		previewJSON(newObject(out, KindPreview), preview)
	case SARIF:
		previewSARIF(out, preview)
	case HTML:
		if err := previewHTML(out, preview); err != nil {
			return err
		}
	default:
		return unsupported(KindPreview, format)
	}
	return errors.Join(out.Flush(), preview.rows().Err())
}
