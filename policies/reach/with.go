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

// revision makes a judge of another one.
type revision struct {
	*evaluation
	*Change
	gone, added []int32
	// marks say of each class whether an edited policy applies to it, and for each
	// of those added for sure or perhaps, two bits each.
	marks   marks
	touched []int32
	// of those touched, in the direction at hand: the classes that other policies
	// govern, and those with other rows
	governed, others []int32
	lists            [2]map[listKey][]governing
	simple           [2]map[*governing]*[2]*row // rows of lists that depend on nothing else
}

// marks are numbers by class, few of which are not 0.
type marks struct {
	pages []*[pageSize]uint32
	count int
}

func newMarks(count int) marks {
	return marks{make([]*[pageSize]uint32, (count+pageSize-1)/pageSize), count}
}

func (m *marks) has(class int32) bool { return int(class) < m.count }

func (m *marks) of(class int32) *uint32 {
	page := &m.pages[uint32(class)/pageSize]
	if *page == nil {
		*page = new([pageSize]uint32)
	}
	return &(*page)[uint32(class)%pageSize]
}

// listKey is a list, by its first element, and what is added to it.
type listKey struct {
	list  *governing
	marks uint32
}

func (j *Judge) revise(after *book, gone, added []int32, to *moved) (*Judge, *Change) {
	e := j.maker.over(after, to)
	base, head := j, *j
	head.frame, head.world, head.placement, head.tongues, head.inherited = to.frame, to.world, to.place, to.tongues, to.inherited
	head.book, head.maker, head.ports, head.hosts = after, e, e.ports, e.hosts
	for _, i := range gone {
		head.tongues = head.tongues.and(j.book.policy(i), -1)
	}
	for _, i := range added {
		head.tongues = head.tongues.and(after.policy(i), 1)
	}
	head.local = j.local.copy()
	for _, d := range policies.Directions {
		head.governing[d], head.rows[d] = j.governing[d].copy(), j.rows[d].copy()
	}
	if to.is != nil {
		head.grouping = j.grouping.over(to.frame, to.world, to.place, to.is)
	}
	if to.frame != j.frame {
		head.receive(len(j.classes))
		base = j.among(&head, to.was)
	}
	r := &revision{evaluation: e, Change: newChange(base, &head), gone: gone, added: added, marks: newMarks(len(j.classes))}
	for column := range to.peopled {
		r.Change.sets.add(column)
	}
	r.Change.peopled = r.Change.sets.build()
	for _, i := range gone {
		e.subjectOf(j.book.policy(i), func(class int32, _ policies.Truth) { r.mark(class, 0) })
	}
	for k, i := range added {
		e.subjectOf(after.policy(i), func(class int32, t policies.Truth) { r.mark(class, uint32(t)<<(2*k)) })
	}
	slices.Sort(r.touched)
	for _, d := range policies.Directions {
		governs := func(of *book) func(int32) bool { return func(i int32) bool { return of.policy(i).Governs[d] } }
		if !slices.ContainsFunc(gone, governs(j.book)) && !slices.ContainsFunc(added, governs(after)) {
			continue
		}
		r.lists[d], r.simple[d] = map[listKey][]governing{}, map[*governing]*[2]*row{}
		r.governed, r.others = r.governed[:0], r.others[:0]
		for _, class := range r.touched {
			r.review(d, class)
		}
		r.Change.governed[d], r.changed[d] = r.frame.columnsOf(r.governed, r.Change.sets), r.frame.columnsOf(r.others, r.Change.sets)
	}
	return &head, r.Change
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
	same.local = j.local.copy()
	for _, d := range policies.Directions {
		same.governing[d], same.rows[d] = j.governing[d].copy(), j.rows[d].copy()
	}
	for class := int32(len(j.classes)); int(class) < len(more.classes); class++ {
		for _, d := range policies.Directions {
			same.governing[d].push(more.governing[d].at(class))
			same.rows[d].push(more.rows[d].at(class))
		}
		same.local.push(more.local.at(class))
	}
	return &same
}

// mark takes note of a class to which an edited policy applies, unless it was received.
func (r *revision) mark(class int32, truth uint32) {
	if !r.marks.has(class) {
		return
	}
	mark := r.marks.of(class)
	if *mark == 0 {
		r.touched = append(r.touched, class)
	}
	*mark |= truth | 1<<31
}

// review judges a class again.
func (r *revision) review(d policies.Direction, class int32) {
	was := r.base.governing[d].at(class)
	is := r.list(d, was, *r.marks.of(class))
	if slices.Equal(was, is) {
		return
	}
	r.head.governing[d].set(class, is)
	r.governed = append(r.governed, class)
	row, local := r.rowsOf(d, class, is)
	// The rows of the judge may be neither these nor those before: see receive.
	if row != r.head.rows[d].at(class) {
		r.head.rows[d].set(class, row)
	}
	if d == policies.Ingress && local != r.head.local.at(class) {
		r.head.local.set(class, local)
	}
	if row != r.base.rows[d].at(class) || d == policies.Ingress && local != r.base.local.at(class) {
		r.others = append(r.others, class)
	}
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

// list returns what becomes of a list of policies.
func (r *revision) list(d policies.Direction, was []governing, marks uint32) []governing {
	key := listKey{marks: marks}
	if len(was) > 0 {
		key.list = &was[0]
	}
	is, known := r.lists[d][key]
	if known {
		return is
	}
	is = make([]governing, 0, len(was)+len(r.added))
	for _, g := range was {
		if !slices.Contains(r.gone, g.policy) {
			is = append(is, g)
		}
	}
	for k, i := range r.added {
		t := policies.Truth(marks >> (2 * k) & 3)
		if t == policies.No || !r.policy(i).Governs[d] {
			continue
		}
		at, _ := slices.BinarySearchFunc(is, i, func(g governing, i int32) int {
			if c := r.compare(g.policy, i); c != 0 {
				return c
			}
			return r.tie(g.policy, i)
		})
		is = slices.Insert(is, at, governing{i, t})
	}
	r.lists[d][key] = is
	return is
}

// rowsOf returns the row of a class, and at ingress what comes from a pod's own node.
func (r *revision) rowsOf(d policies.Direction, class int32, list []governing) (all, local *row) {
	rows := func() *[2]*row {
		x := &[2]*row{r.row(d, class, list)}
		if d == policies.Ingress {
			x[1] = r.rowFromOwnNode(class, list)
		}
		return x
	}
	if len(list) == 0 || len(r.nodeIDs) > 0 || r.classes[class].role != plain {
		x := rows()
		return x[0], x[1]
	}
	known, ok := r.simple[d][&list[0]]
	if !ok {
		known = rows()
		if r.dependsOnClass(d, list) {
			return known[0], known[1]
		}
		r.simple[d][&list[0]] = known
	}
	return known[0], known[1]
}

// dependsOnClass reports whether some policies mean different things for different
// classes that they govern.
func (b *book) dependsOnClass(d policies.Direction, list []governing) bool {
	return slices.ContainsFunc(list, func(g governing) bool {
		return slices.ContainsFunc(b.policy(g.policy).Rules[d], func(r policies.Rule) bool { return dependsOnSubject(&r, d) })
	})
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
