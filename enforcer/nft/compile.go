package nft

import (
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
func Compile(in Input, last *Ruleset) *Ruleset {
	if last == nil {
		last = &Ruleset{}
	}
	b := builder{in: in, last: last.byName(), sets: map[string]*Set{}, patterns: map[[2]string]*pattern{}}
	b.observed = map[netip.Addr]bool{}
	for _, i := range in.Pods {
		if p := &in.Judge.World().Pods[i]; !p.HostNetwork && in.Observed[p.Ref.Namespace] {
			for _, a := range p.Addresses {
				b.observed[a] = true
			}
		}
	}
	b.findKinds()
	for _, f := range bothFamilies {
		b.itself(f)
		b.strangers(f)
		for _, d := range policies.Directions {
			b.compile(way{d, f})
		}
	}
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
	last     names
	observed map[netip.Addr]bool
	kinds    map[netip.Addr]int32 // by the addresses that stand for those of the crowd
	asked    [2]bool
	// vectorsOf are what each judge says, of both families.
	vectorsOf [2][3][]reach.Vector
	patterns  map[[2]string]*pattern // by what is allowed and what is observed
	sets      map[string]*Set
	chains    []Chain
	counters  []string
	vectors   []Vector
}

// cell is addresses that mean the same to every judge.
type cell struct {
	peers   []netip.Addr
	outside netset.Addresses
	grants  [3]map[netip.Addr]*reach.Granted // of each judge, by the local pod's address
}

// vector is cells with the same contents.
type vector struct {
	name    string
	id      uint64
	content []entry // by address
	peers   []netip.Addr
	outside []netset.Addresses
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
	for _, a := range b.addresses(f) {
		known.add(Element{First: key(a.AsSlice()), Last: key(a.AsSlice())})
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
	open := b.openOf(w, cells)
	isolated := b.set(w.name("isolated_"), []Type{w.address}, false, false)
	index := map[string]*vector{}
	var all []*vector
	for _, a := range b.addresses(w.family) {
		if !open[a] {
			isolated.add(Element{First: key(a.AsSlice()), Last: key(a.AsSlice())})
		}
	}
	for i := range cells {
		content := b.contentOf(w, &cells[i], open)
		k := contentKey(content)
		v := index[k]
		if v == nil {
			v = &vector{content: content}
			index[k] = v
			all = append(all, v)
		}
		v.peers = append(v.peers, cells[i].peers...)
		if !cells[i].outside.IsEmpty() {
			v.outside = append(v.outside, cells[i].outside)
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
	crowd := map[int32]*vector{}
	for _, v := range all {
		for _, a := range v.peers {
			if at(spans, a) == v {
				continue
			}
			if kind := b.kinds[a]; kind != 0 {
				crowd[kind] = v
			} else {
				list = append(list, peer{a, v})
			}
		}
	}
	slices.SortFunc(list, func(x, y peer) int { return x.address.Compare(y.address) })
	b.name(w, all, list, crowd, spans)
	nobody := w.name("") + "_none"
	used := map[*vector]bool{}
	for _, p := range list {
		k := key(p.address.AsSlice())
		peers.add(Element{First: k, Last: k, Class: p.class()})
		used[p.vector] = true
	}
	peers.Crowd = newCrowd(b.in.Crowd, w.ipv6)
	for kind, v := range crowd {
		peers.Crowd.lead(kind, v.class())
		used[v] = true
	}
	for _, s := range spans {
		if s.vector.name != "" {
			blocks.add(Element{First: key(s.first.AsSlice()), Last: key(s.last.AsSlice()), To: Verdict{Goto, s.name}})
			used[s.vector] = true
		}
	}
	b.addWay(w, nobody)
	for _, v := range all {
		if used[v] && v.name != "" {
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

// addresses returns the addresses of the local pods, ascending.
func (b *builder) addresses(f family) []netip.Addr {
	var all []netip.Addr
	for _, i := range b.in.Pods {
		p := &b.in.Judge.World().Pods[i]
		for _, a := range p.Addresses {
			if !p.HostNetwork && a.Is6() == f.ipv6 {
				all = append(all, a)
			}
		}
	}
	slices.SortFunc(all, netip.Addr.Compare)
	return slices.Compact(all)
}

// cellsOf asks every judge, and cuts what they say into cells.
func (b *builder) cellsOf(w way) []cell {
	var cells []cell
	for n, judge := range []*reach.Judge{b.in.Judge, b.in.Enforced, b.in.Guards} {
		if judge == nil {
			continue
		}
		var all []cell
		if !b.asked[w.Direction] {
			b.vectorsOf[w.Direction][n] = judge.Vectors(w.Direction, b.in.Pods)
		}
		for _, v := range b.vectorsOf[w.Direction][n] {
			c := cell{outside: v.Outside, grants: [3]map[netip.Addr]*reach.Granted{}}
			if len(v.Peers) > 0 && v.Peers[0].Is6() == w.ipv6 {
				c.peers = v.Peers
			}
			if !isOf(v, w.ipv6) {
				continue
			}
			c.grants[n] = map[netip.Addr]*reach.Granted{}
			for i := range v.Grants {
				for _, a := range v.Grants[i].At {
					c.grants[n][a] = &v.Grants[i]
				}
			}
			all = append(all, c)
		}
		if n == 0 {
			cells = all
		} else {
			cells = overlay(cells, all, n)
		}
	}
	b.asked[w.Direction] = true
	return cells
}

// isOf reports whether a vector is of a family.
func isOf(v reach.Vector, ipv6 bool) bool {
	for _, a := range v.Peers {
		return a.Is6() == ipv6
	}
	for first := range v.Outside.Spans() {
		return first.Is6() == ipv6
	}
	return false
}

// overlay cuts the cells of some judges by those of the n-th.
func overlay(cells, by []cell, n int) []cell {
	of := map[netip.Addr]int{}
	for i := range by {
		for _, a := range by[i].peers {
			of[a] = i
		}
	}
	var all []cell
	for _, c := range cells {
		parts := make([]cell, len(by))
		for _, a := range c.peers {
			parts[of[a]].peers = append(parts[of[a]].peers, a)
		}
		for i := range by {
			parts[i].outside = c.outside.Intersect(by[i].outside)
			if len(parts[i].peers) > 0 || !parts[i].outside.IsEmpty() {
				parts[i].grants = c.grants
				parts[i].grants[n] = by[i].grants[n]
				all = append(all, parts[i])
			}
		}
	}
	return all
}

// patternAt returns what becomes of traffic between a local address and a cell.
func (b *builder) patternAt(c *cell, at netip.Addr) *pattern {
	allow := func(n int) netset.Ports {
		if g := c.grants[n][at]; g != nil {
			return g.Allow
		}
		return netset.Ports{}
	}
	wanted := allow(0)
	passes := wanted
	switch {
	case b.observed[at] && b.in.Guards == nil:
		passes = netset.AllTraffic()
	case b.observed[at]:
		passes = allow(2)
	case b.in.Enforced != nil:
		passes = allow(1)
	}
	k := [2]string{wanted.Key(), passes.Key()}
	p := b.patterns[k]
	if p == nil {
		p = patternOf(passes.Intersect(wanted), passes.Minus(wanted))
		b.patterns[k] = p
	}
	return p
}

// openOf returns the local addresses that no policy keeps from anything.
func (b *builder) openOf(w way, cells []cell) map[netip.Addr]bool {
	open := map[netip.Addr]bool{}
	for _, a := range b.addresses(w.family) {
		open[a] = !slices.ContainsFunc(cells, func(c cell) bool { return !b.patternAt(&c, a).isAll(allowed) })
	}
	return open
}

// contentOf returns what the isolated pods make of traffic with a cell.
func (b *builder) contentOf(w way, c *cell, open map[netip.Addr]bool) []entry {
	var content []entry
	for _, a := range b.addresses(w.family) {
		if open[a] {
			continue
		}
		if p := b.patternAt(c, a); !p.isAll(denied) {
			content = append(content, entry{a, p})
		}
	}
	return content
}
