package lint

import (
	"fmt"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func podRange(l *look) {
	ranges := netset.Prefixes(l.PodCIDRs...)
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		for k := range r.Peers {
			m := &r.Peers[k]
			if !m.Block.CIDR.IsValid() {
				continue
			}
			block := m.Block.Addresses()
			what := ""
			if shared := block.Intersect(ranges); !shared.IsEmpty() {
				what = fmt.Sprintf("addresses of pods (%s)", shared.CIDRs()[0])
			} else if pods := l.podsAt(block); len(pods) > 0 {
				what = fmt.Sprintf("the addresses of %s", l.workloads(pods))
			}
			switch {
			case what == "":
			case m.Block.CIDR.Bits() == 0:
				l.report(Note, m.Place, i, "%s takes in %s too, with most engines; if the internet is meant, add them to its except", m.Block.CIDR, what)
			case ranges.Covers(block) || m.Block.CIDR.IsSingleIP():
				l.report(Warning, m.Place, i, "%s is made of %s, which change with every start, and not every engine compares; select the pods by their labels", m.Block.CIDR, what)
			default:
				l.report(Warning, m.Place, i, "%s takes in %s, and not every engine compares those; add them to its except, and select pods by their labels", m.Block.CIDR, what)
			}
		}
	})
}

// podsAt returns the pods whose own addresses are known to be among these.
func (l *look) podsAt(addresses netset.Addresses) []int {
	var pods []int
	for i := range l.Pods {
		if l.Pods[i].HostNetwork {
			continue
		}
		for _, a := range l.Pods[i].Addresses {
			if addresses.Contains(a) {
				pods = append(pods, i)
				break
			}
		}
	}
	return pods
}
