package k8s

import (
	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// InvariantTest says which invariants of a policy pack hold in a world, by their names,
// and which are broken.
type InvariantTest struct {
	Name          string
	Holds, Broken []conntest.Text
	Place         policies.Place
}

// ReadInvariantTests returns the InvariantTests among documents that come from Parse, in
// their order. All other kinds are left to Read, which in turn leaves these out. The error
// joins every policies.Problem found; there are no tests then.
func ReadInvariantTests(docs []Document) ([]InvariantTest, error) {
	r := newReader(Options{})
	var all []InvariantTest
	r.take = func(v value, kind, version string) {
		if r.isOurs(v, kind, version, v1alpha1.KindInvariantTest) {
			v.name = kind
			all = append(all, readInvariantTest(v))
		}
	}
	for _, d := range docs {
		if mayHold(d.Node, v1alpha1.KindInvariantTest) {
			r.document(d)
		}
	}
	if len(r.problems) > 0 {
		return nil, join(r.problems)
	}
	return all, nil
}

func readInvariantTest(v value) InvariantTest {
	v.only(objectFields...)
	meta, spec := v.field("metadata"), v.field("spec")
	meta.only(metaFields...)
	spec.only("holds", "broken")
	t := InvariantTest{Name: meta.field("name").text(), Holds: spec.field("holds").texts(), Broken: spec.field("broken").texts(), Place: v.place()}
	if t.Name == "" {
		meta.orElse(v).problem("%s has no metadata.name; say what world it is", v.name)
	}
	if !spec.field("holds").present() && !spec.field("broken").present() {
		spec.orElse(v).problem("%s says nothing; name invariants that hold here, or that are broken", v.name)
	}
	return t
}
