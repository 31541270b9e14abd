package reach

import (
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// revision makes a draft and a change of an edit.
type revision struct {
	*draft
	*Change
	through *stage // what a tier without policies makes of traffic: it passes all on
	// known are shifts in the direction at hand, by the policies of the edited tiers, and
	// narrow what narrowed made of them.
	known  map[string]*shift
	narrow map[narrowing]*shift
	// governed are those of the direction at hand whom other policies govern.
	governed []int32
}

// narrowing is a shift, and what the tiers behind it say.
type narrowing struct {
	of     *shift
	stages string
}

// shift is what an edit makes of classes in one direction, all of which have the same
// policies in the tiers that it edits.
type shift struct {
	// own is the traffic for which those tiers say something else and may allow it, rest
	// that for which it counts what the tiers behind them may allow.
	own, rest relation
	// nodes says that what comes from their own nodes may be decided otherwise, too:
	// where spared, unless all other tiers let that in.
	nodes, spared bool
	// columns are of those for whom the traffic may be decided otherwise, and nearby of
	// those for whom what comes from their nodes may be.
	columns, nearby *set
	classes, near   []int32
}

// mark takes note of whom the edited policies apply to, but for those just received.
func (r *revision) mark(before *book) {
	count := 0
	mark := func(class int32, truth uint32) {
		if !r.marks.has(class) {
			return
		}
		mark := r.marks.of(class)
		if *mark == 0 {
			count++
		}
		*mark |= truth | 1<<31
	}
	for _, i := range r.gone {
		r.subjectOf(before.policy(i), func(class int32, _ policies.Truth) { mark(class, 0) })
	}
	for k, i := range r.added {
		r.subjectOf(r.policy(i), func(class int32, t policies.Truth) { mark(class, uint32(t)<<(2*k)) })
	}
	r.touched = make([]int32, 0, count)
	for class, marks := range r.marks.each() {
		if marks != 0 {
			r.touched = append(r.touched, class)
		}
	}
}

// tiers is those that an edit concerns in a direction.
type tiers struct {
	names           []string
	lowest, highest int16  // their ranks
	added           uint32 // the marks of policies that govern the direction
	depends         bool   // what these mean depends on whom they govern
}

func (r *revision) tiers(d policies.Direction) (t tiers) {
	note := func(p entry) {
		if len(t.names) == 0 {
			t.lowest, t.highest = p.rank, p.rank
		}
		t.lowest, t.highest = min(t.lowest, p.rank), max(t.highest, p.rank)
		if !slices.Contains(t.names, p.Tier) {
			t.names = append(t.names, p.Tier)
		}
	}
	for _, i := range r.gone {
		if p := r.base.book.policies.at(i); p.Governs[d] {
			note(p)
		}
	}
	for k, i := range r.added {
		if p := r.policies.at(i); p.Governs[d] {
			note(p)
			t.added |= 3 << (2 * k)
			t.depends = t.depends || p.depends[d]
		}
	}
	return t
}

// review finds out whom other policies govern in a direction, and what may be decided
// otherwise for them. It looks at tiers, not at rows, so that what it takes for possible
// may turn out to be as before.
func (r *revision) review(d policies.Direction) {
	edited := r.tiers(d)
	if r.draft.in[d] = len(edited.names) > 0; !r.draft.in[d] {
		return
	}
	r.known, r.narrow = map[string]*shift{}, map[narrowing]*shift{}
	governed := slices.Grow(r.governed[:0], len(r.touched))
	var key []byte
	for _, class := range r.touched {
		list, marks := r.base.governing[d].at(class), r.marks.at(class)&edited.added
		x := r.lookAt(d, list, marks, &edited)
		if !x.concerned {
			continue
		}
		governed = append(governed, class)
		if x.closed {
			continue
		}
		key = x.appendKey(key[:0], class)
		s, ok := r.known[string(key)]
		if !ok {
			s = r.shift(d, class, edited.names, &x)
			r.known[string(key)], r.shifts[d] = s, append(r.shifts[d], s)
		}
		if len(s.rest) > 0 {
			s = r.narrowed(d, s, class, x.behind)
		}
		if len(s.own)+len(s.rest) > 0 {
			s.classes = append(s.classes, class)
		}
		if s.nodes && !(s.spared && r.isSpared(r.base.book, list, edited.names)) {
			s.near = append(s.near, class)
		}
	}
	r.governed = governed
	r.Change.governed[d] = r.frame.columnsOf(governed, r.Change.sets)
	for _, s := range r.shifts[d] {
		s.columns, s.nearby = r.frame.columnsOf(s.classes, r.Change.sets), r.frame.columnsOf(s.near, r.Change.sets)
	}
}

// touched is a class to which edited policies apply, as it was before.
type touched struct {
	own, behind []governing // what governs it in the edited tiers, and behind them
	marks       uint32
	concerned   bool // other policies than before govern it
	depends     bool // what those of the edited tiers mean depends on the class
	closed      bool // policies before the edited tiers leave nothing to these
	last        bool // there is one edited tier, and nothing behind it
}

func (r *revision) lookAt(d policies.Direction, list []governing, marks uint32, edited *tiers) (x touched) {
	before := r.base.book
	x.marks, x.concerned, x.depends = marks, marks != 0, edited.depends
	first := 0
	for first < len(list) && before.policies.at(list[first].policy).rank < edited.lowest {
		first++
	}
	end := first
	for ; end < len(list); end++ {
		p := before.policies.at(list[end].policy)
		if p.rank > edited.highest {
			break
		}
		x.concerned = x.concerned || slices.Contains(r.gone, list[end].policy)
		x.depends = x.depends || p.depends[d]
	}
	x.own, x.behind = list[first:end], list[end:]
	x.closed = before.closes(d, list[:first])
	x.last = len(x.behind) == 0 && len(edited.names) == 1
	return x
}

// appendKey appends all that a shift depends on.
func (x *touched) appendKey(key []byte, class int32) []byte {
	if !x.depends {
		class = -1
	}
	key = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(key, uint32(class)), x.marks)
	if x.last {
		key = append(key, 'l')
	}
	for _, g := range x.own {
		key = binary.LittleEndian.AppendUint32(key, uint32(g.policy)<<2|uint32(g.truth))
	}
	return key
}

// closes reports whether policies that govern a class leave nothing to those behind them.
func (b *book) closes(d policies.Direction, list []governing) bool {
	for len(list) > 0 {
		rank := b.policies.at(list[0].policy).rank
		n, sure, passes := 0, false, false
		for ; n < len(list); n++ {
			p := b.policies.at(list[n].policy)
			if p.rank != rank {
				break
			}
			sure, passes = sure || list[n].truth == policies.Yes, passes || p.passes[d]
		}
		if rank >= 0 && b.tiers[rank].End == policies.ActionDeny && sure && !passes {
			return true
		}
		list = list[n:]
	}
	return false
}

// narrowed returns a shift of which nothing is left but what those policies allow that
// govern a class behind the edited tiers.
func (r *revision) narrowed(d policies.Direction, s *shift, class int32, behind []governing) *shift {
	var buf [8]*stage
	stages, key, allows := buf[:0], make([]byte, 0, 32), false
	for len(behind) > 0 {
		n := r.sameTier(behind)
		some := r.stage(d, class, behind[:n])
		stages, key, behind = append(stages, some), binary.LittleEndian.AppendUint32(key, uint32(some.id)), behind[n:]
		allows = allows || r.meet(s.rest, some.allow)
		if len(some.pass) == 0 {
			break
		}
		allows = allows || len(behind) == 0
	}
	if !allows {
		key = key[:0]
	}
	narrow, ok := r.narrow[narrowing{s, string(key)}]
	if !ok {
		narrow = &shift{own: s.own, nodes: s.nodes, spared: s.spared}
		if allows {
			narrow.rest = r.intersect(s.rest, r.compose(stages, key).allow)
		}
		r.narrow[narrowing{s, string(key)}], r.shifts[d] = narrow, append(r.shifts[d], narrow)
	}
	return narrow
}

// meet reports whether two relations have something in common.
func (a algebra) meet(r, s relation) bool {
	for _, x := range r {
		for _, y := range s {
			if a.ports.and(x.ports, y.ports) != noPorts && meets(x.columns, y.columns) {
				return true
			}
		}
	}
	return false
}

// isSpared reports whether all policies of a list but those of some tiers let in what
// comes from a pod's own node.
func (r *revision) isSpared(of *book, list []governing, but []string) bool {
	for len(list) > 0 {
		n := of.sameTier(list)
		if !slices.Contains(but, of.policy(list[0].policy).Tier) && of.spares(list[:n]) != policies.Yes {
			return false
		}
		list = list[n:]
	}
	return true
}

// shift works out what becomes of a class.
func (r *revision) shift(d policies.Direction, class int32, names []string, of *touched) *shift {
	s := &shift{spared: true}
	after, is := r.book, r.edited(d, of.own, of.marks)
	for _, name := range names {
		x, y := r.tier(d, class, r.base.book, name, of.own), r.tier(d, class, after, name, is)
		differ := r.unite(r.unlike(x.safe, y.safe), r.unite(r.unlike(x.allow, y.allow), r.unlike(x.pass, y.pass)))
		allow := r.unite(x.allow, y.allow)
		switch {
		case len(names) > 1:
			s.own = r.unite(s.own, differ)
		case of.last:
			s.own = r.unite(r.unlike(x.safe, y.safe), r.unlike(r.unite(x.allow, x.pass), r.unite(y.allow, y.pass)))
		default:
			s.own, s.rest = r.intersect(differ, allow), r.subtract(differ, allow)
		}
		if d == policies.Ingress && x != y {
			s.nodes = s.nodes || x.spares != y.spares || !x.spared() || !y.spared()
			s.spared = s.spared && x.spared() && y.spared()
		}
	}
	return s
}

// unlike returns what is in one of two relations only.
func (a algebra) unlike(r, s relation) relation { return a.unite(a.subtract(r, s), a.subtract(s, r)) }

// ofTier is what policies of one tier make of a class's traffic.
type ofTier struct {
	*stage
	empty  bool
	spares policies.Truth // the pod's own node
}

// spared reports whether nothing keeps out what comes from a pod's own node.
func (t *ofTier) spared() bool { return t.empty || t.spares == policies.Yes }

// tier returns what those of some policies that are of one tier make of a class's
// traffic. The policies are of a book, which may be that before the edit.
func (r *revision) tier(d policies.Direction, class int32, of *book, name string, list []governing) ofTier {
	list = slices.DeleteFunc(slices.Clone(list), func(g governing) bool { return of.policy(g.policy).Tier != name })
	if len(list) == 0 {
		if r.through == nil {
			r.through = r.newStage(nil, r.universe, r.universe)
		}
		return ofTier{stage: r.through, empty: true}
	}
	after := r.book
	defer func() { r.evaluation.book = after }()
	r.evaluation.book = of
	return ofTier{stage: r.stage(d, class, list), spares: r.spares(list)}
}
