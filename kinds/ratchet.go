package kinds

import (
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Ratchet takes those faults of a changed object away that the old one has too,
// where the kind lets old faults stay: rules grow stricter, and what was stored
// before must still be changeable elsewhere. A path names a field and all below
// it, without indexes and keys ("spec.rules.host"); one that ends in "[]" names the
// elements of a list alone, and "..." stands for any fields between. Faults are the
// same when they say the same of the same value; where in a list it stands does not
// count. With words behind it ("spec.resources: multiple of") a path speaks only of
// faults that say them.
func Ratchet(now, before field.ErrorList, paths []string) field.ErrorList {
	return slices.DeleteFunc(now, func(fault *field.Error) bool {
		at := plainPath(fault.Field)
		if !slices.ContainsFunc(paths, func(path string) bool { return speaksOf(path, fault, at) }) {
			return false
		}
		return slices.ContainsFunc(before, func(old *field.Error) bool {
			return old.Type == fault.Type && old.Detail == fault.Detail && plainPath(old.Field) == at && Same(old.BadValue, fault.BadValue)
		})
	})
}

func speaksOf(path string, fault *field.Error, at string) bool {
	path, words, _ := strings.Cut(path, ": ")
	return covers(path, at, strings.HasSuffix(fault.Field, "]")) && strings.Contains(fault.Detail, words)
}

// covers says whether a path of Ratchet speaks of a field, which may be an element.
func covers(path, at string, element bool) bool {
	path, elements := strings.CutSuffix(path, "[]")
	if elements && !element {
		return false
	}
	if before, after, found := strings.Cut(path, "..."); found {
		return strings.HasPrefix(at, before+".") && strings.HasSuffix(at, "."+after)
	}
	return at == path || strings.HasPrefix(at, path+".")
}

// plainPath is a field's path without what stands in brackets.
func plainPath(path string) string {
	var b strings.Builder
	depth := 0
	for _, c := range path {
		switch {
		case c == '[':
			depth++
		case c == ']' && depth > 0:
			depth--
		case depth == 0:
			b.WriteRune(c)
		}
	}
	return b.String()
}

// Below puts paths under another one: a pod's under a template's.
func Below(prefix string, paths []string) []string {
	out := make([]string, 0, len(paths))
	for _, p := range paths {
		out = append(out, prefix+"."+p)
	}
	return out
}
