package testkit

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// Schema returns the schema docs/schemas/NAME.json, such that members it does
// not document are refused, which its readers must not do.
func Schema(t testing.TB, name string) *jsonschema.Schema {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(Root(t), "docs", "schemas", "*.json"))
	if err != nil || len(files) == 0 {
		t.Fatal("no schemas", err)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		refuseUndocumented(document)
		id, _ := document.(map[string]any)["$id"].(string)
		if filepath.Base(id) != filepath.Base(file) {
			t.Fatalf("%s has the $id %q", file, id)
		}
		if err := compiler.AddResource(id, document); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := compiler.Compile("https://weir.dev/schemas/" + name + ".json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

func refuseUndocumented(schema any) {
	switch schema := schema.(type) {
	case map[string]any:
		if _, ok := schema["properties"].(map[string]any); ok && schema["type"] == "object" {
			schema["additionalProperties"] = false
		}
		for _, part := range schema {
			refuseUndocumented(part)
		}
	case []any:
		for _, part := range schema {
			refuseUndocumented(part)
		}
	}
}
