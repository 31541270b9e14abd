package report

import (
	"bufio"
	"encoding/base64"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/netset"
)

// WriteValue writes what an expression is. Text and CSV have a row for each
// element of a list, with a column for each thing that its elements say.
func WriteValue(w io.Writer, format Format, x *expression.Expression, v expression.Value, warnings []policies.Warning, style Style) error {
	out := bufio.NewWriterSize(w, 1<<16)
	switch format {
	case Text:
		valueText(out, v, palette(style))
		warningsText(out, warnings, palette(style))
	case JSON:
		valueJSON(newObject(out, KindValue), x, v, warnings)
	case CSV:
		names, rows := tabulated(v)
		csvLine(out, escaped(names)...)
		for _, r := range rows {
			csvLine(out, escaped(r)...)
		}
	default:
		return unsupported(KindValue, format)
	}
	return out.Flush()
}

func escaped(fields []string) []string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = csvField(f)
	}
	return all
}

func valueText(out *bufio.Writer, v expression.Value, paint paint) {
	switch v := v.(type) {
	case expression.List:
		if len(v) == 0 {
			out.WriteString("The list is empty.\n")
		} else if names, rows := tabulated(v); slices.Equal(names, single) {
			for _, r := range rows {
				out.WriteString(clean(r[0]) + "\n")
			}
		} else {
			tableText(out, names, rows, paint, func(_ int, text string) string { return text })
		}
	case expression.Map:
		entriesText(out, v)
	case *expression.Object:
		entriesText(out, v.Fields)
	default:
		out.WriteString(clean(cell(v)) + "\n")
	}
}

func entriesText(out *bufio.Writer, entries []expression.Entry) {
	width := 0
	for _, e := range entries {
		width = max(width, utf8.RuneCountInString(clean(e.Key)))
	}
	for _, e := range entries {
		if text := clean(cell(e.Value)); text != "" {
			out.WriteString(pad(clean(e.Key), width) + "  " + text + "\n")
		}
	}
}

// single are the columns of what says only one thing.
var single = []string{"value"}

// tabulated returns the columns and the rows of a value: those of a list, or one
// for the value itself.
func tabulated(v expression.Value) (names []string, rows [][]string) {
	if m, ok := v.(expression.Map); ok {
		for _, e := range m {
			rows = append(rows, []string{e.Key, cell(e.Value)})
		}
		return []string{"key", "value"}, rows
	}
	all, ok := v.(expression.List)
	if !ok {
		all = expression.List{v}
	}
	columns := map[string]int{}
	for _, e := range all {
		for _, f := range entriesOf(e) {
			if _, known := columns[f.Key]; !known {
				columns[f.Key] = len(names)
				names = append(names, f.Key)
			}
		}
	}
	if len(names) == 0 || slices.ContainsFunc(all, func(e expression.Value) bool { return entriesOf(e) == nil }) {
		for _, e := range all {
			rows = append(rows, []string{cell(e)})
		}
		return single, rows
	}
	for _, e := range all {
		row := make([]string, len(names))
		for _, f := range entriesOf(e) {
			row[columns[f.Key]] = cell(f.Value)
		}
		rows = append(rows, row)
	}
	return names, rows
}

func entriesOf(v expression.Value) []expression.Entry {
	switch v := v.(type) {
	case *expression.Object:
		return v.Fields
	case expression.Map:
		return v
	}
	return nil
}

// cell is a value on one line.
func cell(v expression.Value) string {
	switch v := v.(type) {
	case nil:
		return ""
	case bool:
		return strconv.FormatBool(v)
	case int64:
		return strconv.FormatInt(v, 10)
	case uint64:
		return strconv.FormatUint(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case string:
		return v
	case []byte:
		return base64.StdEncoding.EncodeToString(v)
	case time.Time:
		if v.IsZero() {
			return ""
		}
		return v.UTC().Format(time.RFC3339Nano)
	case time.Duration:
		return v.String()
	case policies.Verdict:
		return v.String()
	case netset.Ports:
		return portsOrNone(v)
	case *expression.Object:
		return v.Text
	case expression.List:
		var all []string
		for _, e := range v {
			all = append(all, cell(e))
		}
		return strings.Join(all, ", ")
	case expression.Map:
		var all []string
		for _, e := range v {
			all = append(all, e.Key+"="+cell(e.Value))
		}
		return strings.Join(all, ",")
	}
	panic("an expression has no such value") // its Value says which there are
}

func valueJSON(o *object, x *expression.Expression, v expression.Value, warnings []policies.Warning) {
	o.text("expression", x.String())
	o.text("type", x.Type())
	if all, ok := v.(expression.List); ok {
		list(o, "value", slices.Values(all), appendValue)
	} else {
		o.value("value", appendValue(nil, v))
	}
	warningList(o, warnings)
	o.close()
}

func appendValue(b []byte, v expression.Value) []byte {
	switch v := v.(type) {
	case nil:
		return append(b, "null"...)
	case bool, int64, uint64:
		return append(b, cell(v)...)
	case float64:
		if !math.IsNaN(v) && !math.IsInf(v, 0) {
			return append(b, cell(v)...)
		}
	case netset.Ports:
		return appendPorts(b, v)
	case expression.List:
		return appendList(b, v, appendValue)
	case expression.Map:
		return appendEntries(b, v, func(expression.Value) bool { return true })
	case *expression.Object:
		return appendEntries(b, v.Fields, saysSomething)
	}
	return appendString(b, cell(v))
}

func appendEntries(b []byte, entries []expression.Entry, shown func(expression.Value) bool) []byte {
	b = append(b, '{')
	for i, e := range entries {
		if !shown(e.Value) {
			continue
		}
		if i > 0 && b[len(b)-1] != '{' {
			b = append(b, ',')
		}
		b = append(appendString(b, e.Key), ':')
		b = appendValue(b, e.Value)
	}
	return append(b, '}')
}

// saysSomething reports whether a member of an object is not left out: what is
// empty is, but for ports.
func saysSomething(v expression.Value) bool {
	_, ports := v.(netset.Ports)
	return ports || cell(v) != ""
}
