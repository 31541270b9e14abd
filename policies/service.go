package policies

import (
	"fmt"
	"strings"

	"github.com/weir-policy/weir/policies/netset"
)

// Behind returns the ports of a pod to which the Service leads those of a
// question: policies see the connection there. It is empty where the Service
// means a port's name that the pod does not have, and fails where the Service
// offers no such port.
func (s *Service) Behind(pod *Pod, q PortQuery) (netset.Ports, error) {
	var ports netset.Ports
	var offered []string
	found := false
	for _, p := range s.Ports {
		offered = append(offered, fmt.Sprintf("%s/%d", p.Protocol, p.Port))
		if q.Name != "" && q.Name != p.Name || q.Name == "" && !q.Ports.Contains(p.Protocol, p.Port) {
			continue
		}
		found = true
		if p.TargetName == "" {
			ports = ports.Union(netset.PortSpan(p.Protocol, p.Target, p.Target))
			continue
		}
		for _, c := range pod.Ports {
			if c.Name == p.TargetName && c.Protocol == p.Protocol {
				ports = ports.Union(netset.PortSpan(c.Protocol, c.Number, c.Number))
			}
		}
	}
	if !found {
		asked := q.Name
		if asked == "" {
			asked = q.Ports.String()
		}
		return ports, fmt.Errorf("service %s has no port %s; it offers %s", s.Ref, asked, strings.Join(offered, ", "))
	}
	return ports, nil
}
