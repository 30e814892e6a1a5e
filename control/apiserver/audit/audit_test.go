package audit

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/internal/identity"
)

var quiet = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Full files are kept under numbers, the newest first, and the oldest goes.
func TestFileRotates(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	f, err := OpenFile(path, quiet)
	must(t, err)
	f.max = 1000
	const lines = 60
	for i := range lines {
		f.Write(fmt.Appendf(nil, "id-%d.%s", i, strings.Repeat("x", 120)))
	}
	must(t, f.Close())
	files, err := filepath.Glob(path + "*")
	must(t, err)
	if len(files) != MaxFiles {
		t.Errorf("files kept: %q", files)
	}
	next := lines
	for i := range files {
		name := path
		if i > 0 {
			name = fmt.Sprintf("%s.%d", path, i)
		}
		raw, err := os.ReadFile(name)
		must(t, err)
		n := strings.Count(string(raw), "\n")
		if len(raw) > 1000 || n == 0 || !strings.Contains(string(raw), fmt.Sprintf("id-%d.", next-1)) || !strings.Contains(string(raw), fmt.Sprintf("id-%d.", next-n)) {
			t.Errorf("%s has %d bytes, does not end with line %d: %s", name, len(raw), next-1, raw)
		}
		next -= n
		info, err := os.Stat(name)
		must(t, err)
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %04o", name, info.Mode().Perm())
		}
	}
}

const policy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- {level: None, users: ["system:kube-proxy"], verbs: [watch]}
- {level: None, nonResourceURLs: ["/healthz*", /version]}
- {level: Metadata, resources: [{group: "", resources: [secrets, "*/token"]}]}
- {level: None, resources: [{group: "", resources: [configmaps], resourceNames: [leader]}]}
- {level: Request, namespaces: [kube-system], omitStages: [ResponseStarted]}
- {level: RequestResponse, userGroups: [devs], resources: [{group: apps, resources: ["deployments/*"]}], omitManagedFields: true}
- {level: Metadata, resources: [{group: "*"}]}
`

func load(t *testing.T, text string) (*Policy, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "policy.yaml")
	must(t, os.WriteFile(path, []byte(text), 0o600))
	return LoadPolicy(path)
}

func TestPolicy(t *testing.T) {
	p, err := load(t, policy)
	must(t, err)
	o := func(group, resource, sub, ns, name string) *Object {
		return &Object{APIGroup: group, Resource: resource, Subresource: sub, Namespace: ns, Name: name}
	}
	for _, c := range []struct {
		user, verb string
		object     *Object
		path       string
		want       Level
	}{
		{"system:kube-proxy", "watch", o("", "services", "", "", ""), "", None},
		{"system:kube-proxy", "list", o("", "services", "", "", ""), "", Metadata},
		{"a", "get", nil, "/healthz/etcd", None},
		{"a", "get", nil, "/version", None},
		{"a", "get", nil, "/version/x", None}, // no rule fits
		{"a", "get", o("", "secrets", "", "kube-system", "s"), "", Metadata},
		{"a", "create", o("", "serviceaccounts", "token", "kube-system", "s"), "", Metadata},
		{"a", "get", o("", "configmaps", "", "x", "leader"), "", None},
		{"a", "get", o("", "configmaps", "", "kube-system", "other"), "", Request},
		{"dev", "update", o("apps", "deployments", "scale", "x", "d"), "", RequestResponse},
		{"dev", "update", o("apps", "deployments", "", "x", "d"), "", RequestResponse},
		{"a", "update", o("apps", "deployments", "scale", "x", "d"), "", Metadata},
	} {
		who := identity.Identity{Name: c.user}
		if c.user == "dev" {
			who.Groups = []string{"devs"}
		}
		if got := p.Decide(&Asked{User: who, Verb: c.verb, Object: c.object, Path: c.path}); got.Level != c.want {
			t.Errorf("%+v: %s", c, got.Level)
		}
	}
	for text, want := range map[string]string{
		"rules: [{level: Some}]": "Unsupported value",
		"rules: [{level: None, nonResourceURLs: [/x], namespaces: [a]}]": "rules cannot apply to both regular resources and non-resource URLs",
		"rules: [{level: None, nonResourceURLs: [x]}]":                   "must begin with a '/' character",
		"rules: [{level: None, nonResourceURLs: [/x*y]}]":                "must be the final character of the rule",
		"rules: [{level: None, resources: [{group: a/v1}]}]":             "group must not contain a version",
		"rules: [{level: None, resources: [{resourceNames: [x]}]}]":      "using resourceNames requires at least one resource",
		"rules: [{level: None, omitStages: [Never]}]":                    "allowed stages are RequestReceived,ResponseStarted,ResponseComplete,Panic",
		"rules: []": "0 rules",
		"rule: []":  "unknown field",
	} {
		if _, err := load(t, "apiVersion: audit.k8s.io/v1\nkind: Policy\n"+text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// memory is a sink that keeps events.
type memory struct {
	mu     sync.Mutex
	events []Event
}

func (m *memory) Write(raw []byte) {
	var e Event
	if err := json.Unmarshal(raw, &e); err != nil {
		panic(err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.events = append(m.events, e)
}

func (m *memory) Close() error { return nil }

// What is written at each level, stage by stage.
func TestTrail(t *testing.T) {
	for _, c := range []struct {
		level Level
		long  bool
		want  string
	}{
		{None, false, ""},
		{Metadata, false, "RequestReceived 0 in= out=; ResponseComplete 201 in= out=; "},
		{Request, false, `RequestReceived 0 in= out=; ResponseComplete 201 in={"kind":"A"} out=; `},
		{RequestResponse, false, `RequestReceived 0 in= out=; ResponseComplete 201 in={"kind":"A"} out={"kind":"B","metadata":{}}; `},
		{RequestResponse, true, "RequestReceived 0 in= out=; ResponseStarted 201 in= out=; ResponseComplete 201 in= out=; "},
	} {
		m := &memory{}
		trail := &Trail{Policy: &Policy{OmitManagedFields: true, Rules: []Rule{{Level: c.level}}}, Sinks: []Sink{m}, Now: time.Now, Log: quiet}
		h := trail.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			Annotate(r.Context(), "why", "because")
			Annotate(r.Context(), "why", "not")
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"kind":"B","metadata":{"managedFields":[{}]}}`)
		}), func(*http.Request) (*Asked, Event, bool) { return &Asked{}, Event{Verb: "create"}, c.long })
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader("kind: A"))
		r.Header.Set("Content-Type", "application/yaml")
		h.ServeHTTP(httptest.NewRecorder(), r)
		got := ""
		for _, e := range m.events {
			code := int32(0)
			if e.ResponseStatus != nil {
				code = e.ResponseStatus.Code
			}
			got += fmt.Sprintf("%s %d in=%s out=%s; ", e.Stage, code, e.RequestObject, e.ResponseObject)
			if e.Stage == ResponseComplete && e.Annotations["why"] != "because" {
				t.Errorf("annotations %v", e.Annotations)
			}
		}
		if got != c.want {
			t.Errorf("%s, long %v:\n%s\nwant\n%s", c.level, c.long, got, c.want)
		}
	}
}

func TestPanicIsWritten(t *testing.T) {
	m := &memory{}
	trail := &Trail{Sinks: []Sink{m}, Now: time.Now, Log: quiet}
	h := trail.Handler(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("on purpose") }),
		func(*http.Request) (*Asked, Event, bool) { return &Asked{}, Event{}, false })
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic is swallowed")
			}
		}()
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}()
	if len(m.events) != 1 || m.events[0].Stage != Panicked || m.events[0].ResponseStatus.Code != 500 {
		t.Errorf("events %+v", m.events)
	}
}

// roundTrip is a webhook without a network, so that time can be false.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// Events are sent in batches, again when the other side fails, and all of them.
func TestWebhook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var sizes []int
		failures := 2
		w := newWebhook("http://audit", &http.Client{Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			var list eventList
			if err := json.NewDecoder(r.Body).Decode(&list); err != nil || list.Kind != "EventList" {
				t.Errorf("body: %v", err)
			}
			code := http.StatusOK
			if failures > 0 {
				failures--
				code = http.StatusServiceUnavailable
			} else {
				sizes = append(sizes, len(list.Items))
			}
			return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: io.NopCloser(strings.NewReader("")), Request: r}, nil
		})}, quiet)
		for range 1000 {
			w.Write([]byte(`{}`))
		}
		time.Sleep(5 * time.Minute)
		w.Write([]byte(`{}`))
		must(t, w.Close())
		total := 0
		for _, n := range sizes {
			total += n
			if n > webhookBatch {
				t.Errorf("a batch of %d", n)
			}
		}
		if total != 1001 || len(sizes) != 4 {
			t.Errorf("batches %v", sizes)
		}
	})
}
