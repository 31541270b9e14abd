package conntrack

import (
	"encoding/binary"
	"time"

	"github.com/weir-policy/weir/policies/netset"
)

// confirmed is the bit of every connection whose first packet went through.
const confirmed Status = 1 << 3

// DeleteRequest appends the body of a request, of kind Delete, to forget a connection.
// What comes of it afterwards is a new connection to the kernel.
func DeleteRequest(to []byte, c *Connection) []byte {
	to = append(to, family(c.Original.Source), 0, 0, 0)
	to = nested(to, attrOriginal, func(to []byte) []byte { return appendTuple(to, c.Original) })
	return appendZone(to, c)
}

// CreateRequest appends the body of a request, of kind New with netlink's flags to create
// what is not there, to track a connection like c that has a label: for one that is
// older than the first rule that sets a label, and cannot get one otherwise. Addresses
// are not translated for it, so it is for connections that are to end. The kernel refuses
// it with EEXIST where there is such a connection.
func CreateRequest(to []byte, c *Connection, label [16]byte) []byte {
	to = append(to, family(c.Original.Source), 0, 0, 0)
	to = nested(to, attrOriginal, func(to []byte) []byte { return appendTuple(to, c.Original) })
	to = nested(to, attrReply, func(to []byte) []byte { return appendTuple(to, c.Reply) })
	to = appendZone(to, c)
	number := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	to = attribute(to, attrTimeout, number(uint32(max(c.Timeout, time.Minute)/time.Second)))
	to = attribute(to, attrStatus, number(uint32(c.Status&(SeenReply|Assured)|confirmed)))
	if c.Original.Protocol == netset.TCP {
		to = nested(to, attrProtocolInfo, func(to []byte) []byte {
			return nested(to, infoTCP, func(to []byte) []byte { return attribute(to, tcpState, []byte{byte(c.TCP)}) })
		})
	}
	return attribute(to, attrLabel, label[:])
}

func appendZone(to []byte, c *Connection) []byte {
	if c.Zone == 0 {
		return to
	}
	return attribute(to, attrZone|networkOrder, binary.BigEndian.AppendUint16(nil, c.Zone))
}
