package discovery

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/speak"
)

// maxEncoded bounds the documents that are kept in other media types than JSON: there
// are two forms of /api and /apis, and one for each group and version.
const maxEncoded = 512

// the parameters of the aggregated form.
const aggregatedParams = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"

// Encoded serves what next has to say in JSON in the media type that the client asks
// for. Safe for concurrent use.
func Encoded(next http.Handler) http.Handler {
	return &encoder{next: next, kept: map[encodedKey]encoded{}}
}

type encoder struct {
	next http.Handler
	mu   sync.Mutex
	kept map[encodedKey]encoded
}

type encodedKey struct {
	path, media string
	aggregated  bool
}

// encoded is a document, made of the JSON that had this etag.
type encoded struct {
	etag string
	body []byte
}

// ServeHTTP implements http.Handler.
func (e *encoder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	path := "/" + strings.Trim(r.URL.Path, "/")
	// Upstream's list of groups is served by code of another kind than the rest.
	if accept := r.Header.Get("Accept"); path != "/apis" && accept != "" && !speak.Named(accept, speak.All()) {
		speak.Refuse(w, r, speak.NotProduced(speak.All()))
		return
	}
	choice, aggregated, ok := chosen(r.Header, path == "/api" || r.URL.Path == "/apis")
	if !ok {
		speak.Refuse(w, r, speak.NotAcceptable())
		return
	}
	accept := speak.JSON
	if aggregated {
		accept = aggregatedType
	}
	ask := r.Clone(r.Context())
	ask.Header.Set("Accept", accept)
	pretty := choice == speak.JSON && !aggregated && speak.Pretty(r)
	if choice == speak.JSON && !pretty || r.Method != http.MethodGet && r.Method != http.MethodHead {
		e.next.ServeHTTP(w, ask)
		return
	}
	ask.Method = http.MethodGet
	ask.Header.Del("If-None-Match")
	ask.Header.Del("Accept-Encoding")
	seen := &seen{header: http.Header{}, code: http.StatusOK}
	e.next.ServeHTTP(seen, ask)
	maps.Copy(w.Header(), seen.header)
	w.Header().Del("Content-Length")
	if seen.code != http.StatusOK {
		w.WriteHeader(seen.code)
		_, _ = w.Write(seen.body.Bytes()) // the client has gone: nobody to tell
		return
	}
	if pretty {
		var body bytes.Buffer
		_ = json.Indent(&body, bytes.TrimSpace(seen.body.Bytes()), "", "  ") // it is our own JSON
		_, _ = w.Write(body.Bytes())                                         // the client has gone: nobody to tell
		return
	}
	media := choice
	if aggregated {
		media += ";" + aggregatedParams
	}
	doc, err := e.encode(encodedKey{path, choice, aggregated}, seen)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", media)
	if doc.etag != "" && r.Header.Get("If-None-Match") == doc.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(doc.body) // the client has gone: nobody to tell
}

// chosen is what the client likes best of what there is: the aggregated form, which is
// one of /api and /apis alone, wherever it is named at all.
func chosen(h http.Header, whole bool) (media string, aggregated, ok bool) {
	choices := slices.DeleteFunc(speak.Choices(h), func(c speak.Choice) bool { return c.Params["sv"] != "" })
	for _, c := range choices {
		if whole && c.Params["as"] == "APIGroupDiscoveryList" && c.Params["g"] == "apidiscovery.k8s.io" && c.Params["v"] == "v2" {
			return c.Media, true, true
		}
	}
	for _, c := range choices {
		if c.Params["as"] == "" && c.Params["g"] == "" && c.Params["v"] == "" {
			return c.Media, false, true
		}
	}
	return "", false, false
}

func (e *encoder) encode(k encodedKey, of *seen) (encoded, error) {
	etag := of.header.Get("Etag")
	e.mu.Lock()
	have, ok := e.kept[k]
	e.mu.Unlock()
	if ok && have.etag == etag && etag != "" {
		return have, nil
	}
	obj, err := parse(of.body.Bytes())
	if err != nil {
		return encoded{}, err
	}
	body, err := speak.Encode(k.media, obj)
	if err != nil {
		return encoded{}, fmt.Errorf("encode discovery of %q: %w", k.path, err)
	}
	made := encoded{etag, body}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.kept) >= maxEncoded {
		clear(e.kept)
	}
	e.kept[k] = made
	return made, nil
}

// parse reads a document in JSON.
func parse(raw []byte) (runtime.Object, error) {
	var is metav1.TypeMeta
	if err := json.Unmarshal(raw, &is); err != nil {
		return nil, fmt.Errorf("decode own discovery: %w", err)
	}
	var obj runtime.Object
	switch is.Kind {
	case "APIVersions":
		obj = &metav1.APIVersions{}
	case "APIGroupList":
		obj = &metav1.APIGroupList{}
	case "APIGroup":
		obj = &metav1.APIGroup{}
	case "APIResourceList":
		obj = &metav1.APIResourceList{}
	case "APIGroupDiscoveryList":
		obj = &apidiscoveryv2.APIGroupDiscoveryList{}
	default:
		return nil, fmt.Errorf("decode own discovery: %w", errors.New("a document of kind "+is.Kind))
	}
	if err := json.Unmarshal(raw, obj); err != nil {
		return nil, fmt.Errorf("decode own discovery: %w", err)
	}
	return obj, nil
}

// seen is an answer that is looked at before it goes on.
type seen struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

// Header implements http.ResponseWriter.
func (s *seen) Header() http.Header { return s.header }

// WriteHeader implements http.ResponseWriter.
func (s *seen) WriteHeader(code int) { s.code = code }

// Write implements io.Writer.
func (s *seen) Write(b []byte) (int, error) { return s.body.Write(b) }
