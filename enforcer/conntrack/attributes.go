package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

var errShort = errors.New("a message about a connection is cut off")

// An attribute is its length with this header, its kind, and its value, filled up to
// four bytes.
const (
	attributeHeader = 4
	isNested        = 1 << 15
	networkOrder    = 1 << 14
)

// attributes goes through the attributes of a message, or of another attribute.
type attributes struct {
	rest  []byte
	kind  uint16
	value []byte
	err   error
}

// next goes to the next attribute, and reports whether there is one.
func (a *attributes) next() bool {
	if len(a.rest) < attributeHeader || a.err != nil {
		return false
	}
	length := int(binary.NativeEndian.Uint16(a.rest))
	if length < attributeHeader || length > len(a.rest) {
		a.err = errShort
		return false
	}
	a.kind = binary.NativeEndian.Uint16(a.rest[2:]) &^ (isNested | networkOrder)
	a.value = a.rest[attributeHeader:length]
	a.rest = a.rest[min(len(a.rest), (length+3)&^3):]
	return true
}

// inside goes through the attributes that an attribute consists of.
func (a *attributes) inside() attributes { return attributes{rest: a.value} }

// nextOf is next for attributes inside others: what is wrong with them is wrong with top.
func (a *attributes) nextOf(top *attributes) bool {
	there := a.next()
	top.note(a.err)
	return there
}

// note keeps the first error.
func (a *attributes) note(err error) {
	if a.err == nil {
		a.err = err
	}
}

// has reports whether the value has a size, and notes an error where it has not.
func (a *attributes) has(size int) bool {
	if len(a.value) == size {
		return true
	}
	a.note(fmt.Errorf("attribute %d of a message about a connection has %d bytes, not %d", a.kind, len(a.value), size))
	return false
}

func (a *attributes) uint8() uint8 {
	if !a.has(1) {
		return 0
	}
	return a.value[0]
}

func (a *attributes) uint16() uint16 {
	if !a.has(2) {
		return 0
	}
	return binary.BigEndian.Uint16(a.value)
}

func (a *attributes) uint32() uint32 {
	if !a.has(4) {
		return 0
	}
	return binary.BigEndian.Uint32(a.value)
}

func (a *attributes) uint64() uint64 {
	if !a.has(8) {
		return 0
	}
	return binary.BigEndian.Uint64(a.value)
}

func (a *attributes) address(top *attributes) netip.Addr {
	ip, ok := netip.AddrFromSlice(a.value)
	if !ok {
		a.has(4)
		top.note(a.err)
	}
	return ip
}

// attribute appends an attribute.
func attribute(to []byte, kind uint16, value []byte) []byte {
	to = binary.NativeEndian.AppendUint16(to, uint16(attributeHeader+len(value)))
	to = binary.NativeEndian.AppendUint16(to, kind)
	to = append(to, value...)
	return append(to, make([]byte, -len(value)&3)...)
}

// nested appends an attribute of what fill appends.
func nested(to []byte, kind uint16, fill func([]byte) []byte) []byte {
	at := len(to)
	to = binary.NativeEndian.AppendUint16(to, 0)
	to = binary.NativeEndian.AppendUint16(to, kind|isNested)
	to = fill(to)
	binary.NativeEndian.PutUint16(to[at:], uint16(len(to)-at))
	return to
}
