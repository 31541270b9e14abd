package flowlog

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// be joins numbers, in network order, and bytes.
func be(parts ...any) []byte {
	var b []byte
	for _, part := range parts {
		switch part := part.(type) {
		case []byte:
			b = append(b, part...)
		case string:
			b = append(b, part...)
		case netip.Addr:
			b = append(b, part.AsSlice()...)
		default:
			var err error
			if b, err = binary.Append(b, binary.BigEndian, part); err != nil {
				panic(err)
			}
		}
	}
	return b
}

func ip(text string) netip.Addr { return netip.MustParseAddr(text) }

var (
	web = ip("10.0.1.5")
	db  = ip("10.0.2.7")
)

// exportedAt is when the test's exporters send.
const exportedAt = 1772359200 // 2026-03-01T10:00:00Z

// set is a set of IPFIX or NetFlow 9, padded to four bytes.
func set(id uint16, parts ...any) []byte {
	b := be(parts...)
	b = append(b, make([]byte, -len(b)&3)...)
	return be(id, uint16(4+len(b)), b)
}

func ipfixMessage(domain, sequence uint32, sets ...[]byte) []byte {
	body := bytes.Join(sets, nil)
	return be(uint16(10), uint16(16+len(body)), uint32(exportedAt), sequence, domain, body)
}

// netflow9Message comes from an exporter that has run for 1000 s.
func netflow9Message(source, sequence uint32, sets ...[]byte) []byte {
	return be(uint16(9), uint16(len(sets)), uint32(1000_000), uint32(exportedAt), sequence, source, bytes.Join(sets, nil))
}

// element is one of a template.
type element struct {
	id, length uint16
	enterprise uint32
}

func fieldsOf(elements ...element) []byte {
	var b []byte
	for _, e := range elements {
		if e.enterprise != 0 {
			b = append(b, be(e.id|0x8000, e.length, e.enterprise)...)
			continue
		}
		b = append(b, be(e.id, e.length)...)
	}
	return b
}

func templateOf(id uint16, elements ...element) []byte {
	return be(id, uint16(len(elements)), fieldsOf(elements...))
}

// fiveTuple is the start of most templates, and tcp that of their records.
var fiveTuple = []element{{id: 8, length: 4}, {id: 12, length: 4}, {id: 7, length: 2}, {id: 11, length: 2}, {id: 4, length: 1}}

func tcp(from, to netip.Addr, sourcePort, port uint16) []byte {
	return be(from, to, sourcePort, port, uint8(6))
}

// short is a value of variable length.
func short(text string) []byte { return be(uint8(len(text)), text) }

func netflow5Message(sequence uint32, sampling uint16, records ...[]byte) []byte {
	return be(uint16(5), uint16(len(records)), uint32(1000_000), uint32(exportedAt), uint32(0), sequence, uint8(1), uint8(2), sampling, bytes.Join(records, nil))
}

func netflow5Flow(from, to netip.Addr, sourcePort, port uint16, packets, octets uint32, flags, protocol uint8) []byte {
	return be(from, to, uint32(0), uint16(1), uint16(2), packets, octets, uint32(990_000), uint32(999_500), sourcePort, port,
		uint8(0), flags, protocol, uint8(0), uint16(0), uint16(0), uint8(24), uint8(24), uint16(0))
}

func sflowDatagram(samples ...[]byte) []byte {
	return be(uint32(5), uint32(1), ip("192.0.2.9"), uint32(0), uint32(1), uint32(1000), uint32(len(samples)), bytes.Join(samples, nil))
}

// sflowSample is a flow sample of 1 in 1000; output has what became of the
// packet in its upper bits.
func sflowSample(sequence, drops, output uint32, records ...[]byte) []byte {
	b := be(sequence, uint32(7), uint32(1000), uint32(5000), drops, uint32(3), output, uint32(len(records)), bytes.Join(records, nil))
	return be(uint32(1), uint32(len(b)), b)
}

// sampledHeader is the header of a frame of 1500 bytes.
func sampledHeader(header []byte) []byte {
	b := be(uint32(1), uint32(1500), uint32(4), uint32(len(header)), header, make([]byte, -len(header)&3))
	return be(uint32(1), uint32(len(b)), b)
}

var etherTypes = map[bool]layers.EthernetType{true: layers.EthernetTypeIPv4, false: layers.EthernetTypeIPv6}

// frame serializes layers; IP headers get their lengths.
func frame(t testing.TB, parts ...gopacket.SerializableLayer) []byte {
	t.Helper()
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true}, parts...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func ethernet(next layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: make([]byte, 6), DstMAC: make([]byte, 6), EthernetType: next}
}

func ipHeader(from, to netip.Addr, protocol layers.IPProtocol) gopacket.SerializableLayer {
	if from.Is4() {
		return &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
	}
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: from.AsSlice(), DstIP: to.AsSlice()}
}

// udpPacket is an IP packet with a datagram of the exporter.
func udpPacket(t testing.TB, exporter netip.Addr, datagram []byte) []byte {
	to := ip("192.0.2.100")
	if exporter.Is6() {
		to = ip("2001:db8::100")
	}
	return frame(t, ipHeader(exporter, to, layers.IPProtocolUDP), &layers.UDP{SrcPort: 50000, DstPort: 4739}, gopacket.Payload(datagram))
}

func tcpFrame(t testing.TB, from, to netip.Addr, sourcePort, port uint16, syn, ack bool) []byte {
	return frame(t, ethernet(etherTypes[from.Is4()]), ipHeader(from, to, layers.IPProtocolTCP),
		&layers.TCP{SrcPort: layers.TCPPort(sourcePort), DstPort: layers.TCPPort(port), SYN: syn, ACK: ack})
}

var exporter1 = ip("192.0.2.1")

// captureOf is a pcap file of packets, a second apart.
func captureOf(t testing.TB, link layers.LinkType, packets ...[]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := pcapgo.NewWriter(&b)
	if err := w.WriteFileHeader(65535, link); err != nil {
		t.Fatal(err)
	}
	for i, p := range packets {
		info := gopacket.CaptureInfo{Timestamp: time.Unix(exportedAt+int64(i), 0), CaptureLength: len(p), Length: len(p)}
		if err := w.WritePacket(info, p); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}
