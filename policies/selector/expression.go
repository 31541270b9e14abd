package selector

import (
	"slices"
	"strings"
)

// Expression is a Calico selector as somebody wrote it, but for spaces, quotes
// and brackets without effect. What it selects is its Selector. The zero value
// is all().
type Expression struct {
	terms  []term   // a term's operands come before it
	values []string // of all sets
	root   int32
}

// term is one condition, or several with what joins them.
type term struct {
	kind kind
	// first is the index of the first operand of not, and, or; the values of a set
	// are values[first:end].
	first, end int32
	next       int32 // the operand after this one in what both belong to, or 0
	key        string
	value      [1]string // of what has one; it has the shape of Requirement.Values
}

// kind is what a term says.
type kind uint8

const (
	termAll kind = iota
	termGlobal
	termNot
	termAnd
	termOr
	termHas
	termEqual
	termUnequal
	termContains
	termStarts
	termEnds
	termIn
	termNotIn
)

// says has what Calico writes between a kind's key and its values, or its
// operands, and the operator that it stands for.
var says = [...]struct {
	text     string
	operator Operator
}{
	termAnd:      {" && ", ""},
	termOr:       {" || ", ""},
	termHas:      {"", Exists},
	termEqual:    {" == ", In},
	termUnequal:  {" != ", NotIn},
	termContains: {" contains ", Contains},
	termStarts:   {" starts with ", StartsWith},
	termEnds:     {" ends with ", EndsWith},
	termIn:       {" in ", In},
	termNotIn:    {" not in ", NotIn},
}

// String prints the selector as Calico itself does once it has read it: every
// group of && or || in brackets, the outermost too, values in double quotes
// where they hold none, those of a set sorted.
func (e Expression) String() string {
	if len(e.terms) == 0 {
		return "all()"
	}
	return string(e.append(make([]byte, 0, 24*len(e.terms)), e.root))
}

func (e *Expression) append(b []byte, id int32) []byte {
	t := &e.terms[id]
	switch t.kind {
	case termAll:
		return append(b, "all()"...)
	case termGlobal:
		return append(b, "global()"...)
	case termNot:
		return e.append(append(b, '!'), t.first)
	case termAnd, termOr:
		b = e.append(append(b, '('), t.first)
		for id := e.terms[t.first].next; id != 0; id = e.terms[id].next {
			b = e.append(append(b, says[t.kind].text...), id)
		}
		return append(b, ')')
	case termHas:
		return append(append(append(b, "has("...), t.key...), ')')
	case termIn, termNotIn:
		return appendSet(append(append(b, t.key...), says[t.kind].text...), e.valuesOf(t))
	}
	return appendQuoted(append(append(b, t.key...), says[t.kind].text...), t.value[0])
}

// Selector returns the label sets that the expression selects. Both all() and
// global() are every label set: what more they mean depends on where they stand,
// see Of.
func (e Expression) Selector() Selector {
	if len(e.terms) == 0 {
		return Everything()
	}
	return e.selector(e.root, false)
}

// selector returns what a term selects, or does not.
func (e *Expression) selector(id int32, negated bool) Selector {
	p := parts{join: allOf}
	for e.terms[id].kind == termNot {
		id, negated = e.terms[id].first, !negated
	}
	if kind := e.terms[id].kind; kind == termAnd && negated || kind == termOr && !negated {
		p.join = anyOf
	}
	e.addTo(&p, id, negated)
	return p.selector()
}

// addTo adds what a term selects, or does not, to parts.
func (e *Expression) addTo(p *parts, id int32, negated bool) {
	t := &e.terms[id]
	switch t.kind {
	case termNot:
		e.addTo(p, t.first, !negated)
	case termAnd, termOr:
		if (t.kind == termAnd) == negated != (p.join == anyOf) {
			p.add(e.selector(id, negated))
			return
		}
		e.addTo(p, t.first, negated)
		for id := e.terms[t.first].next; id != 0; id = e.terms[id].next {
			e.addTo(p, id, negated)
		}
	case termAll, termGlobal:
		p.add(constant(!negated))
	default:
		r := Requirement{t.key, says[t.kind].operator, e.valuesOf(t)}
		if negated {
			r.Operator = opposite(r.Operator)
		}
		if len(r.Values) == 0 && (r.Operator == In || r.Operator == NotIn) {
			p.add(constant(r.Operator == NotIn))
			return
		}
		p.requirements = append(p.requirements, r)
	}
}

// valuesOf returns the values of a condition, as a Requirement has them.
func (e *Expression) valuesOf(t *term) []string {
	switch t.kind {
	case termHas:
		return nil
	case termIn, termNotIn:
		return e.values[t.first:t.end:t.end]
	}
	return t.value[:]
}

// IsAll reports whether the selector is all(), and nothing else.
func (e Expression) IsAll() bool { return len(e.terms) == 0 || e.terms[e.root].kind == termAll }

// IsGlobal reports whether the selector is global(), and nothing else.
func (e Expression) IsGlobal() bool { return len(e.terms) > 0 && e.terms[e.root].kind == termGlobal }

// HasGlobal reports whether global() is anywhere in the selector.
func (e Expression) HasGlobal() bool {
	return slices.ContainsFunc(e.terms, func(t term) bool { return t.kind == termGlobal })
}

// IsIndexed reports whether Calico finds what the selector selects by an index
// of labels. Of any other selector it tries every endpoint and network set.
func (e Expression) IsIndexed() bool { return len(e.terms) > 0 && e.isIndexed(e.root) }

func (e *Expression) isIndexed(id int32) bool {
	switch t := &e.terms[id]; t.kind {
	case termHas, termEqual, termIn:
		return true
	case termAnd:
		if e.isIndexed(t.first) {
			return true
		}
		for id := e.terms[t.first].next; id != 0; id = e.terms[id].next {
			if e.isIndexed(id) {
				return true
			}
		}
	}
	return false
}

// Of returns the selector as it reads about those who inherit the labels it is
// for: a namespaceSelector becomes one of endpoints and network sets. Their keys
// have prefix in front, and owner is the label that those have who inherit any
// at all, so that all() becomes has(owner) and global() !has(owner). Where owner
// is empty both stay as they are.
func (e Expression) Of(prefix, owner string) Expression {
	terms := slices.Grow(slices.Clone(e.terms), 1)
	if len(terms) == 0 {
		terms = append(terms, term{kind: termAll})
	}
	for i := range terms {
		switch t := &terms[i]; t.kind {
		case termNot, termAnd, termOr:
		case termAll:
			if owner != "" {
				t.kind, t.key = termHas, owner
			}
		case termGlobal:
			if owner != "" {
				t.kind, t.first = termNot, int32(len(terms))
				terms = append(terms, term{kind: termHas, key: owner})
			}
		default:
			t.key = prefix + t.key
		}
	}
	return Expression{terms: terms, values: e.values, root: e.root}
}

// appendQuoted appends a value in the quotes that Calico gives it.
func appendQuoted(b []byte, value string) []byte {
	quote := byte('"')
	if strings.IndexByte(value, quote) >= 0 {
		quote = '\''
	}
	return append(append(append(b, quote), value...), quote)
}

// appendSet appends values as Calico writes a set.
func appendSet(b []byte, values []string) []byte {
	b = append(b, '{')
	for i, v := range values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendQuoted(b, v)
	}
	return append(b, '}')
}
