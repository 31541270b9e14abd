package flowlog

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-json"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// number reads the decimal number in a field, at most most.
func number[T ~string | ~[]byte](field string, text T, most uint64) (uint64, error) {
	n, err := strconv.ParseUint(string(text), 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > most:
		return 0, fmt.Errorf("%s %.40s is above %d", field, text, most)
	case err != nil:
		return 0, fmt.Errorf("%s %.40q is not a number", field, text)
	}
	return n, nil
}

// jsonNumber reads a number that JSON may hold as text too, or with ".0" behind
// it as tables have them; 0 for none.
func jsonNumber(field string, raw json.RawMessage, most uint64) (uint64, error) {
	text := bytes.TrimSuffix(bytes.Trim(raw, `"`), []byte(".0"))
	if len(text) == 0 || string(text) == "null" {
		return 0, nil
	}
	return number(field, text, most)
}

// jsonText returns what a JSON string without escapes or a number says; it is
// empty for null and for nothing at all.
func jsonText(raw json.RawMessage) string { return word(raw, nil) }

// address reads the IP address in a field.
func address[T ~string | ~[]byte](field string, text T) (netip.Addr, error) {
	a, err := netip.ParseAddr(string(text))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("%s %.60q is not an IP address", field, text)
	}
	return plain(a), nil
}

// jsonAddress reads a JSON string that is an IP address; the zero one for none.
func jsonAddress(field string, raw json.RawMessage) (netip.Addr, error) {
	text := bytes.Trim(raw, `"`)
	if len(text) == 0 || string(text) == "null" {
		return netip.Addr{}, nil
	}
	return address(field, text)
}

// jsonTime reads a JSON string that is a time of RFC 3339; the zero one for none.
func jsonTime(field string, raw json.RawMessage) (time.Time, error) {
	text := bytes.Trim(raw, `"`)
	if len(text) == 0 || string(text) == "null" {
		return time.Time{}, nil
	}
	return timeOf(field, string(text))
}

// timeOf reads a time of RFC 3339, which is of the years that JSON can say in
// UTC too.
func timeOf(field, text string) (time.Time, error) {
	at, err := time.Parse(time.RFC3339, text)
	if at = at.UTC(); err != nil || at.Year() < 0 || at.Year() > 9999 {
		return time.Time{}, fmt.Errorf("%s %.40q is not a time such as 2026-03-10T12:00:00Z", field, text)
	}
	return at, nil
}

// plain is an address as IPv4 where it is one, and without a zone.
func plain(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

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
