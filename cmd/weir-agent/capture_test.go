//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gopacket/gopacket/pcapgo"

	"github.com/weir-policy/weir/enforcer/capture"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// A file in the world captures packets, with what the ruleset says of them; without it,
// they go.
func TestRealCapture(t *testing.T) {
	a := newAgent(t)
	web, db, cron := a.Add(netip.MustParseAddr("10.0.0.1")), a.Add(netip.MustParseAddr("10.0.0.2")), a.Add(netip.MustParseAddr("10.0.0.3"))
	dir := filepath.Join(t.TempDir(), "captures")
	a.write("pods.yaml", pods)
	a.write("db.yaml", policy)
	a.write("capture.yaml", "{apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {namespace: shop, name: all}, spec: {filters: [{protocol: UDP, ports: [7000-7001]}]}}\n")
	a.start("--capture-dir", dir, "--capture-min-free", "-1")
	a.until("9441/readyz", "ok")
	becomes := func(want string) (f v1alpha1.CaptureFiles) {
		t.Helper()
		testkit.Eventually(t, func() error {
			text, err := os.ReadFile(filepath.Join(dir, v1alpha1.CaptureStateFile))
			if err != nil {
				return err
			}
			var list struct{ Items []v1alpha1.PacketCapture }
			if err := json.Unmarshal(text, &list); err != nil {
				return err
			}
			for _, c := range list.Items {
				if f = c.Status.Files[0]; f.State == want && f.Message == "" {
					return nil
				}
			}
			return fmt.Errorf("the state is %s", text)
		})
		return f
	}
	becomes(v1alpha1.CaptureWaitingForTraffic)
	allowed, denied := a.Stream(web, db, 7000, true), a.Stream(cron, db, 7001, false)
	var f v1alpha1.CaptureFiles
	testkit.Eventually(t, func() error {
		if f = becomes(v1alpha1.CaptureCapturing); f.Packets < 3000 {
			return fmt.Errorf("%d packets", f.Packets)
		}
		return nil
	})
	sent, received := allowed.Stop()
	if sent != received {
		t.Errorf("of %d datagrams %d arrived", sent, received)
	}
	if _, received := denied.Stop(); received > 0 {
		t.Errorf("%d datagrams arrived that are denied", received)
	}
	a.until("9442/metrics", `weir_agent_captures{state="Capturing"} 1`)
	a.write("capture.yaml", "{apiVersion: weir.dev/v1alpha1, kind: PacketCapture, metadata: {namespace: shop, name: all}, spec: {filters: [{protocol: UDP, ports: [7000-7001]}], endTime: 2026-01-01T00:00:00Z}}\n")
	f = becomes(v1alpha1.CaptureFinished)
	want := map[string]string{"cron_": "pod shop/cron, egress, deny", "db_": "pod shop/db, ingress, allow", "web_": "pod shop/web, egress, allow"}
	if len(f.FileNames) != len(want) {
		t.Errorf("%v", f.FileNames)
	}
	for _, name := range f.FileNames {
		pod := name[:strings.Index(name, "_")+1]
		for comment, n := range comments(t, filepath.Join(f.Directory, name)) {
			if comment != want[pod] {
				t.Errorf("%s: %d packets say %q, not %q", name, n, comment, want[pod])
			}
		}
	}
	a.write("capture.yaml", "")
	testkit.Eventually(t, func() error {
		if _, err := os.Stat(f.Directory); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s is still there: %w", f.Directory, err)
		}
		return nil
	})
}

// comments counts the packets of a file by their comments.
func comments(t *testing.T, name string) map[string]int {
	t.Helper()
	file, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	in, err := pcapgo.NewNgReader(file, pcapgo.DefaultNgReaderOptions)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{}
	for {
		_, _, options, err := in.ReadPacketDataWithOptions()
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all[strings.Join(options.Comments, "|")]++
	}
}

func TestBehindServices(t *testing.T) {
	at := netip.MustParseAddrPort
	m := &policies.Model{World: policies.World{
		Pods: []policies.Pod{
			{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}, Ports: []policies.ContainerPort{{Name: "http", Protocol: netset.TCP, Number: 8080}}},
			{Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.2")}},
		},
		Services: []policies.Service{{
			ClusterIP: []netip.Addr{netip.MustParseAddr("10.96.0.1")}, Pods: []int{0, 1},
			Ports: []policies.ServicePort{{Protocol: netset.TCP, Port: 80, TargetName: "http"}, {Protocol: netset.TCP, Port: 443, Target: 8443}},
		}},
	}}
	for _, row := range []struct {
		to   string
		want string
	}{
		{"10.96.0.1:80", "[10.0.0.1:8080]"},
		{"10.96.0.1:443", "[10.0.0.1:8443 10.0.0.2:8443]"},
		{"10.96.0.1:81", "[]"},
		{"10.0.0.2:80", "[10.0.0.2:80]"},
	} {
		if got := fmt.Sprint(behind(m, capture.Attempt{To: at(row.to), Protocol: netset.TCP})); got != row.want {
			t.Errorf("%s: got %s, want %s", row.to, got, row.want)
		}
	}
}
