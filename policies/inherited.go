package policies

import "strings"

// The labels that Calico's selectors see on pods besides the pods' own.
const (
	// CalicoNamespace is the name of the pod's namespace.
	CalicoNamespace = "projectcalico.org/namespace"
	// CalicoServiceAccount is the name of the pod's service account.
	CalicoServiceAccount = "projectcalico.org/serviceaccount"
	// CalicoOrchestrator is "k8s" for every pod.
	CalicoOrchestrator = "projectcalico.org/orchestrator"
	// CalicoName is, of namespaces and of service accounts, their own name.
	CalicoName = "projectcalico.org/name"
	// NamespacePrefix is what labels of the namespace have in front, and
	// AccountPrefix those of the service account.
	NamespacePrefix = "pcns."
	AccountPrefix   = "pcsa."
)

// IsInherited reports whether Calico's selectors look for a label with this key
// elsewhere than on the pod alone.
func IsInherited(key string) bool {
	return key == CalicoNamespace || key == CalicoServiceAccount || key == CalicoOrchestrator ||
		strings.HasPrefix(key, NamespacePrefix) || strings.HasPrefix(key, AccountPrefix)
}

// Inherited returns a function that gives the labels of the world's pods as
// Calico's selectors see them; known is false where the label's owner, a
// namespace or a service account, is not in the world. The pod's own label comes
// before one that it inherits.
func (w *World) Inherited() func(p *Pod, key string) (value string, has, known bool) {
	namespaces := map[string]*Namespace{}
	for i := range w.Namespaces {
		namespaces[w.Namespaces[i].Name] = &w.Namespaces[i]
	}
	type account struct{ namespace, name string }
	accounts := map[account]*ServiceAccount{}
	for i := range w.Accounts {
		accounts[account{w.Accounts[i].Ref.Namespace, w.Accounts[i].Ref.Name}] = &w.Accounts[i]
	}
	return func(p *Pod, key string) (string, bool, bool) {
		if value, has := p.Labels[key]; has {
			return value, true, true
		}
		switch key {
		case CalicoServiceAccount:
			return p.ServiceAccount, p.ServiceAccount != "", true
		case CalicoOrchestrator:
			return "k8s", true, true
		}
		if name, ok := strings.CutPrefix(key, AccountPrefix); ok {
			if name == CalicoName {
				return p.ServiceAccount, p.ServiceAccount != "", true
			}
			a := accounts[account{p.Ref.Namespace, p.ServiceAccount}]
			if a == nil {
				return "", false, false
			}
			value, has := a.Labels[name]
			return value, has, true
		}
		n := namespaces[p.Ref.Namespace]
		if n == nil {
			n = &Namespace{Name: p.Ref.Namespace, Implied: true}
		}
		return n.Inherited(key)
	}
}

// PodsWithNamespaceLabels returns the labels under which Calico's selectors look
// for those of namespaces and some pods have one themselves, each with the first
// such pod. Pods on the host's network are not among them: nothing selects those.
func (w *World) PodsWithNamespaceLabels() map[string]*Pod {
	own := map[string]*Pod{}
	for i := range w.Pods {
		p := &w.Pods[i]
		for key := range p.Labels {
			if strings.HasPrefix(key, NamespacePrefix) && own[key] == nil && !p.HostNetwork {
				own[key] = p
			}
		}
	}
	return own
}

// Inherited returns the label of the namespace's network sets that has this key
// and is not their own; known is false where the namespace's labels are not.
func (n *Namespace) Inherited(key string) (value string, has, known bool) {
	if key == CalicoNamespace {
		return n.Name, true, true
	}
	name, ok := strings.CutPrefix(key, NamespacePrefix)
	switch {
	case !ok:
		return "", false, true
	case name == CalicoName:
		return n.Name, true, true
	}
	value, has = n.Labels[name]
	return value, has, has || !n.Implied
}
