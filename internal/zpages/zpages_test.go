package zpages

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestFormOfPages(t *testing.T) {
	const object = "application/json;g=config.k8s.io;as=Statusz;v="
	for accept, want := range map[string]form{
		"":                           {"text/plain", ""},
		"*/*":                        {"text/plain", ""},
		"text/*":                     {"text/plain", ""},
		"text/html,text/plain;q=0.5": {"text/plain", ""},
		object + "v1beta1":           {"application/json", "v1beta1"},
		object + "v1alpha1":          {"application/json", "v1alpha1"},
		object + "v1,text/plain":     {"text/plain", ""},
		object + "v1beta1;q=0.1,*/*": {"text/plain", ""},
		"application/*;g=config.k8s.io;as=Statusz;v=v1beta1":    {"application/json", "v1beta1"},
		"application/yaml;g=config.k8s.io;as=Statusz;v=v1beta1": {"application/yaml", "v1beta1"},
		"application/json": {},
		"application/json;g=config.k8s.io;as=Flagz;v=v1beta1": {},
		"application/vnd.kubernetes.protobuf":                 {},
	} {
		got, ok := wanted(accept, "Statusz")
		if got != want || ok != (want != form{}) {
			t.Errorf("%q: %v %v, want %v", accept, got, ok, want)
		}
	}
}

// Up for an hour, a minute and a second; what is ours of the version is not shown.
func TestPages(t *testing.T) {
	began := time.Date(2026, 5, 4, 3, 2, 1, 0, time.UTC)
	c := Component{Name: "kubelet", Version: "v1.37.1+ours", Began: began, Now: func() time.Time { return began.Add(time.Hour + 61*time.Second) },
		Paths: []string{"/flagz", "/statusz"}, Flags: map[string]string{"b": "2", "a": Classified}}
	for _, ask := range []struct {
		path, accept string
		want         []string
	}{
		{"/statusz", "", []string{"\nkubelet statusz\nWarning: ", "\nStarted: Mon May  4 03:02:01 UTC 2026\nUp: 1 hr 01 min 01 sec\n", "\nBinary version: 1.37.1\nEmulation version: 1.37\nPaths: /flagz /statusz\n"}},
		{"/statusz", "application/json;g=config.k8s.io;v=v1beta1;as=Statusz", []string{`"kind":"Statusz","apiVersion":"config.k8s.io/v1beta1","metadata":{"name":"kubelet"}`, `"uptimeSeconds":3661,`}},
		{"/flagz", "text/plain", []string{"\nkubelet flagz\nWarning: ", ".\na: CLASSIFIED\nb: 2\n"}},
		{"/flagz", "application/yaml;g=config.k8s.io;v=v1alpha1;as=Flagz", []string{"apiVersion: config.k8s.io/v1alpha1\nflags:\n  a: CLASSIFIED\n"}},
		{"/flagz", "image/png", []string{"only the following media types are accepted: application/json, application/yaml, text/plain"}},
	} {
		r, w := httptest.NewRequest(http.MethodGet, ask.path, nil), httptest.NewRecorder()
		r.Header.Set("Accept", ask.accept)
		h := c.Statusz()
		if ask.path == "/flagz" {
			h = c.Flagz()
		}
		h.ServeHTTP(w, r)
		for _, want := range ask.want {
			if !strings.Contains(w.Body.String(), want) {
				t.Errorf("%s as %q: no %q in %s", ask.path, ask.accept, want, w.Body)
			}
		}
		if old := strings.Contains(ask.accept, "v1alpha1"); old != (w.Header().Get("Warning") != "") {
			t.Errorf("%s as %q: warning %q", ask.path, ask.accept, w.Header().Get("Warning"))
		}
	}
}
