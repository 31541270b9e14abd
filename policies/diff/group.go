package diff

import (
	"cmp"
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// bucket is what all differences of a group have in common.
type bucket struct {
	before, after          policies.Verdict
	ports                  string
	fromOutside, toOutside bool
}

// rows are the destinations that each source of a bucket has.
type rows struct {
	ports   netset.Ports
	order   []*policies.Peer // sources
	to      map[*policies.Peer][]*policies.Peer
	out, in map[*policies.Peer]reach.Shift // one shift from each source, and one to each destination
}

// grouper gathers shifts into rectangles of sources and destinations.
type grouper struct {
	order []bucket
	rows  map[bucket]*rows
}

func (g *grouper) add(s reach.Shift) {
	key := bucket{s.Before, s.After, s.Ports.Key(), s.From.IsOutside(), s.To.IsOutside()}
	r := g.rows[key]
	if r == nil {
		r = &rows{ports: s.Ports, to: map[*policies.Peer][]*policies.Peer{}, out: map[*policies.Peer]reach.Shift{}, in: map[*policies.Peer]reach.Shift{}}
		g.rows[key] = r
		g.order = append(g.order, key)
	}
	if _, known := r.out[s.From]; !known {
		r.order = append(r.order, s.From)
		r.out[s.From] = s
	}
	if _, known := r.in[s.To]; !known {
		r.in[s.To] = s
	}
	r.to[s.From] = append(r.to[s.From], s.To)
}

func (g *grouper) groups(base, head *reach.Judge) []Group {
	var groups []Group
	for _, key := range g.order {
		r := g.rows[key]
		for _, rectangle := range r.rectangles() {
			sample := rectangle.sample
			group := Group{
				From: values(rectangle.from), To: values(rectangle.to), Ports: r.ports,
				Before: key.before, After: key.after, Pairs: rectangle.pairs,
				Was: decideSample(base, sample.Base, sample), Is: decideSample(head, sample.Head, sample),
			}
			groups = append(groups, group)
		}
	}
	slices.SortStableFunc(groups, func(a, b Group) int {
		return cmp.Or(cmp.Compare(a.kind(), b.kind()), cmp.Compare(b.Pairs, a.Pairs), comparePeers(&a.From[0], &b.From[0]), comparePeers(&a.To[0], &b.To[0]))
	})
	return groups
}

func (g Group) kind() kind {
	k := kindOf(g.Before, g.After)
	switch {
	case k == added && g.From[0].IsOutside():
		return addedFromOutside
	case k == added && g.To[0].IsOutside():
		return addedToOutside
	}
	return k
}

// decideSample decides a shift in one of the two models, by ends of that model.
func decideSample(j *reach.Judge, ends [2]reach.End, s reach.Shift) policies.Decision {
	if ends[0] == (reach.End{}) || ends[1] == (reach.End{}) {
		return policies.Decision{}
	}
	names := [2]policies.Peer{j.Peer(ends[0]), j.Peer(ends[1])}
	for i, peer := range []*policies.Peer{s.From, s.To} {
		if peer.IsOutside() {
			names[i] = *peer
		}
	}
	return j.DecideTogether(ends[0], ends[1], names, s.Ports)
}

type rectangle struct {
	from, to []*policies.Peer
	pairs    int
	sample   reach.Shift // of one pair
}

// rectangles joins the sources that have the same destinations, or the
// destinations that have the same sources, whichever makes fewer.
func (r *rows) rectangles() []rectangle {
	across := join(r.order, r.to, r.out)
	turned := map[*policies.Peer][]*policies.Peer{}
	var destinations []*policies.Peer
	for _, from := range r.order {
		for _, to := range r.to[from] {
			if turned[to] == nil {
				destinations = append(destinations, to)
			}
			turned[to] = append(turned[to], from)
		}
	}
	down := join(destinations, turned, r.in)
	if len(down) >= len(across) {
		return across
	}
	for i := range down {
		down[i].from, down[i].to = down[i].to, down[i].from
		slices.SortFunc(down[i].from, comparePeers)
	}
	return down
}

// join puts those together that have the same others. Whether a peer is among
// its own others makes no difference: a pod to itself is never listed. So each
// may join under its others with or without itself, whichever more agree on.
func join(order []*policies.Peer, others map[*policies.Peer][]*policies.Peer, samples map[*policies.Peer]reach.Shift) []rectangle {
	numbers := map[*policies.Peer]uint32{}
	keyOf := func(peers []*policies.Peer) string {
		ids := make([]uint32, len(peers))
		for i, p := range peers {
			if _, ok := numbers[p]; !ok {
				numbers[p] = uint32(len(numbers))
			}
			ids[i] = numbers[p]
		}
		slices.Sort(ids)
		key := make([]byte, 0, 4*len(ids))
		for _, id := range ids {
			key = binary.LittleEndian.AppendUint32(key, id)
		}
		return string(key)
	}
	type choice struct {
		key string
		to  []*policies.Peer
	}
	choices := make([][]choice, len(order))
	agree := map[string]int{}
	for i, p := range order {
		choices[i] = []choice{{keyOf(others[p]), others[p]}}
		if !slices.Contains(others[p], p) {
			with := append(slices.Clone(others[p]), p)
			choices[i] = append(choices[i], choice{keyOf(with), with})
		}
		for _, c := range choices[i] {
			agree[c.key]++
		}
	}
	index := map[string]int{}
	var joined []rectangle
	for i, p := range order {
		best := slices.MaxFunc(choices[i], func(a, b choice) int { return cmp.Compare(agree[a.key], agree[b.key]) })
		at, ok := index[best.key]
		if !ok {
			at = len(joined)
			index[best.key] = at
			joined = append(joined, rectangle{to: slices.Clone(best.to), sample: samples[p]})
		}
		joined[at].from = append(joined[at].from, p)
		joined[at].pairs += len(others[p])
	}
	for i := range joined {
		slices.SortFunc(joined[i].from, comparePeers)
		slices.SortFunc(joined[i].to, comparePeers)
	}
	return joined
}

func values(peers []*policies.Peer) []policies.Peer {
	list := make([]policies.Peer, len(peers))
	for i, p := range peers {
		list[i] = *p
	}
	return list
}
