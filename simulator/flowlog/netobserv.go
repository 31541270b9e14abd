package flowlog

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var netobservFormat = format{
	name: "netobserv",
	what: "it has no SrcAddr and DstAddr",
	object: func(keys [][]byte) bool {
		return hasAll(keys, "SrcAddr", "DstAddr") &&
			hasAny(keys, "TimeFlowStartMs", "TimeFlowEndMs", "FlowDirection", "IfDirections", "SrcK8S_Name", "DstK8S_Name", "_RecordType")
	},
	decode: func(s *sink) decoder { return &netobservDecoder{sink: s, peers: peers{}, counted: counted[string]{}} },
}

// netobservLine is one flow as NetObserv exports it.
type netobservLine struct {
	RecordType      string          `json:"_RecordType"`
	Conversation    string          `json:"_HashId"`
	SrcAddr         json.RawMessage `json:"SrcAddr"`
	DstAddr         json.RawMessage `json:"DstAddr"`
	SrcPort         json.RawMessage `json:"SrcPort"`
	DstPort         json.RawMessage `json:"DstPort"`
	Proto           json.RawMessage `json:"Proto"`
	IcmpType        json.RawMessage `json:"IcmpType"`
	IcmpCode        json.RawMessage `json:"IcmpCode"`
	Flags           json.RawMessage `json:"Flags"`
	FlowDirection   json.RawMessage `json:"FlowDirection"`
	Duplicate       bool            `json:"Duplicate"`
	TimeFlowStartMs json.RawMessage `json:"TimeFlowStartMs"`
	TimeFlowEndMs   json.RawMessage `json:"TimeFlowEndMs"`
	Packets         json.RawMessage `json:"Packets"`
	Bytes           json.RawMessage `json:"Bytes"`
	Events          json.RawMessage `json:"NetworkEvents"`
	XlatDstAddr     json.RawMessage `json:"XlatDstAddr"`
	XlatDstPort     json.RawMessage `json:"XlatDstPort"`
	SrcName         string          `json:"SrcK8S_Name"`
	SrcNamespace    string          `json:"SrcK8S_Namespace"`
	SrcType         string          `json:"SrcK8S_Type"`
	SrcOwnerName    string          `json:"SrcK8S_OwnerName"`
	SrcOwnerType    string          `json:"SrcK8S_OwnerType"`
	DstName         string          `json:"DstK8S_Name"`
	DstNamespace    string          `json:"DstK8S_Namespace"`
	DstType         string          `json:"DstK8S_Type"`
	DstOwnerName    string          `json:"DstK8S_OwnerName"`
	DstOwnerType    string          `json:"DstK8S_OwnerType"`
}

// reset forgets the line but keeps its memory.
func (l *netobservLine) reset() {
	*l = netobservLine{
		SrcAddr: l.SrcAddr[:0], DstAddr: l.DstAddr[:0], XlatDstAddr: l.XlatDstAddr[:0], SrcPort: l.SrcPort[:0], DstPort: l.DstPort[:0], Proto: l.Proto[:0], IcmpType: l.IcmpType[:0], IcmpCode: l.IcmpCode[:0],
		Flags: l.Flags[:0], FlowDirection: l.FlowDirection[:0], TimeFlowStartMs: l.TimeFlowStartMs[:0], TimeFlowEndMs: l.TimeFlowEndMs[:0],
		Packets: l.Packets[:0], Bytes: l.Bytes[:0], Events: l.Events[:0], XlatDstPort: l.XlatDstPort[:0],
	}
}

// What FlowDirection says, after NetObserv has made it that of the node.
const (
	netobservIngress = "0"
	netobservEgress  = "1"
	netobservInner   = "2" // both ends are on the node
)

// NetObserv's flags of packets that carry ACK beside another one.
const (
	netobservSYNACK = 0x100
	netobservFINACK = 0x200
	netobservRSTACK = 0x400
)

type netobservDecoder struct {
	*sink
	peers   peers
	counted counted[string]
	buffer  netobservLine
	key     []byte
}

func (d *netobservDecoder) decode(record []byte) error {
	l := &d.buffer
	l.reset()
	if err := json.Unmarshal(record, l); err != nil {
		return explain(err)
	}
	if !isPresent(l.SrcAddr, l.DstAddr) {
		return errors.New("there are no SrcAddr and DstAddr")
	}
	if l.Duplicate {
		d.leaveOut("duplicate: the flow was seen on another interface too")
		return nil
	}
	flow, err := d.read(l)
	if err != nil {
		return err
	}
	isConversation := l.RecordType != "" && l.RecordType != "flowLog"
	if isConversation && !d.counted.add(strings.Clone(l.Conversation)) {
		d.leaveOut("more of a conversation that was counted before")
		return nil
	}
	if err := l.judge(&flow, isConversation); err != nil {
		return err
	}
	d.flow(flow)
	return nil
}

func (d *netobservDecoder) read(l *netobservLine) (flow policies.Flow, err error) {
	flow.From, err = d.peer(l.SrcType, l.SrcNamespace, l.SrcName, l.SrcOwnerType, l.SrcOwnerName)
	if err != nil {
		return flow, err
	}
	flow.To, err = d.peer(l.DstType, l.DstNamespace, l.DstName, l.DstOwnerType, l.DstOwnerName)
	if err != nil {
		return flow, err
	}
	if flow.From.Address, err = jsonAddress("SrcAddr", l.SrcAddr); err != nil {
		return flow, err
	}
	if flow.To.Address, err = jsonAddress("DstAddr", l.DstAddr); err != nil {
		return flow, err
	}
	translated, err := jsonAddress("XlatDstAddr", l.XlatDstAddr)
	if err != nil {
		return flow, err
	}
	var n [10]uint64
	for i, field := range []struct {
		name string
		raw  json.RawMessage
		most uint64
	}{
		{"SrcPort", l.SrcPort, 65535},
		{"DstPort", l.DstPort, 65535},
		{"XlatDstPort", l.XlatDstPort, 65535},
		{"IcmpType", l.IcmpType, 255},
		{"IcmpCode", l.IcmpCode, 255},
		{"Proto", l.Proto, 255},
		{"TimeFlowStartMs", l.TimeFlowStartMs, lastSecond * 1000},
		{"TimeFlowEndMs", l.TimeFlowEndMs, lastSecond * 1000},
		{"Packets", l.Packets, 1<<64 - 1},
		{"Bytes", l.Bytes, 1<<64 - 1},
	} {
		if n[i], err = jsonNumber(field.name, field.raw, field.most); err != nil {
			return flow, err
		}
	}
	flow.SourcePort, flow.Port, flow.Protocol = uint16(n[0]), uint16(n[1]), netset.Protocol(n[5])
	if translated.IsValid() && !translated.IsUnspecified() && translated != flow.To.Address {
		flow.To.Address = translated
		if n[2] != 0 {
			flow.Port = uint16(n[2])
		}
	}
	if flow.Protocol == netset.ICMP || flow.Protocol == netset.ICMPv6 {
		flow.SourcePort, flow.Port = 0, uint16(n[3]<<8|n[4])
	}
	flow.Packets, flow.Bytes = n[8], n[9]
	var first, last time.Time
	if n[6] != 0 {
		first = time.UnixMilli(int64(n[6]))
	}
	if n[7] != 0 {
		last = time.UnixMilli(int64(n[7]))
	}
	err = span(&flow, first, last)
	return flow, err
}

// judge gives a flow its verdict and its direction. NetObserv sees packets, and
// policy's verdict only where it tracks network events; but a TCP connection
// whose handshake was seen was let through.
func (l *netobservLine) judge(flow *policies.Flow, isConversation bool) error {
	switch string(bytes.Trim(l.FlowDirection, `"`)) {
	case netobservIngress:
		flow.Origin.Reporter = policies.DestinationSide
	case netobservEgress:
		flow.Origin.Reporter = policies.SourceSide
	case netobservInner, "", "null":
	default:
		return fmt.Errorf("FlowDirection %.40s is none of 0, 1, 2", l.FlowDirection)
	}
	flags, err := l.flags()
	if err != nil {
		return err
	}
	if flow.Protocol != netset.TCP {
		flags = 0
	}
	syn, answer := flags&tcpSYN != 0, flags&netobservSYNACK != 0
	isReply := answer && !syn && !isConversation
	flow.Verdict = policies.Unknown
	switch {
	case isReply, isConversation && answer, syn && !answer && flags&(tcpACK|netobservFINACK|netobservRSTACK) != 0:
		flow.Verdict = policies.Allow
	}
	if isPresent(l.Events) {
		if err := readNetworkEvents(l.Events, flow); err != nil {
			return err
		}
	}
	if isReply {
		turnRound(flow)
	}
	return nil
}

var netobservFlags = map[string]uint64{
	"FIN": tcpFIN, "SYN": tcpSYN, "RST": tcpRST, "PSH": tcpPSH, "ACK": tcpACK,
	"SYN_ACK": netobservSYNACK, "FIN_ACK": netobservFINACK, "RST_ACK": netobservRSTACK,
}

// flags returns the flags of all packets together. They are a number, or since
// NetObserv 1.8 a list of names.
func (l *netobservLine) flags() (uint64, error) {
	if len(l.Flags) == 0 || l.Flags[0] != '[' {
		return jsonNumber("Flags", l.Flags, 1<<16-1)
	}
	var names []string
	if err := json.Unmarshal(l.Flags, &names); err != nil {
		return 0, fmt.Errorf("Flags: %w", explain(err))
	}
	var flags uint64
	for _, name := range names {
		flags |= netobservFlags[name]
	}
	return flags, nil
}

// netobservEvent is what the cluster's network says of a packet.
type netobservEvent struct {
	Feature   string `json:"Feature"`
	Action    string `json:"Action"`
	Type      string `json:"Type"`
	Direction string `json:"Direction"`
	Namespace string `json:"Namespace"`
	Name      string `json:"Name"`
}

// readNetworkEvents takes verdict and rules from what policy had to say.
func readNetworkEvents(text []byte, flow *policies.Flow) error {
	var raw []json.RawMessage
	if err := json.Unmarshal(text, &raw); err != nil {
		return fmt.Errorf("NetworkEvents: %w", explain(err))
	}
	var allowed, denied, byDestination bool
	for _, one := range raw {
		var e netobservEvent
		if one[0] != '{' {
			continue // older versions have sentences for people
		}
		if err := json.Unmarshal(one, &e); err != nil {
			return fmt.Errorf("NetworkEvents: %w", explain(err))
		}
		if e.Feature != "acl" && e.Feature != "" {
			continue
		}
		hit := policies.Hit{Policy: policies.Ref{Kind: e.Type, Namespace: e.Namespace, Name: e.Name}, Rule: policies.UnknownRule}
		switch {
		case strings.HasPrefix(e.Action, "allow"):
			hit.Action, allowed = policies.ActionAllow, true
			byDestination = byDestination || strings.EqualFold(e.Direction, "ingress")
		case e.Action == "drop", e.Action == "reject":
			hit.Action, denied = policies.ActionDeny, true
		case e.Action == "pass":
			hit.Action = policies.ActionPass
		default:
			continue
		}
		flow.Hits = append(flow.Hits, hit)
	}
	switch {
	case denied:
		flow.Verdict = policies.Deny
	case allowed && flow.Verdict != policies.Allow:
		flow.Verdict, flow.EgressOnly = policies.Allow, !byDestination
	}
	return nil
}

// peer returns an end by its names.
func (d *netobservDecoder) peer(kind, namespace, name, ownerKind, owner string) (policies.FlowPeer, error) {
	d.key = d.key[:0]
	for _, text := range []string{kind, namespace, name, ownerKind, owner} {
		d.key = append(append(d.key, text...), 0)
	}
	p, err := d.peers.of(d.key, decodeNetobservPeer)
	return p.FlowPeer, err
}

func decodeNetobservPeer(key []byte) (peer, error) {
	parts := strings.Split(string(key), "\x00")
	kind, namespace, name, ownerKind, owner := parts[0], parts[1], parts[2], parts[3], parts[4]
	var p peer
	switch {
	case kind == "Node":
		p.Host = true
	case kind == "Service":
		p.Names = []string{serviceName(namespace, name)}
	case kind == "Pod" || kind == "" && name != "":
		p.Namespace, p.Pod = namespace, name
		if owner != "" && ownerKind != "" && ownerKind != "Pod" {
			p.Workloads = []policies.Ref{{Kind: ownerKind, Namespace: namespace, Name: owner}}
		}
	}
	return p, nil
}
