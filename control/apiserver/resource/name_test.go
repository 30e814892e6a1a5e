package resource

import (
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/api/validation"
)

// What is seen at once to be a subdomain is one, and every subdomain is seen at once:
// all words of up to six letters of an alphabet that has one of each sort, and the
// longest.
func TestPlainSubdomain(t *testing.T) {
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
	words = append(words, strings.Repeat("a", 253), strings.Repeat("a", 254), "ä", "a\n")
	good := 0
	for _, w := range words {
		want := len(validation.NameIsDNSSubdomain(w, false)) == 0
		if plainSubdomain(w) != want {
			t.Errorf("%q: %v, want %v", w, !want, want)
		}
		if want {
			good++
		}
	}
	if good < 500 {
		t.Errorf("%d of %d words are subdomains: this proves little", good, len(words))
	}
}
