package flowstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowrow"
)

// askDuckDB returns the rows of an answer, or skips the test where it is not run
// to ask.
func askDuckDB[R any](t *testing.T, query string) []R {
	t.Helper()
	command := os.Getenv("WEIR_DUCKDB")
	if command == "" {
		t.Skip("no DuckDB to ask: make test-duckdb builds it, where it can be built")
	}
	c := exec.CommandContext(t.Context(), command, "-c", query)
	c.Stderr = os.Stderr
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	var rows []R
	for in := json.NewDecoder(bytes.NewReader(out)); in.More(); {
		var row R
		if err := in.Decode(&row); err != nil {
			t.Fatalf("%s: %v", query, err)
		}
		rows = append(rows, row)
	}
	return rows
}

// filesOf returns what reads the files of some kinds.
func filesOf(t *testing.T, s *Store, kinds ...kind) string {
	t.Helper()
	st, err := s.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var files []string
	for _, f := range st.Files {
		if slices.Contains(kinds, f.Kind) {
			files = append(files, fmt.Sprintf("'%s/%s'", s.blobs, f.Name))
		}
	}
	if len(files) == 0 {
		t.Fatalf("there is no file of the kinds %v", kinds)
	}
	return "read_parquet([" + strings.Join(files, ", ") + "], hive_partitioning = false)"
}

// duckTuples groups rows as replays do; hour says how a row's is reckoned.
func duckTuples(t *testing.T, hour, files string) map[tupleHour]tupleSum {
	t.Helper()
	found := map[tupleHour]tupleSum{}
	for _, r := range askDuckDB[struct {
		Tuple, Hour, EgressOnly, Flows, Bytes, First, Last int64
		Reporter, Verdict                                  string
	}](t, `SELECT tuple AS "Tuple", `+hour+` AS "Hour", reporter AS "Reporter", verdict AS "Verdict", egress_only AS "EgressOnly",
		sum(flows)::BIGINT AS "Flows", sum(bytes)::BIGINT AS "Bytes", epoch_us(min(start)) AS "First", epoch_us(max("end")) AS "Last"
		FROM `+files+` GROUP BY ALL`) {
		key := tupleHour{ID: uint64(r.Tuple), Start: r.Hour / 1e6, EgressOnly: r.EgressOnly == 1}
		if err := key.Verdict.UnmarshalText([]byte(r.Verdict)); err != nil {
			t.Error(err)
		}
		if r.Reporter != "" {
			var err error
			if key.Reporter, err = policies.ParseReporter(r.Reporter); err != nil {
				t.Error(err)
			}
		}
		found[key] = tupleSum{uint64(r.Flows), uint64(r.Bytes), flowrow.Moment(r.First), flowrow.Moment(r.Last)}
	}
	return found
}

// named is what people group flows by.
type named struct {
	From, To policies.Ref
	Protocol string
	Port     uint16
	Verdict  string
}

type namedSum struct{ Flows, Bytes, Packets uint64 }

func duckNamed(t *testing.T, files string) map[named]namedSum {
	t.Helper()
	found := map[named]namedSum{}
	for _, r := range askDuckDB[struct {
		From, To [3]string
		named
		namedSum
	}](t, `SELECT [src_kind, src_namespace, src_name] AS "From", [dst_kind, dst_namespace, dst_name] AS "To", protocol AS "Protocol", dst_port AS "Port",
		verdict AS "Verdict", sum(flows)::BIGINT AS "Flows", sum(bytes)::BIGINT AS "Bytes", sum(packets)::BIGINT AS "Packets" FROM `+files+` GROUP BY ALL`) {
		r.named.From = policies.Ref{Kind: r.From[0], Namespace: r.From[1], Name: r.From[2]}
		r.named.To = policies.Ref{Kind: r.To[0], Namespace: r.To[1], Name: r.To[2]}
		found[r.named] = r.namedSum
	}
	return found
}

// countNamed is the oracle of duckNamed.
func countNamed(all []policies.Flow) map[named]namedSum {
	found := map[named]namedSum{}
	for i := range all {
		f := &all[i]
		key := named{Port: f.Port, Protocol: protocolText(int(f.Protocol)), Verdict: flowrow.VerdictText(f.Verdict)}
		for _, end := range []struct {
			of *policies.FlowPeer
			to *policies.Ref
		}{{&f.From, &key.From}, {&f.To, &key.To}} {
			*end.to = policies.Ref{Namespace: end.of.Namespace}
			if len(end.of.Workloads) > 0 {
				end.to.Kind, end.to.Name = end.of.Workloads[0].Kind, end.of.Workloads[0].Name
			}
		}
		sum := found[key]
		found[key] = namedSum{sum.Flows + max(1, f.Count), sum.Bytes + f.Bytes, sum.Packets + f.Packets}
	}
	return found
}

// TestRealDuckDB has DuckDB count flows of every format as they are stored, as
// imported and compacted, and their tuples: they come to what a count flow by
// flow does, and to what Weir reads.
func TestRealDuckDB(t *testing.T) {
	askDuckDB[struct{}](t, "SELECT 1")
	worlds := map[string][]policies.Flow{"a busy cluster": generate(small(31), 20_000)}
	for _, format := range flowlog.Formats() {
		files, err := filepath.Glob(filepath.Join("..", "flowlog", "testdata", format+".*"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			if filepath.Ext(name) == ".want" {
				continue
			}
			f, err := os.Open(name)
			if err != nil {
				t.Fatal(err)
			}
			_, err = flowlog.Read(t.Context(), f, name, flowlog.Options{}, func(f policies.Flow) error {
				// Times are kept to the microsecond.
				f.First, f.Last = f.First.Truncate(time.Microsecond), f.Last.Truncate(time.Microsecond)
				worlds[format] = append(worlds[format], f)
				return nil
			})
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
		}
		if len(worlds[format]) == 0 {
			t.Errorf("there is no flow of the format %s", format)
		}
	}
	const hourOfStart = "epoch_us(start) - ((epoch_us(start) % 3600000000) + 3600000000) % 3600000000"
	for world, made := range worlds {
		t.Run(world, func(t *testing.T) {
			want := countRows(made)
			s := openStore(t, t.TempDir(), Options{})
			equalSums := func(what, hour string, kinds ...kind) {
				t.Helper()
				files := filesOf(t, s, kinds...)
				if diff := gocmp.Diff(want, duckTuples(t, hour, files)); diff != "" {
					t.Errorf("%s (-flow by flow +DuckDB):\n%s", what, diff)
				}
				if diff := gocmp.Diff(countNamed(made), duckNamed(t, files)); diff != "" {
					t.Errorf("%s, by name (-flow by flow +DuckDB):\n%s", what, diff)
				}
				if diff := gocmp.Diff(sidesOf(want), tuplesOf(t, recordedOf(t, s, Range{}))); diff != "" {
					t.Errorf("%s (-flow by flow +Weir):\n%s", what, diff)
				}
			}
			add(t, s, made...)
			equalSums("as imported", hourOfStart, raw)
			compact(t, s, long)
			equalSums("compacted", hourOfStart, sorted)
			equalSums("tuples", "epoch_us(hour)", hourly, daily)
		})
	}
}
