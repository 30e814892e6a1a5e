package apiserver

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// Who may see metrics may see what the server is and how it was started; a single check
// of its health is for them, too, and the health alone for everybody.
func TestPages(t *testing.T) {
	w := start(t)
	admin, alice := w.as("admin", "system:masters"), w.as("alice")
	w.live(admin)
	res, body := w.raw(admin, "/statusz", "text/plain")
	if !strings.HasPrefix(string(body), "\napiserver statusz\nWarning: ") || !strings.Contains(string(body), "\nPaths: /flagz /healthz ") ||
		res.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%v %s", res.Header, body)
	}
	res, body = w.raw(admin, "/flagz", "application/json;g=config.k8s.io;as=Flagz;v=v1alpha1")
	var flags struct {
		Kind, APIVersion string
		Metadata         struct{ Name string }
	}
	must(t, json.Unmarshal(body, &flags))
	if flags.Kind != "Flagz" || flags.APIVersion != "config.k8s.io/v1alpha1" || flags.Metadata.Name != "apiserver" || !strings.Contains(res.Header.Get("Warning"), "flagz endpoint is deprecated") {
		t.Errorf("%v %s", res.Header, body)
	}
	for path, want := range map[string]int{"/statusz": 403, "/flagz": 403, "/livez/ping": 403, "/healthz/etcd": 403, "/livez": 200} {
		if res, body := w.raw(alice, path, ""); res.StatusCode != want || want == 403 && res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s as alice: %d %v %s", path, res.StatusCode, res.Header, body)
		}
	}
	var root struct{ Paths []string }
	_, body = w.raw(admin, "/", "")
	must(t, json.Unmarshal(body, &root))
	for _, path := range []string{"/api", "/api/v1", "/apis/apps", "/apis/apps/v1", "/livez/ping", "/metrics/slis", "/openid/v1/jwks", "/version"} {
		if !slices.Contains(root.Paths, path) {
			t.Errorf("%q is not listed in %v", path, root.Paths)
		}
	}
	if !slices.IsSorted(root.Paths) {
		t.Errorf("%v is not sorted", root.Paths)
	}
}

// An answer says that it differs by encoding only when it is encoded, and an error comes
// in the type that is asked for.
func TestHeaders(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	res, body := w.raw(admin, "/api/v1/namespaces/default/configmaps/none", "application/json")
	if res.StatusCode != http.StatusNotFound || res.Header.Get("Vary") != "" || strings.Contains(string(body), "\n ") {
		t.Errorf("%v %s", res.Header, body)
	}
	for path, want := range map[string]string{
		"/version/x": `"reason":"NotFound"`, "/apis/nothing.example.com/v1/x": "404 page not found", "/apis/apps/v1/x": `"reason":"NotFound"`, "/apis/apps/v9": `"reason":"NotFound"`,
	} {
		if res, body := w.raw(admin, path, "application/json"); res.StatusCode != http.StatusNotFound || !strings.Contains(string(body), want) {
			t.Errorf("%s: %d %s", path, res.StatusCode, body)
		}
	}
	if code, text := w.do(admin, "POST", "/version", nil, nil); code != http.StatusMethodNotAllowed {
		t.Errorf("POST of the version: %d %s", code, text)
	}
	res, body = w.raw(admin, "/apis/apps", "application/json", "User-Agent", "curl/8")
	if !strings.Contains(string(body), "\n  \"kind\": \"APIGroup\"") || res.Header.Get("Etag") != "" {
		t.Errorf("%v %s", res.Header, body)
	}
	res, body = w.raw(admin, "/apis/nothing.example.com/v1/x", "image/png")
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("%v %s", res.Header, body)
	}
	res, body = w.raw(admin, "/apis/apps/v1", "image/png")
	if res.StatusCode != http.StatusNotAcceptable || !strings.Contains(string(body), "406: Not Acceptable\\n\\nAvailable representations: application/json") || !strings.HasSuffix(string(body), "}") {
		t.Errorf("%d %s", res.StatusCode, body)
	}
}
