package reach

import (
	"iter"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Change is what With changed. It serves one goroutine.
type Change struct {
	base, head *Judge
	anew       bool
	governed   [2]*set        // columns of those that other policies govern now
	shifts     [2][]*shift    // what may be decided otherwise for them
	portSets   []netset.Ports // that the shifts name
	peopled    *set           // columns of those who came, went or are others than before
	sets       *sets
	all        *set          // what everybody returned
	sides      [2]*crossings // of base and head, with the same numbers for ports
	canvas     canvas        // to draw on between sets
	views      []*view
	*view      // of the ports at hand
}

// view is what changes on some ports.
type view struct {
	ports   netset.Ports
	within  portsID
	movers  [2]*set          // what moved returned
	objects [2]*set          // what about returned
	far     [2]rectangle     // of both, without sources for which nodes count
	pairs   [5]rectangle     // what rectangles returned
	byRows  map[[2]*row]*set // what apart returned
}

func newChange(base, head *Judge) *Change {
	sets := newSets(len(base.columns))
	return &Change{
		base: base, head: head, sets: sets,
		governed: [2]*set{sets.none, sets.none}, peopled: sets.none,
	}
}

// Anew reports whether the judge was made anew, so that groups have to be, too, and
// everything may be decided otherwise; nothing but Anew may be asked then.
func (c *Change) Anew() bool { return c.anew }

// Touches reports whether other policies than before govern somebody of a group in one
// direction, or others than before are in it.
func (c *Change) Touches(d policies.Direction, g Group) bool {
	return g.frame != nil && meets(c.governed[d], g.possible) || c.Moves(g)
}

// Moves reports whether others than before are in a group.
func (c *Change) Moves(g Group) bool { return g.frame != nil && meets(c.peopled, g.possible) }

// GovernedBefore yields those of a group before the change whom other policies govern
// after it in any of some directions, or whose like came, went or changed, and
// GovernedAfter those after it.
func (c *Change) GovernedBefore(g Group, in ...policies.Direction) iter.Seq[Member] {
	return c.governedOf(c.base, g, in)
}

// GovernedAfter yields those of a group after the change, see GovernedBefore.
func (c *Change) GovernedAfter(g Group, in ...policies.Direction) iter.Seq[Member] {
	return c.governedOf(c.head, g, in)
}

func (c *Change) governedOf(j *Judge, g Group, in []policies.Direction) iter.Seq[Member] {
	if g.frame == nil {
		return func(func(Member) bool) {}
	}
	among := c.peopled
	for _, d := range in {
		among = c.sets.or(among, c.governed[d])
	}
	return j.members(g, among)
}

// Regroup returns what GroupOf says after the change of matches of which it said this
// before.
func (c *Change) Regroup(g Group, any ...policies.Match) (Group, bool) {
	if c.anew || g.frame == nil {
		return c.head.GroupOf(any...)
	}
	if c.head.Serves(g) {
		return g, true
	}
	c.head.grouping.mutex.Lock()
	defer c.head.grouping.mutex.Unlock()
	b := c.head.grouping.builder()
	sure, possible := g.sure, g.possible
	for class := len(g.frame.classes); class < len(b.classes); class++ {
		is, at := policies.No, b.classes[class].columns
		if b.classes[class].role == aFace {
			continue
		}
		for _, column := range at {
			for i := range any {
				is = is.Or(b.describes(&any[i], &b.columns[column]))
			}
		}
		if is == policies.Yes {
			sure = c.sets.with(sure, at)
		}
		if is > policies.No {
			possible = c.sets.with(possible, at)
		}
	}
	return Group{c.head.frame, sure, possible}, true
}

// Before yields what Between yields of the judge before the change, as far as it may
// have been decided otherwise than it is now, and After what it is decided like now.
// Both speak of the same pairs, so that what is between two groups is, counted in
// pairs, what was between them, less Before, plus After.
func (c *Change) Before(from, to Group, ports netset.Ports, want ...policies.Verdict) iter.Seq[Crossing] {
	return c.between(0, from, to, ports, want)
}

// After yields what is decided like now, see Before.
func (c *Change) After(from, to Group, ports netset.Ports, want ...policies.Verdict) iter.Seq[Crossing] {
	return c.between(1, from, to, ports, want)
}

func (c *Change) between(side int, from, to Group, ports netset.Ports, want []policies.Verdict) iter.Seq[Crossing] {
	return func(yield func(Crossing) bool) {
		if from.frame == nil || to.frame == nil || ports.IsEmpty() {
			return
		}
		c.look(ports)
		c.side(side, want).between(from, to, c, yield)
	}
}

// look turns to some ports.
func (c *Change) look(ports netset.Ports) {
	if c.sides[0] == nil {
		c.sides[1] = newCrossings(c.head, c.sets)
		before := *c.sides[1]
		before.Judge, before.decided = c.base, map[sharesKey]grantID{}
		c.sides[0] = &before
		for _, some := range c.shifts {
			for _, s := range some {
				s.own, s.rest = before.grants.take(s.own, c.portSets), before.grants.take(s.rest, c.portSets)
			}
		}
	}
	if at := slices.IndexFunc(c.views, func(v *view) bool { return v.ports.Equal(ports) }); at >= 0 {
		c.view = c.views[at]
		return
	}
	c.view = &view{ports: ports, within: c.sides[1].grants.ports.id(ports), byRows: map[[2]*row]*set{}}
	c.views = append(c.views, c.view)
}

// side returns one of the judges, 0 for before and 1 for after, ready to be asked.
func (c *Change) side(side int, want []policies.Verdict) *crossings {
	c.sides[side].want(c.within, want)
	return c.sides[side]
}

// concern returns the columns that an end may be decided otherwise with.
func (c *Change) concern(d policies.Direction, one *party) *set {
	all := c.sets.or(c.moved(1-d), c.peopled)
	if c.peopled.has(one.columns[0]) {
		return c.everybody()
	}
	if one.class >= 0 && c.moved(d).has(one.columns[0]) {
		all = c.sets.or(all, c.differs(d, one.class))
	}
	return all
}

// everybody returns all columns.
func (c *Change) everybody() *set {
	if c.all == nil {
		c.sets.addRange(0, int32(len(c.head.columns)))
		c.all = c.sets.build()
	}
	return c.all
}

// concerns reports whether one of two parties may decide otherwise about the other.
func (c *Change) concerns(source, target *party) bool {
	sees := func(d policies.Direction, one, other *party) bool {
		return one.class >= 0 && c.moved(d).has(one.columns[0]) && slices.ContainsFunc(other.columns, c.differs(d, one.class).has)
	}
	return c.peopled.has(source.columns[0]) || c.peopled.has(target.columns[0]) || sees(policies.Egress, source, target) || sees(policies.Ingress, target, source)
}

// moved returns the columns of those who may decide otherwise than before about
// anybody, on the ports at hand.
func (c *Change) moved(d policies.Direction) *set {
	if c.movers[d] == nil {
		c.weigh(d)
	}
	return c.movers[d]
}

// about returns the columns of those about whom anybody may decide otherwise than
// before, on the ports at hand.
func (c *Change) about(d policies.Direction) *set {
	if c.objects[d] == nil {
		c.weigh(d)
	}
	return c.objects[d]
}

// weigh looks at which shifts there are on the ports at hand.
func (c *Change) weigh(d policies.Direction) {
	all, nodes := c.blank(), c.base.census().asSource
	movers, nearby := c.sets.none, c.sets.none
	for _, s := range c.shifts[d] {
		nearby = c.sets.or(nearby, s.nearby)
		if s.columns.empty() {
			continue
		}
		differ := false
		for _, layers := range []relation{s.own, s.rest} {
			for _, l := range layers {
				if c.sides[1].grants.ports.and(l.ports, c.within) != noPorts {
					differ = true
					all.addSet(l.columns)
				}
			}
		}
		if differ {
			movers = c.sets.or(movers, s.columns)
		}
	}
	c.base.complete(all)
	objects := c.sets.take(all)
	c.far[d] = rectangle{c.sets.minus(objects, nodes), movers}
	if !nearby.empty() && !nodes.empty() {
		objects, movers = c.sets.or(objects, nodes), c.sets.or(movers, nearby)
	}
	c.objects[d], c.movers[d] = objects, movers
}

// blank returns a canvas that is blank as long as it is not drawn on.
func (c *Change) blank() *canvas {
	if c.canvas.dense == nil {
		c.canvas = newCanvas(len(c.base.columns))
	}
	return &c.canvas
}

// complete adds the other columns of the classes that have some on a canvas.
func (j *Judge) complete(c *canvas) {
	census := j.census()
	for _, at := range slices.Clone(c.touched) {
		word, second := c.dense[at], census.seconds[at]
		c.dense[at] |= word&second>>1 | word<<1&second
		if word&second&1 != 0 {
			c.addWord(at-1, 1<<63)
		}
		if next := int(at) + 1; word>>63 != 0 && next < len(census.seconds) {
			c.addWord(at+1, census.seconds[next]&1)
		}
	}
	for column := range census.asTarget.columns() { // may have more than two
		if c.has(column) {
			for _, other := range j.classes[j.columns[column].class].columns {
				c.add(other)
			}
		}
	}
}

// differs returns the columns about which a class may decide otherwise than before, on
// the ports at hand.
func (c *Change) differs(d policies.Direction, class int32) *set {
	all, last := c.sets.none, int32(-1)
	for _, column := range c.base.classes[class].columns {
		subject := c.base.columns[column].subject
		if subject == last {
			continue
		}
		last = subject
		all = c.sets.or(all, c.apart(c.base.rows[d].at(subject), c.sides[1].rowOf(d, subject)))
		if d == policies.Ingress {
			all = c.sets.or(all, c.apart(c.base.local.at(subject), c.sides[1].localOf(subject)))
		}
	}
	return all
}

// apart returns the columns that two rows grant different things on the ports at hand.
func (c *Change) apart(was, is *row) *set {
	if was == is {
		return c.sets.none
	}
	key := [2]*row{was, is}
	known, ok := c.byRows[key]
	if !ok {
		c.addApart(was.allow, is.allow)
		c.addApart(was.unknown, is.unknown)
		known = c.sets.build()
		c.byRows[key] = known
	}
	return known
}

// addApart adds the columns that are in one of two relations only, on some of the ports
// at hand.
func (c *Change) addApart(was, is relation) {
	ports := c.sides[1].grants.ports
	for k, pair := range [][2]relation{{was, is}, {is, was}} {
		for _, l := range pair[0] {
			alone := ports.and(l.ports, c.within)
			for _, m := range pair[1] {
				if shared := ports.and(alone, m.ports); shared != noPorts {
					alone = ports.minus(alone, shared)
					if k == 0 {
						c.sets.addApart(l.columns, m.columns)
					}
				}
			}
			if alone != noPorts {
				c.sets.addSet(l.columns)
			}
		}
	}
}

// addApart adds what is in one of two sets only.
func (c *canvas) addApart(a, b *set) {
	i, k := 0, 0
	for i < len(a.index) || k < len(b.index) {
		switch {
		case k == len(b.index) || i < len(a.index) && a.index[i] < b.index[k]:
			c.addWord(a.index[i], a.words[i])
			i++
		case i == len(a.index) || b.index[k] < a.index[i]:
			c.addWord(b.index[k], b.words[k])
			k++
		default:
			c.addWord(a.index[i], a.words[i]^b.words[k])
			i, k = i+1, k+1
		}
	}
}
