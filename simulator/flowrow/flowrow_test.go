package flowrow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var equal = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestColumnsKeepEnds(t *testing.T) {
	for _, p := range []policies.FlowPeer{
		{},
		{Namespace: "shop", Pod: "web-7d9c8b6f5-x2x4z", Labels: map[string]string{"app": "web", "odd": "a,b=c%2C"}},
		{Namespace: "shop", PodPrefix: "web-", LabelsPartial: true},
		{Namespace: "shop", LabelsPartial: true, Labels: map[string]string{"app": "web"}},
		{Namespace: "shop", Labels: map[string]string{}},
		{Namespace: "shop", Workloads: []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: "web"}}},
		{Namespace: "shop", Workloads: []policies.Ref{{Kind: "CronJob", Namespace: "shop", Name: "a"}, {Kind: "Job", Namespace: "shop", Name: "a-1"}}},
		{Address: netip.MustParseAddr("2001:db8::1"), Outside: true, Names: []string{"a.example", "b,c"}},
		{Host: true, OwnNode: true},
		{Outside: true, Network: policies.PrivateNetwork},
		{Address: netip.MustParseAddr("10.0.0.1"), Set: policies.Ref{Kind: "NetworkSet", Group: policies.CalicoGroup, Namespace: "shop", Name: "a/b"}},
	} {
		e := EndOf(&p)
		got, err := e.Peer()
		if err != nil {
			t.Fatalf("%v: %v", e, err)
		}
		if diff := cmp.Diff(p, got, equal); diff != "" {
			t.Errorf("%v:\n%s", e, diff)
		}
	}
}

func TestColumnsKeepHits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.SampledFrom([]rune("ab./|,%=-")), 0, 6, -1)
		hits := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) policies.Hit {
			return policies.Hit{
				Tier:   text.Draw(t, "tier"),
				Policy: policies.Ref{Kind: text.Draw(t, "kind"), Namespace: text.Draw(t, "namespace"), Name: text.Draw(t, "name")},
				Action: policies.Action(rapid.IntRange(0, 3).Draw(t, "action")),
				Rule:   rapid.IntRange(policies.UnknownRule, 12).Draw(t, "rule"),
				Staged: rapid.Bool().Draw(t, "staged"),
			}
		}), 1, 4).Draw(t, "hits")
		got, err := ParseHits(FormatHits(hits))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(hits, got); diff != "" {
			t.Error(diff)
		}
	})
}

func TestIdentity(t *testing.T) {
	web := []policies.Ref{{Kind: "Deployment", Namespace: "shop", Name: "web"}}
	id := func(p policies.FlowPeer) uint64 { e := EndOf(&p); return e.Hash() }
	for _, test := range []struct {
		fact string
		a, b policies.FlowPeer
		same bool
	}{
		{"addresses tell no tuples apart", policies.FlowPeer{Address: netip.MustParseAddr("1.1.1.1")}, policies.FlowPeer{Address: netip.MustParseAddr("1.1.1.2")}, true},
		{"pods of a workload neither", policies.FlowPeer{Namespace: "shop", Pod: "web-1", Workloads: web}, policies.FlowPeer{Namespace: "shop", Pod: "web-2", Workloads: web}, true},
		{"nor pods of a ReplicaSet", policies.FlowPeer{Namespace: "shop", Pod: "web-7d9c8b6f5-x2x4z"}, policies.FlowPeer{Namespace: "shop", PodPrefix: "web-7d9c8b6f5-"}, true},
		{"pods of two ReplicaSets are two", policies.FlowPeer{Namespace: "shop", Pod: "web-7d9c8b6f5-x2x4z"}, policies.FlowPeer{Namespace: "shop", PodPrefix: "web-"}, false},
		{"labels do", policies.FlowPeer{Labels: map[string]string{"app": "web"}}, policies.FlowPeer{Labels: map[string]string{"app": "db"}}, false},
		{"a name may only look generated", policies.FlowPeer{Namespace: "shop", Pod: "db-mssql"}, policies.FlowPeer{Namespace: "shop", Pod: "db-mysql"}, false},
	} {
		if got := id(test.a) == id(test.b); got != test.same {
			t.Errorf("%s: same identity: %v", test.fact, got)
		}
	}
}

// Stores keep these for years.
func TestTupleIDsStay(t *testing.T) {
	a := EndOf(&policies.FlowPeer{Namespace: "shop", Pod: "web-0", Labels: map[string]string{"app": "web"}})
	b := EndOf(&policies.FlowPeer{Outside: true, Address: netip.MustParseAddr("192.0.2.1")})
	if got, want := TupleID(&a, &b, a.Hash(), b.Hash(), netset.TCP, 443), uint64(3548125032071332871); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
	if got, want := TupleID(&a, &a, a.Hash(), a.Hash(), netset.TCP, 443), uint64(13715332281166797582); got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestHourOf(t *testing.T) {
	for _, test := range []struct{ at, want time.Time }{
		{time.Date(2026, 11, 2, 10, 59, 59, 999_999_000, time.UTC), time.Date(2026, 11, 2, 10, 0, 0, 0, time.UTC)},
		{time.Date(1969, 12, 31, 23, 30, 0, 0, time.UTC), time.Date(1969, 12, 31, 23, 0, 0, 0, time.UTC)},
		{time.Time{}, time.Time{}},
	} {
		if got := Moment(HourOf(test.at.UnixMicro())); !got.Equal(test.want) {
			t.Errorf("%v: got %v, want %v", test.at, got, test.want)
		}
	}
}

func TestIdentify(t *testing.T) {
	key := func(text string) SourceKey {
		sum := sha256.Sum256([]byte(text))
		return SourceKey{int64(len(text)), hex.EncodeToString(sum[:])}
	}
	known := map[SourceKey]Source{}
	for _, text := range []string{"one\n", "one\ntwo\n"} {
		k := key(text)
		known[k] = Source{Name: "old", Size: k.Size, SHA256: k.SHA256, Flows: uint64(strings.Count(text, "\n")), Whole: true}
	}
	for _, test := range []struct {
		fact, text string
		flows      uint64
		whole      bool
	}{
		{"the same", "one\ntwo\n", 2, true},
		{"it has grown", "one\ntwo\nthree\n", 2, false},
		{"it has grown from an earlier state", "one\nTWO\n", 1, false},
		{"another", "ONE\n", 0, false},
		{"shorter than any", "on", 0, false},
	} {
		file := bytes.NewReader([]byte(test.text))
		got, _, err := Identify(context.Background(), "new", "as ever", file, known)
		k := key(test.text)
		if want := (Source{Name: "new", Size: k.Size, SHA256: k.SHA256, Flows: test.flows, Whole: test.whole}); err != nil || got != want {
			t.Errorf("%s: got %v, %v, want %v", test.fact, got, err, want)
		}
		if file.Len() != len(test.text) {
			t.Errorf("%s: the file is not at its start", test.fact)
		}
	}
}
