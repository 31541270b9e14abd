//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/controller-runtime/pkg/envtest"

	"github.com/weir-policy/weir/enforcer"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/internal/testkit/plane"
	"github.com/weir-policy/weir/policies/netset"
)

// A policy that a real API server stores is in force on the node a moment later, for its
// pods; and pods that ended are not watched.
func TestRealCluster(t *testing.T) {
	p := plane.Start(t, &envtest.Environment{})
	netns.Want(t)
	lab := netns.New(t)
	web, db := lab.Add(netip.MustParseAddr("10.0.0.1")), lab.Add(netip.MustParseAddr("10.0.0.2"))
	db.Serve([]uint16{80}, nil)
	clients := kubernetes.NewForConfigOrDie(p.Config)
	create := func(name, address string, phase corev1.PodPhase) {
		t.Helper()
		pods := clients.CoreV1().Pods("default")
		o := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": name}}}
		o.Spec = corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "main", Image: "example"}}, ServiceAccountName: "default"}
		automount := false
		o.Spec.AutomountServiceAccountToken = &automount
		made, err := pods.Create(t.Context(), o, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		made.Status = corev1.PodStatus{Phase: phase, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}}
		if _, err := pods.UpdateStatus(t.Context(), made, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	testkit.Eventually(t, func() error {
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
		_, err := clients.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{})
		if _, there := clients.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{}); there != nil {
			return errors.Join(err, there)
		}
		return nil
	})
	create("web", "10.0.0.1", corev1.PodRunning)
	create("db", "10.0.0.2", corev1.PodRunning)
	create("done", "10.0.0.2", corev1.PodSucceeded)

	agent := enforcer.New(enforcer.Options{Netns: lab.FD(), Node: "n1"})
	worlds, err := newWorlds(&options{kubeconfig: p.Kubeconfig, node: "n1"}, agent, nil, slog.Default())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- together(ctx, []part{{"the agent", agent.Run}, {"the world", worlds.watch}}) }()
	defer func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	}()
	testkit.Eventually(t, agent.Ready)
	if n := agent.Status().Pods; n != 2 {
		t.Errorf("%d pods are guarded", n)
	}
	reaches := func(want bool) {
		t.Helper()
		probe := netns.Probe{From: web, Source: web.Addresses[0], Target: db.Addresses[0], Protocol: netset.TCP, Port: 80}
		if got := lab.Arrive([]netns.Probe{probe}, []bool{want})[0]; got != want {
			t.Errorf("%s arrives: %t, want %t", probe, got, want)
		}
	}
	reaches(true)
	policy := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "db"}}
	policy.Spec.PodSelector.MatchLabels = map[string]string{"app": "db"}
	policies := clients.NetworkingV1().NetworkPolicies("default")
	if _, err := policies.Create(t.Context(), policy, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	has := func(policies int) {
		t.Helper()
		testkit.Eventually(t, func() error {
			if now := agent.Status().Policies; now != policies {
				return fmt.Errorf("%d policies", now)
			}
			return nil
		})
	}
	has(1)
	reaches(false)
	if err := policies.Delete(t.Context(), "db", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	has(0)
	reaches(true)
}
