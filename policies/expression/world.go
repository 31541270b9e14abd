package expression

import (
	"maps"
	"net/netip"
	"regexp"
	"slices"
	"strconv"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/selector"
)

// World is what expressions are about. It works out what they use and remembers
// it for the next one, so it serves one goroutine.
type World struct {
	*classes
	judge    *reach.Judge
	model    *policies.Model
	recorded Recorded
	meter    *meter // of the evaluation that goes on

	lists      map[string]ref.Val // the values of variables
	podObjects []object
	policyObjs []object // in the order of the model
	peers      map[string]*object
	byWorkload map[policies.Ref][]int
	namespaces map[string]*policies.Namespace
	selected   [][]int         // by each policy, for sure: pods
	ends       map[string]*end // by what names them
	queries    map[string]policies.PortQuery
	selectors  map[string]selector.Selector
	patterns   map[string]*regexp.Regexp
}

// Recorded are the flows of a world, with what finds the ends of the world that
// one end of them may be. The zero Recorded is none.
type Recorded struct {
	Flows []policies.Flow
	Find  func(*policies.FlowPeer) []reach.End
}

// NewWorld returns the world that a judge judges, with what was recorded there.
// Neither must change.
func NewWorld(j *reach.Judge, recorded Recorded) *World {
	w := &World{
		classes: environment().classes, judge: j, model: j.Model(), recorded: recorded,
		lists: map[string]ref.Val{}, peers: map[string]*object{}, ends: map[string]*end{},
		queries: map[string]policies.PortQuery{}, selectors: map[string]selector.Selector{}, patterns: map[string]*regexp.Regexp{},
		byWorkload: map[policies.Ref][]int{}, namespaces: map[string]*policies.Namespace{},
	}
	for i := range w.model.Namespaces {
		w.namespaces[w.model.Namespaces[i].Name] = &w.model.Namespaces[i]
	}
	w.podObjects = make([]object, len(w.model.Pods))
	for i := range w.model.Pods {
		p := &w.model.Pods[i]
		w.byWorkload[p.Workload] = append(w.byWorkload[p.Workload], i)
		w.podObjects[i] = object{w.classes.pod, w, &pod{p, i, &end{Target: policies.Target{Text: p.Ref.String(), Pods: []int{i}}}}}
	}
	w.policyObjs = make([]object, len(w.model.Policies))
	for i := range w.model.Policies {
		p := &policy{Policy: &w.model.Policies[i], index: i}
		w.policyObjs[i] = object{w.classes.policy, w, p}
		for _, d := range policies.Directions {
			for r := range p.Rules[d] {
				p.rules = append(p.rules, &object{w.classes.rule, w, &rule{&p.Rules[d][r], &w.policyObjs[i], d, r}})
			}
		}
	}
	return w
}

// variables gives each variable its value when an expression uses it, and not
// before.
type variables struct{ *World }

func (v variables) ResolveName(name string) (any, bool) {
	all := v.lists[name]
	if all == nil {
		all = v.list(name)
		v.lists[name] = all
	} else if name == "connections" && !v.meter.listed {
		v.meter.spend(uint64(all.(traits.Sizer).Size().(types.Int)))
	}
	v.meter.listed = v.meter.listed || name == "connections"
	return all, all != nil
}

func (v variables) Parent() cel.Activation { return nil }

func (w *World) list(name string) ref.Val {
	switch name {
	case "allow":
		return verdict(policies.Allow)
	case "deny":
		return verdict(policies.Deny)
	case "unknown":
		return verdict(policies.Unknown)
	case "pods":
		return list(w.podObjects, func(o *object) ref.Val { return o })
	case "policies":
		return list(w.judge.Order(), func(i *int) ref.Val { return &w.policyObjs[*i] })
	case "namespaces":
		return list(w.model.Namespaces, func(n *policies.Namespace) ref.Val { return &object{w.namespace, w, n} })
	case "services":
		return list(w.model.Services, func(s *policies.Service) ref.Val { return &object{w.service, w, s} })
	case "nodes":
		return list(w.model.Nodes, func(n *policies.Node) ref.Val { return &object{w.node, w, n} })
	case "workloads":
		return list(slices.SortedFunc(maps.Keys(w.byWorkload), policies.Ref.Compare), func(r *policies.Ref) ref.Val { return w.workload(*r) })
	case "connections":
		return w.listConnections()
	case "flows":
		return list(w.recorded.Flows, func(f *policies.Flow) ref.Val {
			return &object{w.flow, w, &flow{f, w.flowPeer(&f.From), w.flowPeer(&f.To)}}
		})
	}
	return nil
}

// listConnections lists what weir reach lists. Each connection costs a step.
func (w *World) listConnections() ref.Val {
	var all []ref.Val
	ports := map[*policies.Grant][2]*object{}
	peers := map[*policies.Peer]*object{}
	known := func(p *policies.Peer) *object {
		o := peers[p]
		if o == nil {
			o = w.peerOf(*p)
			peers[p] = o
		}
		return o
	}
	for c := range w.judge.Connections(reach.Listing{}) {
		w.meter.spend(1)
		granted, seen := ports[c.Grant]
		if !seen {
			granted = [2]*object{w.portsOf(c.Allow), w.portsOf(c.Unknown)}
			ports[c.Grant] = granted
		}
		all = append(all, &object{w.connection, w, &connection{known(c.From), known(c.To), granted[0], granted[1]}})
	}
	return types.NewRefValList(types.DefaultTypeAdapter, all)
}

func (w *World) portsOf(p netset.Ports) *object { return &object{w.ports, w, p} }

// peerOf returns the one object for a peer of the world.
func (w *World) peerOf(p policies.Peer) *object {
	key := p.Kind + " " + p.String()
	o := w.peers[key]
	if o == nil {
		pods := w.byWorkload[policies.Ref{Kind: p.Kind, Namespace: p.Namespace, Name: p.Name}]
		t := policies.Target{Text: p.String(), Pods: pods}
		if p.IsOutside() {
			t.Addresses = netset.Block{CIDR: *p.CIDR, Except: p.Except}.Addresses()
		}
		o = &object{w.peer, w, &peer{p, pods, w.sharedLabels(pods), &end{Target: t}}}
		w.peers[key] = o
	}
	return o
}

func (w *World) workload(r policies.Ref) *object {
	return w.peerOf(policies.Peer{Namespace: r.Namespace, Name: r.Name, Kind: r.Kind})
}

// sharedLabels returns the labels that all of some pods have.
func (w *World) sharedLabels(pods []int) labels {
	if len(pods) == 0 {
		return nil
	}
	shared := w.model.Pods[pods[0]].Labels
	for _, i := range pods[1:] {
		if other := w.model.Pods[i].Labels; !maps.Equal(shared, other) {
			shared = maps.Clone(shared)
			maps.DeleteFunc(shared, func(key, value string) bool {
				v, has := other[key]
				return !has || v != value
			})
		}
	}
	return shared
}

// flowPeer returns who a recorded end is: a workload, a node or an address of
// the world where it is found there, else what the record says.
func (w *World) flowPeer(f *policies.FlowPeer) *object {
	if ends := w.recorded.Find(f); len(ends) > 0 {
		p := w.judge.Peer(ends[0])
		if p.Kind != "Node" {
			p.Pod = ""
			return w.peerOf(p)
		}
		o := w.peerOf(p)
		o.of.(*peer).end = &end{Target: policies.Target{Text: p.String()}, ends: ends[:1], known: true}
		return o
	}
	p := policies.Peer{Namespace: f.Namespace, Name: f.Pod, Kind: "Pod"}
	switch {
	case f.Host || f.OwnNode:
		p = policies.Peer{Kind: "Node", Name: f.Address.String()}
	case len(f.Workloads) > 0:
		r := f.Workloads[0]
		p = policies.Peer{Namespace: r.Namespace, Name: r.Name, Kind: r.Kind}
	case f.Pod == "" && f.Address.IsValid():
		p = policies.Outside(netset.Block{CIDR: netip.PrefixFrom(f.Address, f.Address.BitLen())})
	}
	key := "recorded " + p.Kind + " " + p.String()
	o := w.peers[key]
	if o == nil {
		o = &object{w.peer, w, &peer{Peer: p, labels: f.Labels, end: &end{Target: policies.Target{Text: p.String()}, known: true}}}
		w.peers[key] = o
	}
	return o
}

func (w *World) namespaceLabels(name string) ref.Val {
	if n := w.namespaces[name]; n != nil {
		return labels(n.Labels)
	}
	return labels(nil)
}

func (w *World) podList(pods []int) ref.Val {
	return list(pods, func(i *int) ref.Val { return &w.podObjects[*i] })
}

// selects reports whether a policy selects a pod, in some direction.
func (w *World) selects(policy, pod int) policies.Truth {
	truth := policies.No
	for _, d := range policies.Directions {
		for _, g := range w.judge.Governing(d, w.judge.Pod(pod)) {
			if g.Policy == policy {
				truth = truth.Or(g.Truth)
			}
		}
	}
	return truth
}

func (w *World) policiesOf(pod int) ref.Val {
	var found []int
	for _, d := range policies.Directions {
		for _, g := range w.judge.Governing(d, w.judge.Pod(pod)) {
			if g.Truth == policies.Yes && !slices.Contains(found, g.Policy) {
				found = append(found, g.Policy)
			}
		}
	}
	return list(found, func(i *int) ref.Val { return &w.policyObjs[*i] })
}

func (w *World) podsOf(policy int) ref.Val {
	if w.selected == nil {
		selected := make([][]int, len(w.model.Policies))
		for pod := range w.model.Pods {
			for _, d := range policies.Directions {
				for _, g := range w.judge.Governing(d, w.judge.Pod(pod)) {
					if of := selected[g.Policy]; g.Truth == policies.Yes && (len(of) == 0 || of[len(of)-1] != pod) {
						selected[g.Policy] = append(of, pod)
					}
				}
			}
		}
		w.selected = selected
	}
	return w.podList(w.selected[policy])
}

func (w *World) isolated(d policies.Direction, pod int) ref.Val {
	return types.Bool(w.judge.Isolates(d, w.judge.Pod(pod)) == policies.Yes)
}

func itoa[N int | uint16](n N) string { return strconv.Itoa(int(n)) }
