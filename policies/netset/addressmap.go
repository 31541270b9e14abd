package netset

import (
	"iter"
	"net/netip"
	"slices"
	"sort"
)

// AddressMap is values by address, in the order of addresses. It is immutable, and those
// that AddressBuilder makes one after the other share what is the same. The zero map is
// empty.
type AddressMap[V comparable] struct {
	pages []*page[V]
	size  int
}

// page is neighbours in a map. It changes only while it is its builder's alone.
type page[V comparable] struct {
	edition uint64
	entries []addressed[V]
}

type addressed[V comparable] struct {
	at    netip.Addr
	value V
}

// pageSize is how many neighbours are copied at most where one is put.
const pageSize = 128

// Len returns how many addresses there are.
func (m AddressMap[V]) Len() int { return m.size }

// Get returns the value of an address.
func (m AddressMap[V]) Get(a netip.Addr) (v V, ok bool) {
	i, at, found := find(m.pages, a)
	if !found {
		return v, false
	}
	return m.pages[i].entries[at].value, true
}

// All yields addresses with their values, ascending.
func (m AddressMap[V]) All() iter.Seq2[netip.Addr, V] {
	return func(yield func(netip.Addr, V) bool) {
		for _, p := range m.pages {
			for i := range p.entries {
				if !yield(p.entries[i].at, p.entries[i].value) {
					return
				}
			}
		}
	}
}

// find returns the page that an address is in, or belongs into, and its place there.
func find[V comparable](pages []*page[V], a netip.Addr) (i, at int, found bool) {
	i = max(0, sort.Search(len(pages), func(i int) bool { return a.Less(pages[i].entries[0].at) })-1)
	if len(pages) == 0 {
		return 0, 0, false
	}
	at, found = slices.BinarySearchFunc(pages[i].entries, a, func(e addressed[V], a netip.Addr) int { return e.at.Compare(a) })
	return i, at, found
}

// Differ yields the addresses whose values are not the same in two maps, ascending, with
// a pointer to each value, nil where a map has none. What the maps share costs nothing.
func (m AddressMap[V]) Differ(from AddressMap[V]) iter.Seq2[netip.Addr, [2]*V] {
	return func(yield func(netip.Addr, [2]*V) bool) {
		x, y := cursor[V]{pages: from.pages}, cursor[V]{pages: m.pages}
		for !x.ends() || !y.ends() {
			if x.at == 0 && y.at == 0 && !x.ends() && !y.ends() && x.pages[0] == y.pages[0] {
				x.pages, y.pages = x.pages[1:], y.pages[1:]
				continue
			}
			var was, is *addressed[V]
			if !x.ends() {
				was = &x.pages[0].entries[x.at]
			}
			if !y.ends() {
				is = &y.pages[0].entries[y.at]
			}
			switch {
			case is == nil || was != nil && was.at.Less(is.at):
				if !yield(was.at, [2]*V{&was.value, nil}) {
					return
				}
				x.next()
			case was == nil || is.at.Less(was.at):
				if !yield(is.at, [2]*V{nil, &is.value}) {
					return
				}
				y.next()
			default:
				if was.value != is.value && !yield(is.at, [2]*V{&was.value, &is.value}) {
					return
				}
				x.next()
				y.next()
			}
		}
	}
}

// cursor is a place in a map.
type cursor[V comparable] struct {
	pages []*page[V]
	at    int
}

func (c *cursor[V]) ends() bool { return len(c.pages) == 0 }

func (c *cursor[V]) next() {
	if c.at++; c.at == len(c.pages[0].entries) {
		c.pages, c.at = c.pages[1:], 0
	}
}

// AddressBuilder makes AddressMaps. The zero builder begins with an empty one. It is for
// one goroutine at a time.
type AddressBuilder[V comparable] struct {
	pages   []*page[V]
	size    int
	edition uint64
}

// Map returns the map as it is now.
func (b *AddressBuilder[V]) Map() AddressMap[V] {
	b.edition++
	return AddressMap[V]{slices.Clone(b.pages), b.size}
}

// Get returns the value of an address.
func (b *AddressBuilder[V]) Get(a netip.Addr) (V, bool) { return AddressMap[V]{pages: b.pages}.Get(a) }

// Put gives an address a value.
func (b *AddressBuilder[V]) Put(a netip.Addr, v V) {
	if len(b.pages) == 0 {
		b.pages = append(b.pages, &page[V]{b.edition, []addressed[V]{{a, v}}})
		b.size++
		return
	}
	i, at, found := find(b.pages, a)
	p := b.own(i)
	if found {
		p.entries[at].value = v
		return
	}
	p.entries = slices.Insert(p.entries, at, addressed[V]{a, v})
	b.size++
	if half := pageSize / 2; len(p.entries) > pageSize {
		b.pages = slices.Insert(b.pages, i+1, &page[V]{b.edition, slices.Clone(p.entries[half:])})
		p.entries = slices.Clip(p.entries[:half:half])
	}
}

// Delete takes an address out, if it is there.
func (b *AddressBuilder[V]) Delete(a netip.Addr) {
	i, at, found := find(b.pages, a)
	if !found {
		return
	}
	b.size--
	if len(b.pages[i].entries) == 1 {
		b.pages = slices.Delete(b.pages, i, i+1)
		return
	}
	p := b.own(i)
	p.entries = slices.Delete(p.entries, at, at+1)
}

// own returns a page that no map has.
func (b *AddressBuilder[V]) own(i int) *page[V] {
	if p := b.pages[i]; p.edition != b.edition {
		b.pages[i] = &page[V]{b.edition, slices.Clone(p.entries)}
	}
	return b.pages[i]
}
