package scheduler

import (
	"strconv"
	"testing"
)

// Equal keys are the same string, and a store of many different ones stays small.
func TestIntern(t *testing.T) {
	var i intern
	write := func(s string) func([]byte) []byte {
		return func(b []byte) []byte { return append(b, s...) }
	}
	for n := range 3 * maxInterned {
		s := strconv.Itoa(n)
		if got := i.of(write(s)); got != s {
			t.Fatalf("%q became %q", s, got)
		}
		if len(i.known) > maxInterned {
			t.Fatalf("%d strings are known, want %d at most", len(i.known), maxInterned)
		}
	}
}
