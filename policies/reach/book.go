package reach

import (
	"cmp"
	"iter"
	"slices"
	"sync"

	"github.com/weir-policy/weir/policies"
)

// book is the tiers and the policies of a model. Policies go by numbers, which are
// their indexes in the model as long as nothing has changed; a number is never given
// again.
type book struct {
	tiers    []policies.Tier
	policies pages[entry]
	byRef    table[policies.Ref, []int32] // of a judge that lasts
	gone     int32
	rest     policies.Model // without World and Policies
	model    func() *policies.Model
	order    func() []int32 // the numbers by index; nil where they are the same
}

// entry is a policy, and what is asked of many in a row.
type entry struct {
	*policies.Policy // nil where it is gone
	rank             int16
	// passes says by direction whether some rule passes traffic on, depends whether what
	// the rules mean depends on whom the policy governs.
	passes, depends [2]bool
}

func (b *book) entryOf(p *policies.Policy) entry {
	e := entry{Policy: p, rank: int16(b.rank(p))}
	for _, d := range policies.Directions {
		for i := range p.Rules[d] {
			r := &p.Rules[d][i]
			e.passes[d] = e.passes[d] || r.Action == policies.ActionPass
			e.depends[d] = e.depends[d] || dependsOnSubject(r, d)
		}
	}
	return e
}

func bookOf(m *policies.Model) *book {
	b := &book{tiers: m.Tiers, policies: newPages[entry](len(m.Policies)), rest: *m, model: func() *policies.Model { return m }}
	b.rest.World, b.rest.Policies = policies.World{}, nil
	for i := range m.Policies {
		b.policies.set(int32(i), b.entryOf(&m.Policies[i]))
	}
	return b
}

func (b *book) findByRef() {
	for i, p := range b.present() {
		known, _ := b.byRef.get(p.Ref)
		b.byRef.put(p.Ref, append(known, i))
	}
}

// edited returns the book after an edit, and the numbers of those policies that are
// not in it any more, and of those that are new.
func (b *book) edited(e Edit, w *policies.World) (after *book, gone, added []int32) {
	n := &book{tiers: b.tiers, rest: b.rest, policies: b.policies.copy(), byRef: b.byRef.over(), gone: b.gone}
	remove := func(ref policies.Ref) {
		numbers, _ := n.byRef.get(ref)
		for _, i := range numbers {
			n.policies.set(i, entry{})
			if at := slices.Index(added, i); at >= 0 {
				added = slices.Delete(added, at, at+1)
			} else {
				gone = append(gone, i)
			}
		}
		if len(numbers) > 0 {
			n.byRef.put(ref, nil)
		}
	}
	for _, ref := range e.Delete {
		remove(ref)
	}
	for i := range e.Put {
		p := e.Put[i]
		remove(p.Ref)
		number := n.policies.count
		n.policies.push(n.entryOf(&p))
		n.byRef.put(p.Ref, []int32{number})
		added = append(added, number)
	}
	n.gone += int32(len(gone))
	n.order = sync.OnceValue(func() []int32 {
		order := make([]int32, 0, n.policies.count-n.gone)
		for i := range n.present() {
			order = append(order, i)
		}
		slices.SortStableFunc(order, func(x, y int32) int {
			return cmp.Or(cmp.Compare(n.policy(x).Priority, n.policy(y).Priority), n.tie(x, y))
		})
		return order
	})
	n.model = sync.OnceValue(func() *policies.Model {
		m := n.rest
		m.World, m.Policies = *w, make([]policies.Policy, 0, n.policies.count-n.gone)
		for _, i := range n.order() {
			m.Policies = append(m.Policies, *n.policy(i))
		}
		return &m
	})
	return n, gone, added
}

// tie orders policies of one priority as a model has them.
func (b *book) tie(x, y int32) int {
	p, q := b.policy(x), b.policy(y)
	return cmp.Or(p.Ref.Compare(q.Ref), p.Place.Compare(q.Place))
}

func (b *book) policy(number int32) *policies.Policy { return b.policies.at(number).Policy }

// present yields the policies that there are by their numbers.
func (b *book) present() iter.Seq2[int32, *policies.Policy] {
	return func(yield func(int32, *policies.Policy) bool) {
		for i, p := range b.policies.each() {
			if p.Policy != nil && !yield(i, p.Policy) {
				return
			}
		}
	}
}

// tierOf returns the tier of a policy, nil for one that was not understood.
func (b *book) tierOf(p *policies.Policy) *policies.Tier {
	if at := b.rank(p); at >= 0 {
		return &b.tiers[at]
	}
	return nil
}

func (b *book) rank(p *policies.Policy) int {
	return slices.IndexFunc(b.tiers, func(t policies.Tier) bool { return t.Name == p.Tier })
}

// evaluationOrder returns the numbers of the policies by tier and priority. Policies
// that were not understood come first.
func (b *book) evaluationOrder() []int32 {
	order := make([]int32, 0, b.policies.count)
	for i := range b.present() {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(x, y int32) int { return b.compare(x, y) })
	return order
}

// compare says which of two policies is evaluated first, as far as they have an order.
func (b *book) compare(x, y int32) int {
	p, q := b.policies.at(x), b.policies.at(y)
	return cmp.Or(cmp.Compare(p.rank, q.rank), cmp.Compare(p.Priority, q.Priority))
}

// index returns the index that a policy has in the model.
func (b *book) index(number int32) int {
	if b.order == nil {
		return int(number)
	}
	return slices.Index(b.order(), number)
}
