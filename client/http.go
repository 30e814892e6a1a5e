package client

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"

	"github.com/sampan-dev/sampan/internal/scheme"
	"github.com/sampan-dev/sampan/internal/target"
)

// Content types of the wire.
const (
	contentProtobuf = "application/vnd.kubernetes.protobuf"
	contentJSON     = "application/json"
)

// optionsVersion is the version in which request options are encoded.
var optionsVersion = schema.GroupVersion{Version: "v1"}

// httpTransport speaks HTTPS. Kinds of internal/scheme travel as protobuf and
// arrive as their Go types, all others as JSON and arrive unstructured.
type httpTransport struct {
	cfg  *rest.Config
	http *http.Client

	mu      sync.Mutex
	clients map[schema.GroupVersion]*rest.RESTClient
}

// NewHTTP returns a Transport that speaks to the API server of cfg over HTTP or
// HTTPS, reusing connections. cfg says where and as whom; its content type and
// rate limits are ignored: the server's flow control decides what is too much.
func NewHTTP(cfg *rest.Config) (Transport, error) {
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // no client-side limit
	if cfg.UserAgent == "" {
		cfg.UserAgent = "sampan"
	}
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make HTTP client for %q: %w", cfg.Host, err)
	}
	return &httpTransport{cfg: cfg, http: client, clients: map[schema.GroupVersion]*rest.RESTClient{}}, nil
}

// Get implements Transport.
func (h *httpTransport) Get(ctx context.Context, t target.Target, opts metav1.GetOptions) (runtime.Object, error) {
	return h.do(ctx, http.MethodGet, t, &opts, nil)
}

// List implements Transport.
func (h *httpTransport) List(ctx context.Context, t target.Target, opts metav1.ListOptions) (runtime.Object, error) {
	return h.do(ctx, http.MethodGet, t, &opts, nil)
}

// Watch implements Transport.
func (h *httpTransport) Watch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	opts.Watch = true
	req, err := h.request(http.MethodGet, t, &opts)
	if err != nil {
		return nil, err
	}
	if opts.TimeoutSeconds != nil {
		req.Timeout(time.Duration(*opts.TimeoutSeconds) * time.Second)
	}
	return req.Watch(ctx)
}

// Create implements Transport.
func (h *httpTransport) Create(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.CreateOptions) (runtime.Object, error) {
	return h.do(ctx, http.MethodPost, t, &opts, obj)
}

// Update implements Transport.
func (h *httpTransport) Update(ctx context.Context, t target.Target, obj runtime.Object, opts metav1.UpdateOptions) (runtime.Object, error) {
	return h.do(ctx, http.MethodPut, t, &opts, obj)
}

// Patch implements Transport.
func (h *httpTransport) Patch(ctx context.Context, t target.Target, pt types.PatchType, data []byte, opts metav1.PatchOptions) (runtime.Object, error) {
	req, err := h.request(http.MethodPatch, t, &opts)
	if err != nil {
		return nil, err
	}
	return req.SetHeader("Content-Type", string(pt)).Body(data).Do(ctx).Get()
}

// Delete implements Transport.
func (h *httpTransport) Delete(ctx context.Context, t target.Target, opts metav1.DeleteOptions) error {
	_, err := h.do(ctx, http.MethodDelete, t, nil, &opts)
	return err
}

// DeleteCollection implements Transport.
func (h *httpTransport) DeleteCollection(ctx context.Context, t target.Target, opts metav1.DeleteOptions, list metav1.ListOptions) error {
	_, err := h.do(ctx, http.MethodDelete, t, &list, &opts)
	return err
}

// do sends one request and decodes the answer; body may be nil.
func (h *httpTransport) do(ctx context.Context, verb string, t target.Target, opts, body runtime.Object) (runtime.Object, error) {
	req, err := h.request(verb, t, opts)
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Body(body)
	}
	return req.Do(ctx).Get()
}

func (h *httpTransport) request(verb string, t target.Target, opts runtime.Object) (*rest.Request, error) {
	client, err := h.client(t.Resource.GroupVersion())
	if err != nil {
		return nil, err
	}
	req := client.Verb(verb).NamespaceIfScoped(t.Namespace, t.Namespace != "").Resource(t.Resource.Resource)
	if t.Name != "" {
		req.Name(t.Name)
	}
	if t.Subresource != "" {
		req.SubResource(t.Subresource)
	}
	if opts != nil {
		req.SpecificallyVersionedParams(opts, scheme.Parameters(), optionsVersion)
	}
	return req, nil
}

// client returns the REST client of a group's version: they share connections
// and differ in the path and the codec.
func (h *httpTransport) client(gv schema.GroupVersion) (*rest.RESTClient, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if c := h.clients[gv]; c != nil {
		return c, nil
	}
	cfg := rest.CopyConfig(h.cfg)
	cfg.GroupVersion = &gv
	cfg.APIPath = "/apis"
	if gv.Group == "" {
		cfg.APIPath = "/api"
	}
	cfg.ContentType = contentProtobuf
	cfg.AcceptContentTypes = contentProtobuf + "," + contentJSON
	cfg.NegotiatedSerializer = scheme.Codecs().WithoutConversion()
	if !scheme.Scheme().IsVersionRegistered(gv) {
		cfg.ContentType, cfg.AcceptContentTypes = contentJSON, contentJSON
		cfg.NegotiatedSerializer = untyped{scheme.Codecs()}
	}
	c, err := rest.RESTClientForConfigAndClient(cfg, h.http)
	if err != nil {
		return nil, fmt.Errorf("make REST client for %s: %w", gv, err)
	}
	h.clients[gv] = c
	return c, nil
}

// untyped serves the kinds that have no Go type here. What the scheme knows
// (options, Status, watch events) is decoded into its type, the rest becomes
// unstructured.
type untyped struct{ serializer.CodecFactory }

// EncoderForVersion implements runtime.NegotiatedSerializer.
func (untyped) EncoderForVersion(runtime.Encoder, runtime.GroupVersioner) runtime.Encoder {
	return untypedCodec{}
}

// DecoderToVersion implements runtime.NegotiatedSerializer.
func (untyped) DecoderToVersion(runtime.Decoder, runtime.GroupVersioner) runtime.Decoder {
	return untypedCodec{}
}

type untypedCodec struct{}

// Encode writes obj as JSON.
func (untypedCodec) Encode(obj runtime.Object, w io.Writer) error {
	if _, ok := obj.(runtime.Unstructured); ok {
		return unstructured.UnstructuredJSONScheme.Encode(obj, w)
	}
	return scheme.Codecs().LegacyCodec(optionsVersion).Encode(obj, w)
}

// Identifier implements runtime.Encoder.
func (untypedCodec) Identifier() runtime.Identifier { return "untyped" }

// Decode reads JSON into a known type or an unstructured object.
func (untypedCodec) Decode(data []byte, gvk *schema.GroupVersionKind, into runtime.Object) (runtime.Object, *schema.GroupVersionKind, error) {
	obj, kind, err := scheme.Codecs().UniversalDeserializer().Decode(data, gvk, into)
	if err == nil || !runtime.IsNotRegisteredError(err) {
		return obj, kind, err
	}
	return unstructured.UnstructuredJSONScheme.Decode(data, gvk, nil)
}
