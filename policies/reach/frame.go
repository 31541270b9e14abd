package reach

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
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

	space      [2]netset.Addresses // where unknown pod addresses can be, by family
	spaceIs    [2]bool             // the pods are known to have an address there
	machineIDs map[string]int32
	values     map[label]int32
	keyOf      []int32              // the key of each label value
	text       []string             // and its text
	doubt      map[int32]int32      // by key: the value that stands for one that is not known
	byName     map[string][]int32   // namespaces by name
	scopes     map[string]scope     // namespaces by selector, as far as asked
	posting    map[int32][]int32    // classes by label value, ascending
	keyed      map[int32][]int32    // classes that carry a key, ascending
	named      []map[uint16][]int32 // by port name: columns by the number behind it
	atomCols   map[int32][]int32    // columns of pods and nodes by atom
	unplaced   [2][2][]int32        // columns whose address is unknown, of pods and of hosts, by family
	dual       bool                 // some IPv6 address, pod range or block is known
	nodeIDs    map[string]int32     // nodes by name, where there are host endpoints
}

// vocabulary is what rules can tell apart.
type vocabulary struct {
	keys map[string]int32 // label keys that pod selectors use
	// inherited are those of them that Calico's selectors look for elsewhere, too.
	inherited []string
	nodes     []string // label keys that node selectors use
	services  []policies.Ref
	names     map[policies.NamedPort]int32
	blocks    []netset.Block
}

type namespace struct {
	name        string
	labels      map[string]string
	implied     bool
	first, last int32 // its classes: first up to but not including last
}

// machine is what is known of a node's labels, as far as selectors use them.
type machine struct {
	labels  map[string]string
	implied bool // the node may have others
}

type label struct {
	key   int32
	value string
}

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

type class struct {
	namespace int32    // -1 for what stands on a node's own network
	machine   int32    // of what stands there
	node      int32    // where there are host endpoints; else, and where it is not known, -1
	labels    []int32  // ids of label values, ascending
	named     []string // numbers behind each port name, as text of big-endian pairs
	atoms     [2]int32
	families  family
	columns   []int32
}

func (c *class) host() bool { return c.namespace < 0 }

type column struct {
	class    int32 // -1 for the outside
	families family
	atom     int32
	// sure are the families that the class has addresses of, perhaps those that
	// it may have, whatever the column's own.
	sure, perhaps family
}

type atom struct{ first, last netip.Addr }

func (a atom) addresses() netset.Addresses { return netset.AddressSpan(a.first, a.last) }

// placement says where each pod and node of one model went.
type placement struct {
	pods  []int32
	nodes []int32
	// anyNode is the class of a node of which nothing is known.
	anyNode int32
}

func newFrame(o Options, models ...*policies.Model) (*frame, []placement) {
	f := &frame{
		options: o, vocabulary: vocabularyOf(models), machineIDs: map[string]int32{}, values: map[label]int32{},
		byName: map[string][]int32{}, scopes: map[string]scope{}, doubt: map[int32]int32{}, nodeIDs: nodeIDs(models),
	}
	f.cutAddresses()
	f.findSpace(models)
	namespaceOf := f.internNamespaces(models)
	places := f.classify(models, namespaceOf)
	f.findFamilies()
	f.layColumns()
	return f, places
}

func vocabularyOf(models []*policies.Model) vocabulary {
	v := vocabulary{keys: map[string]int32{}, names: map[policies.NamedPort]int32{}}
	blocks, nets := map[string]bool{}, map[netip.Prefix]bool{}
	addBlock := func(b netset.Block) {
		known := nets[b.CIDR]
		if len(b.Except) == 0 {
			nets[b.CIDR] = true
		} else {
			key := b.String()
			known, blocks[key] = blocks[key], true
		}
		if !known {
			v.blocks = append(v.blocks, b)
		}
	}
	addName := func(n policies.NamedPort) {
		if _, ok := v.names[n]; !ok {
			v.names[n] = int32(len(v.names))
		}
	}
	labelled := false // network sets and host endpoints count
	var learn func(m *policies.Match)
	learn = func(m *policies.Match) {
		for _, key := range m.Pods.Keys() {
			if _, ok := v.keys[key]; !ok {
				v.keys[key] = int32(len(v.keys))
			}
			if m.Endpoints && policies.IsInherited(key) && !slices.Contains(v.inherited, key) {
				v.inherited = append(v.inherited, key)
			}
		}
		for _, key := range m.Nodes.Keys() {
			if !slices.Contains(v.nodes, key) {
				v.nodes = append(v.nodes, key)
			}
		}
		if m.Block.CIDR.IsValid() {
			addBlock(m.Block)
		}
		labelled = labelled || m.Endpoints || m.Object != policies.Ref{}
		if m.Object.Kind == "Service" && !slices.Contains(v.services, m.Object) {
			v.services = append(v.services, m.Object)
		}
		for _, parts := range [][]policies.Match{m.Any, m.All, m.Except} {
			for i := range parts {
				learn(&parts[i])
			}
		}
	}
	for _, m := range models {
		for i := range m.Policies {
			p := &m.Policies[i]
			learn(&p.Subject)
			for _, d := range policies.Directions {
				for r := range p.Rules[d] {
					rule := &p.Rules[d][r]
					for k := range rule.Peers {
						learn(&rule.Peers[k])
					}
					if rule.Own != nil {
						learn(rule.Own)
					}
					for _, n := range rule.Named {
						addName(n)
					}
					for _, n := range rule.NotNamed {
						addName(n)
					}
				}
			}
		}
		if !labelled {
			continue
		}
		for i := range m.Sets {
			for _, net := range m.Sets[i].Nets {
				addBlock(netset.Block{CIDR: net})
			}
		}
		for i := range m.Hosts {
			for _, a := range m.Hosts[i].Addresses {
				addBlock(netset.Block{CIDR: netip.PrefixFrom(a, a.BitLen())})
			}
		}
	}
	return v
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
	i, found := slices.BinarySearchFunc(f.atoms, a, func(t atom, a netip.Addr) int { return t.first.Compare(a) })
	if !found {
		i--
	}
	return int32(i)
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

// speaksIPv6 reports whether IPv6 plays a part in a model: some address, pod
// range or block of it is of IPv6.
func speaksIPv6(m *policies.Model) bool {
	is6 := func(a netip.Addr) bool { return a.Is6() }
	return slices.ContainsFunc(m.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }) ||
		slices.ContainsFunc(m.Nodes, func(n policies.Node) bool { return slices.ContainsFunc(n.Addresses, is6) }) ||
		slices.ContainsFunc(m.Pods, func(p policies.Pod) bool { return slices.ContainsFunc(p.Addresses, is6) }) ||
		slices.ContainsFunc(vocabularyOf([]*policies.Model{m}).blocks, func(b netset.Block) bool { return b.CIDR.Addr().Is6() })
}

// internNamespaces gives each namespace that differs in name or labels a
// number, in the order of names, and returns those numbers for each model.
func (f *frame) internNamespaces(models []*policies.Model) []map[string]int32 {
	type variant struct {
		namespace
		models []int
	}
	variants := map[string][]*variant{}
	for m, model := range models {
		for _, n := range model.Namespaces {
			same := func(v *variant) bool { return v.implied == n.Implied && maps.Equal(v.labels, n.Labels) }
			if i := slices.IndexFunc(variants[n.Name], same); i >= 0 {
				variants[n.Name][i].models = append(variants[n.Name][i].models, m)
				continue
			}
			variants[n.Name] = append(variants[n.Name], &variant{namespace{name: n.Name, labels: n.Labels, implied: n.Implied}, []int{m}})
		}
	}
	numbers := make([]map[string]int32, len(models))
	for m := range models {
		numbers[m] = map[string]int32{}
	}
	for _, name := range slices.Sorted(maps.Keys(variants)) {
		for _, v := range variants[name] {
			for _, m := range v.models {
				numbers[m][name] = int32(len(f.namespaces))
			}
			f.byName[name] = append(f.byName[name], int32(len(f.namespaces)))
			f.namespaces = append(f.namespaces, v.namespace)
		}
	}
	return numbers
}

// classKey finds a class. The labels are folded into a sum that does not depend
// on their order; equal sums are compared in full.
type classKey struct {
	namespace int32
	machine   int32
	node      int32
	labels    uint64
	named     string
	atoms     [2]int32
}

func (f *frame) classify(models []*policies.Model, namespaceOf []map[string]int32) []placement {
	known := map[classKey][]int32{}
	places := make([]placement, len(models))
	var scratch []int32
	place := func(c class, sum uint64) int32 {
		key := classKey{c.namespace, c.machine, c.node, sum, strings.Join(c.named, "\x00"), c.atoms}
		for _, id := range known[key] {
			if slices.Equal(f.classes[id].labels, c.labels) {
				return id
			}
		}
		id := int32(len(f.classes))
		c.labels = slices.Clone(c.labels)
		f.classes = append(f.classes, c)
		known[key] = append(known[key], id)
		return id
	}
	var ports map[string][]policies.ContainerPort // of host endpoints, by node
	onHost := func(k machine, node string, addresses []netip.Addr) int32 {
		atoms, fams := f.locate(addresses)
		return place(class{namespace: -1, machine: f.internMachine(k), node: f.nodeID(node), named: f.numbers(ports[node]), atoms: atoms, families: fams}, 0)
	}
	for m, model := range models {
		ports = map[string][]policies.ContainerPort{}
		for i := range model.Hosts {
			ports[model.Hosts[i].Node] = append(ports[model.Hosts[i].Node], model.Hosts[i].Ports...)
		}
		places[m] = placement{pods: make([]int32, len(model.Pods)), nodes: make([]int32, len(model.Nodes)), anyNode: onHost(machine{implied: true}, "", nil)}
		machines := map[string]machine{}
		inherited, behind := model.Inherited(), f.behindServices(&model.World)
		for i, n := range model.Nodes {
			machines[n.Name] = machine{labels: n.Labels}
			places[m].nodes[i] = onHost(machines[n.Name], n.Name, n.Addresses)
		}
		for i := range model.Pods {
			p := &model.Pods[i]
			if p.HostNetwork {
				k, known := machines[p.Node]
				if !known {
					k = machine{p.NodeLabels, true}
				}
				places[m].pods[i] = onHost(k, p.Node, p.Addresses)
				continue
			}
			atoms, fams := f.locate(p.Addresses)
			scratch = scratch[:0]
			var sum uint64
			for k, v := range p.Labels {
				key, used := f.keys[k]
				if !used {
					continue
				}
				value := f.value(label{key, v})
				scratch = append(scratch, value)
				sum += mix(uint64(value))
			}
			for _, k := range f.inherited {
				if _, own := p.Labels[k]; own {
					continue
				}
				if id, has := f.inherit(f.keys[k], k, p, inherited); has {
					scratch = append(scratch, id)
					sum += mix(uint64(id))
				}
			}
			for _, id := range behind[i] {
				scratch = append(scratch, id)
				sum += mix(uint64(id))
			}
			slices.Sort(scratch)
			places[m].pods[i] = place(class{
				namespace: namespaceOf[m][p.Ref.Namespace], node: f.nodeID(p.Node), labels: scratch, named: f.numbers(p.Ports), atoms: atoms, families: fams,
			}, sum)
		}
	}
	f.sortClasses(places)
	return places
}

// inherit returns the label value that a pod has from its namespace or service
// account, or the one that stands for a value that is not known.
func (f *frame) inherit(key int32, k string, p *policies.Pod, inherited func(*policies.Pod, string) (string, bool, bool)) (id int32, has bool) {
	value, has, known := inherited(p, k)
	if known {
		if !has {
			return 0, false
		}
		return f.value(label{key, value}), true
	}
	id = f.value(label{key, "\x00"}) // no label's value
	f.doubt[key] = id
	return id, true
}

// behindServices returns for each pod behind a Service that rules name a label
// value that says so.
func (f *frame) behindServices(w *policies.World) map[int][]int32 {
	behind := map[int][]int32{}
	for i := range w.Services {
		if !slices.Contains(f.services, w.Services[i].Ref) {
			continue
		}
		id := f.value(label{-1, w.Services[i].Ref.String()})
		for _, pod := range w.Services[i].Pods {
			behind[pod] = append(behind[pod], id)
		}
	}
	return behind
}

// nodeIDs gives each node that may have a host endpoint a number; nil where
// there are none.
func nodeIDs(models []*policies.Model) map[string]int32 {
	ids := map[string]int32{}
	for _, m := range models {
		for i := range m.Hosts {
			if _, has := ids[m.Hosts[i].Node]; !has {
				ids[m.Hosts[i].Node] = int32(len(ids))
			}
		}
	}
	return ids
}

// nodeID returns the number of a node: one for all that have no host endpoint.
func (f *frame) nodeID(name string) int32 {
	if len(f.nodeIDs) == 0 || name == "" {
		return -1
	}
	if id, has := f.nodeIDs[name]; has {
		return id
	}
	return int32(len(f.nodeIDs))
}

// internMachine gives each machine that some node selector can tell apart a
// number.
func (f *frame) internMachine(k machine) int32 {
	seen := machine{map[string]string{}, k.implied && len(f.nodes) > 0}
	text := strconv.FormatBool(seen.implied)
	for _, key := range f.nodes {
		if value, has := k.labels[key]; has {
			seen.labels[key] = value
			text += "\x00" + key + "=" + value
		}
	}
	id, known := f.machineIDs[text]
	if !known {
		id = int32(len(f.machines))
		f.machineIDs[text] = id
		f.machines = append(f.machines, seen)
	}
	return id
}

// in reports whether the node is in the selector.
func (k *machine) in(s selector.Selector) policies.Truth { return matches(s, k.labels, k.implied) }

// mix spreads a number over 64 bits (the finalizer of splitmix64).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

func (f *frame) value(l label) int32 {
	id, ok := f.values[l]
	if !ok {
		id = int32(len(f.values))
		f.values[l] = id
	}
	return id
}

// numbers returns, for each port name of the vocabulary, the numbers that ports
// gives it; nil where it gives none to any.
func (f *frame) numbers(ports []policies.ContainerPort) []string {
	if len(f.names) == 0 {
		return nil
	}
	var named []string
	for _, p := range ports {
		id, ok := f.names[policies.NamedPort{Protocol: p.Protocol, Name: p.Name}]
		if !ok || p.Name == "" {
			continue
		}
		if named == nil {
			named = make([]string, len(f.names))
		}
		if !slices.Contains(numbersIn(named[id]), p.Number) {
			named[id] += string([]byte{byte(p.Number >> 8), byte(p.Number)})
		}
	}
	return named
}

// numbersOf yields the ports that class c gives the name with this id.
func (c *class) numbersOf(name int32) []uint16 {
	if c.named == nil {
		return nil
	}
	return numbersIn(c.named[name])
}

func numbersIn(text string) []uint16 {
	numbers := make([]uint16, 0, len(text)/2)
	for i := 0; i+1 < len(text); i += 2 {
		numbers = append(numbers, uint16(text[i])<<8|uint16(text[i+1]))
	}
	return numbers
}

// locate returns the atom of each family's address. Where no block cuts the
// address space, all addresses are alike and only the families count.
func (f *frame) locate(addresses []netip.Addr) ([2]int32, family) {
	if len(addresses) == 0 {
		return [2]int32{unknownAtom, unknownAtom}, ipv4 | ipv6
	}
	atoms := [2]int32{noAtom, noAtom}
	var fams family
	for _, a := range addresses {
		i := 0
		if a.Is6() {
			i = 1
		}
		if atoms[i] == noAtom {
			atoms[i] = f.atomOf(a)
			fams |= families[i]
		}
	}
	return atoms, fams
}

// sortClasses orders the classes by namespace, so that a namespace is a run of
// columns; what stands on a node's network comes first.
func (f *frame) sortClasses(places []placement) {
	order := make([]int32, len(f.classes))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortStableFunc(order, func(a, b int32) int {
		return cmp.Compare(f.classes[a].namespace, f.classes[b].namespace)
	})
	sorted := make([]class, len(order))
	renamed := make([]int32, len(order))
	for now, was := range order {
		sorted[now] = f.classes[was]
		renamed[was] = int32(now)
	}
	f.classes = sorted
	for m := range places {
		p := &places[m]
		p.anyNode = renamed[p.anyNode]
		for i := range p.pods {
			p.pods[i] = renamed[p.pods[i]]
		}
		for i := range p.nodes {
			p.nodes[i] = renamed[p.nodes[i]]
		}
	}
	for i := range f.classes {
		if n := f.classes[i].namespace; n >= 0 {
			if ns := &f.namespaces[n]; ns.last == 0 {
				ns.first = int32(i)
			}
			f.namespaces[n].last = int32(i) + 1
		}
	}
}

// layColumns gives every class its columns and builds the indexes over them.
func (f *frame) layColumns() {
	f.posting, f.keyed, f.atomCols = map[int32][]int32{}, map[int32][]int32{}, map[int32][]int32{}
	f.named = make([]map[uint16][]int32, len(f.names))
	f.keyOf, f.text = make([]int32, len(f.values)), make([]string, len(f.values))
	for l, id := range f.values {
		f.keyOf[id], f.text[id] = l.key, l.value
	}
	for i := range f.classes {
		c, id := &f.classes[i], int32(i)
		for _, v := range c.labels {
			f.posting[v] = append(f.posting[v], id)
			f.keyed[f.keyOf[v]] = append(f.keyed[f.keyOf[v]], id)
		}
		f.layClass(c, id)
		for name := range f.named {
			for _, number := range c.numbersOf(int32(name)) {
				if f.named[name] == nil {
					f.named[name] = map[uint16][]int32{}
				}
				f.named[name][number] = append(f.named[name][number], c.columns...)
			}
		}
	}
	f.outside = int32(len(f.columns))
	for i, a := range f.atoms {
		f.columns = append(f.columns, column{-1, familyOf(a.first), int32(i), familyOf(a.first), 0})
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

// between returns the way between two columns. speaksIPv6 says whether IPv6 plays
// a part in the model that is judged: where it plays none, nobody is taken to
// have an address of it besides one of IPv4.
func (f *frame) between(a, b int32, speaksIPv6 bool) way {
	x, y := &f.columns[a], &f.columns[b]
	switch shared := x.families & y.families; {
	case shared == 0:
		return noWay
	case shared&x.sure&y.sure != 0, x.sure&y.sure == 0:
		return open
	case speaksIPv6 && shared&(x.sure|x.perhaps)&(y.sure|y.perhaps) != 0:
		return doubtful
	}
	return noWay
}

func (f *frame) layClass(c *class, id int32) {
	sure, perhaps := f.certainty(c)
	host := 0
	if c.host() {
		host = 1
	}
	unplaced := c.atoms[0] == unknownAtom
	if len(f.blocks) == 0 || unplaced && !f.dual {
		n := int32(len(f.columns))
		c.columns = []int32{n}
		f.columns = append(f.columns, column{id, c.families, unknownAtom, sure, perhaps})
		if unplaced {
			f.unplaced[host][0] = append(f.unplaced[host][0], n)
		}
		return
	}
	for i, fam := range families {
		if c.families&fam == 0 {
			continue
		}
		n := int32(len(f.columns))
		c.columns = append(c.columns, n)
		f.columns = append(f.columns, column{id, fam, c.atoms[i], sure, perhaps})
		if unplaced {
			f.unplaced[host][i] = append(f.unplaced[host][i], n)
			continue
		}
		f.atomCols[c.atoms[i]] = append(f.atomCols[c.atoms[i]], n)
	}
}

// scope is namespaces by number, ascending.
type scope struct{ yes, maybe []int32 }

// namespacesOf returns the namespaces that are in the selector, and those that
// may be because their labels are not known.
func (f *frame) namespacesOf(s selector.Selector) scope {
	key := s.Key()
	known, ok := f.scopes[key]
	if ok {
		return known
	}
	for _, i := range f.namedBy(s) {
		switch matches(s, f.namespaces[i].labels, f.namespaces[i].implied) {
		case policies.Yes:
			known.yes = append(known.yes, i)
		case policies.Maybe:
			known.maybe = append(known.maybe, i)
		}
	}
	f.scopes[key] = known
	return known
}

// namedBy returns the namespaces that the selector names by NameLabel, or all.
func (f *frame) namedBy(s selector.Selector) []int32 {
	for _, r := range s.Requirements() {
		if r.Key == policies.NameLabel && r.Operator == selector.In {
			var named []int32
			for _, name := range r.Values {
				named = append(named, f.byName[name]...)
			}
			slices.Sort(named)
			return named
		}
	}
	all := make([]int32, len(f.namespaces))
	for i := range all {
		all[i] = int32(i)
	}
	return all
}

// matches reports whether something with these labels, and perhaps with others
// where partial is set, is in the selector.
func matches(s selector.Selector, labels map[string]string, partial bool) policies.Truth {
	return truths(s.Test(func(key string) (string, bool, bool) {
		value, has := labels[key]
		return value, has, has || !partial
	}))
}

// truths is what holds for sure, or else perhaps.
func truths(sure, possible bool) policies.Truth {
	switch {
	case sure:
		return policies.Yes
	case possible:
		return policies.Maybe
	}
	return policies.No
}

// classesOf yields the classes of the given namespaces whose labels are, or may
// be, in the selector, in no particular order.
func (f *frame) classesOf(in []int32, s selector.Selector, yield func(int32, policies.Truth)) {
	if s.IsNothing() {
		return
	}
	c := f.compile(s)
	for id := range f.candidates(in, c.requirements) {
		if t := f.meets(&f.classes[id], c); t > policies.No {
			yield(id, t)
		}
	}
}

// compiledSelector is a selector in terms of label value ids.
type compiledSelector struct {
	selector.Selector
	requirements []requirement // every class in the selector meets them
	simple       bool          // and the classes that meet them are in it
}

// requirement is a selector's requirement in terms of label value ids: those of
// the named values that some pod has, and of one that is not known.
type requirement struct {
	operator selector.Operator
	key      int32
	ids      []int32
}

func (f *frame) compile(s selector.Selector) compiledSelector {
	compiled := compiledSelector{Selector: s, simple: s.IsConjunction()}
	for _, r := range s.Requirements() {
		c := requirement{operator: r.Operator, key: f.keys[r.Key]}
		doubt, inDoubt := f.doubt[c.key]
		switch r.Operator {
		case selector.In, selector.NotIn:
			for _, v := range r.Values {
				if id, ok := f.values[label{c.key, v}]; ok {
					c.ids = append(c.ids, id)
				}
			}
			if inDoubt {
				c.ids = append(c.ids, doubt)
			}
		case selector.Exists, selector.DoesNotExist:
		default:
			compiled.simple = false
			continue
		}
		compiled.simple = compiled.simple && !inDoubt
		if inDoubt && (r.Operator == selector.NotIn || r.Operator == selector.DoesNotExist) {
			continue // no value is told from one that is not known
		}
		compiled.requirements = append(compiled.requirements, c)
	}
	return compiled
}

// meets reports whether a class is in the selector.
func (f *frame) meets(c *class, s compiledSelector) policies.Truth {
	for _, r := range s.requirements {
		has := slices.ContainsFunc(c.labels, func(v int32) bool {
			switch r.operator {
			case selector.In, selector.NotIn:
				return slices.Contains(r.ids, v)
			}
			return f.keyOf[v] == r.key
		})
		if has != (r.operator == selector.In || r.operator == selector.Exists) {
			return policies.No
		}
	}
	if s.simple {
		return policies.Yes
	}
	return truths(s.Test(func(key string) (string, bool, bool) { return f.labelOf(c, key) }))
}

// labelOf returns the label of a class with this key.
func (f *frame) labelOf(c *class, key string) (value string, has, known bool) {
	k := f.keys[key]
	for _, v := range c.labels {
		if f.keyOf[v] == k {
			doubt, inDoubt := f.doubt[k]
			return f.text[v], true, !inDoubt || doubt != v
		}
	}
	return "", false, true
}

// candidates yields classes of the given namespaces, all that can meet the
// requirements among them, starting from the rarest label that one asks for.
func (f *frame) candidates(in []int32, requirements []requirement) iter.Seq[int32] {
	var rarest [][]int32
	found, fewest := false, 0
	for _, r := range requirements {
		var lists [][]int32
		switch r.operator {
		case selector.In:
			for _, id := range r.ids {
				lists = append(lists, f.posting[id])
			}
		case selector.Exists:
			lists = append(lists, f.keyed[r.key])
		default:
			continue
		}
		n := 0
		for _, l := range lists {
			n += len(l)
		}
		if !found || n < fewest {
			rarest, found, fewest = lists, true, n
		}
	}
	return func(yield func(int32) bool) {
		if !found {
			for _, n := range in {
				for id := f.namespaces[n].first; id < f.namespaces[n].last; id++ {
					if !yield(id) {
						return
					}
				}
			}
			return
		}
		for _, list := range rarest {
			switch {
			case len(in) == len(f.namespaces):
				for _, id := range list {
					if !yield(id) {
						return
					}
				}
			case len(in) < len(list)/8:
				for _, n := range in {
					first, _ := slices.BinarySearch(list, f.namespaces[n].first)
					list = list[first:]
					for _, id := range list {
						if id >= f.namespaces[n].last {
							break
						}
						if !yield(id) {
							return
						}
					}
				}
			default:
				for _, id := range list {
					if _, is := slices.BinarySearch(in, f.classes[id].namespace); is && !yield(id) {
						return
					}
				}
			}
		}
	}
}
