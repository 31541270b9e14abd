package lint

import (
	"slices"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/reach"
)

func stagedLeftover(l *look) {
	for i := range l.Staged {
		s := &l.Staged[i]
		at := slices.IndexFunc(l.Policies, func(p policies.Policy) bool { return p.Ref == s.Policy.Ref })
		switch {
		case s.Deletes && at < 0:
			l.reportStaged(Warning, i, "this would delete %s %s, which is not there; remove it, or correct its name", s.Policy.Ref.What(), s.Policy.Ref)
		case s.Deletes || s.Policy.Opaque != "":
		case at >= 0 && s.Policy.Says(&l.Policies[at]):
			l.reportStaged(Warning, i, "this says what %s %s says already, which is enforced; remove it", s.Policy.Ref.What(), s.Policy.Ref).See = l.Policies[at].Place
		case l.changesNothing(i) && at >= 0:
			l.reportStaged(Note, i, "this says something else than %s %s, and to enforce it would change no connection here; do so, or remove it", s.Policy.Ref.What(), s.Policy.Ref).See = l.Policies[at].Place
		case l.changesNothing(i):
			l.reportStaged(Note, i, "to enforce this would change no connection here; do so, or remove it")
		}
	}
}

// changesNothing reports whether every connection stays as it is when a staged
// policy is enforced.
func (l *look) changesNothing(staged int) bool {
	base, head := reach.Pair(l.Model, l.Enforce(staged), l.judge.Options())
	for range reach.Compare(base, head) {
		return false
	}
	return true
}
