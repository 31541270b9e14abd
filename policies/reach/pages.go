package reach

import (
	"iter"
	"slices"
)

const pageSize = 64

// pages is a list whose copies share what neither of them has changed.
type pages[T any] struct {
	all   []*[pageSize]T
	mine  []bool // pages that no copy shares
	count int32
}

func newPages[T any](count int) pages[T] {
	n := (count + pageSize - 1) / pageSize
	p := pages[T]{make([]*[pageSize]T, n), make([]bool, n), int32(count)}
	backing := make([][pageSize]T, n)
	for i := range p.all {
		p.all[i], p.mine[i] = &backing[i], true
	}
	return p
}

func (p *pages[T]) at(i int32) T { return p.all[uint32(i)/pageSize][uint32(i)%pageSize] }

// set changes the list, and no copy of it.
func (p *pages[T]) set(i int32, v T) {
	n := uint32(i) / pageSize
	if !p.mine[n] {
		page := *p.all[n]
		p.all[n], p.mine[n] = &page, true
	}
	p.all[n][uint32(i)%pageSize] = v
}

func (p *pages[T]) push(v T) {
	if int(p.count) == len(p.all)*pageSize {
		p.all, p.mine = append(p.all, new([pageSize]T)), append(p.mine, true)
	}
	p.count++
	p.set(p.count-1, v)
}

// copy returns a list that can change without this one, which must not from now on.
func (p *pages[T]) copy() pages[T] {
	return pages[T]{slices.Clone(p.all), make([]bool, len(p.all)), p.count}
}

// differing yields where two lists of one length differ, in order. What they share is
// not looked at.
func differing[T comparable](p, other *pages[T]) iter.Seq[int32] {
	return func(yield func(int32) bool) {
		for n, page := range p.all {
			if page == other.all[n] {
				continue
			}
			first := int32(n) * pageSize
			for k := range min(pageSize, p.count-first) {
				if page[k] != other.all[n][k] && !yield(first+k) {
					return
				}
			}
		}
	}
}

// each yields all elements, in order.
func (p *pages[T]) each() iter.Seq2[int32, T] {
	return func(yield func(int32, T) bool) {
		for n, page := range p.all {
			first := int32(n) * pageSize
			for k := range min(pageSize, p.count-first) {
				if !yield(first+k, page[k]) {
					return
				}
			}
		}
	}
}
