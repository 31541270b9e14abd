package k8s

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// Store holds objects that come and go one by one, and makes of them the model
// that Read makes of all of them. Every object is read once, see ReadEntry; what a
// change does not touch is taken from the model before.
//
// Where Calico decides, priorities have gaps, unlike those that Read gives, so that
// a policy that comes between others leaves them as they are.
//
// Where Read refuses an object, the store lives with it, see Entry.Problems. It is
// for one goroutine at a time; the models that it returned never change.
type Store struct {
	options Options
	reader  *reader // for the rules of its version of Calico; holds nothing

	entries  map[Key]*Entry
	rooms    map[string]*room // by namespace
	order    []string         // their names, sorted; empty ones stay until the next model
	policies []*ranked        // in their order, see before
	ofPolicy map[Key]*ranked
	named    map[policies.Ref]int // how many policies have a name: kinds of two groups may share it
	warned   map[Key]*Entry       // those with warnings
	calicos  int                  // objects of Calico's kinds

	nodes    map[Key]*node
	accounts map[Key]*policies.ServiceAccount
	sets     map[Key]*policies.NetworkSet
	hosts    map[Key]*host
	tiers    map[string]policies.Tier
	profiles map[string]profile

	crowd *crowd // nil where all pods are told of one by one

	model      *policies.Model    // the last one
	calico     bool               // who decided in it
	names      nodeNames          // in it
	remarks    []policies.Warning // in it, on how policies go together
	relabelled bool               // priorities of policies are not as in it
	touched    map[Key]*Entry     // what has changed since, as it was; nil where it was not there
}

// room is what a namespace holds: owners and their pods, Services and theirs are
// always of one.
type room struct {
	objects   int
	namespace *policies.Namespace // nil where only other objects mention it
	pods      map[Key]*pod
	workloads map[policies.Ref]workload
	services  map[Key]*service
	onHost    int                   // pods and templates on the host's network
	near      int                   // pods of Options.Node
	wasNear   bool                  // there were some in the last model
	samples   map[policies.Ref]*pod // one of each owner, with which the others share labels
	joined    contents              // as they are in the model
}

// contents are the pods of a room and its Services, with indexes of these pods.
type contents struct {
	pods     []policies.Pod
	services []policies.Service
}

// ranked is a policy and its standing among those of Calico, where that decides.
type ranked struct {
	*policy
	key Key
	standing
}

// Change is what is not as it was in the model before. Policies that are staged
// change no answer and are not told of.
type Change struct {
	// Whole is set where more may be different than the rest tells: with the first
	// model, where tiers, host endpoints, profiles or who decides change, and where
	// a policy that came or went shares its name with one of another group.
	Whole bool
	// Policies are those that came, or say something else than before, and Gone
	// those that went.
	Policies []policies.Policy
	Gone     []policies.Ref
	// Pods are the pods, and templates of pods, that came, went or changed.
	Pods []policies.Ref
	// World is what else of the world came, went or changed: Namespaces, Nodes,
	// ServiceAccounts, Services, NetworkSets. The pods of a Service change with
	// Pods, too.
	World []policies.Ref
	// Crowd is set where the Crowd of the world is another one.
	Crowd bool
}

// IsEmpty reports whether all answers are as before.
func (c *Change) IsEmpty() bool {
	return !c.Whole && !c.Crowd && len(c.Policies)+len(c.Gone)+len(c.Pods)+len(c.World) == 0
}

// And returns what is not as it was before two changes, one after the other.
func (c Change) And(d Change) Change {
	both := Change{Whole: c.Whole || d.Whole, Crowd: c.Crowd || d.Crowd, Policies: slices.Clone(d.Policies), Gone: slices.Clone(d.Gone)}
	isLater := func(ref policies.Ref) bool {
		return slices.Contains(d.Gone, ref) || slices.ContainsFunc(d.Policies, func(p policies.Policy) bool { return p.Ref == ref })
	}
	for _, p := range c.Policies {
		if !isLater(p.Ref) {
			both.Policies = append(both.Policies, p)
		}
	}
	for _, ref := range c.Gone {
		if !isLater(ref) {
			both.Gone = append(both.Gone, ref)
		}
	}
	union := func(a, b []policies.Ref) []policies.Ref {
		all := slices.Concat(a, b)
		slices.SortFunc(all, policies.Ref.Compare)
		return slices.Compact(all)
	}
	both.Pods, both.World = union(c.Pods, d.Pods), union(c.World, d.World)
	return both
}

// NewStore returns a store without objects.
func NewStore(o Options) *Store {
	s := &Store{
		options:  o,
		reader:   newReader(o),
		entries:  map[Key]*Entry{},
		rooms:    map[string]*room{},
		ofPolicy: map[Key]*ranked{},
		named:    map[policies.Ref]int{},
		warned:   map[Key]*Entry{},
		nodes:    map[Key]*node{},
		accounts: map[Key]*policies.ServiceAccount{},
		sets:     map[Key]*policies.NetworkSet{},
		hosts:    map[Key]*host{},
		tiers:    map[string]policies.Tier{},
		profiles: map[string]profile{},
		touched:  map[Key]*Entry{},
	}
	if o.Node != "" {
		s.crowd = newCrowd(s)
	}
	return s
}

// Get returns the entry of an object, nil where there is none.
func (s *Store) Get(k Key) *Entry { return s.entries[k] }

// Each yields the names of the objects of a kind, in no order. The store must not change
// meanwhile.
func (s *Store) Each(group, kind string) iter.Seq[Key] {
	return func(yield func(Key) bool) {
		for k, e := range s.entries {
			if k.Group == group && k.Kind == kind && !isSample(e) && !yield(k) {
				return
			}
		}
		if s.crowd == nil || group != "" || kind != "Pod" {
			return
		}
		for p := range s.crowd.everybody() {
			if !yield(Key{Kind: kind, Namespace: p.like.Ref.Namespace, Name: p.Name}) {
				return
			}
		}
	}
}

// Says reports whether the store has an object as the entry has it, so that Put would
// change nothing.
func (s *Store) Says(e *Entry) bool {
	if s.crowd != nil {
		return s.crowd.says(e)
	}
	return s.entries[e.key].Says(e)
}

// Orphaned returns the Namespaces that are not there while something in them is.
func (s *Store) Orphaned() (all []Key) {
	for name, r := range s.rooms {
		if r.isThere() && r.namespace == nil {
			all = append(all, Key{Kind: "Namespace", Name: name})
		}
	}
	return all
}

// Len returns how many objects there are.
func (s *Store) Len() int { return len(s.entries) }

// Put adds an object, or replaces the one of its name. The entry is the store's
// from then on.
func (s *Store) Put(e *Entry) {
	if s.crowd == nil {
		s.set(e.key, e)
	} else {
		s.crowd.put(e)
	}
}

// Delete removes an object, if it is there.
func (s *Store) Delete(k Key) {
	if s.crowd == nil {
		s.set(k, nil)
	} else {
		s.crowd.delete(k)
	}
}

// set makes e the object of this name, and takes note of what it was in the last
// model.
func (s *Store) set(k Key, e *Entry) {
	old := s.entries[k]
	if old.Says(e) {
		return
	}
	if before, known := s.touched[k]; !known {
		s.touched[k] = old
	} else if before.Says(e) {
		delete(s.touched, k)
	}
	was := s.isCalico()
	if old != nil {
		s.remove(old)
		if holds[*policy](old) && holds[*policy](e) && e.part.(*policy).label == 0 {
			e.part.(*policy).label = old.part.(*policy).label
		}
	}
	if e != nil {
		s.add(e)
	}
	if s.isCalico() != was || s.isCalico() && (holds[*policies.Tier](old) || holds[*policies.Tier](e)) {
		s.rankAll()
	}
}

func holds[T any](e *Entry) bool {
	if e == nil {
		return false
	}
	_, is := e.part.(T)
	return is
}

func (s *Store) isCalico() bool { return s.options.Calico || s.calicos > 0 }

func (s *Store) add(e *Entry) {
	s.entries[e.key] = e
	if e.calico {
		s.calicos++
	}
	if len(e.warnings) > 0 {
		s.warned[e.key] = e
	}
	if e.room != "" {
		s.room(e.room).add(e)
	}
	if s.crowd != nil {
		s.crowd.yields(e)
		if s.isNear(e) {
			s.rooms[e.room].near++
		}
	}
	switch p := e.part.(type) {
	case *node:
		s.nodes[e.key] = p
	case *policies.ServiceAccount:
		s.accounts[e.key] = p
	case *policies.NetworkSet:
		s.sets[e.key] = p
	case *host:
		s.hosts[e.key] = p
	case *policies.Tier:
		s.tiers[e.key.Name] = *p
	case *profile:
		s.profiles[e.key.Name] = *p
	case *policy:
		r := &ranked{policy: p, key: e.key}
		s.rank(r)
		at, _ := slices.BinarySearchFunc(s.policies, r, s.before)
		s.policies = slices.Insert(s.policies, at, r)
		s.ofPolicy[e.key] = r
		if p.staged == (policies.Ref{}) {
			s.named[p.Ref]++
		}
		if s.isCalico() && !s.label(at) {
			s.rankAll()
		}
	}
}

func (s *Store) remove(e *Entry) {
	delete(s.entries, e.key)
	delete(s.warned, e.key)
	if e.room != "" {
		s.rooms[e.room].remove(e)
	}
	if s.crowd != nil {
		s.crowd.frees(e)
		if s.isNear(e) {
			s.rooms[e.room].near--
		}
	}
	switch p := e.part.(type) {
	case *node:
		delete(s.nodes, e.key)
	case *policies.ServiceAccount:
		delete(s.accounts, e.key)
	case *policies.NetworkSet:
		delete(s.sets, e.key)
	case *host:
		delete(s.hosts, e.key)
	case *policies.Tier:
		delete(s.tiers, e.key.Name)
	case *profile:
		delete(s.profiles, e.key.Name)
	case *policy:
		r := s.ofPolicy[e.key]
		at, _ := slices.BinarySearchFunc(s.policies, r, s.before)
		s.policies = slices.Delete(s.policies, at, at+1)
		delete(s.ofPolicy, e.key)
		if p.staged == (policies.Ref{}) {
			if s.named[p.Ref]--; s.named[p.Ref] == 0 {
				delete(s.named, p.Ref)
			}
		}
	}
	if e.calico { // not before, for then they would have another order
		s.calicos--
	}
}

func (s *Store) room(name string) *room {
	r := s.rooms[name]
	if r == nil {
		r = &room{pods: map[Key]*pod{}, workloads: map[policies.Ref]workload{}, services: map[Key]*service{}, samples: map[policies.Ref]*pod{}}
		s.rooms[name] = r
		at, _ := slices.BinarySearch(s.order, name)
		s.order = slices.Insert(s.order, at, name)
	}
	return r
}

func (r *room) add(e *Entry) {
	r.objects++
	switch p := e.part.(type) {
	case *policies.Namespace:
		r.namespace = p
	case *pod:
		r.share(p)
		r.pods[e.key] = p
		r.onHost += p.onHost()
	case *workload:
		r.workloads[p.Ref] = *p
		r.onHost += p.onHost()
	case *service:
		r.services[e.key] = p
	}
}

func (r *room) remove(e *Entry) {
	r.objects--
	switch p := e.part.(type) {
	case *policies.Namespace:
		r.namespace = nil
	case *pod:
		delete(r.pods, e.key)
		r.onHost -= p.onHost()
		if r.samples[p.owner] == p {
			delete(r.samples, p.owner)
		}
	case *workload:
		delete(r.workloads, p.Ref)
		r.onHost -= p.onHost()
	case *service:
		delete(r.services, e.key)
	}
}

// isNear reports whether an object is a pod of Options.Node.
func (s *Store) isNear(e *Entry) bool {
	p, isPod := e.part.(*pod)
	return isPod && p.Node == s.options.Node
}

// concerns reports whether policies of a namespace can apply to pods that matter: all
// do, unless those are the pods of one node.
func (s *Store) concerns(namespace string) bool {
	return s.crowd == nil || namespace == "" || s.rooms[namespace] != nil && s.rooms[namespace].near > 0
}

// isThere reports whether the room has an object.
func (r *room) isThere() bool { return r != nil && r.objects > 0 }

func (p *pod) onHost() int {
	if p.HostNetwork {
		return 1
	}
	return 0
}

// share lets the pods of one owner have their labels, ports and names in common.
func (r *room) share(p *pod) {
	if p.owner == (policies.Ref{}) {
		return
	}
	sample := r.samples[p.owner]
	if sample == nil {
		r.samples[p.owner] = p
		return
	}
	p.owner, p.Ref.Namespace, p.hash = sample.owner, sample.Ref.Namespace, share(p.hash, sample.hash)
	p.ServiceAccount, p.Node = share(p.ServiceAccount, sample.ServiceAccount), share(p.Node, sample.Node)
	if maps.Equal(p.Labels, sample.Labels) {
		p.Labels = sample.Labels
	}
	if maps.Equal(p.NodeLabels, sample.NodeLabels) {
		p.NodeLabels = sample.NodeLabels
	}
	if slices.Equal(p.Ports, sample.Ports) {
		p.Ports = sample.Ports
	}
}

func share(a, b string) string {
	if a == b {
		return b
	}
	return a
}

// join finds the workloads of the room's pods, and the pods of its Services.
func (r *room) join(nodes nodeNames, calico bool) contents {
	o := owned{workloads: r.workloads, pods: make([]pod, 0, len(r.pods))}
	for _, p := range r.pods {
		o.pods = append(o.pods, *p)
	}
	services := make([]service, 0, len(r.services))
	for _, s := range r.services {
		services = append(services, *s)
	}
	j := contents{pods: o.resolve(nodes)}
	j.services = resolveServices(services, j.pods)
	if calico {
		dropCalicoLabels(j.pods)
	}
	return j
}

// rank gives a policy its standing.
func (s *Store) rank(r *ranked) {
	r.standing = standing{}
	if !s.isCalico() {
		return
	}
	s.reader.tiers = s.tiers
	p := *r.policy
	s.reader.knownTiers().place(&p.Policy)
	p.Tier += suffix(p.hook)
	r.standing = s.reader.standing(&p)
}

// rankAll gives all policies their standing and label anew.
func (s *Store) rankAll() {
	for _, r := range s.policies {
		s.rank(r)
	}
	slices.SortFunc(s.policies, s.before)
	for i, r := range s.policies {
		r.label = (i + 1) * apart
		if i > 0 && r.standing == s.policies[i-1].standing {
			r.label = s.policies[i-1].label
		}
	}
	s.relabelled = true
}

// apart is how far the labels of policies are from each other at first.
const apart = 1 << 32

// label gives a policy a label between those of its neighbours, so that these need
// not move: it is the priority where Calico decides. It fails where there is no
// room between them.
func (s *Store) label(at int) bool {
	r := s.policies[at]
	low, high := 0, 0
	if at > 0 {
		low = s.policies[at-1].label
		if s.policies[at-1].standing == r.standing {
			r.label = low
			return true
		}
	}
	high = low + 2*apart
	if at+1 < len(s.policies) {
		high = s.policies[at+1].label
		if s.policies[at+1].standing == r.standing {
			r.label = high
			return true
		}
	}
	if r.label <= low || r.label >= high {
		r.label = low + (high-low)/2
	}
	return low < r.label && r.label < high
}

// before orders policies: by standing where Calico decides, or else as a model
// has them.
func (s *Store) before(a, b *ranked) int {
	if s.isCalico() {
		if c := a.standing.compare(b.standing); c != 0 {
			return c
		}
	}
	return cmp.Or(a.Compare(b.Policy), a.key.compare(b.key))
}

// Model returns the model of the objects, and what is not as it was when Model
// returned one before.
func (s *Store) Model() (*policies.Model, Change) {
	crowd, isNew := s.crowd.gather()
	if s.model != nil && len(s.touched) == 0 && !s.relabelled {
		if !isNew {
			return s.model, Change{}
		}
		m := *s.model
		m.Crowd, s.model = crowd, &m
		return &m, Change{Crowd: true}
	}
	n := s.next()
	m := n.build()
	m.Crowd, n.Crowd = crowd, isNew
	s.model, s.calico, s.names, s.remarks = m, s.isCalico(), n.names, n.remarks
	for name, j := range n.joined {
		s.rooms[name].joined = j
	}
	for _, r := range s.rooms {
		r.wasNear = r.near > 0
	}
	s.order = slices.DeleteFunc(s.order, func(name string) bool {
		isGone := !s.rooms[name].isThere()
		if isGone {
			delete(s.rooms, name)
		}
		return isGone
	})
	if m.Pods != nil {
		at := 0 // so that only the model holds the pods
		for _, name := range s.order {
			r := s.rooms[name]
			end := at + len(r.joined.pods)
			r.joined.pods = m.Pods[at:end:end]
			at = end
		}
	}
	s.relabelled = false
	s.touched = map[Key]*Entry{} // for one that was large once stays slow
	return m, n.Change
}

// Try lets look see what would be different from the last model if objects came
// and went, and that model. The store is afterwards as it was.
func (s *Store) Try(put []*Entry, gone []Key, look func(c Change, model func() *policies.Model)) {
	type was struct {
		key     Key
		entry   *Entry
		touched bool
		before  *Entry
	}
	var undo []was
	set := func(k Key, e *Entry) {
		before, touched := s.touched[k]
		undo = append(undo, was{k, s.entries[k], touched, before})
		s.set(k, e)
	}
	for _, k := range gone {
		set(k, nil)
	}
	for _, e := range put {
		set(e.key, e)
	}
	defer func() {
		for _, u := range slices.Backward(undo) {
			s.set(u.key, u.entry)
			delete(s.touched, u.key)
			if u.touched {
				s.touched[u.key] = u.before
			}
		}
	}()
	n := s.next()
	var m *policies.Model
	look(n.Change, func() *policies.Model {
		if m == nil {
			m = n.build()
		}
		return m
	})
}

// next is the model to come.
type next struct {
	*Store
	Change
	last    *policies.Model
	names   nodeNames
	remarks []policies.Warning  // on how policies go together
	again   map[string]bool     // the rooms that are not as they were
	joined  map[string]contents // those of them that there are
	stale   stale
}

// stale are the parts of a model that are to be made anew.
type stale struct{ namespaces, nodes, accounts, sets, hosts, policies, rooms bool }

// next works out what is different from the last model.
func (s *Store) next() *next {
	n := &next{Store: s, last: s.model, names: s.names, remarks: s.remarks, joined: map[string]contents{}, again: map[string]bool{}}
	if s.model == nil {
		n.last = &policies.Model{}
		n.stale = stale{true, true, true, true, true, true, true}
	}
	n.Whole = s.model == nil || s.calico != s.isCalico() || s.isCalico() && s.relabelled
	for name, r := range s.rooms {
		if r.wasNear != (r.near > 0) {
			n.turn(name, r)
		}
	}
	again, services := n.again, map[policies.Ref]bool{}
	moved := s.model == nil // the addresses of nodes
	for k, old := range s.touched {
		for _, e := range []*Entry{old, s.entries[k]} {
			if e == nil {
				continue
			}
			switch e.part.(type) {
			case *pod, *workload:
				again[k.Namespace] = true
			case *service:
				again[k.Namespace], services[k.Ref()] = true, true
			case *node:
				n.stale.nodes = true
			case *host, *profile:
				n.stale.nodes, n.stale.hosts, n.stale.policies, n.Whole = true, true, true, true
			case *policies.Tier:
				n.stale.policies, n.Whole = true, true
			case *policies.ServiceAccount:
				n.stale.accounts = true
			case *policies.NetworkSet:
				n.stale.sets = true
			case *policy:
				n.stale.policies = n.stale.policies || s.concerns(k.Namespace)
			}
		}
		n.touch(k, old, s.entries[k])
	}
	if n.Whole {
		n.stale.policies = true
	}
	n.stale.policies = n.reroute(services) || n.stale.policies
	if n.stale.nodes {
		names := namesOf(n.allNodes())
		moved = moved || !reflect.DeepEqual(names, n.names)
		n.names = names
	}
	if flips := s.calico != s.isCalico(); moved || flips {
		for name, r := range s.rooms {
			if flips || r.onHost > 0 {
				again[name] = true
			}
		}
	}
	for name := range again {
		if r := s.rooms[name]; r.isThere() {
			n.joined[name] = r.join(n.names, s.isCalico())
		}
	}
	n.stale.rooms = n.stale.rooms || len(again) > 0
	n.findPods()
	slices.SortFunc(n.Policies, policies.Policy.Compare)
	slices.SortFunc(n.Gone, policies.Ref.Compare)
	slices.SortFunc(n.World, policies.Ref.Compare)
	n.World = slices.Compact(n.World)
	return n
}

// turn adds to the change the policies of a room that are in the model from now on, for
// there are pods of Options.Node, or are not any more.
func (n *next) turn(name string, r *room) {
	n.stale.policies = true
	if r.near == 0 {
		for i := range n.last.Policies {
			if ref := n.last.Policies[i].Ref; ref.Namespace == name {
				n.Gone = append(n.Gone, ref)
			}
		}
	}
	for _, of := range n.policies {
		if of.key.Namespace != name {
			continue
		}
		if r.near > 0 && of.staged == (policies.Ref{}) {
			n.Policies = append(n.Policies, n.resolve(of))
		}
		n.Whole = n.Whole || n.isCalico() || n.named[of.Ref] > 1 // whose tiers there are depends on their policies
	}
}

// touch adds to the change what an object that changed is by itself.
func (n *next) touch(k Key, old, now *Entry) {
	for _, e := range []*Entry{old, now} {
		if e != nil && e.room != "" {
			n.touchNamespace(e.room)
		}
	}
	if !n.concerns(k.Namespace) || n.crowd != nil && k.Namespace != "" && !n.rooms[k.Namespace].wasNear {
		// Its policies are none of the model's, or all of them are new.
	} else if of := n.ofPolicy[k]; of != nil && of.staged == (policies.Ref{}) {
		n.Policies = append(n.Policies, n.resolve(of))
		n.Whole = n.Whole || n.named[of.Ref] > 1
	} else if holds[*policy](old) {
		if p := old.part.(*policy); p.staged == (policies.Ref{}) {
			n.Gone = append(n.Gone, p.Ref)
			n.Whole = n.Whole || n.named[p.Ref] > 0
		}
	}
	for _, e := range []*Entry{old, now} {
		if e == nil {
			continue
		}
		switch e.part.(type) {
		case *node, *service, *policies.ServiceAccount, *policies.NetworkSet:
			n.World = append(n.World, k.Ref())
		}
	}
}

func (n *next) touchNamespace(name string) {
	at, had := slices.BinarySearchFunc(n.last.Namespaces, name, func(a policies.Namespace, name string) int { return strings.Compare(a.Name, name) })
	r := n.rooms[name]
	if had == r.isThere() && (!had || reflect.DeepEqual(n.last.Namespaces[at], r.get(name))) {
		return
	}
	n.stale.namespaces = true
	n.World = append(n.World, policies.Ref{Kind: "Namespace", Name: name})
}

// reroute adds to the change the policies that name one of these Services, and
// reports whether there are any.
func (n *next) reroute(services map[policies.Ref]bool) (found bool) {
	if len(services) == 0 || !n.isCalico() {
		return false
	}
	for k, r := range n.ofPolicy {
		if _, told := n.touched[k]; told || !n.concerns(k.Namespace) || !isAbout(&r.Policy, func(ref policies.Ref) bool { return services[ref] }) {
			continue
		}
		found = true
		if r.staged == (policies.Ref{}) {
			n.Policies = append(n.Policies, n.resolve(r))
		}
	}
	return found
}

// isAbout reports whether a rule of the policy is about one of these Services.
func isAbout(p *policies.Policy, one func(policies.Ref) bool) bool {
	for _, rules := range p.Rules {
		for i := range rules {
			for k := range rules[i].Peers {
				if ref := serviceOf(&rules[i].Peers[k]); ref != (policies.Ref{}) && one(ref) {
					return true
				}
			}
		}
	}
	return false
}

// findPods adds to the change the pods of the rooms that were joined anew, and of
// those that are no more.
func (n *next) findPods() {
	for name := range n.again {
		n.comparePods(n.before(name), n.joined[name].pods)
	}
	slices.SortFunc(n.Pods, policies.Ref.Compare)
}

// before returns the pods of a namespace in the last model.
func (n *next) before(namespace string) []policies.Pod {
	at, _ := slices.BinarySearchFunc(n.last.Pods, namespace, inNamespace)
	end := at
	for end < len(n.last.Pods) && n.last.Pods[end].Ref.Namespace == namespace {
		end++
	}
	return n.last.Pods[at:end]
}

func inNamespace(p policies.Pod, name string) int { return strings.Compare(p.Ref.Namespace, name) }

func (n *next) comparePods(old, now []policies.Pod) {
	for len(old) > 0 || len(now) > 0 {
		order := 0
		switch {
		case len(old) == 0:
			order = 1
		case len(now) == 0:
			order = -1
		default:
			order = old[0].Ref.Compare(now[0].Ref)
		}
		switch {
		case order < 0:
			n.Pods = append(n.Pods, old[0].Ref)
			old = old[1:]
		case order > 0:
			n.Pods = append(n.Pods, now[0].Ref)
			now = now[1:]
		default:
			if !samePod(&old[0], &now[0]) {
				n.Pods = append(n.Pods, now[0].Ref)
			}
			old, now = old[1:], now[1:]
		}
	}
}

func samePod(a, b *policies.Pod) bool {
	return a.Workload == b.Workload && a.Replicas == b.Replicas && maps.Equal(a.Labels, b.Labels) && a.ServiceAccount == b.ServiceAccount &&
		slices.Equal(a.Ports, b.Ports) && slices.Equal(a.Addresses, b.Addresses) && a.HostNetwork == b.HostNetwork && a.Node == b.Node &&
		a.Since.Equal(b.Since) && maps.Equal(a.NodeLabels, b.NodeLabels) && a.Place == b.Place
}

// get returns the namespace that the room is.
func (r *room) get(name string) policies.Namespace {
	if r.namespace != nil {
		return *r.namespace
	}
	return impliedNamespace(name)
}

// allNodes returns the nodes, and those that host endpoints imply.
func (n *next) allNodes() []policies.Node {
	all := make([]policies.Node, 0, len(n.nodes))
	for _, node := range n.nodes {
		all = append(all, node.Node)
	}
	all = implyNodes(all, n.allHosts())
	slices.SortFunc(all, func(a, b policies.Node) int { return strings.Compare(a.Name, b.Name) })
	return all
}

func (n *next) allHosts() []host {
	all := make([]host, 0, len(n.hosts))
	for _, h := range n.hosts {
		all = append(all, *h)
	}
	slices.SortFunc(all, func(a, b host) int { return a.Ref.Compare(b.Ref) })
	return all
}

// service returns a Service, without its pods.
func (n *next) service(ref policies.Ref) *policies.Service {
	e := n.entries[Key{Kind: "Service", Namespace: ref.Namespace, Name: ref.Name}]
	if !holds[*service](e) || ref.Kind != "Service" {
		return nil
	}
	return &e.part.(*service).Service
}

// resolve returns a policy as it stands in the model.
func (n *next) resolve(r *ranked) policies.Policy {
	p := r.Policy
	if !n.isCalico() {
		return p
	}
	p.Tier, p.Priority = r.standing.tier, r.label
	n.route(&p)
	return p
}

// route resolves the Services that a policy names.
func (n *next) route(p *policies.Policy) {
	if !isAbout(p, func(policies.Ref) bool { return true }) {
		return
	}
	for d := range p.Rules {
		p.Rules[d] = slices.Clone(p.Rules[d])
	}
	resolveRules(p, n.service)
}

// build makes the model. What is not stale is that of the last one.
func (n *next) build() *policies.Model {
	m := &policies.Model{World: n.last.World, Tiers: n.last.Tiers, Policies: n.last.Policies, Staged: n.last.Staged}
	if n.stale.namespaces {
		m.Namespaces = make([]policies.Namespace, 0, len(n.order))
		for _, name := range n.order {
			if r := n.rooms[name]; r.isThere() {
				m.Namespaces = append(m.Namespaces, r.get(name))
			}
		}
	}
	if n.stale.nodes {
		m.Nodes = n.allNodes()
		m.PodCIDRs = slices.Clone(n.options.PodCIDRs)
		for _, node := range n.nodes {
			m.PodCIDRs = append(m.PodCIDRs, node.podCIDRs...)
		}
		slices.SortFunc(m.PodCIDRs, netip.Prefix.Compare)
		m.PodCIDRs = slices.Compact(m.PodCIDRs)
	}
	if n.stale.accounts {
		m.Accounts = sorted(n.accounts, func(a, b policies.ServiceAccount) int { return a.Ref.Compare(b.Ref) })
	}
	if n.stale.sets {
		m.Sets = sorted(n.sets, func(a, b policies.NetworkSet) int { return a.Ref.Compare(b.Ref) })
	}
	if n.stale.hosts {
		m.Hosts = resolveHosts(n.allHosts(), n.profiles)
	}
	if n.stale.rooms {
		n.buildRooms(&m.World)
	}
	n.buildPolicies(m)
	m.Warnings = slices.Clone(n.remarks)
	for _, e := range n.warned {
		m.Warnings = append(m.Warnings, e.warnings...)
	}
	if n.isCalico() {
		m.Warnings = slices.Concat(m.Warnings, missingTiers(m), missingServices(m))
	}
	m.Warnings = sortWarnings(m.Warnings)
	return m
}

func sorted[T any](parts map[Key]*T, compare func(a, b T) int) []T {
	var all []T
	for _, p := range parts {
		all = append(all, *p)
	}
	slices.SortFunc(all, compare)
	return all
}

// buildRooms puts the pods and Services of all namespaces one behind the other.
func (n *next) buildRooms(w *policies.World) {
	total := len(n.last.Pods)
	for name := range n.again {
		total += len(n.joined[name].pods) - len(n.before(name))
	}
	w.Pods = make([]policies.Pod, 0, total)
	rest := n.last.Pods
	for _, name := range slices.Sorted(maps.Keys(n.again)) {
		at, _ := slices.BinarySearchFunc(rest, name, inNamespace)
		w.Pods = append(append(w.Pods, rest[:at]...), n.joined[name].pods...)
		rest = rest[at+len(n.before(name)):]
	}
	w.Pods = append(w.Pods, rest...)
	all := make([]contents, len(n.order))
	services, members := 0, 0
	for i, name := range n.order {
		all[i] = n.joinedOf(name)
		services += len(all[i].services)
		for k := range all[i].services {
			members += len(all[i].services[k].Pods)
		}
	}
	w.Services = make([]policies.Service, 0, services)
	indexes, pods := make([]int, 0, members), 0
	for _, j := range all {
		for _, s := range j.services {
			first := len(indexes)
			for _, i := range s.Pods {
				indexes = append(indexes, pods+i)
			}
			if s.Pods != nil {
				s.Pods = indexes[first:len(indexes):len(indexes)]
			}
			w.Services = append(w.Services, s)
		}
		pods += len(j.pods)
	}
}

func (n *next) joinedOf(name string) contents {
	j, again := n.joined[name]
	if r := n.rooms[name]; !again && r.isThere() {
		return r.joined
	}
	return j
}

// buildPolicies puts policies and tiers into the model.
func (n *next) buildPolicies(m *policies.Model) {
	if !n.stale.policies {
		return
	}
	m.Tiers, m.Policies, m.Staged, n.remarks = tiers(), nil, nil, nil
	add := func(p *policies.Policy, of *policy) {
		if of.staged == (policies.Ref{}) {
			m.Policies = append(m.Policies, *p)
		} else {
			m.Staged = append(m.Staged, policies.Staged{Ref: of.staged, Policy: *p, Deletes: of.deletes})
		}
	}
	if n.isCalico() {
		all := n.arrange(m)
		m.Policies = make([]policies.Policy, 0, len(all))
		for i := range all {
			add(&all[i].Policy, &all[i])
		}
		slices.SortFunc(m.Policies, policies.Policy.Compare)
	} else {
		matter := make([]*ranked, 0, len(n.policies))
		namespace, concerns := "", true // of the last, as most have that of the one before
		for _, r := range n.policies {
			if r.key.Namespace != namespace {
				namespace, concerns = r.key.Namespace, n.concerns(r.key.Namespace)
			}
			if concerns {
				matter = append(matter, r)
			}
		}
		m.Policies = make([]policies.Policy, 0, len(matter))
		for _, r := range matter {
			add(&r.Policy, r.policy)
		}
	}
	slices.SortFunc(m.Staged, func(a, b policies.Staged) int { return a.Ref.Compare(b.Ref) })
}

// arrange returns the policies with the tiers and priorities that they have with
// Calico, those of host endpoints among them, and puts the tiers into the model.
func (n *next) arrange(m *policies.Model) []policy {
	r := newReader(n.options)
	r.tiers, r.profiles, r.hosts = n.tiers, n.profiles, n.allHosts()
	known := r.knownTiers()
	var all []policy
	for _, of := range n.policies {
		if !n.concerns(of.key.Namespace) {
			continue
		}
		p := *of.policy
		known.place(&p.Policy)
		p.Tier += suffix(p.hook)
		r.warnOfVersion(&p)
		p.Priority = of.label
		all = append(all, p)
	}
	all = append(all, r.hostPolicies(known.free(failsafeTier), known.free(profileTier))...)
	pointers := make([]*policies.Policy, len(all))
	for i := range all {
		pointers[i] = &all[i].Policy
		n.route(pointers[i])
	}
	m.Tiers, n.remarks = known.sort(pointers), r.warnings
	return all
}
