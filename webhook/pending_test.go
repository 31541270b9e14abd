package webhook

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/policies/k8s"
)

func TestAdmissionIsOver(t *testing.T) {
	seen := func(uid, version string) sight {
		return sight{Version: live.Version{UID: types.UID(uid), ResourceVersion: version}, revision: version}
	}
	gone := func(revision string) sight { return sight{revision: revision} }
	comes := admission{uid: "new"}
	came := admission{uid: "new", after: "7"} // somebody asked to change it since
	changes := admission{uid: "it", was: live.Version{UID: "it", ResourceVersion: "10"}, after: "10"}
	known := changes
	known.isKnown = true
	for _, row := range []struct {
		name string
		a    admission
		now  sight
		want bool
	}{
		{"what comes is not there yet", comes, gone("20"), false},
		{"what comes is there", comes, seen("new", "5"), true},
		{"another one of its name may have been before it", comes, seen("other", "5"), false},
		{"what came is not there yet", came, gone("6"), false},
		{"what came has gone", came, gone("8"), true},
		{"what came has gone, and another one came", came, seen("other", "9"), true},
		{"what came after another one is not there yet", came, seen("other", "5"), false},
		{"a change is not there yet", changes, seen("it", "10"), false},
		{"what is seen is older than what was changed", changes, seen("it", "9"), false},
		{"nine is before ten", changes, seen("it", "9"), false},
		{"a change is there", changes, seen("it", "11"), true},
		{"a hundred is after eleven", changes, seen("it", "100"), true},
		{"versions that are no numbers", changes, seen("it", "x"), true},
		{"what was changed is not there yet", changes, gone("9"), false},
		{"what was changed has gone", changes, gone("11"), true},
		{"what was changed has gone after it was seen", known, gone(""), true},
		{"nobody knows since when it is not there", changes, gone(""), false},
		{"what was changed has gone, and another one came", changes, seen("other", "12"), true},
		{"what was changed has not come yet, for its predecessor is there", changes, seen("old", "3"), false},
		{"its predecessor has a version that is no number", changes, seen("old", "x"), false},
	} {
		if got := row.a.isOver(row.now); got != row.want {
			t.Errorf("%s: it is over: %v", row.name, got)
		}
	}
}

func TestLedger(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	key := k8s.KeyOf("networking.k8s.io/v1", "NetworkPolicy", "shop", "a")
	change := func(revision string) *admission {
		return &admission{key: key, uid: "it", was: live.Version{UID: "it", ResourceVersion: revision}, until: noon.Add(time.Minute)}
	}
	since := func(version string, since time.Time) func(k8s.Key) (sight, bool) {
		return func(k8s.Key) (sight, bool) {
			return sight{live.Version{UID: "it", ResourceVersion: version}, version, since}, true
		}
	}
	seen := func(version string) func(k8s.Key) (sight, bool) { return since(version, noon) }
	over := noon.Add(time.Minute)
	var l ledger
	l.add(change("10"))
	l.add(change("12")) // of what the first one made
	for _, row := range []struct {
		name string
		seen func(k8s.Key) (sight, bool)
		at   time.Time
		want int
	}{
		{"nobody looks", func(k8s.Key) (sight, bool) { return sight{}, false }, noon, 2},
		{"it is as before", seen("10"), noon, 2},
		{"the first is seen", seen("12"), noon, 1},
		{"the second has time", seen("12"), over.Add(-1), 1},
		{"nobody asks about its kind", func(k8s.Key) (sight, bool) { return sight{}, false }, over, 1},
		{"nobody sees whether it came", since("12", time.Time{}), over.Add(time.Hour), 1},
		{"it may be seen any moment", since("12", over.Add(time.Hour)), over.Add(time.Hour), 1},
		{"the second can come no more", seen("12"), over, 0},
	} {
		if got := len(l.settle(row.seen, row.at)); got != row.want {
			t.Errorf("%s: %d are pending, want %d", row.name, got, row.want)
		}
	}
	comes := &admission{key: key, uid: "new", until: noon.Add(time.Minute)}
	l.add(comes)
	if l.learn(key, live.Version{UID: "other", ResourceVersion: "20"}); comes.after != "" {
		t.Error("another object of its name says that it came")
	}
	if l.learn(key, live.Version{UID: "new", ResourceVersion: "21"}); comes.after != "21" {
		t.Error("a change of it does not say that it came")
	}
}

func TestWarningsFit(t *testing.T) {
	var v verdict
	for i := range 100 {
		v.warn("%d %0300d", i, 0)
	}
	total := 0
	fitted := fit(v.warnings)
	for _, w := range fitted {
		if total += len(w); len(w) > longestWarning {
			t.Errorf("a warning of %d bytes", len(w))
		}
	}
	if total > longestWarnings {
		t.Errorf("warnings of %d bytes", total)
	}
	if last := fitted[len(fitted)-1]; last != "and 85 more warnings" {
		t.Errorf("the last one says %q", last)
	}
}
