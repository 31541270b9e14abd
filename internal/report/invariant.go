package report

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/lint"
)

// InvariantCheck is the check that findings about invariants are of.
var InvariantCheck = lint.Check{Name: "invariant", Title: "a declared invariant that does not hold"}

// AddInvariants adds what was found of invariants to the findings of a run. Where
// a connection breaks one, explain and the question that tells more are added.
func (r *CheckRun) AddInvariants(results []invariant.Result, explain string) {
	r.Checks = append(r.Checks, InvariantCheck)
	r.Invariants = results
	for i := range results {
		r.addInvariant(&results[i], explain)
	}
	for _, all := range [][]lint.Finding{r.Findings, r.Waived} {
		slices.SortStableFunc(all, func(a, b lint.Finding) int {
			return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Check, b.Check), strings.Compare(a.Message, b.Message))
		})
	}
	slices.SortFunc(r.Warnings, policies.Warning.Compare)
}

func (r *CheckRun) addInvariant(result *invariant.Result, explain string) {
	f := lint.Finding{Check: InvariantCheck.Name, Place: result.FormPlace, Policy: result.Ref, Message: fmt.Sprintf("invariant %s is %s: %s", result.Ref.Name, result.State, result.Say()), More: invariantLines(result, explain)}
	switch severity := findingSeverity(result.Severity); result.State {
	case invariant.Broken, invariant.Invalid:
		f.Severity = severity
		f.See = seeOf(result)
		r.Findings = append(r.Findings, f)
	case invariant.Unknown:
		f.Severity = min(severity, lint.Warning)
		f.See = seeOf(result)
		r.Findings = append(r.Findings, f)
	case invariant.Waived:
		f.Severity, f.See = severity, seeOf(result)
		w := result.Counterexamples[0].Waiver
		f.Waiver = &lint.Waiver{Check: f.Check, Until: w.Until, Reason: w.Reason + " (" + w.Owner + ")"}
		r.Waived = append(r.Waived, f)
	}
	for _, absent := range result.Absent {
		r.Findings = append(r.Findings, lint.Finding{Check: f.Check, Severity: lint.Warning, Place: result.FormPlace, Policy: result.Ref, Message: fmt.Sprintf(
			"%s; invariant %s names it", absent, result.Ref.Name)})
	}
	if len(result.Absent) == 0 && result.Vacuous != "" && result.State == invariant.Holds && result.Pack == "" {
		r.Warnings = append(r.Warnings, policies.Warning{Place: result.FormPlace, Message: fmt.Sprintf(
			"invariant %s speaks of nobody: no pod and no address is described by its %s, so it holds whatever the policies are", result.Ref.Name, result.Vacuous)})
	}
	for _, w := range result.Expired {
		r.Findings = append(r.Findings, lint.Finding{Check: f.Check, Severity: lint.Warning, Place: w.Place, Policy: result.Ref, Message: fmt.Sprintf(
			"the waiver of %s expired at the end of %s (%s, for %s); cure what it waived, or give it a new date", result.Ref.Name, w.Until.Format(time.DateOnly), w.Reason, w.Owner)})
	}
	for _, w := range result.Unused {
		r.Findings = append(r.Findings, lint.Finding{Check: f.Check, Severity: lint.Note, Place: w.Place, Policy: result.Ref, Message: fmt.Sprintf(
			"the waiver of %s waives nothing any more; remove it", result.Ref.Name)})
	}
}

// findingSeverity is how bad it is that an invariant of a severity is broken.
func findingSeverity(s invariant.Severity) lint.Severity {
	return [...]lint.Severity{invariant.Deny: lint.Error, invariant.Warn: lint.Warning, invariant.Audit: lint.Note}[s]
}

// foremostOf returns the counterexample that stands for all; nil where there is
// none.
func foremostOf(r *invariant.Result) *invariant.Counterexample {
	if len(r.Counterexamples) > 0 {
		return &r.Counterexamples[0]
	}
	return r.Doubt
}

// seeOf returns the place of the rule that decides.
func seeOf(r *invariant.Result) policies.Place {
	if x := foremostOf(r); x != nil {
		return x.At
	}
	return policies.Place{}
}

// invariantLines are what else there is to say of a result: what is wanted, by
// whom, which rule decides, and where and how to learn more.
func invariantLines(r *invariant.Result, explain string) []string {
	var lines []string
	wanted := r.Description
	if r.Owner != "" {
		wanted = strings.TrimPrefix(wanted+" (owner "+r.Owner+")", " ")
	}
	if wanted != "" {
		lines = append(lines, wanted)
	}
	if len(r.Links) > 0 {
		lines = append(lines, strings.Join(r.Links, ", "))
	}
	x := foremostOf(r)
	if x == nil {
		return lines
	}
	if rule := x.Rule(); rule != "" {
		lines = append(lines, "decided by "+rule)
	} else if !x.Ports.IsEmpty() && r.State != invariant.Unknown && x.Because != "" {
		lines = append(lines, x.Because)
	}
	if q := x.Question(); q != nil && explain != "" {
		lines = append(lines, explain+" "+strings.Join(q, " "))
	}
	return lines
}

func appendInvariant(b []byte, r *invariant.Result) []byte {
	b = appendMember(append(b, '{'), "name", r.Ref.Name)
	b = appendSome(b, "description", r.Description)
	b = appendSome(b, "owner", r.Owner)
	if len(r.Links) > 0 {
		b = appendList(appendName(b, "links"), r.Links, appendString)
	}
	b = appendMember(b, "severity", r.Severity.String())
	b = appendMember(b, "form", r.Form.String())
	b = appendMember(b, "state", r.State.String())
	b = appendMember(b, "message", r.Say())
	b = appendMember(b, "at", r.FormPlace.String())
	b = appendNumber(b, "broken", uint64(r.Broken))
	b = appendNumber(b, "waived", uint64(r.Waived))
	b = appendList(appendName(b, "counterexamples"), r.Counterexamples, appendCounterexample)
	if r.Doubt != nil {
		b = appendCounterexample(appendName(b, "doubt"), *r.Doubt)
	}
	return append(b, '}')
}

func appendCounterexample(b []byte, x invariant.Counterexample) []byte {
	b = append(b, '{')
	if x.From.Name != "" || x.From.IsOutside() {
		b = appendPeer(appendName(b, "from"), x.From)
	}
	if !x.Ports.IsEmpty() {
		b = appendPeer(appendName(b, "to"), x.To)
		b = appendMember(b, "protocol", x.Protocol.String())
		b = appendNumber(b, "port", uint64(x.Port))
		b = appendPorts(appendName(b, "ports"), x.Ports)
	}
	b = appendSome(b, "because", x.Because)
	if x.Policy != nil {
		b = appendRef(appendName(b, "policy"), *x.Policy)
	}
	b = appendSome(b, "at", x.At.String())
	b = appendNumber(b, "pairs", uint64(x.Pairs))
	if w := x.Waiver; w != nil {
		b = appendWaiver(appendName(b, "waiver"), w)
	}
	return append(b, '}')
}

func appendWaiver(b []byte, w *invariant.Waiver) []byte {
	b = appendMember(append(b, '{'), "until", w.Until.Format(time.DateOnly))
	return append(appendMember(appendMember(b, "reason", w.Reason), "owner", w.Owner), '}')
}

// invariantSentences say what a change does to invariants, the worst first.
func invariantSentences(p *Preview) []sentence {
	var said []sentence
	for i := range p.Invariants {
		if c := &p.Invariants[i]; c.Loosens() {
			said = append(said, loosenedSentence(c))
		}
	}
	for _, turn := range []invariant.Turn{invariant.Breaks, invariant.Worsens, invariant.Stuck, invariant.Doubts, invariant.Removed, invariant.Mends} {
		for i := range p.Invariants {
			if c := &p.Invariants[i]; c.Turn == turn && !c.Loosens() {
				said = append(said, invariantSentence(c))
			}
		}
	}
	for i := range p.Invariants {
		if c := &p.Invariants[i]; len(c.Forgives) > 0 {
			said = append(said, forgivenSentence(c))
		}
	}
	for i := range p.Invariants {
		if c := &p.Invariants[i]; c.Edited && !c.Loosens() && !c.IsFalse() {
			said = append(said, sentence{
				Rule: "invariants", Level: "note", Lead: say("Edits an invariant:"),
				Body: say(code(c.After.Ref.Name), " says something else than in the base"), At: c.After.FormPlace, key: "edited " + c.After.Ref.Name,
			})
		}
	}
	return said
}

func invariantSentence(c *invariant.Change) sentence {
	s := sentence{Rule: "invariants", Level: "note", At: c.After.FormPlace, key: c.Turn.String() + " " + c.After.Ref.Name}
	name, wanted := code(c.After.Ref.Name), phrase(nil)
	if c.After.Description != "" {
		wanted = say(" (", c.After.Description, ")")
	}
	if c.IsBroken() || c.Fails() {
		s.Level = findingSeverity(c.After.Severity).String()
	}
	switch c.Turn {
	case invariant.Breaks:
		s.Lead = say("Breaks an invariant:")
	case invariant.Worsens:
		s.Lead = say("Breaks an invariant further:")
	case invariant.Stuck:
		switch {
		case c.Added:
			s.Lead = say("Declares an invariant that does not hold:")
		case c.IsFalse():
			s.Lead = say("Edits an invariant so that it does not hold:")
		default:
			s.Lead = say("Already broken:")
		}
	case invariant.Doubts:
		s.Level, s.Lead = min(findingSeverity(c.After.Severity), lint.Warning).String(), say("Leaves an invariant uncertain:")
	case invariant.Removed:
		s.Level, s.Lead, s.AtBase = "warning", say("Removes an invariant:"), true
		if s.Body = say(name, wanted, ", which ", c.After.State.String()); c.After.State != invariant.Holds {
			s.Body = say(name, wanted, ", which would be ", c.After.State.String())
		}
		return s
	case invariant.Mends:
		s.Lead, s.Body = say("Mends an invariant:"), say(name, wanted)
		if c.After.State != invariant.Holds {
			s.Body = say(s.Body, ", which is ", c.After.State.String(), " now")
		}
		return s
	}
	s.Body = say(name, wanted, ": ", c.After.Say())
	s.decidedBy(&c.After)
	if lapsed := c.After.Lapsed(); lapsed != "" && c.After.State == invariant.Broken {
		s.Body = say(s.Body, "; ", lapsed)
	}
	if c.IsFalse() {
		s.Body = say(s.Body, "; adopt: true takes it as it is")
	}
	return s
}

// decidedBy adds the rule that decides what breaks an invariant, if there is one.
func (s *sentence) decidedBy(r *invariant.Result) {
	if x := foremostOf(r); x != nil && x.Rule() != "" {
		s.Body = say(s.Body, " (", x.Policy.What(), " ", code(x.Policy.String()), ")")
		s.At, s.Declared = x.At, s.At
	}
}

// loosenedSentence says that a change breaks what the base says, and says it no more.
func loosenedSentence(c *invariant.Change) sentence {
	was := &c.Former.After
	s := sentence{Rule: "invariants", Level: "error", At: c.After.FormPlace, key: "loosened " + was.Ref.Name}
	s.Lead = say("Loosens an invariant that it breaks:")
	now := "which says something else now"
	switch {
	case c.Turn == invariant.Removed:
		s.Lead, now = say("Removes an invariant that it breaks:"), "which is of severity deny in the base"
	case c.After.Severity != was.Severity:
		now = fmt.Sprintf("which is of severity %s in the base, and of %s now", was.Severity, c.After.Severity)
	}
	wanted := phrase(nil)
	if was.Description != "" {
		wanted = say(" (", was.Description, ")")
	}
	s.Body = say(code(was.Ref.Name), wanted, ", ", now, ": ", was.Say())
	cure := "; edit it in a change of its own, or waive this"
	if c.Turn == invariant.Removed {
		cure = "; remove it in a change of its own"
	}
	s.decidedBy(was)
	if s.Body = say(s.Body, cure); c.Turn == invariant.Removed {
		s.Declared = policies.Place{} // nowhere in the head
		s.AtBase = s.At == c.After.FormPlace
	}
	return s
}

// forgivenSentence says what a change waives.
func forgivenSentence(c *invariant.Change) sentence {
	s := sentence{Rule: "invariants", Level: "note", Lead: say("Waived by this change:"), At: c.Forgives[0].Place, key: "waived " + c.After.Ref.Name}
	var waivers []string
	for _, w := range c.Forgives {
		waivers = append(waivers, w.String())
	}
	s.Body = say(code(c.After.Ref.Name), ", ", counted(c.After.Waived, c.After.Counted()), " ", strings.Join(waivers, "; "))
	return s
}

// invariantsHeadline says how many invariants break; nil where none does.
func invariantsHeadline(p *Preview) phrase {
	n := 0
	for i := range p.Invariants {
		if c := &p.Invariants[i]; c.IsBroken() || c.Fails() {
			n++
		}
	}
	if n == 0 {
		return nil
	}
	return say(counted(n, "invariant"), verb(n, " breaks.", " break."))
}

// invariantTally says how the invariants of the head are found; nil where there
// are none.
func invariantTally(p *Preview) phrase {
	var results []invariant.Result
	for i := range p.Invariants {
		if p.Invariants[i].Turn != invariant.Removed {
			results = append(results, p.Invariants[i].After)
		}
	}
	return statesPhrase(results)
}

// statesPhrase says how invariants are found: "6 invariants: 5 hold, 1 is broken.".
func statesPhrase(results []invariant.Result) phrase {
	if len(results) == 0 {
		return nil
	}
	counts := map[invariant.State]int{}
	for i := range results {
		counts[results[i].State]++
	}
	var parts []string
	for _, s := range []invariant.State{invariant.Broken, invariant.Invalid, invariant.Unknown, invariant.Waived, invariant.Holds} {
		switch n := counts[s]; {
		case n == 0:
		case s == invariant.Holds:
			parts = append(parts, grouped(n)+verb(n, " holds", " hold"))
		default:
			parts = append(parts, grouped(n)+verb(n, " is ", " are ")+s.String())
		}
	}
	return say(counted(len(results), "invariant"), ": ", strings.Join(parts, ", "), ".")
}

func invariantTable(p *Preview) table {
	t := table{Title: "Invariants", Intro: invariantTally(p), Columns: []string{"Invariant", "Severity", "Owner", "Before", "After", "Counterexample", "Decided at", "Declared at"}, Open: 20}
	for i := range p.Invariants {
		c := &p.Invariants[i]
		if c.Turn == invariant.Stays && !c.Added && !c.Edited && len(c.Forgives) == 0 {
			continue
		}
		before, after := c.Before.State.String(), c.After.State.String()
		switch {
		case c.Added:
			before = "(new) " + before
		case c.Turn == invariant.Removed:
			after = "(removed) " + after
		case c.Loosens():
			after += " (edited; " + c.Former.After.State.String() + " as the base says it)"
		case c.Edited:
			after += " (edited)"
		}
		var example, decided phrase
		if x := foremostOf(&c.After); x != nil {
			example, decided = say(c.After.Say()), placePhrase(x.At)
		}
		t.Rows = append(t.Rows, []phrase{
			say(code(c.After.Ref.Name)), say(c.After.Severity.String()), say(c.After.Owner), say(before), say(after), example, decided, placePhrase(c.After.FormPlace),
		})
	}
	return t
}

func appendInvariantChange(b []byte, c *invariant.Change) []byte {
	b = appendMember(append(b, '{'), "turn", c.Turn.String())
	b = append(appendName(b, "added"), fmt.Sprint(c.Added)...)
	b = append(appendName(b, "edited"), fmt.Sprint(c.Edited)...)
	b = append(appendName(b, "loosened"), fmt.Sprint(c.Loosens())...)
	b = append(appendName(b, "fails"), fmt.Sprint(c.Fails())...)
	b = appendMember(b, "before", c.Before.State.String())
	b = appendNumber(b, "brokenBefore", uint64(c.Before.Broken))
	if c.Former != nil && c.Turn != invariant.Removed {
		b = appendInvariant(appendName(b, "former"), &c.Former.After)
	}
	if len(c.Forgives) > 0 {
		b = appendList(appendName(b, "forgives"), c.Forgives, appendWaiver)
	}
	return append(appendInvariant(appendName(b, "after"), &c.After), '}')
}
