package flowlog

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// hubbleLine is one ExportEvent of Hubble's exporter, or one response that
// `hubble observe -o json` prints. Enums are kept raw: they are written as
// names, but numbers are valid too.
type hubbleLine struct {
	Flow       hubbleFlow      `json:"flow"`
	Lost       *hubbleLost     `json:"lost_events"`
	NodeStatus json.RawMessage `json:"node_status"`
	AgentEvent json.RawMessage `json:"agent_event"`
	DebugEvent json.RawMessage `json:"debug_event"`
	Time       time.Time       `json:"time"`
}

type hubbleLost struct {
	Events json.RawMessage `json:"num_events_lost"`
}

type hubbleFlow struct {
	Time             time.Time       `json:"time"`
	Verdict          json.RawMessage `json:"verdict"`
	DropReason       uint32          `json:"drop_reason"`
	DropReasonDesc   json.RawMessage `json:"drop_reason_desc"`
	IP               hubbleIP        `json:"IP"`
	L4               hubbleL4        `json:"l4"`
	Source           json.RawMessage `json:"source"`
	Destination      json.RawMessage `json:"destination"`
	Type             json.RawMessage `json:"Type"`
	SourceNames      []string        `json:"source_names"`
	DestinationNames []string        `json:"destination_names"`
	EventType        struct {
		Type int32 `json:"type"`
	} `json:"event_type"`
	Direction  json.RawMessage `json:"traffic_direction"`
	TracePoint json.RawMessage `json:"trace_observation_point"`
	IsReply    *bool           `json:"is_reply"`
	Reply      bool            `json:"reply"`
	Aggregate  struct {
		Ingress uint64 `json:"ingress_flow_count"`
		Egress  uint64 `json:"egress_flow_count"`
		Unknown uint64 `json:"unknown_direction_flow_count"`
	} `json:"aggregate"`
}

type hubbleIP struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
}

type hubbleL4 struct {
	TCP    *hubblePorts `json:"TCP"`
	UDP    *hubblePorts `json:"UDP"`
	SCTP   *hubblePorts `json:"SCTP"`
	ICMPv4 *hubbleICMP  `json:"ICMPv4"`
	ICMPv6 *hubbleICMP  `json:"ICMPv6"`
	VRRP   *struct{}    `json:"VRRP"`
	IGMP   *struct{}    `json:"IGMP"`
}

type hubblePorts struct {
	Source      uint32 `json:"source_port"`
	Destination uint32 `json:"destination_port"`
	Flags       struct {
		SYN bool `json:"SYN"`
		ACK bool `json:"ACK"`
	} `json:"flags"`
}

type hubbleICMP struct {
	Type uint32 `json:"type"`
	Code uint32 `json:"code"`
}

// The kinds of Cilium event that a flow may come from.
const (
	dropEvent          = 1
	captureEvent       = 3
	traceEvent         = 4
	policyVerdictEvent = 5
)

// reset forgets the line but keeps its memory.
func (l *hubbleLine) reset() {
	f := &l.Flow
	*l = hubbleLine{
		NodeStatus: l.NodeStatus[:0], AgentEvent: l.AgentEvent[:0], DebugEvent: l.DebugEvent[:0],
		Flow: hubbleFlow{
			Verdict: f.Verdict[:0], DropReasonDesc: f.DropReasonDesc[:0], Source: f.Source[:0], Destination: f.Destination[:0],
			Type: f.Type[:0], Direction: f.Direction[:0], TracePoint: f.TracePoint[:0],
		},
	}
}

// isPresent reports whether the line has a flow of which anything was recorded.
func (f *hubbleFlow) isPresent() bool {
	return len(f.Verdict)+len(f.Source)+len(f.Destination) > 0 || f.IP != hubbleIP{} || f.L4 != hubbleL4{}
}

var hubbleFormat = format{
	name: "hubble",
	what: "it has no flow",
	object: func(keys [][]byte) bool {
		return hasAny(keys, "flow", "lost_events", "node_status", "agent_event", "debug_event")
	},
	decode: func(s *sink) decoder { return &hubbleDecoder{sink: s, peers: peers{}} },
}

type hubbleDecoder struct {
	*sink
	peers  peers
	buffer hubbleLine
}

func (d *hubbleDecoder) decode(record []byte) error {
	l := &d.buffer
	l.reset()
	if err := json.Unmarshal(record, l); err != nil {
		return explain(err)
	}
	switch {
	case l.Flow.isPresent():
		return d.decodeFlow(&l.Flow, l.Time)
	case l.Lost != nil:
		n, err := strconv.ParseUint(word(l.Lost.Events, nil), 10, 64)
		if err != nil && len(l.Lost.Events) > 0 {
			return fmt.Errorf("num_events_lost %s is not a number", l.Lost.Events)
		}
		d.stats.Lost += n
		d.leaveOut("report of lost events")
	case len(l.NodeStatus) > 0:
		d.leaveOut("node status")
	case len(l.AgentEvent)+len(l.DebugEvent) > 0:
		d.leaveOut("agent or debug event")
	default:
		return errors.New("the event has no flow that says anything")
	}
	return nil
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
	bad := func(format string, args ...any) (policies.Flow, string, error) {
		return policies.Flow{}, "", fmt.Errorf(format, args...)
	}
	switch word(f.Type, hubbleTypes) {
	case "L7":
		return leftOut("layer 7 event: its connection was reported too")
	case "SOCK":
		return leftOut("socket event: it comes before policy")
	}
	if f.EventType.Type == captureEvent {
		return leftOut("debug capture")
	}
	verdict, cause := f.verdict()
	if cause != "" {
		return leftOut(cause)
	}
	protocol, sourcePort, port, err := f.L4.read()
	if err != nil {
		return bad("%w", err)
	}
	from, err := d.peers.of(f.Source, decodeHubblePeer)
	if err != nil {
		return bad("source: %w", explain(err))
	}
	to, err := d.peers.of(f.Destination, decodeHubblePeer)
	if err != nil {
		return bad("destination: %w", explain(err))
	}
	if cause := from.leftOut + to.leftOut; cause != "" {
		return leftOut(cause)
	}
	from.Address, to.Address = f.IP.Source.Unmap().WithZone(""), f.IP.Destination.Unmap().WithZone("")
	from.Names, to.Names = f.SourceNames, f.DestinationNames

	flow = policies.Flow{
		First: utc(f.Time), From: from.FlowPeer, To: to.FlowPeer,
		Protocol: protocol, Port: port, SourcePort: sourcePort, Verdict: verdict,
		Count: max(1, f.Aggregate.Ingress+f.Aggregate.Egress+f.Aggregate.Unknown),
	}
	if flow.First.IsZero() {
		flow.First = utc(written)
	}
	flow.Last = flow.First

	reply, known := f.isReply()
	switch {
	case !known && f.EventType.Type == traceEvent:
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

// reporter is whose side of the request's connection was looked at.
func (f *hubbleFlow) reporter(reply bool) policies.Reporter {
	switch word(f.Direction, hubbleDirections) {
	case "EGRESS":
		if reply {
			return policies.DestinationSide
		}
		return policies.SourceSide
	case "INGRESS":
		if reply {
			return policies.SourceSide
		}
		return policies.DestinationSide
	}
	return policies.UnknownReporter
}

// verdict is what policy said of the packet, or why it said nothing.
func (f *hubbleFlow) verdict() (v policies.Verdict, leftOut string) {
	switch name := word(f.Verdict, hubbleVerdicts); name {
	case "FORWARDED":
		if point := word(f.TracePoint, hubbleTracePoints); strings.HasPrefix(point, "FROM_") {
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
	reason := word(f.DropReasonDesc, nil)
	if reason == "" || reason == "DROP_REASON_UNKNOWN" || reason == "0" {
		reason = strconv.Itoa(int(f.DropReason))
	}
	switch reason {
	case "POLICY_DENIED", "133", "POLICY_DENY", "181":
		return policies.Deny, ""
	case "0":
		if f.EventType.Type == policyVerdictEvent {
			return policies.Deny, ""
		}
		return policies.Unknown, ""
	}
	return 0, "dropped, but not by policy: " + reason
}

// isReply reports whether the packet goes against the direction in which its
// connection was opened. Drops come before connection tracking, so they are
// taken as they stand unless the packet itself tells.
func (f *hubbleFlow) isReply() (reply, known bool) {
	switch {
	case f.IsReply != nil:
		return *f.IsReply, true
	case f.Reply:
		return true, true
	case f.L4.TCP != nil && f.L4.TCP.Flags.SYN:
		return f.L4.TCP.Flags.ACK, true
	case f.L4.ICMPv4 != nil:
		_, reply := icmpRequests[uint16(f.L4.ICMPv4.Type)<<8|uint16(netset.ICMP)]
		return reply, true
	case f.L4.ICMPv6 != nil:
		_, reply := icmpRequests[uint16(f.L4.ICMPv6.Type)<<8|uint16(netset.ICMPv6)]
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
	switch word(f.Direction, hubbleDirections) {
	case "EGRESS":
		return true
	case "INGRESS":
		return false
	}
	switch word(f.TracePoint, hubbleTracePoints) {
	case "TO_STACK", "TO_OVERLAY", "TO_NETWORK", "TO_CRYPTO":
		return true
	}
	return false
}

func (l *hubbleL4) read() (protocol netset.Protocol, sourcePort, port uint16, err error) {
	transport := func(p netset.Protocol, t *hubblePorts) (netset.Protocol, uint16, uint16, error) {
		if high := max(t.Source, t.Destination); high > 65535 {
			return 0, 0, 0, fmt.Errorf("port %d is above 65535", high)
		}
		return p, uint16(t.Source), uint16(t.Destination), nil
	}
	icmp := func(p netset.Protocol, t *hubbleICMP) (netset.Protocol, uint16, uint16, error) {
		if high := max(t.Type, t.Code); high > 255 {
			return 0, 0, 0, fmt.Errorf("ICMP type or code %d is above 255", high)
		}
		return p, 0, uint16(t.Type<<8 | t.Code), nil
	}
	switch {
	case l.TCP != nil:
		return transport(netset.TCP, l.TCP)
	case l.UDP != nil:
		return transport(netset.UDP, l.UDP)
	case l.SCTP != nil:
		return transport(netset.SCTP, l.SCTP)
	case l.ICMPv4 != nil:
		return icmp(netset.ICMP, l.ICMPv4)
	case l.ICMPv6 != nil:
		return icmp(netset.ICMPv6, l.ICMPv6)
	case l.VRRP != nil:
		return 112, 0, 0, nil
	case l.IGMP != nil:
		return 2, 0, 0, nil
	}
	return 0, 0, 0, nil
}

type hubblePeer struct {
	Namespace string   `json:"namespace"`
	Labels    []string `json:"labels"`
	Pod       string   `json:"pod_name"`
	Workloads []struct {
		Name string `json:"name"`
		Kind string `json:"kind"`
	} `json:"workloads"`
}

func decodeHubblePeer(text []byte) (peer, error) {
	var h hubblePeer
	if err := json.Unmarshal(text, &h); err != nil {
		return peer{}, err
	}
	p := peer{FlowPeer: policies.FlowPeer{Namespace: h.Namespace, Pod: h.Pod}}
	for _, w := range h.Workloads {
		p.Workloads = append(p.Workloads, policies.Ref{Kind: w.Kind, Namespace: h.Namespace, Name: w.Name})
	}
	for _, label := range h.Labels {
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

// word returns the name that raw, a JSON string or number, means in an enum;
// without names, what it says. It is empty for null and for nothing at all.
func word(raw json.RawMessage, names []string) string {
	text := bytes.Trim(raw, `"`)
	if len(raw) > len(text) {
		for _, name := range names {
			if name == string(text) {
				return name
			}
		}
		return string(text)
	}
	if len(text) == 0 || string(text) == "null" {
		return ""
	}
	if n, err := strconv.Atoi(string(text)); err == nil && n >= 0 && n < len(names) {
		return names[n]
	}
	return string(text)
}
