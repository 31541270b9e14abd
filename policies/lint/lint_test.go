package lint

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
)

var now = time.Date(2026, 6, 15, 12, 0, 0, 0, time.UTC)

func judgeOf(t *testing.T, file, text string) *reach.Judge {
	t.Helper()
	docs, err := k8s.Parse(file, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	o := k8s.Options{}
	if cidrs := regexp.MustCompile(`(?m)^# pod-cidr: (.*)$`).FindStringSubmatch(text); cidrs != nil {
		for _, c := range strings.Fields(cidrs[1]) {
			o.PodCIDRs = append(o.PodCIDRs, netip.MustParsePrefix(c))
		}
	}
	m, err := k8s.Read(docs, o)
	if err != nil {
		t.Fatal(err)
	}
	return reach.New(m, reach.Options{})
}

func findings(t *testing.T, file, text string, o Options) *Result {
	t.Helper()
	o.Now = now
	r, err := Run(judgeOf(t, file, text), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

var wantComment = regexp.MustCompile(`# want ((?:"(?:[^"\\]|\\.)*" ?)+)$`)

// Each file of testdata is a world. What the checks find in it stands beside the
// line that it is about: # want "severity check: part of the message".
func TestFindings(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no files", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := map[int][]string{}
			for i, line := range strings.Split(string(text), "\n") {
				for _, quoted := range regexp.MustCompile(`"(?:[^"\\]|\\.)*"`).FindAllString(firstGroup(wantComment, line), -1) {
					part, err := strconv.Unquote(quoted)
					if err != nil {
						t.Fatalf("line %d: %v", i+1, err)
					}
					want[i+1] = append(want[i+1], part)
				}
			}
			for _, f := range findings(t, file, string(text), Options{}).Findings {
				got := fmt.Sprintf("%s %s: %s", f.Severity, f.Check, f.Message)
				if f.See.Line > 0 {
					got += fmt.Sprintf(" (see line %d)", f.See.Line)
				}
				at := slices.IndexFunc(want[f.Place.Line], func(part string) bool { return strings.Contains(got, part) })
				if at < 0 {
					t.Errorf("line %d: unwanted: %s", f.Place.Line, got)
					continue
				}
				want[f.Place.Line] = slices.Delete(want[f.Place.Line], at, at+1)
			}
			for line, parts := range want {
				for _, part := range parts {
					t.Errorf("line %d: not found: %s", line, part)
				}
			}
		})
	}
}

func firstGroup(r *regexp.Regexp, text string) string {
	if m := r.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

var yamlBlock = regexp.MustCompile("(?ms)^## (The mistake|The cure)\n.*?^```yaml\n(.*?)^```")

// Every check has a page; what the page shows as a mistake the check finds, and
// what it shows as the cure no check has anything against.
func TestEveryCheckHasAPage(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(testkit.Root(t), "docs", "checks", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) != len(checks) {
		t.Errorf("%d pages for %d checks", len(pages), len(checks))
	}
	for _, c := range checks {
		t.Run(c.Name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(testkit.Root(t), "docs", "checks", c.Name+".md"))
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasPrefix(string(text), "# "+c.Name+"\n") {
				t.Error("the page has another title")
			}
			blocks := yamlBlock.FindAllStringSubmatch(string(text), -1)
			if len(blocks) != 2 {
				t.Fatalf("%d blocks of YAML, want a mistake and its cure", len(blocks))
			}
			mistake := findings(t, "mistake.yaml", blocks[0][2], Options{Only: []string{c.Name}})
			if len(mistake.Findings) == 0 {
				t.Error("the mistake is not found")
			}
			for _, f := range findings(t, "cure.yaml", blocks[1][2], Options{}).Findings {
				t.Errorf("the cure has a finding: %s: %s: %s", f.Place, f.Check, f.Message)
			}
		})
	}
}

const waivable = `
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec: {containers: [{name: main}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web
  namespace: shop
  annotations: {weir.dev/waive: %q}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{}, {from: [{podSelector: {}}]}]}
`

func TestWaivers(t *testing.T) {
	const open, dead = "open-isolation", "rule-without-effect"
	for _, row := range []struct {
		annotation string
		counts     []string // checks of the findings that count
		waived     []string
		says       string // part of what is said about the waivers
	}{
		{"", []string{open, dead}, nil, ""},
		{"open-isolation until 2027-01-01: the front door", []string{dead}, []string{open}, ""},
		{"open-isolation until 2026-06-15: its last day", []string{dead}, []string{open}, ""},
		{"open-isolation until 2026-06-14: the day before", []string{"waiver", open, dead}, nil, "expired at the end of 2026-06-14 (the day before)"},
		{"open-isolation until 2027-01-01: a; rule-without-effect until 2027-01-01: b: c;", nil, []string{open, dead}, ""},
		{"  rule-without-effect   until 2027-01-01 :b", []string{open}, []string{dead}, ""},
		{"pod-range until 2027-01-01: old", []string{"waiver", open, dead}, nil, "waives nothing any more"},
		{"open-isolation", []string{"waiver", open, dead}, nil, "is not of the form"},
		{"open-isolation until 2027-01-01", []string{"waiver", open, dead}, nil, "is not of the form"},
		{"open-isolation until 2027-01-01:  ", []string{"waiver", open, dead}, nil, "is not of the form"},
		{"open-isolation until 2027-13-01: x", []string{"waiver", open, dead}, nil, "2027-13-01 is not a date"},
		{"open-isolaton until 2027-01-01: x", []string{"waiver", open, dead}, nil, "names no check; near it are open-isolation"},
		{"waiver until 2027-01-01: x", []string{"waiver", open, dead}, nil, "names no check"},
	} {
		r := findings(t, "w.yaml", fmt.Sprintf(waivable, row.annotation), Options{})
		var counts, waived []string
		said := ""
		for _, f := range r.Findings {
			counts = append(counts, f.Check)
			if f.Check == "waiver" {
				said += f.Message
			}
		}
		for _, f := range r.Waived {
			waived = append(waived, f.Check)
			if f.Waiver == nil || f.Waiver.Check != f.Check {
				t.Errorf("%q: waived by %+v", row.annotation, f.Waiver)
			}
		}
		if diff := cmp.Diff([][]string{row.counts, row.waived}, [][]string{counts, waived}); diff != "" {
			t.Errorf("%q: (-want +got)\n%s", row.annotation, diff)
		}
		if !strings.Contains(said, row.says) || (row.says == "") != (said == "") {
			t.Errorf("%q: says %q", row.annotation, said)
		}
	}
}

func TestOnlyAndSkip(t *testing.T) {
	text := fmt.Sprintf(waivable, "open-isolation until 2027-01-01: x")
	for _, row := range []struct {
		only, skip []string
		want       int
	}{
		{nil, nil, 1},
		{[]string{"open-isolation"}, nil, 0},
		{[]string{"rule-without-effect"}, nil, 1},
		{[]string{"waiver"}, nil, 0}, // a waiver of what did not run is not idle
		{nil, []string{"rule-without-effect"}, 0},
	} {
		if r := findings(t, "w.yaml", text, Options{Only: row.only, Skip: row.skip}); len(r.Findings) != row.want {
			t.Errorf("%v but %v: %d findings", row.only, row.skip, len(r.Findings))
		}
	}
	_, err := Run(judgeOf(t, "w.yaml", text), Options{Only: []string{"open-isolaton"}, Skip: []string{"no"}})
	if err == nil || !strings.Contains(err.Error(), `there is no check "open-isolaton"; near it are open-isolation`) || !strings.Contains(err.Error(), `"no"`) {
		t.Errorf("got %v", err)
	}
}

func TestChecksAreInOrder(t *testing.T) {
	if !slices.IsSortedFunc(Checks(), func(a, b Check) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("they are not sorted by name")
	}
	for _, s := range Severities {
		if got, err := ParseSeverity(s.String()); got != s || err != nil {
			t.Errorf("%v is read as %v, %v", s, got, err)
		}
	}
	if _, err := ParseSeverity("fatal"); err == nil {
		t.Error("read a severity that there is not")
	}
}
