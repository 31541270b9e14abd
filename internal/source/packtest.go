package source

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
	"github.com/weir-policy/weir/policies/v1alpha1"
)

// kindInvariantTest is the kind of the document that says which invariants of a pack hold
// in the world of its file, and which are broken.
const kindInvariantTest = "InvariantTest"

// PackTest is a file of a pack: a world, and which of the pack's invariants hold in it.
type PackTest struct {
	Name          string
	Holds, Broken []string
	Place         policies.Place
	world         *policies.Model
}

// isPackTest reports whether a manifest of a pack is a test, and no Invariant.
func isPackTest(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), "_test")
}

// readPackTest reads a file that is a test.
func readPackTest(file string, text []byte) (PackTest, error) {
	docs, err := k8s.Parse(file, text)
	if err != nil {
		return PackTest{}, err
	}
	t := PackTest{Name: strings.TrimSuffix(path.Base(file), path.Ext(file)), Place: policies.Place{File: file, Line: 1, Column: 1}}
	wrong := func(format string, args ...any) error {
		return policies.Problem{Place: t.Place, Message: fmt.Sprintf(format, args...)}
	}
	at := slices.IndexFunc(docs, func(d k8s.Document) bool { return identify(d).Kind == kindInvariantTest })
	if at < 0 {
		return t, wrong("a test of a pack has an %s, which says what holds in the world of its file, and what is broken", kindInvariantTest)
	}
	t.Place.Line, t.Place.Column = docs[at].Node.Line, docs[at].Node.Column
	raw, err := yaml.Marshal(docs[at].Node)
	if err != nil {
		return t, err
	}
	var test struct {
		APIVersion string `yaml:"apiVersion"`
		Kind       string
		Metadata   struct{ Name string }
		Spec       struct{ Holds, Broken []string }
	}
	d := yaml.NewDecoder(bytes.NewReader(raw))
	d.KnownFields(true)
	if err := d.Decode(&test); err != nil && !errors.Is(err, io.EOF) {
		return t, wrong("%s", strings.TrimPrefix(err.Error(), "yaml: "))
	}
	switch {
	case test.APIVersion != v1alpha1.APIVersion:
		return t, wrong("an %s is of %s, not of %q", kindInvariantTest, v1alpha1.APIVersion, test.APIVersion)
	case len(test.Spec.Holds)+len(test.Spec.Broken) == 0:
		return t, wrong("spec says nothing; name invariants that hold here, or that are broken")
	}
	t.Name, t.Holds, t.Broken = test.Metadata.Name, test.Spec.Holds, test.Spec.Broken
	t.world, err = k8s.Read(slices.Delete(docs, at, at+1), k8s.Options{})
	return t, err
}

// RunTests asks in the world of each of a pack's tests whether the invariants that it
// names are found as it says.
func (p *Pack) RunTests(ctx context.Context) ([]rego.TestResult, error) {
	var all []rego.TestResult
	for i := range p.Worlds {
		t := &p.Worlds[i]
		set, err := invariant.Prepare(reach.New(t.world, invariant.Apart(reach.Options{}, p.Invariants...)), p.Invariants)
		if err != nil {
			return nil, err
		}
		found, err := set.Check(ctx, time.Unix(0, 0))
		if err != nil {
			return nil, err
		}
		expect := func(name string, want invariant.State) {
			r := rego.TestResult{Package: p.Name + " in " + t.Name, Name: name, Place: t.Place}
			k := slices.IndexFunc(found, func(r invariant.Result) bool { return r.Ref.Name == name })
			switch {
			case k < 0:
				r.Because = "there is no such invariant"
			case found[k].State != want || want == invariant.Holds && found[k].Vacuous != "":
				r.Because = fmt.Sprintf("want %s, found %s: %s", want, found[k].State, found[k].Say())
			default:
				r.Passed = true
			}
			all = append(all, r)
		}
		for _, name := range t.Holds {
			expect(name, invariant.Holds)
		}
		for _, name := range t.Broken {
			expect(name, invariant.Broken)
		}
	}
	return all, nil
}
