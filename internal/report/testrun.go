package report

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
)

// failureLines says why a test failed: what was decided instead, and by which
// rule, a line or two for each difference.
func failureLines(r *conntest.Result) []string {
	var lines []string
	if r.Passed {
		return nil
	}
	if d := r.Decision; d != nil {
		lines = append(lines, fmt.Sprintf("%s → %s %s is %s, expected %s", endsText(d, fromOf), endsText(d, toOf), askedText(d), verdictPast(d.Verdict), verdictPast(r.Expect)))
		lines = append(lines, "  because "+clean(d.Because)+atText(d))
		if len(d.Parts) > 0 && d.Verdict == policies.Unknown {
			for i := range d.Parts {
				p := &d.Parts[i]
				lines = append(lines, fmt.Sprintf("  %s: %s → %s %s, because %s", verdictPast(p.Verdict), peerText(p.From), peerText(p.To), askedText(p), clean(p.Because)+atText(p)))
			}
		}
	}
	for i := range r.Surplus {
		lines = append(lines, differenceLines("not listed", &r.Surplus[i])...)
	}
	for i := range r.Missing {
		lines = append(lines, differenceLines("listed at "+r.Missing[i].Place.String(), &r.Missing[i])...)
	}
	return lines
}

func differenceLines(listed string, x *conntest.Difference) []string {
	does := [...]string{policies.Allow: "can", policies.Deny: "cannot", policies.Unknown: "may, or may not,"}[decided(x).Verdict]
	line := fmt.Sprintf("%s: %s %s reach %s on %s", listed, peersPhrase(x.From).plain(), does, x.To, portsPhrase(x.Ports).plain())
	return []string{clean(line), "  because " + clean(decided(x).Because) + atText(decided(x))}
}

// decided returns the decision of a difference, or the part of it that has its
// verdict; without one, for what is missing, that which is unknown.
func decided(x *conntest.Difference) *policies.Decision {
	for _, v := range []policies.Verdict{x.Verdict, policies.Unknown} {
		if i := slices.IndexFunc(x.Decision.Parts, func(p policies.Decision) bool { return p.Verdict == v }); i >= 0 {
			return &x.Decision.Parts[i]
		}
	}
	return &x.Decision
}

// atText is the place of the rule behind a decision; empty where none has a say.
func atText(d *policies.Decision) string {
	_, at, _, _ := causeOf(d, &policies.Decision{})
	if at.File == "" {
		return ""
	}
	return "  at " + clean(at.String())
}

// failed counts the tests that failed.
func failed(results []conntest.Result) int {
	n := 0
	for i := range results {
		if !results[i].Passed {
			n++
		}
	}
	return n
}

// suites cuts results where their suite changes.
func suites(results []conntest.Result) [][]conntest.Result {
	var all [][]conntest.Result
	for i := range results {
		if i == 0 || results[i].Suite != results[i-1].Suite {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], results[i])
	}
	return all
}

func testRunText(out *bufio.Writer, run *TestRun, paint paint) {
	for _, suite := range suites(run.Connectivity) {
		bad := failed(suite)
		if bad == 0 {
			fmt.Fprintf(out, "%s    %s  %s\n", paint.verdict(policies.Allow, "ok"), clean(suite[0].Suite.String()), counted(len(suite), "test"))
			continue
		}
		fmt.Fprintf(out, "%s  %s  %s of %s failed\n", paint.verdict(policies.Deny, "FAIL"), clean(suite[0].Suite.String()), grouped(bad), counted(len(suite), "test"))
		for i := range suite {
			r := &suite[i]
			if r.Passed {
				continue
			}
			fmt.Fprintf(out, "\n  %s  %s\n", paint.bold(clean(r.Name())), paint.dim(clean(r.Place.String())))
			for _, line := range failureLines(r) {
				out.WriteString("    " + line + "\n")
			}
		}
		out.WriteByte('\n')
	}
	regoText(out, run.Rego, paint)
	bad, skipped := run.Failed(), ""
	if n := run.skipped(); n > 0 {
		skipped = ", " + grouped(n) + " skipped"
	}
	fmt.Fprintf(out, "%s passed, %s failed%s.\n", counted(run.passed(), "test"), grouped(bad), skipped)
	warningsText(out, run.Warnings, paint)
}

func testRunJSON(o *object, run *TestRun) {
	o.number("passed", uint64(run.passed()))
	o.number("failed", uint64(run.Failed()))
	list(o, "tests", slices.Values(run.Connectivity), func(b []byte, r conntest.Result) []byte {
		b = appendRef(appendName(append(b, '{'), "suite"), r.Suite)
		b = appendMember(b, "name", r.Name())
		b = appendSome(b, "description", r.Description)
		b = appendSome(b, "from", r.From)
		b = appendMember(b, "to", r.To)
		b = appendMember(b, "port", r.Port)
		if r.Decision != nil {
			b = appendMember(b, "expect", r.Expect.String())
		}
		b = fmt.Appendf(appendName(b, "passed"), "%t", r.Passed)
		b = appendMember(b, "at", r.Place.String())
		if r.Decision != nil {
			return append(appendDecision(append(appendName(b, "decision"), '{'), r.Decision), "}}"...)
		}
		b = appendList(appendName(b, "surplus"), r.Surplus, appendDifference)
		return append(appendList(appendName(b, "missing"), r.Missing, appendDifference), '}')
	})
	if len(run.Rego) > 0 {
		o.number("skipped", uint64(run.skipped()))
		list(o, "rego", slices.Values(run.Rego), appendRegoTest)
	}
	warningList(o, run.Warnings)
	o.close()
}

func appendDifference(b []byte, d conntest.Difference) []byte {
	b = appendList(appendName(append(b, '{'), "from"), d.From, appendPeer)
	b = appendMember(b, "to", d.To)
	b = appendPorts(appendName(b, "ports"), d.Ports)
	b = appendMember(b, "verdict", decided(&d).Verdict.String())
	b = appendSome(b, "at", d.Place.String())
	return append(appendDecision(append(appendName(b, "decision"), '{'), &d.Decision), "}}"...)
}

// The shape of JUnit's files, as far as forges and build servers read it.
type junitSuites struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	File     string      `xml:"file,attr,omitempty"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	File    string        `xml:"file,attr,omitempty"`
	Line    int           `xml:"line,attr,omitempty"`
	Failure *junitFailure `xml:"failure"`
	Skipped *junitSkipped `xml:"skipped"`
	Output  string        `xml:"system-out,omitempty"`
}

type junitSkipped struct {
	Message string `xml:"message,attr"`
}

type junitFailure struct {
	Message string `xml:"message,attr"`
	Type    string `xml:"type,attr"`
	Text    string `xml:",chardata"`
}

func testRunJUnit(out *bufio.Writer, run *TestRun) error {
	report := junitSuites{Name: "weir test", Tests: len(run.Connectivity) + len(run.Rego), Failures: run.Failed()}
	for _, suite := range suites(run.Connectivity) {
		s := junitSuite{Name: suite[0].Suite.String(), Tests: len(suite), Failures: failed(suite), File: suite[0].Place.File}
		for i := range suite {
			r := &suite[i]
			c := junitCase{Name: r.Name(), Class: s.Name, File: r.Place.File, Line: r.Place.Line}
			if lines := failureLines(r); len(lines) > 0 {
				c.Failure = &junitFailure{Message: lines[0], Type: "connectivity", Text: strings.Join(lines, "\n")}
			}
			s.Cases = append(s.Cases, c)
		}
		report.Suites = append(report.Suites, s)
	}
	report.Suites = append(report.Suites, regoSuites(run.Rego)...)
	return report.write(out)
}

func (s *junitSuites) write(out *bufio.Writer) error {
	out.WriteString(xml.Header)
	encoder := xml.NewEncoder(out)
	encoder.Indent("", "  ")
	if err := encoder.Encode(s); err != nil {
		return err
	}
	out.WriteByte('\n')
	return nil
}

var tapName = strings.NewReplacer(`\`, `\\`, "#", `\#`)

// testRunTAP writes version 14 of the Test Anything Protocol.
func testRunTAP(out *bufio.Writer, run *TestRun) {
	fmt.Fprintf(out, "TAP version 14\n1..%d\n", len(run.Connectivity)+len(run.Rego))
	for i := range run.Connectivity {
		r := &run.Connectivity[i]
		lines := failureLines(r)
		tapLine(out, i+1, r.Passed, r.Suite.String()+": "+r.Name(), "")
		if len(lines) > 0 {
			tapWhy(out, r.Place, lines)
		}
	}
	for i := range run.Rego {
		t := &run.Rego[i]
		skip := ""
		if t.Skipped {
			skip = " # SKIP its name begins with todo_"
		}
		tapLine(out, len(run.Connectivity)+i+1, t.Passed || t.Skipped, t.Package+": "+t.Name, skip)
		if !t.Passed && !t.Skipped {
			tapWhy(out, t.Place, regoLines(t))
		}
	}
}

func tapLine(out *bufio.Writer, n int, ok bool, name, directive string) {
	status := "ok"
	if !ok {
		status = "not ok"
	}
	fmt.Fprintf(out, "%s %d - %s%s\n", status, n, tapName.Replace(clean(name)), directive)
}

func tapWhy(out *bufio.Writer, at policies.Place, lines []string) {
	// JSON's strings are YAML's, too.
	fmt.Fprintf(out, "  ---\n  at: %s\n  why:\n", appendString(nil, at.String()))
	for _, line := range lines {
		fmt.Fprintf(out, "    - %s\n", appendString(nil, strings.TrimSpace(line)))
	}
	out.WriteString("  ...\n")
}
