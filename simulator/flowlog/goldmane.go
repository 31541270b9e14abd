package flowlog

import (
	"bytes"
	"errors"
	"strings"
)

// goldmaneFormat is what Goldmane, the flow aggregator of open-source Calico,
// pushes and answers, and the rows that Whisker shows of it.
var goldmaneFormat = format{
	name: "goldmane",
	what: "it has no Key, and no source_name and dest_name with a reporter",
	object: func(keys [][]byte) bool {
		isRow := hasAll(keys, "source_name", "dest_name", "reporter") && !hasAny(keys, "source_name_aggr", "dest_name_aggr", "num_flows")
		return isRow || hasAll(keys, "id", "flow") || hasAny(keys, "Key", "key") && hasAny(keys, "start_time", "startTime")
	},
	line:   func(text []byte) bool { return bytes.HasPrefix(text, serverSent) },
	decode: func(s *sink) decoder { return &goldmaneDecoder{sink: s, reader: newCalicoReader(readLabels)} },
}

// serverSent stands before each row of a stream that Whisker sends.
var serverSent = []byte("data:")

type goldmaneDecoder struct {
	*sink
	reader calicoReader
}

func (d *goldmaneDecoder) decode(record []byte) error {
	var r calicoRecord
	s := scan{text: bytes.TrimPrefix(record, serverSent)}
	r.takeGoldmane(&s)
	if err := s.end(); err != nil {
		return err
	}
	if r.foreign || !r.found {
		return errors.New("the record has no source_name and no dest_name of Goldmane, so it is no flow")
	}
	flow, err := d.reader.read(&r)
	if err != nil {
		return err
	}
	d.flow(flow)
	return nil
}

// takeGoldmane takes a flow, or one within a result; its key, whose fields
// Whisker's rows have beside the others. Names are those of the protocol or, as
// protobuf prefers in JSON, without underscores.
func (r *calicoRecord) takeGoldmane(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "Key", "key", "flow":
			r.takeGoldmane(s)
		case "start_time", "startTime":
			r.start = s.word()
		case "end_time", "endTime":
			r.end = s.word()
		case "action":
			r.takeAction(s)
		case "reporter":
			r.reporter = s.word()
		case "proto", "protocol":
			r.protocol = s.word()
		case "source_type", "sourceType":
			r.source.kind = s.word()
		case "source_namespace", "sourceNamespace":
			r.source.namespace = s.string()
		case "source_name", "sourceName":
			r.source.aggregate = s.string()
			r.found = true
		case "source_labels", "sourceLabels":
			r.source.labels = s.raw()
		case "dest_type", "destType":
			r.dest.kind = s.word()
		case "dest_namespace", "destNamespace":
			r.dest.namespace = s.string()
		case "dest_name", "destName":
			r.dest.aggregate = s.string()
			r.found = true
		case "dest_labels", "destLabels":
			r.dest.labels = s.raw()
		case "dest_port", "destPort":
			r.destPort = uint16(s.uint(65535))
		case "policies":
			r.policyTrace = s.raw()
		case "num_connections_started", "numConnectionsStarted", "num_connections_completed", "numConnectionsCompleted",
			"num_connections_live", "numConnectionsLive":
			r.count = max(r.count, s.uint(maxCount))
		case "bytes_in", "bytesIn":
			r.bytesIn = s.uint(maxCount)
		case "bytes_out", "bytesOut":
			r.bytesOut = s.uint(maxCount)
		case "packets_in", "packetsIn":
			r.packetsIn = s.uint(maxCount)
		case "packets_out", "packetsOut":
			r.packetsOut = s.uint(maxCount)
		case "source_name_aggr", "dest_name_aggr", "num_flows":
			r.foreign = true
			s.skip()
		default:
			s.skip()
		}
	}
}

// goldmaneAction returns an action as policy strings write it; numbers are those
// of Goldmane's enum.
func goldmaneAction(text []byte) string {
	switch string(text) {
	case "1":
		return "allow"
	case "2":
		return "deny"
	case "3":
		return "pass"
	}
	return strings.ToLower(string(text))
}
