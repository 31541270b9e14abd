package k8s

import (
	"cmp"
	"fmt"
	"iter"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/validate/content"

	"github.com/weir-policy/weir/policies"
)

const (
	scalar  = yaml.ScalarNode
	mapping = yaml.MappingNode
	list    = yaml.SequenceNode
)

// value is a place in a document, and a way down from it. The zero value is a
// field that is absent or null: reading it gives zeros and reports nothing, so
// that a decoder reads fields without asking first.
//
// A value of the wrong type is reported where it is read, and gives a zero too.
type value struct {
	r    *reader
	file string
	node *yaml.Node // never an alias
	name string     // of the field, for messages
}

func (v value) present() bool { return v.node != nil }

func (v value) place() policies.Place {
	return policies.Place{File: cmp.Or(v.r.elsewhere[v.node], v.file), Line: v.node.Line, Column: v.node.Column}
}

func (v value) problem(format string, args ...any) {
	v.r.problems = append(v.r.problems, policies.Problem{Place: v.place(), Message: message(format, args)})
}

// mostQuoted is how many letters a message quotes of one thing: more than any
// valid name or value has.
const mostQuoted = 400

// message prints what is wrong, with a beginning only of what is very long.
func message(format string, args []any) string {
	for i, arg := range args {
		if text, ok := arg.(string); ok && len(text) > mostQuoted {
			args[i] = strings.ToValidUTF8(text[:mostQuoted/4], "") + "…"
		}
	}
	return fmt.Sprintf(format, args...)
}

func (v value) warn(format string, args ...any) { v.r.warn(v.place(), format, args...) }

func (r *reader) warn(at policies.Place, format string, args ...any) {
	r.warnings = append(r.warnings, warning(at, format, args...))
}

func warning(at policies.Place, format string, args ...any) policies.Warning {
	return policies.Warning{Place: at, Message: message(format, args)}
}

func (v value) at(node *yaml.Node, name string) value { return value{v.r, v.file, node, name} }

// wants reports whether the value is present and of this kind.
func (v value) wants(kind yaml.Kind, what string) bool {
	if v.node == nil {
		return false
	}
	if v.node.Kind != kind {
		v.problem("%s wants %s, found %s", v.name, what, describe(v.node))
		return false
	}
	return true
}

// field returns the field of a mapping.
func (v value) field(name string) value {
	if !v.wants(mapping, "a mapping") {
		return value{}
	}
	for key, node := range pairs(v.node) {
		if key.Value == name {
			if isNull(node) {
				return value{}
			}
			return v.at(node, name)
		}
	}
	return value{}
}

// items returns the items of a list. One that is null is reported, for the API
// takes it for an empty item, which in a policy often means everything.
func (v value) items() []value {
	if !v.wants(list, "a list") {
		return nil
	}
	name := "an item of " + v.name
	items := make([]value, 0, len(v.node.Content))
	for _, node := range v.node.Content {
		item := v.at(resolve(node), name)
		if isNull(item.node) {
			item.problem("%s is empty; write it out or remove it", name)
			continue
		}
		items = append(items, item)
	}
	return items
}

// only reports the fields of a mapping that are not among these.
func (v value) only(fields ...string) {
	if v.node == nil || v.node.Kind != mapping {
		return
	}
	for key := range pairs(v.node) {
		if key.Kind != scalar || slices.Contains(fields, key.Value) {
			continue // checkKeys reports keys that are no scalars
		}
		cure := "it takes " + strings.Join(fields, ", ")
		if near := nearest(key.Value, fields); near != "" {
			cure = fmt.Sprintf("did you mean %q?", near)
		}
		v.at(key, "").problem("%s has no field %q; %s", v.name, key.Value, cure)
	}
}

// text returns a string. Words that YAML takes for something else are reported:
// what the API server would make of them depends on who converts them.
func (v value) text() string {
	if !v.wants(scalar, "text") {
		return ""
	}
	switch {
	case isText(v.node):
		return v.node.Value
	case isNull(v.node):
		v.problem("%s has no value; write \"\" if it is to be empty", v.name)
	default:
		v.problem("%s wants text, and YAML takes %s for %s; write %q with the quotes", v.name, v.node.Value, typeName(v.node), v.node.Value)
	}
	return ""
}

// textOr returns a string, or other when the value is absent.
func (v value) textOr(other string) string {
	if !v.present() {
		return other
	}
	return v.text()
}

// integer returns a number from low to high; ok is false when it is absent or
// was reported.
func (v value) integer(low, high int64) (n int64, ok bool) {
	if !v.wants(scalar, "a whole number") {
		return 0, false
	}
	if v.node.Tag != "!!int" {
		v.problem("%s wants a whole number, found %s", v.name, describe(v.node))
		return 0, false
	}
	n, err := strconv.ParseInt(strings.ReplaceAll(v.node.Value, "_", ""), 0, 64)
	switch {
	case err != nil:
		v.problem("%s %s is not a whole number from %d to %d", v.name, v.node.Value, low, high)
	case n < low:
		v.problem("%s %d is below %d", v.name, n, low)
	case n > high:
		v.problem("%s %d is above %d", v.name, n, high)
	default:
		return n, true
	}
	return 0, false
}

func (v value) boolean() bool {
	if !v.wants(scalar, "true or false") {
		return false
	}
	word := v.node.Value
	if v.node.Tag != "!!bool" && (v.node.Style != 0 || !isOldBoolean(word)) {
		v.problem("%s wants true or false, found %s", v.name, describe(v.node))
		return false
	}
	return strings.EqualFold(word, "true") || strings.EqualFold(word, "yes") || strings.EqualFold(word, "on") || strings.EqualFold(word, "y")
}

// address returns an IP address; it is invalid when the value is absent, empty
// or was reported.
func (v value) address() netip.Addr {
	text := v.text()
	if text == "" {
		return netip.Addr{}
	}
	a, err := netip.ParseAddr(text)
	if err != nil {
		v.problem("%s %q is not an IP address", v.name, text)
	}
	return a.Unmap()
}

// labels returns a mapping of label keys to values.
func (v value) labels() map[string]string {
	if !v.wants(mapping, "a mapping") {
		return nil
	}
	labels := make(map[string]string, len(v.node.Content)/2)
	for key, node := range pairs(v.node) {
		if key.Kind != scalar {
			continue // checkKeys reports it
		}
		k := v.at(key, "label key").labelKey()
		if _, has := labels[k]; has || k == "" {
			continue
		}
		labels[k] = v.at(node, "label "+k).labelValue()
	}
	return labels
}

func (v value) labelKey() string {
	key := v.text()
	if key != "" && !v.r.isValid(labelKeys, key) {
		v.problem("label key %q is not valid: it wants [prefix/]name, the name at most 63 letters, digits, '-', '_' and '.', a letter or digit at either end", key)
	}
	return key
}

func (v value) labelValue() string {
	text := v.text()
	if !v.r.isValid(labelValues, text) {
		v.problem("label value %q is not valid: it wants at most 63 letters, digits, '-', '_' and '.', a letter or digit at either end", text)
	}
	return text
}

// check is a question about a text that is asked again and again.
type check struct {
	rule syntax
	text string
}

type syntax uint8

const (
	labelKeys syntax = iota
	labelValues
	objectNames
	namespaceNames
)

var syntaxes = [...]func(string) []string{
	labelKeys:      content.IsLabelKey,
	labelValues:    content.IsLabelValue,
	objectNames:    content.IsDNS1123Subdomain,
	namespaceNames: content.IsDNS1123Label,
}

func (r *reader) isValid(rule syntax, text string) bool {
	c := check{rule, text}
	ok, known := r.valid[c]
	if !known {
		ok = len(syntaxes[rule](text)) == 0
		r.valid[c] = ok
	}
	return ok
}

// resolve returns what an alias stands for.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// pairs yields the keys and values of a mapping: its own, then those that "<<"
// merges into it. Where a key comes twice, the first counts.
func pairs(m *yaml.Node) iter.Seq2[*yaml.Node, *yaml.Node] {
	return func(yield func(key, value *yaml.Node) bool) { eachPair(m, yield) }
}

func eachPair(m *yaml.Node, yield func(key, value *yaml.Node) bool) bool {
	merges := false
	for i := 0; i+1 < len(m.Content); i += 2 {
		key := resolve(m.Content[i])
		if isMerge(key) {
			merges = true
		} else if !yield(key, resolve(m.Content[i+1])) {
			return false
		}
	}
	for i := 0; merges && i+1 < len(m.Content); i += 2 {
		if !isMerge(resolve(m.Content[i])) {
			continue
		}
		for _, source := range mergeSources(m.Content[i+1]) {
			if source.Kind == mapping && !eachPair(source, yield) {
				return false
			}
		}
	}
	return true
}

func isMerge(key *yaml.Node) bool { return key.Tag == "!!merge" }

func mergeSources(n *yaml.Node) []*yaml.Node {
	n = resolve(n)
	if n.Kind != list {
		return []*yaml.Node{n}
	}
	sources := make([]*yaml.Node, len(n.Content))
	for i, c := range n.Content {
		sources[i] = resolve(c)
	}
	return sources
}

// checkKeys reports keys that come twice in one mapping, keys that are no
// scalars, and merges of something else than mappings, here and below.
func (v value) checkKeys() {
	if v.node.Kind == mapping {
		v.checkMapping()
	}
	for i, c := range v.node.Content {
		isKey := v.node.Kind == mapping && i%2 == 0
		if !isKey && (c.Kind == mapping || c.Kind == list) {
			v.at(c, "").checkKeys()
		}
	}
}

func (v value) checkMapping() {
	content := v.node.Content
	var places map[string]*yaml.Node // only for mappings too large to compare each with each
	if len(content) > 32 {
		places = make(map[string]*yaml.Node, len(content)/2)
	}
	for i := 0; i+1 < len(content); i += 2 {
		key := resolve(content[i])
		if key.Kind != scalar {
			v.at(key, "").problem("%s as a key; if this is a template, render it first", describe(key))
			continue
		}
		if isMerge(key) {
			for _, source := range mergeSources(content[i+1]) {
				if source.Kind != mapping {
					v.at(content[i+1], "<<").problem("<< wants a mapping or a list of them, found %s", describe(source))
				}
			}
		}
		first := places[key.Value]
		for j := 0; places == nil && j < i && first == nil; j += 2 {
			if earlier := resolve(content[j]); earlier.Kind == scalar && earlier.Value == key.Value {
				first = content[j]
			}
		}
		if first != nil {
			v.at(content[i], "").problem("key %q is given twice, first at %s; remove one", key.Value, v.at(first, "").place())
		} else if places != nil {
			places[key.Value] = content[i]
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == scalar && n.Tag == "!!null" }

// isText reports whether every reader of YAML, old or new, takes the scalar for
// text. Dates are text: the API server's reader has no type for them.
func isText(n *yaml.Node) bool {
	switch n.Tag {
	case "!!str":
		return n.Style != 0 || !isOldBoolean(n.Value)
	case "!!timestamp":
		return true
	}
	return false
}

// isOldBoolean reports whether YAML 1.1, which the API server's reader follows,
// takes the word for a boolean although YAML 1.2 does not.
func isOldBoolean(word string) bool {
	switch word {
	case "y", "Y", "yes", "Yes", "YES", "on", "On", "ON",
		"n", "N", "no", "No", "NO", "off", "Off", "OFF":
		return true
	}
	return false
}

func typeName(n *yaml.Node) string {
	switch n.Tag {
	case "!!bool", "!!str":
		return "a boolean"
	case "!!int", "!!float":
		return "a number"
	}
	return n.Tag
}

// describe says what a node is, for messages.
func describe(n *yaml.Node) string {
	switch {
	case n.Kind == mapping:
		return "a mapping"
	case n.Kind == list:
		return "a list"
	case n.Tag == "!!str":
		return fmt.Sprintf("text %q", n.Value)
	case n.Tag == "!!null":
		return "nothing"
	case n.Tag == "!!int", n.Tag == "!!float":
		return "number " + n.Value
	}
	return n.Value
}

// nearest returns the word that differs least from text, in case or by at most
// half as many letters as text has; "" when there is none.
func nearest(text string, words []string) string {
	best, least := "", len(text)/2+1
	for _, w := range words {
		if strings.EqualFold(w, text) {
			return w
		}
		if d := policies.Distance(strings.ToLower(text), strings.ToLower(w)); d < least {
			best, least = w, d
		}
	}
	return best
}
