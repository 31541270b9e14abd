package flowlog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/layers"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowline"
)

func seeds() []string {
	return []string{
		forwarded,
		strings.Replace(forwarded, `"is_reply":false`, `"is_reply":true`, 1) + "\r\n\n" + forwarded,
		`{"flow":{"verdict":2,"drop_reason_desc":133,"IP":{"source":"::1"},"l4":{"ICMPv6":{"type":128}}}}`,
		`{"lost_events":{"num_events_lost":"17"}}`,
		`{"apiVersion":"weir.dev/v1alpha1","kind":"Flow","first":"2026-03-01T10:00:00Z","from":{"pod":"a","address":"10.0.0.1"},"to":{"labels":{"a":"b"}},"protocol":"UDP","port":53,"verdict":"deny","count":7}`,
		`{"flow":{"l4":{"TCP":null},"source":null,"source_names":["a","\ud83d\ude00"]}}`,
		aggregated, pushed, textLine, ownLine, `{"_source":` + aggregated + `}`, `{"hits":{"hits":[{"_source":` + aggregated + `}]}}`, "data: " + pushed,
		"{", "[]", "null", "\x1f\x8b\x08", "\x28\xb5\x2f\xfd",
		string(otlpMessage()), string(framed(otlpMessage())),
	}
}

// FuzzRead feeds Read anything: every line must be counted once, and what was
// read must survive being written and read again.
func FuzzRead(f *testing.F) {
	for _, seed := range seeds() {
		f.Add([]byte(seed))
		f.Add(zip(f, seed))
		f.Add(zst(f, seed))
	}
	f.Add(captureOf(f, layers.LinkTypeRaw, udpPacket(f, exporter1, with(nil)), udpPacket(f, exporter1, antreaRecord("db-0", 1, 1, 2))))
	for _, format := range Formats() {
		for _, file := range exampleFiles(f, format) {
			text, err := os.ReadFile(file)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text)
			for line := range bytes.Lines(text) {
				f.Add(line)
			}
		}
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var flows []policies.Flow
		var again bytes.Buffer
		w := flowline.NewWriter(&again)
		stats, _ := Read(context.Background(), bytes.NewReader(text), "f", Options{}, func(f policies.Flow) error {
			if err := w.Write(f); err != nil {
				t.Fatalf("%+v: %v", f, err)
			}
			f.Record = policies.Place{File: "f", Line: len(flows) + 1}
			for _, end := range []*policies.FlowPeer{&f.From, &f.To} {
				end.Workloads = end.Workloads[:min(1, len(end.Workloads))]
			}
			flows = append(flows, f)
			return nil
		})
		if stats.Flows != uint64(len(flows)) {
			t.Errorf("%d flows, %+v", len(flows), stats)
		}
		if err := w.Flush(); err != nil {
			t.Fatal(err)
		}
		i := 0
		_, err := Read(context.Background(), &again, "f", Options{Format: "weir", Strict: true}, func(f policies.Flow) error {
			if got, want := fmt.Sprintf("%+v", f), fmt.Sprintf("%+v", flows[i]); got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			i++
			return nil
		})
		if err != nil || i != len(flows) {
			t.Errorf("read again: %d of %d flows, error %v", i, len(flows), err)
		}
	})
}
