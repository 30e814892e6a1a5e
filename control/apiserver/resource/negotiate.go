package resource

import (
	"cmp"
	"fmt"
	"mime"
	"net/http"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/sampan-dev/sampan/internal/speak"
)

// mediaType is how objects are written.
type mediaType int

// The media types that are served.
const (
	mediaJSON mediaType = iota
	mediaYAML
	mediaProtobuf
	mediaCBOR
)

const (
	acceptedMedia   = "application/json, application/yaml, application/vnd.kubernetes.protobuf, application/cbor"
	acceptedStreams = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch, " + cborSequence
	// maxClauses bounds an Accept header; kubectl sends three.
	maxClauses = 32
)

func (m mediaType) String() string {
	return [...]string{"application/json", "application/yaml", "application/vnd.kubernetes.protobuf", "application/cbor"}[m]
}

// mediaOf reads a Content-Type; none means JSON.
func mediaOf(contentType string) (mediaType, bool) {
	if contentType == "" {
		return mediaJSON, true
	}
	name, _, err := mime.ParseMediaType(contentType)
	if err != nil {
		return 0, false
	}
	return mediaNamed(name)
}

func mediaNamed(name string) (mediaType, bool) {
	switch name {
	case "application/json":
		return mediaJSON, true
	case "application/yaml":
		return mediaYAML, true
	case "application/vnd.kubernetes.protobuf":
		return mediaProtobuf, true
	case "application/cbor":
		return mediaCBOR, true
	}
	return 0, false
}

// shape is what an object is turned into before it is written.
type shape int

const (
	asIs shape = iota
	asTable
	asPartial
)

// form is how one client wants its answers.
type form struct {
	media  mediaType
	pretty bool
	shape  shape
	// list says that the metadata of a list is asked for.
	list bool
	// version is that of a table or partial metadata: "v1" or "v1beta1".
	version string
	// include is which object a table's rows carry.
	include metav1.IncludeObjectPolicy
	// unfit is what a reader is told who asks for a shape that the answer, once
	// there is one, cannot have.
	unfit error
}

func (f form) contentType(watch bool) string {
	switch {
	case watch && f.media == mediaProtobuf:
		return f.media.String() + ";stream=watch"
	case watch && f.media == mediaCBOR:
		return cborSequence
	}
	return f.media.String()
}

// clause is one alternative of an Accept header.
type clause struct {
	name   string
	params map[string]string
	q      float64
}

func clauses(header string) []clause {
	out := make([]clause, 0, 4)
	for text := range strings.SplitSeq(header, ",") {
		if len(out) >= maxClauses {
			break
		}
		said, q := speak.Clause(text)
		out = append(out, clause{name: said.Media, params: said.Params, q: q})
	}
	slices.SortStableFunc(out, func(a, b clause) int {
		return cmp.Or(-cmp.Compare(a.q, b.q), cmp.Compare(speak.Vagueness(a.name), speak.Vagueness(b.name)))
	})
	return out
}

// negotiate chooses the first thing that the client accepts and the server has.
func (c *call) negotiate(r *http.Request, watch bool) (form, error) {
	header := strings.Join(r.Header.Values("Accept"), ",")
	if header == "" {
		header = "*/*"
	}
	_, untyped := c.newBody().(runtime.Unstructured)
	for _, cl := range clauses(header) {
		f, ok := cl.form()
		if !ok || untyped && f.media == mediaProtobuf && f.shape == asIs || f.shape == asTable && c.storage == nil {
			continue
		}
		if watch && f.media == mediaYAML {
			return form{}, notAcceptable(acceptedStreams)
		}
		f.pretty = f.media != mediaCBOR && (cl.params["pretty"] == "1" || speak.Pretty(r))
		return c.fitted(f, r)
	}
	return form{}, notAcceptable(acceptedMedia)
}

// fitted completes and checks the shape of a form.
func (c *call) fitted(f form, r *http.Request) (form, error) {
	switch {
	case f.shape == asTable:
		opts := metav1.TableOptions{IncludeObject: metav1.IncludeObjectPolicy(r.URL.Query().Get("includeObject"))}
		if errs := validation.ValidateTableOptions(&opts); len(errs) > 0 {
			return f, apierrors.NewBadRequest("Unable to convert to Table as requested: " + errs[0].Error())
		}
		f.include = cmp.Or(opts.IncludeObject, metav1.IncludeMetadata)
	case f.shape == asPartial && f.list != (c.req.Verb == verbList || c.req.Verb == verbDeleteCollection):
		f.unfit = c.wrongPartial(f)
	}
	switch c.req.Verb {
	case verbGet, verbList, verbWatch: // as upstream's, once there is something to shape
		return f, nil
	}
	// Upstream writes first. Ours refuses before: a 406 should mean that nothing was done.
	return f, f.unfit
}

// wrongPartial is 406 for the metadata of a list where there is one object, and
// the other way round. A watch's events are objects: the first of them ends a watch for
// the metadata of lists, without a word.
func (c *call) wrongPartial(f form) error {
	if f.list {
		return plainStatus(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, fmt.Sprintf(
			"you requested PartialObjectMetadataList, but the requested object is not a list (%s)", c.goType(c.gvk())))
	}
	return plainStatus(http.StatusNotAcceptable, metav1.StatusReasonNotAcceptable, fmt.Sprintf(
		"you requested PartialObjectMetadata, but the requested object is a list (%s)", c.goType(c.listGVK())))
}

// goType is what upstream calls the Go type of a kind.
func (c *call) goType(gvk schema.GroupVersionKind) string {
	if obj, untyped := c.newBody().(runtime.Unstructured); untyped {
		return fmt.Sprintf("%T", obj)
	}
	return "*" + internalPackage(gvk.Group) + "." + gvk.Kind
}

// form is what one clause asks for, if the server has it.
func (cl clause) form() (form, bool) {
	var f form
	switch cl.name {
	case "*/*", "application/*":
		f.media = mediaJSON
	default:
		m, ok := mediaNamed(cl.name)
		if !ok {
			return f, false
		}
		f.media = m
	}
	if sv := cl.params["sv"]; sv != "" && sv != "v1" { // the version of what is not the kind's own, such as options
		return f, false
	}
	as := cl.params["as"]
	if as == "" { // a group or a version alone is that of nothing
		return f, cl.params["g"] == "" && cl.params["v"] == ""
	}
	f.version = cl.params["v"]
	if cl.params["g"] != metav1.GroupName || f.version != "v1" && f.version != "v1beta1" {
		return f, false
	}
	switch as {
	case "Table":
		f.shape = asTable
		return f, f.media != mediaProtobuf && f.media != mediaCBOR
	case "PartialObjectMetadata", "PartialObjectMetadataList":
		f.shape, f.list = asPartial, as == "PartialObjectMetadataList"
		return f, true
	}
	return f, false
}
