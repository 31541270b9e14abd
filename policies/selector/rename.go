package selector

import "slices"

// Renamed returns the expression with another name for one label.
func (e Expression) Renamed(from, to string) Expression {
	e.terms = slices.Clone(e.terms)
	for i := range e.terms {
		if e.terms[i].key == from {
			e.terms[i].key = to
		}
	}
	return e
}
