package flowlog

import (
	"bytes"
	"errors"
	"io"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/ip4defrag"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"

	"github.com/weir-policy/weir/policies/netset"
)

// The first bytes of capture files: those of tcpdump with times in micro- and
// nanoseconds, of either byte order, and of pcapng.
var captureMagics = [][]byte{
	{0xa1, 0xb2, 0xc3, 0xd4}, {0xd4, 0xc3, 0xb2, 0xa1}, {0xa1, 0xb2, 0x3c, 0x4d}, {0x4d, 0x3c, 0xb2, 0xa1}, pcapngMagic,
}

var pcapngMagic = []byte{0x0a, 0x0d, 0x0d, 0x0a}

func isCapture(head []byte) bool {
	for _, magic := range captureMagics {
		if bytes.HasPrefix(head, magic) {
			return true
		}
	}
	return false
}

// packetReader reads the packets of a capture one by one.
type packetReader interface {
	ZeroCopyReadPacketData() ([]byte, gopacket.CaptureInfo, error)
}

// readCapture takes the flow exports out of captured packets. The line of a flow
// is the number of its packet.
func readCapture(in io.Reader, s *sink) error {
	s.at.Line = 1
	c := capture{datagrams: newDatagrams(s)}
	r, err := c.open(in)
	if err != nil {
		return s.damaged("capture", ended(err))
	}
	for number := 1; s.stopped == nil; number++ {
		if number%256 == 1 {
			s.stopped = s.ctx.Err()
		}
		s.at.Line = number
		data, info, err := r.ZeroCopyReadPacketData()
		switch {
		case err == io.EOF:
			c.finish()
			return nil
		case err != nil:
			c.finish()
			return s.damaged("capture", ended(err))
		}
		link := c.link
		if len(info.AncillaryData) > 0 {
			if of, ok := info.AncillaryData[0].(layers.LinkType); ok {
				link = of
			}
		}
		c.take(link, data, info)
	}
	return nil
}

// ended says io's words for an end in ours.
func ended(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) || err == io.EOF {
		return errors.New("it ends within a packet")
	}
	return err
}

type capture struct {
	datagrams *Datagrams
	packets   packets
	link      layers.LinkType // of the packets that do not say it themselves
	fragments *ip4defrag.IPv4Defragmenter
	kept      int // fragments that were given to it
}

func (c *capture) open(in io.Reader) (packetReader, error) {
	head := make([]byte, len(pcapngMagic))
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	in = io.MultiReader(bytes.NewReader(head), in)
	if !isCapture(head) {
		return nil, errors.New("it is neither pcap nor pcapng")
	}
	if bytes.Equal(head, pcapngMagic) {
		return pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	}
	r, err := pcapgo.NewReader(in)
	if err == nil {
		// The upper bits say whether frames end in a checksum.
		c.link = r.LinkType() & 0xffff
	}
	return r, err
}

// linkLayers are the outermost headers that are known.
var linkLayers = map[layers.LinkType]gopacket.LayerType{
	layers.LinkTypeEthernet: layers.LayerTypeEthernet, layers.LinkTypeLinuxSLL: layers.LayerTypeLinuxSLL, layers.LinkTypeLinuxSLL2: layers.LayerTypeLinuxSLL2,
	layers.LinkTypeNull: layers.LayerTypeLoopback, layers.LinkTypeLoop: layers.LayerTypeLoopback,
	layers.LinkTypeIPv4: layers.LayerTypeIPv4, layers.LinkTypeIPv6: layers.LayerTypeIPv6,
}

// take takes a packet.
func (c *capture) take(link layers.LinkType, data []byte, info gopacket.CaptureInfo) {
	first, known := linkLayers[link]
	if isRaw := link == layers.LinkTypeRaw || link == 12 || link == 14; isRaw && len(data) > 0 {
		first, known = layers.LayerTypeIPv4, true
		if data[0]>>4 == 6 {
			first = layers.LayerTypeIPv6
		}
	}
	if !known {
		c.datagrams.leaveOut("packet of the link type " + link.String())
		return
	}
	p, ok := c.packets.read(first, data)
	if ok && p.fragment {
		if p, ok = c.assemble(p, info.Timestamp); !ok {
			return
		}
	}
	switch {
	case !ok || p.protocol != netset.UDP || p.payload == nil:
		c.datagrams.leaveOut(noExport)
	case info.CaptureLength < info.Length && len(p.payload)+8 < int(c.packets.udp.Length):
		c.datagrams.leaveOut("packet that was not captured whole")
		c.datagrams.stats.Lost++
	default:
		c.datagrams.take(p.payload, p.from, info.Timestamp)
	}
}

// maxFragments is how many fragments wait for others at most.
const maxFragments = 4096

// assemble makes a packet of its fragments once it has them all.
func (c *capture) assemble(p packet, at time.Time) (packet, bool) {
	if !p.from.Is4() {
		c.datagrams.leaveOut("fragment of a packet over IPv6")
		return p, false
	}
	if c.fragments == nil || c.kept >= maxFragments {
		c.fragments, c.kept = ip4defrag.NewIPv4Defragmenter(), 0
	}
	fragment := c.packets.ip4
	fragment.Payload = bytes.Clone(fragment.Payload)
	fragment.SrcIP, fragment.DstIP = bytes.Clone(fragment.SrcIP), bytes.Clone(fragment.DstIP)
	whole, err := c.fragments.DefragIPv4WithTimestamp(&fragment, at)
	c.kept++
	if err != nil || whole == nil {
		c.datagrams.leaveOut("fragment of a packet: counted with the last one")
		return p, false
	}
	if c.packets.udp.DecodeFromBytes(whole.Payload, gopacket.NilDecodeFeedback) != nil || p.protocol != netset.UDP {
		return p, true
	}
	p.payload = c.packets.udp.Payload
	return p, true
}

func (c *capture) finish() { c.datagrams.Finish() }
