package resource

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
	"github.com/sampan-dev/sampan/kinds"
)

// stream writes a watch to an HTTP client until either end is done.
func (x *exchange) stream(s *stream) {
	x.wrote = true
	h := x.w.Header()
	h.Set("Content-Type", x.form.contentType(true))
	h.Set("Cache-Control", "no-cache, private")
	done := x.hurry()
	x.w.WriteHeader(http.StatusOK)
	x.flush()
	done()
	t := &teller{exchange: x, stream: s}
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
}

// batch writes events and then flushes once.
func (t *teller) batch(events []cache.Event) error {
	defer t.hurry()()
	for _, e := range events {
		if !t.stream.wanted(e) {
			continue
		}
		data, err := t.encodeEvent(e)
		if err != nil {
			return err
		}
		if _, err := t.w.Write(data); err != nil {
			return err
		}
	}
	t.flush()
	told(t.r.Context(), events)
	return nil
}

// fault writes the error that ends a watch.
func (t *teller) fault(status metav1.Status) error {
	data, err := t.wrap("ERROR", &status)
	if err != nil {
		return err
	}
	_, err = t.w.Write(data)
	t.flush()
	return err
}

func (t *teller) encodeEvent(e cache.Event) ([]byte, error) {
	c := t.stream.call
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
