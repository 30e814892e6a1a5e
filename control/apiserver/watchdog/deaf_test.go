package watchdog

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// wire is a listener for connections in memory, on which time may be false.
type wire struct {
	calls chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func (w *wire) Accept() (net.Conn, error) {
	select {
	case c := <-w.calls:
		return c, nil
	case <-w.done:
		return nil, net.ErrClosed
	}
}

func (w *wire) Close() error { w.once.Do(func() { close(w.done) }); return nil }

func (w *wire) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// deaf is a client's end from which nothing is read from some moment on.
type deaf struct {
	net.Conn
	now    atomic.Bool
	closed chan struct{}
	once   sync.Once
}

func (d *deaf) Read(p []byte) (int, error) {
	if d.now.Load() {
		<-d.closed
		return 0, io.EOF
	}
	return d.Conn.Read(p)
}

func (d *deaf) Close() error { d.once.Do(func() { close(d.closed) }); return d.Conn.Close() }

// A client that takes nothing from its connection any more, so that its stream of HTTP/2
// cannot even be ended, is let go with the connection.
func TestDeafClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin, ended := make(chan struct{}), make(chan time.Duration, 1)
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).Flush()
			<-begin
			dog := New(http.NewResponseController(w).SetWriteDeadline, HangUp(r.Context()))
			piece, since := make([]byte, 1<<20), time.Now()
			dog.Arm(time.Minute)
			defer dog.Disarm()
			for {
				if _, err := w.Write(piece); err != nil {
					ended <- time.Since(since)
					return
				}
			}
		}))
		_ = s.Listener.Close()
		w := &wire{calls: make(chan net.Conn), done: make(chan struct{})}
		s.Listener, s.EnableHTTP2, s.Config.ConnContext = w, true, Over
		// A ticket would be on its way while the client sends its first words, and a
		// wire in memory holds nothing of either.
		s.TLS = &tls.Config{SessionTicketsDisabled: true, MinVersion: tls.VersionTLS13}
		s.StartTLS()
		defer s.Close()
		var client *deaf
		transport := s.Client().Transport.(*http.Transport)
		transport.DialContext = func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			client = &deaf{Conn: here, closed: make(chan struct{})}
			w.calls <- there
			return client, nil
		}
		answer, err := s.Client().Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		if answer.ProtoMajor != 2 {
			t.Fatalf("HTTP/%d", answer.ProtoMajor)
		}
		client.now.Store(true)
		close(begin)
		if took := <-ended; took < time.Minute+parting || took > time.Minute+2*parting {
			t.Errorf("the write ended after %v", took)
		}
		_ = client.Close()
		_ = answer.Body.Close()
	})
}
