package sim_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/features"
	featurestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/yaml"
)

// formats counts what was sent and what came back, by media type.
type formats struct {
	http.RoundTripper
	mu             sync.Mutex
	sent, received map[string]int
}

func (f *formats) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := f.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.Body != nil {
		f.sent[r.Header.Get("Content-Type")]++
	}
	f.received[answer.Header.Get("Content-Type")]++
	return answer, nil
}

// cborClient is client-go's dynamic client, preferring CBOR.
func cborClient(t *testing.T) (dynamic.Interface, *formats) {
	t.Helper()
	featurestesting.SetFeatureDuringTest(t, features.ClientsAllowCBOR, true)
	featurestesting.SetFeatureDuringTest(t, features.ClientsPreferCBOR, true)
	_, cfg := listen(t)
	seen := &formats{sent: map[string]int{}, received: map[string]int{}}
	cfg.Wrap(func(rt http.RoundTripper) http.RoundTripper { seen.RoundTripper = rt; return seen })
	cfg.WarningHandler = rest.NoWarnings{}
	c, err := dynamic.NewForConfig(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c, seen
}

func unstructuredOf(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON(raw); err != nil {
		t.Fatal(err)
	}
	return obj
}

const shipDefinition = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ships.sea.example.com}
spec:
  group: sea.example.com
  scope: Namespaced
  names: {plural: ships, singular: ship, kind: Ship, listKind: ShipList}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}, scale: {specReplicasPath: .spec.crew, statusReplicasPath: .status.crew}}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              crew: {type: integer, minimum: 1}
              draft: {type: number}
              flag: {type: string, default: white}
              cargo: {type: object, x-kubernetes-preserve-unknown-fields: true}
          status: {type: object, properties: {crew: {type: integer}}}
`

// The real client-go, which prefers CBOR, works with kinds with and without Go
// types and with their subresources, and never falls back to JSON.
func TestCBORClient(t *testing.T) {
	c, seen := cborClient(t)
	t.Run("built-in", func(t *testing.T) { builtInByCBOR(t, c) })
	t.Run("custom", func(t *testing.T) { customByCBOR(t, c) })
	for media, n := range seen.sent {
		if !strings.HasSuffix(media, "cbor") && media != "application/merge-patch+json" {
			t.Errorf("%d requests of %q", n, media)
		}
	}
	for media, n := range seen.received {
		if media != "application/cbor" && media != "application/cbor-seq" {
			t.Errorf("%d answers of %q", n, media)
		}
	}
	if seen.received["application/cbor-seq"] != 2 || seen.sent["application/apply-patch+cbor"] < 4 {
		t.Errorf("sent %v, received %v", seen.sent, seen.received)
	}
}

func builtInByCBOR(t *testing.T, c dynamic.Interface) {
	ctx := t.Context()
	deployments := c.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}).Namespace("default")
	web := unstructuredOf(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}
`)
	made, err := deployments.Create(ctx, web, metav1.CreateOptions{FieldValidation: "Strict"})
	if err != nil {
		t.Fatal(err)
	}
	if n, _, _ := unstructured.NestedInt64(made.Object, "spec", "replicas"); n != 1 || made.GetUID() == "" {
		t.Errorf("%v", made)
	}
	w, err := deployments.Watch(ctx, metav1.ListOptions{ResourceVersion: made.GetResourceVersion()})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	scale, err := deployments.Get(ctx, "web", metav1.GetOptions{}, "scale")
	if err != nil || scale.GetKind() != "Scale" {
		t.Fatalf("%v %v", err, scale)
	}
	_ = unstructured.SetNestedField(scale.Object, int64(3), "spec", "replicas")
	if _, err := deployments.Update(ctx, scale, metav1.UpdateOptions{}, "scale"); err != nil {
		t.Fatal(err)
	}
	if e := <-w.ResultChan(); e.Type != "MODIFIED" || fmt.Sprint(at(e.Object, "spec", "replicas")) != "3" {
		t.Errorf("%+v", e)
	}
	applied, err := deployments.Apply(ctx, "web", unstructuredOf(t, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {a: b}}\n"), metav1.ApplyOptions{FieldManager: "m"})
	if err != nil || applied.GetLabels()["a"] != "b" || len(applied.GetManagedFields()) < 2 {
		t.Errorf("%v %v", err, applied)
	}
	_, err = deployments.Apply(ctx, "web", unstructuredOf(t, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {replicas: 9}\n"), metav1.ApplyOptions{FieldManager: "n"})
	if !apierrors.IsConflict(err) {
		t.Errorf("a conflict: %v", err)
	}
	list, err := deployments.List(ctx, metav1.ListOptions{LabelSelector: "a=b"})
	if err != nil || len(list.Items) != 1 || list.Items[0].GetName() != "web" {
		t.Errorf("%v %v", err, list)
	}
	stale := made.DeepCopy()
	if _, err := deployments.Update(ctx, stale, metav1.UpdateOptions{}); !apierrors.IsConflict(err) {
		t.Errorf("a stale update: %v", err)
	}
	wrong := web.DeepCopy()
	wrong.SetName("wings")
	wrong.Object["wings"] = int64(2)
	if _, err := deployments.Create(ctx, wrong, metav1.CreateOptions{FieldValidation: "Strict"}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), "strict decoding error: cbor: found unknown field") {
		t.Errorf("an unknown field: %v", err)
	}
	uid := types.UID("another")
	if err := deployments.Delete(ctx, "web", metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}}); !apierrors.IsConflict(err) {
		t.Errorf("deleting another: %v", err)
	}
	embedded(t, c)
}

// embedded objects, bytes and any JSON survive in both directions.
func embedded(t *testing.T, c dynamic.Interface) {
	ctx := t.Context()
	for resource, text := range map[string]string{
		"v1/secrets":                  "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {a: AAH/}\n",
		"apps/v1/controllerrevisions": "apiVersion: apps/v1\nkind: ControllerRevision\nmetadata: {name: r}\nrevision: 3\ndata: {spec: {a: [1, 2.5, null, x]}}\n",
	} {
		want := unstructuredOf(t, text)
		gv, name, _ := strings.Cut(resource, "v1/")
		all := c.Resource(schema.GroupVersionResource{Group: strings.Trim(gv, "/"), Version: "v1", Resource: name}).Namespace("default")
		if _, err := all.Create(ctx, want, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		got, err := all.Get(ctx, want.GetName(), metav1.GetOptions{})
		if err != nil || plainJSON(t, got.Object["data"]) != plainJSON(t, want.Object["data"]) {
			t.Errorf("%s: %v %v", resource, err, got)
		}
	}
}

func plainJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func customByCBOR(t *testing.T, c dynamic.Interface) {
	ctx := t.Context()
	definitions := c.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	w, err := definitions.Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := definitions.Create(ctx, unstructuredOf(t, shipDefinition), metav1.CreateOptions{FieldValidation: "Strict"}); err != nil {
		t.Fatal(err)
	}
	for e := range w.ResultChan() {
		if strings.Contains(plainJSON(t, at(e.Object, "status", "conditions")), `"status":"True","type":"Established"`) {
			break
		}
	}
	w.Stop()
	ships := c.Resource(schema.GroupVersionResource{Group: "sea.example.com", Version: "v1", Resource: "ships"}).Namespace("default")
	ship := unstructuredOf(t, "apiVersion: sea.example.com/v1\nkind: Ship\nmetadata: {name: a}\nspec: {crew: 3, draft: 2.0, cargo: {list: [1, a, 2.5]}}\n")
	ship.Object["gone"] = true
	if _, err := ships.Create(ctx, ship, metav1.CreateOptions{FieldValidation: "Strict"}); !apierrors.IsBadRequest(err) || !strings.Contains(err.Error(), `unknown field "gone"`) {
		t.Errorf("an unknown field: %v", err)
	}
	made, err := ships.Create(ctx, ship, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if made.Object["gone"] != nil || plainJSON(t, made.Object["spec"]) != `{"cargo":{"list":[1,"a",2.5]},"crew":3,"draft":2,"flag":"white"}` {
		t.Errorf("made %v", made)
	}
	bad := ship.DeepCopy()
	bad.SetName("b")
	_ = unstructured.SetNestedField(bad.Object, int64(0), "spec", "crew")
	if _, err := ships.Create(ctx, bad, metav1.CreateOptions{}); !apierrors.IsInvalid(err) {
		t.Errorf("too few: %v", err)
	}
	_ = unstructured.SetNestedField(made.Object, int64(2), "status", "crew")
	if made, err = ships.UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil || fmt.Sprint(at(made, "status", "crew")) != "2" {
		t.Errorf("status: %v %v", err, made)
	}
	if scale, err := ships.Get(ctx, "a", metav1.GetOptions{}, "scale"); err != nil || fmt.Sprint(at(scale, "status", "replicas")) != "2" {
		t.Errorf("scale: %v %v", err, scale)
	}
	if scale, err := ships.Patch(ctx, "a", types.MergePatchType, []byte(`{"spec":{"replicas":7}}`), metav1.PatchOptions{}, "scale"); err != nil || scale.GetKind() != "Scale" {
		t.Errorf("scale: %v %v", err, scale)
	}
	for _, name := range []string{"a", "c"} {
		config := unstructuredOf(t, "apiVersion: sea.example.com/v1\nkind: Ship\nmetadata: {name: "+name+"}\nspec: {flag: black}\n")
		if got, err := ships.Apply(ctx, name, config, metav1.ApplyOptions{FieldManager: "m", Force: true}); err != nil || at(got, "spec", "flag") != "black" {
			t.Errorf("apply %s: %v %v", name, err, got)
		}
	}
	list, err := ships.List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 2 || fmt.Sprint(at(&list.Items[0], "spec", "crew")) != "7" || list.GetKind() != "ShipList" {
		t.Errorf("%v %v", err, list)
	}
	if err := ships.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	if _, err := ships.Get(ctx, "a", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Error(err)
	}
}

// at follows keys into an unstructured object; nil where there is nothing.
func at(obj any, keys ...string) any {
	u, ok := obj.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	v, _, err := unstructured.NestedFieldNoCopy(u.Object, keys...)
	if err != nil {
		return nil
	}
	return v
}
