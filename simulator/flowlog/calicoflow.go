package flowlog

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// calicoRecord is what Calico's formats say of a flow, each in its own way, as
// it stands in the record.
type calicoRecord struct {
	start, end               []byte
	action, reporter         []byte
	protocol                 []byte
	source, dest             calicoEnd
	sourcePort, destPort     uint16
	count                    uint64
	bytesIn, bytesOut        uint64 // as the reporting end sees them
	packetsIn, packetsOut    uint64
	destDomains, policyTrace []byte // JSON
	foreign                  bool   // a field says that the record is of another format
	found                    bool   // a field says that it is of this one
}

// calicoEnd is one end of it. What was not recorded is empty or "-".
type calicoEnd struct {
	kind, namespace, name []byte
	aggregate             []byte // what the names of several pods begin with, and a "*"
	address               []byte
	labels                []byte
}

// calicoReader makes flows of records, and keeps what they repeat.
type calicoReader struct {
	peers  peers
	traces cache[[]policies.Hit]
	names  cache[[]string]
	key    []byte
	labels func([]byte) (map[string]string, error)
}

func newCalicoReader(labels func([]byte) (map[string]string, error)) calicoReader {
	return calicoReader{peers: peers{}, traces: cache[[]policies.Hit]{}, names: cache[[]string]{}, labels: labels}
}

func (c *calicoReader) read(r *calicoRecord) (flow policies.Flow, err error) {
	if flow.Verdict, err = calicoVerdict(r.action); err != nil {
		return flow, err
	}
	if flow.Origin.Reporter, err = calicoReporter(r.reporter); err != nil {
		return flow, err
	}
	if flow.Protocol, err = calicoProtocol(r.protocol); err != nil {
		return flow, err
	}
	if err := r.times(&flow); err != nil {
		return flow, err
	}
	if flow.From, err = c.end("source", &r.source); err != nil {
		return flow, err
	}
	if flow.To, err = c.end("dest", &r.dest); err != nil {
		return flow, err
	}
	if flow.To.Names, err = c.names.of(r.destDomains, readNames); err != nil {
		return flow, fmt.Errorf("dest_domains: %w", err)
	}
	if flow.Hits, err = c.traces.of(r.policyTrace, readTrace); err != nil {
		return flow, err
	}
	flow.Count = r.count
	// What Calico has in place of the ports of other protocols is not defined.
	if flow.Protocol.HasPorts() || flow.Protocol == 0 {
		flow.Port, flow.SourcePort = r.destPort, r.sourcePort
	}
	switch flow.Origin.Reporter {
	case policies.SourceSide:
		flow.Bytes, flow.Packets, flow.ReplyBytes, flow.ReplyPackets = r.bytesOut, r.packetsOut, r.bytesIn, r.packetsIn
	case policies.DestinationSide:
		flow.Bytes, flow.Packets, flow.ReplyBytes, flow.ReplyPackets = r.bytesIn, r.packetsIn, r.bytesOut, r.packetsOut
	}
	beforeDest := flow.Origin.Reporter == policies.SourceSide || flow.Origin.Reporter == policies.OnTheWay
	flow.EgressOnly = flow.Verdict == policies.Allow && beforeDest && (flow.To.Namespace != "" || flow.To.Host)
	return flow, nil
}

// said returns what a field says; "-" stands for nothing.
func said(text []byte) string {
	if string(text) == "-" {
		return ""
	}
	return string(text)
}

func calicoVerdict(action []byte) (policies.Verdict, error) {
	switch string(action) {
	case "allow", "Allow", "1":
		return policies.Allow, nil
	case "deny", "Deny", "2":
		return policies.Deny, nil
	case "pass", "Pass", "3", "ActionUnspecified", "0", "-", "":
		return policies.Unknown, nil
	}
	return 0, fmt.Errorf("action %.40q is neither allow nor deny", action)
}

func calicoReporter(text []byte) (policies.Reporter, error) {
	switch string(text) {
	case "src", "Src", "1", "out":
		return policies.SourceSide, nil
	case "dst", "Dst", "2", "in":
		return policies.DestinationSide, nil
	case "fwd", "Fwd":
		return policies.OnTheWay, nil
	case "ReporterUnspecified", "0", "-", "":
		return policies.UnknownReporter, nil
	}
	return 0, fmt.Errorf("reporter %.40q is none of src, dst, fwd", text)
}

// calicoProtocols have names in Calico that they do not have in Weir.
var calicoProtocols = map[string]netset.Protocol{
	"icmp6": netset.ICMPv6, "icmpv6": netset.ICMPv6, "ipv6-icmp": netset.ICMPv6,
	"ipip": 4, "gre": 47, "esp": 50, "ah": 51, "udplite": 136,
}

func calicoProtocol(text []byte) (netset.Protocol, error) {
	switch string(text) {
	case "tcp", "TCP", "6":
		return netset.TCP, nil
	case "udp", "UDP", "17":
		return netset.UDP, nil
	case "-", "":
		return 0, nil
	}
	if p, ok := calicoProtocols[strings.ToLower(string(text))]; ok {
		return p, nil
	}
	p, err := netset.ParseProtocol(string(text))
	if err != nil {
		return 0, fmt.Errorf("proto: %w", err)
	}
	return p, nil
}

func (r *calicoRecord) times(flow *policies.Flow) (err error) {
	if flow.First, err = calicoTime(r.start); err != nil {
		return fmt.Errorf("start_time %w", err)
	}
	if flow.Last, err = calicoTime(r.end); err != nil {
		return fmt.Errorf("end_time %w", err)
	}
	switch {
	case flow.First.IsZero():
		flow.First = flow.Last
	case flow.Last.IsZero():
		flow.Last = flow.First
	case flow.Last.Before(flow.First):
		return fmt.Errorf("end_time %s is before start_time %s", flow.Last.Format(time.RFC3339Nano), flow.First.Format(time.RFC3339Nano))
	}
	flow.Origin.Window = flow.Last.Sub(flow.First).Round(time.Microsecond)
	if flow.Origin.Window > maxWindowSeconds*time.Second {
		return fmt.Errorf("end_time %s is more than a year after start_time %s", flow.Last.Format(time.RFC3339Nano), flow.First.Format(time.RFC3339Nano))
	}
	return nil
}

// calicoTime reads seconds or milliseconds since 1970, or a time such as
// 2026-03-10T12:00:00Z.
func calicoTime(text []byte) (time.Time, error) {
	const lastSecond, lastMilli = 1e11, 253402300800e3 // the years 5138 and 9999
	if len(text) == 0 || string(text) == "-" {
		return time.Time{}, nil
	}
	var n uint64
	for _, c := range text {
		if c < '0' || '9' < c || n >= lastMilli {
			n = lastMilli
			break
		}
		n = n*10 + uint64(c-'0')
	}
	switch {
	case n < lastSecond:
		return time.Unix(int64(n), 0).UTC(), nil
	case n < lastMilli:
		return time.UnixMilli(int64(n)).UTC(), nil
	}
	if seconds, err := strconv.ParseFloat(string(text), 64); err == nil && 0 <= seconds && seconds < lastSecond {
		return time.UnixMicro(int64(seconds * 1e6)).UTC(), nil
	}
	t, ok := parseTime(text)
	if !ok {
		return t, fmt.Errorf("%.40q is neither seconds or milliseconds since 1970 nor a time such as 2026-03-10T12:00:00Z", text)
	}
	return t, nil
}

// end returns one end of a record.
func (c *calicoReader) end(side string, e *calicoEnd) (policies.FlowPeer, error) {
	c.key = c.key[:0]
	for _, part := range [...][]byte{e.kind, e.namespace, e.name, e.aggregate, e.labels} {
		c.key = append(binary.AppendUvarint(c.key, uint64(len(part))), part...)
	}
	p, err := c.peers.of(c.key, func([]byte) (peer, error) { return e.read(c.labels) })
	if err != nil {
		return policies.FlowPeer{}, fmt.Errorf("%s_%w", side, err)
	}
	if len(e.address) > 0 && string(e.address) != "-" {
		if p.Address, err = netip.ParseAddr(string(e.address)); err != nil {
			return policies.FlowPeer{}, fmt.Errorf("%s_ip %.60q is no IP address", side, e.address)
		}
		p.Address, p.Network = p.Address.Unmap().WithZone(""), policies.AnyNetwork
	}
	return p.FlowPeer, nil
}

// read returns what an end is without its address. Its errors begin with the
// field's name, without the side.
func (e *calicoEnd) read(readLabels func([]byte) (map[string]string, error)) (p peer, err error) {
	labels, err := readLabels(e.labels)
	if err != nil {
		return p, fmt.Errorf("labels: %w", err)
	}
	namespace, name, aggregate := said(e.namespace), said(e.name), said(e.aggregate)
	if namespace == "Global" { // as Whisker shows what has none
		namespace = ""
	}
	switch kind := said(e.kind); kind {
	case "wep", "WorkloadEndpoint", "1":
		p.ofPods(namespace, name, aggregate, labels)
	case "hep", "HostEndpoint", "2":
		p.Host = true
		if aggregate != "" {
			p.Workloads = []policies.Ref{{Kind: "Node", Name: aggregate}}
		}
	case "ns", "NetworkSet", "3":
		p.Set = calicoRef("NetworkSet")
		if namespace == "" {
			p.Set.Kind = "GlobalNetworkSet"
		}
		if p.Set.Namespace, p.Set.Name = namespace, aggregate; aggregate == "" {
			p.Set.Name = name
		}
		if p.Set.Name == "" {
			p.Set = policies.Ref{}
		}
	case "net", "Network", "4":
		p.Network, err = calicoNetwork(aggregate)
	case "", "EndpointTypeUnspecified", "0":
		// Whisker's rows do not say what an end is. What has a namespace and a
		// name is a pod, for a network set's name leads to none.
		if p.Network, err = calicoNetwork(aggregate); err != nil && namespace != "" {
			p.ofPods(namespace, name, aggregate, labels)
		}
		err = nil
	default:
		err = fmt.Errorf("type %.40q is none of wep, hep, ns, net", kind)
	}
	return p, err
}

// ofPods makes p one pod, or several of which the names' beginning is known.
func (p *peer) ofPods(namespace, name, aggregate string, labels map[string]string) {
	p.Namespace = namespace
	if name == "" {
		name = aggregate
	}
	prefix, several := strings.CutSuffix(name, "*")
	if several {
		p.PodPrefix = prefix
	} else {
		p.Pod = name
	}
	// Labels of several pods are those that all of them have.
	p.Labels, p.LabelsPartial = labels, labels != nil && p.Pod == ""
}

func calicoNetwork(name string) (policies.Network, error) {
	switch name {
	case "pub", "PUBLIC NETWORK":
		return policies.PublicNetwork, nil
	case "pvt", "PRIVATE NETWORK":
		return policies.PrivateNetwork, nil
	case "":
		return policies.AnyNetwork, nil
	}
	return 0, fmt.Errorf("name_aggr %.60q of a network is neither pub nor pvt", name)
}

// labelsOf returns the labels of a list of "key=value".
func labelsOf(list []string) (map[string]string, error) {
	var labels map[string]string
	for _, text := range list {
		key, value, ok := strings.Cut(text, "=")
		if !ok || key == "" {
			return nil, fmt.Errorf("%.60q is not key=value", text)
		}
		if strings.HasPrefix(key, policies.CalicoGroup+"/") {
			continue
		}
		if labels == nil {
			labels = map[string]string{}
		}
		labels[key] = value
	}
	return labels, nil
}

// readLabels reads {"labels":["key=value"]}, the list alone, or Whisker's
// "key=value | key=value".
func readLabels(text []byte) (map[string]string, error) {
	s := scan{text: text, name: []byte("labels")}
	var list []string
	switch s.peek() {
	case '{':
		for in := s.object(); in && s.field(); {
			if string(s.name) == "labels" && s.peek() == '[' {
				list = takeNames(&s)
			} else {
				s.skip()
			}
		}
	case '[':
		list = takeNames(&s)
	case 0:
		return nil, nil
	default:
		if text := said(s.string()); text != "" {
			list = strings.Split(text, " | ")
		}
	}
	if err := s.end(); err != nil {
		return nil, err
	}
	return labelsOf(list)
}

// readNames reads a list of strings, or a single one.
func readNames(text []byte) ([]string, error) {
	s := scan{text: text, name: []byte("names")}
	if s.peek() == '[' {
		names := takeNames(&s)
		return names, s.end()
	}
	name := said(s.string())
	if name == "" {
		return nil, s.end()
	}
	return []string{name}, s.end()
}

// takeNames takes a list of strings.
func takeNames(s *scan) []string {
	var names []string
	for in := s.array(); in && s.element(); {
		if name := said(s.string()); name != "" {
			names = append(names, name)
		}
	}
	return names
}
