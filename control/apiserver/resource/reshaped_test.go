package resource_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/kinds/all"
)

// A list in another shape is put together of shared parts. It says byte for byte
// what encoding it as one object says, which is how people get it who want it
// indented.
func TestReshapedLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, func(c *resource.Config) { c.Kinds = all.Kinds() })
		if err := f.Add(boatRow()); err != nil {
			t.Fatal(err)
		}
		const boats = "/apis/sea.example.com/v1/namespaces/a/boats"
		for i := range 3 {
			odd := fmt.Sprintf(`{"name":"n%d","annotations":{"odd":"<a href=\"x\">&\u2028\\ \u00e9\u0001"}}`, i)
			for path, body := range map[string]string{
				"/api/v1/namespaces/a/pods": `{"metadata":%s,"spec":{"containers":[{"name":"c","image":"busybox"}]}}`,
				allMaps:                     `{"metadata":%s,"data":{"k":"v"}}`,
				boats:                       `{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":%s,"spec":{"planks":3,"draft":1.5}}`,
				"/api/v1/namespaces/a/events": `{"metadata":%s,"involvedObject":{"namespace":"a","kind":"Pod","name":"<p> & \"q\""},` +
					`"message":"<é>\n","firstTimestamp":"2000-01-01T00:00:00Z","count":2}`,
			} {
				if w := f.request("POST", path, fmt.Sprintf(body, odd)); w.Code != http.StatusCreated {
					t.Fatalf("%s: %s", path, w.Body)
				}
			}
		}
		const schemas = "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas"
		for name, precedence := range map[string]int{"early": 2, "late": 9, "between": 5} { // tables have an order of their own
			body := fmt.Sprintf(`{"metadata":{"name":%q},"spec":{"matchingPrecedence":%d,"priorityLevelConfiguration":{"name":"exempt"}}}`, name, precedence)
			if w := f.request("POST", schemas, body); w.Code != http.StatusCreated {
				t.Fatalf("%s: %s", schemas, w.Body)
			}
		}
		lists := []string{schemas, "/api/v1/pods", allMaps, allMaps + "?limit=2", boats, "/api/v1/namespaces/a/events",
			"/apis/events.k8s.io/v1/events", "/apis/apps/v1/deployments", "/api/v1/componentstatuses"}
		for _, wait := range []time.Duration{0, 90 * time.Second, 3 * time.Hour} { // cells tell ages
			time.Sleep(wait)
			for _, path := range lists {
				for _, as := range []string{"Table;v=v1", "Table;v=v1beta1", "PartialObjectMetadataList;v=v1", "PartialObjectMetadataList;v=v1beta1"} {
					for _, include := range []string{"None", "Metadata", "Object"} {
						sameIndented(t, f, path, as, include)
					}
				}
			}
		}
	})
}

func sameIndented(t *testing.T, f *fixture, path, as, include string) {
	t.Helper()
	path += map[bool]string{true: "&", false: "?"}[strings.Contains(path, "?")] + "includeObject=" + include
	accept := []string{"Accept", "application/json;g=meta.k8s.io;as=" + as}
	got := f.request("GET", path, "", accept...)
	indented := f.request("GET", path+"&pretty=true", "", accept...)
	if got.Code != http.StatusOK && got.Code != indented.Code {
		t.Errorf("%s as %s: %d, indented %d", path, as, got.Code, indented.Code)
		return
	}
	var want bytes.Buffer
	if err := json.Compact(&want, indented.Body.Bytes()); err != nil {
		t.Fatal(err)
	}
	if got.Code >= http.StatusBadRequest { // for who accepts no plain JSON, an error is always indented
		var compact bytes.Buffer
		if err := json.Compact(&compact, got.Body.Bytes()); err != nil {
			t.Fatal(err)
		}
		got.Body = &compact
	}
	if want.String() != strings.TrimSuffix(got.Body.String(), "\n") {
		t.Errorf("%s as %s:\n%s\nindented:\n%s", path, as, got.Body, want.String())
	}
}

// Metadata lists in protobuf are what their Go types read; v1beta1 has its fields
// the other way round.
func TestMetadataListsInProtobuf(t *testing.T) {
	f := serve(t, nil)
	for i := range 3 {
		f.request("POST", allMaps, fmt.Sprintf(`{"metadata":{"name":"n%d"}}`, i))
	}
	read := func(version string, into interface{ Unmarshal([]byte) error }) {
		w := f.request("GET", allMaps, "", "Accept", "application/vnd.kubernetes.protobuf;g=meta.k8s.io;as=PartialObjectMetadataList;v="+version)
		var envelope k8sruntime.Unknown
		if err := envelope.Unmarshal(bytes.TrimPrefix(w.Body.Bytes(), []byte("k8s\x00"))); err != nil {
			t.Fatal(err)
		}
		if envelope.Kind != "PartialObjectMetadataList" || envelope.APIVersion != "meta.k8s.io/"+version {
			t.Errorf("envelope of %s: %+v", version, envelope.TypeMeta)
		}
		if err := into.Unmarshal(envelope.Raw); err != nil {
			t.Errorf("%s: %v", version, err)
		}
	}
	var now metav1.PartialObjectMetadataList
	var old metav1beta1.PartialObjectMetadataList
	read("v1", &now)
	read("v1beta1", &old)
	if len(now.Items) != 3 || now.Items[2].Name != "n2" || now.ResourceVersion == "" {
		t.Errorf("v1: %+v", now)
	}
	if len(old.Items) != 3 || old.Items[2].Name != "n2" || old.ResourceVersion != now.ResourceVersion {
		t.Errorf("v1beta1: %+v", old)
	}
}

// A client that asks for a table while others are sent theirs costs little memory
// of its own: the rows are the others' too.
func TestTablesAreShared(t *testing.T) {
	const objects = 500
	f := serve(t, func(c *resource.Config) { c.Now = func() time.Time { return time.Unix(1e9, 0) } })
	for i := range objects {
		f.request("POST", allMaps, fmt.Sprintf(`{"metadata":{"name":"n%d","annotations":{"a":%q}},"data":{"k":"v"}}`, i, strings.Repeat("x", 1000)))
	}
	list := func() uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		w := &counting{header: http.Header{}}
		r := httptest.NewRequest(http.MethodGet, allMaps, nil)
		r.Header.Set("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
		f.ServeHTTP(w, r.WithContext(identity.With(r.Context(), alice)))
		runtime.ReadMemStats(&after)
		if w.size < objects*1000 {
			t.Fatalf("a table of %d bytes", w.size)
		}
		return after.TotalAlloc - before.TotalAlloc
	}
	list()
	least := list()
	for range 9 { // a collection on the way may have thrown away what is kept for the next
		least = min(least, list())
	}
	if least > objects*300 {
		t.Errorf("%d bytes were allocated for a table whose %d rows were known", least, objects)
	}
}

// counting throws away what it is sent.
type counting struct {
	header http.Header
	size   int
}

func (c *counting) Header() http.Header { return c.header }
func (c *counting) WriteHeader(int)     {}
func (c *counting) Write(p []byte) (int, error) {
	c.size += len(p)
	return len(p), nil
}
