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

var conntrackFormat = format{
	name:   "conntrack",
	what:   "it is no line of 'conntrack -L -o extended' or 'conntrack -E'",
	line:   isConntrack,
	decode: func(s *sink) decoder { return &conntrackDecoder{sink: s, counted: counted[conntrackKey]{}} },
}

// isConntrack knows a connection by its two addresses, and what else conntrack
// prints by its beginning.
func isConntrack(text []byte) bool {
	return bytes.Contains(text, []byte(" src=")) && bytes.Contains(text, []byte(" dst=")) ||
		bytes.HasPrefix(text, []byte("conntrack v")) || isConntrackXML(text)
}

func isConntrackXML(text []byte) bool {
	return bytes.HasPrefix(text, []byte("<?xml")) || bytes.HasPrefix(text, []byte("<conntrack>")) || bytes.HasPrefix(text, []byte("<flow"))
}

type conntrackDecoder struct {
	*sink
	counted counted[conntrackKey]
	words   []string
}

// conntrackKey is what makes a connection a different one to the kernel.
type conntrackKey struct {
	original conntrackTuple
	protocol netset.Protocol
	zone     uint16
}

// conntrackTuple is one direction of a connection.
type conntrackTuple struct {
	source, destination netip.Addr
	sourcePort, port    uint16
	kind, code          uint8 // of ICMP
}

// conntrackLine is one connection at one moment.
type conntrackLine struct {
	event     string // NEW, UPDATE, DESTROY; empty in a list
	at        time.Time
	protocol  netset.Protocol
	tuples    [2]conntrackTuple // original and reply
	bytes     [2]uint64
	packets   [2]uint64
	zone      uint16
	unreplied bool
}

func (d *conntrackDecoder) decode(text []byte) error {
	switch {
	case isConntrackXML(text):
		return errors.New("conntrack's XML is not read; record with 'conntrack -L -o extended', or 'conntrack -E -o extended,timestamp'")
	case bytes.HasPrefix(text, []byte("conntrack v")):
		d.leaveOut("conntrack's own summary")
		return nil
	}
	d.words = conntrackWords(d.words[:0], string(text))
	l, err := readConntrack(d.words)
	if err != nil {
		return err
	}
	key := conntrackKey{l.tuples[0], l.protocol, l.zone}
	switch _, known := d.counted[key]; {
	case l.event == "DESTROY":
		delete(d.counted, key)
		if known {
			d.leaveOut("end of a connection that was counted before")
			return nil
		}
	case l.event != "" && l.unreplied:
		d.leaveOut("event before an answer: the connection is counted when it is answered, or ends")
		return nil
	case l.event != "" && !d.counted.add(key):
		d.leaveOut("change of a connection that was counted before")
		return nil
	}
	flow := policies.Flow{
		First: l.at, Last: l.at, Protocol: l.protocol, Verdict: policies.Allow, EgressOnly: l.unreplied,
		Bytes: l.bytes[0], Packets: l.packets[0], ReplyBytes: l.bytes[1], ReplyPackets: l.packets[1],
	}
	// What the reply comes from is what the connection has reached, which behind
	// a Service is not what it was opened to.
	original, reply := l.tuples[0], l.tuples[1]
	flow.From.Address, flow.To.Address = original.source, reply.source
	flow.SourcePort, flow.Port = original.sourcePort, reply.sourcePort
	if l.protocol == netset.ICMP || l.protocol == netset.ICMPv6 {
		flow.SourcePort, flow.Port = 0, uint16(original.kind)<<8|uint16(original.code)
	}
	d.flow(flow)
	return nil
}

func readConntrack(words []string) (conntrackLine, error) {
	var l conntrackLine
	if len(words) > 0 && strings.HasPrefix(words[0], "[") {
		seconds, fraction, found := strings.Cut(strings.Trim(words[0], "[]"), ".")
		if found {
			at, err := number("timestamp", seconds, lastSecond)
			if err != nil {
				return l, err
			}
			micro, err := number("timestamp", fraction, 999999)
			if err != nil {
				return l, err
			}
			l.at, words = time.Unix(int64(at), int64(micro)*1000).UTC(), words[1:]
		}
	}
	if len(words) > 0 && strings.HasPrefix(words[0], "[") {
		l.event, words = strings.Trim(words[0], "[]"), words[1:]
		switch l.event {
		case "NEW", "UPDATE", "DESTROY":
		default:
			return l, fmt.Errorf("event %.40q is none of NEW, UPDATE, DESTROY", l.event)
		}
	}
	if len(words) > 1 && (words[0] == "ipv4" || words[0] == "ipv6") {
		words = words[2:]
	}
	if len(words) < 2 {
		return l, errors.New("line ends before the protocol's number")
	}
	n, err := number("protocol", words[1], 255)
	if err != nil {
		return l, err
	}
	l.protocol = netset.Protocol(n)
	side := -1
	for _, w := range words[2:] {
		key, value, pair := strings.Cut(w, "=")
		switch {
		case w == "[UNREPLIED]":
			l.unreplied = true
		case !pair, w[0] == '[':
		case key == "zone":
			zone, err := number(key, value, 65535)
			if err != nil {
				return l, err
			}
			l.zone = uint16(zone)
		case key == "src":
			side++
			fallthrough
		default:
			if err := l.set(side, key, value); err != nil {
				return l, err
			}
		}
	}
	for i, name := range []string{"original", "reply"} {
		if t := l.tuples[i]; !t.source.IsValid() || !t.destination.IsValid() {
			return l, fmt.Errorf("the %s direction has no src and dst", name)
		}
	}
	return l, nil
}

// set takes a field of one direction; what it does not know says nothing of who
// talks to whom.
func (l *conntrackLine) set(side int, key, value string) (err error) {
	if side < 0 {
		return nil
	}
	if side > 1 {
		return errors.New("there are more than two directions")
	}
	t := &l.tuples[side]
	var n uint64
	switch key {
	case "src":
		t.source, err = address(key, value)
	case "dst":
		t.destination, err = address(key, value)
	case "sport":
		n, err = number(key, value, 65535)
		t.sourcePort = uint16(n)
	case "dport":
		n, err = number(key, value, 65535)
		t.port = uint16(n)
	case "type":
		n, err = number(key, value, 255)
		t.kind = uint8(n)
	case "code":
		n, err = number(key, value, 255)
		t.code = uint8(n)
	case "bytes":
		l.bytes[side], err = number(key, value, 1<<64-1)
	case "packets":
		l.packets[side], err = number(key, value, 1<<64-1)
	}
	return err
}

// conntrackWords adds the words of a line; what stands in brackets is one word.
func conntrackWords(words []string, rest string) []string {
	for {
		rest = strings.TrimLeft(rest, " \t")
		if rest == "" {
			return words
		}
		end := strings.IndexAny(rest, " \t")
		if rest[0] == '[' {
			end = strings.IndexByte(rest, ']') + 1
		}
		if end <= 0 {
			end = len(rest)
		}
		words = append(words, rest[:end])
		rest = rest[end:]
	}
}
