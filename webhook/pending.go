package webhook

import (
	"slices"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
)

// admission is a change of one object that may have been stored, though it has not
// been seen yet.
type admission struct {
	key       k8s.Key
	entry     *k8s.Entry           // nil where the object goes, and of an Invariant
	invariant *invariant.Invariant // of one; nil where it goes
	within    []k8s.Key            // what goes along with it: of a Namespace, all that it holds
	uid       types.UID            // of the object
	was       live.Version         // what it is made of; zero where it comes
	held      live.Version         // what was seen of the name at that time
	until     time.Time            // it has been stored by then, or never will be
}

// isGone reports whether the object goes.
func (a *admission) isGone() bool { return a.entry == nil && a.invariant == nil }

// isSeen reports whether what is seen of the object is this admission, or newer:
// whether it was stored or not, it cannot be any more.
func (a *admission) isSeen(v live.Version, there bool) bool {
	switch {
	case !there: // it went, unless nothing of it had been seen
		return a.was != live.Version{} && a.held != live.Version{}
	case v.UID == a.uid:
		return isNewer(v.ResourceVersion, a.was.ResourceVersion)
	}
	return v.UID != a.held.UID // another one has its name, not its predecessor
}

// isNewer compares versions of one object. They are numbers; should they ever be
// something else, any other one is newer.
func isNewer(a, b string) bool {
	if a == "" || b == "" {
		return a != ""
	}
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	if errX != nil || errY != nil {
		return a != b
	}
	return x > y
}

// ledger holds the admissions that are pending, the oldest first. It serves one
// goroutine.
type ledger struct{ pending []*admission }

// settle forgets the admissions that have been seen, and those whose time is over.
func (l *ledger) settle(held func(k8s.Key) (live.Version, bool), now time.Time) {
	l.pending = slices.DeleteFunc(l.pending, func(a *admission) bool { return !now.Before(a.until) || a.isSeen(held(a.key)) })
}

// add takes an admission. Of two of one object, one that was made of an older
// version cannot come to be any more.
func (l *ledger) add(a *admission) {
	isOlder := func(a, b *admission) bool {
		return a.key == b.key && a.uid == b.uid && b.was.ResourceVersion != "" && isNewer(b.was.ResourceVersion, a.was.ResourceVersion)
	}
	if slices.ContainsFunc(l.pending, func(b *admission) bool { return isOlder(a, b) }) {
		return
	}
	l.pending = append(slices.DeleteFunc(l.pending, func(b *admission) bool { return isOlder(b, a) }), a)
}

// rivals returns those that another one of the same object is behind, of which only
// one can come to be.
func (l *ledger) rivals() (rivals []*admission) {
	for i, a := range l.pending {
		if slices.ContainsFunc(l.pending[i+1:], func(b *admission) bool { return a.key == b.key }) {
			rivals = append(rivals, a)
		}
	}
	return rivals
}

// overlay returns what a store has to put in and to take out so that admissions
// have come to be, the later ones over the earlier.
func overlay(admissions ...*admission) (put []*k8s.Entry, gone []k8s.Key) {
	last := map[k8s.Key]*admission{}
	for _, a := range admissions {
		last[a.key] = a
	}
	for _, a := range admissions {
		switch {
		case last[a.key] != a || isInvariant(a.key):
		case a.entry != nil:
			put = append(put, a.entry)
		default:
			gone = append(append(gone, a.key), a.within...)
		}
	}
	return put, gone
}

// declared returns the invariants as they are once the admissions have come to be.
func declared(seen []invariant.Invariant, admissions []*admission) []invariant.Invariant {
	all := slices.Clone(seen)
	for _, a := range admissions {
		if !isInvariant(a.key) || a.invariant == nil {
			continue // one that goes is looked at until it is gone
		}
		if i := slices.IndexFunc(all, func(i invariant.Invariant) bool { return i.Ref.Name == a.key.Name }); i >= 0 {
			all[i] = *a.invariant
		} else {
			all = append(all, *a.invariant)
		}
	}
	return all
}
