package flowlog

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"

	"github.com/weir-policy/weir/simulator/bitrun"
)

// chunk reads one column of a row group: texts as the numbers that they are known
// by, and numbers as they are. What is null is the text "" or the number 0.
type chunk struct {
	*tableColumn
	pages file.PageReader        // either
	typed file.ColumnChunkReader // or, where pages are encoded in other ways

	counts bool // the file says that all numbers are sound
	at     int  // the next row, where only some are read

	texts   *vocabulary
	coded   []int32 // the dictionary of texts; up to its capacity, a power of two, are words that are none
	values  []int64 // that of numbers
	codes   []int32 // of the batch, unless isAhead
	numbers []int64 // of the batch
	isAhead bool    // the batch's texts are still to be read from runs, by pack or settle

	left    int // rows of the page that are not yet read
	data    []byte
	isCoded bool
	runs    bitrun.Reader // of the codes
	levels  bitrun.Reader // of what is not null
	present []int32
}

// close gives the memory of pages back.
func (k *chunk) close() {
	if k.pages != nil {
		_ = k.pages.Close() // which never fails
	}
}

// pageMemory is memory for pages of one row group after the other, and never more
// pieces than were in use at a time.
type pageMemory struct {
	memory.GoAllocator
	free [][]byte
}

func (m *pageMemory) Allocate(size int) []byte {
	bySize := func(a, b []byte) int { return cmp.Compare(cap(a), cap(b)) }
	slices.SortFunc(m.free, bySize)
	for i, b := range m.free {
		if cap(b) >= size {
			m.free = slices.Delete(m.free, i, i+1)
			return b[:size]
		}
	}
	m.free = m.free[:max(1, len(m.free))-1]
	return m.GoAllocator.Allocate(size)
}

func (m *pageMemory) Reallocate(size int, b []byte) []byte {
	if cap(b) >= size {
		return b[:size]
	}
	larger := m.Allocate(size)
	copy(larger, b)
	m.Free(b)
	return larger
}

func (m *pageMemory) Free(b []byte) { m.free = append(m.free, b) }

// isOrdinary reports whether a column chunk has only pages that chunk reads itself.
func isOrdinary(encodings []parquet.Encoding, optional bool) bool {
	return !slices.ContainsFunc(encodings, func(e parquet.Encoding) bool {
		switch e {
		case parquet.Encodings.Plain, parquet.Encodings.PlainDict, parquet.Encodings.RLEDict, parquet.Encodings.RLE:
			return false
		case parquet.Encodings.BitPacked: // old writers name it for levels that are not there
			return optional
		}
		return true
	})
}

// newChunk reads a column of a row group; of texts, as texts has them.
func newChunk(c *tableColumn, g *file.RowGroupReader, texts *vocabulary) (*chunk, error) {
	meta, err := g.MetaData().ColumnChunk(c.index)
	if err != nil {
		return nil, err
	}
	k := &chunk{tableColumn: c, texts: texts}
	if !isOrdinary(meta.Encodings(), c.optional) {
		k.typed, err = g.Column(c.index)
		return k, err
	}
	if k.pages, err = g.GetColumnPageReader(c.index); err != nil {
		return nil, err
	}
	_, most, _, are := c.bounds(meta)
	k.counts = are && most <= c.field.most
	if meta.HasDictionaryPage() {
		err = k.nextPage()
	}
	return k, err
}

var errShort = errors.New("it ends before its last value")

// nextPage reads the next page.
func (k *chunk) nextPage() error {
	if !k.pages.Next() {
		if err := k.pages.Err(); err != nil {
			return err
		}
		return errShort
	}
	var skip int
	data := k.pages.Page().Data()
	switch page := k.pages.Page().(type) {
	case *file.DictionaryPage:
		return k.readDictionary(data, int(page.NumValues()))
	case *file.DataPageV1:
		if k.optional {
			if len(data) < 4 || page.DefinitionLevelEncoding() != parquet.Encodings.RLE {
				return errShort
			}
			skip = int(binary.LittleEndian.Uint32(data))
			data = data[4:]
		}
	case *file.DataPageV2:
		if page.RepetitionLevelByteLen() != 0 {
			return errShort
		}
		skip = int(page.DefinitionLevelByteLen())
	default:
		return k.nextPage()
	}
	page := k.pages.Page()
	if skip < 0 || skip > len(data) || page.NumValues() < 0 {
		return errShort
	}
	k.left, k.levels, k.data = int(page.NumValues()), bitrun.New(data[:skip], 1), data[skip:]
	switch e := parquet.Encoding(page.Encoding()); e {
	case parquet.Encodings.Plain:
		k.isCoded = false
	case parquet.Encodings.PlainDict, parquet.Encodings.RLEDict:
		k.isCoded = true
		if len(k.data) == 0 {
			k.data = []byte{0} // of nulls alone
		}
		if k.data[0] > bitrun.MaxWidth {
			return errors.New("a page has no sensible width")
		}
		k.runs = bitrun.New(k.data[1:], int(k.data[0]))
	default:
		return fmt.Errorf("a page is encoded as %s", e)
	}
	return nil
}

func (k *chunk) readDictionary(data []byte, n int) error {
	switch {
	case len(k.coded)+len(k.values) > 0:
		return errors.New("it has two dictionaries")
	case n < 0 || n > len(data) || k.isNumber() && n > len(data)/k.width():
		return errors.New("its dictionary ends early")
	case k.isNumber():
		k.values = make([]int64, n)
		k.plainNumbers(k.values, data)
		return nil
	}
	k.coded = make([]int32, n, 1<<bits.Len(uint(max(1, n)-1)))
	for i := n; i < cap(k.coded); i++ {
		k.coded[:i+1][i] = noText
	}
	for i := range k.coded {
		text, rest, err := k.plainText(data)
		if err != nil {
			return errors.New("its dictionary ends early")
		}
		k.coded[i], data = k.texts.number(text), rest
	}
	return nil
}

func (k *chunk) width() int {
	if k.kind == parquet.Types.Int32 {
		return 4
	}
	return 8
}

// plainNumbers reads numbers and returns the data behind them.
func (k *chunk) plainNumbers(to []int64, data []byte) []byte {
	if k.kind == parquet.Types.Int32 {
		for i := range to {
			to[i] = int64(int32(binary.LittleEndian.Uint32(data[4*i:])))
		}
		return data[4*len(to):]
	}
	for i := range to {
		to[i] = int64(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return data[8*len(to):]
}

// plainText reads a text, and returns the data behind it.
func (k *chunk) plainText(data []byte) (text, rest []byte, err error) {
	size := k.size
	if k.kind == parquet.Types.ByteArray {
		if len(data) < 4 {
			return nil, nil, errShort
		}
		size = int(binary.LittleEndian.Uint32(data))
		data = data[4:]
	}
	if size < 0 || size > len(data) {
		return nil, nil, errShort
	}
	return data[:size:size], data[size:], nil
}

// noText is in the place of a text that a dictionary does not have. As part of a
// number that texts are packed into, it makes that negative.
const noText = -1

// fill reads a batch of n rows. Texts that are all of one page wait for pack, or for
// settle.
func (k *chunk) fill(n int) error {
	if k.isNumber() {
		k.numbers = slices.Grow(k.numbers[:0], n)[:n]
	} else {
		k.codes = slices.Grow(k.codes[:0], n)[:n]
	}
	if k.typed != nil {
		return k.fillTyped(n)
	}
	for at := 0; at < n; {
		if k.left == 0 {
			if err := k.nextPage(); err != nil {
				return err
			}
			continue
		}
		m := min(n-at, k.left)
		if err := k.fillFrom(at, m); err != nil {
			return err
		}
		k.left -= m
		at += m
	}
	return nil
}

// fillFrom reads m rows of the page at hand to a place in the batch.
func (k *chunk) fillFrom(at, m int) error {
	there, err := k.countPresent(m)
	if err != nil {
		return err
	}
	if k.isNumber() {
		to := k.numbers[at : at+there]
		if err := k.readNumbers(to); err != nil {
			return err
		}
		spread(k.numbers[at:at+m], there, k.present)
		return nil
	}
	if k.isAhead = there == len(k.codes) && k.isCoded && k.runs.Fits(cap(k.coded)); k.isAhead {
		return nil
	}
	if err := k.readTexts(k.codes[at : at+there]); err != nil {
		return err
	}
	spread(k.codes[at:at+m], there, k.present)
	return nil
}

// spread moves values that stand at the beginning to where rows have one; the
// others are 0.
func spread[T int32 | int64](to []T, there int, present []int32) {
	if there == len(to) {
		return
	}
	for i := len(to) - 1; i >= 0; i-- {
		if present[i] == 0 {
			to[i] = 0
			continue
		}
		there--
		to[i] = to[there]
	}
}

var errCode = errors.New("a code is not in its dictionary")

func (k *chunk) readNumbers(to []int64) error {
	if !k.isCoded {
		if len(k.data) < len(to)*k.width() {
			return errShort
		}
		k.data = k.plainNumbers(to, k.data)
		return nil
	}
	k.codes = slices.Grow(k.codes[:0], len(to))[:len(to)]
	if !k.runs.Read(k.codes) {
		return errShort
	}
	values := k.values
	for i, code := range k.codes {
		if uint(code) >= uint(len(values)) {
			return errCode
		}
		to[i] = values[code]
	}
	return nil
}

func (k *chunk) readTexts(to []int32) error {
	if !k.isCoded {
		for i := range to {
			text, rest, err := k.plainText(k.data)
			if err != nil {
				return err
			}
			k.data = rest
			to[i] = k.texts.number(text)
		}
		return nil
	}
	if !k.runs.Read(to) {
		return errShort
	}
	coded := k.coded
	for i, code := range to {
		if uint(code) >= uint(len(coded)) {
			return errCode
		}
		to[i] = coded[code]
	}
	return nil
}

// settle reads the texts of the batch, if they wait.
func (k *chunk) settle() error {
	if !k.isAhead {
		return nil
	}
	k.isAhead = false
	return k.readTexts(k.codes)
}

// pack puts the texts of the batch into the rows' numbers, shifted by so many bits.
// Where one is not in its dictionary, the number becomes negative.
func (k *chunk) pack(rows []uint64, shift uint) error {
	if k.isAhead {
		if k.isAhead = false; !k.runs.Or(rows, k.coded[:cap(k.coded)], shift) {
			return errShort
		}
		return nil
	}
	for i, code := range k.codes[:len(rows)] {
		rows[i] |= uint64(code) << (shift & 63)
	}
	return nil
}

// fillTyped reads a batch as the library does.
func (k *chunk) fillTyped(n int) error {
	if err := k.tableColumn.fill(k.typed, n); err != nil {
		return err
	}
	for i := range n {
		v, there := k.next(i)
		switch {
		case k.isNumber():
			k.numbers[i] = v.number
		case there:
			k.codes[i] = k.texts.number(v.text)
		default:
			k.codes[i] = 0
		}
	}
	return nil
}

// bounds returns between which numbers all of a column chunk are, if the file says
// so and none is negative.
func (c *tableColumn) bounds(meta *metadata.ColumnChunkMetaData) (least, most int64, nulls, are bool) {
	if has, err := meta.StatsSet(); err != nil || !has || !c.isNumber() {
		return 0, 0, false, false
	}
	said, err := meta.Statistics()
	if err != nil || !said.HasMinMax() {
		return 0, 0, false, false
	}
	switch said := said.(type) {
	case *metadata.Int32Statistics:
		least, most = int64(said.Min()), int64(said.Max())
	case *metadata.Int64Statistics:
		least, most = said.Min(), said.Max()
	}
	return least, most, c.optional && (!said.HasNullCount() || said.NullCount() > 0), 0 <= least && least <= most
}

// moments returns between which moments, in nanoseconds since 1970, all of a
// column chunk of times are; the first and the last that there are, where the file
// does not say.
func (c *tableColumn) moments(meta *metadata.ColumnChunkMetaData) (first, last int64) {
	least, most, nulls, are := c.bounds(meta)
	unit := int64(cmp.Or(c.unit, unitBySize(least)))
	if !are || nulls || least == 0 || most >= noTime/unit || c.unit == 0 && unitBySize(least) != unitBySize(most) {
		return math.MinInt64, noTime
	}
	return least * unit, most * unit
}

// skip leaves out n rows.
func (k *chunk) skip(n int) error {
	for n > 0 {
		if k.left == 0 {
			if err := k.nextPage(); err != nil {
				return err
			}
			continue
		}
		m := min(n, k.left)
		there, err := k.countPresent(m)
		switch {
		case err != nil:
			return err
		case !k.isCoded && len(k.data) < there*k.width(), k.isCoded && !k.runs.Skip(there):
			return errShort
		case !k.isCoded:
			k.data = k.data[there*k.width():]
		}
		k.left -= m
		n -= m
	}
	return nil
}

// numberAt reads a batch of one row, not above those that it has read.
func (k *chunk) numberAt(row int) error {
	if row < k.at {
		return nil
	}
	err := k.skip(row - k.at)
	if err == nil {
		err = k.fill(1)
	}
	k.at = row + 1
	return err
}

// countPresent reads which of m rows of the page have a value.
func (k *chunk) countPresent(m int) (there int, err error) {
	if !k.optional {
		return m, nil
	}
	if level, are := k.levels.Same(m); are && level == 1 {
		return m, nil
	} else if are {
		k.present = slices.Grow(k.present[:0], m)[:m]
		clear(k.present)
		return 0, nil
	}
	k.present = slices.Grow(k.present[:0], m)[:m]
	if !k.levels.Read(k.present) {
		return 0, errShort
	}
	for _, level := range k.present {
		there += int(level)
	}
	return there, nil
}

// cell returns the value of a row of the batch.
func (k *chunk) cell(i int) cell {
	if k.isNumber() {
		return cell{number: k.numbers[i], unit: k.unit}
	}
	return cell{text: k.texts.text(k.codes[i]), isText: true}
}
