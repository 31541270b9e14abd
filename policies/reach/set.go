package reach

import (
	"encoding/binary"
	"hash/maphash"
	"iter"
	"math/bits"
	"slices"
)

// set is an immutable set of columns, kept as its non-empty 64-bit words. Most
// sets touch a few words however many columns there are, since the columns of
// one namespace stand side by side.
type set struct {
	id    int32
	index []uint32 // of each non-empty word, ascending
	words []uint64
}

func (s *set) has(column int32) bool {
	word, bit := wordOf(column)
	return s.word(word)&bit != 0
}

// wordOf returns the index of the word that holds a column, and its bit there.
func wordOf(column int32) (index uint32, bit uint64) {
	return uint32(column) >> 6, 1 << (uint32(column) & 63)
}

// word returns the word with this index, which may be an empty one.
func (s *set) word(index uint32) uint64 {
	if i, found := slices.BinarySearch(s.index, index); found {
		return s.words[i]
	}
	return 0
}

func (s *set) empty() bool { return len(s.index) == 0 }

// columns yields the set in ascending order.
func (s *set) columns() iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for i, w := range s.words {
			base := int32(s.index[i]) << 6
			for ; w != 0; w &= w - 1 {
				if !yield(base + int32(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// sets interns sets, so that equal sets are one pointer, and builds new ones in
// a dense scratch area.
type sets struct {
	seed    maphash.Seed
	known   map[uint64][]*set
	count   int32
	scratch []uint64
	low     int // scratch words outside low..high are zero
	high    int
	none    *set
}

func newSets(columns int) *sets {
	s := &sets{seed: maphash.MakeSeed(), known: map[uint64][]*set{}, scratch: make([]uint64, (columns+63)/64)}
	s.clear()
	s.none = s.build()
	return s
}

func (s *sets) clear() { s.low, s.high = len(s.scratch), -1 }

func (s *sets) widen(low, high int) { s.low, s.high = min(s.low, low), max(s.high, high) }

func (s *sets) add(column int32) {
	w := int(column >> 6)
	s.scratch[w] |= 1 << (uint32(column) & 63)
	s.widen(w, w)
}

// addRange adds the columns from first up to but not including end.
func (s *sets) addRange(first, end int32) {
	if first >= end {
		return
	}
	a, b := int(first>>6), int((end-1)>>6)
	head, tail := ^uint64(0)<<(uint32(first)&63), ^uint64(0)>>(63-uint32(end-1)&63)
	s.widen(a, b)
	if a == b {
		s.scratch[a] |= head & tail
		return
	}
	s.scratch[a] |= head
	for w := a + 1; w < b; w++ {
		s.scratch[w] = ^uint64(0)
	}
	s.scratch[b] |= tail
}

func (s *sets) addSet(t *set) {
	for i, w := range t.words {
		s.scratch[t.index[i]] |= w
	}
	if n := len(t.index); n > 0 {
		s.widen(int(t.index[0]), int(t.index[n-1]))
	}
}

// build returns what was added since the last build.
func (s *sets) build() *set {
	n := 0
	for w := s.low; w <= s.high; w++ {
		if s.scratch[w] != 0 {
			n++
		}
	}
	built := &set{index: make([]uint32, 0, n), words: make([]uint64, 0, n)}
	for w := s.low; w <= s.high; w++ {
		if s.scratch[w] != 0 {
			built.index = append(built.index, uint32(w))
			built.words = append(built.words, s.scratch[w])
			s.scratch[w] = 0
		}
	}
	s.clear()
	return s.intern(built)
}

func (s *sets) intern(t *set) *set {
	var h maphash.Hash
	h.SetSeed(s.seed)
	var b [12]byte
	for i, w := range t.words {
		binary.LittleEndian.PutUint32(b[:4], t.index[i])
		binary.LittleEndian.PutUint64(b[4:], w)
		h.Write(b[:])
	}
	sum := h.Sum64()
	for _, k := range s.known[sum] {
		if slices.Equal(k.index, t.index) && slices.Equal(k.words, t.words) {
			return k
		}
	}
	t.id = s.count
	s.count++
	s.known[sum] = append(s.known[sum], t)
	return t
}

func (s *sets) or(a, b *set) *set {
	switch {
	case a == b || b.empty():
		return a
	case a.empty():
		return b
	}
	s.addSet(a)
	s.addSet(b)
	return s.build()
}

func (s *sets) and(a, b *set) *set {
	switch {
	case a == b || a.empty():
		return a
	case b.empty():
		return b
	}
	both := &set{}
	if len(a.index) > len(b.index) {
		a, b = b, a
	}
	if 16*len(a.index) < len(b.index) {
		for i, at := range a.index {
			if w := a.words[i] & b.word(at); w != 0 {
				both.index, both.words = append(both.index, at), append(both.words, w)
			}
		}
		return s.intern(both)
	}
	for i, k := 0, 0; i < len(a.index) && k < len(b.index); {
		switch {
		case a.index[i] < b.index[k]:
			i++
		case a.index[i] > b.index[k]:
			k++
		default:
			if w := a.words[i] & b.words[k]; w != 0 {
				both.index, both.words = append(both.index, a.index[i]), append(both.words, w)
			}
			i, k = i+1, k+1
		}
	}
	return s.intern(both)
}

func (s *sets) minus(a, b *set) *set {
	switch {
	case a == b:
		return s.none
	case a.empty() || b.empty():
		return a
	}
	left := &set{}
	if 16*len(a.index) < len(b.index) {
		for i, at := range a.index {
			if w := a.words[i] &^ b.word(at); w != 0 {
				left.index, left.words = append(left.index, at), append(left.words, w)
			}
		}
		return s.intern(left)
	}
	k := 0
	for i, w := range a.words {
		for k < len(b.index) && b.index[k] < a.index[i] {
			k++
		}
		if k < len(b.index) && b.index[k] == a.index[i] {
			w &^= b.words[k]
		}
		if w != 0 {
			left.index, left.words = append(left.index, a.index[i]), append(left.words, w)
		}
	}
	return s.intern(left)
}
