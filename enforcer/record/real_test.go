//go:build linux

package record_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"
	"github.com/vishvananda/netlink"

	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/enforcer/record"
	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/internal/testkit/netns"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/simulator/flowlog"
)

const shop = `
{apiVersion: v1, kind: Node, metadata: {name: n1}, status: {addresses: [{type: InternalIP, address: 192.168.0.1}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: web-7c9f8d5b6-aaaaa, labels: {app: web}, ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web-7c9f8d5b6, controller: true}]}, spec: {nodeName: n1, containers: [{name: main, ports: [{name: http, containerPort: 8080}]}]}, status: {phase: Running, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: shop, name: db-0, labels: {app: db}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.2}, {ip: "fd00::2"}]}}
---
{apiVersion: v1, kind: Pod, metadata: {namespace: look, name: cron, labels: {app: cron}}, spec: {nodeName: n1}, status: {phase: Running, podIPs: [{ip: 10.0.0.3}, {ip: "fd00::3"}]}}
---
{apiVersion: v1, kind: Service, metadata: {namespace: shop, name: db}, spec: {clusterIP: 10.96.0.1, selector: {app: db}, ports: [{port: 80, targetPort: 5432}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: shop, name: db}, spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 5432}, {protocol: UDP, port: 53}]}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {namespace: look, name: cron}, spec: {podSelector: {matchLabels: {app: cron}}, ingress: [{ports: [{port: 22}]}]}}
`

// scene is a node with the shop's pods, and somebody outside.
type scene struct {
	*netns.Lab
	t             testing.TB
	kernel        *kernel.Kernel
	web, db, cron *netns.Party
	out           *netns.Party
	generation    record.Generation
	dir           string
	options       record.Options
}

// generationOf returns what is in force in a scene.
func generationOf(t testing.TB, world string) record.Generation {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(world))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	in := nft.Input{Judge: reach.New(m, reach.Options{}), Observed: map[string]bool{"look": true}, LogGroup: 5}
	for i := range m.Pods {
		in.Pods = append(in.Pods, i)
	}
	return record.Generation{Number: 7, Since: time.Now(), Input: in, Ruleset: nft.Compile(in, nil)}
}

func newScene(t testing.TB) *scene {
	t.Helper()
	return newSceneOf(t, shop)
}

func newSceneOf(t testing.TB, world string) *scene {
	t.Helper()
	s := &scene{Lab: netns.New(t), t: t, generation: generationOf(t, world), dir: t.TempDir()}
	s.kernel = kernel.New(s.FD())
	parties := map[string]**netns.Party{"web-7c9f8d5b6-aaaaa": &s.web, "db-0": &s.db, "cron": &s.cron}
	m := s.generation.Input.Judge.Model()
	for i := range m.Pods {
		*parties[m.Pods[i].Ref.Name] = s.Add(m.Pods[i].Addresses...)
	}
	s.out = s.Add(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	for _, p := range []*netns.Party{s.web, s.db, s.cron, s.out} {
		p.Serve([]uint16{22, 80, 5432, 8080}, []uint16{53})
	}
	if err := s.kernel.Load(s.generation.Ruleset); err != nil {
		t.Fatal(err)
	}
	s.options = record.Options{
		Netns: s.FD(), Node: "n1", LogGroup: 5, Counters: s.counters, Dir: s.dir, Window: time.Hour,
		Log: func(err error) { t.Errorf("said: %v", err) },
	}
	return s
}

// counters returns what the table counts.
func (s *scene) counters() (map[string]uint64, error) {
	c, err := nftables.New(nftables.WithNetNSFd(s.FD()))
	if err != nil {
		return nil, err
	}
	objects, err := c.GetObjects(&nftables.Table{Name: nft.Table, Family: nftables.TableFamilyINet})
	all := map[string]uint64{}
	for _, o := range objects {
		if c, ok := o.(*nftables.CounterObj); ok {
			all[c.Name] = c.Packets
		}
	}
	return all, err
}

// record begins to record, and returns what ends that.
func (s *scene) record() (*record.Recorder, func()) {
	s.t.Helper()
	r, err := record.New(s.options)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	r.Enforce(s.generation)
	s.until("it looks at all connections", func() bool { return r.Counts().Dumps > 0 })
	stopped := false
	stop := func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
	s.t.Cleanup(stop)
	return r, stop
}

// until waits until something holds.
func (s *scene) until(what string, holds func() bool) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		if holds() {
			return nil
		}
		return fmt.Errorf("it never comes that %s", what)
	})
}

// recorded returns the flows in the files, and what they say is lost.
func recorded(t testing.TB, dir string) (all []policies.Flow, stats flowlog.Stats) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "flows-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		of, err := flowlog.Read(t.Context(), f, name, flowlog.Options{Format: "weir", Strict: true}, func(f policies.Flow) error {
			all = append(all, f)
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		stats.Add(of)
	}
	return all, stats
}

// said returns flows as lines, sorted, without what differs from run to run.
func said(flows []policies.Flow) (lines []string) {
	who := func(p *policies.FlowPeer) string {
		text := p.Namespace + "/" + p.Pod
		if p.Pod == "" && p.Address.IsValid() {
			text = p.Address.String()
		}
		if len(p.Names) > 0 {
			text += " as " + strings.Join(p.Names, ", ")
		}
		return text
	}
	for i := range flows {
		f := &flows[i]
		line := fmt.Sprintf("%s to %s %s/%d %s by %s, %d started, %d ended", who(&f.From), who(&f.To), f.Protocol, f.Port, f.Verdict, f.Origin.Reporter, f.Started, f.Ended)
		if f.EgressOnly {
			line += ", egress only"
		}
		for _, h := range f.Hits {
			line += fmt.Sprintf(", %s %s/%s rule %d", h.Action, h.Tier, h.Policy, h.Rule)
			if h.Staged {
				line += " staged"
			}
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return lines
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

// Every kind of connection is recorded with its ends and the rules that decided.
func TestRealConnections(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	s.nft("add table ip services; add chain ip services before { type nat hook prerouting priority dstnat; }; add rule ip services before ip daddr 10.96.0.1 tcp dport 80 dnat to 10.0.0.2:5432")
	r, stop := s.record()
	web, db, cron, out := s.web.Addresses, s.db.Addresses, s.cron.Addresses, s.out.Addresses
	probe := func(from *netns.Party, source, target netip.Addr, protocol netset.Protocol, port uint16) netns.Probe {
		return netns.Probe{From: from, Source: source, Target: target, Protocol: protocol, Port: port}
	}
	s.Arrive([]netns.Probe{
		probe(s.web, web[0], db[0], netset.TCP, 5432),
		probe(s.web, web[1], db[1], netset.UDP, 53),
		probe(s.web, web[0], netip.MustParseAddr("10.96.0.1"), netset.TCP, 80),
		probe(s.db, db[0], web[0], netset.TCP, 8080),
		probe(s.out, out[0], web[0], netset.ICMP, 8<<8),
		probe(s.web, web[1], out[1], netset.TCP, 80),
		probe(s.db, db[0], cron[0], netset.TCP, 80),
		probe(s.db, db[0], cron[0], netset.TCP, 22),
		probe(s.cron, cron[0], db[0], netset.UDP, 5432),
	}, []bool{true, true, true, true, true, true, true, true, false})
	s.until("it hears of all", func() bool { return r.Counts().Started == 8 })
	s.Forget()
	stop()
	flows, stats := recorded(t, s.dir)
	want := []string{
		"192.0.2.1 to shop/web-7c9f8d5b6-aaaaa ICMP/2048 allow by destination, 1 started, 1 ended",
		"look/cron to shop/db-0 UDP/5432 deny by destination, 0 started, 0 ended, deny default/shop/db rule -1",
		"shop/db-0 to look/cron TCP/22 allow by destination, 1 started, 1 ended, allow default/look/cron rule 0",
		"shop/db-0 to look/cron TCP/80 allow by destination, 1 started, 1 ended, deny default/look/cron rule -1 staged",
		"shop/db-0 to shop/web-7c9f8d5b6-aaaaa TCP/8080 allow by destination, 1 started, 1 ended",
		"shop/web-7c9f8d5b6-aaaaa to 2001:db8::1 TCP/80 allow by source, 1 started, 1 ended",
		"shop/web-7c9f8d5b6-aaaaa to shop/db-0 TCP/5432 allow by destination, 1 started, 1 ended, allow default/shop/db rule 0",
		"shop/web-7c9f8d5b6-aaaaa to shop/db-0 UDP/53 allow by destination, 1 started, 1 ended, allow default/shop/db rule 0",
		"shop/web-7c9f8d5b6-aaaaa to shop/db-0 as db.shop.svc TCP/5432 allow by destination, 1 started, 1 ended, allow default/shop/db rule 0",
	}
	if diff := cmp.Diff(want, said(flows)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	if c := r.Counts(); c.Ended != 8 || c.Open != 0 || c.Unexplained != 0 || len(c.Lost) > 0 || stats.Lost > 0 || c.Observed == 0 {
		t.Errorf("counts %+v, lost by the files %d", c, stats.Lost)
	}
}

// carried returns what the kernel counts of the connections with a source port, or all.
func (s *scene) carried() (total [2]conntrack.Counters) {
	s.t.Helper()
	s.Inside(func() {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, netlink.FAMILY_V4)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, f := range all {
			total[0].Packets += f.Forward.Packets
			total[0].Bytes += f.Forward.Bytes
			total[1].Packets += f.Reverse.Packets
			total[1].Bytes += f.Reverse.Bytes
		}
	})
	return total
}

// sumOf adds flows up.
func sumOf(flows []policies.Flow) (total [2]conntrack.Counters, started, ended uint64) {
	for i := range flows {
		f := &flows[i]
		total[0].Packets += f.Packets
		total[0].Bytes += f.Bytes
		total[1].Packets += f.ReplyPackets
		total[1].Bytes += f.ReplyBytes
		started += f.Started
		ended += f.Ended
	}
	return total, started, ended
}

// agrees records until what is recorded is what the kernel says: it may acknowledge late
// what it had right before.
func (s *scene) agrees() (flows []policies.Flow, started, ended uint64) {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		_, stop := s.record()
		stop()
		var total [2]conntrack.Counters
		flows, _ = recorded(s.t, s.dir)
		total, started, ended = sumOf(flows)
		if want := s.carried(); total != want {
			return fmt.Errorf("recorded is %+v; the kernel says %+v", total, want)
		}
		return nil
	})
	return flows, started, ended
}

// A connection that outlasts windows, and recorders, is recorded by each, and what they
// say comes to what the kernel counts.
func TestRealOutlasts(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	s.options.Window = 20 * time.Millisecond
	var conn *netns.Conversation
	for i := range 3 {
		r, stop := s.record()
		if i == 0 { // the kernel counts now
			conn = s.Talk(s.db, s.web, 9000)
		}
		for n := range 3 {
			before := r.Counts().Records
			conn.Carries(n%2 == 0, true)
			s.until("it records more", func() bool { return r.Counts().Records > before })
		}
		stop()
		conn.Carries(true, true) // while nobody records
	}
	flows, started, ended := s.agrees()
	if _, stats := recorded(t, s.dir); started != 1 || ended != 0 || stats.Lost != 0 {
		t.Errorf("%d started, %d ended, %d lost", started, ended, stats.Lost)
	}
	if len(flows) < 9 {
		t.Errorf("%d records", len(flows))
	}
}

// Denials are counted exactly, however few of them are logged; so is what passes only
// because it is observed.
func TestRealDenials(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	s.options.Window = 50 * time.Millisecond
	for _, level := range []record.Level{0, 2} {
		s.options.Level, s.options.Dir = level, t.TempDir()
		r, stop := s.record()
		denied := s.Stream(s.cron, s.db, 9999, false)
		s.until("many are denied", func() bool { return r.Counts().Denied > 500 })
		denied.Stop()
		stop()
		after, err := s.counters()
		if err != nil {
			t.Fatal(err)
		}
		want := uint64(0)
		for name, n := range after {
			if strings.HasSuffix(name, "_denied") || strings.HasSuffix(name, "_none") {
				want += n
			}
		}
		flows, _ := recorded(t, s.options.Dir)
		got, logged := uint64(0), uint64(0)
		for i := range flows {
			if flows[i].Verdict != policies.Deny {
				t.Errorf("%+v", flows[i])
			}
			got += flows[i].Count
			if flows[i].To.Namespace != "" {
				logged += flows[i].Count
			}
		}
		if got != want {
			t.Errorf("%d denials are recorded of %d", got, want)
		}
		if c := r.Counts(); c.Denied != got || logged == 0 || logged == got {
			t.Errorf("%d of %d denials were logged; counts %+v", logged, got, c)
		}
	}
}

// Where the kernel has no room for what it tells, nothing is lost: the ends of
// connections are told again, and the others are looked up.
func TestRealOverflow(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	s.options.Buffer = 1 << 15
	r, stop := s.record()
	const many = 1500
	var probes []netns.Probe
	for range many {
		probes = append(probes, netns.Probe{From: s.web, Source: s.web.Addresses[0], Target: s.db.Addresses[0], Protocol: netset.UDP, Port: 53})
	}
	s.Arrive(probes, slices.Repeat([]bool{true}, many))
	s.Forget()
	s.until("all have ended", func() bool { return r.Counts().Ended >= many })
	stop()
	flows, _ := recorded(t, s.dir)
	total, started, ended := sumOf(flows)
	c := r.Counts()
	if c.Overflows == 0 || started != many || ended != many || len(c.Lost) > 0 || total[0].Packets < many {
		t.Errorf("%d started, %d ended, %+v; counts %+v", started, ended, total, c)
	}
}
