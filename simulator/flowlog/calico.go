package flowlog

import (
	"bytes"
	"errors"
	"fmt"
)

// calicoFormat is the flow log of Calico Enterprise and Calico Cloud, as its
// nodes write it, and as Elasticsearch gives it back.
var calicoFormat = format{
	name:   "calico",
	what:   "it has no source_name_aggr and no dest_name_aggr",
	object: func(keys [][]byte) bool { return hasAny(keys, "source_name_aggr", "dest_name_aggr", "_source") },
	decode: func(s *sink) decoder { return &calicoDecoder{sink: s, reader: newCalicoReader(readLabels)} },
}

type calicoDecoder struct {
	*sink
	reader calicoReader
}

func (d *calicoDecoder) decode(record []byte) error {
	var r calicoRecord
	s := scan{text: record}
	r.takeCalico(&s)
	if err := s.end(); err != nil {
		return err
	}
	if !r.found {
		return errors.New("the record has no source_name_aggr and no dest_name_aggr, so it is no flow")
	}
	flow, err := d.reader.read(&r)
	if err != nil {
		return err
	}
	d.flow(flow)
	return nil
}

// takeCalico takes an object with the fields of a flow, or one in which such an
// object is the _source.
func (r *calicoRecord) takeCalico(s *scan) {
	for in := s.object(); in && s.field(); {
		switch string(s.name) {
		case "_source":
			r.takeCalico(s)
		case "start_time":
			r.start = s.word()
		case "end_time":
			r.end = s.word()
		case "action":
			r.takeAction(s)
		case "reporter":
			r.reporter = s.word()
		case "proto":
			r.protocol = s.word()
		case "source_type":
			r.source.kind = s.string()
		case "source_namespace":
			r.source.namespace = s.string()
		case "source_name":
			r.source.name = s.string()
		case "source_name_aggr":
			r.source.aggregate = s.string()
			r.found = true
		case "source_ip":
			r.source.address = s.string()
		case "source_port":
			r.sourcePort = uint16(s.uint(65535))
		case "source_labels":
			r.source.labels = s.raw()
		case "dest_type":
			r.dest.kind = s.string()
		case "dest_namespace":
			r.dest.namespace = s.string()
		case "dest_name":
			r.dest.name = s.string()
		case "dest_name_aggr":
			r.dest.aggregate = s.string()
			r.found = true
		case "dest_ip":
			r.dest.address = s.string()
		case "dest_port":
			r.destPort = uint16(s.uint(65535))
		case "dest_labels":
			r.dest.labels = s.raw()
		case "dest_domains":
			r.destDomains = s.raw()
		case "policies":
			r.policyTrace = s.raw()
		case "num_flows":
			r.count = s.uint(maxCount)
		case "bytes_in":
			r.bytesIn = s.uint(maxCount)
		case "bytes_out":
			r.bytesOut = s.uint(maxCount)
		case "packets_in":
			r.packetsIn = s.uint(maxCount)
		case "packets_out":
			r.packetsOut = s.uint(maxCount)
		default:
			s.skip()
		}
	}
}

// maxCount bounds a counter; Calico's have a sign.
const maxCount = 1<<63 - 1

// takeAction takes what was done, which a record says once.
func (r *calicoRecord) takeAction(s *scan) {
	before := r.action
	r.action = s.word()
	if before != nil && !bytes.Equal(before, r.action) {
		s.fail(fmt.Errorf("action is both %.40q and %.40q", before, r.action))
	}
}
