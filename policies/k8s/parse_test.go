package k8s

import (
	"fmt"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

func TestParseProblems(t *testing.T) {
	for _, row := range []struct{ what, file, text, want string }{
		{"a tab", "a.yaml", "a:\n\tb: c\n", "a.yaml:2:1: a tab in the indentation; YAML takes spaces only"},
		{"a tab after spaces", "a.yaml", "a:\n  b: c\n  \td: e\n", "a.yaml:3:3: a tab in the indentation; YAML takes spaces only"},
		{"a mapping in a value", "a.yaml", "a: b\n  c: d\n", "a.yaml:2: malformed YAML: mapping values are not allowed in this context"},
		{"an open list", "a.yaml", "a: [\n", "a.yaml:2: malformed YAML: did not find expected node content"},
		{"a list in a mapping", "a.yaml", "- a\nb: c\n", "a.yaml:2: malformed YAML: did not find expected '-' indicator"},
		{"wrong indentation", "a.yaml", "x: y\na:\n  b: c\n d: e\n", "a.yaml:4: malformed YAML: a key is expected in this mapping; check the indentation here and below"},
		{"the first line", "a.yaml", "}\n", "a.yaml:1: malformed YAML: did not find expected node content"},
		{"an unknown alias", "a.yaml", "a: b\nc: *d\n", "a.yaml:2:4: alias *d has no anchor &d before it"},
		{"a template", "a.yaml", "{{- if .x }}\na: b\n{{- end }}\n", "a.yaml:1:1: a template, which is not YAML; render it first"},
		{"a NUL byte", "a.yaml", "a: b\nc: \x00\n", "a.yaml:2:4: byte 0x00 is not text; write the file in UTF-8, or leave it out if it is no manifest"},
		{"another control character", "a.yaml", "\x1f\x8b\x08", "a.yaml:1:1: byte 0x1f is not text; write the file in UTF-8, or leave it out if it is no manifest"},
		{"no UTF-8", "a.yaml", "a: ü\nb: é\xe9\n", "a.yaml:2:5: byte 0xe9 is not text; write the file in UTF-8, or leave it out if it is no manifest"},
		{"half of a JSON value", "a.json", "{\"a\":\n  [1", "a.json:2:5: malformed JSON: it ends too early"},
		{"a JSON value without comma", "a.json", "{\"a\": 1\n \"b\": 2}", "a.json:2:2: malformed JSON: invalid character '\"' after object key:value pair"},
		{"JSON nested too deep", "a.json", `{"a":` + strings.Repeat("[", 5000), "a.json:1:1006: malformed JSON: nested too deep"},
		{"YAML nested too deep", "a.yaml", "a: " + strings.Repeat("[", 20000), "a.yaml:1: malformed YAML: exceeded max depth of 10000"},
		{"a cycle", "a.yaml", "a: &a\n  b: *a\n", "a.yaml:2:6: aliases make the document too large; write out what *a stands for"},
		{"a cycle of merges", "a.yaml", "a: &a\n  <<: *a\n", "a.yaml:2:7: aliases make the document too large; write out what *a stands for"},
		{
			"two broken documents", "a.yaml", "a: }\n---\nb: c\n---\n\td: e\n",
			"a.yaml:1: malformed YAML: did not find expected node content\na.yaml:5:1: a tab in the indentation; YAML takes spaces only",
		},
	} {
		docs, err := Parse(row.file, []byte(row.text))
		if err == nil || err.Error() != row.want {
			t.Errorf("%s: got\n%v\nwant\n%s", row.what, err, row.want)
		}
		if want := strings.Count(row.want, "\n"); len(docs) != want {
			t.Errorf("%s: %d documents, want %d", row.what, len(docs), want)
		}
	}
}

func TestAliasBomb(t *testing.T) {
	var text strings.Builder
	text.WriteString("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n")
	for i := range 9 {
		fmt.Fprintf(&text, "a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
	}
	_, err := Parse("a.yaml", []byte(text.String()))
	if err == nil || !strings.Contains(err.Error(), "aliases make the document too large") {
		t.Errorf("got %v", err)
	}
}

func TestFileTooLarge(t *testing.T) {
	_, err := Parse("a.yaml", make([]byte, 100<<20))
	want := "a.yaml: the file has 100 MiB, more than the 64 MiB that are read; split it into several files"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

// The documents around a broken one keep their own lines.
func TestDocumentsAroundABrokenOne(t *testing.T) {
	docs, err := Parse("a.yaml", []byte("a: b\n---\nc: }\n---\n# d\nd:\n  e: f\n"))
	if err == nil || len(docs) != 2 {
		t.Fatalf("got %d documents and %v", len(docs), err)
	}
	e := docs[1].Node.Content[1].Content[0]
	if got := fmt.Sprintf("%d %d %s %d:%d", docs[0].Node.Line, docs[1].Node.Line, e.Value, e.Line, e.Column); got != "1 6 e 7:3" {
		t.Errorf("got %s", got)
	}
}

func TestPlaces(t *testing.T) {
	for _, row := range []struct{ what, file, text, want string }{
		{"YAML", "a", "\na: b\nü: {c: d}\n", "a:2:1 a:3:4"},
		{"after a marker", "a", "---\na: {b: c, d: {}}\n", "a:2:1 a:2:4"},
		{"JSON", "a", "\n {\"ü\":\n  \"é\", \"b\": {}}", "a:2:2 a:3:13"},
		{"JSON with tabs", "a", "{\n\t\"a\": {}\n}", "a:1:1 a:2:7"},
		{"JSON that is YAML", "a", "{a: b,\n c: {}}", "a:1:1 a:2:5"},
		{"a byte order mark", "a", "\ufeffa: {}", "a:1:1 a:1:4"},
		{"CRLF", "a", "a: b\r\nc: {}\r\n", "a:1:1 a:2:4"},
	} {
		root := value{r: &reader{}, file: row.file, node: mustParse(t, row.file, row.text)[0].Node}
		var inner *yaml.Node
		for _, node := range pairs(root.node) {
			if node.Kind == mapping {
				inner = node
			}
		}
		if got := fmt.Sprint(root.place(), " ", root.at(inner, "").place()); got != row.want {
			t.Errorf("%s: got %s, want %s", row.what, got, row.want)
		}
	}
}

func TestJSONValues(t *testing.T) {
	docs := mustParse(t, "a.json", `{"<<": {"x": 1}, "a": "\ud83d\ude00\/", "b": -5, "c": 1e3, "d": true, "e": null, "f": "yes"}`)
	var got []string
	for key, v := range pairs(docs[0].Node) {
		got = append(got, fmt.Sprintf("%s=%s%s", key.Value, v.Tag, v.Value))
	}
	want := "<<=!!map a=!!str😀/ b=!!int-5 c=!!float1e3 d=!!booltrue e=!!nullnull f=!!stryes"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got %s, want %s", text, want)
	}
}
