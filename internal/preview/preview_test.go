package preview

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/internal/report"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
	"github.com/weir-policy/weir/simulator/flowlog"
)

const pods = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
---
`

// dbFrom is a policy that lets pods with the label in to the database.
func dbFrom(peer string) string {
	return `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [` + peer + `]
    ports: [{port: 5432}]
`
}

const (
	fromWeb   = `{podSelector: {matchLabels: {app: web}}}`
	fromWorld = `{ipBlock: {cidr: 203.0.113.0/24}}`
)

func read(t *testing.T, text string) *policies.Model {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func flows(records ...policies.Flow) func(context.Context, *simulator.Replayers) (flowlog.Stats, error) {
	return func(_ context.Context, to *simulator.Replayers) (flowlog.Stats, error) {
		for _, f := range records {
			to.Add(f)
		}
		return flowlog.Stats{Flows: uint64(len(records)), Bad: 1, LeftOut: map[string]uint64{"few": 1, "many": 5}}, nil
	}
}

func used(port uint16) policies.Flow {
	return policies.Flow{
		From: policies.FlowPeer{Namespace: "shop", Pod: "web"}, To: policies.FlowPeer{Namespace: "shop", Pod: "db"},
		Protocol: netset.TCP, Port: port, Verdict: policies.Allow, Count: 1,
	}
}

func TestRun(t *testing.T) {
	p, err := Run(t.Context(), Request{
		Base: read(t, pods+dbFrom(fromWeb)), Head: read(t, pods+dbFrom(fromWorld)),
		Flows:  flows(used(5432), used(5432), used(80)),
		FailOn: []Condition{Breaks, Opens, Adds, Removes, Unknowns, Drifts},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"breaks", "adds", "removes", "drift"}
	if diff := cmp.Diff(want, p.Failed); diff != "" {
		t.Errorf("conditions met (-want +got):\n%s", diff)
	}
	exposure := report.Exposure{Reachable: report.Span{Before: 1, After: 2, New: []policies.Peer{{Namespace: "shop", Name: "db", Kind: "Pod"}}}, Reaching: report.Span{Before: 2, After: 2}}
	if diff := cmp.Diff(exposure, p.Exposure); diff != "" {
		t.Errorf("exposure (-want +got):\n%s", diff)
	}
	leftOut := []simulator.Cause{{Text: "many", Flows: 5}, {Text: "few", Flows: 1}}
	if diff := cmp.Diff(leftOut, p.Reading.LeftOut); diff != "" {
		t.Errorf("left out (-want +got):\n%s", diff)
	}
}

func TestRunWithoutFlows(t *testing.T) {
	same := read(t, pods+dbFrom(fromWeb))
	p, err := Run(t.Context(), Request{Base: same, Head: same, FailOn: Conditions})
	if err != nil {
		t.Fatal(err)
	}
	if p.Replay != nil || len(p.Change.Differences) > 0 || p.Failed != nil {
		t.Errorf("nothing changed, yet: %+v", p)
	}
	if len(p.Warnings) != 3 {
		t.Errorf("got warnings %v, want one for each of breaks, opens and drift", p.Warnings)
	}
}

func TestRunWithoutWorkloads(t *testing.T) {
	p, err := Run(t.Context(), Request{Base: read(t, dbFrom(fromWeb)), Head: read(t, dbFrom(fromWorld))})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Warnings) != 1 || !strings.Contains(p.Warnings[0].Message, "--world") {
		t.Errorf("got warnings %v, want one that names --world", p.Warnings)
	}
}

func TestRunFailsWithTheFlows(t *testing.T) {
	broken := errors.New("flows.jsonl:3: not JSON")
	_, err := Run(t.Context(), Request{
		Base: read(t, pods), Head: read(t, pods),
		Flows: func(context.Context, *simulator.Replayers) (flowlog.Stats, error) {
			return flowlog.Stats{}, broken
		},
	})
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestRunFailsOnFlowsThatAreNone(t *testing.T) {
	wrong := func(context.Context, *simulator.Replayers) (flowlog.Stats, error) {
		return flowlog.Stats{Bad: 2, FirstBad: []policies.Problem{{Place: policies.Place{File: "README.md", Line: 1}, Message: "line is not a JSON object"}}}, nil
	}
	request := Request{Base: read(t, pods), Head: read(t, pods), Flows: wrong}
	if _, err := Run(t.Context(), request); err != nil {
		t.Errorf("without a condition: %v", err)
	}
	request.FailOn = []Condition{Breaks}
	want := "none of 2 lines is a recorded flow, so nothing can be said of flows: README.md:1: line is not a JSON object"
	if _, err := Run(t.Context(), request); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestParseConditions(t *testing.T) {
	for _, row := range []struct {
		text string
		want []Condition
		err  string
	}{
		{"", nil, ""},
		{"none", nil, ""},
		{"breaks,opens", []Condition{Breaks, Opens}, ""},
		{"adds, removes", []Condition{Adds, Removes}, ""},
		{"break", nil, `"break" is none of invariants, breaks, opens, adds, removes, unknown, drift, none`},
	} {
		got, err := ParseConditions(row.text, Conditions...)
		if (err == nil) != (row.err == "") || err != nil && err.Error() != row.err {
			t.Errorf("%q: error %v, want %q", row.text, err, row.err)
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", row.text, diff)
		}
	}
}

// TestEachHeadByItself: one head of two fails on what they together do not, and
// the flows, which may come from a pipe, are read once.
func TestEachHeadByItself(t *testing.T) {
	staged := func(name, peer string) string {
		return "---\n" + strings.NewReplacer("networking.k8s.io/v1", "projectcalico.org/v3", "NetworkPolicy", "StagedKubernetesNetworkPolicy", "name: db", "name: "+name).Replace(dbFrom(peer))
	}
	base := read(t, pods+dbFrom(fromWeb)+staged("db", fromWorld)+staged("more", fromWeb))
	readings := 0
	p, err := Run(t.Context(), Request{
		Base: base, Head: base.Enforce(0, 1), FailOn: []Condition{Breaks, Adds, Removes},
		Staged: base.Staged, Each: []int{0, 1},
		Flows: func(ctx context.Context, to *simulator.Replayers) (flowlog.Stats, error) {
			readings++
			return flows(used(5432))(ctx, to)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if readings != 1 {
		t.Errorf("the flows were read %d times", readings)
	}
	got := [][]string{p.Failed, p.Each[0].Failed, p.Each[1].Failed}
	if d := cmp.Diff([][]string{{"breaks", "adds", "removes"}, {"breaks", "adds", "removes"}, nil}, got); d != "" {
		t.Errorf("failed (-want +got):\n%s", d)
	}
	if breaks := [...]uint64{p.Replay.Outcomes[simulator.Breaks], p.Each[0].Replay.Outcomes[simulator.Breaks]}; breaks != [...]uint64{0, 1} {
		t.Errorf("together and by itself %v flows break", breaks)
	}
}
