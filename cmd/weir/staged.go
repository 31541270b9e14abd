package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/weir-policy/weir/policies"
)

// staging is the flags by which a verb is told to take staged policies for
// enforced.
type staging struct {
	on, each bool
	only     []string
}

func (s *staging) addTo(c *cobra.Command) {
	f := c.Flags()
	f.BoolVar(&s.on, "staged", false, "compare what is enforced with what would be, if the staged policies were too")
	f.BoolVar(&s.each, "each", false, "with --staged: also say what each staged policy does by itself")
	f.StringArrayVar(&s.only, "only", nil, "with --staged: enforce only this staged `policy`, namespace/name or a cluster-wide one's name, perhaps with its kind in front; repeatable")
}

func (s *staging) check() error {
	if !s.on && (s.each || len(s.only) > 0) {
		return errors.New("--each and --only are about staged policies; add --staged")
	}
	return nil
}

// enforcement is a model in which staged policies are enforced.
type enforcement struct {
	staged []policies.Staged // those that are, in head all together
	head   *policies.Model
	each   []int // their indexes in the model, where each is to be enforced alone too; else nil
}

// enforce enforces the staged policies of a model that the flags choose.
func (s *staging) enforce(m *policies.Model) (enforcement, error) {
	chosen, err := s.choose(m)
	if err != nil {
		return enforcement{}, err
	}
	e := enforcement{head: m.Enforce(chosen...)}
	for _, i := range chosen {
		e.staged = append(e.staged, m.Staged[i])
	}
	if s.each {
		e.each = chosen
	}
	if len(chosen) == 0 {
		e.head.Warnings = append(e.head.Warnings, policies.Warning{Message: "there is no staged policy here, so nothing would change"})
	}
	return e, nil
}

// choose returns the indexes of the staged policies that --only names, or of all.
func (s *staging) choose(m *policies.Model) ([]int, error) {
	wanted := make([]bool, len(m.Staged))
	var errs []error
	for _, text := range s.only {
		found := findStaged(m, text)
		switch len(found) {
		case 1:
			wanted[found[0]] = true
		case 0:
			var names []string
			for i := range m.Staged {
				names = append(names, m.Staged[i].Ref.String())
			}
			errs = append(errs, fmt.Errorf("--only: there is no staged policy %q%s", text, policies.Near(text, names)))
		default:
			first, second := m.Staged[found[0]].Ref, m.Staged[found[1]].Ref
			errs = append(errs, fmt.Errorf("--only: %q is ambiguous: say %s or %s", text, first.Full(), second.Full()))
		}
	}
	chosen := []int{}
	for i := range m.Staged {
		if wanted[i] || len(s.only) == 0 {
			chosen = append(chosen, i)
		}
	}
	return chosen, errors.Join(errs...)
}

// findStaged returns the staged policies that text names, as query.Find does the
// enforced ones.
func findStaged(m *policies.Model, text string) []int {
	var found []int
	for i := range m.Staged {
		r := m.Staged[i].Ref
		if text == r.String() || strings.EqualFold(text, r.Kind+"/"+r.String()) {
			found = append(found, i)
		}
	}
	return found
}
