package enforcer

import (
	"cmp"
	"fmt"

	"github.com/weir-policy/weir/enforcer/nft"
	"github.com/weir-policy/weir/policies"
)

// Mode is what an annotation of a policy, or a label of a namespace, says about how far
// they count: whether what is denied passes nevertheless, counted and logged.
const Mode = "weir.dev/mode"

// The modes.
const (
	ModeObserve = "observe"
	ModeEnforce = "enforce"
)

// GuardTier is the name of the tier that guards stand in, before all others.
const GuardTier = "guards"

// withGuards returns a model in which guards stand above all policies.
func withGuards(m *policies.Model, guards []policies.Policy) *policies.Model {
	if len(guards) == 0 {
		return m
	}
	with := *m
	with.Tiers = append([]policies.Tier{{Name: GuardTier, End: policies.ActionPass}}, m.Tiers...)
	with.Policies = make([]policies.Policy, 0, len(guards)+len(m.Policies))
	for _, p := range guards {
		p.Tier = GuardTier
		with.Policies = append(with.Policies, p)
	}
	with.Policies = append(with.Policies, m.Policies...)
	return &with
}

// onlyGuards returns a model of no other policies than the guards.
func onlyGuards(m *policies.Model) *policies.Model {
	only := *m
	only.Policies = nil
	for _, p := range m.Policies {
		if p.Tier == GuardTier {
			only.Policies = append(only.Policies, p)
		}
	}
	return &only
}

// modes are what policies and namespaces say about how far they count.
type modes struct {
	observed map[string]bool       // namespaces
	policies map[policies.Ref]bool // that are observed
	refusals []nft.Refusal
}

// modesOf reads the modes. A policy that says none has that of its namespace, and that
// of the agent where that says none either. What says nonsense is enforced.
func modesOf(m *policies.Model, observe bool) modes {
	all := modes{observed: map[string]bool{}, policies: map[policies.Ref]bool{}}
	named := map[string]string{}
	for i := range m.Namespaces {
		n := &m.Namespaces[i]
		named[n.Name] = all.read(n.Labels[Mode], policies.Ref{Kind: "Namespace", Name: n.Name}, n.Place)
		if named[n.Name] == ModeObserve {
			all.observed[n.Name] = true
		}
	}
	for i := range m.Policies {
		p := &m.Policies[i]
		if p.Tier == GuardTier {
			continue
		}
		mode := cmp.Or(all.read(p.Annotations[Mode], p.Ref, p.Place), named[p.Ref.Namespace])
		if mode == ModeObserve || mode == "" && observe {
			all.policies[p.Ref] = true
		}
	}
	return all
}

func (a *modes) read(text string, of policies.Ref, at policies.Place) string {
	if text != "" && text != ModeObserve && text != ModeEnforce {
		a.refusals = append(a.refusals, nft.Refusal{
			Place: at, Reason: fmt.Sprintf("%s %s has %s %q, which is neither %s nor %s; it is enforced", of.What(), of, Mode, text, ModeObserve, ModeEnforce),
		})
		return ModeEnforce
	}
	return text
}

// enforced returns the model of those policies that are more than observed, nil where
// all are.
func (a *modes) enforced(m *policies.Model) *policies.Model {
	if len(a.policies) == 0 {
		return nil
	}
	only := *m
	only.Policies = nil
	for _, p := range m.Policies {
		if !a.policies[p.Ref] {
			only.Policies = append(only.Policies, p)
		}
	}
	return &only
}
