package v1alpha1_test

import (
	"encoding/json"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// fieldsOf returns the paths of all fields of a type, as JSON has them.
func fieldsOf(t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return fieldsOf(t.Elem(), path)
	case reflect.Struct:
	default:
		return nil
	}
	var all []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "" {
			all = append(all, fieldsOf(f.Type, path)...)
			continue
		}
		all = append(all, path+"."+name)
		all = append(all, fieldsOf(f.Type, path+"."+name)...)
	}
	return all
}

// propertiesOf returns the paths of all properties of a schema.
func propertiesOf(schema map[string]any, path string) []string {
	if items, ok := schema["items"].(map[string]any); ok {
		return propertiesOf(items, path)
	}
	var all []string
	properties, _ := schema["properties"].(map[string]any)
	for name, property := range properties {
		all = append(all, path+"."+name)
		all = append(all, propertiesOf(property.(map[string]any), path+"."+name)...)
	}
	return all
}

// shared returns a schema in which lists of peers and of ports, and selectors, are
// references to definitions.
func shared(schema any, definitions map[string]any) any {
	switch schema := schema.(type) {
	case []any:
		all := make([]any, len(schema))
		for i := range schema {
			all[i] = shared(schema[i], definitions)
		}
		return all
	case map[string]any:
		all := map[string]any{}
		for name, part := range schema {
			all[name] = shared(part, definitions)
			is := map[string]string{"from": "peers", "to": "peers", "pods": "peers", "ports": "ports", "namespaceSelector": "selector", "podSelector": "selector", "nodes": "selector"}[name]
			if property, ok := part.(map[string]any); ok && is != "" && (property["items"] != nil || property["properties"] != nil) {
				definitions[is], all[name] = all[name], map[string]any{"$ref": "#/$defs/" + is}
			}
		}
		return all
	}
	return schema
}

func TestDefinitionsHaveTheFieldsOfTheTypes(t *testing.T) {
	for _, row := range []struct {
		name         string
		definition   []byte
		spec, status any
	}{
		{"invariant", v1alpha1.InvariantCRD, v1alpha1.InvariantSpec{}, v1alpha1.InvariantStatus{}},
		{"packetcapture", v1alpha1.PacketCaptureCRD, v1alpha1.PacketCaptureSpec{}, v1alpha1.PacketCaptureStatus{}},
	} {
		t.Run(row.name, func(t *testing.T) {
			var crd struct {
				Spec struct {
					Versions []struct {
						Name   string
						Schema struct {
							OpenAPIV3Schema map[string]any `yaml:"openAPIV3Schema"`
						}
					}
				}
			}
			if err := yaml.Unmarshal(row.definition, &crd); err != nil {
				t.Fatal(err)
			}
			version := crd.Spec.Versions[0]
			if v1alpha1.Group+"/"+version.Name != v1alpha1.APIVersion {
				t.Errorf("version %s is not of %s", version.Name, v1alpha1.APIVersion)
			}
			schema := maps.Clone(version.Schema.OpenAPIV3Schema)
			schema["$schema"], schema["$id"] = "https://json-schema.org/draft/2020-12/schema", "https://weir.dev/schemas/"+row.name+".json"
			if row.name == "invariant" {
				definitions := map[string]any{}
				schema["properties"] = shared(schema["properties"], definitions)
				schema["$defs"] = definitions
			}
			text, err := json.MarshalIndent(schema, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			testkit.Golden(t, filepath.Join(testkit.Root(t), "docs", "schemas", row.name+".json"), append(text, '\n'))
			for name, of := range map[string]any{"spec": row.spec, "status": row.status} {
				schema := version.Schema.OpenAPIV3Schema["properties"].(map[string]any)[name].(map[string]any)
				got, want := propertiesOf(schema, name), fieldsOf(reflect.TypeOf(of), name)
				slices.Sort(got)
				slices.Sort(want)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("-types +definition\n%s", diff)
				}
			}
		})
	}
}
