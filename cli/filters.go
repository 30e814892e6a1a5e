package cli

import "slices"

// filters are what several --filter come to, by the filters' names.
type filters[T any] map[string][]func(T) bool

// fit says whether of each name any filter lets v through.
func (f filters[T]) fit(v T) bool {
	for _, any := range f {
		if !slices.ContainsFunc(any, func(fits func(T) bool) bool { return fits(v) }) {
			return false
		}
	}
	return true
}
