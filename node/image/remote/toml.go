package remote

import (
	"fmt"
	"strconv"
	"strings"
)

// table is a TOML table: strings, booleans, []any and tables.
type table map[string]any

func (t table) sub(name string) table {
	s, _ := t[name].(table)
	return s
}

func (t table) text(name string) string {
	s, _ := t[name].(string)
	return s
}

func (t table) flag(name string) bool {
	b, _ := t[name].(bool)
	return b
}

// texts is a string, or a list of them.
func (t table) texts(name string) []string {
	switch v := t[name].(type) {
	case string:
		return []string{v}
	case []any:
		var all []string
		for _, one := range v {
			if s, ok := one.(string); ok {
				all = append(all, s)
			}
		}
		return all
	}
	return nil
}

// pairs is a string, a list of strings, or a list of pairs of them; a missing
// half is "".
func (t table) pairs(name string) [][2]string {
	if s := t.text(name); s != "" {
		return [][2]string{{s, ""}}
	}
	var all [][2]string
	list, _ := t[name].([]any)
	for _, one := range list {
		switch v := one.(type) {
		case string:
			all = append(all, [2]string{v, ""})
		case []any:
			var pair [2]string
			for i := range min(2, len(v)) {
				pair[i], _ = v[i].(string)
			}
			all = append(all, pair)
		}
	}
	return all
}

// parseTOML reads as much of TOML as hosts.toml uses: comments, [tables] with
// quoted names, strings, booleans, integers, and lists of those. order is the
// names below "host" as they come.
func parseTOML(text string) (root table, order []string, err error) {
	p := &tomlParser{rest: text, line: 1}
	root = table{}
	at := root
	for {
		p.space(true)
		if p.rest == "" {
			return root, order, nil
		}
		if p.take("[[") {
			return nil, nil, p.errorf("lists of tables are not for hosts.toml")
		}
		if p.take("[") {
			names, err := p.keys("]")
			if err != nil {
				return nil, nil, err
			}
			if at, err = root.descend(names); err != nil {
				return nil, nil, p.errorf("%v", err)
			}
			if len(names) == 2 && names[0] == "host" {
				order = append(order, names[1])
			}
			continue
		}
		names, err := p.keys("=")
		if err != nil {
			return nil, nil, err
		}
		in, err := at.descend(names[:len(names)-1])
		if err != nil {
			return nil, nil, p.errorf("%v", err)
		}
		value, err := p.value(0)
		if err != nil {
			return nil, nil, err
		}
		in[names[len(names)-1]] = value
		if err := p.endOfLine(); err != nil {
			return nil, nil, err
		}
	}
}

// descend finds or makes the table at a path.
func (t table) descend(names []string) (table, error) {
	for _, n := range names {
		if t[n] == nil {
			t[n] = table{}
		}
		next, ok := t[n].(table)
		if !ok {
			return nil, fmt.Errorf("%q is a value and a table", n)
		}
		t = next
	}
	return t, nil
}

type tomlParser struct {
	rest string
	line int
}

func (p *tomlParser) errorf(format string, args ...any) error {
	return fmt.Errorf("line %d: %s: %w", p.line, fmt.Sprintf(format, args...), ErrInvalid)
}

func (p *tomlParser) take(prefix string) bool {
	rest, ok := strings.CutPrefix(p.rest, prefix)
	p.rest = rest
	return ok
}

// space skips blanks and comments, and with lines, ends of lines.
func (p *tomlParser) space(lines bool) {
	for p.rest != "" {
		switch c := p.rest[0]; {
		case c == '#':
			end := strings.IndexByte(p.rest, '\n')
			if end < 0 {
				end = len(p.rest)
			}
			p.rest = p.rest[end:]
		case c == ' ' || c == '\t' || c == '\r':
			p.rest = p.rest[1:]
		case c == '\n' && lines:
			p.line++
			p.rest = p.rest[1:]
		default:
			return
		}
	}
}

func (p *tomlParser) endOfLine() error {
	p.space(false)
	if p.rest != "" && p.rest[0] != '\n' {
		return p.errorf("something follows the value")
	}
	return nil
}

// keys reads a dotted name up to end.
func (p *tomlParser) keys(end string) ([]string, error) {
	var names []string
	for {
		p.space(false)
		var name string
		if strings.HasPrefix(p.rest, `"`) || strings.HasPrefix(p.rest, "'") {
			var err error
			if name, err = p.quoted(); err != nil {
				return nil, err
			}
		} else {
			n := strings.IndexFunc(p.rest, func(r rune) bool { return !strings.ContainsRune(bareKey, r) })
			if n <= 0 {
				return nil, p.errorf("a name is missing")
			}
			name, p.rest = p.rest[:n], p.rest[n:]
		}
		names = append(names, name)
		p.space(false)
		if p.take(end) {
			return names, nil
		}
		if !p.take(".") {
			return nil, p.errorf("%q is missing after %q", end, name)
		}
	}
}

// bareKey is what a name without quotes is made of.
const bareKey = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"

// quoted reads a string; both kinds end on their line.
func (p *tomlParser) quoted() (string, error) {
	quote := p.rest[0]
	for i := 1; i < len(p.rest) && p.rest[i] != '\n'; i++ {
		switch {
		case p.rest[i] == '\\' && quote == '"':
			i++
		case p.rest[i] == quote:
			text := p.rest[:i+1]
			p.rest = p.rest[i+1:]
			if quote == '\'' {
				return text[1 : len(text)-1], nil
			}
			s, err := strconv.Unquote(text)
			if err != nil {
				return "", p.errorf("string %s", text)
			}
			return s, nil
		}
	}
	return "", p.errorf("a string has no end")
}

// maxNesting bounds lists in lists.
const maxNesting = 4

func (p *tomlParser) value(depth int) (any, error) {
	p.space(false)
	switch {
	case strings.HasPrefix(p.rest, `"`) || strings.HasPrefix(p.rest, "'"):
		return p.quoted()
	case p.take("true"):
		return true, nil
	case p.take("false"):
		return false, nil
	case p.take("["):
		return p.list(depth)
	}
	n := strings.IndexFunc(p.rest, func(r rune) bool { return !strings.ContainsRune("+-_0123456789", r) })
	if n < 0 {
		n = len(p.rest)
	}
	number, err := strconv.ParseInt(strings.ReplaceAll(p.rest[:n], "_", ""), 10, 64)
	if err != nil {
		return nil, p.errorf("a value is neither string, boolean, number nor list")
	}
	p.rest = p.rest[n:]
	return number, nil
}

func (p *tomlParser) list(depth int) (any, error) {
	if depth >= maxNesting {
		return nil, p.errorf("lists more than %d deep", maxNesting)
	}
	all := []any{}
	for {
		p.space(true)
		if p.take("]") {
			return all, nil
		}
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		all = append(all, v)
		p.space(true)
		if !p.take(",") && !strings.HasPrefix(p.rest, "]") {
			return nil, p.errorf("a comma is missing in a list")
		}
	}
}
