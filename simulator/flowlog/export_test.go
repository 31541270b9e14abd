package flowlog_test

import (
	"bytes"
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowlog"
)

// exported draws flows of which Hubble can say all.
var exported = rapid.Custom(func(t *rapid.T) policies.Flow {
	peer := func(name, address string) policies.FlowPeer {
		p := rapid.SampledFrom([]policies.FlowPeer{
			{Namespace: "shop", Pod: "web-0", Labels: map[string]string{"app": "web", "tier": ""}, LabelsPartial: true, Workloads: []policies.Ref{{Kind: "StatefulSet", Namespace: "shop", Name: "web"}}},
			{Namespace: "shop", Pod: "db-0"},
			{Outside: true, Names: []string{"cdn.example"}},
			{Host: true},
			{Host: true, OwnNode: true},
			{},
		}).Draw(t, name)
		p.Address = netip.MustParseAddr(address)
		return p
	}
	f := policies.Flow{
		First: time.Date(2026, 3, 1, 0, 0, rapid.IntRange(0, 59).Draw(t, "second"), 0, time.UTC), From: peer("from", "10.0.0.1"), To: peer("to", "10.0.0.2"),
		Protocol: rapid.SampledFrom([]netset.Protocol{netset.TCP, netset.UDP, netset.SCTP, netset.ICMP}).Draw(t, "protocol"),
		Verdict:  rapid.SampledFrom([]policies.Verdict{policies.Allow, policies.Deny, policies.Unknown}).Draw(t, "verdict"),
		Count:    rapid.Uint64Range(1, 3).Draw(t, "count"),
		Origin:   policies.Origin{Format: "hubble", Reporter: rapid.SampledFrom([]policies.Reporter{policies.UnknownReporter, policies.SourceSide, policies.DestinationSide}).Draw(t, "reporter")},
	}
	f.Last = f.First
	if f.Protocol.HasPorts() {
		f.Port, f.SourcePort = 443, 40000
	} else {
		f.Port = 8 << 8
	}
	f.EgressOnly = f.Verdict == policies.Allow && f.Origin.Reporter == policies.SourceSide && !f.To.Outside && !f.To.Host
	return f
})

func readBack(t rapid.TB, format string, text []byte) []policies.Flow {
	var got []policies.Flow
	stats, err := flowlog.Read(context.Background(), bytes.NewReader(text), "x", flowlog.Options{Format: format, Strict: true}, func(f policies.Flow) error {
		f.Record = policies.Place{}
		got = append(got, f)
		return nil
	})
	if err != nil || len(stats.LeftOut) > 0 {
		t.Errorf("%v, left out %v, of %s", err, stats.LeftOut, text)
	}
	return got
}

var sameFlows = cmp.Comparer(func(a, b netip.Addr) bool { return a == b })

func TestHubbleReadsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(exported, 1, 4).Draw(t, "flows")
		var text bytes.Buffer
		lost := map[string]uint64{}
		w := flowlog.NewHubbleWriter(&text, lost)
		for _, f := range want {
			if err := w.Write(f); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Flush(); err != nil || len(lost) > 0 {
			t.Errorf("lost %v, error %v", lost, err)
		}
		if diff := cmp.Diff(want, readBack(t, "hubble", text.Bytes()), sameFlows); diff != "" {
			t.Errorf("%s\n%s", diff, text.String())
		}
	})
}

// Of flows as OTLP knows them, all comes back.
func TestOTLPReadsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := exported.Draw(t, "flow")
		f.Origin.Format, f.Count, f.EgressOnly = "otlp", 1, false
		f.Bytes, f.Packets, f.ReplyBytes, f.ReplyPackets = rapid.Uint64Range(0, 1<<56).Draw(t, "bytes"), 2, 3, 4
		for _, p := range []*policies.FlowPeer{&f.From, &f.To} {
			p.Outside, p.Host, p.OwnNode, p.Names = false, false, false, nil
			if p.Labels != nil {
				p.Labels = map[string]string{"app": "web"}
			}
		}
		var text bytes.Buffer
		lost := map[string]uint64{}
		w := flowlog.NewOTLPWriter(&text, lost)
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(); err != nil || len(lost) > 0 {
			t.Errorf("lost %v, error %v", lost, err)
		}
		if diff := cmp.Diff([]policies.Flow{f}, readBack(t, "otlp", text.Bytes()), sameFlows); diff != "" {
			t.Errorf("%s\n%s", diff, text.String())
		}
	})
}

// What the formats have no place for is counted.
func TestWhatIsLostIsTold(t *testing.T) {
	f := policies.Flow{
		First: time.Unix(0, 0), Last: time.Unix(1, 0), Protocol: 47, Verdict: policies.Allow, Bytes: 1, Count: 2, Hits: []policies.Hit{{Tier: "default"}},
		From:   policies.FlowPeer{Namespace: "shop", PodPrefix: "web-", Labels: map[string]string{}},
		To:     policies.FlowPeer{Namespace: "shop", Pod: "db-0"},
		Origin: policies.Origin{Reporter: policies.OnTheWay, Window: time.Minute},
	}
	var text bytes.Buffer
	hubble, otlp := map[string]uint64{}, map[string]uint64{}
	if err := flowlog.NewHubbleWriter(&text, hubble).Write(f); err != nil {
		t.Fatal(err)
	}
	if err := flowlog.NewOTLPWriter(&text, otlp).Write(f); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{
		"bytes and packets": 1, "the policies that judged it": 1, "when it was last seen": 1, "the time that the record aggregates": 1,
		"whose report it is": 1, "a protocol that Hubble does not know": 1, "that labels are complete": 1, "what the names of its pods begin with": 1,
	}
	if diff := cmp.Diff(want, hubble); diff != "" {
		t.Error(diff)
	}
	want = map[string]uint64{
		"that it stands for several flows": 1, "all of the policies that judged it but a name": 1, "the time that the record aggregates": 1, "whose report it is": 1,
		"that labels are complete": 1, "what the names of its pods begin with": 1, "a flow without addresses, which Weir does not read back": 1,
	}
	if diff := cmp.Diff(want, otlp); diff != "" {
		t.Error(diff)
	}
}
