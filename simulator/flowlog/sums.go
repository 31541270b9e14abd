package flowlog

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// Taker takes flows together that get the same answer, as simulator.Replayers do.
type Taker interface {
	Class(p *policies.FlowPeer) simulator.Class
	Together(f *policies.Flow) bool
	AddAlike(s *simulator.Alike)
}

// Sums adds up the rows of tables, of any number of files, so that few of them
// become flows. It takes up to some 300 MB.
type Sums struct {
	to        Taker
	ends      []sumEnd
	said      []policies.FlowPeer // of ends
	endIDs    map[string]int32    // by what columns say
	pods      map[podName]int32
	shapes    map[shape]int32
	shapeList []shape
	groups    []sumGroup
	firsts    []sumRow // of groups
	slots     []int32  // the groups, plus one, by their hash
	files     []string
}

// NewSums returns Sums that Flush hands to a taker.
func NewSums(to Taker) *Sums {
	s := &Sums{to: to}
	s.forget()
	return s
}

func (s *Sums) forget() {
	*s = Sums{to: s.to, endIDs: map[string]int32{}, pods: map[podName]int32{}, shapes: map[shape]int32{}, slots: make([]int32, 1<<12)}
}

// sumRows is how many rows are in memory at a time: as many as are near the
// processor.
const sumRows = 1024

// sumEnd is an end of flows.
type sumEnd struct {
	since         int64 // in nanoseconds since 1970: records from before it are of the class before
	class, before int32
	pod           int32 // that of others with the same pod's name; 0 without one
	isBad, is6    bool
}

type podName struct{ namespace, name string }

// shape is what else rows have in common that get the same answer.
type shape struct {
	protocol netset.Protocol
	verdict  policies.Verdict
}

const badShape = math.MaxInt32 - 1

// sumGroup is what rows come to that get the same answer.
type sumGroup struct {
	ends, rest       uint64 // the key
	flows, bytes     uint64
	earliest, latest int64 // in nanoseconds since 1970; 0 where no row has a time
	apart            bool  // its rows are in groups by their ends
}

// sumRow is a row that may be an example.
type sumRow struct {
	file         int32
	line         int
	from, to     int32
	protocol     netset.Protocol
	verdict      policies.Verdict
	port         uint16
	start, end   int64
	flows, bytes uint64
	more         [len(moreFields)]uint64
}

// moreFields are those that only examples need.
var moreFields = [...]string{"src_port", "packets", "reply_bytes", "reply_packets"}

// flow returns the flow of a row.
func (s *Sums) flowOf(r *sumRow) policies.Flow {
	start, end := moment(r.start), moment(r.end)
	return policies.Flow{
		First: start, Last: end, From: s.said[r.from], To: s.said[r.to], Protocol: r.protocol, Port: r.port, SourcePort: uint16(r.more[0]),
		Verdict: r.verdict, Count: r.flows, Bytes: r.bytes, Packets: r.more[1], ReplyBytes: r.more[2], ReplyPackets: r.more[3],
		Origin: policies.Origin{Format: parquetName, Window: end.Sub(start).Round(time.Microsecond)},
		Record: policies.Place{File: s.files[r.file], Line: r.line},
	}
}

// The parts of sumGroup.rest, behind the port.
const (
	restShape = 16
	restSelf  = 1 << 62 // both ends are one pod
	restEnds  = 1 << 63 // ends are told apart one by one, and not by class
)

// mostKept is how many ends, and groups, are kept at a time.
const mostKept = 1 << 18

// Flush hands over what was added up.
func (s *Sums) Flush() {
	for i := range s.groups {
		if g := &s.groups[i]; !g.apart {
			s.to.AddAlike(&simulator.Alike{Flow: s.flowOf(&s.firsts[i]), Flows: g.flows, Bytes: g.bytes, First: moment(g.earliest), Last: moment(g.latest)})
		}
	}
	s.forget()
}

func moment(nanos int64) time.Time {
	if nanos == 0 {
		return time.Time{}
	}
	return time.Unix(0, nanos).UTC()
}

// sumTable reads a file for Sums.
type sumTable struct {
	*table
	*Sums
	chunks   []*chunk // but for those of which only some rows are read
	from, to endColumns
	shapes   shapeColumns
	// Those that the file does not have are nil.
	start, end, port, count, bytes *chunk
	more                           [len(moreFields)]*chunk

	counts []*chunk // numbers of which only negative and huge ones are wrong
	few    [len(moreFields)]*chunk
	wanted []wantedRow // of few
	read   int         // rows of the group
	times  [2][]int64
	keys   []rowKey
}

// wantedRow is a row of a row group of which more is to be read.
type wantedRow struct {
	row   int
	line  int
	group int32     // whose example it is
	alone *tableRow // or that goes by itself
}

// canSum reports whether Sums takes the rows of a table: its numbers are numbers,
// and its texts are texts.
func canSum(columns []*tableColumn) bool {
	return !slices.ContainsFunc(columns, func(c *tableColumn) bool {
		switch {
		case c.field == nil, c.kind == parquet.Types.FixedLenByteArray && c.size == 0:
			return true
		case c.field.name == "protocol":
			return false
		}
		isText := c.field.name == "verdict" || slices.Contains(endFields[0][:], c.field.name) || slices.Contains(endFields[1][:], c.field.name)
		return isText == c.isNumber()
	})
}

// endFields are the fields of both ends, in the order of rowEnd.
var endFields = [2][5]string{
	{srcIP, "src_namespace", srcPod, "src_kind", srcName}, {dstIP, "dst_namespace", dstPod, "dst_kind", dstName},
}

// group reads a row group.
func (t *sumTable) group(g *file.RowGroupReader) error {
	*t = sumTable{table: t.table, Sums: t.Sums, from: t.from, to: t.to, shapes: t.shapes, times: t.times, keys: t.keys, wanted: t.wanted[:0]}
	t.from.columns, t.to.columns, t.shapes.protocol, t.shapes.verdict = [5]*chunk{}, [5]*chunk{}, nil, nil
	t.from.widths, t.to.widths = [5]int{}, [5]int{}
	t.forgetCodes()
	for _, c := range t.columns {
		k, err := newChunk(c, g)
		if err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		t.place(k)
	}
	err := t.rows(g)
	if err == nil {
		return t.readWanted()
	}
	_ = t.readWanted() // what is added up is whole as far as can be
	return err
}

func (t *sumTable) rows(g *file.RowGroupReader) error {
	for left := g.NumRows(); left > 0; {
		if t.stopped = t.ctx.Err(); t.stopped != nil {
			return nil
		}
		if len(t.Sums.ends) > mostKept || len(t.groups) > mostKept {
			if err := t.readWanted(); err != nil {
				return err
			}
			t.Flush()
			t.forgetCodes()
		}
		n := int(min(left, sumRows))
		for _, k := range t.chunks {
			renewed, err := k.fill(n)
			if err != nil {
				return fmt.Errorf("column %s: %w", k.name, err)
			}
			if renewed {
				t.forgetCodes()
			}
		}
		if t.batch(n); t.stopped != nil {
			return nil
		}
		left -= int64(n)
		t.read += n
	}
	return nil
}

// readWanted reads the rest of the rows that may be examples.
func (t *sumTable) readWanted() error {
	for i, k := range t.few {
		if k == nil {
			continue
		}
		for _, w := range t.wanted {
			if err := k.numberAt(w.row); err != nil {
				return fmt.Errorf("column %s: %w", k.name, err)
			}
			if w.alone != nil {
				_ = k.field.set(w.alone, k.cell(0)) // the file says that it is a count
			} else if first := &t.firsts[w.group]; first.line == w.line {
				first.more[i] = uint64(k.numbers[0])
			}
		}
	}
	line := t.at.Line
	for _, w := range t.wanted {
		if w.alone != nil {
			t.at.Line = w.line
			t.flow(w.alone.Flow)
		}
	}
	t.at.Line, t.wanted = line, t.wanted[:0]
	return nil
}

// forgetCodes is called where codes no longer mean what they did.
func (t *sumTable) forgetCodes() {
	t.from.known.forget()
	t.to.known.forget()
	clear(t.from.recent)
	clear(t.to.recent)
	t.shapes.known.forget()
}

// place puts a chunk where it is looked for.
func (t *sumTable) place(k *chunk) {
	if i := slices.Index(moreFields[:], k.field.name); i >= 0 {
		t.more[i] = k
		if k.counts {
			t.few[i] = k
			return
		}
	}
	t.chunks = append(t.chunks, k)
	for i, e := range []*endColumns{&t.from, &t.to} {
		if at := slices.Index(endFields[i][:], k.field.name); at >= 0 {
			e.columns[at] = k
			return
		}
	}
	for name, to := range map[string]**chunk{
		"start": &t.start, "end": &t.end, "dst_port": &t.port, "flows": &t.count, "bytes": &t.bytes,
		"protocol": &t.shapes.protocol, "verdict": &t.shapes.verdict,
	} {
		if k.field.name == name {
			*to = k
		}
	}
	switch k {
	case t.start, t.end, t.shapes.protocol, t.shapes.verdict:
	default:
		t.counts = append(t.counts, k)
	}
}

// interned gives keys the numbers that they stand for.
type interned struct {
	slots []internedKey
	used  int
}

type internedKey struct {
	key   uint64
	value int32 // plus one
}

func (t *interned) forget() {
	if t.slots == nil {
		t.slots = make([]internedKey, 1<<8)
	}
	t.used = 0
	clear(t.slots)
}

// get returns the number of a key; -1 where it has none.
func (t *interned) get(key uint64) int32 { return t.slots[t.place(key)].value - 1 }

func (t *interned) place(key uint64) int {
	mask := len(t.slots) - 1
	at := int(key*0x9e3779b97f4a7c15>>32) & mask
	for t.slots[at].value != 0 && t.slots[at].key != key {
		at = (at + 1) & mask
	}
	return at
}

func (t *interned) put(key uint64, value int32) {
	if t.used++; 2*t.used > len(t.slots) {
		old := t.slots
		t.slots = make([]internedKey, 4*len(old))
		for _, k := range old {
			if k.value != 0 {
				t.slots[t.place(k.key)] = k
			}
		}
	}
	t.slots[t.place(key)] = internedKey{key, value + 1}
}

// endColumns find one end of each row.
type endColumns struct {
	columns [5]*chunk
	widths  [5]int // of codes, in bits
	keys    []uint64
	known   interned
	recent  []internedKey // by the code of the column that says most
	ids     []int32
}

// widest returns the column that says most.
func (e *endColumns) widest() *chunk {
	var widest *chunk
	for _, k := range e.columns {
		if k != nil && (widest == nil || len(k.texts) > len(widest.texts)) {
			widest = k
		}
	}
	return widest
}

// pack makes a number of all codes of each of n rows, unless they do not fit one.
func (e *endColumns) pack(n int) bool {
	total, renewed := 0, false
	for i, k := range e.columns {
		if k == nil {
			continue
		}
		if width := bits.Len(uint(len(k.texts))); width > e.widths[i] {
			e.widths[i], renewed = width, true
		}
		total += e.widths[i]
	}
	if renewed {
		e.known.forget()
	}
	e.keys = slices.Grow(e.keys[:0], n)[:n]
	shift := 0
	for i, k := range e.columns {
		switch {
		case k == nil:
			continue
		case shift == 0:
			for row, code := range k.codes[:n] {
				e.keys[row] = uint64(code)
			}
		default:
			for row, code := range k.codes[:n] {
				e.keys[row] |= uint64(code) << shift
			}
		}
		shift += e.widths[i]
	}
	return total <= 64
}

// endsOf returns one end of each of n rows.
func (t *sumTable) endsOf(e *endColumns, n int) []int32 {
	e.ids = slices.Grow(e.ids[:0], n)[:n]
	if !e.pack(n) {
		for row := range e.ids {
			e.ids[row] = t.endOf(e, row)
		}
		return e.ids
	}
	k := e.widest()
	if more := len(k.texts) - len(e.recent); more > 0 {
		e.recent = append(e.recent, make([]internedKey, more)...)
	}
	codes, recent := k.codes[:n], e.recent
	for row, key := range e.keys {
		r := &recent[codes[row]]
		if r.key != key || r.value == 0 {
			id := e.known.get(key)
			if id < 0 {
				id = t.endOf(e, row)
				e.known.put(key, id)
			}
			*r = internedKey{key, id + 1}
		}
		e.ids[row] = r.value - 1
	}
	return e.ids
}

// endOf returns one end of a row.
func (t *sumTable) endOf(e *endColumns, row int) int32 {
	var said rowEnd
	for i, to := range []*[]byte{&said.address, &said.namespace, &said.pod, &said.kind, &said.name} {
		if k := e.columns[i]; k != nil {
			*to = k.texts[k.codes[row]]
		}
	}
	t.key = said.appendKey(t.key[:0])
	if id, known := t.endIDs[string(t.key)]; known {
		return id
	}
	id := int32(len(t.Sums.ends))
	t.endIDs[string(t.key)] = id
	p, err := said.peer()
	end := sumEnd{isBad: err != nil, is6: p.Address.Is6(), since: math.MinInt64}
	if err == nil {
		c := t.Sums.to.Class(&p)
		end.class, end.before = int32(c.ID), int32(c.Before)
		if !c.Since.IsZero() {
			end.since = c.Since.UnixNano()
		}
	}
	if p.Pod != "" {
		name := podName{p.Namespace, p.Pod}
		if t.pods[name] == 0 {
			t.pods[name] = int32(len(t.pods)) + 1
		}
		end.pod = t.pods[name]
	}
	t.Sums.ends, t.said = append(t.Sums.ends, end), append(t.said, p)
	return id
}

func (e *sumEnd) classAt(start int64) int32 {
	if start < e.since && start != 0 {
		return e.before
	}
	return e.class
}

// shapeColumns find the shapes of rows.
type shapeColumns struct {
	protocol, verdict *chunk
	keys              []uint64
	known             interned
}

// pack returns numbers for what n rows' shapes depend on; the last bit is free.
func (c *shapeColumns) pack(n int) []uint64 {
	c.keys = slices.Grow(c.keys[:0], n)[:n]
	clear(c.keys)
	for i, k := range []*chunk{c.verdict, c.protocol} {
		shift := 1 + 31*i
		switch {
		case k == nil:
		case k.isNumber():
			for row, v := range k.numbers[:n] {
				c.keys[row] |= min(uint64(v), math.MaxInt32) << shift // no negative one is sound either
			}
		default:
			for row, code := range k.codes[:n] {
				c.keys[row] |= uint64(code) << shift
			}
		}
	}
	return c.keys
}

func (t *sumTable) shapeOf(row int, is6 bool) int32 {
	key := t.shapes.keys[row]
	if is6 {
		key |= 1
	}
	if id := t.shapes.known.get(key); id >= 0 {
		return id
	}
	id := int32(badShape)
	var r tableRow
	err := t.shapes.protocol.setAt(row, &r)
	if err == nil {
		err = t.shapes.verdict.setAt(row, &r)
	}
	var is shape
	if err == nil {
		is.verdict = cmp.Or(r.Verdict, policies.Unknown)
		is.protocol, err = r.protocolOf(is6)
	}
	if err == nil {
		known := false
		if id, known = t.Sums.shapes[is]; !known {
			id = int32(len(t.Sums.shapes))
			t.Sums.shapes[is] = id
			t.shapeList = append(t.shapeList, is)
		}
	}
	t.shapes.known.put(key, id)
	return id
}

// setAt has a row of a table say what a row of the batch has.
func (k *chunk) setAt(row int, r *tableRow) error {
	if k == nil {
		return nil
	}
	if err := k.field.set(r, k.cell(row)); err != nil {
		return fmt.Errorf("%s: %w", k.name, err)
	}
	return nil
}

// rowAt returns what all columns say of a row of the batch.
func (t *sumTable) rowAt(row int) (*tableRow, error) {
	r := new(tableRow)
	var wrong error
	for _, k := range t.chunks {
		if err := k.setAt(row, r); err != nil && wrong == nil {
			wrong = err
		}
	}
	if wrong == nil {
		wrong = t.complete(r)
	}
	return r, wrong
}

// momentsOf returns what n rows have in a column of times, in nanoseconds since
// 1970: 0 where there is none, and -1 where that is no number. It reports whether
// all are there.
func (t *sumTable) momentsOf(which int, k *chunk, n int) (moments []int64, areThere bool) {
	t.times[which] = slices.Grow(t.times[which][:0], n)[:n]
	to := t.times[which]
	if k == nil {
		clear(to)
		return to, false
	}
	numbers := k.numbers[:n]
	least, most := slices.Min(numbers), slices.Max(numbers)
	unit := int64(cmp.Or(k.unit, unitBySize(least)))
	if least > 0 && most <= math.MaxInt64/unit && (k.unit != 0 || int64(unitBySize(most)) == unit) {
		for i, v := range numbers {
			to[i] = v * unit
		}
		return to, true
	}
	for i, v := range numbers {
		unit := int64(cmp.Or(k.unit, unitBySize(v)))
		switch {
		case v <= 0:
			to[i] = 0
		case v > math.MaxInt64/unit:
			to[i] = -1
		default:
			to[i] = v * unit
		}
	}
	return to, false
}

// spansOf returns when n rows were seen, where either time stands for both. It
// reports whether all that is sound.
func (t *sumTable) spansOf(n int) (starts, ends []int64, areSound bool) {
	starts, allStarts := t.momentsOf(0, t.start, n)
	ends = starts
	if t.end != nil {
		var allEnds bool
		if ends, allEnds = t.momentsOf(1, t.end, n); !allStarts || !allEnds {
			for i := range starts {
				starts[i], ends[i] = cmp.Or(starts[i], ends[i]), cmp.Or(ends[i], starts[i])
			}
		}
	} else {
		t.times[1] = append(t.times[1][:0], starts...)
	}
	wrong := int64(0)
	for i, start := range starts {
		window := ends[i] - start
		wrong |= start | window | (longest - window)
	}
	return starts, ends, wrong >= 0
}

const longest = maxWindowSeconds * int64(time.Second)

// areCounts reports whether no row of the batch has a number that is none.
func (t *sumTable) areCounts(n int) bool {
	return !slices.ContainsFunc(t.counts, func(k *chunk) bool {
		numbers := k.numbers[:n]
		return slices.Min(numbers) < 0 || slices.Max(numbers) > k.field.most
	})
}

func (t *sumTable) isCount(row int) bool {
	return !slices.ContainsFunc(t.counts, func(k *chunk) bool { return k.numbers[row] < 0 || k.numbers[row] > k.field.most })
}

// batch adds up n rows. Those that are bad, or have times that are hardly any, go
// by themselves.
func (t *sumTable) batch(n int) {
	from, to := t.endsOf(&t.from, n), t.endsOf(&t.to, n)
	starts, ends, areSound := t.spansOf(n)
	areSound = t.areCounts(n) && areSound
	shapes, line := t.shapes.pack(n), t.at.Line
	t.keys = slices.Grow(t.keys[:0], n)[:n]
	for i := range n {
		source, target := &t.Sums.ends[from[i]], &t.Sums.ends[to[i]]
		shape := shapes[i]
		if source.is6 {
			shape |= 1
		}
		is := t.shapes.known.get(shape)
		if is < 0 {
			is = t.shapeOf(i, source.is6)
		}
		k := &t.keys[i]
		if source.isBad || target.isBad || is == badShape || !areSound && !t.isSound(i) {
			*k = rowKey{rest: badRow}
			continue
		}
		k.ends, k.rest = uint64(source.classAt(starts[i]))<<32|uint64(target.classAt(starts[i])), uint64(is)<<restShape
		if t.port != nil {
			k.rest |= uint64(t.port.numbers[i])
		}
		if source.pod != 0 && source.pod == target.pod {
			k.rest |= restSelf
		}
	}
	t.lookUp()
	for i := range n {
		k := &t.keys[i]
		t.at.Line = line + i + 1
		if k.rest == badRow {
			if t.alone(i); t.stopped != nil {
				return
			}
			continue
		}
		start := starts[i]
		g := (*sumGroup)(nil)
		if k.slot != 0 {
			g = &t.groups[k.slot-1]
		}
		if g == nil || g.earliest == 0 || start <= g.earliest {
			g = t.groupOf(i, start, k.ends, k.rest)
		}
		if g.apart {
			g = t.groupOf(i, start, uint64(from[i])<<32|uint64(to[i]), k.rest|restEnds)
		}
		flows := uint64(1)
		if t.count != nil {
			flows = max(1, uint64(t.count.numbers[i]))
		}
		if t.bytes != nil {
			g.bytes += uint64(t.bytes.numbers[i])
		}
		g.flows += flows
		g.latest = max(g.latest, ends[i])
		t.stats.Flows++
	}
}

// lookUp finds what is at the places of groups. That is done for all rows before
// any group is changed, so that memory answers many at a time.
func (t *sumTable) lookUp() {
	mask := len(t.slots) - 1
	for i := range t.keys {
		k := &t.keys[i]
		k.slot = int32(slotOf(k.ends, k.rest, mask))
	}
	for i := range t.keys {
		k := &t.keys[i]
		k.slot = t.slots[k.slot]
	}
	for i := range t.keys {
		if k := &t.keys[i]; k.slot != 0 {
			if g := &t.groups[k.slot-1]; g.ends != k.ends || g.rest != k.rest {
				k.slot = 0
			}
		}
	}
}

// isSound reports whether a row's numbers are sound.
func (t *sumTable) isSound(row int) bool {
	start, window := t.times[0][row], t.times[1][row]-t.times[0][row]
	return start >= 0 && window >= 0 && window <= longest && t.isCount(row)
}

// alone hands over a row by itself.
func (t *sumTable) alone(row int) {
	switch r, err := t.rowAt(row); {
	case err != nil:
		t.bad(err)
	case max(r.Count, r.Bytes, r.Packets, r.ReplyBytes, r.ReplyPackets) > mostCounted:
		t.flow(r.Flow) // which says so
	default:
		t.wanted = append(t.wanted, wantedRow{row: t.read + row, line: t.at.Line, alone: r})
	}
}

// rowKey is the key of a row's group, and the group, plus one, if it was found at
// once.
type rowKey struct {
	ends, rest uint64
	slot       int32
}

const badRow = math.MaxUint64

// groupOf returns the group of a row, which may be the first that it has.
func (t *sumTable) groupOf(row int, start int64, ends, rest uint64) *sumGroup {
	mask := len(t.slots) - 1
	at := slotOf(ends, rest, mask)
	for t.slots[at] != 0 {
		i := t.slots[at] - 1
		g := &t.groups[i]
		if g.ends != ends || g.rest != rest {
			at = (at + 1) & mask
			continue
		}
		if (start <= g.earliest || g.earliest == 0) && !g.apart {
			t.keepFirst(i, row, start)
		}
		return g
	}
	first := t.soundRow(row)
	g := sumGroup{ends: ends, rest: rest, earliest: start}
	if rest&restEnds == 0 {
		f := t.flowOf(&first)
		g.apart = !t.Sums.to.Together(&f)
	}
	t.wanted = append(t.wanted, wantedRow{row: t.read + row, line: t.at.Line, group: int32(len(t.groups))})
	t.groups, t.firsts = append(t.groups, g), append(t.firsts, first)
	t.slots[at] = int32(len(t.groups))
	if 2*len(t.groups) > len(t.slots) {
		t.slots = make([]int32, 4*len(t.slots))
		mask := len(t.slots) - 1
		for i := range t.groups {
			at := slotOf(t.groups[i].ends, t.groups[i].rest, mask)
			for t.slots[at] != 0 {
				at = (at + 1) & mask
			}
			t.slots[at] = int32(i) + 1
		}
	}
	return &t.groups[len(t.groups)-1]
}

func slotOf(ends, rest uint64, mask int) int {
	h := (ends ^ rest*0xc2b2ae3d27d4eb4f) * 0x9e3779b97f4a7c15
	return int((h^h>>29)*0xff51afd7ed558ccd>>32) & mask
}

// keepFirst keeps a row if it is the first of its group, by time and then by place.
func (t *sumTable) keepFirst(group int32, row int, start int64) {
	g, first := &t.groups[group], &t.firsts[group]
	if start == 0 && g.earliest != 0 || start == g.earliest && (first.file == t.fileID() || t.files[first.file] <= t.at.File) {
		return
	}
	g.earliest, *first = start, t.soundRow(row)
	t.wanted = append(t.wanted, wantedRow{row: t.read + row, line: t.at.Line, group: group})
}

// fileID returns the number of the file that is read.
func (t *sumTable) fileID() int32 {
	if len(t.files) == 0 || t.files[len(t.files)-1] != t.at.File {
		t.files = append(t.files, t.at.File)
	}
	return int32(len(t.files) - 1)
}

// soundRow returns a row of the batch of which all is known to be sound.
func (t *sumTable) soundRow(row int) sumRow {
	number := func(k *chunk) uint64 {
		if k == nil {
			return 0
		}
		return uint64(k.numbers[row])
	}
	is := t.shapeList[t.shapeOf(row, t.Sums.ends[t.from.ids[row]].is6)]
	r := sumRow{
		file: t.fileID(), line: t.at.Line, from: t.from.ids[row], to: t.to.ids[row], protocol: is.protocol, verdict: is.verdict,
		port: uint16(number(t.port)), start: t.times[0][row], end: t.times[1][row], flows: max(1, number(t.count)), bytes: number(t.bytes),
	}
	for i, k := range t.more {
		if t.few[i] == nil {
			r.more[i] = number(k)
		}
	}
	return r
}
