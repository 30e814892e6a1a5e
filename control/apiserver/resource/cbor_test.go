package resource_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor/direct"
	"k8s.io/apimachinery/pkg/util/json"
	"sigs.k8s.io/yaml"

	"github.com/sampan-dev/sampan/internal/scheme"
)

// cborOf is YAML in CBOR, as a client without Go types writes it.
func cborOf(t testing.TB, text string) string {
	t.Helper()
	raw, err := yaml.YAMLToJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var v any
	if err := json.Unmarshal(raw, &v); err != nil { // whole numbers stay whole
		t.Fatal(err)
	}
	data, err := direct.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// readCBOR decodes an answer, which must be of CBOR.
func readCBOR(t *testing.T, h http.Header, data []byte) map[string]any {
	t.Helper()
	if got := h.Get("Content-Type"); got != "application/cbor" {
		t.Fatalf("content type %q: %.300q", got, data)
	}
	if !bytes.HasPrefix(data, []byte("\xd9\xd9\xf7")) {
		t.Fatalf("no tag: %.40q", data)
	}
	var v map[string]any
	if err := direct.Unmarshal(data, &v); err != nil {
		t.Fatalf("%v: %.300q", err, data)
	}
	return v
}

const (
	inCBOR    = "application/cbor"
	applyCBOR = "application/apply-patch+cbor"
)

// at follows keys into decoded maps; a missing one is nil.
func at(v any, keys ...string) any {
	for _, k := range keys {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		v = m[k]
	}
	return v
}

// Every verb speaks CBOR, for kinds with and without Go types; what is read back
// in JSON is the same.
func TestCBORVerbs(t *testing.T) {
	f := serve(t, nil)
	if err := f.Add(boatRow()); err != nil {
		t.Fatal(err)
	}
	for path, object := range map[string]string{
		allMaps: "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\ndata: {k: v}\n",
		"/apis/sea.example.com/v1/namespaces/a/boats": "apiVersion: sea.example.com/v1\nkind: Boat\nmetadata: {name: one}\ndata: {k: v}\n",
	} {
		for _, step := range []struct {
			method, path, media, body string
			code                      int
			want                      any
			keys                      []string
		}{
			{"POST", "", inCBOR, object, 201, "v", []string{"data", "k"}},
			{"GET", "/one", "", "", 200, "one", []string{"metadata", "name"}},
			{"PUT", "/one", inCBOR, strings.Replace(object, "k: v", "k: w", 1), 200, "w", []string{"data", "k"}},
			{"PATCH", "/one?fieldManager=m&force=true", applyCBOR, strings.Replace(object, "k: v", "k: x", 1), 200, "x", []string{"data", "k"}},
			{"PATCH", "/two?fieldManager=m", applyCBOR, strings.Replace(object, "one", "two", 1), 201, "two", []string{"metadata", "name"}},
			{"PATCH", "/two?fieldManager=n", applyCBOR, strings.NewReplacer("one", "two", "k: v", "k: z").Replace(object), 409, "Conflict", []string{"reason"}},
			{"PATCH", "/one", "application/merge-patch+json", `{"data":{"k":"y"}}`, 200, "y", []string{"data", "k"}},
			{"GET", "/none", "", "", 404, "NotFound", []string{"reason"}},
			{"DELETE", "/two", inCBOR, `{preconditions: {uid: x}}`, 409, "Conflict", []string{"reason"}},
			{"DELETE", "/two", inCBOR, `{kind: DeleteOptions, apiVersion: v1, gracePeriodSeconds: 0}`, 200, "Success", []string{"status"}},
		} {
			body := step.body
			if strings.HasSuffix(step.media, "cbor") {
				body = cborOf(t, body)
			}
			w := f.request(step.method, path+step.path, body, "Content-Type", step.media, "Accept", inCBOR)
			got := readCBOR(t, w.Header(), w.Body.Bytes())
			if w.Code != step.code || fmt.Sprint(at(got, step.keys...)) != step.want {
				t.Errorf("%s %s%s: %d %v", step.method, path, step.path, w.Code, got)
			}
			if kind := at(got, "kind"); step.code < 300 && step.method != "DELETE" && kind != at(readYAML(t, object), "kind") {
				t.Errorf("%s %s%s: kind %v", step.method, path, step.path, kind)
			}
		}
		if w := f.request("GET", path+"/one", ""); !strings.Contains(w.Body.String(), `"k":"y"`) {
			t.Errorf("in JSON: %s", w.Body)
		}
	}
}

func readYAML(t *testing.T, text string) (v any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// A list is put together of shared encodings, and is what upstream's own decoder
// takes for the list that it gets as JSON; partial metadata too.
func TestCBORLists(t *testing.T) {
	f := serve(t, nil)
	if err := f.Add(boatRow()); err != nil {
		t.Fatal(err)
	}
	const boats = "/apis/sea.example.com/v1/namespaces/a/boats"
	for i := range 30 {
		f.request("POST", allMaps, fmt.Sprintf(`{"metadata":{"name":"c%02d"},"data":{"k":"v%d"},"binaryData":{"b":"AAE="}}`, i, i))
		f.request("POST", boats, fmt.Sprintf(`{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"b%d"},"spec":{"planks":%d,"draft":1.5}}`, i, i))
	}
	const partial = ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	for _, path := range []string{allMaps, allMaps + "?limit=7", allMaps + "?labelSelector=a", boats, boats + "?limit=1", "/apis/apps/v1/deployments"} {
		for _, as := range []string{"", partial} {
			plain := f.request("GET", path, "", "Accept", "application/json"+as)
			coded := f.request("GET", path, "", "Accept", inCBOR+as)
			want, got := readYAML(t, plain.Body.String()), readCBOR(t, coded.Header(), coded.Body.Bytes())
			if a, b := asJSON(t, want), asJSON(t, got); a != b {
				t.Errorf("%s%s: JSON\n%s\nCBOR\n%s", path, as, a, b)
			}
		}
	}
	coded := f.request("GET", allMaps, "", "Accept", inCBOR).Body.Bytes()
	s := scheme.Scheme()
	obj, _, err := cbor.NewSerializer(s, s).Decode(coded, nil, nil)
	list, ok := obj.(*corev1.ConfigMapList)
	if err != nil || !ok || len(list.Items) != 30 || string(list.Items[3].BinaryData["b"]) != "\x00\x01" || list.Items[0].Kind != "" {
		t.Errorf("%v %+v", err, obj)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// A watch is a sequence of events, each with its tag, whether the client asks for
// the type of one or of the sequence's events.
func TestCBORWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, nil)
		if err := f.Add(boatRow()); err != nil {
			t.Fatal(err)
		}
		const boats = "/apis/sea.example.com/v1/namespaces/a/boats"
		f.request("POST", allMaps, `{"metadata":{"name":"one"}}`)
		f.request("POST", boats, `{"apiVersion":"sea.example.com/v1","kind":"Boat","metadata":{"name":"one"}}`)
		for path, kind := range map[string]string{allMaps: "ConfigMap", boats: "Boat"} {
			for _, as := range []string{"", ";stream=watch", ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"} {
				w := f.request("GET", path+"?watch=1&timeoutSeconds=1&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", "", "Accept", inCBOR+as)
				if got := w.Header().Get("Content-Type"); got != "application/cbor-seq" {
					t.Fatalf("content type %q: %s", got, w.Body)
				}
				want := kind
				if strings.Contains(as, "Partial") {
					want = "PartialObjectMetadata"
				}
				if got := eventsOf(t, w.Body.Bytes()); got != fmt.Sprintf("ADDED %s one, BOOKMARK %s , ", want, want) {
					t.Errorf("%s%s: %s", path, as, got)
				}
			}
		}
		w := f.request("GET", allMaps+"?watch=1&resourceVersion=1000&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan", "", "Accept", inCBOR)
		if got := eventsOf(t, w.Body.Bytes()); got != "ERROR Status , " {
			t.Errorf("a future revision: %s", got)
		}
	})
}

// eventsOf reads a sequence as client-go does.
func eventsOf(t *testing.T, data []byte) string {
	t.Helper()
	frames := cbor.NewFramer().NewFrameReader(io.NopCloser(bytes.NewReader(data)))
	s := scheme.Scheme()
	var out strings.Builder
	for buf := make([]byte, 1<<16); ; {
		n, err := frames.Read(buf)
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		var e metav1.WatchEvent
		if _, _, err := cbor.NewSerializer(s, s, cbor.Transcode(false)).Decode(buf[:n], nil, &e); err != nil {
			t.Fatalf("%v: %q", err, buf[:n])
		}
		var obj metav1.PartialObjectMetadata
		if !bytes.HasPrefix(e.Object.Raw, []byte("\xd9\xd9\xf7")) {
			t.Fatalf("an object without a tag: %q", e.Object.Raw)
		}
		var m map[string]any
		if err := direct.Unmarshal(e.Object.Raw, &m); err != nil {
			t.Fatal(err)
		}
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &obj); err != nil && e.Type != "ERROR" {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%s %v %s, ", e.Type, m["kind"], obj.Name)
	}
}

// What is wrong in CBOR is said as upstream says it.
func TestCBORFaults(t *testing.T) {
	f := serve(t, nil)
	f.request("POST", allMaps, `{"metadata":{"name":"one"}}`)
	twice := "\xa2Ddata\xa0Ddata\xa0"
	unknown := cborOf(t, "{apiVersion: v1, kind: ConfigMap, metadata: {name: two}, wings: 2}")
	deep := strings.Repeat("\x81", depth) + "\xf6"
	for _, c := range []struct {
		about, method, path, media, accept, body string
		code                                     int
		text                                     string
	}{
		{"a key twice", "POST", allMaps + "?fieldValidation=Ignore", inCBOR, "", twice, 400, `duplicate map key`},
		{"a key twice to apply", "PATCH", oneMap + "?fieldManager=m&fieldValidation=Ignore", applyCBOR, "", twice, 400, `error decoding patch: cbor: found duplicate map key`},
		{"an unknown field", "POST", allMaps + "?fieldValidation=Strict", inCBOR, "", unknown, 400, `ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: cbor: found unknown field at map element index`},
		{"an unknown field that nobody minds", "POST", allMaps + "?fieldValidation=Ignore", inCBOR, "", unknown, 201, ""},
		{"no end", "POST", allMaps, inCBOR, "", "\xa5", 400, "EOF"},
		{"deep", "POST", allMaps, inCBOR, "", deep, 400, "nested level"},
		{"deep to apply", "PATCH", oneMap + "?fieldManager=m", applyCBOR, "", deep, 400, "nested level"},
		{"a list to apply", "PATCH", oneMap + "?fieldManager=m", applyCBOR, "", "\x80", 400, "error decoding patch"},
		{"text that is none", "POST", allMaps, inCBOR, "", "\xa1Dkind\x61\xff", 400, "UTF-8"},
		{"infinity", "POST", allMaps, inCBOR, "", "\xa1Ddata\xf9\x7c\x00", 400, ""},
		{"a huge number", "POST", allMaps, inCBOR, "", "\xa1Ddata\x1b\xff\xff\xff\xff\xff\xff\xff\xff", 400, ""},
		{"lengths that lie", "POST", allMaps, inCBOR, "", "\xa1Ddata\x9a\x7f\xff\xff\xff", 400, "EOF"},
		{"two items", "POST", allMaps, inCBOR, "", "\xa0\xa0", 400, "extraneous"},
		{"a table", "GET", allMaps, "", inCBOR + ";as=Table;g=meta.k8s.io;v=v1", "", 406, "application/cbor"},
		{"a sequence for one", "GET", allMaps, "", "application/cbor-seq", "", 406, "application/cbor"},
		{"YAML to watch", "GET", allMaps + "?watch=1", "", "application/yaml", "", 406, "application/cbor-seq"},
		{"an unknown patch", "PATCH", oneMap, "application/x+cbor", "", "", 415, "415: Unsupported Media Type"},
	} {
		w := f.request(c.method, c.path, c.body, "Content-Type", c.media, "Accept", c.accept)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %.400s", c.about, w.Code, w.Body)
		}
	}
	w := f.request("POST", allMaps+"?dryRun=All", unknown, "Content-Type", inCBOR)
	if got := w.Header().Get("Warning"); w.Code != 201 && w.Code != 409 || !strings.Contains(got, "unknown field at map element") {
		t.Errorf("%d %q %s", w.Code, got, w.Body)
	}
}
