//go:build linux

package enforcer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/weir-policy/weir/enforcer"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
)

// node is a node with pods, and an agent that guards it.
type node struct {
	*netns.Lab
	*enforcer.Agent
	t    *testing.T
	pods map[string]*netns.Party
}

// pods are those of the node, and what their addresses end in.
var podNumbers = map[string]int{"web": 1, "db": 2, "cron": 3}

func pod(name string, number int) string {
	return fmt.Sprintf("---\n{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: %s, labels: {app: %s}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.%d}, {ip: \"fd00::%d\"}]}}\n", name, name, number, number)
}

// admits is a policy by which a pod admits others on some ports.
func admits(to, extra string, from ...string) string {
	var peers []string
	for _, name := range from {
		peers = append(peers, "{podSelector: {matchLabels: {app: "+name+"}}}")
	}
	return fmt.Sprintf("---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: %s%s}, spec: {podSelector: {matchLabels: {app: %s}}, ingress: [{from: [%s]}]}}\n",
		to, extra, to, strings.Join(peers, ", "))
}

const deniesAll = "---\n{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: all}, spec: {podSelector: {}}}\n"

func newNode(t *testing.T, o enforcer.Options) *node {
	t.Helper()
	netns.Want(t)
	n := &node{Lab: netns.New(t), t: t, pods: map[string]*netns.Party{}}
	for name, number := range podNumbers {
		n.pods[name] = n.Add(netip.MustParseAddr(fmt.Sprintf("10.0.0.%d", number)), netip.MustParseAddr(fmt.Sprintf("fd00::%d", number)))
		n.pods[name].Serve([]uint16{80}, nil)
	}
	o.Netns, o.Log = n.FD(), slog.New(slog.NewTextHandler(io.Discard, nil))
	n.Agent = enforcer.New(o)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- n.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	return n
}

func modelOf(t testing.TB, text string) *policies.Model {
	t.Helper()
	docs, err := k8s.Parse("world.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// turnTo tells the agent of a world, and returns when it is in force.
func (n *node) turnTo(text string, guards ...policies.Policy) {
	n.t.Helper()
	world := text
	for name, number := range podNumbers {
		world += pod(name, number)
	}
	before := n.Status().Generation
	n.Tell(modelOf(n.t, world), guards)
	n.until(func() error {
		if now := n.Status(); now.Generation == before || now.Failed != nil {
			return fmt.Errorf("generation %d: %w", now.Generation, errors.Join(now.Failed, errors.New("it is not in force")))
		}
		return nil
	})
}

// until waits until nothing is wrong any more.
func (n *node) until(wrong func() error) {
	n.t.Helper()
	end := time.Now().Add(10 * time.Second)
	for err := wrong(); err != nil; err = wrong() {
		if time.Now().After(end) {
			n.t.Fatal(err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// reaches fails unless one pod reaches another, or does not.
func (n *node) reaches(from, to string, want bool) {
	n.t.Helper()
	var probes []netns.Probe
	for i := range 2 {
		probes = append(probes, netns.Probe{From: n.pods[from], Source: n.pods[from].Addresses[i], Target: n.pods[to].Addresses[i], Protocol: netset.TCP, Port: 80})
	}
	for i, got := range n.Arrive(probes, []bool{want, want}) {
		if got != want {
			n.t.Errorf("%s arrives: %t, want %t", probes[i], got, want)
		}
	}
}

func (n *node) nft(command string) string {
	n.t.Helper()
	var out []byte
	n.Inside(func() {
		var err error
		if out, err = exec.Command("nft", command).CombinedOutput(); err != nil {
			n.t.Fatalf("nft %s: %v\n%s", command, err, out)
		}
	})
	return string(out)
}

// A connection that policy no longer allows stops both ways, within a second, and goes on
// when it is allowed again; others, of the same server too, do not notice.
func TestRealRevocation(t *testing.T) {
	n := newNode(t, enforcer.Options{})
	n.turnTo(admits("db", "", "web", "cron"))
	revoked, kept := n.Talk(n.pods["cron"], n.pods["db"], 5432), n.Talk(n.pods["web"], n.pods["db"], 5433)
	carries := func(c *netns.Conversation, want bool) {
		t.Helper()
		for _, fromClient := range []bool{true, false} {
			if got := c.Carries(fromClient, want); got != want {
				t.Errorf("from the client (%t): carried %t, want %t", fromClient, got, want)
			}
		}
	}
	carries(revoked, true)
	carries(kept, true)
	begin := time.Now()
	n.turnTo(admits("db", "", "web"))
	n.until(func() error {
		if !n.counts("weir_agent_connections_revoked_total 1\n") {
			return fmt.Errorf("nothing is revoked yet")
		}
		return nil
	})
	if took := time.Since(begin); took > time.Second {
		t.Errorf("it took %s", took)
	}
	carries(revoked, false)
	carries(kept, true)
	n.turnTo(admits("db", "", "web", "cron"))
	n.until(func() error {
		if !n.counts("weir_agent_connections_restored_total 1\n") {
			return fmt.Errorf("nothing is restored yet")
		}
		return nil
	})
	carries(revoked, true)
	carries(kept, true)
}

// counts reports whether the metrics have a line.
func (n *node) counts(line string) bool {
	n.t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(n.Agent); err != nil {
		n.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{ErrorHandling: promhttp.HTTPErrorOnError}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	if w.Code != http.StatusOK {
		n.t.Fatal(w.Body.String())
	}
	return strings.Contains(w.Body.String(), line)
}

// Whoever changes the table, or takes it away, is undone.
func TestRealRepair(t *testing.T) {
	n := newNode(t, enforcer.Options{})
	n.turnTo(admits("db", "", "web"))
	n.reaches("cron", "db", false)
	listed := n.nft("list map inet weir peers_ingress4")
	asWeb := regexp.MustCompile(`10\.0\.0\.1 : ([0-9a-f:]+)`).FindStringSubmatch(listed)
	if asWeb == nil {
		t.Fatalf("there is no web in %s", listed)
	}
	for i, command := range []string{"flush ruleset", "delete table inet weir", "add element inet weir peers_ingress4 { 10.0.0.3 : " + asWeb[1] + " }", "flush chain inet weir pods_forward"} {
		n.nft(command)
		n.until(func() error {
			if !n.counts(fmt.Sprintf("weir_agent_loads_total %d\n", i+2)) {
				return fmt.Errorf("nft %s is not repaired", command)
			}
			return nil
		})
		n.reaches("cron", "db", false)
		n.reaches("web", "db", true)
	}
}

// A guard stands above all policies, and above what is only observed.
func TestRealGuardsAndModes(t *testing.T) {
	n := newNode(t, enforcer.Options{})
	guards, err := enforcer.Guards(modelOf(t, `{apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: db}, spec: {tier: Admin, priority: 1,
 subject: {pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: db}}}}, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: cron}}}}]}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	open := admits("db", "", "web", "cron")
	n.turnTo(open)
	n.reaches("cron", "db", true)
	n.turnTo(open, guards...)
	n.reaches("cron", "db", false)
	n.reaches("web", "db", true)

	observed := func(policy string) string {
		return strings.Replace(policy, "name: db", "annotations: {weir.dev/mode: observe}, name: db", 1)
	}
	n.turnTo(observed(admits("db", "", "web")))
	n.reaches("cron", "db", true)
	if !n.counts(`weir_agent_packets_total{action="observed",direction="ingress"} 2`) {
		t.Error("what is observed is not counted")
	}
	n.turnTo(observed(admits("db", "", "web"))+deniesAll, guards...)
	n.reaches("cron", "db", false)
	n.turnTo("---\n{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {weir.dev/mode: observe}}}\n"+deniesAll, guards...)
	n.reaches("web", "db", true)
	n.reaches("web", "cron", true)
	n.reaches("cron", "db", false)
}

// While nobody has told of a pod, also when no agent runs, it is shut or open, as is
// chosen; and open, or not, like others once it is known.
func TestRealUnknownPods(t *testing.T) {
	for _, closed := range []bool{false, true} {
		n := newNode(t, enforcer.Options{Node: "n1", Closed: closed})
		n.turnTo("---\n{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.0.0.0/24, \"fd00::/64\"]}}\n" + admits("db", "", "web"))
		n.pods["late"] = n.Add(netip.MustParseAddr("10.0.0.9"), netip.MustParseAddr("fd00::9"))
		n.pods["late"].Serve([]uint16{80}, nil)
		n.reaches("late", "web", !closed)
		n.reaches("web", "late", !closed)
		n.reaches("web", "cron", true)
		n.turnTo("---\n{apiVersion: v1, kind: Node, metadata: {name: n1}, spec: {podCIDRs: [10.0.0.0/24, \"fd00::/64\"]}}\n" + admits("db", "", "web") + pod("late", 9))
		n.reaches("late", "web", true)
		n.reaches("web", "late", true)
		n.reaches("late", "db", false)
	}
}

// Pods that come and go 50 times a second cost small transactions, and no packet of
// others.
func TestRealChurn(t *testing.T) {
	n := newNode(t, enforcer.Options{})
	world := admits("db", "", "web", "late")
	n.turnTo(world)
	allowed, denied := n.Stream(n.pods["web"], n.pods["db"], 53, true), n.Stream(n.pods["cron"], n.pods["db"], 54, false)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for i := range 150 {
		<-tick.C
		extra := ""
		if i%2 == 0 {
			extra = pod("late", 9+i%7)
		}
		for name, number := range podNumbers {
			extra += pod(name, number)
		}
		n.Tell(modelOf(t, world+extra), nil)
	}
	n.turnTo(world)
	if sent, received := allowed.Stop(); received != sent {
		t.Errorf("of %d packets that are allowed, %d came", sent, received)
	}
	if sent, received := denied.Stop(); received != 0 {
		t.Errorf("of %d packets that are denied, %d leaked", sent, received)
	}
	if !n.counts("weir_agent_loads_total 1\n") {
		t.Error("the whole table was loaded more than once")
	}
	if g := n.Status().Generation; g < 50 {
		t.Errorf("%d generations were in force, so changes were late", g)
	}
	t.Logf("%d generations", n.Status().Generation)
}

// A world of 100,000 addresses is in force, changed and verified.
func TestRealManyElements(t *testing.T) {
	n := newNode(t, enforcer.Options{Node: "big"})
	shape := worlds.Sized(150_000, true)
	m := shape.Model(1)
	for i := range m.Pods {
		if m.Pods[i].Node = "elsewhere"; i%1000 == 0 {
			m.Pods[i].Node = "big"
		}
	}
	begin := time.Now()
	n.Tell(m, nil)
	end := begin.Add(2 * time.Minute)
	for n.Ready() != nil && time.Now().Before(end) {
		time.Sleep(20 * time.Millisecond)
	}
	s := n.Status()
	t.Logf("%d elements for %d pods after %s", s.Elements, s.Pods, time.Since(begin))
	if s.Elements < 100_000 || s.Failed != nil {
		t.Fatalf("%d elements: %v", s.Elements, s.Failed)
	}
	less := *m
	less.Pods = m.Pods[:len(m.Pods)-1]
	begin = time.Now()
	n.Tell(&less, nil)
	for n.Status().Generation == s.Generation && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("one pod less after %s", time.Since(begin))
	if !n.counts("weir_agent_loads_total 1\n") {
		t.Error("the whole table was loaded more than once")
	}
}
