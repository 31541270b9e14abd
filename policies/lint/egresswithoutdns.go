package lint

import (
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func egressWithoutDNS(l *look) {
	dns, served := l.dnsPorts()
	mute := map[int][]int{} // pods without DNS, by the policy to add it to
	governing := make([][]int, len(l.Pods))
	for i, pods := range l.subjects[policies.Egress] {
		for _, pod := range pods {
			governing[pod] = append(governing[pod], i)
		}
	}
	for pod := range l.Pods {
		allow, unknown := l.judge.Open(policies.Egress, pod)
		if allow.Union(unknown).Intersect(dns).IsEmpty() {
			if i := l.egressOf(governing[pod], dns, served); i >= 0 {
				mute[i] = append(mute[i], pod)
			}
		}
	}
	for i := range l.Policies {
		if pods := mute[i]; pods != nil {
			l.report(Warning, l.Policies[i].Rules[policies.Egress][0].Place, i, "%s may open connections but ask no DNS server, so no name resolves there; allow UDP and TCP 53 to the cluster's DNS", l.workloads(pods))
		}
	}
}

// dnsPorts returns the ports at which pods ask for names: 53, and what Services
// lead their port 53 to. served is set where there is such a Service.
func (l *look) dnsPorts() (ports netset.Ports, served bool) {
	for _, p := range []netset.Protocol{netset.UDP, netset.TCP} {
		ports = ports.Union(netset.PortSpan(p, 53, 53))
	}
	for i := range l.Services {
		s := &l.Services[i]
		for _, p := range s.Ports {
			if p.Port != 53 || p.Protocol != netset.UDP && p.Protocol != netset.TCP || len(s.Pods) == 0 {
				continue
			}
			served = true
			if p.Target > 0 {
				ports = ports.Union(netset.PortSpan(p.Protocol, p.Target, p.Target))
			}
			named := policies.Rule{Named: []policies.NamedPort{{Protocol: p.Protocol, Name: p.TargetName}}}
			for _, pod := range s.Pods {
				ports = ports.Union(numbers(&named, &l.Pods[pod]))
			}
		}
	}
	return ports, served
}

// egressOf returns the first of a pod's policies that allows it some egress; -1
// where none does, so that it needs no names, and where a rule means a DNS
// server that is not in the world.
func (l *look) egressOf(governing []int, dns netset.Ports, served bool) int {
	first := -1
	for _, i := range governing {
		if l.Policies[i].IsBuiltIn() {
			continue
		}
		for _, r := range l.Policies[i].Rules[policies.Egress] {
			if r.Action != policies.ActionAllow {
				continue
			}
			if !served && meansDNS(&r, dns) {
				return -1
			}
			if first < 0 {
				first = i
			}
		}
	}
	return first
}

func meansDNS(r *policies.Rule, dns netset.Ports) bool {
	return !r.Ports.Intersect(dns).IsEmpty() || slices.ContainsFunc(r.Named, func(n policies.NamedPort) bool { return strings.Contains(n.Name, "dns") })
}
