package report

import (
	"cmp"
	"iter"
	"net/netip"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/diff"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/simulator"
)

// class is what a change does to a connection.
type class string

const (
	adds    class = "adds"
	removes class = "removes"
	unknown class = "unknown"
)

// past names what happened to the connections of a class.
func (c class) past() string {
	return map[class]string{adds: "added", removes: "removed", unknown: "unknown"}[c]
}

// sign marks a class where colour may be lost.
func (c class) sign() string { return map[class]string{adds: "+", removes: "−", unknown: "?"}[c] }

// classOf takes what one of the two sides has no answer to, as for a workload
// that only the other knows, for denied there.
func classOf(before, after policies.Verdict) class {
	switch {
	case before == policies.Unknown || after == policies.Unknown:
		return unknown
	case after == policies.Allow:
		return adds
	}
	return removes
}

var simulatorOutcomes = []simulator.Outcome{simulator.Breaks, simulator.Opens, simulator.Drifts, simulator.Undecided, simulator.Stays}

// pairs yields the pairs of peers that a group stands for.
func pairs(g *diff.Group, yield func(from, to policies.Peer)) {
	for _, from := range g.From {
		for _, to := range g.To {
			if !from.IsOutside() && comparePeers(from, to) == 0 {
				continue
			}
			yield(from, to)
		}
	}
}

// spread is the groups of a change as pairs of peers.
type spread struct {
	groups []diff.Group
	peers  []policies.Peer // sorted; pairs name them by index
	pairs  map[class][]pairOf
}

type pairOf struct{ from, to, group uint32 }

// spreadOf sorts the pairs of a change by from and to.
func spreadOf(c *diff.Change) *spread {
	s := &spread{groups: c.Groups, pairs: map[class][]pairOf{}}
	index := map[string]uint32{}
	var key []byte
	number := func(p policies.Peer) uint32 {
		key = appendPeerKey(p, key[:0])
		n, ok := index[string(key)]
		if !ok {
			n = uint32(len(s.peers))
			index[string(key)] = n
			s.peers = append(s.peers, p)
		}
		return n
	}
	type ends struct{ from, to []uint32 }
	numbers := make([]ends, len(c.Groups))
	for i := range c.Groups {
		for _, p := range c.Groups[i].From {
			numbers[i].from = append(numbers[i].from, number(p))
		}
		for _, p := range c.Groups[i].To {
			numbers[i].to = append(numbers[i].to, number(p))
		}
	}
	rank := s.sortPeers()
	for i := range c.Groups {
		of := classOf(c.Groups[i].Before, c.Groups[i].After)
		for _, from := range numbers[i].from {
			for _, to := range numbers[i].to {
				if from == to && !s.peers[rank[from]].IsOutside() {
					continue
				}
				s.pairs[of] = append(s.pairs[of], pairOf{rank[from], rank[to], uint32(i)})
			}
		}
	}
	for _, pairs := range s.pairs {
		slices.SortFunc(pairs, func(a, b pairOf) int {
			if order := cmp.Compare(uint64(a.from)<<32|uint64(a.to), uint64(b.from)<<32|uint64(b.to)); order != 0 {
				return order
			}
			return cmp.Or(compareVerdicts(&s.groups[a.group], &s.groups[b.group]), cmp.Compare(a.group, b.group))
		})
	}
	return s
}

func compareVerdicts(a, b *diff.Group) int {
	return cmp.Or(cmp.Compare(a.Before, b.Before), cmp.Compare(a.After, b.After))
}

// sortPeers sorts the peers and returns where each went.
func (s *spread) sortPeers() []uint32 {
	order := make([]uint32, len(s.peers))
	for i := range order {
		order[i] = uint32(i)
	}
	slices.SortFunc(order, func(a, b uint32) int { return comparePeers(s.peers[a], s.peers[b]) })
	rank, sorted := make([]uint32, len(order)), make([]policies.Peer, len(order))
	for to, from := range order {
		rank[from], sorted[to] = uint32(to), s.peers[from]
	}
	s.peers = sorted
	return rank
}

// differences yields the pairs of a class, sorted by from and to, all ports of
// a pair in one.
func (s *spread) differences(of class) iter.Seq[diff.Difference] {
	return func(yield func(diff.Difference) bool) {
		pairs := s.pairs[of]
		for i := 0; i < len(pairs); {
			p, g := pairs[i], &s.groups[pairs[i].group]
			d := diff.Difference{From: s.peers[p.from], To: s.peers[p.to], Ports: g.Ports, Before: g.Before, After: g.After}
			for i++; i < len(pairs) && pairs[i].from == p.from && pairs[i].to == p.to; i++ {
				other := &s.groups[pairs[i].group]
				if compareVerdicts(g, other) != 0 {
					break
				}
				d.Ports = d.Ports.Union(other.Ports)
			}
			if !yield(d) {
				return
			}
		}
	}
}

// count returns how many pairs of a class there are, whatever the ports.
func (s *spread) count(of class) (opensIn, opensOut, inside int) {
	pairs := s.pairs[of]
	for i, p := range pairs {
		switch {
		case i > 0 && p.from == pairs[i-1].from && p.to == pairs[i-1].to:
		case s.peers[p.from].IsOutside():
			opensIn++
		case s.peers[p.to].IsOutside():
			opensOut++
		default:
			inside++
		}
	}
	return opensIn, opensOut, inside
}

// comparePeers orders workloads by name, and addresses outside after them.
func comparePeers(a, b policies.Peer) int {
	if a.IsOutside() || b.IsOutside() {
		if !a.IsOutside() {
			return -1
		}
		if !b.IsOutside() {
			return 1
		}
		return cmp.Or(a.CIDR.Addr().Compare(b.CIDR.Addr()), cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits()),
			slices.CompareFunc(a.Except, b.Except, func(x, y netip.Prefix) int {
				return cmp.Or(x.Addr().Compare(y.Addr()), cmp.Compare(x.Bits(), y.Bits()))
			}))
	}
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name),
		strings.Compare(a.Kind, b.Kind), strings.Compare(a.Pod, b.Pod))
}

// move is a row of the tables of a change: the same happens to all pairs.
type move struct {
	class         class
	from, to      []policies.Peer
	ports         netset.Ports
	before, after policies.Verdict
	pairs         int
	some          bool   // only some of the pairs between from and to are meant
	because       string // of one of them
	at            policies.Place
	atBase        bool // at is a place in the base
	policy        *policies.Ref
}

func (m *move) fromOutside() bool { return slices.ContainsFunc(m.from, policies.Peer.IsOutside) }
func (m *move) toOutside() bool   { return slices.ContainsFunc(m.to, policies.Peer.IsOutside) }
func (m *move) outside() bool     { return m.fromOutside() || m.toOutside() }

// danger orders moves: the worst has the lowest.
func (m *move) danger() int {
	switch {
	case m.class == adds && m.fromOutside():
		return 0
	case m.class == adds && m.toOutside():
		return 1
	case m.class == adds:
		return 2
	case m.class == unknown:
		return 3
	}
	return 4
}

// finestMoves is how many groups a reader is shown one by one; more are joined
// by namespace.
const finestMoves = 60

// movesOf returns the rows of a change, worst first.
func movesOf(c *diff.Change) []move {
	var moves []move
	for i := range c.Groups {
		g := &c.Groups[i]
		m := move{
			class: classOf(g.Before, g.After), from: g.From, to: g.To, ports: g.Ports,
			before: g.Before, after: g.After, pairs: g.Pairs,
		}
		m.because, m.at, m.policy, m.atBase = causeOf(&g.Example, &g.Was)
		moves = append(moves, m)
	}
	if len(moves) > finestMoves {
		moves = joinMoves(moves)
	}
	slices.SortStableFunc(moves, func(a, b move) int {
		return cmp.Or(cmp.Compare(a.danger(), b.danger()), -cmp.Compare(a.pairs, b.pairs))
	})
	return moves
}

// joinMoves joins the moves between the same namespaces.
func joinMoves(moves []move) []move {
	type key struct {
		danger        int
		before, after policies.Verdict
		from, to      string
	}
	index := map[key]int{}
	var joined []move
	for _, m := range moves {
		k := key{m.danger(), m.before, m.after, strings.Join(namespacesOf(m.from), " "), strings.Join(namespacesOf(m.to), " ")}
		i, ok := index[k]
		if !ok {
			index[k] = len(joined)
			m.from, m.to = slices.Clone(m.from), slices.Clone(m.to)
			joined = append(joined, m)
			continue
		}
		j := &joined[i]
		j.from = append(j.from, m.from...)
		j.to = append(j.to, m.to...)
		j.ports = j.ports.Union(m.ports)
		j.pairs += m.pairs
		j.some = true
	}
	for i := range joined {
		for _, list := range []*[]policies.Peer{&joined[i].from, &joined[i].to} {
			slices.SortFunc(*list, comparePeers)
			*list = slices.CompactFunc(*list, func(a, b policies.Peer) bool { return comparePeers(a, b) == 0 })
		}
	}
	return joined
}

// namespacesOf returns the namespaces of peers, sorted; nodes and addresses are
// of none.
func namespacesOf(peers []policies.Peer) []string {
	var names []string
	for _, p := range peers {
		names = append(names, p.Namespace)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// causeOf returns why the decision is now as it is: the side that the change
// turned, else one that agrees with the verdict, else what stood there before.
func causeOf(now, was *policies.Decision) (because string, at policies.Place, policy *policies.Ref, atBase bool) {
	var best *policies.Side
	for _, d := range policies.Directions {
		side, before := &now.Sides[d], &was.Sides[d]
		if side.Verdict != now.Verdict || side.At.File == "" {
			continue
		}
		if best == nil || side.Verdict != before.Verdict {
			best = side
			if side.Verdict != before.Verdict {
				break
			}
		}
	}
	if best != nil {
		return best.Because, best.At, best.Policy, false
	}
	for _, d := range policies.Directions {
		if side := &was.Sides[d]; side.Verdict == was.Verdict && side.At.File != "" {
			return now.Because, side.At, side.Policy, true
		}
	}
	return now.Because, policies.Place{}, nil, false
}

// tally counts pairs of peers; those that open by their ends.
type tally struct{ opensIn, opensOut, opensInside, removed, unknown int }

func (t tally) added() int { return t.opensIn + t.opensOut + t.opensInside }

func tallyOf(s *spread) tally {
	var t tally
	t.opensIn, t.opensOut, t.opensInside = s.count(adds)
	t.removed = sum(s.count(removes))
	t.unknown = sum(s.count(unknown))
	return t
}

func sum(a, b, c int) int { return a + b + c }

// warnings returns those of the preview and of its change, each once.
func (p *Preview) warnings() []policies.Warning {
	all := slices.Concat(p.Warnings, p.Change.Warnings)
	slices.SortStableFunc(all, func(a, b policies.Warning) int {
		return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(all)
}

func (p *Preview) rowsOf(outcome simulator.Outcome) []simulator.Row {
	if p.Replay == nil {
		return nil
	}
	return rowsOf(p.Replay, outcome)
}

func rowsOf(r *simulator.Result, outcome simulator.Outcome) []simulator.Row {
	var rows []simulator.Row
	for _, row := range r.Rows {
		if row.Outcome == outcome {
			rows = append(rows, row)
		}
	}
	return rows
}
