package resource_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sampan-dev/sampan/internal/frugal"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// goldens are upstream's published examples of kinds in one encoding; none where
// the module cache is without them.
func goldens(f *testing.F, ext string) [][]byte {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/api").Output()
	if err != nil {
		return nil
	}
	var all [][]byte
	for _, name := range []string{"core.v1.ConfigMap", "core.v1.Pod", "core.v1.Secret", "apps.v1.Deployment", "policy.v1.PodDisruptionBudget"} {
		data, err := os.ReadFile(filepath.Join(strings.TrimSpace(string(out)), "testdata", "HEAD", name+"."+ext))
		if err == nil {
			all = append(all, data)
		}
	}
	return all
}

var fuzzedMedia = []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}

// A body of any of the media types is an object, or the client's fault.
func FuzzBody(f *testing.F) {
	for i, ext := range []string{"json", "yaml", "pb"} {
		for _, data := range goldens(f, ext) {
			f.Add(uint8(i), uint8(0), data)
		}
	}
	for i, data := range goldens(f, "yaml") {
		f.Add(uint8(3), uint8(i), []byte(cborOf(f, string(data))))
	}
	f.Add(uint8(3), uint8(3), []byte(cborOf(f, "{apiVersion: sea.example.com/v1, kind: Boat, metadata: {name: b, labels: {a: b}}, spec: {planks: 3, draft: 1.5}}")))
	f.Add(uint8(0), uint8(1), []byte(`{"metadata":{"name":"a","name":"b"},"spec":{"containers":[{}]}}`))
	f.Add(uint8(1), uint8(2), []byte("a: &a [*a]\n"))
	f.Add(uint8(2), uint8(0), []byte("k8s\x00\n\xff\xff\xff\xff\x0f"))
	paths := []string{"/api/v1/namespaces/a/configmaps", "/api/v1/namespaces/a/pods", "/apis/apps/v1/namespaces/a/deployments",
		"/apis/sea.example.com/v1/namespaces/a/boats"}
	s := serve(f, nil)
	if err := s.Add(boatRow()); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, media, path uint8, data []byte) {
		ctx := identity.With(t.Context(), alice)
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, paths[int(path)%len(paths)]+"?dryRun=All", strings.NewReader(string(data)))
		r.Header.Set("Content-Type", fuzzedMedia[int(media)%len(fuzzedMedia)])
		w := httptest.NewRecorder()
		frugal.Run(t, len(data), func() { s.ServeHTTP(w, r) })
		if w.Code >= 500 && !strings.Contains(w.Body.String(), "resourceVersion should not be set") {
			t.Errorf("%d: %s", w.Code, w.Body)
		}
	})
}

var fuzzedPatches = []types.PatchType{types.JSONPatchType, types.MergePatchType, types.StrategicMergePatchType,
	types.ApplyYAMLPatchType, types.ApplyCBORPatchType}

// A patch of any kind makes an object, or a failure that has a status.
func FuzzPatch(f *testing.F) {
	for kind, seeds := range [][]string{
		{`[{"op":"replace","path":"/spec/replicas","value":2}]`, `[{"op":"copy","from":"/metadata","path":"/metadata/labels"}]`, `[{"op":"remove","path":"/metadata/name/-1"}]`},
		{`{"spec":null}`, `{"metadata":{"labels":{"a":null}}}`, `[]`, `null`},
		{
			`{"spec":{"template":{"spec":{"containers":[{"name":"c","image":"x"},{"name":"b","$patch":"delete"}]}}}}`,
			`{"spec":{"strategy":{"$retainKeys":["type"],"type":"Recreate"}}}`,
			`{"spec":{"template":{"spec":{"$setElementOrder/containers":[{"name":"c"}],"containers":[{"$patch":"replace"}]}}}}`,
			`{"metadata":{"$deleteFromPrimitiveList/finalizers":["a"]}}`, `{"$patch":"replace"}`,
		},
		{"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 1}\n", "[]", "kind: {}"},
	} {
		for _, seed := range seeds {
			f.Add(uint8(kind), []byte(seed))
		}
	}
	f.Add(uint8(4), []byte(cborOf(f, "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {replicas: 1}\n")))
	f.Add(uint8(4), []byte("\x80"))
	f.Add(uint8(4), []byte("\xa2Ba\xa0Ba\xa0"))
	s := serve(f, nil)
	l, at := s.Local(alice, "fuzz"), target.Of(appsv1.SchemeGroupVersion.WithResource("deployments"), "a").Object("d")
	base := []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d, finalizers: [x.y/z]}\nspec: {template: {spec: {containers: [{name: c, image: i}]}}}\n")
	if _, err := l.Patch(context.Background(), at, types.ApplyPatchType, base, metav1.PatchOptions{FieldManager: "base"}); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		var err error
		frugal.Run(t, len(data), func() {
			_, err = l.Patch(t.Context(), at, fuzzedPatches[int(kind)%len(fuzzedPatches)], data, metav1.PatchOptions{FieldManager: "fuzz", DryRun: []string{metav1.DryRunAll}})
		})
		var status apierrors.APIStatus
		if err == nil || errors.As(err, &status) && (status.Status().Code < 500 || merged(kind, status.Status())) {
			return
		}
		t.Errorf("%v", err)
	})
}

// merged says that a failure is what upstream makes of a patch that cannot be
// merged, or applied: 500 without a reason.
func merged(kind uint8, status metav1.Status) bool {
	return int(kind)%len(fuzzedPatches) > 0 && status.Reason == metav1.StatusReasonUnknown && !strings.Contains(status.Message, "panic")
}

// Selectors choose, or are refused.
func FuzzSelector(f *testing.F) {
	f.Add("a in (b,c),!d,e notin (f),g>1", "metadata.name=x,status.phase!=y")
	f.Add("a=", "=")
	f.Add(strings.Repeat("a,", 100), `metadata.name=\,\=`)
	s := serve(f, nil)
	l := s.Local(alice, "fuzz")
	f.Fuzz(func(t *testing.T, labels, fields string) {
		var err error
		frugal.Run(t, len(labels)+len(fields), func() {
			_, err = l.List(t.Context(), target.Of(podsOf, "a"), metav1.ListOptions{LabelSelector: labels, FieldSelector: fields, ResourceVersion: "0"})
		})
		if err != nil && !apierrors.IsBadRequest(err) {
			t.Errorf("%v", err)
		}
	})
}
