package clickhouse

import (
	"fmt"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// condition is one of a WHERE clause, and what is bound to its question marks.
// What a user said is always bound.
type condition struct {
	text      string
	arguments []any
}

// always holds.
var always = condition{text: "1"}

func where(text string, arguments ...any) condition { return condition{text, arguments} }

func all(conditions ...condition) condition {
	return join(" AND ", slices.DeleteFunc(conditions, func(c condition) bool { return c.text == always.text }))
}

func either(conditions ...condition) condition {
	if slices.ContainsFunc(conditions, func(c condition) bool { return c.text == always.text }) {
		return always
	}
	return join(" OR ", conditions)
}

func join(by string, conditions []condition) condition {
	if len(conditions) == 0 {
		return always
	}
	var texts []string
	var arguments []any
	for _, c := range conditions {
		texts = append(texts, c.text)
		arguments = append(arguments, c.arguments...)
	}
	if len(texts) == 1 {
		return condition{texts[0], arguments}
	}
	return condition{"(" + strings.Join(texts, by) + ")", arguments}
}

func not(c condition) condition { return condition{"NOT (" + c.text + ")", c.arguments} }

func oneOf[T any](column string, values []T, text func(T) []string) condition {
	if len(values) == 0 {
		return always
	}
	var marks []string
	var arguments []any
	for _, v := range values {
		for _, t := range text(v) {
			marks, arguments = append(marks, "?"), append(arguments, t)
		}
	}
	return where(column+" IN ("+strings.Join(marks, ", ")+")", arguments...)
}

// anyOf is always where there is nothing to choose from.
func anyOf[T any](patterns []T, of func(*T) condition) condition {
	var conditions []condition
	for i := range patterns {
		conditions = append(conditions, of(&patterns[i]))
	}
	return either(conditions...)
}

// conditions returns what every record meets of which the filter does not say
// No: those that it chooses, and those that do not say enough.
func (s *Store) conditions(f *simulator.Filter) condition {
	return all(timeCondition(f), chooser{s.modern, false}.filter(f))
}

// chooser makes conditions for flows, or where rolled is set for tuples, which lack
// what differs among records.
type chooser struct{ modern, rolled bool }

// record is for what only records have.
func (s chooser) record(c condition) condition {
	if s.rolled {
		return always
	}
	return c
}

// filter is conditions but for the time.
func (s chooser) filter(f *simulator.Filter) condition {
	return all(
		oneOf("`verdict`", f.Verdicts, func(v policies.Verdict) []string {
			if v == policies.Unknown {
				return []string{flowrow.VerdictText(v), ""}
			}
			return []string{flowrow.VerdictText(v)}
		}),
		oneOf("`reporter`", f.Reporters, func(r policies.Reporter) []string { return []string{r.String()} }),
		s.record(oneOf("`format`", f.Formats, func(name string) []string { return []string{name} })),
		portCondition(f),
		anyOf(f.From, func(e *simulator.End) condition { return s.end(e.Asked(), "src_") }),
		anyOf(f.To, func(e *simulator.End) condition { return s.end(e.Asked(), "dst_") }),
		anyOf(f.Either, func(e *simulator.End) condition { return either(s.end(e.Asked(), "src_"), s.end(e.Asked(), "dst_")) }),
		s.record(anyOf(f.Policies, hitCondition)),
	)
}

func timeCondition(f *simulator.Filter) condition {
	if f.Since.IsZero() && f.Until.IsZero() {
		return always
	}
	since, until := flowrow.Range{Since: f.Since, Until: f.Until}.Micros()
	return either(where("`start` >= ? AND `start` <= ?", since, until), where("`start` = ?", int64(flowrow.NoTime)))
}

// maxSpans is how many spans of ports are worth asking the server for.
const maxSpans = 64

func portCondition(f *simulator.Filter) condition {
	if f.Ports.IsEmpty() {
		return always
	}
	conditions := []condition{where("`protocol` = ''")}
	for span := range f.Ports.Ranges() {
		if len(conditions) > maxSpans {
			return always
		}
		conditions = append(conditions, where("`protocol` = ? AND (`dst_port` = 0 OR `dst_port` >= ? AND `dst_port` <= ?)",
			flowrow.ProtocolText(span.Protocol), span.First, span.Last))
	}
	return either(conditions...)
}

func hitCondition(p *simulator.HitPattern) condition {
	conditions := []condition{where("`policies` = ''")}
	tier, policy := p.Asked()
	if tier != "" {
		text, _, _ := strings.Cut(flowrow.FormatHits([]policies.Hit{{Tier: tier}}), "|")
		conditions = append(conditions, where("position(concat(',', `policies`), ?) > 0", ","+text+"|"), where("position(concat(',', `policies`), ',|') > 0"))
	}
	for _, ref := range policy {
		// Of any kind: a record need not say it.
		conditions = append(conditions, where("position(`policies`, ?) > 0", flowrow.FormatRef(policies.Ref{Namespace: ref.Namespace, Name: ref.Name})+"|"))
	}
	return either(conditions...)
}

// end returns what an end meets of which the pattern does not say No.
func (s chooser) end(e simulator.Asked, side string) condition {
	column := func(text int) string { return "`" + side + flowrow.Columns[text] + "`" }
	namespace, kind, name, pod, prefix := column(flowrow.Namespace), column(flowrow.Kind), column(flowrow.Name), column(flowrow.Pod), column(flowrow.PodPrefix)
	network, set := column(flowrow.Network), column(flowrow.Set)
	switch {
	case e.Outside:
		return either(where(network+" NOT IN ('', 'pod', 'node', 'own-node', 'node own-node')"), where(set+" != ''"),
			all(where(namespace+" = ''"), s.record(where(pod+" = ''")), where("position("+network+", 'node') = 0")))
	case e.Addresses.IsValid():
		return s.record(s.addressCondition(e, column(flowrow.IP)))
	}
	conditions := []condition{
		where(network + " IN ('', 'pod')"), // others are no pods
		either(where(set+" = ''"), where(set+" LIKE '%/'")),
	}
	begins := func(column, text string) condition {
		return where(fmt.Sprintf("substring(%s, 1, %d) = ?", column, len(text)), text)
	}
	if e.Namespace != "" {
		conditions = append(conditions, where(namespace+" IN ('', ?)", e.Namespace))
	}
	if e.Pod != "" {
		conditions = append(conditions, either(
			s.record(where(pod+" = ?", e.Pod)),
			where("("+pod+" = '' AND substring(?, 1, toUInt64(length("+prefix+"))) = "+prefix+")", e.Pod)))
	}
	if e.Kind != "" {
		kinds := []string{strings.ToLower(e.Kind), ""}
		switch kinds[0] {
		case "deployment":
			kinds = append(kinds, "replicaset")
		case "cronjob":
			kinds = append(kinds, "job")
		}
		conditions = append(conditions, oneOf("lower("+kind+")", kinds, func(k string) []string { return []string{k} }))
	}
	if e.Name != "" {
		named := either(
			where(name+" = ?", e.Name), all(where(kind+" IN ('ReplicaSet', 'Job')"), begins(name, e.Name+"-")),
			all(where(name+" = ''"), s.record(either(
				where(kind+" != ''"), where(column(flowrow.Owners)+" != ''"), begins(pod, e.Name), begins(prefix, e.Name),
				where("("+pod+" = '' AND "+prefix+" = '')")))))
		if e.Kind == "" {
			named = either(named, s.record(where(pod+" = ?", e.Name)))
		}
		conditions = append(conditions, named)
	}
	if e.Labels != nil && e.Labels.IsConjunction() {
		for _, r := range e.Labels.Requirements() {
			conditions = append(conditions, labelCondition(r, column(flowrow.Labels), column(flowrow.LabelsState)))
		}
	}
	return all(conditions...)
}

// labelCondition returns what the labels of an end meet that may meet a
// requirement.
func labelCondition(r selector.Requirement, labels, state string) condition {
	untold := where(state + " LIKE '%none'")
	pair := func(value string) string { return "," + flowrow.FormatLabels(map[string]string{r.Key: value}) }
	has := where("position(concat(',', "+labels+"), ?) > 0", pair(""))
	var values []condition
	for _, v := range r.Values {
		values = append(values, where("position(concat(',', "+labels+", ','), ?) > 0", pair(v)+","))
	}
	switch r.Operator {
	case selector.In:
		return either(untold, join(" OR ", values), all(where(state+" = 'partial'"), not(has)))
	case selector.NotIn:
		return either(untold, not(join(" OR ", values)))
	case selector.Exists:
		return either(untold, where(state+" = 'partial'"), has)
	case selector.DoesNotExist:
		return either(untold, not(has))
	}
	return always
}

// addressCondition lets pass what is no plain address: there it is unmapped, and
// has no zone.
func (s chooser) addressCondition(e simulator.Asked, ip string) condition {
	addresses := e.Addresses.Masked()
	var in condition
	switch {
	case addresses.IsSingleIP():
		in = where(ip+" = ?", addresses.Addr().String())
	case s.modern:
		in = where("isIPAddressInRange(if("+ip+" = '' OR position("+ip+", '%') > 0, '::', "+ip+"), ?)", addresses.String())
	case addresses.Addr().Is4():
		first := addresses.Addr().As4()
		low := uint32(first[0])<<24 | uint32(first[1])<<16 | uint32(first[2])<<8 | uint32(first[3])
		in = where("(position("+ip+", ':') = 0 AND IPv4StringToNum("+ip+") >= ? AND IPv4StringToNum("+ip+") <= ?)",
			low, low|uint32(uint64(1)<<(32-addresses.Bits())-1))
	default:
		first, last := addresses.Addr().As16(), addresses.Addr().As16()
		for i := addresses.Bits(); i < 128; i++ {
			last[i/8] |= 1 << (7 - i%8)
		}
		number := "hex(IPv6StringToNum(" + ip + "))"
		in = where("(position("+ip+", ':') > 0 AND "+number+" >= ? AND "+number+" <= ?)", fmt.Sprintf("%X", first), fmt.Sprintf("%X", last))
	}
	return either(where(ip+" = ''"), where(ip+" LIKE '::ffff:%'"), where("position("+ip+", '%') > 0"), in)
}
