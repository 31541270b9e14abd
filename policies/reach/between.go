package reach

import (
	"iter"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Crossing is traffic from some pods or nodes, or a range of addresses outside, to
// some others, all of it decided alike.
type Crossing struct {
	From, To End // two of them, a range by its lowest address
	Ports    netset.Ports
	Verdict  policies.Verdict
	// Pairs is how many pairs there are, each replica and each range counted.
	Pairs int
	// Perhaps is set where it is not known whether both are in the groups asked for.
	Perhaps bool
}

// Between yields what is decided from one group to another on some ports, as far as
// the verdict is one of those wanted, any where none is named. It is what Ports says
// of every pair; a pod or a node to itself is left out, and so are addresses outside
// among themselves. The order is always the same. Both groups must be of the judge,
// see Serves.
func (j *Judge) Between(from, to Group, ports netset.Ports, want ...policies.Verdict) iter.Seq[Crossing] {
	return func(yield func(Crossing) bool) {
		if from.frame == nil || to.frame == nil || ports.IsEmpty() {
			return
		}
		x := newCrossings(j, newSets(len(j.columns)))
		x.want(x.grants.ports.id(ports), want)
		x.between(from, to, nil, yield)
	}
}

// crossings answers Between, and what a Change is asked.
type crossings struct {
	pairing
	sets     *sets // that no row has to do with
	concerns map[concernKey]*set
	within   portsID
	clipped  map[portsID]*[]clipped // by what is within, what clip returned
	clips    *[]clipped             // those of the ports at hand
	wanted   [policies.Unknown + 1]bool
	*counter // while count counts
	decided  map[sharesKey]grantID
	last     struct { // that was decided
		key   sharesKey
		grant grantID
	}
}

// clipped is those of some ports that are asked for, and what allows them.
type clipped struct {
	known bool
	ports portsID
	grant grantID
}

type concernKey struct {
	row    *row
	within portsID
}

func newCrossings(j *Judge, s *sets) *crossings {
	return &crossings{
		pairing: newPairing(j), sets: s, concerns: map[concernKey]*set{}, clipped: map[portsID]*[]clipped{},
		decided: map[sharesKey]grantID{},
	}
}

func (x *crossings) want(ports portsID, verdicts []policies.Verdict) {
	if x.clips == nil || x.within != ports {
		x.within, x.clips = ports, x.clipped[ports]
		if x.clips == nil {
			x.clips = new([]clipped)
			x.clipped[ports] = x.clips
		}
	}
	for v := range x.wanted {
		x.wanted[v] = len(verdicts) == 0 || slices.Contains(verdicts, policies.Verdict(v))
	}
}

// clip returns those of some ports that are asked for.
func (x *crossings) clip(ports portsID) clipped {
	if n := len(*x.clips); int(ports) >= n {
		*x.clips = append(*x.clips, make([]clipped, len(x.grants.ports.sets)-n)...)
	}
	c := &(*x.clips)[ports]
	if !c.known {
		within := x.grants.ports.and(ports, x.within)
		*c = clipped{true, within, x.id(grant{allow: within})}
	}
	return *c
}

// between looks from each end of the smaller group at those of the other that it has
// anything to do with: as far as a change has, where there is one.
func (x *crossings) between(from, to Group, c *Change, yield func(Crossing) bool) {
	few, many, d := from, to, policies.Egress
	if len(to.possible.index) < len(from.possible.index) {
		few, many, d = to, from, policies.Ingress
	}
	near := few.possible
	if c != nil && !meets(c.moved(1-d), many.possible) && !c.Moves(many) {
		near = c.sets.or(c.moved(d), c.peopled)
	}
	for one := range x.partiesIn(few, near) {
		among := x.concern(d, &one)
		if c != nil {
			among = x.sets.and(among, c.concern(d, &one))
		}
		for other := range x.partiesIn(many, among) {
			source, target := &one, &other
			if d == policies.Ingress {
				source, target = target, source
			}
			if c != nil && !c.concerns(source, target) {
				continue
			}
			if !x.cross(source, target, yield) {
				return
			}
		}
	}
}

// concern returns the columns about which an end's own policies do not give a verdict
// that is not wanted in any case: where denials are not, those on which they do not
// deny all of the ports.
func (x *crossings) concern(d policies.Direction, one *party) *set {
	if one.class < 0 || x.wanted[policies.Deny] {
		return x.grantedBy(nil)
	}
	all := x.sets.none
	for _, column := range one.columns {
		subject := x.columns[column].subject
		all = x.sets.or(all, x.grantedBy(x.rowOf(d, subject)))
		if d == policies.Ingress {
			all = x.sets.or(all, x.grantedBy(x.localOf(subject)))
		}
	}
	return all
}

// grantedBy returns the columns that a row grants some of the ports, perhaps; all of
// them for no row.
func (x *crossings) grantedBy(r *row) *set {
	key := concernKey{r, x.within}
	known, ok := x.concerns[key]
	if ok {
		return known
	}
	if r == nil {
		x.sets.addRange(0, int32(len(x.columns)))
	} else {
		for _, layers := range []relation{r.allow, r.unknown} {
			for _, l := range layers {
				if x.clip(l.ports).ports != noPorts {
					x.sets.addSet(l.columns)
				}
			}
		}
	}
	known = x.sets.build()
	x.concerns[key] = known
	return known
}

// cross yields what is decided from one party to another.
func (x *crossings) cross(source, target *party, yield func(Crossing) bool) bool {
	if source.class < 0 && target.class < 0 {
		return true
	}
	c := Crossing{From: source.first, To: target.first, Pairs: source.people * target.people, Perhaps: source.perhaps || target.perhaps}
	if source.class == target.class {
		if c.Pairs -= source.people; c.Pairs == 0 {
			return true
		}
		c.To = x.another(source.class, c.From)
	}
	if x.excusable(source.class, target.class) {
		return x.onNodes(source, target, c, yield)
	}
	return x.yield(c, x.granted(source.columns, target.columns, policies.No), yield)
}

// another returns an end of a class that is not the one given, unless that stands
// for several.
func (x *crossings) another(class int32, e End) End {
	if !x.self(e, e) {
		return e
	}
	return x.census().members[class][1].end()
}

// onNodes tells those that are on one node from those that are not.
func (x *crossings) onNodes(source, target *party, c Crossing, yield func(Crossing) bool) bool {
	sources, from := x.byNode(source.class)
	targets, to := x.byNode(target.class)
	var met [policies.Yes + 1]Crossing
	for truth := range met {
		met[truth] = c
		met[truth].Pairs = 0
	}
	meet := func(a, b string) {
		m := &met[sameNode(a, b)]
		if m.Pairs == 0 {
			m.From, m.To = from[a].first, to[b].first
		}
		m.Pairs += from[a].people * to[b].people
	}
	for _, a := range sources {
		for _, b := range targets {
			meet(a, b)
		}
	}
	for truth, m := range met {
		if m.Pairs > 0 && !x.yield(m, x.granted(source.columns, target.columns, policies.Truth(truth)), yield) {
			return false
		}
	}
	return true
}

// yield yields one crossing for each wanted verdict that there is.
func (x *crossings) yield(c Crossing, g grantID, yield func(Crossing) bool) bool {
	t := x.grants.ports
	is := x.all[g]
	for _, v := range []policies.Verdict{policies.Allow, policies.Deny, policies.Unknown} {
		if !x.wanted[v] {
			continue
		}
		ports := x.decidedAs(v, is, t)
		if ports == noPorts {
			continue
		}
		c.Verdict, c.Ports = v, t.sets[ports]
		if !yield(c) {
			return false
		}
	}
	return true
}

// decidedAs returns those of the ports at hand on which a grant comes to a verdict.
func (x *crossings) decidedAs(v policies.Verdict, is grant, t *portTable) portsID {
	switch v {
	case policies.Allow:
		return t.and(x.within, is.allow)
	case policies.Unknown:
		return t.and(x.within, is.unknown)
	}
	return t.minus(x.within, t.or(is.allow, is.unknown))
}
