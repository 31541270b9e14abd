package report

import (
	"bufio"
	"cmp"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/query"
)

// WriteAnswer writes the answer of weir query.
func WriteAnswer(w io.Writer, format Format, a *query.Answer, warnings []policies.Warning, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		answerText(out, a, warnings, palette(style))
	case JSON:
		answerJSON(newObject(out, KindAnswer), a, warnings)
	case CSV:
		answerCSV(out, a)
	default:
		return unsupported(KindAnswer, format)
	}
	return out.Flush()
}

// column is one thing that the rows of an answer may say.
type column struct {
	name string
	text func(*query.Row) string
}

var (
	whatColumn      = column{"what", func(r *query.Row) string { return r.What }}
	tierColumn      = column{"tier", func(r *query.Row) string { return r.Tier }}
	policyColumn    = column{"policy", func(r *query.Row) string { return refText(r.Policy) }}
	directionColumn = column{"direction", func(r *query.Row) string { return r.Direction }}
	ruleColumn      = column{"rule", func(r *query.Row) string { return ruleNumber(r.Rule) }}
	actionColumn    = column{"action", func(r *query.Row) string { return actionText(r.Action) }}
	peerColumn      = column{"peer", func(r *query.Row) string { return peerOrNone(r.Peer) }}
	kindColumn      = column{"kind", func(r *query.Row) string { return kindOf(r.Peer) }}
	otherColumn     = column{"other", func(r *query.Row) string { return cmp.Or(r.Could, peerOrNone(r.Other)) }}
	podsColumn      = column{"pods", func(r *query.Row) string { return countOrNone(uint64(r.Pods)) }}
	portsColumn     = column{"ports", func(r *query.Row) string { return portsOrNone(r.Ports) }}
	perhapsColumn   = column{"perhaps", func(r *query.Row) string { return portsOrNone(r.Perhaps) }}
	byColumn        = column{"by", func(r *query.Row) string { return byText(r.By) }}
	verdictColumn   = column{"verdict", func(r *query.Row) string { return verdictOrNone(r.Verdict) }}
	flowsColumn     = column{"flows", func(r *query.Row) string { return countOrNone(r.Flows) }}
	lastColumn      = column{"last", func(r *query.Row) string { return moment(r.Last) }}
	becauseColumn   = column{"because", func(r *query.Row) string { return r.Because }}
	atColumn        = column{"at", func(r *query.Row) string { return r.At.String() }}
)

// columnsOf has the columns of each question's answer, as text and CSV show them.
var columnsOf = map[query.Question][]column{
	query.Policies:  {whatColumn, tierColumn, policyColumn, directionColumn, ruleColumn, actionColumn, portsColumn, perhapsColumn, becauseColumn, atColumn},
	query.Peers:     {whatColumn, directionColumn, ruleColumn, actionColumn, peerColumn, kindColumn, podsColumn, portsColumn, perhapsColumn, becauseColumn, atColumn},
	query.Selector:  {whatColumn, peerColumn, kindColumn, podsColumn, becauseColumn, atColumn},
	query.Exposure:  {peerColumn, kindColumn, whatColumn, otherColumn, portsColumn, perhapsColumn},
	query.Unused:    {whatColumn, policyColumn, peerColumn, kindColumn, directionColumn, ruleColumn, flowsColumn, lastColumn, becauseColumn, atColumn},
	query.Shadowed:  {whatColumn, policyColumn, directionColumn, ruleColumn, actionColumn, becauseColumn, byColumn, atColumn},
	query.Redundant: {policyColumn, directionColumn, ruleColumn, actionColumn, becauseColumn, atColumn},
	query.Coverage:  {whatColumn, directionColumn, peerColumn, kindColumn, podsColumn, becauseColumn, atColumn},
	query.Path:      {whatColumn, peerColumn, kindColumn, portsColumn, verdictColumn, tierColumn, policyColumn, ruleColumn, becauseColumn, atColumn},
}

// nothing is what an answer without rows says.
var nothing = map[query.Question]string{
	query.Policies:  "No policy concerns it.",
	query.Peers:     "It applies to nothing, and has no rules.",
	query.Selector:  "It selects nothing.",
	query.Exposure:  "Nothing is open to outside or from it.",
	query.Unused:    "Every policy selects something, and every rule matches something.",
	query.Shadowed:  "Every rule that matches something decides some of it.",
	query.Redundant: "No rule and no policy could go without a change.",
	query.Coverage:  "Everything is isolated in both directions.",
	query.Path:      "Nothing is on the way.",
}

func refText(r *policies.Ref) string {
	if r == nil {
		return ""
	}
	return policyText(*r)
}

// policyText names a policy in a column that does not say its kind.
func policyText(r policies.Ref) string {
	switch {
	case r.What() != r.Kind:
		return r.String() + " (Calico)"
	case r.Kind == "HostEndpoint":
		return r.String() + " (host endpoint)"
	}
	return r.String()
}

// ruleNumber counts rules from 1, as people do.
func ruleNumber(rule *int) string {
	if rule == nil {
		return ""
	}
	return strconv.Itoa(*rule + 1)
}

func actionText(a policies.Action) string {
	if a == policies.NoAction {
		return ""
	}
	return a.String()
}

func verdictOrNone(v policies.Verdict) string {
	if v == policies.Undecided {
		return ""
	}
	return v.String()
}

func peerOrNone(p *policies.Peer) string {
	if p == nil {
		return ""
	}
	if p.Kind == "Namespace" || p.Kind == "Node" && p.Name != "" {
		return p.Name
	}
	return p.String()
}

func kindOf(p *policies.Peer) string {
	switch {
	case p == nil:
		return ""
	case p.IsOutside():
		return "Outside"
	}
	return p.Kind
}

func countOrNone(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func portsOrNone(p netset.Ports) string {
	if p.IsEmpty() {
		return ""
	}
	return p.String()
}

func byText(by []query.Rule) string {
	var texts []string
	for _, r := range by {
		text := policyText(r.Policy)
		if r.Rule != nil {
			text += " " + r.Direction + " rule " + ruleNumber(r.Rule)
		}
		texts = append(texts, strings.TrimSpace(text+" "+r.At.String()))
	}
	return strings.Join(texts, "; ")
}

// answerText writes the rows as a table, without the columns in which no row says
// anything.
func answerText(out *bufio.Writer, a *query.Answer, warnings []policies.Warning, paint paint) {
	if len(a.Rows) == 0 {
		out.WriteString(nothing[a.Question] + "\n")
	}
	var names []string
	rows := make([][]string, len(a.Rows))
	for _, c := range columnsOf[a.Question] {
		names = append(names, c.name)
		for i := range a.Rows {
			rows[i] = append(rows[i], c.text(&a.Rows[i]))
		}
	}
	tableText(out, names, rows, paint, func(row int, text string) string {
		if v := a.Rows[row].Verdict; v != policies.Undecided {
			return paint.verdict(v, text)
		}
		return text
	})
	warningsText(out, warnings, paint)
}

// tableText writes rows as a table, without the columns in which no row says
// anything. It writes nothing where there are no rows.
func tableText(out *bufio.Writer, names []string, rows [][]string, paint paint, style func(row int, text string) string) {
	const widest = 70
	widths := make([]int, len(names))
	for _, row := range rows {
		for i := range row {
			row[i] = clean(row[i])
			widths[i] = max(widths[i], min(widest, utf8.RuneCountInString(row[i])))
		}
	}
	line := func(row []string) string {
		var text strings.Builder
		for i, cell := range row {
			if widths[i] > 0 {
				text.WriteString(pad(cell, max(widths[i], utf8.RuneCountInString(names[i]))) + "  ")
			}
		}
		return strings.TrimRight(text.String(), " ")
	}
	if len(rows) == 0 {
		return
	}
	titles := make([]string, len(names))
	for i, name := range names {
		titles[i] = strings.ToUpper(name)
	}
	out.WriteString(paint.bold(line(titles)) + "\n")
	for i, row := range rows {
		out.WriteString(style(i, line(row)) + "\n")
	}
}

func answerCSV(out *bufio.Writer, a *query.Answer) {
	columns := columnsOf[a.Question]
	names := make([]string, len(columns))
	for i, c := range columns {
		names[i] = c.name
	}
	csvLine(out, names...)
	for n := range a.Rows {
		fields := make([]string, len(columns))
		for i, c := range columns {
			fields[i] = csvField(c.text(&a.Rows[n]))
		}
		csvLine(out, fields...)
	}
}

func answerJSON(o *object, a *query.Answer, warnings []policies.Warning) {
	o.text("question", string(a.Question))
	list(o, "rows", slices.Values(a.Rows), appendAnswerRow)
	warningList(o, warnings)
	o.close()
}

func appendAnswerRow(b []byte, r query.Row) []byte {
	b = appendMember(append(b, '{'), "what", r.What)
	b = appendSome(b, "tier", r.Tier)
	if r.Policy != nil {
		b = appendRef(appendName(b, "policy"), *r.Policy)
	}
	b = appendSome(b, "direction", r.Direction)
	b = appendRule(b, r.Rule)
	b = appendSome(b, "action", actionText(r.Action))
	b = appendSome(b, "verdict", verdictOrNone(r.Verdict))
	if r.Peer != nil {
		b = appendPeer(appendName(b, "peer"), *r.Peer)
	}
	if r.Other != nil {
		b = appendPeer(appendName(b, "other"), *r.Other)
	}
	b = appendSome(b, "could", r.Could)
	if r.Pods > 0 {
		b = appendNumber(b, "pods", uint64(r.Pods))
	}
	if !r.Ports.IsEmpty() {
		b = appendPorts(appendName(b, "ports"), r.Ports)
	}
	if !r.Perhaps.IsEmpty() {
		b = appendPorts(appendName(b, "perhaps"), r.Perhaps)
	}
	if len(r.By) > 0 {
		b = appendList(appendName(b, "by"), r.By, appendRuleRef)
	}
	b = appendSome(b, "because", r.Because)
	if r.Flows > 0 {
		b = appendNumber(b, "flows", r.Flows)
	}
	b = appendTime(b, "last", r.Last)
	return append(appendSome(b, "at", r.At.String()), '}')
}

func appendRuleRef(b []byte, r query.Rule) []byte {
	b = appendRef(appendName(append(b, '{'), "policy"), r.Policy)
	b = appendSome(b, "direction", r.Direction)
	b = appendRule(b, r.Rule)
	return append(appendSome(b, "at", r.At.String()), '}')
}
