package lint

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

func unknownPort(l *look) {
	l.rules(func(i int, d policies.Direction, _ int, r *policies.Rule) {
		if len(r.Named) == 0 {
			return
		}
		pods, whose := l.destinations(i, d, r)
		if len(pods) == 0 {
			return // selects-nothing and peer-matches-nothing say so
		}
		does := map[policies.Action]string{policies.ActionDeny: "closes", policies.ActionAllow: "opens"}
		for k, n := range r.Named {
			if slices.ContainsFunc(r.Named[:k], func(o policies.NamedPort) bool { return o.Name == n.Name }) {
				continue // of another protocol, and spoken of
			}
			if why := l.unknownName(i, n.Name, r, pods); why != "" {
				l.report(Warning, r.Place, i, "no pod that %s has a %s port named %s, so that name %s nothing%s", whose,
					enumerate(protocolsOf(n.Name, r), "or"), n.Name, cmp.Or(does[r.Action], "matches"), why)
			}
		}
	})
}

// destinations returns the pods whose ports a rule names.
func (l *look) destinations(i int, d policies.Direction, r *policies.Rule) (pods []int, whose string) {
	if d == policies.Ingress {
		pods, whose = slices.Clone(l.subjects[d][i]), "the policy applies to"
	} else {
		whose = "the rule speaks of"
		for k := range r.Peers {
			pods = append(pods, l.parts.Pods(&r.Peers[k])...)
		}
		slices.Sort(pods)
		pods = slices.Compact(pods)
	}
	return slices.DeleteFunc(pods, func(p int) bool { return l.Pods[p].HostNetwork }), whose
}

// protocolsOf returns the protocols for which a rule means a port's name.
func protocolsOf(name string, r *policies.Rule) []string {
	var protocols []string
	for _, n := range r.Named {
		if n.Name == name {
			protocols = append(protocols, n.Protocol.String())
		}
	}
	return protocols
}

// unknownName returns a hint where no pod has a port of that name, "" where one
// has.
func (l *look) unknownName(policy int, name string, r *policies.Rule, pods []int) string {
	var names []string
	var other netset.Protocol
	meant := func(c policies.ContainerPort) bool {
		return c.Name == name && slices.Contains(r.Named, policies.NamedPort{Protocol: c.Protocol, Name: name})
	}
	if l.Policies[policy].Ref.Group == policies.CalicoGroup {
		for i := range l.Hosts {
			if slices.ContainsFunc(l.Hosts[i].Ports, meant) {
				return ""
			}
		}
	}
	for _, p := range pods {
		for _, c := range l.Pods[p].Ports {
			switch {
			case meant(c):
				return ""
			case c.Name == name:
				other = c.Protocol
			case c.Name != "":
				names = append(names, c.Name)
			}
		}
	}
	switch {
	case other != 0:
		return fmt.Sprintf("; it is a port of %s, so write \"protocol: %s\"", other, other)
	case len(names) == 0:
		return "; give the port of a container that name, or write the number"
	}
	return policies.Near(name, names)
}
