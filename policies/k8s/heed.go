package k8s

import (
	"cmp"
	"slices"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Understands reports whether Read knows what objects of a kind mean.
func Understands(apiVersion, name string) bool {
	_, known := kindOf(apiVersion, name)
	return known
}

// Knows reports whether Read understands some version of a kind of Kubernetes' own.
func Knows(group, name string) bool {
	k, known := kinds[name]
	return known && KeyOf(k.apiVersion, name, "", "").Group == group
}

// kindOf returns how objects of an apiVersion and kind are read; false where
// they are not.
func kindOf(apiVersion, name string) (kind, bool) {
	if apiVersion == calicoVersion || apiVersion == storedVersion {
		k, known := calicoKinds[name]
		return k, known
	}
	k, known := kinds[name]
	return k, known && k.apiVersion == apiVersion
}

// Namespaced reports whether Understands holds and objects of the kind live in
// namespaces.
func Namespaced(apiVersion, name string) bool {
	k, known := kindOf(apiVersion, name)
	return known && !k.clusterWide
}

// Heeds reports whether objects of a kind have a bearing on network policy, so
// that leaving them out could change an answer: those that Read understands,
// policies that it does not, and what policies of any dialect refer to.
func Heeds(apiVersion, name string, namespaced bool) bool {
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = ""
	}
	_, ours := kinds[name]
	switch {
	case group == v1alpha1.Group:
		return name != v1alpha1.KindPacketCapture
	case Understands(apiVersion, name):
		return true
	case group == "controlplane.antrea.io":
		return false // what Antrea computes of the policies, its own and others
	case ours && ofKubernetes(group) && !isPolicyGroup(group):
		return false
	case group == policies.CalicoGroup || group == storedGroup:
		_, bears := calicoKinds[name]
		return bears
	}
	_, bears := foreignEffect(name, group, namespaced)
	return bears
}

// Served is a kind as an API server serves it.
type Served struct {
	Group, Version string
	Name           string // of its resource, "networkpolicies"
	Kind           string
	Namespaced     bool
	Rank           int // of the version among those that the group prefers
}

// APIVersion returns what objects of the kind have in front of it.
func (s Served) APIVersion() string {
	if s.Group == "" {
		return s.Version
	}
	return s.Group + "/" + s.Version
}

// String prints "pods" or "networkpolicies.networking.k8s.io".
func (s Served) String() string {
	if s.Group == "" {
		return s.Name
	}
	return s.Name + "." + s.Group
}

// Choose returns the kinds that Heeds holds of, each in one version: one that is
// understood, or else the one that its group prefers. What Calico serves is left
// out in the form in which it is stored.
func Choose(served []Served) []Served {
	type kind struct{ group, name string }
	best := map[kind]Served{}
	understood := func(s Served) bool { return Understands(s.APIVersion(), s.Kind) }
	for _, s := range served {
		if !Heeds(s.APIVersion(), s.Kind, s.Namespaced) {
			continue
		}
		id := kind{s.Group, s.Kind}
		known, has := best[id]
		if !has || !understood(known) && (understood(s) || s.Rank < known.Rank) {
			best[id] = s
		}
	}
	var chosen []Served
	for id, s := range best {
		if _, served := best[kind{policies.CalicoGroup, id.name}]; id.group == storedGroup && served {
			continue
		}
		chosen = append(chosen, s)
	}
	slices.SortFunc(chosen, func(a, b Served) int {
		return cmp.Or(strings.Compare(a.Group, b.Group), strings.Compare(a.Name, b.Name))
	})
	return chosen
}
