package netset

import (
	"cmp"
	"encoding/binary"
	"slices"
)

// JoinPorts returns what is in any of the sets.
func JoinPorts(sets ...Ports) Ports {
	var all []span[uint32]
	for _, s := range sets {
		all = append(all, s.spans...)
	}
	return Ports{normalize[uint32, portOrder](all)}
}

// Part is ports that are in the same sets of several, and in no others.
type Part struct {
	Ports Ports
	Sets  []int // indexes of the sets, ascending
}

// Partition cuts the union of the sets into its parts, in the order of their
// lowest ports. No two parts are in the same sets.
func Partition(sets []Ports) []Part {
	edges := edgesOf(sets)
	var parts []Part
	var inside []int // the sets that hold what comes after the edge
	var key []byte
	index := map[string]int{}
	for i, e := range edges {
		at, in := slices.BinarySearch(inside, e.set)
		if in {
			inside = slices.Delete(inside, at, at+1)
		} else {
			inside = slices.Insert(inside, at, e.set)
		}
		if len(inside) == 0 || edges[i+1].at == e.at {
			continue
		}
		key = key[:0]
		for _, set := range inside {
			key = binary.LittleEndian.AppendUint32(key, uint32(set))
		}
		p, known := index[string(key)]
		if !known {
			p = len(parts)
			index[string(key)] = p
			parts = append(parts, Part{Sets: slices.Clone(inside)})
		}
		parts[p].Ports.spans = append(parts[p].Ports.spans, span[uint32]{e.at, edges[i+1].at - 1})
	}
	return parts
}

// edge is where a span of a set begins, or the first pair behind one.
type edge struct {
	at  uint32
	set int
}

func edgesOf(sets []Ports) []edge {
	n := 0
	for _, s := range sets {
		n += 2 * len(s.spans)
	}
	edges := make([]edge, 0, n)
	for i, s := range sets {
		for _, span := range s.spans {
			edges = append(edges, edge{span.first, i}, edge{span.last + 1, i})
		}
	}
	slices.SortFunc(edges, func(a, b edge) int { return cmp.Compare(a.at, b.at) })
	return edges
}
