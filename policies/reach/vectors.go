package reach

import (
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Vector is addresses that may do exactly the same with some pods of a node, in one
// direction: what a packet between two addresses meets there.
type Vector struct {
	// IPv6 is the family of its addresses.
	IPv6 bool
	// Peers are addresses of pods and nodes, in the order of the model.
	Peers []netip.Addr
	// Kinds are those for whom pods of the model stand that have an address of the family,
	// see policies.Pod. No such pod is among the peers.
	Kinds []Kind
	// Outside are addresses, whoever may have them, but for those that are among the
	// peers of any vector.
	Outside netset.Addresses
	// Grants are what pods let through. Those of the family that none names let
	// through nothing.
	Grants []Granted
}

// Kind is pods that no rule tells apart.
type Kind struct {
	Number int32 // as policies.Pod has it
	// Range is one of those that no rule tells the addresses of apart, in which those of
	// the pods are: see Judge.FirstOf.
	Range int32
}

// FirstOf returns the first address of a range, see Kind.
func (j *Judge) FirstOf(r int32) netip.Addr { return j.atoms[r].first }

// Granted is the traffic that some pods let through, as far as the one direction is
// concerned that was asked about: the other end's side has a say of its own.
type Granted struct {
	At             []netip.Addr // of pods that were asked about, ascending
	Allow, Unknown netset.Ports
	// Group and Traffic are numbers for At, and for Allow and Unknown: no two that differ
	// have the same in what one question is answered with.
	Group, Traffic int
}

// Vectors groups all addresses by what they may do with some pods of one node: at
// Egress what the pods may send there, at Ingress what they may have from there.
// Each family that the pods have addresses of is covered by its vectors. What a pod
// exchanges with itself is always allowed and not looked at.
//
// Pods on their node's network and addresses that are not known have no part in it.
// Where several pods or nodes have one address, what they do not agree on is unknown.
func (j *Judge) Vectors(d policies.Direction, pods []int) []Vector {
	return NewVectors(d).Of(j, pods)
}

// Vectors says what Judge.Vectors does of one judge after the other. It remembers what
// rows grant to whom, so that of a judge that With made of the last one only those are
// looked at that are others. It serves one goroutine.
type Vectors struct {
	direction policies.Direction
	*grants
	origin *origin
	parts  []int32            // of each column: those of one part are in the same sets of every row
	first  []int32            // of each part: one of its columns
	sizes  []int32            // how many it has
	from   []int32            // the part that it was split from, or itself
	rows   map[*row][]grantID // what they grant to each part
	seats  [2][]place         // of each class of origin, by family; zero where nobody asked
}

// place is where an address is: its column and atom, each plus one.
type place struct{ column, atom int32 }

// NewVectors returns one that remembers nothing.
func NewVectors(d policies.Direction) *Vectors { return &Vectors{direction: d} }

// Of returns the vectors of a judge.
func (v *Vectors) Of(j *Judge, pods []int) []Vector {
	x := vectors{Judge: j.whole(), by: v, index: map[string]int{}, known: map[seatKey]int{}}
	x.findSubjects(pods)
	if len(x.subjects) == 0 {
		return nil
	}
	v.turn(x.Judge, x.rows)
	for i := range x.own {
		x.own[i] = make([]int32, len(v.first))
	}
	for i := range x.subjects {
		s := &x.subjects[i]
		for _, r := range s.rows {
			s.given = append(s.given, [2][]grantID{v.rows[r.row], v.rows[r.local]})
		}
	}
	x.seatKinds()
	for _, p := range x.whereabouts() {
		if fam := familyOf(p.addr); x.families&fam != 0 {
			at := x.at(fam, x.seatsOf(p))
			x.all[at].Peers = append(x.all[at].Peers, p.addr)
		}
	}
	outside := make([][]netset.Addresses, len(x.all))
	for i, a := range x.atoms {
		if fam := familyOf(a.first); x.families&fam != 0 {
			at := x.ofPart(fam, v.parts[x.outside+int32(i)])
			outside = append(outside, make([][]netset.Addresses, max(0, at+1-len(outside)))...)
			outside[at] = append(outside[at], a.addresses())
		}
	}
	for i, parts := range outside {
		x.all[i].Outside = netset.JoinAddresses(parts...)
	}
	return x.all
}

// turn makes the parts those of some rows of a judge, and finds what they grant.
func (v *Vectors) turn(j *Judge, rows []*row) {
	if v.origin != j.origin || len(v.parts) != len(j.columns) || len(v.first) > 4*len(v.rows)+mostParts || len(v.all)+len(v.ports.sets) > mostGrants {
		*v = Vectors{
			direction: v.direction, grants: newGrants(newPortTable()), origin: j.origin, parts: make([]int32, len(j.columns)),
			first: []int32{0}, sizes: []int32{int32(len(j.columns))}, from: []int32{0}, seats: [2][]place{make([]place, j.origin.classes), make([]place, j.origin.classes)},
		}
	}
	known, before := v.rows, len(v.first)
	v.rows = make(map[*row][]grantID, len(rows))
	var fresh []*row
	seen := map[*set]bool{}
	for _, r := range rows {
		if given, ok := known[r]; ok {
			v.rows[r] = given
			continue
		}
		fresh = append(fresh, r)
		for _, layers := range []relation{r.allow, r.unknown} {
			for _, l := range layers {
				if !seen[l.columns] {
					seen[l.columns] = true
					v.split(l.columns)
				}
			}
		}
	}
	if len(v.first) > before {
		for column, part := range v.parts {
			v.first[part] = int32(column)
		}
		for r, given := range v.rows {
			given = slices.Clip(given)
			for _, part := range v.from[before:] {
				given = append(given, given[part])
			}
			v.rows[r] = given
		}
	}
	for _, r := range fresh {
		own := row{allow: v.take(r.allow, j.ports.sets), unknown: v.take(r.unknown, j.ports.sets)}
		given := make([]grantID, len(v.first))
		for part, column := range v.first {
			given[part] = v.of(&own, column)
		}
		v.rows[r] = given
	}
}

// mostParts and mostGrants are how much may be remembered that nobody asks for any more.
const mostParts, mostGrants = 1000, 10_000

// split makes parts of those columns that are in a set, where others of their part are not.
func (v *Vectors) split(s *set) {
	count := map[int32]int32{}
	for column := range s.columns() {
		count[v.parts[column]]++
	}
	for part, n := range count {
		to := part
		if n < v.sizes[part] {
			to = int32(len(v.first))
			v.first, v.sizes, v.from = append(v.first, 0), append(v.sizes, n), append(v.from, part)
			v.sizes[part] -= n
		}
		count[part] = to
	}
	for column := range s.columns() {
		v.parts[column] = count[v.parts[column]]
	}
}

// vectors are those of one judge in the making.
type vectors struct {
	*Judge
	by       *Vectors
	node     string // of all the pods; empty where it is not known
	families family // of their addresses
	subjects []subject
	rows     []*row     // of these, each once
	own      [2][]int32 // by family and part: the index plus one of the vector of what is on no node
	known    map[seatKey]int
	index    map[string]int // of all, by family and grants
	all      []Vector
}

// subject is addresses at which all pods have the same rows: of one pod as a rule.
type subject struct {
	at    []netip.Addr
	fam   family
	rows  []rowsOf
	given [][2][]grantID // by part, what each of rows grants, and what it does locally
}

// rowsOf is a row, and that for what comes from the pod's own node.
type rowsOf struct{ row, local *row }

// seat is where an address is: in a part, and perhaps on the node of the pods.
type seat struct {
	part   int32
	onNode policies.Truth
}

// seatKey is what matters of a seat.
type seatKey struct {
	seat
	fam family
}

// findSubjects finds the addresses of pods with their rows.
func (v *vectors) findSubjects(pods []int) {
	byAddress := map[netip.Addr][]rowsOf{}
	first := true
	for _, i := range pods {
		p := &v.world.Pods[i]
		if p.HostNetwork {
			continue
		}
		if first {
			v.node, first = p.Node, false
		} else if p.Node != v.node {
			v.node = ""
		}
		for _, a := range p.Addresses {
			class := v.columns[v.columnAt(v.Pod(i), a)].subject
			rows := rowsOf{v.Judge.rows[v.by.direction].at(class), v.Judge.rows[v.by.direction].at(class)}
			if v.by.direction == policies.Ingress {
				rows.local = v.local.at(class)
			}
			if !slices.Contains(byAddress[a], rows) {
				byAddress[a] = append(byAddress[a], rows)
			}
		}
	}
	index, seen := map[string]int{}, map[*row]bool{}
	for _, a := range slices.SortedFunc(maps.Keys(byAddress), netip.Addr.Compare) {
		key := []byte{byte(familyOf(a))}
		for _, r := range byAddress[a] {
			key = binary.LittleEndian.AppendUint32(binary.LittleEndian.AppendUint32(key, uint32(r.row.id)), uint32(r.local.id))
		}
		at, known := index[string(key)]
		if !known {
			at = len(v.subjects)
			index[string(key)] = at
			v.subjects = append(v.subjects, subject{fam: familyOf(a), rows: byAddress[a]})
			v.families |= familyOf(a)
			for _, rows := range byAddress[a] {
				for _, r := range []*row{rows.row, rows.local} {
					if !seen[r] {
						seen[r] = true
						v.rows = append(v.rows, r)
					}
				}
			}
		}
		v.subjects[at].at = append(v.subjects[at].at, a)
	}
}

// seatKinds puts the pods that stand for others of their kind into vectors. Nobody else
// has an address of theirs.
func (v *vectors) seatKinds() {
	type seated struct {
		vector int
		Kind
	}
	all := make([]seated, 0, len(v.world.Pods))
	for f, fam := range families {
		for i := range v.world.Pods {
			kind := v.world.Pods[i].Kind
			if kind == 0 || v.families&fam == 0 {
				continue
			}
			if p := v.placeOf(i, f); p != (place{}) {
				all = append(all, seated{v.ofPart(fam, v.by.parts[p.column-1]), Kind{kind, p.atom - 1}})
			}
		}
	}
	count := make([]int, len(v.all))
	for _, s := range all {
		count[s.vector]++
	}
	for _, s := range all {
		of := &v.all[s.vector]
		if of.Kinds == nil {
			of.Kinds = make([]Kind, 0, count[s.vector])
		}
		of.Kinds = append(of.Kinds, s.Kind)
	}
}

// placeOf returns where the address of the f-th family is of a pod that stands for
// others, the zero place if it has none. Pods of one class that have one have the same.
func (v *vectors) placeOf(pod, f int) (p place) {
	class, known := v.placement.pods[pod], v.by.seats[f]
	if int(class) < len(known) && known[class] != p {
		return known[class]
	}
	for _, a := range v.world.Pods[pod].Addresses {
		if familyOf(a) == families[f] {
			p = place{v.columnAt(v.Pod(pod), a) + 1, v.atomOf(a) + 1}
		}
	}
	if int(class) < len(known) {
		known[class] = p
	}
	return p
}

// seatsOf returns where an address is, according to each end that has it.
func (v *vectors) seatsOf(p placed) []seat {
	seats := make([]seat, 0, 2)
	for _, e := range p.ends {
		s := seat{part: v.by.parts[v.columnAt(e, p.addr)]}
		if v.by.direction == policies.Ingress {
			s.onNode = v.onNode(e)
		}
		if !slices.Contains(seats, s) {
			seats = append(seats, s)
		}
	}
	return seats
}

// onNode reports whether an end is on the network of the pods' node.
func (v *vectors) onNode(e End) policies.Truth {
	switch {
	case e.kind == nodeEnd:
		return sameNode(v.world.Nodes[e.index].Name, v.node)
	case v.world.Pods[e.index].HostNetwork:
		return sameNode(v.world.Pods[e.index].Node, v.node)
	}
	return policies.No
}

// at returns the index of the vector of an address of a family.
func (v *vectors) at(fam family, seats []seat) int {
	switch {
	case len(seats) > 1:
		return v.vectorOf(fam, seats)
	case seats[0].onNode == policies.No:
		return v.ofPart(fam, seats[0].part)
	}
	key := seatKey{seats[0], fam}
	at, ok := v.known[key]
	if !ok {
		at = v.vectorOf(fam, seats)
		v.known[key] = at
	}
	return at
}

// ofPart is at for what is in a part and on no node.
func (v *vectors) ofPart(fam family, part int32) int {
	own := &v.own[fam>>1][part]
	if *own == 0 {
		*own = int32(v.vectorOf(fam, []seat{{part: part}})) + 1
	}
	return int(*own - 1)
}

func (v *vectors) vectorOf(fam family, seats []seat) int {
	key := append(make([]byte, 0, 1+4*len(v.subjects)), byte(fam))
	some := 0
	for i := range v.subjects {
		if s := &v.subjects[i]; s.fam == fam {
			g := v.given(s.given, seats)
			key = binary.LittleEndian.AppendUint32(key, uint32(g))
			if g != noGrant {
				some++
			}
		}
	}
	at, ok := v.index[string(key)]
	if !ok {
		given := make([]Granted, 0, some)
		for i := range v.subjects {
			if s := &v.subjects[i]; s.fam == fam {
				if g := v.given(s.given, seats); g != noGrant {
					given = append(given, v.granted(i, g))
				}
			}
		}
		at = len(v.all)
		v.index[string(key)] = at
		v.all = append(v.all, Vector{IPv6: fam == ipv6, Grants: given})
	}
	return at
}

func (v *vectors) granted(subject int, g grantID) Granted {
	ports := v.by.grants.ports.sets
	x := v.by.all[g]
	return Granted{v.subjects[subject].at, ports[x.allow], ports[x.unknown], subject, int(g)}
}

// given is what all rows grant to all seats; where they differ, that is unknown.
func (v *vectors) given(rows [][2][]grantID, seats []seat) grantID {
	all, first := noGrant, true
	for _, r := range rows {
		for _, s := range seats {
			g := v.by.fromNode(r[0][s.part], r[1][s.part], s.onNode)
			if first {
				all, first = g, false
			} else {
				all = v.by.fromNode(all, g, policies.Maybe)
			}
		}
	}
	return all
}

// columnAt returns the column of a pod or node at one of its addresses.
func (j *Judge) columnAt(e End, a netip.Addr) int32 {
	var buf [2]int32
	for _, c := range j.columnsOf(j.At(e, a), &buf) {
		if j.columns[c].families&familyOf(a) != 0 {
			return c
		}
	}
	return j.outside + j.atomOf(a)
}

// placed is an address that pods or nodes have.
type placed struct {
	addr netip.Addr
	ends []End
}

// whereabouts returns what placed does, remembering it.
func (j *Judge) whereabouts() []placed {
	j.grouping.placing.Do(func() { j.grouping.placed = j.placed() })
	return j.grouping.placed
}

// placed returns the known addresses of nodes, and of all pods but those that stand for
// others, in the order of the model.
func (j *Judge) placed() []placed {
	n := 0
	for i := range j.world.Pods {
		if p := &j.world.Pods[i]; p.Kind == 0 {
			n += len(p.Addresses)
		}
	}
	for i := range j.world.Nodes {
		n += len(j.world.Nodes[i].Addresses)
	}
	index, list, ends := make(map[netip.Addr]int32, n), make([]placed, 0, n), make([]End, n)
	add := func(e End, addresses []netip.Addr) {
		for _, a := range addresses {
			if at, known := index[a]; known {
				list[at].ends = append(list[at].ends, e)
				continue
			}
			index[a] = int32(len(list))
			ends[0] = e
			list, ends = append(list, placed{a, ends[:1:1]}), ends[1:]
		}
	}
	for i := range j.world.Pods {
		if p := &j.world.Pods[i]; p.Kind == 0 {
			add(j.Pod(i), p.Addresses)
		}
	}
	for i := range j.world.Nodes {
		add(j.Node(i), j.world.Nodes[i].Addresses)
	}
	return list
}
