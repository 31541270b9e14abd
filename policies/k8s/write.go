package k8s

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies/selector"
)

// encode returns values as YAML, a document each.
func encode[T any](documents []T) ([]byte, error) {
	if len(documents) == 0 {
		return nil, nil
	}
	var out bytes.Buffer
	encoder := yaml.NewEncoder(&out)
	encoder.SetIndent(2)
	for _, d := range documents {
		if err := encoder.Encode(d); err != nil {
			return nil, err
		}
	}
	err := encoder.Close()
	return out.Bytes(), err
}

// member is a field of a mapping that is written.
type member struct {
	key   string
	value *yaml.Node // nil leaves the field out
}

func newMapping(members ...member) *yaml.Node {
	m := &yaml.Node{Kind: mapping}
	for _, f := range members {
		if f.value != nil {
			m.Content = append(m.Content, newText(f.key), f.value)
		}
	}
	return m
}

func newList(items ...*yaml.Node) *yaml.Node {
	return &yaml.Node{Kind: list, Content: items}
}

// sexagesimal is what old readers of YAML take for a number.
var sexagesimal = regexp.MustCompile(`^[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?$`)

// newText returns text, in quotes where a reader of YAML, old or new, would take
// it for something else.
func newText(text string) *yaml.Node {
	n := &yaml.Node{Kind: scalar, Tag: "!!str", Value: text}
	if isOldBoolean(text) || sexagesimal.MatchString(text) {
		n.Style = yaml.DoubleQuotedStyle
	}
	return n
}

func newTexts(texts ...string) *yaml.Node {
	all := newList()
	for _, t := range texts {
		all.Content = append(all.Content, newText(t))
	}
	return all
}

func newNumber(n int) *yaml.Node {
	return &yaml.Node{Kind: scalar, Tag: "!!int", Value: strconv.Itoa(n)}
}

// newLabels returns labels or annotations, nil where there are none.
func newLabels(labels map[string]string) *yaml.Node {
	if len(labels) == 0 {
		return nil
	}
	n := newMapping()
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		n.Content = append(n.Content, newText(key), newText(labels[key]))
	}
	return n
}

// comment returns text as a comment, on one line.
func comment(text string) string {
	return "# " + strings.Map(func(c rune) rune {
		if !unicode.IsGraphic(c) {
			return ' '
		}
		return c
	}, text)
}

// newSelector returns a label selector that means the same as a conjunction of
// what Kubernetes has operators for.
func newSelector(s selector.Selector) *yaml.Node {
	labels := map[string]string{}
	expressions := newList()
	for _, r := range s.Requirements() {
		if _, has := labels[r.Key]; r.Operator == selector.In && len(r.Values) == 1 && !has {
			labels[r.Key] = r.Values[0]
			continue
		}
		e := newMapping(member{"key", newText(r.Key)}, member{"operator", newText(string(r.Operator))})
		if len(r.Values) > 0 {
			e.Content = append(e.Content, newText("values"), newTexts(r.Values...))
		}
		expressions.Content = append(expressions.Content, e)
	}
	if len(expressions.Content) == 0 {
		expressions = nil
	}
	return newMapping(member{"matchLabels", newLabels(labels)}, member{"matchExpressions", expressions})
}
