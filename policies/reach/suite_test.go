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

// suiteCase is a world of a suite with the expected verdicts.
type suiteCase struct {
	Case   string
	World  json.RawMessage
	Expect [][]any
}

// eachCase calls yield with every case of a suite and the judge of its world, with
// more documents in it.
func eachCase(t *testing.T, suite string, yield func(suiteCase, *reach.Judge), more ...k8s.Document) {
	t.Helper()
	file, err := os.Open(testkit.Shared(t, "suites", suite, "cases.jsonl.gz"))
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
	for lines.Scan() {
		var c suiteCase
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		docs, err := k8s.Parse(c.Case+".json", c.World)
		if err != nil {
			t.Fatal(err)
		}
		model, err := k8s.Read(append(docs, more...), k8s.Options{})
		if err != nil {
			t.Fatal(err)
		}
		yield(c, reach.New(model, reach.Options{}))
	}
}

func pointOf(t *testing.T, protocol, port any) point {
	t.Helper()
	p, err := netset.ParseProtocol(protocol.(string))
	if err != nil {
		t.Fatal(err)
	}
	return point{p, uint16(port.(float64))}
}

// TestSuite holds the judge against a truth table of NetworkPolicy worlds.
func TestSuite(t *testing.T) {
	right, wrong := 0, 0
	eachCase(t, "networkpolicy", func(c suiteCase, judge *reach.Judge) {
		for _, row := range c.Expect {
			from, to := endOf(t, judge, row[0].(string)), endOf(t, judge, row[1].(string))
			q := pointOf(t, row[2], row[3])
			d := judge.Decide(from, to, q.protocol, q.port)
			got := [3]string{d.Sides[policies.Ingress].Verdict.String(), d.Sides[policies.Egress].Verdict.String(), judge.Verdict(from, to, q.protocol, q.port).String()}
			want := [3]string{row[4].(string), row[5].(string), row[6].(string)}
			if got != want || d.Verdict.String() != want[2] {
				if wrong++; wrong <= 10 {
					t.Errorf("%s: %v: got %v (%s), want %v", c.Case, row[:4], got, d.Verdict, want)
				}
				continue
			}
			right++
		}
	})
	if right != 109956 || wrong != 0 {
		t.Errorf("%d verdicts right and %d wrong, want 109956 right", right, wrong)
	}
}

// TestTieredSuite holds the judge against the conformance tests of
// ClusterNetworkPolicy, whose targets are addresses.
func TestTieredSuite(t *testing.T) {
	right := 0
	eachCase(t, "clusternetworkpolicy", func(c suiteCase, judge *reach.Judge) {
		for _, row := range c.Expect {
			from := endOf(t, judge, row[0].(string))
			q := pointOf(t, row[2], row[3])
			to := endOf(t, judge, row[1].(string))
			d := judge.Decide(from, to, q.protocol, q.port)
			source, target := targetOf(t, judge, row[0].(string)), targetOf(t, judge, row[1].(string))
			asked, err := judge.Ask(reach.Question{From: source, To: target, Port: policies.PortQuery{Ports: netset.PortSpan(q.protocol, q.port, q.port)}})
			if err != nil {
				t.Fatal(err)
			}
			got := [3]string{judge.Verdict(from, to, q.protocol, q.port).String(), d.Verdict.String(), asked.Verdict.String()}
			if want := row[4].(string); got != [3]string{want, want, want} {
				t.Errorf("%s: %v: got %v (%s), want %v", c.Case, row[:4], got, d.Because, want)
				continue
			}
			right++
		}
	})
	if right != 301 {
		t.Errorf("%d verdicts right, want 301", right)
	}
}

// TestSuitesUnderCalico adds an object of Calico to every world of the suites, one
// that changes nothing by itself. From then on policies are evaluated in Calico's
// order, and that gives the same verdicts.
//
// The two differ by design in what the suites do not ask: whether a NetworkPolicy
// lets ICMP through, traffic from a pod's own node that a cluster-wide policy
// denies, and cluster-wide policies of one priority that contradict each other.
func TestSuitesUnderCalico(t *testing.T) {
	empty, err := k8s.Parse("calico.yaml", []byte("{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: nobody}}"))
	if err != nil {
		t.Fatal(err)
	}
	for _, suite := range []struct {
		name     string
		verdict  int // the column that holds it
		verdicts int
	}{{"networkpolicy", 6, 109956}, {"clusternetworkpolicy", 4, 301}} {
		right, wrong := 0, 0
		eachCase(t, suite.name, func(c suiteCase, judge *reach.Judge) {
			for _, row := range c.Expect {
				q := pointOf(t, row[2], row[3])
				got := judge.Verdict(endOf(t, judge, row[0].(string)), endOf(t, judge, row[1].(string)), q.protocol, q.port)
				if want := row[suite.verdict].(string); got.String() != want {
					if wrong++; wrong <= 10 {
						t.Errorf("%s: %v: got %v, want %v", c.Case, row[:4], got, want)
					}
					continue
				}
				right++
			}
		}, empty...)
		if right != suite.verdicts || wrong != 0 {
			t.Errorf("%s: %d verdicts right and %d wrong, want %d right", suite.name, right, wrong, suite.verdicts)
		}
	}
}

func targetOf(t *testing.T, j *reach.Judge, name string) policies.Target {
	t.Helper()
	target, err := j.Model().Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func endOf(t *testing.T, j *reach.Judge, name string) reach.End {
	t.Helper()
	return j.Pod(targetOf(t, j, name).Pods[0])
}
