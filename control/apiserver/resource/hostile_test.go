package resource_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/internal/identity"
)

// hostile is a request that is meant to hurt, and the code that it must get.
type hostile struct {
	about, method, path, media, body string
	code                             int
}

const (
	oneMap    = "/api/v1/namespaces/a/configmaps/one"
	allMaps   = "/api/v1/namespaces/a/configmaps"
	depth     = 100_000
	patience  = time.Second
	maxGrowth = 256 << 20
)

func attacks() []hostile {
	deepJSON := strings.Repeat(`{"a":`, depth) + "1" + strings.Repeat("}", depth)
	deepList := strings.Repeat("[", depth) + strings.Repeat("]", depth)
	operations := "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"ConfigMap"},`, 10_000) + `{"op":"test","path":"/kind","value":"ConfigMap"}]`
	doubling := `[{"op":"add","path":"/data","value":{"a":"` + strings.Repeat("x", 1000) + `"}}` +
		strings.Repeat(`,{"op":"copy","from":"/data","path":"/data/b"},{"op":"copy","from":"/data","path":"/data/c"}`, 40) + "]"
	merge, jsonPatch, strategic, apply := "application/merge-patch+json", "application/json-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml"
	return []hostile{
		{"an alias bomb", "POST", allMaps, "application/yaml", aliasBomb(), 400},
		{"an alias bomb to apply", "PATCH", oneMap + "?fieldManager=m", apply, aliasBomb(), 400},
		{"deep JSON", "POST", allMaps, "application/json", deepJSON, 400},
		{"deep YAML", "POST", allMaps, "application/yaml", deepList, 400},
		{"deep flow maps in YAML", "POST", allMaps, "application/yaml", deepJSON, 400},
		{"a deep merge patch", "PATCH", oneMap, merge, deepJSON, 400},
		{"a deep merge patch that nobody checks", "PATCH", oneMap + "?fieldValidation=Ignore", merge, deepJSON, 400},
		{"a deep strategic patch", "PATCH", oneMap, strategic, deepJSON, 400},
		{"a deep value in a JSON patch", "PATCH", oneMap, jsonPatch, `[{"op":"add","path":"/data","value":` + deepJSON + `}]`, 400},
		{"a deep configuration", "PATCH", oneMap + "?fieldManager=m", apply, deepList, 400},
		{"duplicate keys", "POST", allMaps + "?fieldValidation=Strict", "application/json", `{"metadata":{"name":"x","name":"y"}}`, 400},
		{"a name that is no text", "POST", allMaps, "application/json", "{\"metadata\":{\"name\":\"\xff\xfe\"}}", 422},
		{"too many operations", "PATCH", oneMap, jsonPatch, operations, 413},
		{"copies of copies", "PATCH", oneMap, jsonPatch, doubling, 422},
		{"a patch that is no patch", "PATCH", oneMap, jsonPatch, `{"op":"add"}`, 400},
		{"a patch of nothing", "PATCH", oneMap, merge, "", 400},
		{"a test that fails", "PATCH", oneMap, jsonPatch, `[{"op":"test","path":"/kind","value":"Pod"}]`, 422},
		{"too much", "POST", allMaps, "application/json", strings.Repeat(" ", 3<<20+1), 413},
		{"lengths that lie", "POST", allMaps, "application/vnd.kubernetes.protobuf", "k8s\x00\x0a\xff\xff\xff\xff\x0f", 400},
		{"no envelope", "POST", allMaps, "application/vnd.kubernetes.protobuf", "\x0a\x01", 400},
		{"an unknown form", "POST", allMaps, "application/bson", "\xa0", 415},
		{"an unknown kind of patch", "PATCH", oneMap, "application/apply-patch+bson", "\xa0", 415},
		{"a continue token from elsewhere", "GET", allMaps + "?continue=" + url.QueryEscape("eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiIuLi9wb2RzIn0"), "", "", 400},
		{"a selector that is none", "GET", allMaps + "?labelSelector=" + url.QueryEscape("a in (("), "", "", 400},
		{"a long selector", "GET", allMaps + "?labelSelector=" + strings.Repeat("a,", 20_000), "", "", 400},
		{"a field that is none", "GET", allMaps + "?fieldSelector=" + url.QueryEscape("spec.x=="), "", "", 400},
		{"a revision that is none", "GET", allMaps + "?resourceVersion=x", "", "", 400},
		{"up and out", "GET", "/api/v1/namespaces/../configmaps/one", "", "", 400},
		{"an escaped slash", "GET", "/api/v1/namespaces/a/configmaps/..%2fone", "", "", 404},
		{"a name of dots", "GET", "/api/v1/namespaces/a/configmaps/..", "", "", 400},
		{"a NUL", "GET", "/api/v1/namespaces/a/configmaps/one%00", "", "", 404},
		{"a percent", "GET", "/api/v1/namespaces/a/configmaps/o%25ne", "", "", 400},
		{"a method nobody knows", "BREW", oneMap, "", "", 405},
	}
}

// aliasBomb would be ten million strings.
func aliasBomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n")
	for i := range 7 {
		fmt.Fprintf(&b, "a%d: &a%d [%s*a%d]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d,", i), 9), i)
	}
	return b.String()
}

// Whatever comes in, the answer is the client's fault, soon, and costs no more
// than a moment and a few times the body's size; nothing is left behind.
func TestHostileRequests(t *testing.T) {
	f := serve(t, nil)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.ServeHTTP(w, r.WithContext(identity.With(r.Context(), alice)))
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	if code, _ := attack(t, server, hostile{method: "POST", path: allMaps, media: "application/json", body: `{"metadata":{"name":"one"}}`}); code != 201 {
		t.Fatalf("create: %d", code)
	}
	before := runtime.NumGoroutine()
	for _, h := range attacks() {
		t.Run(h.about, func(t *testing.T) {
			var was, is runtime.MemStats
			runtime.ReadMemStats(&was)
			begin := time.Now()
			code, text := attack(t, server, h)
			if took := time.Since(begin); took > patience {
				t.Logf("took %v", took) // a busy machine is no fault
			}
			runtime.ReadMemStats(&is)
			if code != h.code {
				t.Errorf("got %d, want %d: %.300s", code, h.code, text)
			}
			if grown := is.TotalAlloc - was.TotalAlloc; grown > maxGrowth {
				t.Errorf("allocated %d MiB", grown>>20)
			}
		})
	}
	server.Client().CloseIdleConnections()
	bound := before + len(attacks())/2 // a leak is one for each attack; the rest comes and goes
	for deadline := time.Now().Add(time.Minute); runtime.NumGoroutine() > bound && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if after := runtime.NumGoroutine(); after > bound {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}

func attack(t *testing.T, server *httptest.Server, h hostile) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), h.method, server.URL+h.path, bytes.NewReader([]byte(h.body)))
	if err != nil {
		t.Fatal(err)
	}
	if h.media != "" {
		r.Header.Set("Content-Type", h.media)
	}
	answer, err := server.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4<<10))
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, string(text)
}
