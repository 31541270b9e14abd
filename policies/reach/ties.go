package reach

import (
	"slices"

	"github.com/weir-policy/weir/policies"
)

// OrderMatters reports whether two policies of one tier allow something for sure
// when the one comes right before the other, and deny it for sure when it comes
// right behind it. Others of the same priority, which have no order either, are
// taken not to be there.
func (a *Audit) OrderMatters(p, q int) bool {
	var evaluations [2]*evaluation
	for _, d := range policies.Directions {
		for i := range a.groups[d] {
			g := &a.groups[d][i]
			if !governs(g.list, p) || !governs(g.list, q) {
				continue
			}
			var rows [2]*row
			for k, order := range [2][2]int{{p, q}, {q, p}} {
				if evaluations[k] == nil {
					evaluations[k] = a.inOrder(order[0], order[1])
				}
				rows[k] = evaluations[k].row(d, g.classes[0], a.arranged(g.list, order[0], order[1]))
			}
			if a.contradict(rows[0], rows[1]) || a.contradict(rows[1], rows[0]) {
				return true
			}
		}
	}
	return false
}

// contradict reports whether one row allows what the other denies.
func (a *Audit) contradict(allows, denies *row) bool {
	return allows != denies && len(a.e.subtract(a.e.subtract(allows.allow, denies.allow), denies.unknown)) > 0
}

// inOrder returns an evaluation in which one policy comes right before another,
// where the first of them stands.
func (a *Audit) inOrder(first, second int) *evaluation {
	m := *a.model
	m.Policies = slices.Clone(m.Policies)
	at := min(m.Policies[first].Priority, m.Policies[second].Priority)
	for i := range m.Policies {
		m.Policies[i].Priority *= 2 // makes room behind each
	}
	m.Policies[first].Priority, m.Policies[second].Priority = 2*at, 2*at+1
	e := newEvaluation(a.e.builder, bookOf(&m), a.hosts)
	e.rules = a.e.rules // their order does not concern them
	return &e
}

// arranged returns a list with two of its policies in this order, where the
// first of them stands, without those that have no order with either.
func (a *Audit) arranged(list []governing, first, second int) []governing {
	of := a.model.Policies
	var arranged []governing
	done := false
	for _, g := range list {
		p := &of[g.policy]
		switch {
		case int(g.policy) == first || int(g.policy) == second:
			if !done {
				done = true
				for _, one := range []int{first, second} {
					at := slices.IndexFunc(list, func(g governing) bool { return int(g.policy) == one })
					arranged = append(arranged, list[at])
				}
			}
		case p.Tier == of[first].Tier && (p.Priority == of[first].Priority || p.Priority == of[second].Priority):
		default:
			arranged = append(arranged, g)
		}
	}
	return arranged
}
