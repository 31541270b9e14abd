package lint

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func podRange(l *look) {
	ranges, known := netset.Prefixes(l.PodCIDRs...), l.placedPods()
	look := func(i int, m *policies.Match) {
		if !m.Block.CIDR.IsValid() {
			return
		}
		block := m.Block.Addresses()
		what := ""
		if shared := block.Intersect(ranges); !shared.IsEmpty() {
			what = fmt.Sprintf("addresses of pods (%s)", shared.CIDRs()[0])
		} else if pods := podsAt(known, block); len(pods) > 0 {
			what = fmt.Sprintf("the addresses of %s", l.workloads(pods))
		}
		within := ranges.Covers(block) || m.Block.CIDR.IsSingleIP()
		switch {
		case what == "":
		case m.InCluster && within && !slices.Contains(l.PodCIDRs, m.Block.CIDR):
			l.report(Warning, m.Place, i, "%s is made of %s, which change with every start; select the pods by their labels", m.Block.CIDR, what)
		case m.InCluster: // their engines compare them all alike
		case m.Block.CIDR.Bits() == 0:
			l.report(Note, m.Place, i, "%s takes in %s too, with most engines; if the internet is meant, add them to its except", m.Block.CIDR, what)
		case within:
			l.report(Warning, m.Place, i, "%s is made of %s, which change with every start, and not every engine compares; select the pods by their labels", m.Block.CIDR, what)
		default:
			l.report(Warning, m.Place, i, "%s takes in %s, and not every engine compares those; add them to its except, and select pods by their labels", m.Block.CIDR, what)
		}
	}
	l.rules(func(i int, _ policies.Direction, _ int, r *policies.Rule) {
		for k := range r.Peers {
			eachPart(&r.Peers[k], func(m *policies.Match) { look(i, m) })
		}
	})
}

// placed is a pod with one of its addresses.
type placed struct {
	address netip.Addr
	pod     int
}

// placedPods returns the pods' own addresses as far as they are known, in order.
func (l *look) placedPods() []placed {
	var all []placed
	for i := range l.Pods {
		if l.Pods[i].HostNetwork {
			continue
		}
		for _, a := range l.Pods[i].Addresses {
			all = append(all, placed{a, i})
		}
	}
	slices.SortFunc(all, func(a, b placed) int { return a.address.Compare(b.address) })
	return all
}

// podsAt returns the pods with one of these addresses.
func podsAt(all []placed, addresses netset.Addresses) []int {
	var pods []int
	for first, last := range addresses.Spans() {
		i, _ := slices.BinarySearchFunc(all, first, func(p placed, a netip.Addr) int { return p.address.Compare(a) })
		for ; i < len(all) && all[i].address.Compare(last) <= 0; i++ {
			pods = append(pods, all[i].pod)
		}
	}
	slices.Sort(pods)
	return slices.Compact(pods)
}
