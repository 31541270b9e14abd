package k8s

import (
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Understands reports whether Read knows what objects of a kind mean.
func Understands(apiVersion, name string) bool {
	_, known := kindOf(apiVersion, name)
	return known
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
	case Understands(apiVersion, name), group == v1alpha1.Group:
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
