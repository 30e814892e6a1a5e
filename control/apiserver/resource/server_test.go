package resource_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/resource"
	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/seal"
	"github.com/sampan-dev/sampan/internal/target"
	"github.com/sampan-dev/sampan/internal/timeline"
	"github.com/sampan-dev/sampan/kinds/all"
)

// What is stored is upstream's key and upstream's envelope, without a revision.
func TestStoredForm(t *testing.T) {
	f := serve(t, nil)
	f.request("POST", "/api/v1/namespaces/a/configmaps", `{"metadata":{"name":"one"},"data":{"k":"v"}}`)
	e, _, err := f.store.Get(t.Context(), "/registry/configmaps/a/one")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(e.Value, []byte("k8s\x00")) {
		t.Fatalf("stored bytes are %q", e.Value)
	}
	obj, gvk, err := scheme.Codecs().UniversalDeserializer().Decode(e.Value, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	cm := obj.(*corev1.ConfigMap)
	if gvk.Kind != "ConfigMap" || cm.ResourceVersion != "" || cm.Data["k"] != "v" || cm.UID == "" {
		t.Errorf("stored is %v %+v", gvk, cm)
	}
}

func TestSealedSecrets(t *testing.T) {
	key := seal.Key{Name: "k1", Secret: bytes.Repeat([]byte{7}, 32)}
	s, err := seal.New(key)
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, func(c *resource.Config) { c.Transformers = map[string]resource.Transformer{"secrets": s} })
	const path = "/api/v1/namespaces/a/secrets"
	if w := f.request("POST", path, `{"metadata":{"name":"s"},"stringData":{},"data":{"k":"dmFsdWU="}}`); w.Code != http.StatusCreated {
		t.Fatal(w.Body)
	}
	e, _, err := f.store.Get(t.Context(), "/registry/secrets/a/s")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(e.Value, []byte("k8s:enc:aesgcm:v1:k1:")) || bytes.Contains(e.Value, []byte("value")) {
		t.Fatalf("stored bytes are %q", e.Value)
	}
	// From the store, then through the cache, then from a cached copy changed.
	for _, get := range []string{path + "/s", path, path + "/s"} {
		if w := f.request("GET", get, ""); !strings.Contains(w.Body.String(), "dmFsdWU=") {
			t.Errorf("%s: %d %s", get, w.Code, w.Body)
		}
	}
	w := f.request("PATCH", path+"/s", `{"data":{"k":"bmV3"}}`, "Content-Type", "application/merge-patch+json")
	if w.Code != http.StatusOK {
		t.Error(w.Body)
	}
	if e, _, _ = f.store.Get(t.Context(), "/registry/secrets/a/s"); !bytes.HasPrefix(e.Value, []byte("k8s:enc:")) {
		t.Errorf("after an update stored bytes are %q", e.Value)
	}
}

func TestProtobufBodies(t *testing.T) {
	f := serve(t, nil)
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs().SupportedMediaTypes(), runtime.ContentTypeProtobuf)
	cm := configMap("a", "one", map[string]string{"k": "v"})
	cm.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("ConfigMap"))
	body, err := runtime.Encode(info.Serializer, cm)
	if err != nil {
		t.Fatal(err)
	}
	w := f.request("POST", "/api/v1/namespaces/a/configmaps", string(body),
		"Content-Type", runtime.ContentTypeProtobuf, "Accept", runtime.ContentTypeProtobuf)
	obj, _, err := scheme.Codecs().UniversalDeserializer().Decode(w.Body.Bytes(), nil, nil)
	if err != nil || w.Code != http.StatusCreated || obj.(*corev1.ConfigMap).Data["k"] != "v" {
		t.Errorf("%d %v %v", w.Code, err, obj)
	}
	w = f.request("GET", "/api/v1/namespaces/a/configmaps/none", "", "Accept", runtime.ContentTypeProtobuf)
	obj, _, err = scheme.Codecs().UniversalDeserializer().Decode(w.Body.Bytes(), nil, nil)
	if err != nil || w.Code != http.StatusNotFound || obj.(*metav1.Status).Reason != metav1.StatusReasonNotFound {
		t.Errorf("%d %v %v", w.Code, err, obj)
	}
}

// A protobuf watch is frames of length and event; objects are in the envelope.
func TestProtobufWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, nil)
		f.request("POST", "/api/v1/namespaces/a/configmaps", `{"metadata":{"name":"one"}}`)
		w := f.request("GET", "/api/v1/configmaps?watch=1&timeoutSeconds=1", "",
			"Accept", "application/vnd.kubernetes.protobuf;stream=watch,application/vnd.kubernetes.protobuf")
		if ct := w.Header().Get("Content-Type"); ct != "application/vnd.kubernetes.protobuf;stream=watch" {
			t.Errorf("content type %q", ct)
		}
		data := w.Body.Bytes()
		size := binary.BigEndian.Uint32(data)
		var e metav1.WatchEvent
		if err := e.Unmarshal(data[4:]); err != nil || int(size) != len(data)-4 {
			t.Fatalf("%v; frame of %d, rest of %d", err, size, len(data)-4)
		}
		obj, _, err := scheme.Codecs().UniversalDeserializer().Decode(e.Object.Raw, nil, nil)
		if err != nil || e.Type != "ADDED" || obj.(*corev1.ConfigMap).Name != "one" {
			t.Errorf("%s %v %v", e.Type, obj, err)
		}
	})
}

func TestLimits(t *testing.T) {
	f := serve(t, nil)
	const path = "/api/v1/namespaces/a/configmaps"
	f.request("POST", path, `{"metadata":{"name":"one"}}`)
	ops := "[" + strings.Repeat(`{"op":"test","path":"/kind","value":"ConfigMap"},`, resource.MaxPatchOperations) + `{"op":"test","path":"/kind","value":"ConfigMap"}]`
	for _, c := range []struct {
		name, method, path, body, media string
		code                            int
		text                            string
	}{
		{"body", "POST", path, strings.Repeat(" ", resource.MaxBody+1), "", 413, "Request entity too large: limit is 3145728"},
		{"operations", "PATCH", path + "/one", ops, "application/json-patch+json", 413, "The allowed maximum operations in a JSON patch is 10000, got 10001"},
		{"nesting", "POST", path, strings.Repeat(`{"a":`, 100_000), "", 400, "exceeded max depth"},
		{"yaml aliases", "POST", path, bomb(), "application/yaml", 400, ""},
		{"value", "POST", path, `{"metadata":{"name":"big"},"data":{"k":"` + strings.Repeat("x", 1600<<10) + `"}}`, "", 413, "too large"},
		{"not utf-8", "POST", path, "{\"metadata\":{\"name\":\"\xff\"}}", "", 422, "metadata.name"},
	} {
		w := f.request(c.method, c.path, c.body, "Content-Type", c.media)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.text) {
			t.Errorf("%s: %d %.300s", c.name, w.Code, w.Body)
		}
	}
}

// bomb is nine levels of nine aliases: a gigabyte if it were spelled out.
func bomb() string {
	var b strings.Builder
	b.WriteString("a0: &a0 [x,x,x,x,x,x,x,x,x]\n")
	for i := range 9 {
		fmt.Fprintf(&b, "a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 9), ","))
	}
	return b.String()
}

func TestCompression(t *testing.T) {
	f := serve(t, nil)
	const path = "/api/v1/namespaces/a/configmaps"
	for i := range 20 {
		body := fmt.Sprintf(`{"metadata":{"name":"c%02d"},"data":{"k":%q}}`, i, strings.Repeat("x", 10_000))
		if w := f.request("POST", path, body); w.Code != http.StatusCreated {
			t.Fatal(w.Body)
		}
	}
	plain := f.request("GET", path, "")
	packed := f.request("GET", path, "", "Accept-Encoding", "gzip")
	if packed.Header().Get("Content-Encoding") != "gzip" || packed.Body.Len()*10 > plain.Body.Len() {
		t.Fatalf("%v, %d bytes of %d", packed.Header(), packed.Body.Len(), plain.Body.Len())
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(data, plain.Body.Bytes()) {
		t.Errorf("%v; %d bytes, want %d", err, len(data), plain.Body.Len())
	}
	if w := f.request("GET", path+"/c00", "", "Accept-Encoding", "gzip"); w.Header().Get("Content-Encoding") != "" {
		t.Error("a small answer is compressed")
	}
}

// judge is an admission that says what it saw, changes and refuses.
type judge struct{ seen []string }

func (j *judge) Admit(_ context.Context, a *resource.Attributes) error {
	j.seen = append(j.seen, fmt.Sprintf("admit %s %s by %s", a.Operation, a.Target, a.User.Name))
	if cm, ok := a.Object.(*corev1.ConfigMap); ok {
		cm.Labels = map[string]string{"admitted": "yes"}
	}
	return nil
}

func (j *judge) Validate(_ context.Context, a *resource.Attributes) error {
	j.seen = append(j.seen, fmt.Sprintf("validate %s %s", a.Operation, a.Target))
	if a.Target.Name == "bad" {
		return errors.New("not on my watch")
	}
	return nil
}

func TestAdmissionAndAudit(t *testing.T) {
	j := &judge{}
	var audit []string
	f := serve(t, func(c *resource.Config) {
		c.Admission = j
		c.Audit = func(_ context.Context, e resource.AuditEvent) {
			audit = append(audit, fmt.Sprintf("%s %s %d", e.Request.Verb, e.Request.Target, e.Code))
		}
	})
	l, ctx := f.Local(alice, "test"), t.Context()
	at := target.Of(configMaps, "a")
	made, err := l.Create(ctx, at, configMap("a", "good", nil), metav1.CreateOptions{})
	if err != nil || made.(*corev1.ConfigMap).Labels["admitted"] != "yes" {
		t.Errorf("%v %v", made, err)
	}
	_, err = l.Create(ctx, at, configMap("a", "bad", nil), metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "not on my watch") {
		t.Errorf("refused with %v", err)
	}
	f.request("DELETE", "/api/v1/namespaces/a/configmaps/good", "")
	want := `admit CREATE configmaps a/good by alice
validate CREATE configmaps a/good
admit CREATE configmaps a/bad by alice
validate CREATE configmaps a/bad
admit DELETE configmaps a/good by alice
validate DELETE configmaps a/good
create configmaps a/ 201
create configmaps a/ 403
delete configmaps a/good 200`
	if got := strings.Join(append(j.seen, audit...), "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestTimeline(t *testing.T) {
	marks := timeline.New()
	f := serve(t, func(c *resource.Config) { c.Timeline = marks })
	pod, err := f.Local(alice, "test").Create(t.Context(), target.Of(podsOf, "a"),
		&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var steps []string
	for _, m := range marks.Of(string(pod.(*corev1.Pod).UID)) {
		steps = append(steps, m.Step.String())
	}
	if got := strings.Join(steps, " "); got != "request admit store" {
		t.Errorf("marked %q", got)
	}
}

// After the compaction loop, old revisions and tokens are gone, and the error
// says how to go on.
func TestCompaction(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := serve(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx) }()
		for i := range 3 {
			f.request("POST", "/api/v1/namespaces/a/configmaps", fmt.Sprintf(`{"metadata":{"name":"c%d"}}`, i))
		}
		time.Sleep(2*resource.CompactEvery + time.Second)
		w := f.request("GET", "/api/v1/configmaps?resourceVersion=2&resourceVersionMatch=Exact", "")
		if w.Code != http.StatusGone {
			t.Errorf("old list: %d %s", w.Code, w.Body)
		}
		// Where nothing has changed since, it is as old.
		if w = f.request("GET", "/api/v1/pods?resourceVersion=2&resourceVersionMatch=Exact", ""); w.Code != http.StatusGone {
			t.Errorf("old list of what has not changed: %d %s", w.Code, w.Body)
		}
		// {"v":"meta.k8s.io/v1","rv":2,"start":"a/c1"}
		w = f.request("GET", "/api/v1/configmaps?continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6Miwic3RhcnQiOiJhL2MxIn0", "")
		var status metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &status); err != nil {
			t.Fatal(err)
		}
		if w.Code != http.StatusGone || status.Reason != metav1.StatusReasonExpired || status.Continue == "" {
			t.Fatalf("old token: %d %+v", w.Code, status)
		}
		w = f.request("GET", "/api/v1/configmaps?continue="+status.Continue, "")
		var rest corev1.ConfigMapList
		if err := json.Unmarshal(w.Body.Bytes(), &rest); err != nil || len(rest.Items) != 2 || rest.Items[0].Name != "c1" {
			t.Errorf("the rest: %d %v %+v", w.Code, err, rest.Items)
		}
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	})
}

// The real table: a deployment and a pod through every rule that the kinds have.
func TestRealKinds(t *testing.T) {
	f := serve(t, func(c *resource.Config) {
		c.Kinds = all.Kinds()
		c.Log = slog.New(slog.NewTextHandler(t.Output(), nil))
	})
	pod := `{"containers":[{"name":"c","image":"busybox"}]}`
	w := f.request("POST", "/api/v1/namespaces/a/pods", `{"metadata":{"name":"p"},"spec":`+pod+`}`)
	if w.Code != http.StatusCreated || !strings.Contains(w.Body.String(), `"dnsPolicy":"ClusterFirst"`) {
		t.Errorf("pod: %d %s", w.Code, w.Body)
	}
	w = f.request("POST", "/apis/apps/v1/namespaces/a/deployments",
		`{"metadata":{"name":"d"},"spec":{"selector":{"matchLabels":{"a":"b"}},"template":{"metadata":{"labels":{"a":"b"}},"spec":`+pod+`}}}`)
	var d appsv1.Deployment
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || d.Spec.Replicas == nil || d.Generation != 1 {
		t.Errorf("deployment: %d %s", w.Code, w.Body)
	}
	for _, path := range []string{"/api/v1/pods", "/apis/apps/v1/deployments"} {
		w = f.request("GET", path, "", "Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
		var table metav1.Table
		if err := json.Unmarshal(w.Body.Bytes(), &table); err != nil || len(table.Rows) != 1 || len(table.Rows[0].Cells) != len(table.ColumnDefinitions) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	for _, k := range f.Kinds() {
		if k.Storage == "" {
			continue
		}
		gv := "/apis/" + k.GVK.GroupVersion().String()
		if k.GVK.Group == "" {
			gv = "/api/" + k.GVK.Version
		}
		for _, media := range []string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/json;as=Table;v=v1;g=meta.k8s.io"} {
			if w := f.request("GET", gv+"/"+k.Resource, "", "Accept", media); w.Code != http.StatusOK {
				t.Errorf("list %s as %s: %d %s", k.Resource, media, w.Code, w.Body)
			}
		}
	}
}
