package k8s

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// service is a Service whose pods are still to be found.
type service struct {
	policies.Service
	selector map[string]string
}

func (r *reader) readService(o object) {
	spec := o.field("spec")
	s := service{
		Service:  policies.Service{Ref: o.ref, Place: o.place()},
		selector: spec.field("selector").labels(),
	}
	switch {
	case spec.field("type").text() == "ExternalName":
		s.External = "it is an alias of " + spec.field("externalName").text()
		s.selector = nil
	case len(s.selector) == 0:
		s.External = "it has no selector"
	}
	for _, ip := range append(spec.field("clusterIPs").items(), spec.field("clusterIP")) {
		if ip.present() && ip.node.Value != "None" {
			s.ClusterIP = appendAddress(s.ClusterIP, ip)
		}
	}
	for _, p := range spec.field("ports").items() {
		if port, ok := readServicePort(p); ok {
			s.Ports = append(s.Ports, port)
		}
	}
	r.services = append(r.services, s)
}

func readServicePort(v value) (policies.ServicePort, bool) {
	number := v.field("port")
	if !number.present() {
		v.problem("a port of a Service without port; give it a number")
		return policies.ServicePort{}, false
	}
	n, ok := number.integer(1, 65535)
	port := policies.ServicePort{
		Name:     v.field("name").text(),
		Protocol: v.field("protocol").protocol(),
		Port:     uint16(n),
		Target:   uint16(n),
	}
	// The API takes a target port of 0 or "" for none.
	if target := v.field("targetPort"); target.isText() {
		if name := target.text(); name != "" {
			port.Target, port.TargetName = 0, name
		}
	} else if t, given := target.integer(0, 65535); given && t > 0 {
		port.Target = uint16(t)
	}
	return port, ok
}

// isText reports whether the value is meant as a name rather than a number.
func (v value) isText() bool { return v.present() && v.node.Tag != "!!int" && v.node.Tag != "!!float" }

// resolveServices finds the pods behind each Service. Every label of a pod is
// looked up once; a Service is found under the label that fewest others ask for.
func resolveServices(services []service, pods []policies.Pod) []policies.Service {
	type label struct{ namespace, key, value string }
	asked := map[label]int{}
	for _, s := range services {
		for k, v := range s.selector {
			asked[label{s.Ref.Namespace, k, v}]++
		}
	}
	byLabel := map[label][]int{}
	for i, s := range services {
		var rarest label
		for k, v := range s.selector {
			if l := (label{s.Ref.Namespace, k, v}); rarest.key == "" || asked[l] < asked[rarest] {
				rarest = l
			}
		}
		if len(s.selector) > 0 {
			byLabel[rarest] = append(byLabel[rarest], i)
		}
	}
	for i, p := range pods {
		for k, v := range p.Labels {
			for _, s := range byLabel[label{p.Ref.Namespace, k, v}] {
				if selects(services[s].selector, p.Labels) {
					services[s].Pods = append(services[s].Pods, i)
				}
			}
		}
	}
	var resolved []policies.Service
	for _, s := range services {
		resolved = append(resolved, s.Service)
	}
	slices.SortFunc(resolved, func(a, b policies.Service) int { return a.Ref.Compare(b.Ref) })
	return resolved
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if value, has := labels[k]; !has || value != v {
			return false
		}
	}
	return true
}
