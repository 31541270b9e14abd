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

// common yields what is in both of two sets, in ascending order.
func common(a, b *set) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		if len(b.index) < len(a.index) {
			a, b = b, a
		}
		for i, at := range a.index {
			for w := a.words[i] & b.word(at); w != 0; w &= w - 1 {
				if !yield(int32(at)<<6 + int32(bits.TrailingZeros64(w))) {
					return
				}
			}
		}
	}
}

// meets reports whether two sets have a column in common.
func meets(a, b *set) bool {
	if len(b.index) < len(a.index) {
		a, b = b, a
	}
	for i, at := range a.index {
		if a.words[i]&b.word(at) != 0 {
			return true
		}
	}
	return false
}

// keep makes a set that nobody else has what is in both of two others, but in none of
// two more.
func (s *set) keep(a, b, not, nor *set) {
	if len(b.index) < len(a.index) {
		a, b = b, a
	}
	s.index, s.words = s.index[:0], s.words[:0]
	for i, at := range a.index {
		if w := a.words[i] & b.word(at) &^ (not.word(at) | nor.word(at)); w != 0 {
			s.index, s.words = append(s.index, at), append(s.words, w)
		}
	}
}

// push adds a column behind all others to a set that nobody else has.
func (s *set) push(column int32) {
	at, bit := wordOf(column)
	if n := len(s.index); n > 0 && s.index[n-1] == at {
		s.words[n-1] |= bit
		return
	}
	s.index, s.words = append(s.index, at), append(s.words, bit)
}

// canvas is a set in the making.
type canvas struct {
	dense   []uint64
	touched []uint32 // the words that are not zero
}

func newCanvas(columns int) canvas { return canvas{dense: make([]uint64, (columns+63)/64)} }

func (c *canvas) addWord(index uint32, word uint64) {
	if c.dense[index] == 0 && word != 0 {
		c.touched = append(c.touched, index)
	}
	c.dense[index] |= word
}

func (c *canvas) has(column int32) bool {
	index, bit := wordOf(column)
	return c.dense[index]&bit != 0
}

func (c *canvas) add(column int32) { c.addWord(wordOf(column)) }

// addRange adds the columns from first up to but not including end.
func (c *canvas) addRange(first, end int32) {
	if first >= end {
		return
	}
	a, b := uint32(first)>>6, uint32(end-1)>>6
	head, tail := ^uint64(0)<<(uint32(first)&63), ^uint64(0)>>(63-uint32(end-1)&63)
	if a == b {
		c.addWord(a, head&tail)
		return
	}
	c.addWord(a, head)
	for w := a + 1; w < b; w++ {
		c.addWord(w, ^uint64(0))
	}
	c.addWord(b, tail)
}

func (c *canvas) addSet(t *set) {
	for i, w := range t.words {
		c.addWord(t.index[i], w)
	}
}

// addBeyond adds what of a set is not on another canvas.
func (c *canvas) addBeyond(t *set, other *canvas) {
	for i, w := range t.words {
		c.addWord(t.index[i], w&^other.dense[t.index[i]])
	}
}

func (c *canvas) clear() {
	for _, i := range c.touched {
		c.dense[i] = 0
	}
	c.touched = c.touched[:0]
}

// sets interns sets, so that equal sets are one pointer, and builds new ones in
// scratch areas.
type sets struct {
	canvas  // what is added before build
	columns int
	known   table[uint64, *set]
	count   int32
	index   []uint32 // of the result of an operation, as a set has them
	words   []uint64
	none    *set
}

func newSets(columns int) *sets {
	s := &sets{canvas: newCanvas(columns), columns: columns}
	s.none = s.build()
	return s
}

// over returns sets that know these ones, to which nothing may be added from now on.
func (s *sets) over() *sets {
	return &sets{canvas: newCanvas(s.columns), columns: s.columns, known: s.known.over(), count: s.count, none: s.none}
}

// build returns what was added since the last build.
func (s *sets) build() *set { return s.take(&s.canvas) }

// take returns what is on a canvas, and clears it.
func (s *sets) take(c *canvas) *set {
	if !slices.IsSorted(c.touched) {
		slices.Sort(c.touched)
	}
	s.index, s.words = append(s.index[:0], c.touched...), s.words[:0]
	for _, i := range c.touched {
		s.words = append(s.words, c.dense[i])
	}
	c.clear()
	return s.intern()
}

// beyond returns what of a set is not on a canvas.
func (s *sets) beyond(t *set, c *canvas) *set {
	index, words := s.index[:0], s.words[:0]
	for i, at := range t.index {
		if w := t.words[i] &^ c.dense[at]; w != 0 {
			index, words = append(index, at), append(words, w)
		}
	}
	s.index, s.words = index, words
	return s.intern()
}

// intern returns the set of the index and words at hand.
func (s *sets) intern() *set {
	sum := uint64(len(s.index))
	for i, w := range s.words {
		sum = bits.RotateLeft64((sum^w)*0x9e3779b97f4a7c15, 29) + uint64(s.index[i])
	}
	for ; ; sum++ { // past others of this sum
		k, taken := s.known.get(sum)
		if !taken {
			break
		}
		if slices.Equal(k.index, s.index) && slices.Equal(k.words, s.words) {
			return k
		}
	}
	t := &set{id: s.count, index: slices.Clone(s.index), words: slices.Clone(s.words)}
	s.count++
	s.known.put(sum, t)
	return t
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
	index, words := s.index[:0], s.words[:0]
	i := 0
	for k, at := range b.index {
		first := i
		for i < len(a.index) && a.index[i] < at {
			i++
		}
		index, words = append(index, a.index[first:i]...), append(words, a.words[first:i]...)
		w := b.words[k]
		if i < len(a.index) && a.index[i] == at {
			w |= a.words[i]
			i++
		}
		index, words = append(index, at), append(words, w)
	}
	index, words = append(index, a.index[i:]...), append(words, a.words[i:]...)
	s.index, s.words = index, words
	return s.intern()
}

// with returns a set with some columns more.
func (s *sets) with(a *set, columns []int32) *set {
	s.addSet(a)
	for _, column := range columns {
		s.add(column)
	}
	return s.build()
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
	return s.filter(a, b, 0)
}

func (s *sets) minus(a, b *set) *set {
	switch {
	case a == b:
		return s.none
	case a.empty() || b.empty():
		return a
	}
	return s.filter(a, b, ^uint64(0))
}

// filter returns what of a is in b, flipped by a mask.
func (s *sets) filter(a, b *set, flip uint64) *set {
	step := 16*len(a.index) >= len(b.index) // else it is faster to search b
	k := 0
	other := func(at uint32) uint64 {
		if !step {
			return b.word(at) ^ flip
		}
		for k < len(b.index) && b.index[k] < at {
			k++
		}
		if k < len(b.index) && b.index[k] == at {
			return b.words[k] ^ flip
		}
		return flip
	}
	same := 0
	for same < len(a.index) && a.words[same]&^other(a.index[same]) == 0 {
		same++
	}
	if same == len(a.index) {
		return a
	}
	index, words := s.index[:0], s.words[:0]
	index, words = append(index, a.index[:same]...), append(words, a.words[:same]...)
	for i := same; i < len(a.index); i++ {
		if w := a.words[i] & other(a.index[i]); w != 0 {
			index, words = append(index, a.index[i]), append(words, w)
		}
	}
	s.index, s.words = index, words
	return s.intern()
}
