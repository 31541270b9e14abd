package k8s

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func readCaptures(text string) ([]policies.Capture, error) {
	docs, err := Parse("c.yaml", []byte(text))
	if err != nil {
		return nil, err
	}
	return ReadCaptures(docs, Options{Namespace: "shop"})
}

func TestReadCaptures(t *testing.T) {
	all, err := readCaptures(`
apiVersion: weir.dev/v1alpha1
kind: PacketCapture
metadata: {name: dns, namespace: ops}
spec:
  selector: {matchLabels: {app: web}}
  filters:
  - {protocol: udp, ports: [53, "8000-8100"], addresses: [10.0.0.1, 2001:db8::/32]}
  - {ports: [443]}
  - {protocol: "47"}
  startTime: 2026-03-01T13:00:00+01:00
  endTime: "2026-03-01T12:30:00Z"
  maxFileBytes: 1000000
  rotateInterval: 10m
  maxFiles: 3
  maxPackets: 1000
  snapLength: 128
---
kind: List
apiVersion: v1
items:
- {apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {name: all}, spec: {}}
- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}
`)
	if err != nil {
		t.Fatal(err)
	}
	if len(all) != 2 {
		t.Fatalf("read %d captures", len(all))
	}
	dns := all[0]
	if dns.Ref.String() != "ops/dns" || dns.Pods.String() != "app=web" || dns.Place.String() != "c.yaml:2:1" {
		t.Errorf("read %s of %s at %s", dns.Ref, dns.Pods, dns.Place)
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	if !dns.Start.Equal(at) || !dns.End.Equal(at.Add(30*time.Minute)) {
		t.Errorf("from %s to %s", dns.Start, dns.End)
	}
	if dns.MaxFileBytes != 1_000_000 || dns.Rotate != 10*time.Minute || dns.MaxFiles != 3 || dns.MaxPackets != 1000 || dns.SnapLength != 128 {
		t.Errorf("bounds: %+v", dns)
	}
	want := []policies.CaptureFilter{
		{
			Protocol: netset.UDP, Ports: []policies.PortSpan{{First: 53, Last: 53}, {First: 8000, Last: 8100}},
			Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/32"), netip.MustParsePrefix("2001:db8::/32")},
		},
		{Ports: []policies.PortSpan{{First: 443, Last: 443}}},
		{Protocol: 47},
	}
	if diff := cmp.Diff(want, dns.Filters, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if whole := all[1]; whole.Ref.String() != "shop/all" || !whole.Pods.IsEverything() || whole.Filters != nil || !whole.End.IsZero() {
		t.Errorf("%+v", whole)
	}
}

func TestCapturesThatAreNone(t *testing.T) {
	for _, row := range []struct{ spec, want string }{
		{`{selector: {matchLabel: {a: b}}}`, `did you mean "matchLabels"?`},
		{`{filter: []}`, `did you mean "filters"?`},
		{`{filters: []}`, "filters is empty"},
		{`{filters: [{}]}`, "a filter says nothing"},
		{`{filters: [{protocol: tpc}]}`, `protocol "tpc" is none of`},
		{`{filters: [{protocol: ""}]}`, "protocol is empty"},
		{`{filters: [{protocol: 47}]}`, `write "47" with the quotes`},
		{`{filters: [{protocol: ICMP, ports: [1]}]}`, "ICMP has no ports"},
		{`{filters: [{ports: [http]}]}`, `port "http" is neither a number`},
		{`{filters: [{ports: [0]}]}`, `port "0" is neither`},
		{`{filters: [{ports: ["90-80"]}]}`, "ends before it begins"},
		{`{filters: [{ports: [true]}]}`, "wants text"},
		{`{filters: [{addresses: [10.0.0.7/8]}]}`, "has bits set behind its prefix"},
		{`{filters: [{addresses: [web]}]}`, "is not a CIDR"},
		{`{startTime: soon}`, `startTime "soon" is not a time such as`},
		{`{startTime: 2026-03-01T12:00:00Z, endTime: 2026-03-01T12:00:00Z}`, "is not after startTime"},
		{`{rotateInterval: 10}`, "wants text"},
		{`{rotateInterval: 10ms}`, "is below 1s"},
		{`{rotateInterval: often}`, "is not a span of time"},
		{`{maxFileBytes: 1}`, "is below 65536"},
		{`{maxFiles: 0}`, "is below 1"},
		{`{snapLength: 10}`, "is below 64"},
	} {
		_, err := readCaptures("{apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {name: c}, spec: " + row.spec + "}")
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.spec, err, row.want)
		}
	}
	for _, row := range []struct{ text, want string }{
		{"{apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {name: c}}", "spec"},
		{"{apiVersion: weir.dev/v1, kind: PacketCapture, metadata: {name: c}, spec: {}}", "weir.dev/v1alpha1"},
		{"{apiVersion: weir.dev/v1alpha1, kind: PacketCaptur, metadata: {name: c}, spec: {}}", `did you mean "PacketCapture"?`},
		{"{apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {name: ../c}, spec: {}}", "is not valid"},
	} {
		if _, err := readCaptures(row.text); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want %q", row.text, err, row.want)
		}
	}
}
