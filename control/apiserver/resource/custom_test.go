package resource_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/kinds"
)

// boatRow is a kind without a Go type, as a custom resource definition makes it.
func boatRow() *kinds.Kind {
	k := row("boats", true)
	k.GVK = schema.GroupVersionKind{Group: "sea.example.com", Version: "v1", Kind: "Boat"}
	k.Storage = "sea.example.com/boats"
	k.New = func() kinds.Object { return &unstructured.Unstructured{} }
	k.NewList = func() runtime.Object { return &unstructured.UnstructuredList{} }
	return k
}

// Kinds without a Go type come and go while the server runs.
func TestCustomKind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, nil)
		const path = "/apis/sea.example.com/v1/namespaces/a/boats"
		if w := f.request("GET", path, ""); w.Code != http.StatusNotFound {
			t.Errorf("before: %d", w.Code)
		}
		k := boatRow()
		if err := f.Add(k); err != nil {
			t.Fatal(err)
		}
		const boat = `{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"b"},"spec":{"planks":3}}`
		for _, c := range []struct {
			method, path, body, media string
			code                      int
			text                      string
		}{
			{"POST", path, boat, "", 201, `"planks":3`},
			{"PATCH", path + "/b", `{"spec":{"sail":true}}`, "application/merge-patch+json", 200, `"sail":true`},
			{"PATCH", path + "/b", `{}`, "application/strategic-merge-patch+json", 415, "merge-patch"},
			{"PATCH", path + "/b?fieldManager=m&force=true", strings.Replace(boat, "3", "4", 1), "application/apply-patch+yaml", 200, `"planks":4`},
			{"GET", path + "/b", "", "", 200, `"operation":"Apply"`},
			{"GET", path, "", "", 200, `"kind":"BoatList"`},
			{"GET", path + "?watch=1&timeoutSeconds=1", "", "", 200, `"type":"ADDED"`},
			{"DELETE", path + "/b", "", "", 200, `"Success"`},
		} {
			w := f.request(c.method, c.path, c.body, "Content-Type", c.media)
			if w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
				t.Errorf("%s %s: %d %s", c.method, c.path, w.Code, w.Body)
			}
		}
		var list unstructured.UnstructuredList
		if err := json.Unmarshal(f.request("GET", path, "").Body.Bytes(), &list); err != nil || len(list.Items) != 0 {
			t.Errorf("%v %v", err, list)
		}
		f.Remove(k.GVR())
		if w := f.request("GET", path, ""); w.Code != http.StatusNotFound {
			t.Errorf("after: %d", w.Code)
		}
	})
}
