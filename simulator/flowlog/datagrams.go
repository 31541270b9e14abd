package flowlog

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Datagrams decodes what exporters send by UDP: IPFIX, NetFlow 5 and 9, and
// sFlow 5, mixed at will. It remembers what each exporter said of its own
// records, within fixed bounds. It is for one goroutine.
type Datagrams struct {
	*sink
	streams map[streamKey]*stream
	fields  int // of all templates
	waiting waiting
	sampled packets
	values  [][]byte
}

// NewDatagrams returns a decoder that calls each for every flow; name stands in
// the flows' Record, with the number of the datagram for a line. The options are
// as for Read; o.Format may be ipfix, netflow or sflow, and then all else is
// left out.
func NewDatagrams(ctx context.Context, name string, o Options, each func(policies.Flow) error) (*Datagrams, error) {
	if o.Format != "" && !slices.Contains(datagramFormats, o.Format) {
		return nil, fmt.Errorf("flow format %q is not sent by UDP; ipfix, netflow and sflow are", o.Format)
	}
	return newDatagrams(&sink{ctx: ctx, options: o, each: each, at: policies.Place{File: name}}), nil
}

func newDatagrams(s *sink) *Datagrams {
	return &Datagrams{sink: s, streams: map[streamKey]*stream{}}
}

// Decode takes the next datagram, which exporter sent; at is when it arrived. It
// keeps nothing of it. An error is that of each or of the context, or with
// Strict a bad record; nothing more is to be decoded after it.
func (d *Datagrams) Decode(datagram []byte, exporter netip.Addr, at time.Time) error {
	if d.next(d.at.Line + 1) {
		d.take(datagram, exporter.Unmap(), at)
	}
	return d.stopped
}

// Lost counts events that never came as far as Decode.
func (d *Datagrams) Lost(n uint64) { d.stats.Lost += n }

// Finish gives up what still waits for its template, and says what became of
// everything.
func (d *Datagrams) Finish() Stats {
	d.waiting.giveUp(d.sink, 0)
	return d.stats
}

// The names of the formats that come in datagrams.
const (
	ipfixName   = "ipfix"
	netflowName = "netflow"
	sflowName   = "sflow"
)

var datagramFormats = []string{ipfixName, netflowName, sflowName}

const noExport = "packet that is no flow export"

// take decodes a datagram that is one of the known formats.
func (d *Datagrams) take(datagram []byte, exporter netip.Addr, at time.Time) {
	format, decode := formatOfDatagram(datagram)
	switch {
	case decode == nil:
		d.leaveOut(noExport)
		return
	case d.options.Format != "" && d.options.Format != format:
		d.leaveOut("flow export of the format " + format)
		return
	}
	d.format = format
	if err := decode(d, datagram, exporter, at.UTC()); err != nil {
		d.bad(err)
	}
}

// formatOfDatagram knows a datagram by its version, and by lengths that must
// agree: other traffic may begin with any number.
func formatOfDatagram(b []byte) (name string, decode func(*Datagrams, []byte, netip.Addr, time.Time) error) {
	if len(b) < ipfixHeader {
		return "", nil
	}
	count := int(binary.BigEndian.Uint16(b[2:]))
	switch version := binary.BigEndian.Uint16(b); {
	case version == 10 && count == len(b):
		return ipfixName, (*Datagrams).ipfix
	case version == 9 && len(b) >= netflow9Header && count > 0 && areSets(b[netflow9Header:]):
		return netflowName, (*Datagrams).netflow9
	case version == 5 && count > 0 && len(b) == netflow5Header+count*netflow5Record:
		return netflowName, (*Datagrams).netflow5
	case binary.BigEndian.Uint32(b) == 5 && len(b) >= sflowHeader:
		return sflowName, (*Datagrams).sflow
	}
	return "", nil
}

// areSets reports whether b begins with the header of a set that fits.
func areSets(b []byte) bool {
	if len(b) < setHeader {
		return false
	}
	id, length := binary.BigEndian.Uint16(b), int(binary.BigEndian.Uint16(b[2:]))
	return (id < 2 || id >= firstDataSet) && length >= setHeader && length <= len(b)
}

// streamKey is whose numbers count up together and whose templates share a space.
type streamKey struct {
	exporter netip.Addr
	version  uint16
	domain   uint64
}

// stream is what is remembered of one.
type stream struct {
	next      uint32 // the sequence number that is expected
	counted   bool   // next is known
	missing   uint64 // how many gaps told of, which may yet come
	templates map[uint16]*template
	rates     map[uint64]uint64 // by sampler; that of 0 is for records that name none
	drops     uint32            // the exporter's own count of what it had to leave out
	hasDrops  bool
}

// The bounds of what strangers can make Datagrams remember.
const (
	maxStreams  = 1 << 16
	maxFields   = 1 << 18 // of all templates together
	maxSamplers = 256     // of a stream
)

var errCrowded = fmt.Errorf("this is yet another exporter after %d, which cannot be told apart", maxStreams)

// streamOf returns the stream of a key, or nil when there are too many.
func (d *Datagrams) streamOf(key streamKey) *stream {
	s := d.streams[key]
	if s == nil && len(d.streams) < maxStreams {
		s = &stream{}
		d.streams[key] = s
	}
	return s
}

// Sequence numbers further apart than that are those of an exporter that
// started again.
const (
	maxGap  = 1 << 20
	maxLate = 1 << 12
)

// arrived counts what is missing before a message that begins at the sequence
// number and holds n numbered things. A message that comes late takes back
// what its absence was counted for.
func (s *stream) arrived(stats *Stats, sequence, n uint32) {
	gap := int32(sequence - s.next)
	switch {
	case !s.counted || gap > maxGap || gap < -maxLate:
		s.missing = 0
	case gap > 0:
		s.missing += uint64(gap)
		stats.Lost += uint64(gap)
	case gap < 0:
		back := min(uint64(n), s.missing)
		s.missing -= back
		stats.Lost -= back
		return
	}
	s.next, s.counted = sequence+n, true
}

// rate returns by how much a sampler's counts are to be multiplied.
func (s *stream) rate(sampler uint64) uint64 {
	if rate, ok := s.rates[sampler]; ok {
		return rate
	}
	return max(1, s.rates[0])
}

func (s *stream) setRate(sampler, rate uint64) {
	if _, known := s.rates[sampler]; rate > 0 && (known || len(s.rates) < maxSamplers) {
		if s.rates == nil {
			s.rates = map[uint64]uint64{}
		}
		s.rates[sampler] = rate
	}
}

// scaled multiplies, up to the largest number there is.
func scaled(n, rate uint64) uint64 {
	if high, low := bits.Mul64(n, max(1, rate)); high == 0 {
		return low
	}
	return ^uint64(0)
}

// toRequest makes the flow of a reply that of its request, or says why it cannot.
func toRequest(f *policies.Flow) (cause string) {
	if f.Verdict == policies.Deny {
		return "dropped reply: it says nothing about the request"
	}
	turnRound(f)
	if hasTypes(f.Protocol) {
		request, ok := icmpRequests[f.SourcePort&0xff00|uint16(f.Protocol)]
		if !ok {
			return "ICMP reply to a request that it does not tell"
		}
		f.Port, f.SourcePort = uint16(request)<<8, 0
	}
	return ""
}

func hasTypes(p netset.Protocol) bool { return p == netset.ICMP || p == netset.ICMPv6 }

// isICMPReply reports whether the type tells that the flow is one of replies.
func isICMPReply(p netset.Protocol, port uint16) bool {
	_, reply := icmpRequests[port&0xff00|uint16(p)]
	return hasTypes(p) && reply
}
