package reach

import (
	"encoding/binary"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// Edit is what becomes of a model: some of its policies are taken out, by name, and
// then some are put in, each in the place of the one of its name if there is one.
type Edit struct {
	Put    []policies.Policy
	Delete []policies.Ref
	// World takes the place of the model's, where it is set. The pods of both must be in
	// the order of their names, as Ref.Compare has it. Pods names those that came, went
	// or are not as before, and Others what else of the world is: a Namespace, Service,
	// ServiceAccount, Node and so on.
	World        *policies.World
	Pods, Others []policies.Ref
}

// With returns the judge of the model after an edit, and what is decided otherwise
// than before. It answers what New would say of that model, in which the policies are
// in the order of Policy.Compare. The judges share what stays as it is: where j was
// made with Options.Lasting, only the pods that an edited policy applies to are judged
// again, and those that came and are like none before, with whom policies name them;
// unless the edit tells apart what j does not, or changes nodes, network sets, or
// Services and service accounts that policies name: see Change.Anew. What is judged is
// the edit as it is: neither it nor the model may change afterwards.
func (j *Judge) With(e Edit) (*Judge, *Change) {
	world := j.world
	if e.World != nil {
		world = e.World
	}
	j = j.whole()
	if j.maker == nil {
		lasting := bookOf(j.Model())
		lasting.findByRef()
		after, _, _ := lasting.edited(e, world)
		return j.anew(after)
	}
	after, gone, added := j.book.edited(e, world)
	to, ok := j.move(&e)
	if !ok || !j.serves(after, gone, added, to.tongues) {
		return j.anew(after)
	}
	return j.revise(after, gone, added, to)
}

// anew makes a judge that shares nothing.
func (j *Judge) anew(after *book) (*Judge, *Change) {
	o := j.options
	o.Lasting = true
	head := New(after.model(), o)
	return head, &Change{base: j, head: head, anew: true}
}

// settled returns the judge, or one like it whose policies go by their indexes.
func (j *Judge) settled() *Judge {
	if j.book.order == nil {
		return j
	}
	o := j.options
	o.Lasting = false
	return New(j.Model(), o)
}

// mostAdded is how many policies an edit may put in without beginning anew.
const mostAdded = 15

// serves reports whether the classes of a judge are those of an edit, too, given who
// speaks IPv6 in its world.
func (j *Judge) serves(after *book, gone, added []int32, tongues tongues) bool {
	labelled := len(j.labelled) > 0
	for _, i := range gone {
		tongues = tongues.and(j.book.policy(i), -1)
	}
	for _, i := range added {
		p := after.policy(i)
		tongues = tongues.and(p, 1)
		for m := range matchesOf(p) {
			if !j.tells(m, labelled) {
				return false
			}
		}
		for n := range namesOf(p) {
			if _, known := j.names[n]; !known {
				return false
			}
		}
		if j.hosts.mayApply(p) {
			return false
		}
	}
	for _, i := range gone {
		if j.hosts.mayApply(j.book.policy(i)) {
			return false
		}
	}
	worn := after.gone > after.policies.count/2+1000 || j.maker.stamped > 8*after.policies.count+1000
	return tongues.ipv6() == j.ipv6 && len(added) <= mostAdded && !worn
}

// mayApply reports whether a policy may apply to some host endpoint.
func (h *hosts) mayApply(p *policies.Policy) bool {
	for i := range h.world.Hosts {
		if h.isSubject(p, &h.world.Hosts[i]) > policies.No {
			return true
		}
	}
	return false
}

// over returns an evaluation of another book and world that knows what this one knows,
// to which nothing may be added from now on.
func (e *evaluation) over(of *book, to *moved) *evaluation {
	b, next := *e.builder, *e
	b.algebra, b.rowsByKey = e.algebra.over(), e.rowsByKey.over()
	b.matches, b.scopes = e.matches.over(), e.scopes.over()
	next.builder, next.book = &b, of
	if b.frame != to.frame {
		b.matches = table[string, peers]{} // they are about columns that the frame before has not
		if len(b.namespaces) != len(to.namespaces) {
			b.scopes = table[string, scope]{}
		}
	}
	b.frame, b.world, b.place = to.frame, to.world, to.place
	hosts := *e.hosts
	hosts.world, next.hosts = to.world, &hosts
	next.stamps = e.stamps.over()
	next.byStages, next.outcomes = e.byStages.over(), e.outcomes.over()
	for _, d := range policies.Directions {
		next.stages[d], next.rules[d] = e.stages[d].over(), e.rules[d].copy()
		for next.rules[d].count < of.policies.count {
			next.rules[d].push(nil)
		}
	}
	return &next
}

// revise makes a judge of another one whose classes serve: all but the rows of those
// whom edited policies govern, which are made when they are asked for.
func (j *Judge) revise(after *book, gone, added []int32, to *moved) (*Judge, *Change) {
	e := j.maker.over(after, to)
	base, head := j, *j
	head.frame, head.world, head.placement, head.tongues, head.inherited = to.frame, to.world, to.place, to.tongues, to.inherited
	head.book, head.hosts = after, e.hosts
	for _, i := range gone {
		head.tongues = head.tongues.and(j.book.policy(i), -1)
	}
	for _, i := range added {
		head.tongues = head.tongues.and(after.policy(i), 1)
	}
	if to.is != nil {
		head.grouping = j.grouping.over(to.frame, to.world, to.place, to.is)
	}
	if to.frame != j.frame {
		head.maker, head.ports = e, e.ports
		head.copyPages()
		head.receive(len(j.classes))
		base = j.among(&head, to.was)
		e = e.over(after, to)
	}
	r := &revision{draft: newDraft(&head, e, gone, added, len(j.classes)), Change: newChange(base, &head)}
	head.draft = r.draft
	for column := range to.peopled {
		r.Change.sets.add(column)
	}
	r.Change.peopled = r.Change.sets.build()
	r.mark(j.book)
	for _, d := range policies.Directions {
		r.review(d)
	}
	r.Change.portSets = e.ports.sets
	return &head, r.Change
}

// copyPages makes what the judge has of each class its own.
func (j *Judge) copyPages() {
	j.local = j.local.copy()
	for _, d := range policies.Directions {
		j.governing[d], j.rows[d] = j.governing[d].copy(), j.rows[d].copy()
	}
}

// receive judges the classes from first on, which the judge's frame has more than that
// of the judge it was made of, and all those again whose policies are about them.
func (j *Judge) receive(first int) {
	again := j.maker.welcome(first)
	for class := int32(first); int(class) < len(j.classes); class++ {
		lists := j.maker.governs(class)
		for _, d := range policies.Directions {
			j.governing[d].push(lists[d])
			j.rows[d].push(j.maker.row(d, class, lists[d]))
		}
		j.local.push(j.maker.rowFromOwnNode(class, lists[policies.Ingress]))
	}
	for _, d := range policies.Directions {
		lists := map[*governing]*reception{}
		for class := range int32(first) {
			list := j.governing[d].at(class)
			if len(list) == 0 {
				continue
			}
			known := lists[&list[0]]
			if known == nil {
				isGone := func(g governing) bool { return j.book.policy(g.policy) == nil } // which is reviewed
				known = &reception{again: slices.ContainsFunc(list, func(g governing) bool { return again[g.policy] }) && !slices.ContainsFunc(list, isGone)}
				known.alike = known.again && !j.book.dependsOnClass(d, list)
				lists[&list[0]] = known
			}
			if !known.again {
				continue
			}
			rows := known.rows
			if rows[0] == nil || j.classes[class].role != plain {
				rows[0] = j.maker.row(d, class, list)
				if d == policies.Ingress {
					rows[1] = j.maker.rowFromOwnNode(class, list)
				}
			}
			if known.alike && j.classes[class].role == plain {
				known.rows = rows
			}
			j.rows[d].set(class, rows[0])
			if d == policies.Ingress {
				j.local.set(class, rows[1])
			}
		}
	}
}

// reception is what becomes of those whom a list of policies governs when others come.
type reception struct {
	again, alike bool    // they are judged again, all of them alike
	rows         [2]*row // from anybody, and from their own nodes
}

// among returns the judge as it would be if its frame were that of a judge with more
// classes, in which there is nobody. Who is of which class is in the census.
func (j *Judge) among(more *Judge, c *census) *Judge {
	same := *j
	same.frame, same.grouping = more.frame, j.grouping.over(more.frame, j.world, j.placement, c)
	same.copyPages()
	for class := int32(len(j.classes)); int(class) < len(more.classes); class++ {
		for _, d := range policies.Directions {
			same.governing[d].push(more.governing[d].at(class))
			same.rows[d].push(more.rows[d].at(class))
		}
		same.local.push(more.local.at(class))
	}
	return &same
}

// columnsOf returns the columns of some classes, which are in order, and of those that
// have them as faces.
func (f *frame) columnsOf(classes []int32, s *sets) *set {
	faces := false
	for _, class := range classes {
		faces = faces || f.classes[class].role == aFace
		for _, column := range f.classes[class].columns {
			s.add(column)
		}
	}
	if faces {
		for class, faces := range f.faces {
			if slices.ContainsFunc(faces, func(face int32) bool { _, is := slices.BinarySearch(classes, face); return is }) {
				for _, column := range f.classes[class].columns {
					s.add(column)
				}
			}
		}
	}
	return s.build()
}

// dependsOnClass reports whether some policies mean different things for different
// classes that they govern.
func (b *book) dependsOnClass(d policies.Direction, list []governing) bool {
	return slices.ContainsFunc(list, func(g governing) bool { return b.policies.at(g.policy).depends[d] })
}

// shareLists makes equal lists one, so that what is worked out of one serves all.
func (j *Judge) shareLists() {
	for _, d := range policies.Directions {
		known := map[string][]governing{}
		var key []byte
		for class, list := range j.governing[d].each() {
			key = key[:0]
			for _, g := range list {
				key = binary.LittleEndian.AppendUint32(key, uint32(g.policy)<<2|uint32(g.truth))
			}
			shared, ok := known[string(key)]
			if !ok {
				shared = slices.Clip(list)
				known[string(key)] = shared
			}
			j.governing[d].set(class, shared)
		}
	}
}
