package selector_test

import (
	"maps"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"github.com/weir-policy/weir/policies/selector"
)

var (
	operators = []selector.Operator{selector.In, selector.NotIn, selector.Exists, selector.DoesNotExist}
	keys      = []string{"app", "tier", "example.com/app"}
	values    = []string{"", "a", "b", "web"}
)

// requirementsOf makes valid requirements of bytes.
func requirementsOf(program []byte) []selector.Requirement {
	var all []selector.Requirement
	for ; len(program) >= 2; program = program[2:] {
		r := selector.Requirement{Key: keys[int(program[0]>>2)%len(keys)], Operator: operators[program[0]&3]}
		if r.Operator == selector.In || r.Operator == selector.NotIn {
			r.Values = []string{values[program[1]&3]}
			for more := program[1] >> 2; more&1 == 1; more >>= 3 {
				r.Values = append(r.Values, values[more>>1&3])
			}
		}
		all = append(all, r)
	}
	return all
}

func labelsOf(program []byte) map[string]string {
	set := map[string]string{}
	for i, b := range program[:min(len(program), len(keys))] {
		if b&4 != 0 {
			set[keys[i]] = values[b&3]
		}
	}
	return set
}

// oracle is the selector that the libraries of Kubernetes make.
func oracle(t rapid.TB, requirements []selector.Requirement) labels.Selector {
	var s metav1.LabelSelector
	for _, r := range requirements {
		s.MatchExpressions = append(s.MatchExpressions, metav1.LabelSelectorRequirement{Key: r.Key, Operator: metav1.LabelSelectorOperator(r.Operator), Values: r.Values})
	}
	want, err := metav1.LabelSelectorAsSelector(&s)
	if err != nil {
		t.Fatal(err)
	}
	return want
}

func check(t rapid.TB, program, other, set []byte) {
	requirements := requirementsOf(program)
	s, err := selector.New(requirements)
	if err != nil {
		t.Fatal(err)
	}
	want := oracle(t, requirements)
	for _, l := range []map[string]string{labelsOf(set), {}} {
		if got := s.Matches(l); got != want.Matches(labels.Set(l)) {
			t.Fatalf("%s matches %v: %v, want %v", s, l, got, !got)
		}
	}
	// The text reads back as the same selector.
	if !s.IsEverything() {
		parsed, err := labels.Parse(s.String())
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		if l := labels.Set(labelsOf(set)); parsed.Matches(l) != want.Matches(l) {
			t.Fatalf("%s reads back as %s", s, parsed)
		}
	}
	if s.IsEverything() != (len(requirements) == 0) || s.IsNothing() {
		t.Fatalf("%s: everything %v, nothing %v", s, s.IsEverything(), s.IsNothing())
	}
	turned := slices.Clone(requirements)
	slices.Reverse(turned)
	for i := range turned {
		turned[i].Values = slices.Clone(turned[i].Values)
		slices.Reverse(turned[i].Values)
	}
	if back, err := selector.New(append(turned, requirements...)); err != nil || back.String() != s.String() {
		t.Fatalf("%s reads %s in another order (%v)", s, back, err)
	}
	o, err := selector.New(requirementsOf(other))
	if err != nil {
		t.Fatal(err)
	}
	if same := canonical(requirements) == canonical(requirementsOf(other)); same != (s.String() == o.String()) {
		t.Fatalf("%q and %q: same conditions %v", s, o, same)
	}
}

// canonical is the set of conditions, each a set of values, as text.
func canonical(requirements []selector.Requirement) string {
	all := map[string]bool{}
	for _, r := range requirements {
		all[r.Key+"|"+string(r.Operator)+"|"+strings.Join(sorted(r.Values), ",")] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(all)), ";")
}

func sorted(values []string) []string {
	set := map[string]bool{}
	for _, v := range values {
		set[v] = true
	}
	return slices.Sorted(maps.Keys(set))
}

func TestSelectorAgreesWithKubernetes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 0, 8)
		check(t, bytes.Draw(t, "selector"), bytes.Draw(t, "other"), bytes.Draw(t, "labels"))
	})
}

func FuzzSelector(f *testing.F) {
	f.Add([]byte{0, 1}, []byte{0, 1}, []byte{5})
	f.Add([]byte{1, 15, 6, 0}, []byte{6, 0, 1, 15}, []byte{4, 6, 7})
	f.Add([]byte{}, []byte{3, 0}, []byte{})
	f.Fuzz(func(t *testing.T, s, other, set []byte) {
		check(t, s[:min(len(s), 16)], other[:min(len(other), 16)], set)
	})
}

func TestNewRefuses(t *testing.T) {
	for _, row := range []struct {
		what string
		bad  selector.Requirement
		want string
	}{
		{"In without values", selector.Requirement{Key: "a", Operator: selector.In}, "operator In needs at least one value"},
		{"NotIn without values", selector.Requirement{Key: "a", Operator: selector.NotIn}, "operator NotIn needs at least one value"},
		{"Exists with values", selector.Requirement{Key: "a", Operator: selector.Exists, Values: []string{"b"}}, "operator Exists takes no values"},
		{"an operator of nodes", selector.Requirement{Key: "a", Operator: "Gt", Values: []string{"1"}}, `operator "Gt" is none of In, NotIn, Exists, DoesNotExist`},
		{"no operator", selector.Requirement{Key: "a"}, `operator "" is none of In, NotIn, Exists, DoesNotExist`},
	} {
		s, err := selector.New([]selector.Requirement{row.bad})
		if err == nil || err.Error() != row.want || !s.IsNothing() {
			t.Errorf("%s: got %v, %v, want %q", row.what, s, err, row.want)
		}
	}
}

func TestZeroSelectorMatchesNothing(t *testing.T) {
	var s selector.Selector
	if s.Matches(nil) || s.Matches(map[string]string{"a": "b"}) || !s.IsNothing() || s.IsEverything() {
		t.Errorf("the zero selector matches something")
	}
	if !selector.Everything().Matches(nil) || !selector.Label("a", "b").Matches(map[string]string{"a": "b"}) || selector.Label("a", "b").Matches(nil) {
		t.Errorf("everything or one label matches wrongly")
	}
}
