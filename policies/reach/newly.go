package reach

import (
	"iter"
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// Twin is an end, and who it is to another judge: the pod or the node of the same
// name, or the same address. Was is the zero End where nobody is.
type Twin struct{ End, Was End }

// Met is traffic between two ends. Others may be decided alike, by both judges.
type Met struct {
	From, To Twin
	Ports    netset.Ports
}

// Shares reports whether two judges share their classes, as those of Pair do, and
// mostly those that With makes of one another.
func (j *Judge) Shares(other *Judge) bool { return j.frame == other.frame }

// Newly yields what j decides in one way from one group to another on some ports, as
// far as a judge of what was before, with which it shares its classes, may decide it
// otherwise, or know nobody of the name. Whom the groups describe perhaps is left out.
func (j *Judge) Newly(before *Judge, from, to Group, ports netset.Ports, want policies.Verdict) iter.Seq[Met] {
	return func(yield func(Met) bool) {
		if from.frame == nil || to.frame == nil || ports.IsEmpty() {
			return
		}
		j, before := j.whole(), before.whole()
		k := kinship{Judge: j, before: before, known: map[int32][]Twin{}}
		if j.world != before.world {
			k.meet(from, to, ports, want, yield)
			return
		}
		// Of the same ends, those with the same rows are decided as before.
		if k.meet(j.rejudged(before, policies.Egress, from), to, ports, want, yield) {
			k.meet(from, j.rejudged(before, policies.Ingress, to), ports, want, yield)
		}
	}
}

// Twins yields who is in a group for sure, one of those that both judges tell from
// nobody of them.
func (j *Judge) Twins(before *Judge, g Group) iter.Seq[Twin] {
	return func(yield func(Twin) bool) {
		k := kinship{Judge: j, before: before, known: map[int32][]Twin{}}
		for m := range j.Members(g) {
			if m.Perhaps {
				continue
			}
			for _, t := range k.twins(m.End) {
				if !yield(t) {
					return
				}
			}
		}
	}
}

// rejudged returns those of a group that have another row in one direction than
// before.
func (j *Judge) rejudged(before *Judge, d policies.Direction, g Group) Group {
	classes := slices.Collect(differing(&j.rows[d], &before.rows[d]))
	if d == policies.Ingress {
		classes = slices.AppendSeq(classes, differing(&j.local, &before.local))
		slices.Sort(classes)
	}
	sets := newSets(len(j.columns))
	all := j.frame.columnsOf(classes, sets)
	return Group{j.frame, sets.and(g.sure, all), sets.and(g.possible, all)}
}

// kinship finds who ends were to another judge of the same classes.
type kinship struct {
	*Judge
	before *Judge
	pods   map[policies.Ref]int32 // of before
	nodes  map[string]int32
	known  map[int32][]Twin // by class, what twins returned
}

// past is what tells pods of one class apart: their class before, and where that
// counts their nodes.
type past struct {
	class     int32
	node, was string
}

// twins returns those of an end's class, two of each past: nobody meets itself.
func (k *kinship) twins(e End) []Twin {
	class := k.classOf(e)
	if class < 0 {
		return []Twin{{e, e}}
	}
	all, known := k.known[class]
	if !known {
		all = k.twinsOf(class, func(t Twin) past { return past{class: k.classBefore(t)} })
		k.known[class] = all
	}
	return all
}

func (k *kinship) twinsOf(class int32, pastOf func(Twin) past) []Twin {
	var all []Twin
	count := map[past]int{}
	for _, m := range k.census().members[class] {
		t := Twin{m.end(), k.wasOf(m.end())}
		of := pastOf(t)
		if count[of]++; count[of] <= 2 {
			all = append(all, t)
		}
	}
	return all
}

// twinsByNode is twins where what is decided depends on who runs where.
func (k *kinship) twinsByNode(e End) []Twin {
	return k.twinsOf(k.classOf(e), func(t Twin) past { return past{k.classBefore(t), k.Judge.nodeOf(t.End), k.before.nodeOf(t.Was)} })
}

// classBefore returns -1 for nobody, as for addresses outside.
func (k *kinship) classBefore(t Twin) int32 {
	if t.Was == (End{}) {
		return -1
	}
	return k.before.classOf(t.Was)
}

// nodeOf returns the name of a node, or of that on which a pod runs.
func (j *Judge) nodeOf(e End) string {
	switch e.kind {
	case podEnd:
		return j.world.Pods[e.index].Node
	case nodeEnd:
		return j.world.Nodes[e.index].Name
	}
	return ""
}

// wasOf returns who an end was before.
func (k *kinship) wasOf(e End) End {
	if k.world == k.before.world {
		return e
	}
	if k.pods == nil {
		was := k.before.world
		k.pods, k.nodes = make(map[policies.Ref]int32, len(was.Pods)), make(map[string]int32, len(was.Nodes))
		for i := range was.Pods {
			k.pods[was.Pods[i].Ref] = int32(i)
		}
		for i := range was.Nodes {
			k.nodes[was.Nodes[i].Name] = int32(i)
		}
	}
	index, there := int32(0), false
	if e.kind == podEnd {
		index, there = k.pods[k.world.Pods[e.index].Ref]
	} else {
		index, there = k.nodes[k.world.Nodes[e.index].Name]
	}
	if !there {
		return End{}
	}
	return End{kind: e.kind, index: index}
}

// meet yields what is decided in one way from one group to another, by the pasts of
// ends, and reports whether more is wanted.
func (k *kinship) meet(from, to Group, ports netset.Ports, want policies.Verdict, yield func(Met) bool) bool {
	is, was := newPairing(k.Judge), newPairing(k.before)
	for c := range k.Between(from, to, ports, want) {
		if c.Perhaps {
			continue
		}
		sources, targets := []Twin{{c.From, c.From}}, []Twin{{c.To, c.To}}
		if k.world != k.before.world {
			sources, targets = k.twins(c.From), k.twins(c.To)
		}
		onNodes := is.excusable(k.classOf(c.From), k.classOf(c.To))
		for _, a := range sources {
			onNodes = onNodes || slices.ContainsFunc(targets, func(b Twin) bool { return was.excusable(k.classBefore(a), k.classBefore(b)) })
		}
		if onNodes {
			sources, targets = k.twinsByNode(c.From), k.twinsByNode(c.To)
		}
		for _, a := range sources {
			for _, b := range targets {
				m := Met{a, b, c.Ports}
				if a.Was != (End{}) && k.before.self(a.Was, b.Was) {
					m.To.Was = End{} // there was no other one to meet
				}
				if onNodes {
					m.Ports = k.DecidedAs(want, a.End, b.End, ports)
				}
				if !k.self(a.End, b.End) && !m.Ports.IsEmpty() && !yield(m) {
					return false
				}
			}
		}
	}
	return true
}

// DecidedAs returns those of some ports on which a verdict is given from one end to
// another, Allow, Deny or Unknown.
func (j *Judge) DecidedAs(v policies.Verdict, from, to End, of netset.Ports) netset.Ports {
	allow, unknown := j.Ports(from, to)
	switch v {
	case policies.Allow:
		return of.Intersect(allow)
	case policies.Unknown:
		return of.Intersect(unknown)
	}
	return of.Minus(allow).Minus(unknown)
}
