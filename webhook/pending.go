package webhook

import (
	"slices"
	"strconv"
	"sync"
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
	uid       types.UID            // of the object
	was       live.Version         // what it is made of; zero where it comes
	until     time.Time            // it has been stored by then, or never will be

	isKnown bool   // something of the object has been seen
	after   string // a version of the object: where it is no more after that, the admission is over
}

// isGone reports whether the object goes.
func (a *admission) isGone() bool { return a.entry == nil && a.invariant == nil }

// sight is what is seen of the name of an object.
type sight struct {
	live.Version           // zero where it is not there
	revision     string    // as of which version it is so; "" where nobody knows
	since        time.Time // since when all that becomes of it is seen; zero while it is not
}

// isOver reports whether an admission cannot come to be any more, or is what is seen,
// or older. The states of an object are seen in their order, and a change of one can be
// stored only on top of what it is made of.
func (a *admission) isOver(s sight) bool {
	switch {
	case s.UID == a.uid:
		a.isKnown = true
		return a.was == live.Version{} || isNewer(s.ResourceVersion, a.was.ResourceVersion)
	case a.isKnown: // it went
		return true
	}
	return a.after != "" && isLater(s.revision, a.after)
}

// late is for how long what was stored may be unseen, after a watch was begun again.
const late = time.Second

// isLate reports whether an admission that was not seen cannot come to be any more.
// While nobody sees, it may have been.
func (a *admission) isLate(s sight, now time.Time) bool {
	return !now.Before(a.until) && !s.since.IsZero() && !now.Before(s.since.Add(late))
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

// isLater compares versions of objects of one kind. It is false where they are no
// numbers, for then nobody knows.
func isLater(a, b string) bool {
	x, errX := strconv.ParseUint(a, 10, 64)
	y, errY := strconv.ParseUint(b, 10, 64)
	return errX == nil && errY == nil && x > y
}

// ledger holds the admissions that are pending, the oldest first. It is safe for
// concurrent use.
type ledger struct {
	mutex   sync.Mutex
	pending []*admission
}

// add takes an admission.
func (l *ledger) add(a *admission) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	if a.after == "" {
		a.after = a.was.ResourceVersion
	}
	if len(l.pending) == mostPending {
		l.pending = slices.Delete(l.pending, 0, 1)
	}
	l.pending = append(l.pending, a)
}

// mostPending is how many admissions are remembered. There are so many only where
// something could not be watched for long, and then nobody is told that a change is fine.
const mostPending = 10_000

// learn takes a state that an object was in when somebody asked to change it.
func (l *ledger) learn(k k8s.Key, was live.Version) {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	for _, a := range l.pending {
		if a.key == k && a.uid == was.UID && a.after == "" {
			a.after = was.ResourceVersion
		}
	}
}

// settle forgets the admissions of some objects that are over, or late. It returns the
// others.
func (l *ledger) settle(seen func(k8s.Key) (sight, bool), now time.Time) []*admission {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	l.pending = slices.DeleteFunc(l.pending, func(a *admission) bool {
		s, asked := seen(a.key)
		return asked && (a.isOver(s) || a.isLate(s, now))
	})
	return slices.Clone(l.pending)
}

func (l *ledger) len() int {
	l.mutex.Lock()
	defer l.mutex.Unlock()
	return len(l.pending)
}
