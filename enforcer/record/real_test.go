//go:build linux

package record_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/nftables"

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
	model         *policies.Model
	kernel        *kernel.Kernel
	web, db, cron *netns.Party
	out           *netns.Party
	generation    record.Generation
	dir           string
	options       record.Options
}

func newScene(t testing.TB) *scene {
	t.Helper()
	docs, err := k8s.Parse("shop.yaml", []byte(shop))
	if err != nil {
		t.Fatal(err)
	}
	m, err := k8s.Read(docs, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	s := &scene{Lab: netns.New(t), t: t, model: m, dir: t.TempDir()}
	s.kernel = kernel.New(s.FD())
	parties := map[string]**netns.Party{"web-7c9f8d5b6-aaaaa": &s.web, "db-0": &s.db, "cron": &s.cron}
	in := nft.Input{Judge: reach.New(m, reach.Options{}), Observed: map[string]bool{"look": true}, LogGroup: 5}
	for i := range m.Pods {
		*parties[m.Pods[i].Ref.Name] = s.Add(m.Pods[i].Addresses...)
		in.Pods = append(in.Pods, i)
	}
	s.out = s.Add(netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1"))
	for _, p := range []*netns.Party{s.web, s.db, s.cron, s.out} {
		p.Serve([]uint16{22, 80, 5432, 8080}, []uint16{53})
	}
	s.generation = record.Generation{Number: 7, Since: time.Now(), Input: in, Ruleset: nft.Compile(in, nil)}
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

func TestRealConnections(t *testing.T) {
	netns.Want(t)
	s := newScene(t)
	r, stop := s.record()
	web, db, cron, out := s.web.Addresses, s.db.Addresses, s.cron.Addresses, s.out.Addresses
	s.Arrive([]netns.Probe{
		{From: s.web, Source: web[0], Target: db[0], Protocol: netset.TCP, Port: 5432},
		{From: s.web, Source: web[1], Target: db[1], Protocol: netset.UDP, Port: 53},
		{From: s.db, Source: db[0], Target: web[0], Protocol: netset.TCP, Port: 8080},
		{From: s.out, Source: out[0], Target: web[0], Protocol: netset.ICMP, Port: 8 << 8},
		{From: s.web, Source: web[1], Target: out[1], Protocol: netset.TCP, Port: 80},
		{From: s.db, Source: db[0], Target: cron[0], Protocol: netset.TCP, Port: 80},
		{From: s.db, Source: db[0], Target: cron[0], Protocol: netset.TCP, Port: 22},
		{From: s.cron, Source: cron[0], Target: db[0], Protocol: netset.TCP, Port: 5432},
	}, []bool{true, true, true, true, true, true, true, false})
	stop()
	flows, stats := recorded(t, s.dir)
	t.Logf("%+v %+v", r.Counts(), stats)
	for i := range flows {
		line, _ := flowlog.Encode(flows[i])
		t.Logf("%s", line)
	}
	if diff := cmp.Diff([]string{}, said(flows)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
