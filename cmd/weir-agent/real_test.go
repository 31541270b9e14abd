//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/utils/clock"

	"github.com/weir-policy/weir/internal/ingest"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/simulator/flowlog"
	"github.com/weir-policy/weir/simulator/flowstore"
)

const (
	pods = `{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, status: {phase: Running, podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, status: {phase: Running, podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cron}, status: {phase: Running, podIP: 10.0.0.3}}
`
	policy = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}]}]}}\n"
	other  = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: web}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: %d}, {port: 9000, endPort: %d}]}]}}\n"
)

// agent is a weir-agent, a process of its own on a node.
type agent struct {
	*netns.Lab
	t       testing.TB
	program string
	world   string // its folder
	process *exec.Cmd
	said    *bytes.Buffer
	client  *http.Client
}

func newAgent(t testing.TB) *agent {
	t.Helper()
	netns.Want(t)
	a := &agent{Lab: netns.New(t), t: t, program: filepath.Join(t.TempDir(), "weir-agent"), world: t.TempDir()}
	if out, err := exec.Command("go", "build", "-o", a.program, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	a.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(_ context.Context, network, address string) (conn net.Conn, err error) {
		a.Inside(func() { conn, err = net.DialTimeout(network, address, time.Second) })
		return conn, err
	}}}
	t.Cleanup(func() {
		if a.process != nil {
			a.kill()
		}
		if t.Failed() && a.said != nil {
			t.Log(a.said)
		}
	})
	return a
}

// write puts a file into the world as a whole; an empty one goes.
func (a *agent) write(name, text string) {
	a.t.Helper()
	at := filepath.Join(a.world, name)
	err := os.WriteFile(at+".new", []byte(text), 0o600)
	if err == nil {
		err = os.Rename(at+".new", at)
	}
	if text == "" {
		err = os.Remove(at)
	}
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) start(flags ...string) {
	a.t.Helper()
	a.launch(append([]string{"--world", a.world}, flags...)...)
}

func (a *agent) launch(flags ...string) {
	a.t.Helper()
	a.said = &bytes.Buffer{}
	a.process = exec.Command(a.program, append([]string{"--health-addr", "127.0.0.1:9441", "--metrics-addr", "127.0.0.1:9442"}, flags...)...)
	a.process.Stderr = a.said
	var err error
	a.Inside(func() { err = a.process.Start() })
	if err != nil {
		a.t.Fatal(err)
	}
}

func (a *agent) kill() {
	_ = a.process.Process.Kill()
	_ = a.process.Wait()
	a.process = nil
}

func (a *agent) get(url string) (string, error) {
	answer, err := a.client.Get("http://127.0.0.1:" + url)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, text)
	}
	return string(text), err
}

// until waits until something says a text.
func (a *agent) until(url, text string) {
	a.t.Helper()
	testkit.Eventually(a.t, func() error {
		got, err := a.get(url)
		if err == nil && !strings.Contains(got, text) {
			err = fmt.Errorf("%s says %q, not %q", url, got, text)
		}
		return err
	})
}

// A file that is broken leaves the last good world in force, and log, status and metrics
// say where it is.
func TestRealBrokenFile(t *testing.T) {
	a := newAgent(t)
	a.write("pods.yaml", pods)
	a.write("db.yaml", policy)
	a.start()
	a.until("9441/readyz", "ok")
	a.until("9441/status", "policies: 1, rules: 1, pods: 3")
	a.write("db.yaml", "kind: NetworkPolicy\napiVersion: networking.k8s.io/v1\nmetadata: {namespace: shop, name: db}\nspec:\n  podSelector: 7\n")
	a.until("9441/status", "db.yaml:5:16: ")
	a.until("9441/readyz", "ok")
	a.until("9441/livez", "ok")
	a.until("9442/metrics", "weir_agent_world_problems 1\n")
	a.until("9442/metrics", `weir_agent_in_force{what="policies"} 1`)
	a.write("db.yaml", policy+"---\n"+fmt.Sprintf(other, 80, 9100))
	a.until("9441/status", "policies: 2")
	a.until("9442/metrics", "weir_agent_world_problems 0\n")
	a.kill()
	if !strings.Contains(a.said.String(), "db.yaml:5:16: ") {
		t.Error("the log does not say what was wrong")
	}
}

// A folder without manifests, as one is that is not mounted, opens nothing.
func TestRealEmptyFolder(t *testing.T) {
	a := newAgent(t)
	a.write("pods.yaml", pods+"---\n"+policy)
	a.start()
	a.until("9441/status", "policies: 1, rules: 1, pods: 3")
	a.write("pods.yaml", "")
	a.until("9441/status", "the last good world stays in force: "+a.world+": there is no manifest in it")
	a.until("9441/status", "policies: 1, rules: 1, pods: 3")
	a.write("pods.yaml", pods)
	a.until("9441/status", "policies: 0, rules: 0, pods: 3")
}

// There is one agent at a time, and while it runs its table is not taken away.
func TestRealAlone(t *testing.T) {
	a := newAgent(t)
	a.write("pods.yaml", pods)
	a.start()
	a.until("9441/readyz", "ok")
	for _, arguments := range [][]string{{"--world", a.world, "--health-addr", "0", "--metrics-addr", "0"}, {"remove"}} {
		var out []byte
		var err error
		a.Inside(func() { out, err = exec.Command(a.program, arguments...).CombinedOutput() })
		if err == nil || !strings.Contains(string(out), "another weir-agent guards this network namespace") {
			t.Errorf("%v: %v: %s", arguments, err, out)
		}
	}
}

// The agent may be killed at any moment, in the middle of a transaction too: the next one
// takes over, and meanwhile no packet that all policies deny leaks, and none that all
// allow is lost.
func TestRealKill(t *testing.T) {
	a := newAgent(t)
	web, db := a.Add(netip.MustParseAddr("10.0.0.1")), a.Add(netip.MustParseAddr("10.0.0.2"))
	cron := a.Add(netip.MustParseAddr("10.0.0.3"))
	a.write("pods.yaml", pods)
	a.write("db.yaml", policy)
	a.start()
	a.until("9441/readyz", "ok")
	allowed, denied := a.Stream(web, db, 53, true), a.Stream(cron, db, 54, false)
	kept := a.Talk(web, db, 5432)
	random := rand.New(rand.NewPCG(1, 1))
	for i := range 12 {
		a.write("web.yaml", fmt.Sprintf(other, 1000+i, 9100))
		// A change is put in force some 30 to 60 milliseconds after it was made.
		wait := time.NewTimer(time.Duration(20+random.IntN(60)) * time.Millisecond)
		<-wait.C
		a.kill()
		a.write("web.yaml", fmt.Sprintf(other, 2000+i, 9200))
		a.start()
		a.until("9441/readyz", "ok")
	}
	if sent, received := allowed.Stop(); received != sent {
		t.Errorf("of %d packets that are allowed, %d came", sent, received)
	}
	if sent, received := denied.Stop(); received != 0 {
		t.Errorf("of %d packets that are denied, %d leaked", sent, received)
	}
	for _, fromClient := range []bool{true, false} {
		if !kept.Carries(fromClient, true) {
			t.Errorf("the open connection stopped, from the client: %t", fromClient)
		}
	}
}

// What remove says, it does.
func TestRealRemove(t *testing.T) {
	a := newAgent(t)
	a.write("pods.yaml", pods+"---\n"+policy)
	a.start()
	a.until("9441/readyz", "ok")
	a.kill()
	tables := func() string {
		var out []byte
		var err error
		a.Inside(func() { out, err = exec.Command("nft", "list", "tables").CombinedOutput() })
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		return string(out)
	}
	if !strings.Contains(tables(), "inet weir") {
		t.Error("the table did not outlive the agent")
	}
	a.Inside(func() {
		if out, err := exec.Command(a.program, "remove").CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	if got := tables(); got != "" {
		t.Errorf("what is left: %s", got)
	}
}

// What was decided is counted by policy, once it is recorded.
func TestRealDecisions(t *testing.T) {
	a := newAgent(t)
	web, db, cron := a.Add(netip.MustParseAddr("10.0.0.1")), a.Add(netip.MustParseAddr("10.0.0.2")), a.Add(netip.MustParseAddr("10.0.0.3"))
	a.write("pods.yaml", pods+"---\n"+policy)
	a.start("--flows", filepath.Join(t.TempDir(), "flows"), "--flows-window", "100ms")
	a.until("9441/readyz", "ok")
	allowed, denied := a.Stream(web, db, 53, true), a.Stream(cron, db, 54, false)
	a.until("9442/metrics", `weir_agent_decisions_total{action="allow",kind="NetworkPolicy",policy="shop/db",tier="default"} `)
	a.until("9442/metrics", `weir_agent_decisions_total{action="deny",kind="NetworkPolicy",policy="shop/db",tier="default"} `)
	allowed.Stop()
	denied.Stop()
	a.until("9442/metrics", "weir_agent_unexplained_total 0\n")
}

// What a node records becomes part of a flow store elsewhere, once, although the server is
// not there at first, and the agent is killed in between.
func TestRealSending(t *testing.T) {
	a := newAgent(t)
	web, db := a.Add(netip.MustParseAddr("10.0.0.1")), a.Add(netip.MustParseAddr("10.0.0.2"))
	a.write("pods.yaml", pods+"---\n"+policy)
	flows := filepath.Join(t.TempDir(), "flows")
	flags := []string{"--flows", flows, "--flows-window", "100ms", "--send", "http://127.0.0.1:4319"}
	a.start(flags...)
	a.until("9441/readyz", "ok")
	talk := a.Stream(web, db, 53, true)
	a.until("9442/metrics", "weir_agent_connections_started_total 1\n")
	testkit.Eventually(t, func() error {
		text, err := a.get("9442/metrics")
		if err == nil && strings.Contains(text, "weir_agent_send_errors_total 0\n") {
			err = errors.New("nothing was tried")
		}
		return err
	})
	a.kill()
	store, err := flowstore.Open(t.Context(), t.TempDir(), flowstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	a.Inside(func() { listener, err = net.Listen("tcp", "127.0.0.1:4319") })
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- ingest.New(ingest.Config{CommitEvery: time.Millisecond}, store, clock.RealClock{}).Run(ctx, listener)
	}()
	a.start(flags...)
	testkit.Eventually(t, func() error {
		text, err := a.get("9442/metrics")
		if err == nil && strings.Contains(text, "weir_agent_records_sent_total 0\n") {
			err = errors.New("nothing was sent")
		}
		return err
	})
	talk.Stop()
	if err := a.process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = a.process.Wait()
	if stop(); <-ended != nil {
		t.Error("the server fails")
	}
	written := uint64(0)
	names, err := filepath.Glob(filepath.Join(flows, "*.jsonl.zst"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		text, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		stats, err := flowlog.Read(t.Context(), text, name, flowlog.Options{Strict: true}, func(policies.Flow) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		text.Close()
		written += stats.Flows
	}
	if stored, err := store.Stats(t.Context()); err != nil || stored.Flows != written || written == 0 {
		t.Errorf("%d of %d records are stored, %v", stored.Flows, written, err)
	}
}
