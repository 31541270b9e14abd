package flowlog

import (
	"fmt"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
)

var gkeFormat = format{
	name: "gke-policy",
	what: "it has no connection and disposition, by themselves or in jsonPayload",
	object: func(keys [][]byte) bool {
		return hasAll(keys, "connection", "disposition") || hasAll(keys, "jsonPayload.connection", "jsonPayload.disposition")
	},
	decode: func(s *sink) decoder { return &gkeDecoder{sink: s, peers: peers{}} },
}

// gkeLine is a line of a node's file of policy actions, or the log entry that is
// made of it.
type gkeLine struct {
	gkeFlow
	Payload gkeFlow `json:"jsonPayload"`
}

type gkeFlow struct {
	Connection  gcpConnection   `json:"connection"`
	Disposition string          `json:"disposition"`
	Policies    []gkePolicy     `json:"policies"`
	Source      json.RawMessage `json:"src"`
	Destination json.RawMessage `json:"dest"`
	Count       json.RawMessage `json:"count"`
	Timestamp   json.RawMessage `json:"timestamp"`
}

func (l *gkeLine) reset() {
	l.gkeFlow.reset()
	l.Payload.reset()
}

func (f *gkeFlow) reset() {
	f.Connection.reset()
	*f = gkeFlow{Connection: f.Connection, Source: f.Source[:0], Destination: f.Destination[:0], Count: f.Count[:0], Timestamp: f.Timestamp[:0]}
}

type gkePolicy struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

type gkeDecoder struct {
	*sink
	peers  peers
	buffer gkeLine
}

func (d *gkeDecoder) decode(record []byte) error {
	d.buffer.reset()
	if err := json.Unmarshal(record, &d.buffer); err != nil {
		return explain(err)
	}
	f := &d.buffer.Payload
	if f.Disposition == "" {
		f = &d.buffer.gkeFlow
	}
	from, err := d.peers.of(f.Source, decodeGKEPeer)
	if err != nil {
		return fmt.Errorf("src: %w", explain(err))
	}
	to, err := d.peers.of(f.Destination, decodeGKEPeer)
	if err != nil {
		return fmt.Errorf("dest: %w", explain(err))
	}
	flow := policies.Flow{From: from.FlowPeer, To: to.FlowPeer}
	at := f.Timestamp
	if !isPresent(at) {
		at = d.buffer.Timestamp // of the log entry
	}
	if flow.First, err = jsonTime("timestamp", at); err != nil {
		return err
	}
	flow.Last = flow.First
	if err := f.Connection.read(&flow); err != nil {
		return err
	}
	if flow.Count, err = jsonNumber("count", f.Count, 1<<64-1); err != nil {
		return err
	}
	action := policies.ActionAllow
	switch f.Disposition {
	case "allow":
		flow.Verdict = policies.Allow
	case "deny":
		flow.Verdict, action = policies.Deny, policies.ActionDeny
	default:
		return fmt.Errorf("disposition %.40q is neither allow nor deny", f.Disposition)
	}
	switch direction := f.Connection.Direction; direction {
	case "ingress":
		flow.Origin.Reporter = policies.DestinationSide
	case "egress":
		flow.Origin.Reporter = policies.SourceSide
		flow.EgressOnly = flow.Verdict == policies.Allow && flow.To.Pod != ""
	case "":
	default:
		return fmt.Errorf("direction %.40q is neither ingress nor egress", direction)
	}
	for _, p := range f.Policies {
		flow.Hits = append(flow.Hits, policies.Hit{
			Policy: policies.Ref{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}, Action: action, Rule: policies.UnknownRule,
		})
	}
	d.flow(flow)
	return nil
}

// gkePeer is a pod or a node; of any other end only the address is known.
type gkePeer struct {
	Pod          string `json:"pod_name"`
	PodNamespace string `json:"pod_namespace"`
	Namespace    string `json:"namespace"`
	Node         string `json:"node_name"`
	WorkloadKind string `json:"workload_kind"`
	WorkloadName string `json:"workload_name"`
}

func decodeGKEPeer(text []byte) (peer, error) {
	var g gkePeer
	if err := json.Unmarshal(text, &g); err != nil {
		return peer{}, err
	}
	if g.Pod == "" {
		return peer{FlowPeer: policies.FlowPeer{Host: g.Node != "" || g.WorkloadKind == "Node"}}, nil
	}
	p := peer{FlowPeer: policies.FlowPeer{Namespace: g.PodNamespace, Pod: g.Pod}}
	if p.Namespace == "" {
		p.Namespace = g.Namespace
	}
	if g.WorkloadKind != "" && g.WorkloadKind != "Pod" && g.WorkloadName != "" {
		p.Workloads = []policies.Ref{{Kind: g.WorkloadKind, Namespace: p.Namespace, Name: g.WorkloadName}}
	}
	return p, nil
}
