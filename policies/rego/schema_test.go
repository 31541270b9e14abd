package rego_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-policy/weir/policies/rego"
)

// What is said of the fields of data.weir.world is what they are.
func TestFields(t *testing.T) {
	data, err := world(t).Data(context.Background(), nil)
	if err != nil {
		t.Fatal(err)
	}
	sections := data["weir"].(map[string]any)["world"].(map[string]any)
	if len(sections) != len(rego.Fields) {
		t.Errorf("there are %d sections, and fields of %d", len(sections), len(rego.Fields))
	}
	for name, section := range sections {
		var found []string
		object := func(prefix string, v ast.Value) {
			for _, key := range v.(ast.Object).Keys() {
				found = append(found, prefix+string(key.Value.(ast.String)))
			}
		}
		section.(*ast.Array).Foreach(func(item *ast.Term) {
			object("", item.Value)
			for _, key := range item.Value.(ast.Object).Keys() {
				field := string(key.Value.(ast.String))
				switch of := item.Value.(ast.Object).Get(key).Value.(type) {
				case ast.Object:
					if !strings.HasSuffix(strings.ToLower(field), "labels") && field != "annotations" {
						object(field+".", of)
						found = slices.DeleteFunc(found, func(f string) bool { return f == field })
					}
				case *ast.Array:
					of.Foreach(func(inner *ast.Term) {
						if _, is := inner.Value.(ast.Object); is {
							object(field+"[].", inner.Value)
							found = slices.DeleteFunc(found, func(f string) bool { return f == field })
						}
					})
				}
			}
		})
		said := strings.Fields(rego.Fields[name])
		slices.Sort(said)
		slices.Sort(found)
		found = slices.Compact(found)
		// A list that is empty in one of the objects stands for itself, too.
		found = slices.DeleteFunc(found, func(f string) bool {
			return !slices.Contains(said, f) && slices.ContainsFunc(said, func(s string) bool { return strings.HasPrefix(s, f+"[].") })
		})
		if diff := cmp.Diff(said, found); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// A field that is not there is no field that is never so.
func TestMisspeltFields(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{`deny contains p.nam if { some p in data.weir.world.pods }`, "rego:1:15: p has no nam; near it are name, at, node, kind, labels"},
		{"deny contains \"x\" if {\n\tp := data.weir.world.pods[_]\n\tp.workload.nam == \"a\"\n}", "rego:3:2: p.workload has no nam; near it are name, kind, namespace"},
		{"pods := data.weir.world.pods\ndeny contains \"x\" if { some p in pods; not p.hostNetwrk }", "rego:2:44: p has no hostNetwrk; near it are hostNetwork, "},
		{"# METADATA\n# title: mine\npackage mine\n\ndeny contains \"x\" if { data.weir.world.services[_].ports[_].numbr == 1 }", "data.weir.world.services[_].ports[_] has no numbr; near it are number"},
		{`deny contains "x" if { every p in data.weir.world.podz { p.name == "x" } }`, "data.weir.world has no podz"},
		{`deny contains "x" if { some p in data.weir.world.pods; p.labels.any == p.labels["a/b"]; p.addresses[0] == "x"; some q in p.ports; q.number > 3 }`, ""},
		{`deny contains "x" if { some section; some o in data.weir.world[section]; o.name == "x" }`, ""},
		{`deny contains "x" if { object.get(data.weir.world.pods[_], "nosuch", "") == "y" }`, ""},
	} {
		_, err := rego.Compile(row.text)
		if row.want == "" && err != nil || row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)) {
			t.Errorf("%s:\n%v\nwant %s", row.text, err, row.want)
		}
	}
}
