package build

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/sampan-dev/sampan/node/image"
)

// parseMode reads --chmod: octal ("755") or symbolic as chmod(1) has it
// ("u=rwX,go=rX", "a+x").
func parseMode(text string) (func(old os.FileMode, dir bool) os.FileMode, error) {
	if mode, ok := octal(text); ok {
		return func(os.FileMode, bool) os.FileMode { return mode }, nil
	}
	var clauses []clause
	for _, part := range strings.Split(text, ",") {
		c, ok := parseClause(part)
		if !ok {
			return nil, fmt.Errorf("invalid chmod parameter: '%s'. it should be octal string and between 0 and 07777, or symbolic such as u=rwX,go=rX: %w", text, image.ErrInvalid)
		}
		clauses = append(clauses, c...)
	}
	return func(old os.FileMode, dir bool) os.FileMode {
		bits := uint32(unixMode(old)) //nolint:gosec // twelve bits
		for _, c := range clauses {
			bits = c.apply(bits, dir)
		}
		return fromUnix(bits)
	}, nil
}

// octal reads a mode in digits.
func octal(text string) (os.FileMode, bool) {
	bits, err := strconv.ParseUint(text, 8, 32)
	if err != nil || bits > 0o7777 {
		return 0, false
	}
	return fromUnix(uint32(bits)), true
}

// clause is one part of a symbolic mode.
type clause struct {
	who  uint32 // the permission and set-id bits that it is about
	does byte   // + - =
	bits uint32 // in all three places
	// maybe: X, executable where something already is.
	maybe bool
	// like are the places, as shifts, whose permissions are taken: g=u.
	like []int
}

// actions are what a clause can do.
const actions = "+-="

// parseClause reads one clause, which may do several things: "u+x-w".
func parseClause(text string) (all []clause, ok bool) {
	i := strings.IndexAny(text, actions)
	if i < 0 {
		return nil, false
	}
	who, ok := parseWho(text[:i])
	for rest := text[i:]; ok && rest != ""; {
		end := len(rest)
		if next := strings.IndexAny(rest[1:], actions); next >= 0 {
			end = next + 1
		}
		var c clause
		c, ok = parseAction(who, rest[:end])
		all, rest = append(all, c), rest[end:]
	}
	return all, ok
}

// parseWho reads whom a clause is about; nobody means all.
func parseWho(text string) (bits uint32, ok bool) {
	for _, who := range text {
		switch who {
		case 'u':
			bits |= 0o4700
		case 'g':
			bits |= 0o2070
		case 'o':
			bits |= 0o1007
		case 'a':
			bits |= 0o7777
		default:
			return 0, false
		}
	}
	if text == "" {
		bits = 0o7777
	}
	return bits, true
}

// parseAction reads one thing that a clause does: "+x".
func parseAction(who uint32, text string) (c clause, ok bool) {
	c.who, c.does = who, text[0]
	for _, what := range text[1:] {
		switch what {
		case 'r':
			c.bits |= 0o444
		case 'w':
			c.bits |= 0o222
		case 'x':
			c.bits |= 0o111
		case 'X':
			c.maybe = true
		case 's':
			c.bits |= 0o6000
		case 't':
			c.bits |= 0o1000
		case 'u':
			c.like = append(c.like, 6)
		case 'g':
			c.like = append(c.like, 3)
		case 'o':
			c.like = append(c.like, 0)
		default:
			return c, false
		}
	}
	return c, true
}

func (c clause) apply(old uint32, dir bool) uint32 {
	bits := c.bits
	if c.maybe && (dir || old&0o111 != 0) {
		bits |= 0o111
	}
	for _, place := range c.like {
		bits |= old >> place & 7 * 0o111
	}
	bits &= c.who
	switch c.does {
	case '+':
		return old | bits
	case '-':
		return old &^ bits
	}
	return old&^(c.who&0o777) | bits
}

// fromUnix is the reverse of unixMode.
func fromUnix(bits uint32) os.FileMode {
	mode := os.FileMode(bits & 0o777)
	for bit, flag := range map[uint32]os.FileMode{0o4000: os.ModeSetuid, 0o2000: os.ModeSetgid, 0o1000: os.ModeSticky} {
		if bits&bit != 0 {
			mode |= flag
		}
	}
	return mode
}
