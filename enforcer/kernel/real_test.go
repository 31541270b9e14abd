//go:build linux

package kernel_test

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// How many random worlds are tried, and which: others with other numbers.
var (
	count = flag.Int("worlds", 10, "how many random worlds are tried")
	seed  = flag.Int("world-seed", 1, "which random worlds are tried")
)

// scene is a world with a network for it: all its pods are on one node.
type scene struct {
	*netns.Lab
	t       *testing.T
	judge   *reach.Judge
	kernel  *kernel.Kernel
	ruleset *nft.Ruleset
	pods    []int
	parties []party
	changes bool // what is loaded is changed, and not loaded anew
}

// party is somebody who can send and answer.
type party struct {
	*netns.Party
	end reach.End
	pod int // -1 for one outside
}

func newScene(t *testing.T, m *policies.Model, outside ...string) *scene {
	t.Helper()
	s := &scene{Lab: netns.New(t), t: t}
	s.kernel = kernel.New(s.FD())
	for i := range m.Pods {
		if p := &m.Pods[i]; !p.HostNetwork && len(p.Addresses) > 0 {
			s.pods = append(s.pods, i)
			s.parties = append(s.parties, party{s.Add(p.Addresses...), reach.End{}, i})
		}
	}
	for _, a := range outside {
		s.parties = append(s.parties, party{s.Add(netip.MustParseAddr(a)), reach.End{}, -1})
	}
	s.turnTo(m)
	return s
}

// turnTo makes the node enforce the policies of a model of the same world.
func (s *scene) turnTo(m *policies.Model) {
	s.t.Helper()
	s.judge = reach.New(m, reach.Options{})
	for i := range s.parties {
		p := &s.parties[i]
		if p.pod >= 0 {
			p.end = s.judge.Pod(p.pod)
		} else {
			p.end = s.judge.Outside(p.Addresses[0])
		}
	}
	s.enforce(nft.Compile(nft.Input{Pods: s.pods, Judge: s.judge}, s.ruleset), s.changes)
}

// enforce loads a ruleset, or changes the one before into it.
func (s *scene) enforce(r *nft.Ruleset, change bool) {
	s.t.Helper()
	if change && s.ruleset != nil {
		if err := s.kernel.Apply(nft.Diff(s.ruleset, r)); err != nil {
			s.t.Fatalf("%v\nfrom %s\nto %s", err, s.ruleset, r)
		}
	} else if err := s.kernel.Load(r); err != nil {
		s.t.Fatalf("%v\n%s", err, r)
	}
	s.ruleset = r
}

// is reports whether a scene has the pods of a model.
func (s *scene) is(m *policies.Model) bool {
	if s == nil || len(m.Pods) != len(s.judge.Model().Pods) {
		return false
	}
	for i := range m.Pods {
		was, is := &s.judge.Model().Pods[i], &m.Pods[i]
		if was.HostNetwork != is.HostNetwork || !slices.Equal(was.Addresses, is.Addresses) {
			return false
		}
	}
	return true
}

// point is what is asked of each pair.
type point struct {
	netset.Protocol
	port uint16
}

// agree probes every pair of addresses and fails where the kernel lets through what
// the judge does not allow, or the other way round.
func (s *scene) agree(points []point) int {
	s.t.Helper()
	var probes []netns.Probe
	var should []bool
	for i, from := range s.parties {
		for k, to := range s.parties {
			if from.Party == to.Party || from.pod < 0 && to.pod < 0 {
				continue
			}
			for _, source := range from.Addresses {
				for _, target := range to.Addresses {
					for _, q := range points {
						if source.Is4() != target.Is4() || q.Protocol == netset.ICMP && source.Is6() || q.Protocol == netset.ICMPv6 && source.Is4() {
							continue
						}
						if i > k && q.Protocol == 47 { // without ports, it would be an answer to the other's
							continue
						}
						v := s.judge.Verdict(s.judge.At(from.end, source), s.judge.At(to.end, target), q.Protocol, q.port)
						probes = append(probes, netns.Probe{From: from.Party, Source: source, Target: target, Protocol: q.Protocol, Port: q.port})
						should = append(should, v == policies.Allow)
					}
				}
			}
		}
	}
	wrong := 0
	for i, arrived := range s.Arrive(probes, should) {
		if arrived != should[i] {
			if wrong++; wrong <= 10 {
				s.t.Errorf("%s arrives: %t, want %t", probes[i], arrived, should[i])
			}
		}
	}
	if wrong > 0 {
		s.t.Fatalf("%d of %d probes went wrong under\n%s", wrong, len(probes), s.ruleset)
	}
	return len(probes)
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

const shop = `
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web, labels: {app: web}}, spec: {containers: [{name: main, ports: [{name: http, containerPort: 8080}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db, labels: {app: db}}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: cron}, status: {phase: Running, podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {podSelector: {matchLabels: {app: db}}, policyTypes: [Ingress, Egress], ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}, {port: 6000, endPort: 6100}]}], egress: [{to: [{ipBlock: {cidr: 192.0.2.0/24, except: [192.0.2.128/25]}}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: web}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: http}]}, {from: [{ipBlock: {cidr: "2001:db8::/32"}}], ports: [{protocol: UDP}]}]}}
`

var points = []point{
	{netset.TCP, 80},
	{netset.TCP, 5432},
	{netset.TCP, 6050},
	{netset.TCP, 8080},
	{netset.UDP, 53},
	{netset.UDP, 5432},
	{netset.SCTP, 5432},
	{netset.ICMP, 8 << 8},
	{netset.ICMPv6, 128 << 8},
	{47, 0},
}

func (s *scene) serve(points []point) {
	var tcp, udp []uint16
	for _, q := range points {
		switch q.Protocol {
		case netset.TCP:
			tcp = append(tcp, q.port)
		case netset.UDP:
			udp = append(udp, q.port)
		}
	}
	for _, p := range s.parties {
		p.Serve(tcp, udp)
	}
}

func TestRealShop(t *testing.T) {
	netns.Want(t)
	s := newScene(t, modelOf(t, shop), "192.0.2.1", "192.0.2.200", "2001:db8::1")
	s.serve(points)
	s.agree(points)
	s.listsTheSame()
}

// Random worlds, each changed into the next, are probed; and nft lists the same as if
// it had been given each of them by itself.
func TestRealInvented(t *testing.T) {
	netns.Want(t)
	world := worlds.Small(7)
	random := rand.New(rand.NewPCG(uint64(*seed), 0))
	s := newScene(t, world, texts(worlds.Outsiders)...)
	asked := []point{
		{netset.TCP, 80},
		{netset.TCP, 8080},
		{netset.TCP, 8081},
		{netset.TCP, 8500},
		{netset.UDP, 53},
		{netset.UDP, 8080},
		{netset.SCTP, 80},
		{47, 0},
		{netset.ICMP, 8 << 8},
		{netset.ICMPv6, 128 << 8},
		{netset.ICMPv6, 128<<8 | 1},
	}
	s.serve(asked)
	s.changes = true
	probes := 0
	for range *count {
		s.turnTo(worlds.Invented(random, world, 7))
		s.Forget()
		probes += s.agree(asked)
		s.listsTheSame()
	}
	t.Logf("%d worlds, %d probes", *count, probes)
}

// listsTheSame fails unless nft lists what is loaded as it would had it loaded it.
func (s *scene) listsTheSame() {
	s.t.Helper()
	other := netns.New(s.t)
	other.Inside(func() {
		load := exec.Command("nft", "-f", "-")
		load.Stdin = strings.NewReader(s.ruleset.String())
		if out, err := load.CombinedOutput(); err != nil {
			s.t.Fatalf("nft -f: %v\n%s\n%s", err, out, s.ruleset)
		}
	})
	s.kernel.Age(2 * time.Minute) // the counters of worlds before
	if err := s.kernel.Verify(s.ruleset); err != nil {
		s.t.Fatal(err)
	}
	want := listed(s.t, other)
	if diff := cmp.Diff(want, listed(s.t, s.Lab)); diff != "" {
		s.t.Fatalf("nft lists something else than it would have loaded (-nft +weir)\n%s", diff)
	}
}

// listed returns what nft says is loaded, whatever was counted, and in whatever order
// things were added.
func listed(t *testing.T, l *netns.Lab) string {
	t.Helper()
	var out []byte
	var err error
	l.Inside(func() { out, err = exec.Command("nft", "-s", "list", "ruleset").CombinedOutput() })
	if err != nil {
		t.Fatalf("nft list ruleset: %v\n%s", err, out)
	}
	text := again.ReplaceAllString(string(out), "")
	text = strings.TrimSuffix(strings.TrimPrefix(text, "table inet weir {\n"), "}\n")
	things := strings.SplitAfter(text, "\n\t}\n")
	for i := range things {
		things[i] = elements.ReplaceAllStringFunc(strings.TrimPrefix(things[i], "\n"), func(list string) string {
			all := strings.Split(strings.Trim(list, "elmnts ={}\n"), ",")
			for i := range all {
				all[i] = strings.TrimSpace(all[i])
			}
			slices.Sort(all)
			return strings.Join(all, "\n")
		})
	}
	slices.Sort(things)
	return strings.Join(things, "")
}

var again = regexp.MustCompile(`_again\d+`)

var elements = regexp.MustCompile(`(?s)elements = \{.*\}\n`)

func texts(all []netip.Addr) (texts []string) {
	for _, a := range all {
		texts = append(texts, a.String())
	}
	return texts
}

// Every world of the suite is loaded over the one before, and probed.
func TestRealSuite(t *testing.T) {
	netns.Want(t)
	asked := []point{{netset.TCP, 80}, {netset.TCP, 81}, {netset.UDP, 80}, {netset.UDP, 81}, {netset.SCTP, 80}, {netset.SCTP, 81}}
	var s *scene
	worlds, probes := 0, 0
	eachWorld(t, func(name string, world []byte) {
		m := modelOf(t, string(world))
		if s.is(m) {
			s.turnTo(m)
		} else {
			s = newScene(t, m)
			s.serve(asked)
		}
		s.Forget()
		worlds++
		probes += s.agree(asked)
	})
	s.listsTheSame()
	t.Logf("%d worlds, %d probes", worlds, probes)
	if worlds != 256 {
		t.Errorf("%d worlds, want 256", worlds)
	}
}

// eachWorld yields the worlds of the suite of NetworkPolicy.
func eachWorld(t *testing.T, yield func(name string, world []byte)) {
	t.Helper()
	file, err := os.Open(testkit.Shared(t, "suites", "networkpolicy", "cases.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	unzipped, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(unzipped)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var c struct {
			Case  string
			World json.RawMessage
		}
		if err := json.Unmarshal(lines.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		yield(c.Case, c.World)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

// Without the table everything arrives: what does not arrive in other tests is kept
// out by it. And a Kernel that never saw it takes over a table without a gap.
func TestRealRemoveAndTakeOver(t *testing.T) {
	netns.Want(t)
	s := newScene(t, modelOf(t, shop))
	s.serve(points)
	probes := []netns.Probe{
		{From: s.parties[1].Party, Source: s.parties[1].Addresses[0], Target: s.parties[2].Addresses[0], Protocol: netset.TCP, Port: 80},
		{From: s.parties[2].Party, Source: s.parties[2].Addresses[0], Target: s.parties[1].Addresses[0], Protocol: netset.TCP, Port: 80},
	}
	arrive := func(want bool) {
		t.Helper()
		for i, got := range s.Arrive(probes, []bool{want, want}) {
			if got != want {
				t.Errorf("%s arrives: %t, want %t", probes[i], got, want)
			}
		}
	}
	arrive(false)
	s.kernel = kernel.New(s.FD())
	if err := s.kernel.Load(s.ruleset); err != nil {
		t.Fatal(err)
	}
	arrive(false)
	s.listsTheSame()
	if err := s.kernel.Remove(); err != nil {
		t.Fatal(err)
	}
	arrive(true)
}

// Policies are about what a pod sends to its own node, and never keep the node from it.
func TestRealOwnNode(t *testing.T) {
	netns.Want(t)
	m := modelOf(t, shop)
	node := []netip.Addr{netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fd00:192::1")}
	s := newScene(t, m)
	self := s.Own(node...)
	for _, p := range append(s.parties, party{Party: self}) {
		p.Serve([]uint16{80}, nil)
	}
	var probes []netns.Probe
	var should []bool
	for _, p := range s.parties {
		for i, a := range p.Addresses {
			probes = append(probes,
				netns.Probe{From: p.Party, Source: a, Target: node[i], Protocol: netset.TCP, Port: 80},
				netns.Probe{From: self, Source: node[i], Target: a, Protocol: netset.TCP, Port: 80})
			should = append(should, m.Pods[p.pod].Ref.Name != "db", true)
		}
	}
	for i, got := range s.Arrive(probes, should) {
		if got != should[i] {
			t.Errorf("%s arrives: %t, want %t", probes[i], got, should[i])
		}
	}
}

// A connection whose label says so is cut off, both ways; others are not.
func TestRealRevoked(t *testing.T) {
	netns.Want(t)
	s := newScene(t, modelOf(t, shop))
	var client, server netns.Party
	for _, p := range s.parties {
		switch s.judge.Model().Pods[p.pod].Ref.Name {
		case "cron":
			client = *p.Party
		case "web":
			server = *p.Party
		}
	}
	conn := s.Talk(&client, &server, 8080)
	carries := func(want bool) {
		t.Helper()
		for _, fromClient := range []bool{true, false} {
			if got := conn.Carries(fromClient, want); got != want {
				t.Errorf("from the client (%t): carried %t, want %t", fromClient, got, want)
			}
		}
	}
	carries(true)
	empty := nft.Compile(nft.Input{Judge: s.judge}, nil)
	s.enforce(empty, true)
	s.enforce(nft.Compile(nft.Input{Judge: s.judge, Pods: s.pods}, nil), true)
	carries(true)
	s.nft("add table inet other; add chain inet other first { type filter hook prerouting priority 0; }; " +
		"add rule inet other first ct label set " + nft.Bit(nft.RevokedBit).String())
	carries(false)
}

// nft runs a command of nft on the node.
func (s *scene) nft(command string) {
	s.t.Helper()
	s.Inside(func() {
		if out, err := exec.Command("nft", command).CombinedOutput(); err != nil {
			s.t.Fatalf("nft %s: %v\n%s", command, err, out)
		}
	})
}

// While the policies change all the time, no packet that they all deny leaks or is not
// counted, and none that they all allow is lost.
func TestRealSwaps(t *testing.T) {
	netns.Want(t)
	const more = `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: all}, spec: {podSelector: {}, ingress: [{ports: [{protocol: UDP, port: 53}, {port: 22}]}], egress: [{to: [{podSelector: {}}]}], policyTypes: [Ingress, Egress]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: cron}, spec: {podSelector: {}, ingress: [{from: [{podSelector: {}}], ports: [{protocol: UDP, port: 8080, endPort: 8100}]}]}}
`
	const always = `
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: always}, spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{protocol: UDP, port: 53}]}]}}
`
	few, many := modelOf(t, shop+always), modelOf(t, shop+always+more)
	s := newScene(t, few)
	pods := map[string]*netns.Party{}
	for _, p := range s.parties {
		pods[few.Pods[p.pod].Ref.Name] = p.Party
	}
	allowed, denied := s.Stream(pods["cron"], pods["web"], 53, true), s.Stream(pods["cron"], pods["db"], 9999, false)
	for i := range 60 {
		s.changes = i%3 > 0
		if i%2 == 0 {
			s.turnTo(many)
		} else {
			s.turnTo(few)
		}
	}
	if sent, received := allowed.Stop(); received != sent {
		t.Errorf("of %d packets that are allowed, %d came", sent, received)
	} else {
		t.Logf("%d packets were allowed", sent)
	}
	sent, received := denied.Stop()
	if received != 0 {
		t.Errorf("of %d packets that are denied, %d leaked", sent, received)
	}
	counters, counted := s.counters(), uint64(0)
	for name, n := range counters {
		if strings.HasSuffix(name, "_denied") || strings.HasSuffix(name, "_none") {
			counted += n
		}
	}
	if counted != uint64(sent) {
		t.Errorf("of %d packets that were denied, %d are counted", sent, counted)
	}
	// What counted last is there for a while, and then gone.
	s.kernel.Age(2 * time.Minute)
	if err := s.kernel.Verify(s.ruleset); err != nil {
		t.Error(err)
	}
	if left := s.counters(); len(left) != len(s.ruleset.Counters) || len(left) >= len(counters) {
		t.Errorf("%d counters are there of %d, and %d are in force", len(left), len(counters), len(s.ruleset.Counters))
	}
}

func (s *scene) counters() map[string]uint64 {
	s.t.Helper()
	all, err := s.kernel.Counters()
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// Sets of many elements have all of them: the library loses what is beyond 64 KB of a
// message, without a word.
func TestRealManyElements(t *testing.T) {
	netns.Want(t)
	shape := worlds.Shape{Namespaces: 50, Workloads: 500, Pods: 10_000, Policies: 1_000, Closed: true, Tiered: true}
	m := shape.Model(1)
	var pods []int
	for i := 0; i < len(m.Pods); i += 100 {
		pods = append(pods, i)
	}
	k := kernel.New(netns.New(t).FD())
	r := nft.Compile(nft.Input{Pods: pods, Judge: reach.New(m, reach.Options{})}, nil)
	most := 0
	for i := range r.Sets {
		most = max(most, len(r.Sets[i].Elements))
	}
	if most <= 4096 {
		t.Fatalf("no set has more than %d elements, so this shows nothing", most)
	}
	if err := k.Load(r); err != nil {
		t.Fatal(err)
	}
	other := *r
	other.Sets = slices.Clone(r.Sets)
	for i := range other.Sets {
		if n := len(other.Sets[i].Elements); n == most {
			other.Sets[i].Elements = other.Sets[i].Elements[:n-1]
		}
	}
	if err := k.Verify(&other); err == nil {
		t.Error("an element too many is not noticed")
	}
}

// Whoever else touches the table is noticed, and the own changes are not.
func TestRealWatch(t *testing.T) {
	netns.Want(t)
	s := newScene(t, modelOf(t, shop))
	ctx, cancel := context.WithCancel(t.Context())
	ready, alarms, ended := make(chan struct{}), make(chan kernel.Alarm, 16), make(chan error)
	go func() {
		ended <- s.kernel.Watch(ctx, func() { close(ready) }, func(a kernel.Alarm) { alarms <- a })
	}()
	<-ready
	empty := nft.Compile(nft.Input{Judge: s.judge}, nil)
	for _, r := range []*nft.Ruleset{empty, s.ruleset, empty, s.ruleset} {
		s.enforce(r, true)
		s.enforce(r, false)
	}
	for _, command := range []string{"add table inet other", "add element inet weir isolated_ingress4 { 10.9.9.9 }", "flush ruleset"} {
		s.nft(command)
	}
	for range 2 {
		if a := <-alarms; a != kernel.Tampered {
			t.Errorf("alarm %q, want %q", a, kernel.Tampered)
		}
	}
	s.enforce(s.ruleset, false)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("ended with %v", err)
	}
	if len(alarms) > 0 {
		t.Errorf("%d alarms too many", len(alarms))
	}
}

// A connection that is revoked stops both ways, and goes on when that is taken back;
// others do not notice. So does one that is older than the table, but for going on.
func TestRealRevoke(t *testing.T) {
	netns.Want(t)
	for _, older := range []bool{false, true} {
		s := newScene(t, modelOf(t, shop))
		pods := map[string]*netns.Party{}
		for _, p := range s.parties {
			pods[s.judge.Model().Pods[p.pod].Ref.Name] = p.Party
		}
		if older {
			if err := s.kernel.Remove(); err != nil {
				t.Fatal(err)
			}
			// Connections are tracked without a label where nothing sets one.
			s.nft("add table inet other; add chain inet other first { type filter hook forward priority 0; }; add rule inet other first ct state new accept")
		}
		revoked, other := s.Talk(pods["cron"], pods["web"], 8080), s.Talk(pods["web"], pods["db"], 5432)
		if older {
			s.enforce(s.ruleset, false)
		}
		carries := func(c *netns.Conversation, want bool) {
			t.Helper()
			for _, fromClient := range []bool{true, false} {
				if got := c.Carries(fromClient, want); got != want {
					t.Errorf("older %t, from the client %t: carried %t, want %t", older, fromClient, got, want)
				}
			}
		}
		var these []conntrack.Connection
		find := func() {
			these = nil
			err := s.kernel.Connections(func(c *conntrack.Connection) bool {
				if c.Original.DestinationPort == 8080 && c.Original.Protocol == netset.TCP {
					these = append(these, *c)
				}
				return true
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		find()
		carries(revoked, true)
		if n, err := s.kernel.Revoke(these); n != 1 || err != nil {
			t.Fatalf("%d of %v revoked: %v", n, these, err)
		}
		carries(revoked, false)
		carries(other, true)
		find()
		if n, err := s.kernel.Restore(these); n != 1 || err != nil {
			t.Fatalf("%d of %v restored: %v", n, these, err)
		}
		if !older {
			carries(revoked, true)
		}
	}
}
