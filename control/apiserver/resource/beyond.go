package resource

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/conversion/queryparams"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/sampan-dev/sampan/internal/identity"
	"github.com/sampan-dev/sampan/internal/target"
)

// Requests of this process for what another server answers for go the way of any
// HTTP request, without a network in between; their objects are unstructured. So a
// component of the same process sees what one outside would.

// beyond says that a resource is not in the table, and that somebody else may have it.
func (l *Local) beyond(t target.Target) bool {
	_, served := l.server.table.Load().byResource[t.Resource]
	return !served && t.Resource.Group != "" && l.server.cfg.Fallback != nil
}

// errand is one such request.
type errand struct {
	method  string
	at      target.Target
	options any // a pointer to the verb's options; nil: none
	body    any // nil: none
	media   string
}

// path is the request's path and query.
func (e errand) path() (string, error) {
	t := e.at
	parts := []string{"", "apis", t.Resource.Group, t.Resource.Version}
	if t.Namespace != "" {
		parts = append(parts, "namespaces", t.Namespace)
	}
	parts = append(parts, t.Resource.Resource)
	for _, part := range []string{t.Name, t.Subresource} {
		if part != "" {
			parts = append(parts, part)
		}
	}
	for i := range parts {
		parts[i] = url.PathEscape(parts[i])
	}
	path := strings.Join(parts, "/")
	if e.options == nil {
		return path, nil
	}
	query, err := queryparams.Convert(e.options)
	if err != nil {
		return "", fmt.Errorf("options of %s: %w", t, err)
	}
	if text := query.Encode(); text != "" {
		path += "?" + text
	}
	return path, nil
}

// request makes the HTTP request.
func (l *Local) errand(ctx context.Context, e errand) (*http.Request, error) {
	path, err := e.path()
	if err != nil {
		return nil, err
	}
	var body []byte
	if raw, ok := e.body.([]byte); ok {
		body = raw
	} else if e.body != nil {
		if body, err = json.Marshal(e.body); err != nil {
			return nil, fmt.Errorf("encode the body for %s: %w", e.at, err)
		}
	}
	r, err := http.NewRequestWithContext(identity.With(ctx, l.who), e.method, path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", e.method, e.at, err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", l.agent)
	if len(body) > 0 {
		r.Header.Set("Content-Type", "application/json")
		if e.media != "" {
			r.Header.Set("Content-Type", e.media)
		}
	}
	return r, nil
}

// far runs an errand and gives the object or list that came of it.
func (l *Local) far(ctx context.Context, e errand) (runtime.Object, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	r, err := l.errand(ctx, e)
	if err != nil {
		return nil, err
	}
	data, err := l.exchange(r)
	if err != nil {
		return nil, err
	}
	obj, _, err := unstructured.UnstructuredJSONScheme.Decode(data, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("decode the answer about %s: %w", e.at, err)
	}
	return obj, nil
}

// farPatch is a patch as an errand.
func farPatch(t target.Target, pt types.PatchType, data []byte, opts *metav1.PatchOptions) errand {
	return errand{method: http.MethodPatch, at: t, options: opts, body: data, media: string(pt)}
}

// farWatch watches what another server has. The initial state cannot be had that
// way: not every server knows how, and nobody says so.
func (l *Local) farWatch(ctx context.Context, t target.Target, opts metav1.ListOptions) (watch.Interface, error) {
	if opts.SendInitialEvents != nil {
		return nil, apierrors.NewInvalid(metav1.SchemeGroupVersion.WithKind("ListOptions").GroupKind(), "", field.ErrorList{
			field.Forbidden(field.NewPath("sendInitialEvents"), "sendInitialEvents is forbidden for a watch of another server's objects")})
	}
	opts.Watch = true
	ctx, cancel := context.WithCancel(ctx)
	r, err := l.errand(ctx, errand{method: http.MethodGet, at: t, options: &opts})
	if err != nil {
		cancel()
		return nil, err
	}
	from, to := io.Pipe()
	w := &piped{written: written{header: http.Header{}, code: http.StatusOK}, to: to, begun: make(chan struct{})}
	l.server.wg.Go(func() {
		defer cancel()
		l.server.ServeHTTP(w, r)
		w.begin()
		_ = to.Close()
	})
	stop := context.AfterFunc(l.server.ctx, cancel)
	select {
	case <-w.begun:
	case <-ctx.Done():
	}
	ok := func() bool {
		select {
		case <-w.begun:
			return w.code >= http.StatusOK && w.code < http.StatusMultipleChoices
		default:
			return false
		}
	}()
	if !ok {
		text, _ := io.ReadAll(io.LimitReader(from, maxRaw)) // what cannot be read is not told
		stop()
		cancel()
		return nil, errors.Join(refusal(r, w.code, text), ctx.Err())
	}
	events := bufio.NewScanner(from)
	events.Buffer(nil, maxRaw)
	return watch.NewStreamWatcher(&farEvents{events, func() { stop(); cancel(); _ = from.Close() }}, tellFar{}), nil
}

// piped is an answer that is read while it is written.
type piped struct {
	written
	to    *io.PipeWriter
	begun chan struct{} // closed once the code is known
}

func (p *piped) begin() {
	select {
	case <-p.begun:
	default:
		close(p.begun)
	}
}

func (p *piped) WriteHeader(code int) {
	select {
	case <-p.begun:
		return
	default:
	}
	p.code = code
	p.begin()
}

func (p *piped) Write(b []byte) (int, error) {
	p.begin()
	return p.to.Write(b)
}

// Flush implements http.Flusher: nothing is held back.
func (p *piped) Flush() { p.begin() }

// farEvents reads a watch's events, a line each.
type farEvents struct {
	lines *bufio.Scanner
	close func()
}

func (f *farEvents) Close() { f.close() }

func (f *farEvents) Decode() (watch.EventType, runtime.Object, error) {
	if !f.lines.Scan() {
		if err := f.lines.Err(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			return "", nil, err
		}
		return "", nil, io.EOF
	}
	var e struct {
		Type   watch.EventType
		Object json.RawMessage
	}
	if err := json.Unmarshal(f.lines.Bytes(), &e); err != nil {
		return "", nil, fmt.Errorf("decode a watch event: %w", err)
	}
	if e.Type == watch.Error {
		status := &metav1.Status{}
		err := json.Unmarshal(e.Object, status)
		return e.Type, status, err
	}
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON(e.Object); err != nil {
		return "", nil, fmt.Errorf("decode the object of a watch event: %w", err)
	}
	return e.Type, obj, nil
}

// tellFar makes an error of reading a watch its last event.
type tellFar struct{}

func (tellFar) AsObject(err error) runtime.Object {
	status := statusOf(err)
	return &status
}
