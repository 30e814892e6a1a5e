package build

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sampan-dev/sampan/node/image"
)

// What is fetched from outside ends: it is refused when it isn't there, and when it is longer
// than it may be.
func TestDownloadBounds(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/there" {
			http.NotFound(w, r)
			return
		}
		_, _ = io.WriteString(w, "0123456789")
	}))
	defer server.Close()
	body, err := Download(t.Context(), server.URL+"/there")
	if err != nil {
		t.Fatal(err)
	}
	if raw, err := io.ReadAll(body); err != nil || string(raw) != "0123456789" {
		t.Errorf("%q, %v", raw, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Download(t.Context(), server.URL+"/nowhere"); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("what is not there: %v", err)
	}
	for limit, want := range map[int64]error{10: nil, 9: image.ErrInvalid} {
		b := &bounded{body: io.NopCloser(strings.NewReader("0123456789")), left: limit, ctx: t.Context(), cancel: func() {}}
		if raw, err := io.ReadAll(b); !errors.Is(err, want) || int64(len(raw)) != limit {
			t.Errorf("at most %d: %q, %v", limit, raw, err)
		}
	}
}
