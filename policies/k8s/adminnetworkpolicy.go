package k8s

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// baselineName is the name of the one BaselineAdminNetworkPolicy of a cluster.
const baselineName = "default"

var adminDialect = &dialect{
	fields:      []string{"priority", "subject", "ingress", "egress"},
	actions:     []action{{"Allow", policies.ActionAllow}, {"Deny", policies.ActionDeny}, {"Pass", policies.ActionPass}},
	most:        100,
	egressPeers: allEgressPeers,
	scoped:      true,
	ports:       "ports",
	readPort:    readAdminPort,
}

var baselineDialect = &dialect{
	fields:      []string{"subject", "ingress", "egress"},
	actions:     adminDialect.actions[:2],
	most:        100,
	egressPeers: []string{"namespaces", "pods", "nodes", "networks"},
	scoped:      true,
	ports:       "ports",
	readPort:    readAdminPort,
}

func (r *reader) readAdminNetworkPolicy(o object) { adminDialect.read(r, o, AdminTier) }

func (r *reader) readBaselineAdminNetworkPolicy(o object) {
	if name := o.meta.field("name"); o.ref.Name != "" && o.ref.Name != baselineName {
		name.orElse(o.meta).problem("a cluster has one BaselineAdminNetworkPolicy, named %q; rename it", baselineName)
	}
	baselineDialect.read(r, o, BaselineTier)
}

// readAdminPort adds the ports of one item of "ports" to the rule.
func readAdminPort(v value, rule *policies.Rule) {
	one, ok := v.one("portNumber", "portRange", "namedPort")
	if !ok {
		return
	}
	switch one.name {
	case "namedPort":
		one.addNamed(rule)
	case "portRange":
		one.only("protocol", "start", "end")
		one.addRange(one.field("protocol").protocol(), rule)
	default:
		one.only("protocol", "port")
		protocol := one.field("protocol").protocol()
		if n, ok := one.need("port", "it is a number").integer(1, 65535); ok {
			rule.Ports = rule.Ports.Union(netset.PortSpan(protocol, uint16(n), uint16(n)))
		}
	}
}
