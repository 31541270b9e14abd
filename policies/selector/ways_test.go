package selector_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies/selector"
)

func TestWays(t *testing.T) {
	for _, row := range []struct {
		text string
		most int
		want []string
	}{
		{"", 9, []string{"all()"}},
		{"!all()", 9, nil},
		{"a == 'x' && b == 'y'", 9, []string{`a == "x" && b == "y"`}},
		{"a == 'x' || b == 'y'", 9, []string{`a == "x"`, `b == "y"`}},
		{"a == 'x' || b == 'y'", 1, []string{`a == "x"`}},
		{"c == 'z' && (a == 'x' || has(b))", 9, []string{`a == "x" && c == "z"`, `has(b) && c == "z"`}},
		{"(a == 'x' || b == 'y') && (c == 'z' || d == 'z')", 3, []string{`a == "x" && c == "z"`, `a == "x" && d == "z"`, `b == "y" && c == "z"`}},
		{"!(a == 'x' && b == 'y')", 9, []string{`a != "x"`, `b != "y"`}},
	} {
		e, err := selector.ParseCalico(row.text)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, way := range e.Selector().Ways(row.most) {
			got = append(got, way.Calico())
		}
		if diff := cmp.Diff(row.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", row.text, diff)
		}
	}
}

// A label set is in a selector exactly where it is in one of all its ways, and
// each way is a conjunction.
func TestWaysAreTheSelector(t *testing.T) {
	terms := []string{"a == 'x'", "a != 'x'", "has(a)", "!has(b)", "b in {'x', 'y'}", "b contains 'x'", "all()"}
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SampledFrom(terms).Draw(t, "term")
		for range rapid.IntRange(0, 4).Draw(t, "more") {
			text = "(" + text + rapid.SampledFrom([]string{" && ", " || "}).Draw(t, "join") + rapid.SampledFrom(terms).Draw(t, "term") + ")"
			if rapid.Bool().Draw(t, "not") {
				text = "!" + text
			}
		}
		e, err := selector.ParseCalico(text)
		if err != nil {
			t.Fatal(err)
		}
		ways := e.Selector().Ways(1000)
		for _, labels := range []map[string]string{{}, {"a": "x"}, {"a": "y"}, {"b": "x"}, {"a": "x", "b": "y"}, {"a": "z", "b": "xz"}} {
			in := false
			for _, way := range ways {
				if !way.IsConjunction() {
					t.Fatalf("%s is a way of %s", way, text)
				}
				in = in || way.Matches(labels)
			}
			if in != e.Selector().Matches(labels) {
				t.Fatalf("%v is in %s: %t, in one of its ways: %t", labels, text, !in, in)
			}
		}
	})
}
