package flowlog

import (
	"net/netip"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"

	"github.com/weir-policy/weir/policies/netset"
)

// packet is what policy asks about a packet. It is valid until the next is read.
type packet struct {
	from, to         netip.Addr
	protocol         netset.Protocol
	sourcePort, port uint16 // port is type<<8 | code for ICMP
	syn, ack         bool
	fragment         bool   // nothing behind the IP header was looked at
	payload          []byte // of UDP
}

// packets reads headers, with memory of its own that it uses again.
type packets struct {
	ethernet  layers.Ethernet
	vlan      layers.Dot1Q
	cooked    layers.LinuxSLL
	cooked2   layers.LinuxSLL2
	loopback  layers.Loopback
	ip4       layers.IPv4
	ip6       layers.IPv6
	extension layers.IPv6ExtensionSkipper
	fragment6 layers.IPv6Fragment
	tcp       layers.TCP
	udp       layers.UDP
	sctp      layers.SCTP
	icmp4     layers.ICMPv4
	icmp6     layers.ICMPv6

	parsers map[gopacket.LayerType]*gopacket.DecodingLayerParser
	decoded []gopacket.LayerType
}

// parser returns what reads packets whose outermost header is first.
func (p *packets) parser(first gopacket.LayerType) *gopacket.DecodingLayerParser {
	parser := p.parsers[first]
	if parser == nil {
		parser = gopacket.NewDecodingLayerParser(first, &p.ethernet, &p.vlan, &p.cooked, &p.cooked2, &p.loopback, &p.ip4, &p.ip6,
			&p.extension, &p.fragment6, &p.tcp, &p.udp, &p.sctp, &p.icmp4, &p.icmp6)
		parser.IgnoreUnsupported = true
		if p.parsers == nil {
			p.parsers = map[gopacket.LayerType]*gopacket.DecodingLayerParser{}
		}
		p.parsers[first] = parser
	}
	return parser
}

// read reports whether data, which begins with a header of the type first, is an
// IP packet whose headers can be read. It may end anywhere behind them.
func (p *packets) read(first gopacket.LayerType, data []byte) (packet, bool) {
	// An error says where the headers end that can be read; those before it count.
	_ = p.parser(first).DecodeLayers(data, &p.decoded)
	var out packet
	for _, layer := range p.decoded {
		switch layer {
		case layers.LayerTypeIPv4:
			// Of a packet within another, the inner one is left: policy is about that.
			out = packet{from: addressOf(p.ip4.SrcIP), to: addressOf(p.ip4.DstIP), protocol: netset.Protocol(p.ip4.Protocol)}
			out.fragment = p.ip4.NextLayerType() == gopacket.LayerTypeFragment
		case layers.LayerTypeIPv6:
			out = packet{from: addressOf(p.ip6.SrcIP), to: addressOf(p.ip6.DstIP), protocol: netset.Protocol(p.ip6.NextHeader)}
		case layers.LayerTypeIPv6HopByHop, layers.LayerTypeIPv6Routing, layers.LayerTypeIPv6Destination:
			out.protocol = netset.Protocol(p.extension.NextHeader) // that of the last
		case layers.LayerTypeIPv6Fragment:
			out.protocol, out.fragment = netset.Protocol(p.fragment6.NextHeader), true
		case layers.LayerTypeTCP:
			out.sourcePort, out.port = uint16(p.tcp.SrcPort), uint16(p.tcp.DstPort)
			out.syn, out.ack = p.tcp.SYN, p.tcp.ACK
		case layers.LayerTypeUDP:
			out.sourcePort, out.port, out.payload = uint16(p.udp.SrcPort), uint16(p.udp.DstPort), p.udp.Payload
		case layers.LayerTypeSCTP:
			out.sourcePort, out.port = uint16(p.sctp.SrcPort), uint16(p.sctp.DstPort)
		case layers.LayerTypeICMPv4:
			out.port = uint16(p.icmp4.TypeCode)
		case layers.LayerTypeICMPv6:
			out.port = uint16(p.icmp6.TypeCode)
		}
	}
	return out, out.from.IsValid() && out.to.IsValid()
}

func addressOf(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}
