package expression

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/operators"

	"github.com/weir-policy/weir/policies"
)

// file is what stands for the name of a file in the places of problems.
const file = "expression"

var (
	undefinedField = regexp.MustCompile(`^undefined field '(.*)'$`)
	undeclared     = regexp.MustCompile(`^undeclared reference to '(.*)' \(in container '.*'\)$`)
	noOverload     = regexp.MustCompile(`^found no matching overload for '(.*?)' applied to '(.*)'$`)
	firstArgument  = regexp.MustCompile(`^\(\s*(\w+)\s*,`)
	syntax         = regexp.MustCompile(`^Syntax error: (.*?)( expecting \{.*\})?$`)
)

// problems says in Weir's words what the checker has to say, in the order of the
// text.
func (e *env) problems(text string, issues *cel.Issues) error {
	found := slices.Clone(issues.Errors())
	misses := e.misses(text)
	var all []policies.Problem
	locals := map[string]bool{} // of macros whose names are misspelt
	for _, issue := range found {
		line, column := issue.Location.Line(), max(0, issue.Location.Column())
		in := lineOf(text, line)
		message := issue.Message
		switch {
		case undefinedField.MatchString(message):
			name := undefinedField.FindStringSubmatch(message)[1]
			column = nameAfter(in, column, name)
			message = "no field " + name
			if i := slices.IndexFunc(misses, func(m miss) bool { return m.field == name }); i >= 0 {
				class := e.classes.byName[misses[i].class]
				misses = slices.Delete(misses, i, i+1)
				message += " in " + class.name + meant(name, class.fieldNames())
			}
		case undeclared.MatchString(message):
			name := undeclared.FindStringSubmatch(message)[1]
			if locals[name] {
				continue
			}
			called := column < len(in) && in[column] == '('
			if m := firstArgument.FindStringSubmatch(string(in[min(column, len(in)):])); called && m != nil {
				locals[m[1]] = true
			}
			column = nameStart(in, column)
			message = e.undeclared(name, called)
		case noOverload.MatchString(message):
			m := noOverload.FindStringSubmatch(message)
			message = mismatch(m[1], m[2])
			column = nameStart(in, column)
		case syntax.MatchString(message):
			message = syntax.FindStringSubmatch(message)[1]
		}
		all = append(all, problem(text, line, column, message))
	}
	slices.SortStableFunc(all, func(a, b policies.Problem) int {
		return cmp.Or(a.Place.Compare(b.Place), strings.Compare(a.Message, b.Message))
	})
	var errs []error
	for _, p := range slices.Compact(all) {
		errs = append(errs, p)
	}
	return errors.Join(errs...)
}

// misses returns the fields that the checker looks for in vain, in the order in
// which it says so.
func (e *env) misses(text string) []miss {
	var all []miss
	if noting, err := e.with(&all); err == nil {
		noting.Compile(text)
	}
	return all
}

// undeclared says what could be meant by a name that is not declared.
func (e *env) undeclared(name string, called bool) string {
	var names []string
	what := "value"
	if called {
		what = "function"
		for n := range e.Functions() {
			if !strings.ContainsAny(n, "_@!-") {
				names = append(names, n)
			}
		}
		for _, m := range e.Macros() {
			names = append(names, m.Function())
		}
		slices.Sort(names)
		names = slices.Compact(names)
	} else {
		names = Variables()
	}
	hint := meant(name, names)
	if strings.HasPrefix(hint, "; it has") {
		hint = "; there are " + enumerated(names)
		if called {
			hint = ""
		}
	}
	return fmt.Sprintf("there is no %s %s%s", what, name, hint)
}

// mismatch says what a function or operator cannot be given.
func mismatch(name, given string) string {
	if name == operators.Conditional {
		condition, _, _ := strings.Cut(strings.TrimPrefix(given, "("), ", ")
		return "the condition is a " + condition + ", and must be a bool"
	}
	if operator, ok := operators.FindReverse(name); ok && operator != "" {
		left, right, two := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(given, "("), ")"), ", ")
		if !two {
			return fmt.Sprintf("%s does not go with %s", operator, left)
		}
		message := fmt.Sprintf("%s does not go with %s and %s", operator, left, right)
		if left == verdictType.TypeName() && right == "string" || right == verdictType.TypeName() && left == "string" {
			message += "; a verdict is allow, deny or unknown, without quotes"
		}
		return message
	}
	message := name + " does not take " + given
	if of, arguments, ok := strings.Cut(given, ".("); ok {
		message = fmt.Sprintf("there is no %s(%s of %s", strings.TrimPrefix(name, "@"), arguments, of)
	}
	if i := slices.IndexFunc(functions, func(f function) bool { return f.name == name && f.call != nil }); i >= 0 {
		message += "; write " + functions[i].usage
	}
	return message
}

// problem is one at a place of the expression, the column counted from 0, with
// that line of the expression below and a mark under the column.
func problem(text string, line, column int, message string) policies.Problem {
	const wide, before = 100, 60
	whole := lineOf(text, line)
	in, first := whole, 0
	if len(whole) > wide {
		first = max(0, min(column-before, len(whole)-wide))
		in = slices.Clone(whole[first : first+wide])
		if first > 0 {
			in[0] = '…'
		}
		if first+wide < len(whole) {
			in[wide-1] = '…'
		}
	}
	excerpt := strings.Map(func(r rune) rune {
		if r < ' ' {
			return ' '
		}
		return r
	}, string(in))
	return policies.Problem{
		Place:   policies.Place{File: file, Line: line, Column: column + 1},
		Message: fmt.Sprintf("%s\n    %s\n    %s^", message, excerpt, strings.Repeat(" ", max(0, column-first))),
	}
}

func lineOf(text string, line int) []rune {
	lines := strings.Split(text, "\n")
	if line < 1 || line > len(lines) {
		return nil
	}
	return []rune(lines[line-1])
}

func isName(r rune) bool {
	return r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
}

// nameStart returns where the name begins that a call at column is of, for the
// checker gives calls the place of their parenthesis.
func nameStart(line []rune, column int) int {
	if column >= len(line) || line[column] != '(' {
		return column
	}
	start := column
	for start > 0 && isName(line[start-1]) {
		start--
	}
	return start
}

// nameAfter returns where a name begins at or after column, for the checker
// gives fields the place of their dot.
func nameAfter(line []rune, column int, name string) int {
	if column > len(line) {
		return column
	}
	if i := strings.Index(string(line[column:]), name); i >= 0 {
		return column + len([]rune(string(line[column:])[:i]))
	}
	return column
}

func enumerated(names []string) string {
	if len(names) < 2 {
		return strings.Join(names, "")
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
