package report

import (
	"bufio"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/lint"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// severities prints "1 error, 2 warnings".
func severities(r *CheckRun) string {
	var parts []string
	for _, s := range lint.Severities {
		if n := r.count(s); n > 0 {
			parts = append(parts, counted(n, s.String()))
		}
	}
	return strings.Join(parts, ", ")
}

func (r *CheckRun) count(s lint.Severity) int {
	n := 0
	for i := range r.Findings {
		if r.Findings[i].Severity == s {
			n++
		}
	}
	return n
}

// shown returns the findings that are written: those that are waived last, and
// only where they are asked for.
func (r *CheckRun) shown() []lint.Finding {
	if r.ShowWaived {
		return slices.Concat(r.Findings, r.Waived)
	}
	return r.Findings
}

func waiverText(w *lint.Waiver) string {
	return "waived until " + w.Until.Format(time.DateOnly) + ": " + w.Reason
}

func checkRunText(out *bufio.Writer, r *CheckRun, paint paint) {
	said := "No findings"
	if len(r.Findings) > 0 {
		said = counted(len(r.Findings), "finding") + ": " + severities(r)
	}
	if n := len(r.Waived); n > 0 {
		said += "; " + grouped(n) + " waived"
		if !r.ShowWaived {
			said += " (--show-waived lists them)"
		}
	}
	fmt.Fprintf(out, "%s. %s ran.\n", paint.bold(said), counted(len(r.Checks), "check"))
	if states := statesPhrase(r.Invariants); states != nil {
		out.WriteString(states.plain() + "\n")
	}
	for i, f := range r.shown() {
		if i == 0 {
			out.WriteByte('\n')
		}
		level := f.Severity.String()
		fmt.Fprintf(out, "%s: %s %s  %s\n", paint.bold(clean(f.Place.String())), paint.level(level, level+":"), clean(f.Message), paint.dim("["+f.Check+"]"))
		var about []string
		if f.Policy.Kind != v1alpha1.KindInvariant { // which its message names
			about = append(about, "of "+f.Policy.What()+" "+f.Policy.String())
		}
		isSaid := func(line string) bool { return strings.HasSuffix(line, " at "+f.See.String()) }
		if f.See.File != "" && !slices.ContainsFunc(f.More, isSaid) {
			about = append(about, "see "+f.See.String())
		}
		if f.Waiver != nil {
			about = append(about, waiverText(f.Waiver))
		}
		if len(about) > 0 {
			out.WriteString(paint.dim("    "+clean(strings.Join(about, ", "))) + "\n")
		}
		for _, line := range f.More {
			out.WriteString(paint.dim("    "+clean(line)) + "\n")
		}
	}
	warningsText(out, r.Warnings, paint)
}

func checkRunJSON(o *object, r *CheckRun) {
	list(o, "checks", slices.Values(r.Checks), func(b []byte, c lint.Check) []byte {
		return append(appendMember(appendMember(append(b, '{'), "name", c.Name), "title", c.Title), '}')
	})
	list(o, "invariants", slices.Values(r.Invariants), func(b []byte, i invariant.Result) []byte { return appendInvariant(b, &i) })
	list(o, "findings", slices.Values(r.Findings), appendFinding)
	if r.ShowWaived {
		list(o, "waivedFindings", slices.Values(r.Waived), appendFinding)
	}
	counts := []byte{'{'}
	for _, s := range lint.Severities {
		counts = appendNumber(counts, s.String(), uint64(r.count(s)))
	}
	o.value("counts", append(appendNumber(counts, "waived", uint64(len(r.Waived))), '}'))
	o.value("failed", fmt.Append(nil, r.Fails()))
	warningList(o, r.Warnings)
	o.close()
}

func appendFinding(b []byte, f lint.Finding) []byte {
	b = appendMember(append(b, '{'), "check", f.Check)
	b = appendMember(b, "severity", f.Severity.String())
	b = appendMember(b, "message", f.Message)
	b = appendRef(appendName(b, "policy"), f.Policy)
	b = appendSome(b, "at", f.Place.String())
	b = appendSome(b, "see", f.See.String())
	if len(f.More) > 0 {
		b = appendList(appendName(b, "more"), f.More, appendString)
	}
	if w := f.Waiver; w != nil {
		b = append(appendName(b, "waiver"), '{')
		b = append(appendMember(appendMember(b, "until", w.Until.Format(time.DateOnly)), "reason", w.Reason), '}')
	}
	return append(b, '}')
}

func checkRunSARIF(out *bufio.Writer, r *CheckRun) {
	log := newSARIF()
	run := &log.Runs[0]
	run.Tool.Driver.Rules = []sarifRule{}
	index := map[string]int{}
	for i, c := range r.Checks {
		page := projectURI + "/blob/main/docs/checks/" + c.Name + ".md"
		if c.Name == InvariantCheck.Name {
			page = projectURI + "/blob/main/docs/invariants.md"
		}
		title := strings.ToUpper(c.Title[:1]) + c.Title[1:]
		rule := sarifRule{
			ID: "weir/" + c.Name, Name: c.Name, ShortDescription: sarifMessage{title}, FullDescription: sarifMessage{title + "."},
			Help: sarifMessage{"The mistake and its cure: " + page}, HelpURI: page,
		}
		rule.Default.Level = lint.Warning.String()
		run.Tool.Driver.Rules = append(run.Tool.Driver.Rules, rule)
		index[c.Name] = i
	}
	shown := r.shown()
	if len(shown) > mostResults {
		run.Properties.LeftOut = len(shown) - mostResults
		// The worst are kept.
		slices.SortStableFunc(shown, func(a, b lint.Finding) int { return int(b.Severity) - int(a.Severity) })
		shown = shown[:mostResults]
	}
	seen := fingerprints{}
	for _, f := range shown {
		result := sarifResult{RuleID: "weir/" + f.Check, RuleIndex: index[f.Check], Level: f.Severity.String(), Message: sarifMessage{wholeOf(&f)}}
		if location, ok := locationOf(f.Place); ok {
			result.Locations = []sarifLocation{location}
		}
		if location, ok := locationOf(f.See); ok {
			result.Related = []sarifLocation{location}
		}
		if f.Waiver != nil {
			result.Suppressions = []sarifWaiver{{"inSource", waiverText(f.Waiver)}}
		}
		result.Fingerprints = map[string]string{"weirFinding/v1": seen.of(f.Check, f.Policy.What()+"\x00"+f.Policy.String()+"\x00"+f.Message)}
		run.Results = append(run.Results, result)
	}
	log.write(out)
}

// sentenceOf begins with a capital and ends with a full stop.
func sentenceOf(message string) string {
	if message == "" {
		return ""
	}
	return strings.ToUpper(message[:1]) + message[1:] + "."
}

// wholeOf is all that a finding says.
func wholeOf(f *lint.Finding) string {
	return strings.Join(append([]string{sentenceOf(f.Message)}, f.More...), "\n")
}

// checkRunJUnit writes a suite a check. A check that found nothing is a case
// that passed; a finding too mild to fail the run passes, too, and says so.
func checkRunJUnit(out *bufio.Writer, r *CheckRun) error {
	report := junitSuites{Name: "weir check"}
	for _, c := range r.Checks {
		suite := junitSuite{Name: c.Name}
		for _, f := range r.shown() {
			if f.Check != c.Name {
				continue
			}
			text := strings.Join(append([]string{fmt.Sprintf("%s: %s: %s", f.Place, f.Severity, f.Message)}, f.More...), "\n")
			x := junitCase{Name: f.Policy.What() + " " + f.Policy.String() + ": " + f.Message, Class: c.Name, File: f.Place.File, Line: f.Place.Line}
			switch {
			case f.Waiver != nil:
				x.Skipped = &junitSkipped{waiverText(f.Waiver)}
			case r.FailOn != nil && f.Severity >= *r.FailOn:
				x.Failure = &junitFailure{Message: f.Message, Type: f.Severity.String(), Text: text}
				suite.Failures++
			default:
				x.Output = text
			}
			suite.Cases = append(suite.Cases, x)
		}
		if len(suite.Cases) == 0 {
			suite.Cases = []junitCase{{Name: c.Title, Class: c.Name}}
		}
		suite.Tests = len(suite.Cases)
		report.Tests += suite.Tests
		report.Failures += suite.Failures
		report.Suites = append(report.Suites, suite)
	}
	return report.write(out)
}

var (
	githubText  = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A")
	githubValue = strings.NewReplacer("%", "%25", "\r", "%0D", "\n", "%0A", ":", "%3A", ",", "%2C")
)

// checkRunGitHub writes the commands by which a step of GitHub Actions annotates
// lines of files.
func checkRunGitHub(out *bufio.Writer, r *CheckRun) {
	for _, f := range r.shown() {
		command := map[lint.Severity]string{lint.Error: "error", lint.Warning: "warning", lint.Note: "notice"}[f.Severity]
		text := wholeOf(&f)
		if f.Waiver != nil {
			command, text = "notice", sentenceOf(waiverText(f.Waiver)+" "+f.Message)
		}
		out.WriteString("::" + command + " ")
		if f.Place.File != "" {
			out.WriteString("file=" + githubValue.Replace(f.Place.File) + ",")
		}
		if f.Place.Line > 0 {
			fmt.Fprintf(out, "line=%d,", f.Place.Line)
		}
		if f.Place.Column > 0 {
			fmt.Fprintf(out, "col=%d,", f.Place.Column)
		}
		fmt.Fprintf(out, "title=%s::%s\n", githubValue.Replace("weir "+f.Check), githubText.Replace(text))
	}
}
