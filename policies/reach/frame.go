package reach

import (
	"maps"
	"net/netip"
	"slices"
	"sort"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// frame is what judges that are to be compared share: the classes their pods
// fall into and the columns their rows are made of.
//
// A class is all pods that no policy of any of the models can tell apart: of
// one namespace, alike in every label that some selector uses, in the numbers
// behind every port name that some rule uses, and in every address range that
// some rule uses. Nodes and the pods on their network make classes too, alike in
// the node's labels instead; where there are host endpoints, what is on two nodes
// is never alike. A column is a class with one of its address families, or a
// range of addresses that no rule tells apart.
type frame struct {
	origin  *origin
	options Options
	vocabulary
	namespaces []namespace
	machines   []machine
	classes    []class
	columns    []column
	// atoms are the address ranges that no rule tells apart, IPv4 first; those
	// of the outside are the columns from outside on, in the same order.
	atoms   []atom
	outside int32
	alone   []int32 // the column of each atom, to be one by itself

	space   [2]netset.Addresses // where unknown pod addresses can be, by family
	spaceIs [2]bool             // the pods are known to have an address there
	faces   map[int32][]int32   // of the classes that have some, one for each column
	known   table[classKey, int32]
	several table[string, int32] // a number for all atoms of a class with faces
	// combinations is how many of these there are, and runs how many classes stand
	// with others of their namespace.
	combinations, runs int32
	machineIDs         table[string, int32]
	values             table[label, int32]
	keyOf              []int32                // the key of each label value
	text               []string               // and its text
	doubt              map[int32]int32        // by key: the value that stands for one that is not known
	byName             table[string, []int32] // namespaces by name
	posting            table[int32, []int32]  // classes by label value, ascending
	keyed              table[int32, []int32]  // classes that carry a key, ascending
	named              []map[uint16][]int32   // by port name: columns by the number behind it
	atomCols           table[int32, []int32]  // columns of pods and nodes by atom
	unplaced           [2][2][]int32          // columns whose address is unknown, of pods and of hosts, by family
	dual               bool                   // some IPv6 address, pod range or block is known
	nodeIDs            map[string]int32       // nodes by name, where there are host endpoints

	// grows is set in a frame that takes spare columns for what is new, and full when
	// they did not last.
	grows, full bool
	spare       [ipv4 | ipv6 + 1][]int32 // by families
	pairs       []int32                  // the first of each two, of both families
}

// origin is that of all frames that were made of one by adding to it, and how many classes
// are the same in each.
type origin struct{ classes int }

// family is a set of address families; a pod with unknown addresses has both,
// and one column for both where no IPv6 address or block tells them apart.
type family uint8

const (
	ipv4 family = 1 << iota
	ipv6
)

var families = [2]family{ipv4, ipv6}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return ipv4
	}
	return ipv6
}

// Special values for the atom that an address is in.
const (
	noAtom      int32 = -1 // no address of the family
	unknownAtom int32 = -2
)

type column struct {
	class    int32 // -1 for the outside
	subject  int32 // the class whose rows are those of this address: class, or a face of it
	atom     int32
	families family
	// sure are the families that the class has addresses of, perhaps those that
	// it may have, whatever the column's own.
	sure, perhaps family
}

type atom struct{ first, last netip.Addr }

func (a atom) addresses() netset.Addresses { return netset.AddressSpan(a.first, a.last) }

func newFrame(o Options, models ...*policies.Model) (*frame, []placement) {
	f := &frame{
		options: o, vocabulary: vocabularyOf(models, o), doubt: map[int32]int32{}, nodeIDs: nodeIDs(models), faces: map[int32][]int32{},
	}
	f.cutAddresses()
	f.findSpace(models)
	namespaceOf := f.internNamespaces(models)
	places := f.classify(models, namespaceOf)
	f.findFamilies()
	f.layColumns()
	f.origin = &origin{len(f.classes)}
	if o.Lasting {
		f.spareColumns()
	}
	return f, places
}

// cutAddresses cuts both address families at every edge of a block.
func (f *frame) cutAddresses() {
	cuts := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	cut := func(p netip.Prefix) {
		cuts = append(cuts, p.Masked().Addr())
		if after := netset.LastAddress(p).Next(); after.IsValid() {
			cuts = append(cuts, after)
		}
	}
	for _, b := range f.blocks {
		cut(b.CIDR)
		for _, p := range b.Except {
			cut(p)
		}
	}
	slices.SortFunc(cuts, netip.Addr.Compare)
	cuts = slices.Compact(cuts)
	for i, first := range cuts {
		last := netset.LastAddress(netset.AllIPv4)
		if first.Is6() {
			last = netset.LastAddress(netset.AllIPv6)
		}
		if i+1 < len(cuts) && cuts[i+1].Is4() == first.Is4() {
			last = cuts[i+1].Prev()
		}
		f.atoms = append(f.atoms, atom{first, last})
	}
}

// atomOf returns the index of the atom that holds a.
func (f *frame) atomOf(a netip.Addr) int32 {
	after := sort.Search(len(f.atoms), func(i int) bool { return a.Less(f.atoms[i].first) })
	return int32(after) - 1
}

// findSpace learns where pods with unknown addresses can be: in the pod CIDRs
// where the models know them; else somewhere in IPv4, and perhaps in IPv6 too.
func (f *frame) findSpace(models []*policies.Model) {
	var known netset.Addresses
	for _, m := range models {
		known = known.Union(netset.Prefixes(m.PodCIDRs...))
	}
	for i, whole := range []netip.Prefix{netset.AllIPv4, netset.AllIPv6} {
		f.space[i] = known.Intersect(netset.Prefix(whole))
		f.spaceIs[i] = !f.space[i].IsEmpty()
		if known.IsEmpty() {
			f.space[i], f.spaceIs[i] = netset.Prefix(whole), i == 0
		}
	}
}

// findFamilies learns whether IPv6 plays a part in any of the models.
func (f *frame) findFamilies() {
	f.dual = f.spaceIs[1]
	for _, b := range f.blocks {
		f.dual = f.dual || b.CIDR.Addr().Is6()
	}
	for i := range f.classes {
		f.dual = f.dual || f.classes[i].atoms[1] >= 0
	}
}

// tongues is what of a model speaks of IPv6: some address or pod range, network sets
// and host endpoints, which count where policies look for them, and policies.
type tongues struct {
	world, sets              bool
	policies, lookingForSets int
}

func tonguesOf(m *policies.Model) tongues {
	t := tongues{
		world: worldSpeaks(&m.World),
		sets: slices.ContainsFunc(m.Sets, func(s policies.NetworkSet) bool {
			return slices.ContainsFunc(s.Nets, func(p netip.Prefix) bool { return p.Addr().Is6() })
		}) || slices.ContainsFunc(m.Hosts, func(h policies.HostEndpoint) bool { return slices.ContainsFunc(h.Addresses, netip.Addr.Is6) }),
	}
	for i := range m.Policies {
		t = t.and(&m.Policies[i], 1)
	}
	return t
}

// worldSpeaks reports whether a pod, a node or a pod range has an address of IPv6.
func worldSpeaks(w *policies.World) bool {
	return slices.ContainsFunc(w.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }) ||
		slices.ContainsFunc(w.Nodes, func(n policies.Node) bool { return slices.ContainsFunc(n.Addresses, netip.Addr.Is6) }) ||
		slices.ContainsFunc(w.Pods, func(p policies.Pod) bool { return slices.ContainsFunc(p.Addresses, netip.Addr.Is6) })
}

// and returns the tongues with a policy more, or with one less for -1.
func (t tongues) and(p *policies.Policy, n int) tongues {
	speaks, looks := false, false
	var listen func(m *policies.Match)
	listen = func(m *policies.Match) {
		speaks = speaks || m.Block.CIDR.IsValid() && m.Block.CIDR.Addr().Is6()
		looks = looks || m.Endpoints || m.Object != policies.Ref{}
		for _, parts := range [][]policies.Match{m.Any, m.All, m.Except} {
			for i := range parts {
				listen(&parts[i])
			}
		}
	}
	for m := range matchesOf(p) {
		listen(m)
	}
	if speaks {
		t.policies += n
	}
	if looks {
		t.lookingForSets += n
	}
	return t
}

// ipv6 reports whether IPv6 plays a part in the model.
func (t tongues) ipv6() bool { return t.world || t.policies > 0 || t.sets && t.lookingForSets > 0 }

// layColumns gives every class and every atom its columns.
func (f *frame) layColumns() {
	f.named = make([]map[uint16][]int32, len(f.names))
	f.layClasses(0)
	f.outside = int32(len(f.columns))
	for i, a := range f.atoms {
		f.alone = append(f.alone, f.addColumns(column{-1, -1, int32(i), familyOf(a.first), familyOf(a.first), 0})...)
	}
}

// layClasses gives the classes from first on their columns, and takes them into the
// indexes over both.
func (f *frame) layClasses(first int) {
	for i := first; i < len(f.classes); i++ {
		if f.classes[i].role != aFace {
			f.layClass(&f.classes[i], int32(i))
		}
	}
	for i := first; i < len(f.classes); i++ {
		c, id := &f.classes[i], int32(i)
		for _, v := range c.labels {
			insert(&f.posting, v, id)
			insert(&f.keyed, f.keyOf[v], id)
		}
		if c.role == aFace {
			continue // its columns are those of others
		}
		f.nameColumns(c.columns)
	}
}

// insert appends to a list of a table, of which those that the table is over keep
// what they have.
func insert(t *table[int32, []int32], key, n int32) {
	list, own := t.own[key]
	if !own {
		list, _ = t.under.get(key)
		list = slices.Clip(list)
	}
	t.put(key, append(list, n))
}

// nameColumns lists columns of one class by the numbers that it gives port names.
func (f *frame) nameColumns(columns []int32) {
	for _, column := range columns {
		for _, n := range f.classes[f.columns[column].subject].named {
			switch {
			case f.named[n.name] == nil:
				f.named[n.name] = map[uint16][]int32{}
			case f.grows:
				f.named[n.name] = maps.Clone(f.named[n.name])
				f.named[n.name][n.number] = slices.Clip(f.named[n.name][n.number])
			}
			f.named[n.name][n.number] = append(f.named[n.name][n.number], column)
		}
	}
}

// certainty returns the families that a class has addresses of, and those that
// it may have.
func (f *frame) certainty(c *class) (sure, perhaps family) {
	if c.atoms[0] != unknownAtom {
		return c.families, 0
	}
	for i, fam := range families {
		switch {
		case c.host() && fam == ipv4, !c.host() && f.spaceIs[i]:
			sure |= fam
		case c.host() || !f.space[i].IsEmpty():
			perhaps |= fam
		}
	}
	return sure, perhaps
}

// way is what a connection over the families that two columns share is worth.
type way uint8

const (
	noWay    way = iota // they share none, or one that one of them lacks
	doubtful            // there may be no such way, and there is another for certain
	open
)

// between returns the way between two columns over some families. speaksIPv6 says
// whether IPv6 plays a part in the model that is judged: where it plays none,
// nobody is taken to have an address of it besides one of IPv4.
func (f *frame) between(a, b int32, over family, speaksIPv6 bool) way {
	x, y := &f.columns[a], &f.columns[b]
	switch shared := x.families & y.families & over; {
	case shared == 0:
		return noWay
	case shared&x.sure&y.sure != 0, x.sure&y.sure&over == 0:
		return open
	case speaksIPv6 && shared&(x.sure|x.perhaps)&(y.sure|y.perhaps) != 0:
		return doubtful
	}
	return noWay
}

// aSpare is the class of a column that no class has yet, see spareColumns.
const aSpare = -2

// spareColumns adds columns for classes to come, in runs of each kind that there are.
// What everybody is granted they are granted, too.
func (f *frame) spareColumns() {
	kinds := [][]family{{ipv4}, {ipv4 | ipv6}}
	if f.dual {
		kinds = [][]family{{ipv4}, {ipv6}, {ipv4, ipv6}}
	}
	n := len(f.columns)/16 + 64
	for _, kind := range kinds {
		for range n {
			s := f.spareOf(kind...)
			*s = append(*s, int32(len(f.columns)))
			for _, fam := range kind {
				f.columns = append(f.columns, column{aSpare, -1, unknownAtom, fam, fam, 0})
			}
		}
	}
}

// spareOf returns the first columns of all spare runs of some families.
func (f *frame) spareOf(kind ...family) *[]int32 {
	if len(kind) > 1 {
		return &f.pairs
	}
	return &f.spare[kind[0]]
}

// addColumns adds columns, one behind the other, which take the place of spare ones if
// there are any, and returns them.
func (f *frame) addColumns(all ...column) []int32 {
	first := int32(len(f.columns))
	if f.grows {
		kind := make([]family, len(all))
		for i := range all {
			kind[i] = all[i].families
		}
		spare := f.spareOf(kind...)
		if len(*spare) == 0 {
			f.full = true
			return make([]int32, len(all))
		}
		first, *spare = (*spare)[0], (*spare)[1:]
		copy(f.columns[first:], all)
	} else {
		f.columns = append(f.columns, all...)
	}
	numbers := make([]int32, len(all))
	for i := range numbers {
		numbers[i] = first + int32(i)
	}
	return numbers
}

func (f *frame) layClass(c *class, id int32) {
	sure, perhaps := f.certainty(c)
	host := 0
	if c.host() {
		host = 1
	}
	unplaced := c.atoms[0] == unknownAtom
	if c.role == faced {
		f.layFaces(c, id)
		return
	}
	if len(f.blocks) == 0 || unplaced && !f.dual {
		c.columns = f.addColumns(column{id, id, unknownAtom, c.families, sure, perhaps})
		if unplaced {
			f.unplaced[host][0] = append(f.unplaced[host][0], c.columns...)
		}
		return
	}
	var all []column
	for i, fam := range families {
		if c.families&fam != 0 {
			all = append(all, column{id, id, c.atoms[i], fam, sure, perhaps})
		}
	}
	c.columns = f.addColumns(all...)
	for _, n := range c.columns {
		if i := f.columns[n].families >> 1; unplaced {
			f.unplaced[host][i] = append(f.unplaced[host][i], n)
		} else {
			insert(&f.atomCols, c.atoms[i], n)
		}
	}
}

// layFaces gives a class a column for each of its faces. Faces of one address that
// several classes have may go by the column of any of them.
func (f *frame) layFaces(c *class, id int32) {
	for _, at := range f.faces[id] {
		face := &f.classes[at]
		atom := max(face.atoms[0], face.atoms[1])
		n := f.addColumns(column{id, at, atom, face.families, c.families, 0})[0]
		insert(&f.atomCols, atom, n)
		c.columns = append(c.columns, n)
		if !f.grows || face.columns == nil {
			face.columns = []int32{n}
		}
	}
}
