package k8s

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
)

// tier is a Tier as it was read.
type tier struct {
	policies.Tier
	order float64
}

// The tiers that Calico's evaluation of a host endpoint begins and ends with.
const (
	failsafeTier = "failsafe"
	profileTier  = "profile"
)

// networkPolicyOrder is where a NetworkPolicy of Kubernetes stands in its tier.
const networkPolicyOrder = 1000

// fixedTiers returns the tiers that every Calico of the version has, of which
// the first and the last hold the cluster-wide policies of Kubernetes.
func (r *reader) fixedTiers() [3]tier {
	tiers := [...]tier{
		{policies.Tier{Name: AdminTier, End: policies.ActionPass}, 1_000},
		{policies.Tier{Name: Tier, End: policies.ActionDeny}, 1_000_000},
		{policies.Tier{Name: BaselineTier, End: policies.ActionPass}, 10_000_000},
	}
	if r.before("3.32") {
		tiers[0].Name, tiers[2].Name = "adminnetworkpolicy", "baselineadminnetworkpolicy"
	}
	return tiers
}

func (r *reader) readTier(o object) {
	spec := o.field("spec")
	spec.only("order", "defaultAction")
	checkTierName(o.meta.field("name"), o.ref.Name)
	t := tier{policies.Tier{Name: o.ref.Name, End: policies.ActionDeny}, spec.field("order").order()}
	field := spec.field("defaultAction")
	switch text := field.text(); text {
	case "", "Deny":
	case "Pass":
		t.End = policies.ActionPass
	default:
		field.problem("default action %q is none of Deny, Pass", text)
	}
	for _, fixed := range r.fixedTiers() {
		if fixed.Name != t.Name {
			continue
		}
		if t.order != fixed.order {
			spec.field("order").orElse(spec).orElse(o.value).problem("tier %s has the order %d; write \"order: %[2]d\"", t.Name, int64(fixed.order))
		}
		if field.present() && t.End != fixed.End {
			field.problem("tier %s has the default action %s", t.Name, map[policies.Action]string{policies.ActionDeny: "Deny", policies.ActionPass: "Pass"}[fixed.End])
		}
		t.End = fixed.End
	}
	r.tiers[t.Name] = t
}

func checkTierName(at value, name string) {
	if name != "" && at.present() && (len(name) > 63 || !tierName.MatchString(name)) {
		at.problem("tier name %q is not valid: it wants at most 63 lower-case letters, digits and '-', a letter or digit at either end", name)
	}
}

// arrange puts the policies into the tiers of Calico, each at its rank, and
// returns the tiers.
func (r *reader) arrange() []policies.Tier {
	fixed := r.fixedTiers()
	for i := range r.policies {
		p := &r.policies[i]
		switch p.Tier {
		case AdminTier:
			if p.Ref.Group == "" {
				p.Tier = fixed[0].Name
			}
		case BaselineTier:
			if p.Ref.Group == "" {
				p.Tier = fixed[2].Name
			}
		}
		r.warnOfVersion(p)
	}
	known := map[string]tier{}
	for _, t := range fixed {
		known[t.Name] = t
	}
	for name, t := range r.tiers {
		known[name] = t
	}
	hosts := r.hostPolicies()
	used := [...]map[string]bool{filtering: {}, untracked: {}, preDNAT: {}}
	for i := range r.policies {
		p := &r.policies[i]
		if p.Tier == "" {
			continue
		}
		used[p.hook][p.Tier] = true
		if _, has := known[p.Tier]; !has {
			known[p.Tier] = tier{policies.Tier{Name: p.Tier, End: policies.ActionDeny}, math.NaN()}
		}
	}
	for i := range r.policies {
		p := &r.policies[i]
		if p.Tier != "" && math.IsNaN(known[p.Tier].order) {
			p.warn(r, "tier %s of %s %s is not in the input: it is taken for one that comes last and denies what no rule of it matches; add the Tier", p.Tier, p.Ref.What(), p.Ref)
		}
		p.Tier += map[bool]string{true: p.hook.String()}[p.Tier != ""]
	}
	r.rank()

	sorted := make([]tier, 0, len(known))
	for _, t := range known {
		sorted = append(sorted, t)
	}
	slices.SortFunc(sorted, compareTiers)
	var tiers []policies.Tier
	if len(hosts) > 0 {
		tiers = append(tiers, policies.Tier{Name: failsafeTier, End: policies.ActionPass, SparesOwnNode: true})
	}
	for _, h := range []hook{untracked, preDNAT} {
		for _, t := range sorted {
			if used[h][t.Name] {
				tiers = append(tiers, policies.Tier{Name: t.Name + h.String(), End: policies.ActionPass, SparesOwnNode: true})
			}
		}
	}
	for _, t := range sorted {
		t.SparesOwnNode = true
		tiers = append(tiers, t.Tier)
	}
	if len(hosts) > 0 {
		tiers = append(tiers, policies.Tier{Name: profileTier, End: policies.ActionDeny, SparesOwnNode: true})
	}
	r.policies = append(r.policies, hosts...)
	return tiers
}

// compareTiers puts tiers that are not in the input last, and before them those
// that have no order.
func compareTiers(a, b tier) int {
	missing := func(t tier) int { return map[bool]int{true: 1}[math.IsNaN(t.order)] }
	return cmp.Or(missing(a)-missing(b), cmp.Compare(a.order, b.order), strings.Compare(a.Name, b.Name))
}

// rank gives each policy its place in its tier: by order, then by the text that
// Calico compares. A staged policy stands where it would if it were enforced.
func (r *reader) rank() {
	type standing struct {
		tier  string
		order float64
		tie   string
	}
	of := make([]standing, len(r.policies))
	for i := range r.policies {
		p := &r.policies[i]
		of[i] = standing{p.Tier, p.order, r.tie(p)}
		switch {
		case p.Ref.Group == policies.CalicoGroup:
		case p.Ref.Kind == "NetworkPolicy":
			of[i].order = networkPolicyOrder
		default:
			of[i].order = float64(p.Priority)
		}
	}
	sorted := slices.Clone(of)
	slices.SortFunc(sorted, func(a, b standing) int {
		return cmp.Or(strings.Compare(a.tier, b.tier), cmp.Compare(a.order, b.order), strings.Compare(a.tie, b.tie))
	})
	ranks := map[standing]int{}
	for i, s := range slices.Compact(sorted) {
		if i == 0 || s.tier != sorted[i-1].tier {
			ranks[s] = 0
			continue
		}
		ranks[s] = ranks[sorted[i-1]] + 1
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
	switch {
	case p.Opaque != "":
	case p.Ref.Kind == "ClusterNetworkPolicy" && r.before("3.32"):
		p.warn(r, "Calico %s does not enforce ClusterNetworkPolicy %s; answers take it for enforced", r.calicoVersion, p.Ref)
	case strings.HasSuffix(p.Ref.Kind, "AdminNetworkPolicy") && !r.before("3.32"):
		p.warn(r, "Calico %s does not enforce %s %s; answers take it for enforced; write it as a ClusterNetworkPolicy", r.calicoVersion, p.Ref.Kind, p.Ref)
	}
}
