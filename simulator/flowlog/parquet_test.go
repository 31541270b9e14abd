package flowlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

// tableOf is a Parquet file of columns by name: []string, []int64, []int32 or
// [][16]byte; an empty text is null.
func tableOf(t testing.TB, columns ...any) []byte {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var fields schema.FieldList
	for i := 0; i < len(columns); i += 2 {
		name := columns[i].(string)
		name, isMilli := strings.CutSuffix(name, " ms")
		var node schema.Node
		var err error
		switch columns[i+1].(type) {
		case []string:
			node, err = schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Optional, schema.StringLogicalType{}, parquet.Types.ByteArray, 0, -1)
		case []int64:
			node = schema.NewInt64Node(name, parquet.Repetitions.Required, -1)
			if isMilli {
				node, err = schema.NewPrimitiveNodeLogical(name, parquet.Repetitions.Required, schema.NewTimestampLogicalType(true, schema.TimeUnitMillis), parquet.Types.Int64, 0, -1)
			}
		case []int32:
			node = schema.NewInt32Node(name, parquet.Repetitions.Required, -1)
		case [][16]byte:
			node = schema.NewFixedLenByteArrayNode(name, parquet.Repetitions.Required, 16, -1)
		case []float64:
			node = schema.NewFloat64Node(name, parquet.Repetitions.Required, -1)
		}
		must(err)
		fields = append(fields, node)
	}
	root, err := schema.NewGroupNode("schema", parquet.Repetitions.Required, fields, -1)
	must(err)
	var b bytes.Buffer
	w := file.NewParquetWriter(&b, root, file.WithWriterProps(parquet.NewWriterProperties(parquet.WithCompression(compress.Codecs.Snappy))))
	group, err := w.AppendRowGroupChecked()
	must(err)
	for i := 1; i < len(columns); i += 2 {
		c, err := group.NextColumn()
		must(err)
		switch values := columns[i].(type) {
		case []string:
			var texts []parquet.ByteArray
			levels := make([]int16, len(values))
			for j, text := range values {
				if text != "" {
					levels[j] = 1
					texts = append(texts, parquet.ByteArray(text))
				}
			}
			_, err = c.(*file.ByteArrayColumnChunkWriter).WriteBatch(texts, levels, nil)
		case []int64:
			_, err = c.(*file.Int64ColumnChunkWriter).WriteBatch(values, nil, nil)
		case []int32:
			_, err = c.(*file.Int32ColumnChunkWriter).WriteBatch(values, nil, nil)
		case []float64:
			_, err = c.(*file.Float64ColumnChunkWriter).WriteBatch(values, nil, nil)
		case [][16]byte:
			var fixed []parquet.FixedLenByteArray
			for _, v := range values {
				fixed = append(fixed, v[:])
			}
			_, err = c.(*file.FixedLenByteArrayColumnChunkWriter).WriteBatch(fixed, nil, nil)
		}
		must(err)
		must(c.Close())
	}
	must(group.Close())
	must(w.Close())
	return b.Bytes()
}

func TestParquet(t *testing.T) {
	ends := []any{"SrcAddr", []string{"10.0.1.5"}, "DstAddr", []string{"10.0.2.7"}}
	with := func(more ...any) []byte { return tableOf(t, append(ends[:4:4], more...)...) }
	mapped := [16]byte{10: 0xff, 11: 0xff, 12: 10, 13: 0, 14: 1, 15: 5}
	const pair, at = "10.0.1.5 > 10.0.2.7", " 0 unknown at "
	const atTen = "2026-03-01T10:00:00Z"
	rows := []struct {
		name    string
		file    []byte
		columns map[string]string
		want    string
	}{
		{"addresses alone", with(), nil, pair + at + "0001-01-01T00:00:00Z"},
		{"ports and protocol", with("SrcPort", []int32{43210}, "DstPort", []int64{5432}, "Proto", []int32{6}), nil, webToDB + "unknown at 0001-01-01T00:00:00Z"},
		{"a protocol by name", with("protocol", []string{"udp"}), nil, pair + " UDP unknown at 0001-01-01T00:00:00Z"},
		{"counts", with("flows", []int64{3}, "Bytes", []int64{700}, "Packets", []int64{7}, "reply_bytes", []int64{1}), nil, pair + " 0 unknown x3 700B/7 back 1B/0 at 0001-01-01T00:00:00Z"},
		{"a verdict", with("action", []string{"REJECT"}), nil, pair + " 0 deny at 0001-01-01T00:00:00Z"},
		{"a null is not there", with("verdict", []string{""}), nil, pair + at + "0001-01-01T00:00:00Z"},
		{"seconds", with("start", []int64{exportedAt}), nil, pair + at + atTen},
		{"milliseconds", with("TimeFlowStartMs", []int64{exportedAt * 1000}), nil, pair + at + atTen},
		{"nanoseconds", with("start", []int64{exportedAt * 1e9}), nil, pair + at + atTen},
		{"as the column's type says", with("start ms", []int64{exportedAt * 1000}), nil, pair + at + atTen},
		{"a text", with("end", []string{atTen}), nil, pair + at + atTen},
		{"NetObserv's names", with("SrcK8S_Namespace", []string{"shop"}, "SrcK8S_OwnerName", []string{"web"}, "SrcK8S_OwnerType", []string{"Deployment"}), nil, "Deployment shop/web=" + pair + at + "0001-01-01T00:00:00Z"},
		{"addresses of 16 bytes", tableOf(t, "src_ip", [][16]byte{mapped}, "dst_ip", []string{"10.0.2.7"}), nil, pair + at + "0001-01-01T00:00:00Z"},
		{"any names", tableOf(t, "a", []string{"10.0.1.5"}, "b", []string{"10.0.2.7"}), map[string]string{"src_ip": "a", "dst_ip": "b"}, pair + at + "0001-01-01T00:00:00Z"},
		{"a name that is said goes first", with("other", []string{"10.0.9.9"}), map[string]string{"dst_ip": "other"}, "10.0.1.5 > 10.0.9.9 0 unknown at 0001-01-01T00:00:00Z"},
		{"AWS", tableOf(t, "account_id", []string{"1"}, "srcaddr", []string{"10.0.1.5"}, "dstaddr", []string{"10.0.2.7"}, "srcport", []int32{43210}, "dstport", []int32{5432}, "protocol", []int64{6}, "start", []int64{exportedAt}, "action", []string{"REJECT"}), nil, webToDB + "deny at " + atTen},
		{"a port beyond range", with("DstPort", []int64{65536}), nil, "bad: DstPort: 65536 is no whole number from 0 to 65535"},
		{"a negative count", with("Bytes", []int64{-1}), nil, "bad: Bytes: -1 is no whole number from 0 to 18446744073709551615"},
		{"no address", tableOf(t, "SrcAddr", []string{"web"}, "DstAddr", []string{"10.0.2.7"}), nil, `bad: src_ip: "web" is no IP address`},
		{"no verdict", with("verdict", []string{"maybe"}), nil, `bad: verdict: "maybe" is none of allow, deny, unknown`},
		{"no rows", tableOf(t, "SrcAddr", []string{}, "DstAddr", []string{}), nil, ""},
		{"a number that is none", with("Bytes", []float64{1.5}), nil, "f.log:1: column Bytes is of the type DOUBLE, which is neither a text nor a whole number; the columns are SrcAddr, DstAddr, Bytes; say which is what as in --columns src_ip=NAME"},
		{"another table", tableOf(t, "a", []string{"x"}, "b", []int64{1}), nil, "f.log:1: no column is known for any of dst_ip, dst_pod, dst_name; no column is known for any of src_ip, src_pod, src_name; the columns are a, b; say which is what as in --columns src_ip=NAME"},
		{"names that are not there", with(), map[string]string{"src_ip": "x", "dst_ip": "y"}, "f.log:1: there is no column x for src_ip; there is no column y for dst_ip; the columns are SrcAddr, DstAddr; say which is what as in --columns src_ip=NAME"},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			flows, stats, err := read(t, string(row.file), Options{Columns: row.columns})
			var lines []string
			for _, f := range flows {
				line := told(f) + " at " + f.First.Format("2006-01-02T15:04:05Z07:00")
				if len(f.From.Workloads) > 0 {
					line = f.From.Workloads[0].Kind + " " + f.From.Workloads[0].String() + "=" + line
				}
				lines = append(lines, line)
			}
			lines = append(lines, besides(stats)...)
			if err != nil {
				lines = append(lines, err.Error())
			}
			equal(t, strings.Join(lines, "\n"), row.want)
		})
	}
}

func TestDamagedParquet(t *testing.T) {
	whole := tableOf(t, "SrcAddr", []string{"10.0.1.5"}, "DstAddr", []string{"10.0.2.7"})
	for name, text := range map[string][]byte{"cut off": whole[:len(whole)-9], "only the start": []byte("PAR1"), "damaged": append(bytes.Repeat([]byte("PAR1"), 9), whole[len(whole)-40:]...)} {
		if _, _, err := read(t, string(text), Options{}); err == nil || !strings.HasPrefix(err.Error(), "f.log:1: Parquet data ends or is damaged here") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, r := range map[string]io.Reader{"a stream": io.MultiReader(bytes.NewReader(whole)), "gzip": bytes.NewReader(zip(t, string(whole)))} {
		_, err := Read(context.Background(), r, "f.log", Options{}, func(policies.Flow) error { return nil })
		if err == nil || !strings.Contains(err.Error(), "a Parquet file is read from its end") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// manyRows is a table of n flows between 400 ends.
func manyRows(t testing.TB, n int) []byte {
	from, to, port, first, size := make([]string, n), make([]string, n), make([]int32, n), make([]int64, n), make([]int64, n)
	for i := range n {
		from[i], to[i] = fmt.Sprintf("10.0.1.%d", i%200), fmt.Sprintf("10.0.2.%d", i/7%200)
		port[i], first[i], size[i] = int32(i%50+1), exportedAt*1000+int64(i), int64(i)
	}
	proto := make([]int32, n)
	for i := range proto {
		proto[i] = 6
	}
	return tableOf(t, "SrcAddr", from, "DstAddr", to, "DstPort", port, "Proto", proto, "TimeFlowStartMs", first, "Bytes", size)
}

func TestExampleTable(t *testing.T) {
	const n = 10_000 // more than a batch
	flows, stats, err := read(t, string(manyRows(t, n)), Options{})
	if err != nil || len(flows) != n || stats.Records() != n {
		t.Fatalf("%d flows, %+v, %v", len(flows), stats, err)
	}
	equal(t, told(flows[n-1]), "10.0.1.199 > 10.0.2.28:50 TCP unknown 9999B/0")
	equal(t, flows[n-1].Record, policies.Place{File: "f.log", Line: n})
	testkit.Golden(t, "testdata/parquet.parquet", manyRows(t, 3))
}

// BenchmarkReadParquet reads a table of 100,000 rows.
func BenchmarkReadParquet(b *testing.B) {
	const n = 100_000
	table := manyRows(b, n)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Read(context.Background(), bytes.NewReader(table), "f", Options{}, func(policies.Flow) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*n)/b.Elapsed().Seconds(), "records/s")
}

// FuzzParquet changes bytes of tables: that may be noticed or not, but what is
// read of them comes to the same row by row and by sums.
func FuzzParquet(f *testing.F) {
	f.Add(uint64(1), 0, byte(0), 0, byte(0))
	f.Add(uint64(2), 300, byte(1), 40, byte(255))
	f.Add(uint64(3), 700, byte(7), 4, byte(9))
	f.Add(uint64(162), 586, byte(0xa8), 157, byte(3)) // a level that is neither there nor null
	base := sumJudge(f, sumBase)
	before, after := reach.Pair(base, sumJudge(f, sumOther), reach.Options{})
	f.Fuzz(func(t *testing.T, seed uint64, i int, a byte, j int, b byte) {
		table := randomTable(t, rand.New(rand.NewPCG(seed, 1)), parquet.WithStats(false)) // which are believed
		table[uint(i)%uint(len(table))] ^= a
		table[uint(j)%uint(len(table))] ^= b
		one, summed := simulator.New(before, after), simulator.New(before, after)
		want, wrong := Read(context.Background(), bytes.NewReader(table), "f", Options{Format: parquetName}, func(f policies.Flow) error { one.Add(f); return nil })
		sums := NewSums(summed)
		got, err := Read(context.Background(), bytes.NewReader(table), "f", Options{Format: parquetName, Sums: sums}, func(f policies.Flow) error { summed.Add(f); return nil })
		sums.Flush()
		if n := max(want.Records(), got.Records()); n > 100 {
			t.Errorf("%d records", n)
		}
		if wrong != nil || err != nil {
			return // each has read as far as it came
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Errorf("stats (-one by one +sums):\n%s", diff)
		}
		if diff := gocmp.Diff(one.Result(), summed.Result(), sumValues); diff != "" {
			t.Errorf("-one by one +sums:\n%s", diff)
		}
	})
}
