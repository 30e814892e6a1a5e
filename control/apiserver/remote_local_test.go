package apiserver

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/pki"
	"github.com/sampan-dev/sampan/internal/target"
)

var flunders = schema.GroupVersionResource{Group: "wares.example.com", Version: "v1", Resource: "flunders"}

// twoServers are one that answers for flunders, and one that hands requests for
// them on to it.
func twoServers(t *testing.T) (front, back *world) {
	t.Helper()
	proxies, err := pki.Temporary(time.Now)
	must(t, err)
	back = startWith(t, func(c *Config) { c.FrontProxy, c.Names = proxies, []string{"wares.shop.svc"} })
	front = startWith(t, func(c *Config) { c.FrontProxy = proxies })
	backAdmin, admin := back.as("admin", "system:masters"), front.as("admin", "system:masters")
	back.made(backAdmin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", simple("flunders", "Flunder", "wares.example.com"))
	at, err := url.Parse(back.url)
	must(t, err)
	number, err := strconv.ParseInt(at.Port(), 10, 32)
	must(t, err)
	front.register(admin, back.ca.PEM(), int32(number))
	return front, back
}

// simple is a definition of a namespaced kind without much of a schema.
func simple(plural, kind, group string) *apiextensionsv1.CustomResourceDefinition {
	return &apiextensionsv1.CustomResourceDefinition{TypeMeta: typed("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
		ObjectMeta: metav1.ObjectMeta{Name: plural + "." + group},
		Spec: apiextensionsv1.CustomResourceDefinitionSpec{Group: group, Scope: apiextensionsv1.NamespaceScoped,
			Names: apiextensionsv1.CustomResourceDefinitionNames{Plural: plural, Kind: kind},
			Versions: []apiextensionsv1.CustomResourceDefinitionVersion{{Name: "v1", Served: true, Storage: true,
				Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: &apiextensionsv1.JSONSchemaProps{Type: "object", XPreserveUnknownFields: new(true)}}}}}}
}

// register makes service and APIService of a server for flunders on loopback.
func (w *world) register(admin *http.Client, roots []byte, port int32) {
	w.t.Helper()
	w.made(admin, "/api/v1/namespaces", &corev1.Namespace{TypeMeta: typed("v1", "Namespace"), ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	w.made(admin, "/api/v1/namespaces/shop/services", &corev1.Service{TypeMeta: typed("v1", "Service"), ObjectMeta: metav1.ObjectMeta{Name: "wares"},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "localhost"}})
	w.made(admin, "/apis/apiregistration.k8s.io/v1/apiservices", &apiregistrationv1.APIService{TypeMeta: typed("apiregistration.k8s.io/v1", "APIService"),
		ObjectMeta: metav1.ObjectMeta{Name: "v1.wares.example.com"}, Spec: apiregistrationv1.APIServiceSpec{
			Group: "wares.example.com", Version: "v1", GroupPriorityMinimum: 100, VersionPriority: 10, CABundle: roots,
			Service: &apiregistrationv1.ServiceReference{Namespace: "shop", Name: "wares", Port: &port}}})
}

// What a component of this process asks of another server's kind is asked of that
// server, by the same transport as everything else.
func TestComponentsReachOtherServers(t *testing.T) {
	front, back := twoServers(t)
	front.condition(front.as("admin", "system:masters"), "Passed", "all checks passed")
	back.made(back.as("admin", "system:masters"), "/api/v1/namespaces", &corev1.Namespace{TypeMeta: typed("v1", "Namespace"), ObjectMeta: metav1.ObjectMeta{Name: "shop"}})
	own, ctx := front.own, t.Context()
	eventually(t, "requests are handed on", func() bool {
		_, err := own.List(ctx, target.Of(flunders, "shop"), metav1.ListOptions{})
		return err == nil
	})
	all, one := target.Of(flunders, "shop"), target.Of(flunders, "shop").Object("f")
	flunder := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "wares.example.com/v1", "kind": "Flunder",
		"metadata": map[string]any{"name": "f", "finalizers": []any{"a.example.com/b"}}}}
	if _, err := own.Create(ctx, all, flunder, metav1.CreateOptions{DryRun: []string{"All"}}); err != nil {
		t.Fatalf("dry run: %v", err)
	}
	if _, err := own.Get(ctx, one, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Fatalf("after a dry run: %v", err)
	}
	made, err := own.Create(ctx, all, flunder, metav1.CreateOptions{})
	must(t, err)
	if _, err := own.Create(ctx, all, flunder, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		t.Errorf("once more: %v", err)
	}
	list, err := own.List(ctx, all, metav1.ListOptions{Limit: 5})
	must(t, err)
	flundersNow, ok := list.(*unstructured.UnstructuredList)
	if !ok || len(flundersNow.Items) != 1 || flundersNow.Items[0].GetUID() != made.(*unstructured.Unstructured).GetUID() {
		t.Fatalf("list: %v", list)
	}
	if _, err := own.Watch(ctx, all, metav1.ListOptions{SendInitialEvents: new(true)}); !apierrors.IsInvalid(err) {
		t.Errorf("initial state: %v", err)
	}
	w, err := own.Watch(ctx, all, metav1.ListOptions{ResourceVersion: flundersNow.GetResourceVersion()})
	must(t, err)
	defer w.Stop()
	_, err = own.Patch(ctx, one, types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`), metav1.PatchOptions{})
	must(t, err)
	must(t, own.Delete(ctx, one, metav1.DeleteOptions{}))
	_, err = own.Patch(ctx, one, types.JSONPatchType, []byte(`[{"op":"remove","path":"/metadata/finalizers"}]`), metav1.PatchOptions{})
	must(t, err)
	seen := ""
	for range 3 {
		select {
		case e := <-w.ResultChan():
			obj := e.Object.(*unstructured.Unstructured)
			seen += fmt.Sprintf("%s %s %v %v; ", e.Type, obj.GetName(), obj.GetLabels(), obj.GetDeletionTimestamp() != nil)
		case <-time.After(patient):
			t.Fatalf("saw only %s", seen)
		}
	}
	if want := "MODIFIED f map[a:b] false; MODIFIED f map[a:b] true; DELETED f map[a:b] true; "; seen != want {
		t.Errorf("saw %s\nwant %s", seen, want)
	}
	stranger := front.Local(identity.Identity{Name: "stranger"})
	if _, err := stranger.List(ctx, all, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("who may not, may not: %v", err)
	}
	back.stop()
	begin := time.Now()
	if _, err := own.List(ctx, all, metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a server that is down: %v", err)
	}
	drained(t, w)
	if _, err := own.Watch(ctx, all, metav1.ListOptions{}); !apierrors.IsServiceUnavailable(err) {
		t.Errorf("a watch of a server that is down: %v", err)
	}
	if took := time.Since(begin); took > patient/2 { // they are given a minute to answer
		t.Errorf("it took %v", took)
	}
}

// drained waits for the end of a watch.
func drained(t *testing.T, w watch.Interface) {
	t.Helper()
	late := time.After(patient)
	for {
		select {
		case _, open := <-w.ResultChan():
			if !open {
				return
			}
		case <-late:
			t.Error("the watch of a server that is down goes on")
			return
		}
	}
}

// A server that accepts connections and says nothing holds up nobody else, and
// those who ask it for a while only.
func TestSilentServer(t *testing.T) {
	w := start(t)
	admin := w.as("admin", "system:masters")
	s := startWares(t, w.cfg.FrontProxy.PEM())
	silence := make(chan struct{})
	defer close(silence)
	s.say = func(http.ResponseWriter, *http.Request) { <-silence }
	w.register(admin, s.ca.PEM(), int32(s.at.Port()))
	w.condition(admin, "FailedDiscoveryCheck", "failing or missing response from https://wares.shop.svc:")
	ctx, cancel := context.WithTimeout(t.Context(), patient) // it is silent until the end
	defer cancel()
	for _, path := range []string{"/apis", "/apis/apps/v1", "/openapi/v3", "/openapi/v2", "/api/v1/namespaces/shop/services", "/apis/wares.example.com/v1/flunders"} {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, w.url+path, nil)
		must(t, err)
		answer, err := admin.Do(r)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		answer.Body.Close()
		if want := map[bool]int{true: 503, false: 200}[strings.Contains(path, "wares")]; answer.StatusCode != want {
			t.Errorf("%s: %d, want %d", path, answer.StatusCode, want)
		}
	}
	lease := map[string]any{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": map[string]any{"name": "l"}}
	if code, text := w.do(admin, "POST", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases", lease, nil); code != 201 {
		t.Errorf("a lease: %d %s", code, text)
	}
	if code, text := w.do(admin, "DELETE", "/apis/apiregistration.k8s.io/v1/apiservices/v1.wares.example.com", nil, nil); code != 200 {
		t.Errorf("its repair: %d %s", code, text)
	}
}
