// Package flowlog reads recorded flows in the formats that are in use, and writes
// them as Weir's own JSON lines.
//
// It tells formats apart by looking, record by record, plain or compressed with
// gzip or zstd; a table is read as a whole. docs/flows.md says what each field becomes, and what is left out
// and why.
package flowlog

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator"
)

// MaxLine is the length above which a line is bad, in bytes.
const MaxLine = 1 << 20

// Options say how to read.
type Options struct {
	Format string // one of Formats, or empty to look at each record
	Strict bool   // stop at the first bad record
	Lines  bool   // each line is a record: that of a stream is handed over before the next comes
	// Columns says which column of a table has which of RowFields; of the others,
	// those that are known by their names are found.
	Columns map[string]string
	// Sums, unless nil, takes the rows of tables that are alike, but for those that
	// are no sound flows. They are not handed over one by one.
	Sums *Sums
	// Window is how much memory zstd data may ask for; 128 MiB where it is zero.
	Window uint64
	// Through, unless nil, is what the bytes are read through once they are
	// uncompressed, to count or to bound them.
	Through func(io.Reader) io.Reader
}

// Stats is what became of every record: lines, or what else a format consists
// of. A line that holds several flows is several records.
type Stats struct {
	Flows, Bad, Blank uint64
	FirstBad          []policies.Problem // the first ten bad records
	LeftOut           map[string]uint64  // records that are no flow of their own, by cause
	Lost              uint64             // events that the recorder says it lost
}

// Records returns how many were read.
func (s *Stats) Records() uint64 {
	n := s.Flows + s.Bad + s.Blank
	for _, left := range s.LeftOut {
		n += left
	}
	return n
}

// Causes returns LeftOut in order, the most frequent first.
func (s *Stats) Causes() []simulator.Cause {
	var causes []simulator.Cause
	for _, cause := range slices.Sorted(maps.Keys(s.LeftOut)) {
		causes = append(causes, simulator.Cause{Text: cause, Flows: s.LeftOut[cause]})
	}
	slices.SortStableFunc(causes, func(a, b simulator.Cause) int { return cmp.Compare(b.Flows, a.Flows) })
	return causes
}

const firstBad = 10

// Add counts the records of another file too.
func (s *Stats) Add(t Stats) {
	s.Flows += t.Flows
	s.Bad += t.Bad
	s.Blank += t.Blank
	s.Lost += t.Lost
	s.FirstBad = append(s.FirstBad, t.FirstBad[:min(len(t.FirstBad), firstBad-len(s.FirstBad))]...)
	for cause, n := range t.LeftOut {
		s.addLeftOut(cause, n)
	}
}

// maxCauses bounds how many causes are told apart, for a cause may quote the
// input.
const maxCauses = 64

func (s *Stats) addLeftOut(cause string, n uint64) {
	if s.LeftOut == nil {
		s.LeftOut = map[string]uint64{}
	}
	if _, known := s.LeftOut[cause]; !known && len(s.LeftOut) >= maxCauses {
		cause = "other causes"
	}
	s.LeftOut[cause] += n
}

// Read calls each for every flow of r, in order; name stands in the flows'
// Record and in errors. Memory does not grow with the input. Flows share their
// label maps and slices, which must not be changed.
//
// A bad record is counted and skipped, or ends the reading with a
// policies.Problem when o.Strict is set. So does compressed data that is cut
// off or damaged, after all flows before the damage. Read also ends with an
// error of each, of r, or of ctx. The Stats are right for what was read in
// every case.
func Read(ctx context.Context, r io.Reader, name string, o Options, each func(policies.Flow) error) (Stats, error) {
	if o.Format != "" && !slices.Contains(Formats(), o.Format) {
		return Stats{}, fmt.Errorf("flow format %q is none of %s", o.Format, strings.Join(Formats(), ", "))
	}
	plain, packing, err := unpack(r, cmp.Or(o.Window, maxWindow))
	if err != nil {
		return Stats{}, fmt.Errorf("%s: %w", name, err)
	}
	defer plain.Close()
	var text io.Reader = plain
	if o.Through != nil {
		text = o.Through(plain)
	}

	s := &sink{ctx: ctx, options: o, each: each, at: policies.Place{File: name}}
	if packing == "" && o.Through == nil {
		s.whole = wholeFile(r)
	}
	in := &input{Reader: bufio.NewReaderSize(text, MaxLine), packing: packing}
	if err := in.readInto(s); err != nil {
		return s.stats, err
	}
	return s.stats, s.stopped
}

// wholeFile returns the file that r reads, or nil where r is no file that can be
// read at any place.
func wholeFile(r io.Reader) *io.SectionReader {
	f, ok := r.(interface {
		io.ReaderAt
		io.Seeker
	})
	if !ok {
		return nil
	}
	here, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return nil
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	if _, err := f.Seek(here, io.SeekStart); err != nil {
		return nil
	}
	return io.NewSectionReader(f, 0, size)
}

// sink takes what becomes of the records of one file.
type sink struct {
	ctx     context.Context
	options Options
	each    func(policies.Flow) error
	at      policies.Place // of the record that is being read
	format  string         // of that record
	stats   Stats
	whole   *io.SectionReader // the file itself, for formats that begin at its end; may be nil
	stopped error             // why nothing more is to be read
}

// mostCounted is the most that a counter of a record may say: 72 PB. What is above it
// was never counted, and would make sums wrap.
const mostCounted = 1 << 56

// flow takes a flow of the record at hand.
func (s *sink) flow(f policies.Flow) {
	if s.stopped != nil {
		return
	}
	if most := max(f.Count, f.Started, f.Ended, f.Bytes, f.Packets, f.ReplyBytes, f.ReplyPackets); most > mostCounted {
		s.bad(fmt.Errorf("it counts %d, which no record can: a counter that wrapped", most))
		return
	}
	s.stats.Flows++
	f.Record, f.Origin.Format, f.Count = s.at, cmp.Or(f.Origin.Format, s.format), max(1, f.Count)
	s.stopped = s.each(f)
}

// bad counts a record that cannot be read.
func (s *sink) bad(err error) {
	if s.stopped != nil {
		return
	}
	problem := policies.Problem{Place: s.at, Message: err.Error()}
	s.stats.Bad++
	if len(s.stats.FirstBad) < firstBad {
		s.stats.FirstBad = append(s.stats.FirstBad, problem)
	}
	if s.options.Strict {
		s.stopped = problem
	}
}

// leaveOut counts a record that is no flow of its own.
func (s *sink) leaveOut(cause string) {
	if s.stopped != nil {
		return
	}
	s.stats.addLeftOut(cause, 1)
}

// next goes on to the record at a line, and reports whether it is to be read.
func (s *sink) next(line int) bool {
	if s.stopped == nil && line%256 == 1 {
		s.stopped = s.ctx.Err()
	}
	s.at.Line = line
	return s.stopped == nil
}

// damaged says that reading ended with an error at the record at hand.
func (s *sink) damaged(packing string, err error) error {
	var bad policies.Problem
	switch {
	case errors.As(err, &bad):
		return err
	case packing != "":
		return policies.Problem{Place: s.at, Message: packing + " data ends or is damaged here (" + err.Error() + "); what stands before was read"}
	}
	return fmt.Errorf("%s: %w", s.at, err)
}
