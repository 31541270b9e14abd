package reach

import (
	"cmp"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
	"github.com/weir-policy/weir/policies/selector"
)

// welcome makes the evaluation know the classes from first on, which its frame has more
// than that of the evaluation it was made of: the policies whose rules are about them
// are to be applied again, wherever they are. It reports which these are.
func (e *evaluation) welcome(first int) (again map[int32]bool) {
	again = map[int32]bool{}
	var columns []int32
	for i := range e.classes[first:] {
		if c := &e.classes[first+i]; c.role != aFace {
			columns = append(columns, c.columns...)
		}
	}
	for i, p := range e.present() {
		if !e.isAboutAny(p, columns) {
			continue
		}
		again[i] = true
		for _, d := range policies.Directions {
			e.rules[d].set(i, nil)
		}
		e.stamped++
		e.stamps.put(i, stampedFirst+e.stamped)
	}
	return again
}

// stampedFirst is above the numbers of all policies.
const stampedFirst = 1 << 28

// stamp returns a number for a policy and what its rules are known to match.
func (e *evaluation) stamp(policy int32) uint32 {
	if s, ok := e.stamps.get(policy); ok {
		return uint32(s)
	}
	return uint32(policy)
}

// isAboutAny reports whether rules of a policy match other traffic with some of the
// columns than they matched when those were spare.
func (b *builder) isAboutAny(p *policies.Policy, columns []int32) bool {
	for _, d := range policies.Directions {
		for i := range p.Rules[d] {
			r := &p.Rules[d][i]
			named := d == policies.Egress && len(r.Named)+len(r.NotNamed) > 0
			for k := range r.Peers {
				m := &r.Peers[k]
				if m.Anyone && len(m.Except) == 0 && !named {
					continue
				}
				for _, at := range columns {
					is, was := b.describes(m, &b.columns[at]), b.describes(m, &column{class: aSpare, families: b.columns[at].families})
					if is != was || is > policies.No && named && b.isNamedBy(r, &b.columns[at]) {
						return true
					}
				}
			}
		}
	}
	return false
}

// isNamedBy reports whether a column gives numbers to port names of a rule.
func (b *builder) isNamedBy(r *policies.Rule, c *column) bool {
	return slices.ContainsFunc(b.classes[c.subject].named, func(n numbered) bool {
		is := func(p policies.NamedPort) bool { return b.names[p] == n.name }
		return slices.ContainsFunc(r.Named, is) || slices.ContainsFunc(r.NotNamed, is)
	})
}

// describes reports whether a match describes a column. It is what peers says of it.
func (b *builder) describes(m *policies.Match, c *column) policies.Truth {
	t := b.describesAtLeast(m, c)
	for i := range m.Except {
		t = t.And(policies.Yes - b.describes(&m.Except[i], c))
	}
	return t
}

// describesAtLeast is describes without the exceptions.
func (b *builder) describesAtLeast(m *policies.Match, c *column) policies.Truth {
	pod := c.class >= 0 && !b.classes[c.class].host()
	switch {
	case len(m.Any) > 0:
		t := policies.No
		for i := range m.Any {
			t = t.Or(b.describes(&m.Any[i], c))
		}
		return t
	case len(m.All) > 0:
		t := policies.Yes
		for i := range m.All {
			t = t.And(b.describes(&m.All[i], c))
		}
		return t
	case m.Anyone:
		return policies.Yes
	case m.Object.Kind == "Service" && b.isExternal(m.Object):
		return policies.Maybe
	case m.Block.CIDR.IsValid():
		return b.isAt(m.Block.Addresses(), m.InCluster, c)
	case !m.Nodes.IsNothing():
		if c.class < 0 || pod { // not a node
			return policies.No
		}
		return b.machines[b.classes[c.class].machine].in(m.Nodes)
	case len(m.Domains) > 0:
		return b.mayHaveName(m.Domains, c)
	case m.Object.Kind == "Service":
		behind, some := b.values.get(behindService(m.Object))
		return truth(pod && some && slices.Contains(b.classes[c.class].labels, behind))
	}
	t := policies.No
	switch {
	case m.Object != (policies.Ref{}):
	case pod:
		t = b.isOf(m, &b.classes[c.class])
	case c.class == aSpare:
		namespaces, pods := b.selectorsOf(m)
		t = truth(namespaces.IsEverything() && pods.IsEverything())
	}
	if !m.Endpoints && m.Object == (policies.Ref{}) {
		return t
	}
	for i := range b.labelled {
		l := &b.labelled[i]
		at := b.isAt(l.addresses, true, c)
		if len(l.domains) > 0 {
			at = at.Or(b.mayHaveName(l.domains, c))
		}
		switch {
		case at == policies.No:
		case m.Object == (policies.Ref{}):
			t = t.Or(isLabelled(b.world, m, l).And(at))
		case l.ref == m.Object:
			t = t.Or(at)
		}
	}
	return t
}

// isAt reports whether the address of a column is in a set. It is what at says of it.
func (b *builder) isAt(addresses netset.Addresses, inCluster bool, c *column) policies.Truth {
	switch {
	case c.class != -1 && b.options.IgnorePodBlocks && !inCluster:
		return policies.No
	case c.class == aSpare:
		return truth(isWhole(addresses, int(firstOf(c.families)>>1)))
	case c.atom != unknownAtom:
		return truth(addresses.Contains(b.atoms[c.atom].first))
	}
	fam := c.families
	if fam == ipv4|ipv6 {
		fam = ipv4 // as far as the frame tells them apart
	}
	return b.unplacedIn(addresses, b.classes[c.class].host(), fam)
}

// mayHaveName reports whether a column may have one of the domain names. It is what
// withNames says of it.
func (b *builder) mayHaveName(domains []string, c *column) policies.Truth {
	pod := c.class >= 0 && !b.classes[c.class].host()
	return truth(c.class != aSpare && mayBeNamed(domains, pod)).And(policies.Maybe)
}

// isOf reports whether a class is of the pods that a match selects.
func (b *builder) isOf(m *policies.Match, c *class) policies.Truth {
	namespaces, pods := b.selectorsOf(m)
	if pods.IsNothing() {
		return policies.No
	}
	n := &b.namespaces[c.namespace]
	if isElsewhere(namespaces, n) {
		return policies.No
	}
	in := matches(namespaces, n.labels, n.implied)
	if in == policies.No {
		return in
	}
	return in.And(truths(pods.Test(func(key string) (string, bool, bool) { return b.labelOf(c, key) })))
}

// isElsewhere reports whether a selector names another namespace, as most do.
func isElsewhere(s selector.Selector, n *namespace) bool {
	for _, r := range s.Requirements() {
		if r.Key == policies.NameLabel && r.Operator == selector.In {
			return !slices.Contains(r.Values, n.name)
		}
	}
	return false
}

func (b *builder) isExternal(service policies.Ref) bool {
	return slices.ContainsFunc(b.world.Services, func(s policies.Service) bool { return s.Ref == service && s.External != "" })
}

// governs returns the policies that govern a class of pods, in the order of evaluation.
func (e *evaluation) governs(class int32) (lists governed) {
	c := &e.classes[class]
	if c.host() {
		return lists
	}
	for i, p := range e.present() {
		t := e.isOf(&p.Subject, c)
		for _, d := range policies.Directions {
			if t > policies.No && p.Governs[d] {
				lists[d] = append(lists[d], governing{i, t})
			}
		}
	}
	for _, list := range lists {
		slices.SortFunc(list, func(x, y governing) int {
			return cmp.Or(e.compare(x.policy, y.policy), e.tie(x.policy, y.policy))
		})
	}
	return lists
}
