package flowlog

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/weir-policy/weir/policies"
)

var otlpFormat = format{
	name: "otlp",
	what: "it has no resourceLogs, scopeLogs, or attributes of a log record",
	object: func(keys [][]byte) bool {
		return hasAny(keys, "resourceLogs", "scopeLogs") || hasAll(keys, "attributes", "timeUnixNano")
	},
	decode: func(s *sink) decoder { return &otlpDecoder{sink: s} },
	magic:  isOTLPFile,
	read:   readOTLPFile,
}

// The attributes of a flow, as Weir names them: the names of OpenTelemetry and
// of the Elastic Common Schema. Those of an end stand behind otlpSource or
// otlpDestination; of Kubernetes objects they are those of OpenTelemetry's
// resources.
const (
	otlpSource      = "source."
	otlpDestination = "destination."

	otlpAddress   = "address"
	otlpPort      = "port"
	otlpBytes     = "bytes"
	otlpPackets   = "packets"
	otlpNamespace = "k8s.namespace.name"
	otlpPod       = "k8s.pod.name"
	otlpNode      = "k8s.node.name"
	otlpOwnerKind = "k8s.owner.kind"
	otlpOwnerName = "k8s.owner.name"
	otlpLabel     = "k8s.pod.label." // and the label's key

	otlpTransport = "network.transport"
	otlpFamily    = "network.type"
	otlpDirection = "network.direction"
	otlpAction    = "event.action"
	otlpType      = "event.type"
	otlpOutcome   = "event.outcome"
	otlpStart     = "event.start"
	otlpFinish    = "event.end"
	otlpRule      = "rule.name"
)

// otlpAliases are other names in use, and what they are here.
var otlpAliases = map[string]string{
	"source.ip": otlpSource + otlpAddress, "destination.ip": otlpDestination + otlpAddress,
	"source.domain": otlpSource + otlpAddress, "destination.domain": otlpDestination + otlpAddress,
	"network.iana_number": otlpTransport, "network.io.direction": otlpDirection,
}

// otlpOwners are the attributes that name a pod's owner, outermost first, and
// the owner's kind.
var otlpOwners = []struct{ attribute, kind string }{
	{"k8s.deployment.name", "Deployment"},
	{"k8s.statefulset.name", "StatefulSet"},
	{"k8s.daemonset.name", "DaemonSet"},
	{"k8s.cronjob.name", "CronJob"},
	{"k8s.job.name", "Job"},
	{"k8s.replicaset.name", "ReplicaSet"},
}

// otlpLogs are the logs of a resource.
type otlpLogs struct {
	resource []otlpAttribute
	records  []otlpRecord
}

type otlpRecord struct {
	time, observed uint64 // in nanoseconds
	attributes     []otlpAttribute
}

// otlpAttribute has its value as text; a value of several parts names no end of a
// flow, and is empty.
type otlpAttribute struct{ key, value string }

type otlpDecoder struct{ *sink }

// decode reads the logs of many resources, of one, or a single log record.
func (d *otlpDecoder) decode(record []byte) error {
	var all []otlpLogs
	var one otlpLogs
	var single otlpRecord
	found := false
	s := scan{text: record}
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "resourceLogs":
			found = true
			for in := s.array(); in && s.element(); {
				all = append(all, otlpLogs{})
				all[len(all)-1].take(&s)
			}
		case "resource", "scopeLogs":
			found = true
			one.takeField(&s)
		default:
			found = single.takeField(&s) || found
		}
	}
	if err := s.end(); err != nil {
		return err
	}
	if !found {
		return errors.New("there are no resourceLogs, scopeLogs or attributes")
	}
	if single.attributes != nil {
		return d.record(&single, one.resource)
	}
	for _, logs := range append(all, one) {
		d.logs(&logs)
	}
	return nil
}

func (l *otlpLogs) take(s *scan) {
	for in := s.object(); in && s.field(); {
		l.takeField(s)
	}
}

func (l *otlpLogs) takeField(s *scan) {
	switch string(s.name) {
	case "resource":
		for in := s.object(); in && s.field(); {
			if string(s.name) == "attributes" {
				l.resource = takeOTLPAttributes(s)
			} else {
				s.skip()
			}
		}
	case "scopeLogs":
		for in := s.array(); in && s.element(); {
			for in := s.object(); in && s.field(); {
				if string(s.name) != "logRecords" {
					s.skip()
					continue
				}
				for in := s.array(); in && s.element(); {
					l.records = append(l.records, otlpRecord{})
					for in := s.object(); in && s.field(); {
						l.records[len(l.records)-1].takeField(s)
					}
				}
			}
		}
	default:
		s.skip()
	}
}

// takeField takes a field of a log record, and reports whether it is its
// attributes.
func (r *otlpRecord) takeField(s *scan) bool {
	switch string(s.name) {
	case "timeUnixNano":
		r.time = s.uint(math.MaxInt64)
	case "observedTimeUnixNano":
		r.observed = s.uint(math.MaxInt64)
	case "attributes":
		r.attributes = takeOTLPAttributes(s)
		return true
	default:
		s.skip()
	}
	return false
}

func takeOTLPAttributes(s *scan) []otlpAttribute {
	attributes := []otlpAttribute{}
	for in := s.array(); in && s.element(); {
		var a otlpAttribute
		for in := s.object(); in && s.field(); {
			switch string(s.name) {
			case "key":
				a.key = string(s.string())
			case "value":
				a.value = takeOTLPValue(s)
			default:
				s.skip()
			}
		}
		attributes = append(attributes, a)
	}
	return attributes
}

// takeOTLPValue takes a string, a number, or a list of one of them.
func takeOTLPValue(s *scan) (text string) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "stringValue":
			text = string(s.string())
		case "intValue":
			text = string(s.word())
		case "doubleValue":
			text = otlpDouble(s.float())
		case "arrayValue":
			n := 0
			for in := s.object(); in && s.field(); {
				if string(s.name) != "values" {
					s.skip()
					continue
				}
				for in := s.array(); in && s.element(); {
					text = takeOTLPValue(s)
					n++
				}
			}
			if n != 1 {
				text = ""
			}
		default:
			s.skip()
		}
	}
	return text
}

// otlpDouble writes a number as it would be written if it were a whole one.
func otlpDouble(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }

func (d *otlpDecoder) logs(logs *otlpLogs) {
	for i := range logs.records {
		if err := d.record(&logs.records[i], logs.resource); err != nil {
			d.bad(err)
		}
	}
}

// record hands over what becomes of a log record.
func (d *otlpDecoder) record(r *otlpRecord, resource []otlpAttribute) error {
	fields := otlpFields{}
	for _, a := range r.attributes {
		fields.add(a.key, a.value)
	}
	if fields[otlpSource+otlpAddress] == "" && fields[otlpDestination+otlpAddress] == "" {
		d.leaveOut("log record without source and destination")
		return nil
	}
	reporter, err := fields.reporter()
	if err != nil {
		return err
	}
	// A resource is who recorded: of an end's own record, that end.
	own := map[policies.Reporter]string{policies.SourceSide: otlpSource, policies.DestinationSide: otlpDestination}[reporter]
	for _, a := range resource {
		if own != "" && strings.HasPrefix(a.key, "k8s.") {
			fields.add(own+a.key, a.value)
		}
	}
	flow, err := fields.flow()
	if err != nil {
		return err
	}
	flow.Origin.Reporter = reporter
	if at := cmp.Or(r.time, r.observed); flow.First.IsZero() && at != 0 {
		flow.First = time.Unix(0, int64(at)).UTC()
		flow.Last = flow.First
	}
	d.flow(flow)
	return nil
}

// otlpFields is what the attributes of a log record say, by Weir's names.
type otlpFields map[string]string

// add takes an attribute; the first of several names wins, an address over a
// name.
func (f otlpFields) add(name, value string) {
	if alias, ok := otlpAliases[name]; ok {
		name = alias
	}
	known, ok := f[name]
	_, notIP := netip.ParseAddr(known)
	_, isName := netip.ParseAddr(value)
	if isAddress := strings.HasSuffix(name, "."+otlpAddress); !ok || isAddress && notIP != nil && isName == nil {
		f[name] = value
	}
}

// reporter is whose record it is.
func (f otlpFields) reporter() (policies.Reporter, error) {
	switch direction := strings.ToLower(f[otlpDirection]); direction {
	case "ingress", "inbound", "receive":
		return policies.DestinationSide, nil
	case "egress", "outbound", "transmit":
		return policies.SourceSide, nil
	case "", "internal", "external", "unknown":
		return policies.UnknownReporter, nil
	default:
		return 0, fmt.Errorf("%s %.40q is none of ingress, egress, inbound, outbound, internal, external, receive, transmit", otlpDirection, direction)
	}
}

func (f otlpFields) flow() (flow policies.Flow, err error) {
	for _, end := range []struct {
		prefix         string
		peer           *policies.FlowPeer
		port           *uint16
		bytes, packets *uint64
	}{
		{otlpSource, &flow.From, &flow.SourcePort, &flow.Bytes, &flow.Packets},
		{otlpDestination, &flow.To, &flow.Port, &flow.ReplyBytes, &flow.ReplyPackets},
	} {
		*end.peer = f.peer(end.prefix)
		var port uint64
		for _, field := range []struct {
			name string
			most uint64
			n    *uint64
		}{{otlpPort, 65535, &port}, {otlpBytes, 1<<64 - 1, end.bytes}, {otlpPackets, 1<<64 - 1, end.packets}} {
			if text := f[end.prefix+field.name]; text != "" {
				if *field.n, err = number(end.prefix+field.name, text, field.most); err != nil {
					return flow, err
				}
			}
		}
		*end.port = uint16(port)
	}
	ipv6 := f[otlpFamily] == "ipv6" || flow.From.Address.Is6() || flow.To.Address.Is6()
	if flow.Protocol, err = protocol(otlpTransport, f[otlpTransport], ipv6); err != nil {
		return flow, err
	}
	flow.Verdict = f.verdict()
	if rule := f[otlpRule]; rule != "" {
		hit := policies.Hit{Policy: policies.Ref{Name: rule}, Rule: policies.UnknownRule}
		hit.Action = map[policies.Verdict]policies.Action{policies.Allow: policies.ActionAllow, policies.Deny: policies.ActionDeny}[flow.Verdict]
		flow.Hits = []policies.Hit{hit}
	}
	first, err := otlpTime(otlpStart, f[otlpStart])
	if err != nil {
		return flow, err
	}
	last, err := otlpTime(otlpFinish, f[otlpFinish])
	if err != nil {
		return flow, err
	}
	err = span(&flow, first, last)
	return flow, err
}

// verdict is what the first of the fields says that says any.
func (f otlpFields) verdict() policies.Verdict {
	for _, name := range []string{otlpAction, otlpType, otlpOutcome} {
		switch strings.ToLower(f[name]) {
		case "allow", "allowed", "accept", "accepted", "permit", "permitted", "pass", "success":
			return policies.Allow
		case "deny", "denied", "drop", "dropped", "reject", "rejected", "block", "blocked", "failure":
			return policies.Deny
		}
	}
	return policies.Unknown
}

func (f otlpFields) peer(prefix string) policies.FlowPeer {
	p := policies.FlowPeer{Namespace: f[prefix+otlpNamespace], Pod: f[prefix+otlpPod]}
	p.Host = p.Pod == "" && f[prefix+otlpNode] != ""
	if text := f[prefix+otlpAddress]; text != "" {
		if a, err := netip.ParseAddr(text); err == nil {
			p.Address = a.Unmap().WithZone("")
		} else {
			p.Names = []string{text}
		}
	}
	if kind, name := f[prefix+otlpOwnerKind], f[prefix+otlpOwnerName]; kind != "" && name != "" {
		p.Workloads = []policies.Ref{{Kind: kind, Namespace: p.Namespace, Name: name}}
	}
	for _, owner := range otlpOwners {
		if name := f[prefix+owner.attribute]; name != "" && len(p.Workloads) == 0 {
			p.Workloads = []policies.Ref{{Kind: owner.kind, Namespace: p.Namespace, Name: name}}
		}
	}
	for name, value := range f {
		if key, ok := strings.CutPrefix(name, prefix+otlpLabel); ok && key != "" {
			if p.Labels == nil {
				p.Labels, p.LabelsPartial = map[string]string{}, true
			}
			p.Labels[key] = value
		}
	}
	return p
}

// otlpTime reads a time as text, or in nanoseconds since 1970.
func otlpTime(field, text string) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > 0 {
		return time.Unix(0, n).UTC(), nil
	}
	at, ok := parseTime([]byte(text))
	if !ok {
		return at, fmt.Errorf("%s %.40q is not a time such as 2026-03-10T12:00:00Z", field, text)
	}
	return at, nil
}

// A file in protobuf holds one message of log data, or several with their
// lengths in four bytes before them, as the Collector's file exporter writes.

// The numbers of the fields that are read.
const (
	otlpResourceLogsField = 1 // in LogsData
	otlpResourceField     = 1 // in ResourceLogs
	otlpScopeLogsField    = 2
	otlpLogRecordsField   = 2 // in ScopeLogs
	otlpTimeField         = 1 // in LogRecord
	otlpAttributesField   = 6
	otlpObservedField     = 11
)

// isOTLPFile reports whether a file begins with nested messages whose lengths
// fit into each other.
func isOTLPFile(head []byte) bool {
	if len(head) > 4 && head[0] < otlpMaxMessage>>24 {
		if size := binary.BigEndian.Uint32(head); size >= 2 && head[4] == 0x0a {
			return fitsOTLP(head[4:], int(size))
		}
	}
	return fitsOTLP(head, math.MaxInt32)
}

// fitsOTLP reports whether the first field of a message of a size is
// ResourceLogs, with a field of ResourceLogs inside.
func fitsOTLP(head []byte, size int) bool {
	inner, ok := enter(head, size, otlpResourceLogsField)
	if !ok {
		return false
	}
	within, length := inner.head, inner.size
	if resource, ok := enter(within, length, otlpResourceField); ok {
		_, ok = enter(resource.head, resource.size, 1)
		return ok || resource.size == 0
	}
	_, ok = enter(within, length, otlpScopeLogsField)
	return ok
}

type nested struct {
	head []byte
	size int
}

// enter returns the inside of the message that is the first field.
func enter(head []byte, size int, field protowire.Number) (nested, bool) {
	number, kind, n := protowire.ConsumeTag(head)
	if n < 0 || number != field || kind != protowire.BytesType {
		return nested{}, false
	}
	length, m := protowire.ConsumeVarint(head[n:])
	if m < 0 || length > uint64(max(0, size-n-m)) {
		return nested{}, false
	}
	return nested{head[n+m:], int(length)}, true
}

// otlpMaxMessage bounds one message of log data, or of the logs of a resource.
const otlpMaxMessage = 64 << 20

func readOTLPFile(r io.Reader, s *sink) error {
	in := bufio.NewReader(r)
	d := &otlpDecoder{sink: s}
	head, _ := in.Peek(1)
	framed := len(head) > 0 && head[0] != 0x0a
	for number := 1; s.next(number); number++ {
		message, err := nextOTLP(in, framed)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return policies.Problem{Place: s.at, Message: "protobuf ends or is damaged in this message: " + err.Error()}
		}
		if framed {
			err = eachProto(message, func(field protowire.Number, v protoValue) error {
				if field != otlpResourceLogsField {
					return nil
				}
				return d.protoLogs(v.bytes)
			})
		} else {
			err = d.protoLogs(message)
		}
		if err != nil {
			s.bad(err)
		}
	}
	return nil
}

// nextOTLP reads the next message: log data behind its length, or else the logs
// of a resource.
func nextOTLP(in *bufio.Reader, framed bool) ([]byte, error) {
	var size uint64
	if framed {
		var length [4]byte
		if _, err := io.ReadFull(in, length[:]); err != nil {
			return nil, err
		}
		size = uint64(binary.BigEndian.Uint32(length[:]))
	} else {
		tag, err := in.ReadByte()
		if err != nil {
			return nil, err
		}
		if tag != 0x0a {
			return nil, errors.New("a field that is none of log data")
		}
		if size, err = binary.ReadUvarint(in); err != nil {
			return nil, noEOF(err)
		}
	}
	if size > otlpMaxMessage {
		return nil, fmt.Errorf("a message of %d bytes is larger than %d MiB", size, otlpMaxMessage>>20)
	}
	// Read as it comes: the length may be a lie.
	message, err := io.ReadAll(io.LimitReader(in, int64(size)))
	if err == nil && uint64(len(message)) < size {
		err = io.ErrUnexpectedEOF
	}
	return message, err
}

func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// protoLogs reads the logs of a resource.
func (d *otlpDecoder) protoLogs(message []byte) error {
	var logs otlpLogs
	err := eachProto(message, func(field protowire.Number, v protoValue) error {
		switch field {
		case otlpResourceField:
			return eachProto(v.bytes, func(field protowire.Number, v protoValue) error {
				if field != 1 {
					return nil
				}
				return addProtoAttribute(&logs.resource, v.bytes)
			})
		case otlpScopeLogsField:
			return eachProto(v.bytes, func(field protowire.Number, v protoValue) error {
				if field != otlpLogRecordsField {
					return nil
				}
				logs.records = append(logs.records, otlpRecord{})
				return readProtoRecord(v.bytes, &logs.records[len(logs.records)-1])
			})
		}
		return nil
	})
	if err == nil {
		d.logs(&logs)
	}
	return err
}

func readProtoRecord(message []byte, r *otlpRecord) error {
	return eachProto(message, func(field protowire.Number, v protoValue) error {
		switch field {
		case otlpTimeField:
			r.time = min(v.number, math.MaxInt64)
		case otlpObservedField:
			r.observed = min(v.number, math.MaxInt64)
		case otlpAttributesField:
			return addProtoAttribute(&r.attributes, v.bytes)
		}
		return nil
	})
}

func addProtoAttribute(attributes *[]otlpAttribute, message []byte) error {
	var a otlpAttribute
	err := eachProto(message, func(field protowire.Number, v protoValue) (err error) {
		switch field {
		case 1:
			a.key = clean(v.bytes)
		case 2:
			a.value, err = readProtoAny(v.bytes)
		}
		return err
	})
	*attributes = append(*attributes, a)
	return err
}

func readProtoAny(message []byte) (text string, err error) {
	err = eachProto(message, func(field protowire.Number, v protoValue) error {
		switch field {
		case 1:
			text = clean(v.bytes)
		case 3:
			text = strconv.FormatInt(int64(v.number), 10)
		case 4:
			text = otlpDouble(math.Float64frombits(v.number))
		}
		return nil
	})
	return text, err
}

// protoValue is the value of a field: bytes, or else a number.
type protoValue struct {
	bytes  []byte
	number uint64
}

// eachProto calls each for every field of a message.
func eachProto(message []byte, each func(protowire.Number, protoValue) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("not valid protobuf: %w", protowire.ParseError(n))
		}
		message = message[n:]
		var v protoValue
		switch kind {
		case protowire.BytesType:
			v.bytes, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			v.number, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			v.number, n = protowire.ConsumeFixed64(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return fmt.Errorf("not valid protobuf: %w", protowire.ParseError(n))
		}
		if err := each(field, v); err != nil {
			return err
		}
		message = message[n:]
	}
	return nil
}
