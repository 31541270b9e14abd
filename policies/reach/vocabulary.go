package reach

import (
	"iter"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// vocabulary is what rules can tell apart.
type vocabulary struct {
	keys map[string]int32 // label keys that pod selectors use
	// inherited are those of them that Calico's selectors look for elsewhere, too.
	inherited []string
	// own returns the labels of namespaces that some pods have themselves.
	own      func() map[string]bool
	nodes    []string // label keys that node selectors use
	services []policies.Ref
	names    map[policies.NamedPort]int32
	blocks   []netset.Block
	labelled bool // network sets and host endpoints count
}

// vocabularyOf returns what the rules of some models tell apart, and the options.
func vocabularyOf(models []*policies.Model, o Options) vocabulary {
	v := vocabulary{keys: map[string]int32{}, names: map[policies.NamedPort]int32{}}
	v.own = sync.OnceValue(func() map[string]bool {
		own := map[string]bool{}
		for _, m := range models {
			for key := range m.PodsWithNamespaceLabels() {
				own[key] = true
			}
		}
		return own
	})
	blocks, nets := map[string]bool{}, map[netip.Prefix]bool{}
	addBlock := func(b netset.Block) {
		known := nets[b.CIDR]
		if len(b.Except) == 0 {
			nets[b.CIDR] = true
		} else {
			key := b.String()
			known, blocks[key] = blocks[key], true
		}
		if !known {
			v.blocks = append(v.blocks, b)
		}
	}
	addName := func(n policies.NamedPort) {
		if _, ok := v.names[n]; !ok {
			v.names[n] = int32(len(v.names))
		}
	}
	var learn func(m *policies.Match)
	learn = func(m *policies.Match) {
		_, pods := v.selectorsOf(m)
		for _, key := range pods.Keys() {
			if _, ok := v.keys[key]; !ok {
				v.keys[key] = int32(len(v.keys))
			}
			if m.Endpoints && policies.IsInherited(key) && !slices.Contains(v.inherited, key) {
				v.inherited = append(v.inherited, key)
			}
		}
		for _, key := range m.Nodes.Keys() {
			if !slices.Contains(v.nodes, key) {
				v.nodes = append(v.nodes, key)
			}
		}
		if m.Block.CIDR.IsValid() {
			addBlock(m.Block)
		}
		v.labelled = v.labelled || m.Endpoints || m.Object != policies.Ref{}
		if m.Object.Kind == "Service" && !slices.Contains(v.services, m.Object) {
			v.services = append(v.services, m.Object)
		}
		for _, parts := range [][]policies.Match{m.Any, m.All, m.Except} {
			for i := range parts {
				learn(&parts[i])
			}
		}
	}
	for i := range o.Apart {
		learn(&o.Apart[i])
	}
	for _, name := range o.ApartNames {
		for _, p := range netset.Transports {
			addName(policies.NamedPort{Protocol: p, Name: name})
		}
	}
	for _, m := range models {
		for i := range m.Policies {
			for match := range matchesOf(&m.Policies[i]) {
				learn(match)
			}
			for name := range namesOf(&m.Policies[i]) {
				addName(name)
			}
		}
	}
	if o.Lasting {
		v.reserve(models, addName, addBlock)
	}
	if !v.labelled {
		return v
	}
	for _, m := range models {
		for i := range m.Sets {
			for _, net := range m.Sets[i].Nets {
				addBlock(netset.Block{CIDR: net})
			}
		}
		for i := range m.Hosts {
			for _, a := range m.Hosts[i].Addresses {
				addBlock(netset.Block{CIDR: netip.PrefixFrom(a, a.BitLen())})
			}
		}
	}
	return v
}

// matchesOf yields all matches of a policy.
func matchesOf(p *policies.Policy) iter.Seq[*policies.Match] {
	return func(yield func(*policies.Match) bool) {
		if !yield(&p.Subject) {
			return
		}
		for _, d := range policies.Directions {
			for i := range p.Rules[d] {
				r := &p.Rules[d][i]
				for k := range r.Peers {
					if !yield(&r.Peers[k]) {
						return
					}
				}
				if r.Own != nil && !yield(r.Own) {
					return
				}
			}
		}
	}
}

// namesOf yields all names that a policy gives ports.
func namesOf(p *policies.Policy) iter.Seq[policies.NamedPort] {
	return func(yield func(policies.NamedPort) bool) {
		for _, d := range policies.Directions {
			for i := range p.Rules[d] {
				for _, names := range [][]policies.NamedPort{p.Rules[d][i].Named, p.Rules[d][i].NotNamed} {
					for _, n := range names {
						if !yield(n) {
							return
						}
					}
				}
			}
		}
	}
}

// selectorsOf returns the selectors of the namespaces and of the pods there that
// a match describes. Of what a namespaceSelector of Calico asks the namespaces
// only, all pods of one give the same answer, unless one has such a label itself.
func (v *vocabulary) selectorsOf(m *policies.Match) (namespaces, pods selector.Selector) {
	if !m.Inherited.IsNothing() && slices.ContainsFunc(m.Inherited.Keys(), func(key string) bool { return v.own()[key] }) {
		return selector.Everything(), selector.And(m.Inherited, m.Pods)
	}
	return m.Namespaces, m.Pods
}

// reserve adds what policies are likely to tell apart one day: whatever labels pods
// carry and names they give ports, but for those labels that tell every pod from the
// next.
func (v *vocabulary) reserve(models []*policies.Model, addName func(policies.NamedPort), addBlock func(netset.Block)) {
	own := map[string]bool{}
	v.own = func() map[string]bool { return own } // which does not hold the models
	for _, m := range models {
		for i := range m.Pods {
			for key := range m.Pods[i].Labels {
				if strings.HasPrefix(key, policies.NamespacePrefix) && !m.Pods[i].HostNetwork {
					own[key] = true
				}
				if _, known := v.keys[key]; !known && !isNoise(key) {
					v.keys[key] = int32(len(v.keys))
				}
			}
			for _, p := range m.Pods[i].Ports {
				addName(policies.NamedPort{Protocol: p.Protocol, Name: p.Name})
			}
		}
	}
	if v.labelled { // some policy is Calico's
		for _, key := range []string{
			policies.CalicoNamespace, policies.CalicoServiceAccount, policies.CalicoOrchestrator,
			policies.NamespacePrefix + policies.CalicoName, policies.AccountPrefix + policies.CalicoName,
		} {
			if _, known := v.keys[key]; !known {
				v.keys[key] = int32(len(v.keys))
			}
			if !slices.Contains(v.inherited, key) {
				v.inherited = append(v.inherited, key)
			}
		}
	}
	for _, m := range models {
		v.labelled = v.labelled || len(m.Sets)+len(m.Hosts) > 0
	}
	addBlock(netset.Block{CIDR: netset.AllIPv4})
}

// isNoise reports whether controllers give each pod, or each change of its template,
// another value of a label.
func isNoise(key string) bool {
	switch key {
	case "pod-template-hash", "controller-revision-hash", "pod-template-generation", "controller-uid", "job-name",
		"batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name", "batch.kubernetes.io/job-completion-index",
		"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index":
		return true
	}
	return false
}
