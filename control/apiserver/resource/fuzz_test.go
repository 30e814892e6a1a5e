package resource

import (
	"encoding/base64"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A continue token comes from outside: whatever it says, a list begins inside
// its collection or not at all.
func FuzzToken(f *testing.F) {
	for _, seed := range []string{
		`{"v":"meta.k8s.io/v1","rv":4,"start":"a/two\u0000"}`,
		`{"v":"meta.k8s.io/v1","rv":-1,"start":"../pods/x"}`,
		`{"v":"meta.k8s.io/v1","rv":0,"start":"/"}`,
		`{`,
	} {
		f.Add(base64.RawURLEncoding.EncodeToString([]byte(seed)))
	}
	f.Fuzz(func(t *testing.T, text string) {
		if text == "" {
			return
		}
		at, err := readToken(&metav1.ListOptions{Continue: text})
		if err != nil {
			return
		}
		if strings.HasPrefix(at.from, "/") || at.from == ".." || strings.HasPrefix(at.from, "../") || strings.Contains(at.from, "/../") {
			t.Errorf("token %q begins at %q", text, at.from)
		}
		if at.exact && at.revision <= 0 {
			t.Errorf("token %q asks for revision %d exactly", text, at.revision)
		}
	})
}

// A path names a resource of a version, or nothing.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{
		"/api/v1/pods", "/api/v1/namespaces/a/pods/p/log", "/api/v1/namespaces/a/finalize",
		"/apis/apps/v1/watch/deployments", "/apis/apps/v1", "//api//v1//", "/api/v1/namespaces//pods/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, ok := parsePath(path)
		if !ok {
			return
		}
		for _, part := range []string{r.target.Resource.Resource, r.target.Name, r.target.Namespace, r.target.Subresource} {
			if strings.Contains(part, "/") {
				t.Errorf("path %q has the part %q", path, part)
			}
		}
		if r.target.Name == "" && r.target.Subresource != "" && !strings.Contains(path, "//") {
			t.Errorf("path %q names the subresource %q of nothing", path, r.target.Subresource)
		}
	})
}

func FuzzAccept(f *testing.F) {
	f.Add("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;q=0.5,*/*")
	f.Add(strings.Repeat(",", 1000))
	f.Fuzz(func(t *testing.T, header string) {
		all := clauses(header)
		if len(all) > maxClauses {
			t.Errorf("%d clauses", len(all))
		}
		for _, c := range all {
			if form, ok := c.form(); ok && form.shape == asTable && form.media == mediaProtobuf {
				t.Errorf("%q asks for a table in protobuf", header)
			}
		}
	})
}
