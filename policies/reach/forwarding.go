package reach

import (
	"github.com/weir-policy/weir/policies"
)

// Forwarding returns the policies that govern, at the host endpoints of its node,
// what is forwarded to or from a pod, in the order of evaluation: perhaps, where
// the node is not known.
func (j *Judge) Forwarding(d policies.Direction, e End) []Governs {
	class := j.classOf(e)
	if class < 0 || j.classes[class].host() {
		return nil
	}
	node := j.classes[class].node
	truth := map[int]policies.Truth{}
	for at, lists := range j.hosts.forwarded {
		if node >= 0 && node != at {
			continue
		}
		for _, g := range lists[d] {
			t := g.truth
			if node < 0 {
				t = policies.Maybe
			}
			truth[j.book.index(g.policy)] = truth[j.book.index(g.policy)].Or(t)
		}
	}
	var all []Governs
	for _, p := range j.Order() {
		if t := truth[p]; t > policies.No {
			all = append(all, Governs{p, t})
		}
	}
	return all
}

// HostsOf returns the host endpoints that a policy applies to, as indexes of
// World.Hosts.
func (j *Judge) HostsOf(policy int) []int {
	var all []int
	h := hosts{world: j.world}
	for i := range j.world.Hosts {
		if h.isSubject(&j.Model().Policies[policy], &j.world.Hosts[i]) > policies.No {
			all = append(all, i)
		}
	}
	return all
}

// nodeName returns the name of a node that has host endpoints.
func (j *Judge) nodeName(id int32) string {
	for name, at := range j.nodeIDs {
		if at == id {
			return name
		}
	}
	return ""
}
