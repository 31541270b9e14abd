package nft

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// names are what the ruleset before calls things.
type names struct {
	vectors map[string]uint64            // by name
	classes map[string]map[uint32]string // the names, by way and class
	sets    map[string]*Set
}

func (r *Ruleset) byName() names {
	n := names{map[string]uint64{}, map[string]map[uint32]string{}, map[string]*Set{}}
	for _, v := range r.Vectors {
		n.vectors[v.Name] = v.ID
		way, _, _ := strings.Cut(v.Name, "_")
		if n.classes[way] == nil {
			n.classes[way] = map[uint32]string{}
		}
		n.classes[way][classOf(v.ID)] = v.Name
	}
	for i := range r.Sets {
		name := r.Sets[i].Name
		if r.Sets[i].Interval {
			name = name[:strings.LastIndexByte(name, '_')]
		}
		n.sets[name] = &r.Sets[i]
	}
	return n
}

// textOf returns a text that is the same for equal contents.
func textOf(content []entry) []byte {
	var k []byte
	for _, e := range content {
		k = append(append(k, e.at.AsSlice()...), e.text()...)
	}
	return k
}

// name gives vectors the names of those that most of their peers were in before, and
// all others names of their own. What lets nobody do anything has none.
func (b *builder) name(w way, all []*vector, peers []peer, spans []span) {
	type ballot struct {
		name  string
		count int
	}
	type vote struct {
		*vector
		of    int // vector
		name  string
		count int
	}
	count := map[*vector][]ballot{}
	cast := func(v *vector, name string, n int) {
		if _, known := b.last.vectors[name]; !known || len(v.content) == 0 {
			return
		}
		if i := slices.IndexFunc(count[v], func(b ballot) bool { return b.name == name }); i >= 0 {
			count[v][i].count += n
		} else {
			count[v] = append(count[v], ballot{name, n})
		}
	}
	was := b.last.sets[w.name("peers_")]
	for _, v := range all {
		if was == nil || len(v.content) == 0 {
			continue
		}
		class, n := uint32(0), 0 // of several one behind the other
		for _, kind := range v.kinds {
			if before := was.Crowd.classOf(kind.Number); before != class {
				cast(v, b.last.classes[w.name("")][class], n)
				class, n = before, 0
			}
			n++
		}
		cast(v, b.last.classes[w.name("")][class], n)
	}
	for i := 0; was != nil && len(peers) > 0 && i < len(was.Elements); {
		e := was.Elements[i]
		switch k := key(peers[0].address.AsSlice()); {
		case k < e.First:
			peers = peers[1:]
		case k > e.First:
			i++
		default:
			cast(peers[0].vector, b.last.classes[w.name("")][e.Class], 1)
			peers, i = peers[1:], i+1
		}
	}
	if was := b.last.sets[w.name("blocks_")]; was != nil {
		before := map[string]string{}
		for _, e := range was.Elements {
			before[e.First] = e.To.Chain
		}
		for _, s := range spans {
			cast(s.vector, before[key(s.first.AsSlice())], 1)
		}
	}
	var votes []vote
	for i, v := range all {
		for _, b := range count[v] {
			votes = append(votes, vote{v, i, b.name, b.count})
		}
	}
	slices.SortFunc(votes, func(x, y vote) int {
		return cmp.Or(-cmp.Compare(x.count, y.count), cmp.Compare(x.of, y.of), strings.Compare(x.name, y.name))
	})
	// nft has names of its own for the first and the last.
	taken := map[uint32]bool{nobodysClass: true, 0: true, 0xffff_ffff: true}
	for _, x := range votes {
		if id := b.last.vectors[x.name]; x.vector.name == "" && !taken[classOf(id)] {
			x.vector.name, x.id = x.name, id
			taken[classOf(id)] = true
		}
	}
	for _, v := range all {
		if v.name != "" || len(v.content) == 0 {
			continue
		}
		// A class that leads somewhere else at once might send a packet there that got it
		// before, so none is of two vectors.
		before := b.last.classes[w.name("")]
		for salt := uint32(0); v.name == "" || taken[v.class()] || before[v.class()] != "" && before[v.class()] != v.name; salt++ {
			sum := sha256.Sum256(binary.BigEndian.AppendUint32(textOf(v.content), salt))
			v.id = binary.BigEndian.Uint64(sum[:]) >> 16
			v.name = fmt.Sprintf("%s_%012x", w.name(""), v.id)
		}
		taken[v.class()] = true
	}
}
