package apiserver

import (
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/target"
)

// Dashboards find what they look for, and clients make no series.
func TestMetrics(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	w.do(admin, "GET", "/api/v1/namespaces", nil, nil)
	w.do(admin, "GET", "/api/v1/namespaces/default/pods/none", nil, nil)
	w.do(admin, "GET", "/api/v1/namespaces/default/made-up/none", nil, nil)
	_, text := w.do(admin, "GET", "/metrics", nil, nil)
	for _, want := range []string{
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="namespaces",scope="cluster",subresource="",verb="LIST",version="v1"}`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="namespaces"`,
		`apiserver_response_sizes_count{component="apiserver",group="",resource="namespaces"`,
		`apiserver_current_inflight_requests{request_kind="readOnly"}`, `apiserver_resource_objects{group="",resource="namespaces"} 4`,
		`process_cpu_seconds_total`, `go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if strings.Contains(text, "made-up") {
		t.Error("a client has made a series")
	}
}

func TestHealthPages(t *testing.T) {
	w := start(t)
	nobody := w.as("")
	for path, want := range map[string]string{
		"/livez":                      "ok",
		"/livez?verbose":              "[+]ping ok\n[+]etcd ok\nlivez check passed\n",
		"/livez?verbose&exclude=etcd": "[+]ping ok\n[+]etcd excluded: ok\nlivez check passed\n",
		"/livez?verbose&exclude=x":    "[+]ping ok\n[+]etcd ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nlivez check passed\n",
		"/readyz/etcd":                "ok",
		"/readyz/shutdown":            "ok",
		"/healthz/poststarthook/rbac/bootstrap-roles": "ok",
	} {
		if code, text := w.do(nobody, "GET", path, nil, nil); code != 200 || text != want {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	if code, _ := w.do(w.as("admin", "system:masters"), "GET", "/livez/unknown", nil, nil); code != 404 {
		t.Errorf("an unknown check: %d", code)
	}
}

// Counting must stay in the noise of a request.
func BenchmarkCount(b *testing.B) {
	m := newMetrics()
	a := resource.Asked{Verb: "get", Resource: true, Target: target.Of(schema.GroupVersionResource{Version: "v1", Resource: "pods"}, "default").Object("x")}
	w := &measuring{code: http.StatusOK}
	b.ReportAllocs()
	for b.Loop() {
		k := keyOf(a, "")
		leave := m.enter(a, k)
		one := m.count(k, w.code)
		one.seconds.Observe(0.001)
		one.sizes.Observe(100)
		leave()
	}
}
