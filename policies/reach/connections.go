package reach

import (
	"cmp"
	"iter"
	"maps"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Grouping says what one peer of a listing stands for.
type Grouping string

// The groupings of a listing. A row says what some pod of one peer can do with
// some pod of the other.
const (
	ByPod       Grouping = "pod"
	ByWorkload  Grouping = "workload"
	ByNamespace Grouping = "namespace"
)

// Listing narrows what Connections yields. The zero Listing is everything, by
// workload.
type Listing struct {
	By       Grouping         // "" is ByWorkload
	From, To *policies.Target // nil is anyone
	Ports    *netset.Ports    // nil is all of TCP, UDP and SCTP
}

// Connections yields every connection that is allowed or unknown, over TCP, UDP
// and SCTP, sorted by source and destination, outside addresses last. A pod to
// itself is left out; nodes are listed only as the pods on their network.
func (j *Judge) Connections(l Listing) iter.Seq[policies.Connection] {
	return func(yield func(policies.Connection) bool) {
		newLister(j.whole(), l).list(yield)
	}
}

// grantID names an interned grant; equal grants have equal ids.
type grantID int32

const noGrant grantID = 0

type grant struct{ allow, unknown portsID }

// grants interns grants and remembers what was computed of them.
type grants struct {
	ports *portTable
	all   []grant
	ids   map[grant]grantID
	open  grantID // grants everything
	// meets and joins remember what both and either returned.
	meets, joins map[grantPair]grantID
}

// grantPair is two grants, the smaller first where their order is all one.
type grantPair struct{ a, b grantID }

func newGrants(t *portTable) *grants {
	g := &grants{ports: t.fork(), ids: map[grant]grantID{}, meets: map[grantPair]grantID{}, joins: map[grantPair]grantID{}}
	g.id(grant{})
	g.open = g.id(grant{allow: g.ports.id(netset.AllTraffic())})
	return g
}

func (g *grants) id(x grant) grantID {
	id, ok := g.ids[x]
	if !ok {
		id = grantID(len(g.all))
		g.all = append(g.all, x)
		g.ids[x] = id
	}
	return id
}

// both is what is left when both must grant.
func (g *grants) both(a, b grantID) grantID {
	if a == b || a == noGrant {
		return a
	}
	if b == noGrant {
		return b
	}
	key := grantPair{min(a, b), max(a, b)}
	id, ok := g.meets[key]
	if !ok {
		x, y, t := g.all[a], g.all[b], g.ports
		allow := t.and(x.allow, y.allow)
		possible := t.and(t.or(x.allow, x.unknown), t.or(y.allow, y.unknown))
		id = g.id(grant{allow, t.minus(possible, allow)})
		g.meets[key] = id
	}
	return id
}

// over is what is left over a way when both must grant.
func (g *grants) over(w way, a, b grantID) grantID {
	x := g.both(a, b)
	if w == doubtful {
		return g.id(grant{unknown: g.ports.or(g.all[x].allow, g.all[x].unknown)})
	}
	return x
}

// either is what there is when one of two may grant.
func (g *grants) either(a, b grantID) grantID {
	if a == b || b == noGrant {
		return a
	}
	if a == noGrant {
		return b
	}
	key := grantPair{min(a, b), max(a, b)}
	id, ok := g.joins[key]
	if !ok {
		x, y, t := g.all[a], g.all[b], g.ports
		allow := t.or(x.allow, y.allow)
		id = g.id(grant{allow, t.minus(t.or(x.unknown, y.unknown), allow)})
		g.joins[key] = id
	}
	return id
}

// of returns what a row grants to a column.
func (g *grants) of(r *row, column int32) grantID {
	var x grant
	for _, l := range r.allow {
		if l.columns.has(column) {
			x.allow = g.ports.or(x.allow, l.ports)
		}
	}
	for _, l := range r.unknown {
		if l.columns.has(column) {
			x.unknown = g.ports.or(x.unknown, l.ports)
		}
	}
	return g.id(x)
}

// fromNode is what is granted to a source that is on the destination's node, may
// be, or is not, given what is granted to it elsewhere and there.
func (g *grants) fromNode(elsewhere, there grantID, onNode policies.Truth) grantID {
	switch {
	case elsewhere == there || onNode == policies.No:
		return elsewhere
	case onNode == policies.Yes:
		return there
	}
	x, y, t := g.all[elsewhere], g.all[there], g.ports
	allow := t.and(x.allow, y.allow)
	possible := t.or(t.or(x.allow, x.unknown), t.or(y.allow, y.unknown))
	return g.id(grant{allow, t.minus(possible, allow)})
}

// waysGranted is what the ways between two ends grant, by the families over which
// they lead.
type waysGranted struct {
	grants [ipv4 | ipv6 + 1]grantID
	known  [ipv4 | ipv6 + 1]bool
}

// add adds a way; of several over one family only one is there, it is not known
// which.
func (w *waysGranted) add(g *grants, over family, x grantID) {
	if w.known[over] {
		x = g.fromNode(w.grants[over], x, policies.Maybe)
	}
	w.grants[over], w.known[over] = x, true
}

// sum is what there is as any family will do.
func (w *waysGranted) sum(g *grants) grantID {
	sum := noGrant
	for _, x := range w.grants {
		sum = g.either(sum, x)
	}
	return sum
}

// unit is the pods that one peer of a listing stands for.
type unit struct {
	peer    policies.Peer
	pods    []int32
	classes []int32 // ascending, without duplicates
	host    bool    // some pod is on its node's network
}

// lister holds what a listing needs beside the judge.
type lister struct {
	pairing
	units    []unit
	from, to []unit // those that are listed, in order
	sources  netset.Addresses
	targets  netset.Addresses
	within   portsID
	visible  map[grantID]*policies.Grant
	atoms    []int32 // outside atoms that are not pods or nodes in whole
	blocks   map[outsideKey][]outsideGrant
	peers    map[string]*policies.Peer // of blocks, by their text
	offerer  *row                      // the row that offered was worked out of
	offered  []grantID
	ingress  []*row // the distinct ingress rows
	strip    strip
	accepted []grantID // by the id of a row
}

type outsideKey struct {
	row      *row
	families family
	inward   bool
}

// outsideGrant is what addresses outside are granted.
type outsideGrant struct {
	peer  *policies.Peer
	grant *policies.Grant
}

func newLister(j *Judge, l Listing) *lister {
	ls := &lister{pairing: newPairing(j), visible: map[grantID]*policies.Grant{}, blocks: map[outsideKey][]outsideGrant{}, peers: map[string]*policies.Peer{}}
	ls.cells = map[cellKey]grantID{}
	ports := netset.TransportPorts()
	if l.Ports != nil {
		ports = *l.Ports
	}
	ls.within = ls.grants.ports.id(ports)
	ls.units = j.unitsBy(cmp.Or(l.By, ByWorkload))
	ls.from, ls.sources = ls.narrow(l.From)
	ls.to, ls.targets = ls.narrow(l.To)
	ls.findOutside()
	return ls
}

// unitsBy sorts the pods of the model into units, ordered by name.
func (j *Judge) unitsBy(by Grouping) []unit {
	index := map[policies.Ref]int{}
	var units []unit
	var refs []policies.Ref
	for i := range j.world.Pods {
		p := &j.world.Pods[i]
		ref := p.Workload
		peer := policies.Peer{Namespace: ref.Namespace, Name: ref.Name, Kind: ref.Kind}
		switch by {
		case ByPod:
			ref, peer = p.Ref, j.Peer(j.Pod(i))
		case ByNamespace:
			ref = policies.Ref{Kind: "Namespace", Name: ref.Namespace}
			peer = policies.Peer{Kind: ref.Kind, Name: ref.Name}
		}
		at, ok := index[ref]
		if !ok {
			at = len(units)
			index[ref] = at
			units = append(units, unit{peer: peer})
			refs = append(refs, ref)
		}
		u := &units[at]
		u.pods = append(u.pods, int32(i))
		u.classes = append(u.classes, j.placement.pods[i])
		u.host = u.host || p.HostNetwork
	}
	order := make([]int, len(units))
	for i := range order {
		order[i] = i
		slices.Sort(units[i].classes)
		units[i].classes = slices.Compact(units[i].classes)
	}
	slices.SortFunc(order, func(a, b int) int { return refs[a].Compare(refs[b]) })
	sorted := make([]unit, len(units))
	for i, at := range order {
		sorted[i] = units[at]
	}
	return sorted
}

// narrow returns the units and outside addresses that a target names. Units
// keep only the pods that it names.
func (ls *lister) narrow(t *policies.Target) ([]unit, netset.Addresses) {
	if t == nil {
		return ls.units, netset.EveryAddress()
	}
	wanted := map[int32]bool{}
	for _, i := range t.Pods {
		wanted[int32(i)] = true
	}
	var chosen []unit
	for _, u := range ls.units {
		u.pods = slices.DeleteFunc(slices.Clone(u.pods), func(i int32) bool { return !wanted[i] })
		if len(u.pods) == 0 {
			continue
		}
		u.classes, u.host = nil, false
		for _, i := range u.pods {
			u.classes = append(u.classes, ls.placement.pods[i])
			u.host = u.host || ls.world.Pods[i].HostNetwork
		}
		slices.Sort(u.classes)
		u.classes = slices.Compact(u.classes)
		chosen = append(chosen, u)
	}
	return chosen, t.Addresses
}

// findOutside lists the address ranges that are not wholly pods or nodes.
func (ls *lister) findOutside() {
	inside := ls.insiders()
	for i, a := range ls.frame.atoms {
		if !inside.Covers(a.addresses()) {
			ls.atoms = append(ls.atoms, int32(i))
		}
	}
}

func (ls *lister) list(yield func(policies.Connection) bool) {
	row := make([]grantID, len(ls.classes))
	for s := range ls.from {
		source := &ls.from[s]
		byClass := ls.reach(source.classes, row)
		for t := range ls.to {
			target := &ls.to[t]
			g := ls.between(source, target, byClass)
			if out := ls.show(g); out != nil && !yield(policies.Connection{From: &source.peer, To: &target.peer, Grant: out}) {
				return
			}
		}
		for _, o := range ls.outsideOf(policies.Egress, source, ls.targets) {
			if !yield(policies.Connection{From: &source.peer, To: o.peer, Grant: o.grant}) {
				return
			}
		}
	}
	ls.listFromOutside(yield)
}

// listFromOutside yields what comes from outside, sorted by source.
func (ls *lister) listFromOutside(yield func(policies.Connection) bool) {
	bySource := map[*policies.Peer][]policies.Connection{}
	for t := range ls.to {
		target := &ls.to[t]
		for _, o := range ls.outsideOf(policies.Ingress, target, ls.sources) {
			bySource[o.peer] = append(bySource[o.peer], policies.Connection{From: o.peer, To: &target.peer, Grant: o.grant})
		}
	}
	for _, source := range slices.SortedFunc(maps.Keys(bySource), compareBlocks) {
		for _, c := range bySource[source] {
			if !yield(c) {
				return
			}
		}
	}
}

func compareBlocks(a, b *policies.Peer) int {
	if c := cmp.Or(a.CIDR.Addr().Compare(b.CIDR.Addr()), cmp.Compare(a.CIDR.Bits(), b.CIDR.Bits())); c != 0 {
		return c
	}
	return strings.Compare(a.String(), b.String())
}

// outsidePeer returns the peer that is a block: equal blocks are one peer.
func (ls *lister) outsidePeer(b netset.Block) *policies.Peer {
	key := b.String()
	if ls.peers[key] == nil {
		p := policies.Outside(b)
		ls.peers[key] = &p
	}
	return ls.peers[key]
}

// reach returns, for each of the source classes in turn, what every class of
// the frame is granted.
func (ls *lister) reach(sources []int32, buf []grantID) []grantID {
	n := len(ls.classes)
	if len(buf) < n*len(sources) {
		buf = make([]grantID, n*len(sources))
	}
	for i, s := range sources {
		ls.reachOne(s, buf[i*n:(i+1)*n])
	}
	return buf
}

func (ls *lister) reachOne(source int32, out []grantID) {
	clear(out)
	if ls.classes[source].role == faced {
		for target := range out {
			out[target] = ls.pairGrant(source, int32(target))
		}
		return
	}
	offered := ls.columnsGranted(ls.rows[policies.Egress].at(source))
	for _, column := range ls.classes[source].columns {
		accepted := ls.rowsGranting(column)
		for target, r := range ls.rows[policies.Ingress].each() {
			if accepted[r.id] == noGrant {
				continue
			}
			for _, c := range ls.classes[target].columns {
				if way := ls.frame.between(column, c, ipv4|ipv6, ls.ipv6); way != noWay {
					out[target] = ls.either(out[target], ls.over(way, offered[c], accepted[r.id]))
				}
			}
		}
	}
	for target := range ls.faces {
		out[target] = ls.pairGrant(source, target)
	}
}

// listed returns what the listing shows of a grant.
func (ls *lister) listed(x grant) grantID {
	t := ls.grants.ports
	return ls.id(grant{t.and(x.allow, ls.within), t.and(x.unknown, ls.within)})
}

// columnsGranted returns what the listing shows of what a row grants to every
// column.
func (ls *lister) columnsGranted(r *row) []grantID {
	if ls.offerer == r {
		return ls.offered
	}
	if ls.offered == nil {
		ls.offered = make([]grantID, len(ls.columns))
	}
	out := ls.offered
	clear(out)
	ls.offerer = r
	for _, l := range r.allow {
		g := ls.listed(grant{allow: l.ports})
		for c := range l.columns.columns() {
			out[c] = ls.either(out[c], g)
		}
	}
	for _, l := range r.unknown {
		g := ls.listed(grant{unknown: l.ports})
		for c := range l.columns.columns() {
			out[c] = ls.either(out[c], g)
		}
	}
	return out
}

// strip is what the ingress rows grant to the columns of one word: looking for
// the word in every set of every row once serves 64 sources.
type strip struct {
	word  uint32
	parts []stripPart
}

type stripPart struct {
	row   int32
	grant grantID
	bits  uint64
}

// rowsGranting returns what the listing shows of what each ingress row grants to
// a column, by the row's id.
func (ls *lister) rowsGranting(column int32) []grantID {
	if ls.ingress == nil {
		ls.findIngress()
	}
	word, bit := wordOf(column)
	if ls.strip.parts == nil || ls.strip.word != word {
		ls.strip = strip{word, ls.strip.parts[:0]}
		for _, r := range ls.ingress {
			for _, l := range r.allow {
				ls.strip.add(r, ls.listed(grant{allow: l.ports}), l.columns)
			}
			for _, l := range r.unknown {
				ls.strip.add(r, ls.listed(grant{unknown: l.ports}), l.columns)
			}
		}
	}
	clear(ls.accepted)
	for _, p := range ls.strip.parts {
		if p.bits&bit != 0 {
			ls.accepted[p.row] = ls.either(ls.accepted[p.row], p.grant)
		}
	}
	return ls.accepted
}

func (s *strip) add(r *row, g grantID, columns *set) {
	if bits := columns.word(s.word); bits != 0 && g != noGrant {
		s.parts = append(s.parts, stripPart{r.id, g, bits})
	}
}

// findIngress lists the distinct ingress rows.
func (ls *lister) findIngress() {
	last := int32(0)
	for _, r := range ls.rows[policies.Ingress].each() {
		last = max(last, r.id)
	}
	seen := make([]bool, last+1)
	for _, r := range ls.rows[policies.Ingress].each() {
		if !seen[r.id] {
			seen[r.id] = true
			ls.ingress = append(ls.ingress, r)
		}
	}
	ls.accepted = make([]grantID, last+1)
}

// between returns what some pod of one unit is granted to some other pod of
// another, given what the source's classes reach.
func (ls *lister) between(source, target *unit, byClass []grantID) grantID {
	g := noGrant
	same := source.peer.Pod == target.peer.Pod && source.peer.Kind == target.peer.Kind && source.peer.Name == target.peer.Name && source.peer.Namespace == target.peer.Namespace
	for i, s := range source.classes {
		for _, t := range target.classes {
			if same && s == t && ls.onlySelf(source, target, t) {
				continue
			}
			g = ls.either(g, byClass[i*len(ls.classes)+int(t)])
		}
	}
	if source.host {
		g = ls.either(g, ls.onSharedNode(source, target))
	}
	return g
}

// onSharedNode returns what pods of the source that are on their node's network
// are granted to pods of the target on the same node, or perhaps on the same.
func (ls *lister) onSharedNode(source, target *unit) grantID {
	type encounter struct {
		source, target int32 // classes
		onNode         policies.Truth
	}
	g, met := noGrant, map[encounter]bool{}
	for _, s := range source.pods {
		if !ls.world.Pods[s].HostNetwork {
			continue
		}
		for _, t := range target.pods {
			m := encounter{ls.placement.pods[s], ls.placement.pods[t], ls.onNodeOf(ls.Pod(int(s)), ls.Pod(int(t)))}
			if m.onNode == policies.No || met[m] {
				continue
			}
			met[m] = true
			g = ls.either(g, ls.fromNode(ls.pairGrant(m.source, m.target), ls.localGrant(m.source, m.target), m.onNode))
			if g == ls.open {
				return g
			}
		}
	}
	return g
}

// onlySelf reports whether all that two units have of a class is one and the
// same pod.
func (ls *lister) onlySelf(source, target *unit, class int32) bool {
	only := int32(-1)
	for _, pods := range [][]int32{source.pods, target.pods} {
		for _, i := range pods {
			if ls.placement.pods[i] != class {
				continue
			}
			if only >= 0 && only != i || ls.world.Pods[i].Replicas > 1 {
				return false
			}
			only = i
		}
	}
	return true
}

// show returns a grant as answers give it, or nil when it grants nothing of
// what is listed.
func (ls *lister) show(g grantID) *policies.Grant {
	if g == noGrant {
		return nil
	}
	shown, ok := ls.visible[g]
	if !ok {
		t := ls.grants.ports
		allow, unknown := t.and(ls.all[g].allow, ls.within), t.and(ls.all[g].unknown, ls.within)
		if allow != noPorts || unknown != noPorts {
			shown = &policies.Grant{Allow: t.sets[allow], Unknown: t.sets[unknown]}
		}
		ls.visible[g] = shown
	}
	return shown
}

// outsideOf returns what a unit and the addresses outside grant each other in
// one direction, as seen from the unit.
func (ls *lister) outsideOf(d policies.Direction, u *unit, within netset.Addresses) []outsideGrant {
	if within.IsEmpty() {
		return nil
	}
	if len(u.classes) == 1 {
		class := u.classes[0]
		key := outsideKey{ls.rows[d].at(class), ls.classes[class].families, d == policies.Ingress}
		known, ok := ls.blocks[key]
		if !ok {
			known = ls.blocksOf(d, u.classes, within)
			ls.blocks[key] = known
		}
		return known
	}
	return ls.blocksOf(d, u.classes, within)
}

func (ls *lister) blocksOf(d policies.Direction, classes []int32, within netset.Addresses) []outsideGrant {
	alike := map[grantID][]int32{}
	for _, a := range ls.atoms {
		column := ls.outside + a
		g := noGrant
		for _, class := range classes {
			if ls.classes[class].families&ls.columns[column].families != 0 {
				g = ls.either(g, ls.of(ls.rows[d].at(class), column))
			}
		}
		if g != noGrant {
			alike[g] = append(alike[g], a)
		}
	}
	var out []outsideGrant
	for g, atoms := range alike {
		shown := ls.show(g)
		if shown == nil {
			continue
		}
		parts := make([]netset.Addresses, len(atoms))
		for i, a := range atoms {
			parts[i] = ls.frame.atoms[a].addresses()
		}
		for _, b := range netset.JoinAddresses(parts...).Intersect(within).Blocks() {
			out = append(out, outsideGrant{ls.outsidePeer(b), shown})
		}
	}
	slices.SortFunc(out, func(a, b outsideGrant) int { return compareBlocks(a.peer, b.peer) })
	return out
}
