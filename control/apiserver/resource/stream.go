package resource

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/streaming/pkg/httpstream/wsstream"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// stream writes a watch to an HTTP client until either end is done.
func (x *exchange) stream(s *stream) {
	if wsstream.IsWebSocketRequest(x.r) {
		x.socket(s)
		return
	}
	x.wrote = true
	h := x.w.Header()
	h.Set("Content-Type", x.form.contentType(true))
	h.Set("Cache-Control", "no-cache, private")
	t := &teller{exchange: x, stream: s}
	if s.initial && acceptsGzip(x.r) { // a whole list is to come: upstream compresses nothing else
		h.Set("Content-Encoding", "gzip")
		h.Add("Vary", "Accept-Encoding")
		t.zip = true
	}
	done := x.hurry()
	x.w.WriteHeader(http.StatusOK)
	x.flush()
	done()
	err := s.each(t.batch, t.fault)
	if err != nil && x.r.Context().Err() == nil {
		x.server.cfg.Log.Debug("watch ended", "path", x.r.URL.Path, "err", err)
	}
}

func (x *exchange) flush() {
	if f, ok := x.w.(http.Flusher); ok {
		f.Flush()
	}
}

// teller turns events into what one client wants to read.
type teller struct {
	*exchange
	stream   *stream
	headings bool // a table's columns have been sent
	zip      bool // each batch is a gzip member of its own
}

// batch writes events and then flushes once.
func (t *teller) batch(events []cache.Event) error {
	defer t.hurry()()
	frames := make([][]byte, 0, len(events))
	for _, e := range events {
		if !t.stream.wanted(e) {
			continue
		}
		data, err := t.encodeEvent(e)
		if err != nil {
			return errors.Join(t.send(frames), &unshown{err})
		}
		frames = append(frames, data)
	}
	if tell := t.server.cfg.Delivered; tell != nil && len(frames) > 0 {
		tell(t.stream.call.gvr, frames)
	}
	return t.send(frames)
}

// send writes what is to arrive together.
func (t *teller) send(frames [][]byte) error {
	var to io.Writer = t.w
	switch {
	case t.zip && total(frames) <= maxStored:
		frames = [][]byte{storedMember(frames)}
	case t.zip:
		z := zippers.Get().(*gzip.Writer)
		defer zippers.Put(z)
		z.Reset(t.w)
		to = z
	}
	if err := writeJoined(to, frames); err != nil {
		return err
	}
	if z, ok := to.(*gzip.Writer); ok {
		// Flushed first, the data can be read before the next member begins.
		if err := errors.Join(z.Flush(), z.Close()); err != nil {
			return err
		}
	}
	t.flush()
	return nil
}

// maxStored is up to how many bytes a batch is not compressed, where compression was
// promised: an event or two are not worth what setting up for it costs.
const maxStored = 8 << 10

func total(frames [][]byte) (n int) {
	for _, f := range frames {
		n += len(f)
	}
	return n
}

// storedMember is a gzip member (RFC 1952) with a block that is stored as it is
// (RFC 1951, 3.2.4), of at most 64 KiB, and two empty ones: after the first of them a
// reader gives away what it has, the second is the last.
func storedMember(frames [][]byte) []byte {
	n := total(frames)
	out := make([]byte, 0, 10+3*5+n+8)
	out = append(out, 0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 0)
	out = binary.LittleEndian.AppendUint16(out, uint16(n))  //nolint:gosec // at most maxStored
	out = binary.LittleEndian.AppendUint16(out, ^uint16(n)) //nolint:gosec // the same
	begin := len(out)
	for _, f := range frames {
		out = append(out, f...)
	}
	sum := crc32.ChecksumIEEE(out[begin:])
	out = append(out, 0, 0, 0, 0xff, 0xff, 1, 0, 0, 0xff, 0xff)
	out = binary.LittleEndian.AppendUint32(out, sum)
	return binary.LittleEndian.AppendUint32(out, uint32(n)) //nolint:gosec // the same
}

// fault writes the error that ends a watch.
func (t *teller) fault(status metav1.Status) error {
	if t.form.unfit != nil {
		return t.form.unfit
	}
	data, err := t.wrap("ERROR", &status)
	if err != nil {
		return err
	}
	return t.send([][]byte{data})
}

func (t *teller) encodeEvent(e cache.Event) ([]byte, error) {
	c := t.stream.call
	if t.form.unfit != nil {
		return nil, t.form.unfit
	}
	if e.Entry != nil && t.form.shape == asIs {
		return c.frame(e, t.form.media)
	}
	var obj kinds.Object
	if e.Entry == nil {
		obj = c.bookmark(e).(kinds.Object)
	} else {
		stored, err := e.Entry.Decode()
		if err != nil {
			return nil, err
		}
		if obj, err = c.shown(stored); err != nil {
			return nil, err
		}
	}
	return t.wrap(e.Type.String(), t.reshape(obj, e.Entry == nil))
}

func (t *teller) reshape(obj kinds.Object, bookmark bool) runtime.Object {
	switch t.form.shape {
	case asTable:
		table := t.stream.call.table([]kinds.Object{obj}, t.form, t.server.cfg.Now())
		table.ResourceVersion = obj.GetResourceVersion()
		if bookmark {
			// Clients find the annotations of a bookmark in its only row.
			table.Rows[0].Object = runtime.RawExtension{Object: partial(obj, t.form.version)}
		}
		if t.headings {
			table.ColumnDefinitions = nil
		}
		t.headings = true
		return table
	case asPartial:
		return partial(obj, t.form.version)
	}
	return obj
}

func (t *teller) wrap(event string, obj runtime.Object) ([]byte, error) {
	data, err := t.server.codec.encodeAs(t.form.media, false, obj)
	if err != nil {
		return nil, err
	}
	return frameOf(event, data, t.form.media)
}
