package flowstore

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"sort"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/cespare/xxhash/v2"

	"github.com/weir-policy/weir/simulator/bitrun"
)

// batchRows is how many rows are decoded at a time.
const batchRows = 4096

// groupReader reads columns of a file, batch by batch.
type groupReader struct {
	blob    blob
	layout  *layout
	file    *file.Reader
	wanted  []int
	at      int   // the row group that is read
	left    int64 // rows of it that are not yet read
	cursors []*cursor
	vectors []vector // those of wanted columns hold the last batch
	firsts  []int64  // the first row of each row group, and the end
	sums    []byte
	buffer  []byte
}

// newGroupReader reads the wanted columns of a file, or all where wanted is nil.
func newGroupReader(b blob, l *layout, wanted []int) (g *groupReader, err error) {
	g = &groupReader{blob: b, layout: l, wanted: wanted, at: -1, cursors: make([]*cursor, len(l.columns)), vectors: make([]vector, len(l.columns))}
	if wanted == nil {
		for i := range l.columns {
			g.wanted = append(g.wanted, i)
		}
	}
	defer g.recovered(&err)
	props := parquet.NewReaderProperties(memory.DefaultAllocator)
	props.BufferedStreamEnabled, props.BufferSize = true, 1<<16
	if g.file, err = file.NewParquetReader(io.NewSectionReader(b, 0, b.size()), file.WithReadProps(props)); err != nil {
		return nil, g.damage(fmt.Errorf("it is damaged, or no Parquet file: %w", err))
	}
	if err := l.checkSchema(g.file.MetaData().Schema); err != nil {
		return nil, g.damage(err)
	}
	return g, nil
}

// recovered turns what a damaged file made the library do into an error.
func (g *groupReader) recovered(err *error) {
	if r := recover(); r != nil {
		*err = g.damage(fmt.Errorf("it is damaged (%v)", r))
	}
}

func (g *groupReader) total() int64 { return g.file.NumRows() }

// nextGroup goes on to the next row group; it reports whether there is one.
func (g *groupReader) nextGroup() (bool, error) {
	g.at++
	if g.at >= g.file.NumRowGroups() {
		return false, nil
	}
	group := g.file.RowGroup(g.at)
	g.left = group.NumRows()
	for _, i := range g.wanted {
		if err := g.checkSum(i); err != nil {
			return false, g.damageIn(i, err)
		}
		pages, err := group.GetColumnPageReader(i)
		if err != nil {
			return false, g.damage(err)
		}
		pages.SetMaxPageHeaderSize(1 << 20)
		c := &cursor{column: &g.layout.columns[i], pages: pages}
		if err := c.readDictionary(); err != nil {
			return false, g.damageIn(i, err)
		}
		g.cursors[i] = c
		g.vectors[i].texts, g.vectors[i].numbers = c.texts, c.numbers
	}
	return true, nil
}

// checkSum compares a column of the row group with its sum: what is not
// compressed may be damaged without anybody's noticing.
func (g *groupReader) checkSum(column int) error {
	at := g.at*len(g.layout.columns) + column
	if g.sums == nil {
		value := g.file.MetaData().KeyValueMetadata().FindValue(sumsKey)
		if value == nil || len(*value) != 16*len(g.layout.columns)*g.file.NumRowGroups() {
			return errors.New("the file has no sums of its columns")
		}
		sums, err := hex.DecodeString(*value)
		if err != nil {
			return fmt.Errorf("sums of columns: %w", err)
		}
		g.sums = sums
	}
	chunk, err := g.file.MetaData().RowGroup(g.at).ColumnChunk(column)
	if err != nil {
		return err
	}
	first := chunk.DataPageOffset()
	if chunk.HasDictionaryPage() {
		first = chunk.DictionaryPageOffset()
	}
	sum := xxhash.New()
	if g.buffer == nil {
		g.buffer = make([]byte, 1<<18)
	}
	if _, err := io.CopyBuffer(sum, io.NewSectionReader(g.blob, first, chunk.TotalCompressedSize()), g.buffer); err != nil {
		return err
	}
	if sum.Sum64() != binary.BigEndian.Uint64(g.sums[8*at:]) {
		return errors.New("its sum is wrong: it was changed")
	}
	return nil
}

func (g *groupReader) damageIn(column int, err error) error {
	return g.damage(fmt.Errorf("it is damaged in column %s of row group %d: %w", g.layout.columns[column].name, g.at, err))
}

// read decodes the next batch of one row group into vectors, and returns how
// many rows that is; 0 at the end.
func (g *groupReader) read() (int, error) { return g.readUpTo(batchRows) }

func (g *groupReader) readUpTo(most int64) (n int, err error) {
	defer g.recovered(&err)
	for g.left == 0 {
		more, err := g.nextGroup()
		if err != nil || !more {
			return 0, err
		}
	}
	n = int(min(most, batchRows, g.left))
	for _, i := range g.wanted {
		if err := g.fill(i, n); err != nil {
			return 0, err
		}
	}
	g.left -= int64(n)
	return n, nil
}

// fill decodes the next n values of a column.
func (g *groupReader) fill(column, n int) error {
	c, v := g.cursors[column], &g.vectors[column]
	if c.column.coded {
		v.codes = resize(v.codes, n)
		if err := c.readCodes(v.codes); err != nil {
			return g.damageIn(column, err)
		}
		return nil
	}
	if c.column.bytes {
		v.bytes, v.ends = v.bytes[:0], v.ends[:0]
		if err := c.readBytes(v, n); err != nil {
			return g.damageIn(column, err)
		}
		return nil
	}
	v.numbers = resize(v.numbers, n)
	if err := c.readNumbers(v.numbers); err != nil {
		return g.damageIn(column, err)
	}
	return nil
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n, max(n, batchRows))
	}
	return s[:n]
}

// seek goes to a row of the file, counted from 0.
func (g *groupReader) seek(row int64) (err error) {
	defer g.recovered(&err)
	if g.firsts == nil {
		g.firsts = []int64{0}
		for i := range g.file.NumRowGroups() {
			g.firsts = append(g.firsts, g.firsts[i]+g.file.MetaData().RowGroup(i).NumRows())
		}
	}
	if row < 0 || row >= g.firsts[len(g.firsts)-1] {
		return g.damage(fmt.Errorf("it has no row %d", row))
	}
	i := sort.Search(len(g.firsts), func(i int) bool { return g.firsts[i] > row }) - 1
	if g.at != i {
		g.at = i - 1
		if _, err := g.nextGroup(); err != nil {
			return err
		}
	}
	return g.seekInGroup(row - g.firsts[i])
}

func (g *groupReader) seekInGroup(row int64) error {
	total := g.firsts[g.at+1] - g.firsts[g.at]
	at := total - g.left
	for _, i := range g.wanted {
		c := g.cursors[i]
		var err error
		if row >= at && row-at <= int64(c.left) {
			err = c.skip(int(row - at))
		} else {
			err = c.seek(row)
		}
		if err != nil {
			return g.damageIn(i, err)
		}
	}
	g.left = total - row
	return nil
}

// cursor reads one column of a row group.
type cursor struct {
	column  *column
	pages   file.PageReader
	texts   []string
	numbers []int64
	left    int    // values of the page that is read that are not yet read
	data    []byte // their encoded form
	runs    bitrun.Reader
	steps   steps
}

var errEnds = errors.New("it ends before its last value")

func (c *cursor) readDictionary() error {
	if !c.column.coded {
		return nil
	}
	if !c.pages.Next() && c.pages.Err() != nil {
		return c.pages.Err()
	}
	page, ok := c.pages.Page().(*file.DictionaryPage)
	if !ok {
		return errors.New("it has no dictionary")
	}
	data, n := page.Data(), int(page.NumValues())
	if c.column.text {
		return c.readTexts(data, n)
	}
	if len(data) != 8*n {
		return fmt.Errorf("its dictionary of %d numbers has %d bytes", n, len(data))
	}
	c.numbers = make([]int64, n)
	for i := range c.numbers {
		c.numbers[i] = int64(binary.LittleEndian.Uint64(data[8*i:]))
	}
	return nil
}

func (c *cursor) readTexts(data []byte, n int) error {
	c.texts = make([]string, 0, min(n, len(data)/4))
	for at := 0; len(c.texts) < n; {
		if len(data)-at < 4 {
			return errors.New("its dictionary ends early")
		}
		size := int(binary.LittleEndian.Uint32(data[at:]))
		if at += 4; size < 0 || size > len(data)-at {
			return errors.New("its dictionary ends early")
		}
		c.texts = append(c.texts, string(data[at:at+size])) // by itself: one that is kept must not keep them all
		at += size
	}
	return nil
}

// entries returns how many values the dictionary has.
func (c *cursor) entries() int {
	if c.column.text {
		return len(c.texts)
	}
	return len(c.numbers)
}

// nextPage reads the next page.
func (c *cursor) nextPage() error {
	if !c.pages.Next() {
		if err := c.pages.Err(); err != nil {
			return err
		}
		return errEnds
	}
	return c.open()
}

// open begins with the page that the page reader is at.
func (c *cursor) open() error {
	page, ok := c.pages.Page().(file.DataPage)
	if !ok {
		return errEnds
	}
	c.left, c.data = int(page.NumValues()), page.Data()
	if c.column.steps {
		if parquet.Encoding(page.Encoding()) != parquet.Encodings.DeltaBinaryPacked {
			return fmt.Errorf("a page is encoded as %s", page.Encoding())
		}
		return c.steps.open(c.data, c.left)
	}
	if c.column.bytes {
		if page.Encoding() != 0 {
			return fmt.Errorf("a page is encoded as %s", page.Encoding())
		}
		return nil
	}
	if !c.column.coded {
		if page.Encoding() != 0 || len(c.data) != 8*c.left {
			return fmt.Errorf("a page of %d numbers has %d bytes", c.left, len(c.data))
		}
		return nil
	}
	if parquet.Encoding(page.Encoding()) != parquet.Encodings.RLEDict && parquet.Encoding(page.Encoding()) != parquet.Encodings.PlainDict {
		return fmt.Errorf("a page is encoded as %s", page.Encoding())
	}
	if len(c.data) == 0 || c.data[0] > bitrun.MaxWidth {
		return errors.New("a page has no width")
	}
	c.runs = bitrun.New(c.data[1:], int(c.data[0]))
	return nil
}

func (c *cursor) readNumbers(to []int64) error {
	for len(to) > 0 {
		if c.left == 0 {
			if err := c.nextPage(); err != nil {
				return err
			}
			continue
		}
		n := min(len(to), c.left)
		if c.column.steps {
			if !c.steps.read(to[:n]) {
				return errEnds
			}
			to = to[n:]
			c.left -= n
			continue
		}
		for i := range to[:n] {
			to[i] = int64(binary.LittleEndian.Uint64(c.data[8*i:]))
		}
		c.data, to = c.data[8*n:], to[n:]
		c.left -= n
	}
	return nil
}

// readBytes appends the next n values to a vector.
func (c *cursor) readBytes(to *vector, n int) error {
	for ; n > 0; n-- {
		for c.left == 0 {
			if err := c.nextPage(); err != nil {
				return err
			}
		}
		value, err := c.nextBytes()
		if err != nil {
			return err
		}
		to.bytes = append(to.bytes, value...)
		to.ends = append(to.ends, int32(len(to.bytes)))
		c.left--
	}
	return nil
}

func (c *cursor) nextBytes() ([]byte, error) {
	if len(c.data) < 4 {
		return nil, errEnds
	}
	size := uint64(binary.LittleEndian.Uint32(c.data))
	if size > uint64(len(c.data)-4) {
		return nil, errEnds
	}
	value := c.data[4 : 4+size]
	c.data = c.data[4+size:]
	return value, nil
}

func (c *cursor) readCodes(to []int32) error {
	entries := int32(c.entries())
	for len(to) > 0 {
		if c.left == 0 {
			if err := c.nextPage(); err != nil {
				return err
			}
			continue
		}
		n := min(len(to), c.left)
		if !c.runs.Read(to[:n]) {
			return errEnds
		}
		beyond := int32(0) // negative where a code is; no code is negative
		for _, code := range to[:n] {
			beyond |= entries - 1 - code
		}
		if beyond < 0 {
			return fmt.Errorf("code %d is not in its dictionary of %d", slices.Max(to[:n]), entries)
		}
		to = to[n:]
		c.left -= n
	}
	return nil
}

func (c *cursor) skip(n int) error {
	for n > 0 {
		if c.left == 0 {
			if err := c.nextPage(); err != nil {
				return err
			}
			continue
		}
		m := min(n, c.left)
		switch {
		case c.column.bytes:
			for range m {
				if _, err := c.nextBytes(); err != nil {
					return err
				}
			}
		case c.column.steps:
			if !c.steps.skip(m) {
				return errEnds
			}
		case !c.column.coded:
			c.data = c.data[8*m:]
		case !c.runs.Skip(m):
			return errEnds
		}
		c.left -= m
		n -= m
	}
	return nil
}

// seek goes to a row of the row group, by the index of its pages.
func (c *cursor) seek(row int64) error {
	if err := c.pages.SeekToPageWithRow(row); err != nil {
		return err
	}
	page, ok := c.pages.Page().(interface{ FirstRowIndex() int64 })
	if !ok {
		return errEnds
	}
	if err := c.open(); err != nil {
		return err
	}
	return c.skip(int(row - page.FirstRowIndex()))
}

// steps reads what Parquet calls binary packed deltas: blocks of small parts,
// each of which has the differences of neighbours in as many bits as the largest
// of them needs.
type steps struct {
	data   []byte
	size   int    // of a part
	parts  int    // of a block
	widths []byte // of the parts of the block that are not yet read
	least  int64  // what all differences of the block have in common
	last   int64
	ready  []int64 // values that are not yet read
	buffer []int64
}

var errSteps = errors.New("a page of differences has no sensible header")

func (s *steps) open(data []byte, values int) error {
	var header [3]uint64
	for i := range header {
		n := 0
		if header[i], n = binary.Uvarint(data); n <= 0 {
			return errSteps
		}
		data = data[n:]
	}
	first, n := binary.Varint(data)
	block, parts := header[0], header[1]
	if n <= 0 || parts == 0 || block > 1<<16 || parts > block/32 || block%(32*parts) != 0 || header[2] != uint64(values) {
		return errSteps
	}
	s.data, s.size, s.parts, s.widths, s.last = data[n:], int(block/parts), int(parts), nil, first
	s.buffer = append(s.buffer[:0], first)
	s.ready = s.buffer
	return nil
}

func (s *steps) read(to []int64) bool {
	for len(to) > 0 {
		if len(s.ready) > 0 {
			n := copy(to, s.ready)
			s.ready, to = s.ready[n:], to[n:]
			continue
		}
		if len(to) >= s.size {
			if !s.next(to[:s.size]) {
				return false
			}
			to = to[s.size:]
			continue
		}
		s.buffer = resize(s.buffer, s.size)
		if !s.next(s.buffer) {
			return false
		}
		s.ready = s.buffer
	}
	return true
}

func (s *steps) skip(n int) bool {
	for n > 0 {
		if len(s.ready) == 0 {
			s.buffer = resize(s.buffer, s.size)
			if !s.next(s.buffer) {
				return false
			}
			s.ready = s.buffer
		}
		m := min(n, len(s.ready))
		s.ready = s.ready[m:]
		n -= m
	}
	return true
}

// next decodes a part.
func (s *steps) next(to []int64) bool {
	if len(s.widths) == 0 {
		least, n := binary.Varint(s.data)
		if n <= 0 || len(s.data) < n+s.parts {
			return false
		}
		s.least, s.widths, s.data = least, s.data[n:n+s.parts], s.data[n+s.parts:]
	}
	width := int(s.widths[0])
	s.widths = s.widths[1:]
	size := width * len(to) / 8
	if width > 64 || len(s.data) < size {
		return false
	}
	last, least, data := s.last, s.least, s.data
	s.data = data[size:]
	// Eight bytes and seven bits hold the widest but a few.
	fast := 0
	if width <= 57 && len(data) >= 8 {
		fast = len(to)
		if width > 0 {
			fast = min(fast, ((len(data)-8)*8)/width)
		}
	}
	mask, bit := uint64(1)<<width-1, 0
	for i := range to[:fast] {
		last += least + int64(binary.LittleEndian.Uint64(data[bit>>3:])>>(bit&7)&mask)
		to[i] = last
		bit += width
	}
	for i := range to[fast:] {
		var step uint64
		for b := range width {
			at := bit + b
			step |= uint64(data[at>>3]>>(at&7)&1) << b
		}
		last += least + int64(step)
		to[fast+i] = last
		bit += width
	}
	s.last = last
	return true
}
