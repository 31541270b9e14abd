package flowlog

import (
	"bytes"
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// vocabulary numbers texts in the order in which they come; "" is 0.
type vocabulary struct {
	slots []textSlot
	ends  []int // of the texts in bytes
	bytes []byte
}

// textSlot is a text itself, where it has fewer than 16 bytes, else its hash.
type textSlot struct {
	low, high uint64
	number    int32 // 0 where the slot is free
}

// shortText is how many bytes a text may have, and one.
const shortText = 16

func newVocabulary() *vocabulary {
	return &vocabulary{slots: make([]textSlot, 1<<8), ends: make([]int, 1)}
}

// len returns how many texts there are.
func (t *vocabulary) len() int { return len(t.ends) }

func (t *vocabulary) text(number int32) []byte {
	if number == 0 {
		return nil
	}
	end := t.ends[number]
	return t.bytes[t.ends[number-1]:end:end]
}

// number returns the number of a text.
func (t *vocabulary) number(text []byte) int32 {
	if len(text) == 0 {
		return 0
	}
	low, high := packed(text)
	mask := uint64(len(t.slots) - 1)
	for at := hashOf(low, high) & mask; ; at = (at + 1) & mask {
		s := &t.slots[at]
		switch {
		case s.number == 0:
			*s = textSlot{low, high, int32(len(t.ends))}
			t.bytes = append(t.bytes, text...)
			t.ends = append(t.ends, len(t.bytes))
			if 2*len(t.ends) > len(t.slots) {
				t.grow()
			}
			return int32(len(t.ends) - 1)
		case s.low == low && s.high == high && (len(text) < shortText || bytes.Equal(t.text(s.number), text)):
			return s.number
		}
	}
}

func (t *vocabulary) grow() {
	old := t.slots
	t.slots = make([]textSlot, 4*len(old))
	mask := uint64(len(t.slots) - 1)
	for _, s := range old {
		if s.number == 0 {
			continue
		}
		at := hashOf(s.low, s.high) & mask
		for t.slots[at].number != 0 {
			at = (at + 1) & mask
		}
		t.slots[at] = s
	}
}

// packed returns two numbers that a text of fewer than 16 bytes alone has.
func packed(text []byte) (low, high uint64) {
	n := len(text)
	switch {
	case n >= shortText:
		return xxhash.Sum64(text), 0xff << 56
	case n >= 8:
		low, high = binary.LittleEndian.Uint64(text), binary.LittleEndian.Uint64(text[n-8:])>>(8*(16-n))
	case n >= 4:
		low = uint64(binary.LittleEndian.Uint32(text)) | uint64(binary.LittleEndian.Uint32(text[n-4:]))<<(8*(n-4))
	default:
		for i, b := range text {
			low |= uint64(b) << (8 * i)
		}
	}
	return low, high | uint64(n)<<56
}

// hashOf mixes two numbers.
func hashOf(a, b uint64) uint64 {
	high, low := bits.Mul64(a^0x9e3779b97f4a7c15, b^0xc2b2ae3d27d4eb4f)
	return high ^ low
}
