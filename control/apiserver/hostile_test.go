package apiserver

import (
	"bytes"
	"crypto/tls"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	resets = 20_000
	slow   = 50
)

// A client that opens and resets streams as fast as it can, and others that send
// a header a byte at a time, keep nobody from being served, and leave nothing.
func TestRapidResetsAndSlowHeaders(t *testing.T) {
	w := start(t)
	honest := w.as("admin", "system:masters")
	if code, text := w.do(honest, http.MethodGet, "/api/v1/namespaces/default", nil, nil); code != http.StatusOK {
		t.Fatalf("%d %s", code, text)
	}
	before := runtime.NumGoroutine()
	var idle []io.Closer
	for range slow {
		conn := w.dial("http/1.1")
		_, err := io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: a\r\nX-Slow: ")
		must(t, err)
		idle = append(idle, conn)
	}
	flooded := make(chan error, 1)
	go func() { flooded <- flood(w.dial("h2")) }()
	for range 20 {
		begin := time.Now()
		code, text := w.do(honest, http.MethodGet, "/api/v1/namespaces/default", nil, nil)
		if code != http.StatusOK {
			t.Fatalf("%d %s", code, text)
		}
		if took := time.Since(begin); took > time.Second {
			t.Logf("an honest request took %v", took)
		}
	}
	if err := <-flooded; err != nil {
		t.Logf("the server ended the flood: %v", err)
	}
	for _, c := range idle {
		must(t, c.Close())
	}
	// What the server does of itself comes and goes by a few; a leak is one for each
	// connection, or for each stream.
	bound := before + slow/2
	for deadline := time.Now().Add(patient); runtime.NumGoroutine() > bound && time.Now().Before(deadline); {
		runtime.Gosched()
	}
	if after := runtime.NumGoroutine(); after > bound {
		t.Errorf("%d goroutines before, %d after", before, after)
	}
}

func (w *world) dial(protocol string) *tls.Conn {
	w.t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(w.url, "https://"), &tls.Config{RootCAs: w.ca.Pool(), NextProtos: []string{protocol}})
	must(w.t, err)
	return conn
}

// flood is CVE-2023-44487: requests that are taken back at once.
func flood(conn *tls.Conn) error {
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	frames := http2.NewFramer(conn, conn)
	if err := frames.WriteSettings(); err != nil {
		return err
	}
	go func() { _, _ = io.Copy(io.Discard, conn) }() // it ends with the connection
	var block bytes.Buffer
	enc := hpack.NewEncoder(&block)
	for i := range uint32(resets) {
		block.Reset()
		for _, field := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/api/v1/pods"}} {
			if err := enc.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
				return err
			}
		}
		id := 2*i + 1
		if err := frames.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true}); err != nil {
			return err
		}
		if err := frames.WriteRSTStream(id, http2.ErrCodeCancel); err != nil {
			return err
		}
	}
	return nil
}
