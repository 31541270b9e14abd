package flowlog

import (
	"fmt"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator/flowline"
)

var weirFormat = format{
	name:   "weir",
	what:   "its kind is not Flow",
	object: func(keys [][]byte) bool { return hasAll(keys, "apiVersion", "kind") },
	decode: func(s *sink) decoder {
		return &weirDecoder{sink: s, peers: peers{}, traces: cache[[]policies.Hit]{}, origins: cache[policies.Origin]{}}
	},
}

type weirDecoder struct {
	*sink
	peers   peers
	traces  cache[[]policies.Hit]
	origins cache[policies.Origin]
}

// weirText is a line as it stands; what is JSON is read only once.
type weirText struct {
	apiVersion, kind, verdict, protocol []byte
	from, to, policies, origin          []byte // JSON
}

func (d *weirDecoder) decode(record []byte) error {
	var l weirText
	flow := policies.Flow{Verdict: policies.Unknown}
	s := scan{text: record}
	l.take(&s, &flow)
	if err := s.end(); err != nil {
		return err
	}
	switch {
	case string(l.kind) != "Flow" && string(l.kind) != flowline.LossKind:
		return fmt.Errorf("kind %q is not Flow", l.kind)
	case string(l.apiVersion) != flowline.APIVersion:
		return fmt.Errorf("apiVersion %q is not %s", l.apiVersion, flowline.APIVersion)
	case string(l.kind) == flowline.LossKind:
		return d.lose(flow.Count)
	}
	if flow.First.IsZero() {
		flow.First = flow.Last
	}
	if flow.Last.IsZero() {
		flow.Last = flow.First
	}
	if flow.Last.Before(flow.First) {
		return fmt.Errorf("last %s is before first %s", flow.Last.Format(time.RFC3339Nano), flow.First.Format(time.RFC3339Nano))
	}
	var err error
	if len(l.verdict) > 0 {
		if err := flow.Verdict.UnmarshalText(l.verdict); err != nil {
			return err
		}
	}
	if len(l.protocol) > 0 {
		if flow.Protocol, err = netset.ParseProtocol(string(l.protocol)); err != nil {
			return err
		}
	}
	if flow.Origin, err = d.origins.of(l.origin, decodeWeirOrigin); err != nil {
		return fmt.Errorf("origin: %w", err)
	}
	if flow.Hits, err = d.traces.of(l.policies, decodeWeirHits); err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	from, err := d.peers.of(l.from, decodeWeirPeer)
	if err != nil {
		return fmt.Errorf("from: %w", err)
	}
	to, err := d.peers.of(l.to, decodeWeirPeer)
	if err != nil {
		return fmt.Errorf("to: %w", err)
	}
	flow.From, flow.To = from.FlowPeer, to.FlowPeer
	d.flow(flow)
	return nil
}

func (l *weirText) take(s *scan, f *policies.Flow) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "apiVersion":
			l.apiVersion = s.string()
		case "kind":
			l.kind = s.string()
		case "first":
			f.First = s.time()
		case "last":
			f.Last = s.time()
		case "from":
			l.from = s.raw()
		case "to":
			l.to = s.raw()
		case "protocol":
			l.protocol = s.string()
		case "port":
			f.Port = uint16(s.uint(65535))
		case "verdict":
			l.verdict = s.string()
		case "egressOnly":
			f.EgressOnly = s.bool()
		case "count":
			f.Count = s.uint(1<<64 - 1)
		case "started":
			f.Started = s.uint(1<<64 - 1)
		case "ended":
			f.Ended = s.uint(1<<64 - 1)
		case "sourcePort":
			f.SourcePort = uint16(s.uint(65535))
		case "bytes":
			f.Bytes = s.uint(1<<64 - 1)
		case "packets":
			f.Packets = s.uint(1<<64 - 1)
		case "replyBytes":
			f.ReplyBytes = s.uint(1<<64 - 1)
		case "replyPackets":
			f.ReplyPackets = s.uint(1<<64 - 1)
		case "policies":
			l.policies = s.raw()
		case "origin":
			l.origin = s.raw()
		default:
			s.skip()
		}
	}
}

func decodeWeirOrigin(text []byte) (o policies.Origin, err error) {
	var reporter string
	var window float64
	s := scan{text: text, name: []byte("origin")}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "format":
			o.Format = string(s.string())
		case "reporter":
			reporter = string(s.string())
		case "window":
			window = s.float()
		case "node":
			o.Node = string(s.string())
		case "generation":
			o.Generation = s.uint(1<<64 - 1)
		default:
			s.skip()
		}
	}
	if err := s.end(); err != nil {
		return o, err
	}
	if window < 0 || window > maxWindowSeconds {
		return o, fmt.Errorf("window %g is no number of seconds from 0 to %d", window, maxWindowSeconds)
	}
	o.Window = time.Duration(window * float64(time.Second)).Round(time.Microsecond)
	o.Reporter, err = policies.ParseReporter(reporter)
	return o, err
}

// maxWindowSeconds is a year: nobody aggregates flows for longer.
const maxWindowSeconds = 366 * 24 * 60 * 60

func decodeWeirHits(text []byte) (hits []policies.Hit, err error) {
	s := scan{text: text, name: []byte("policies")}
	for in := s.array(); in && s.element(); {
		hits = append(hits, takeWeirHit(&s))
	}
	return hits, s.end()
}

func takeWeirHit(s *scan) policies.Hit {
	hit := policies.Hit{Rule: policies.UnknownRule}
	endOfTier := false
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "tier":
			hit.Tier = string(s.string())
		case "group":
			hit.Policy.Group = string(s.string())
		case "kind":
			hit.Policy.Kind = string(s.string())
		case "namespace":
			hit.Policy.Namespace = string(s.string())
		case "name":
			hit.Policy.Name = string(s.string())
		case "action":
			var err error
			if hit.Action, err = policies.ParseAction(string(s.string())); err != nil {
				s.fail(err)
			}
		case "rule":
			if !s.null() {
				hit.Rule = int(s.uint(1<<31 - 1))
			}
		case "endOfTier":
			endOfTier = s.bool()
		case "staged":
			hit.Staged = s.bool()
		default:
			s.skip()
		}
	}
	if endOfTier {
		hit.Rule = policies.EndOfTier
	}
	return hit
}

func decodeWeirPeer(text []byte) (p peer, err error) {
	var network string
	var workload policies.Ref
	s := scan{text: text}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "namespace":
			p.Namespace = string(s.string())
		case "pod":
			p.Pod = string(s.string())
		case "podPrefix":
			p.PodPrefix = string(s.string())
		case "workload":
			workload = takeWeirRef(&s)
		case "labels":
			p.Labels = map[string]string{}
			for in := s.object(); in && s.field(); {
				key := string(s.name)
				p.Labels[key] = string(s.string())
			}
		case "labelsPartial":
			p.LabelsPartial = s.bool()
		case "address":
			p.Address = s.address()
		case "network":
			network = string(s.string())
		case "set":
			p.Set = takeWeirRef(&s)
		case "outside":
			p.Outside = s.bool()
		case "host":
			p.Host = s.bool()
		case "ownNode":
			p.OwnNode = s.bool()
		case "names":
			for in := s.array(); in && s.element(); {
				p.Names = append(p.Names, string(s.string()))
			}
		default:
			s.skip()
		}
	}
	if err := s.end(); err != nil {
		return peer{}, err
	}
	if workload != (policies.Ref{}) {
		p.Workloads = []policies.Ref{{Kind: workload.Kind, Namespace: p.Namespace, Name: workload.Name}}
	}
	p.Network, err = policies.ParseNetwork(network)
	return p, err
}

func takeWeirRef(s *scan) (r policies.Ref) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "group":
			r.Group = string(s.string())
		case "kind":
			r.Kind = string(s.string())
		case "namespace":
			r.Namespace = string(s.string())
		case "name":
			r.Name = string(s.string())
		default:
			s.skip()
		}
	}
	return r
}
