package simulator

import (
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

// variants are the ends, other than a tuple's own, that its records may have by the
// pod or the address that they name, as far as rules may tell them apart.
type variants struct {
	other []*recorded
	among []*recorded // where the other end is of the same workload: another pod than that
	each  []*recorded // where the other end is a node: pods of all nodes
}

type variantsByEnd map[*recorded]*variants

// class is what rules tell pods apart by, before and after the change.
type class struct{ before, after int }

func (r *reading) classOf(pod int) class {
	c := class{r.before.judge.Class(pod), -1}
	if r.after != nil {
		ref := r.before.world.Pods[pod].Ref
		if ns := r.after.namespaces[ref.Namespace]; ns != nil {
			if i, ok := ns.pods[ref.Name]; ok {
				c.after = r.after.judge.Class(i)
			}
		}
	}
	return c
}

// variantsOf returns the variants of a tuple's named end; nil where it takes the
// records to tell whose they are.
func (r *reading) variantsOf(ns *members, p *policies.FlowPeer, e *recorded) *variants {
	v := &variants{}
	if p.Pod != "" {
		if i, ok := ns.pods[p.Pod]; ok {
			v.other = r.atAddresses(p, i)
			v.among, v.each = v.other, v.other
		}
		return v
	}
	if len(p.Workloads) == 0 && p.PodPrefix == "" {
		return v // had a record named a pod, its tuple would
	}
	var of *workload
	if e.before.cause == "" {
		peer := r.before.judge.Peer(e.before.ends[0])
		of = r.before.workloads[policies.Ref{Kind: peer.Kind, Namespace: peer.Namespace, Name: peer.Name}]
	}
	if !r.before.isSettled(ns, p, of) {
		return nil
	}
	if of == nil {
		return v
	}
	own, taken := map[class]bool{}, map[class]int{}
	for _, i := range of.pods {
		if slices.Contains(e.before.ends, r.before.judge.Pod(i)) {
			own[r.classOf(i)] = true
		}
	}
	mixed := len(own) > 1
	for _, i := range of.pods {
		pod := &r.before.world.Pods[i]
		if pod.Ref.Kind != "Pod" || !strings.HasPrefix(pod.Ref.Name, p.PodPrefix) {
			continue
		}
		named := *p
		named.Pod = pod.Ref.Name
		all := append(r.atAddresses(&named, i), r.find(&named))
		v.each = append(v.each, all...)
		c := r.classOf(i)
		if taken[c]++; taken[c] <= 2 || len(pod.Addresses) > 1 {
			v.among = append(v.among, all...)
		}
		if mixed || !own[c] || len(pod.Addresses) > 1 {
			own[c] = true
			v.other = append(v.other, all...)
		}
	}
	return v
}

// atAddresses returns a pod at each of its addresses, where it has several and the
// tuple does not say which.
func (r *reading) atAddresses(p *policies.FlowPeer, pod int) (all []*recorded) {
	addresses := r.before.world.Pods[pod].Addresses
	if p.Address.IsValid() || len(addresses) < 2 {
		return nil
	}
	for _, a := range addresses {
		at := *p
		at.Address = a
		all = append(all, r.find(&at))
	}
	return all
}

// isSettled reports whether all records of a tuple that keeps no pods apart are of
// the workload that it is of, whatever pods they name; of none where that is nil.
func (d *directory) isSettled(ns *members, p *policies.FlowPeer, of *workload) bool {
	claimed := 0
	for _, w := range ns.workloads {
		if slices.ContainsFunc(p.Workloads, func(claim policies.Ref) bool { return claims(claim, w.ref) }) {
			claimed++
		}
	}
	if claimed > 0 {
		return claimed == 1
	}
	for name, i := range ns.pods {
		if strings.HasPrefix(name, p.PodPrefix) && (of == nil || d.world.Pods[i].Workload != of.ref) {
			return false
		}
	}
	return !slices.ContainsFunc(ns.workloads, func(w *workload) bool {
		return mayBeOf(p, w.ref) && (p.PodPrefix == "" || w.ref.Kind == "StatefulSet" && prefixes(w.ref, p.PodPrefix))
	})
}

// varies reports whether records of a tuple may get another answer than it does, by
// the pods or addresses that they name.
func (r *reading) varies(f *policies.Flow, a *answer, from, to *recorded) bool {
	sources, targets := r.like(from, to), r.like(to, from)
	if len(sources) == 0 && len(targets) == 0 {
		return false
	}
	for _, source := range append(sources[:len(sources):len(sources)], from) {
		for _, target := range append(targets[:len(targets):len(targets)], to) {
			if r.ask(f, source, target) != a {
				return true
			}
		}
	}
	return false
}

// like returns the variants of an end that matter to the other.
func (r *reading) like(e, other *recorded) []*recorded {
	v := r.variants[e]
	switch {
	case v == nil:
		return nil
	case slices.ContainsFunc(other.before.ends, func(end reach.End) bool { return r.before.isOnNode(end) }):
		return v.each
	case e.group == other.group:
		return v.among
	}
	return v.other
}

// isOnNode reports whether an end is a node, or on its network.
func (d *directory) isOnNode(e reach.End) bool {
	peer := d.judge.Peer(e)
	if peer.Kind == "Node" {
		return true
	}
	i, ok := -1, false
	if ns := d.namespaces[peer.Namespace]; ns != nil {
		i, ok = ns.pods[peer.Pod]
	}
	return ok && d.world.Pods[i].HostNetwork
}
