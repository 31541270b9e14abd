package snapshot

import (
	"slices"
	"strings"
)

// expression renames the labels and values in a selector of Calico's language.
// What compares a part of a value becomes a set of the world's values that it
// holds of, for parts of a name say nothing of the made-up one. The result is
// false for what is no such selector.
func (a *anonymizer) expression(old string) (string, bool) {
	s := scanner{rest: old}
	for s.rest != "" {
		switch c := s.rest[0]; {
		case strings.IndexByte(" \t()!&|", c) >= 0:
			s.copy(1)
		case s.call("all(") || s.call("global("):
		case s.call("has("):
			s.spaces()
			label := s.label()
			if label == "" {
				return "", false
			}
			s.out.WriteString(a.labelKey(label))
		case !a.comparison(&s):
			return "", false
		}
	}
	return s.out.String(), true
}

// comparison renames a label, an operator and what the label is compared with.
func (a *anonymizer) comparison(s *scanner) bool {
	label := s.label()
	if label == "" {
		return false
	}
	s.out.WriteString(a.labelKey(label))
	s.spaces()
	switch {
	case s.call("=="), s.call("!="):
		s.spaces()
		value, ok := s.quoted()
		s.out.WriteString(quote(a.labelValue(label, value)))
		return ok
	case s.skip("contains"):
		return a.part(s, label, strings.Contains)
	case s.skip("starts with"), s.skip("startswith"):
		return a.part(s, label, strings.HasPrefix)
	case s.skip("ends with"), s.skip("endswith"):
		return a.part(s, label, strings.HasSuffix)
	case s.call("in"), s.call("not in"), s.call("notin"):
		s.spaces()
		return a.set(s, label)
	}
	return false
}

func (a *anonymizer) part(s *scanner, label string, holds func(value, part string) bool) bool {
	s.skipSpaces()
	part, ok := s.quoted()
	var values []string
	for value := range a.values[label] {
		if holds(value, part) {
			values = append(values, quote(a.labelValue(label, value)))
		}
	}
	slices.Sort(values)
	s.out.WriteString("in {" + strings.Join(values, ", ") + "}")
	return ok
}

func (a *anonymizer) set(s *scanner, label string) bool {
	if !s.call("{") {
		return false
	}
	for {
		s.spaces()
		if s.call("}") {
			return true
		}
		value, ok := s.quoted()
		if !ok {
			return false
		}
		s.out.WriteString(quote(a.labelValue(label, value)))
		s.spaces()
		if !s.call(",") && !strings.HasPrefix(s.rest, "}") {
			return false
		}
	}
}

// quote writes a string as Calico takes it: there is no way to write one that
// holds both quotes, and none that was read does.
func quote(text string) string {
	if strings.Contains(text, `"`) {
		return "'" + text + "'"
	}
	return `"` + text + `"`
}

// scanner reads a selector from its start and writes another.
type scanner struct {
	rest string
	out  strings.Builder
}

func (s *scanner) copy(n int) {
	s.out.WriteString(s.rest[:n])
	s.rest = s.rest[n:]
}

// call copies what the rest begins with.
func (s *scanner) call(word string) bool {
	if !strings.HasPrefix(s.rest, word) {
		return false
	}
	s.copy(len(word))
	return true
}

func (s *scanner) skip(word string) bool {
	rest, found := strings.CutPrefix(s.rest, word)
	s.rest = rest
	return found
}

func (s *scanner) spaces() { s.copy(len(s.rest) - len(strings.TrimLeft(s.rest, " \t"))) }

func (s *scanner) skipSpaces() { s.rest = strings.TrimLeft(s.rest, " \t") }

func (s *scanner) label() string {
	end := strings.IndexFunc(s.rest, func(c rune) bool {
		return !strings.ContainsRune("_./-", c) && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
	if end < 0 {
		end = len(s.rest)
	}
	label := s.rest[:end]
	s.rest = s.rest[end:]
	return label
}

func (s *scanner) quoted() (string, bool) {
	if s.rest == "" || s.rest[0] != '\'' && s.rest[0] != '"' {
		return "", false
	}
	text, rest, closed := strings.Cut(s.rest[1:], s.rest[:1])
	s.rest = rest
	return text, closed
}
