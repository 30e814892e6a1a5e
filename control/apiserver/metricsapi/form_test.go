package metricsapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"testing"
	"testing/synctest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/cbor"
	"k8s.io/metrics/pkg/apis/metrics/v1beta1"
)

// What each Accept header brings, read by upstream's own decoders.
func TestForms(t *testing.T) {
	scheme := runtime.NewScheme()
	if err := v1beta1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	if err := metav1.AddMetaToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	const pods = root + "/pods?labelSelector=app%3Dweb"
	const one = root + "/namespaces/default/pods/a"
	const meta = ";g=meta.k8s.io;v=v1;as="
	cases := []struct{ path, accept, want string }{
		{pods, "", "application/json *v1beta1.PodMetricsList"},
		{pods, "*/*", "application/json *v1beta1.PodMetricsList"},
		{pods, "application/vnd.kubernetes.protobuf", "application/vnd.kubernetes.protobuf *v1beta1.PodMetricsList"},
		{pods, "application/cbor", "application/cbor *v1beta1.PodMetricsList"},
		{one, "application/yaml", "application/yaml *v1beta1.PodMetrics"},
		{root + "/nodes", "application/vnd.kubernetes.protobuf, application/json", "application/vnd.kubernetes.protobuf *v1beta1.NodeMetricsList"},
		{root + "/nodes", "application/json" + meta + "Table, application/json", "application/json *v1.Table"},
		{pods, "application/vnd.kubernetes.protobuf" + meta + "Table, application/json", "application/json *v1beta1.PodMetricsList"},
		{pods, "application/vnd.kubernetes.protobuf" + meta + "PartialObjectMetadataList", "application/vnd.kubernetes.protobuf *v1.PartialObjectMetadataList"},
		{one, "application/json" + meta + "PartialObjectMetadata", "application/json *v1.PartialObjectMetadata"},
		{one, "application/json" + meta + "PartialObjectMetadataList", "406"},
		{pods, "application/json;g=other;v=v1;as=Table", "406"},
		{pods, "text/html", "406"},
	}
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{}
		a := start(c)
		defer a.Close()
		decoder := serializer.NewCodecFactory(scheme, serializer.WithSerializer(cbor.NewSerializerInfo))
		for _, tc := range cases {
			if got := asked(t, a, decoder, tc.path, tc.accept); got != tc.want {
				t.Errorf("%s as %q: %s, want %s", tc.path, tc.accept, got, tc.want)
			}
		}
	})
}

// asked is what an answer calls itself and what it is.
func asked(t *testing.T, a *API, of serializer.CodecFactory, path, accept string) string {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	a.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return strconv.Itoa(w.Code)
	}
	info, ok := runtime.SerializerInfoForMediaType(of.SupportedMediaTypes(), w.Header().Get("Content-Type"))
	if !ok {
		t.Fatalf("%s: media type %q", path, w.Header().Get("Content-Type"))
	}
	obj, _, err := info.Serializer.Decode(w.Body.Bytes(), nil, nil)
	if err != nil {
		t.Fatalf("%s as %q: %v", path, accept, err)
	}
	return fmt.Sprintf("%s %T", info.MediaType, obj)
}
