package policies

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Enforce returns what the model would be if staged policies of it, given by
// their indexes, were enforced: each takes the place of the policy of its name,
// comes anew where there is none, or, where it Deletes, removes it. The others
// stay staged. One that deletes what is not there changes nothing and is warned
// of.
//
// The two models share what they have in common; m itself is not changed.
func (m *Model) Enforce(staged ...int) *Model {
	head := *m
	head.Staged, head.Policies = nil, make([]Policy, 0, len(m.Policies)+len(staged))
	replaced := map[Ref]bool{}
	for i := range m.Staged {
		s := &m.Staged[i]
		switch {
		case !slices.Contains(staged, i):
			head.Staged = append(head.Staged, *s)
			continue
		case !s.Deletes:
			head.Policies = append(head.Policies, s.Policy)
		}
		replaced[s.Policy.Ref] = true
	}
	there := map[Ref]bool{}
	for i := range m.Policies {
		if p := &m.Policies[i]; replaced[p.Ref] {
			there[p.Ref] = true
		} else {
			head.Policies = append(head.Policies, *p)
		}
	}
	slices.SortFunc(head.Policies, Policy.Compare)
	head.Warnings = slices.Clone(m.Warnings)
	for _, i := range staged {
		if s := &m.Staged[i]; s.Deletes && !there[s.Policy.Ref] {
			head.Warnings = append(head.Warnings, Warning{s.Policy.Place, fmt.Sprintf(
				"%s %s would delete %s %s, which is not there, so enforcing it changes nothing; check its name, or delete it",
				s.Ref.Kind, s.Ref, s.Policy.Ref.What(), s.Policy.Ref)})
		}
	}
	slices.SortFunc(head.Warnings, Warning.Compare)
	head.Warnings = slices.Compact(head.Warnings)
	return &head
}

// Compare orders policies as a model has them: by priority, name and place.
func (p Policy) Compare(q Policy) int {
	// Kinds of two groups may share a name.
	return cmp.Or(cmp.Compare(p.Priority, q.Priority), p.Ref.Compare(q.Ref), p.Place.Compare(q.Place))
}

// Compare orders warnings by place and message.
func (w Warning) Compare(v Warning) int {
	return cmp.Or(w.Place.Compare(v.Place), strings.Compare(w.Message, v.Message))
}
