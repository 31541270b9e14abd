package simulator

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
)

// Leases tell whose an address was at a time. Pods come and go, and an address
// that a record has alone means the pod that had it then, not the one that has it
// now. What is learned may come in any order; memory grows with the distinct pairs
// of an address and a pod. The zero Leases know nothing, and may be taught. They
// are not safe for concurrent use.
type Leases struct {
	of map[netip.Addr]map[holder]*lease
}

// holder is a pod, or a node.
type holder struct{ namespace, pod, node string }

// lease is the time between the first and the last moment, both included, in which
// a holder is known to have had an address. A pod keeps its address for life; one
// of a StatefulSet that comes back to the same address is taken to have kept it,
// unless another is known to have had it in between.
type lease struct {
	first, last time.Time
	peer        policies.FlowPeer // of the latest moment
	known       time.Time         // that moment
}

// LearnFlow takes in the ends of a flow that have both a name and an address.
func (l *Leases) LearnFlow(f *policies.Flow) {
	for _, p := range []*policies.FlowPeer{&f.From, &f.To} {
		if p.Address.IsValid() && isNamed(p) && p.Pod != "" {
			l.learn(plain(p.Address), holder{namespace: p.Namespace, pod: p.Pod}, f.First, f.Last, p)
		}
	}
}

// LearnWorld takes in the pods and nodes of a world as it was at a time. Pods on
// the host's network have the node's addresses, which are the node's.
func (l *Leases) LearnWorld(w *policies.World, at time.Time) {
	for i := range w.Pods {
		p := &w.Pods[i]
		if p.HostNetwork || p.Ref.Kind != "Pod" {
			continue
		}
		since := at
		if !p.Since.IsZero() {
			since = earliest(p.Since, at)
		}
		peer := policies.FlowPeer{Namespace: p.Ref.Namespace, Pod: p.Ref.Name, Labels: p.Labels}
		if p.Workload != p.Ref {
			peer.Workloads = []policies.Ref{p.Workload}
		}
		for _, a := range p.Addresses {
			l.learn(plain(a), holder{namespace: p.Ref.Namespace, pod: p.Ref.Name}, since, at, &peer)
		}
	}
	for _, n := range w.Nodes {
		peer := policies.FlowPeer{Host: true, Workloads: []policies.Ref{{Kind: "Node", Name: n.Name}}}
		for _, a := range n.Addresses {
			l.learn(plain(a), holder{node: n.Name}, at, at, &peer)
		}
	}
}

func (l *Leases) learn(a netip.Addr, h holder, first, last time.Time, p *policies.FlowPeer) {
	if first.IsZero() {
		return
	}
	last = latest(first, last)
	if l.of == nil {
		l.of = map[netip.Addr]map[holder]*lease{}
	}
	if l.of[a] == nil {
		l.of[a] = map[holder]*lease{}
	}
	known := l.of[a][h]
	if known == nil {
		known = &lease{first: first, last: last}
		l.of[a][h] = known
	}
	known.first, known.last = earliest(known.first, first), latest(known.last, last)
	if c := last.Compare(known.known); known.known.IsZero() || c > 0 || c == 0 && tellsMore(p, &known.peer) {
		known.known, known.peer = last, kept(*p)
	}
}

// kept returns an end that does not change with p.
func kept(p policies.FlowPeer) policies.FlowPeer {
	p.Labels, p.Workloads, p.Names = maps.Clone(p.Labels), slices.Clone(p.Workloads), slices.Clone(p.Names)
	return p
}

// tellsMore orders what is known of a holder at one moment: complete labels come
// before partial ones, and those before none.
func tellsMore(p, q *policies.FlowPeer) bool {
	rank := func(p *policies.FlowPeer) int {
		switch {
		case p.Labels == nil:
			return 0
		case p.LabelsPartial:
			return 1
		}
		return 2
	}
	return cmp.Or(cmp.Compare(rank(p), rank(q)), cmp.Compare(len(p.Workloads), len(q.Workloads)), strings.Compare(fmt.Sprint(*p), fmt.Sprint(*q))) > 0
}

// Resolve gives each end that a record knows by its address alone the name of
// whoever had that address during the whole of the record's time. It returns to
// how many it did, and why, for each end that it leaves as it is.
func (l *Leases) Resolve(f *policies.Flow) (named int, causes []string) {
	for _, p := range []*policies.FlowPeer{&f.From, &f.To} {
		if !p.Address.IsValid() || p.Namespace != "" || p.Pod != "" || p.Host || p.OwnNode || isOutside(p) {
			continue
		}
		who, cause := l.holder(plain(p.Address), f.First, latest(f.First, f.Last))
		if who == nil {
			causes = append(causes, cause)
			continue
		}
		named++
		p.Namespace, p.Pod, p.Host = who.Namespace, who.Pod, who.Host
		p.Workloads, p.Labels, p.LabelsPartial = who.Workloads, who.Labels, who.LabelsPartial
	}
	return named, causes
}

// holder returns who had an address from first to last.
func (l *Leases) holder(a netip.Addr, first, last time.Time) (who *policies.FlowPeer, cause string) {
	if first.IsZero() {
		return nil, "a record says no time, so nobody knows who had its address then"
	}
	var had []*lease
	for h, lease := range l.of[a] {
		if h.node != "" { // pods that are recorded with it are on its network
			return l.node(a, first, last)
		}
		if !lease.first.After(last) && !lease.last.Before(first) {
			had = append(had, lease)
		}
	}
	switch {
	case len(l.of[a]) == 0:
		return nil, "nobody is known to have had an address"
	case len(had) == 0:
		return nil, "nobody is known to have had an address at that time"
	case len(had) > 1:
		return nil, "several pods had an address in the time of a record"
	case had[0].first.After(first) || had[0].last.Before(last):
		return nil, "a pod is known to have had an address for part of a record's time only"
	}
	return &had[0].peer, ""
}

// node is holder for the address of a node, which keeps it from when anybody is
// first seen with it to when anybody last is.
func (l *Leases) node(a netip.Addr, first, last time.Time) (who *policies.FlowPeer, cause string) {
	var from, to time.Time
	var nodes []string
	for h, lease := range l.of[a] {
		from, to = earliest(from, lease.first), latest(to, lease.last)
		if h.node != "" {
			nodes = append(nodes, h.node)
			who = &lease.peer
		}
	}
	switch {
	case len(nodes) > 1:
		slices.Sort(nodes)
		return nil, fmt.Sprintf("nodes %s and %s had the same address", nodes[0], nodes[1])
	case from.After(first) || to.Before(last):
		return nil, "nobody is known to have had an address at that time"
	}
	return who, ""
}
