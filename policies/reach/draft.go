package reach

import (
	"iter"
	"slices"
	"sync"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/netset"
)

// draft is what an edit leaves to be worked out: the rows of those whom edited policies
// govern. Each is when it is asked for, so that an edit that concerns everybody costs
// little where few are asked about, and the others before the judge is edited again.
type draft struct {
	gone, added []int32
	// marks say of each class whether an edited policy applies to it, and for each
	// of those added for sure or perhaps, two bits each.
	marks   sparse[uint32]
	touched []int32 // the classes that have one, ascending
	in      [2]bool // some edited policy governs the direction
	rows    int32   // how many there were before
	whole   func() *Judge

	mutex sync.Mutex // of what follows
	*evaluation
	lists  [2]map[listKey][]governing
	simple [2]map[*governing]*[2]*row // rows of lists that depend on nothing else
	ready  *Judge                     // what whole returns, once it has been asked for
}

// listKey is a list, by its first element, and what is added to it.
type listKey struct {
	list  *governing
	marks uint32
}

func listKeyOf(list []governing, marks uint32) listKey {
	if len(list) == 0 {
		return listKey{marks: marks}
	}
	return listKey{&list[0], marks}
}

// newDraft returns a draft of a judge that says of this many classes, the first, what
// held for them before.
func newDraft(j *Judge, e *evaluation, gone, added []int32, classes int) *draft {
	x := &draft{evaluation: e, gone: gone, added: added, marks: newSparse[uint32](classes), rows: e.rowCount}
	for _, d := range policies.Directions {
		x.lists[d], x.simple[d] = map[listKey][]governing{}, map[*governing]*[2]*row{}
	}
	x.whole = sync.OnceValue(func() *Judge { return x.finish(*j) })
	return x
}

// whole returns the judge with all its rows.
func (j *Judge) whole() *Judge {
	if j.draft == nil {
		return j
	}
	return j.draft.whole()
}

// finish makes all rows that are to be made.
func (x *draft) finish(j Judge) *Judge {
	x.mutex.Lock()
	defer x.mutex.Unlock()
	j.copyPages()
	for _, d := range policies.Directions {
		for _, class := range x.touched {
			was := j.governing[d].at(class)
			is := x.list(d, was, x.marks.at(class))
			if slices.Equal(was, is) {
				continue
			}
			j.governing[d].set(class, is)
			rows := x.rowsOf(d, class, is)
			if rows[0] != j.rows[d].at(class) {
				j.rows[d].set(class, rows[0])
			}
			if d == policies.Ingress && rows[1] != j.local.at(class) {
				j.local.set(class, rows[1])
			}
		}
	}
	j.draft, j.maker, j.ports = nil, x.evaluation, x.ports
	x.ready = &j
	return &j
}

// governs returns the policies that govern a class, in the order of evaluation.
func (j *Judge) governs(d policies.Direction, class int32) []governing {
	list := j.governing[d].at(class)
	if j.draft == nil || j.draft.marks.at(class) == 0 {
		return list
	}
	return j.draft.edited(d, list, j.draft.marks.at(class))
}

// edited returns what becomes of a list of policies in the order of evaluation.
func (x *draft) edited(d policies.Direction, was []governing, marks uint32) []governing {
	is := make([]governing, 0, len(was)+len(x.added))
	for _, g := range was {
		if !slices.Contains(x.gone, g.policy) {
			is = append(is, g)
		}
	}
	for k, i := range x.added {
		t := policies.Truth(marks >> (2 * k) & 3)
		if t == policies.No || !x.policy(i).Governs[d] {
			continue
		}
		at, _ := slices.BinarySearchFunc(is, i, func(g governing, i int32) int {
			if c := x.compare(g.policy, i); c != 0 {
				return c
			}
			return x.tie(g.policy, i)
		})
		is = slices.Insert(is, at, governing{i, t})
	}
	return is
}

// list is edited, remembering it. The mutex must be held.
func (x *draft) list(d policies.Direction, was []governing, marks uint32) []governing {
	key := listKeyOf(was, marks)
	is, known := x.lists[d][key]
	if !known {
		is = x.edited(d, was, marks)
		x.lists[d][key] = is
	}
	return is
}

// rowsOf returns the row of a class, and at ingress what comes from a pod's own node.
// The mutex must be held.
func (x *draft) rowsOf(d policies.Direction, class int32, list []governing) *[2]*row {
	rows := func() *[2]*row {
		r := &[2]*row{x.row(d, class, list)}
		if d == policies.Ingress {
			r[1] = x.rowFromOwnNode(class, list)
		}
		return r
	}
	if len(list) == 0 || len(x.nodeIDs) > 0 || x.classes[class].role != plain {
		return rows()
	}
	known, ok := x.simple[d][&list[0]]
	if !ok {
		known = rows()
		if !x.dependsOnClass(d, list) {
			x.simple[d][&list[0]] = known
		}
	}
	return known
}

// rowsOf returns the row of a class, and at ingress what comes from a pod's own node,
// with the port sets that their layers name.
func (j *Judge) rowsOf(d policies.Direction, class int32) (rows [2]*row, ports []netset.Ports) {
	x := j.draft
	x.mutex.Lock()
	defer x.mutex.Unlock()
	if x.ready != nil {
		j = x.ready
	} else {
		was := j.governing[d].at(class)
		if is := x.list(d, was, x.marks.at(class)); !slices.Equal(was, is) {
			return *x.rowsOf(d, class, is), x.ports.sets
		}
	}
	rows[0] = j.rows[d].at(class)
	if d == policies.Ingress {
		rows[1] = j.local.at(class)
	}
	return rows, x.ports.sets
}

// sparse is a list most of whose elements are zero.
type sparse[T any] struct {
	pages []*[pageSize]T
	count int
}

func newSparse[T any](count int) sparse[T] {
	return sparse[T]{make([]*[pageSize]T, (count+pageSize-1)/pageSize), count}
}

// has reports whether the list is so long.
func (s *sparse[T]) has(i int32) bool { return int(i) < s.count }

// at returns an element, zero behind the end of the list.
func (s *sparse[T]) at(i int32) (v T) {
	if n := uint32(i) / pageSize; int(n) < len(s.pages) && s.pages[n] != nil {
		v = s.pages[n][uint32(i)%pageSize]
	}
	return v
}

// each yields some elements in order, all that are not zero among them.
func (s *sparse[T]) each() iter.Seq2[int32, T] {
	return func(yield func(int32, T) bool) {
		for n, page := range s.pages {
			if page == nil {
				continue
			}
			for k, v := range page {
				if !yield(int32(n*pageSize+k), v) {
					return
				}
			}
		}
	}
}

// of returns the place of an element.
func (s *sparse[T]) of(i int32) *T {
	page := &s.pages[uint32(i)/pageSize]
	if *page == nil {
		*page = new([pageSize]T)
	}
	return &(*page)[uint32(i)%pageSize]
}
