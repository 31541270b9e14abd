package reach

import (
	"cmp"
	"slices"

	"github.com/weir-policy/weir/policies"
)

// book is the tiers and the policies of a model. Policies go by numbers, which are
// their indexes in the model as long as nothing has changed; a number is never given
// again.
type book struct {
	tiers    []policies.Tier
	policies pages[*policies.Policy] // nil where one is gone
	byRef    table[policies.Ref, int32]
	gone     int32
	order    func() []int32 // the numbers of all policies, as a model has them
	model    func() *policies.Model
}

func bookOf(m *policies.Model) *book {
	b := &book{tiers: m.Tiers, policies: newPages[*policies.Policy](len(m.Policies)), model: func() *policies.Model { return m }}
	for i := range m.Policies {
		b.policies.set(int32(i), &m.Policies[i])
	}
	return b
}

func (b *book) policy(number int32) *policies.Policy { return b.policies.at(number) }

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
	for i, p := range b.policies.each() {
		if p != nil {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(x, y int32) int { return b.compare(x, y) })
	return order
}

// compare says which of two policies is evaluated first, as far as they have an order.
func (b *book) compare(x, y int32) int {
	p, q := b.policy(x), b.policy(y)
	return cmp.Or(b.rank(p)-b.rank(q), cmp.Compare(p.Priority, q.Priority))
}

// index returns the index that a policy has in the model.
func (b *book) index(number int32) int {
	if b.order == nil {
		return int(number)
	}
	return slices.Index(b.order(), number)
}
