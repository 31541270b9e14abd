package flowlog

import (
	"bufio"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// lines writes a JSON value a line, and counts what flows say that the format
// has no place for.
type lines struct {
	w    *bufio.Writer
	lost map[string]uint64
}

func (l *lines) put(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	_, err = l.w.Write(append(text, '\n'))
	return err
}

// Flush hands on what was written.
func (l *lines) Flush() error { return l.w.Flush() }

func (l *lines) loses(what string, is bool) {
	if is {
		l.lost[what]++
	}
}

// HubbleWriter writes flows as Hubble's exporter does.
type HubbleWriter struct{ lines }

// NewHubbleWriter returns a HubbleWriter to w, which gets all lines only after
// Flush. In lost it counts the flows that say what Hubble has no field for.
func NewHubbleWriter(w io.Writer, lost map[string]uint64) *HubbleWriter {
	return &HubbleWriter{lines{bufio.NewWriter(w), lost}}
}

type hubbleOut struct {
	Flow     hubbleFlowOut `json:"flow"`
	NodeName string        `json:"node_name,omitempty"`
	Time     *time.Time    `json:"time,omitempty"`
}

type hubbleFlowOut struct {
	Time             *time.Time     `json:"time,omitempty"`
	Verdict          string         `json:"verdict"`
	DropReason       uint32         `json:"drop_reason,omitempty"`
	DropReasonDesc   string         `json:"drop_reason_desc,omitempty"`
	IP               *hubbleIPOut   `json:"IP,omitempty"`
	L4               map[string]any `json:"l4,omitempty"`
	Source           *hubblePeerOut `json:"source,omitempty"`
	Destination      *hubblePeerOut `json:"destination,omitempty"`
	Type             string         `json:"Type"`
	SourceNames      []string       `json:"source_names,omitempty"`
	DestinationNames []string       `json:"destination_names,omitempty"`
	Direction        string         `json:"traffic_direction,omitempty"`
	TracePoint       string         `json:"trace_observation_point,omitempty"`
	IsReply          bool           `json:"is_reply"`
	Aggregate        map[string]any `json:"aggregate,omitempty"`
}

type hubbleIPOut struct {
	Source      string `json:"source,omitempty"`
	Destination string `json:"destination,omitempty"`
	Version     string `json:"ipVersion,omitempty"`
}

type hubblePeerOut struct {
	Namespace string              `json:"namespace,omitempty"`
	Labels    []string            `json:"labels,omitempty"`
	Pod       string              `json:"pod_name,omitempty"`
	Workloads []map[string]string `json:"workloads,omitempty"`
}

// Write writes one flow.
func (w *HubbleWriter) Write(f policies.Flow) error {
	out := hubbleFlowOut{
		Verdict: "VERDICT_UNKNOWN", Type: "L3_L4", SourceNames: f.From.Names, DestinationNames: f.To.Names,
		IP: hubbleAddresses(f.From.Address, f.To.Address), L4: w.transport(&f), Source: w.peer(&f.From), Destination: w.peer(&f.To),
	}
	if !f.First.IsZero() {
		at := f.First.UTC()
		out.Time = &at
	}
	switch f.Verdict {
	case policies.Allow:
		out.Verdict = "FORWARDED"
	case policies.Deny:
		out.Verdict, out.DropReason, out.DropReasonDesc = "DROPPED", 133, "POLICY_DENIED"
	}
	w.side(&f, &out)
	if f.Count > 1 {
		field := map[string]string{"EGRESS": "egress_flow_count", "INGRESS": "ingress_flow_count", "": "unknown_direction_flow_count"}[out.Direction]
		out.Aggregate = map[string]any{field: f.Count}
	}
	w.loses("bytes and packets", f.Bytes|f.Packets|f.ReplyBytes|f.ReplyPackets != 0)
	w.loses("the policies that judged it", len(f.Hits) > 0)
	w.loses("when it was last seen", f.Last.After(f.First))
	w.loses("the time that the record aggregates", f.Origin.Window != 0)
	return w.put(hubbleOut{Flow: out, Time: out.Time})
}

// side says who reported. Of one that left for a pod, Hubble's readers take it
// that the destination had not judged it yet; of one that had, nothing is said.
func (w *HubbleWriter) side(f *policies.Flow, out *hubbleFlowOut) {
	leaves := f.Verdict != policies.Allow || f.EgressOnly || f.To.Outside || f.To.Host
	switch {
	case f.Origin.Reporter == policies.DestinationSide && !f.EgressOnly:
		out.Direction = "INGRESS"
	case f.Origin.Reporter == policies.SourceSide && leaves:
		out.Direction = "EGRESS"
	case f.EgressOnly:
		out.TracePoint = "TO_STACK"
		w.loses("whose report it is", f.Origin.Reporter != policies.UnknownReporter)
	default:
		w.loses("whose report it is", f.Origin.Reporter != policies.UnknownReporter)
	}
}

func hubbleAddresses(from, to netip.Addr) *hubbleIPOut {
	if !from.IsValid() && !to.IsValid() {
		return nil
	}
	out := &hubbleIPOut{Version: "IPv4"}
	if from.Is6() || to.Is6() {
		out.Version = "IPv6"
	}
	if from.IsValid() {
		out.Source = from.String()
	}
	if to.IsValid() {
		out.Destination = to.String()
	}
	return out
}

func (w *HubbleWriter) transport(f *policies.Flow) map[string]any {
	ports := map[string]any{}
	if f.SourcePort != 0 {
		ports["source_port"] = f.SourcePort
	}
	if f.Port != 0 {
		ports["destination_port"] = f.Port
	}
	icmp := map[string]any{"type": f.Port >> 8, "code": f.Port & 0xff}
	switch f.Protocol {
	case 0:
		return nil
	case netset.TCP, netset.UDP, netset.SCTP:
		return map[string]any{f.Protocol.String(): ports}
	case netset.ICMP:
		return map[string]any{"ICMPv4": icmp}
	case netset.ICMPv6:
		return map[string]any{"ICMPv6": icmp}
	case 112:
		return map[string]any{"VRRP": struct{}{}}
	case 2:
		return map[string]any{"IGMP": struct{}{}}
	}
	w.loses("a protocol that Hubble does not know", true)
	return nil
}

func (w *HubbleWriter) peer(p *policies.FlowPeer) *hubblePeerOut {
	out := hubblePeerOut{Namespace: p.Namespace, Pod: p.Pod}
	for _, owner := range p.Workloads {
		out.Workloads = append(out.Workloads, map[string]string{"name": owner.Name, "kind": owner.Kind})
	}
	for _, reserved := range []struct {
		is   bool
		name string
	}{{p.OwnNode, "host"}, {p.Host && !p.OwnNode, "remote-node"}, {p.Outside, "world"}} {
		if reserved.is {
			out.Labels = append(out.Labels, "reserved:"+reserved.name)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		out.Labels = append(out.Labels, "k8s:"+key+"="+p.Labels[key])
	}
	w.loses("that labels are complete", p.Labels != nil && !p.LabelsPartial)
	w.loses("what the names of its pods begin with", p.PodPrefix != "")
	w.loses("a network set, or the kind of network", p.Set.Name != "" || p.Network != policies.AnyNetwork)
	if out.Namespace == "" && out.Pod == "" && len(out.Labels) == 0 && len(out.Workloads) == 0 {
		return nil
	}
	return &out
}

// OTLPWriter writes flows as log records of OpenTelemetry in JSON, each with the
// wrapping that makes it a request of its own.
type OTLPWriter struct{ lines }

// NewOTLPWriter returns an OTLPWriter to w, which gets all lines only after
// Flush. In lost it counts the flows that say what there is no attribute for.
func NewOTLPWriter(w io.Writer, lost map[string]uint64) *OTLPWriter {
	return &OTLPWriter{lines{bufio.NewWriter(w), lost}}
}

type otlpAttributes []map[string]any

func (a *otlpAttributes) text(key, value string) {
	if value != "" {
		*a = append(*a, map[string]any{"key": key, "value": map[string]string{"stringValue": value}})
	}
}

func (a *otlpAttributes) number(key string, n uint64) {
	if n != 0 {
		*a = append(*a, map[string]any{"key": key, "value": map[string]string{"intValue": strconv.FormatUint(n, 10)}})
	}
}

// Write writes one flow.
func (w *OTLPWriter) Write(f policies.Flow) error {
	var a otlpAttributes
	w.end(&a, otlpSource, &f.From, f.SourcePort, f.Bytes, f.Packets)
	w.end(&a, otlpDestination, &f.To, f.Port, f.ReplyBytes, f.ReplyPackets)
	if f.Protocol != 0 {
		a.text(otlpTransport, otlpProtocol(f.Protocol))
	}
	a.text(otlpDirection, map[policies.Reporter]string{policies.SourceSide: "egress", policies.DestinationSide: "ingress"}[f.Origin.Reporter])
	a.text(otlpAction, map[policies.Verdict]string{policies.Allow: "allow", policies.Deny: "deny"}[f.Verdict])
	nanos := ""
	if !f.First.IsZero() {
		nanos = strconv.FormatInt(f.First.UnixNano(), 10)
		a.text(otlpStart, f.First.UTC().Format(time.RFC3339Nano))
		a.text(otlpFinish, f.Last.UTC().Format(time.RFC3339Nano))
	}
	if len(f.Hits) > 0 {
		a.text(otlpRule, f.Hits[0].Policy.Name)
	}
	w.loses("a flow without addresses, which Weir does not read back", !isPlaced(&f.From) && !isPlaced(&f.To))
	w.loses("that it stands for several flows", f.Count > 1)
	w.loses("that the destination had not judged it", f.EgressOnly)
	w.loses("all of the policies that judged it but a name", len(f.Hits) > 0)
	w.loses("the time that the record aggregates", f.Origin.Window != 0)
	w.loses("whose report it is", f.Origin.Reporter == policies.OnTheWay)
	record := map[string]any{"attributes": a}
	if nanos != "" {
		record["timeUnixNano"] = nanos
	}
	return w.put(map[string]any{"resourceLogs": []any{map[string]any{"scopeLogs": []any{map[string]any{"logRecords": []any{record}}}}}})
}

func isPlaced(p *policies.FlowPeer) bool { return p.Address.IsValid() || len(p.Names) > 0 }

func otlpProtocol(p netset.Protocol) string {
	switch p {
	case netset.TCP:
		return "tcp"
	case netset.UDP:
		return "udp"
	case netset.SCTP:
		return "sctp"
	}
	return strconv.Itoa(int(p))
}

func (w *OTLPWriter) end(a *otlpAttributes, prefix string, p *policies.FlowPeer, port uint16, bytes, packets uint64) {
	switch {
	case p.Address.IsValid():
		a.text(prefix+otlpAddress, p.Address.String())
		w.loses("names of an address", len(p.Names) > 0)
	case len(p.Names) > 0:
		a.text(prefix+otlpAddress, p.Names[0])
	}
	a.number(prefix+otlpPort, uint64(port))
	a.number(prefix+otlpBytes, bytes)
	a.number(prefix+otlpPackets, packets)
	a.text(prefix+otlpNamespace, p.Namespace)
	a.text(prefix+otlpPod, p.Pod)
	if len(p.Workloads) > 0 {
		a.text(prefix+otlpOwnerKind, p.Workloads[0].Kind)
		a.text(prefix+otlpOwnerName, p.Workloads[0].Name)
	}
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		a.text(prefix+otlpLabel+key, p.Labels[key])
	}
	w.loses("that labels are complete", p.Labels != nil && !p.LabelsPartial)
	w.loses("what the names of its pods begin with", p.PodPrefix != "")
	w.loses("whether an end is outside, or a node", p.Outside || p.Host || p.OwnNode || p.Set.Name != "" || p.Network != policies.AnyNetwork)
}
