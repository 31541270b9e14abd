package flowstore

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/cespare/xxhash/v2"

	"github.com/weir-policy/weir/simulator/flowrow"
)

// column is one column of a file. Texts are always in a dictionary, numbers
// where they are coded. Keys have no codec: packed codes hardly compress, and
// unpacking would cost more than reading them.
type column struct {
	name   string
	text   bool
	moment bool
	coded  bool
	key    bool
	steps  bool // stored as the differences of neighbours, without a codec
	bytes  bool // of any length, plain and without a codec
}

func text(name string) column   { return column{name: name, text: true, coded: true} }
func key(name string) column    { return column{name: name, text: true, coded: true, key: true} }
func code(name string) column   { return column{name: name, coded: true} }
func number(name string) column { return column{name: name} }
func moments(name string) column {
	return column{name: name, moment: true}
}

func (c column) asSteps() column {
	c.steps = true
	return c
}

func (c column) asKey() column {
	c.key = true
	return c
}

// vector is what one column has in some rows.
type vector struct {
	texts   []string // the dictionary of a text column
	numbers []int64  // the dictionary of a coded number column, else the values
	codes   []int32  // which of the dictionary the rows have
	bytes   []byte   // of all rows of a column of bytes, one after another
	ends    []int32  // where each row's bytes end
}

// bytesAt returns what a column of bytes has in a row.
func (v *vector) bytesAt(i int) []byte {
	first := int32(0)
	if i > 0 {
		first = v.ends[i-1]
	}
	return v.bytes[first:v.ends[i]]
}

// layout is the columns of a kind of file.
type layout struct {
	columns []column
	schema  *schema.GroupNode
	props   *parquet.WriterProperties
}

func newLayout(columns []column) *layout {
	l := &layout{columns: columns}
	var fields schema.FieldList
	properties := []parquet.WriterProperty{
		parquet.WithCreatedBy("weir"), parquet.WithVersion(parquet.V2_LATEST),
		parquet.WithDictionaryDefault(false), parquet.WithBatchSize(1 << 16), parquet.WithDataPageSize(1 << 20),
		parquet.WithCompression(compress.Codecs.Zstd), parquet.WithCompressionLevel(1), parquet.WithPageIndexEnabled(true),
	}
	for _, c := range columns {
		var node schema.Node
		switch {
		case c.text:
			node = schema.MustPrimitive(schema.NewPrimitiveNodeLogical(c.name, parquet.Repetitions.Required, schema.StringLogicalType{}, parquet.Types.ByteArray, 0, -1))
		case c.bytes:
			node = schema.NewByteArrayNode(c.name, parquet.Repetitions.Required, -1)
		case c.moment:
			node = schema.MustPrimitive(schema.NewPrimitiveNodeLogical(c.name, parquet.Repetitions.Required,
				schema.NewTimestampLogicalType(true, schema.TimeUnitMicros), parquet.Types.Int64, 0, -1))
		default:
			node = schema.NewInt64Node(c.name, parquet.Repetitions.Required, -1)
		}
		fields = append(fields, node)
		if c.coded {
			properties = append(properties, parquet.WithDictionaryFor(c.name, true))
		}
		if c.steps {
			properties = append(properties, parquet.WithEncodingFor(c.name, parquet.Encodings.DeltaBinaryPacked))
		}
		if c.key || c.steps || c.bytes {
			properties = append(properties, parquet.WithCompressionFor(c.name, compress.Codecs.Uncompressed))
		}
	}
	l.schema = schema.MustGroup(schema.NewGroupNode("flows", parquet.Repetitions.Required, fields, -1))
	l.props = parquet.NewWriterProperties(properties...)
	return l
}

// flowColumns are those of flows; flowNumbers names the rest by their places.
var flowLayout = newLayout(slices.Concat([]column{moments("start"), moments("end")}, endLayout("src_"), endLayout("dst_"), []column{
	key("protocol"), code("src_port"), code("dst_port").asKey(),
	key("verdict"), code("egress_only").asKey(), key("reporter"), key("format"), code("window_us"),
	code("flows"), number("bytes"), number("packets"), number("reply_bytes"), number("reply_packets"),
	text("policies"), code("tuple").asKey(),
}))

// The places of the columns of flows; those of the ends stand at flowSource
// and flowTarget.
const (
	flowStart = iota
	flowEnd
	flowSource
	flowTarget   = flowSource + flowrow.Texts
	flowProtocol = flowTarget + flowrow.Texts + iota - 4
	flowSourcePort
	flowPort
	flowVerdict
	flowEgressOnly
	flowReporter
	flowFormat
	flowWindow
	flowCount
	flowBytes
	flowPackets
	flowReplyBytes
	flowReplyPackets
	flowPolicies
	flowTuple
)

// endLayout returns the columns of one end.
func endLayout(prefix string) []column {
	var all []column
	for i, name := range flowrow.Columns {
		c := key(prefix + name)
		c.key = i != flowrow.Pod && i != flowrow.IP && i != flowrow.Names
		all = append(all, c)
	}
	return all
}

// pageRows is how many rows a page of coded values has. Other pages have a size.
const pageRows = 1 << 17

// groupWriter writes row groups of a file.
type groupWriter struct {
	layout *layout
	file   *file.Writer
	sum    *xxhash.Digest // of what was written of a column
	sums   []byte
}

// sumsKey is where a file's metadata has the xxHash64 of each column of each row
// group, in hexadecimal.
const sumsKey = "weir.xxh64"

func newGroupWriter(w io.Writer, l *layout) (*groupWriter, error) {
	sum := xxhash.New()
	f, err := file.NewParquetWriterWithError(io.MultiWriter(w, sum), l.schema, file.WithWriterProps(l.props))
	return &groupWriter{layout: l, file: f, sum: sum}, err
}

// write writes one row group; vectorOf returns a column, and is called once for
// each in their order.
func (g *groupWriter) write(vectorOf func(column int) vector) error {
	group, err := g.file.AppendRowGroupChecked()
	if err != nil {
		return err
	}
	for i := range g.layout.columns {
		g.sum.Reset()
		to, err := group.NextColumn()
		if err == nil {
			err = errors.Join(writeVector(to, vectorOf(i)), to.Close())
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", g.layout.columns[i].name, err)
		}
		g.sums = g.sum.Sum(g.sums)
	}
	return group.Close()
}

func writeVector(to file.ColumnChunkWriter, v vector) error {
	if v.ends != nil {
		values := make([]parquet.ByteArray, len(v.ends))
		for i := range values {
			values[i] = v.bytesAt(i)
		}
		_, err := to.(*file.ByteArrayColumnChunkWriter).WriteBatch(values, nil, nil)
		return err
	}
	if v.codes == nil {
		_, err := to.(*file.Int64ColumnChunkWriter).WriteBatch(v.numbers, nil, nil)
		return err
	}
	var dictionary arrow.Array
	if v.texts != nil {
		b := array.NewBinaryBuilder(memory.DefaultAllocator, arrow.BinaryTypes.Binary)
		for _, text := range v.texts {
			b.AppendString(text)
		}
		dictionary = b.NewArray()
	} else {
		b := array.NewInt64Builder(memory.DefaultAllocator)
		b.AppendValues(v.numbers, nil)
		dictionary = b.NewArray()
	}
	defer dictionary.Release()
	encoder, ok := to.CurrentEncoder().(interface {
		PutDictionary(values arrow.Array) error
		NumEntries() int
	})
	if !ok {
		return errors.New("the writer has no dictionary")
	}
	if err := encoder.PutDictionary(dictionary); err != nil {
		return err
	}
	if encoder.NumEntries() != dictionary.Len() {
		return errors.New("the dictionary has a value twice")
	}
	if stats := to.PageStatistics(); stats != nil {
		stats.IncNumValues(int64(len(v.codes)))
		if err := stats.UpdateFromArrow(dictionary, false); err != nil {
			return err
		}
	}
	for rest := v.codes; len(rest) > 0; {
		n := min(len(rest), pageRows)
		data := array.NewData(arrow.PrimitiveTypes.Int32, n, []*memory.Buffer{nil, memory.NewBufferBytes(arrow.Int32Traits.CastToBytes(rest[:n]))}, nil, 0, 0)
		codes := array.NewInt32Data(data)
		err := to.WriteDictIndices(codes, nil, nil)
		codes.Release()
		data.Release()
		if err != nil {
			return err
		}
		rest = rest[n:]
		if len(rest) > 0 {
			if err := to.(interface{ FlushCurrentPage() error }).FlushCurrentPage(); err != nil {
				return err
			}
		}
	}
	return nil
}

// close ends the file, and makes sure that it is encoded as was asked: a writer
// may give up a dictionary without a word.
func (g *groupWriter) close() error {
	if err := g.file.AppendKeyValueMetadata(sumsKey, hex.EncodeToString(g.sums)); err != nil {
		return err
	}
	if err := g.file.Close(); err != nil {
		return err
	}
	meta, err := g.file.FileMetadata()
	if err != nil {
		return err
	}
	return g.layout.checkEncodings(meta)
}

func (l *layout) checkEncodings(meta *metadata.FileMetaData) error {
	for g := range meta.NumRowGroups() {
		group := meta.RowGroup(g)
		for i, c := range l.columns {
			chunk, err := group.ColumnChunk(i)
			if err != nil {
				return err
			}
			if chunk.HasDictionaryPage() != c.coded {
				return fmt.Errorf("column %s of row group %d: it has a dictionary: %t, and should: %t", c.name, g, chunk.HasDictionaryPage(), c.coded)
			}
			for _, s := range chunk.EncodingStats() {
				wrong := (s.Encoding == parquet.Encodings.Plain) != (!c.coded && !c.steps) || (s.Encoding == parquet.Encodings.DeltaBinaryPacked) != c.steps
				if s.PageType == 0 && wrong {
					return fmt.Errorf("column %s of row group %d: pages are encoded as %s", c.name, g, s.Encoding)
				}
			}
		}
	}
	return nil
}

// checkSchema says how a file's columns differ from those of the layout.
func (l *layout) checkSchema(s *schema.Schema) error {
	if s.NumColumns() != len(l.columns) {
		return fmt.Errorf("it has %d columns instead of %d; it was not written by this store, or by another version", s.NumColumns(), len(l.columns))
	}
	for i, c := range l.columns {
		have := s.Column(i)
		want := parquet.Types.Int64
		if c.text || c.bytes {
			want = parquet.Types.ByteArray
		}
		if have.Name() != c.name || have.PhysicalType() != want || have.MaxDefinitionLevel() != 0 {
			return fmt.Errorf("column %d is %s %s instead of %s %s; it was not written by this store", i+1, have.PhysicalType(), have.Name(), want, c.name)
		}
	}
	return nil
}

// coder gives values codes in the order in which they come.
type coder[T comparable] struct {
	codes  map[T]int32
	values []T
	last   int32
}

func newCoder[T comparable]() *coder[T] { return &coder[T]{codes: map[T]int32{}} }

func (c *coder[T]) code(v T) int32 {
	if c.last < int32(len(c.values)) && c.values[c.last] == v {
		return c.last
	}
	i, ok := c.codes[v]
	if !ok {
		i = int32(len(c.values))
		c.codes[v] = i
		c.values = append(c.values, v)
	}
	c.last = i
	return i
}

// maker makes the vectors of n rows, each in the space of the one before.
type maker struct {
	n       int
	codes   []int32
	numbers []int64
}

func (m *maker) plain(value func(i int) int64) vector {
	m.numbers = resize(m.numbers, m.n)
	for i := range m.numbers {
		m.numbers[i] = value(i)
	}
	return vector{numbers: m.numbers}
}

func (m *maker) bytes(value func(i int) []byte) vector {
	v := vector{ends: make([]int32, m.n)}
	for i := range v.ends {
		v.bytes = append(v.bytes, value(i)...)
		v.ends[i] = int32(len(v.bytes))
	}
	return v
}

func (m *maker) coded(value func(i int) int64) vector {
	c := newCoder[int64]()
	m.codes = resize(m.codes, m.n)
	for i := range m.codes {
		m.codes[i] = c.code(value(i))
	}
	return vector{numbers: c.values, codes: m.codes}
}

// looked is a text column of which each row has one of some things.
func (m *maker) looked(t *things, text func(thing uint32) string) vector {
	c, codeOf := newCoder[string](), make([]int32, len(t.all))
	for i, thing := range t.all {
		codeOf[i] = c.code(text(thing))
	}
	m.codes = resize(m.codes, m.n)
	if len(c.values) == 1 {
		clear(m.codes)
		return vector{texts: c.values, codes: m.codes}
	}
	for i, thing := range t.of {
		m.codes[i] = codeOf[thing]
	}
	return vector{texts: c.values, codes: m.codes}
}

// things is which of some things each row has.
type things struct {
	all []uint32 // in the order in which they come
	of  []int32  // by row: which of all
}

// things collects what rows have, each a number below a limit.
func (m *maker) things(limit int, thing func(i int) uint32) *things {
	t, known := &things{of: make([]int32, m.n)}, make([]int32, limit) // the place in all, plus one
	for i := range t.of {
		at := thing(i)
		if known[at] == 0 {
			t.all = append(t.all, at)
			known[at] = int32(len(t.all))
		}
		t.of[i] = known[at] - 1
	}
	return t
}

// words is a text column of which each row has one of a few words.
func (m *maker) words(word func(int) string, value func(i int) int) vector {
	return m.looked(m.things(256, func(i int) uint32 { return uint32(value(i)) }), func(thing uint32) string { return word(int(thing)) })
}

// flowVectors returns the columns of rows. Each is valid until the next is asked
// for.
func (t *table) flowVectors(rows []row) func(column int) vector {
	m := &maker{n: len(rows)}
	from := m.things(len(t.ends), func(i int) uint32 { return rows[i].from })
	to := m.things(len(t.ends), func(i int) uint32 { return rows[i].to })
	ofText := func(thing uint32) string { return t.texts[thing] }
	return func(column int) vector {
		switch {
		case flowSource <= column && column < flowTarget:
			return m.looked(from, func(end uint32) string { return t.ends[end].texts[column-flowSource] })
		case flowTarget <= column && column < flowProtocol:
			return m.looked(to, func(end uint32) string { return t.ends[end].texts[column-flowTarget] })
		}
		switch column {
		case flowStart:
			return m.plain(func(i int) int64 { return rows[i].start })
		case flowEnd:
			return m.plain(func(i int) int64 { return rows[i].end })
		case flowProtocol:
			return m.words(protocolText, func(i int) int { return int(t.tuples[rows[i].tuple].protocol) })
		case flowSourcePort:
			return m.coded(func(i int) int64 { return int64(rows[i].sourcePort) })
		case flowPort:
			return m.coded(func(i int) int64 { return int64(t.tuples[rows[i].tuple].port) })
		case flowVerdict:
			return m.words(verdictText, func(i int) int { return int(rows[i].verdict) })
		case flowEgressOnly:
			return m.coded(func(i int) int64 { return asNumber(rows[i].egressOnly) })
		case flowReporter:
			return m.words(reporterText, func(i int) int { return int(rows[i].reporter) })
		case flowFormat:
			return m.looked(m.things(len(t.texts), func(i int) uint32 { return rows[i].format }), ofText)
		case flowWindow:
			return m.coded(func(i int) int64 { return rows[i].window })
		case flowCount:
			return m.coded(func(i int) int64 { return int64(rows[i].count) })
		case flowBytes:
			return m.plain(func(i int) int64 { return int64(rows[i].bytes) })
		case flowPackets:
			return m.plain(func(i int) int64 { return int64(rows[i].packets) })
		case flowReplyBytes:
			return m.plain(func(i int) int64 { return int64(rows[i].replyBytes) })
		case flowReplyPackets:
			return m.plain(func(i int) int64 { return int64(rows[i].replyPackets) })
		case flowPolicies:
			return m.looked(m.things(len(t.texts), func(i int) uint32 { return rows[i].hits }), ofText)
		case flowTuple:
			return m.coded(func(i int) int64 { return int64(t.tuples[rows[i].tuple].id) })
		}
		panic("no such column")
	}
}

func asNumber(set bool) int64 {
	if set {
		return 1
	}
	return 0
}
