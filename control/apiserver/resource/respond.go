package resource

import (
	"compress/gzip"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	autoscalingv1 "k8s.io/api/autoscaling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/internal/speak"
	"github.com/sampan-dev/sampan/kinds"
)

// gzipFrom is the size from which answers are compressed for clients that accept
// it; below, the time costs more than the bytes. gzipLevel is upstream's.
const (
	gzipFrom  = 128 << 10
	gzipLevel = 1
)

// zippers are gzip writers to use again: each weighs 800 KiB.
var zippers = sync.Pool{New: func() any {
	z, err := gzip.NewWriterLevel(io.Discard, gzipLevel)
	if err != nil {
		panic(err) // the level is a constant that exists
	}
	return z
}}

// unhurried is the size of an answer for which no deadline is set: net/http keeps
// that much and sends it after the handler has returned, so that a deadline around
// the writing would bound nothing, and cost HTTP/2 two messages.
const unhurried = 4 << 10

// fail writes an error as a Status, in the best media type of which the client says
// nothing else than its name.
func (x *exchange) fail(err error) {
	status := statusOf(err)
	f := form{}
	how, acceptable := speak.OfErrors(x.r)
	f.media, _ = mediaNamed(how.Media) // of those that are spoken, each is one of ours
	f.pretty = how.Pretty && f.media != mediaCBOR
	data, encErr := x.encode(f, &status)
	if encErr != nil {
		http.Error(x.w, status.Message, int(status.Code))
		return
	}
	if !acceptable {
		data = speak.Indented(&status)
	}
	if d := status.Details; d != nil && d.RetryAfterSeconds > 0 {
		x.w.Header().Set("Retry-After", strconv.Itoa(int(d.RetryAfterSeconds)))
	}
	x.write(int(status.Code), f.contentType(false), [][]byte{data})
}

// respond writes an answer in the form that was negotiated.
func (x *exchange) respond(out *answer) {
	var pieces [][]byte
	var err error
	switch {
	case out.stream != nil:
		x.stream(out.stream)
		return
	case out.page != nil:
		if pieces, err = x.pageBytes(out.page); err != nil {
			x.fail(x.call.unreadable(err))
			return
		}
	default:
		pieces, err = x.objectBytes(out)
	}
	if err != nil {
		x.fail(apierrors.NewInternalError(err))
		return
	}
	x.write(out.code, x.form.contentType(false), pieces)
}

// objectBytes encodes one object; straight from the cache where it is just what
// an entry holds.
func (x *exchange) objectBytes(out *answer) ([][]byte, error) {
	if status, ok := out.object.(*metav1.Status); ok {
		shown := *status
		shown.Kind, shown.APIVersion = "Status", "v1"
		data, err := x.encode(form{media: x.form.media, pretty: x.form.pretty}, &shown)
		return [][]byte{data}, err
	}
	if scale, ok := out.object.(*autoscalingv1.Scale); ok && x.form.shape == asTable {
		data, err := x.encode(x.form, scaleTable(scale, x.form, x.server.cfg.Now()))
		return [][]byte{data}, err
	}
	obj, own := out.object.(kinds.Object)
	own = own && obj.GetObjectKind().GroupVersionKind() == x.call.kind.GVK && x.call.storage != nil
	switch {
	case own && x.form.shape == asTable:
		t := x.call.table([]kinds.Object{obj}, x.form, x.server.cfg.Now())
		t.ResourceVersion = obj.GetResourceVersion()
		data, err := x.encode(x.form, t)
		return [][]byte{data}, err
	case own && x.form.shape == asPartial:
		data, err := x.encode(x.form, partial(obj, x.form.version))
		return [][]byte{data}, err
	case own && out.entry != nil && !x.form.pretty && x.form.media != mediaYAML:
		return x.call.itemBytes(item{out.entry}, x.form.media, true)
	}
	data, err := x.encode(x.form, out.object)
	return [][]byte{data}, err
}

// pageBytes encodes a list. But for people who read it, it is put together from
// encodings that the cache shares among clients: however many lists are being
// written, there is one copy of what is in them.
func (x *exchange) pageBytes(p *page) ([][]byte, error) {
	f := x.form
	switch {
	case f.media == mediaYAML || f.pretty:
		list, err := x.listOf(p)
		if err != nil {
			return nil, err
		}
		data, err := x.encode(f, list)
		return [][]byte{data}, err
	case f.shape == asTable:
		return x.call.tableList(p, f, x.server.cfg.Now())
	case f.shape == asPartial:
		return x.call.metaList(p, f)
	case f.media == mediaProtobuf:
		return x.call.protobufList(p)
	case f.media == mediaCBOR:
		return x.call.cborList(p)
	}
	return x.call.jsonList(p)
}

// listOf makes the list, the table or the partial metadata of a page.
func (x *exchange) listOf(p *page) (runtime.Object, error) {
	if x.form.shape == asIs {
		return x.call.listObject(p)
	}
	objects := make([]kinds.Object, 0, len(p.items))
	for _, it := range p.items {
		obj := it.object(x.call.collection)
		if obj == nil {
			_, err := it.entry.Decode()
			return nil, err
		}
		objects = append(objects, obj)
	}
	if x.form.shape == asTable {
		t := x.call.table(objects, x.form, x.server.cfg.Now())
		t.ListMeta = p.meta()
		return t, nil
	}
	list := &metav1.PartialObjectMetadataList{ListMeta: p.meta()}
	list.SetGroupVersionKind(metaVersion(x.form.version).WithKind("PartialObjectMetadataList"))
	for _, obj := range objects {
		list.Items = append(list.Items, *partial(obj, x.form.version))
	}
	return list, nil
}

// meta is the page's list metadata.
func (p *page) meta() metav1.ListMeta {
	if p.revision == 0 {
		return metav1.ListMeta{} // of objects that nobody stores
	}
	return metav1.ListMeta{
		ResourceVersion:    strconv.FormatInt(p.revision, 10),
		Continue:           p.cont,
		RemainingItemCount: p.remaining,
	}
}

func (x *exchange) encode(f form, obj runtime.Object) ([]byte, error) {
	return x.server.codec.encodeAs(f.media, f.pretty, obj)
}

func (c *codec) encodeAs(m mediaType, pretty bool, obj runtime.Object) ([]byte, error) {
	switch {
	case m == mediaProtobuf:
		return c.encodeProto(obj)
	case m == mediaCBOR:
		return c.cbor.Encode(obj)
	case m == mediaYAML:
		data, err := encode(c.json, obj)
		if err != nil {
			return nil, err
		}
		return speak.InYAML(data)
	case pretty:
		return encode(c.jsonPretty, obj)
	}
	return encode(c.json, obj)
}

// write sends the pieces of a body, compressed when that pays.
func (x *exchange) write(code int, contentType string, pieces [][]byte) {
	x.wrote = true
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	h := x.w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-cache, private")
	if size > unhurried {
		defer x.hurry()()
	}
	if size < gzipFrom || !acceptsGzip(x.r) {
		h.Set("Content-Length", strconv.Itoa(size))
		x.w.WriteHeader(code)
		_ = writeJoined(x.w, pieces) // fails only when the client has gone
		return
	}
	h.Set("Content-Encoding", "gzip")
	h.Add("Vary", "Accept-Encoding")
	x.w.WriteHeader(code)
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(x.w)
	for _, p := range pieces {
		if _, err := z.Write(p); err != nil {
			return
		}
	}
	_ = z.Close() // fails only when the client has gone
}

func acceptsGzip(r *http.Request) bool {
	for _, e := range strings.Split(r.Header.Get("Accept-Encoding"), ",") {
		name, q, _ := strings.Cut(strings.TrimSpace(e), ";")
		if name == "gzip" && strings.ReplaceAll(q, " ", "") != "q=0" {
			return true
		}
	}
	return false
}
