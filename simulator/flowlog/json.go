package flowlog

import (
	"bytes"
	stdjson "encoding/json"
	"fmt"
	"io"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// logEntry is the field in which a log entry holds the record proper.
const logEntry = "jsonPayload"

// objectKeys returns the keys of a JSON object, in order, with those of a log
// entry's payload as "jsonPayload.key" behind it.
func objectKeys(record []byte) ([][]byte, error) {
	var keys [][]byte
	s := scan{text: record}
	for in := s.object(); in && s.field(); {
		keys = append(keys, s.name)
		if string(s.name) != logEntry || s.peek() != '{' {
			s.skip()
			continue
		}
		for in := s.object(); in && s.field(); {
			keys = append(keys, slices.Concat([]byte(logEntry+"."), s.name))
			s.skip()
		}
	}
	return keys, s.end()
}

// eachField calls value for every key of the object that comes next; value takes
// the field's value from d.
func eachField(d *stdjson.Decoder, value func(key string) error) error {
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		if err := value(key.(string)); err != nil {
			return err
		}
	}
	_, err := d.Token()
	return err
}

// wrappers are the fields of a document whose array holds the records. An answer
// of Elasticsearch has them in the hits of its hits.
var wrappers = []string{"items", "records", "flows", "entries", "resourceLogs", hits}

const hits = "hits"

// pageOf returns the records of a page of them that is itself on one line, as
// objects; nil when it is none.
func pageOf(line []byte) [][]byte {
	s := scan{text: line}
	var page [][]byte
	for in := s.object(); in && s.field(); {
		if page != nil || !slices.Contains(wrappers, string(s.name)) || s.peek() != '[' {
			s.skip()
			continue
		}
		page = [][]byte{}
		for in := s.array(); in && s.element(); {
			if s.peek() != '{' {
				return nil
			}
			page = append(page, s.raw())
		}
	}
	if s.end() != nil {
		return nil
	}
	return page
}

// documentShape is how a file holds JSON records.
type documentShape int

const (
	oneALine documentShape = iota
	values                 // spread over lines as they like, or as the elements of an array
	wrapped                // as the elements of an array in one of the wrappers
)

// shapeOf looks at the head of a file.
func shapeOf(head []byte) documentShape {
	head = bytes.TrimSpace(head)
	if len(head) == 0 || head[0] != '[' && head[0] != '{' {
		return oneALine
	}
	if inside := bytes.TrimLeft(head[1:], " \t\r\n"); head[0] == '[' && len(inside) > 0 && inside[0] != '{' && inside[0] != ']' {
		return oneALine
	}
	line, rest, _ := bytes.Cut(head, []byte("\n"))
	line, rest = bytes.TrimSpace(line), bytes.TrimSpace(rest)
	if len(rest) > 0 && stdjson.Valid(line) {
		return oneALine
	}
	if head[0] == '[' {
		return values
	}
	d := stdjson.NewDecoder(bytes.NewReader(head))
	isWrapped := false
	eachField(d, func(key string) error { //nolint:errcheck // the head ends somewhere
		if !slices.Contains(wrappers, key) {
			return d.Decode(new(stdjson.RawMessage))
		}
		token, err := d.Token()
		isWrapped = err == nil && (token == stdjson.Delim('[') || token == nil || key == hits && token == stdjson.Delim('{'))
		return io.EOF
	})
	switch {
	case isWrapped:
		return wrapped
	case slices.Contains([]byte("{[,"), line[len(line)-1]): // it goes on behind the line
		return values
	}
	return oneALine
}

// document reads records that are not one a line. What is no JSON ends the
// reading, for nobody knows where the next record begins.
func (in *input) document(s *sink, shape documentShape) error {
	records := newDispatcher(s)
	text := &lineCounter{r: in}
	d := stdjson.NewDecoder(text)
	first, _ := in.Peek(1)
	walk := walker{Decoder: d, wrapped: shape == wrapped, arrays: string(first) == "["}
	for {
		record, err := walk.next()
		at := text.line(d.InputOffset() - int64(len(record)))
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			s.at.Line = at
			if in.packing == "" {
				err = policies.Problem{Place: s.at, Message: "not valid JSON from here on: " + err.Error()}
			}
			return s.damaged(in.packing, err)
		case !s.next(at):
			return nil
		}
		records.take(record)
	}
}

// walker goes from record to record of a document.
type walker struct {
	*stdjson.Decoder
	wrapped, arrays bool // what stands at the top
	depth           int  // of objects that were entered
	inArray         bool
}

func (w *walker) next() (stdjson.RawMessage, error) {
	for {
		switch {
		case w.inArray && w.More(), !w.inArray && !w.wrapped && !w.arrays:
			var record stdjson.RawMessage
			err := w.Decode(&record)
			if w.inArray {
				err = noEOF(err)
			}
			return record, err
		case w.inArray:
			w.inArray = false
			if _, err := w.Token(); err != nil {
				return nil, noEOF(err)
			}
		case w.depth > 0 && w.More():
			key, err := w.Token()
			if err != nil {
				return nil, noEOF(err)
			}
			if err := w.enter(key); err != nil {
				return nil, noEOF(err)
			}
		case w.depth > 0:
			w.depth--
			if _, err := w.Token(); err != nil {
				return nil, noEOF(err)
			}
		default:
			want := stdjson.Delim('[')
			if w.wrapped {
				want = '{'
			}
			opened, err := w.open(want)
			switch {
			case err != nil:
				return nil, err
			case opened && w.wrapped:
				w.depth++
			default:
				w.inArray = opened
			}
		}
	}
}

// enter takes the value of a field of the document, or enters it if it may hold
// records.
func (w *walker) enter(key stdjson.Token) error {
	name, ok := key.(string)
	if !ok || !slices.Contains(wrappers, name) {
		return w.Decode(new(stdjson.RawMessage))
	}
	token, err := w.Token()
	switch {
	case err != nil:
		return err
	case token == stdjson.Delim('['):
		w.inArray = true
	case token == stdjson.Delim('{') && name == hits:
		w.depth++
	case token != nil:
		return fmt.Errorf("%s is expected here, and not %v", stdjson.Delim('['), token)
	}
	return nil
}

// open takes the brace or bracket that is to come next; null stands for an empty
// one.
func (w *walker) open(want stdjson.Delim) (bool, error) {
	token, err := w.Token()
	switch {
	case err != nil:
		return false, err
	case token == want:
		return true, nil
	case token == nil:
		return false, nil
	}
	return false, fmt.Errorf("%s is expected here, and not %v", want, token)
}

// maxValue bounds how much of a document is kept in memory at a time.
const maxValue = 64 << 20

// lineCounter knows the lines of what it has read.
type lineCounter struct {
	r       io.Reader
	read    int64
	passed  int64   // how far line was asked
	lines   int     // newlines before passed
	newline []int64 // where those behind it stand
}

func (c *lineCounter) Read(p []byte) (int, error) {
	if c.read-c.passed > maxValue {
		return 0, fmt.Errorf("a record here is larger than %d MiB", maxValue>>20)
	}
	n, err := c.r.Read(p)
	for i, b := range p[:n] {
		if b == '\n' {
			c.newline = append(c.newline, c.read+int64(i))
		}
	}
	c.read += int64(n)
	return n, err
}

// line returns the line at an offset, which never goes back.
func (c *lineCounter) line(offset int64) int {
	n, _ := slices.BinarySearch(c.newline, offset)
	c.lines += n
	c.newline = slices.Delete(c.newline, 0, n)
	c.passed = max(c.passed, offset)
	return c.lines + 1
}
