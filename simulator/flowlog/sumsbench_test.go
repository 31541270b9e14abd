package flowlog

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/weir-policy/weir/internal/testkit/flows"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator"
)

var (
	plainRows = flag.Int("rows", 1_000_000, "how many rows the tables of benchmarks have")
	plainDir  = flag.String("tables", "", "a folder to make the benchmarks' tables in, which are kept; a temporary one otherwise")
)

// benchKind is a table of made-up flows, with the names of workloads or with
// addresses alone. Flows that are denied are between any two, and half of all
// tuples.
type benchKind struct {
	name          string
	named, denied bool
	codec         compress.Compression
}

func benchTable(b *testing.B, kind benchKind) string {
	b.Helper()
	name := filepath.Join(cmp.Or(*plainDir, b.TempDir()), fmt.Sprintf("%d-%s.parquet", *plainRows, kind.name))
	if _, err := os.Stat(name); err == nil {
		return name
	}
	f, err := os.Create(name + ".part")
	must(b, err)
	const perGroup = 1 << 20
	text := func(name string, of func(*policies.Flow) string) (plainColumn, func(*plainColumn, *policies.Flow)) {
		return plainColumn{name: name, texts: []string{}, coded: true}, func(c *plainColumn, f *policies.Flow) { c.texts = append(c.texts, of(f)) }
	}
	number := func(name string, coded bool, of func(*policies.Flow) int64) (plainColumn, func(*plainColumn, *policies.Flow)) {
		return plainColumn{name: name, coded: coded}, func(c *plainColumn, f *policies.Flow) { c.numbers = append(c.numbers, of(f)) }
	}
	var columns []plainColumn
	var fills []func(*plainColumn, *policies.Flow)
	add := func(c plainColumn, fill func(*plainColumn, *policies.Flow)) {
		columns, fills = append(columns, c), append(fills, fill)
	}
	moment, fill := number("start", false, func(f *policies.Flow) int64 { return f.First.UnixMicro() })
	moment.isMoment, moment.unit = true, schema.TimeUnitMicros
	add(moment, fill)
	for prefix, end := range map[string]func(*policies.Flow) *policies.FlowPeer{
		"src_": func(f *policies.Flow) *policies.FlowPeer { return &f.From }, "dst_": func(f *policies.Flow) *policies.FlowPeer { return &f.To },
	} {
		if kind.named {
			add(text(prefix+"namespace", func(f *policies.Flow) string { return end(f).Namespace }))
			add(text(prefix+"kind", func(f *policies.Flow) string {
				if len(end(f).Workloads) == 0 {
					return ""
				}
				return "Deployment"
			}))
			add(text(prefix+"name", func(f *policies.Flow) string {
				if len(end(f).Workloads) == 0 {
					return ""
				}
				return end(f).Workloads[0].Name
			}))
			continue
		}
		add(text(prefix+"ip", func(f *policies.Flow) string {
			if !end(f).Address.IsValid() {
				return "192.168.0.1"
			}
			return end(f).Address.String()
		}))
	}
	add(text("protocol", func(f *policies.Flow) string { return f.Protocol.String() }))
	add(number("src_port", true, func(f *policies.Flow) int64 { return int64(f.SourcePort) }))
	add(number("dst_port", true, func(f *policies.Flow) int64 { return int64(f.Port) }))
	add(text("verdict", func(f *policies.Flow) string { return f.Verdict.String() }))
	add(number("bytes", false, func(f *policies.Flow) int64 { return int64(f.Bytes) }))
	add(number("packets", true, func(f *policies.Flow) int64 { return int64(f.Packets) }))
	w := newTableWriter(b, f, columns, parquet.WithCompression(kind.codec), parquet.WithDictionaryPageSizeLimit(8<<20))
	g := flows.New(flows.Options{})
	for left := *plainRows; left > 0; left -= perGroup {
		for i := range columns {
			columns[i].texts, columns[i].numbers = columns[i].texts[:0], columns[i].numbers[:0]
		}
		n := min(left, perGroup)
		for range n {
			f := g.Next()
			for !kind.denied && f.Verdict == policies.Deny {
				f = g.Next()
			}
			for i, fill := range fills {
				fill(&columns[i], &f)
			}
		}
		writeGroup(b, w, columns, 0, n)
	}
	must(b, w.Close())
	must(b, os.Rename(name+".part", name))
	return name
}

// benchWorld has the workloads of made-up flows, with their pods' addresses, and
// a policy that breaks some of them.
func benchWorld(b *testing.B) (before, after *reach.Judge) {
	b.Helper()
	m, err := k8s.Read(nil, k8s.Options{})
	must(b, err)
	g, seen, namespaces := flows.New(flows.Options{}), map[string]bool{}, map[string]bool{}
	for range 400_000 {
		f := g.Next()
		for _, end := range []*policies.FlowPeer{&f.From, &f.To} {
			if end.Pod == "" || seen[end.Pod] {
				continue
			}
			seen[end.Pod] = true
			if !namespaces[end.Namespace] {
				namespaces[end.Namespace] = true
				m.Namespaces = append(m.Namespaces, policies.Namespace{Name: end.Namespace})
			}
			pod := policies.Pod{Ref: policies.Ref{Kind: "Pod", Namespace: end.Namespace, Name: end.Pod}, Workload: end.Workloads[0], Labels: end.Labels}
			pod.Addresses = append(pod.Addresses, end.Address)
			m.Pods = append(m.Pods, pod)
		}
	}
	docs, err := k8s.Parse("p.yaml", []byte(`{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: team-003, name: shut}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}}`))
	must(b, err)
	head, err := k8s.Read(docs, k8s.Options{})
	must(b, err)
	head.World = m.World
	return reach.Pair(m, head, reach.Options{})
}

// unheard takes sums and decides nothing.
type unheard struct{ *simulator.Replayer }

func (unheard) Together(*policies.Flow) bool { return true }
func (unheard) AddAlike(*simulator.Alike)    {}

// BenchmarkTable replays tables by sums and row by row, and has DuckDB group the
// same rows, where WEIR_DUCKDB names it.
func BenchmarkTable(b *testing.B) {
	for _, kind := range []benchKind{
		{"names", true, true, compress.Codecs.Snappy},
		{"names-few", true, false, compress.Codecs.Snappy},
		{"names-few-zstd", true, false, compress.Codecs.Zstd},
		{"addresses", false, true, compress.Codecs.Snappy},
		{"addresses-few", false, false, compress.Codecs.Snappy},
	} {
		b.Run(kind.name, func(b *testing.B) { benchmarkTable(b, kind) })
	}
}

func benchmarkTable(b *testing.B, kind benchKind) {
	group := "src_ip, dst_ip, dst_port, protocol, verdict"
	if kind.named {
		group = "src_namespace, src_kind, src_name, dst_namespace, dst_kind, dst_name, dst_port, protocol, verdict"
	}
	name := benchTable(b, kind)
	before, after := benchWorld(b)
	run := func(how string, once func()) {
		b.Run(how, func(b *testing.B) {
			used := processorTime(b)
			for b.Loop() {
				once()
			}
			b.ReportMetric(float64(b.N**plainRows)/(processorTime(b)-used).Seconds()/1e6, "Mrows/cpu-s")
		})
	}
	read := func(o Options, each func(policies.Flow) error) {
		f, err := os.Open(name)
		must(b, err)
		defer f.Close()
		_, err = Read(context.Background(), f, name, o, each)
		must(b, err)
	}
	run("sums alone", func() {
		sums := NewSums(unheard{simulator.New(before, after)})
		read(Options{Sums: sums}, func(policies.Flow) error { return nil })
		sums.Flush()
	})
	run("replay", func() {
		r := simulator.New(before, after)
		sums := NewSums(simulator.Together(r))
		read(Options{Sums: sums}, func(f policies.Flow) error { r.Add(f); return nil })
		sums.Flush()
		result := r.Result()
		if result.Flows != uint64(*plainRows) {
			b.Fatalf("%+v", result.Outcomes)
		}
	})
	b.Run("duckdb", func(b *testing.B) {
		command := os.Getenv("WEIR_DUCKDB")
		if command == "" {
			b.Skip("there is no DuckDB to compare with")
		}
		var used time.Duration
		for b.Loop() {
			c := exec.Command(command, "-cmd", "SET threads = 1", "-c", "SELECT count(*) AS groups, sum(n)::BIGINT AS n FROM (SELECT count(*) AS n, sum(bytes), min(start), max(start) FROM '"+name+"' GROUP BY "+group+")")
			out, err := c.Output()
			must(b, err)
			var row struct{ Groups, N int }
			must(b, json.Unmarshal(out, &row))
			if row.N != *plainRows {
				b.Fatalf("%s", out)
			}
			used += c.ProcessState.UserTime() + c.ProcessState.SystemTime()
			b.ReportMetric(float64(row.Groups), "groups")
		}
		b.ReportMetric(float64(b.N**plainRows)/used.Seconds()/1e6, "Mrows/cpu-s")
	})
}
