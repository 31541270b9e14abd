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

// class is what a change does to a connection, or what was recorded of it.
type class string

const (
	adds    class = "adds"
	removes class = "removes"
	refused class = "refused"
	unknown class = "unknown"
)

// past names what happened to the connections of a class.
func (c class) past() string {
	return map[class]string{adds: "added", removes: "removed", unknown: "unknown"}[c]
}

// sign marks a class where colour may be lost.
func (c class) sign() string {
	return map[class]string{adds: "+", removes: "−", refused: "×", unknown: "?"}[c]
}

// style is the class that a picture has the style of.
func (c class) style() class {
	if c == refused {
		return removes
	}
	return c
}

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

// byClass sorts the differences of a change into classes, all ports of a pair
// in one.
func byClass(c *diff.Change) map[class][]diff.Difference {
	all := map[class][]diff.Difference{}
	for _, d := range c.Differences {
		of := classOf(d.Before, d.After)
		if n := len(all[of]); n > 0 && sameQuestion(all[of][n-1], d) {
			all[of][n-1].Ports = all[of][n-1].Ports.Union(d.Ports)
			continue
		}
		all[of] = append(all[of], d)
	}
	return all
}

func sameQuestion(a, b diff.Difference) bool {
	return a.From == b.From && a.To == b.To && a.Before == b.Before && a.After == b.After
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
	atBase        bool           // at is a place in the base
	atHead        policies.Place // of what decides in the head
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

// isOneClosing reports whether the move closes ports between two workloads.
func (m *move) isOneClosing() bool {
	return m.class == removes && m.pairs == 1 && len(m.from) == 1 && len(m.to) == 1
}

// saidByFlows returns what reports whether rows of flows that break say all that a
// move does, so that it need not be said, or counted, again.
func (p *Preview) saidByFlows(moves []move) func(*move) bool {
	left := map[*move]netset.Ports{}
	for i := range moves {
		if m := &moves[i]; m.isOneClosing() {
			left[m] = m.ports
		}
	}
	if len(left) > 0 {
		for r := range p.rowsOf(simulator.Breaks) {
			for m, ports := range left {
				if comparePeers(r.From, m.from[0]) == 0 && comparePeers(r.To, m.to[0]) == 0 {
					left[m] = ports.Minus(netset.PortSpan(r.Protocol, r.Port, r.Port))
				}
			}
		}
	}
	return func(m *move) bool {
		ports, mayBe := left[m]
		return mayBe && ports.IsEmpty()
	}
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
		m.because, m.at, m.policy, m.atBase = causeOf(&g.Is, &g.Was)
		m.atHead = placeOf(&g.Is)
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
// turned, where it stands now or else where it stood before; else a side that
// agrees with the verdict, now or else before.
func causeOf(now, was *policies.Decision) (because string, at policies.Place, policy *policies.Ref, atBase bool) {
	var best *policies.Side
	for _, d := range policies.Directions {
		side, before := &now.Sides[d], &was.Sides[d]
		turned := side.Verdict != before.Verdict
		switch {
		case side.Verdict != now.Verdict:
		case turned && side.At.File == "" && before.At.File != "":
			return side.Because, before.At, before.Policy, true
		case side.At.File != "" && (best == nil || turned):
			best = side
			if turned {
				return best.Because, best.At, best.Policy, false
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

// placeOf returns the place of the first side that agrees with a decision's
// verdict and has one.
func placeOf(d *policies.Decision) policies.Place {
	for i := range d.Sides {
		if side := &d.Sides[i]; side.Verdict == d.Verdict && side.At.File != "" {
			return side.At
		}
	}
	return policies.Place{}
}

// exampleText begins the reason of one pair where the move has many.
func (m *move) exampleText() string {
	if m.pairs > 1 {
		return "for example "
	}
	return ""
}

// tally counts pairs of peers; those that open by their ends.
type tally struct{ opensIn, opensOut, opensInside, removed, unknown int }

func (t tally) added() int { return t.opensIn + t.opensOut + t.opensInside }

func tallyOf(c *diff.Change) tally {
	var t tally
	for of, differences := range byClass(c) {
		for i, d := range differences {
			switch {
			case i > 0 && differences[i-1].From == d.From && differences[i-1].To == d.To:
				// The same pair, with another verdict before or after.
			case of == removes:
				t.removed++
			case of == unknown:
				t.unknown++
			case d.From.IsOutside():
				t.opensIn++
			case d.To.IsOutside():
				t.opensOut++
			default:
				t.opensInside++
			}
		}
	}
	return t
}

// warnings returns those of the preview and of its change, each once.
func (p *Preview) warnings() []policies.Warning {
	all := slices.Concat(p.Warnings, p.Change.Warnings)
	slices.SortStableFunc(all, func(a, b policies.Warning) int {
		return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Message, b.Message))
	})
	return slices.Compact(all)
}

func (p *Preview) rowsOf(outcome simulator.Outcome) iter.Seq[simulator.Row] {
	return p.rows().Of(outcome)
}

func (p *Preview) rows() simulator.Rows {
	if p.Replay == nil {
		return simulator.Rows{}
	}
	return p.Replay.Rows
}
