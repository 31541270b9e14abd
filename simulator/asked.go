package simulator

import (
	"net/netip"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/selector"
)

// Asked is what a pattern asks of an end, for stores that choose records before
// a Filter judges them: all that is not zero.
type Asked struct {
	Namespace, Pod string
	Kind, Name     string // of a workload; without a kind, the name may be that of a pod
	Labels         *selector.Selector
	Addresses      netip.Prefix
	Outside        bool
}

// Asked returns what the pattern asks for.
func (e *End) Asked() Asked {
	return Asked{e.namespace, e.pod, e.kind, e.name, e.labels, e.addresses, e.outside}
}

// Asked returns the tier that the pattern asks for, or the policies any of which
// it does; one without a kind stands for every kind.
func (p *HitPattern) Asked() (tier string, either []policies.Ref) { return p.tier, p.either }
