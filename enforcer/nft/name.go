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

// contentKey returns a text that is the same for equal contents.
func contentKey(content []entry) string {
	var k []byte
	for _, e := range content {
		k = append(k, e.at.AsSlice()...)
		k = append(k, byte(e.whole))
		for _, list := range [][]exception{e.protocols, e.ports} {
			k = binary.BigEndian.AppendUint32(k, uint32(len(list)))
			for _, x := range list {
				k = append(k, byte(x.Protocol), byte(x.outcome))
				k = binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(k, x.First), x.Last)
			}
		}
	}
	return string(k)
}

// name gives vectors the names of those that most of their peers were in before, and
// all others names of their own. What lets nobody do anything has none.
func (b *builder) name(w way, all []*vector, peers []peer, crowd map[int32]*vector, spans []span) {
	type vote struct {
		*vector
		of    int // vector
		name  string
		count int
	}
	index := map[*vector]int{}
	for i, v := range all {
		index[v] = i
	}
	count := map[*vector]map[string]int{}
	cast := func(v *vector, name string) {
		if _, known := b.last.vectors[name]; !known || len(v.content) == 0 {
			return
		}
		if count[v] == nil {
			count[v] = map[string]int{}
		}
		count[v][name]++
	}
	was := b.last.sets[w.name("peers_")]
	for kind, v := range crowd {
		if was != nil {
			cast(v, b.last.classes[w.name("")][was.Crowd.classOf(kind)])
		}
	}
	for i := 0; was != nil && len(peers) > 0 && i < len(was.Elements); {
		e := was.Elements[i]
		switch k := key(peers[0].address.AsSlice()); {
		case k < e.First:
			peers = peers[1:]
		case k > e.First:
			i++
		default:
			cast(peers[0].vector, b.last.classes[w.name("")][e.Class])
			peers, i = peers[1:], i+1
		}
	}
	if was := b.last.sets[w.name("blocks_")]; was != nil {
		before := map[string]string{}
		for _, e := range was.Elements {
			before[e.First] = e.To.Chain
		}
		for _, s := range spans {
			cast(s.vector, before[key(s.first.AsSlice())])
		}
	}
	var votes []vote
	for _, v := range all {
		for name, n := range count[v] {
			votes = append(votes, vote{v, index[v], name, n})
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
			sum := sha256.Sum256(binary.BigEndian.AppendUint32([]byte(contentKey(v.content)), salt))
			v.id = binary.BigEndian.Uint64(sum[:]) >> 16
			v.name = fmt.Sprintf("%s_%012x", w.name(""), v.id)
		}
		taken[v.class()] = true
	}
}
