package lint

import (
	"fmt"
	"net/netip"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/reach"
)

func exceptWithoutEffect(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		if r.Action != policies.ActionAllow || r.Unclear != "" || r.Own != nil {
			return
		}
		for k := range r.Peers {
			m := &r.Peers[k]
			for _, except := range m.Block.Except {
				l.exception(i, d, r, m, except)
			}
			for e := range m.Except {
				if but := &m.Except[e]; but.Block.CIDR.IsValid() {
					l.exception(i, d, r, but, but.Block.CIDR)
				}
			}
		}
	})
}

// exception reports an exception whose addresses are allowed on the rule's ports
// all the same.
func (l *look) exception(i int, d policies.Direction, r *policies.Rule, m *policies.Match, except netip.Prefix) {
	var open []int
	asked := 0
	for _, pod := range l.subjects[d][i] {
		ports := r.Ports
		if d == policies.Ingress {
			ports = numbers(r, &l.Pods[pod])
		}
		if ports = ports.Intersect(netset.TransportPorts()); ports.IsEmpty() {
			continue
		}
		asked++
		if ports.Minus(l.judge.OpenTo(d, pod, netset.Prefix(except))).IsEmpty() {
			open = append(open, pod)
		}
	}
	if len(open) == 0 {
		return
	}
	who := ""
	if len(open) < asked {
		who = " for " + l.workloads(open)
	}
	side := l.allowing(d, open[0], except.Addr(), r)
	by := "another rule"
	if side.Policy != nil && side.Rule != nil {
		by = fmt.Sprintf("rule %d of %s", *side.Rule+1, side.Policy)
		if *side.Policy == l.Policies[i].Ref {
			by = fmt.Sprintf("rule %d of this policy", *side.Rule+1)
		}
	}
	f := l.report(Warning, m.Place, i, "the exception %s has no effect%s: %s allows it on the same ports; except it there too, or remove it here", except, who, by)
	f.See = side.At
}

// allowing returns the decision of a pod's policies on an address, on the first
// port of a rule.
func (l *look) allowing(d policies.Direction, pod int, address netip.Addr, r *policies.Rule) policies.Side {
	ports := r.Ports
	if d == policies.Ingress {
		ports = numbers(r, &l.Pods[pod])
	}
	ends := [2]reach.End{policies.Egress: l.judge.Pod(pod), policies.Ingress: l.judge.Outside(address)}
	if d == policies.Ingress {
		ends[0], ends[1] = ends[1], ends[0]
	}
	for span := range ports.Intersect(netset.TransportPorts()).Ranges() {
		return l.judge.Decide(ends[0], ends[1], span.Protocol, span.First).Sides[d]
	}
	return policies.Side{}
}
