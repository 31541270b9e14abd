package flowlog

import (
	"bytes"
	"fmt"
	"strings"
)

// calicoTextFormat is the line that Calico's flow logs had before they were
// JSON: 24 fields between spaces, "-" for what was not recorded.
var calicoTextFormat = format{
	name:   "calico-text",
	what:   "it has not the 24 fields that begin with two times and a type of endpoint",
	line:   isCalicoText,
	decode: func(s *sink) decoder { return &calicoTextDecoder{sink: s, reader: newCalicoReader(readTextLabels)} },
}

// The fields of a line, in order.
const (
	textStart = iota
	textEnd
	textSource   // type, namespace, name, labels
	textDest     = iota + 3
	textSourceIP = iota + 6
	textDestIP
	textProtocol
	textSourcePort
	textDestPort
	textFlows
	textStarted
	textCompleted
	textReporter
	textPacketsIn
	textPacketsOut
	textBytesIn
	textBytesOut
	textAction
	textFields
)

func isCalicoText(line []byte) bool {
	fields := bytes.Fields(line)
	if len(fields) != textFields {
		return false
	}
	switch string(fields[textSource]) {
	case "wep", "hep", "ns", "net":
		return true
	}
	return false
}

type calicoTextDecoder struct {
	*sink
	reader calicoReader
}

func (d *calicoTextDecoder) decode(line []byte) error {
	var fields [textFields][]byte
	n := 0
	for field := range bytes.FieldsSeq(line) {
		if n < textFields {
			fields[n] = field
		}
		n++
	}
	if n != textFields {
		return fmt.Errorf("the line has %d fields, and not %d", n, textFields)
	}
	end := func(first, address int) calicoEnd {
		return calicoEnd{
			kind: fields[first], namespace: fields[first+1], aggregate: fields[first+2], labels: fields[first+3], address: fields[address],
		}
	}
	r := calicoRecord{
		start: fields[textStart], end: fields[textEnd], action: fields[textAction], reporter: fields[textReporter],
		protocol: fields[textProtocol], source: end(textSource, textSourceIP), dest: end(textDest, textDestIP),
	}
	var s scan
	number := func(name string, field int, most uint64) uint64 {
		if string(fields[field]) == "-" {
			return 0
		}
		return s.digitsOf([]byte(name), fields[field], most)
	}
	r.sourcePort, r.destPort = uint16(number("srcPort", textSourcePort, 65535)), uint16(number("dstPort", textDestPort, 65535))
	r.count = number("numFlows", textFlows, maxCount)
	r.packetsIn, r.packetsOut = number("packetsIn", textPacketsIn, maxCount), number("packetsOut", textPacketsOut, maxCount)
	r.bytesIn, r.bytesOut = number("bytesIn", textBytesIn, maxCount), number("bytesOut", textBytesOut, maxCount)
	if s.err != nil {
		return s.err
	}
	flow, err := d.reader.read(&r)
	if err != nil {
		return err
	}
	d.flow(flow)
	return nil
}

// readTextLabels reads "[key=value,key=value]".
func readTextLabels(text []byte) (map[string]string, error) {
	list := strings.TrimSuffix(strings.TrimPrefix(said(text), "["), "]")
	if list == "" {
		return nil, nil
	}
	return labelsOf(strings.Split(list, ","))
}
