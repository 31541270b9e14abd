package nft

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// A connection's label of 128 bits says which vectors let it through. The first
// packet sets it, and every packet until the connection is established may add
// bits, so that it is certain when a connection is new and a hint later.
//
//	bytes 0 to 5    the vector's number at egress, lowest byte first
//	bytes 6 to 11   that at ingress
//	bit 96, 97      it passed only because egress, or ingress, is observed
//	bit 127         revoked: no packet of it passes any more
const (
	ObservedBit = 96 // plus the Direction
	RevokedBit  = 127
)

// LabelOf returns the bits by which a connection carries the number of a vector.
func LabelOf(d policies.Direction, id uint64) Bits {
	var b Bits
	var number [8]byte
	binary.LittleEndian.PutUint64(number[:], id)
	copy(b[6*int(d):], number[:6])
	return b
}

// Bit returns the bits with one set.
func Bit(n int) Bits {
	var b Bits
	b[n/8] = 1 << (n % 8)
	return b
}

// VectorIn returns the number of the vector that let a connection through, by its
// label; 0 where no policy had a say.
func (b Bits) VectorIn(d policies.Direction) uint64 {
	var number [8]byte
	copy(number[:6], b[6*int(d):])
	return binary.LittleEndian.Uint64(number[:])
}

// Has reports whether a bit is set.
func (b Bits) Has(n int) bool { return b[n/8]&(1<<(n%8)) != 0 }

// Mark is what a log entry says: what was decided of the packet, and by which vector.
type Mark struct {
	Verdict   byte // 'D' for denied, 'O' for what passed only because it is observed
	Direction policies.Direction
	ID        uint64
}

// String prints the prefix of the log entry: "D|ingress|1b2c3d4e5f60".
func (m Mark) String() string { return fmt.Sprintf("%c|%s|%012x", m.Verdict, m.Direction, m.ID) }

// ParseMark reads the prefix of a log entry.
func ParseMark(text string) (Mark, error) {
	parts := strings.Split(text, "|")
	if len(parts) == 3 && len(parts[0]) == 1 && len(parts[2]) == 12 {
		id, err := strconv.ParseUint(parts[2], 16, 48)
		for _, d := range policies.Directions {
			if err == nil && parts[1] == d.String() {
				return Mark{parts[0][0], d, id}, nil
			}
		}
	}
	return Mark{}, fmt.Errorf("log prefix %q is none of Weir's, which look like %q", text, Mark{Verdict: 'D'})
}
