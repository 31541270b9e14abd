package flowlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

// plainColumn is a column of a table in the making: texts or numbers of its rows,
// of which some are null.
type plainColumn struct {
	name     string
	texts    []string
	numbers  []int64
	null     []bool // nil where the column is required
	narrow   bool   // numbers have 32 bits
	fixed    int    // the size of texts, where all have one
	unit     schema.TimeUnitType
	isMoment bool
	encoding parquet.Encoding
	coded    bool
}

// writeTable returns the Parquet file of columns, with so many rows to a group.
func writeTable(t testing.TB, columns []plainColumn, perGroup int, properties ...parquet.WriterProperty) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newTableWriter(t, &b, columns, properties...)
	rows := 0
	for _, c := range columns {
		rows = max(len(c.texts), len(c.numbers))
	}
	for from := 0; from < rows; from += perGroup {
		writeGroup(t, w, columns, from, min(rows, from+perGroup))
	}
	must(t, w.Close())
	return b.Bytes()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// newTableWriter writes tables of such columns.
func newTableWriter(t testing.TB, to io.Writer, columns []plainColumn, properties ...parquet.WriterProperty) *file.Writer {
	t.Helper()
	var fields schema.FieldList
	for _, c := range columns {
		repetition := parquet.Repetitions.Required
		if c.null != nil {
			repetition = parquet.Repetitions.Optional
		}
		var logical schema.LogicalType = schema.NoLogicalType{}
		kind := parquet.Types.Int64
		switch {
		case c.fixed > 0:
			kind = parquet.Types.FixedLenByteArray
		case c.texts != nil:
			kind, logical = parquet.Types.ByteArray, schema.StringLogicalType{}
		case c.narrow:
			kind = parquet.Types.Int32
		case c.isMoment:
			logical = schema.NewTimestampLogicalType(true, c.unit)
		}
		node, err := schema.NewPrimitiveNodeLogical(c.name, repetition, logical, kind, c.fixed, -1)
		must(t, err)
		fields = append(fields, node)
		properties = append(properties, parquet.WithDictionaryFor(c.name, c.coded))
		if !c.coded {
			properties = append(properties, parquet.WithEncodingFor(c.name, c.encoding))
		}
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
	must(t, err)
	return file.NewParquetWriter(to, root, file.WithWriterProps(parquet.NewWriterProperties(properties...)))
}

// writeGroup writes some rows as a row group.
func writeGroup(t testing.TB, w *file.Writer, columns []plainColumn, from, to int) {
	t.Helper()
	group, err := w.AppendRowGroupChecked()
	must(t, err)
	for _, c := range columns {
		var levels []int16
		var texts []parquet.ByteArray
		var fixed []parquet.FixedLenByteArray
		var numbers []int64
		var narrow []int32
		for i := from; i < to; i++ {
			if c.null != nil {
				levels = append(levels, 1)
				if c.null[i] {
					levels[i-from] = 0
					continue
				}
			}
			if c.texts != nil {
				texts, fixed = append(texts, parquet.ByteArray(c.texts[i])), append(fixed, parquet.FixedLenByteArray(c.texts[i]))
			} else {
				numbers, narrow = append(numbers, c.numbers[i]), append(narrow, int32(c.numbers[i]))
			}
		}
		chunk, err := group.NextColumn()
		must(t, err)
		switch chunk := chunk.(type) {
		case *file.ByteArrayColumnChunkWriter:
			_, err = chunk.WriteBatch(texts, levels, nil)
		case *file.FixedLenByteArrayColumnChunkWriter:
			_, err = chunk.WriteBatch(fixed, levels, nil)
		case *file.Int64ColumnChunkWriter:
			_, err = chunk.WriteBatch(numbers, levels, nil)
		case *file.Int32ColumnChunkWriter:
			_, err = chunk.WriteBatch(narrow, levels, nil)
		}
		must(t, err)
		must(t, chunk.Close())
	}
	must(t, group.Close())
}

// sumWorld has pods with addresses, one of them younger than some flows, three of
// one workload, one on its node's network, a node and a service.
const sumWorld = `
{apiVersion: v1, kind: Namespace, metadata: {name: shop}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: pay}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {namespace: shop, name: web}, spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}}}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {namespace: pay, name: db}, spec: {selector: {matchLabels: {app: db}}, template: {metadata: {labels: {app: db}}}}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: a, labels: {app: a}}, status: {podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: b, labels: {app: b}, creationTimestamp: "2026-03-10T11:30:00Z"}, status: {podIPs: [{ip: 10.0.0.2}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: pay, name: c, labels: {app: c}}, status: {podIPs: [{ip: 10.0.0.3}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: pay, name: db-0, labels: {app: db}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.4}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: pay, name: db-1, labels: {app: db}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}, status: {podIPs: [{ip: 10.0.0.5}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: pay, name: db-2, labels: {app: db}, ownerReferences: [{kind: StatefulSet, name: db, controller: true}]}, spec: {nodeName: n1}, status: {podIPs: [{ip: 10.0.0.6}, {ip: 10.0.0.7}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: agent, labels: {app: agent}}, spec: {nodeName: n1, hostNetwork: true}, status: {podIPs: [{ip: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDR: 10.0.0.0/24}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: web}, spec: {selector: {app: web}, clusterIP: 10.96.0.1, ports: [{port: 80}]}}
`

func sumJudge(t testing.TB, policies string) *policies.Model {
	t.Helper()
	docs, err := k8s.Parse("world.yaml", []byte(sumWorld+policies))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

const (
	sumBase = `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: pay, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{namespaceSelector: {}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: a}, spec: {podSelector: {matchLabels: {app: a}}, ingress: []}}
`
	sumHead = `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: pay, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 5432}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: all}, spec: {podSelector: {}, policyTypes: [Egress, Ingress], egress: [{to: [{ipBlock: {cidr: 203.0.113.0/29}}, {podSelector: {}}]}], ingress: [{from: [{ipBlock: {cidr: 198.51.100.0/24, except: [198.51.100.4/30]}}]}]}}
`
	sumOther = `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: pay, name: none}, spec: {podSelector: {}}}
`
)

var sumValues = gocmp.Options{
	cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{}), cmpopts.EquateEmpty(),
	gocmp.Transformer("rows", func(r simulator.Rows) []simulator.Row { return slices.Collect(r.All()) }),
}

// TestSumsAreWhatRowsAreOneByOne replays tables of any encoding, row by row and by
// sums, in several worlds at a time.
func TestSumsAreWhatRowsAreOneByOne(t *testing.T) {
	base := sumJudge(t, sumBase)
	heads := []*policies.Model{sumJudge(t, sumHead), sumJudge(t, sumOther)}
	replayers := func(two bool) (all []*simulator.Replayer) {
		for _, head := range heads {
			before, after := reach.Pair(base, head, reach.Options{})
			all = append(all, simulator.New(before, after))
			if !two {
				break
			}
		}
		return all
	}
	var outcomes Stats
	rows := map[simulator.Outcome]int{}
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		two := r.IntN(2) == 0
		one, summed := replayers(two), replayers(two)
		together := simulator.Together(summed...)
		sums := NewSums(together)
		if r.IntN(4) == 0 { // hand over again and again
			sums.mostEnds, sums.mostGroups = r.IntN(30), 2*sumRows+r.IntN(10)
		}
		var filter simulator.Filter
		if r.IntN(3) == 0 {
			filter.Since = time.Date(2026, 3, 10, 11, r.IntN(60), 0, 0, time.UTC)
		}
		if r.IntN(3) == 0 {
			filter.Until = time.Date(2026, 3, 10, 11, 20+r.IntN(60), 0, 0, time.UTC)
		}
		sums.Since, sums.Until = filter.Since, filter.Until
		var wantStats, gotStats Stats
		add := func(stats *Stats, to func(policies.Flow)) func(policies.Flow) error {
			return func(f policies.Flow) error {
				switch filter.Match(&f) {
				case simulator.Yes:
					to(f)
				case simulator.NotSay:
					stats.Add(Stats{LeftOut: map[string]uint64{Untimed: 1}})
					stats.Flows--
				}
				return nil
			}
		}
		for i := range 1 + r.IntN(3) {
			text, name := randomTable(t, r), fmt.Sprintf("%c.parquet", 'a'+(i*2)%3)
			want, err := Read(context.Background(), bytes.NewReader(text), name, Options{}, add(&wantStats, func(f policies.Flow) {
				for _, r := range one {
					r.Add(f)
				}
			}))
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			got, err := Read(context.Background(), bytes.NewReader(text), name, Options{Sums: sums}, add(&gotStats, together.Add))
			if err != nil {
				t.Fatalf("seed %d, by sums: %v", seed, err)
			}
			wantStats.Add(want)
			gotStats.Add(got)
		}
		sums.Flush()
		outcomes.Add(gotStats)
		for row := range one[0].Result().Rows.All() {
			rows[row.Outcome]++
		}
		if sums.isSpan() { // of rows that are of another time, nobody says that they are bad
			gotStats.Flows, wantStats.Flows = gotStats.Flows+gotStats.Bad, wantStats.Flows+wantStats.Bad
			gotStats.Bad, gotStats.FirstBad, wantStats.Bad, wantStats.FirstBad = 0, nil, 0, nil
		}
		if diff := gocmp.Diff(wantStats, gotStats); diff != "" {
			t.Fatalf("seed %d: stats (-one by one +sums):\n%s", seed, diff)
		}
		for i := range one {
			if diff := gocmp.Diff(one[i].Result(), summed[i].Result(), sumValues); diff != "" {
				t.Fatalf("seed %d, world %d (-one by one +sums):\n%s", seed, i, diff)
			}
		}
	}
	if outcomes.Flows < 1000 || outcomes.Bad == 0 {
		t.Errorf("too little to tell: %+v", outcomes)
	}
	for _, o := range simulator.Outcomes {
		if rows[o] == 0 {
			t.Errorf("no row %s: %v", o, rows)
		}
	}
}

// TestSumsTellPodsApart has pods that no rule tells apart but by what they have from
// themselves, from a node, or at one of two addresses.
func TestSumsTellPodsApart(t *testing.T) {
	for _, row := range []struct{ name, from, to, other string }{
		{"to itself", "10.0.0.4", "10.0.0.4", "10.0.0.5"},
		{"from itself", "10.0.0.5", "10.0.0.5", "10.0.0.4"},
		{"from its node", "192.168.0.1", "10.0.0.4", "10.0.0.5"},
		{"at one of two addresses", "10.0.0.4", "10.0.0.5", "10.0.0.6"},
		{"and nobody at all", "", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			table := tableOf(t, "SrcAddr", []string{row.from, row.from, row.from}, "DstAddr", []string{row.to, row.other, row.to},
				"DstPort", []int32{80, 80, 80}, "Proto", []int32{6, 6, 6}, "verdict", []string{"allow", "allow", "allow"})
			before, after := reach.Pair(sumJudge(t, sumBase), sumJudge(t, sumOther), reach.Options{})
			one, summed := simulator.New(before, after), simulator.New(before, after)
			_, err := Read(context.Background(), bytes.NewReader(table), "t", Options{}, func(f policies.Flow) error { one.Add(f); return nil })
			must(t, err)
			sums := NewSums(summed)
			_, err = Read(context.Background(), bytes.NewReader(table), "t", Options{Sums: sums}, func(policies.Flow) error { return nil })
			must(t, err)
			sums.Flush()
			if diff := gocmp.Diff(one.Result(), summed.Result(), sumValues); diff != "" {
				t.Errorf("-one by one +sums:\n%s", diff)
			}
		})
	}
}

// TestSumsOfMany has more ends, groups and batches than what finds them begins with.
func TestSumsOfMany(t *testing.T) {
	const rows = 20_000
	r := rand.New(rand.NewPCG(7, 7))
	from, to := plainColumn{name: "src_ip", texts: make([]string, rows), coded: true}, plainColumn{name: "dst_ip", texts: make([]string, rows)}
	port, start, size := plainColumn{name: "dst_port", numbers: make([]int64, rows), coded: true}, plainColumn{name: "start", numbers: make([]int64, rows)}, plainColumn{name: "bytes", numbers: make([]int64, rows)}
	for i := range rows {
		from.texts[i], to.texts[i] = fmt.Sprintf("203.0.%d.%d", r.IntN(20), r.IntN(256)), fmt.Sprintf("10.0.0.%d", 1+r.IntN(6))
		port.numbers[i], start.numbers[i], size.numbers[i] = r.Int64N(2000), exportedAt+r.Int64N(3600), r.Int64N(1000)
	}
	table := writeTable(t, []plainColumn{from, to, port, start, size}, 9_000)
	before, after := reach.Pair(sumJudge(t, sumBase), sumJudge(t, sumHead), reach.Options{})
	one, summed := simulator.New(before, after), simulator.New(before, after)
	_, err := Read(context.Background(), bytes.NewReader(table), "t", Options{}, func(f policies.Flow) error { one.Add(f); return nil })
	must(t, err)
	sums := NewSums(summed)
	stats, err := Read(context.Background(), bytes.NewReader(table), "t", Options{Sums: sums}, func(policies.Flow) error { return nil })
	must(t, err)
	if len(sums.groups) < 3000 || len(sums.ends.all) < 3000 || stats.Flows != rows {
		t.Fatalf("%d groups of %d ends are few, of %+v", len(sums.groups), len(sums.ends.all), stats)
	}
	sums.Flush()
	if diff := gocmp.Diff(one.Result(), summed.Result(), sumValues); diff != "" {
		t.Errorf("-one by one +sums:\n%s", diff)
	}
}

func oneOf[T any](r *rand.Rand, among ...T) T { return among[r.IntN(len(among))] }

// randomTable is a table of a few ends, ports and times, among them some that
// are none.
func randomTable(t testing.TB, r *rand.Rand, more ...parquet.WriterProperty) []byte {
	isSo := func() bool { return r.IntN(2) == 0 }
	rows := r.IntN(61)
	var columns []plainColumn
	add := func(c plainColumn, always bool) {
		if !always && !isSo() {
			return
		}
		if isSo() {
			c.null = make([]bool, rows)
			for i := range c.null {
				c.null[i] = r.IntN(5) == 0
			}
		}
		c.coded = isSo()
		encodings := []parquet.Encoding{parquet.Encodings.Plain}
		switch {
		case c.fixed > 0, c.null != nil: // the library does not read its own pages of nulls alone in other encodings
		case c.texts != nil:
			encodings = append(encodings, parquet.Encodings.DeltaByteArray, parquet.Encodings.DeltaLengthByteArray)
		default:
			encodings = append(encodings, parquet.Encodings.DeltaBinaryPacked)
		}
		c.encoding = oneOf(r, encodings...)
		columns = append(columns, c)
	}
	texts := func(name string, always bool, among ...string) {
		c := plainColumn{name: name, texts: make([]string, rows)}
		for i := range c.texts {
			c.texts[i] = oneOf(r, among...)
		}
		add(c, always)
	}
	numbers := func(name string, among ...int64) {
		c := plainColumn{name: name, numbers: make([]int64, rows), narrow: isSo()}
		for i := range c.numbers {
			c.numbers[i] = oneOf(r, among...)
		}
		add(c, false)
	}
	isBad := r.IntN(3) == 0
	sound := func(all, bad int) int {
		if isBad {
			return all
		}
		return all - bad
	}
	addresses := []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6", "10.0.0.7", "10.0.0.9", "fd00::1", "::ffff:10.0.0.1", "192.168.0.1", "10.96.0.1", "203.0.113.1", "203.0.113.9", "198.51.100.1", "198.51.100.5", "2001:db8::1", "8.8.8.8", "", "no address"}
	addresses = addresses[:sound(len(addresses), 1)]
	some := addresses
	if isSo() { // so few that the same meet again
		some = append(oneOf(r, []string{"10.0.0.4", "10.0.0.5"}, []string{"10.0.0.4", "10.0.0.5", "192.168.0.1"}, []string{"10.0.0.1", "198.51.100.1"}), oneOf(r, addresses[:18]...))
	}
	for _, end := range []string{"src_", "dst_"} {
		if r.IntN(6) == 0 {
			c := plainColumn{name: end + "ip", texts: make([]string, rows), fixed: 16}
			for i := range c.texts {
				a := netip.MustParseAddr(oneOf(r, addresses[:18]...)).As16()
				c.texts[i] = string(a[:])
			}
			add(c, true)
		} else {
			texts(end+"ip", true, some...)
		}
		if isSo() {
			texts(end+"namespace", true, "shop", "pay", "pay", "", "gone")
			texts(end+"pod", false, "a", "b", "c", "a", "web-6d4b75cb6d-x2x4z", "db-0", "db-1", "db-2", "agent", "")
			texts(end+"kind", false, "Deployment", "StatefulSet", "")
			texts(end+"name", false, "web", "db", "", "gone")
		}
	}
	numbers("dst_port", []int64{80, 80, 443, 5432, 53, 0, 443, 5432, 80, 65536, -1}[:sound(11, 2)]...)
	numbers("src_port", []int64{40000, 40001, 0, 70000}[:sound(4, 1)]...)
	if isSo() {
		texts("protocol", true, []string{"TCP", "UDP", "icmp", "6", "", "tcp", "strange"}[:sound(7, 1)]...)
	} else {
		numbers("protocol", []int64{6, 6, 6, 17, 1, 58, 0, 300, -6}[:sound(9, 2)]...)
	}
	texts("verdict", r.IntN(4) > 0, []string{"allow", "deny", "unknown", "ACCEPT", "dropped", "", "maybe"}[:sound(7, 1)]...)
	for _, name := range []string{"flows", "bytes", "packets", "reply_bytes", "reply_packets"} {
		numbers(name, []int64{0, 1, 2, 77, 100_000, -1, 1 << 60}[:sound(7, 2)]...)
	}
	for _, name := range []string{"start", "end"} {
		c := plainColumn{name: name, numbers: make([]int64, rows), isMoment: isSo(), unit: oneOf(r, []schema.TimeUnitType{schema.TimeUnitMillis, schema.TimeUnitMicros, schema.TimeUnitNanos}...)}
		unit := map[schema.TimeUnitType]time.Duration{schema.TimeUnitMillis: time.Millisecond, schema.TimeUnitMicros: time.Microsecond, schema.TimeUnitNanos: time.Nanosecond}[c.unit]
		for i := range c.numbers {
			at := time.Date(2026, 3, 10, 11, r.IntN(60), 0, 0, time.UTC)
			switch r.IntN(13) {
			case 0:
				at = at.Add(time.Hour)
			case 1:
				if isBad {
					at = at.AddDate(-2, 0, 0)
				}
			case 2:
				if !isBad {
					break
				}
				at = at.AddDate(300, 0, 0)
				if c.unit == schema.TimeUnitNanos {
					continue
				}
			case 3:
				c.numbers[i] = -5
				continue
			case 4:
				continue
			}
			c.numbers[i] = at.Unix() * int64(time.Second/unit)
		}
		add(c, false)
	}
	properties := []parquet.WriterProperty{
		parquet.WithDataPageSize(int64(oneOf(r, []int{1, 64, 1 << 20}...))), parquet.WithBatchSize(int64(1 + r.IntN(20))),
		parquet.WithDictionaryPageSizeLimit(int64(oneOf(r, []int{16, 64, 1 << 20}...))),
		parquet.WithDataPageVersion(oneOf(r, []parquet.DataPageVersion{parquet.DataPageV1, parquet.DataPageV2}...)),
		parquet.WithCompression(oneOf(r, []compress.Compression{compress.Codecs.Uncompressed, compress.Codecs.Snappy, compress.Codecs.Gzip, compress.Codecs.Zstd}...)),
	}
	return writeTable(t, columns, 1+r.IntN(40), append(properties, more...)...)
}
