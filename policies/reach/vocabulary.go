package reach

import (
	"net/netip"
	"slices"
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

// vocabularyOf returns what the rules of some models tell apart, and more matches.
func vocabularyOf(models []*policies.Model, more ...policies.Match) vocabulary {
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
	for i := range more {
		learn(&more[i])
	}
	for _, m := range models {
		for i := range m.Policies {
			p := &m.Policies[i]
			learn(&p.Subject)
			for _, d := range policies.Directions {
				for r := range p.Rules[d] {
					rule := &p.Rules[d][r]
					for k := range rule.Peers {
						learn(&rule.Peers[k])
					}
					if rule.Own != nil {
						learn(rule.Own)
					}
					for _, n := range rule.Named {
						addName(n)
					}
					for _, n := range rule.NotNamed {
						addName(n)
					}
				}
			}
		}
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

// selectorsOf returns the selectors of the namespaces and of the pods there that
// a match describes. Of what a namespaceSelector of Calico asks the namespaces
// only, all pods of one give the same answer, unless one has such a label itself.
func (v *vocabulary) selectorsOf(m *policies.Match) (namespaces, pods selector.Selector) {
	if slices.ContainsFunc(m.Inherited.Keys(), func(key string) bool { return v.own()[key] }) {
		return selector.Everything(), selector.And(m.Inherited, m.Pods)
	}
	return m.Namespaces, m.Pods
}
