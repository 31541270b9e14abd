package reach

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

type namespace struct {
	name        string
	labels      map[string]string
	implied     bool
	first, last int32   // its classes: first up to but not including last,
	more        []int32 // and those that came later
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

type class struct {
	namespace int32   // -1 for what stands on a node's own network
	machine   int32   // of what stands there
	node      int32   // where there are host endpoints; else, and where it is not known, -1
	labels    []int32 // ids of label values, ascending
	named     []numbered
	atoms     [2]int32 // of several of a family the first
	families  family
	role      role
	columns   []int32
}

// numbered is a port number that goes by a name, of which there may be several.
type numbered struct {
	name   int32
	number uint16
}

// role says whether rules tell addresses of one family apart that a class has, or
// host endpoints any. For each of its addresses there is another class then, its
// face there, which no pod or node is of.
type role uint8

const (
	plain role = iota
	faced
	aFace
)

func (c *class) host() bool { return c.namespace < 0 }

// placement says where each pod and node of one model went.
type placement struct {
	pods  []int32
	nodes []int32
	// anyNode is the class of a node of which nothing is known.
	anyNode int32
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
			f.addNamespace(v.namespace)
		}
	}
	return numbers
}

// addNamespace gives a namespace a number.
func (f *frame) addNamespace(n namespace) int32 {
	number := int32(len(f.namespaces))
	f.namespaces = append(f.namespaces, n)
	known, _ := f.byName.get(n.name)
	f.byName.put(n.name, append(slices.Clip(known), number))
	return number
}

// classKey finds a class. Labels and port names are folded into a sum; equal sums
// are compared in full.
type classKey struct {
	namespace int32
	machine   int32
	node      int32
	several   int32 // a number for all atoms of a class with faces, -1 for a face
	atoms     [2]int32
	sum       uint64
}

func (c *class) key(several int32) classKey {
	key := classKey{c.namespace, c.machine, c.node, several, c.atoms, 0}
	for _, v := range c.labels {
		key.sum = mix(key.sum ^ uint64(v))
	}
	for _, n := range c.named {
		key.sum = mix(key.sum ^ uint64(n.name)<<16 ^ uint64(n.number))
	}
	return key
}

func (f *frame) classify(models []*policies.Model, namespaceOf []map[string]int32) []placement {
	places := make([]placement, len(models))
	for m, model := range models {
		s := f.sorter(model.Inherited(), &model.World)
		places[m] = placement{pods: make([]int32, len(model.Pods)), nodes: make([]int32, len(model.Nodes)), anyNode: s.onHost(machine{implied: true}, "", nil, noPortNames)}
		for i, n := range model.Nodes {
			places[m].nodes[i] = s.onHost(s.machines()[n.Name], n.Name, n.Addresses, s.ports()(n.Name))
		}
		behind := f.behindServices(&model.World)
		for i := range model.Pods {
			places[m].pods[i] = s.pod(&model.Pods[i], namespaceOf[m][model.Pods[i].Ref.Namespace], behind[i])
		}
	}
	f.sortClasses(places)
	return places
}

// sorter finds the classes of the pods and nodes of one world.
type sorter struct {
	*frame
	inherited func(*policies.Pod, string) (value string, has, known bool)
	machines  func() map[string]machine // by node
	ports     func() func(node string) func(...netip.Addr) []policies.ContainerPort
	ids       []int32 // of the labels of the pod at hand
	numbered  []numbered
}

func (f *frame) sorter(inherited func(*policies.Pod, string) (value string, has, known bool), w *policies.World) *sorter {
	s := &sorter{frame: f, inherited: inherited}
	s.machines = sync.OnceValue(func() map[string]machine {
		byName := map[string]machine{}
		for _, n := range w.Nodes {
			byName[n.Name] = machine{n.Labels, n.Implied}
		}
		return byName
	})
	s.ports = sync.OnceValue(func() func(string) func(...netip.Addr) []policies.ContainerPort { return namedByHosts(w) })
	return s
}

// pod returns the class of a pod, given the number of its namespace and what says
// behind which Services it is.
func (s *sorter) pod(p *policies.Pod, namespace int32, behind []int32) int32 {
	if p.HostNetwork {
		k, known := s.machines()[p.Node]
		if !known || k.implied {
			k = machine{p.NodeLabels, true}
		}
		return s.onHost(k, p.Node, p.Addresses, s.ports()(p.Node))
	}
	labels := s.ids[:0]
	s.numbered = s.numbers(s.numbered[:0], p.Ports)
	for k, v := range p.Labels {
		if key, used := s.keys[k]; used {
			labels = append(labels, s.value(label{key, v}))
		}
	}
	for _, k := range s.frame.inherited {
		if _, own := p.Labels[k]; own {
			continue
		}
		if id, has := s.inherit(s.keys[k], k, p, s.inherited); has {
			labels = append(labels, id)
		}
	}
	labels = append(labels, behind...)
	slices.Sort(labels)
	s.ids = labels
	return s.place(class{namespace: namespace, node: s.nodeID(p.Node), labels: labels, named: s.numbered}, p.Addresses, nil)
}

// onHost returns the class of what stands on a node's own network.
func (s *sorter) onHost(k machine, node string, addresses []netip.Addr, ports func(...netip.Addr) []policies.ContainerPort) int32 {
	named := func(a netip.Addr) []numbered { return s.numbers(nil, ports(a)) }
	return s.place(class{namespace: -1, machine: s.internMachine(k), node: s.nodeID(node), named: s.numbers(nil, ports(addresses...))}, addresses, named)
}

// place returns the class that is like c and has these addresses.
func (f *frame) place(c class, addresses []netip.Addr, named func(netip.Addr) []numbered) int32 {
	var several []int32
	c.atoms, c.families, several = f.locate(addresses, c.host() && f.mayHaveEndpoint(c.node))
	if len(several) == 0 {
		id, _ := f.find(c, 0)
		return id
	}
	c.role = faced
	text := textOf(several)
	number, numbered := f.several.get(text)
	if !numbered {
		number = f.combinations + 1
		f.combinations = number
		f.several.put(text, number)
	}
	id, isNew := f.find(c, number)
	if isNew {
		for _, atom := range several {
			a := addresses[slices.IndexFunc(addresses, func(a netip.Addr) bool { return f.atomOf(a) == atom })]
			face, _ := f.find(c.face(a, atom, named), -1)
			f.faces[id] = append(f.faces[id], face)
		}
	}
	return id
}

// find returns the class that is like c, which is made where there is none.
func (f *frame) find(c class, several int32) (id int32, isNew bool) {
	key := c.key(several)
	for ; ; key.sum++ { // past others of this sum
		id, taken := f.known.get(key)
		if !taken {
			break
		}
		if slices.Equal(f.classes[id].labels, c.labels) && slices.Equal(f.classes[id].named, c.named) {
			return id, false
		}
	}
	id = int32(len(f.classes))
	c.labels, c.named = slices.Clone(c.labels), slices.Clone(c.named)
	f.classes = append(f.classes, c)
	f.known.put(key, id)
	return id, true
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
		id := f.value(behindService(w.Services[i].Ref))
		for _, pod := range w.Services[i].Pods {
			behind[pod] = append(behind[pod], id)
		}
	}
	return behind
}

// behindService is the label of the pods behind a Service that are not on the host's
// network.
func behindService(ref policies.Ref) label { return label{-1, ref.String()} }

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

// mayHaveEndpoint reports whether a node has a host endpoint in some model.
func (f *frame) mayHaveEndpoint(node int32) bool { return node >= 0 && int(node) < len(f.nodeIDs) }

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
	id, known := f.machineIDs.get(text)
	if !known {
		id = int32(len(f.machines))
		f.machineIDs.put(text, id)
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
	id, ok := f.values.get(l)
	if !ok {
		id = int32(len(f.keyOf))
		f.values.put(l, id)
		f.keyOf, f.text = append(f.keyOf, l.key), append(f.text, l.value)
	}
	return id
}

// numbers appends the numbers that ports gives the port names of the vocabulary,
// in the order of both.
func (f *frame) numbers(named []numbered, ports []policies.ContainerPort) []numbered {
	if len(f.names) == 0 {
		return named
	}
	for _, p := range ports {
		if id, ok := f.names[policies.NamedPort{Protocol: p.Protocol, Name: p.Name}]; ok && p.Name != "" {
			named = append(named, numbered{id, p.Number})
		}
	}
	slices.SortFunc(named, func(x, y numbered) int {
		return cmp.Or(cmp.Compare(x.name, y.name), cmp.Compare(x.number, y.number))
	})
	return slices.Compact(named)
}

// face returns the class of one address of a class, in an atom. The numbers behind
// its port names are those of the class, or those that named tells.
func (c class) face(a netip.Addr, atom int32, named func(netip.Addr) []numbered) class {
	c.role = aFace
	c.families, c.atoms = familyOf(a), [2]int32{noAtom, noAtom}
	c.atoms[c.families>>1] = atom
	if named != nil {
		c.named = named(a)
	}
	return c
}

// locate returns the atom of the first address of each family, and all atoms,
// ascending, where there are several of one family, or any several if each counts.
// Where no block cuts the address space, all addresses are alike and only the
// families count.
func (f *frame) locate(addresses []netip.Addr, each bool) (atoms [2]int32, fams family, several []int32) {
	if len(addresses) == 0 {
		return [2]int32{unknownAtom, unknownAtom}, ipv4 | ipv6, nil
	}
	atoms = [2]int32{noAtom, noAtom}
	apart := false
	for _, a := range addresses {
		i := familyOf(a) >> 1
		switch {
		case atoms[i] == noAtom:
			atoms[i] = f.atomOf(a)
			fams |= families[i]
		case len(f.blocks) > 0:
			apart = apart || f.atomOf(a) != atoms[i]
		}
	}
	if !apart && !(each && fams == ipv4|ipv6 && len(f.blocks) > 0) {
		return atoms, fams, nil
	}
	for _, a := range addresses {
		several = append(several, f.atomOf(a))
	}
	slices.Sort(several)
	several = slices.Compact(several)
	for i, fam := range families {
		if fams&fam != 0 {
			first := slices.IndexFunc(several, func(atom int32) bool { return familyOf(f.atoms[atom].first) == fam })
			atoms[i] = several[first]
		}
	}
	return atoms, fams, several
}

// textOf is a text that is the same for equal numbers.
func textOf(numbers []int32) string {
	var text []byte
	for _, n := range numbers {
		text = binary.LittleEndian.AppendUint32(text, uint32(n))
	}
	return string(text)
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
	faces := make(map[int32][]int32, len(f.faces))
	for was, list := range f.faces {
		for k, face := range list {
			list[k] = renamed[face]
		}
		faces[renamed[was]] = list
	}
	f.faces = faces
	if !f.options.Lasting {
		f.known, f.several = table[classKey, int32]{}, table[string, int32]{}
	}
	for key, id := range f.known.own {
		f.known.own[key] = renamed[id]
	}
	f.runs = int32(len(f.classes))
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
