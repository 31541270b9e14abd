package selector

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// ParseCalico reads a Calico selector: `app == "web" && tier in {"a", "b"}`. An
// empty text is all(). It fails with the column, counted from 1, of what it
// cannot read. It has no limit of length; that one of 1024 characters is the
// API's.
func ParseCalico(text string) (Expression, error) {
	p := calicoParser{parser: parser{text: text}}
	p.skip()
	if p.at == len(text) {
		return Expression{}, nil
	}
	// Room for all that most texts hold.
	count := func(c string) int { return min(strings.Count(text, c), 64) }
	p.terms = make([]term, 0, 1+count("&")+count("|")+count("!"))
	root, err := p.group(termOr, 0)
	if err == nil && p.at < len(text) {
		err = p.unjoined("&& or ||")
	}
	if err != nil {
		return Expression{}, err
	}
	return Expression{p.terms, p.values, root}, nil
}

// mostNested is how deep brackets may stand in each other. A text that the API
// takes is too short for more.
const mostNested = 1024

// longestKey is how long a label's key may be.
const longestKey = 512

type calicoParser struct {
	parser
	terms  []term
	values []string
}

// skip reads the spaces that Calico allows, which line breaks are not.
func (p *calicoParser) skip() {
	for p.at < len(p.text) && (p.text[p.at] == ' ' || p.text[p.at] == '\t') {
		p.at++
	}
}

// take reads a token if it comes next.
func (p *calicoParser) take(token string) bool {
	if !strings.HasPrefix(p.text[p.at:], token) {
		return false
	}
	p.at += len(token)
	p.skip()
	return true
}

// next is the byte that comes next, or 0 at the end.
func (p *calicoParser) next() byte {
	if p.at == len(p.text) {
		return 0
	}
	return p.text[p.at]
}

func (p *calicoParser) add(t term) int32 {
	p.terms = append(p.terms, t)
	return int32(len(p.terms) - 1)
}

// group reads one operand or several with && or || between them, each so many
// brackets deep.
func (p *calicoParser) group(joined kind, depth int) (int32, error) {
	between := byte('|') // twice
	if joined == termAnd {
		between = '&'
	}
	var first, last int32
	for n := 0; ; n++ {
		id, err := p.operand(joined, depth)
		if err != nil {
			return 0, err
		}
		if n == 0 {
			first = id
		} else {
			p.terms[last].next = id
		}
		last = id
		switch {
		case p.at+1 < len(p.text) && p.text[p.at] == between && p.text[p.at+1] == between:
			p.at += 2
			p.skip()
		case n == 0:
			return first, nil
		default:
			return p.add(term{kind: joined, first: first}), nil
		}
	}
}

// operand reads what may stand on either side of || or of &&.
func (p *calicoParser) operand(joined kind, depth int) (int32, error) {
	if joined == termOr {
		return p.group(termAnd, depth)
	}
	negated := false
	for p.take("!") {
		negated = !negated
	}
	id, err := p.primary(depth)
	if err == nil && negated {
		id = p.add(term{kind: termNot, first: id})
	}
	return id, err
}

func (p *calicoParser) primary(depth int) (int32, error) {
	opened := p.at
	if p.take("(") {
		if depth == mostNested {
			return 0, p.errorf("brackets stand in each other more than %d deep", mostNested)
		}
		id, err := p.group(termOr, depth+1)
		if err == nil && !p.take(")") {
			err = p.unjoined(fmt.Sprintf("&&, || or the bracket that closes the one in column %d", p.column(opened)))
		}
		return id, err
	}
	start := p.at
	key := p.identifier()
	if key == "" {
		return 0, p.problem("a condition is missing, such as app == 'web', has(app) or all()")
	}
	if p.next() == '(' {
		switch key {
		case "has":
			return p.has()
		case "all", "global":
			p.take("(")
			if !p.take(")") {
				return 0, p.errorf("%s( takes nothing but the closing bracket", key)
			}
			if key == "all" {
				return p.add(term{kind: termAll}), nil
			}
			return p.add(term{kind: termGlobal}), nil
		}
	}
	if err := p.checkLength(start, key); err != nil {
		return 0, err
	}
	return p.condition(start, key)
}

// has reads has(key) from its bracket on.
func (p *calicoParser) has() (int32, error) {
	p.take("(")
	start := p.at
	key := p.identifier()
	p.skip()
	switch {
	case key == "" && (p.next() == '"' || p.next() == '\''):
		return 0, p.errorf("has( takes a label's key without quotes")
	case key == "":
		return 0, p.errorf("has( takes a label's key, such as app or example.com/tier")
	case !p.take(")"):
		return 0, p.errorf("the bracket of has(%s is not closed", key)
	}
	return p.add(term{kind: termHas, key: key}), p.checkLength(start, key)
}

// condition reads a comparison of the label with a key that was read already.
func (p *calicoParser) condition(start int, key string) (int32, error) {
	p.skip()
	at := p.at
	k := p.operator()
	if k == termAll {
		return 0, p.noOperator(start, at, key)
	}
	t := term{kind: k, key: key}
	var err error
	if k == termIn || k == termNotIn {
		t.first, t.end, err = p.set()
	} else {
		t.value[0], err = p.value(p.text[at:p.at], "app == 'web'")
	}
	if err != nil {
		return 0, err
	}
	return p.add(t), nil
}

// operator reads what compares a label; it is termAll where nothing such comes.
func (p *calicoParser) operator() kind {
	switch p.next() {
	case '=':
		if p.take("==") {
			return termEqual
		}
	case '!':
		if p.take("!=") {
			return termUnequal
		}
	case 'i':
		if p.words("in", "") {
			return termIn
		}
	case 'n':
		if p.words("not", "in") {
			return termNotIn
		}
	case 'c':
		if p.words("contains", "") {
			return termContains
		}
	case 's':
		if p.words("starts", "with") {
			return termStarts
		}
	case 'e':
		if p.words("ends", "with") {
			return termEnds
		}
	}
	return termAll
}

// words reads one or two words, with or without spaces between them, that end
// where the word in the text does.
func (p *calicoParser) words(first, second string) bool {
	start := p.at
	if p.take(first) && strings.HasPrefix(p.text[p.at:], second) {
		// Of one word, the spaces after it have been read.
		p.at += len(second)
		if p.at < len(p.text) && isKeyByte(p.text[p.at]) && (second != "" || p.at == start+len(first)) {
			p.at = start
			return false
		}
		p.skip()
		return true
	}
	p.at = start
	return false
}

// value reads a text in quotes, which comes after what is named so.
func (p *calicoParser) value(after, example string) (string, error) {
	quote := p.next()
	if quote != '"' && quote != '\'' {
		if isKeyByte(quote) {
			start := p.at
			word := p.identifier()
			p.at = start
			return "", p.errorf("a value stands in quotes: write '%s'", word)
		}
		return "", p.problem("a value in quotes is missing after %s, as in %s", strings.TrimRight(after, " \t"), example)
	}
	from := p.at + 1
	end := strings.IndexByte(p.text[from:], quote)
	if end < 0 {
		return "", p.errorf("the text that begins with this quote is not closed; there are no escapes, but a value with ' in it may stand in \"\" and the other way round")
	}
	p.at = from + end + 1
	p.skip()
	return p.text[from : from+end], nil
}

// set reads values in braces, and returns where they are in p.values.
func (p *calicoParser) set() (first, end int32, err error) {
	const example = "tier in {'a', 'b'}"
	if !p.take("{") {
		return 0, 0, p.problem("a set is missing: values in braces, as in %s", example)
	}
	whole, _, _ := strings.Cut(p.text[p.at:], "}")
	p.values = slices.Grow(p.values, strings.Count(whole, ",")+1)
	from := len(p.values)
	for after := "{"; !p.take("}"); after = "the comma" {
		value, err := p.value(after, example)
		if err != nil {
			return 0, 0, err
		}
		p.values = append(p.values, value)
		if !p.take(",") && p.next() != '}' {
			return 0, 0, p.problem("a comma or the closing brace is missing, as in %s", example)
		}
	}
	p.values = p.values[:from+len(distinct(p.values[from:]))]
	return int32(from), int32(len(p.values)), nil
}

// identifier reads a key, or a word; it is empty where none comes.
func (p *calicoParser) identifier() string {
	start := p.at
	for p.at < len(p.text) && isKeyByte(p.text[p.at]) {
		p.at++
	}
	return p.text[start:p.at]
}

func (p *calicoParser) checkLength(start int, key string) error {
	if len(key) <= longestKey {
		return nil
	}
	p.at = start
	return p.errorf("a label's key has at most %d characters, not %d", longestKey, len(key))
}

// isKeyByte reports whether keys of labels may hold c.
func isKeyByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' || c == '/'
}

// noOperator says what is wrong with what comes after a label's key, from at on.
func (p *calicoParser) noOperator(start, at int, key string) error {
	p.at = at
	ends := p.next() == 0 || strings.IndexByte("&|),}", p.next()) >= 0
	switch {
	case (key == "has" || key == "all" || key == "global") && p.next() == '(':
		return p.errorf("no space may stand between %s and its bracket", key)
	case ends && (key == "all" || key == "global"):
		p.at = start
		return p.errorf("%s is the key of a label here; write %[1]s() if that is not meant", key)
	case ends:
		p.at = start
		return p.errorf("%s is no condition by itself; write has(%[1]s) if the label must be there", key)
	case p.next() == '=':
		return p.errorf("a single = is no operator; write ==")
	}
	word := p.identifier()
	p.at = at
	if word == "" {
		return p.problem("after %s comes one of %s", key, operators)
	}
	if near := nearest(word); near != "" {
		return p.errorf("%q is no operator; near it is %q", word, near)
	}
	return p.errorf("%q is no operator; there are %s", word, operators)
}

const operators = "==, !=, in, not in, contains, starts with, ends with"

// nearest is the operator that was meant by a word, or "" where that is not
// clear.
func nearest(word string) string {
	word = strings.ToLower(word)
	switch word {
	case "is", "eq", "equals":
		return "=="
	case "ne", "neq":
		return "!="
	}
	best, most := "", 1
	for _, o := range []string{"in", "not in", "contains", "starts with", "ends with"} {
		same := 0
		for flat := strings.ReplaceAll(o, " ", ""); same < min(len(word), len(flat)) && word[same] == flat[same]; {
			same++
		}
		if same > most {
			best, most = o, same
		}
	}
	return best
}

// unjoined says that what comes next may not stand after a condition.
func (p *calicoParser) unjoined(wanted string) error {
	start := p.at
	word := strings.ToLower(p.identifier())
	p.at = start
	switch {
	case word == "and":
		return p.errorf("%q joins nothing; write &&", word)
	case word == "or":
		return p.errorf("%q joins nothing; write ||", word)
	case p.next() == ',':
		return p.errorf("a comma joins nothing; write && where both sides must hold")
	case p.next() == ')':
		return p.errorf("no bracket is open that this one could close")
	}
	return p.problem("after a condition comes %s", wanted)
}

// problem says what is wrong with what stands at the place that was reached, as
// far as that shows in itself, or else what format says.
func (p *calicoParser) problem(format string, args ...any) error {
	switch c := p.next(); {
	case c == '\n' || c == '\r':
		return p.errorf("a selector has no line breaks outside quotes; take it out")
	case c == '&' && !strings.HasPrefix(p.text[p.at:], "&&"):
		return p.errorf("a single & is no operator; write &&")
	case c == '|' && !strings.HasPrefix(p.text[p.at:], "||"):
		return p.errorf("a single | is no operator; write ||")
	case c >= 0x80 || c != 0 && c < ' ':
		_, size := utf8.DecodeRuneInString(p.text[p.at:])
		return p.errorf("%q may stand in quotes only", p.text[p.at:p.at+size])
	}
	return p.errorf(format, args...)
}
