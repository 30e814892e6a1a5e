package apiserver

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// The record of since when tokens are tracked is there, and is mended.
func TestTokensAreTracked(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	const path = "/api/v1/namespaces/kube-system/configmaps/" + trackingName
	since := func() string {
		var c corev1.ConfigMap
		if code, _ := w.do(admin, "GET", path, nil, &c); code != 200 {
			return ""
		}
		return c.Data["since"]
	}
	today := func() bool { return since() == time.Now().UTC().Format(time.DateOnly) }
	eventually(t, "the record is made", today)
	for _, wrong := range []string{`{"data":{"since":"long ago"}}`, `{"data":{"since":null}}`} {
		code, text := w.patch(admin, path, wrong)
		if code != 200 {
			t.Fatalf("patch: %d %s", code, text)
		}
		eventually(t, "the record is mended", today)
	}
	if code, text := w.patch(admin, path, `{"data":{"since":"2025-01-02"}}`); code != 200 {
		t.Fatalf("patch: %d %s", code, text)
	}
	if code, text := w.patch(admin, path, `{"data":{"other":"x"}}`); code != 200 || since() != "2025-01-02" {
		t.Errorf("a good date is not left alone: %q %d %s", since(), code, text)
	}
}

// patch sends a merge patch.
func (w *world) patch(c *http.Client, path, body string) (int, string) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPatch, w.url+path, strings.NewReader(body))
	must(w.t, err)
	r.Header.Set("Content-Type", "application/merge-patch+json")
	answer, err := c.Do(r)
	must(w.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(w.t, err)
	return answer.StatusCode, string(text)
}
