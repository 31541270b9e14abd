package reach

import (
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
	if n := uint32(len(s.index)); n > 0 && s.index[n-1]-s.index[0] == n-1 { // without gaps
		if i := index - s.index[0]; i < n {
			return s.words[i]
		}
		return 0
	}
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
// scratch areas.
type sets struct {
	known   map[uint64][]*set
	count   int32
	dense   []uint64 // what is added before build, by word
	touched []uint32 // its words that are not zero
	index   []uint32 // of the result of an operation, as a set has them
	words   []uint64
	none    *set
}

func newSets(columns int) *sets {
	s := &sets{known: map[uint64][]*set{}, dense: make([]uint64, (columns+63)/64)}
	s.none = s.build()
	return s
}

func (s *sets) addWord(index uint32, word uint64) {
	if s.dense[index] == 0 && word != 0 {
		s.touched = append(s.touched, index)
	}
	s.dense[index] |= word
}

func (s *sets) add(column int32) { s.addWord(wordOf(column)) }

// addRange adds the columns from first up to but not including end.
func (s *sets) addRange(first, end int32) {
	if first >= end {
		return
	}
	a, b := uint32(first)>>6, uint32(end-1)>>6
	head, tail := ^uint64(0)<<(uint32(first)&63), ^uint64(0)>>(63-uint32(end-1)&63)
	if a == b {
		s.addWord(a, head&tail)
		return
	}
	s.addWord(a, head)
	for w := a + 1; w < b; w++ {
		s.addWord(w, ^uint64(0))
	}
	s.addWord(b, tail)
}

func (s *sets) addSet(t *set) {
	for i, w := range t.words {
		s.addWord(t.index[i], w)
	}
}

// build returns what was added since the last build.
func (s *sets) build() *set {
	if !slices.IsSorted(s.touched) {
		slices.Sort(s.touched)
	}
	s.words = s.words[:0]
	for _, i := range s.touched {
		s.words = append(s.words, s.dense[i])
		s.dense[i] = 0
	}
	s.index, s.touched = append(s.index[:0], s.touched...), s.touched[:0]
	return s.intern()
}

// intern returns the set of the index and words at hand.
func (s *sets) intern() *set {
	sum := uint64(len(s.index))
	for i, w := range s.words {
		sum = bits.RotateLeft64((sum^w)*0x9e3779b97f4a7c15, 29) + uint64(s.index[i])
	}
	for _, k := range s.known[sum] {
		if slices.Equal(k.index, s.index) && slices.Equal(k.words, s.words) {
			return k
		}
	}
	t := &set{id: s.count, index: slices.Clone(s.index), words: slices.Clone(s.words)}
	s.count++
	s.known[sum] = append(s.known[sum], t)
	return t
}

func (s *sets) keep(index uint32, word uint64) {
	s.index, s.words = append(s.index, index), append(s.words, word)
}

func (s *sets) or(a, b *set) *set {
	if len(a.index) < len(b.index) {
		a, b = b, a
	}
	if a == b || b.empty() {
		return a
	}
	if a.covers(b) {
		return a
	}
	s.index, s.words = s.index[:0], s.words[:0]
	i := 0
	for k, at := range b.index {
		for ; i < len(a.index) && a.index[i] < at; i++ {
			s.keep(a.index[i], a.words[i])
		}
		w := b.words[k]
		if i < len(a.index) && a.index[i] == at {
			w |= a.words[i]
			i++
		}
		s.keep(at, w)
	}
	s.index, s.words = append(s.index, a.index[i:]...), append(s.words, a.words[i:]...)
	return s.intern()
}

// covers reports whether all of another set is in the set.
func (s *set) covers(t *set) bool {
	for i, at := range t.index {
		if t.words[i]&^s.word(at) != 0 {
			return false
		}
	}
	return true
}

func (s *sets) and(a, b *set) *set {
	if len(a.index) > len(b.index) {
		a, b = b, a
	}
	if a == b || a.empty() {
		return a
	}
	return s.filter(a, b, func(x, y uint64) uint64 { return x & y })
}

func (s *sets) minus(a, b *set) *set {
	switch {
	case a == b:
		return s.none
	case a.empty() || b.empty():
		return a
	}
	return s.filter(a, b, func(x, y uint64) uint64 { return x &^ y })
}

// filter returns a with each of its words changed as f does, given the word of b
// at its place. The result is no more than a.
func (s *sets) filter(a, b *set, f func(x, y uint64) uint64) *set {
	s.index, s.words = s.index[:0], s.words[:0]
	step := 16*len(a.index) >= len(b.index) // else it is faster to search b
	k, same := 0, true
	for i, at := range a.index {
		var other uint64
		if step {
			for k < len(b.index) && b.index[k] < at {
				k++
			}
			if k < len(b.index) && b.index[k] == at {
				other = b.words[k]
			}
		} else {
			other = b.word(at)
		}
		w := f(a.words[i], other)
		same = same && w == a.words[i]
		if w != 0 {
			s.keep(at, w)
		}
	}
	if same {
		return a
	}
	return s.intern()
}
