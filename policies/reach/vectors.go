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
	// Peers are addresses of pods and nodes, all of one family, in the order of the
	// model.
	Peers []netip.Addr
	// Outside are addresses of the same family, whoever may have them, but for those
	// that are among the peers of any vector.
	Outside netset.Addresses
	// Grants are what pods let through. Those of the family that none names let
	// through nothing.
	Grants []Granted
}

// Granted is the traffic that some pods let through, as far as the one direction is
// concerned that was asked about: the other end's side has a say of its own.
type Granted struct {
	At             []netip.Addr // of pods that were asked about, ascending
	Allow, Unknown netset.Ports
}

// Vectors groups all addresses by what they may do with some pods of one node: at
// Egress what the pods may send there, at Ingress what they may have from there.
// Each family that the pods have addresses of is covered by its vectors. What a pod
// exchanges with itself is always allowed and not looked at.
//
// Pods on their node's network and addresses that are not known have no part in it.
// Where several pods or nodes have one address, what they do not agree on is unknown.
func (j *Judge) Vectors(d policies.Direction, pods []int) []Vector {
	j = j.whole()
	v := vectors{Judge: j, grants: newGrants(j.ports), direction: d, index: map[string]int{}, known: map[seatKey]int{}}
	v.findSubjects(pods)
	if len(v.subjects) == 0 {
		return nil
	}
	v.part()
	for _, p := range j.whereabouts() {
		if fam := familyOf(p.addr); v.families&fam != 0 {
			at := v.at(fam, v.seatsOf(p))
			v.all[at].Peers = append(v.all[at].Peers, p.addr)
		}
	}
	outside := make([][]netset.Addresses, len(v.all))
	for i, a := range j.atoms {
		if fam := familyOf(a.first); v.families&fam != 0 {
			at := v.at(fam, []seat{{column: j.outside + int32(i)}})
			outside = append(outside, make([][]netset.Addresses, max(0, at+1-len(outside)))...)
			outside[at] = append(outside[at], a.addresses())
		}
	}
	for i, parts := range outside {
		v.all[i].Outside = netset.JoinAddresses(parts...)
	}
	return v.all
}

// vectors is Vectors in the making.
type vectors struct {
	*Judge
	*grants
	direction policies.Direction
	node      string // of all the pods; empty where it is not known
	families  family // of their addresses
	subjects  []subject
	parts     []int32 // of each column: those of one part are in the same sets of every row
	known     map[seatKey]int
	index     map[string]int // of all, by family and grants
	all       []Vector
}

// subject is addresses at which all pods have the same rows: of one pod as a rule.
type subject struct {
	at   []netip.Addr
	fam  family
	rows []rowsOf
}

// rowsOf is a row, and that for what comes from the pod's own node.
type rowsOf struct{ row, local *row }

// seat is where an address is: in a column, and perhaps on the node of the pods.
type seat struct {
	column int32
	onNode policies.Truth
}

// seatKey is what matters of a seat.
type seatKey struct {
	part   int32
	onNode policies.Truth
	fam    family
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
			rows := rowsOf{v.rows[v.direction].at(class), v.rows[v.direction].at(class)}
			if v.direction == policies.Ingress {
				rows.local = v.local.at(class)
			}
			if !slices.Contains(byAddress[a], rows) {
				byAddress[a] = append(byAddress[a], rows)
			}
		}
	}
	index := map[string]int{}
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
		}
		v.subjects[at].at = append(v.subjects[at].at, a)
	}
}

// part sorts the columns into parts. Columns that are in the same sets of the rows
// are of one part, so that it is enough to look at one of them.
func (v *vectors) part() {
	v.parts = make([]int32, len(v.columns))
	split, by := []int32{0}, []int32{-1} // into which part each was split last, and by which set
	seen := map[*set]bool{}
	n := int32(0)
	for s := range v.sets() {
		if seen[s] {
			continue
		}
		seen[s] = true
		for column := range s.columns() {
			p := v.parts[column]
			if by[p] != n {
				by[p], split[p] = n, int32(len(split))
				split, by = append(split, 0), append(by, -1)
			}
			v.parts[column] = split[p]
		}
		n++
	}
}

// sets yields the sets of columns that the rows are made of.
func (v *vectors) sets() func(yield func(*set) bool) {
	return func(yield func(*set) bool) {
		done := map[*row]bool{}
		for _, s := range v.subjects {
			for _, rows := range s.rows {
				for _, r := range []*row{rows.row, rows.local} {
					if done[r] {
						continue
					}
					done[r] = true
					for _, layers := range []relation{r.allow, r.unknown} {
						for _, l := range layers {
							if !yield(l.columns) {
								return
							}
						}
					}
				}
			}
		}
	}
}

// seatsOf returns where an address is, according to each end that has it.
func (v *vectors) seatsOf(p placed) []seat {
	var seats []seat
	for _, e := range p.ends {
		s := seat{column: v.columnAt(e, p.addr)}
		if v.direction == policies.Ingress {
			s.onNode = v.onNode(e)
		}
		same := func(o seat) bool { return v.parts[o.column] == v.parts[s.column] && o.onNode == s.onNode }
		if !slices.ContainsFunc(seats, same) {
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
	if len(seats) > 1 {
		return v.vectorOf(fam, seats)
	}
	key := seatKey{v.parts[seats[0].column], seats[0].onNode, fam}
	at, ok := v.known[key]
	if !ok {
		at = v.vectorOf(fam, seats)
		v.known[key] = at
	}
	return at
}

func (v *vectors) vectorOf(fam family, seats []seat) int {
	key := []byte{byte(fam)}
	var given []Granted
	for i := range v.subjects {
		s := &v.subjects[i]
		if s.fam != fam {
			continue
		}
		g := v.given(s.rows, seats)
		key = binary.LittleEndian.AppendUint32(key, uint32(g))
		if g != noGrant {
			given = append(given, Granted{s.at, v.grants.ports.sets[v.grants.all[g].allow], v.grants.ports.sets[v.grants.all[g].unknown]})
		}
	}
	at, ok := v.index[string(key)]
	if !ok {
		at = len(v.all)
		v.index[string(key)] = at
		v.all = append(v.all, Vector{Grants: given})
	}
	return at
}

// given is what all rows grant to all seats; where they differ, that is unknown.
func (v *vectors) given(rows []rowsOf, seats []seat) grantID {
	all, first := noGrant, true
	for _, r := range rows {
		for _, s := range seats {
			g := v.of(r.row, s.column)
			if s.onNode != policies.No && r.local != r.row {
				g = v.fromNode(g, v.of(r.local, s.column), s.onNode)
			}
			if first {
				all, first = g, false
			} else {
				all = v.fromNode(all, g, policies.Maybe)
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

// placed returns the known addresses of all pods and nodes, in the order of the model.
func (j *Judge) placed() []placed {
	n := 0
	for i := range j.world.Pods {
		n += len(j.world.Pods[i].Addresses)
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
		add(j.Pod(i), j.world.Pods[i].Addresses)
	}
	for i := range j.world.Nodes {
		add(j.Node(i), j.world.Nodes[i].Addresses)
	}
	return list
}
