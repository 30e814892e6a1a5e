package apiserver

import (
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// Dashboards find what they look for, and clients make no series.
func TestMetrics(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	w.live(admin)
	w.do(admin, "GET", "/api/v1/namespaces", nil, nil)
	w.do(admin, "GET", "/api/v1/namespaces/default/pods/none", nil, nil)
	w.do(admin, "GET", "/api/v1/namespaces/default/made-up/none", nil, nil)
	w.do(admin, "POST", "/api/v1/namespaces/default/configmaps", map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]string{"name": "c"}}, nil)
	w.do(admin, "DELETE", "/api/v1/namespaces/default/configmaps?dryRun=All", nil, nil)
	w.do(admin, "GET", "/livez", nil, nil)
	local := w.Local(identity.Identity{Name: "someone", Groups: []string{identity.Masters}})
	if _, err := local.List(t.Context(), target.Of(schema.GroupVersionResource{Version: "v1", Resource: "nodes"}, ""), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w.do(admin, "GET", "/livez/nothing", nil, nil)
	w.do(w.as("kubelet"), "GET", "/api", nil, nil)
	w.do(w.as("jane@acme.io"), "GET", "/api/v1/pods", nil, nil)
	_, text := w.do(admin, "GET", "/metrics", nil, nil)
	for _, want := range []string{
		`apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="namespaces",scope="cluster",subresource="",verb="LIST",version="v1"}`,
		`apiserver_request_total{code="404",component="apiserver",dry_run="",group="",resource="pods",scope="resource",subresource="",verb="GET",version="v1"} 1`,
		`apiserver_request_duration_seconds_count{component="apiserver",dry_run="",group="",resource="namespaces"`,
		`apiserver_response_sizes_count{component="apiserver",group="",resource="namespaces"`,
		`apiserver_current_inflight_requests{request_kind="readOnly"}`, `apiserver_resource_objects{group="",resource="namespaces"} 4`,
		`apiserver_request_total{code="201",component="apiserver",dry_run="",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="apiserver",dry_run="All",group="",resource="configmaps",scope="namespace",subresource="",verb="DELETECOLLECTION",version="v1"} 1`,
		`apiserver_request_sli_duration_seconds_count{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST",version="v1"} 1`,
		`apiserver_request_total{code="200",component="",dry_run="",group="",resource="",scope="",subresource="/livez",verb="GET",version=""} 1`,
		`apiserver_admission_controller_admission_duration_seconds_count{name="LimitRanger",operation="CREATE",rejected="false",type="validate"}`,
		`kubernetes_healthcheck{name="etcd",type="livez"} 1`, `kubernetes_feature_enabled{name="ConstrainedImpersonation",stage="BETA"} 1`,
		`authenticated_user_requests{username="admin"}`, `authenticated_user_requests{username="email_id"} 1`, `authenticated_user_requests{username="kubelet"} 1`,
		`authorization_attempts_total{result="no-opinion"} 1`, `apiserver_authorization_decisions_total{decision="allowed",name="rbac",type="RBAC"} 1`,
		`rest_client_requests_total{code="200",host="192.0.2.7:`, `apiserver_request_total{code="200",component="apiserver",dry_run="",group="",resource="nodes",scope="cluster",subresource="",verb="LIST",version="v1"} 1`,
		`process_cpu_seconds_total`, `go_goroutines`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	for _, not := range []string{`request_sli_duration_seconds_count{component="apiserver",group="",resource="configmaps",scope="namespace",subresource="",verb="DELETECOLLECTION"`,
		`response_sizes_count{component="apiserver",group="",resource="configmaps",scope="resource",subresource="",verb="POST"`, `username="jane`, "/livez/nothing"} {
		if strings.Contains(text, not) {
			t.Errorf("metrics have %s", not)
		}
	}
	_, slis := w.do(admin, "GET", "/metrics/slis", nil, nil)
	if !strings.Contains(slis, `kubernetes_healthchecks_total{name="etcd",status="success",type="livez"} 2`) || strings.Contains(slis, "apiserver_") {
		t.Errorf("service levels:\n%s", slis)
	}
	if strings.Contains(text, "made-up") {
		t.Error("a client has made a series")
	}
}

func TestHealthPages(t *testing.T) {
	w := start(t)
	nobody := w.as("")
	w.live(nobody)
	if code, text := w.do(w.as("admin", "system:masters"), "GET", "/apis/apiregistration.k8s.io/v1/apiservices/v2.autoscaling", nil, nil); code != 200 {
		t.Errorf("the last of the server's own groups, once it lives: %d %s", code, text)
	}
	for path, want := range map[string]string{
		"/livez":                         "ok",
		"/livez/autoregister-completion": "ok",
		"/readyz/etcd":                   "ok",
		"/readyz/shutdown":               "ok",
		"/healthz/poststarthook/rbac/bootstrap-roles": "ok",
	} {
		if code, text := w.do(w.as("admin", "system:masters"), "GET", path, nil, nil); code != 200 || text != want {
			t.Errorf("%s: %d %q", path, code, text)
		}
	}
	_, all := w.do(nobody, "GET", "/livez?verbose", nil, nil)
	if !strings.HasPrefix(all, "[+]ping ok\n[+]log ok\n[+]etcd ok\n[+]poststarthook/") || !strings.HasSuffix(all, " ok\nlivez check passed\n") {
		t.Errorf("all: %q", all)
	}
	if _, got := w.do(nobody, "GET", "/livez?verbose&exclude=etcd", nil, nil); got != strings.Replace(all, "etcd ok", "etcd excluded: ok", 1) {
		t.Errorf("without etcd: %q", got)
	}
	unknown := "warn: some health checks cannot be excluded: no matches for \"x\"\n"
	if _, got := w.do(nobody, "GET", "/livez?verbose&exclude=x", nil, nil); got != strings.Replace(all, "livez check", unknown+"livez check", 1) {
		t.Errorf("without an unknown one: %q", got)
	}
	if code, text := w.do(w.as("admin", "system:masters"), "GET", "/version?timeout=invalid", nil, nil); code != 400 || !strings.Contains(text, "invalid timeout specified in the request URL") {
		t.Errorf("a timeout that is none: %d %q", code, text)
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
