package reach

import (
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// row is what policies say of one class in one direction: the traffic, by port
// and by the column at the other end, that is allowed, and that for which both
// allow and deny are possible. Equal rows are one pointer.
type row struct {
	id             int32
	allow, unknown relation
}

// peers is the columns that a match describes for sure, and those that it may
// describe; possible includes yes.
type peers struct{ yes, possible *set }

// compiled is a rule as traffic. Rules with a port name depend, at ingress, on
// the class they protect.
type compiled struct {
	action        policies.Action
	yes, possible []layer
}

// builder makes the rows of judges that share a frame.
type builder struct {
	*frame
	algebra
	all       *set
	universe  relation
	matches   map[string]peers
	rows      []*row
	rowsByKey map[string]*row
	open      *row
}

func newBuilder(f *frame) *builder {
	b := &builder{
		frame:     f,
		algebra:   newAlgebra(len(f.columns)),
		matches:   map[string]peers{},
		rowsByKey: map[string]*row{},
	}
	b.addRange(0, int32(len(f.columns)))
	b.all = b.build()
	b.universe = relation{{b.ports.id(netset.AllTraffic()), b.all}}
	b.open = b.internRow(b.universe, nil)
	return b
}

func (b *builder) internRow(allow, unknown relation) *row {
	key := make([]byte, 0, 8*(len(allow)+len(unknown)+1))
	for _, r := range []relation{allow, unknown} {
		for _, l := range r {
			key = binary.LittleEndian.AppendUint32(key, uint32(l.ports))
			key = binary.LittleEndian.AppendUint32(key, uint32(l.columns.id))
		}
		key = append(key, '|')
	}
	known, ok := b.rowsByKey[string(key)]
	if !ok {
		known = &row{id: int32(len(b.rows)), allow: allow, unknown: unknown}
		b.rows = append(b.rows, known)
		b.rowsByKey[string(key)] = known
	}
	return known
}

// governing is a policy that selects a class, or may select it.
type governing struct {
	policy int32
	truth  policies.Truth
}

// govern lists, for each direction and class, the policies that govern it, in
// the order of evaluation.
func (b *builder) govern(m *policies.Model) [2][][]governing {
	var lists [2][][]governing
	for _, d := range policies.Directions {
		lists[d] = make([][]governing, len(b.classes))
	}
	for _, i := range evaluationOrder(m) {
		p := &m.Policies[i]
		in := b.namespacesOf(p.Subject.Namespaces)
		for _, s := range []struct {
			in    []int32
			truth policies.Truth
		}{{in.yes, policies.Yes}, {in.maybe, policies.Maybe}} {
			if len(s.in) == 0 {
				continue
			}
			b.classesOf(s.in, p.Subject.Pods, func(class int32) {
				for _, d := range policies.Directions {
					if p.Governs[d] {
						lists[d][class] = append(lists[d][class], governing{int32(i), s.truth})
					}
				}
			})
		}
	}
	return lists
}

// evaluationOrder returns the indexes of the policies by tier; within a tier
// they stand in order already. Policies that were not understood come first.
func evaluationOrder(m *policies.Model) []int {
	order := make([]int, len(m.Policies))
	for i := range order {
		order[i] = i
	}
	rank := func(i int) int {
		return slices.IndexFunc(m.Tiers, func(t policies.Tier) bool { return t.Name == m.Policies[i].Tier })
	}
	slices.SortStableFunc(order, func(x, y int) int { return rank(x) - rank(y) })
	return order
}

// judge makes the rows of every class of a model.
func (b *builder) judge(m *policies.Model, p placement) *Judge {
	j := &Judge{frame: b.frame, ports: b.ports, model: m, placement: p, governing: b.govern(m)}
	rules := make([][2][]*compiled, len(m.Policies))
	for _, d := range policies.Directions {
		j.rows[d] = make([]*row, len(b.classes))
		profiles := map[string]*row{}
		var key []byte
		for class, list := range j.governing[d] {
			if len(list) == 0 {
				j.rows[d][class] = b.open
				continue
			}
			key = key[:0]
			for _, g := range list {
				key = binary.LittleEndian.AppendUint32(key, uint32(g.policy)<<2|uint32(g.truth))
			}
			if d == policies.Ingress {
				for _, numbers := range b.classes[class].named {
					key = append(append(key, '|'), numbers...)
				}
			}
			r, ok := profiles[string(key)]
			if !ok {
				r = b.decide(m, d, int32(class), list, rules)
				profiles[string(key)] = r
			}
			j.rows[d][class] = r
		}
	}
	return j
}

// decide evaluates the tiers for one class and direction over all traffic at
// once. It carries the traffic that is still open, and collects what may be
// allowed and what may be denied; what may be both is unknown.
func (b *builder) decide(m *policies.Model, d policies.Direction, class int32, list []governing, rules [][2][]*compiled) *row {
	var allow, deny relation
	open, untouched := b.universe, true
	for len(list) > 0 {
		name := m.Policies[list[0].policy].Tier
		n := 1
		for n < len(list) && m.Policies[list[n].policy].Tier == name {
			n++
		}
		at := slices.IndexFunc(m.Tiers, func(t policies.Tier) bool { return t.Name == name })
		if at < 0 {
			// A policy that was not understood may do anything.
			return b.internRow(nil, b.universe)
		}
		if n == len(list) && untouched {
			if row, ok := b.decideUnion(m, d, class, list, rules, &m.Tiers[at]); ok {
				return row
			}
		}
		untouched = false
		tier := &m.Tiers[at]
		undefined := relation{{b.ports.id(tier.Undefined), b.all}}
		// inside is what is open where some policy of the tier selects the
		// class; open is what is where none does.
		var inside, pass relation
		for _, g := range list[:n] {
			left := b.unite(open, inside)
			unclear := b.intersect(left, undefined)
			if m.Policies[g.policy].Opaque != "" {
				unclear = left
			}
			allow, deny, left = b.unite(allow, unclear), b.unite(deny, unclear), b.subtract(left, unclear)
			for _, r := range b.compileRules(m, d, class, g.policy, rules) {
				hit := b.intersect(left, b.normal(r.possible))
				switch r.action {
				case policies.ActionAllow:
					allow = b.unite(allow, hit)
				case policies.ActionDeny:
					deny = b.unite(deny, hit)
				case policies.ActionPass:
					pass = b.unite(pass, hit)
				}
				left = b.subtract(left, b.normal(r.yes))
			}
			if g.truth == policies.Yes {
				open, inside = nil, left
			} else {
				inside = b.unite(inside, left)
			}
		}
		if tier.End == policies.ActionDeny {
			deny, inside = b.unite(deny, inside), nil
		}
		open = b.unite(b.unite(open, inside), pass)
		list = list[n:]
	}
	allow = b.unite(allow, open)
	unknown := b.intersect(allow, deny)
	return b.internRow(b.subtract(allow, unknown), unknown)
}

// decideUnion is decide for the common case: the only tier concerned ends in
// deny, and its rules only allow. Their order makes no difference then, so the
// peers of equal ports are joined before ports are compared. It reports false
// where a rule does otherwise.
func (b *builder) decideUnion(m *policies.Model, d policies.Direction, class int32, list []governing, rules [][2][]*compiled, tier *policies.Tier) (*row, bool) {
	if tier.End != policies.ActionDeny {
		return nil, false
	}
	var yes, possible []layer
	for _, g := range list {
		if g.truth != policies.Yes || m.Policies[g.policy].Opaque != "" {
			return nil, false
		}
		for _, r := range b.compileRules(m, d, class, g.policy, rules) {
			if r.action != policies.ActionAllow {
				return nil, false
			}
			yes = append(yes, r.yes...)
			possible = append(possible, r.possible...)
		}
	}
	undefined := b.normal([]layer{{b.ports.id(tier.Undefined), b.all}})
	allow := b.subtract(b.normal(yes), undefined)
	unknown := b.unite(b.subtract(b.normal(possible), allow), undefined)
	return b.internRow(allow, unknown), true
}

// compileRules returns the rules of a policy in one direction as traffic. What
// does not depend on the class is compiled once.
func (b *builder) compileRules(m *policies.Model, d policies.Direction, class, policy int32, rules [][2][]*compiled) []*compiled {
	p := &m.Policies[policy]
	if rules[policy][d] == nil {
		rules[policy][d] = make([]*compiled, len(p.Rules[d]))
	}
	all := rules[policy][d]
	for i := range p.Rules[d] {
		r := &p.Rules[d][i]
		switch {
		case d == policies.Ingress && len(r.Named) > 0:
			all = slices.Clone(all)
			all[i] = b.compileRule(r, d, &b.classes[class])
		case all[i] == nil:
			all[i] = b.compileRule(r, d, nil)
		}
	}
	return all
}

// compileRule returns a rule as traffic. A port name means what the destination
// gives it: at ingress the class itself, at egress each column.
func (b *builder) compileRule(r *policies.Rule, d policies.Direction, subject *class) *compiled {
	who := b.peersOf(r.Peers)
	c := &compiled{action: r.Action}
	grant := func(ports portsID, among *set) {
		yes, possible := who.yes, who.possible
		if among != nil {
			yes, possible = b.and(yes, among), b.and(possible, among)
		}
		c.yes = append(c.yes, layer{ports, yes})
		c.possible = append(c.possible, layer{ports, possible})
	}
	if !r.Ports.IsEmpty() {
		grant(b.ports.id(r.Ports), nil)
	}
	for _, n := range r.Named {
		name := b.names[n]
		if d == policies.Ingress {
			for _, number := range subject.numbersOf(name) {
				grant(b.ports.id(netset.PortSpan(n.Protocol, number, number)), nil)
			}
			continue
		}
		for number, columns := range b.named[name] {
			for _, c := range columns {
				b.add(c)
			}
			grant(b.ports.id(netset.PortSpan(n.Protocol, number, number)), b.build())
		}
	}
	return c
}

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

func (b *builder) peers(m *policies.Match) peers {
	if m.Anyone {
		return peers{b.all, b.all}
	}
	key := m.Pods.String() + "\x00" + m.Namespaces.String()
	if m.Block.CIDR.IsValid() {
		key = m.Block.String()
	}
	known, ok := b.matches[key]
	if !ok {
		if m.Block.CIDR.IsValid() {
			known = b.inBlock(m.Block)
		} else {
			known = b.selected(m)
		}
		b.matches[key] = known
	}
	return known
}

// selected returns the columns of the pods that a match selects.
func (b *builder) selected(m *policies.Match) peers {
	in := b.namespacesOf(m.Namespaces)
	addClass := func(class int32) {
		for _, c := range b.classes[class].columns {
			b.add(c)
		}
	}
	b.classesOf(in.yes, m.Pods, addClass)
	yes := b.build()
	if len(in.maybe) == 0 {
		return peers{yes, yes}
	}
	b.addSet(yes)
	b.classesOf(in.maybe, m.Pods, addClass)
	return peers{yes, b.build()}
}

// inBlock returns the columns whose addresses are in a block. An address that
// is not known may be in any block that does not miss its space.
func (b *builder) inBlock(block netset.Block) peers {
	addresses := block.Addresses()
	add := func(column int32) {
		if b.columns[column].class < 0 || !b.options.IgnorePodBlocks {
			b.add(column)
		}
	}
	for first, last := range addresses.Spans() {
		for a, end := b.atomOf(first), b.atomOf(last); a <= end; a++ {
			add(b.outside + a)
			for _, column := range b.atomCols[a] {
				add(column)
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
