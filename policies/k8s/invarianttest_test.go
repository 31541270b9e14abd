package k8s_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/k8s"
)

const invariantTest = "apiVersion: weir.dev/v1alpha1\nkind: InvariantTest\n"

func TestReadInvariantTests(t *testing.T) {
	at := func(line, column int) policies.Place {
		return policies.Place{File: "a_test.yaml", Line: line, Column: column}
	}
	docs, err := k8s.Parse("a_test.yaml", []byte(invariantTest+"metadata: {name: no policies}\nspec:\n  holds: [dns, web]\n  broken: db\n---\n"+
		"{apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n---\n"+invariantTest+"metadata: {name: again}\nspec: {broken: [web]}\n"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := k8s.ReadInvariantTests(docs)
	if err != nil {
		t.Fatal(err)
	}
	want := []k8s.InvariantTest{
		{Name: "no policies", Holds: []conntest.Text{{Text: "dns", Place: at(5, 11)}, {Text: "web", Place: at(5, 16)}}, Broken: []conntest.Text{{Text: "db", Place: at(6, 11)}}, Place: at(1, 1)},
		{Name: "again", Broken: []conntest.Text{{Text: "web", Place: at(13, 17)}}, Place: at(10, 1)},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	if _, err := k8s.Read(docs, k8s.Options{}); err != nil {
		t.Errorf("it is not left out of the world: %v", err)
	}
}

func TestInvariantTestProblems(t *testing.T) {
	for _, row := range []struct{ name, text, want string }{
		{"a field", invariantTest + "metadata: {name: a}\nspec: {hold: [x], broken: [z]}", `a_test.yaml:4:8: spec has no field "hold"; did you mean "holds"?`},
		{"a mapping", invariantTest + "metadata: {name: a}\nspec: {broken: [{a: b}]}", `a_test.yaml:4:17: an item of broken wants text, found a mapping`},
		{"nothing", invariantTest + "metadata: {name: a}\nspec: {}", "a_test.yaml:4:7: InvariantTest says nothing; name invariants that hold here, or that are broken"},
		{"no name", invariantTest + "spec: {holds: [a]}", "a_test.yaml:1:1: InvariantTest has no metadata.name; say what world it is"},
		{"a version", "apiVersion: weir.dev/v1\nkind: InvariantTest", `a_test.yaml:1:13: InvariantTest is not of weir.dev/v1; write "apiVersion: weir.dev/v1alpha1"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			docs, err := k8s.Parse("a_test.yaml", []byte(row.text))
			if err != nil {
				t.Fatal(err)
			}
			if _, err = k8s.ReadInvariantTests(docs); err == nil || err.Error() != row.want {
				t.Errorf("got  %v\nwant %s", err, row.want)
			}
		})
	}
}
