package selector_test

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"

	"github.com/weir-policy/weir/policies/selector"
)

func TestParse(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", "all"},
		{"app=web", "app=web"},
		{"app==web", "app=web"},
		{" tier in ( b , a ), app = web ,!old", "app=web,!old,tier in (a,b)"},
		{"app!=web", "app notin (web)"},
		{"example.com/tier notin (x)", "example.com/tier notin (x)"},
		{"app", "app"},
		{"app=", "app="},
	} {
		s, err := selector.Parse(row.text)
		if err != nil || s.String() != row.want {
			t.Errorf("%q is %s (error %v), want %s", row.text, s, err, row.want)
		}
	}
}

func TestParseSaysWhatItCannotRead(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"app=web tier=db", `selector "app=web tier=db", column 9: a comma is missing between two requirements`},
		{"app=web,", `selector "app=web,", column 9: there is nothing after the comma`},
		{"app in web", `selector "app in web", column 8: values stand in brackets, as in (a,b)`},
		{"app > 3", `selector "app > 3", column 5: after app comes one of =, !=, in, notin or a comma`},
		{"=web", `selector "=web", column 1: "" is not a label's key, such as app or example.com/tier`},
		{"app=-web", `selector "app=-web", column 5: "-web" is not a label's value: at most 63 letters, digits, -, _ and ., the first and last a letter or digit`},
		{"app in (a", `selector "app in (a", column 10: a comma or a closing bracket is missing`},
	} {
		if _, err := selector.Parse(row.text); err == nil || err.Error() != row.want {
			t.Errorf("%q: got error %v, want %s", row.text, err, row.want)
		}
	}
}

// Whatever Parse reads means what Kubernetes takes it to mean.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"app=web,tier in (a,b),!old", "a!=b", "a", "a notin (,x)", "x.io/y==", "a in ()", "!a,!b", "a,,b", "a > 1"} {
		f.Add(seed, "app=web,tier=a")
	}
	f.Fuzz(func(t *testing.T, text, set string) {
		got, err := selector.Parse(text)
		want, theirs := labels.Parse(text)
		if err != nil {
			return
		}
		if theirs != nil {
			t.Fatalf("%q is read, but Kubernetes does not: %v", text, theirs)
		}
		with := map[string]string{}
		for _, pair := range strings.Split(set, ",") {
			key, value, _ := strings.Cut(pair, "=")
			with[key] = value
		}
		if got.Matches(with) != want.Matches(labels.Set(with)) {
			t.Fatalf("%q matches %v: %v, but not to Kubernetes", text, with, got.Matches(with))
		}
	})
}
