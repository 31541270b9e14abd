package report

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/policies/query"
	"github.com/weir-policy/weir/policies/v1alpha1"
	"github.com/weir-policy/weir/simulator"
)

// answers writes each kind of answer, from a sample, or from nothing at all.
var answers = map[Kind]func(w io.Writer, f Format, empty bool) error{
	KindReachability: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteReachability(w, f, slices.Values([]policies.Connection(nil)), nil, Style{})
		}
		return WriteReachability(w, f, shop(), shopWarnings, Style{})
	},
	KindChange: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteChange(w, f, &Change{Change: &diff.Change{}}, Style{})
		}
		return WriteChange(w, f, &Change{Change: edit()}, Style{})
	},
	KindDecision: func(w io.Writer, f Format, empty bool) error {
		if empty {
			d := decision(workload("shop/web"), workload("shop/web"), 80, policies.Allow, &policies.Side{}, &policies.Side{})
			d.Because = "a pod always reaches itself"
			return WriteDecision(w, f, &d, Style{})
		}
		d := denied()
		return WriteDecision(w, f, &d, Style{Trace: true})
	},
	KindValue: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteValue(w, f, compiled("pods.filter(p, false)"), expression.List{}, nil, Style{})
		}
		return WriteValue(w, f, compiled("connections"), valued(), shopWarnings, Style{})
	},
	KindFlowList: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowList(w, f, &FlowList{}, Style{})
		}
		return WriteFlowList(w, f, listed(), Style{})
	},
	KindFlowTop: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowTop(w, f, &FlowTop{Ranking: ranked(nil), By: "flows"}, Style{})
		}
		return WriteFlowTop(w, f, &FlowTop{Selection: shopSelection, Ranking: ranked(listed().Flows), By: "bytes"}, Style{})
	},
	KindFlowGraph: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowGraph(w, f, &FlowGraph{Graph: &simulator.Graph{}}, Style{})
		}
		return WriteFlowGraph(w, f, &FlowGraph{Selection: shopSelection, Graph: talked(listed().Flows)}, Style{})
	},
	KindFlowStats: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowStats(w, f, &FlowStats{Census: &simulator.Census{}}, Style{})
		}
		return WriteFlowStats(w, f, &FlowStats{Selection: shopSelection, Census: censused(listed().Flows), Files: 2, Size: 4711}, Style{})
	},
	KindFlowExport: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowExport(w, f, &FlowExport{As: "jsonl"}, Style{})
		}
		return WriteFlowExport(w, f, &FlowExport{Selection: shopSelection, Records: 12, As: "hubble", Lost: []simulator.Cause{{Text: "bytes and packets", Flows: 11}}}, Style{})
	},
	KindFlowRows: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowRows(w, f, &FlowRows{Columns: []string{"start"}}, Style{})
		}
		return WriteFlowRows(w, f, &FlowRows{
			Columns: []string{"src_name", "flows", "share", "a \"b\""},
			Rows:    [][]any{{"web", int64(12), 0.25, nil}, {"a,b\n\x1b[31m", int64(-1), 1e300, "é"}},
		}, Style{})
	},
	KindReplay: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteReplay(w, f, &simulator.Result{}, FlowReading{}, Style{})
		}
		return WriteReplay(w, f, replayed(), shopReading, Style{})
	},
	KindFlowImport: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteImport(w, f, FlowReading{}, nil, nil, Style{})
		}
		return WriteImport(w, f, shopReading, &Stored{Added: 1200, Known: 34}, &Resolved{Named: 1100, Left: []simulator.Cause{
			{Text: "nobody is known to have had an address", Flows: 99}, {Text: "several pods had an address in the time of a record", Flows: 1},
		}}, Style{})
	},
	KindFlowIngest: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteIngest(w, f, FlowReading{}, Stored{}, Style{})
		}
		return WriteIngest(w, f, shopReading, Stored{Added: 1200, Known: 34}, Style{})
	},
	KindFlowStore: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteFlowStore(w, f, &FlowStore{Where: "flows"}, Style{})
		}
		return WriteFlowStore(w, f, storedFlows(), Style{})
	},
	KindFlowSchema: func(w io.Writer, f Format, empty bool) error {
		s := &FlowSchema{Where: "clickhouse://flows:9000/weir"}
		if !empty {
			s.Statements = []string{"CREATE TABLE `weir`.`flows` (\n    `start` Int64\n)", "CREATE TABLE `weir`.`tuples` (\n    `tuple` UInt64\n)"}
		}
		return WriteFlowSchema(w, f, s)
	},
	KindCheckRun: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteCheckRun(w, f, &CheckRun{Result: &lint.Result{}}, Style{})
		}
		return WriteCheckRun(w, f, checked(), Style{})
	},
	KindPackList: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WritePacks(w, f, nil, Style{})
		}
		return WritePacks(w, f, []Pack{{Name: "shop", Title: "what the shop wants", Invariants: []invariant.Invariant{
			{Ref: policies.Ref{Kind: "Invariant", Name: "db"}, Description: "nobody opens the database", Owner: "ann", Links: []string{"https://example.com"}, Severity: invariant.Warn, Form: invariant.Rego, FormPlace: place("shop.yaml", 3, 7)},
			{Ref: policies.Ref{Kind: "Invariant", Name: "names"}, Form: invariant.Always, FormPlace: place("shop.yaml", 13, 7)},
		}}}, Style{})
	},
	KindCaptureList: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteCaptures(w, f, nil, Style{})
		}
		return WriteCaptures(w, f, []v1alpha1.PacketCapture{
			{
				Metadata: v1alpha1.Metadata{Namespace: "shop", Name: "dns"},
				Spec:     v1alpha1.PacketCaptureSpec{StartTime: "2026-03-01T12:00:00Z", EndTime: "2026-03-01T12:05:00Z"},
				Status: v1alpha1.PacketCaptureStatus{Files: []v1alpha1.CaptureFiles{
					{Node: "n1", State: v1alpha1.CaptureCapturing, Directory: "/var/log/weir/captures/shop/dns", FileNames: []string{"web_veth1.pcapng"}, Packets: 1200, Bytes: 250_000, Dropped: 3},
					{Node: "n2", State: v1alpha1.CaptureError, Message: "pod web: no room; pod db: no room", Directory: "/var/log/weir/captures/shop/dns"},
				}},
			},
			{Metadata: v1alpha1.Metadata{Namespace: "shop", Name: "new"}},
		}, Style{})
	},
	KindTestRun: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteTestRun(w, f, TestRun{}, Style{})
		}
		return WriteTestRun(w, f, TestRun{tested(), testedRego(), shopWarnings}, Style{})
	},
	KindAnswer: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteAnswer(w, f, &query.Answer{Question: query.Shadowed}, nil, Style{})
		}
		return WriteAnswer(w, f, hidden(), shopWarnings, Style{})
	},
	KindConversion: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteConversion(w, f, &Conversion{To: "calico", Change: &diff.Change{}}, Style{})
		}
		return WriteConversion(w, f, rewritten(), Style{})
	},
	KindPreview: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WritePreview(w, f, &Preview{Base: Revision{Name: "main"}, Head: Revision{Name: "HEAD"}, Change: &diff.Change{}}, Style{})
		}
		return WritePreview(w, f, pullRequest(), Style{})
	},
}

var extensions = map[Format]string{
	Text: "txt", JSON: "json", CSV: "csv", DOT: "dot", Mermaid: "mmd", SVG: "svg", HTML: "html", Markdown: "md", SARIF: "sarif",
	JUnit: "xml", TAP: "tap", GitHub: "github", YAML: "yaml",
}

func TestEveryFormOfEveryAnswer(t *testing.T) {
	for kind, write := range answers {
		for _, format := range Formats(kind) {
			for _, empty := range []bool{false, true} {
				name := strings.ToLower(string(kind))
				if empty {
					name += "-empty"
				}
				t.Run(fmt.Sprintf("%s.%s", name, extensions[format]), func(t *testing.T) {
					var got, again bytes.Buffer
					if err := write(&got, format, empty); err != nil {
						t.Fatal(err)
					}
					testkit.Golden(t, "testdata/"+name+"."+extensions[format], got.Bytes())
					if err := write(&again, format, empty); err != nil || again.String() != got.String() {
						t.Errorf("written twice it differs (error %v)", err)
					}
				})
			}
		}
	}
}

func TestFormatsThatAnAnswerCannotHave(t *testing.T) {
	want := map[Kind]string{
		KindReachability: `format "sarif" is not one that a Reachability can have; use text, json, csv, dot, mermaid, svg or html`,
		KindDecision:     `format "sarif" is not one that a Decision can have; use text or json`,
	}
	for kind, message := range want {
		if err := answers[kind](io.Discard, SARIF, false); err == nil || err.Error() != message {
			t.Errorf("%s: got error %v, want %s", kind, err, message)
		}
	}
	for kind, write := range answers {
		if err := write(io.Discard, "toml", false); err == nil {
			t.Errorf("%s: wrote toml", kind)
		}
	}
}

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

func TestErrorsOfTheWriterAreReturned(t *testing.T) {
	for kind, write := range answers {
		for _, format := range Formats(kind) {
			if err := write(brokenWriter{}, format, false); err == nil {
				t.Errorf("%s as %s: no error", kind, format)
			}
		}
	}
}

func TestColorOnlyAddsColor(t *testing.T) {
	var plain, colored bytes.Buffer
	if err := WritePreview(&plain, Text, pullRequest(), Style{}); err != nil {
		t.Fatal(err)
	}
	if err := WritePreview(&colored, Text, pullRequest(), Style{Color: true}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plain.String(), "\x1b") || !strings.Contains(colored.String(), "\x1b[1;31m") {
		t.Error("colour where none was asked for, or none where it was")
	}
	var stripped strings.Builder
	for i, part := range strings.Split(colored.String(), "\x1b[") {
		if i > 0 {
			_, part, _ = strings.Cut(part, "m")
		}
		stripped.WriteString(part)
	}
	if stripped.String() != plain.String() {
		t.Error("without its colours the text is not the plain text")
	}
}
