package k8s

import (
	"net/netip"
	"strings"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// ReadTests returns the ConnectivityTests among documents that come from Parse,
// in their order. All other kinds are left to Read, which in turn leaves these
// out. The error joins every policies.Problem found; there are no tests then.
func ReadTests(docs []Document) ([]conntest.Suite, error) {
	r := newReader(Options{})
	var suites []conntest.Suite
	r.take = func(v value, kind, version string) {
		if s, ok := r.readTest(v, kind, version); ok {
			suites = append(suites, s)
		}
	}
	for _, d := range docs {
		r.document(d)
	}
	if len(r.problems) > 0 {
		return nil, join(r.problems)
	}
	return suites, nil
}

// WriteTests returns tests as YAML, a document each.
func WriteTests(tests []v1alpha1.ConnectivityTest) ([]byte, error) {
	return encode(tests)
}

// readTest reads a ConnectivityTest; false is for other kinds, and for what was
// reported.
func (r *reader) readTest(v value, kind, version string) (conntest.Suite, bool) {
	if r.isOurs(v, kind, version, v1alpha1.KindConnectivityTest) {
		if o, ok := r.object(v, kind, v1alpha1.Group, !v.hasNamespace()); ok {
			return readSuite(o), true
		}
	}
	return conntest.Suite{}, false
}

func readSuite(o object) conntest.Suite {
	o.only(objectFields...)
	o.meta.only(metaFields...)
	spec := o.field("spec")
	spec.only("description", "groups", "tests")
	s := conntest.Suite{Ref: o.ref, Description: spec.field("description").text(), Groups: map[string][]conntest.Text{}, Place: o.place()}
	if groups := spec.field("groups"); groups.wants(mapping, "a mapping of names to ends") {
		for key, node := range pairs(groups.node) {
			name := key.Value
			if _, err := netip.ParseAddr(name); err == nil || name == "world" || strings.Contains(name, "/") {
				groups.at(key, "").problem("%q is an end itself; give the group a plain name, without a slash", name)
			}
			s.Groups[name] = groups.at(resolve(node), "group "+name).texts()
		}
	}
	tests := spec.field("tests")
	for _, t := range tests.items() {
		s.Tests = append(s.Tests, readConnectivity(t))
	}
	if len(s.Tests) == 0 && (!tests.present() || tests.node.Kind == list) {
		tests.orElse(spec).orElse(o.value).problem("%s %s has no tests; list some in spec.tests", o.ref.Kind, o.ref)
	}
	return s
}

func readConnectivity(v value) conntest.Test {
	v.name = "a test"
	v.only("description", "from", "to", "port", "expect", "expectOnly")
	if !v.wants(mapping, "a mapping") {
		return conntest.Test{}
	}
	from, expect, only := v.field("from"), v.field("expect"), v.field("expectOnly")
	t := conntest.Test{
		Description: v.field("description").text(),
		From:        from.texts(),
		To:          v.field("to").texts(),
		Ports:       v.field("port").texts(),
		Place:       v.place(),
	}
	if !v.field("to").present() {
		v.problem("a test needs to: the end that the connection leads to")
	}
	switch {
	case only.present() && expect.present():
		expect.problem("a test takes expect or expectOnly, not both; make two tests of it")
	case only.present():
		if from.present() {
			from.problem("expectOnly lists all that may reach to; move from into the list")
		}
		t.Only = []conntest.Source{}
		for _, item := range only.items() {
			t.Only = append(t.Only, readSource(item, v.field("port").present()))
		}
	case expect.present():
		t.Expect = expect.verdict("allow", "deny", "unknown")
		if !from.present() {
			v.problem("a test with expect needs from: the end that opens the connection")
		}
	default:
		v.problem("a test needs expect (allow, deny or unknown), or expectOnly (a list; [] for nobody)")
	}
	return t
}

// readSource reads what a test lists: an end, or a mapping that says more of it.
func readSource(v value, hasPort bool) conntest.Source {
	v.name = "a source"
	if v.node.Kind != mapping {
		return conntest.Source{From: v.texts(), Expect: policies.Allow}
	}
	v.only("from", "port", "expect")
	port := v.field("port")
	s := conntest.Source{From: v.field("from").texts(), Ports: port.texts(), Expect: policies.Allow}
	if !v.field("from").present() {
		v.problem("a source needs from")
	}
	if hasPort && port.present() {
		port.problem("the test has a port already; give ports to the test or to its sources, not to both")
	}
	if expect := v.field("expect"); expect.present() {
		s.Expect = expect.verdict("allow", "unknown")
	}
	return s
}

// texts returns one text or a list of them, each where it stands. Numbers are
// taken for texts, as ports are written so.
func (v value) texts() []conntest.Text {
	if !v.present() {
		return nil
	}
	values := []value{v}
	if v.node.Kind == list {
		if values = v.items(); len(v.node.Content) == 0 {
			v.problem("%s is an empty list; name at least one", v.name)
		}
	}
	var all []conntest.Text
	for _, item := range values {
		text := item.node.Value
		if item.node.Tag != "!!int" || item.node.Kind != scalar {
			text = item.text()
		}
		if text != "" {
			all = append(all, conntest.Text{Text: text, Place: item.place()})
		}
	}
	return all
}

// verdict reads one of these verdicts.
func (v value) verdict(names ...string) policies.Verdict {
	text := v.text()
	var verdict policies.Verdict
	for _, name := range names {
		if text == name && verdict.UnmarshalText([]byte(name)) == nil {
			return verdict
		}
	}
	if text != "" {
		hint := ""
		if near := nearest(text, names); near != "" {
			hint = "; did you mean \"" + near + "\"?"
		}
		v.problem("%s %q is none of %s%s", v.name, text, strings.Join(names, ", "), hint)
	}
	return policies.Undecided
}
