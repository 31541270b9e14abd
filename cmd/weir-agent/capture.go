package main

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-policy/weir/enforcer"
	"github.com/weir-policy/weir/enforcer/capture"
	"github.com/weir-policy/weir/enforcer/conntrack"
	"github.com/weir-policy/weir/enforcer/kernel"
	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// captures leads PacketCaptures, and the pods that they are about, to the capturer.
type captures struct {
	*capture.Capturer
	agent *enforcer.Agent
	node  string // whose pods are captured; all of the world where it is empty

	mutex    sync.Mutex
	model    *policies.Model
	declared []policies.Capture
	known    bool // whether what is declared was read
	requests []capture.Request
	own      map[netip.Addr]bool // the node's addresses
	asOf     time.Time
}

// newCaptures returns what captures, nil where nothing does.
func newCaptures(o *options, agent *enforcer.Agent, log *slog.Logger) (*captures, error) {
	if o.captureDir == "" {
		return nil, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, err
	}
	c := &captures{agent: agent, node: o.node}
	c.Capturer, err = capture.New(capture.Options{
		Dir: o.captureDir, Node: cmp.Or(o.node, host), MaxBytesTotal: o.captureBytes, MinFreeBytes: o.captureFree,
		Verdict: c.verdict, Generation: agent.Generation, Connections: openConnections,
		Warn: func(err error) { log.Warn("capturing", "error", err) },
	})
	return c, err
}

// declare says which captures there are.
func (c *captures) declare(all []policies.Capture) {
	c.tell(func() { c.declared, c.known = all, true })
}

// world says which pods there are.
func (c *captures) world(m *policies.Model) {
	c.tell(func() { c.model = m })
}

// tell sets something and tells the capturer, once all is known.
func (c *captures) tell(set func()) {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	set()
	if c.model != nil && c.known {
		c.requests = capture.Requests(c.declared, &c.model.World, func(p *policies.Pod) bool { return c.node == "" || p.Node == c.node })
		c.Set(c.requests)
	}
}

// selectsNothing reports whether a capture selects no pod of the node.
func (c *captures) selectsNothing(s v1alpha1.PacketCapture) bool {
	c.mutex.Lock()
	defer c.mutex.Unlock()
	return !slices.ContainsFunc(c.requests, func(r capture.Request) bool {
		return r.Ref.Namespace == s.Metadata.Namespace && r.Ref.Name == s.Metadata.Name && len(r.Pods)+len(r.Refused) > 0
	})
}

// verdict says what the ruleset in force does with a connection. A Service is all that
// is behind it: where that is not decided alike, it is not known which of it is meant.
func (c *captures) verdict(a capture.Attempt) policies.Verdict {
	c.mutex.Lock()
	model := c.model
	isNode := c.isOwn(a.From.Addr())
	c.mutex.Unlock()
	if isNode { // whom nothing keeps from its pods
		return policies.Allow
	}
	targets := []netip.AddrPort{a.To}
	if model != nil {
		targets = behind(model, a)
	}
	all := policies.Undecided
	for _, to := range targets {
		port := to.Port()
		if !a.Protocol.HasPorts() && a.Protocol != netset.ICMP && a.Protocol != netset.ICMPv6 {
			port = 0
		}
		fate, known := c.agent.Fate(nft.Packet{Source: a.From.Addr(), Destination: to.Addr(), Protocol: a.Protocol, Port: port})
		v := policies.Deny
		if fate.Passes {
			v = policies.Allow
		}
		if !known || all != policies.Undecided && all != v {
			return policies.Unknown
		}
		all = v
	}
	return all
}

// isOwn reports whether the node has an address. It remembers them for a while.
func (c *captures) isOwn(a netip.Addr) bool {
	if now := time.Now(); c.own == nil || now.Sub(c.asOf) > 10*time.Second {
		c.own, c.asOf = map[netip.Addr]bool{}, now
		all, err := kernel.New(0).Addresses()
		c.agent.Complain("addresses", err)
		for _, at := range all {
			c.own[at] = true
		}
	}
	return c.own[a]
}

// behind returns where a connection leads: the pods of the Service that has the address,
// or the address itself.
func behind(m *policies.Model, a capture.Attempt) []netip.AddrPort {
	for i := range m.Services {
		s := &m.Services[i]
		if !slices.Contains(s.ClusterIP, a.To.Addr()) {
			continue
		}
		var all []netip.AddrPort
		for _, port := range s.Ports {
			if port.Protocol != a.Protocol || port.Port != a.To.Port() {
				continue
			}
			for _, i := range s.Pods {
				p := m.Pods[i]
				if p.Kind != 0 {
					p.Addresses = someOf(m.Crowd, p.Kind)
				}
				all = append(all, targetOn(&p, port, a.To.Addr().Is4())...)
			}
		}
		return all
	}
	return []netip.AddrPort{a.To}
}

// someOf returns the addresses of one pod of a kind, since none of them is decided
// otherwise than another one.
func someOf(c *policies.Crowd, kind int32) (some []netip.Addr) {
	var one *policies.Individual
	for a, m := range c.Members.All() {
		if m.Kind == kind && (one == nil || one == m.Individual) {
			one, some = m.Individual, append(some, a)
		}
	}
	return some
}

func targetOn(p *policies.Pod, port policies.ServicePort, ipv4 bool) (all []netip.AddrPort) {
	number := port.Target
	for _, c := range p.Ports {
		if number == 0 && c.Name == port.TargetName && c.Protocol == port.Protocol {
			number = c.Number
		}
	}
	for _, at := range p.Addresses {
		if at.Is4() == ipv4 && number != 0 {
			all = append(all, netip.AddrPortFrom(at, number))
		}
	}
	return all
}

// openConnections yields the connections that the node's kernel knows, as those see them
// who opened them, and as those do who were meant in the end.
func openConnections(yield func(capture.Attempt) bool) error {
	return kernel.New(0).Connections(func(c *conntrack.Connection) bool {
		from, to := c.Original.SourcePort, c.Reply.SourcePort
		back := c.Reply.DestinationPort
		if p := c.Original.Protocol; p == netset.ICMP || p == netset.ICMPv6 {
			from, to, back = 0, c.Original.DestinationPort, 0
		}
		opened := capture.Attempt{
			From: netip.AddrPortFrom(c.Original.Source, from), To: netip.AddrPortFrom(c.Original.Destination, c.Original.DestinationPort), Protocol: c.Original.Protocol,
		}
		meant := capture.Attempt{
			From: netip.AddrPortFrom(c.Reply.Destination, back), To: netip.AddrPortFrom(c.Reply.Source, to), Protocol: c.Original.Protocol,
		}
		return yield(opened) && (opened == meant || yield(meant))
	})
}

// run captures until ctx ends. That it cannot is told, and keeps nothing else from
// running.
func (c *captures) run(ctx context.Context) error {
	if err := c.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
		c.agent.Complain("captures", err)
	}
	<-ctx.Done()
	return ctx.Err()
}

var (
	captureState   = prometheus.NewDesc("weir_agent_captures", "Captures of the node by state.", []string{"state"}, nil)
	capturePackets = prometheus.NewDesc("weir_agent_capture_packets", "Packets that the captures of the node hold or held, since they were declared.", nil, nil)
	captureBytes   = prometheus.NewDesc("weir_agent_capture_bytes", "Bytes that were written for them.", nil, nil)
	captureDropped = prometheus.NewDesc("weir_agent_capture_dropped_packets", "Packets that came faster than they could be written.", nil, nil)
)

// Describe and Collect make the captures metrics.
func (c *captures) Describe(to chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, to) }

// Collect adds up the captures as they are.
func (c *captures) Collect(to chan<- prometheus.Metric) {
	states := map[string]int{
		v1alpha1.CaptureCapturing: 0, v1alpha1.CaptureScheduled: 0, v1alpha1.CaptureFinished: 0, v1alpha1.CaptureError: 0, v1alpha1.CaptureWaitingForTraffic: 0,
	}
	var packets, bytes, dropped int64
	for _, s := range c.States() {
		for _, f := range s.Status.Files {
			states[f.State]++
			packets, bytes, dropped = packets+f.Packets, bytes+f.Bytes, dropped+f.Dropped
		}
	}
	for state, n := range states {
		to <- prometheus.MustNewConstMetric(captureState, prometheus.GaugeValue, float64(n), state)
	}
	to <- prometheus.MustNewConstMetric(capturePackets, prometheus.GaugeValue, float64(packets))
	to <- prometheus.MustNewConstMetric(captureBytes, prometheus.GaugeValue, float64(bytes))
	to <- prometheus.MustNewConstMetric(captureDropped, prometheus.GaugeValue, float64(dropped))
}
