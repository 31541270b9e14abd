// Package netset holds sets of ports and of addresses.
//
// Both are immutable values made of sorted, disjoint spans. The zero value is
// the empty set, so a forgotten set can never let anything through.
package netset

import (
	"cmp"
	"slices"
)

// span is all values from first to last, both included.
type span[T any] struct{ first, last T }

// order says how the values of a span are compared and what comes after one.
type order[T any] interface {
	compare(a, b T) int
	// next returns the value after v; ok is false when nothing follows v
	// directly, as at the end of an address family.
	next(v T) (after T, ok bool)
	prev(v T) (before T, ok bool)
}

// normalize sorts spans and joins those that overlap or touch.
func normalize[T any, O order[T]](spans []span[T]) []span[T] {
	var o O
	slices.SortFunc(spans, func(a, b span[T]) int {
		return cmp.Or(o.compare(a.first, b.first), o.compare(a.last, b.last))
	})
	var joined []span[T]
	for _, s := range spans {
		if o.compare(s.first, s.last) > 0 {
			continue
		}
		if n := len(joined); n > 0 && touches[T, O](joined[n-1], s) {
			if o.compare(s.last, joined[n-1].last) > 0 {
				joined[n-1].last = s.last
			}
			continue
		}
		joined = append(joined, s)
	}
	return joined
}

// touches reports whether b, which does not begin before a, overlaps a or
// begins right after it.
func touches[T any, O order[T]](a, b span[T]) bool {
	var o O
	if o.compare(b.first, a.last) <= 0 {
		return true
	}
	after, ok := o.next(a.last)
	return ok && o.compare(after, b.first) == 0
}

func union[T any, O order[T]](a, b []span[T]) []span[T] {
	if len(a) == 0 {
		return b
	}
	if len(b) == 0 {
		return a
	}
	return normalize[T, O](slices.Concat(a, b))
}

func intersect[T any, O order[T]](a, b []span[T]) []span[T] {
	var o O
	var both []span[T]
	for len(a) > 0 && len(b) > 0 {
		first, last := a[0].first, a[0].last
		if o.compare(b[0].first, first) > 0 {
			first = b[0].first
		}
		if o.compare(b[0].last, last) < 0 {
			last = b[0].last
		}
		if o.compare(first, last) <= 0 {
			both = append(both, span[T]{first, last})
		}
		if o.compare(a[0].last, b[0].last) < 0 {
			a = a[1:]
		} else {
			b = b[1:]
		}
	}
	return both
}

func minus[T any, O order[T]](a, b []span[T]) []span[T] {
	var o O
	var left []span[T]
	for _, s := range a {
		for len(b) > 0 && o.compare(b[0].last, s.first) < 0 {
			b = b[1:]
		}
		whole := true
		for _, cut := range b {
			if o.compare(cut.first, s.last) > 0 {
				break
			}
			if o.compare(cut.first, s.first) > 0 {
				before, _ := o.prev(cut.first)
				left = append(left, span[T]{s.first, before})
			}
			after, ok := o.next(cut.last)
			if !ok || o.compare(after, s.last) > 0 {
				whole = false
				break
			}
			s.first = after
		}
		if whole {
			left = append(left, s)
		}
	}
	return left
}

func contains[T any, O order[T]](spans []span[T], v T) bool {
	var o O
	i, found := slices.BinarySearchFunc(spans, v, func(s span[T], v T) int { return o.compare(s.first, v) })
	if found {
		return true
	}
	return i > 0 && o.compare(v, spans[i-1].last) <= 0
}
