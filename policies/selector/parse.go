package selector

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// Parse reads a selector as kubectl writes it: "app=web,tier in (a,b),!old". An
// empty text selects everything. It fails with the column, counted from 1, of
// what it cannot read.
func Parse(text string) (Selector, error) {
	p := parser{text: text}
	var requirements []Requirement
	for p.skip(); p.at < len(text); {
		r, err := p.requirement()
		if err != nil {
			return Selector{}, err
		}
		requirements = append(requirements, r)
		if p.at == len(text) {
			break
		}
		if !p.take(",") {
			return Selector{}, p.errorf("a comma is missing between two requirements")
		}
		if p.at == len(text) {
			return Selector{}, p.errorf("there is nothing after the comma")
		}
	}
	return New(requirements)
}

// parser reads from at on; what comes before has been read.
type parser struct {
	text string
	at   int
}

func (p *parser) errorf(format string, args ...any) error {
	return fmt.Errorf("selector %q, column %d: %s", p.text, p.column(p.at), fmt.Sprintf(format, args...))
}

// column is the place of a byte, in characters counted from 1.
func (p *parser) column(at int) int { return utf8.RuneCountInString(p.text[:at]) + 1 }

func (p *parser) skip() {
	for p.at < len(p.text) && strings.ContainsRune(" \t\r\n", rune(p.text[p.at])) {
		p.at++
	}
}

// take reads a token if it comes next.
func (p *parser) take(token string) bool {
	if !strings.HasPrefix(p.text[p.at:], token) {
		return false
	}
	p.at += len(token)
	p.skip()
	return true
}

// word reads a label's key or value; it is empty where none comes.
func (p *parser) word() string {
	start := p.at
	for p.at < len(p.text) && !strings.ContainsRune(" \t\r\n,=!()<>", rune(p.text[p.at])) {
		p.at++
	}
	word := p.text[start:p.at]
	p.skip()
	return word
}

func (p *parser) key() (string, error) {
	start := p.at
	key := p.word()
	name, prefix := key, ""
	if before, after, ok := strings.Cut(key, "/"); ok {
		prefix, name = before, after
	}
	if bad := !isName(name, 63) || prefix != "" && !isPrefix(prefix) || strings.HasPrefix(key, "/"); bad {
		p.at = start
		return "", p.errorf("%q is not a label's key, such as app or example.com/tier", key)
	}
	return key, nil
}

func (p *parser) value() (string, error) {
	start := p.at
	value := p.word()
	if value != "" && !isName(value, 63) {
		p.at = start
		return "", p.errorf("%q is not a label's value: at most 63 letters, digits, -, _ and ., the first and last a letter or digit", value)
	}
	return value, nil
}

// requirement reads one of "key", "!key", "key=value", "key!=value", "key in
// (a,b)" and "key notin (a,b)".
func (p *parser) requirement() (Requirement, error) {
	if p.take("!") {
		key, err := p.key()
		return Requirement{Key: key, Operator: DoesNotExist}, err
	}
	key, err := p.key()
	if err != nil {
		return Requirement{}, err
	}
	r := Requirement{Key: key, Operator: Exists}
	switch {
	case p.at == len(p.text) || p.text[p.at] == ',':
		return r, nil
	case p.take("!="):
		r.Operator = NotIn
	case p.take("=="), p.take("="):
		r.Operator = In
	default:
		start := p.at
		switch word := p.word(); word {
		case "in":
			r.Operator = In
		case "notin":
			r.Operator = NotIn
		default:
			p.at = start
			return r, p.errorf("after %s comes one of =, !=, in, notin or a comma", key)
		}
		r.Values, err = p.values()
		return r, err
	}
	value, err := p.value()
	r.Values = []string{value}
	return r, err
}

func (p *parser) values() ([]string, error) {
	if !p.take("(") {
		return nil, p.errorf("values stand in brackets, as in (a,b)")
	}
	var values []string
	for {
		value, err := p.value()
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		switch {
		case p.take(")"):
			return values, nil
		case !p.take(","):
			return nil, p.errorf("a comma or a closing bracket is missing")
		}
	}
}

// isName reports whether text is a name as labels have them: letters, digits, -,
// _ and ., the first and last a letter or digit, at most so many.
func isName(text string, most int) bool {
	if text == "" || len(text) > most {
		return false
	}
	for i, c := range text {
		alphanumeric := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alphanumeric && (i == 0 || i == len(text)-1 || !strings.ContainsRune("-_.", c)) {
			return false
		}
	}
	return true
}

// isPrefix reports whether text is a DNS name, as in front of a label's key.
func isPrefix(text string) bool {
	if len(text) > 253 {
		return false
	}
	for _, part := range strings.Split(text, ".") {
		if !isName(part, 253) || strings.ContainsAny(part, "_") || strings.ToLower(part) != part {
			return false
		}
	}
	return true
}
