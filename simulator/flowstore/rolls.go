package flowstore

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// roll is what one side reported of a tuple in one hour, or on one day, with one
// verdict.
type roll struct {
	id                    uint64 // of the tuple
	hour, first, last     int64  // hour is the first of a day
	flows, bytes, packets uint64
	replyBytes            uint64
	replyPackets          uint64
	row, rows             int64  // where its flows stand in the hour's sorted file
	from, to              uint32 // ends in a table: their identities, with an address or several
	port                  uint16
	protocol              netset.Protocol
	verdict               policies.Verdict
	reporter              policies.Reporter
	egressOnly            bool
	byHour                []byte // of a day: flows of each hour, up to the last with any, as varints
}

// several stands in an ip column for addresses of which there are many.
const several = "*"

// compareRolls orders rolls by tuple, then time.
func compareRolls(a, b *roll) int {
	return cmp.Or(
		cmp.Compare(a.id, b.id), cmp.Compare(a.hour, b.hour), cmp.Compare(a.reporter, b.reporter),
		cmp.Compare(a.verdict, b.verdict), compareBools(a.egressOnly, b.egressOnly),
	)
}

func (r *roll) add(o *roll) {
	r.first, r.last = min(r.first, o.first), max(r.last, o.last)
	r.flows += o.flows
	r.bytes += o.bytes
	r.packets += o.packets
	r.replyBytes += o.replyBytes
	r.replyPackets += o.replyPackets
	r.row = min(r.row, o.row)
	r.rows += o.rows
}

// rollLayout has row groups of rollRows rows.
var rollLayout = newLayout(slices.Concat([]column{
	{name: "hour", moment: true, coded: true, key: true},
	code("tuple").asKey(),
	key("reporter"), key("verdict"), code("egress_only").asKey(),
	number("flows").asSteps(), number("bytes").asSteps(), number("packets").asSteps(),
	number("reply_bytes").asSteps(), number("reply_packets").asSteps(), moments("start").asSteps(), moments("end").asSteps(),
	number("row").asSteps(), number("rows").asSteps(),
	key("protocol"), code("dst_port").asKey(),
}, endLayout("src_"), endLayout("dst_")))

// wholeLayout is that of rolls of days.
var wholeLayout = newLayout(append(slices.Clone(rollLayout.columns), column{name: "flows_by_hour", bytes: true}))

const (
	rollHour = iota
	rollTuple
	rollReporter
	rollVerdict
	rollEgressOnly
	rollFlows
	rollBytes
	rollPackets
	rollReplyBytes
	rollReplyPackets
	rollStart
	rollEnd
	rollRow
	rollCount
	rollProtocol
	rollPort
	rollSource
	rollTarget = rollSource + flowrow.Texts
	rollByHour = rollTarget + flowrow.Texts
)

const rollRows = 1 << 16

// wholeRows is the rows of a row group of days: small, for a month of them is read
// at a time.
const wholeRows = 1 << 14

func (t *table) rollVectors(rolls []roll) func(column int) vector {
	m := &maker{n: len(rolls)}
	from := m.things(len(t.ends), func(i int) uint32 { return rolls[i].from })
	to := m.things(len(t.ends), func(i int) uint32 { return rolls[i].to })
	return func(column int) vector {
		switch {
		case column == rollByHour:
			return m.bytes(func(i int) []byte { return rolls[i].byHour })
		case rollSource <= column && column < rollTarget:
			return m.looked(from, func(end uint32) string { return t.ends[end].texts[column-rollSource] })
		case rollTarget <= column:
			return m.looked(to, func(end uint32) string { return t.ends[end].texts[column-rollTarget] })
		}
		switch column {
		case rollHour:
			return m.coded(func(i int) int64 { return rolls[i].hour })
		case rollTuple:
			return m.coded(func(i int) int64 { return int64(rolls[i].id) })
		case rollReporter:
			return m.words(reporterText, func(i int) int { return int(rolls[i].reporter) })
		case rollVerdict:
			return m.words(verdictText, func(i int) int { return int(rolls[i].verdict) })
		case rollEgressOnly:
			return m.coded(func(i int) int64 { return asNumber(rolls[i].egressOnly) })
		case rollFlows:
			return m.plain(func(i int) int64 { return int64(rolls[i].flows) })
		case rollBytes:
			return m.plain(func(i int) int64 { return int64(rolls[i].bytes) })
		case rollPackets:
			return m.plain(func(i int) int64 { return int64(rolls[i].packets) })
		case rollReplyBytes:
			return m.plain(func(i int) int64 { return int64(rolls[i].replyBytes) })
		case rollReplyPackets:
			return m.plain(func(i int) int64 { return int64(rolls[i].replyPackets) })
		case rollStart:
			return m.plain(func(i int) int64 { return rolls[i].first })
		case rollEnd:
			return m.plain(func(i int) int64 { return rolls[i].last })
		case rollRow:
			return m.plain(func(i int) int64 { return rolls[i].row })
		case rollCount:
			return m.plain(func(i int) int64 { return rolls[i].rows })
		case rollProtocol:
			return m.words(protocolText, func(i int) int { return int(rolls[i].protocol) })
		case rollPort:
			return m.coded(func(i int) int64 { return int64(rolls[i].port) })
		}
		panic("no such column")
	}
}

// rollWriter writes rolls that come in order.
type rollWriter struct {
	groups *groupWriter
	table  *table
	rolls  []roll
	counts [][24]uint64 // flows by hour of the rolls, where those are of a day
	file   *File
}

func newRollWriter(w io.Writer, l *layout, f *File) (*rollWriter, error) {
	g, err := newGroupWriter(w, l)
	return &rollWriter{groups: g, table: newTable(), file: f}, err
}

// add takes a roll whose ends are in another table. Those of equal order are
// one.
func (w *rollWriter) add(r *roll, of *table) error {
	if n := len(w.rolls); n > 0 && compareRolls(&w.rolls[n-1], r) == 0 {
		last := &w.rolls[n-1]
		last.add(r)
		last.from = w.table.join(last.from, &of.ends[r.from].texts)
		last.to = w.table.join(last.to, &of.ends[r.to].texts)
		return nil
	}
	if len(w.rolls) == rollRows {
		if err := w.flush(); err != nil {
			return err
		}
	}
	own := *r
	own.from, own.to = w.table.end(&of.ends[r.from].texts), w.table.end(&of.ends[r.to].texts)
	own.byHour = slices.Clone(r.byHour)
	w.rolls = append(w.rolls, own)
	return nil
}

// addToDay takes the roll of an hour as part of its day. Those of a tuple come one
// after another.
func (w *rollWriter) addToDay(r *roll, of *table) error {
	own := *r
	own.hour, own.row = dayOf(flowrow.Moment(r.hour)).UnixMicro(), 0
	first := len(w.rolls) // of the tuple
	for first > 0 && w.rolls[first-1].id == r.id {
		first--
	}
	if first == len(w.rolls) && first >= wholeRows {
		if err := w.flush(); err != nil {
			return err
		}
		first = 0
	}
	at, known := slices.BinarySearchFunc(w.rolls[first:], &own, func(a roll, b *roll) int { return compareRolls(&a, b) })
	at += first
	if known {
		day := &w.rolls[at]
		day.add(&own)
		day.from = w.table.join(day.from, &of.ends[r.from].texts)
		day.to = w.table.join(day.to, &of.ends[r.to].texts)
	} else {
		own.from, own.to = w.table.end(&of.ends[r.from].texts), w.table.end(&of.ends[r.to].texts)
		w.rolls, w.counts = slices.Insert(w.rolls, at, own), slices.Insert(w.counts, at, [24]uint64{})
	}
	w.counts[at][(r.hour-own.hour)/flowrow.HourMicros] += r.flows
	return nil
}

// appendCounts appends flows by hour as a roll has them.
func appendCounts(to []byte, counts *[24]uint64) []byte {
	last := len(counts)
	for last > 0 && counts[last-1] == 0 {
		last--
	}
	for _, n := range counts[:last] {
		to = binary.AppendUvarint(to, n)
	}
	return to
}

func (w *rollWriter) flush() error {
	for i := range w.counts {
		w.rolls[i].byHour = appendCounts(nil, &w.counts[i])
	}
	if w.file != nil {
		for i := range w.rolls {
			r := &w.rolls[i]
			if first := flowrow.Moment(r.first); w.file.Rows+int64(i) == 0 || first.Before(w.file.First) {
				w.file.First = first
			}
			if last := flowrow.Moment(r.last); last.After(w.file.Last) {
				w.file.Last = last
			}
			w.file.Flows += r.flows
		}
		w.file.Rows += int64(len(w.rolls))
	}
	err := w.groups.write(w.table.rollVectors(w.rolls))
	w.rolls, w.counts, w.table = w.rolls[:0], w.counts[:0], newTable()
	return err
}

func (w *rollWriter) close() error {
	if len(w.rolls) > 0 {
		if err := w.flush(); err != nil {
			return err
		}
	}
	return w.groups.close()
}

// join returns an end with several addresses where another has another one.
func (t *table) join(i uint32, other *flowrow.End) uint32 {
	texts := t.ends[i].texts
	if texts[flowrow.IP] == other[flowrow.IP] || texts[flowrow.IP] == several {
		return i
	}
	texts[flowrow.IP] = several
	return t.end(&texts)
}

// roller makes rolls of flows. What is too much for memory it puts into files
// of rolls.
type roller struct {
	store  *Store
	table  *table // of the rolls
	rolls  []roll
	byKey  map[rollKey]int
	ends   map[uint32]uint32 // of the flows' table, reduced
	of     *table
	last   int // the roll of the flow before
	next   int64
	spools []*os.File
}

type rollKey struct {
	tuple, hour uint64
	side        uint32
}

const maxRolls = 1 << 19

func (s *Store) newRoller() *roller {
	return &roller{store: s, table: newTable(), byKey: map[rollKey]int{}, last: -1}
}

// add takes flows of a table in the order in which they are stored.
func (r *roller) add(of *table, rows []row) error {
	if r.of != of {
		r.of, r.ends = of, map[uint32]uint32{}
	}
	for i := range rows {
		if err := r.addRow(&rows[i]); err != nil {
			return err
		}
	}
	return nil
}

func (r *roller) addRow(f *row) error {
	tuple, hour := &r.of.tuples[f.tuple], flowrow.HourOf(f.start)
	from, to := r.end(f.from), r.end(f.to)
	own := roll{
		id: tuple.id, hour: hour, first: f.start, last: f.end, flows: f.count, bytes: f.bytes, packets: f.packets,
		replyBytes: f.replyBytes, replyPackets: f.replyPackets, row: r.next, rows: 1,
		from: from, to: to, port: tuple.port, protocol: tuple.protocol, verdict: f.verdict, reporter: f.reporter, egressOnly: f.egressOnly,
	}
	r.next++
	if r.last < 0 || compareRolls(&r.rolls[r.last], &own) != 0 {
		key := rollKey{own.id, uint64(hour), uint32(own.reporter)<<16 | uint32(own.verdict)<<8 | uint32(asNumber(own.egressOnly))}
		at, ok := r.byKey[key]
		if !ok {
			if len(r.rolls) >= maxRolls || r.table.size > r.store.tableSize() {
				if err := r.spill(); err != nil {
					return err
				}
				own.from, own.to = r.end(f.from), r.end(f.to)
			}
			r.last = len(r.rolls)
			r.byKey[key] = r.last
			r.rolls = append(r.rolls, own)
			return nil
		}
		r.last = at
	}
	known := &r.rolls[r.last]
	known.add(&own)
	if known.from != from {
		known.from = r.table.join(known.from, &r.table.ends[from].texts)
	}
	if known.to != to {
		known.to = r.table.join(known.to, &r.table.ends[to].texts)
	}
	return nil
}

// end returns an end of the flows as rolls have it.
func (r *roller) end(i uint32) uint32 {
	if own, ok := r.ends[i]; ok {
		return own
	}
	texts := r.of.ends[i].texts.Identity()
	texts[flowrow.IP] = r.of.ends[i].texts[flowrow.IP]
	own := r.table.end(&texts)
	r.ends[i] = own
	return own
}

// spill writes the rolls so far to a spooled file.
func (r *roller) spill() error {
	spooled, err := r.store.blobs.spool()
	if err != nil {
		return err
	}
	r.spools = append(r.spools, spooled)
	w, err := newRollWriter(spooled, rollLayout, nil)
	if err != nil {
		return err
	}
	if err := r.each(w.add); err != nil {
		return err
	}
	r.table, r.rolls, r.last = newTable(), r.rolls[:0], -1
	clear(r.byKey)
	clear(r.ends)
	return w.close()
}

// each hands over the rolls in memory, in order.
func (r *roller) each(take func(*roll, *table) error) error {
	slices.SortFunc(r.rolls, func(a, b roll) int { return compareRolls(&a, &b) })
	for i := range r.rolls {
		if err := take(&r.rolls[i], r.table); err != nil {
			return err
		}
	}
	return nil
}

// sources returns readers of all rolls, and discards what was spooled when the
// last is closed.
func (r *roller) sources(columns []int) ([]*rollReader, error) {
	if err := r.spill(); err != nil {
		return nil, err
	}
	var all []*rollReader
	for len(r.spools) > 0 {
		reader, err := newSpooledReader(r.spools[0], rollLayout, columns)
		if err != nil {
			closeAll(all)
			return nil, err
		}
		all = append(all, reader)
		r.spools = r.spools[1:]
	}
	return all, nil
}

// write writes all rolls in order.
func (r *roller) write(ctx context.Context, w *rollWriter) error {
	if len(r.spools) == 0 {
		return r.each(w.add)
	}
	sources, err := r.sources(rollNumbers)
	if err != nil {
		return err
	}
	defer closeAll(sources)
	return mergeRolls(ctx, sources, func(m *rollReader) error {
		own, err := m.roll()
		if err != nil {
			return err
		}
		return w.add(own, m.table)
	})
}

// discard removes what was spooled.
func (r *roller) discard() {
	for _, f := range r.spools {
		discard(f)
	}
}

// rollReader reads rolls in order, one by one. What says who a tuple is, it
// reads only when asked.
type rollReader struct {
	numbers *groupReader
	ends    *groupReader // opened when it is needed
	valid   func(hour int64) bool
	done    func()
	vectors []vector // of the batch
	n, i    int      // rolls of the batch, and of those the ones before the next
	first   int64    // row of the batch
	at      int      // the roll of the batch that it is at
	group   int
	ahead   chan rollBatch // what is read ahead; nil where nothing is

	// By their codes in the row group:
	verdicts  []policies.Verdict
	reporters []policies.Reporter
	hours     []int64 // since 1970
	known     []bool  // whether an hour counts
	allKnown  bool
	// The parts of a sideKey:
	verdictKeys, reporterKeys, egressKeys []uint32

	now    roll // where it is; its ends are not set
	ended  roll // whose ends were read last
	ips    [2]int32
	table  *table
	source endReader
	target endReader
}

var rollNumbers = []int{
	rollHour, rollTuple, rollReporter, rollVerdict, rollEgressOnly, rollFlows, rollBytes, rollPackets, rollReplyBytes, rollReplyPackets, rollStart, rollEnd,
	rollRow, rollCount, rollSource + flowrow.IP, rollTarget + flowrow.IP, rollByHour,
}

// tupleNumbers are those that a tuple's sides are made of, hourNumbers those that
// tell in which hours they were, sumNumbers those that its hours are made of in full,
// placeNumbers those that tell where its flows stand.
var (
	tupleNumbers = []int{
		rollHour, rollTuple, rollReporter, rollVerdict, rollEgressOnly, rollFlows, rollBytes, rollStart, rollEnd, rollSource + flowrow.IP, rollTarget + flowrow.IP,
	}
	hourNumbers  = []int{rollHour, rollTuple, rollReporter, rollVerdict, rollEgressOnly, rollFlows, rollByHour}
	sumNumbers   = append([]int{rollPackets, rollReplyBytes, rollReplyPackets, rollCount}, tupleNumbers...)
	placeNumbers = []int{rollHour, rollTuple, rollRow, rollCount}
)

// newRollReader reads columns of a file, as far as it has them.
func newRollReader(b blob, l *layout, columns []int, valid func(hour int64) bool) (*rollReader, error) {
	columns = slices.DeleteFunc(slices.Clone(columns), func(i int) bool { return i >= len(l.columns) })
	numbers, err := newGroupReader(b, l, columns)
	if err != nil {
		b.close()
		return nil, err
	}
	return &rollReader{numbers: numbers, valid: valid, group: -1, table: newTable(), done: b.close}, nil
}

func newSpooledReader(spooled *os.File, l *layout, columns []int) (*rollReader, error) {
	info, err := spooled.Stat()
	if err != nil {
		discard(spooled)
		return nil, err
	}
	r, err := newRollReader(&localBlob{spooled, info.Size(), spooled.Name()}, l, columns, nil)
	if err != nil {
		discard(spooled)
		return nil, err
	}
	r.done = func() { discard(spooled) }
	return r, nil
}

func closeAll(all []*rollReader) {
	for _, r := range all {
		r.done()
	}
}

// next goes on to the next roll; it reports whether there is one. It needs all
// of rollNumbers.
func (r *rollReader) next() (bool, error) {
	for {
		if more, err := r.fill(); err != nil || !more {
			return false, err
		}
		i, v := r.i, r.vectors
		r.at = i
		r.i++
		hour := v[rollHour].codes[i]
		if !r.known[hour] {
			continue
		}
		r.now.id = uint64(v[rollTuple].numbers[v[rollTuple].codes[i]])
		r.now.hour = v[rollHour].numbers[hour]
		r.now.reporter, r.now.verdict = r.reporters[v[rollReporter].codes[i]], r.verdicts[v[rollVerdict].codes[i]]
		r.now.egressOnly = v[rollEgressOnly].numbers[v[rollEgressOnly].codes[i]] != 0
		r.now.flows, r.now.bytes, r.now.packets = uint64(v[rollFlows].numbers[i]), uint64(v[rollBytes].numbers[i]), uint64(v[rollPackets].numbers[i])
		r.now.replyBytes, r.now.replyPackets = uint64(v[rollReplyBytes].numbers[i]), uint64(v[rollReplyPackets].numbers[i])
		r.now.first, r.now.last = v[rollStart].numbers[i], v[rollEnd].numbers[i]
		r.now.row, r.now.rows = v[rollRow].numbers[i], v[rollCount].numbers[i]
		if r.isWhole() {
			r.now.byHour = v[rollByHour].bytesAt(i)
		}
		return true, nil
	}
}

// isWhole reports whether rolls may be of days.
func (r *rollReader) isWhole() bool { return r.numbers.layout == wholeLayout }

// fill reads the next batch where this one is at its end.
func (r *rollReader) fill() (bool, error) {
	if r.i < r.n {
		return true, nil
	}
	next := r.nextBatch()
	if next.err != nil || next.n == 0 {
		return false, next.err
	}
	r.first += int64(r.n)
	r.n, r.i, r.vectors = next.n, 0, next.vectors
	if r.group != next.group {
		r.group = next.group
		return true, r.newWords()
	}
	return true, nil
}

// rollBatch is what a rollReader reads at a time.
type rollBatch struct {
	vectors  []vector
	n, group int
	err      error
}

func (r *rollReader) read() rollBatch {
	n, err := r.numbers.read()
	return rollBatch{r.numbers.vectors, n, r.numbers.at, err}
}

// nextBatch returns the next batch, which is valid until the next call.
func (r *rollReader) nextBatch() rollBatch {
	if r.ahead == nil {
		return r.read()
	}
	next := <-r.ahead
	if next.err != nil || next.n == 0 {
		r.ahead <- next
		return next
	}
	// What was handed over before is the space of what is read from here on.
	spare := r.vectors
	if spare == nil {
		spare = make([]vector, len(next.vectors))
	}
	for i := range spare {
		c := &r.numbers.layout.columns[i]
		spare[i].texts = next.vectors[i].texts
		if c.coded {
			spare[i].numbers = next.vectors[i].numbers
		}
	}
	r.numbers.vectors = spare
	r.readNext()
	return next
}

func (r *rollReader) readNext() { go func() { r.ahead <- r.read() }() }

// readAhead has readers that were not read from read the batch after the one that
// is at hand, all at the same time.
func readAhead(all []*rollReader) {
	for _, r := range all {
		done := r.done
		r.ahead = make(chan rollBatch, 1)
		r.done = func() {
			<-r.ahead // or it would read from a file that is closed
			done()
		}
		r.readNext()
	}
}

// nextRun goes on to the next rolls of one tuple, at least one of which counts;
// it reports whether there are any. A tuple may have several runs. Of the roll
// that it is at, only the tuple is set.
func (r *rollReader) nextRun() (bool, error) {
	for {
		if more, err := r.fill(); err != nil || !more {
			return false, err
		}
		codes, hours := r.vectors[rollTuple].codes[:r.n], r.vectors[rollHour].codes[:r.n]
		code := codes[r.i]
		r.at = r.i
		for r.i++; r.i < len(codes) && codes[r.i] == code; {
			r.i++
		}
		for !r.allKnown && r.at < r.i && !r.known[hours[r.at]] {
			r.at++
		}
		if r.at < r.i {
			r.now.id = uint64(r.vectors[rollTuple].numbers[code])
			return true, nil
		}
	}
}

// runOf calls take for the places in the batch of the run's rolls that count.
func (r *rollReader) runOf(take func(i int)) {
	hours := r.vectors[rollHour].codes[:r.i]
	for i := r.at; i < len(hours); i++ {
		if r.allKnown || r.known[hours[i]] {
			take(i)
		}
	}
}

func (r *rollReader) newWords() error {
	var errs [2]error
	r.verdicts, errs[0] = each(r.vectors[rollVerdict].texts, flowrow.ParseVerdict)
	r.reporters, errs[1] = each(r.vectors[rollReporter].texts, policies.ParseReporter)
	for _, err := range errs {
		if err != nil {
			return r.numbers.damage(err)
		}
	}
	r.verdictKeys, r.reporterKeys, r.egressKeys = r.verdictKeys[:0], r.reporterKeys[:0], r.egressKeys[:0]
	for _, v := range r.verdicts {
		r.verdictKeys = append(r.verdictKeys, sideKey(0, v, false))
	}
	for _, from := range r.reporters {
		r.reporterKeys = append(r.reporterKeys, sideKey(from, 0, false))
	}
	for _, set := range r.vectors[rollEgressOnly].numbers {
		r.egressKeys = append(r.egressKeys, sideKey(0, 0, set != 0))
	}
	r.known, r.hours, r.allKnown = r.known[:0], r.hours[:0], true
	for _, hour := range r.vectors[rollHour].numbers {
		known := r.valid == nil || r.valid(hour)
		r.known, r.hours = append(r.known, known), append(r.hours, flowrow.HourOf(hour)/flowrow.HourMicros)
		r.allKnown = r.allKnown && known
	}
	return nil
}

// seekEnds reads the columns that say who the tuple is of the roll that it is at.
func (r *rollReader) seekEnds() error {
	if r.ends == nil {
		var wanted []int
		for i := rollProtocol; i < rollByHour; i++ {
			wanted = append(wanted, i)
		}
		var err error
		if r.ends, err = newGroupReader(r.numbers.blob, r.numbers.layout, wanted); err != nil {
			return err
		}
	}
	if err := r.ends.seek(r.first + int64(r.at)); err != nil {
		return err
	}
	_, err := r.ends.readUpTo(1)
	return err
}

// roll returns the roll that it is at, with its ends in the reader's table.
func (r *rollReader) roll() (*roll, error) {
	ips := [2]int32{r.vectors[rollSource+flowrow.IP].codes[r.at], r.vectors[rollTarget+flowrow.IP].codes[r.at]}
	if r.ends != nil && r.ends.at == r.group && r.ended.id == r.now.id && r.ips == ips {
		r.now.from, r.now.to, r.now.port, r.now.protocol = r.ended.from, r.ended.to, r.ended.port, r.ended.protocol
		return &r.now, nil
	}
	group := -1
	if r.ends != nil {
		group = r.ends.at
	}
	if err := r.seekEnds(); err != nil {
		return nil, err
	}
	if group != r.ends.at {
		r.table, r.source, r.target = newTable(), newEndReader(), newEndReader()
	}
	v := r.ends.vectors
	r.now.from = r.source.of(r.table, v[rollSource:rollTarget], 0)
	r.now.to = r.target.of(r.table, v[rollTarget:rollByHour], 0)
	r.now.port = uint16(v[rollPort].numbers[v[rollPort].codes[0]])
	var err error
	if r.now.protocol, err = flowrow.ParseProtocol(v[rollProtocol].texts[v[rollProtocol].codes[0]]); err != nil {
		return nil, r.ends.damage(err)
	}
	r.ended, r.ips = r.now, ips
	return &r.now, nil
}

// mergeTuples calls take with the reader that is at the next run in the order of
// tuples; those of one tuple come in the order of the readers.
func mergeTuples(ctx context.Context, all []*rollReader, take func(*rollReader) error) error {
	return merge(ctx, all, (*rollReader).nextRun, func(a, b *rollReader) int { return cmp.Compare(a.now.id, b.now.id) }, take)
}

// mergeRolls calls take with the reader that is at the next roll in order.
func mergeRolls(ctx context.Context, all []*rollReader, take func(*rollReader) error) error {
	return merge(ctx, all, (*rollReader).next, func(a, b *rollReader) int { return compareRolls(&a.now, &b.now) }, take)
}

var errDisorder = errors.New("it is damaged: its tuples are not in order")

// merge calls take with the reader that stands first, and has it step on. Of those
// that stand at the same place, readers come in their order.
func merge(ctx context.Context, all []*rollReader, step func(*rollReader) (bool, error), compare func(a, b *rollReader) int, take func(*rollReader) error) error {
	type place struct {
		*rollReader
		of int
	}
	order := func(a, b place) int { return cmp.Or(compare(a.rollReader, b.rollReader), cmp.Compare(a.of, b.of)) }
	var live []place
	for i, r := range all {
		more, err := step(r)
		if err != nil {
			return err
		}
		if more {
			live = append(live, place{r, i})
		}
	}
	slices.SortFunc(live, order)
	for steps := 0; len(live) > 0; steps++ {
		if steps%batchRows == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		r := live[0]
		if err := take(r.rollReader); err != nil {
			return err
		}
		before := r.now.id
		more, err := step(r.rollReader)
		if err != nil {
			return err
		}
		if !more {
			live = live[1:]
			continue
		}
		if r.now.id < before {
			return r.numbers.damage(errDisorder)
		}
		if len(live) == 1 || order(r, live[1]) <= 0 {
			continue
		}
		at, _ := slices.BinarySearchFunc(live[1:], r, order)
		copy(live, live[1:1+at])
		live[at] = r
	}
	return nil
}
