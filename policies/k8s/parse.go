package k8s

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
)

// MaxFileSize is the largest file that Parse takes, in bytes.
const MaxFileSize = 64 << 20

// Parse splits a file into its documents. Documents that are empty, or no
// mappings, are left out.
//
// The error joins a policies.Problem for each malformed document; the documents
// that could be read are returned beside it. Parse may be called for many files
// at once.
func Parse(file string, data []byte) ([]Document, error) {
	p := parser{file: file, limit: expandedLimit + len(data)}
	if len(data) > MaxFileSize {
		p.problem(0, 0, "the file has %d MiB, more than the %d MiB that are read; split it into several files", len(data)>>20, MaxFileSize>>20)
		return nil, join(p.problems)
	}
	if at := unreadable(data); at >= 0 {
		line, column := position(data, at)
		p.problem(line, column, "byte %#02x is not text; write the file in UTF-8, or leave it out if it is no manifest", data[at])
		return nil, join(p.problems)
	}
	if !looksLikeJSON(data) || !p.json(data) {
		p.yaml(data)
	}
	return p.docs, join(p.problems)
}

type parser struct {
	file     string
	limit    int // of nodes in a document once its aliases are followed
	docs     []Document
	problems []policies.Problem
}

func (p *parser) problem(line, column int, format string, args ...any) {
	p.problems = append(p.problems, policies.Problem{
		Place:   policies.Place{File: p.file, Line: line, Column: column},
		Message: message(format, args),
	})
}

// add keeps the documents that are mappings, as data holds them, lines further
// down than they say.
func (p *parser) add(roots []*yaml.Node, data []byte, lines int) {
	blocks := blocksOf(roots, data)
	for _, root := range roots {
		if root.Kind != yaml.MappingNode {
			continue
		}
		if lines > 0 {
			moveDown(root, lines)
		}
		if bomb := tooLarge(root, p.limit); bomb != nil {
			p.problem(bomb.Line, bomb.Column, "aliases make the document too large; write out what *%s stands for", bomb.Value)
			continue
		}
		p.docs = append(p.docs, Document{File: p.file, Node: root, blocks: blocks})
	}
}

// json reads the file as JSON. It returns false, and keeps nothing, when the
// file is rather YAML that begins with a brace.
func (p *parser) json(data []byte) bool {
	nodes, problem := parseJSON(data)
	if problem != nil && !strings.HasSuffix(p.file, ".json") {
		return false
	}
	p.add(nodes, nil, 0)
	if problem != nil {
		line, column := position(data, problem.offset)
		p.problem(line, column, "%s", problem.message)
	}
	return true
}

// yaml reads the whole stream at once and, only when that fails, document by
// document, so that one broken document does not hide the others.
func (p *parser) yaml(data []byte) {
	roots, err := decode(data)
	if err == nil {
		p.add(roots, data, 0)
		return
	}
	chunks := [][]byte{data}
	// A directive belongs to the document after its "---".
	if !bytes.HasPrefix(data, []byte("%")) && !bytes.Contains(data, []byte("\n%")) {
		chunks = split(data)
	}
	line, reported := 0, len(p.problems)
	for _, chunk := range chunks {
		roots, err := decode(chunk)
		p.add(roots, chunk, line)
		if err != nil {
			at, column, message := explain(err, chunk)
			p.problem(line+at, column, "%s", message)
		}
		line += bytes.Count(chunk, []byte("\n"))
	}
	if len(p.problems) == reported {
		at, column, message := explain(err, data)
		p.problem(at, column, "%s", message)
	}
}

// decode returns the roots of the documents up to the first malformed one.
func decode(data []byte) ([]*yaml.Node, error) {
	var roots []*yaml.Node
	stream := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var document yaml.Node
		switch err := stream.Decode(&document); {
		case errors.Is(err, io.EOF):
			return roots, nil
		case err != nil:
			return roots, err
		}
		roots = append(roots, document.Content...)
	}
}

var documentStart = regexp.MustCompile(`(?m)^---(?:\s|$)`)

// split cuts data before each line that begins a document.
func split(data []byte) [][]byte {
	var chunks [][]byte
	start := 0
	for _, at := range documentStart.FindAllIndex(data, -1) {
		if at[0] > start {
			chunks = append(chunks, data[start:at[0]])
			start = at[0]
		}
	}
	return append(chunks, data[start:])
}

func moveDown(n *yaml.Node, lines int) {
	n.Line += lines
	for _, c := range n.Content {
		moveDown(c, lines)
	}
}

// expandedLimit is how many nodes aliases may add to a document.
const expandedLimit = 1_000_000

// tooLarge returns the alias that makes the document larger than limit, or that
// stands for something it is itself part of; nil when there is none.
func tooLarge(root *yaml.Node, limit int) *yaml.Node {
	sizes := map[*yaml.Node]int{} // of anchored nodes; -1 while being counted
	var bomb *yaml.Node
	var size func(*yaml.Node) int
	size = func(n *yaml.Node) int {
		if bomb != nil {
			return 0
		}
		if n.Kind == yaml.AliasNode {
			total := size(n.Alias)
			if total < 0 || total > limit {
				bomb = n
			}
			return total
		}
		if n.Anchor != "" {
			if known, ok := sizes[n]; ok {
				return known
			}
			sizes[n] = -1
		}
		total := 1
		for _, c := range n.Content {
			total += size(c)
			if c.Kind == yaml.AliasNode && bomb == nil && total > limit {
				bomb = c
			}
		}
		if n.Anchor != "" {
			sizes[n] = total
		}
		return total
	}
	size(root)
	return bomb
}

// unreadable returns the offset of the first byte that no text file holds, or
// -1.
func unreadable(data []byte) int {
	for i := 0; i < len(data); {
		c := data[i]
		if c < utf8.RuneSelf {
			if c < ' ' && c != '\t' && c != '\n' && c != '\r' || c == 0x7f {
				return i
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			return i
		}
		i += n
	}
	return -1
}

// position turns an offset into line and column, in characters.
func position(data []byte, offset int) (line, column int) {
	before := data[:offset]
	start := bytes.LastIndexByte(before, '\n') + 1
	return bytes.Count(before, []byte("\n")) + 1, utf8.RuneCount(before[start:]) + 1
}

var (
	yamlError    = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)
	unknownAlias = regexp.MustCompile(`^unknown anchor '(.*)' referenced$`)
	// grammarError is an error of the parser, whose lines count from 0; those
	// of the scanner count from 1.
	grammarError = regexp.MustCompile(`^did not find expected (key|node content|'-' indicator|',' or|<)`)
)

// explain turns an error of the YAML library into a line, a column where it can
// be found, and a message.
func explain(err error, data []byte) (line, column int, message string) {
	m := yamlError.FindStringSubmatch(err.Error())
	if m == nil {
		return 1, 0, err.Error()
	}
	line, _ = strconv.Atoi(m[1])
	message = m[2]
	switch alias := unknownAlias.FindStringSubmatch(message); {
	case alias != nil:
		line, column = position(data, max(0, bytes.Index(data, []byte("*"+alias[1]))))
		return line, column, fmt.Sprintf("alias *%s has no anchor &%s before it", alias[1], alias[1])
	case grammarError.MatchString(message), line == 0:
		line++
	}
	lines := strings.Split(string(data), "\n")
	line = min(line, len(lines))
	for at := line; at <= min(line+1, len(lines)) && !looksLikeJSON(data); at++ {
		text := lines[at-1]
		indent := text[:len(text)-len(strings.TrimLeft(text, " \t"))]
		if tab := strings.IndexByte(indent, '\t'); tab >= 0 {
			return at, tab + 1, "a tab in the indentation; YAML takes spaces only"
		}
	}
	if at := strings.Index(lines[line-1], "{{"); at >= 0 {
		return line, utf8.RuneCountInString(lines[line-1][:at]) + 1, "a template, which is not YAML; render it first"
	}
	if message == "did not find expected key" {
		message = "a key is expected in this mapping; check the indentation here and below"
	}
	return line, 0, "malformed YAML: " + message
}
