package flowlog

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var azureVNetFormat = format{
	name:   "azure-vnet",
	what:   "it has no flowRecords",
	object: func(keys [][]byte) bool { return hasAny(keys, "flowRecords") },
	decode: func(s *sink) decoder { return newAzureDecoder(s, readVNetTuple) },
}

var azureNSGFormat = format{
	name: "azure-nsg",
	what: "it has no properties of a network security group's flows",
	object: func(keys [][]byte) bool {
		return hasAll(keys, "properties", "category") && hasAny(keys, "systemId", "macAddress")
	},
	decode: func(s *sink) decoder { return newAzureDecoder(s, readNSGTuple) },
}

// azureLine is what one network interface, or one network, saw in a minute: of
// virtual networks in flowRecords, of network security groups in properties.
type azureLine struct {
	category, mac   []byte
	hasFlows, isNSG bool
	groups          []azureTuples
}

// azureTuples is what was seen because of one rule.
type azureTuples struct {
	rule, mac string
	tuples    [][]byte
}

func (l *azureLine) take(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "category":
			l.category = s.string()
		case "macAddress":
			l.mac = s.string()
		case "flowRecords", "properties":
			l.hasFlows, l.isNSG = true, string(s.name) == "properties"
			l.takeGroups(s, azureTuples{})
		default:
			s.skip()
		}
	}
}

// takeGroups takes flows within flows; each level adds to what is known.
func (l *azureLine) takeGroups(s *scan, known azureTuples) {
	var inner [][]byte
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "rule":
			known.rule = string(s.string())
		case "mac":
			known.mac = string(s.string())
		case "flows", "flowGroups":
			for in := s.array(); in && s.element(); {
				inner = append(inner, s.raw())
			}
		case "flowTuples":
			for in := s.array(); in && s.element(); {
				known.tuples = append(known.tuples, s.string())
			}
		default:
			s.skip()
		}
	}
	if len(known.tuples) > 0 {
		l.groups = append(l.groups, known)
	}
	for _, text := range inner {
		within := scan{text: text, name: []byte("flows"), depth: s.depth}
		l.takeGroups(&within, azureTuples{rule: known.rule, mac: known.mac})
		if within.err != nil {
			s.fail(within.err)
		}
	}
}

const azureNSGCategory = "NetworkSecurityGroupFlowEvent"

// azureKey is what makes a connection a different one to an interface.
type azureKey struct {
	mac                 string
	source, destination netip.Addr
	sourcePort, port    uint16
	protocol            netset.Protocol
	inbound             bool
}

// azureTuple is one line about a connection.
type azureTuple struct {
	azureKey
	at    time.Time
	state byte // B, C, E or D; 0 in version 1, where a connection is told of once
	// There is a reason where a drop is not by a rule.
	reason                                   string
	bytes, packets, replyBytes, replyPackets uint64
}

func (t *azureTuple) flow(rule string) policies.Flow {
	f := policies.Flow{
		From: policies.FlowPeer{Address: t.source}, To: policies.FlowPeer{Address: t.destination},
		Protocol: t.protocol, Port: t.port, SourcePort: t.sourcePort,
		First: t.at, Last: t.at, Verdict: policies.Allow, Origin: policies.Origin{Reporter: policies.SourceSide},
	}
	if t.inbound {
		f.Origin.Reporter = policies.DestinationSide
	}
	action := policies.ActionAllow
	if t.state == 'D' {
		f.Verdict, action = policies.Deny, policies.ActionDeny
	}
	if rule != "" && rule != "unspecified" {
		f.Hits = []policies.Hit{{Policy: policies.Ref{Name: rule}, Action: action, Rule: policies.UnknownRule}}
	}
	t.addTo(&f)
	return f
}

// addTo counts what went over a connection since the tuple before.
func (t *azureTuple) addTo(f *policies.Flow) {
	f.Bytes += t.bytes
	f.Packets += t.packets
	f.ReplyBytes += t.replyBytes
	f.ReplyPackets += t.replyPackets
	if t.at.After(f.Last) {
		f.Last = t.at
	}
	f.EgressOnly = f.Verdict == policies.Allow && f.ReplyPackets == 0
}

// azureDecoder counts a connection once, by the first tuple that tells of it.
// Later tuples of the same record add what went over it.
type azureDecoder struct {
	*sink
	read    func(string) (azureTuple, error)
	counted counted[azureKey]

	flows []policies.Flow  // of the record at hand
	index map[azureKey]int // where they are
}

func newAzureDecoder(s *sink, read func(string) (azureTuple, error)) *azureDecoder {
	return &azureDecoder{sink: s, read: read, counted: counted[azureKey]{}, index: map[azureKey]int{}}
}

func (d *azureDecoder) decode(record []byte) error {
	var l azureLine
	s := scan{text: record}
	l.take(&s)
	switch err := s.end(); {
	case err != nil:
		return err
	case !l.hasFlows:
		return errors.New("there are no flowRecords and no properties")
	case l.isNSG && string(l.category) != azureNSGCategory:
		return fmt.Errorf("category %.60q is not %s", l.category, azureNSGCategory)
	}
	d.flows = d.flows[:0]
	clear(d.index)
	for _, group := range l.groups {
		group.mac = cmp.Or(group.mac, string(l.mac))
		for i, text := range group.tuples {
			t, err := d.read(string(text))
			if err != nil {
				d.bad(fmt.Errorf("flow tuple %d of rule %.60q: %w", i+1, group.rule, err))
				continue
			}
			t.mac = group.mac
			d.tuple(group.rule, &t)
		}
	}
	for _, f := range d.flows {
		d.flow(f)
	}
	return nil
}

func (d *azureDecoder) tuple(rule string, t *azureTuple) {
	if t.reason != "" {
		d.leaveOut("dropped, but not by policy: " + t.reason)
		return
	}
	isNew := true
	switch t.state {
	case 'B':
		d.counted.add(t.azureKey)
	case 'C':
		isNew = d.counted.add(t.azureKey)
	case 'E':
		isNew = d.counted.add(t.azureKey)
		delete(d.counted, t.azureKey)
	}
	if isNew {
		d.index[t.azureKey] = len(d.flows)
		d.flows = append(d.flows, t.flow(rule))
		return
	}
	if i, here := d.index[t.azureKey]; here {
		t.addTo(&d.flows[i])
	}
	d.leaveOut("more of a connection that was counted before")
}

// readVNetTuple reads "time,source,destination,source port,destination port,
// protocol,direction,state,encryption,packets,bytes,packets back,bytes back".
func readVNetTuple(text string) (azureTuple, error) {
	fields := strings.Split(text, ",")
	if len(fields) != 13 {
		return azureTuple{}, fmt.Errorf("there are %d fields, and should be 13", len(fields))
	}
	t, err := readAzureEnds(fields)
	if err != nil {
		return t, err
	}
	if t.protocol, err = protocol("protocol", fields[5], t.destination.Is6()); err != nil {
		return t, err
	}
	switch state := fields[7]; state {
	case "B", "C", "E", "D":
		t.state = state[0]
	default:
		return t, fmt.Errorf("flow state %.40q is none of B, C, E, D", state)
	}
	switch encryption := fields[8]; encryption {
	case "NX_NOT_ACCEPTED", "NX_NOT_SUPPORTED", "NX_SW_NOT_READY":
		if t.state == 'D' {
			t.reason = encryption
		}
	}
	err = t.count(fields[9:])
	return t, err
}

// readNSGTuple reads "time,source,destination,source port,destination port,
// protocol,direction,decision", to which version 2 adds "state,packets,bytes,
// packets back,bytes back".
func readNSGTuple(text string) (azureTuple, error) {
	fields := strings.Split(text, ",")
	if len(fields) != 8 && len(fields) != 13 {
		return azureTuple{}, fmt.Errorf("there are %d fields, and should be 8 or 13", len(fields))
	}
	t, err := readAzureEnds(fields)
	if err != nil {
		return t, err
	}
	switch fields[5] {
	case "T":
		t.protocol = netset.TCP
	case "U":
		t.protocol = netset.UDP
	default:
		return t, fmt.Errorf("protocol %.40q is neither T nor U", fields[5])
	}
	if len(fields) == 13 {
		switch state := fields[8]; state {
		case "B", "C", "E":
			t.state = state[0]
		case "":
		default:
			return t, fmt.Errorf("flow state %.40q is none of B, C, E", state)
		}
		if err := t.count(fields[9:]); err != nil {
			return t, err
		}
	}
	switch decision := fields[7]; decision {
	case "A":
	case "D":
		t.state = 'D'
	default:
		return t, fmt.Errorf("decision %.40q is neither A nor D", decision)
	}
	return t, nil
}

// readAzureEnds reads what both kinds of tuple begin with.
func readAzureEnds(fields []string) (t azureTuple, err error) {
	at, err := number("time", fields[0], lastSecond*1000)
	if err != nil {
		return t, err
	}
	// Seconds in older versions, milliseconds since; nothing was recorded in
	// what would be the first months of 1970 by the other reading.
	t.at = time.UnixMilli(int64(at)).UTC()
	if at < 1e11 {
		t.at = time.Unix(int64(at), 0).UTC()
	}
	if t.source, err = address("source", fields[1]); err != nil {
		return t, err
	}
	if t.destination, err = address("destination", fields[2]); err != nil {
		return t, err
	}
	from, err := number("source port", fields[3], 65535)
	if err != nil {
		return t, err
	}
	to, err := number("destination port", fields[4], 65535)
	if err != nil {
		return t, err
	}
	t.sourcePort, t.port = uint16(from), uint16(to)
	switch direction := fields[6]; direction {
	case "I", "O":
		t.inbound = direction == "I"
	default:
		return t, fmt.Errorf("direction %.40q is neither I nor O", direction)
	}
	return t, nil
}

// count reads the packets and bytes of both directions, which are empty or 0
// where a connection begins.
func (t *azureTuple) count(fields []string) (err error) {
	names := [...]string{"packets", "bytes", "packets back", "bytes back"}
	for i, n := range []*uint64{&t.packets, &t.bytes, &t.replyPackets, &t.replyBytes} {
		if fields[i] == "" {
			continue
		}
		if *n, err = number(names[i], fields[i], 1<<48); err != nil {
			return err
		}
	}
	return nil
}
