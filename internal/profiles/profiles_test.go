package profiles

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestHandler(t *testing.T) {
	for path, want := range map[string]string{
		"":                    "goroutine",
		"goroutine?debug=1":   "TestHandler",
		"heap?debug=1":        "heap profile",
		"cmdline":             "profiles.test",
		"symbol":              "num_symbols",
		"nonesuch":            "Unknown profile",
		"trace?seconds=0.001": "trace",
	} {
		w := httptest.NewRecorder()
		Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, Path+path, nil))
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%q: %d without %q", path, w.Code, want)
		}
	}
}
