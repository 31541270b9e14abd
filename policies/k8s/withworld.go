package k8s

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// WithWorldOf returns a model of the policies and tiers of the first and the
// world of the second, with the warnings of both. Tiers of Calico and Services
// that the policies name may be of the second alone; host endpoints, with what
// decides about them besides policies, always are.
func WithWorldOf(policyModel, worldModel *policies.Model) *policies.Model {
	m := &policies.Model{
		World:    worldModel.World,
		Tiers:    policyModel.Tiers,
		Policies: policyModel.Policies,
		Staged:   policyModel.Staged,
		Warnings: slices.Concat(policyModel.Warnings, worldModel.Warnings),
	}
	if isCalico(policyModel) || isCalico(worldModel) {
		if !isCalico(worldModel) {
			m.Pods = slices.Clone(m.Pods)
			dropCalicoLabels(m.Pods)
		}
		rearrange(m, policyModel, worldModel)
	}
	m.Warnings = sortWarnings(m.Warnings)
	return m
}

// isCalico reports whether Calico decides: its tiers say what becomes of ICMP.
func isCalico(m *policies.Model) bool {
	return slices.ContainsFunc(m.Tiers, func(t policies.Tier) bool { return t.Name == Tier && t.Undefined.IsEmpty() })
}

// rearrange puts the policies of one model into the tiers of two, and resolves
// the Services that they name and only the world has.
func rearrange(m, policyModel, worldModel *policies.Model) {
	known := knownTiers{}
	for _, of := range []*policies.Model{worldModel, policyModel} {
		made := map[string]bool{} // for hooks and host endpoints
		for i := range of.Policies {
			p := &of.Policies[i]
			_, h := cutHook(p.Tier)
			made[p.Tier] = h != policies.Filtering || p.IsBuiltIn()
		}
		for i := range of.Staged {
			_, h := cutHook(of.Staged[i].Policy.Tier)
			made[of.Staged[i].Policy.Tier] = h != policies.Filtering
		}
		for _, t := range of.Tiers {
			if isCalico(of) && !t.Missing && !made[t.Name] {
				known[t.Name] = t
			}
		}
	}
	services := servicesOf(&m.World)
	for ref := range servicesOf(&policyModel.World) {
		delete(services, ref) // these are resolved
	}
	var all []*policies.Policy
	place := func(p policies.Policy) policies.Policy {
		known.place(&p)
		for d := range p.Rules {
			p.Rules[d] = slices.Clone(p.Rules[d])
		}
		resolveRules(&p, services.get)
		all = append(all, &p)
		return p
	}
	m.Policies, m.Staged = nil, nil
	for _, p := range policyModel.Policies {
		if !p.IsBuiltIn() {
			m.Policies = append(m.Policies, place(p))
		}
	}
	for _, s := range policyModel.Staged {
		s.Policy = place(s.Policy)
		m.Staged = append(m.Staged, s)
	}
	for _, p := range worldModel.Policies {
		if p.IsBuiltIn() {
			all = append(all, &p)
			m.Policies = append(m.Policies, p)
		}
	}
	m.Tiers = known.sort(all)
	stale := append(missingTiers(policyModel), missingServices(policyModel)...)
	m.Warnings = slices.DeleteFunc(m.Warnings, func(w policies.Warning) bool { return slices.Contains(stale, w) })
	m.Warnings = slices.Concat(m.Warnings, missingTiers(m), missingServices(m))
}
