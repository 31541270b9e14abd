package flowlog

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// hubbleLine is one ExportEvent of Hubble's exporter, or one response that
// `hubble observe -o json` prints. Enums are kept as they stand: they are written
// as names, but numbers are valid too.
type hubbleLine struct {
	flow                              hubbleFlow
	hasLost, hasNodeStatus, hasOthers bool
	lost                              uint64
	time                              time.Time
}

type hubbleFlow struct {
	isPresent                     bool // anything was recorded
	time                          time.Time
	verdict, dropReasonDesc       []byte
	dropReason                    uint64
	from, to                      netip.Addr
	l4                            hubbleL4
	source, destination           []byte // JSON
	sourceNames, destinationNames []byte // JSON
	kind                          []byte
	eventType                     uint64
	direction, tracePoint         []byte
	isReply, replyKnown           bool
	reply                         bool
	aggregated                    uint64
}

type hubbleL4 struct {
	protocol             netset.Protocol
	sourcePort, destPort uint16
	syn, ack             bool
	icmpType, icmpCode   uint8
}

// The kinds of Cilium event that a flow may come from.
const (
	dropEvent          = 1
	captureEvent       = 3
	traceEvent         = 4
	policyVerdictEvent = 5
)

var hubbleFormat = format{
	name: "hubble",
	what: "it has no flow",
	object: func(keys [][]byte) bool {
		return hasAny(keys, "flow", "lost_events", "node_status", "agent_event", "debug_event")
	},
	decode: func(s *sink) decoder { return &hubbleDecoder{sink: s, peers: peers{}, names: cache[[]string]{}} },
}

type hubbleDecoder struct {
	*sink
	peers peers
	names cache[[]string]
}

func (d *hubbleDecoder) decode(record []byte) error {
	var l hubbleLine
	s := scan{text: record}
	l.take(&s)
	if err := s.end(); err != nil {
		return err
	}
	switch {
	case l.flow.isPresent:
		return d.decodeFlow(&l.flow, l.time)
	case l.hasLost:
		d.stats.Lost += l.lost
		d.leaveOut("report of lost events")
	case l.hasNodeStatus:
		d.leaveOut("node status")
	case l.hasOthers:
		d.leaveOut("agent or debug event")
	default:
		return errors.New("the event has no flow that says anything")
	}
	return nil
}

func (l *hubbleLine) take(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "flow":
			l.flow.take(s)
		case "lost_events":
			l.hasLost = s.peek() == '{'
			for in := s.object(); in && s.field(); {
				if string(s.name) == "num_events_lost" {
					l.lost = s.uint(1<<64 - 1)
				} else {
					s.skip()
				}
			}
		case "node_status":
			l.hasNodeStatus = true
			s.skip()
		case "agent_event", "debug_event":
			l.hasOthers = true
			s.skip()
		case "time":
			l.time = s.time()
		default:
			s.skip()
		}
	}
}

func (f *hubbleFlow) take(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "time":
			f.time = s.time()
		case "verdict":
			f.verdict = s.word()
			f.isPresent = true
		case "drop_reason":
			f.dropReason = s.uint(1<<32 - 1)
		case "drop_reason_desc":
			f.dropReasonDesc = s.word()
		case "IP":
			for in := s.object(); in && s.field(); {
				f.isPresent = true
				switch string(s.name) {
				case "source":
					f.from = s.address()
				case "destination":
					f.to = s.address()
				default:
					s.skip()
				}
			}
		case "l4":
			f.l4.take(s)
			f.isPresent = f.isPresent || f.l4.protocol != 0
		case "source":
			f.source = s.raw()
			f.isPresent = true
		case "destination":
			f.destination = s.raw()
			f.isPresent = true
		case "Type":
			f.kind = s.word()
		case "source_names":
			f.sourceNames = s.raw()
		case "destination_names":
			f.destinationNames = s.raw()
		case "event_type":
			for in := s.object(); in && s.field(); {
				if string(s.name) == "type" {
					f.eventType = s.uint(1<<31 - 1)
				} else {
					s.skip()
				}
			}
		case "traffic_direction":
			f.direction = s.word()
		case "trace_observation_point":
			f.tracePoint = s.word()
		case "is_reply":
			f.replyKnown = !s.null()
			f.isReply = f.replyKnown && s.bool()
		case "reply":
			f.reply = s.bool()
		case "aggregate":
			for in := s.object(); in && s.field(); {
				switch string(s.name) {
				case "ingress_flow_count", "egress_flow_count", "unknown_direction_flow_count":
					f.aggregated += s.uint(1<<32 - 1)
				default:
					s.skip()
				}
			}
		default:
			s.skip()
		}
	}
}

// hubbleProtocols are the fields of l4, of which a flow has one.
var hubbleProtocols = map[string]netset.Protocol{
	"TCP": netset.TCP, "UDP": netset.UDP, "SCTP": netset.SCTP, "ICMPv4": netset.ICMP, "ICMPv6": netset.ICMPv6, "VRRP": 112, "IGMP": 2,
}

func (l *hubbleL4) take(s *scan) {
	for in := s.object(); in && s.field(); {
		protocol := hubbleProtocols[string(s.name)]
		if protocol == 0 || s.null() {
			s.skip()
			continue
		}
		l.protocol = protocol
		for in := s.object(); in && s.field(); {
			switch string(s.name) {
			case "source_port":
				l.sourcePort = uint16(s.uint(65535))
			case "destination_port":
				l.destPort = uint16(s.uint(65535))
			case "type":
				l.icmpType = uint8(s.uint(255))
			case "code":
				l.icmpCode = uint8(s.uint(255))
			case "flags":
				for in := s.object(); in && s.field(); {
					switch string(s.name) {
					case "SYN":
						l.syn = s.bool()
					case "ACK":
						l.ack = s.bool()
					default:
						s.skip()
					}
				}
			default:
				s.skip()
			}
		}
	}
}

// decodeFlow hands over a flow, or says why it is none of its own.
func (d *hubbleDecoder) decodeFlow(f *hubbleFlow, written time.Time) error {
	flow, cause, err := d.read(f, written)
	switch {
	case err != nil:
		return err
	case cause != "":
		d.leaveOut(cause)
	default:
		d.flow(flow)
	}
	return nil
}

func (d *hubbleDecoder) read(f *hubbleFlow, written time.Time) (flow policies.Flow, cause string, err error) {
	leftOut := func(cause string) (policies.Flow, string, error) { return policies.Flow{}, cause, nil }
	bad := func(where string, err error) (policies.Flow, string, error) {
		return policies.Flow{}, "", fmt.Errorf("%s: %w", where, err)
	}
	switch enum(f.kind, hubbleTypes) {
	case "L7":
		return leftOut("layer 7 event: its connection was reported too")
	case "SOCK":
		return leftOut("socket event: it comes before policy")
	}
	if f.eventType == captureEvent {
		return leftOut("debug capture")
	}
	verdict, cause := f.policyVerdict()
	if cause != "" {
		return leftOut(cause)
	}
	protocol, sourcePort, port := f.l4.read()
	from, err := d.peers.of(f.source, decodeHubblePeer)
	if err != nil {
		return bad("source", err)
	}
	to, err := d.peers.of(f.destination, decodeHubblePeer)
	if err != nil {
		return bad("destination", err)
	}
	if cause := from.leftOut + to.leftOut; cause != "" {
		return leftOut(cause)
	}
	from.Address, to.Address = f.from, f.to
	if from.Names, err = d.names.of(f.sourceNames, readNames); err != nil {
		return bad("source_names", err)
	}
	if to.Names, err = d.names.of(f.destinationNames, readNames); err != nil {
		return bad("destination_names", err)
	}

	flow = policies.Flow{
		First: f.time, From: from.FlowPeer, To: to.FlowPeer,
		Protocol: protocol, Port: port, SourcePort: sourcePort, Verdict: verdict,
		Count: f.aggregated,
	}
	if flow.First.IsZero() {
		flow.First = written
	}
	flow.Last = flow.First

	reply, known := f.direct()
	switch {
	case !known && f.eventType == traceEvent:
		return leftOut("trace of a packet whose direction was not recorded")
	case reply && verdict != policies.Allow:
		return leftOut("dropped reply: it says nothing about the request")
	case reply:
		flow.From, flow.To = flow.To, flow.From
		flow.Port, flow.SourcePort = sourcePort, port
		if protocol == netset.ICMP || protocol == netset.ICMPv6 {
			request, ok := icmpRequests[port&0xff00|uint16(protocol)]
			if !ok {
				return leftOut("ICMP reply to a request that it does not tell")
			}
			flow.Port, flow.SourcePort = uint16(request)<<8, 0
		}
	default:
		flow.EgressOnly = verdict == policies.Allow && f.seenLeaving() && !to.Outside && !to.Host
	}
	flow.Origin.Reporter = f.reporter(reply)
	return flow, "", nil
}

// reporter is whose side of the request's connection was looked at. Where Hubble
// knows a reply for one, its direction is already that of the request.
func (f *hubbleFlow) reporter(reply bool) policies.Reporter {
	side := policies.UnknownReporter
	switch enum(f.direction, hubbleDirections) {
	case "EGRESS":
		side = policies.SourceSide
	case "INGRESS":
		side = policies.DestinationSide
	}
	if reply && !f.replyKnown {
		switch side {
		case policies.SourceSide:
			return policies.DestinationSide
		case policies.DestinationSide:
			return policies.SourceSide
		}
	}
	return side
}

// policyVerdict is what policy said of the packet, or why it said nothing.
func (f *hubbleFlow) policyVerdict() (v policies.Verdict, leftOut string) {
	switch name := enum(f.verdict, hubbleVerdicts); name {
	case "FORWARDED":
		if point := enum(f.tracePoint, hubbleTracePoints); strings.HasPrefix(point, "FROM_") {
			return 0, "trace point before policy"
		}
		return policies.Allow, ""
	case "REDIRECTED":
		return policies.Allow, ""
	case "AUDIT", "VERDICT_UNKNOWN", "":
		return policies.Unknown, ""
	case "TRACED":
		return 0, "trace without a verdict"
	case "TRANSLATED":
		return 0, "address translation"
	case "ERROR":
		return 0, "error while processing the packet"
	case "DROPPED":
		return f.dropped()
	}
	return 0, "verdict that Weir does not know"
}

func (f *hubbleFlow) dropped() (v policies.Verdict, leftOut string) {
	reason := string(f.dropReasonDesc)
	if reason == "" || reason == "DROP_REASON_UNKNOWN" || reason == "0" {
		reason = strconv.FormatUint(f.dropReason, 10)
	}
	switch reason {
	case "POLICY_DENIED", "133", "POLICY_DENY", "181":
		return policies.Deny, ""
	case "0":
		if f.eventType == policyVerdictEvent {
			return policies.Deny, ""
		}
		return policies.Unknown, ""
	}
	return 0, "dropped, but not by policy: " + reason
}

// direct reports whether the packet goes against the direction in which its
// connection was opened. Drops come before connection tracking, so they are
// taken as they stand unless the packet itself tells.
func (f *hubbleFlow) direct() (reply, known bool) {
	switch {
	case f.replyKnown:
		return f.isReply, true
	case f.reply:
		return true, true
	case f.l4.protocol == netset.TCP && f.l4.syn:
		return f.l4.ack, true
	case f.l4.protocol == netset.ICMP, f.l4.protocol == netset.ICMPv6:
		_, reply := icmpRequests[uint16(f.l4.icmpType)<<8|uint16(f.l4.protocol)]
		return reply, true
	}
	return false, false
}

// icmpRequests leads from type<<8 | protocol of a reply to the request's type.
var icmpRequests = map[uint16]uint8{
	0<<8 | uint16(netset.ICMP):     8,   // echo
	14<<8 | uint16(netset.ICMP):    13,  // timestamp
	129<<8 | uint16(netset.ICMPv6): 128, // echo
}

// seenLeaving reports whether only the source's policies had judged the packet
// when it was seen.
func (f *hubbleFlow) seenLeaving() bool {
	switch enum(f.direction, hubbleDirections) {
	case "EGRESS":
		return true
	case "INGRESS":
		return false
	}
	switch enum(f.tracePoint, hubbleTracePoints) {
	case "TO_STACK", "TO_OVERLAY", "TO_NETWORK", "TO_CRYPTO":
		return true
	}
	return false
}

func (l *hubbleL4) read() (protocol netset.Protocol, sourcePort, port uint16) {
	if l.protocol == netset.ICMP || l.protocol == netset.ICMPv6 {
		return l.protocol, 0, uint16(l.icmpType)<<8 | uint16(l.icmpCode)
	}
	return l.protocol, l.sourcePort, l.destPort
}

func decodeHubblePeer(text []byte) (peer, error) {
	var p peer
	var labels []string
	s := scan{text: text}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "namespace":
			p.Namespace = string(s.string())
		case "labels":
			labels = takeNames(&s)
		case "pod_name":
			p.Pod = string(s.string())
		case "workloads":
			for in := s.array(); in && s.element(); {
				if w := takeHubbleWorkload(&s); w.Name != "" {
					p.Workloads = append(p.Workloads, w)
				}
			}
		default:
			s.skip()
		}
	}
	if err := s.end(); err != nil {
		return peer{}, err
	}
	for i := range p.Workloads {
		p.Workloads[i].Namespace = p.Namespace
	}
	for _, label := range labels {
		source, text, found := strings.Cut(label, ":")
		if !found || strings.Contains(source, "=") {
			source, text = "k8s", label
		}
		switch source {
		case "reserved":
			switch text {
			case "world", "world-ipv4", "world-ipv6":
				p.Outside = true
			case "host":
				p.Host, p.OwnNode = true, true
			case "remote-node":
				p.Host = true
			case "health":
				p.leftOut = "Cilium's own health check"
			}
		case "k8s":
			key, value, _ := strings.Cut(text, "=")
			if strings.HasPrefix(key, "io.cilium.k8s.") || strings.HasPrefix(key, "io.kubernetes.") {
				continue
			}
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			p.Labels[key] = value
		}
	}
	// Cilium makes identities of the labels that its label filter lets through.
	p.LabelsPartial = p.Labels != nil
	if p.Host {
		p.Outside = false
	}
	return p, nil
}

func takeHubbleWorkload(s *scan) (w policies.Ref) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "name":
			w.Name = string(s.string())
		case "kind":
			w.Kind = string(s.string())
		default:
			s.skip()
		}
	}
	return w
}

// The names behind the numbers that an enum may be written as.
var (
	hubbleTypes       = []string{"UNKNOWN_TYPE", "L3_L4", "L7", "SOCK"}
	hubbleVerdicts    = []string{"VERDICT_UNKNOWN", "FORWARDED", "DROPPED", "ERROR", "AUDIT", "REDIRECTED", "TRACED", "TRANSLATED"}
	hubbleDirections  = []string{"TRAFFIC_DIRECTION_UNKNOWN", "INGRESS", "EGRESS"}
	hubbleTracePoints = []string{
		"UNKNOWN_POINT", "TO_PROXY", "TO_HOST", "TO_STACK", "TO_OVERLAY", "FROM_ENDPOINT", "FROM_PROXY", "FROM_HOST",
		"FROM_STACK", "FROM_OVERLAY", "FROM_NETWORK", "TO_NETWORK", "FROM_CRYPTO", "TO_CRYPTO",
	}
)

// enum returns the name that text, a name or a number, means in an enum. It is
// empty for nothing.
func enum(text []byte, names []string) string {
	if len(text) == 0 {
		return ""
	}
	for _, name := range names {
		if name == string(text) {
			return name
		}
	}
	if text[0] > '9' {
		return string(text)
	}
	if n, err := strconv.Atoi(string(text)); err == nil && n >= 0 && n < len(names) {
		return names[n]
	}
	return string(text)
}
