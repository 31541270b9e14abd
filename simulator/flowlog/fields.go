package flowlog

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// number reads the whole number in a field, at most most.
func number[T ~string | ~[]byte](field string, text T, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(string(text), 10, 64)
	if err != nil || n > most {
		return 0, fmt.Errorf("%s %.40q is no whole number from 0 to %d", field, text, most)
	}
	return n, nil
}

// address reads the IP address in a field.
func address[T ~string | ~[]byte](field string, text T) (netip.Addr, error) {
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %.60q is no IP address", field, text)
	}
	return a.Unmap().WithZone(""), nil
}

// protocol reads the name or number of a protocol in a field. ICMP is that of
// the family in which it is spoken.
func protocol(field, text string, ipv6 bool) (netset.Protocol, error) {
	switch strings.ToLower(text) {
	case "":
		return 0, nil
	case "icmp6", "ipv6-icmp":
		return netset.ICMPv6, nil
	case "icmp":
		if ipv6 {
			return netset.ICMPv6, nil
		}
	case "gre":
		return 47, nil
	case "esp":
		return 50, nil
	case "ah":
		return 51, nil
	case "igmp":
		return 2, nil
	case "dccp":
		return 33, nil
	case "udplite":
		return 136, nil
	}
	p, err := netset.ParseProtocol(text)
	if err != nil {
		return 0, fmt.Errorf("%s %.40q is none of TCP, UDP, SCTP, ICMP, ICMPv6 or a number up to 255", field, text)
	}
	return p, nil
}

// clean is text as JSON can write it.
func clean(text []byte) string { return strings.ToValidUTF8(string(text), "\ufffd") }

// lastSecond is the end of the year 9999, behind which JSON has no times.
const lastSecond = 253402300799

// span says when a flow was seen, in a record that aggregates from first to
// last. Where one is zero, the other stands for both.
func span(f *policies.Flow, first, last time.Time) error {
	if first.IsZero() {
		first = last
	}
	if last.IsZero() {
		last = first
	}
	length := last.Sub(first).Round(time.Microsecond)
	switch {
	case last.Before(first):
		return fmt.Errorf("end %s is before start %s", last.UTC().Format(time.RFC3339Nano), first.UTC().Format(time.RFC3339Nano))
	case length > maxWindowSeconds*time.Second:
		return fmt.Errorf("end %s is more than a year after start %s", last.UTC().Format(time.RFC3339Nano), first.UTC().Format(time.RFC3339Nano))
	}
	f.First, f.Last, f.Origin.Window = utc(first), utc(last), length
	return nil
}

// TCP flags as they stand in a packet.
const (
	tcpFIN = 1 << iota
	tcpSYN
	tcpRST
	tcpPSH
	tcpACK
)

// turnRound makes a flow of replies that of the connection they belong to.
func turnRound(f *policies.Flow) {
	f.From, f.To = f.To, f.From
	f.Port, f.SourcePort = f.SourcePort, f.Port
	f.Bytes, f.ReplyBytes = f.ReplyBytes, f.Bytes
	f.Packets, f.ReplyPackets = f.ReplyPackets, f.Packets
	switch f.Origin.Reporter {
	case policies.SourceSide:
		f.Origin.Reporter = policies.DestinationSide
	case policies.DestinationSide:
		f.Origin.Reporter = policies.SourceSide
	}
}

// counted remembers connections that were counted, for formats that tell of one
// several times. It forgets them all when there are too many.
type counted[K comparable] map[K]struct{}

const maxCounted = 1 << 17

// add reports whether a connection was not there before.
func (c counted[K]) add(connection K) bool {
	if _, known := c[connection]; known {
		return false
	}
	if len(c) >= maxCounted {
		clear(c)
	}
	c[connection] = struct{}{}
	return true
}

// serviceName is how the Service in front of an end is told to people.
func serviceName(namespace, name string) string { return name + "." + namespace + ".svc" }

// utc drops a time's zone and its clock reading, so that equal times are equal.
func utc(t time.Time) time.Time {
	if t.IsZero() {
		return time.Time{}
	}
	return t.UTC()
}
