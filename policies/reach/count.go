package reach

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Count is how many pairs of ends there are by verdict, as Crossing.Pairs counts them:
// those that are in the groups for sure, and those that are perhaps. A pair counts once
// for each verdict that it has on some of the ports.
type Count struct{ Sure, Perhaps [policies.Unknown + 1]int }

func (n *Count) add(v policies.Verdict, perhaps bool, pairs int) {
	if perhaps {
		n.Perhaps[v] += pairs
	} else {
		n.Sure[v] += pairs
	}
}

// Count is the sum of what Between yields. It takes those together whom the same
// policies govern, so that it is fast where many pairs are decided alike.
func (j *Judge) Count(from, to Group, ports netset.Ports, want ...policies.Verdict) (n Count) {
	if from.frame == nil || to.frame == nil || ports.IsEmpty() {
		return n
	}
	x := newCrossings(j, newSets(len(j.columns)))
	x.want(x.grants.ports.id(ports), want)
	x.count(from, to, from.possible, to.possible, &n)
	return n
}

// Count counts what Before and After yield, and beside those the same pairs in both
// that are decided now as they were.
//
// First those are counted who came, went or changed, then the others who are decided
// otherwise.
func (c *Change) Count(from, to Group, ports netset.Ports, want ...policies.Verdict) (before, after Count) {
	if from.frame == nil || to.frame == nil || ports.IsEmpty() {
		return before, after
	}
	c.look(ports)
	for _, some := range c.rectangles() {
		if !meets(some.sources, from.possible) || !meets(some.targets, to.possible) {
			continue
		}
		c.side(0, want).count(from, to, some.sources, some.targets, &before)
		c.side(1, want).count(from, to, some.sources, some.targets, &after)
	}
	return before, after
}

// rectangle is some sources and some destinations.
type rectangle struct{ sources, targets *set }

// rectangles hold all pairs that may be decided otherwise than before, on the ports at
// hand, or of whom one is not as before, none of them twice.
func (c *Change) rectangles() [5]rectangle {
	if c.pairs[0].sources == nil {
		stay, all := func(s *set) *set { return c.sets.minus(s, c.peopled) }, c.sets.none
		if !c.peopled.empty() {
			all = c.everybody()
		}
		leavers, comers := stay(c.moved(policies.Egress)), stay(c.moved(policies.Ingress))
		others, far := c.sets.minus(stay(c.about(policies.Ingress)), leavers), c.far[policies.Ingress]
		c.pairs = [5]rectangle{
			{c.peopled, all},
			{stay(all), c.peopled},
			{leavers, c.sets.or(stay(c.about(policies.Egress)), comers)},
			{c.sets.and(others, far.sources), stay(far.targets)},
			{c.sets.minus(others, far.sources), comers},
		}
	}
	return c.pairs
}

// share is people to whom ways of one kind lead and with whose columns somebody grants
// the same.
type share struct {
	ways   int32
	grants [2]grantID
	people int
	next   int32 // another share of the row, its index plus one
}

// shares are those of many people, by the number of their own row.
type shares struct {
	first []int32 // the index of a share plus one
	rows  []*row  // that have some
	all   []share
}

func (s *shares) add(r *row, ways int32, grants [2]grantID, people int) {
	number := int(rowNumber(r))
	if number >= len(s.first) {
		s.first = append(s.first, make([]int32, number+1-len(s.first))...)
	}
	for at := s.first[number]; at != 0; at = s.all[at-1].next {
		if one := &s.all[at-1]; one.ways == ways && one.grants == grants {
			one.people += people
			return
		}
	}
	if s.first[number] == 0 {
		s.rows = append(s.rows, r)
	}
	s.all = append(s.all, share{ways, grants, people, s.first[number]})
	s.first[number] = int32(len(s.all))
}

// of returns the first share of a row: its index plus one, 0 where there is none.
func (s *shares) of(r *row) int32 {
	if number := int(rowNumber(r)); number < len(s.first) {
		return s.first[number]
	}
	return 0
}

func (s *shares) people(r *row) (n int) {
	for at := s.of(r); at != 0; at = s.all[at-1].next {
		n += s.all[at-1].people
	}
	return n
}

func (s *shares) clear() {
	for _, r := range s.rows {
		s.first[rowNumber(r)] = 0
	}
	clear(s.rows)
	s.rows, s.all = s.rows[:0], s.all[:0]
}

// rowNumber numbers rows; nil is that of addresses outside.
func rowNumber(r *row) int32 {
	if r == nil {
		return 0
	}
	return r.id + 1
}

// counter is what count works with.
type counter struct {
	sources, targets set      // who is counted at the moment
	some             set      // of the targets
	coming           shares   // the rows of those
	enters           []shares // of the sources, by row of those targets
	leaving          shares   // of the sources: the rows that any of those grant something
	leaves           shares   // of some of the targets
	offers           []offer
	offered          [][2]grantID // by the first column of a class
	touched          []int32
}

// offer is what a row grants to some columns.
type offer struct {
	grant   grantID
	columns *set
}

// takeCounter returns a blank counter, to be given back as blank.
func (g *grouping) takeCounter() *counter {
	if c, ok := g.counters.Get().(*counter); ok {
		return c
	}
	return &counter{offered: make([][2]grantID, len(g.frame.columns))}
}

// count adds what is between some of one group and some of another.
func (x *crossings) count(from, to Group, sources, targets *set, n *Count) {
	x.compare(from, to, sources, targets, nil, func(c Crossing) bool {
		n.add(c.Verdict, c.Perhaps, c.Pairs)
		return true
	}, func(perhaps bool) bool {
		x.countTogether(perhaps, n)
		return true
	})
}

// compare lets singly see, one by one, what is between those about whom more counts than
// rows and ways, and together look at all the others, while they are at hand: once for
// those who are in the groups for sure, and once for those who are perhaps. With a
// change, singly sees only what that concerns. It ends when one of the two returns false.
func (x *crossings) compare(from, to Group, sources, targets *set, change *Change, singly func(Crossing) bool, together func(perhaps bool) bool) {
	x.counter = x.grouping.takeCounter()
	defer func() {
		x.grouping.counters.Put(x.counter)
		x.counter = nil
	}()
	c := x.census()
	for _, source := range from.sections(c.none) {
		x.sources.keep(sources, source.in, source.not, c.asSource)
		for _, target := range to.sections(c.none) {
			x.targets.keep(targets, target.in, target.not, c.asTarget)
			if !x.sources.empty() && !x.targets.empty() && !together(source.perhaps || target.perhaps) {
				return
			}
		}
	}
	if !meets(sources, c.asSource) && !meets(targets, c.asTarget) {
		return
	}
	for _, some := range [...]struct{ source, target, not *set }{{c.asSource, targets, c.none}, {sources, c.asTarget, c.asSource}} {
		x.sources.keep(sources, some.source, some.not, c.none)
		x.targets.keep(targets, some.target, c.none, c.none)
		for one := range x.partiesIn(from, &x.sources) {
			for other := range x.partiesIn(to, &x.targets) {
				if (change == nil || change.concerns(&one, &other)) && !x.cross(&one, &other, singly) {
					return
				}
			}
		}
	}
}

// section is those who are in a group for sure, or perhaps: in a set, and not in
// another.
type section struct {
	in, not *set
	perhaps bool
}

func (g Group) sections(none *set) []section {
	all := []section{{in: g.sure, not: none}, {in: g.possible, not: g.sure, perhaps: true}}
	if g.sure == g.possible {
		return all[:1]
	}
	return all
}

// mostRows is how many rows of destinations are looked at together.
const mostRows = 64

// countTogether adds what is between the sources and the targets at hand.
func (x *crossings) countTogether(perhaps bool, n *Count) {
	pairs := 0
	x.eachShares(func(_, _ *row, s, t *share) bool {
		x.verdicts(x.decide(s, t), func(v policies.Verdict) { n.add(v, perhaps, s.people*t.people) })
		pairs += s.people * t.people
		return true
	})
	if x.wanted[policies.Deny] {
		n.add(policies.Deny, perhaps, x.pairs()-pairs) // the others grant nothing
	}
	for column := range common(&x.sources, &x.targets) {
		class := x.columns[column].class
		if class < 0 || !x.isFirst(column) {
			continue
		}
		columns := x.classes[class].columns
		x.verdicts(x.granted(columns, columns, policies.No), func(v policies.Verdict) {
			n.add(v, perhaps, -x.census().people[class]) // each to itself
		})
	}
}

// eachShares yields the shares of the sources and of the targets at hand that grant each
// other something, with their rows.
func (x *crossings) eachShares(yield func(q, r *row, s, t *share) bool) {
	for column := range x.targets.columns() {
		one, ok := x.oneAt(policies.Ingress, column)
		if !ok {
			continue
		}
		if len(x.coming.rows) == mostRows && x.coming.of(one.row) == 0 && !x.eachComing(yield) {
			return
		}
		x.coming.add(one.row, 0, [2]grantID{}, 0)
		x.some.push(column)
	}
	x.eachComing(yield)
}

// eachComing yields what eachShares does of some of the targets at hand, those whose
// rows are coming, and forgets them.
func (x *crossings) eachComing(yield func(q, r *row, s, t *share) bool) (more bool) {
	defer func() {
		for i := range x.coming.rows {
			x.enters[i].clear()
		}
		x.coming.clear()
		x.leaving.clear()
		x.leaves.clear()
		x.some.index, x.some.words = x.some.index[:0], x.some.words[:0]
	}()
	for len(x.enters) < len(x.coming.rows) {
		x.enters = append(x.enters, shares{})
	}
	for i, r := range x.coming.rows {
		x.split(r, policies.Egress, &x.sources, &x.enters[i])
		for _, q := range x.enters[i].rows {
			x.leaving.add(q, 0, [2]grantID{}, 0)
		}
	}
	for _, q := range x.leaving.rows {
		x.split(q, policies.Ingress, &x.some, &x.leaves)
		for i, r := range x.coming.rows {
			if q == nil && r == nil {
				continue
			}
			for b := x.leaves.of(r); b != 0; b = x.leaves.all[b-1].next {
				for a := x.enters[i].of(q); a != 0; a = x.enters[i].all[a-1].next {
					if !yield(q, r, &x.enters[i].all[a-1], &x.leaves.all[b-1]) {
						return false
					}
				}
			}
		}
		x.leaves.clear()
	}
	return true
}

// pairs returns how many pairs the sources and the targets at hand make, but for those of
// addresses outside among themselves.
func (x *crossings) pairs() int {
	count := func(d policies.Direction, all *set) (people, outside int) {
		for column := range all.columns() {
			if one, ok := x.oneAt(d, column); ok && x.isFirst(column) {
				if people += one.people; one.row == nil {
					outside++
				}
			}
		}
		return people, outside
	}
	sources, outsideSources := count(policies.Egress, &x.sources)
	targets, outsideTargets := count(policies.Ingress, &x.targets)
	return sources*targets - outsideSources*outsideTargets
}

// one is those of a class, or a range of addresses outside, which has no row.
type one struct {
	row    *row
	ways   int32
	people int
}

// oneAt returns those at a column; not ok where nobody is.
func (x *crossings) oneAt(d policies.Direction, column int32) (o one, ok bool) {
	c := x.census()
	if class := x.columns[column].class; class >= 0 {
		return one{x.rowOf(d, class), c.waysOf[class], c.people[class]}, c.people[class] > 0
	}
	atom := column - x.outside
	address := c.outsiders[atom]
	return one{nil, c.waysAt[atom], 1}, address.IsValid() && (x.ipv6 || !address.Is6())
}

// split adds up those among some columns, by the rows that they have in a direction, to
// whom a row grants something on the ports at hand; all of them for no row. The columns
// are all of a class, or none.
func (x *crossings) split(r *row, d policies.Direction, among *set, into *shares) {
	second := x.census().second
	if r == nil {
		for column := range among.columns() {
			if o, ok := x.oneAt(d, column); ok && !second[column] {
				into.add(o.row, o.ways, [2]grantID{x.open, x.open}, o.people)
			}
		}
		return
	}
	offers := x.offers[:0]
	for _, l := range r.allow {
		if c := x.clip(l.ports); c.ports != noPorts {
			offers = append(offers, offer{c.grant, l.columns})
		}
	}
	for _, l := range r.unknown {
		if c := x.clip(l.ports); c.ports != noPorts {
			offers = append(offers, offer{x.id(grant{unknown: c.ports}), l.columns})
		}
	}
	x.offers = offers
	if len(offers) == 1 {
		columns, grant := offers[0].columns, offers[0].grant
		for column := range common(columns, among) {
			grants := [2]grantID{grant, noGrant}
			switch {
			case second[column] && columns.has(column-1):
				continue
			case second[column]:
				grants = [2]grantID{noGrant, grant}
			case int(column+1) < len(second) && second[column+1] && columns.has(column+1):
				grants[1] = grant
			}
			if o, ok := x.oneAt(d, column); ok {
				into.add(o.row, o.ways, grants, o.people)
			}
		}
		return
	}
	touched := x.touched[:0]
	for _, o := range offers {
		for column := range common(o.columns, among) {
			at := column
			if second[column] {
				at--
			}
			if x.offered[at] == [2]grantID{} {
				touched = append(touched, at)
			}
			x.offered[at][column-at] = x.either(x.offered[at][column-at], o.grant)
		}
	}
	for _, column := range touched {
		if o, ok := x.oneAt(d, column); ok {
			into.add(o.row, o.ways, x.offered[column], o.people)
		}
		x.offered[column] = [2]grantID{}
	}
	x.touched = touched
}

// sharesKey is all that it depends on what is decided between two shares.
type sharesKey struct {
	source, target int32 // ways
	enters, leaves [2]grantID
}

// decide returns what is granted from one share to another, given the ways, and what
// each is granted: it is pairing.granted of any two of them.
func (x *crossings) decide(source, target *share) grantID {
	key := sharesKey{source.ways, target.ways, source.grants, target.grants}
	if key == x.last.key {
		return x.last.grant
	}
	known, ok := x.decided[key]
	if !ok {
		var ways waysGranted
		for i, a := range x.census().ways[source.ways] {
			for k, b := range x.census().ways[target.ways] {
				if way := x.frame.between(a, b, ipv4|ipv6, x.ipv6); way != noWay {
					ways.add(x.grants, x.columns[a].families&x.columns[b].families, x.over(way, target.grants[k], source.grants[i]))
				}
			}
		}
		known = ways.sum(x.grants)
		x.decided[key] = known
	}
	x.last.key, x.last.grant = key, known
	return known
}

// verdicts yields those wanted that a grant comes to on some of the ports at hand.
func (x *crossings) verdicts(g grantID, yield func(policies.Verdict)) {
	t, is := x.grants.ports, x.all[g]
	for _, v := range [...]policies.Verdict{policies.Allow, policies.Deny, policies.Unknown} {
		if x.wanted[v] && x.decidedAs(v, is, t) != noPorts {
			yield(v)
		}
	}
}
