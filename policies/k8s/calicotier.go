package k8s

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// The tiers that Calico's evaluation of a host endpoint begins and ends with.
const (
	failsafeTier = "failsafe"
	profileTier  = "profile"
)

// The tiers of AdminNetworkPolicy and BaselineAdminNetworkPolicy before Calico
// 3.32.
const (
	oldAdminTier    = "adminnetworkpolicy"
	oldBaselineTier = "baselineadminnetworkpolicy"
)

// networkPolicyOrder is where a NetworkPolicy of Kubernetes stands in its tier.
const networkPolicyOrder = 1000

// fixedTiers returns the tiers that every Calico of the version has, of which
// the first and the last hold the cluster-wide policies of Kubernetes.
func (r *reader) fixedTiers() [3]policies.Tier {
	tiers := [...]policies.Tier{
		{Name: AdminTier, End: policies.ActionPass, SparesOwnNode: true, Order: 1_000},
		{Name: Tier, End: policies.ActionDeny, SparesOwnNode: true, Order: 1_000_000},
		{Name: BaselineTier, End: policies.ActionPass, SparesOwnNode: true, Order: 10_000_000},
	}
	if r.before("3.32") {
		tiers[0].Name, tiers[2].Name = oldAdminTier, oldBaselineTier
	}
	return tiers
}

func (r *reader) readTier(o object) {
	spec := o.field("spec")
	spec.only("order", "defaultAction")
	checkTierName(o.meta.field("name"), o.ref.Name)
	t := policies.Tier{Name: o.ref.Name, End: policies.ActionDeny, SparesOwnNode: true, Order: spec.field("order").order(), Place: o.place()}
	end := spec.field("defaultAction")
	switch text := end.text(); text {
	case "", "Deny":
	case "Pass":
		t.End = policies.ActionPass
	default:
		end.problem("default action %q is none of Deny, Pass", text)
	}
	for _, fixed := range r.fixedTiers() {
		if fixed.Name != t.Name {
			continue
		}
		if t.Order != fixed.Order {
			spec.field("order").orElse(spec).orElse(o.value).problem("tier %s has an order of its own; write \"order: %d\"", t.Name, int64(fixed.Order))
		}
		if end.present() && t.End != fixed.End {
			end.problem("tier %s has a default action of its own; leave it out", t.Name)
		}
		t = fixed
	}
	r.tiers[t.Name] = t
}

func checkTierName(at value, name string) {
	if name != "" && at.present() && (len(name) > 63 || !tierName.MatchString(name)) {
		at.problem("tier name %q is not valid: it wants at most 63 lower-case letters, digits and '-', a letter or digit at either end", name)
	}
}

// knownTiers returns the tiers that every Calico has and those that are defined.
func (r *reader) knownTiers() knownTiers {
	known := knownTiers{}
	for _, t := range r.fixedTiers() {
		known[t.Name] = t
	}
	maps.Copy(known, r.tiers)
	return known
}

// arrange puts the policies into the tiers of Calico, each at its rank, and
// returns the tiers.
func (r *reader) arrange() []policies.Tier {
	known := r.knownTiers()
	all := make([]*policies.Policy, 0, len(r.policies))
	for i := range r.policies {
		p := &r.policies[i]
		known.place(&p.Policy)
		p.Tier += suffix(p.hook)
		r.warnOfVersion(p)
	}
	r.rank()
	r.policies = append(r.policies, r.hostPolicies(known.free(failsafeTier), known.free(profileTier))...)
	for i := range r.policies {
		all = append(all, &r.policies[i].Policy)
	}
	return known.sort(all)
}

// knownTiers are the tiers that policies may name, by their names.
type knownTiers map[string]policies.Tier

// place puts a policy into its tier: the cluster-wide kinds of Kubernetes have
// others in older versions of Calico. Tiers that nobody defines are made known.
func (k knownTiers) place(p *policies.Policy) {
	if _, has := k[p.Tier]; has || p.Tier == "" {
		return
	}
	if p.Ref.Group == "" {
		p.Tier = map[string]string{AdminTier: oldAdminTier, BaselineTier: oldBaselineTier}[p.Tier]
		return
	}
	base, _ := cutHook(p.Tier)
	if _, has := k[base]; !has {
		k[base] = policies.Tier{Name: base, End: policies.ActionDeny, SparesOwnNode: true, Order: math.Inf(1), Missing: true}
	}
}

// free returns the name, or a longer one where a tier has it.
func (k knownTiers) free(name string) string {
	if _, taken := k[name]; taken {
		return name + " (host endpoints)"
	}
	return name
}

// sort returns the tiers, and those that only host endpoints have for their
// policies, in the order of evaluation.
func (k knownTiers) sort(all []*policies.Policy) []policies.Tier {
	const (
		first = iota // the failsafe ports
		rawTable
		natTable
		filterTable
		last // the profiles
	)
	type phased struct {
		policies.Tier
		phase int
	}
	tiers := map[string]phased{}
	for name, t := range k {
		tiers[name] = phased{t, filterTable}
	}
	for _, p := range all {
		if _, has := tiers[p.Tier]; has || p.Tier == "" {
			continue
		}
		base, h := cutHook(p.Tier)
		t := phased{k[base], map[policies.Hook]int{policies.Untracked: rawTable, policies.PreDNAT: natTable}[h]}
		t.End = policies.ActionPass
		if p.IsBuiltIn() && strings.HasPrefix(p.Tier, profileTier) {
			t.phase, t.End = last, policies.ActionDeny
		}
		t.Name, t.SparesOwnNode, t.Hook = p.Tier, true, h
		tiers[p.Tier] = t
	}
	sorted := slices.SortedFunc(maps.Values(tiers), func(a, b phased) int {
		missing := func(t phased) int { return map[bool]int{true: 1}[t.Missing] }
		return cmp.Or(a.phase-b.phase, missing(a)-missing(b), cmp.Compare(a.Order, b.Order), strings.Compare(a.Name, b.Name))
	})
	var list []policies.Tier
	for _, t := range sorted {
		list = append(list, t.Tier)
	}
	return list
}

// suffix is what the name of a tier ends in that is made for a hook.
func suffix(h policies.Hook) string {
	if h == policies.Filtering {
		return ""
	}
	return " (" + h.String() + ")"
}

// cutHook returns the tier that a policy names, without that of its hook.
func cutHook(tier string) (string, policies.Hook) {
	for _, h := range []policies.Hook{policies.Untracked, policies.PreDNAT} {
		if base, is := strings.CutSuffix(tier, suffix(h)); is {
			return base, h
		}
	}
	return tier, policies.Filtering
}

// missingTiers warns of the policies in tiers that nobody defines.
func missingTiers(m *policies.Model) []policies.Warning {
	missing := map[string]bool{}
	for _, t := range m.Tiers {
		missing[t.Name] = t.Missing
	}
	var warnings []policies.Warning
	warn := func(p *policies.Policy, ref policies.Ref) {
		if missing[p.Tier] {
			base, _ := cutHook(p.Tier)
			warnings = append(warnings, warning(p.Place, "tier %s of %s %s is not in the input: it is taken for one that comes last and denies what no rule of it matches; add the Tier", base, ref.What(), ref))
		}
	}
	for i := range m.Policies {
		warn(&m.Policies[i], m.Policies[i].Ref)
	}
	for i := range m.Staged {
		warn(&m.Staged[i].Policy, m.Staged[i].Ref)
	}
	return warnings
}

// standing is what decides the place of a policy among those of its tier.
type standing struct {
	tier  string
	order float64
	tie   string
}

func (s standing) compare(t standing) int {
	return cmp.Or(strings.Compare(s.tier, t.tier), cmp.Compare(s.order, t.order), strings.Compare(s.tie, t.tie))
}

func (r *reader) standing(p *policy) standing {
	s := standing{p.Tier, p.Order, r.tie(p)}
	if p.Ref.Group == "" && p.Ref.Kind == "NetworkPolicy" {
		s.order = networkPolicyOrder
	}
	return s
}

// rank gives each policy its place in its tier: by order, then by the text that
// Calico compares. A staged policy stands where it would if it were enforced.
func (r *reader) rank() {
	of := make([]standing, len(r.policies))
	for i := range r.policies {
		p := &r.policies[i]
		of[i] = r.standing(p)
	}
	sorted := slices.Clone(of)
	slices.SortFunc(sorted, standing.compare)
	sorted = slices.Compact(sorted)
	ranks := map[standing]int{}
	for i, s := range sorted {
		if i > 0 && s.tier == sorted[i-1].tier {
			ranks[s] = ranks[sorted[i-1]] + 1
		}
	}
	for i := range r.policies {
		r.policies[i].Priority = ranks[of[i]]
	}
}

// tie returns what decides between policies of one order.
func (r *reader) tie(p *policy) string {
	name, kind := r.fullName(p.Ref), p.Ref.Kind
	if p.Ref.Group == "" {
		if r.before("3.32") {
			name = map[string]string{
				"NetworkPolicy":              "knp.default.",
				"AdminNetworkPolicy":         "kanp.adminnetworkpolicy.",
				"BaselineAdminNetworkPolicy": "kbanp.baselineadminnetworkpolicy.",
			}[kind] + name
		}
		kind = "Kubernetes" + kind
	}
	return name + "/" + p.Ref.Namespace + "/" + kind
}

// warnOfVersion warns of a kind that the version of Calico does not enforce.
func (r *reader) warnOfVersion(p *policy) {
	if p.Opaque != "" {
		return
	}
	switch old := r.before("3.32"); {
	case p.Ref.Kind == "ClusterNetworkPolicy" && old:
		r.warn(p.Place, "Calico %s does not enforce ClusterNetworkPolicy %s; answers take it for enforced", r.calicoVersion, p.Ref)
	case strings.HasSuffix(p.Ref.Kind, "AdminNetworkPolicy") && !old:
		r.warn(p.Place, "Calico %s does not enforce %s %s, and answers take it for enforced; write a ClusterNetworkPolicy", r.calicoVersion, p.Ref.Kind, p.Ref)
	}
}
