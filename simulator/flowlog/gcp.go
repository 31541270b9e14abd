package flowlog

import (
	"errors"
	"fmt"
	"strings"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var gcpFormat = format{
	name: "gcp-vpc",
	what: "it has no connection and reporter, by themselves or in jsonPayload",
	object: func(keys [][]byte) bool {
		return hasAll(keys, "connection", "reporter") || hasAll(keys, "jsonPayload.connection", "jsonPayload.reporter")
	},
	decode: func(s *sink) decoder { return &gcpDecoder{sink: s, peers: peers{}} },
}

// gcpLine is a log entry, or the payload of one.
type gcpLine struct {
	gcpFlow
	Payload gcpFlow `json:"jsonPayload"`
}

// gcpFlow is one record of a VPC flow log. Numbers of 64 bits are text in it.
type gcpFlow struct {
	Connection         gcpConnection   `json:"connection"`
	Reporter           string          `json:"reporter"`
	Disposition        string          `json:"disposition"`
	Bytes              json.RawMessage `json:"bytes_sent"`
	Packets            json.RawMessage `json:"packets_sent"`
	RTT                json.RawMessage `json:"rtt_msec"`
	RoundTrip          json.RawMessage `json:"round_trip_time"`
	Start              json.RawMessage `json:"start_time"`
	End                json.RawMessage `json:"end_time"`
	Source             json.RawMessage `json:"src_gke_details"`
	Destination        json.RawMessage `json:"dest_gke_details"`
	SourceInstance     json.RawMessage `json:"src_instance"`
	Instance           json.RawMessage `json:"dest_instance"`
	SourceLocation     json.RawMessage `json:"src_location"`
	Location           json.RawMessage `json:"dest_location"`
	SourceService      json.RawMessage `json:"src_google_service"`
	DestinationService json.RawMessage `json:"dest_google_service"`
	SourceGateway      json.RawMessage `json:"src_gateway"`
	DestinationGateway json.RawMessage `json:"dest_gateway"`
}

type gcpConnection struct {
	Source          json.RawMessage `json:"src_ip"`
	Destination     json.RawMessage `json:"dest_ip"`
	SourcePort      json.RawMessage `json:"src_port"`
	DestinationPort json.RawMessage `json:"dest_port"`
	Protocol        json.RawMessage `json:"protocol"`
	Direction       string          `json:"direction"` // in the logs of network policies
}

// The reset methods forget a record but keep its memory.

func (l *gcpLine) reset() {
	l.gcpFlow.reset()
	l.Payload.reset()
}

func (f *gcpFlow) reset() {
	f.Connection.reset()
	*f = gcpFlow{
		Connection: f.Connection, Bytes: f.Bytes[:0], Packets: f.Packets[:0], RTT: f.RTT[:0], RoundTrip: f.RoundTrip[:0],
		Source: f.Source[:0], Destination: f.Destination[:0], SourceInstance: f.SourceInstance[:0], Instance: f.Instance[:0], SourceLocation: f.SourceLocation[:0], Location: f.Location[:0],
		SourceService: f.SourceService[:0], DestinationService: f.DestinationService[:0],
		Start: f.Start[:0], End: f.End[:0], SourceGateway: f.SourceGateway[:0], DestinationGateway: f.DestinationGateway[:0],
	}
}

func (c *gcpConnection) reset() {
	*c = gcpConnection{Source: c.Source[:0], Destination: c.Destination[:0], SourcePort: c.SourcePort[:0], DestinationPort: c.DestinationPort[:0], Protocol: c.Protocol[:0]}
}

// read says what a connection is of.
func (c *gcpConnection) read(f *policies.Flow) error {
	var err error
	if f.From.Address, err = jsonAddress("src_ip", c.Source); err != nil {
		return err
	}
	if f.To.Address, err = jsonAddress("dest_ip", c.Destination); err != nil {
		return err
	}
	from, err := jsonNumber("src_port", c.SourcePort, 65535)
	if err != nil {
		return err
	}
	to, err := jsonNumber("dest_port", c.DestinationPort, 65535)
	if err != nil {
		return err
	}
	f.SourcePort, f.Port = uint16(from), uint16(to)
	f.Protocol, err = protocol("protocol", jsonText(c.Protocol), f.To.Address.Is6())
	return err
}

type gcpDecoder struct {
	*sink
	peers  peers
	buffer gcpLine
}

func (d *gcpDecoder) decode(record []byte) error {
	d.buffer.reset()
	if err := json.Unmarshal(record, &d.buffer); err != nil {
		return explain(err)
	}
	f := &d.buffer.Payload
	if f.Reporter == "" {
		f = &d.buffer.gcpFlow
	}
	if f.Reporter == "" {
		return errors.New("there is no reporter")
	}
	flow := policies.Flow{Verdict: policies.Allow}
	var err error
	if flow.From, err = d.peer("src", f.Source, f.SourceInstance); err != nil {
		return err
	}
	if flow.To, err = d.peer("dest", f.Destination, f.Instance); err != nil {
		return err
	}
	flow.From.Outside = isPresent(f.SourceLocation, f.SourceService, f.SourceGateway)
	flow.To.Outside = isPresent(f.Location, f.DestinationService, f.DestinationGateway)
	if err := f.Connection.read(&flow); err != nil {
		return err
	}
	first, err := jsonTime("start_time", f.Start)
	if err != nil {
		return err
	}
	last, err := jsonTime("end_time", f.End)
	if err != nil {
		return err
	}
	if err := span(&flow, first, last); err != nil {
		return err
	}
	if flow.Bytes, err = jsonNumber("bytes_sent", f.Bytes, 1<<64-1); err != nil {
		return err
	}
	if flow.Packets, err = jsonNumber("packets_sent", f.Packets, 1<<64-1); err != nil {
		return err
	}
	switch f.Reporter {
	case "SRC":
		flow.Origin.Reporter = policies.SourceSide
	case "DEST":
		flow.Origin.Reporter = policies.DestinationSide
	case "SRC_GATEWAY", "DEST_GATEWAY":
		flow.Origin.Reporter = policies.OnTheWay
	default:
		return fmt.Errorf("reporter %.40q is none of SRC, DEST, SRC_GATEWAY, DEST_GATEWAY", f.Reporter)
	}
	// A packet that was sampled had left its source. Only an answer proves that
	// the destination let it in: a round trip, or TCP's payload.
	answered := isPresent(f.RTT, f.RoundTrip) || flow.Protocol == netset.TCP && flow.Bytes > 0
	flow.EgressOnly = !answered
	if strings.EqualFold(f.Disposition, "DROPPED") {
		flow.Verdict, flow.EgressOnly = policies.Unknown, false
	}
	d.flow(flow)
	return nil
}

// peer returns a pod, or what is known of a virtual machine.
func (d *gcpDecoder) peer(side string, details, instance json.RawMessage) (policies.FlowPeer, error) {
	pod, err := d.peers.of(details, decodeGKEDetails)
	if err != nil {
		return policies.FlowPeer{}, fmt.Errorf("%s_gke_details: %w", side, explain(err))
	}
	if pod.Pod != "" || len(pod.Names) > 0 {
		return pod.FlowPeer, nil
	}
	machine, err := d.peers.of(instance, decodeGCPInstance)
	if err != nil {
		return policies.FlowPeer{}, fmt.Errorf("%s_instance: %w", side, explain(err))
	}
	pod.Names = machine.Names
	return pod.FlowPeer, nil
}

// decodeGCPInstance reads the name of a machine, which may be a node or not.
func decodeGCPInstance(text []byte) (peer, error) {
	var instance struct {
		Name string `json:"vm_name"`
	}
	err := json.Unmarshal(text, &instance)
	p := peer{}
	if instance.Name != "" {
		p.Names = []string{instance.Name}
	}
	return p, err
}

// isPresent reports whether any of the fields has a value.
func isPresent(fields ...json.RawMessage) bool {
	for _, raw := range fields {
		if len(raw) > 0 && string(raw) != "null" {
			return true
		}
	}
	return false
}

// gkeDetails is what a VPC flow log knows of an end in a cluster.
type gkeDetails struct {
	Pod struct {
		Name      string `json:"pod_name"`
		Namespace string `json:"pod_namespace"`
		Workload  struct {
			Name string `json:"workload_name"`
			Type string `json:"workload_type"`
		} `json:"pod_workload"`
	} `json:"pod"`
	Services []struct {
		Name      string `json:"service_name"`
		Namespace string `json:"service_namespace"`
	} `json:"service"`
}

var gkeKinds = map[string]string{
	"DEPLOYMENT": "Deployment", "REPLICA_SET": "ReplicaSet", "STATEFUL_SET": "StatefulSet", "DAEMON_SET": "DaemonSet",
	"JOB": "Job", "CRON_JOB": "CronJob", "REPLICATION_CONTROLLER": "ReplicationController",
}

func decodeGKEDetails(text []byte) (peer, error) {
	var g gkeDetails
	if err := json.Unmarshal(text, &g); err != nil {
		return peer{}, err
	}
	p := peer{FlowPeer: policies.FlowPeer{Namespace: g.Pod.Namespace, Pod: g.Pod.Name}}
	if kind := gkeKinds[g.Pod.Workload.Type]; kind != "" && g.Pod.Workload.Name != "" {
		p.Workloads = []policies.Ref{{Kind: kind, Namespace: g.Pod.Namespace, Name: g.Pod.Workload.Name}}
	}
	for _, s := range g.Services {
		if s.Name != "" && s.Namespace != "" {
			p.Names = append(p.Names, serviceName(s.Namespace, s.Name))
		}
	}
	return p, nil
}
