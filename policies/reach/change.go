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
	governed   [2]*set // columns of those that other policies govern now
	changed    [2]*set // and of those of them that may decide otherwise
	sets       *sets
	differing  [2]map[int32]*set // by class: whom it may decide otherwise about
	byRows     map[[2]*row]*set
	sides      [2]pairing
}

func newChange(base, head *Judge) *Change {
	sets := newSets(len(base.columns))
	return &Change{
		base: base, head: head, sets: sets, byRows: map[[2]*row]*set{}, differing: [2]map[int32]*set{{}, {}},
		governed: [2]*set{sets.none, sets.none}, changed: [2]*set{sets.none, sets.none},
	}
}

// Anew reports whether the judge was made anew, so that groups have to be, too, and
// everything may be decided otherwise; nothing but Anew may be asked then.
func (c *Change) Anew() bool { return c.anew }

// Touches reports whether other policies than before govern somebody of a group in one
// direction.
func (c *Change) Touches(d policies.Direction, g Group) bool {
	if g.frame == nil {
		return false
	}
	for range common(c.governed[d], g.possible) {
		return true
	}
	return false
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
		if c.sides[side].Judge == nil {
			c.sides[side] = newPairing([2]*Judge{c.base, c.head}[side])
		}
		x := crossings{pairing: c.sides[side], sets: c.sets}
		x.want(ports, want)
		for source := range x.partiesIn(from, c.changed[policies.Egress]) {
			for target := range x.partiesIn(to, c.differs(policies.Egress, source.class)) {
				if !x.cross(&source, &target, yield) {
					return
				}
			}
		}
		for target := range x.partiesIn(to, c.changed[policies.Ingress]) {
			for source := range x.partiesIn(from, c.differs(policies.Ingress, target.class)) {
				if c.seen(&source, &target) {
					continue
				}
				if !x.cross(&source, &target, yield) {
					return
				}
			}
		}
	}
}

// seen reports whether a pair of parties differs as its source sees it.
func (c *Change) seen(source, target *party) bool {
	if source.class < 0 || !c.changed[policies.Egress].has(source.columns[0]) {
		return false
	}
	return slices.ContainsFunc(target.columns, c.differs(policies.Egress, source.class).has)
}

// differs returns the columns about which a class may decide otherwise than before.
func (c *Change) differs(d policies.Direction, class int32) *set {
	known, ok := c.differing[d][class]
	if !ok {
		known = c.sets.none
		for _, column := range c.base.classes[class].columns {
			subject := c.base.columns[column].subject
			known = c.sets.or(known, c.apart(c.base.rows[d].at(subject), c.head.rows[d].at(subject)))
			if d == policies.Ingress {
				known = c.sets.or(known, c.apart(c.base.local.at(subject), c.head.local.at(subject)))
			}
		}
		c.differing[d][class] = known
	}
	return known
}

// apart returns the columns that two rows may grant different things.
func (c *Change) apart(was, is *row) *set {
	if was == is {
		return c.sets.none
	}
	key := [2]*row{was, is}
	known, ok := c.byRows[key]
	if !ok {
		c.addDifference(was.allow, is.allow)
		c.addDifference(was.unknown, is.unknown)
		known = c.sets.build()
		c.byRows[key] = known
	}
	return known
}

// addDifference adds the columns of layers that two relations do not share, of those
// with equal ports what they do not.
func (c *Change) addDifference(was, is relation) {
	for k, pair := range [][2]relation{{was, is}, {is, was}} {
		for _, l := range pair[0] {
			at := slices.IndexFunc(pair[1], func(m layer) bool { return m.ports == l.ports })
			switch {
			case at < 0:
				c.sets.addSet(l.columns)
			case k == 0:
				c.sets.addApart(l.columns, pair[1][at].columns)
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
