package k8s

import (
	"strings"

	"github.com/weir-policy/weir/policies/v1alpha1"
)

// Understands reports whether Read knows what objects of a kind mean.
func Understands(apiVersion, kind string) bool {
	k, known := kinds[kind]
	return known && k.apiVersion == apiVersion
}

// Namespaced reports whether Understands holds and objects of the kind live in
// namespaces.
func Namespaced(apiVersion, kind string) bool {
	return Understands(apiVersion, kind) && !kinds[kind].clusterWide
}

// Heeds reports whether objects of a kind have a bearing on network policy, so
// that leaving them out could change an answer: those that Read understands,
// policies that it does not, and what policies of any dialect refer to.
func Heeds(apiVersion, kind string, namespaced bool) bool {
	group, _, grouped := strings.Cut(apiVersion, "/")
	if !grouped {
		group = ""
	}
	k, known := kinds[kind]
	switch {
	case known && (k.apiVersion == apiVersion || ofKubernetes(group) && !isPolicyGroup(group)):
		return k.apiVersion == apiVersion
	case group == "controlplane.antrea.io":
		return false // what Antrea computes of the policies, its own and others
	case group == "" && kind == "ServiceAccount", group == v1alpha1.Group:
		return true
	case group == "projectcalico.org" || group == "crd.projectcalico.org":
		switch kind {
		case "Tier", "NetworkSet", "GlobalNetworkSet", "HostEndpoint", "Profile":
			return true
		}
	}
	_, bears := foreignEffect(kind, group, namespaced)
	return bears
}
