package flowlog

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"

	"github.com/weir-policy/weir/policies"
)

// sumRows is how many rows are in memory at a time: as many as are near the
// processor.
const sumRows = 1024

// sumTable reads a file for Sums.
type sumTable struct {
	*table
	*Sums
	chunks     []*chunk // but for those of which only some rows are read
	from, to   endColumns
	shapes     shapeColumns
	haveShapes bool // of the batch, all
	// Those that the file does not have are nil.
	start, end, port, count, bytes *chunk
	more                           [len(moreFields)]*chunk

	counts       []*chunk // numbers of which only negative and huge ones are wrong
	few          [len(moreFields)]*chunk
	wanted       []wantedRow // of few
	read         int         // rows of the group
	most         int         // ends to be kept
	file         int32
	times        [2][]int64
	began, ended []int64 // when the rows of the batch were; noTime and 0 where no time is there, -1 where that is hardly one
	none         []int64 // zeros
	onlySpan     bool    // only rows from since to before until are chosen
	since, until int64
	selfs        []uint64
	keys         []rowKey
	slots        []uint64
	numbers      []uint32 // of groups, as Sums.index has them
	seen         uint64
	asked        policies.Flow // of Taker.Together
}

// wantedRow is a row of a row group of which more is to be read.
type wantedRow struct {
	row   int
	line  int
	group uint32    // whose example it is
	alone *tableRow // or that goes by itself
}

func newSumTable(t *table, s *Sums) *sumTable {
	s.files = append(s.files, t.at.File)
	st := &sumTable{table: t, Sums: s, most: s.mostEnds, file: int32(len(s.files) - 1), none: make([]int64, sumRows)}
	st.onlySpan, st.since, st.until = s.isSpan(), nanos(s.Since), noTime
	if !s.Until.IsZero() {
		st.until = nanos(s.Until)
	}
	return st
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

// group reads a row group.
func (t *sumTable) group(g *file.RowGroupReader) error {
	if t.onlySpan && t.isElsewhere(g) {
		t.stats.Flows += uint64(g.NumRows())
		t.at.Line += int(g.NumRows())
		return nil
	}
	t.chunks, t.counts, t.wanted, t.read = nil, nil, t.wanted[:0], 0
	t.start, t.end, t.port, t.count, t.bytes = nil, nil, nil, nil, nil
	t.more, t.few = [len(moreFields)]*chunk{}, [len(moreFields)]*chunk{}
	t.from.columns, t.to.columns = [5]*chunk{}, [5]*chunk{}
	t.shapes.columns, t.shapes.number = [5]*chunk{}, nil
	var opened []*chunk
	defer func() {
		for _, k := range opened {
			k.close()
		}
	}()
	for _, c := range t.columns {
		k, err := newChunk(c, g, t.textsOf(c.field.name))
		if err != nil {
			return c.failed(err)
		}
		opened = append(opened, k)
		t.place(k)
	}
	err := t.rows(g)
	if err == nil {
		return t.readWanted()
	}
	_ = t.readWanted() // what is added up is whole as far as can be
	return err
}

// isElsewhere reports whether the file says that all rows of a row group are of
// another time than is asked for. That they are sound, nobody knows then.
func (t *sumTable) isElsewhere(g *file.RowGroupReader) bool {
	i := slices.IndexFunc(t.columns, func(c *tableColumn) bool { return c.field.name == "start" })
	if i < 0 {
		return false
	}
	meta, err := g.MetaData().ColumnChunk(t.columns[i].index)
	if err != nil {
		return false
	}
	first, last := t.columns[i].moments(meta)
	return last < t.since || first >= t.until
}

// textsOf returns those of a field.
func (t *sumTable) textsOf(field string) *vocabulary {
	for _, fields := range endFields {
		if i := slices.Index(fields[:], field); i >= 0 {
			return t.Sums.ends.texts[i]
		}
	}
	return t.others
}

func (t *sumTable) rows(g *file.RowGroupReader) error {
	for left := g.NumRows(); left > 0; {
		if t.stopped = t.ctx.Err(); t.stopped != nil {
			return nil
		}
		if err := t.makeRoom(); err != nil {
			return err
		}
		n := int(min(left, sumRows))
		for _, k := range t.chunks {
			if err := k.fill(n); err != nil {
				return k.failed(err)
			}
		}
		if err := t.batch(n); err != nil || t.stopped != nil {
			return err
		}
		left -= int64(n)
		t.read += n
	}
	return nil
}

// makeRoom hands over what was added up where that became much.
func (t *sumTable) makeRoom() error {
	ends := t.Sums.ends
	full := ends.size()+t.others.len() > t.most
	if !full && len(t.firsts)+2*sumRows <= t.mostGroups {
		return nil
	}
	if err := t.readWanted(); err != nil {
		return err
	}
	t.Flush()
	t.files, t.file = append(t.files, t.at.File), 0
	if full {
		t.forgetEnds()
		for _, k := range t.chunks {
			if k.texts == nil {
				continue
			}
			was := k.texts
			k.texts = t.textsOf(k.field.name)
			for i, number := range k.coded {
				k.coded[i] = k.texts.number(was.text(number))
			}
		}
		t.most = t.mostEnds + t.Sums.ends.size() + t.others.len()
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
				return k.failed(err)
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
		"verdict": &t.shapes.columns[0], "protocol": t.shapes.protocol(k),
	} {
		if k.field.name == name {
			*to = k
		}
	}
	switch k {
	case t.start, t.end, t.shapes.number, t.shapes.columns[0], t.shapes.columns[1]:
	default:
		if !k.counts {
			t.counts = append(t.counts, k)
		}
	}
}

// shapeColumns find the shapes of rows: of verdicts, and of protocols, which may be
// numbers.
type shapeColumns struct {
	packedTexts
	number *chunk
}

// protocol returns where the chunk of protocols is kept.
func (c *shapeColumns) protocol(k *chunk) **chunk {
	if k.isNumber() {
		return &c.number
	}
	return &c.columns[1]
}

// A key has bits for each text, and for each number of a protocol and that it is one.
const (
	shapeBits   = 7
	shapeNumber = 1 << (shapeBits + 8)
	shapeKeys   = shapeNumber << 2 // with one for the family
)

// find finds keys of n rows' shapes, and reports whether they could be made.
func (c *shapeColumns) find(n int, texts *vocabulary) (could bool, err error) {
	if texts.len() > 1<<shapeBits {
		return false, c.settle()
	}
	if err := c.pack(n, [5]uint{shapeBits, shapeBits}); err != nil {
		return false, err
	}
	wrong := uint64(0)
	if c.number != nil {
		for row, v := range c.number.numbers[:n] {
			c.keys[row] |= uint64(v)<<shapeBits | shapeNumber
			wrong |= uint64(v)
		}
		return wrong < 1<<8, nil
	}
	for _, key := range c.keys {
		wrong |= key
	}
	if int64(wrong) < 0 {
		return false, errCode
	}
	return true, nil
}

// shapeKey returns where a shape is known, if it is.
func shapeKey(key uint64, is6 uint64) uint64 { return (key<<1 | is6) & (shapeKeys - 1) }

// knownShapeOf returns the shape of a row.
func (t *sumTable) knownShapeOf(row int, is6 bool) int32 {
	if !t.haveShapes {
		return t.shapeOf(row, is6)
	}
	key := shapeKey(t.shapes.keys[row], 0)
	if is6 {
		key |= 1
	}
	if t.shapeKeys[key] == 0 {
		t.shapeKeys[key] = t.shapeOf(row, is6) + 1 // 0 where it is bad
	}
	return t.shapeKeys[key] - 1
}

func (t *sumTable) shapeOf(row int, is6 bool) int32 {
	var r tableRow
	var is shape
	t.shapes.tell(row)
	err := t.shapes.number.setAt(row, &r)
	for _, k := range t.shapes.columns {
		if err == nil {
			err = k.setAt(row, &r)
		}
	}
	if err == nil {
		is.verdict = cmp.Or(r.Verdict, policies.Unknown)
		is.protocol, err = r.protocolOf(is6)
	}
	if err != nil {
		return badShape
	}
	id, known := t.Sums.shapes[is]
	if !known {
		id = int32(len(t.shapeList))
		t.Sums.shapes[is] = id
		t.shapeList = append(t.shapeList, is)
	}
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
	for _, p := range []*packedTexts{&t.from.packedTexts, &t.to.packedTexts, &t.shapes.packedTexts} {
		p.tell(row)
	}
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
// 1970: 0 where there is none, and -1 where that is hardly one. It reports whether
// all are there.
func (t *sumTable) momentsOf(which int, k *chunk, n int) (moments []int64, areThere bool) {
	if k == nil {
		return t.none[:n], false
	}
	t.times[which] = resized(t.times[which], n)
	to, numbers := t.times[which], k.numbers[:n]
	unit := int64(cmp.Or(k.unit, unitBySize(numbers[0])))
	least, most := int64(math.MaxInt64), int64(0)
	for i, v := range numbers {
		to[i] = v * unit
		least, most = min(least, v), max(most, v)
	}
	if least > 0 && most < noTime/unit && (k.unit != 0 || unitBySize(least) == unitBySize(most)) {
		return to, true
	}
	for i, v := range numbers {
		unit := int64(cmp.Or(k.unit, unitBySize(v)))
		switch {
		case v <= 0:
			to[i] = 0
		case v >= noTime/unit:
			to[i] = -1
		default:
			to[i] = v * unit
		}
	}
	return to, false
}

// span finds when n rows were seen, where either time stands for both. It reports
// whether all that is sound.
func (t *sumTable) span(n int) (areSound bool) {
	starts, allStarts := t.momentsOf(0, t.start, n)
	if t.end == nil && allStarts {
		t.began, t.ended = starts, starts
		return true
	}
	ends, allEnds := t.momentsOf(1, t.end, n)
	if !allStarts || !allEnds {
		t.times[0], t.times[1] = resized(t.times[0], n), resized(t.times[1], n)
		for i := range n {
			start, end := cmp.Or(starts[i], ends[i]), cmp.Or(ends[i], starts[i])
			t.times[0][i], t.times[1][i] = cmp.Or(start, noTime), end
		}
		starts, ends = t.times[0], t.times[1]
	}
	wrong := int64(0)
	for i, start := range starts {
		end := ends[i]
		if start == noTime {
			end = noTime
		}
		window := end - start
		wrong |= start | window | (longest - window)
	}
	t.began, t.ended = starts, ends
	return wrong >= 0
}

const longest = maxWindowSeconds * int64(time.Second)

// areCounts reports whether no row of the batch has a number that is none.
func (t *sumTable) areCounts(n int) bool {
	for _, k := range t.counts {
		wrong, most := int64(0), k.field.most
		for _, v := range k.numbers[:n] {
			wrong |= v | (most - v)
		}
		if wrong < 0 {
			return false
		}
	}
	return true
}

// isSound reports whether a row's numbers are sound.
func (t *sumTable) isSound(row int) bool {
	start, end := t.began[row], t.ended[row]
	if start != noTime && (start < 0 || end < start || end-start > longest) {
		return false
	}
	return !slices.ContainsFunc(t.counts, func(k *chunk) bool { return k.numbers[row] < 0 || k.numbers[row] > k.field.most })
}

// numbersOf returns what n rows have in a column; zeros where there is none.
func (t *sumTable) numbersOf(k *chunk, n int) []int64 {
	if k == nil {
		return t.none[:n]
	}
	return k.numbers[:n]
}

// selfsOf returns restSelf for each of n rows of which both ends are one pod.
func (t *sumTable) selfsOf(n int) []uint64 {
	if t.from.columns[2] == nil || t.to.columns[2] == nil {
		if t.selfs == nil {
			t.selfs = make([]uint64, sumRows)
		}
		return t.selfs[:n]
	}
	t.selfs = resized(t.selfs, n)
	pods := t.Sums.ends.pods
	for i, from := range t.from.ids {
		t.selfs[i] = 0
		if pod := pods[from]; pod != 0 && pod == pods[t.to.ids[i]] {
			t.selfs[i] = restSelf
		}
	}
	return t.selfs
}

// batch adds up n rows. Those that are bad, or have times that are hardly any, go
// by themselves.
func (t *sumTable) batch(n int) (err error) {
	if err = t.Sums.ends.find(&t.from, n); err == nil {
		err = t.Sums.ends.find(&t.to, n)
	}
	if err == nil {
		t.haveShapes, err = t.shapes.find(n, t.others)
	}
	if err != nil {
		return err
	}
	areSound := t.span(n)
	areSound = t.areCounts(n) && areSound
	areSound = areSound && t.haveShapes
	areSound = areSound && (!t.onlySpan || t.areChosen())
	line := t.at.Line
	defer func() { t.at.Line = line + n }()
	if !areSound {
		t.selfsOf(n)
		for i := range n {
			if t.add(i, line+i+1); t.stopped != nil {
				return nil
			}
		}
		return nil
	}
	t.findKeys(n)
	counts, sizes, began, ended := t.numbersOf(t.count, n), t.numbersOf(t.bytes, n), t.began[:n], t.ended[:n]
	taken, keys, numbers := uint64(0), t.keys[:n], t.numbers[:n]
	for i := range keys {
		k, g := &keys[i], &t.groups[numbers[i]]
		if g.ends != k.ends || g.rest != k.rest {
			g = &t.groups[t.Sums.group(k.ends, k.rest)]
		}
		if start := began[i]; g.rest != 0 && (start > g.earliest || start == g.earliest && t.file == g.file) {
			g.flows += uint64(max(1, counts[i]))
			g.bytes += uint64(sizes[i])
			g.latest = max(g.latest, ended[i])
			taken++
			continue
		}
		if t.add(i, line+i+1); t.stopped != nil {
			break
		}
	}
	t.stats.Flows += taken
	return nil
}

// rowKey is the key of a row's group. Of rows that need a closer look, rest is 0.
type rowKey struct{ ends, rest uint64 }

// findKeys finds the keys of n sound rows, and what may be the numbers of their
// groups. It looks at those in loops that do nothing else, so that memory answers
// many at a time.
func (t *sumTable) findKeys(n int) {
	t.keys, t.slots, t.numbers = resized(t.keys, n), resized(t.slots, n), resized(t.numbers, n)
	from, to, shapes, known := t.from.sorts[:n], t.to.sorts[:n], t.shapes.keys[:n], (*[shapeKeys]int32)(t.shapeKeys)
	ports, selfs, keys, slots, numbers := t.numbersOf(t.port, n), t.selfsOf(n), t.keys[:n], t.slots[:n], t.numbers[:n]
	for i, source := range from {
		target := to[i]
		is := known[shapeKey(shapes[i], uint64(source)&1)] - 1
		k := rowKey{uint64(source)<<32 | uint64(target), uint64(ports[i]) | uint64(is)<<restShape | restUsed | selfs[i]}
		if source|target|is < 0 || source == target {
			k = rowKey{}
		}
		keys[i], slots[i] = k, hashOf(k.ends, k.rest)
	}
	index := t.index.slots
	mask := uint64(len(index) - 1)
	for i, hash := range slots {
		numbers[i], slots[i] = uint32(hash>>32), index[hash&mask]
	}
	for i, slot := range slots {
		number := uint32(slot)
		if slot>>32 != uint64(numbers[i]) {
			number = 0
		}
		numbers[i] = number
	}
	groups, seen := t.groups, uint64(0)
	for _, number := range numbers {
		seen |= groups[number].rest
	}
	t.seen = seen
}

// add adds up a row of any kind.
func (t *sumTable) add(i, line int) {
	t.at.Line = line
	from, to := t.from.ids[i], t.to.ids[i]
	source, target := &t.Sums.ends.all[from], &t.Sums.ends.all[to]
	is := t.knownShapeOf(i, source.is6)
	if source.isBad || target.isBad || is == badShape || !t.isSound(i) {
		t.alone(i)
		return
	}
	start := t.began[i]
	switch {
	case t.onlySpan && start == noTime:
		t.leaveOut(Untimed)
		return
	case t.onlySpan && !t.isChosen(start):
		t.stats.Flows++
		return
	}
	rest := uint64(t.numbersOf(t.port, i+1)[i]) | uint64(is)<<restShape | restUsed | t.selfs[i]
	sourceSort, targetSort, areSame := sortsAt(start, source, target)
	if areSame {
		rest |= restSame
	}
	g := t.groupOf(i, is, uint64(sourceSort)<<32|uint64(targetSort), rest)
	if g.file == apart {
		g = t.groupOf(i, is, uint64(from)<<32|uint64(to), rest|restEnds)
	}
	g.flows += uint64(max(1, t.numbersOf(t.count, i+1)[i]))
	g.bytes += uint64(t.numbersOf(t.bytes, i+1)[i])
	g.latest = max(g.latest, t.ended[i])
	t.stats.Flows++
}

func (t *sumTable) isChosen(start int64) bool { return t.since <= start && start < t.until }

// areChosen reports whether all rows of the batch are of the time asked for.
func (t *sumTable) areChosen() bool {
	return !slices.ContainsFunc(t.began, func(start int64) bool { return !t.isChosen(start) })
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

// groupOf returns the group of a row, which may be the first that it has.
func (t *sumTable) groupOf(row int, is int32, ends, rest uint64) *sumGroup {
	number, start := t.Sums.group(ends, rest), t.began[row]
	g := &t.groups[number]
	switch {
	case number == 0:
		first := t.soundRow(row, is)
		added := sumGroup{ends: ends, rest: rest, earliest: start, file: t.file}
		if rest&restEnds == 0 && (t.Sums.ends.all[first.from].isLoose || t.Sums.ends.all[first.to].isLoose) {
			if t.flowOf(&first, &t.asked); !t.Sums.to.Together(&t.asked) {
				added.earliest, added.file = noTime, apart
			}
		}
		number = t.begin(added, first)
	case g.file != apart && (start < g.earliest || start == g.earliest && g.file != t.file && t.at.File < t.files[g.file]):
		g.earliest, g.file, t.firsts[number] = start, t.file, t.soundRow(row, is)
	default:
		return g
	}
	t.wanted = append(t.wanted, wantedRow{row: t.read + row, line: t.at.Line, group: number})
	return &t.groups[number]
}

// soundRow returns a row of the batch of which all is known to be sound.
func (t *sumTable) soundRow(row int, is int32) sumRow {
	number := func(k *chunk) uint64 {
		if k == nil {
			return 0
		}
		return uint64(k.numbers[row])
	}
	r := sumRow{
		file: t.file, line: t.at.Line, from: t.from.ids[row], to: t.to.ids[row], shape: is,
		port: uint16(number(t.port)), start: t.began[row], end: t.ended[row], flows: max(1, number(t.count)), bytes: number(t.bytes),
	}
	for i, k := range t.more {
		if t.few[i] == nil {
			r.more[i] = number(k)
		}
	}
	return r
}
