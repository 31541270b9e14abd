package report

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/weir-policy/weir/internal/testkit"
	"github.com/weir-policy/weir/policies"
)

func TestAnswersAreAsDocumented(t *testing.T) {
	checked := 0
	for kind := range answers {
		name := strings.ToLower(string(kind))
		schema := testkit.Schema(t, name)
		files, err := filepath.Glob("testdata/" + name + "*.json")
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			answer, err := jsonschema.UnmarshalJSON(strings.NewReader(string(text)))
			if err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if err := schema.Validate(answer); err != nil {
				t.Errorf("%s: %v", file, err)
			}
			checked++
		}
	}
	if checked != 2*len(answers) {
		t.Errorf("checked %d answers, want a full and an empty one of each kind", checked)
	}
}

func TestDecisionsWithPartsAreAsDocumented(t *testing.T) {
	d := denied()
	d.Families = map[string]policies.Verdict{"IPv6": policies.Deny, "IPv4": policies.Allow}
	d.Parts = []policies.Decision{denied(), decision(addresses("10.0.0.0/8", "10.1.0.0/16"), workload("shop/web"), 80, policies.Unknown, nil, nil)}
	line := AppendDecision(nil, &d)
	answer, err := jsonschema.UnmarshalJSON(strings.NewReader(string(line)))
	if err != nil {
		t.Fatal(err)
	}
	if err := testkit.Schema(t, "decision").Validate(answer); err != nil {
		t.Error(err)
	}
	if strings.Contains(string(line), "\n") || !strings.Contains(string(line), `"families":{"IPv4":"allow","IPv6":"deny"}`) {
		t.Errorf("not one line, or the families are not in order: %s", line)
	}
}
