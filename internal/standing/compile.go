package standing

import (
	"encoding/json"
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/rego"
)

// Compile reads an Invariant as an API server has it, as JSON. The lines of problems
// are those of its YAML as kubectl prints it, without all metadata but the name.
func Compile(raw []byte) (*invariant.Invariant, error) {
	var o struct {
		APIVersion string `json:"apiVersion" yaml:"apiVersion"`
		Kind       string `json:"kind" yaml:"kind"`
		Metadata   struct {
			Name string `json:"name" yaml:"name"`
		} `json:"metadata" yaml:"metadata"`
		Spec map[string]any `json:"spec" yaml:"spec"`
	}
	if err := json.Unmarshal(raw, &o); err != nil {
		return nil, err
	}
	text, err := yaml.Marshal(o)
	if err != nil {
		return nil, err
	}
	docs, err := k8s.Parse("invariant/"+o.Metadata.Name, text)
	if err != nil {
		return nil, err
	}
	all, err := k8s.ReadInvariants(docs, rego.Program)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%s is no Invariant", o.Metadata.Name)
	}
	return &all[0], nil
}
