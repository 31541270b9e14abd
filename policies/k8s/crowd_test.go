package k8s

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/internal/testkit/worlds"
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// populace is pods that come and go, in a store of one node and by themselves.
type populace struct {
	*rand.Rand
	store *Store
	model *policies.Model // of namespaces, nodes and policies
	pods  map[Key]policies.Pod

	judge    *reach.Judge // that is made of the one before
	compiler nft.Compiler // that remembers
}

func newPopulace(random *rand.Rand) *populace {
	p := &populace{Rand: random, store: NewStore(Options{Node: "n1"}), model: worlds.Small(2), pods: map[Key]policies.Pod{}}
	p.model.Pods = nil
	for i := range p.model.Namespaces {
		n := &p.model.Namespaces[i]
		p.store.Put(&Entry{key: Key{Kind: "Namespace", Name: n.Name}, room: n.Name, part: n})
	}
	for i := range 3 {
		n := policies.Node{Name: fmt.Sprintf("n%d", i+1), Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 9, 0, byte(i)})}}
		p.model.Nodes = append(p.model.Nodes, n)
		p.store.Put(&Entry{key: Key{Kind: "Node", Name: n.Name}, part: &node{Node: n}})
	}
	return p
}

// turn changes a pod: it comes, goes, or is another one than before.
func (p *populace) turn() {
	key := Key{Kind: "Pod", Namespace: []string{"a", "b"}[p.IntN(2)], Name: fmt.Sprintf("pod-%d", p.IntN(12))}
	if p.IntN(3) == 0 {
		delete(p.pods, key)
		p.store.Delete(key)
		return
	}
	one := policies.Pod{Ref: key.Ref(), Workload: key.Ref(), Replicas: 1, ServiceAccount: "default", Node: fmt.Sprintf("n%d", 1+p.IntN(3))}
	one.Labels = map[string]string{"app": []string{"web", "api", "db"}[p.IntN(3)]}
	if p.IntN(2) == 0 {
		one.Labels[podName] = key.Name
	}
	switch p.IntN(12) {
	case 0: // the address of a node
		one.Addresses = append(one.Addresses, netip.AddrFrom4([4]byte{10, 9, 0, byte(p.IntN(3))}))
	case 1:
		one.HostNetwork = true
		one.Addresses = append(one.Addresses, netip.AddrFrom4([4]byte{10, 9, 0, one.Node[1] - '1'}))
	default:
		if p.IntN(4) > 0 {
			one.Addresses = append(one.Addresses, netip.AddrFrom4([4]byte{10, 0, byte(p.IntN(3)), byte(p.IntN(16))}))
		}
		if p.IntN(2) == 0 {
			one.Addresses = append(one.Addresses, netip.MustParseAddr(fmt.Sprintf("fd00::%d:%x", p.IntN(2), p.IntN(16))))
		}
	}
	p.pods[key] = one
	p.store.Put(entryOf(one))
}

func entryOf(one policies.Pod) *Entry {
	key := Key{Kind: "Pod", Namespace: one.Ref.Namespace, Name: one.Ref.Name}
	return &Entry{key: key, room: key.Namespace, part: &pod{Pod: one, ignored: len(one.Addresses) == 0}}
}

// again checks what is held against a list of all pods.
func (p *populace) again(t *rapid.T) {
	before, _ := p.store.Model()
	held := map[Key]bool{}
	for k := range p.store.Each("", "Pod") {
		held[k] = true
	}
	for k, one := range p.pods {
		isHeld := len(one.Addresses) > 0 || one.Node == p.store.options.Node
		if held[k] != isHeld {
			t.Fatalf("%v is held: %v", one, held[k])
		}
		delete(held, k)
		says := p.store.Says(entryOf(one))
		if p.store.crowd.people[k.Namespace][k.Name] != nil && !says {
			t.Fatalf("%v is held otherwise", one)
		}
		if says {
			p.store.Put(entryOf(one))
		}
		other := one
		other.Labels = map[string]string{"app": "other"}
		if p.store.Says(entryOf(other)) {
			t.Fatalf("%v is held as %v", one, other)
		}
	}
	if after, _ := p.store.Model(); len(held) > 0 || after != before {
		t.Fatalf("%v are held besides, or what is held changes the model", held)
	}
}

// govern makes up other policies. One of them may ask for a label that tells pods of one
// owner apart.
func (p *populace) govern() {
	for i := range p.model.Policies {
		p.store.Delete(Key{Kind: "Policy", Name: p.model.Policies[i].Ref.Name})
	}
	p.model = worlds.Invented(p.Rand, p.model, 5)
	if p.IntN(6) == 0 {
		for _, rules := range p.model.Policies[0].Rules {
			for i := range rules {
				rules[i].Peers = append(rules[i].Peers, policies.Match{Namespaces: selector.Everything(), Pods: selector.Label(podName, "pod-1")})
			}
		}
	}
	for i := range p.model.Policies {
		q := &policy{Policy: p.model.Policies[i]}
		p.store.Put(&Entry{key: Key{Kind: "Policy", Name: q.Ref.Name}, part: q})
	}
}

// rulesets returns the ruleset of the node by the store, and by all pods one by one.
func (p *populace) rulesets(last *nft.Ruleset) (crowded, plain *nft.Ruleset, change Change) {
	compile := func(w policies.World, last *nft.Ruleset) *nft.Ruleset {
		m := *p.model
		m.World = w
		return nft.Compile(inputOf(reach.New(&m, reach.Options{})), last)
	}
	m, change := p.store.Model()
	all := p.model.World
	for _, k := range slices.SortedFunc(maps.Keys(p.pods), Key.compare) {
		all.Pods = append(all.Pods, p.pods[k])
	}
	slices.SortFunc(all.Pods, func(a, b policies.Pod) int { return a.Ref.Compare(b.Ref) })
	return compile(m.World, last), compile(all, last), change
}

// inputOf is what a judge asks of the node.
func inputOf(j *reach.Judge) nft.Input {
	in := nft.Input{Judge: j, Crowd: j.World().Crowd}
	for i := range j.World().Pods {
		if q := &j.World().Pods[i]; q.Node == "n1" && !q.HostNetwork && len(q.Addresses) > 0 {
			in.Pods = append(in.Pods, i)
		}
	}
	return in
}

// follow returns the ruleset of the node, made of no more than what changed.
func (p *populace) follow(w *policies.World, change Change, last *nft.Ruleset) *nft.Ruleset {
	if p.judge == nil || change.Whole {
		m := *p.model
		m.World = *w
		p.judge = reach.New(&m, reach.Options{Lasting: true})
	} else {
		p.judge, _ = p.judge.With(reach.Edit{World: w, Pods: change.Pods, Others: change.World, Put: change.Policies, Delete: change.Gone})
	}
	return p.compiler.Compile(inputOf(p.judge), last)
}

// One pod of each kind, and who is like it, is enforced as all pods would be one by one,
// whoever comes, goes, changes, or takes another one's address; and what changes leads there.
func TestCrowdIsAsEachOfIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := newPopulace(rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)))
		p.govern()
		var last *nft.Ruleset
		loaded := elements{}
		for range 6 {
			for range 1 + p.IntN(8) {
				p.turn()
			}
			if p.IntN(3) == 0 {
				p.govern()
			}
			crowded, plain, change := p.rulesets(nil)
			m, _ := p.store.Model()
			p.again(t)
			if crowded.String() != plain.String() {
				t.Fatalf("%s\n%v\n%v", cmp.Diff(plain.String(), crowded.String()), p.pods, m.Pods)
			}
			next, _, _ := p.rulesets(last)
			if followed := p.follow(&m.World, change, last); followed.String() != next.String() {
				t.Fatalf("what changed leads to another ruleset than is compiled anew (-anew +followed)\n%s\n%v\n%v", cmp.Diff(next.String(), followed.String()), p.pods, m.Pods)
			} else {
				next = followed
			}
			if last == nil {
				loaded.load(next)
			} else {
				if isOfCrowd := !change.Whole && len(change.Pods)+len(change.World)+len(change.Policies)+len(change.Gone) == 0; isOfCrowd {
					if among := last.Among(m.Crowd); among.String() != next.String() {
						t.Fatalf("%s\n%v\n%v", cmp.Diff(next.String(), among.String()), p.pods, m.Pods)
					}
				}
				loaded.apply(t, nft.Diff(last, next))
			}
			want := elements{}
			want.load(next)
			if diff := cmp.Diff(want, loaded); diff != "" {
				t.Fatalf("what is loaded is other than what is compiled (-compiled +loaded)\n%s", diff)
			}
			last = next
		}
	})
}

// elements are those of each set, as a kernel has them.
type elements map[string]map[nft.Element]bool

func (e elements) load(r *nft.Ruleset) {
	for i := range r.Sets {
		e.add(&r.Sets[i])
	}
}

func (e elements) add(s *nft.Set) {
	e[s.Name] = map[nft.Element]bool{}
	for x := range s.All() {
		e[s.Name][x] = true
	}
}

// apply takes away before it adds, as a kernel does.
func (e elements) apply(t *rapid.T, c *nft.Change) {
	for _, name := range c.DeleteSets {
		delete(e, name)
	}
	for i := range c.AddSets {
		e.add(&c.AddSets[i])
	}
	for _, u := range c.Update {
		for _, x := range u.Delete {
			if !e[u.Name][x] {
				t.Fatalf("%s has no %+v to be taken away", u.Name, x)
			}
			delete(e[u.Name], x)
		}
		for _, x := range u.Add {
			if e[u.Name][x] {
				t.Fatalf("%s has %+v already", u.Name, x)
			}
			e[u.Name][x] = true
		}
	}
}

// Whoever comes or goes and is like others changes nothing but the crowd.
func TestCrowdChangesAlone(t *testing.T) {
	s := NewStore(Options{Node: "n1"})
	put := func(name, node, app, address string) {
		p := policies.Pod{Ref: policies.Ref{Kind: "Pod", Namespace: "a", Name: name}, Replicas: 1, Node: node, Labels: map[string]string{"app": app, "pod-template-hash": name}}
		p.Addresses = []netip.Addr{netip.MustParseAddr(address)}
		s.Put(&Entry{key: Key{Kind: "Pod", Namespace: "a", Name: name}, room: "a", part: &pod{Pod: p, hash: name}})
	}
	put("here", "n1", "web", "10.0.0.1")
	put("x", "n2", "web", "10.0.0.2")
	tests := []struct {
		what    string
		do      func()
		pods    int // of the model
		members int
		alone   bool
	}{
		{"the first model", func() {}, 2, 1, false},
		{"one more like it", func() { put("y", "n3", "web", "10.0.0.3") }, 2, 2, true},
		{"the one that stood for both goes", func() { s.Delete(Key{Kind: "Pod", Namespace: "a", Name: "x"}) }, 2, 1, true},
		{"one of another kind", func() { put("z", "n3", "db", "10.0.0.4") }, 3, 2, false},
		{"it takes the address that stood for both", func() { put("z", "n3", "db", "10.0.0.2") }, 3, 2, false},
		{"one address for two", func() { put("y", "n3", "web", "10.0.0.2") }, 3, 0, false},
		{"one of them moves", func() { put("y", "n3", "web", "10.0.0.9") }, 3, 2, false},
		{"it is of this node now", func() { put("y", "n1", "web", "10.0.0.9") }, 3, 1, false},
		{"nothing new", func() { put("z", "n3", "db", "10.0.0.2") }, 3, 1, true},
		{"all of a kind go", func() { s.Delete(Key{Kind: "Pod", Namespace: "a", Name: "z"}) }, 2, 0, false},
	}
	for _, test := range tests {
		test.do()
		m, c := s.Model()
		members := 0
		if m.Crowd != nil {
			members = m.Crowd.Members.Len()
		}
		if alone := !c.Whole && len(c.Pods)+len(c.World) == 0; len(m.Pods) != test.pods || members != test.members || alone != test.alone {
			t.Errorf("%s: %d pods, %d members, alone %t (%+v)", test.what, len(m.Pods), members, alone, c)
		}
	}
}
