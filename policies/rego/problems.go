package rego

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/weir-policy/weir/policies"
)

func placeOf(l *ast.Location) policies.Place {
	if l == nil {
		return policies.Place{File: file}
	}
	return policies.Place{File: l.File, Line: l.Row, Column: max(1, l.Col)}
}

// problemsOf says in Weir's words what the parser or the compiler has to say.
func problemsOf(err error) []policies.Problem {
	var found ast.Errors
	if one := (*ast.Error)(nil); !errors.As(err, &found) {
		if !errors.As(err, &one) {
			return []policies.Problem{problem("%s", err)}
		}
		found = ast.Errors{one}
	}
	var all []policies.Problem
	for _, e := range found {
		p := policies.Problem{Place: placeOf(e.Location), Message: e.Message}
		if name, ok := strings.CutPrefix(p.Message, "undefined function "); ok {
			p.Message = undefined(name)
		}
		if d, ok := e.Details.(*ast.RefErrInvalidDetail); ok && len(d.OneOf) > 0 && d.Pos > 0 && d.Pos < len(d.Ref) {
			p.Message = absent(d)
			all = append(all, p)
			continue
		}
		if e.Details != nil && e.Code != ast.ParseErr {
			for _, line := range e.Details.Lines() {
				p.Message += "\n    " + line
			}
		}
		all = append(all, p)
	}
	return all
}

// absent says which field is not there, of what there is.
func absent(d *ast.RefErrInvalidDetail) string {
	var names []string
	for _, v := range d.OneOf {
		if text, ok := v.(ast.String); ok {
			names = append(names, string(text))
		}
	}
	name := strings.Trim(d.Ref[d.Pos].String(), `"`)
	return fmt.Sprintf("%s has no %s%s", d.Ref[:d.Pos], name, policies.Near(name, names))
}

// Problems returns what OPA has to say of modules, as an error that joins a
// policies.Problem for each.
func Problems(err error) error { return joined(problemsOf(err)) }

// undefined says why there is no function of a name.
func undefined(name string) string {
	if slices.ContainsFunc(ast.CapabilitiesForThisVersion().Builtins, func(b *ast.Builtin) bool { return b.Name == name }) {
		return fmt.Sprintf("%s is not for invariants: they ask about the world that is checked, and nothing else", name)
	}
	var names []string
	for _, b := range capabilities().Builtins {
		if !strings.HasPrefix(b.Name, "internal.") && strings.HasPrefix(b.Name, "weir.") == strings.HasPrefix(name, "weir.") {
			names = append(names, b.Name)
		}
	}
	return "there is no function " + name + policies.Near(name, names)
}

func joined(problems []policies.Problem) error {
	slices.SortStableFunc(problems, func(a, b policies.Problem) int { return a.Place.Compare(b.Place) })
	var errs []error
	for i, p := range problems {
		if i == 0 || p.Place.Line == 0 || p.Place != problems[i-1].Place { // one mistake has several names
			errs = append(errs, p)
		}
	}
	return errors.Join(errs...)
}
