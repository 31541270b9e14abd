package reach

import (
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies/netset"
)

const manyColumns = 200 // more than three words

// cells is a relation kept naively: which ports go with which columns.
type cells [4][manyColumns]bool

// cellPorts are the ports that stand for the rows of cells.
var cellPorts = [...]netset.Ports{
	netset.PortSpan(netset.TCP, 1, 79), netset.PortSpan(netset.TCP, 80, 80), netset.PortSpan(netset.UDP, 53, 53), netset.EveryPort(netset.SCTP),
}

func drawColumns(t *rapid.T) []int32 {
	first := rapid.Int32Range(0, manyColumns-1).Draw(t, "first")
	end := rapid.Int32Range(0, manyColumns).Draw(t, "end")
	var columns []int32
	for c := first; c < end; c++ {
		columns = append(columns, c)
	}
	return append(columns, rapid.SliceOfN(rapid.Int32Range(0, manyColumns-1), 0, 4).Draw(t, "more")...)
}

func (s *sets) of(columns []int32) *set {
	for _, c := range columns {
		s.add(c)
	}
	return s.build()
}

func TestSetsAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSets(manyColumns)
		first, second := drawColumns(t), drawColumns(t)
		a, b := s.of(first), s.of(second)
		or, and, minus := s.or(a, b), s.and(a, b), s.minus(a, b)
		for c := range int32(manyColumns) {
			x, y := slices.Contains(first, c), slices.Contains(second, c)
			if a.has(c) != x || or.has(c) != (x || y) || and.has(c) != (x && y) || minus.has(c) != (x && !y) {
				t.Fatalf("column %d: in %v %v, or %v, and %v, minus %v", c, x, y, or.has(c), and.has(c), minus.has(c))
			}
		}
		if want := sorted(first); a.empty() != (len(want) == 0) || !slices.Equal(slices.Collect(a.columns()), want) {
			t.Fatalf("%v has columns %v", first, slices.Collect(a.columns()))
		}
		// Equal sets are one pointer, however they came to be.
		if s.or(minus, and) != a || s.or(b, a) != or || s.minus(or, b) != minus || s.and(a, s.none) != s.none {
			t.Fatalf("equal sets are not one: %v and %v", first, second)
		}
		low, high := rapid.Int32Range(0, manyColumns).Draw(t, "low"), rapid.Int32Range(0, manyColumns).Draw(t, "high")
		s.addRange(low, high)
		var span []int32
		for c := low; c < high; c++ {
			span = append(span, c)
		}
		if got := s.build(); got != s.of(span) {
			t.Fatalf("the range from %d to %d is %v", low, high, slices.Collect(got.columns()))
		}
	})
}

func sorted(columns []int32) []int32 {
	columns = slices.Clone(columns)
	slices.Sort(columns)
	return slices.Compact(columns)
}

// drawRelation draws layers whose ports and columns overlap, and the same cells.
func drawRelation(t *rapid.T, a algebra) (relation, cells) {
	var layers []layer
	var naive cells
	for range rapid.IntRange(0, 4).Draw(t, "layers") {
		columns := drawColumns(t)
		rows := rapid.IntRange(0, 15).Draw(t, "ports")
		var ports netset.Ports
		for i, p := range cellPorts {
			if rows&(1<<i) == 0 {
				continue
			}
			ports = ports.Union(p)
			for _, c := range columns {
				naive[i][c] = true
			}
		}
		layers = append(layers, layer{a.ports.id(ports), a.of(columns)})
	}
	return a.normal(layers), naive
}

func TestRelationsAgreeWithNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := newAlgebra(manyColumns)
		r, inR := drawRelation(t, a)
		s, inS := drawRelation(t, a)
		unite, intersect, subtract := a.unite(r, s), a.intersect(r, s), a.subtract(r, s)
		for row := range cellPorts {
			for c := range int32(manyColumns) {
				x, y := inR[row][c], inS[row][c]
				for _, is := range []struct {
					what string
					r    relation
					want bool
				}{{"itself", r, x}, {"unite", unite, x || y}, {"intersect", intersect, x && y}, {"subtract", subtract, x && !y}} {
					if got := a.holds(t, is.r, row, c); got != is.want {
						t.Fatalf("%s: ports %d and column %d: %v, want %v", is.what, row, c, got, is.want)
					}
				}
			}
		}
		for _, law := range []struct {
			what string
			x, y relation
		}{
			{"unite commutes", unite, a.unite(s, r)},
			{"intersect commutes", intersect, a.intersect(s, r)},
			{"subtract and intersect make the whole", a.unite(subtract, intersect), r},
			{"a relation less itself is empty", a.subtract(r, r), nil},
		} {
			if !slices.Equal(law.x, law.y) {
				t.Fatalf("%s: %v and %v", law.what, law.x, law.y)
			}
		}
	})
}

// holds looks a cell up in the layers, whose ports must be disjoint and whose
// columns distinct.
func (a algebra) holds(t *rapid.T, r relation, row int, column int32) bool {
	var in uint
	for i, l := range r {
		for _, other := range r[:i] {
			if l.columns == other.columns || a.ports.and(l.ports, other.ports) != noPorts {
				t.Fatalf("%v is not in normal form", r)
			}
		}
		if cellPorts[row].Minus(a.ports.sets[l.ports]).IsEmpty() && l.columns.has(column) {
			in |= 1 << i
		}
	}
	return bits.OnesCount(in) == 1
}
