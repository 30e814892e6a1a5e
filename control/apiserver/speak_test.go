package apiserver

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/internal/speak"
)

// raw is an answer as it came.
func (w *world) raw(c *http.Client, path, accept string, headers ...string) (*http.Response, []byte) {
	w.t.Helper()
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.url+path, nil)
	must(w.t, err)
	r.Header.Set("Accept", accept)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.Do(r)
	must(w.t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	must(w.t, err)
	return res, body
}

// read decodes what was said in a media type.
func read(t *testing.T, media string, body []byte, into interface{ Unmarshal([]byte) error }) {
	t.Helper()
	switch media {
	case speak.JSON:
		must(t, json.Unmarshal(body, into))
	case speak.YAML:
		must(t, yaml.Unmarshal(body, into))
	case speak.CBOR:
		must(t, direct.Unmarshal(body, into))
	case speak.Protobuf:
		var u runtime.Unknown
		must(t, u.Unmarshal(body[len("k8s\x00"):]))
		must(t, into.Unmarshal(u.Raw))
	}
}

var spoken = []string{speak.JSON, speak.YAML, speak.Protobuf, speak.CBOR}

// Discovery says the same in every media type, as a whole with the same etag, and only
// in those.
func TestDiscoveryInEveryMediaType(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	w.registered(admin)
	documents := map[string]func() interface{ Unmarshal([]byte) error }{
		"/api":          func() interface{ Unmarshal([]byte) error } { return &metav1.APIVersions{} },
		"/apis":         func() interface{ Unmarshal([]byte) error } { return &metav1.APIGroupList{} },
		"/apis/apps":    func() interface{ Unmarshal([]byte) error } { return &metav1.APIGroup{} },
		"/apis/apps/v1": func() interface{ Unmarshal([]byte) error } { return &metav1.APIResourceList{} },
		"/api/v1":       func() interface{ Unmarshal([]byte) error } { return &metav1.APIResourceList{} },
	}
	const whole = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
	check := func(path, params string, empty func() interface{ Unmarshal([]byte) error }) {
		t.Helper()
		var first any
		for _, media := range spoken {
			res, body := w.raw(admin, path, media+params)
			kept := res.Header.Get("Vary") == "Accept" && res.Header.Get("Etag") != ""
			if res.StatusCode != http.StatusOK || res.Header.Get("Content-Type") != media+params || kept != (params != "") {
				t.Errorf("%s as %s: %d %v", path, media+params, res.StatusCode, res.Header)
				continue
			}
			got := empty()
			read(t, media, body, got)
			got.(runtime.Object).GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{})
			if first == nil {
				first = got
			} else if !equality.Semantic.DeepEqual(first, any(got)) {
				t.Errorf("%s in %s is other than in JSON:\n%+v", path, media, got)
			}
			if !kept { // the older form
				continue
			}
			again, rest := w.raw(admin, path, media+params, "If-None-Match", res.Header.Get("Etag"))
			if again.StatusCode != http.StatusNotModified || len(rest) != 0 {
				t.Errorf("%s as %s again: %d", path, media, again.StatusCode)
			}
		}
	}
	for path, empty := range documents {
		check(path, "", empty)
	}
	for _, path := range []string{"/api", "/apis"} {
		check(path, whole, func() interface{ Unmarshal([]byte) error } { return &apidiscoveryv2.APIGroupDiscoveryList{} })
	}
	for accept, want := range map[string]string{
		"text/html, */*":                               speak.JSON,
		speak.Protobuf + ";q=0.1, " + speak.YAML:       speak.YAML,
		speak.JSON + whole + ", " + speak.JSON:         speak.JSON, // there is no such form of one group
		speak.Protobuf + whole + ", " + speak.Protobuf: speak.Protobuf,
	} {
		if res, _ := w.raw(admin, "/apis/apps", accept); res.Header.Get("Content-Type") != want {
			t.Errorf("for %q: %s", accept, res.Header.Get("Content-Type"))
		}
	}
	for accept, told := range map[string]string{"text/html": "Available representations: ", speak.JSON + whole: "only the following media types are accepted: "} {
		if res, body := w.raw(admin, "/apis/apps", accept); res.StatusCode != http.StatusNotAcceptable || !strings.Contains(string(body), told+"application/json, application/yaml, application/vnd.kubernetes.protobuf") {
			t.Errorf("for %q: %d %s", accept, res.StatusCode, body)
		}
	}
}

// Whoever is refused before anything is looked up is told in the media type that was
// asked for; who asks for none that there is, in JSON.
func TestRefusalsInEveryMediaType(t *testing.T) {
	w := start(t)
	for _, media := range append(spoken, "text/html") {
		for name, one := range map[string]struct {
			client *http.Client
			path   string
			code   int
			header []string
		}{
			"nobody":       {w.as(""), "/api/v1/pods", http.StatusUnauthorized, nil},
			"may not":      {w.as("alice"), "/metrics", http.StatusForbidden, nil},
			"act as":       {w.as("alice"), "/api/v1/pods", http.StatusForbidden, []string{"Impersonate-User", "bob"}},
			"no pod":       {w.as("admin", "system:masters"), "/api/v1/namespaces/default/pods/none/log", http.StatusNotFound, nil},
			"nobody there": {w.as("admin", "system:masters"), "/api/v1/things", http.StatusNotFound, nil},
		} {
			res, body := w.raw(one.client, one.path, media, one.header...)
			want := media
			if media == "text/html" {
				want = speak.JSON
			}
			if res.StatusCode != one.code || res.Header.Get("Content-Type") != want {
				if name == "no pod" && media == "text/html" && res.StatusCode == http.StatusNotAcceptable {
					continue
				}
				t.Errorf("%s in %s: %d %s", name, media, res.StatusCode, res.Header.Get("Content-Type"))
				continue
			}
			var status metav1.Status
			read(t, want, body, &status)
			if int(status.Code) != one.code || status.Message == "" {
				t.Errorf("%s in %s: %+v", name, media, status)
			}
		}
	}
}
