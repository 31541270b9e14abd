package flowstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
	"github.com/weir-policy/weir/simulator"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// TestAStoreIsReplayedAsItsFlows compares the replay of a store with that of its
// flows one by one, but for the examples of what nobody asks about and the number
// of questions. Its worlds have pods that were relabelled, bare ones, those on the
// host's network and ones that have another's address of before.
func TestAStoreIsReplayedAsItsFlows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before := drawModel(t)
		change := &policies.Model{World: before.World, Tiers: before.Tiers, Policies: drawPolicies(t, "after")}
		if rapid.Bool().Draw(t, "one model") {
			change = nil
		}
		made := drawRecords(t)
		replayer := func() *simulator.Replayer {
			if change == nil {
				return simulator.New(reach.New(before, reach.Options{}), nil)
			}
			return simulator.New(reach.Pair(before, change, reach.Options{}))
		}
		one := replayer()
		var span Range
		if rapid.Bool().Draw(t, "cut") {
			span = Range{Since: day.Add(time.Hour + 2*time.Second), Until: day.Add(26*time.Hour + 9*time.Second)}
		}
		for _, f := range made {
			if !f.First.Before(span.Since) && (span.Until.IsZero() || f.First.Before(span.Until)) {
				one.Add(f)
			}
		}
		dir, err := os.MkdirTemp("", "weir")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		ctx := context.Background()
		s, err := Open(ctx, dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		w := s.NewWriter()
		for i := range made {
			if err := w.Add(ctx, &made[i]); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(ctx); err != nil {
			t.Fatal(err)
		}
		if rapid.Bool().Draw(t, "compacted") {
			if _, err := s.Compact(ctx, long, nil); err != nil {
				t.Fatal(err)
			}
		}
		kept, err := s.Recorded(ctx, span)
		if err != nil {
			t.Fatal(err)
		}
		two := replayer()
		if rapid.Bool().Draw(t, "portions") {
			two.Spill(openScratch, rapid.IntRange(1, 12).Draw(t, "held"))
		}
		if err := two.Replay(ctx, kept); err != nil {
			t.Fatal(err)
		}
		if d := gocmp.Diff(saying(one.Result()), saying(two.Result())); d != "" {
			t.Fatal("(-flows +store)\n" + d)
		}
	})
}

// scratch is a simulator.Scratch in memory.
type scratch struct{ bytes.Buffer }

func openScratch() (simulator.Scratch, error) { return &scratch{}, nil }

func (s *scratch) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(s.Bytes()).ReadAt(p, at)
}

func (s *scratch) Close() error { return nil }

func saying(r *simulator.Result) map[string]string {
	all := map[string]string{
		"total": fmt.Sprint(r.Flows, r.Bytes, r.Paired, r.First, r.Last, r.Outcomes, r.Explained, r.Unresolved),
	}
	for _, c := range r.Causes { // of those that are called otherwise, the name is an example
		cause, _, _ := strings.Cut(c.Text, " match")
		all["cause "+cause] = fmt.Sprint(all["cause "+cause], c.Flows)
	}
	for w := range r.Rows.All() {
		key := fmt.Sprint(w.Outcome, w.From, w.To, w.Protocol, w.Port, w.Recorded, w.Before, w.After, w.Cause)
		text := fmt.Sprint(w.Flows, w.Bytes, w.First, w.Last)
		if w.Outcome != simulator.Stays && w.Outcome != simulator.Undecided {
			said, _ := json.Marshal([]any{w.Decision, w.Base}) //nolint:errchkjson // they are plain
			text += fmt.Sprintf(" %+v %s", w.Example, said)
		}
		all[key] = text
	}
	return all
}

const (
	old   = "7c9f8d5b64"
	later = "6d4b75cb6d"
)

func inShop(kind, workload, pod, address string, labels map[string]string) policies.Pod {
	p := policies.Pod{
		Ref: policies.Ref{Kind: "Pod", Namespace: "shop", Name: pod}, Workload: policies.Ref{Kind: kind, Namespace: "shop", Name: workload},
		Replicas: 1, Labels: labels,
	}
	if address != "" {
		p.Addresses = []netip.Addr{netip.MustParseAddr(address)}
	}
	return p
}

func drawModel(t *rapid.T) *policies.Model {
	namespace := func(name string) policies.Namespace {
		return policies.Namespace{Name: name, Labels: map[string]string{policies.NameLabel: name}}
	}
	label := func(pairs ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	w := policies.World{
		Namespaces: []policies.Namespace{namespace("shop"), namespace("ops")},
		Nodes:      []policies.Node{{Name: "n1", Addresses: []netip.Addr{netip.MustParseAddr("10.0.0.1")}}},
		PodCIDRs:   []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		Sets:       []policies.NetworkSet{{Ref: policies.Ref{Kind: "GlobalNetworkSet", Name: "partners"}, Nets: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}},
	}
	addresses := rapid.Bool().Draw(t, "addresses")
	at := func(a string) string {
		if addresses {
			return a
		}
		return ""
	}
	w.Pods = []policies.Pod{
		inShop("Deployment", "web", "web-"+old+"-2x4z6", at("10.1.0.1"), label("app", "web")),
		inShop("Deployment", "web", "web-"+old+"-9x9z9", at("10.1.0.2"), label("app", "web", "debug", "yes")),
		inShop("StatefulSet", "db", "db-0", at("10.1.0.3"), label("app", "db")),
		inShop("Pod", "tool-"+later+"-2x4z6", "tool-"+later+"-2x4z6", at("10.1.0.4"), label("app", "tool")),
		inShop("ReplicaSet", "api-"+later, "api-"+later+"-2x4z6", at("10.1.0.5"), label("app", "api")),
		inShop("DaemonSet", "agent", "agent-2x4z6", "10.0.0.1", label("app", "agent")),
	}
	w.Pods[5].HostNetwork = true
	if rapid.Bool().Draw(t, "since") {
		w.Pods[2].Since = day.Add(90 * time.Minute)
		w.Pods[0].Since = day.Add(150 * time.Minute)
	}
	if rapid.Bool().Draw(t, "two families") && addresses {
		w.Pods[0].Addresses = append(w.Pods[0].Addresses, netip.MustParseAddr("fd00::1"))
	}
	return &policies.Model{World: w, Tiers: []policies.Tier{{Name: "default", End: policies.ActionDeny}}, Policies: drawPolicies(t, "before")}
}

func drawPolicies(t *rapid.T, when string) []policies.Policy {
	in := selector.Label(policies.NameLabel, "shop")
	subjects := []selector.Selector{selector.Label("app", "web"), selector.Label("app", "db"), selector.Label("debug", "yes"), selector.Label("app", "tool"), selector.Label("app", "api")}
	var all []policies.Policy
	for i := range rapid.IntRange(0, 4).Draw(t, when+" policies") {
		at := policies.Place{File: "shop.yaml", Line: i + 1}
		d := policies.Direction(rapid.IntRange(0, 1).Draw(t, "direction"))
		p := policies.Policy{
			Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: fmt.Sprint("p", i)}, Tier: "default", Place: at,
			Subject: policies.Match{Namespaces: in, Pods: rapid.SampledFrom(subjects).Draw(t, "subject")},
		}
		p.Governs[d] = true
		peers := policies.Match{Namespaces: in, Pods: rapid.SampledFrom(subjects).Draw(t, "peer")}
		if rapid.Bool().Draw(t, "block") {
			peers = policies.Match{Block: netset.Block{CIDR: netip.MustParsePrefix(rapid.SampledFrom([]string{"192.0.2.0/25", "0.0.0.0/0", "10.1.0.2/32", "10.0.0.0/8"}).Draw(t, "cidr"))}}
		}
		port := rapid.SampledFrom([]uint16{80, 5432}).Draw(t, "to port")
		p.Rules[d] = []policies.Rule{{Action: policies.ActionAllow, Ports: netset.PortSpan(netset.TCP, port, port), Place: at, Peers: []policies.Match{peers}}}
		all = append(all, p)
	}
	return all
}

func drawRecords(t *rapid.T) []policies.Flow {
	pods := []string{
		"web-" + old + "-2x4z6", "web-" + old + "-9x9z9", "web-" + old + "-gone2", "db-0", "db-1", "tool-" + later + "-2x4z6", "tool-" + later + "-9x9z9",
		"api-" + later + "-2x4z6", "agent-2x4z6", "",
	}
	owners := []policies.Ref{
		{},
		{Kind: "Deployment", Namespace: "shop", Name: "web"},
		{Kind: "Rollout", Namespace: "shop", Name: "web"},
		{Kind: "ReplicaSet", Namespace: "shop", Name: "web-" + old},
		{Kind: "StatefulSet", Namespace: "shop", Name: "db"},
		{Kind: "Deployment", Namespace: "shop", Name: "api"},
		{Kind: "ReplicaSet", Namespace: "shop", Name: "tool-" + later},
	}
	labels := []map[string]string{nil, {"app": "web"}, {"app": "web", "debug": "yes"}, {"app": "db"}, {"app": "api"}, {"app": "tool"}}
	addresses := []string{"", "10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.99", "10.0.0.1", "fd00::1", "::ffff:10.1.0.2", "192.0.2.1", "192.0.2.200", "203.0.113.9"}
	outside := []string{"", "192.0.2.1", "192.0.2.200"}
	draw := func(name string) policies.FlowPeer {
		var p policies.FlowPeer
		switch rapid.IntRange(0, 9).Draw(t, name+" kind") {
		case 0:
			p.Outside = true
		case 1:
			p.Network = policies.PublicNetwork
		case 2:
			p.Set = policies.Ref{Kind: "GlobalNetworkSet", Name: "partners"}
		case 3:
			p.Host, p.OwnNode = true, rapid.Bool().Draw(t, "own")
		case 4: // an address alone
		default:
			p.Namespace = "shop"
			p.Pod = rapid.SampledFrom(pods).Draw(t, name+" pod")
			if o := rapid.SampledFrom(owners).Draw(t, name+" owner"); o.Name != "" {
				p.Workloads = []policies.Ref{o}
			}
			p.Labels = rapid.SampledFrom(labels).Draw(t, name+" labels")
			p.LabelsPartial = p.Labels != nil && rapid.Bool().Draw(t, name+" partial")
			if p.Pod == "" && rapid.Bool().Draw(t, name+" prefix") {
				p.PodPrefix = "web-" + old + "-"
			}
		}
		from := addresses
		if p.Outside || p.Network != policies.AnyNetwork || p.Set.Name != "" {
			from = outside
		}
		if a := rapid.SampledFrom(from).Draw(t, name+" address"); a != "" {
			p.Address = netip.MustParseAddr(a)
		}
		return p
	}
	var ends [6]policies.FlowPeer
	for i := range ends {
		ends[i] = draw(fmt.Sprint("end ", i))
	}
	made := make([]policies.Flow, rapid.IntRange(0, 24).Draw(t, "flows"))
	for i := range made {
		f := policies.Flow{
			From: rapid.SampledFrom(ends[:]).Draw(t, "from"), To: rapid.SampledFrom(ends[:]).Draw(t, "to"), Protocol: rapid.SampledFrom([]netset.Protocol{netset.TCP, netset.TCP, netset.TCP, netset.UDP, netset.ICMP, 0}).Draw(t, "protocol"),
			Port: rapid.SampledFrom([]uint16{80, 80, 5432, 0}).Draw(t, "port"), Verdict: policies.Verdict(rapid.IntRange(0, 3).Draw(t, "verdict")),
			Count: rapid.Uint64Range(1, 3).Draw(t, "count"), Bytes: rapid.Uint64Range(0, 99).Draw(t, "bytes"),
		}
		f.First = day.Add(time.Duration(rapid.SampledFrom([]int{0, 1, 2, 3, 11, 12, 13, 26, 37}).Draw(t, "hour"))*time.Hour + time.Duration(i)*time.Second)
		f.Last = f.First
		f.Origin.Reporter = policies.Reporter(rapid.IntRange(0, 3).Draw(t, "reporter"))
		f.EgressOnly = f.Origin.Reporter == policies.SourceSide && rapid.Bool().Draw(t, "egressOnly")
		if f.Protocol != netset.TCP && f.Protocol != netset.UDP {
			f.Port = 0
		}
		made[i] = f
	}
	return made
}
