package enforcer

import (
	"errors"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/expression"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/netset"
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

// InvariantGuards returns guards that keep Invariants true whatever policies say: those
// among some documents, which are to be of the form never, without waivers. The error
// joins a policies.Problem for each that is not.
func InvariantGuards(docs []k8s.Document) ([]policies.Policy, error) {
	all, err := k8s.ReadInvariants(docs, func(string, []policies.Place) (expression.Program, error) {
		return nil, errors.New("only an invariant of the form never can be a guard")
	})
	if err != nil {
		return nil, err
	}
	var guards []policies.Policy
	var problems []error
	for i := range all {
		v := &all[i]
		switch {
		case v.Form != invariant.Never:
			problems = append(problems, policies.Problem{Place: v.FormPlace, Message: "only an invariant of the form never can be a guard, not " + v.Form.String()})
			continue
		case len(v.Waivers) > 0:
			problems = append(problems, policies.Problem{Place: v.Waivers[0].Place, Message: "a guard forgives nothing; remove the waiver, or the invariant from the guards"})
			continue
		}
		rule := policies.Rule{Action: policies.ActionDeny, Place: v.FormPlace}
		for _, p := range v.Ports {
			rule.Ports = rule.Ports.Union(p.Ports)
			if p.Name != "" {
				for _, protocol := range netset.Transports {
					rule.Named = append(rule.Named, policies.NamedPort{Protocol: protocol, Name: p.Name})
				}
			}
		}
		if len(v.Ports) == 0 {
			rule.Ports = netset.EveryPort(netset.Transports[:]...)
		}
		for d, ends := range [...][2][]policies.Match{policies.Egress: {v.From, v.To}, policies.Ingress: {v.To, v.From}} {
			guard := policies.Policy{Ref: v.Ref, Subject: invariant.Pods(), Place: v.Place}
			guard.Ref.Name += " (" + policies.Direction(d).String() + ")"
			denies := rule
			denies.Own, denies.Peers = &policies.Match{Any: ends[0]}, ends[1]
			guard.Governs[d], guard.Rules[d] = true, []policies.Rule{denies}
			guards = append(guards, guard)
		}
	}
	return guards, errors.Join(problems...)
}
