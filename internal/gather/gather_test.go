package gather_test

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sampan-dev/sampan/internal/gather"
)

// counted counts the writes that reach a connection.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// pair is a gathering connection and its other end.
func pair(writes *atomic.Int64) (*gather.Conn, net.Conn) {
	here, there := net.Pipe()
	return &gather.Conn{Conn: counted{here, writes}}, there
}

// What is written in small pieces arrives whole, in order, and in fewer pieces;
// large pieces are not held.
func TestJoined(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // else who sends may be quicker than who writes
	var pieces, sent int64
	for _, sizes := range [][]int{{1}, {100, 200}, {100, 5000}, {5000}, {5000, 10, 5000}, {1023, 1, 1023}, {600, 600, 600, 600}} {
		synctest.Test(t, func(t *testing.T) {
			var writes atomic.Int64
			c, there := pair(&writes)
			var want, got bytes.Buffer
			var all sync.WaitGroup
			all.Go(func() { _, _ = io.Copy(&got, there) })
			for i, n := range sizes {
				piece := bytes.Repeat([]byte{byte('a' + i)}, n)
				want.Write(piece)
				if m, err := c.Write(piece); m != n || err != nil {
					t.Fatalf("write %d of %v: %d, %v", i, sizes, m, err)
				}
			}
			synctest.Wait() // with no clock running: nothing is left to a timer
			if got.String() != want.String() {
				t.Errorf("%v: %d bytes have arrived, want %d", sizes, got.Len(), want.Len())
			}
			pieces += int64(len(sizes))
			sent += writes.Load()
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			all.Wait()
		})
	}
	if sent >= pieces {
		t.Errorf("%d pieces took %d writes", pieces, sent)
	}
}

// What was written before the end is sent before it; TLS says goodbye and sets a
// deadline in the past right after.
func TestParting(t *testing.T) {
	for name, part := range map[string]func(net.Conn){
		"close":          func(c net.Conn) { _ = c.Close() },
		"write deadline": func(c net.Conn) { _ = c.SetWriteDeadline(time.Now()); _ = c.Close() },
		"deadline":       func(c net.Conn) { _ = c.SetDeadline(time.Now()); _ = c.Close() },
	} {
		synctest.Test(t, func(t *testing.T) {
			c, there := pair(new(atomic.Int64))
			var got []byte
			var all sync.WaitGroup
			all.Go(func() { got, _ = io.ReadAll(there) })
			_, _ = c.Write([]byte("goodbye"))
			part(c)
			all.Wait()
			if string(got) != "goodbye" {
				t.Errorf("%s: %q has arrived", name, got)
			}
		})
	}
}

// A peer that does not read holds up neither a deadline nor Close, and who writes
// hears that it failed.
func TestPeerThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := pair(new(atomic.Int64))
		if _, err := c.Write([]byte("held")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // it is being sent, and nobody takes it
		if err := c.SetWriteDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		var late net.Error
		if _, err := c.Write([]byte("more")); !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("after a write that nobody took: %v", err)
		}
		begin := time.Now()
		_ = c.Close()
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("close took %v", took)
		}
	})
}

// Below TLS and HTTP/2 an answer with a body is seldom more than one write, and
// nothing is lost.
func TestHTTP2(t *testing.T) {
	const requests = 200
	var writes atomic.Int64
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "answer to "+r.URL.Path)
	}))
	s.EnableHTTP2 = true
	s.Listener = gather.Listener{Listener: counting{s.Listener, &writes}}
	s.StartTLS()
	defer s.Close()
	for i := range requests {
		path := "/" + strings.Repeat("x", i)
		answer, err := s.Client().Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || string(body) != "answer to "+path || answer.ProtoMajor != 2 {
			t.Fatalf("HTTP/%d: %q, %v", answer.ProtoMajor, body, err)
		}
		_ = answer.Body.Close()
	}
	t.Logf("%d writes for %d answers", writes.Load(), requests)
	if n := writes.Load(); n >= requests*2 { // two each without, and the handshake
		t.Errorf("%d writes for %d answers", n, requests)
	}
}

type counting struct {
	net.Listener
	writes *atomic.Int64
}

func (l counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counted{c, l.writes}, nil
}
