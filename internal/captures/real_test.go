package captures_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/internal/captures"
	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

func capture(name string, spec v1alpha1.PacketCaptureSpec) v1alpha1.PacketCapture {
	return v1alpha1.PacketCapture{
		APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPacketCapture, Metadata: v1alpha1.Metadata{Namespace: "default", Name: name}, Spec: spec,
	}
}

// A real API server takes what weir capture writes, and refuses what no agent understands.
func TestRealObjects(t *testing.T) {
	p := plane.Start(t, &envtest.Environment{CRDDirectoryPaths: []string{"../../policies/v1alpha1/crd"}, ErrorIfCRDPathMissing: true})
	store, err := captures.NewCluster(cluster.Options{Kubeconfig: p.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	full := capture("full", v1alpha1.PacketCaptureSpec{
		Selector:  v1alpha1.LabelSelector{MatchLabels: map[string]string{"app": "web"}, MatchExpressions: []v1alpha1.LabelRequirement{{Key: "tier", Operator: "NotIn", Values: []string{"old"}}}},
		Filters:   []v1alpha1.PacketFilter{{Protocol: "udp", Ports: []v1alpha1.Port{"53", "8000-8100"}, Addresses: []string{"10.0.0.1", "2001:db8::/32"}}},
		StartTime: "2199-01-01T00:00:00Z", EndTime: "2199-01-01T00:05:00Z", MaxFileBytes: 100_000, RotateInterval: "10m", MaxFiles: 3, MaxPackets: 7, SnapLength: 128,
	})
	for _, c := range []v1alpha1.PacketCapture{full, capture("whole", v1alpha1.PacketCaptureSpec{})} {
		if _, err := store.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := store.Create(t.Context(), full); err == nil || !strings.Contains(err.Error(), "already exists") {
		t.Errorf("twice: %v", err)
	}
	all, err := store.List(t.Context(), "")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]v1alpha1.PacketCaptureSpec{full.Spec, {}}, []v1alpha1.PacketCaptureSpec{all[0].Spec, all[1].Spec}); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if none, err := store.List(t.Context(), "kube-system"); err != nil || len(none) > 0 {
		t.Errorf("%v, %v", none, err)
	}
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for range 2 { // the second time it has ended
		stopped, err := store.Stop(t.Context(), "default", "full", now)
		if err != nil || stopped.Spec.EndTime != "2026-03-01T12:00:00Z" || stopped.Spec.StartTime != "" {
			t.Errorf("%+v, %v", stopped.Spec, err)
		}
	}
	if err := store.Delete(t.Context(), "default", "full"); err != nil {
		t.Error(err)
	}
	if err := store.Delete(t.Context(), "default", "full"); err == nil || !strings.Contains(err.Error(), "not found") {
		t.Errorf("deleted twice: %v", err)
	}

	for spec, want := range map[string]string{
		`{filters: []}`:                   "should have at least 1 items",
		`{filters: [{}]}`:                 "should have at least 1 properties",
		`{filters: [{protocol: tpc}]}`:    "should match",
		`{filters: [{ports: [http]}]}`:    "should match",
		`{filters: [{addresses: [web]}]}`: "neither an address nor a CIDR",
		`{rotateInterval: often}`:         "spec.rotateInterval",
		`{rotateInterval: 1ms}`:           "below 1s",
		`{startTime: soon}`:               "spec.startTime",
		`{startTime: "2026-03-01T12:00:00Z", endTime: "2026-03-01T12:00:00Z"}`: "a capture ends after it starts",
		`{maxFileBytes: 1}`: "greater than or equal to 65536",
	} {
		file := filepath.Join(t.TempDir(), "c.yaml")
		text := "{apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {namespace: default, name: c}, spec: " + spec + "}"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if told := p.KubectlFails(t, "create", "-f", file); !strings.Contains(told, want) {
			t.Errorf("%s: %s", spec, told)
		}
	}
}
