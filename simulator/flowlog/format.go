package flowlog

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// format is one way in which flows are recorded. Object, line and magic say how
// it is known; each format has a file of its own.
type format struct {
	name string
	what string // what a record that is not of the format lacks, for people

	object func(keys [][]byte) bool // a JSON object with these keys is a record of it
	line   func(text []byte) bool   // a line of other text is one
	decode func(*sink) decoder      // for both

	magic func(head []byte) bool // a file that begins so is of the format, as a whole
	read  func(io.Reader, *sink) error
}

// formats are tried in this order.
var formats = []*format{
	&goldmaneFormat, &hubbleFormat, &weirFormat, &calicoFormat, &calicoTextFormat,
	&gcpFormat, &gkeFormat, &azureVNetFormat, &azureNSGFormat, &netobservFormat, &otlpFormat, &awsFormat, &conntrackFormat,
	&ipfixFormat, &netflowFormat, &sflowFormat, &parquetFormat,
}

// Formats returns the names that Options.Format may have.
func Formats() []string {
	var names []string
	for _, f := range formats {
		names = append(names, f.name)
	}
	return names
}

// decoder turns the records of one format, one by one, into flows. It keeps what
// is needed from record to record.
type decoder interface {
	// decode hands what becomes of a record to the sink, or says why it cannot be
	// read, having handed over nothing. The record is valid until it returns.
	decode(record []byte) error
}

// input is a file of flows behind its compression.
type input struct {
	*bufio.Reader
	packing string
}

// headSize is how much of a file is looked at to know what it is.
const headSize = 64 << 10

// byteOrderMark stands before the first line of files from some editors.
var byteOrderMark = []byte("\xef\xbb\xbf")

func (in *input) readInto(s *sink) error {
	if mark, _ := in.Peek(len(byteOrderMark)); bytes.Equal(mark, byteOrderMark) {
		in.Discard(len(mark)) //nolint:errcheck // they are buffered
	}
	if s.options.Lines {
		return in.lines(s)
	}
	head, err := in.Peek(headSize)
	if err != nil && err != io.EOF && len(head) == 0 {
		s.at.Line = 1
		return s.damaged(in.packing, err)
	}
	if len(head) == 0 && path.Ext(s.at.File) == ".parquet" {
		return s.damaged("Parquet", errors.New("the file is empty"))
	}
	for _, f := range formats {
		asked := s.options.Format == f.name
		if f.read != nil && (asked && f.decode == nil || (asked || s.options.Format == "") && f.magic(head)) {
			s.format = f.name
			return f.read(in, s)
		}
	}
	if shape := shapeOf(head); shape != oneALine {
		return in.document(s, shape)
	}
	return in.lines(s)
}

// lines reads a record from each line.
func (in *input) lines(s *sink) error {
	records := newDispatcher(s)
	for number := 1; s.next(number); number++ {
		text, tooLong, err := nextLine(in.Reader)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return s.damaged(in.packing, err)
		}
		switch text = bytes.TrimSpace(text); {
		case tooLong:
			s.bad(fmt.Errorf("line is longer than %d bytes", MaxLine))
		case len(text) == 0:
			s.stats.Blank++
		default:
			records.take(text)
		}
	}
	return nil
}

// nextLine returns the next line without its end, or none of it when it is
// longer than the buffer. The line is valid until the next call.
func nextLine(r *bufio.Reader) (line []byte, tooLong bool, err error) {
	line, err = r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err == io.EOF {
			err = nil
		}
		return nil, true, err
	}
	if len(line) > 0 && err == io.EOF {
		err = nil
	}
	return line, false, err
}

// dispatcher gives each record to the decoder of its format. Most records are
// of the format of the one before.
type dispatcher struct {
	sink     *sink
	decoders map[*format]decoder
	last     *format
	lastText *format // the last whose records are lines of text
	inPage   bool
}

func newDispatcher(s *sink) *dispatcher {
	return &dispatcher{sink: s, decoders: map[*format]decoder{}}
}

func (d *dispatcher) take(record []byte) {
	var err error
	if d.last != nil {
		if err = d.decoders[d.last].decode(record); err == nil {
			return
		}
	}
	f, unknown := d.formatOf(record)
	switch {
	case unknown != nil:
		if page := pageOf(record); page != nil && !d.inPage {
			d.inPage = true
			for _, record := range page {
				d.take(record)
			}
			d.inPage = false
			return
		}
		d.sink.bad(unknown)
		return
	case f != d.last:
		d.last, d.sink.format = f, f.name
		if f.line != nil {
			d.lastText = f
		}
		if d.decoders[f] == nil {
			d.decoders[f] = f.decode(d.sink)
		}
		err = d.decoders[f].decode(record)
	}
	if err != nil {
		d.sink.bad(err)
	}
}

// formatOf finds the format that a record is of by looking at it.
func (d *dispatcher) formatOf(record []byte) (*format, error) {
	among := formats
	if asked := d.sink.options.Format; asked != "" {
		i := slices.IndexFunc(formats, func(f *format) bool { return f.name == asked })
		among = formats[i : i+1]
	}
	var keys [][]byte
	isObject := record[0] == '{'
	if isObject {
		var err error
		if keys, err = objectKeys(record); err != nil {
			return nil, err
		}
	}
	for _, f := range among {
		if isObject && f.object != nil && f.object(keys) || !isObject && f.line != nil && f.line(record) {
			return f, nil
		}
	}
	switch {
	case !isObject && d.lastText != nil:
		return d.lastText, nil // it says what is wrong, and knows more from the lines before
	case len(among) == 1:
		return nil, fmt.Errorf("this is no %s record (%s); leave out the format to have each record looked at", among[0].name, among[0].what)
	case isObject:
		return nil, fmt.Errorf("a JSON object with the fields %s is no record of any known format", quoteKeys(keys))
	}
	return nil, errors.New("line is not a JSON object, and no record of any known text format; is this a file of flows?")
}

// quoteKeys names the first few keys of an object.
func quoteKeys(keys [][]byte) string {
	const most = 5
	var names []string
	for _, key := range keys[:min(len(keys), most)] {
		names = append(names, fmt.Sprintf("%.40q", key))
	}
	if len(keys) > most {
		names = append(names, "…")
	}
	if len(names) == 0 {
		return "none"
	}
	return strings.Join(names, ", ")
}

// hasAny reports whether one of the names is among the keys.
func hasAny(keys [][]byte, names ...string) bool {
	return slices.ContainsFunc(keys, func(key []byte) bool { return slices.Contains(names, string(key)) })
}

// hasAll reports whether all of the names are among the keys.
func hasAll(keys [][]byte, names ...string) bool {
	return !slices.ContainsFunc(names, func(name string) bool { return !hasAny(keys, name) })
}

// peers remembers the ends that were decoded, by their text: flows repeat
// their ends, and an end has many labels.
type peers = cache[peer]

type peer struct {
	policies.FlowPeer
	leftOut string // why a flow of this end is left out
}

// cache remembers what texts stand for that records repeat.
type cache[V any] map[string]V

const maxCached = 1 << 15

// of returns what text stands for, as read reads it; the zero value where text
// is empty or null.
func (c cache[V]) of(text []byte, read func([]byte) (V, error)) (V, error) {
	var none V
	if len(text) == 0 || string(text) == "null" {
		return none, nil
	}
	if known, ok := c[string(text)]; ok {
		return known, nil
	}
	v, err := read(text)
	if err != nil {
		return none, err
	}
	if len(c) >= maxCached {
		clear(c)
	}
	c[string(text)] = v
	return v, nil
}
