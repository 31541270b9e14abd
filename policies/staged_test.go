package policies_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

// enforced is a policy by its name, with a priority and the line it stands at.
func enforced(name string, priority, line int) policies.Policy {
	return policies.Policy{Ref: policies.Ref{Kind: "NetworkPolicy", Namespace: "shop", Name: name}, Priority: priority, Place: policies.Place{File: "a.yaml", Line: line}}
}

func set(name string, priority, line int) policies.Staged {
	return policies.Staged{Ref: policies.Ref{Kind: "StagedNetworkPolicy", Namespace: "shop", Name: name}, Policy: enforced(name, priority, line)}
}

func deletion(name string, line int) policies.Staged {
	s := set(name, 0, line)
	s.Deletes = true
	return s
}

func TestEnforce(t *testing.T) {
	base := []policies.Policy{enforced("a", 10, 1), enforced("b", 20, 2), enforced("c", 20, 3), enforced("d", 30, 4)}
	calico := enforced("b", 20, 5)
	calico.Ref.Group = policies.CalicoGroup
	for _, row := range []struct {
		name    string
		staged  []policies.Staged
		enforce []int
		want    string
	}{
		{"none", []policies.Staged{set("b", 20, 9)}, nil, "a:1 b:2 c:3 d:4, staged b"},
		{"an edit takes the place of what it edits", []policies.Staged{set("b", 20, 9)}, []int{0}, "a:1 b:9 c:3 d:4, staged"},
		{"an edit of the order moves it", []policies.Staged{set("a", 25, 9)}, []int{0}, "b:2 c:3 a:9 d:4, staged"},
		{"among equals it stands by its name", []policies.Staged{set("bb", 20, 9)}, []int{0}, "a:1 b:2 bb:9 c:3 d:4, staged"},
		{"a new one comes", []policies.Staged{set("z", 5, 9)}, []int{0}, "z:9 a:1 b:2 c:3 d:4, staged"},
		{"a deletion removes", []policies.Staged{deletion("c", 9)}, []int{0}, "a:1 b:2 d:4, staged"},
		{"others stay staged", []policies.Staged{deletion("c", 8), set("b", 20, 9), set("d", 30, 10)}, []int{1}, "a:1 b:9 c:3 d:4, staged c d"},
		{"all together", []policies.Staged{deletion("c", 8), set("b", 20, 9), set("z", 40, 10)}, []int{2, 0, 1}, "a:1 b:9 d:4 z:10, staged"},
		{"a policy of another group is another one", []policies.Staged{{Ref: set("b", 0, 0).Ref, Policy: calico}}, []int{0}, "a:1 b:2 b:5 c:3 d:4, staged"},
		{
			"a deletion of nothing is warned of",
			[]policies.Staged{deletion("gone", 9)},
			[]int{0},
			"a:1 b:2 c:3 d:4, staged, a.yaml:9: StagedNetworkPolicy shop/gone would delete NetworkPolicy shop/gone, which is not there, so enforcing it changes nothing; check its name, or delete it",
		},
	} {
		t.Run(row.name, func(t *testing.T) {
			m := &policies.Model{Policies: slices.Clone(base), Staged: row.staged}
			before := said(m)
			if got := said(m.Enforce(row.enforce...)); got != row.want {
				t.Errorf("got  %s\nwant %s", got, row.want)
			}
			if after := said(m); after != before {
				t.Errorf("the model itself was %s\nand is %s", before, after)
			}
		})
	}
}

// said prints policies by name and line, what is staged, and the warnings.
func said(m *policies.Model) string {
	var b strings.Builder
	for _, p := range m.Policies {
		fmt.Fprintf(&b, "%s:%d ", p.Ref.Name, p.Place.Line)
	}
	text := strings.TrimSpace(b.String()) + ", staged"
	for _, s := range m.Staged {
		text += " " + s.Ref.Name
	}
	for _, w := range m.Warnings {
		text += ", " + w.String()
	}
	return text
}
