// Package v1alpha1 holds Weir's own resources, of the API group weir.dev, as
// they are stored. It is plain data; the letters read and write it.
package v1alpha1

// Group and APIVersion are what every resource of the package is of.
const (
	Group      = "weir.dev"
	APIVersion = Group + "/v1alpha1"
)

// Kinds are the kinds of the resources.
var Kinds = []string{KindConnectivityTest, KindInvariant, KindInvariantTest, KindPacketCapture}

// KindConnectivityTest is the kind of a ConnectivityTest.
const KindConnectivityTest = "ConnectivityTest"

// ConnectivityTest is questions about connections with the answers they must
// have: unit tests of policies.
type ConnectivityTest struct {
	APIVersion string               `json:"apiVersion" yaml:"apiVersion"`
	Kind       string               `json:"kind" yaml:"kind"`
	Metadata   Metadata             `json:"metadata" yaml:"metadata"`
	Spec       ConnectivityTestSpec `json:"spec" yaml:"spec"`
}

// Metadata names a resource.
type Metadata struct {
	Name      string `json:"name" yaml:"name"`
	Namespace string `json:"namespace,omitempty" yaml:"namespace,omitempty"`
}

// ConnectivityTestSpec is the tests and what they share.
type ConnectivityTestSpec struct {
	Description string `json:"description,omitempty" yaml:"description,omitempty"`
	// Groups are names for several ends. A group's name stands wherever an end
	// does; it has no slash.
	Groups map[string]OneOrMore `json:"groups,omitempty" yaml:"groups,omitempty"`
	Tests  []Test               `json:"tests" yaml:"tests"`
}

// Test expects one verdict of every connection from From to To on Port, or, with
// ExpectOnly, that nothing else can reach To. Ends and ports are written as
// weir explain takes them; without a port, any is meant.
type Test struct {
	Description string    `json:"description,omitempty" yaml:"description,omitempty"`
	From        OneOrMore `json:"from,omitempty" yaml:"from,omitempty"`
	To          OneOrMore `json:"to" yaml:"to"`
	Port        OneOrMore `json:"port,omitempty" yaml:"port,omitempty"`
	Expect      string    `json:"expect,omitempty" yaml:"expect,omitempty"` // allow, deny or unknown
	// ExpectOnly lists everything that may reach To; empty but not nil is nobody.
	ExpectOnly *[]Source `json:"expectOnly,omitempty" yaml:"expectOnly,omitempty"`
}

// Source is what may reach the end of a test. In a file, a text is short for one
// that has From only.
type Source struct {
	From   OneOrMore `json:"from" yaml:"from"`
	Port   OneOrMore `json:"port,omitempty" yaml:"port,omitempty"`
	Expect string    `json:"expect,omitempty" yaml:"expect,omitempty"` // allow, or unknown
}

// OneOrMore is texts; one is written without a list.
type OneOrMore []string

// MarshalYAML writes one text, or a list of several.
func (o OneOrMore) MarshalYAML() (any, error) {
	if len(o) == 1 {
		return o[0], nil
	}
	return []string(o), nil
}
