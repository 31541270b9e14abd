// Package selector holds sets of label sets: what a Kubernetes label selector
// means, and what a Calico selector does.
package selector

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Operator relates a label's value to the values of a requirement.
type Operator string

// The operators of a Kubernetes label selector, and those that only Calico has.
// NotIn, DoesNotExist and the DoesNot operators hold for labels that lack the
// key.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"

	Contains         Operator = "Contains"
	DoesNotContain   Operator = "DoesNotContain"
	StartsWith       Operator = "StartsWith"
	DoesNotStartWith Operator = "DoesNotStartWith"
	EndsWith         Operator = "EndsWith"
	DoesNotEndWith   Operator = "DoesNotEndWith"
)

// opposite returns the operator that holds where o does not.
func opposite(o Operator) Operator {
	switch o {
	case In:
		return NotIn
	case NotIn:
		return In
	case Exists:
		return DoesNotExist
	case DoesNotExist:
		return Exists
	case Contains:
		return DoesNotContain
	case DoesNotContain:
		return Contains
	case StartsWith:
		return DoesNotStartWith
	case DoesNotStartWith:
		return StartsWith
	case EndsWith:
		return DoesNotEndWith
	case DoesNotEndWith:
		return EndsWith
	}
	return ""
}

// Requirement is one condition on one label.
type Requirement struct {
	Key      string
	Operator Operator
	Values   []string // sorted, without duplicates; none for Exists and DoesNotExist, one for those that only Calico has
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
	case Contains:
		return has && strings.Contains(value, r.Values[0])
	case DoesNotContain:
		return !has || !strings.Contains(value, r.Values[0])
	case StartsWith:
		return has && strings.HasPrefix(value, r.Values[0])
	case DoesNotStartWith:
		return !has || !strings.HasPrefix(value, r.Values[0])
	case EndsWith:
		return has && strings.HasSuffix(value, r.Values[0])
	case DoesNotEndWith:
		return !has || !strings.HasSuffix(value, r.Values[0])
	}
	return false
}

// String prints the requirement as kubectl writes it, or as Calico does where
// kubectl has no words for it.
func (r Requirement) String() string {
	if r.isPlain() {
		return string(r.plain(nil))
	}
	return string(r.calico(nil))
}

// isPlain reports whether kubectl has words for the requirement.
func (r Requirement) isPlain() bool {
	switch r.Operator {
	case In, NotIn:
		return !slices.ContainsFunc(r.Values, func(v string) bool { return v != "" && !isName(v, len(v)) })
	case Exists, DoesNotExist:
		return true
	}
	return false
}

// plain appends the requirement as kubectl writes it.
func (r Requirement) plain(b []byte) []byte {
	if r.Operator == DoesNotExist {
		b = append(b, '!')
	}
	b = append(b, r.Key...)
	switch {
	case r.Operator == In && len(r.Values) == 1:
		return append(append(b, '='), r.Values[0]...)
	case r.Operator == In:
		b = append(b, " in ("...)
	case r.Operator == NotIn:
		b = append(b, " notin ("...)
	default:
		return b
	}
	for i, v := range r.Values {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, v...)
	}
	return append(b, ')')
}

// calico appends the requirement as Calico writes it.
func (r Requirement) calico(b []byte) []byte {
	word := ""
	switch r.Operator {
	case Exists:
		return append(append(append(b, "has("...), r.Key...), ')')
	case In, NotIn:
		is, within := " == ", " in "
		if r.Operator == NotIn {
			is, within = " != ", " not in "
		}
		b = append(b, r.Key...)
		if len(r.Values) == 1 {
			return appendQuoted(append(b, is...), r.Values[0])
		}
		return appendSet(append(b, within...), r.Values)
	case Contains:
		word = " contains "
	case StartsWith:
		word = " starts with "
	case EndsWith:
		word = " ends with "
	default:
		return Requirement{r.Key, opposite(r.Operator), r.Values}.calico(append(b, '!'))
	}
	return appendQuoted(append(append(b, r.Key...), word...), r.Values[0])
}

// Selector is a set of label sets: those that meet all of its requirements and
// groups, or any of them. The zero value matches nothing.
type Selector struct {
	join    join
	content *content // nil where it matches all or nothing
}

// content is what a selector says. It never changes.
type content struct {
	requirements []Requirement
	groups       []Selector // joined the other way
	text         string
}

var noContent content

func (s Selector) get() *content {
	if s.content == nil {
		return &noContent
	}
	return s.content
}

// join is how the parts of a selector belong together.
type join uint8

const (
	nothing join = iota
	allOf
	anyOf
)

// Everything matches every label set, the empty one too.
func Everything() Selector { return Selector{join: allOf} }

// Label matches the label sets in which key has this value.
func Label(key, value string) Selector { return Where(key, In, value) }

// Where matches the label sets that meet one requirement. Exists and
// DoesNotExist take no values, the operators that only Calico has take one; In
// without values matches nothing.
func Where(key string, o Operator, values ...string) Selector {
	values = distinct(slices.Clone(values))
	switch {
	case o == In && len(values) == 0:
		return Selector{}
	case o == NotIn && len(values) == 0:
		return Everything()
	}
	return canonical(allOf, []Requirement{{key, o, values}}, nil)
}

// distinct sorts values in place and leaves out what is there twice.
func distinct(values []string) []string {
	for i := 1; i < len(values); i++ {
		if values[i-1] >= values[i] {
			slices.Sort(values)
			return slices.Compact(values)
		}
	}
	return values
}

// New returns the selector of all requirements together, in canonical form: the
// order in which they and their values are given makes no difference. None at
// all match everything. It fails on an operator that Kubernetes does not have,
// on In and NotIn without values, and on Exists and DoesNotExist with values, as
// the API does.
func New(requirements []Requirement) (Selector, error) {
	sorted := make([]Requirement, 0, len(requirements))
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
		sorted = append(sorted, Requirement{r.Key, r.Operator, distinct(slices.Clone(r.Values))})
	}
	return canonical(allOf, sorted, nil), nil
}

// And matches what each of the selectors matches.
func And(selectors ...Selector) Selector { return combine(allOf, selectors) }

// Or matches what any of the selectors matches.
func Or(selectors ...Selector) Selector { return combine(anyOf, selectors) }

func combine(j join, selectors []Selector) Selector {
	p := parts{join: j}
	for _, s := range selectors {
		p.add(s)
	}
	return p.selector()
}

// Not matches what the selector does not match.
func Not(s Selector) Selector {
	switch {
	case s.IsNothing():
		return Everything()
	case s.IsEverything():
		return Selector{}
	}
	requirements := make([]Requirement, len(s.get().requirements))
	for i, r := range s.get().requirements {
		requirements[i] = Requirement{r.Key, opposite(r.Operator), r.Values}
	}
	groups := make([]Selector, len(s.get().groups))
	for i, g := range s.get().groups {
		groups[i] = Not(g)
	}
	if s.join == allOf {
		return canonical(anyOf, requirements, groups)
	}
	return canonical(allOf, requirements, groups)
}

// constant returns the selector of every label set, or of none.
func constant(everything bool) Selector {
	if everything {
		return Everything()
	}
	return Selector{}
}

// parts are what a selector is made of, as far as they are known.
type parts struct {
	join         join
	requirements []Requirement
	groups       []Selector
	settled      bool // a part matches all or nothing, and so does the whole
}

func (p *parts) add(s Selector) {
	switch {
	case s.IsNothing() || s.IsEverything():
		p.settled = p.settled || s.IsEverything() == (p.join == anyOf)
	case s.join == p.join || len(s.get().requirements) == 1 && len(s.get().groups) == 0:
		p.requirements, p.groups = append(p.requirements, s.get().requirements...), append(p.groups, s.get().groups...)
	default:
		p.groups = append(p.groups, s)
	}
}

func (p *parts) selector() Selector {
	if p.settled {
		return constant(p.join == anyOf)
	}
	return canonical(p.join, p.requirements, p.groups)
}

// canonical sorts the parts in place and leaves out what is there twice. What
// has one part only, or none, is joined by all.
func canonical(j join, requirements []Requirement, groups []Selector) Selector {
	slices.SortFunc(requirements, compareRequirements)
	requirements = slices.CompactFunc(requirements, func(a, b Requirement) bool { return compareRequirements(a, b) == 0 })
	slices.SortFunc(groups, func(a, b Selector) int { return strings.Compare(a.get().text, b.get().text) })
	groups = slices.CompactFunc(groups, func(a, b Selector) bool { return a.get().text == b.get().text })
	switch {
	case len(requirements)+len(groups) == 0:
		return constant(j == allOf)
	case len(requirements) == 0 && len(groups) == 1:
		return groups[0]
	case len(requirements)+len(groups) <= 1:
		j = allOf
	}
	s := Selector{j, &content{requirements: requirements, groups: groups}}
	s.content.text = s.print()
	return s
}

func compareRequirements(a, b Requirement) int {
	return cmp.Or(strings.Compare(a.Key, b.Key), strings.Compare(string(a.Operator), string(b.Operator)), slices.Compare(a.Values, b.Values))
}

// print writes a conjunction that kubectl has words for as kubectl does, and
// everything else as Calico does.
func (s *Selector) print() string {
	var buffer [128]byte
	if !s.IsConjunction() || slices.ContainsFunc(s.get().requirements, func(r Requirement) bool { return !r.isPlain() }) {
		return string(s.calico(buffer[:0]))
	}
	b := buffer[:0]
	for i, r := range s.get().requirements {
		if i > 0 {
			b = append(b, ',')
		}
		b = r.plain(b)
	}
	return string(b)
}

// calico appends the selector as Calico writes it, without brackets around it.
func (s *Selector) calico(b []byte) []byte {
	between := " && "
	if s.join == anyOf {
		between = " || "
	}
	for i, r := range s.get().requirements {
		if i > 0 {
			b = append(b, between...)
		}
		b = r.calico(b)
	}
	for i := range s.get().groups {
		if i+len(s.get().requirements) > 0 {
			b = append(b, between...)
		}
		b = append(s.get().groups[i].calico(append(b, '(')), ')')
	}
	return b
}

// Matches reports whether the label set is in the selector.
func (s Selector) Matches(labels map[string]string) bool {
	sure, _ := s.Test(func(key string) (string, bool, bool) {
		value, has := labels[key]
		return value, has, true
	})
	return sure
}

// Test evaluates the selector over labels that label gives by their keys, of
// which some may not be known: whether the label set is in the selector for
// sure, and whether it may be.
func (s Selector) Test(label func(key string) (value string, has, known bool)) (sure, possible bool) {
	all := s.join == allOf
	sure, possible = all, all
	for i := range s.get().requirements {
		value, has, known := label(s.get().requirements[i].Key)
		holds := known && s.get().requirements[i].Holds(value, has)
		switch {
		case !known:
			sure, possible = false, possible || !all
		case all && !holds:
			return false, false
		case !all && holds:
			return true, true
		}
	}
	for i := range s.get().groups {
		isSure, isPossible := s.get().groups[i].Test(label)
		switch {
		case all && !isPossible:
			return false, false
		case !all && isSure:
			return true, true
		case all:
			sure = sure && isSure
		default:
			possible = possible || isPossible
		}
	}
	return sure, possible
}

// IsEverything reports whether every label set matches, as far as that shows
// without looking at values: "has(a) || !has(a)" does not count.
func (s Selector) IsEverything() bool {
	return s.join == allOf && len(s.get().requirements)+len(s.get().groups) == 0
}

// IsNothing reports whether s is the zero value, which matches nothing.
func (s Selector) IsNothing() bool { return s.join == nothing }

// IsConjunction reports whether a label set that meets every one of the
// Requirements matches.
func (s Selector) IsConjunction() bool { return s.join == allOf && len(s.get().groups) == 0 }

// Requirements returns the conditions that every label set in the selector
// meets, in canonical order; of a selector that is no conjunction there are
// others besides. The caller must not change them.
func (s Selector) Requirements() []Requirement {
	if s.join != allOf {
		return nil
	}
	return s.get().requirements
}

// Keys returns the keys of the labels that the selector looks at, sorted.
func (s Selector) Keys() []string {
	keys := s.keys(nil)
	slices.Sort(keys)
	return slices.Compact(keys)
}

func (s Selector) keys(keys []string) []string {
	for _, r := range s.get().requirements {
		keys = append(keys, r.Key)
	}
	for _, g := range s.get().groups {
		keys = g.keys(keys)
	}
	return keys
}

// Key returns a text that is the same for equal selectors and no others.
func (s Selector) Key() string {
	if s.IsNothing() {
		return "\x00" // no label key begins so
	}
	return s.get().text
}

// String prints the selector as kubectl writes it, "app=web,tier in (a,b),!old",
// or as Calico does where kubectl has no words for it: `app == "web" || has(a)`.
// Everything prints as "all" and nothing as "nothing".
func (s Selector) String() string {
	switch {
	case s.IsNothing():
		return "nothing"
	case s.IsEverything():
		return "all"
	}
	return s.get().text
}

// Calico prints the selector as Calico writes it: `app == "web" && !has(old)`.
// Everything prints as "all()", nothing as "!all()".
func (s Selector) Calico() string {
	switch {
	case s.IsNothing():
		return "!all()"
	case s.IsEverything():
		return "all()"
	}
	return string(s.calico(nil))
}
