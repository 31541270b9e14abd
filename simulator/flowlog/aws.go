package flowlog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var awsFormat = format{
	name:   "aws-vpc",
	what:   "it is no line of the 14 fields of version 2, and no header row stands before it",
	line:   func(text []byte) bool { return isAWSDefault(text) || isAWSHeader(text) },
	decode: func(s *sink) decoder { return &awsDecoder{sink: s} },
}

// awsRecord is one record of an AWS VPC flow log, as far as Weir reads it.
type awsRecord struct {
	source, destination             netip.Addr // of the interface
	packetSource, packetDestination netip.Addr // as they stand in the packets
	sourcePort, port, protocol      awsNumber
	packets, bytes, start, end      awsNumber
	flags                           awsNumber
	action, status, direction       []byte
	reason                          []byte
	cluster, service                []byte
}

type awsNumber struct {
	uint64
	recorded bool
}

// awsColumn says how the values of one field are read: as one of an address, a
// number and a word.
type awsColumn struct {
	name    string
	address func(*awsRecord) *netip.Addr
	number  func(*awsRecord) *awsNumber
	most    uint64
	word    func(*awsRecord) *[]byte
}

var awsColumns = []awsColumn{
	{name: "srcaddr", address: func(r *awsRecord) *netip.Addr { return &r.source }},
	{name: "dstaddr", address: func(r *awsRecord) *netip.Addr { return &r.destination }},
	{name: "pkt-srcaddr", address: func(r *awsRecord) *netip.Addr { return &r.packetSource }},
	{name: "pkt-dstaddr", address: func(r *awsRecord) *netip.Addr { return &r.packetDestination }},
	{name: "srcport", number: func(r *awsRecord) *awsNumber { return &r.sourcePort }, most: 65535},
	{name: "dstport", number: func(r *awsRecord) *awsNumber { return &r.port }, most: 65535},
	{name: "protocol", number: func(r *awsRecord) *awsNumber { return &r.protocol }, most: 255},
	{name: "packets", number: func(r *awsRecord) *awsNumber { return &r.packets }, most: 1<<64 - 1},
	{name: "bytes", number: func(r *awsRecord) *awsNumber { return &r.bytes }, most: 1<<64 - 1},
	{name: "start", number: func(r *awsRecord) *awsNumber { return &r.start }, most: lastSecond},
	{name: "end", number: func(r *awsRecord) *awsNumber { return &r.end }, most: lastSecond},
	{name: "tcp-flags", number: func(r *awsRecord) *awsNumber { return &r.flags }, most: 255},
	{name: "action", word: func(r *awsRecord) *[]byte { return &r.action }},
	{name: "log-status", word: func(r *awsRecord) *[]byte { return &r.status }},
	{name: "flow-direction", word: func(r *awsRecord) *[]byte { return &r.direction }},
	{name: "reject-reason", word: func(r *awsRecord) *[]byte { return &r.reason }},
	{name: "ecs-cluster-name", word: func(r *awsRecord) *[]byte { return &r.cluster }},
	{name: "ecs-service-name", word: func(r *awsRecord) *[]byte { return &r.service }},
}

// awsColumnOf returns the column of a field, or nil for one that Weir does not
// read. Tables have underscores where text files have hyphens.
func awsColumnOf(field string) *awsColumn {
	field = strings.ReplaceAll(field, "_", "-")
	if i := slices.IndexFunc(awsColumns, func(c awsColumn) bool { return c.name == field }); i >= 0 {
		return &awsColumns[i]
	}
	return nil
}

// set takes the text of a value, which must stay as it is while r is used.
func (c *awsColumn) set(r *awsRecord, text []byte) (err error) {
	switch {
	case string(text) == "-":
	case c.address != nil:
		*c.address(r), err = address(c.name, text)
	case c.number != nil:
		n := c.number(r)
		n.uint64, err = number(c.name, text, c.most)
		n.recorded = err == nil
	default:
		*c.word(r) = text
	}
	return err
}

var awsDefault = awsLayout([]byte("version account-id interface-id srcaddr dstaddr srcport dstport protocol packets bytes start end action log-status"))

// awsLayout returns the columns that a header row names.
func awsLayout(header []byte) []*awsColumn {
	var columns []*awsColumn
	for field := range bytes.FieldsSeq(header) {
		columns = append(columns, awsColumnOf(string(field)))
	}
	return columns
}

// isAWSHeader reports whether all fields of a line are names, and two of them
// known ones.
func isAWSHeader(text []byte) bool {
	known := 0
	for field := range bytes.FieldsSeq(text) {
		if field[0] < 'a' || field[0] > 'z' {
			return false
		}
		if awsColumnOf(string(field)) != nil {
			known++
		}
	}
	return known >= 2
}

func isAWSDefault(text []byte) bool {
	text = awsUnstamped(text)
	if !bytes.HasPrefix(text, []byte("2 ")) || bytes.Count(text, []byte(" ")) != len(awsDefault)-1 {
		return false
	}
	switch string(text[bytes.LastIndexByte(text, ' ')+1:]) {
	case "OK", "NODATA", "SKIPDATA":
		return true
	}
	return false
}

// awsUnstamped is a line without the time of its arrival, which an export of
// CloudWatch Logs puts before it.
func awsUnstamped(text []byte) []byte {
	stamp, rest, found := bytes.Cut(text, []byte("Z "))
	if found && len(stamp) >= len("2026-03-10T12:00:00") && stamp[4] == '-' && stamp[10] == 'T' && bytes.IndexByte(stamp, ' ') < 0 {
		return rest
	}
	return text
}

type awsDecoder struct {
	*sink
	columns []*awsColumn // as the last header row has them
}

func (d *awsDecoder) decode(text []byte) error {
	text = awsUnstamped(text)
	if isAWSHeader(text) {
		d.columns = awsLayout(text)
		d.leaveOut("header row")
		return nil
	}
	columns := d.columns
	if columns == nil {
		columns = awsDefault
	}
	var r awsRecord
	n := 0
	for field := range bytes.FieldsSeq(text) {
		if n < len(columns) && columns[n] != nil {
			if err := columns[n].set(&r, field); err != nil {
				return err
			}
		}
		n++
	}
	if n != len(columns) {
		return fmt.Errorf("line has %d fields, and should have %d", n, len(columns))
	}
	return d.take(&r)
}

// take hands over what becomes of a record.
func (d *awsDecoder) take(r *awsRecord) error {
	switch string(r.status) {
	case "NODATA":
		d.leaveOut("NODATA: no traffic in the time of the record")
		return nil
	case "SKIPDATA":
		d.stats.Lost++
		d.leaveOut("SKIPDATA: report of lost records")
		return nil
	}
	flow := policies.Flow{
		From: policies.FlowPeer{Address: r.source}, To: policies.FlowPeer{Address: r.destination},
		Protocol: netset.Protocol(r.protocol.uint64), Port: uint16(r.port.uint64), SourcePort: uint16(r.sourcePort.uint64),
		Packets: r.packets.uint64, Bytes: r.bytes.uint64,
	}
	if r.packetSource.IsValid() {
		flow.From.Address = r.packetSource
	}
	if r.packetDestination.IsValid() {
		flow.To.Address = r.packetDestination
	}
	var first, last time.Time
	if r.start.recorded {
		first = time.Unix(int64(r.start.uint64), 0)
	}
	if r.end.recorded {
		last = time.Unix(int64(r.end.uint64), 0)
	}
	if err := span(&flow, first, last); err != nil {
		return err
	}
	own := &policies.FlowPeer{}
	switch direction := string(r.direction); direction {
	case "ingress":
		flow.Origin.Reporter, own = policies.DestinationSide, &flow.To
	case "egress":
		flow.Origin.Reporter, own = policies.SourceSide, &flow.From
	case "":
	default:
		return fmt.Errorf("flow-direction %.40q is neither ingress nor egress", direction)
	}
	if len(r.service) > 0 {
		own.Names = []string{"ecs " + cmp.Or(clean(r.cluster), "-") + "/" + clean(r.service)}
	}
	leftOut, err := r.judge(&flow)
	switch {
	case err != nil:
		return err
	case leftOut != "":
		d.leaveOut(leftOut)
	default:
		d.flow(flow)
	}
	return nil
}

// judge gives the flow its verdict and its direction, or says why the record is
// no flow of its own.
//
// Security groups and network ACLs accept before a Kubernetes policy of the
// destination has its say, so what they accept is proof for both sides only
// where the destination has answered.
func (r *awsRecord) judge(flow *policies.Flow) (leftOut string, err error) {
	told := flow.Protocol == netset.TCP && r.flags.recorded
	syn, ack := told && r.flags.uint64&tcpSYN != 0, r.flags.uint64&tcpACK != 0
	switch action := string(r.action); {
	case action == "REJECT" && len(r.reason) > 0:
		return "rejected, but not by policy: " + string(r.reason), nil
	case action == "REJECT" && syn && ack:
		return "rejected reply: it says nothing about the request", nil
	case action == "REJECT":
		flow.Verdict = policies.Deny
	case action == "":
		flow.Verdict = policies.Unknown
	case action != "ACCEPT":
		return "", errors.New("action " + fmt.Sprintf("%.40q", action) + " is neither ACCEPT nor REJECT")
	case told && !syn:
		flow.Verdict = policies.Unknown // nobody knows who opened the connection
	default:
		flow.Verdict = policies.Allow
		flow.EgressOnly = !(syn && (ack || r.flags.uint64&tcpFIN != 0))
	}
	if syn && ack {
		turnRound(flow)
	}
	return "", nil
}
