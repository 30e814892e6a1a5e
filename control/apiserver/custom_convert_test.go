package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/target"
)

// harbour is a definition of boats in two versions with a conversion webhook that
// counts what it is asked.
type harbour struct {
	*world
	admin          *http.Client
	calls, objects atomic.Int64
	// slow makes the webhook wait until its caller has gone.
	slow atomic.Bool
}

func openHarbour(t *testing.T) *harbour {
	t.Helper()
	h := &harbour{world: start(t)}
	h.admin = h.as("admin", "system:masters")
	hook := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		raw, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		if h.slow.Load() {
			<-r.Context().Done()
			return
		}
		h.calls.Add(1)
		h.objects.Add(int64(bytes.Count(raw, []byte(`"kind":"Boat"`))))
		r.Body = io.NopCloser(strings.NewReader(string(raw)))
		convertBoats(w, r)
	}))
	t.Cleanup(hook.Close)
	h.made(h.admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", boatsBetween(hook))
	eventually(t, "boats are served", func() bool {
		code, _ := h.do(h.admin, "GET", "/apis/sea.example.com/v2/boats", nil, nil)
		return code == 200
	})
	return h
}

// boatsBetween is a definition whose stored version is v1.
func boatsBetween(hook *httptest.Server) *apiextensionsv1.CustomResourceDefinition {
	root := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: hook.Certificate().Raw})
	url := hook.URL + "/convert"
	schema := &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object",
		Properties: map[string]apiextensionsv1.JSONSchemaProps{"spec": {Type: "object", XPreserveUnknownFields: new(true)}}}}
	version := func(name string, storage bool) apiextensionsv1.CustomResourceDefinitionVersion {
		return apiextensionsv1.CustomResourceDefinitionVersion{Name: name, Served: true, Storage: storage, Schema: schema}
	}
	return &apiextensionsv1.CustomResourceDefinition{TypeMeta: typed("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
		ObjectMeta: metav1.ObjectMeta{Name: "boats.sea.example.com"},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: "sea.example.com", Scope: apiextensionsv1.NamespaceScoped,
			Names:    apiextensionsv1.CustomResourceDefinitionNames{Plural: "boats", Kind: "Boat"},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{version("v1", true), version("v2", false)},
			Conversion: &apiextensionsv1.CustomResourceConversion{Strategy: apiextensionsv1.WebhookConverter,
				Webhook: &apiextensionsv1.WebhookConversion{ConversionReviewVersions: []string{"v1"},
					ClientConfig: &apiextensionsv1.WebhookClientConfig{URL: &url, CABundle: root}}}}}
}

// launch makes n boats as they are stored.
func (h *harbour) launch(n int) {
	h.t.Helper()
	at := target.Of(schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "boats"}, "default")
	for i := range n {
		boat := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "sea.example.com/v1", "kind": "Boat",
			"metadata": map[string]any{"name": fmt.Sprintf("boat-%04d", i), "labels": map[string]any{"even": fmt.Sprint(i%2 == 0)}},
			"spec":     map[string]any{"hostPort": fmt.Sprintf("sea:%d", i)}}}
		_, err := h.own.Create(h.t.Context(), at, boat, metav1.CreateOptions{})
		must(h.t, err)
	}
}

// asked is how often the webhook was asked, and about how many objects, since the
// last time.
func (h *harbour) asked() (calls, objects int64) { return h.calls.Swap(0), h.objects.Swap(0) }

func TestListConvertsTogether(t *testing.T) {
	const many = 500
	h := openHarbour(t)
	h.launch(many)
	h.asked()
	list := func(query string) []unstructured.Unstructured {
		t.Helper()
		var out unstructured.UnstructuredList
		code, text := h.do(h.admin, "GET", "/apis/sea.example.com/v2/namespaces/default/boats"+query, nil, &out)
		if code != 200 {
			t.Fatalf("list%s: %d %s", query, code, text)
		}
		return out.Items
	}
	if items := list("?limit=10"); len(items) != 10 {
		t.Errorf("a page of %d", len(items))
	}
	if calls, objects := h.asked(); calls != 1 || objects != 10 {
		t.Errorf("a page of 10 took %d calls about %d objects", calls, objects)
	}
	items := list("")
	if calls, objects := h.asked(); calls != 1 || objects != many-10 {
		t.Errorf("a list took %d calls about %d objects", calls, objects)
	}
	for i, item := range items {
		port, _, _ := unstructured.NestedString(item.Object, "spec", "port")
		if item.GetName() != fmt.Sprintf("boat-%04d", i) || port != fmt.Sprint(i) || item.GetResourceVersion() == "" {
			t.Fatalf("item %d: %v", i, item.Object)
		}
	}
	if got := len(list("?labelSelector=even=true")); got != many/2 {
		t.Errorf("half of them are %d", got)
	}
	if calls, _ := h.asked(); calls != 0 {
		t.Errorf("what is known was asked again: %d calls", calls)
	}
	metrics := func() string { _, text := h.do(h.admin, "GET", "/metrics", nil, nil); return text }()
	for _, want := range []string{
		`apiserver_crd_conversion_webhook_duration_seconds_count{crd_name="boats.sea.example.com",from_version="v1",succeeded="true",to_version="v2"}`,
		`apiserver_conversion_webhook_request_total{failure_type="",result="success"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no metric %s", want)
		}
	}
}

// merge changes an object by a merge patch.
func (w *world) merge(c *http.Client, path string, change any) {
	w.t.Helper()
	raw, err := json.Marshal(change)
	must(w.t, err)
	r, err := http.NewRequestWithContext(w.t.Context(), http.MethodPatch, w.url+path, bytes.NewReader(raw))
	must(w.t, err)
	r.Header.Set("Content-Type", "application/merge-patch+json")
	answer, err := c.Do(r)
	must(w.t, err)
	defer answer.Body.Close()
	if text, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		w.t.Fatalf("PATCH %s: %d %s (%v)", path, answer.StatusCode, text, err)
	}
}

// A watch's beginning is one call too, and each change one.
func TestWatchConvertsTogether(t *testing.T) {
	const many = 50
	h := openHarbour(t)
	h.launch(many)
	h.asked()
	ctx, cancel := context.WithTimeout(t.Context(), patient)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/apis/sea.example.com/v2/boats?watch=1&labelSelector=even", nil)
	must(t, err)
	answer, err := h.admin.Do(r)
	must(t, err)
	defer answer.Body.Close()
	lines := bufio.NewScanner(answer.Body)
	next := func() (kind string, obj unstructured.Unstructured) {
		t.Helper()
		if !lines.Scan() {
			t.Fatalf("the watch ended: %v", lines.Err())
		}
		var e struct {
			Type   string
			Object map[string]any
		}
		must(t, json.Unmarshal(lines.Bytes(), &e))
		return e.Type, unstructured.Unstructured{Object: e.Object}
	}
	for range many {
		if kind, obj := next(); kind != "ADDED" || obj.GetAPIVersion() != "sea.example.com/v2" {
			t.Fatalf("%s %v", kind, obj.Object)
		}
	}
	if calls, objects := h.asked(); calls != 1 || objects != many {
		t.Errorf("the beginning took %d calls about %d objects", calls, objects)
	}
	if code, text := h.do(h.admin, "DELETE", "/apis/sea.example.com/v1/namespaces/default/boats/boat-0007", nil, nil); code != 200 {
		t.Fatalf("delete: %d %s", code, text)
	}
	if kind, obj := next(); kind != "DELETED" || obj.GetName() != "boat-0007" || obj.GetAPIVersion() != "sea.example.com/v2" {
		t.Errorf("%s %v", kind, obj.Object)
	}
	if calls, _ := h.asked(); calls != 0 {
		t.Errorf("a deletion took %d calls: what was known was asked again", calls)
	}
	// What cannot be shown is said, not left out.
	h.slow.Store(true)
	def := map[string]any{"spec": map[string]any{"conversion": map[string]any{"webhook": map[string]any{"clientConfig": map[string]any{
		"url": "https://127.0.0.1:1/", "caBundle": base64.StdEncoding.EncodeToString(h.ca.PEM())}}}}}
	h.merge(h.admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boats.sea.example.com", def)
	for lines.Scan() { // the other rules end the watch
		t.Logf("%s", lines.Text())
	}
	code, text := 0, ""
	eventually(t, "a list fails", func() bool {
		code, text = h.do(h.admin, "GET", "/apis/sea.example.com/v2/boats?watch=1&resourceVersion=0", nil, nil)
		return strings.Contains(text, "ERROR")
	})
	if code != 200 || !strings.Contains(text, `"code":500`) || !strings.Contains(text, "conversion webhook for sea.example.com/v1, Kind=Boat failed: Post") || strings.Contains(text, "/registry") {
		t.Errorf("a watch that cannot begin: %d %s", code, text)
	}
}

// A webhook that hangs costs its callers their own time, not more.
func TestConversionEndsWithItsRequest(t *testing.T) {
	h := openHarbour(t)
	h.launch(3)
	h.slow.Store(true)
	for _, path := range []string{"/apis/sea.example.com/v2/boats?timeout=1s", "/apis/sea.example.com/v2/namespaces/default/boats/boat-0001?timeout=1s"} {
		begin := time.Now()
		code, text := h.do(h.admin, "GET", path, nil, nil)
		if took := time.Since(begin); code != http.StatusGatewayTimeout || took > 25*time.Second { // the webhook has half a minute
			t.Errorf("%s: %d after %v: %s", path, code, took, text)
		}
	}
	if code, _ := h.do(h.admin, "GET", "/apis/sea.example.com/v1/boats", nil, nil); code != 200 {
		t.Errorf("what needs no conversion: %d", code)
	}
	h.slow.Store(false)
	if code, text := h.do(h.admin, "GET", "/apis/sea.example.com/v2/boats", nil, nil); code != 200 {
		t.Errorf("once the webhook is back: %d %s", code, text)
	}
}
