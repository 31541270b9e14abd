package source

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/weir-policy/weir/policies"
	"github.com/weir-policy/weir/policies/conntest"
	"github.com/weir-policy/weir/policies/invariant"
	"github.com/weir-policy/weir/policies/k8s"
	"github.com/weir-policy/weir/policies/reach"
	"github.com/weir-policy/weir/policies/rego"
)

// PackTest is a world of a pack, and which of the pack's invariants hold in it.
type PackTest struct {
	k8s.InvariantTest
	world *policies.Model
}

// isPackTest reports whether a manifest of a pack is a test, and no Invariant.
func isPackTest(name string) bool {
	return strings.HasSuffix(strings.TrimSuffix(name, path.Ext(name)), "_test")
}

// readPackTests reads a file that holds a world, and tests.
func readPackTests(file string, text []byte) ([]PackTest, error) {
	docs, err := k8s.Parse(file, text)
	if err != nil {
		return nil, err
	}
	tests, errTests := k8s.ReadInvariantTests(docs)
	world, err := k8s.Read(docs, k8s.Options{})
	if err := errors.Join(errTests, err); err != nil {
		return nil, err
	}
	if len(tests) == 0 {
		return nil, policies.Problem{Place: policies.Place{File: file, Line: 1, Column: 1}, Message: "a test of a pack has an InvariantTest, which says what holds in the world of its file, and what is broken"}
	}
	var all []PackTest
	for _, t := range tests {
		all = append(all, PackTest{t, world})
	}
	return all, nil
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
		expect := func(name conntest.Text, want invariant.State) {
			r := rego.TestResult{Package: p.Name + " in " + t.Name, Name: name.Text, Place: name.Place}
			k := slices.IndexFunc(found, func(r invariant.Result) bool { return r.Ref.Name == name.Text })
			switch {
			case k < 0:
				r.Because = "there is no such invariant" + policies.Near(name.Text, p.names())
			case found[k].State == invariant.Holds && want == invariant.Holds && found[k].Vacuous != "":
				r.Because = "want it to hold of somebody: " + found[k].Say()
			case found[k].State != want:
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

// names returns those of the pack's invariants.
func (p *Pack) names() (all []string) {
	for i := range p.Invariants {
		all = append(all, p.Invariants[i].Ref.Name)
	}
	return all
}
