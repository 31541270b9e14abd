package reach_test

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"os"
	"testing"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// TestSuite holds the judge against a truth table of NetworkPolicy worlds.
func TestSuite(t *testing.T) {
	file, err := os.Open(testkit.Shared(t, "suites", "networkpolicy", "cases.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 16<<20)
	right, wrong := 0, 0
	for lines.Scan() {
		var c struct {
			Case   string
			World  json.RawMessage
			Expect [][]any
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		docs, err := k8s.Parse(c.Case+".json", c.World)
		if err != nil {
			t.Fatal(err)
		}
		model, err := k8s.Read(docs, k8s.Options{})
		if err != nil {
			t.Fatal(err)
		}
		judge := reach.New(model, reach.Options{})
		for _, row := range c.Expect {
			from, to := endOf(t, judge, row[0].(string)), endOf(t, judge, row[1].(string))
			protocol, err := netset.ParseProtocol(row[2].(string))
			if err != nil {
				t.Fatal(err)
			}
			port := uint16(row[3].(float64))
			d := judge.Decide(from, to, protocol, port)
			got := [3]string{d.Sides[policies.Ingress].Verdict.String(), d.Sides[policies.Egress].Verdict.String(), judge.Verdict(from, to, protocol, port).String()}
			want := [3]string{row[4].(string), row[5].(string), row[6].(string)}
			if got != want || d.Verdict.String() != want[2] {
				if wrong++; wrong <= 10 {
					t.Errorf("%s: %v: got %v (%s), want %v", c.Case, row[:4], got, d.Verdict, want)
				}
				continue
			}
			right++
		}
	}
	if right != 109956 || wrong != 0 {
		t.Errorf("%d verdicts right and %d wrong, want 109956 right", right, wrong)
	}
}

func endOf(t *testing.T, j *reach.Judge, name string) reach.End {
	t.Helper()
	target, err := j.Model().Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return j.Pod(target.Pods[0])
}
