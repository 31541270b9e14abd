package flowsql_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/internal/flowsql"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var march = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// recorded is a flow a minute, to four ports, from two workloads.
func recorded(n int) []policies.Flow {
	var flows []policies.Flow
	for i := range n {
		at := march.Add(time.Duration(i) * time.Minute)
		verdict := policies.Allow
		if i%5 == 0 {
			verdict = policies.Deny
		}
		name := []string{"web", "api"}[i%2]
		flows = append(flows, policies.Flow{
			First: at, Last: at.Add(time.Second), Protocol: netset.TCP, Port: uint16(80 + i%4), Verdict: verdict, Count: 1, Bytes: uint64(i),
			From: policies.FlowPeer{Namespace: "shop", Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: name}}, Labels: map[string]string{"app": name}},
			To:   policies.FlowPeer{Outside: true},
		})
	}
	return flows
}

// scanning hands over flows, all of them, and notes what was asked for.
func scanning(flows []policies.Flow, asked *[]string) flowsql.Scan {
	return func(ctx context.Context, since, until time.Time, each func(*policies.Flow) error) error {
		if asked != nil {
			*asked = append(*asked, fmt.Sprint(since.Format(time.RFC3339Nano), " ", until.Format(time.RFC3339Nano)))
		}
		for i := range flows {
			if err := errors.Join(ctx.Err(), each(&flows[i])); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestAnswers(t *testing.T) {
	flows := append(recorded(1500), policies.Flow{Verdict: policies.Unknown, Count: 7})
	for question, want := range map[string]string{
		"SELECT count(*) FROM flows": "1501",
		"select verdict, sum(flows), sum(bytes) from flows group by 1 order by 1":                                                                               "allow 1200 900000|deny 300 224250|unknown 7 0",
		"SELECT start, \"end\", src_kind, src_name, src_labels, src_labels_state, dst_network, protocol, dst_port FROM flows LIMIT 1":                           "2026-03-01 00:00:00.000000 2026-03-01 00:00:01.000000 Deployment web app=web full outside TCP 80",
		"SELECT count(*) FROM flows WHERE start IS NULL":                                                                                                        "1",
		"SELECT count(*) FROM flows WHERE start >= '2026-03-01 00:10' AND start < '2026-03-01T00:20:00Z'":                                                       "10",
		"SELECT count(*) FROM flows WHERE start > '2026-03-01 00:10:00' AND start <= '2026-03-01T03:20:00+03:00'":                                               "10",
		"SELECT count(*) FROM flows WHERE start = '2026-03-01 00:10:00'":                                                                                        "1",
		"SELECT count(*) FROM flows WHERE start >= NULL":                                                                                                        "0",
		"SELECT count(*) FROM flows WHERE start < '2026-03-01 00:05' OR start >= '2026-03-02 00:55'":                                                            "10",
		"WITH a AS MATERIALIZED (SELECT dst_port p, count(*) n FROM flows GROUP BY 1) SELECT count(*) FROM a x JOIN a y ON x.n = y.n AND x.p <> 0 AND y.p <> 0": "16",
		"SELECT strftime('%H', start) h, count(*) FROM flows WHERE src_name = 'web' GROUP BY h HAVING h < '02' ORDER BY h;  -- done":                            "00 60|01 30",
		"SELECT 'a;b', 1.5, NULL": "a;b 1.5 <nil>",
	} {
		a, err := flowsql.Ask(t.Context(), scanning(flows, nil), question, flowsql.Options{})
		if err != nil {
			t.Errorf("%s: %v", question, err)
			continue
		}
		var rows []string
		for _, r := range a.Rows {
			rows = append(rows, strings.Trim(fmt.Sprintln(r...), "\n"))
		}
		if diff := cmp.Diff(want, strings.Join(rows, "|")); diff != "" {
			t.Errorf("%s\n%s", question, diff)
		}
	}
}

// What is of another time need not be read, and whatever the scan hands over the
// answer is that of a loop.
func TestBoundsOfStart(t *testing.T) {
	var asked []string
	_, err := flowsql.Ask(t.Context(), scanning(recorded(10), &asked), "SELECT count(*) FROM flows WHERE start >= '2026-03-01' AND start < '2026-03-02' AND start > '2026-02-01' AND dst_port = 80", flowsql.Options{})
	if diff := cmp.Diff([]string{"2026-03-01T00:00:00Z 2026-03-02T00:00:00Z"}, asked); diff != "" || err != nil {
		t.Error(diff, err)
	}
	flows := recorded(300)
	rapid.Check(t, func(t *rapid.T) {
		low, high := rapid.IntRange(-10, 310).Draw(t, "low"), rapid.IntRange(-10, 310).Draw(t, "high")
		over, under := rapid.SampledFrom([]string{">", ">="}).Draw(t, "over"), rapid.SampledFrom([]string{"<", "<="}).Draw(t, "under")
		want := int64(0)
		for i := range flows {
			if (i > low || over == ">=" && i == low) && (i < high || under == "<=" && i == high) {
				want += int64(flows[i].Bytes)
			}
		}
		at := func(minute int) string { return march.Add(time.Duration(minute) * time.Minute).Format(time.DateTime) }
		question := fmt.Sprintf("SELECT coalesce(sum(bytes), 0) FROM flows WHERE start %s '%s' AND '%s' %s start", over, at(low), at(high), map[string]string{"<": ">", "<=": ">="}[under])
		a, err := flowsql.Ask(context.Background(), scanning(flows, nil), question, flowsql.Options{})
		if err != nil || a.Rows[0][0] != want {
			t.Errorf("%s is %v, want %d (error %v)", question, a, want, err)
		}
	})
}

func TestQuestionsThatCannotBeAsked(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "out.db")
	for question, want := range map[string]string{
		"":                                       "the question is empty",
		"SELECT srcname FROM flows":              "SQL:1:8: no such column: srcname; near it are",
		"SELECT\n  1 FROM FROM flows":            "SQL: near \"FROM\": syntax error",
		"SELECT\n  count(* 1) FROM flows":        "SQL:2:11: near \"1\": syntax error",
		"SELECT rowid FROM flows":                "rows of flows have no rowid",
		"SELECT count(*":                         "SQL: incomplete input",
		"SELECT * FROM flow":                     "SQL:1:15: no such table: flow; the only table is flows",
		"SELECT median2(bytes) FROM flows":       "SQL:1:8: no such function: median2",
		"DELETE FROM flows":                      "SQL:1:1: this does not begin with SELECT, WITH or VALUES",
		"WITH a AS (SELECT 1) DELETE FROM flows": "SQL:",
		"WITH a AS (SELECT 1) INSERT INTO flows(start) SELECT 1":                          "SQL:",
		"/* a */ ATTACH '" + file + "' AS a":                                              "SQL:1:9: this does not begin",
		"SELECT 1; ATTACH '" + file + "' AS a":                                            "SQL:1:9: there are several statements",
		"SELECT ';' ; VACUUM INTO '" + file + "'":                                         "SQL:1:12: there are several statements",
		"PRAGMA query_only = OFF":                                                         "SQL:1:1: this does not begin",
		"SELECT load_extension('x')":                                                      "SQL:",
		"SELECT readfile('/etc/passwd')":                                                  "SQL:1:8: no such function: readfile",
		"SELECT count(*) FROM flows WHERE start > 'yesterday'":                            "SQL: start is compared with yesterday, which is no moment",
		"SELECT count(*) FROM flows WHERE start > 5":                                      "which is no moment",
		"SELECT replace(hex(zeroblob(10000000)), '0', 'aaaaaaaaaaaa')":                    "SQL: string or blob too big",
		"WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n": "the answer has more than 1000 rows; add a LIMIT",
	} {
		if a, err := flowsql.Ask(t.Context(), scanning(recorded(3), nil), question, flowsql.Options{MaxRows: 1000}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, error %v, want %s", question, a, err, want)
		}
	}
	if _, err := os.Stat(file); err == nil {
		t.Error("a file was written")
	}
}

func TestReadingThatEnds(t *testing.T) {
	broken := errors.New("flows.jsonl:7: damaged")
	fails := func(_ context.Context, _, _ time.Time, each func(*policies.Flow) error) error {
		flows := recorded(2000)
		for i := range flows {
			if err := each(&flows[i]); err != nil {
				return err
			}
		}
		return broken
	}
	if _, err := flowsql.Ask(t.Context(), fails, "SELECT count(*) FROM flows", flowsql.Options{}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	// What stands before the end of a reading is enough for some questions.
	if a, err := flowsql.Ask(t.Context(), fails, "SELECT start FROM flows LIMIT 3", flowsql.Options{}); err != nil || len(a.Rows) != 3 {
		t.Errorf("%v, error %v", a, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	endless := func(ctx context.Context, _, _ time.Time, each func(*policies.Flow) error) error {
		flow := recorded(1)[0]
		for i := 0; ; i++ {
			if i == 5000 {
				cancel()
			}
			if err := errors.Join(ctx.Err(), each(&flow)); err != nil {
				return err
			}
		}
	}
	if _, err := flowsql.Ask(ctx, endless, "SELECT count(*) FROM flows", flowsql.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want that it was canceled", err)
	}
}

func FuzzAsk(f *testing.F) {
	for _, seed := range []string{
		"SELECT * FROM flows", "WITH a AS (SELECT 1) SELECT * FROM a", "SELECT ';' -- ;", "SELECT [a;b] FROM flows", "/*", "VALUES (1), (2)", "SELECT \"",
		"SELECT 1; SELECT 2", "SELECT count(*) FROM flows a JOIN flows b USING (start) WHERE a.start > '2026-03-01'",
	} {
		f.Add(seed)
	}
	flows := recorded(3)
	f.Fuzz(func(t *testing.T, question string) {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, _ = flowsql.Ask(ctx, scanning(flows, nil), question, flowsql.Options{MaxRows: 10, MaxText: 1 << 16})
	})
}

func BenchmarkAsk(b *testing.B) {
	flows := recorded(100_000)
	for b.Loop() {
		if _, err := flowsql.Ask(b.Context(), scanning(flows, nil), "SELECT src_name, dst_port, verdict, sum(flows), sum(bytes) FROM flows GROUP BY 1, 2, 3", flowsql.Options{}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(flows)*b.N)/b.Elapsed().Seconds(), "rows/s")
}
