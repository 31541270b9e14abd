package flowlog

import (
	"cmp"
	"fmt"
	"time"

	"github.com/weir-policy/weir/policies"
)

var gkeFormat = format{
	name: "gke-policy",
	what: "it has no connection and disposition, by themselves or in jsonPayload",
	object: func(keys [][]byte) bool {
		return hasAll(keys, "connection", "disposition") || hasAll(keys, "jsonPayload.connection", "jsonPayload.disposition")
	},
	decode: func(s *sink) decoder { return &gkeDecoder{sink: s, peers: peers{}, policies: cache[[]policies.Ref]{}} },
}

// gkeFlow is a line of a node's file of policy actions, or the log entry that is
// made of it.
type gkeFlow struct {
	connection            gcpConnection
	disposition, policies []byte
	source, destination   []byte
	count                 uint64
	at, entered           time.Time
}

// take leaves the time of the record where at points, and that of the log entry
// around it in entered.
func (f *gkeFlow) take(s *scan, at *time.Time) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case logEntry:
			f.entered, f.at = f.at, time.Time{}
			f.take(s, &f.at)
			at = &f.entered
		case "connection":
			f.connection.take(s)
		case "disposition":
			f.disposition = s.string()
		case "policies":
			f.policies = s.raw()
		case "src":
			f.source = s.raw()
		case "dest":
			f.destination = s.raw()
		case "count":
			f.count = s.uint(1<<64 - 1)
		case "timestamp":
			*at = s.time()
		default:
			s.skip()
		}
	}
}

type gkeDecoder struct {
	*sink
	peers    peers
	policies cache[[]policies.Ref]
}

func (d *gkeDecoder) decode(record []byte) error {
	var f gkeFlow
	s := scan{text: record}
	f.take(&s, &f.at)
	if err := s.end(); err != nil {
		return err
	}
	if f.at.IsZero() {
		f.at = f.entered
	}
	from, err := d.peers.of(f.source, decodeGKEPeer)
	if err != nil {
		return fmt.Errorf("src: %w", err)
	}
	to, err := d.peers.of(f.destination, decodeGKEPeer)
	if err != nil {
		return fmt.Errorf("dest: %w", err)
	}
	hits, err := d.policies.of(f.policies, decodeGKEPolicies)
	if err != nil {
		return fmt.Errorf("policies: %w", err)
	}
	flow := policies.Flow{First: f.at, Last: f.at, From: from.FlowPeer, To: to.FlowPeer, Count: f.count}
	if err := f.connection.read(&flow); err != nil {
		return err
	}
	action := policies.ActionAllow
	switch string(f.disposition) {
	case "allow":
		flow.Verdict = policies.Allow
	case "deny":
		flow.Verdict, action = policies.Deny, policies.ActionDeny
	default:
		return fmt.Errorf("disposition %.40q is neither allow nor deny", f.disposition)
	}
	switch direction := f.connection.direction; string(direction) {
	case "ingress":
		flow.Origin.Reporter = policies.DestinationSide
	case "egress":
		flow.Origin.Reporter = policies.SourceSide
		flow.EgressOnly = flow.Verdict == policies.Allow && flow.To.Pod != ""
	case "":
	default:
		return fmt.Errorf("direction %.40q is neither ingress nor egress", direction)
	}
	for _, policy := range hits {
		flow.Hits = append(flow.Hits, policies.Hit{Policy: policy, Action: action, Rule: policies.UnknownRule})
	}
	d.flow(flow)
	return nil
}

func decodeGKEPolicies(text []byte) (refs []policies.Ref, err error) {
	s := scan{text: text}
	for in := s.array(); in && s.element(); {
		var ref policies.Ref
		for in := s.object(); in && s.field(); {
			switch string(s.name) {
			case "kind":
				ref.Kind = string(s.string())
			case "namespace":
				ref.Namespace = string(s.string())
			case "name":
				ref.Name = string(s.string())
			default:
				s.skip()
			}
		}
		refs = append(refs, ref)
	}
	return refs, s.end()
}

// decodeGKEPeer reads a pod or a node; of any other end only the address is
// known.
func decodeGKEPeer(text []byte) (p peer, err error) {
	var namespace, node, kind, workload string
	s := scan{text: text}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "pod_name":
			p.Pod = string(s.string())
		case "pod_namespace":
			p.Namespace = string(s.string())
		case "namespace":
			namespace = string(s.string())
		case "node_name":
			node = string(s.string())
		case "workload_kind":
			kind = string(s.string())
		case "workload_name":
			workload = string(s.string())
		default:
			s.skip()
		}
	}
	if p.Pod == "" {
		return peer{FlowPeer: policies.FlowPeer{Host: node != "" || kind == "Node"}}, s.end()
	}
	p.Namespace = cmp.Or(p.Namespace, namespace)
	if kind != "" && kind != "Pod" && workload != "" {
		p.Workloads = []policies.Ref{{Kind: kind, Namespace: p.Namespace, Name: workload}}
	}
	return p, s.end()
}
