// Package scan reads JSON whose form is known, without reflection. It takes what
// programs ordinarily write, and fails at anything else: escapes, null, fractions,
// text that is not ASCII. Whoever uses it then has encoding/json read the whole, so
// that a failure here is never one that a user sees; but what it does take it takes
// as encoding/json does.
package scan

import (
	"encoding/json"
	"slices"
	"strconv"
)

// maxDepth bounds how deep values that are skipped may be nested.
const maxDepth = 100

// Scanner reads one document, from its beginning on. The first failure makes all
// further reads give nothing.
type Scanner struct {
	b      []byte
	i      int
	failed bool
}

// New reads b, which must stay as it is meanwhile.
func New(b []byte) *Scanner { return &Scanner{b: b} }

// Fail says that this document is not for a Scanner.
func (s *Scanner) Fail() { s.failed = true }

// Whole says that nothing has failed and nothing is left.
func (s *Scanner) Whole() bool {
	s.space()
	return !s.failed && s.i == len(s.b)
}

func (s *Scanner) space() {
	for s.i < len(s.b) && (s.b[s.i] == ' ' || s.b[s.i] == '\n' || s.b[s.i] == '\t' || s.b[s.i] == '\r') {
		s.i++
	}
}

// next is the next byte that is no space, without taking it; 0 at the end.
func (s *Scanner) next() byte {
	if s.space(); s.failed || s.i == len(s.b) {
		return 0
	}
	return s.b[s.i]
}

func (s *Scanner) take(c byte) bool {
	if s.next() != c {
		s.failed = true
		return false
	}
	s.i++
	return true
}

// several reads a list of things between two brackets.
func (s *Scanner) several(open, end byte, each func()) {
	if !s.take(open) {
		return
	}
	if s.next() == end {
		s.i++
		return
	}
	for !s.failed {
		each()
		if s.next() == end {
			s.i++
			return
		}
		s.take(',')
	}
}

// maxMembers is how many members an object of a known form has.
const maxMembers = 32

// Members reads an object: each is called with a name, and reads the value. No name
// may come twice: what that means depends on the value.
func (s *Scanner) Members(each func(key string)) {
	var seen [maxMembers]string
	n := 0
	s.several('{', '}', func() {
		key := s.String()
		if n == maxMembers || slices.Contains(seen[:n], key) || !s.take(':') {
			s.failed = true
			return
		}
		seen[n] = key
		n++
		each(key)
	})
}

// List reads an array.
func List[T any](s *Scanner, each func(s *Scanner, to *T)) []T {
	out := make([]T, 0, 8)
	s.several('[', ']', func() {
		var v T
		each(s, &v)
		out = append(out, v)
	})
	return out
}

// String reads a string.
func (s *Scanner) String() string { return string(s.bytes()) }

func (s *Scanner) bytes() []byte {
	if !s.take('"') {
		return nil
	}
	for at := s.i; s.i < len(s.b); s.i++ {
		c := s.b[s.i]
		if c == '"' {
			s.i++
			return s.b[at : s.i-1]
		}
		if c == '\\' || c < ' ' || c >= 0x7f {
			break
		}
	}
	s.failed = true
	return nil
}

// Strings reads an object whose values are strings.
func (s *Scanner) Strings() map[string]string {
	out := map[string]string{}
	s.several('{', '}', func() {
		if key := s.String(); s.take(':') {
			out[key] = s.String()
		}
	})
	return out
}

// Bool reads true or false.
func (s *Scanner) Bool() bool {
	switch string(s.word()) {
	case "true":
		return true
	case "false":
	default:
		s.failed = true
	}
	return false
}

// Number reads a whole number between least and most.
func (s *Scanner) Number(least, most int64) int64 {
	w := s.word()
	n, err := strconv.ParseInt(string(w), 10, 64)
	if err != nil || n < least || n > most || strconv.FormatInt(n, 10) != string(w) {
		s.failed = true
		return 0
	}
	return n
}

// word takes what is neither space nor structure.
func (s *Scanner) word() []byte {
	s.next()
	at := s.i
	for ; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case ' ', '\n', '\t', '\r', ',', ':', '[', ']', '{', '}', '"':
			return s.b[at:s.i]
		}
	}
	return s.b[at:s.i]
}

// Decode has encoding/json read a value into v.
func (s *Scanner) Decode(v any) {
	s.next()
	at := s.i
	s.skip(0)
	if !s.failed && (string(s.b[at:s.i]) == "null" || json.Unmarshal(s.b[at:s.i], v) != nil) {
		s.failed = true
	}
}

func (s *Scanner) skip(depth int) {
	if depth > maxDepth {
		s.failed = true
		return
	}
	switch s.next() {
	case '{':
		s.several('{', '}', func() {
			s.skipString()
			s.take(':')
			s.skip(depth + 1)
		})
	case '[':
		s.several('[', ']', func() { s.skip(depth + 1) })
	case '"':
		s.skipString()
	default:
		if len(s.word()) == 0 {
			s.failed = true
		}
	}
}

// skipString goes on after a string, whatever is in it.
func (s *Scanner) skipString() {
	if !s.take('"') {
		return
	}
	for ; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case '\\':
			s.i++
		case '"':
			s.i++
			return
		}
	}
	s.failed = true
}
