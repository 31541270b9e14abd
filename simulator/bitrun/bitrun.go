// Package bitrun reads what Parquet calls the hybrid of run lengths and packed
// bits: how it stores the codes of dictionaries, and which values are not null.
package bitrun

import "encoding/binary"

// MaxWidth is the most bits that a value may have.
const MaxWidth = 31

// Reader reads values from the first to the last. Its methods report whether
// there were as many as asked for; of data that is damaged, what they return is
// anything but negative.
type Reader struct {
	data   []byte
	width  int
	repeat int   // values left of a run
	value  int32 // that run's
	packed int   // values left of packed ones
	bit    int   // where the next of them begins in data
}

// New returns a Reader of values of width bits each, from 0 to MaxWidth.
func New(data []byte, width int) Reader { return Reader{data: data, width: width} }

// Read reads values until to is full.
func (r *Reader) Read(to []int32) bool {
	for len(to) > 0 {
		switch {
		case r.repeat > 0:
			n := min(len(to), r.repeat)
			for i := range to[:n] {
				to[i] = r.value
			}
			r.repeat -= n
			to = to[n:]
		case r.packed > 0:
			n := min(len(to), r.packed)
			r.unpack(to[:n])
			r.packed -= n
			to = to[n:]
		case !r.next():
			return false
		}
	}
	return true
}

// Fits reports whether there is one of n things for each value of the width.
func (r *Reader) Fits(n int) bool { return 1<<r.width <= n }

// Or reads values until to is full, and puts the word of each, shifted by so many
// bits, into the number there by or. Words has one for each value of the width.
func (r *Reader) Or(to []uint64, words []int32, shift uint) bool {
	words = words[:1<<r.width]
	for len(to) > 0 {
		switch {
		case r.repeat > 0:
			n := min(len(to), r.repeat)
			word := uint64(words[r.value]) << (shift & 63)
			for i := range to[:n] {
				to[i] |= word
			}
			r.repeat -= n
			to = to[n:]
		case r.packed > 0:
			n := min(len(to), r.packed)
			r.orPacked(to[:n], words, shift)
			r.packed -= n
			to = to[n:]
		case !r.next():
			return false
		}
	}
	return true
}

// Same returns the value that the next n have, which it then leaves out, where one
// run has them all.
func (r *Reader) Same(n int) (value int32, are bool) {
	if r.repeat == 0 && r.packed == 0 && !r.next() || r.repeat < n {
		return 0, false
	}
	r.repeat -= n
	return r.value, true
}

// Skip leaves out n values.
func (r *Reader) Skip(n int) bool {
	for n > 0 {
		switch {
		case r.repeat > 0:
			m := min(n, r.repeat)
			r.repeat -= m
			n -= m
		case r.packed > 0:
			m := min(n, r.packed)
			r.packed -= m
			r.bit += m * r.width
			n -= m
		case !r.next():
			return false
		}
	}
	return true
}

// Count adds 1 to the count of each of n values; it also fails at one for which
// there is no count.
func (r *Reader) Count(n int, counts []uint64) bool {
	for n > 0 {
		switch {
		case r.repeat > 0:
			m := min(n, r.repeat)
			if uint32(r.value) >= uint32(len(counts)) {
				return false
			}
			counts[r.value] += uint64(m)
			r.repeat -= m
			n -= m
		case r.packed > 0:
			m := min(n, r.packed)
			if !r.countPacked(m, counts) {
				return false
			}
			r.packed -= m
			n -= m
		case !r.next():
			return false
		}
	}
	return true
}

func (r *Reader) countPacked(n int, counts []uint64) bool {
	var some [256]int32
	for n > 0 {
		part := some[:min(n, len(some))]
		r.unpack(part)
		for _, code := range part {
			if uint(code) >= uint(len(counts)) {
				return false
			}
			counts[code]++
		}
		n -= len(part)
	}
	return true
}

// next begins the next run; it reports whether there is one.
func (r *Reader) next() bool {
	r.data, r.bit = r.data[(r.bit+7)/8:], 0
	header, n := binary.Uvarint(r.data)
	if n <= 0 || header>>1 > 1<<31 {
		return false
	}
	r.data = r.data[n:]
	if header&1 == 1 {
		r.packed = int(header>>1) * 8
		// The last group may be cut short where no values are in it.
		if r.width > 0 {
			r.packed = min(r.packed, len(r.data)*8/r.width)
		}
		return r.packed > 0
	}
	size := (r.width + 7) / 8
	if len(r.data) < size {
		return false
	}
	var value uint32
	for i := range size {
		value |= uint32(r.data[i]) << (8 * i)
	}
	r.value = int32(value)
	r.data, r.repeat = r.data[size:], int(header>>1)
	return value>>r.width == 0
}

// unpack reads packed values, of which there are as many. Eight bytes, but for
// seven bits, hold at least one of them.
func (r *Reader) unpack(to []int32) {
	width, mask, bit, data := r.width, uint64(1)<<r.width-1, r.bit, r.data
	fast := 0
	if len(data) >= 8 && width > 0 {
		fast = min(len(to), max(0, ((len(data)-8)*8-bit)/width))
	}
	done, by := 0, uint(width) // the compiler sees that no shift is by more than 63
	switch {
	case width <= 7: // eight of them in one word
		for ; done+8 <= fast; done += 8 {
			word, eight := binary.LittleEndian.Uint64(data[bit>>3:])>>(bit&7), (*[8]int32)(to[done:])
			half := word >> (4 * by & 63)
			eight[0], eight[4] = int32(word&mask), int32(half&mask)
			eight[1], eight[5] = int32(word>>(by&63)&mask), int32(half>>(by&63)&mask)
			eight[2], eight[6] = int32(word>>(2*by&63)&mask), int32(half>>(2*by&63)&mask)
			eight[3], eight[7] = int32(word>>(3*by&63)&mask), int32(half>>(3*by&63)&mask)
			bit += 8 * width
		}
	case width <= 14: // four
		for ; done+4 <= fast; done += 4 {
			word, four := binary.LittleEndian.Uint64(data[bit>>3:])>>(bit&7), (*[4]int32)(to[done:])
			four[0], four[1] = int32(word&mask), int32(word>>(by&63)&mask)
			four[2], four[3] = int32(word>>(2*by&63)&mask), int32(word>>(3*by&63)&mask)
			bit += 4 * width
		}
	case width <= 28: // two
		for ; done+2 <= fast; done += 2 {
			word, two := binary.LittleEndian.Uint64(data[bit>>3:])>>(bit&7), (*[2]int32)(to[done:])
			two[0], two[1] = int32(word&mask), int32(word>>(by&63)&mask)
			bit += 2 * width
		}
	}
	for i := done; i < fast; i++ {
		to[i] = int32(binary.LittleEndian.Uint64(data[bit>>3:]) >> (bit & 7) & mask)
		bit += width
	}
	for i := range to[fast:] {
		var word uint64
		for b := range min(5, len(data)-bit>>3) {
			word |= uint64(data[bit>>3+b]) << (8 * b)
		}
		to[fast+i] = int32(word >> (bit & 7) & mask)
		bit += width
	}
	r.bit = bit
}

// orPacked does with packed values what Or does.
func (r *Reader) orPacked(to []uint64, words []int32, shift uint) {
	width, mask, bit, data := r.width, uint64(1)<<r.width-1, r.bit, r.data
	done, by, up := 0, uint(width)&63, shift&63
	if len(data) >= 8 && 0 < width && width <= 14 {
		fast := min(len(to), max(0, ((len(data)-8)*8-bit)/width))
		for ; done+4 <= fast; done += 4 {
			word, four := binary.LittleEndian.Uint64(data[bit>>3:])>>(bit&7), (*[4]uint64)(to[done:])
			four[0] |= uint64(words[word&mask]) << up
			four[1] |= uint64(words[word>>by&mask]) << up
			four[2] |= uint64(words[word>>(2*by&63)&mask]) << up
			four[3] |= uint64(words[word>>(3*by&63)&mask]) << up
			bit += 4 * width
		}
		r.bit = bit
	}
	var some [64]int32
	for to = to[done:]; len(to) > 0; {
		part := some[:min(len(to), len(some))]
		r.unpack(part)
		for i, value := range part {
			to[i] |= uint64(words[value]) << up
		}
		to = to[len(part):]
	}
}
