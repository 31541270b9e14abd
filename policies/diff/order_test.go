package diff

import (
	"slices"
	"strings"
	"testing"

	"github.com/weir-policy/weir/policies"
)

func TestMoved(t *testing.T) {
	for _, row := range []struct{ name, base, head, want string }{
		{"one comes first", "a b c", "x a b c", ""},
		{"one comes between, one goes", "a b c d", "a x c d", ""},
		{"the last goes to the front", "a b c d", "d a b c", "d"},
		{"the first goes to the end", "a b c d", "b c d a", "a"},
		{"two change places", "a b", "b a", "b"},
		{"two go different ways", "a b c d e f", "f b c d e a", "a f"},
		{"equals stay together", "a=b c", "a=b c", ""},
		{"equals come apart", "a=b c", "a b c", ""},
		{"all go", "a b", "", ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			var names []string
			for ref := range moved(inOrder(row.base), inOrder(row.head)) {
				names = append(names, ref.Name)
			}
			slices.Sort(names)
			if got := strings.Join(names, " "); got != row.want {
				t.Errorf("got %q, want %q", got, row.want)
			}
		})
	}
}

// inOrder makes policies of names, those with = between them of one priority.
func inOrder(names string) []policies.Policy {
	var all []policies.Policy
	for rank, equals := range strings.Fields(names) {
		for name := range strings.SplitSeq(equals, "=") {
			all = append(all, policies.Policy{Ref: policies.Ref{Name: name}, Tier: "default", Priority: rank})
		}
	}
	return all
}
