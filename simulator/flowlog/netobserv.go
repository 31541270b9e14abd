package flowlog

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

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
	recordType, conversation   []byte
	source, destination        netobservEnd
	translated                 netip.Addr
	translatedPort             uint16
	protocol                   netset.Protocol
	icmpType, icmpCode         uint64
	flags                      uint64
	direction                  []byte
	duplicate                  bool
	start, end, packets, bytes uint64
	events                     []byte
}

type netobservEnd struct {
	address                                 netip.Addr
	port                                    uint16
	kind, namespace, name, ownerKind, owner []byte
}

func (l *netobservLine) take(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "_RecordType":
			l.recordType = s.string()
		case "_HashId":
			l.conversation = s.word()
		case "SrcAddr":
			l.source.address = s.address()
		case "SrcPort":
			l.source.port = uint16(s.uint(65535))
		case "SrcK8S_Type":
			l.source.kind = s.string()
		case "SrcK8S_Namespace":
			l.source.namespace = s.string()
		case "SrcK8S_Name":
			l.source.name = s.string()
		case "SrcK8S_OwnerType":
			l.source.ownerKind = s.string()
		case "SrcK8S_OwnerName":
			l.source.owner = s.string()
		case "DstAddr":
			l.destination.address = s.address()
		case "DstPort":
			l.destination.port = uint16(s.uint(65535))
		case "DstK8S_Type":
			l.destination.kind = s.string()
		case "DstK8S_Namespace":
			l.destination.namespace = s.string()
		case "DstK8S_Name":
			l.destination.name = s.string()
		case "DstK8S_OwnerType":
			l.destination.ownerKind = s.string()
		case "DstK8S_OwnerName":
			l.destination.owner = s.string()
		case "XlatDstAddr":
			l.translated = s.address()
		case "XlatDstPort":
			l.translatedPort = uint16(s.uint(65535))
		case "Proto":
			l.protocol = netset.Protocol(s.uint(255))
		case "IcmpType":
			l.icmpType = s.uint(255)
		case "IcmpCode":
			l.icmpCode = s.uint(255)
		case "Flags":
			l.flags = takeNetobservFlags(s)
		case "FlowDirection":
			l.direction = s.word()
		case "Duplicate":
			l.duplicate = s.bool()
		case "TimeFlowStartMs":
			l.start = s.uint(lastSecond * 1000)
		case "TimeFlowEndMs":
			l.end = s.uint(lastSecond * 1000)
		case "Packets":
			l.packets = s.uint(1<<64 - 1)
		case "Bytes":
			l.bytes = s.uint(1<<64 - 1)
		case "NetworkEvents":
			l.events = s.raw()
		default:
			s.skip()
		}
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
	key     []byte
}

func (d *netobservDecoder) decode(record []byte) error {
	var l netobservLine
	s := scan{text: record}
	l.take(&s)
	if err := s.end(); err != nil {
		return err
	}
	if !l.source.address.IsValid() && !l.destination.address.IsValid() {
		return errors.New("there are no SrcAddr and DstAddr")
	}
	if l.duplicate {
		d.leaveOut("duplicate: the flow was seen on another interface too")
		return nil
	}
	flow, err := d.read(&l)
	if err != nil {
		return err
	}
	isConversation := len(l.recordType) > 0 && string(l.recordType) != "flowLog"
	if err := l.judge(&flow, isConversation); err != nil {
		return err
	}
	if isConversation && !d.counted.add(string(l.conversation)) {
		d.leaveOut("more of a conversation that was counted before")
		return nil
	}
	d.flow(flow)
	return nil
}

func (d *netobservDecoder) read(l *netobservLine) (flow policies.Flow, err error) {
	if flow.From, err = d.peer(&l.source); err != nil {
		return flow, err
	}
	if flow.To, err = d.peer(&l.destination); err != nil {
		return flow, err
	}
	flow.SourcePort, flow.Port, flow.Protocol = l.source.port, l.destination.port, l.protocol
	flow.Packets, flow.Bytes = l.packets, l.bytes
	if t := l.translated; t.IsValid() && !t.IsUnspecified() && t != flow.To.Address {
		flow.To.Address = t
		if l.translatedPort != 0 {
			flow.Port = l.translatedPort
		}
	}
	if flow.Protocol == netset.ICMP || flow.Protocol == netset.ICMPv6 {
		flow.SourcePort, flow.Port = 0, uint16(l.icmpType<<8|l.icmpCode)
	}
	var first, last time.Time
	if l.start != 0 {
		first = time.UnixMilli(int64(l.start))
	}
	if l.end != 0 {
		last = time.UnixMilli(int64(l.end))
	}
	err = span(&flow, first, last)
	return flow, err
}

// judge gives a flow its verdict and its direction. NetObserv sees packets, and
// policy's verdict only where it tracks network events; but a TCP connection
// whose handshake was seen was let through.
func (l *netobservLine) judge(flow *policies.Flow, isConversation bool) error {
	switch string(l.direction) {
	case netobservIngress:
		flow.Origin.Reporter = policies.DestinationSide
	case netobservEgress:
		flow.Origin.Reporter = policies.SourceSide
	case netobservInner, "":
	default:
		return fmt.Errorf("FlowDirection %.40q is none of 0, 1, 2", l.direction)
	}
	flags := l.flags
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
	if err := readNetworkEvents(l.events, flow); err != nil {
		return err
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

// takeNetobservFlags takes the flags of all packets together: a number, or since
// NetObserv 1.8 a list of names.
func takeNetobservFlags(s *scan) (flags uint64) {
	if s.peek() != '[' {
		return s.uint(1<<16 - 1)
	}
	for in := s.array(); in && s.element(); {
		flags |= netobservFlags[string(s.string())]
	}
	return flags
}

// readNetworkEvents takes verdict and rules from what the cluster's policies had
// to say.
func readNetworkEvents(text []byte, flow *policies.Flow) error {
	if len(text) == 0 {
		return nil
	}
	var allowed, denied, byDestination bool
	s := scan{text: text, name: []byte("NetworkEvents")}
	for in := s.array(); in && s.element(); {
		if s.peek() != '{' {
			s.skip() // older versions have sentences for people
			continue
		}
		hit := policies.Hit{Rule: policies.UnknownRule}
		var feature, action, direction []byte
		for in := s.object(); in && s.field(); {
			switch string(s.name) {
			case "Feature":
				feature = s.string()
			case "Action":
				action = s.string()
			case "Direction":
				direction = s.string()
			case "Type":
				hit.Policy.Kind = string(s.string())
			case "Namespace":
				hit.Policy.Namespace = string(s.string())
			case "Name":
				hit.Policy.Name = string(s.string())
			default:
				s.skip()
			}
		}
		if len(feature) > 0 && string(feature) != "acl" {
			continue
		}
		switch string(action) {
		case "allow", "allow-related", "allow-stateless":
			hit.Action, allowed = policies.ActionAllow, true
			byDestination = byDestination || bytes.EqualFold(direction, []byte("ingress"))
		case "drop", "reject":
			hit.Action, denied = policies.ActionDeny, true
		case "pass":
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
	return s.end()
}

// peer returns an end by its names.
func (d *netobservDecoder) peer(e *netobservEnd) (policies.FlowPeer, error) {
	d.key = d.key[:0]
	for _, text := range [][]byte{e.kind, e.namespace, e.name, e.ownerKind, e.owner} {
		d.key = append(append(d.key, text...), 0)
	}
	p, err := d.peers.of(d.key, decodeNetobservPeer)
	p.Address = e.address
	return p.FlowPeer, err
}

func decodeNetobservPeer(key []byte) (peer, error) {
	parts := strings.Split(string(key), "\x00")
	if len(parts) != 6 {
		return peer{}, errors.New("a name has a zero byte in it")
	}
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
