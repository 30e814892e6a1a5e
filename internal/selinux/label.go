package selinux

import (
	"fmt"
	"slices"
	"strings"
)

// Label is what SELinux knows a process or a file by. Level is empty where the policy
// has no levels.
type Label struct{ User, Role, Type, Level string }

// maxLabel bounds a label: the kernel takes no more than a page.
const maxLabel = 4095

// Parse reads user:role:type, or user:role:type:level, whose level may have colons.
func Parse(text string) (Label, error) {
	f := strings.SplitN(text, ":", 4)
	if len(f) < 3 || len(text) > maxLabel || slices.Contains(f, "") {
		return Label{}, fmt.Errorf("SELinux label %q: want user:role:type:level", text)
	}
	l := Label{User: f[0], Role: f[1], Type: f[2]}
	if len(f) == 4 {
		l.Level = f[3]
	}
	return l, l.Valid()
}

// String is the label as the kernel has it; that of none is empty.
func (l Label) String() string {
	if l == (Label{}) {
		return ""
	}
	text := l.User + ":" + l.Role + ":" + l.Type
	if l.Level != "" {
		text += ":" + l.Level
	}
	return text
}

// With is the label with the parts of o that are there in place of its own.
func (l Label) With(o Label) Label {
	for _, p := range []struct{ to, from *string }{{&l.User, &o.User}, {&l.Role, &o.Role}, {&l.Type, &o.Type}, {&l.Level, &o.Level}} {
		if *p.from != "" {
			*p.to = *p.from
		}
	}
	return l
}

// Valid says what is wrong with the form of a label's parts: whether the policy knows
// them is for the kernel to say. Empty parts are left to whoever fills them in.
func (l Label) Valid() error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-"
	for _, p := range []struct{ what, text, allowed string }{
		{"user", l.User, letters}, {"role", l.Role, letters}, {"type", l.Type, letters}, {"level", l.Level, letters + ":,"},
	} {
		if strings.Trim(p.text, p.allowed) != "" {
			return fmt.Errorf("SELinux %s %q: want letters, digits and %s", p.what, p.text, strings.TrimPrefix(p.allowed, letters[:62]))
		}
	}
	return nil
}

// categories is how many there are in policies for one machine (MCS).
const categories = 1024

// Pair is a level of two categories, the finest distance that policies for one machine
// (MCS) know: who is of one pair may not touch what is of another. The random number
// comes from n, as rand.IntN gives it.
func Pair(n func(limit int) int) string {
	a, b := n(categories), n(categories-1)
	if b >= a {
		b++
	}
	return fmt.Sprintf("s0:c%d,c%d", min(a, b), max(a, b))
}
