package apiserver

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/internal/pki"
)

// A definition is in discovery and in both forms of OpenAPI soon, under new tags;
// nothing is sent again to who has it.
func TestPublication(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	w.registered(admin)
	documents := []struct{ path, accept string }{
		{"/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"},
		{"/openapi/v2", "application/json"}, {"/openapi/v2", "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"},
		{"/openapi/v3", "application/json"}, {"/openapi/v3/apis/sea.example.com/v1", "application/json"},
	}
	get := func(path, accept, tag string) (code int, now, text string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.url+path, nil)
		must(t, err)
		r.Header.Set("Accept", accept)
		if tag != "" {
			r.Header.Set("If-None-Match", tag)
		}
		answer, err := admin.Do(r)
		must(t, err)
		defer answer.Body.Close()
		var b strings.Builder
		_, err = io.Copy(&b, answer.Body)
		must(t, err)
		return answer.StatusCode, answer.Header.Get("Etag"), b.String()
	}
	tags := map[string]string{}
	settle := func() {
		for _, d := range documents {
			_, tags[d.path+d.accept], _ = get(d.path, d.accept, "")
		}
	}
	eventually(t, "nothing more is registered", func() bool {
		settle()
		for _, d := range documents[:4] {
			if code, _, _ := get(d.path, d.accept, tags[d.path+d.accept]); code != http.StatusNotModified {
				return false
			}
		}
		return true
	})
	w.made(admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", simple("boats", "Boat", "sea.example.com"))
	made := time.Now()
	for _, d := range documents {
		eventually(t, d.path+" has boats", func() bool {
			code, tag, text := get(d.path, d.accept, tags[d.path+d.accept])
			return code == 200 && tag != "" && tag != tags[d.path+d.accept] && strings.Contains(text, "sea.example.com")
		})
	}
	t.Logf("it took %v to publish a definition everywhere", time.Since(made))
	// Its group is still to be registered.
	eventually(t, "nothing is sent again", func() bool {
		settle()
		for _, d := range documents {
			if code, _, _ := get(d.path, d.accept, tags[d.path+d.accept]); code != http.StatusNotModified {
				return false
			}
		}
		return true
	})
}

// registered waits until the groups that every server has are registered, and shown
// in their order: they are made by their names, and this is the last one.
func (w *world) registered(c *http.Client) {
	w.t.Helper()
	eventually(w.t, "own groups are registered", func() bool {
		_, text := w.do(c, "GET", "/metrics", nil, nil)
		return strings.Contains(text, `aggregator_unavailable_apiservice{name="v2.autoscaling"} 0`)
	})
}

// What is about to go is shown as such; it can still be changed, or it could never go.
func TestDiscoveryOfWhatEnds(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	const definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	w.made(admin, definition, simple("boats", "Boat", "sea.example.com"))
	const boats = "/apis/sea.example.com/v1/namespaces/default/boats"
	boat := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "sea.example.com/v1", "kind": "Boat",
		"metadata": map[string]any{"name": "a", "finalizers": []any{"a.example.com/b"}}}}
	eventually(t, "a boat", func() bool { code, _ := w.do(admin, "POST", boats, boat, nil); return code == 201 })
	verbs := func() string {
		var list metav1.APIResourceList
		w.do(admin, "GET", "/apis/sea.example.com/v1", nil, &list)
		if len(list.APIResources) == 0 {
			return ""
		}
		return strings.Join(list.APIResources[0].Verbs, " ")
	}
	if got := verbs(); got != "delete deletecollection get list patch create update watch" {
		t.Errorf("at first: %s", got)
	}
	if code, text := w.do(admin, "DELETE", definition+"/boats.sea.example.com", nil, nil); code != 200 {
		t.Fatalf("delete: %d %s", code, text)
	}
	eventually(t, "fewer verbs", func() bool { return verbs() == "delete deletecollection get list watch" })
	boat.SetName("b")
	if code, text := w.do(admin, "POST", boats, boat, nil); code != 403 || !strings.Contains(text, "create not allowed while custom resource definition is terminating") {
		t.Errorf("another boat: %d %s", code, text)
	}
	w.merge(admin, boats+"/a", map[string]any{"metadata": map[string]any{"finalizers": nil}})
	eventually(t, "all gone", func() bool {
		code, _ := w.do(admin, "GET", definition+"/boats.sea.example.com", nil, nil)
		return code == 404
	})
	eventually(t, "it is not shown", func() bool { return verbs() == "" })
}

// Of a group version that a definition and an administrator's APIService are about,
// the APIService decides; without it the server makes its own again.
func TestAPIServiceBeforeDefinition(t *testing.T) {
	proxies, err := pki.Temporary(time.Now)
	must(t, err)
	back := startWith(t, func(c *Config) { c.FrontProxy, c.Names = proxies, []string{"wares.shop.svc"} })
	front := startWith(t, func(c *Config) { c.FrontProxy = proxies })
	backAdmin, admin := back.as("admin", "system:masters"), front.as("admin", "system:masters")
	const service = "/apis/apiregistration.k8s.io/v1/apiservices/v1.wares.example.com"
	for w, c := range map[*world]*http.Client{back: backAdmin, front: admin} {
		w.made(c, "/api/v1/namespaces", &corev1.Namespace{TypeMeta: typed("v1", "Namespace"), ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
		w.made(c, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", simple("flunders", "Flunder", "wares.example.com"))
	}
	const at = "/apis/wares.example.com/v1/namespaces/shop/flunders"
	for w, c := range map[*world]*http.Client{back: backAdmin, front: admin} {
		name := map[bool]string{true: "of-back", false: "of-front"}[w == back]
		flunder := map[string]any{"apiVersion": "wares.example.com/v1", "kind": "Flunder", "metadata": map[string]any{"name": name}}
		eventually(t, "a flunder", func() bool { code, _ := w.do(c, "POST", at, flunder, nil); return code == 201 })
	}
	var own apiregistrationv1.APIService
	eventually(t, "a definition is registered", func() bool { code, _ := front.do(admin, "GET", service, nil, &own); return code == 200 })
	if own.Labels["kube-aggregator.kubernetes.io/automanaged"] != "true" || own.Spec.GroupPriorityMinimum != 1000 || own.Spec.VersionPriority != 100 {
		t.Errorf("a definition's APIService: %v %+v", own.Labels, own.Spec)
	}
	// What the server keeps it puts right; what an administrator has taken over it leaves.
	front.merge(admin, service, map[string]any{"spec": map[string]any{"versionPriority": 7}})
	eventually(t, "it is put right", func() bool { front.do(admin, "GET", service, nil, &own); return own.Spec.VersionPriority == 100 })
	front.made(admin, "/api/v1/namespaces/shop/services", &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Name: "wares"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}})
	link, err := url.Parse(back.url)
	must(t, err)
	port, err := strconv.Atoi(link.Port())
	must(t, err)
	front.merge(admin, service, map[string]any{"metadata": map[string]any{"labels": nil}, "spec": map[string]any{"caBundle": back.ca.PEM(),
		"service": map[string]any{"namespace": "shop", "name": "wares", "port": port}}})
	names := func() string {
		var list unstructured.UnstructuredList
		code, text := front.do(admin, "GET", at, nil, &list)
		if code != 200 {
			return text
		}
		var all []string
		for _, item := range list.Items {
			all = append(all, item.GetName())
		}
		return strings.Join(all, " ")
	}
	eventually(t, "the other server answers", func() bool { return names() == "of-back" })
	if code, text := front.do(admin, "DELETE", service, nil, nil); code != 200 {
		t.Fatalf("delete: %d %s", code, text)
	}
	eventually(t, "the definition is served again", func() bool { return names() == "of-front" })
	eventually(t, "and registered again", func() bool {
		code, text := front.do(admin, "GET", service, nil, nil)
		var s apiregistrationv1.APIService
		return code == 200 && json.Unmarshal([]byte(text), &s) == nil && s.Labels["kube-aggregator.kubernetes.io/automanaged"] == "true"
	})
}

// The metrics that this process answers for have schemas as every other group has,
// until another server is named for them.
func TestSchemasOfMetrics(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	const group, model = "apis/metrics.k8s.io/v1beta1", "io.k8s.metrics.pkg.apis.metrics.v1beta1."
	listed := func() bool {
		var index struct{ Paths map[string]json.RawMessage }
		w.do(admin, "GET", "/openapi/v3", nil, &index)
		if len(index.Paths) < 10 {
			t.Fatalf("%d documents in the index", len(index.Paths))
		}
		return index.Paths[group] != nil
	}
	if !listed() {
		t.Error("the index does not name metrics")
	}
	var doc struct {
		Paths      map[string]map[string]json.RawMessage
		Components struct{ Schemas map[string]json.RawMessage }
	}
	if code, text := w.do(admin, "GET", "/openapi/v3/"+group, nil, &doc); code != 200 {
		t.Fatalf("%d %s", code, text)
	}
	for _, kind := range []string{"PodMetrics", "PodMetricsList", "NodeMetrics", "NodeMetricsList", "ContainerMetrics"} {
		if doc.Components.Schemas[model+kind] == nil {
			t.Errorf("no schema of %s", kind)
		}
	}
	for path, item := range doc.Paths {
		for _, verb := range []string{"post", "put", "patch", "delete"} {
			if item[verb] != nil {
				t.Errorf("%s %s, but metrics are read only", verb, path)
			}
		}
	}
	for _, path := range []string{"/pods", "/namespaces/{namespace}/pods", "/namespaces/{namespace}/pods/{name}", "/nodes", "/nodes/{name}"} {
		if doc.Paths["/"+group+path]["get"] == nil {
			t.Errorf("no way to read %s", path)
		}
	}
	var old struct{ Paths, Definitions map[string]json.RawMessage }
	w.do(admin, "GET", "/openapi/v2", nil, &old)
	if old.Paths["/"+group+"/pods"] == nil || old.Definitions[model+"PodMetrics"] == nil {
		t.Error("OpenAPI v2 has no metrics")
	}
	w.made(admin, "/apis/apiregistration.k8s.io/v1/apiservices", &apiregistrationv1.APIService{TypeMeta: typed("apiregistration.k8s.io/v1", "APIService"),
		ObjectMeta: metav1.ObjectMeta{Name: "v1beta1.metrics.k8s.io"}, Spec: apiregistrationv1.APIServiceSpec{Group: "metrics.k8s.io", Version: "v1beta1",
			GroupPriorityMinimum: 100, VersionPriority: 100, InsecureSkipTLSVerify: true, Service: &apiregistrationv1.ServiceReference{Namespace: "shop", Name: "none", Port: new(int32(443))}}})
	eventually(t, "the other server is down, and so its schemas are not there", func() bool { return !listed() })
}
