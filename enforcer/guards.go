package enforcer

import (
	"errors"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/k8s"
)

// Guards returns the policies of a model that is all guards, in their order: they stand
// above every policy, so that what they deny nobody can open. The error joins a
// policies.Problem for each that is none of Kubernetes' own policies of administrators:
// of any other kind one that allows something would close all the rest.
func Guards(m *policies.Model) ([]policies.Policy, error) {
	var problems []error
	for i := range m.Policies {
		if p := &m.Policies[i]; p.Tier != k8s.AdminTier {
			problems = append(problems, policies.Problem{
				Place: p.Place, Message: p.Ref.What() + " " + p.Ref.String() + " cannot be a guard; write it as a ClusterNetworkPolicy of tier Admin",
			})
		} else if p.Opaque != "" {
			problems = append(problems, policies.Problem{Place: p.Place, Message: p.Opaque})
		}
	}
	return slices.Clone(m.Policies), errors.Join(problems...)
}
