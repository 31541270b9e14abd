package flowlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

const parquetName = "parquet"

var parquetFormat = format{
	name: parquetName, what: "it is no Parquet file",
	magic: func(head []byte) bool { return strings.HasPrefix(string(head), "PAR1") },
	read:  readParquet,
}

// batchRows is how many rows are in memory at a time.
const batchRows = 4096

// rowField is something that a column of a table may say about a flow.
type rowField struct {
	name    string
	columns []string // that are known to say it, without case and punctuation
	set     func(*tableRow, cell) error
	most    int64 // of a number that counts
}

// tableRow is what the columns of a table say about a flow.
type tableRow struct {
	policies.Flow
	from, to    rowEnd
	protocol    cell
	first, last time.Time
}

// rowEnd is valid until the next batch.
type rowEnd struct{ address, namespace, pod, kind, name []byte }

// rowFields have the names that Weir's own store gives its columns. Those of
// NetObserv and Akvorado are known besides.
var rowFields = []rowField{
	{"start", []string{"starttime", "flowstart", "timeflowstartms"}, func(r *tableRow, c cell) (err error) { r.first, err = c.time(); return err }, 0},
	{"end", []string{"endtime", "flowend", "timeflowendms", "timereceived"}, func(r *tableRow, c cell) (err error) { r.last, err = c.time(); return err }, 0},
	{srcIP, []string{"srcaddr", "sourceip", "sourceaddress"}, func(r *tableRow, c cell) error { return c.word(&r.from.address) }, 0},
	{dstIP, []string{"dstaddr", "destip", "destinationip", "destinationaddress"}, func(r *tableRow, c cell) error { return c.word(&r.to.address) }, 0},
	{"src_port", []string{"sourceport"}, func(r *tableRow, c cell) error { return whole(c, &r.SourcePort, math.MaxUint16) }, math.MaxUint16},
	{"dst_port", []string{"destport", "destinationport"}, func(r *tableRow, c cell) error { return whole(c, &r.Port, math.MaxUint16) }, math.MaxUint16},
	{"protocol", []string{"proto"}, func(r *tableRow, c cell) error { r.protocol = c; return nil }, 0},
	{"src_namespace", []string{"srck8snamespace", "sourcenamespace"}, func(r *tableRow, c cell) error { return c.word(&r.from.namespace) }, 0},
	{"dst_namespace", []string{"dstk8snamespace", "destnamespace", "destinationnamespace"}, func(r *tableRow, c cell) error { return c.word(&r.to.namespace) }, 0},
	{srcPod, []string{"sourcepod"}, func(r *tableRow, c cell) error { return c.word(&r.from.pod) }, 0},
	{dstPod, []string{"destpod", "destinationpod"}, func(r *tableRow, c cell) error { return c.word(&r.to.pod) }, 0},
	{"src_kind", []string{"srck8sownertype"}, func(r *tableRow, c cell) error { return c.word(&r.from.kind) }, 0},
	{"dst_kind", []string{"dstk8sownertype"}, func(r *tableRow, c cell) error { return c.word(&r.to.kind) }, 0},
	{srcName, []string{"srck8sownername"}, func(r *tableRow, c cell) error { return c.word(&r.from.name) }, 0},
	{dstName, []string{"dstk8sownername"}, func(r *tableRow, c cell) error { return c.word(&r.to.name) }, 0},
	{"verdict", []string{"action"}, func(r *tableRow, c cell) (err error) { r.Verdict, err = c.verdict(); return err }, 0},
	{"flows", []string{"count"}, func(r *tableRow, c cell) error { return whole(c, &r.Count, math.MaxUint64) }, mostCounted},
	{"bytes", nil, func(r *tableRow, c cell) error { return whole(c, &r.Bytes, math.MaxUint64) }, mostCounted},
	{"packets", nil, func(r *tableRow, c cell) error { return whole(c, &r.Packets, math.MaxUint64) }, mostCounted},
	{"reply_bytes", nil, func(r *tableRow, c cell) error { return whole(c, &r.ReplyBytes, math.MaxUint64) }, mostCounted},
	{"reply_packets", nil, func(r *tableRow, c cell) error { return whole(c, &r.ReplyPackets, math.MaxUint64) }, mostCounted},
}

// The fields of which each end needs one.
const (
	srcIP, srcPod, srcName = "src_ip", "src_pod", "src_name"
	dstIP, dstPod, dstName = "dst_ip", "dst_pod", "dst_name"
)

// RowFields returns the names that Options.Columns may have.
func RowFields() []string {
	var names []string
	for _, f := range rowFields {
		names = append(names, f.name)
	}
	return names
}

// cell is a value that is there: a text or a number.
type cell struct {
	text   []byte
	number int64
	isText bool
	unit   time.Duration // of a time; 0 when the column does not say
}

var errText = errors.New("is a number, and should be a text")

func (c cell) word(to *[]byte) error {
	if !c.isText {
		return errText
	}
	*to = c.text
	return nil
}

func whole[T ~uint16 | ~uint64](c cell, to *T, most uint64) error {
	n, err := uint64(c.number), error(nil)
	if c.isText {
		n, err = strconv.ParseUint(string(c.text), 10, 64)
	}
	if err != nil || n > most || !c.isText && c.number < 0 {
		return fmt.Errorf("%s is no whole number from 0 to %d", c, most)
	}
	*to = T(n)
	return nil
}

func (c cell) String() string {
	if c.isText {
		return fmt.Sprintf("%.40q", c.text)
	}
	return strconv.FormatInt(c.number, 10)
}

// time reads a time. Where a number's column does not say what it counts, its
// size does: since 1970, seconds have 10 digits and milliseconds 13.
func (c cell) time() (time.Time, error) {
	if c.isText {
		if n, err := strconv.ParseInt(string(c.text), 10, 64); err == nil {
			return cell{number: n}.time()
		}
		t, err := time.Parse(time.RFC3339Nano, string(c.text))
		if err != nil || t.Unix() > lastSecond {
			return t, fmt.Errorf("%s is not a time such as 2026-03-10T12:00:00Z", c)
		}
		return t.UTC(), nil
	}
	unit := c.unit
	if unit == 0 {
		unit = unitBySize(c.number)
	}
	perSecond := int64(time.Second / max(1, unit))
	seconds, rest := c.number/perSecond, c.number%perSecond
	if c.number <= 0 {
		return time.Time{}, nil
	}
	if seconds > lastSecond {
		return time.Time{}, fmt.Errorf("%s is a time beyond the year 9999", c)
	}
	return time.Unix(seconds, rest*int64(unit)).UTC(), nil
}

func unitBySize(n int64) time.Duration {
	switch {
	case n < 1e11:
		return time.Second
	case n < 1e14:
		return time.Millisecond
	case n < 1e17:
		return time.Microsecond
	}
	return time.Nanosecond
}

func (c cell) verdict() (policies.Verdict, error) {
	switch strings.ToLower(string(c.text)) {
	case "allow", "allowed", "accept", "accepted", "forwarded":
		return policies.Allow, nil
	case "deny", "denied", "drop", "dropped", "reject", "rejected":
		return policies.Deny, nil
	case "unknown", "":
		return policies.Unknown, nil
	}
	return 0, fmt.Errorf("%s is none of allow, deny, unknown", c)
}

func (c *tableColumn) isNumber() bool {
	return c.kind == parquet.Types.Int32 || c.kind == parquet.Types.Int64
}

// tableColumn is a column of a Parquet file that says something.
type tableColumn struct {
	name     string
	index    int
	kind     parquet.Type
	size     int // of texts that all have the same
	optional bool
	unit     time.Duration
	field    *rowField  // either
	aws      *awsColumn // or

	// What a batch holds: values without gaps, and a level above 0 where a row has one.
	levels  []int16
	present []parquet.ByteArray
	fixed   []parquet.FixedLenByteArray
	int32s  []int32
	numbers []int64
	at      int // of the next value
}

func (c *tableColumn) failed(err error) error { return fmt.Errorf("column %s: %w", c.name, err) }

// readParquet reads a file whose rows are flows. The line of a flow is its row.
func readParquet(_ io.Reader, s *sink) (err error) {
	s.at.Line = 1
	if s.whole == nil {
		return policies.Problem{Place: s.at, Message: "a Parquet file is read from its end; name it as a file that is not packed, and not as a stream"}
	}
	// The library panics where files contradict themselves.
	defer func() {
		if p := recover(); p != nil {
			err = s.damaged("Parquet", fmt.Errorf("%v", p))
		}
	}()
	properties := parquet.NewReaderProperties(&pageMemory{})
	properties.BufferedStreamEnabled, properties.BufferSize = true, 1<<16 // a column of a row group may be large
	r, err := file.NewParquetReader(s.whole, file.WithReadProps(properties))
	if err != nil {
		return s.damaged("Parquet", err)
	}
	columns, err := columnsOf(r.MetaData().Schema, s.options.Columns)
	if err != nil {
		return policies.Problem{Place: s.at, Message: err.Error()}
	}
	t := &table{sink: s, columns: columns, ends: map[string]policies.FlowPeer{}}
	t.at.Line = 0
	read := t.group
	if s.options.Sums != nil && canSum(columns) {
		read = newSumTable(t, s.options.Sums).group
	}
	for group := range r.NumRowGroups() {
		if err := read(r.RowGroup(group)); err != nil {
			return s.damaged("Parquet", err)
		}
	}
	return nil
}

var readable = []parquet.Type{parquet.Types.ByteArray, parquet.Types.FixedLenByteArray, parquet.Types.Int32, parquet.Types.Int64}

// columnsOf finds the columns that say something.
func columnsOf(s *schema.Schema, named map[string]string) ([]*tableColumn, error) {
	var flat []*tableColumn
	var names []string
	for i := range s.NumColumns() {
		c := s.Column(i)
		if c.MaxRepetitionLevel() > 0 || c.MaxDefinitionLevel() > 1 || len(c.ColumnPath()) > 1 {
			continue
		}
		names = append(names, c.Name())
		flat = append(flat, &tableColumn{name: c.Name(), index: i, kind: c.PhysicalType(), size: max(0, c.TypeLength()), optional: c.MaxDefinitionLevel() > 0, unit: unitOf(c.LogicalType())})
	}
	var wrong []string
	for field, name := range named {
		switch {
		case !slices.Contains(RowFields(), field):
			wrong = append(wrong, fmt.Sprintf("%s is no field of a flow; those are %s", field, strings.Join(RowFields(), ", ")))
		case !slices.Contains(names, name):
			wrong = append(wrong, fmt.Sprintf("there is no column %s for %s", name, field))
		}
	}
	isAWS := len(named) == 0 && slices.Contains(names, "srcaddr") && slices.Contains(names, "dstaddr") && (slices.Contains(names, "log_status") || slices.Contains(names, "account_id"))
	said := map[string]bool{}
	var columns []*tableColumn
	for _, c := range flat {
		if isAWS {
			c.aws = awsColumnOf(c.name)
		} else if c.field = fieldOf(c.name, named); c.field != nil && said[c.field.name] {
			c.field = nil
		}
		if c.aws != nil || c.field != nil {
			columns = append(columns, c)
			if !slices.Contains(readable, c.kind) {
				wrong = append(wrong, fmt.Sprintf("column %s is of the type %s, which is neither a text nor a whole number", c.name, c.kind))
			}
		}
		if c.field != nil {
			said[c.field.name] = true
		}
	}
	if !isAWS && len(wrong) == 0 {
		for _, end := range [][]string{{srcIP, srcPod, srcName}, {dstIP, dstPod, dstName}} {
			if !slices.ContainsFunc(end, func(f string) bool { return said[f] }) {
				wrong = append(wrong, "no column is known for any of "+strings.Join(end, ", "))
			}
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return nil, fmt.Errorf("%s; the columns are %s; say which is what as in --columns src_ip=NAME", strings.Join(wrong, "; "), quoteNames(names))
	}
	return columns, nil
}

// quoteNames names the first hundred columns.
func quoteNames(names []string) string {
	const most = 100
	if len(names) > most {
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// fieldOf returns what a column says, as named or else by its name alone.
func fieldOf(column string, named map[string]string) *rowField {
	plain := strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(column))
	for i := range rowFields {
		f := &rowFields[i]
		name, isNamed := named[f.name]
		if isNamed && name == column || !isNamed && (plain == strings.ReplaceAll(f.name, "_", "") || slices.Contains(f.columns, plain)) {
			return f
		}
	}
	return nil
}

func unitOf(l schema.LogicalType) time.Duration {
	t, ok := l.(schema.TimestampLogicalType)
	if !ok {
		return 0
	}
	switch t.TimeUnit() {
	case schema.TimeUnitMillis:
		return time.Millisecond
	case schema.TimeUnitMicros:
		return time.Microsecond
	}
	return time.Nanosecond
}

// table reads the rows of a file.
type table struct {
	*sink
	columns []*tableColumn
	ends    map[string]policies.FlowPeer // by what the columns say
	key     []byte
}

func (t *table) group(g *file.RowGroupReader) error {
	readers := make([]file.ColumnChunkReader, len(t.columns))
	for i, c := range t.columns {
		var err error
		if readers[i], err = g.Column(c.index); err != nil {
			return c.failed(err)
		}
	}
	for left := g.NumRows(); left > 0; {
		n := int(min(left, batchRows))
		for i, c := range t.columns {
			if err := c.fill(readers[i], n); err != nil {
				return c.failed(err)
			}
		}
		if err := t.batch(n); err != nil || t.stopped != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}

// fill reads a batch of n rows.
func (c *tableColumn) fill(r file.ColumnChunkReader, n int) error {
	if c.levels == nil {
		c.levels = make([]int16, batchRows)
	}
	c.at = 0
	var total int64
	var err error
	switch r := r.(type) {
	case *file.ByteArrayColumnChunkReader:
		c.present = slices.Grow(c.present[:0], n)[:n]
		total, _, err = r.ReadBatch(int64(n), c.present, c.levels, nil)
	case *file.FixedLenByteArrayColumnChunkReader:
		c.fixed = slices.Grow(c.fixed[:0], n)[:n]
		total, _, err = r.ReadBatch(int64(n), c.fixed, c.levels, nil)
	case *file.Int64ColumnChunkReader:
		c.numbers = slices.Grow(c.numbers[:0], n)[:n]
		total, _, err = r.ReadBatch(int64(n), c.numbers, c.levels, nil)
	case *file.Int32ColumnChunkReader:
		c.int32s = slices.Grow(c.int32s[:0], n)[:n]
		total, _, err = r.ReadBatch(int64(n), c.int32s, c.levels, nil)
	}
	if err == nil && total != int64(n) {
		err = errors.New("it ends before the others do")
	}
	return err
}

// next returns the value of the next row.
func (c *tableColumn) next(row int) (v cell, there bool) {
	if c.optional && c.levels[row] == 0 {
		return v, false
	}
	i := c.at
	c.at++
	v.unit = c.unit
	switch c.kind {
	case parquet.Types.ByteArray:
		v.text, v.isText = c.present[i], true
	case parquet.Types.FixedLenByteArray:
		v.text, v.isText = c.fixed[i], true
	case parquet.Types.Int32:
		v.number = int64(c.int32s[i])
	default:
		v.number = c.numbers[i]
	}
	return v, true
}

// batch hands over the flows of n rows.
func (t *table) batch(n int) error {
	aws, r, a := &awsDecoder{sink: t.sink}, new(tableRow), new(awsRecord)
	if t.stopped = t.ctx.Err(); t.stopped != nil {
		return nil
	}
	for i := range n {
		t.at.Line++
		*r, *a = tableRow{}, awsRecord{}
		var wrong error
		for _, c := range t.columns {
			v, there := c.next(i)
			if !there {
				continue
			}
			var err error
			if c.aws != nil {
				err = c.aws.set(a, v.raw())
			} else if err = c.field.set(r, v); err != nil {
				err = fmt.Errorf("%s: %w", c.name, err)
			}
			if wrong == nil {
				wrong = err
			}
		}
		if wrong == nil {
			if t.columns[0].aws != nil {
				wrong = aws.take(a)
			} else {
				wrong = t.hand(r)
			}
		}
		if wrong != nil {
			t.bad(wrong)
		}
		if t.stopped != nil {
			return nil
		}
	}
	return nil
}

func (c cell) raw() []byte {
	if c.isText {
		return c.text
	}
	return strconv.AppendInt(nil, c.number, 10)
}

func (t *table) hand(r *tableRow) error {
	if err := t.complete(r); err != nil {
		return err
	}
	t.flow(r.Flow)
	return nil
}

// complete makes a flow of what a row says.
func (t *table) complete(r *tableRow) error {
	var err error
	if r.From, err = t.end(&r.from); err != nil {
		return fmt.Errorf("%s: %w", srcIP, err)
	}
	if r.To, err = t.end(&r.to); err != nil {
		return fmt.Errorf("%s: %w", dstIP, err)
	}
	if r.Protocol, err = r.protocolOf(r.From.Address.Is6()); err != nil {
		return err
	}
	if r.Verdict == policies.Undecided {
		r.Verdict = policies.Unknown
	}
	return span(&r.Flow, r.first, r.last)
}

func (r *tableRow) protocolOf(is6 bool) (netset.Protocol, error) {
	if r.protocol.isText {
		return protocol("protocol", string(r.protocol.text), is6)
	}
	var n uint16
	err := whole(r.protocol, &n, 255)
	return netset.Protocol(n), err
}

// end is what the columns say of an end, which they say again and again.
func (t *table) end(e *rowEnd) (policies.FlowPeer, error) {
	t.key = e.appendKey(t.key[:0])
	if known, ok := t.ends[string(t.key)]; ok {
		return known, nil
	}
	p, err := e.peer()
	if err != nil {
		return p, err
	}
	if len(t.ends) >= maxCached {
		clear(t.ends)
	}
	t.ends[string(t.key)] = p
	return p, nil
}

// appendKey appends what tells an end apart from all others.
func (e *rowEnd) appendKey(key []byte) []byte {
	for _, part := range [][]byte{e.address, e.namespace, e.pod, e.kind, e.name} {
		key = append(binary.AppendUvarint(key, uint64(len(part))), part...)
	}
	return key
}

func (e *rowEnd) peer() (policies.FlowPeer, error) {
	p := policies.FlowPeer{Namespace: clean(e.namespace), Pod: clean(e.pod)}
	if len(e.name) > 0 {
		p.Workloads = []policies.Ref{{Kind: clean(e.kind), Namespace: p.Namespace, Name: clean(e.name)}}
	}
	switch a, err := netip.ParseAddr(string(e.address)); {
	case len(e.address) == 0:
	case err == nil:
		p.Address = a.Unmap().WithZone("")
	case len(e.address) == 16 || len(e.address) == 4:
		p.Address = addressOf(e.address)
	default:
		return p, fmt.Errorf("%.60q is no IP address", e.address)
	}
	return p, nil
}
