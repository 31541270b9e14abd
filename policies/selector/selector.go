// Package selector holds sets of label sets: what a Kubernetes label selector
// means.
package selector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Operator relates a label's value to the values of a requirement.
type Operator string

// The operators of a Kubernetes label selector. NotIn and DoesNotExist hold
// for labels that lack the key.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// Requirement is one condition on one label.
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string // sorted, without duplicates; only for In and NotIn
}

// Matches reports whether labels meet the requirement.
func (r Requirement) Matches(labels map[string]string) bool {
	value, has := labels[r.Key]
	return r.Holds(value, has)
}

// Holds reports whether a label with this value, or none when has is false,
// meets the requirement.
func (r Requirement) Holds(value string, has bool) bool {
	switch r.Operator {
	case In:
		return has && slices.Contains(r.Values, value)
	case NotIn:
		return !has || !slices.Contains(r.Values, value)
	case Exists:
		return has
	case DoesNotExist:
		return !has
	}
	return false
}

func (r Requirement) String() string {
	switch r.Operator {
	case In, NotIn:
		if r.Operator == In && len(r.Values) == 1 {
			return r.Key + "=" + r.Values[0]
		}
		word := map[Operator]string{In: " in (", NotIn: " notin ("}[r.Operator]
		return r.Key + word + strings.Join(r.Values, ",") + ")"
	case DoesNotExist:
		return "!" + r.Key
	}
	return r.Key
}

// Selector is a set of label sets: those that meet every requirement. The zero
// value matches nothing.
type Selector struct {
	defined      bool
	requirements []Requirement
	text         string
}

// Everything matches every label set, the empty one too.
func Everything() Selector { return Selector{defined: true} }

// Label matches the label sets in which key has this value.
func Label(key, value string) Selector {
	s, _ := New([]Requirement{{Key: key, Operator: In, Values: []string{value}}})
	return s
}

// New returns the selector of all requirements together, in canonical form: the
// order in which they and their values are given makes no difference. None at
// all match everything. It fails on an unknown operator, on In and NotIn
// without values, and on Exists and DoesNotExist with values, as the API does.
func New(requirements []Requirement) (Selector, error) {
	canonical := make([]Requirement, 0, len(requirements))
	for _, r := range requirements {
		switch r.Operator {
		case In, NotIn:
			if len(r.Values) == 0 {
				return Selector{}, fmt.Errorf("operator %s needs at least one value", r.Operator)
			}
		case Exists, DoesNotExist:
			if len(r.Values) > 0 {
				return Selector{}, fmt.Errorf("operator %s takes no values", r.Operator)
			}
		default:
			return Selector{}, fmt.Errorf("operator %q is none of In, NotIn, Exists, DoesNotExist", r.Operator)
		}
		values := slices.Clone(r.Values)
		slices.Sort(values)
		canonical = append(canonical, Requirement{r.Key, r.Operator, slices.Compact(values)})
	}
	slices.SortFunc(canonical, compareRequirements)
	canonical = slices.CompactFunc(canonical, func(a, b Requirement) bool { return compareRequirements(a, b) == 0 })
	texts := make([]string, len(canonical))
	for i, r := range canonical {
		texts[i] = r.String()
	}
	return Selector{defined: true, requirements: canonical, text: strings.Join(texts, ",")}, nil
}

func compareRequirements(a, b Requirement) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(string(a.Operator), string(b.Operator)), slices.Compare(a.Values, b.Values))
}

// Matches reports whether the label set is in the selector.
func (s Selector) Matches(labels map[string]string) bool {
	if !s.defined {
		return false
	}
	for _, r := range s.requirements {
		if !r.Matches(labels) {
			return false
		}
	}
	return true
}

// IsEverything reports whether every label set matches.
func (s Selector) IsEverything() bool { return s.defined && len(s.requirements) == 0 }

// IsNothing reports whether s is the zero value, which matches nothing.
func (s Selector) IsNothing() bool { return !s.defined }

// Requirements returns the conditions in canonical order. The caller must not
// change them.
func (s Selector) Requirements() []Requirement { return s.requirements }

// Key returns a text that is the same for equal selectors and no others.
func (s Selector) Key() string {
	switch {
	case !s.defined:
		return "-" // no label key begins so
	case len(s.requirements) == 0:
		return ""
	}
	return s.text
}

// String prints the selector as kubectl writes it: "app=web,tier in (a,b),!old".
// Everything prints as "all" and nothing as "nothing".
func (s Selector) String() string {
	switch {
	case !s.defined:
		return "nothing"
	case len(s.requirements) == 0:
		return "all"
	}
	return s.text
}
