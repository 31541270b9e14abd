package lint

import (
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
		for _, n := range r.Named {
			if why := l.unknownName(n, pods); why != "" {
				l.report(Warning, r.Place, i, "no pod that %s has a %s port named %s, so that name opens nothing%s", whose, n.Protocol, n.Name, why)
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

// unknownName returns a hint where no pod has a port of that name, "" where one
// has.
func (l *look) unknownName(n policies.NamedPort, pods []int) string {
	var names []string
	var other netset.Protocol
	for _, p := range pods {
		for _, c := range l.Pods[p].Ports {
			switch {
			case c.Name == n.Name && c.Protocol == n.Protocol:
				return ""
			case c.Name == n.Name:
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
	return policies.Near(n.Name, names)
}
