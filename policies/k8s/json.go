package k8s

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// maxDepth is how deep JSON may nest; the YAML library has a limit of its own.
const maxDepth = 1000

// jsonProblem is what is wrong with JSON, and where.
type jsonProblem struct {
	offset  int
	message string
}

func looksLikeJSON(data []byte) bool {
	text := bytes.TrimLeft(data, " \t\r\n")
	return len(text) > 0 && text[0] == '{'
}

// parseJSON returns the values that stand one after the other in data, as nodes.
// JSON has a reader of its own because the one for YAML knows neither surrogate
// pairs nor values without a separator.
func parseJSON(data []byte) ([]*yaml.Node, *jsonProblem) {
	p := jsonParser{data: data, decoder: json.NewDecoder(bytes.NewReader(data)), line: 1, column: 1}
	p.decoder.UseNumber()
	var roots []*yaml.Node
	for {
		switch n, err := p.value(0); {
		case errors.Is(err, io.EOF) && p.atEnd():
			return roots, nil
		case err != nil:
			return roots, p.explain(err)
		default:
			roots = append(roots, n)
		}
	}
}

// Object returns a document of an object as encoding/json decodes it, numbers
// perhaps as int64. Nothing in it has a line.
func Object(file string, object map[string]any) Document {
	return Document{File: file, Node: nodeOf(object)}
}

func nodeOf(v any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.ScalarNode}
	switch v := v.(type) {
	case map[string]any:
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
		n.Content = make([]*yaml.Node, 0, 2*len(v))
		for _, key := range slices.Sorted(maps.Keys(v)) {
			n.Content = append(n.Content, nodeOf(key), nodeOf(v[key]))
		}
	case []any:
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
		n.Content = make([]*yaml.Node, 0, len(v))
		for _, item := range v {
			n.Content = append(n.Content, nodeOf(item))
		}
	case string:
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, v
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(v)
	case float64:
		n.Tag, n.Value = "!!float", strconv.FormatFloat(v, 'g', -1, 64)
		if v == math.Trunc(v) && math.Abs(v) < 1<<53 {
			n.Tag, n.Value = "!!int", strconv.FormatFloat(v, 'f', -1, 64)
		}
	case nil:
		n.Tag, n.Value = "!!null", "null"
	default: // whole numbers of any size, json.Number
		n.Tag, n.Value = "!!int", fmt.Sprint(v)
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	}
	return n
}

type jsonParser struct {
	data         []byte
	decoder      *json.Decoder
	offset       int // that line and column belong to
	line, column int
}

var errDepth = errors.New("nested too deep")

// value reads the next value; after the last of a list or mapping it returns nil.
func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	if depth > maxDepth {
		return nil, errDepth
	}
	p.moveTo(p.start())
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.line, Column: p.column}
	token, err := p.decoder.Token()
	if err != nil {
		return nil, err
	}
	switch t := token.(type) {
	case json.Delim:
		return p.children(n, t, depth)
	case string:
		n.Tag, n.Style, n.Value = "!!str", yaml.DoubleQuotedStyle, t
	case json.Number:
		n.Tag, n.Value = "!!int", t.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", map[bool]string{true: "true", false: "false"}[t]
	case nil:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

func (p *jsonParser) children(n *yaml.Node, opening json.Delim, depth int) (*yaml.Node, error) {
	switch opening {
	case '{':
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	case '[':
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	default:
		return nil, nil
	}
	for {
		child, err := p.value(depth + 1)
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if child == nil || err != nil {
			return n, err
		}
		n.Content = append(n.Content, child)
	}
}

// start returns the offset of the token that comes next.
func (p *jsonParser) start() int {
	at := int(p.decoder.InputOffset())
	for at < len(p.data) && strings.IndexByte(" \t\r\n:,", p.data[at]) >= 0 {
		at++
	}
	return at
}

func (p *jsonParser) atEnd() bool { return p.start() == len(p.data) }

func (p *jsonParser) moveTo(offset int) {
	passed := p.data[p.offset:offset]
	if newlines := bytes.Count(passed, []byte("\n")); newlines > 0 {
		p.line += newlines
		p.column = 1
		passed = passed[bytes.LastIndexByte(passed, '\n')+1:]
	}
	p.column += utf8.RuneCount(passed)
	p.offset = offset
}

func (p *jsonParser) explain(err error) *jsonProblem {
	at := min(p.start(), len(p.data))
	switch {
	case errors.Is(err, errDepth):
		return &jsonProblem{at, "malformed JSON: nested too deep"}
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &jsonProblem{len(p.data), "malformed JSON: it ends too early"}
	}
	return &jsonProblem{at, "malformed JSON: " + err.Error()}
}
