package k8s

import (
	"iter"
	"maps"
	"net/netip"
	"slices"
	"sort"
	"strconv"
	"time"
	"unique"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// crowd is the pods on other nodes. A store holds as an object one of each kind; of the
// others it holds what they are called, and where they are.
//
// Pods are of a kind if they are alike in all that policies may ask: in labels, but for
// those that tell the pods of one owner apart and that no policy uses, in names of ports
// and service account, and in the ranges of addresses that policies use. Pods that share
// an address with somebody else are told of one by one.
type crowd struct {
	*Store
	members netset.AddressBuilder[policies.Member]
	people  map[string]map[string]*person // by namespace and name
	lots    map[string]*lot
	kinds   map[ilkKey]*ilk
	numbers []bool // which are in use
	samples map[netip.Addr]*ilk
	taken   map[netip.Addr]int // by nodes and by pods that are told of one by one
	apart   map[Key]*Entry     // those of these that would be of the crowd
	heeded  map[string]bool    // labels that tell pods of one owner apart and that policies use
	cuts    []netip.Addr       // first addresses of the ranges that policies tell apart
	asked   bool               // policies ask for more than kinds tell
	freed   bool               // an address that was taken is not any more
	changed bool               // since the last model
	last    *policies.Crowd
}

// person is a pod of the crowd. There may be very many.
type person struct {
	policies.Individual
	*lot
	ilk  *ilk
	node unique.Handle[string]
	at6  *netip.Addr // nil where it has none
	at4  [4]byte
	has4 bool
}

// setAddresses gives the person plain addresses.
func (p *person) setAddresses(all [2]netip.Addr) {
	if a := all[0]; a.IsValid() {
		p.at4, p.has4 = a.As4(), true
	}
	if a := all[1]; a.IsValid() {
		p.at6 = &a
	}
}

// addresses returns those of IPv4 and IPv6.
func (p *person) addresses() (all [2]netip.Addr) {
	if p.has4 {
		all[0] = netip.AddrFrom4(p.at4)
	}
	if p.at6 != nil {
		all[1] = *p.at6
	}
	return all
}

// lot is pods that are alike in all but names, addresses and nodes.
type lot struct {
	like  *policies.Pod
	owner policies.Ref
	text  string
	kind  string // what policies may ask for of it, in which others may be alike
	count int
}

type ilkKey struct {
	text   string
	ranges [2]netip.Addr // by their first addresses
}

// ilk is people whom no policy can tell apart.
type ilk struct {
	ilkKey
	entry  *Entry // of the pod that stands for them
	number int32
	count  int
}

func newCrowd(s *Store) *crowd {
	return &crowd{
		Store: s, people: map[string]map[string]*person{}, lots: map[string]*lot{}, kinds: map[ilkKey]*ilk{}, numbers: []bool{true}, samples: map[netip.Addr]*ilk{},
		taken: map[netip.Addr]int{}, apart: map[Key]*Entry{}, heeded: map[string]bool{},
	}
}

func (c *crowd) put(e *Entry) {
	p, isPod := e.part.(*pod)
	isFar := isPod && p.Node != c.options.Node
	switch {
	case isFar && p.ignored:
		c.remove(e.key)
	case isPod && c.takes(p):
		c.join(e, p)
	default:
		c.forget(e.key)
		c.set(e.key, e)
		c.listen(e)
	}
	c.settle()
}

// says is Store.Says.
func (c *crowd) says(e *Entry) bool {
	if has := c.entries[e.key]; has != nil {
		return has.Says(e)
	}
	p, isPod := e.part.(*pod)
	was := c.people[e.key.Namespace][e.key.Name]
	return isPod && was != nil && c.takes(p) && was.text == c.describe(p) && was.node.Value() == p.Node && was.addresses() == byFamily(p.Addresses)
}

// takes reports whether a pod may be of the crowd, unless its addresses are somebody else's.
func (c *crowd) takes(p *pod) bool {
	return p.Node != c.options.Node && !p.ignored && p.Node != "" && !p.HostNetwork && len(c.hosts) == 0 && isPlain(p.Addresses)
}

// byFamily returns plain addresses, that of IPv4 first.
func byFamily(all []netip.Addr) (at [2]netip.Addr) {
	for _, a := range all {
		at[family(a)] = a
	}
	return at
}

// isSample reports whether an entry stands for a kind, and is nobody itself.
func isSample(e *Entry) bool {
	p, isPod := e.part.(*pod)
	return isPod && p.Kind != 0
}

func (c *crowd) delete(k Key) {
	c.remove(k)
	c.settle()
}

func (c *crowd) remove(k Key) {
	c.forget(k)
	c.set(k, nil)
}

// forget takes a pod out of the crowd, if it is there.
func (c *crowd) forget(k Key) {
	delete(c.apart, k)
	if k.Kind == "Pod" && k.Group == "" {
		if p := c.people[k.Namespace][k.Name]; p != nil {
			c.leave(p)
		}
	}
}

// isPlain reports whether addresses are some, and one of a family at most.
func isPlain(all []netip.Addr) bool {
	return len(all) == 1 || len(all) == 2 && all[0].Is4() != all[1].Is4()
}

// join takes a pod into the crowd.
func (c *crowd) join(e *Entry, p *pod) {
	next := &person{node: unique.Make(p.Node)}
	next.setAddresses(byFamily(p.Addresses))
	text := c.describe(p)
	if was := c.people[e.key.Namespace][e.key.Name]; was != nil {
		if was.text == text && was.addresses() == next.addresses() {
			return
		}
		c.leave(was)
	}
	for _, a := range p.Addresses {
		if m, has := c.members.Get(a); has {
			c.tell(c.people[m.Like.Ref.Namespace][m.Name])
		}
	}
	if slices.ContainsFunc(p.Addresses, func(a netip.Addr) bool { return c.taken[a] > 0 }) {
		c.apart[e.key] = e
		c.set(e.key, e)
		return
	}
	delete(c.apart, e.key)
	c.set(e.key, nil)
	if next.lot = c.lots[text]; next.lot == nil {
		next.lot = c.lotOf(p, text)
	}
	next.lot.count++
	next.Individual = policies.Individual{Name: e.key.Name, Like: next.like}
	namespace := next.like.Ref.Namespace
	if c.people[namespace] == nil {
		c.people[namespace] = map[string]*person{}
	}
	c.people[namespace][e.key.Name] = next
	c.enter(next)
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// enter makes one of the crowd one of its kind.
func (c *crowd) enter(p *person) {
	key := ilkKey{text: p.lot.kind}
	for i, a := range p.addresses() {
		if a.IsValid() {
			key.ranges[i] = c.rangeOf(a)
		}
	}
	p.ilk = c.kinds[key]
	for _, a := range p.addresses() {
		if k := c.samples[a]; k != nil && k != p.ilk {
			c.replace(k)
		}
	}
	if p.ilk == nil {
		p.ilk = &ilk{ilkKey: key, number: c.number()}
		c.kinds[key] = p.ilk
		c.stand(p)
	}
	p.ilk.count++
	for _, a := range p.addresses() {
		if a.IsValid() {
			c.members.Put(a, policies.Member{Kind: p.ilk.number, Individual: &p.Individual})
		}
	}
	c.changed = true
}

// number returns a number that no kind has.
func (c *crowd) number() int32 {
	n := slices.Index(c.numbers, false)
	if n < 0 {
		n = len(c.numbers)
		c.numbers = append(c.numbers, false)
	}
	c.numbers[n] = true
	return int32(n)
}

// stand lets somebody's like stand for all of a kind.
func (c *crowd) stand(p *person) {
	k := p.ilk
	if k.entry == nil {
		key := Key{Kind: "Pod", Namespace: p.like.Ref.Namespace, Name: p.Name + "~" + strconv.Itoa(int(k.number))} // no pod's name
		k.entry = &Entry{key: key, room: key.Namespace}
	}
	for _, a := range k.addresses() {
		delete(c.samples, a)
	}
	e, sample := *k.entry, pod{Pod: *p.like}
	sample.Ref, sample.Workload, sample.Labels = e.key.Ref(), policies.Ref{}, maps.Clone(p.like.Labels)
	maps.DeleteFunc(sample.Labels, func(key, _ string) bool { return c.isMoot(key) })
	sample.Kind, sample.Node, sample.Addresses = k.number, p.node.Value(), nil
	for _, a := range p.addresses() {
		if a.IsValid() {
			sample.Addresses = append(sample.Addresses, a)
			c.samples[a] = k
		}
	}
	e.part = &sample
	k.entry = &e
	c.set(e.key, &e)
}

// addresses returns the addresses that stand for those of the kind.
func (k *ilk) addresses() []netip.Addr {
	if p, is := k.entry.part.(*pod); is {
		return p.Addresses
	}
	return nil
}

// replace lets somebody else stand for a kind, since an address of the one who does is
// another one's by now.
func (c *crowd) replace(k *ilk) {
	for _, a := range k.addresses() {
		delete(c.samples, a)
	}
	for _, m := range c.members.Map().All() {
		if m.Kind == k.number {
			c.stand(c.people[m.Like.Ref.Namespace][m.Name])
			return
		}
	}
}

// exit takes one of the crowd out of the kind.
func (c *crowd) exit(p *person) {
	for _, a := range p.addresses() {
		c.members.Delete(a)
	}
	if k := p.ilk; k.count > 1 {
		k.count--
	} else {
		for _, a := range k.addresses() {
			delete(c.samples, a)
		}
		delete(c.kinds, k.ilkKey)
		c.numbers[k.number] = false
		c.set(k.entry.key, nil)
	}
	c.changed = true
}

func (c *crowd) leave(p *person) {
	c.exit(p)
	namespace := p.like.Ref.Namespace
	if delete(c.people[namespace], p.Name); len(c.people[namespace]) == 0 {
		delete(c.people, namespace)
	}
	if p.count--; p.count == 0 {
		delete(c.lots, p.text)
	}
	c.freed = c.freed || len(c.apart) > 0
}

// tell takes a pod out of the crowd, and tells of it by itself.
func (c *crowd) tell(p *person) {
	c.leave(p)
	own := pod{Pod: *p.like, owner: p.owner, hash: p.like.Labels[templateHash]}
	own.Ref.Name, own.Workload, own.Node = p.Name, policies.Ref{}, p.node.Value()
	for _, a := range p.addresses() {
		if a.IsValid() {
			own.Addresses = append(own.Addresses, a)
		}
	}
	e := &Entry{key: Key{Kind: "Pod", Namespace: own.Ref.Namespace, Name: own.Ref.Name}, room: own.Ref.Namespace, part: &own}
	c.apart[e.key] = e
	c.set(e.key, e)
}

// yields makes room for somebody who is told of one by one, and has addresses.
func (c *crowd) yields(e *Entry) {
	for _, a := range addressesOf(e) {
		c.taken[a]++
		if m, has := c.members.Get(a); has {
			c.tell(c.people[m.Like.Ref.Namespace][m.Name])
		}
		if k := c.samples[a]; k != nil {
			c.replace(k)
		}
	}
}

// frees gives the addresses back that somebody had.
func (c *crowd) frees(e *Entry) {
	for _, a := range addressesOf(e) {
		if c.taken[a]--; c.taken[a] == 0 {
			delete(c.taken, a)
		}
		c.freed = c.freed || len(c.apart) > 0
	}
}

// addressesOf returns the addresses of a node, or of a pod that stands for itself.
func addressesOf(e *Entry) []netip.Addr {
	switch p := e.part.(type) {
	case *node:
		return p.Addresses
	case *pod:
		if p.Kind == 0 {
			return p.Addresses
		}
	}
	return nil
}

// settle takes back into the crowd who has addresses for itself again.
func (c *crowd) settle() {
	if !c.freed {
		return
	}
	apart := c.apart
	c.apart = map[Key]*Entry{}
	for k := range apart {
		c.set(k, nil)
	}
	for _, k := range slices.SortedFunc(maps.Keys(apart), Key.compare) {
		c.join(apart[k], apart[k].part.(*pod))
	}
	c.freed = false
}

// lotOf returns the lot of a pod, of which it is the first.
func (c *crowd) lotOf(p *pod, text string) *lot {
	like := p.Pod
	like.Workload = outermost(*p, owned{}.owners(*p))
	if p.owner == (policies.Ref{}) {
		like.Workload = policies.Ref{}
	}
	like.Addresses, like.Node, like.Place, like.Since = nil, "", policies.Place{}, time.Time{}
	l := &lot{like: &like, owner: p.owner, text: text}
	l.kind = c.kindOf(&like)
	c.lots[text] = l
	return l
}

// describe returns a text that is the same for pods of one lot.
func (c *crowd) describe(p *pod) string {
	b := append([]byte(nil), c.kindOf(&p.Pod)...)
	for _, key := range slices.Sorted(maps.Keys(p.Labels)) {
		if c.isMoot(key) {
			b = appendTexts(b, key, p.Labels[key])
		}
	}
	return string(appendTexts(b, p.owner.Kind, p.owner.Name, p.hash))
}

// kindOf returns a text that is the same for pods of one kind, but for their addresses.
func (c *crowd) kindOf(p *policies.Pod) string {
	b := appendTexts(nil, p.Ref.Namespace, p.ServiceAccount)
	for _, port := range p.Ports {
		b = appendTexts(b, port.Name, port.Protocol.String(), strconv.Itoa(int(port.Number)))
	}
	b = appendTexts(b, "")
	keys := make([]string, 0, 8)
	for key := range p.Labels {
		if !c.isMoot(key) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	for _, key := range keys {
		b = appendTexts(b, key, p.Labels[key])
	}
	return string(appendTexts(b, ""))
}

func appendTexts(b []byte, texts ...string) []byte {
	for _, t := range texts {
		b = append(strconv.AppendInt(b, int64(len(t)), 10), ':')
		b = append(b, t...)
	}
	return b
}

// isMoot reports whether a label tells pods of one owner apart and no policy uses it.
func (c *crowd) isMoot(key string) bool {
	return !c.heeded[key] && (key == templateHash || slices.ContainsFunc(controllersLabels, func(of []string) bool { return slices.Contains(of, key) }))
}

var controllersLabels = [][]string{addedLabels["DaemonSet"], addedLabels["StatefulSet"], addedLabels["Job"]}

// rangeOf returns the first address of the range that an address is in.
func (c *crowd) rangeOf(a netip.Addr) netip.Addr {
	first := []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}[family(a)]
	if i := sort.Search(len(c.cuts), func(i int) bool { return a.Less(c.cuts[i]) }); i > 0 && c.cuts[i-1].Is4() == a.Is4() {
		return c.cuts[i-1]
	}
	return first
}

// listen takes note of what an object asks of pods that kinds do not tell so far. What
// was asked once is told for ever.
func (c *crowd) listen(e *Entry) {
	switch p := e.part.(type) {
	case *policy:
		c.hear(&p.Subject)
		for _, rules := range p.Rules {
			for i := range rules {
				for k := range rules[i].Peers {
					c.hear(&rules[i].Peers[k])
				}
				if rules[i].Own != nil {
					c.hear(rules[i].Own)
				}
			}
		}
	case *policies.NetworkSet:
		c.cut(p.Nets...)
	case *service:
		if c.isCalico() { // whose policies may name it
			c.heed(slices.Collect(maps.Keys(p.selector))...)
		}
	case *host: // which makes nodes count
		for p := range c.everybody() {
			c.tell(p)
		}
		clear(c.apart)
	}
}

func (c *crowd) hear(m *policies.Match) {
	c.heed(m.Pods.Keys()...)
	c.heed(m.Inherited.Keys()...)
	if m.Block.CIDR.IsValid() {
		c.cut(append(slices.Clip(m.Block.Except), m.Block.CIDR)...)
	}
	for _, parts := range [][]policies.Match{m.Any, m.All, m.Except} {
		for i := range parts {
			c.hear(&parts[i])
		}
	}
}

func (c *crowd) heed(keys ...string) {
	for _, key := range keys {
		if c.isMoot(key) {
			c.heeded[key], c.asked = true, true
		}
	}
}

func (c *crowd) cut(at ...netip.Prefix) {
	for _, p := range at {
		for _, a := range []netip.Addr{p.Masked().Addr(), netset.LastAddress(p).Next()} {
			if i, found := slices.BinarySearchFunc(c.cuts, a, netip.Addr.Compare); !found && a.IsValid() {
				c.cuts = slices.Insert(c.cuts, i, a)
				c.asked = true
			}
		}
	}
}

// gather returns the crowd as it is now, and whether it is another one than the last
// time.
func (c *crowd) gather() (now *policies.Crowd, isNew bool) {
	if c == nil {
		return nil, false
	}
	if c.asked {
		c.sort()
	}
	isNew = c.changed
	if isNew {
		c.last, c.changed = &policies.Crowd{Members: c.members.Map()}, false
	}
	return c.last, isNew
}

// everybody yields all of the crowd, who may leave meanwhile.
func (c *crowd) everybody() iter.Seq[*person] {
	return func(yield func(*person) bool) {
		for _, of := range c.people {
			for _, p := range of {
				if !yield(p) {
					return
				}
			}
		}
	}
}

// sort finds the kinds of all anew.
func (c *crowd) sort() {
	c.asked = false
	lots := c.lots
	c.lots = make(map[string]*lot, len(lots))
	for _, l := range lots {
		l.kind = c.kindOf(l.like)
		l.text = c.describe(&pod{Pod: *l.like, owner: l.owner, hash: l.like.Labels[templateHash]})
		c.lots[l.text] = l
	}
	for p := range c.everybody() {
		key := ilkKey{text: p.lot.kind}
		for i, a := range p.addresses() {
			if a.IsValid() {
				key.ranges[i] = c.rangeOf(a)
			}
		}
		if key != p.ilk.ilkKey {
			c.exit(p)
			c.enter(p)
		}
	}
}
