//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
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

// weir capture --dir reads what the agent writes.
func TestStateFile(t *testing.T) {
	if stored.StateFile != capture.StateFile {
		t.Errorf("%s is read, and %s is written", stored.StateFile, capture.StateFile)
	}
}

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
