package flowlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/netsampler/goflow2/v2/decoders/sflow"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

var sflowFormat = format{
	name: sflowName, what: "it is no capture of packets",
	magic: isCapture, read: readCapture,
}

// sflowHeader is the least that a datagram has, in bytes.
const sflowHeader = 28

// maxSamples is the largest number of samples that fits into a datagram.
const maxSamples = 65536 / 8

func (d *Datagrams) sflow(b []byte, exporter netip.Addr, at time.Time) error {
	rest := b[8:]
	size := map[uint32]int{1: 4, 2: 16}[binary.BigEndian.Uint32(b[4:])]
	if size == 0 || len(rest) < size+16 {
		return errors.New("the agent has no address")
	}
	agent := addressOf(rest[:size])
	subAgent, count := binary.BigEndian.Uint32(rest[size:]), binary.BigEndian.Uint32(rest[size+12:])
	rest = rest[size+16:]
	if count > maxSamples {
		return fmt.Errorf("%d samples are more than fit into a datagram", count)
	}
	// The exporter may forward what several agents say.
	s := sflowAgent{Datagrams: d, exporter: exporter, agent: agent, subAgent: subAgent, at: at}
	for range count {
		if len(rest) < 8 {
			return errors.New("there are fewer samples than the header says")
		}
		h := sflow.SampleHeader{Format: binary.BigEndian.Uint32(rest), Length: binary.BigEndian.Uint32(rest[4:])}
		if rest = rest[8:]; uint64(h.Length) > uint64(len(rest)) {
			return errors.New("a sample is longer than its datagram")
		}
		if err := s.sample(&h, rest[:h.Length]); err != nil {
			d.bad(err)
		}
		rest = rest[h.Length:]
	}
	return nil
}

type sflowAgent struct {
	*Datagrams
	exporter, agent netip.Addr
	subAgent        uint32
	at              time.Time
}

func (a *sflowAgent) sample(h *sflow.SampleHeader, b []byte) error {
	switch h.Format {
	case sflow.SAMPLE_FORMAT_FLOW, sflow.SAMPLE_FORMAT_DROP:
	case sflow.SAMPLE_FORMAT_EXPANDED_FLOW:
		// The library makes room for as many records as are announced.
		const records, size = 40, 8
		if len(b) < records+4 || int64(binary.BigEndian.Uint32(b[records:])) > int64(len(b))/size {
			return errors.New("the sample announces more records than it has")
		}
	case sflow.SAMPLE_FORMAT_COUNTER, sflow.SAMPLE_FORMAT_EXPANDED_COUNTER:
		a.leaveOut("interface counters")
		return nil
	default:
		a.leaveOut("sample of an unknown format")
		return nil
	}
	sample, err := sflow.DecodeSample(h, bytes.NewBuffer(b))
	if err != nil {
		return fmt.Errorf("not a whole sample: %w", innermost(err))
	}
	switch s := sample.(type) {
	case sflow.FlowSample:
		const discarded = 1
		reason := uint32(notDropped)
		if s.Output>>30 == discarded {
			reason = s.Output & 0x3fffffff
		}
		a.arrivedOf(&s.Header, s.Drops)
		return a.hand(s.Records, uint64(s.SamplingRate), reason)
	case sflow.ExpandedFlowSample:
		const discarded = 1
		reason := uint32(notDropped)
		if s.OutputIfFormat == discarded {
			reason = s.OutputIfValue
		}
		a.arrivedOf(&s.Header, s.Drops)
		return a.hand(s.Records, uint64(s.SamplingRate), reason)
	case sflow.DropSample:
		a.arrivedOf(&s.Header, s.Drops)
		return a.hand(s.Records, 1, s.Reason)
	}
	return nil
}

// arrivedOf counts the samples that are missing before this one: those that were
// sent, and those that the agent says it had to leave out.
func (a *sflowAgent) arrivedOf(h *sflow.SampleHeader, drops uint32) {
	// Each agent's sources of samples count for themselves.
	source := uint64(a.subAgent)<<40 ^ uint64(h.SourceIdType)<<32 ^ uint64(h.SourceIdValue)
	if h.Format == sflow.SAMPLE_FORMAT_DROP {
		source = ^source
	}
	s := a.streamOf(streamKey{a.agent, 0, source})
	if s == nil {
		return
	}
	s.arrived(&a.stats, h.SampleSequenceNumber, 1)
	if more := int32(drops - s.drops); s.hasDrops && more > 0 {
		a.stats.Lost += uint64(more)
	}
	s.drops, s.hasDrops = drops, true
}

// Why an agent says that a packet was discarded: as ICMP says that something is
// unreachable, and more from 256 on.
const (
	adminProhibited = 13
	unknownReason   = 256
	aclReason       = 258
	notDropped      = 1 << 31
)

// hand hands over the packet that a sample is about.
func (a *sflowAgent) hand(records []sflow.FlowRecord, rate uint64, reason uint32) error {
	flow := policies.Flow{
		First: a.at, Last: a.at, Verdict: policies.Unknown, Packets: max(1, rate),
		Origin: policies.Origin{Reporter: policies.OnTheWay},
	}
	switch reason {
	case notDropped, unknownReason:
	case aclReason, adminProhibited:
		flow.Verdict = policies.Deny
	default:
		a.leaveOut(fmt.Sprintf("dropped, but not by policy: sFlow reason %d", reason))
		return nil
	}
	p, size, known := a.packetOf(records)
	if !known {
		a.leaveOut("sample of a packet that is not IP")
		return nil
	}
	flow.From.Address, flow.To.Address, flow.Protocol = p.from, p.to, p.protocol
	flow.SourcePort, flow.Port, flow.Bytes = p.sourcePort, p.port, scaled(size, rate)
	if p.fragment && p.sourcePort|p.port == 0 {
		a.leaveOut("fragment of a packet without its ports")
		return nil
	}
	if p.protocol == netset.TCP && p.syn && p.ack || isICMPReply(p.protocol, p.port) {
		if cause := toRequest(&flow); cause != "" {
			a.leaveOut(cause)
			return nil
		}
	}
	a.flow(flow)
	return nil
}

// packetOf finds the packet of a sample, and how many bytes it had.
func (a *sflowAgent) packetOf(records []sflow.FlowRecord) (p packet, size uint64, known bool) {
	for _, r := range records {
		switch r := r.Data.(type) {
		case sflow.SampledHeader:
			first, ok := map[uint32]gopacket.LayerType{1: layers.LayerTypeEthernet, 11: layers.LayerTypeIPv4, 12: layers.LayerTypeIPv6}[r.Protocol]
			if !ok {
				continue
			}
			// Behind the header itself there may be padding.
			header := r.HeaderData[:min(uint64(len(r.HeaderData)), uint64(r.OriginalLength))]
			if p, ok := a.sampled.read(first, header); ok {
				return p, uint64(r.FrameLength), true
			}
		case sflow.SampledIPv4:
			return sampledIP(&r.SampledIPBase), uint64(r.Length), true
		case sflow.SampledIPv6:
			return sampledIP(&r.SampledIPBase), uint64(r.Length), true
		}
	}
	return packet{}, 0, false
}

func sampledIP(s *sflow.SampledIPBase) packet {
	p := packet{from: addressOf(s.SrcIP), to: addressOf(s.DstIP), protocol: netset.Protocol(s.Protocol), sourcePort: uint16(s.SrcPort), port: uint16(s.DstPort)}
	p.syn, p.ack = s.TcpFlags&tcpSYN != 0, s.TcpFlags&tcpACK != 0
	return p
}
