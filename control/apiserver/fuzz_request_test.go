package apiserver

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sampan-dev/sampan/control/apiserver/authn"
	"github.com/sampan-dev/sampan/internal/frugal"
)

// patience is how long a request may last; a watch would for ever.
func patience(r *http.Request) time.Duration {
	if strings.Contains(r.RequestURI, "watch") {
		return 20 * time.Millisecond
	}
	return 10 * time.Second
}

// FuzzRequest: whatever an HTTP request says in its line, its headers and its body,
// it is answered, cheaply and not with a failure of the server; and who has no
// rights gets nothing by it but what is for everybody.
func FuzzRequest(f *testing.F) {
	for i, line := range []string{
		"GET /api/v1/namespaces/default/configmaps?limit=1&continue=eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MSwic3RhcnQiOiJhIn0",
		"GET /api/v1/pods?labelSelector=a%20in%20(b,c)&fieldSelector=spec.nodeName%3Dx&resourceVersion=0&resourceVersionMatch=NotOlderThan",
		"GET /api/v1/pods?watch=1&sendInitialEvents=true&allowWatchBookmarks=true&timeoutSeconds=1",
		"GET /apis/apps/v1/namespaces/default/deployments/x/scale", "GET /api/v1/watch/namespaces/default/pods/a",
		"DELETE /api/v1/namespaces/default/configmaps?gracePeriodSeconds=-1&propagationPolicy=Orphan&orphanDependents=true",
		"GET /api/v1/namespaces/..%2f..%2fapi/v1/nodes", "GET //api//v1//nodes", "GET /api/v1/namespaces/%00/pods", "GET /apis/x.y/v1/../../../api/v1/secrets",
		"GET /api/v1/namespaces/default/services/https:kubernetes:https/proxy/../../version", "GET /api/v1/nodes/n:1/proxy/x?y=%zz",
		"GET /openapi/v3/apis/apps/v1?hash=1", "GET /apis/apps", "GET /version", "GET /metrics", "GET /readyz?verbose&exclude=etcd", "GET /debug/api_priority_and_fairness/dump_queues",
		"POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews?pretty=x&dryRun=All", "POST /api/v1/namespaces/default/serviceaccounts/default/token",
		"PATCH /api/v1/namespaces/default/serviceaccounts/default?fieldManager=m&force=yes&fieldValidation=Strict", "OPTIONS *", "CONNECT a:1", "GET http://x/api", "BREW /api/v1/pods",
	} {
		all := []string{
			"Accept: application/json;as=Table;g=meta.k8s.io;v=v1,application/cbor;q=0.9,*/*\r\nContent-Type: application/merge-patch+json",
			"Accept-Encoding: gzip\r\nContent-Type: application/cbor\r\nContent-Encoding: gzip", "Impersonate-User: system:admin\r\nImpersonate-Extra-a%2fb: c",
			"X-Remote-User: admin\r\nX-Remote-Group: system:masters", "Authorization: Basic YTpi", "Authorization: Bearer abcdef.0123456789abcdef\r\nIf-None-Match: *",
			"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13",
		}
		for _, headers := range []string{all[i%len(all)], all[(i+3)%len(all)]} {
			f.Add([]byte(line + " HTTP/1.1\r\nHost: a\r\n" + headers + "\r\nContent-Length: 34\r\n\r\n{\"metadata\":{\"labels\":{\"a\":\"b\"}}} "))
		}
	}
	a := aim(f)
	admin, eve := a.as(f, "admin", "system:masters"), a.as(f, "eve")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 1<<20 {
			return // net/http's limit
		}
		for _, who := range []string{"admin", "eve"} {
			r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
			if err != nil {
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience(r))
			r = r.WithContext(ctx)
			harmless(r)
			if r.TLS = admin; who == "eve" {
				r.TLS = eve
			}
			w := httptest.NewRecorder()
			frugal.Run(t, len(raw), func() { a.Handler().ServeHTTP(w, r) })
			late := ctx.Err() != nil
			cancel()
			if w.Code >= 500 && !late && !elsewhere(r) {
				t.Fatalf("%s: %s %s: %d %s", who, r.Method, r.URL, w.Code, w.Body)
			}
			if who == "eve" && w.Code < 300 && !forAll(r) {
				t.Fatalf("eve: %s %q: %d %.300s", r.Method, r.URL.Path, w.Code, w.Body)
			}
		}
	})
}

// harmless lets nothing be written: what a target says must not depend on what it
// was shown before.
func harmless(r *http.Request) {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return
	}
	q := r.URL.Query()
	q.Set("dryRun", "All")
	r.URL.RawQuery = q.Encode()
}

// elsewhere: another server is asked, and there is none.
func elsewhere(r *http.Request) bool { return strings.Contains(r.URL.Path, "/proxy") }

// forAll is what upstream lets everybody who has a name ask.
func forAll(r *http.Request) bool {
	path := r.URL.Path
	if r.Method == http.MethodPost {
		return strings.HasPrefix(path, "/apis/authorization.k8s.io/v1/selfsubject") || strings.HasPrefix(path, "/apis/authentication.k8s.io/v1/selfsubject")
	}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	switch parts[0] {
	case "api":
		return len(parts) <= 2
	case "apis":
		return len(parts) <= 3
	case "openapi", "version":
		return true
	}
	return authn.IsHealth(path)
}

// FuzzSocket: a client that watches over WebSocket and sends whatever it likes is
// heard, or dropped, and leaves nothing behind.
func FuzzSocket(f *testing.F) {
	masked := func(op byte, text string) []byte {
		return append([]byte{0x80 | op, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
	}
	f.Add(masked(1, "hello"))
	f.Add(append(masked(9, "ping"), masked(8, "\x03\xe8")...))
	f.Add([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	f.Add([]byte{0x01, 0x80, 0, 0, 0, 0, 0x80, 0x80, 0, 0, 0, 0})
	f.Add([]byte{0x81, 0x05, 'h', 'e', 'l', 'l', 'o'})
	a := aim(f)
	admin := a.as(f, "admin", "system:masters")
	f.Fuzz(func(t *testing.T, frames []byte) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/namespaces?watch=1", nil)
		r.TLS = admin
		for name, value := range map[string]string{"Connection": "upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Origin": "http://example.com"} {
			r.Header.Set(name, value)
		}
		c := &said{in: bytes.NewReader(frames)}
		frugal.Run(t, len(frames), func() { a.Handler().ServeHTTP(&taken{ResponseRecorder: httptest.NewRecorder(), conn: c}, r) })
		if !strings.HasPrefix(c.out.String(), "HTTP/1.1 101 ") || !c.closed {
			t.Fatalf("answered %q, closed %t", c.out.String(), c.closed)
		}
	})
}

// taken is a response whose connection can be taken over.
type taken struct {
	*httptest.ResponseRecorder
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (t *taken) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}

// said is a connection over which everything has been said already.
type said struct {
	in     *bytes.Reader
	mu     sync.Mutex // guards what follows
	out    bytes.Buffer
	closed bool
}

func (s *said) Read(p []byte) (int, error) { return s.in.Read(p) }

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	return s.out.Write(p)
}

func (s *said) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

func (s *said) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (s *said) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (s *said) SetDeadline(time.Time) error      { return nil }
func (s *said) SetReadDeadline(time.Time) error  { return nil }
func (s *said) SetWriteDeadline(time.Time) error { return nil }
