// Package flowlog reads and writes recorded flows as JSON lines.
//
// It reads what Hubble exports and Weir's own records, plain or compressed
// with gzip or zstd, and tells them apart by looking. docs/flows.md says what
// each field becomes, and what is left out and why.
package flowlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/goccy/go-json"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/weir-policy/weir/policies"
)

// The formats that Options can ask for.
const (
	Hubble = "hubble"
	Weir   = "weir"
)

// MaxLine is the length above which a line is bad, in bytes.
const MaxLine = 1 << 20

// Options say how to read.
type Options struct {
	Format string // Hubble, Weir, or empty to look at each line
	Strict bool   // stop at the first bad line
}

// Stats is what became of every line: Lines is Flows, Bad, Blank and all of
// LeftOut together.
type Stats struct {
	Lines, Flows, Bad, Blank uint64
	FirstBad                 []policies.Problem // the first ten bad lines
	LeftOut                  map[string]uint64  // lines that are no flow of their own, by cause
	Lost                     uint64             // events that the recorder says it lost
}

const firstBad = 10

// Add counts the lines of another file too.
func (s *Stats) Add(t Stats) {
	s.Lines += t.Lines
	s.Flows += t.Flows
	s.Bad += t.Bad
	s.Blank += t.Blank
	s.Lost += t.Lost
	s.FirstBad = append(s.FirstBad, t.FirstBad[:min(len(t.FirstBad), firstBad-len(s.FirstBad))]...)
	for cause, n := range t.LeftOut {
		if s.LeftOut == nil {
			s.LeftOut = map[string]uint64{}
		}
		s.LeftOut[cause] += n
	}
}

// Read calls each for every flow of r, in order; name stands in the flows'
// Record and in errors. Memory does not grow with the input. Flows share their
// label maps and slices, which must not be changed.
//
// A bad line is counted and skipped, or ends the reading with a
// policies.Problem when o.Strict is set. So does compressed data that is cut
// off or damaged, after all flows before the damage. Read also ends with an
// error of each, of r, or of ctx. The Stats are right for what was read in
// every case.
func Read(ctx context.Context, r io.Reader, name string, o Options, each func(policies.Flow) error) (Stats, error) {
	if o.Format != "" && o.Format != Hubble && o.Format != Weir {
		return Stats{}, fmt.Errorf("flow format %q is none of %s, %s", o.Format, Hubble, Weir)
	}
	plain, packing, err := unpack(r)
	if err != nil {
		return Stats{}, fmt.Errorf("%s: %w", name, err)
	}
	defer plain.Close()

	d := decoder{format: o.Format, peers: peers{}}
	lines := bufio.NewReaderSize(plain, MaxLine)
	for {
		if d.stats.Lines%256 == 0 && ctx.Err() != nil {
			return d.stats, ctx.Err()
		}
		line, tooLong, err := nextLine(lines)
		at := policies.Place{File: name, Line: int(d.stats.Lines) + 1}
		if err != nil && err != io.EOF {
			if packing != "" {
				return d.stats, policies.Problem{Place: at, Message: packing + " data ends or is damaged here (" + err.Error() + "); what stands before was read"}
			}
			return d.stats, fmt.Errorf("%s: %w", at, err)
		}
		if err == io.EOF {
			return d.stats, nil
		}
		d.stats.Lines++
		flow, fate := d.line(line, tooLong)
		switch {
		case fate.bad != "":
			problem := policies.Problem{Place: at, Message: fate.bad}
			d.stats.Bad++
			if len(d.stats.FirstBad) < firstBad {
				d.stats.FirstBad = append(d.stats.FirstBad, problem)
			}
			if o.Strict {
				return d.stats, problem
			}
		case fate.blank:
			d.stats.Blank++
		case fate.leftOut != "":
			d.leaveOut(fate.leftOut)
		default:
			d.stats.Flows++
			flow.Record = at
			if err := each(flow); err != nil {
				return d.stats, err
			}
		}
	}
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

// maxWindow bounds the memory that zstd data may ask for; it is that of
// `zstd --long`.
const maxWindow = 128 << 20

// unpack returns r's bytes as they were before compression, and its name.
func unpack(r io.Reader) (plain io.ReadCloser, packing string, err error) {
	head := bufio.NewReader(r)
	magic, err := head.Peek(4)
	if err != nil && err != io.EOF {
		return nil, "", err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(head)
		if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
			return nil, "", errors.New("gzip data ends within its header")
		}
		return z, "gzip", err
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(head, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, "", err
		}
		return z.IOReadCloser(), "zstd", nil
	}
	return io.NopCloser(head), "", nil
}

// decoder turns lines into flows. It keeps the memory that decoding needs from
// line to line.
type decoder struct {
	format string
	stats  Stats
	peers  peers
	buffer line
}

// line is what a line of either format may hold; all its fields are optional.
type line struct {
	hubbleLine
	weirLine
}

// fate is what became of a line that is no flow; the zero fate is a flow.
type fate struct {
	blank   bool
	bad     string // what is wrong with it
	leftOut string // why it is no flow of its own
}

func bad(format string, args ...any) (policies.Flow, fate) {
	return policies.Flow{}, fate{bad: fmt.Sprintf(format, args...)}
}

func leftOut(cause string) (policies.Flow, fate) { return policies.Flow{}, fate{leftOut: cause} }

// byteOrderMark stands before the first line of files from some editors.
var byteOrderMark = []byte("\xef\xbb\xbf")

func (d *decoder) line(text []byte, tooLong bool) (policies.Flow, fate) {
	text = bytes.TrimSpace(bytes.TrimPrefix(text, byteOrderMark))
	switch {
	case tooLong:
		return bad("line is longer than %d bytes", MaxLine)
	case len(text) == 0:
		return policies.Flow{}, fate{blank: true}
	case text[0] != '{':
		return bad("line is not a JSON object; is this a file of flows as JSON lines?")
	}
	d.buffer.hubbleLine.reset()
	d.buffer.weirLine.reset()
	if err := json.Unmarshal(text, &d.buffer); err != nil {
		return bad("%s", explain(err))
	}
	switch {
	case d.buffer.isHubble() && d.format != Weir:
		return d.hubble()
	case d.buffer.isWeir() && d.format != Hubble:
		return d.weir()
	case d.format != "":
		return bad("line is no %s record; leave out the format to have each line looked at", d.format)
	}
	return bad("line is neither a Hubble event (it has no flow) nor a Weir flow (its kind is not Flow)")
}

// explain says a JSON error in one clause without the decoder's own names.
func explain(err error) string {
	var wrongType *json.UnmarshalTypeError
	if errors.As(err, &wrongType) {
		return fmt.Sprintf("field %s cannot be a %s", wrongType.Field, wrongType.Value)
	}
	var wrongTime *time.ParseError
	if errors.As(err, &wrongTime) {
		return fmt.Sprintf("%q is not a time such as 2026-03-10T12:00:00Z", strings.Trim(wrongTime.Value, `"`))
	}
	return "line is not valid JSON: " + err.Error()
}

// maxCauses bounds how many causes are told apart, for a cause may quote the
// input.
const maxCauses = 64

func (d *decoder) leaveOut(cause string) {
	if d.stats.LeftOut == nil {
		d.stats.LeftOut = map[string]uint64{}
	}
	if _, known := d.stats.LeftOut[cause]; !known && len(d.stats.LeftOut) >= maxCauses {
		cause = "other causes"
	}
	d.stats.LeftOut[cause]++
}

// peers remembers the ends that were decoded, by their JSON: flows repeat
// their ends, and an end has many labels.
type peers map[string]peer

type peer struct {
	policies.FlowPeer
	leftOut string // why a flow of this end is left out
}

const maxPeers = 1 << 15

// of returns the end that text stands for, as decode reads it.
func (p peers) of(text []byte, decode func([]byte) (peer, error)) (peer, error) {
	if len(text) == 0 || string(text) == "null" {
		return peer{}, nil
	}
	if known, ok := p[string(text)]; ok {
		return known, nil
	}
	decoded, err := decode(text)
	if err != nil {
		return peer{}, err
	}
	if len(p) >= maxPeers {
		clear(p)
	}
	p[string(text)] = decoded
	return decoded, nil
}

// utc drops a time's zone and its clock reading, so that equal times are equal.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
