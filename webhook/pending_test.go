package webhook

import (
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/weir-policy/weir/internal/live"
	"github.com/weir-policy/weir/policies/k8s"
)

func TestAdmissionIsSeen(t *testing.T) {
	version := func(uid, revision string) live.Version {
		return live.Version{UID: types.UID(uid), ResourceVersion: revision}
	}
	none := live.Version{}
	comes := func(held live.Version) admission { return admission{uid: "new", held: held} }
	changes := func(held live.Version) admission { return admission{uid: "it", was: version("it", "10"), held: held} }
	for _, row := range []struct {
		name  string
		a     admission
		now   live.Version
		there bool
		want  bool
	}{
		{"what comes is not there yet", comes(none), none, false, false},
		{"what comes is there", comes(none), version("new", "5"), true, true},
		{"somebody else was first", comes(none), version("other", "5"), true, true},
		{"its predecessor is still there", comes(version("old", "3")), version("old", "4"), true, false},
		{"its predecessor has gone", comes(version("old", "3")), none, false, false},
		{"a change is not there yet", changes(version("it", "10")), version("it", "10"), true, false},
		{"what is seen is older than what was changed", changes(version("it", "8")), version("it", "9"), true, false},
		{"nine is before ten", changes(version("it", "9")), version("it", "9"), true, false},
		{"a change is there", changes(version("it", "10")), version("it", "11"), true, true},
		{"a hundred is after eleven", changes(version("it", "10")), version("it", "100"), true, true},
		{"what was changed has gone", changes(version("it", "10")), none, false, true},
		{"what was changed has not been seen at all", changes(none), none, false, false},
		{"what was changed has gone, and another one came", changes(version("it", "10")), version("other", "12"), true, true},
		{"what was changed has not come yet, for its predecessor is there", changes(version("old", "3")), version("old", "3"), true, false},
		{"versions that are no numbers", changes(version("it", "10")), version("it", "x"), true, true},
	} {
		if got := row.a.isSeen(row.now, row.there); got != row.want {
			t.Errorf("%s: seen is %v", row.name, got)
		}
	}
}

func TestLedger(t *testing.T) {
	noon := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	key := k8s.KeyOf("networking.k8s.io/v1", "NetworkPolicy", "shop", "a")
	change := func(revision string) *admission {
		return &admission{key: key, uid: "it", was: live.Version{UID: "it", ResourceVersion: revision}, until: noon.Add(time.Minute)}
	}
	nobody := func(k8s.Key) (live.Version, bool) { return live.Version{}, false }

	var l ledger
	l.add(change("10"))
	if l.add(change("12")); len(l.pending) != 1 || l.pending[0].was.ResourceVersion != "12" {
		t.Errorf("a change of what came later does not replace the one before: %d are pending", len(l.pending))
	}
	if l.add(change("11")); len(l.pending) != 1 {
		t.Error("a change of what is no more is pending")
	}
	if l.add(change("12")); len(l.pending) != 2 || len(l.rivals()) != 1 {
		t.Error("two changes of one version are no rivals")
	}
	if l.settle(nobody, noon); len(l.pending) != 2 {
		t.Error("what was not seen is forgotten")
	}
	if l.settle(nobody, noon.Add(time.Minute)); len(l.pending) != 0 {
		t.Error("what can come no more is pending")
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
