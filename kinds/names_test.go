package kinds

import (
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Names are judged as upstream judges them, and every good one is seen at once: all words
// of up to six letters of an alphabet that has one of each sort, and the longest.
func TestNames(t *testing.T) {
	const alphabet = "a0-.A"
	words, from := []string{""}, 0
	for range 6 {
		to := len(words)
		for _, w := range words[from:to] {
			for _, c := range alphabet {
				words = append(words, w+string(c))
			}
		}
		from = to
	}
	for _, length := range []int{63, 64, 253, 254} {
		words = append(words, strings.Repeat("a", length))
	}
	good := 0
	for _, w := range append(words, "ä", "a\n") {
		if want, got := validation.IsDNS1123Label(w), DNSLabel(w); !slices.Equal(got, want) {
			t.Errorf("label %q: %q, want %q", w, got, want)
		}
		want := validation.IsDNS1123Subdomain(w)
		if got := DNSSubdomain(w); !slices.Equal(got, want) {
			t.Errorf("subdomain %q: %q, want %q", w, got, want)
		}
		if plainSubdomain(w) != (len(want) == 0) {
			t.Errorf("%q is not seen for what it is", w)
		}
		if len(want) == 0 {
			good++
		}
	}
	if good < 500 {
		t.Errorf("%d of %d words are subdomains: this proves little", good, len(words))
	}
}
