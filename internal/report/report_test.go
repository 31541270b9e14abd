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
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/policies/query"
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
	KindReplay: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteReplay(w, f, &simulator.Result{}, FlowReading{}, Style{})
		}
		return WriteReplay(w, f, replayed(), shopReading, Style{})
	},
	KindFlowImport: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteImport(w, f, FlowReading{}, nil, Style{})
		}
		return WriteImport(w, f, shopReading, &Stored{Added: 1200, Known: 34}, Style{})
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
	KindCheckRun: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteCheckRun(w, f, &CheckRun{Result: &lint.Result{}}, Style{})
		}
		return WriteCheckRun(w, f, checked(), Style{})
	},
	KindTestRun: func(w io.Writer, f Format, empty bool) error {
		if empty {
			return WriteTestRun(w, f, nil, nil, Style{})
		}
		return WriteTestRun(w, f, tested(), shopWarnings, Style{})
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
