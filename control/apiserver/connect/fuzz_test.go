package connect

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"testing"
	"time"

	"k8s.io/streaming/pkg/httpstream/spdy"

	"github.com/sampan-dev/sampan/internal/frugal"
)

// shouted is where a command of the test's node is run.
const shouted = "/api/v1/namespaces/x/pods/web/exec?container=shout&command=shout&stdin=true&stdout=true&stderr=true"

// The ways in which a client may speak after an upgrade: WebSocket, to be translated
// into the node's SPDY; a WebSocket with SPDY inside; SPDY, which goes to the node
// as it is; and WebSocket that only listens.
var upgrades = []struct{ method, path, headers string }{
	{http.MethodGet, shouted, "Upgrade: websocket\r\nSec-WebSocket-Protocol: v5.channel.k8s.io\r\n"},
	{http.MethodGet, shouted, "Upgrade: websocket\r\nSec-WebSocket-Protocol: SPDY/3.1+v4.channel.k8s.io\r\n"},
	{http.MethodPost, shouted, "Upgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n"},
	{http.MethodGet, "/api/v1/namespaces/x/pods/web/log?container=a", "Upgrade: websocket\r\nSec-WebSocket-Protocol: base64.binary.k8s.io\r\n"},
}

// frame is a WebSocket message of a client, masked with zeros.
func frame(op byte, text string) []byte {
	if len(text) > 125 {
		return append([]byte{0x80 | op, 0x80 | 126, byte(len(text) >> 8), byte(len(text)), 0, 0, 0, 0}, text...)
	}
	return append([]byte{0x80 | op, 0x80 | byte(len(text)), 0, 0, 0, 0}, text...)
}

// FuzzFrames: whatever a client says in the frames of WebSocket or SPDY, it is heard
// or dropped, cheaply, and its connection ends once it has hung up.
func FuzzFrames(f *testing.F) {
	streams := spoken(f)
	f.Add(uint8(0), append(append(frame(2, "\x00quiet"), frame(2, "\xff\x00")...), frame(8, "")...))
	f.Add(uint8(0), append(frame(2, "\x04{\"Width\":1,\"Height\":70000}"), frame(2, "\x09x")...))
	f.Add(uint8(0), []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	f.Add(uint8(0), bytes.Repeat(frame(9, "ping"), 100))
	f.Add(uint8(1), frame(2, string(streams)))
	f.Add(uint8(2), streams)
	f.Add(uint8(2), []byte("\x80\x03\x00\x01\x00\xff\xff\xff"))
	f.Add(uint8(2), []byte("\x80\x03\x00\x04\x00\x00\x00\x04\xff\xff\xff\xff"))
	f.Add(uint8(3), frame(1, "hello"))
	server := world(f, "n1")
	where, err := url.Parse(server.URL)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, way uint8, frames []byte) {
		u := upgrades[int(way)%len(upgrades)]
		before := runtime.NumGoroutine()
		frugal.Run(t, len(frames), func() { talk(t, where.Host, u.method, u.path, u.headers, frames) })
		for deadline := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > before+20; runtime.Gosched() {
			if time.Now().After(deadline) {
				t.Fatalf("%d goroutines before, %d after", before, runtime.NumGoroutine())
			}
		}
	})
}

// talk upgrades a connection, says frames, hangs up and waits for the other end to.
func talk(t *testing.T, host, method, path, headers string, frames []byte) {
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, err = fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nOrigin: http://a\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n", method, path, headers)
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, nil)
	if err != nil || answer.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", answer, err)
	}
	_, _ = conn.Write(frames) // the server may have hung up already
	_ = conn.(*net.TCPConn).CloseWrite()
	_, err = io.Copy(io.Discard, in)
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Fatal("the connection stays open")
	}
}

// spoken is what a client says in SPDY that opens streams and speaks on one.
func spoken(f *testing.F) []byte {
	f.Helper()
	here, there := net.Pipe()
	var said bytes.Buffer
	done := make(chan struct{})
	go func() { defer close(done); _, _ = io.Copy(&said, there) }()
	conn, err := spdy.NewClientConnection(here)
	if err != nil {
		f.Fatal(err)
	}
	go func() {
		for _, kind := range []string{"error", "stdin", "stdout", "stderr"} {
			_, _ = conn.CreateStream(http.Header{"streamType": {kind}}) // nobody answers
		}
	}()
	time.AfterFunc(200*time.Millisecond, func() { _ = here.Close() })
	<-done
	return said.Bytes()
}
