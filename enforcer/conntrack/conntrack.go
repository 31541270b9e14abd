// Package conntrack turns the kernel's messages about connections, of the netfilter
// subsystem ctnetlink, into values, and requests into messages.
//
// It is bytes and values only: who asks, and over which socket, is up to others. It
// decodes in place, without reflection and without memory of its own, since nodes see
// tens of thousands of connections a second.
package conntrack

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"github.com/weir-policy/weir/policies/netset"
)

// Connection is one connection as the kernel tracks it. What a message does not say is
// zero: events of new connections have no counters, those of ended ones no label.
type Connection struct {
	// Original is the way of the packet that opened the connection, before any
	// translation; Reply is that of the answers, and so names the ends after it.
	Original, Reply Tuple
	Zone            uint16
	ID              uint32 // tells it from others that are there at the same time
	Status          Status
	TCP             TCPState
	Timeout         time.Duration // until the kernel forgets it
	Mark            uint32
	Label           [16]byte
	Labelled        bool // the message has a label; where it has none, nobody set one or it is of an end
	// Counters are what went the original way and what went back, where the kernel
	// counts it: nf_conntrack_acct.
	Counters [2]Counters
	Counted  bool
	// Start and Stop are when it began and ended, in nanoseconds since 1970, where the
	// kernel notes it: nf_conntrack_timestamp. At is when an event happened, since
	// kernel 6.14.
	Start, Stop, At int64
}

// Tuple is one way of a connection.
type Tuple struct {
	Source, Destination netip.Addr
	Protocol            netset.Protocol
	// SourcePort and DestinationPort are those of TCP, UDP, SCTP and others that have
	// ports. Of ICMP, SourcePort is the identifier, and DestinationPort the type and
	// code as one number, type<<8 | code.
	SourcePort, DestinationPort uint16
}

func (t Tuple) String() string {
	return fmt.Sprintf("%s %s to %s", t.Protocol, netip.AddrPortFrom(t.Source, t.SourcePort), netip.AddrPortFrom(t.Destination, t.DestinationPort))
}

// Counters are what went one way.
type Counters struct{ Packets, Bytes uint64 }

// Status is bits about a connection.
type Status uint32

// Some bits of a connection's status.
const (
	Expected       Status = 1 << 0 // another connection announced it
	SeenReply      Status = 1 << 1
	Assured        Status = 1 << 2 // it is not given up early where the table is full
	SourceNAT      Status = 1 << 4
	DestinationNAT Status = 1 << 5
)

// TCPState is the state of a connection over TCP; 0 where there is none.
type TCPState uint8

// Some states.
const (
	SynSent     TCPState = 1
	SynReceived TCPState = 2
	Established TCPState = 3
	TimeWait    TCPState = 7
	Closed      TCPState = 8
)

// Kinds of messages, as the header of netlink has them.
const (
	New    = subsystem << 8          // a new connection, or one that changed, or one in a dump
	Get    = subsystem<<8 | 1        // a request
	Delete = subsystem<<8 | 2        // an ended connection
	Create = flagExclude | flagNewer // the header's flags of New where the connection is a new one

	subsystem   = 1
	flagExclude = 0x200
	flagNewer   = 0x400
)

// Groups of events that a socket may join, as numbers.
const (
	GroupNew    = 1
	GroupUpdate = 2
	GroupEnded  = 3
)

// Kinds of attributes, CTA_… of linux/netfilter/nfnetlink_conntrack.h.
const (
	attrOriginal         = 1
	attrReply            = 2
	attrStatus           = 3
	attrProtocolInfo     = 4
	attrTimeout          = 7
	attrMark             = 8
	attrCountersOriginal = 9
	attrCountersReply    = 10
	attrID               = 12
	attrZone             = 18
	attrTimestamp        = 20
	attrLabel            = 22
	attrLabelMask        = 23
	attrEventTime        = 27

	tupleAddresses = 1
	tupleProtocol  = 2

	addressSource4      = 1
	addressDestination4 = 2
	addressSource6      = 3
	addressDestination6 = 4

	protocolNumber          = 1
	protocolSourcePort      = 2
	protocolDestinationPort = 3
	protocolICMPID          = 4
	protocolICMPType        = 5
	protocolICMPCode        = 6
	protocolICMPv6ID        = 7
	protocolICMPv6Type      = 8
	protocolICMPv6Code      = 9

	infoTCP  = 1
	tcpState = 1

	counterPackets = 1
	counterBytes   = 2

	timestampStart = 1
	timestampStop  = 2
)

// headerSize is that of the header that messages of netfilter have behind netlink's.
const headerSize = 4

// Decode reads the body of a message, what stands behind netlink's header, into c. What
// c held before is gone. It fails where the message is cut off, or has something of
// another size than the kernel gives it.
func Decode(body []byte, c *Connection) error {
	*c = Connection{}
	if len(body) < headerSize {
		return errShort
	}
	a := attributes{rest: body[headerSize:]}
	for a.next() {
		switch a.kind {
		case attrOriginal:
			c.Original = a.tuple()
		case attrReply:
			c.Reply = a.tuple()
		case attrStatus:
			c.Status = Status(a.uint32())
		case attrProtocolInfo:
			c.TCP = a.tcp()
		case attrTimeout:
			c.Timeout = time.Duration(a.uint32()) * time.Second
		case attrMark:
			c.Mark = a.uint32()
		case attrCountersOriginal:
			c.Counters[0], c.Counted = a.counters(), true
		case attrCountersReply:
			c.Counters[1], c.Counted = a.counters(), true
		case attrID:
			c.ID = a.uint32()
		case attrZone:
			c.Zone = a.uint16()
		case attrTimestamp:
			c.Start, c.Stop = a.times()
		case attrLabel:
			c.Labelled = len(a.value) > 0
			copy(c.Label[:], a.value)
		case attrEventTime:
			c.At = int64(a.uint64())
		}
	}
	return a.err
}

func (a *attributes) tuple() (t Tuple) {
	for b := a.inside(); b.nextOf(a); {
		switch b.kind {
		case tupleAddresses:
			for d := b.inside(); d.nextOf(a); {
				switch d.kind {
				case addressSource4, addressSource6:
					t.Source = d.address(a)
				case addressDestination4, addressDestination6:
					t.Destination = d.address(a)
				}
			}
		case tupleProtocol:
			b.protocol(a, &t)
		}
	}
	return t
}

func (a *attributes) protocol(top *attributes, t *Tuple) {
	for b := a.inside(); b.nextOf(top); {
		switch b.kind {
		case protocolNumber:
			t.Protocol = netset.Protocol(b.uint8())
		case protocolSourcePort, protocolICMPID, protocolICMPv6ID:
			t.SourcePort = b.uint16()
		case protocolDestinationPort:
			t.DestinationPort = b.uint16()
		case protocolICMPType, protocolICMPv6Type:
			t.DestinationPort |= uint16(b.uint8()) << 8
		case protocolICMPCode, protocolICMPv6Code:
			t.DestinationPort |= uint16(b.uint8())
		}
		top.note(b.err)
	}
}

func (a *attributes) tcp() (state TCPState) {
	for b := a.inside(); b.nextOf(a); {
		if b.kind != infoTCP {
			continue
		}
		for d := b.inside(); d.nextOf(a); {
			if d.kind == tcpState {
				state = TCPState(d.uint8())
				a.note(d.err)
			}
		}
	}
	return state
}

func (a *attributes) counters() (c Counters) {
	for b := a.inside(); b.nextOf(a); {
		switch b.kind {
		case counterPackets:
			c.Packets = b.uint64()
		case counterBytes:
			c.Bytes = b.uint64()
		}
		a.note(b.err)
	}
	return c
}

func (a *attributes) times() (start, stop int64) {
	for b := a.inside(); b.nextOf(a); {
		switch b.kind {
		case timestampStart:
			start = int64(b.uint64())
		case timestampStop:
			stop = int64(b.uint64())
		}
		a.note(b.err)
	}
	return start, stop
}

// DumpRequest appends the body of a request for all connections of both families, which
// is of kind Get with netlink's flags for a request and a dump.
func DumpRequest(to []byte) []byte { return append(to, 0, 0, 0, 0) }

// LabelUpdate appends the body of a request, of kind New, that sets the bits of mask in
// a connection's label to those of label. The kernel refuses it with ENOSPC where the
// namespace has no rule that sets a label, or the connection is older than the first
// such rule; with ENOENT where the connection is gone.
func LabelUpdate(to []byte, c *Connection, label, mask [16]byte) []byte {
	to = append(to, family(c.Original.Source), 0, 0, 0)
	to = nested(to, attrOriginal, func(to []byte) []byte { return appendTuple(to, c.Original) })
	if c.Zone != 0 {
		to = attribute(to, attrZone|networkOrder, binary.BigEndian.AppendUint16(nil, c.Zone))
	}
	to = attribute(to, attrLabel, label[:])
	return attribute(to, attrLabelMask, mask[:])
}

const (
	ipv4 = 2
	ipv6 = 10
)

func family(a netip.Addr) byte {
	if a.Is6() {
		return ipv6
	}
	return ipv4
}

func appendTuple(to []byte, t Tuple) []byte {
	to = nested(to, tupleAddresses, func(to []byte) []byte {
		source, destination := uint16(addressSource4), uint16(addressDestination4)
		if t.Source.Is6() {
			source, destination = addressSource6, addressDestination6
		}
		return attribute(attribute(to, source, t.Source.AsSlice()), destination, t.Destination.AsSlice())
	})
	return nested(to, tupleProtocol, func(to []byte) []byte {
		to = attribute(to, protocolNumber, []byte{byte(t.Protocol)})
		port := func(n uint16) []byte { return binary.BigEndian.AppendUint16(nil, n) }
		switch t.Protocol {
		case netset.ICMP, netset.ICMPv6:
			id, kind, code := uint16(protocolICMPID), uint16(protocolICMPType), uint16(protocolICMPCode)
			if t.Protocol == netset.ICMPv6 {
				id, kind, code = protocolICMPv6ID, protocolICMPv6Type, protocolICMPv6Code
			}
			to = attribute(to, id, port(t.SourcePort))
			to = attribute(to, kind, []byte{byte(t.DestinationPort >> 8)})
			return attribute(to, code, []byte{byte(t.DestinationPort)})
		}
		to = attribute(to, protocolSourcePort, port(t.SourcePort))
		return attribute(to, protocolDestinationPort, port(t.DestinationPort))
	})
}
