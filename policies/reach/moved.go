package reach

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/weir-policy/weir/policies"
)

// moved is the world that an edit leads to, with everybody in a class.
type moved struct {
	*frame  // the judge's, or one that has more classes
	world   *policies.World
	place   placement
	was, is *census
	tongues tongues
	// peopled are the columns of those who came, went or are others than before.
	peopled map[int32]bool
	// inherited is that of the world, where namespaces or accounts changed.
	inherited func(*policies.Pod, string) (value string, has, known bool)
}

// move returns the world of an edit. It is not ok where the judge must be made anew,
// for want of columns or because more changes than who is of which class.
func (j *Judge) move(e *Edit) (m *moved, ok bool) {
	m = &moved{frame: j.frame, world: j.world, place: j.placement, tongues: j.tongues, inherited: j.inherited}
	if e.World == nil {
		return m, true
	}
	m.world, m.frame, m.peopled = e.World, j.grown(), map[int32]bool{}
	if !slices.Equal(e.World.PodCIDRs, j.world.PodCIDRs) {
		return nil, false
	}
	renamed, ok := m.look(j, e.Others)
	if !ok {
		return nil, false
	}
	c := &comers{from: j, to: m, rooms: map[string]int32{}, sorter: m.sorter(m.inherited, m.world)}
	if len(m.services) > 0 {
		c.behind = m.behindServices(m.world)
	}
	refs := append(slices.Clone(e.Pods), podsIn(renamed, j.world.Pods, m.world.Pods)...)
	slices.SortFunc(refs, policies.Ref.Compare)
	if !c.place(slices.Compact(refs)) || !m.lay(j) {
		return nil, false
	}
	c.count()
	return m, true
}

// look takes note of what else than pods changed, and returns the names of those
// namespaces that did. It is not ok where that changes more than who is of which class.
func (m *moved) look(j *Judge, others []policies.Ref) (namespaces []string, ok bool) {
	for _, ref := range others {
		switch ref.Kind {
		case "Namespace":
			if slices.ContainsFunc(j.labelled, func(l labelled) bool { return l.ref.Namespace == ref.Name }) {
				return nil, false
			}
			namespaces = append(namespaces, ref.Name)
		case "Service":
			if slices.ContainsFunc(m.services, func(s policies.Ref) bool { return s.Namespace == ref.Namespace && s.Name == ref.Name }) {
				return nil, false
			}
		case "ServiceAccount":
			of := func(key string) bool {
				return strings.HasPrefix(key, policies.AccountPrefix) && key != policies.AccountPrefix+policies.CalicoName
			}
			if slices.ContainsFunc(m.vocabulary.inherited, of) {
				return nil, false
			}
		default:
			return nil, false
		}
		if ref.Kind != "Service" {
			made := sync.OnceValue(m.world.Inherited)
			m.inherited = func(p *policies.Pod, key string) (string, bool, bool) { return made()(p, key) }
		}
	}
	return namespaces, true
}

// podsIn returns the pods of some namespaces.
func podsIn(namespaces []string, worlds ...[]policies.Pod) []policies.Ref {
	var refs []policies.Ref
	for _, name := range namespaces {
		for _, pods := range worlds {
			at, _ := slices.BinarySearchFunc(pods, name, func(p policies.Pod, name string) int { return cmp.Compare(p.Ref.Namespace, name) })
			for ; at < len(pods) && pods[at].Ref.Namespace == name; at++ {
				refs = append(refs, pods[at].Ref)
			}
		}
	}
	return refs
}

// grown returns a frame that knows what this one knows and may have more.
func (f *frame) grown() *frame {
	g := *f
	g.grows = true
	g.classes, g.namespaces, g.machines = slices.Clip(f.classes), slices.Clip(f.namespaces), slices.Clip(f.machines)
	g.keyOf, g.text = slices.Clip(f.keyOf), slices.Clip(f.text)
	g.known, g.several, g.machineIDs, g.values, g.byName = f.known.over(), f.several.over(), f.machineIDs.over(), f.values.over(), f.byName.over()
	g.posting, g.keyed, g.atomCols = f.posting.over(), f.keyed.over(), f.atomCols.over()
	g.doubt, g.faces = maps.Clone(f.doubt), maps.Clone(f.faces)
	for host := range g.unplaced {
		for i := range g.unplaced[host] {
			g.unplaced[host][i] = slices.Clip(f.unplaced[host][i])
		}
	}
	return &g
}

// mostFresh is how many classes an edit may bring without beginning anew.
const mostFresh = 50

// lay gives columns to the classes that the judge has not. It is not ok where there are
// not enough, or where host endpoints or addresses of IPv6 make other classes different.
func (m *moved) lay(j *Judge) bool {
	f, first := m.frame, len(j.classes)
	if len(f.classes)-first > mostFresh {
		return false
	}
	if len(f.classes) == first && len(f.namespaces) == len(j.namespaces) {
		m.frame = j.frame
		return true
	}
	if len(f.nodeIDs) > 0 {
		return false
	}
	f.columns, f.named, f.namespaces = slices.Clone(f.columns), slices.Clone(f.named), slices.Clone(f.namespaces)
	f.layClasses(first)
	for i := range f.classes[first:] {
		c := &f.classes[first+i]
		if c.atoms[1] >= 0 && !f.dual {
			return false
		}
		if !c.host() {
			n := &f.namespaces[c.namespace]
			n.more = append(slices.Clip(n.more), int32(first+i))
		}
	}
	return !f.full
}

// comers sorts into classes who is not as before.
type comers struct {
	from   *Judge
	to     *moved
	sorter *sorter
	behind map[int][]int32
	rooms  map[string]int32 // the numbers of namespaces
	// gone and come are indexes of pods of the world before and after, unless they
	// are in all that matters as they were.
	gone, come []int32
}

// place finds the classes of the pods of these names, and leaves the others in theirs.
// It is not ok where the worlds differ in more than these pods, or where pods have what
// no class could tell apart.
func (c *comers) place(refs []policies.Ref) bool {
	old, now := c.from.world.Pods, c.to.world.Pods
	classes, at := make([]int32, 0, len(now)), 0
	for _, ref := range refs {
		was, is := named(old, ref), named(now, ref)
		if was.first < at || is.first-len(classes) != was.first-at {
			return false
		}
		classes = append(classes, c.from.placement.pods[at:was.first]...)
		for i := is.first; i < is.end; i++ {
			class, ok := c.classOf(&now[i], i)
			if !ok {
				return false
			}
			classes = append(classes, class)
		}
		for i := was.first; i < was.end; i++ {
			if old[i].HostNetwork && len(c.to.services) > 0 {
				return false // nobody keeps whom else its class stands for
			}
		}
		at = was.end
		c.compare(was, is, classes)
	}
	classes = append(classes, c.from.placement.pods[at:]...)
	c.to.place.pods = classes
	return len(classes) == len(now)
}

// run is indexes from first up to but not including end.
type run struct{ first, end int }

// named returns the pods of a name.
func named(pods []policies.Pod, ref policies.Ref) (r run) {
	r.first, _ = slices.BinarySearchFunc(pods, ref, func(p policies.Pod, ref policies.Ref) int { return p.Ref.Compare(ref) })
	for r.end = r.first; r.end < len(pods) && pods[r.end].Ref == ref; {
		r.end++
	}
	return r
}

// classOf returns the class of a pod.
func (c *comers) classOf(p *policies.Pod, i int) (class int32, ok bool) {
	if p.HostNetwork {
		return c.sorter.pod(p, -1, nil), len(c.to.services) == 0
	}
	for key := range p.Labels {
		if strings.HasPrefix(key, policies.NamespacePrefix) && !c.to.own()[key] {
			return 0, false
		}
	}
	room, ok := c.rooms[p.Ref.Namespace]
	if !ok {
		if room, ok = c.room(p.Ref.Namespace); !ok {
			return 0, false
		}
		c.rooms[p.Ref.Namespace] = room
	}
	return c.sorter.pod(p, room, c.behind[i]), true
}

// room returns the number of a namespace.
func (c *comers) room(name string) (number int32, ok bool) {
	at := slices.IndexFunc(c.to.world.Namespaces, func(n policies.Namespace) bool { return n.Name == name })
	if at < 0 {
		return 0, false
	}
	n := &c.to.world.Namespaces[at]
	known, _ := c.to.byName.get(name)
	for _, number := range known {
		if k := &c.to.namespaces[number]; k.implied == n.Implied && maps.Equal(k.labels, n.Labels) {
			return number, true
		}
	}
	return c.to.addNamespace(namespace{name: name, labels: n.Labels, implied: n.Implied}), true
}

// compare takes note of the pods of one name that are others than before.
func (c *comers) compare(was, is run, classes []int32) {
	if was.end-was.first == 1 && is.end-is.first == 1 {
		p, q := &c.from.world.Pods[was.first], &c.to.world.Pods[is.first]
		if c.from.placement.pods[was.first] == classes[is.first] && p.Node == q.Node && p.Workload == q.Workload &&
			max(1, p.Replicas) == max(1, q.Replicas) && slices.Equal(p.Addresses, q.Addresses) {
			return
		}
	}
	for i := was.first; i < was.end; i++ {
		c.gone = append(c.gone, int32(i))
	}
	for i := is.first; i < is.end; i++ {
		c.come = append(c.come, int32(i))
	}
}

// count counts who is of each class now, and who speaks IPv6.
func (c *comers) count() {
	m, was := c.to, c.from.census()
	is := &census{people: make([]int, len(m.classes)), members: m.place.members(len(m.classes)), outsiders: slices.Clone(was.outsiders), layout: was.layout}
	copy(is.people, was.people)
	all := func(yield func(p *policies.Pod, class int32, sign int)) {
		for _, i := range c.gone {
			yield(&c.from.world.Pods[i], c.from.placement.pods[i], -1)
		}
		for _, i := range c.come {
			yield(&m.world.Pods[i], m.place.pods[i], 1)
		}
	}
	var silent, speaks bool
	all(func(p *policies.Pod, class int32, sign int) {
		is.people[class] += sign * max(1, p.Replicas)
		for _, column := range m.classes[class].columns {
			m.peopled[column] = true
		}
		if slices.ContainsFunc(p.Addresses, netip.Addr.Is6) {
			silent, speaks = silent || sign < 0, speaks || sign > 0
		}
	})
	switch {
	case speaks:
		m.tongues.world = true
	case silent:
		m.tongues.world = worldSpeaks(m.world)
	}
	now := &crowd{was.crowd().ranges, was.crowd().having.over()}
	is.crowd = func() *crowd { return now }
	all(func(p *policies.Pod, _ int32, sign int) { now.add(p.Addresses, sign) })
	all(func(p *policies.Pod, _ int32, _ int) {
		for _, a := range p.Addresses {
			atom := m.atomOf(a)
			lowest := &is.outsiders[atom]
			free := now.after(a, a).IsValid()
			switch {
			case free && (!lowest.IsValid() || a.Less(*lowest)):
				*lowest = a
			case !free && *lowest == a:
				*lowest = now.after(a, m.atoms[atom].last)
			}
		}
	})
	for i := range is.outsiders {
		if is.outsiders[i] != was.outsiders[i] {
			m.peopled[m.alone[i]] = true
		}
	}
	m.is, m.was = is, was
	if m.frame != c.from.frame {
		more := len(m.classes) - len(was.people)
		is.layout = m.frame.layout()
		m.was = &census{
			layout: is.layout, people: append(slices.Clip(was.people), make([]int, more)...), members: append(slices.Clip(was.members), make([][]member, more)...),
			outsiders: was.outsiders, crowd: was.crowd,
		}
	}
}
