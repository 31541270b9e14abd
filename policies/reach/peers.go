package reach

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// peers is the columns that a match describes for sure, and those that it may
// describe; possible includes yes.
type peers struct{ yes, possible *set }

func (b *builder) peersOf(matches []policies.Match) peers {
	if len(matches) == 1 {
		return b.peers(&matches[0])
	}
	all := peers{b.none, b.none}
	for i := range matches {
		p := b.peers(&matches[i])
		all = peers{b.or(all.yes, p.yes), b.or(all.possible, p.possible)}
	}
	return all
}

// peers returns the columns that a match describes.
func (b *builder) peers(m *policies.Match) peers {
	if m.Anyone && len(m.Except) == 0 {
		return peers{b.all, b.all}
	}
	key := appendMatchKey(nil, m)
	known, ok := find(&b.matches, key)
	if !ok {
		known = b.described(m)
		b.matches.put(string(key), known)
	}
	return known
}

// appendMatchKey appends a text that is the same for matches that describe the
// same in one world.
func appendMatchKey(key []byte, m *policies.Match) []byte {
	for i, parts := range [][]policies.Match{m.Any, m.All, m.Except} {
		if len(parts) == 0 {
			continue
		}
		key = append(key, "|&^"[i], '(')
		for k := range parts {
			key = append(appendMatchKey(key, &parts[k]), ';')
		}
		key = append(key, ')')
	}
	switch {
	case len(m.Any) > 0, len(m.All) > 0:
	case m.Anyone:
		key = append(key, '*')
	case m.Block.CIDR.IsValid():
		key = strconv.AppendBool(append(key, m.Block.String()...), m.InCluster)
	case !m.Nodes.IsNothing():
		key = append(append(key, "nodes\x00"...), m.Nodes.Key()...)
	case len(m.Domains) > 0:
		key = append(append(key, "domains\x00"...), strings.Join(m.Domains, ",")...)
	case m.Object != policies.Ref{}:
		key = append(append(append(key, "object\x00"...), m.Object.Kind+"/"...), m.Object.String()...)
	default:
		key = append(append(append(key, m.Pods.Key()...), '\x01'), m.Namespaces.Key()...)
		key = append(append(key, '\x01'), m.Inherited.Key()...)
		key = strconv.AppendBool(append(key, '\x01'), m.Endpoints)
	}
	return key
}

func (b *builder) described(m *policies.Match) peers {
	switch {
	case len(m.Except) > 0:
		base := *m
		base.Except = nil
		is, not := b.peers(&base), b.peersOf(m.Except)
		return peers{b.minus(is.yes, not.possible), b.minus(is.possible, not.yes)}
	case len(m.Any) > 0:
		return b.peersOf(m.Any)
	case len(m.All) > 0:
		is := b.peers(&m.All[0])
		for i := range m.All[1:] {
			also := b.peers(&m.All[1+i])
			is = peers{b.and(is.yes, also.yes), b.and(is.possible, also.possible)}
		}
		return is
	case m.Block.CIDR.IsValid():
		return b.at(m.Block.Addresses(), m.InCluster)
	case !m.Nodes.IsNothing():
		return b.onNodes(m.Nodes)
	case len(m.Domains) > 0:
		return b.withNames(m.Domains)
	case m.Object != policies.Ref{}:
		return b.object(m.Object)
	case m.Endpoints:
		return b.endpoints(m)
	}
	return b.selected(m)
}

// selected returns the columns of the pods that a match selects.
func (b *builder) selected(m *policies.Match) peers {
	namespaces, pods := b.selectorsOf(m)
	in := b.namespacesOf(namespaces)
	var maybe []int32
	b.classesOf(in.yes, pods, func(class int32, t policies.Truth) {
		if t == policies.Yes {
			b.addClass(class)
		} else {
			maybe = append(maybe, class)
		}
	})
	if namespaces.IsEverything() && pods.IsEverything() {
		b.addSpares(ipv4 | ipv6)
	}
	yes := b.build()
	b.classesOf(in.maybe, pods, func(class int32, _ policies.Truth) { maybe = append(maybe, class) })
	if len(maybe) == 0 {
		return peers{yes, yes}
	}
	b.addSet(yes)
	for _, class := range maybe {
		b.addClass(class)
	}
	return peers{yes, b.build()}
}

// addSpares adds the spare columns whose first family is one of some: who comes is often
// described where all pods are, or all addresses.
func (b *builder) addSpares(in family) {
	add := func(column int32) {
		if firstOf(b.columns[column].families)&in != 0 {
			b.add(column)
		}
	}
	for _, columns := range b.spare {
		for _, column := range columns {
			add(column)
		}
	}
	for _, column := range b.pairs {
		add(column)
		add(column + 1)
	}
}

// firstOf returns the first of some families.
func firstOf(f family) family { return f & -f }

func (b *builder) addClass(class int32) {
	for _, c := range b.classes[class].columns {
		b.add(c)
	}
}

// onNodes returns the columns of the nodes in a selector, and of the pods on
// their network.
func (b *builder) onNodes(s selector.Selector) peers {
	atLeast := func(least policies.Truth) *set {
		for i := range b.classes {
			c := &b.classes[i]
			if !c.host() || b.machines[c.machine].in(s) < least {
				continue
			}
			for _, column := range c.columns {
				b.add(column)
			}
		}
		return b.build()
	}
	return peers{atLeast(policies.Yes), atLeast(policies.Maybe)}
}

// withNames returns the columns that may have one of the domain names.
func (b *builder) withNames(domains []string) peers {
	for i, c := range b.columns {
		if c.class != aSpare && mayBeNamed(domains, c.class >= 0 && !b.classes[c.class].host()) {
			b.add(int32(i))
		}
	}
	return peers{b.none, b.build()}
}

// mayBeNamed reports whether a pod, or else a node or an address outside, may
// have one of these domain names: a pod has none but those of cluster.local.
func mayBeNamed(domains []string, pod bool) bool {
	return !pod || slices.ContainsFunc(domains, func(name string) bool {
		return strings.HasSuffix(strings.TrimSuffix(strings.ToLower("."+name), "."), ".cluster.local")
	})
}

// at returns the columns whose addresses are in a set. An address that is not
// known may be in any set that does not miss its space.
func (b *builder) at(addresses netset.Addresses, inCluster bool) peers {
	add := func(column int32) {
		if b.columns[column].class < 0 || inCluster || !b.options.IgnorePodBlocks {
			b.add(column)
		}
	}
	for first, last := range addresses.Spans() {
		a, end := b.atomOf(first), b.atomOf(last)
		b.addRange(b.outside+a, b.outside+end+1)
		for ; a <= end; a++ {
			here, _ := b.atomCols.get(a)
			for _, column := range here {
				add(column)
			}
		}
	}
	if inCluster || !b.options.IgnorePodBlocks {
		for i, fam := range families {
			if isWhole(addresses, i) {
				b.addSpares(fam)
			}
		}
	}
	var maybe []int32
	for host, byFamily := range b.unplaced {
		for i, columns := range byFamily {
			switch b.unplacedIn(addresses, host == 1, families[i]) {
			case policies.Yes:
				for _, column := range columns {
					add(column)
				}
			case policies.Maybe:
				maybe = append(maybe, columns...)
			}
		}
	}
	yes := b.build()
	b.addSet(yes)
	for _, column := range maybe {
		add(column)
	}
	return peers{yes, b.build()}
}

// isWhole reports whether a set holds all addresses of the i-th family.
func isWhole(addresses netset.Addresses, i int) bool {
	whole := [...]netip.Prefix{netset.AllIPv4, netset.AllIPv6}[i]
	return addresses.Contains(whole.Addr()) && addresses.Contains(netset.LastAddress(whole)) && addresses.Covers(netset.Prefix(whole))
}

// unplacedIn reports whether an address that is not known is in the set, as far
// as the set is of its family: that of a pod is somewhere in the pods' space,
// that of a node anywhere.
func (f *frame) unplacedIn(addresses netset.Addresses, host bool, fam family) policies.Truth {
	i := 0
	if fam == ipv6 {
		i = 1
	}
	space, sure := f.space[i], f.spaceIs[i]
	if host {
		space, sure = [...]netset.Addresses{netset.Prefix(netset.AllIPv4), netset.Prefix(netset.AllIPv6)}[i], i == 0
	}
	switch {
	case !addresses.Overlaps(space):
		return policies.No
	case sure && addresses.Covers(space):
		return policies.Yes
	}
	return policies.Maybe
}
