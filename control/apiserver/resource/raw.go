package resource

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/internal/identity"
)

// Raw gets a path below /api or /apis, with its query, as JSON: also one that
// another server answers for. A refusal is an API status.
func (l *Local) Raw(ctx context.Context, path string) ([]byte, error) {
	return l.raw(ctx, http.MethodGet, path)
}

// RawDelete deletes what a path names, as Raw gets it.
func (l *Local) RawDelete(ctx context.Context, path string) error {
	_, err := l.raw(ctx, http.MethodDelete, path)
	return err
}

func (l *Local) raw(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, RequestTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(identity.With(ctx, l.who), method, path, nil)
	if err != nil {
		return nil, fmt.Errorf("%s %q: %w", method, path, err)
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("User-Agent", l.agent)
	return l.exchange(r)
}

// exchange has a request answered, and gives the answer's body.
func (l *Local) exchange(r *http.Request) ([]byte, error) {
	w := &written{header: http.Header{}, code: http.StatusOK}
	l.server.ServeHTTP(w, r)
	if w.full {
		return nil, fmt.Errorf("%s %q: the answer is longer than %d bytes", r.Method, r.URL.Path, maxRaw)
	}
	if w.code >= http.StatusOK && w.code < http.StatusMultipleChoices {
		return w.body.Bytes(), nil
	}
	return nil, refusal(r, w.code, w.body.Bytes())
}

// refusal is the API status that an answer comes to.
func refusal(r *http.Request, code int, body []byte) error {
	status := metav1.Status{}
	if json.Unmarshal(body, &status) == nil && status.Status == metav1.StatusFailure {
		return &apierrors.StatusError{ErrStatus: status}
	}
	at, _ := parsePath(r.URL.Path)
	return apierrors.NewGenericServerResponse(code, strings.ToLower(r.Method), at.target.Resource.GroupResource(), at.target.Name, string(body), 0, true)
}

// maxRaw bounds an answer that is kept in memory.
const maxRaw = 64 << 20

// written keeps an answer instead of sending it.
type written struct {
	header http.Header
	code   int
	body   bytes.Buffer
	full   bool
}

func (w *written) Header() http.Header  { return w.header }
func (w *written) WriteHeader(code int) { w.code = code }

func (w *written) Write(b []byte) (int, error) {
	if w.body.Len()+len(b) > maxRaw {
		w.full = true
		return 0, errors.New("too long")
	}
	return w.body.Write(b)
}
