package flowlog

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var gcpFormat = format{
	name: "gcp-vpc",
	what: "it has no connection and reporter, by themselves or in jsonPayload",
	object: func(keys [][]byte) bool {
		return hasAll(keys, "connection", "reporter") || hasAll(keys, "jsonPayload.connection", "jsonPayload.reporter")
	},
	decode: func(s *sink) decoder { return &gcpDecoder{sink: s, pods: peers{}, machines: peers{}} },
}

// gcpFlow is one record of a VPC flow log, by itself or within a log entry.
type gcpFlow struct {
	connection             gcpConnection
	reporter, disposition  []byte
	bytes, packets         uint64
	answered               bool // a round trip was measured
	start, end             time.Time
	source, destination    []byte
	sourceMachine, machine []byte
	sourceOutside, outside bool
}

func (f *gcpFlow) take(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case logEntry:
			f.take(s)
		case "connection":
			f.connection.take(s)
		case "reporter":
			f.reporter = s.string()
		case "disposition":
			f.disposition = s.string()
		case "bytes_sent":
			f.bytes = s.uint(1<<64 - 1)
		case "packets_sent":
			f.packets = s.uint(1<<64 - 1)
		case "rtt_msec", "round_trip_time":
			f.answered = isPresent(s) || f.answered
		case "start_time":
			f.start = s.time()
		case "end_time":
			f.end = s.time()
		case "src_gke_details":
			f.source = s.raw()
		case "dest_gke_details":
			f.destination = s.raw()
		case "src_instance":
			f.sourceMachine = s.raw()
		case "dest_instance":
			f.machine = s.raw()
		case "src_location", "src_google_service", "src_gateway":
			f.sourceOutside = isPresent(s) || f.sourceOutside
		case "dest_location", "dest_google_service", "dest_gateway":
			f.outside = isPresent(s) || f.outside
		default:
			s.skip()
		}
	}
}

// isPresent takes any value, and reports whether it is one.
func isPresent(s *scan) bool { return string(s.raw()) != "null" }

// gcpConnection stands in the logs of a network, and in those of its policies.
type gcpConnection struct {
	source, destination netip.Addr
	sourcePort, port    uint16
	protocol, direction []byte
}

func (c *gcpConnection) take(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "src_ip":
			c.source = s.address()
		case "dest_ip":
			c.destination = s.address()
		case "src_port":
			c.sourcePort = uint16(s.uint(65535))
		case "dest_port":
			c.port = uint16(s.uint(65535))
		case "protocol":
			c.protocol = s.word()
		case "direction":
			c.direction = s.string()
		default:
			s.skip()
		}
	}
}

// read says what a connection is of.
func (c *gcpConnection) read(f *policies.Flow) (err error) {
	f.From.Address, f.To.Address = c.source, c.destination
	f.SourcePort, f.Port = c.sourcePort, c.port
	f.Protocol, err = protocol("protocol", string(c.protocol), f.To.Address.Is6())
	return err
}

type gcpDecoder struct {
	*sink
	pods, machines peers
}

func (d *gcpDecoder) decode(record []byte) error {
	var f gcpFlow
	s := scan{text: record}
	f.take(&s)
	if err := s.end(); err != nil {
		return err
	}
	if len(f.reporter) == 0 {
		return errors.New("there is no reporter")
	}
	flow := policies.Flow{Verdict: policies.Allow, Bytes: f.bytes, Packets: f.packets}
	var err error
	if flow.From, err = d.peer("src", f.source, f.sourceMachine); err != nil {
		return err
	}
	if flow.To, err = d.peer("dest", f.destination, f.machine); err != nil {
		return err
	}
	flow.From.Outside, flow.To.Outside = f.sourceOutside, f.outside
	if err := f.connection.read(&flow); err != nil {
		return err
	}
	if err := span(&flow, f.start, f.end); err != nil {
		return err
	}
	switch string(f.reporter) {
	case "SRC":
		flow.Origin.Reporter = policies.SourceSide
	case "DEST":
		flow.Origin.Reporter = policies.DestinationSide
	case "SRC_GATEWAY", "DEST_GATEWAY":
		flow.Origin.Reporter = policies.OnTheWay
	default:
		return fmt.Errorf("reporter %.40q is none of SRC, DEST, SRC_GATEWAY, DEST_GATEWAY", f.reporter)
	}
	// A packet that was sampled had left its source. Only an answer proves that
	// the destination let it in: a round trip, or TCP's payload.
	flow.EgressOnly = !f.answered && (flow.Protocol != netset.TCP || flow.Bytes == 0)
	if string(f.disposition) == "DROPPED" {
		flow.Verdict, flow.EgressOnly = policies.Unknown, false
	}
	d.flow(flow)
	return nil
}

// peer returns a pod, or what is known of a virtual machine.
func (d *gcpDecoder) peer(side string, details, machine []byte) (policies.FlowPeer, error) {
	p, err := d.pods.of(details, decodeGKEDetails)
	if err != nil {
		return policies.FlowPeer{}, fmt.Errorf("%s_gke_details: %w", side, err)
	}
	if p.Pod != "" || len(p.Names) > 0 {
		return p.FlowPeer, nil
	}
	p, err = d.machines.of(machine, decodeGCPInstance)
	if err != nil {
		return policies.FlowPeer{}, fmt.Errorf("%s_instance: %w", side, err)
	}
	return p.FlowPeer, nil
}

// decodeGCPInstance reads the name of a machine, which may be a node or not.
func decodeGCPInstance(text []byte) (p peer, err error) {
	s := scan{text: text}
	for in := s.object(); in && s.field(); {
		if string(s.name) != "vm_name" {
			s.skip()
			continue
		}
		if name := s.string(); len(name) > 0 {
			p.Names = []string{string(name)}
		}
	}
	return p, s.end()
}

var gkeKinds = map[string]string{
	"DEPLOYMENT": "Deployment", "REPLICA_SET": "ReplicaSet", "STATEFUL_SET": "StatefulSet", "DAEMON_SET": "DaemonSet",
	"JOB": "Job", "CRON_JOB": "CronJob", "REPLICATION_CONTROLLER": "ReplicationController",
}

// decodeGKEDetails reads what a VPC flow log knows of an end in a cluster.
func decodeGKEDetails(text []byte) (p peer, err error) {
	var kind, workload string
	s := scan{text: text}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "pod":
			for in := s.object(); in && s.field(); {
				switch string(s.name) {
				case "pod_name":
					p.Pod = string(s.string())
				case "pod_namespace":
					p.Namespace = string(s.string())
				case "pod_workload":
					for in := s.object(); in && s.field(); {
						switch string(s.name) {
						case "workload_type":
							kind = gkeKinds[string(s.string())]
						case "workload_name":
							workload = string(s.string())
						default:
							s.skip()
						}
					}
				default:
					s.skip()
				}
			}
		case "service":
			for in := s.array(); in && s.element(); {
				p.Names = append(p.Names, takeGKEService(&s)...)
			}
		default:
			s.skip()
		}
	}
	if kind != "" && workload != "" {
		p.Workloads = []policies.Ref{{Kind: kind, Namespace: p.Namespace, Name: workload}}
	}
	return p, s.end()
}

func takeGKEService(s *scan) []string {
	var namespace, name string
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "service_name":
			name = string(s.string())
		case "service_namespace":
			namespace = string(s.string())
		default:
			s.skip()
		}
	}
	if namespace == "" || name == "" {
		return nil
	}
	return []string{serviceName(namespace, name)}
}
