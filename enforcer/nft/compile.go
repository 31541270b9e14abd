package nft

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

// Input is what a node is to enforce. All judges are of the same world.
type Input struct {
	// Pods are those that run on the node, as indexes of World.Pods. Those on the
	// node's own network are left out.
	Pods []int
	// Judge judges by all policies.
	Judge *reach.Judge
	// Enforced judges by those policies that are more than observed; nil where all
	// are. What it allows and Judge does not passes, counted and logged.
	Enforced *reach.Judge
	// Observed are namespaces whose pods are only observed: they pass all that Guards
	// allows, or everything where that is nil.
	Observed map[string]bool
	Guards   *reach.Judge
	// Crowd are those for whom pods of the judges' world stand, as they are now: kinds have
	// not changed since.
	Crowd *policies.Crowd
	// LogGroup is the NFLOG group that gets what is denied or only observed, at most
	// LogRate packets a second from each vector; 0 is DefaultLogRate.
	LogGroup uint16
	LogRate  uint64
	// Strangers are ranges of addresses that only pods of the node have. What comes from
	// or goes to one that none of Pods has is denied: a pod that nobody has told of yet.
	Strangers []netip.Prefix
}

// DefaultLogRate is how many packets of each vector are logged in a second.
const DefaultLogRate = 10

// Compile returns the ruleset of a node. What the judge does not know is denied, and
// Doubts says where that is.
//
// Vectors are named after what they allow. Where last is the ruleset before, they
// keep the names that they have there as long as most of their peers are the same,
// so that little changes, see Diff.
func Compile(in Input, last *Ruleset) *Ruleset { return new(Compiler).Compile(in, last) }

// Compiler compiles what Compile does. It remembers what it found, so that of judges that
// With made of those that it was asked about last only that is asked, and made, which is
// other than it was. It serves one goroutine.
type Compiler struct {
	vectors  [2][3]*reach.Vectors   // of each judge
	patterns map[[2]string]*pattern // by what is allowed and what passes
	alike    map[string]*pattern    // by their texts
	parts    map[string]*part       // of the last ruleset, by the vectors' names
	log      [2]uint64              // the group and rate that are in them
}

// mostPatterns is how many may be remembered.
const mostPatterns = 10_000

// Compile is Compile.
func (c *Compiler) Compile(in Input, last *Ruleset) *Ruleset {
	if last == nil {
		last = &Ruleset{}
	}
	in.LogRate = cmp.Or(in.LogRate, DefaultLogRate)
	if log := [2]uint64{uint64(in.LogGroup), in.LogRate}; c.log != log || len(c.patterns) > mostPatterns {
		c.log, c.patterns, c.alike, c.parts = log, map[[2]string]*pattern{}, map[string]*pattern{}, nil
	}
	b := builder{in: in, memory: c, last: last.byName(), sets: map[string]*Set{}, parts: map[string]*part{}}
	for _, f := range bothFamilies {
		b.findSubjects(f)
		b.itself(f)
		b.strangers(f)
		for _, d := range policies.Directions {
			b.compile(way{d, f})
		}
	}
	c.parts = b.parts
	return b.ruleset()
}

// families are told apart by what nft calls them.
type family struct {
	ipv6                bool
	suffix              string
	address             Type
	source, destination Field
}

var bothFamilies = [...]family{
	{false, "4", IPv4, Source4, Destination4},
	{true, "6", IPv6, Source6, Destination6},
}

// way is a direction of a family.
type way struct {
	policies.Direction
	family
}

// name is that of an object of the way: "ingress4", "peers_ingress4".
func (w way) name(of string) string { return of + w.String() + w.suffix }

// own is the field that holds the local pod's address, other that of the other end.
func (w way) own() Field {
	if w.Direction == policies.Egress {
		return w.source
	}
	return w.destination
}

func (w way) other() Field {
	if w.Direction == policies.Egress {
		return w.destination
	}
	return w.source
}

// pass is the verdict for what the direction lets through: what leaves a pod may
// have to enter another one yet.
func (w way) pass() Verdict {
	if w.Direction == policies.Egress {
		return Verdict{Action: Return}
	}
	return Verdict{Action: Accept}
}

// builder is a ruleset in the making.
type builder struct {
	in       Input
	memory   *Compiler
	last     names
	subjects []subject // of the family at hand, by address
	asked    [2]bool
	// vectorsOf are what each judge says, of both families.
	vectorsOf [2][3][]reach.Vector
	firstOf   func(int32) netip.Addr // of ranges that kinds of the way at hand are in
	sets      map[string]*Set
	chains    []Chain
	counters  []string
	vectors   []Vector
	parts     map[string]*part // by vector
}

// subject is an address of local pods.
type subject struct {
	at       netip.Addr
	observed bool
}

// cell is addresses that mean the same to every judge.
type cell struct {
	peers   []netip.Addr
	kinds   []reach.Kind
	outside netset.Addresses
	grants  [3][]reach.Granted // of each judge
	content []entry
}

// vector is cells with the same contents.
type vector struct {
	name    string
	id      uint64
	content []entry // by address
	peers   []netip.Addr
	kinds   []reach.Kind
	outside []netset.Addresses
	used    bool // something leads to it
}

// class is the number by which peers lead to the vector: each way has others.
func (v *vector) class() uint32 {
	if v.name == "" {
		return nobodysClass
	}
	return classOf(v.id)
}

// nobodysClass is that of peers who are in no vector.
const nobodysClass = 0x0100_0001

// classOf returns the class of the vector with a number. It reads the same in either
// order of bytes, for nft prints those that maps lead to in the wrong one.
func classOf(id uint64) uint32 {
	high, low := uint32(id>>8&0xff), uint32(id&0xff)
	return high<<24 | low<<16 | low<<8 | high
}

// entry is what becomes of traffic with one local pod.
type entry struct {
	at netip.Addr
	*pattern
	subject int // its index
}

// set returns the set of a name, making it where there is none.
func (b *builder) set(name string, key []Type, isMap, interval bool) *Set {
	if b.sets[name] == nil {
		b.sets[name] = &Set{Name: name, Key: key, Map: isMap, Interval: interval}
	}
	return b.sets[name]
}

func (s *Set) add(e Element) { s.Elements = append(s.Elements, e) }

// itself lists what pods may always send: what is for themselves.
func (b *builder) itself(f family) {
	s := b.set("itself"+f.suffix, []Type{f.address, f.address}, false, false)
	seen := map[string]bool{}
	for _, i := range b.in.Pods {
		p := &b.in.Judge.World().Pods[i]
		if p.HostNetwork {
			continue
		}
		for _, x := range p.Addresses {
			for _, y := range p.Addresses {
				if x.Is6() != f.ipv6 || y.Is6() != f.ipv6 {
					continue
				}
				if k := key(x.AsSlice(), y.AsSlice()); !seen[k] {
					seen[k] = true
					s.add(Element{First: k, Last: k})
				}
			}
		}
	}
}

// strangers denies what is of addresses that a pod of the node has, and no known one. It
// counts with all else that meets no vector, as its log entries say.
func (b *builder) strangers(f family) {
	var ranges []netset.Addresses
	for _, p := range b.in.Strangers {
		if p.Addr().Is6() == f.ipv6 {
			ranges = append(ranges, netset.Prefix(p))
		}
	}
	if len(ranges) == 0 {
		return
	}
	all := b.set("strangers"+f.suffix, []Type{f.address}, false, true)
	for first, last := range netset.JoinAddresses(ranges...).Spans() {
		all.add(Element{First: key(first.AsSlice()), Last: key(last.AsSlice())})
	}
	known := b.set("known"+f.suffix, []Type{f.address}, false, false)
	for _, s := range b.subjects {
		known.add(Element{First: key(s.at.AsSlice()), Last: key(s.at.AsSlice())})
	}
	for _, d := range policies.Directions {
		w := way{d, f}
		name := w.name("strangers_")
		b.counters = append(b.counters, name)
		b.chains = append(b.chains, Chain{Name: name, Rules: []Rule{
			{In{[]Field{w.own()}, known.Name}, Verdict{Action: Return}},
			{Count{name}, Count{w.name("") + "_none"}, b.log('D', w, 0)},
			{Verdict{Action: Drop}},
		}})
	}
}

// compile adds one direction of a family.
func (b *builder) compile(w way) {
	cells := b.cellsOf(w)
	isolated := b.set(w.name("isolated_"), []Type{w.address}, false, false)
	open := b.fill(cells)
	for i, s := range b.subjects {
		if !open[i] {
			isolated.add(Element{First: key(s.at.AsSlice()), Last: key(s.at.AsSlice())})
		}
	}
	index := map[string]*vector{}
	var all []*vector
	for i := range cells {
		c := &cells[i]
		content := slices.DeleteFunc(c.content, func(e entry) bool { return open[e.subject] })
		k := b.keyOf(content)
		v := index[string(k)]
		if v == nil {
			v = &vector{content: content}
			index[string(k)] = v
			all = append(all, v)
		}
		if v.kinds == nil {
			v.kinds = c.kinds // of which most vectors have no others
		} else {
			v.kinds = append(v.kinds, c.kinds...)
		}
		v.peers = append(v.peers, c.peers...)
		if !c.outside.IsEmpty() {
			v.outside = append(v.outside, c.outside)
		}
	}
	b.place(w, all)
}

// place lists the peers of vectors and adds the vectors that have some.
func (b *builder) place(w way, all []*vector) {
	peers := b.set(w.name("peers_"), []Type{w.address}, false, false)
	peers.Classes = true
	blocks := b.set(w.name("blocks_"), []Type{w.address}, true, true)
	var spans []span
	for _, v := range all {
		for first, last := range netset.JoinAddresses(v.outside...).Spans() {
			spans = append(spans, span{first, last, v})
		}
	}
	slices.SortFunc(spans, func(x, y span) int { return x.first.Compare(y.first) })
	var list []peer
	for _, v := range all {
		for _, a := range v.peers {
			if at(spans, a) != v {
				list = append(list, peer{a, v})
			}
		}
	}
	slices.SortFunc(list, func(x, y peer) int { return x.address.Compare(y.address) })
	kinds := int32(-1)
	for _, v := range all {
		for _, k := range v.kinds {
			kinds = max(kinds, k.Number)
		}
	}
	peers.Crowd = newCrowd(b.in.Crowd, w.ipv6, kinds+1)
	for _, v := range all {
		ranges, is := int32(-1), false
		v.kinds = slices.DeleteFunc(v.kinds, func(k reach.Kind) bool {
			if k.Range != ranges {
				ranges, is = k.Range, at(spans, b.firstOf(k.Range)) == v
			}
			if is {
				peers.Crowd.classes[k.Number] = noClass
			}
			return is
		})
	}
	b.name(w, all, list, spans)
	nobody := w.name("") + "_none"
	for _, p := range list {
		k := key(p.address.AsSlice())
		peers.add(Element{First: k, Last: k, Class: p.class()})
		p.used = true
	}
	for _, v := range all {
		for _, kind := range v.kinds {
			peers.Crowd.classes[kind.Number] = v.class()
		}
		v.used = v.used || len(v.kinds) > 0
	}
	for _, s := range spans {
		if s.name != "" {
			blocks.add(Element{First: key(s.first.AsSlice()), Last: key(s.last.AsSlice()), To: Verdict{Goto, s.name}})
			s.used = true
		}
	}
	b.addWay(w, nobody)
	for _, v := range all {
		if v.used && v.name != "" {
			b.addVector(w, v)
		}
	}
}

// span is a range of addresses with its vector.
type span struct {
	first, last netip.Addr
	*vector
}

// peer is an address that is looked up before ranges are.
type peer struct {
	address netip.Addr
	*vector
}

// at returns the vector of the range that an address is in.
func at(spans []span, a netip.Addr) *vector {
	i, found := slices.BinarySearchFunc(spans, a, func(s span, a netip.Addr) int { return s.first.Compare(a) })
	if !found {
		i--
	}
	if i < 0 || spans[i].last.Less(a) {
		return nil
	}
	return spans[i].vector
}

// findSubjects finds the addresses of the local pods.
func (b *builder) findSubjects(f family) {
	b.subjects = nil
	for _, i := range b.in.Pods {
		p := &b.in.Judge.World().Pods[i]
		for _, a := range p.Addresses {
			if !p.HostNetwork && a.Is6() == f.ipv6 {
				b.subjects = append(b.subjects, subject{a, b.in.Observed[p.Ref.Namespace]})
			}
		}
	}
	// Of those that share one address the observed come first.
	slices.SortFunc(b.subjects, func(x, y subject) int {
		if x.observed != y.observed && x.at == y.at {
			if x.observed {
				return -1
			}
			return 1
		}
		return x.at.Compare(y.at)
	})
	b.subjects = slices.CompactFunc(b.subjects, func(x, y subject) bool { return x.at == y.at })
}

// cellsOf asks every judge, and cuts what they say into cells.
func (b *builder) cellsOf(w way) []cell {
	var cells []cell
	for n, judge := range []*reach.Judge{b.in.Judge, b.in.Enforced, b.in.Guards} {
		if judge == nil {
			continue
		}
		if !b.asked[w.Direction] {
			vectors := &b.memory.vectors[w.Direction][n]
			if *vectors == nil {
				*vectors = reach.NewVectors(w.Direction)
			}
			b.vectorsOf[w.Direction][n] = (*vectors).Of(judge, b.in.Pods)
		}
		var all []cell
		for _, v := range b.vectorsOf[w.Direction][n] {
			if v.IPv6 == w.ipv6 {
				c := cell{peers: v.Peers, kinds: v.Kinds, outside: v.Outside}
				c.grants[n] = v.Grants
				all = append(all, c)
			}
		}
		if n == 0 {
			cells, b.firstOf = all, judge.FirstOf
		} else {
			cells = b.overlay(cells, all, n, judge.FirstOf)
		}
	}
	b.asked[w.Direction] = true
	return cells
}

// overlay cuts the cells of some judges by those of the n-th.
func (b *builder) overlay(cells, by []cell, n int, firstOf func(int32) netip.Addr) []cell {
	type seat struct {
		cell   int
		ranges int32
	}
	of, ofKind := map[netip.Addr]int{}, map[int32]seat{}
	for i := range by {
		for _, a := range by[i].peers {
			of[a] = i
		}
		for _, k := range by[i].kinds {
			ofKind[k.Number] = seat{i, k.Range}
		}
	}
	// What two judges do not cut is what is in a range of both.
	var firsts []netip.Addr
	both, before := map[[2]int32]int32{}, b.firstOf
	rangeOf := func(x, y int32) int32 {
		r, known := both[[2]int32{x, y}]
		if !known {
			r = int32(len(firsts))
			both[[2]int32{x, y}] = r
			first := before(x)
			if first.Less(firstOf(y)) {
				first = firstOf(y)
			}
			firsts = append(firsts, first)
		}
		return r
	}
	b.firstOf = func(r int32) netip.Addr { return firsts[r] }
	var all []cell
	for _, c := range cells {
		parts := make([]cell, len(by))
		for _, a := range c.peers {
			p := &parts[of[a]]
			p.peers = append(p.peers, a)
		}
		for _, k := range c.kinds {
			at := ofKind[k.Number]
			p := &parts[at.cell]
			p.kinds = append(p.kinds, reach.Kind{Number: k.Number, Range: rangeOf(k.Range, at.ranges)})
		}
		for i := range by {
			parts[i].outside = c.outside.Intersect(by[i].outside)
			if len(parts[i].peers)+len(parts[i].kinds) > 0 || !parts[i].outside.IsEmpty() {
				parts[i].grants = c.grants
				parts[i].grants[n] = by[i].grants[n]
				all = append(all, parts[i])
			}
		}
	}
	return all
}

// fill finds what the subjects make of traffic with each cell, and which of them no
// policy keeps from anything.
func (b *builder) fill(cells []cell) (open []bool) {
	index := make(map[netip.Addr]int, len(b.subjects))
	for i, s := range b.subjects {
		index[s.at] = i
	}
	var groups [3][][]int // which subjects are in each group of each judge
	members := func(n int, g *reach.Granted) []int {
		groups[n] = append(groups[n], make([][]int, max(0, g.Group+1-len(groups[n])))...)
		some := &groups[n][g.Group]
		if *some == nil {
			for _, a := range g.At {
				*some = append(*some, index[a])
			}
		}
		return *some
	}
	known := map[saying]*pattern{}
	passing := make([]int, len(b.subjects)) // with how many cells all traffic passes
	grants := make([][3]*reach.Granted, len(b.subjects))
	for i := range cells {
		c := &cells[i]
		clear(grants)
		some := 0
		for n := range c.grants {
			for k := range c.grants[n] {
				g := &c.grants[n][k]
				some += len(g.At)
				for _, subject := range members(n, g) {
					grants[subject][n] = g
				}
			}
		}
		c.content = make([]entry, 0, some)
		for k, of := range grants {
			s := saying{observed: b.subjects[k].observed}
			for n, g := range of {
				if g != nil {
					s.traffic[n] = g.Traffic + 1
				}
			}
			if s == (saying{}) {
				continue
			}
			p := known[s]
			if p == nil {
				p = b.patternOf(of, s.observed)
				known[s] = p
			}
			if p.isAll(allowed) {
				passing[k]++
			}
			if !p.isAll(denied) {
				c.content = append(c.content, entry{b.subjects[k].at, p, k})
			}
		}
	}
	open = make([]bool, len(b.subjects))
	for i, n := range passing {
		open[i] = n == len(cells)
	}
	return open
}

// saying is what each judge grants somebody, by numbers, 0 where it grants nothing.
type saying struct {
	traffic  [3]int
	observed bool
}

// patternOf returns what becomes of traffic with an address of which judges say something.
func (b *builder) patternOf(s [3]*reach.Granted, isObserved bool) *pattern {
	allow := func(n int) netset.Ports {
		if s[n] == nil {
			return netset.Ports{}
		}
		return s[n].Allow
	}
	wanted := allow(0)
	passes := wanted
	switch {
	case isObserved && b.in.Guards == nil:
		passes = netset.AllTraffic()
	case isObserved:
		passes = allow(2)
	case b.in.Enforced != nil:
		passes = allow(1)
	}
	k := [2]string{wanted.Key(), passes.Key()}
	p := b.memory.patterns[k]
	if p == nil {
		p = patternOf(passes.Intersect(wanted), passes.Minus(wanted))
		if same := b.memory.alike[p.text()]; same != nil {
			p = same
		} else {
			p.number = len(b.memory.alike)
			b.memory.alike[p.text()] = p
		}
		b.memory.patterns[k] = p
	}
	return p
}

// keyOf returns a text that is the same for equal contents.
func (b *builder) keyOf(content []entry) []byte {
	k := make([]byte, 0, 8*len(content))
	for _, e := range content {
		k = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(k, uint32(e.subject)), uint32(e.number))
	}
	return k
}
