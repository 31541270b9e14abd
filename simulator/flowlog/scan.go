package flowlog

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"strconv"
	"time"
	"unicode/utf8"
)

// scan goes through one JSON text from front to back, as the caller asks for
// what comes next, and allocates nothing. It takes what encoding/json takes, and
// nothing else; names of fields are told apart by case.
//
// The first error ends every loop, and makes every value a zero one; end returns
// it. Bytes that a scan returns are part of its text, unless escapes or broken
// UTF-8 had to be replaced.
type scan struct {
	text  []byte
	at    int
	depth int
	name  []byte // of the field at hand
	err   error
}

// maxDepth is how deep encoding/json follows objects and arrays.
const maxDepth = 10000

// object enters the object that comes next. It is false for null.
func (s *scan) object() bool { return s.open('{') }

// array enters the array that comes next. It is false for null.
func (s *scan) array() bool { return s.open('[') }

// field goes to the next field of the object that was entered, whose name it
// leaves in s.name. The value is to be taken before the next call. It is false
// at the object's end.
//
//	for in := s.object(); in && s.field(); {
func (s *scan) field() bool {
	if !s.more('{', '}') {
		return false
	}
	if s.peek() != '"' {
		s.unexpected()
		return false
	}
	s.name = s.quoted()
	if s.peek() != ':' {
		s.unexpected()
		return false
	}
	s.at++
	return s.err == nil
}

// element goes to the next element of the array that was entered, as field does.
func (s *scan) element() bool { return s.more('[', ']') }

// raw takes any value, as it stands in the text.
func (s *scan) raw() []byte {
	s.peek()
	start := s.at
	s.skip()
	if s.err != nil {
		return nil
	}
	return s.text[start:s.at]
}

// string takes a string. It is nil for null.
func (s *scan) string() []byte {
	if s.peek() == '"' {
		return s.quoted()
	}
	s.nothing()
	return nil
}

// word takes a string or a number as text. It is nil for null.
func (s *scan) word() []byte {
	if c := s.peek(); c == '-' || '0' <= c && c <= '9' {
		return s.number()
	}
	return s.string()
}

// uint takes a whole number up to most, also one in a string. It is 0 for null.
func (s *scan) uint(most uint64) uint64 {
	text := s.word()
	if text == nil {
		return 0
	}
	return s.digitsOf(s.name, text, most)
}

// digitsOf returns the whole number that text is.
func (s *scan) digitsOf(name, text []byte, most uint64) uint64 {
	var n uint64
	ok := len(text) > 0
	for _, c := range text {
		digit := uint64(c) - '0'
		if digit > 9 || n > (most-digit)/10 {
			ok = false
			break
		}
		n = n*10 + digit
	}
	if !ok || n > most {
		s.fail(fmt.Errorf("%s %.40q is no whole number from 0 to %d", name, text, most))
		return 0
	}
	return n
}

// bool takes true or false. It is false for null.
func (s *scan) bool() bool {
	switch s.peek() {
	case 't':
		s.literal("true")
		return s.err == nil
	case 'f':
		s.literal("false")
	default:
		s.nothing()
	}
	return false
}

// time takes a time such as 2026-03-10T12:00:00Z, in UTC. It is zero for null.
func (s *scan) time() time.Time {
	text := s.string()
	if text == nil {
		return time.Time{}
	}
	t, ok := parseTime(text)
	if !ok {
		s.fail(fmt.Errorf("%s %.40q is not a time such as 2026-03-10T12:00:00Z", s.name, text))
	}
	return t
}

// parseTime reads a time such as 2026-03-10T12:00:00Z, and returns it in UTC.
// Like encoding/json it knows the years from 0 to 9999.
func parseTime(text []byte) (t time.Time, ok bool) {
	if err := t.UnmarshalText(text); err != nil {
		return time.Time{}, false
	}
	t = utc(t)
	if t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, false
	}
	return t, true
}

// address takes an IP address, without its zone. It is the zero one for null and
// for an empty string.
func (s *scan) address() netip.Addr {
	text := s.string()
	if len(text) == 0 {
		return netip.Addr{}
	}
	address, err := netip.ParseAddr(string(text))
	if err != nil {
		s.fail(fmt.Errorf("%s %.60q is no IP address", s.name, text))
	}
	return address.Unmap().WithZone("")
}

// float takes a number. It is 0 for null.
func (s *scan) float() float64 {
	text := s.word()
	if text == nil {
		return 0
	}
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil {
		s.fail(fmt.Errorf("%s %.40q is no number", s.name, text))
	}
	return n
}

// null takes null if it comes next.
func (s *scan) null() bool {
	if s.peek() != 'n' {
		return false
	}
	s.literal("null")
	return s.err == nil
}

// end returns the first error. What was entered must have been left, and nothing
// may follow.
func (s *scan) end() error {
	if s.err == nil && s.peek() != 0 || s.err == nil && s.at < len(s.text) {
		s.unexpected()
	}
	return s.err
}

func (s *scan) fail(err error) {
	if s.err == nil {
		s.err = err
	}
}

// unexpected fails at the next byte.
func (s *scan) unexpected() {
	if s.at >= len(s.text) {
		s.fail(errors.New("not valid JSON: unexpected end of JSON input"))
		return
	}
	s.fail(fmt.Errorf("not valid JSON: %q is not expected at byte %d", s.text[s.at], s.at+1))
}

// nothing takes null, or fails because a value is of the wrong type.
func (s *scan) nothing() {
	what := ""
	switch c := s.peek(); c {
	case 'n':
		s.literal("null")
		return
	case '{':
		what = "an object"
	case '[':
		what = "an array"
	case '"':
		what = "a string"
	case 't', 'f':
		what = "a bool"
	default:
		if c != '-' && (c < '0' || '9' < c) {
			s.unexpected()
			return
		}
		what = "a number"
	}
	s.fail(fmt.Errorf("field %s cannot be %s", s.name, what))
}

// peek returns the next byte that is no white space, and 0 at the end.
func (s *scan) peek() byte {
	for s.at < len(s.text) {
		switch c := s.text[s.at]; c {
		case ' ', '\t', '\r', '\n':
			s.at++
		default:
			return c
		}
	}
	return 0
}

func (s *scan) open(bracket byte) bool {
	if s.err != nil {
		return false
	}
	if s.peek() != bracket {
		s.nothing()
		return false
	}
	s.at++
	s.depth++
	if s.depth > maxDepth {
		s.fail(errors.New("not valid JSON: it is too deep"))
	}
	return s.err == nil
}

// more takes what stands between two values, or behind the last one. The bracket
// stands directly before where the scan is when no value was taken yet, for no
// value ends with it.
func (s *scan) more(opening, closing byte) bool {
	if s.err != nil {
		return false
	}
	first := s.text[s.at-1] == opening
	switch c := s.peek(); {
	case c == closing:
		s.at++
		s.depth--
		return false
	case first:
		return true
	case c == ',':
		s.at++
		return true
	}
	s.unexpected()
	return false
}

func (s *scan) skip() {
	switch c := s.peek(); {
	case s.err != nil:
	case c == '"':
		s.quotes()
	case c == '{':
		for in := s.object(); in && s.field(); {
			s.skip()
		}
	case c == '[':
		for in := s.array(); in && s.element(); {
			s.skip()
		}
	case c == '-' || '0' <= c && c <= '9':
		s.number()
	case c == 't' || c == 'f':
		s.bool()
	default:
		s.nothing() // null, or no value at all
	}
}

func (s *scan) literal(text string) {
	for i := range len(text) {
		if s.at >= len(s.text) || s.text[s.at] != text[i] {
			s.unexpected()
			return
		}
		s.at++
	}
}

// number takes a number as JSON writes it.
func (s *scan) number() []byte {
	start := s.at
	if s.text[s.at] == '-' {
		s.at++
	}
	if s.at < len(s.text) && s.text[s.at] == '0' {
		s.at++
	} else {
		s.digits()
	}
	if s.at < len(s.text) && s.text[s.at] == '.' {
		s.at++
		s.digits()
	}
	if s.at < len(s.text) && s.text[s.at]|0x20 == 'e' {
		s.at++
		if s.at < len(s.text) && (s.text[s.at] == '+' || s.text[s.at] == '-') {
			s.at++
		}
		s.digits()
	}
	if s.err != nil {
		return nil
	}
	return s.text[start:s.at]
}

// digits takes one digit or more.
func (s *scan) digits() {
	start := s.at
	for s.at < len(s.text) && '0' <= s.text[s.at] && s.text[s.at] <= '9' {
		s.at++
	}
	if s.at == start {
		s.unexpected()
	}
}

// quoted takes the string that begins here and returns what it means.
func (s *scan) quoted() []byte {
	start := s.at
	plain := s.quotes()
	if s.err != nil {
		return nil
	}
	text := s.text[start+1 : s.at-1]
	if plain || utf8.Valid(text) && bytes.IndexByte(text, '\\') < 0 {
		return text
	}
	var meant string
	if err := json.Unmarshal(s.text[start:s.at], &meant); err != nil {
		s.fail(err)
	}
	return []byte(meant)
}

const ones = 0x0101010101010101

// special marks the bytes of eight that need a look: quotes, backslashes, and
// what does not print or is no ASCII. The lowest mark is right; those above may
// not be, for a difference may borrow from the next byte.
func special(eight uint64) uint64 {
	quote, backslash := (eight^ones*'"')-ones, (eight^ones*'\\')-ones
	control := eight - ones*' '
	return (quote | backslash | control | eight) & (ones * 0x80)
}

// quotes takes the string that begins here, and reports whether it means what it
// says: it has no escapes and is all ASCII.
func (s *scan) quotes() (plain bool) {
	plain = true
	text, i := s.text, s.at+1
	for {
		for i+8 <= len(text) {
			if marks := special(binary.LittleEndian.Uint64(text[i:])); marks != 0 {
				i += bits.TrailingZeros64(marks) / 8
				break
			}
			i += 8
		}
		if i >= len(text) {
			s.at = i
			s.unexpected()
			return false
		}
		switch c := text[i]; {
		case c == '"':
			s.at = i + 1
			return plain
		case c == '\\':
			plain = false
			s.at = i
			s.escape()
			if s.err != nil {
				return false
			}
			i = s.at
		case c < 0x20:
			s.at = i
			s.unexpected()
			return false
		default:
			plain = plain && c < utf8.RuneSelf
			i++
		}
	}
}

// escape takes a backslash and what it escapes.
func (s *scan) escape() {
	s.at++
	if s.at >= len(s.text) {
		s.unexpected()
		return
	}
	switch s.text[s.at] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		s.at++
	case 'u':
		s.at++
		for range 4 {
			if s.at >= len(s.text) {
				s.unexpected()
				return
			}
			if _, err := strconv.ParseUint(string(s.text[s.at]), 16, 8); err != nil {
				s.unexpected()
				return
			}
			s.at++
		}
	default:
		s.unexpected()
	}
}
