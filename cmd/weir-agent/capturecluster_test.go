//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/enforcer"
	"github.com/weir-policy/weir/enforcer/capture"
	stored "github.com/weir-policy/weir/internal/captures"
	"github.com/weir-policy/weir/internal/cluster"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Agents follow the PacketCaptures of a cluster, and each says in their status what is
// on its node, if anything is.
func TestRealPacketCaptures(t *testing.T) {
	p := plane.Start(t, &envtest.Environment{CRDDirectoryPaths: []string{"../../policies/v1alpha1/crd"}, ErrorIfCRDPathMissing: true})
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer running.Wait()
	defer stop()
	pod := func(name, node string) policies.Pod {
		return policies.Pod{
			Ref: policies.Ref{Kind: "Pod", Namespace: "default", Name: name}, Labels: map[string]string{"app": "web"}, Node: node,
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, // to which no interface leads straight
		}
	}
	m := &policies.Model{World: policies.World{Pods: []policies.Pod{pod("web-1", "n1"), pod("web-2", "n2")}}}
	agents := map[string]*captures{}
	for _, node := range []string{"n1", "n2", "n3"} {
		c := &captures{agent: enforcer.New(enforcer.Options{}), node: node}
		var err error
		if c.Capturer, err = capture.New(capture.Options{Dir: t.TempDir(), Node: node, MinFreeBytes: -1}); err != nil {
			t.Fatal(err)
		}
		d, err := newDeclared(p.Config, c, slog.Default())
		if err != nil {
			t.Fatal(err)
		}
		c.world(m)
		running.Go(func() { _ = c.run(ctx) })
		running.Go(func() { _ = d.run(ctx) })
		agents[node] = c
	}
	store, err := stored.NewCluster(cluster.Options{Kubeconfig: p.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	create := func(name, app string) {
		c := v1alpha1.PacketCapture{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPacketCapture, Metadata: v1alpha1.Metadata{Namespace: "default", Name: name}}
		c.Spec.Selector.MatchLabels = map[string]string{"app": app}
		if _, err := store.Create(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	becomes := func(want string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			all, err := store.List(t.Context(), "default")
			if err != nil {
				return err
			}
			var got []string
			for _, c := range all {
				states := map[string]string{}
				for _, f := range c.Status.Files {
					states[f.Node] = f.State
				}
				got = append(got, fmt.Sprint(c.Metadata.Name, " ", states))
			}
			if text := strings.Join(got, ", "); text != want {
				return errors.New(text)
			}
			return nil
		})
	}
	create("nobody", "db")
	create("web", "web")
	becomes("nobody map[], web map[n1:WaitingForTraffic n2:WaitingForTraffic]")
	agents["n2"].world(&policies.Model{World: policies.World{Pods: m.Pods[:1]}}) // its pod goes
	becomes("nobody map[], web map[n1:WaitingForTraffic]")
	if _, err := store.Stop(t.Context(), "default", "web", time.Now()); err != nil {
		t.Fatal(err)
	}
	becomes("nobody map[], web map[n1:Finished]")
	if err := store.Delete(t.Context(), "default", "web"); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error {
		for _, s := range agents["n1"].States() {
			if s.Metadata.Name == "web" {
				return errors.New("it is still followed")
			}
		}
		return nil
	})
}

// The files of a cluster's capture come from the agents of its nodes, through the API
// server.
func TestRealDownload(t *testing.T) {
	p := plane.Start(t, &envtest.Environment{CRDDirectoryPaths: []string{"../../policies/v1alpha1/crd"}, ErrorIfCRDPathMissing: true})
	store, err := stored.NewCluster(cluster.Options{Kubeconfig: p.Kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	large := bytes.Repeat([]byte("packets "), 1<<20)
	dirs, kubelets := map[string]string{"n1": t.TempDir(), "n2": t.TempDir(), "n3": t.TempDir()}, map[string]*kubelet{}
	var files []v1alpha1.CaptureFiles
	for _, node := range slices.Sorted(maps.Keys(dirs)) {
		kubelets[node] = newKubelet(t, p.Config, node)
		at := filepath.Join(dirs[node], "default", "dns")
		f := v1alpha1.CaptureFiles{Node: node, State: v1alpha1.CaptureCapturing, Directory: at}
		if node != "n3" { // which has none yet
			f.FileNames = []string{"web_veth0.pcapng"}
			if err := errors.Join(os.MkdirAll(at, 0o700), os.WriteFile(filepath.Join(at, f.FileNames[0]), append(large, node...), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		files = append(files, f)
	}
	c := v1alpha1.PacketCapture{APIVersion: v1alpha1.APIVersion, Kind: v1alpha1.KindPacketCapture, Metadata: v1alpha1.Metadata{Namespace: "default", Name: "dns"}}
	if _, err := store.Create(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	status, err := json.Marshal(map[string]any{"status": map[string]any{"files": files}})
	if err != nil {
		t.Fatal(err)
	}
	p.Kubectl(t, "patch", "packetcapture", "dns", "--subresource=status", "--type=merge", "--patch", string(status))

	check := func(to string, nodes ...string) {
		t.Helper()
		got, err := filepath.Glob(filepath.Join(to, "default", "dns", "*", "*"))
		if err != nil || len(got) != len(nodes) {
			t.Errorf("%v, %v", got, err)
		}
		for _, node := range nodes {
			text, err := os.ReadFile(filepath.Join(to, "default", "dns", node, "web_veth0.pcapng"))
			if err != nil || !bytes.Equal(text, append(large, node...)) {
				t.Errorf("%s: %d bytes, %v", node, len(text), err)
			}
		}
	}
	to := t.TempDir()
	got, err := store.Download(t.Context(), "default", "dns", to)
	if err != nil || got.Status.Files[1].Directory != filepath.Join(to, "default", "dns", "n2") {
		t.Errorf("%+v, %v", got, err)
	}
	check(to, "n1", "n2")

	// What one node cannot send keeps nobody from having the rest.
	kubelets["n1"].down = true
	to = t.TempDir()
	if _, err := store.Download(t.Context(), "default", "dns", to); err == nil || !strings.Contains(err.Error(), "node n1: ") {
		t.Errorf("%v", err)
	}
	check(to, "n2")
	p.Kubectl(t, "delete", "pod", "weir-agent-n2", "--force", "--grace-period=0")
	kubelets["n1"].down = false
	to = t.TempDir()
	if _, err := store.Download(t.Context(), "default", "dns", to); err == nil || !strings.Contains(err.Error(), "node n2: no agent runs there") {
		t.Errorf("%v", err)
	}
	check(to, "n1")
	if _, err := store.Download(t.Context(), "default", "none", to); err == nil || !strings.Contains(err.Error(), "there is no capture default/none") {
		t.Errorf("%v", err)
	}
}
