package report

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/rego"
)

func (r *TestRun) passed() int {
	return len(r.Connectivity) + len(r.Rego) - r.Failed() - r.skipped()
}

// regoLines say why a test in Rego failed, and what it printed.
func regoLines(t *rego.TestResult) []string {
	lines := []string{clean(t.Because)}
	for line := range strings.Lines(t.Output) {
		lines = append(lines, "  printed "+clean(strings.TrimRight(line, "\n")))
	}
	return lines
}

// regoPackages cuts tests where their package changes.
func regoPackages(tests []rego.TestResult) [][]rego.TestResult {
	var all [][]rego.TestResult
	for i := range tests {
		if i == 0 || tests[i].Package != tests[i-1].Package {
			all = append(all, nil)
		}
		all[len(all)-1] = append(all[len(all)-1], tests[i])
	}
	return all
}

func regoText(out *bufio.Writer, tests []rego.TestResult, paint paint) {
	for _, all := range regoPackages(tests) {
		bad := (&TestRun{Rego: all}).Failed()
		if bad == 0 {
			fmt.Fprintf(out, "%s    %s  %s\n", paint.verdict(policies.Allow, "ok"), clean(all[0].Package), counted(len(all), "test"))
			continue
		}
		fmt.Fprintf(out, "%s  %s  %s of %s failed\n", paint.verdict(policies.Deny, "FAIL"), clean(all[0].Package), grouped(bad), counted(len(all), "test"))
		for i := range all {
			t := &all[i]
			if t.Passed || t.Skipped {
				continue
			}
			fmt.Fprintf(out, "\n  %s  %s\n", paint.bold(clean(t.Name)), paint.dim(clean(t.Place.String())))
			for _, line := range regoLines(t) {
				out.WriteString("    " + line + "\n")
			}
		}
		out.WriteByte('\n')
	}
}

func appendRegoTest(b []byte, t rego.TestResult) []byte {
	b = appendMember(append(b, '{'), "package", t.Package)
	b = appendMember(b, "name", t.Name)
	b = fmt.Appendf(appendName(b, "passed"), "%t", t.Passed)
	if t.Skipped {
		b = append(appendName(b, "skipped"), "true"...)
	}
	b = appendSome(b, "because", t.Because)
	b = appendSome(b, "output", t.Output)
	return append(appendMember(b, "at", t.Place.String()), '}')
}

func regoSuites(tests []rego.TestResult) []junitSuite {
	var suites []junitSuite
	for _, all := range regoPackages(tests) {
		s := junitSuite{Name: all[0].Package, Tests: len(all), Failures: (&TestRun{Rego: all}).Failed(), File: all[0].Place.File}
		for i := range all {
			t := &all[i]
			c := junitCase{Name: t.Name, Class: s.Name, File: t.Place.File, Line: t.Place.Line}
			switch {
			case t.Skipped:
				c.Skipped = &junitSkipped{"its name begins with todo_"}
			case t.Passed:
				c.Output = t.Output
			default:
				c.Failure = &junitFailure{Message: t.Because, Type: "rego", Text: strings.Join(regoLines(t), "\n")}
			}
			s.Cases = append(s.Cases, c)
		}
		suites = append(suites, s)
	}
	return suites
}
