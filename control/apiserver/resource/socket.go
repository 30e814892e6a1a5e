package resource

import (
	"bufio"
	"net"
	"net/http"
	"time"

	"golang.org/x/net/websocket"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sampan-dev/sampan/control/apiserver/cache"
)

// maxSocketRead bounds a message from a WebSocket client that watches; it has
// nothing to say.
const maxSocketRead = 4 << 10

// socket is a watch over WebSocket: each event is a message, of text for JSON,
// binary for protobuf and CBOR.
func (x *exchange) socket(s *stream) {
	defer s.close()
	x.wrote = true
	x.w.Header().Set("Content-Type", x.form.contentType(true))
	websocket.Handler(func(ws *websocket.Conn) {
		defer func() { _ = ws.Close() }() // the client may have gone
		ws.MaxPayloadBytes = maxSocketRead
		go func() {
			defer s.cancel()
			for {
				var ignored []byte
				if websocket.Message.Receive(ws, &ignored) != nil {
					return
				}
			}
		}()
		m := &messenger{teller: teller{exchange: x, stream: s}, ws: ws}
		if err := s.each(m.batch, m.fault); err != nil {
			x.server.cfg.Log.Debug("watch ended", "path", x.r.URL.Path, "err", err)
		}
	}).ServeHTTP(hijacker{x.w}, x.r)
}

// messenger sends what a teller tells as messages.
type messenger struct {
	teller
	ws *websocket.Conn
}

func (m *messenger) batch(events []cache.Event) error {
	for _, e := range events {
		if !m.stream.wanted(e) {
			continue
		}
		data, err := m.encodeEvent(e)
		if err != nil {
			return &unshown{err}
		}
		if err := m.post(data); err != nil {
			return err
		}
	}
	return nil
}

func (m *messenger) fault(status metav1.Status) error {
	data, err := m.wrap("ERROR", &status)
	if err != nil {
		return err
	}
	return m.post(data)
}

// post sends one event. A message knows its own length: protobuf's is left away.
func (m *messenger) post(frame []byte) error {
	if err := m.ws.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return err
	}
	switch m.form.media {
	case mediaProtobuf:
		return websocket.Message.Send(m.ws, frame[frameHead:])
	case mediaCBOR:
		return websocket.Message.Send(m.ws, frame)
	}
	return websocket.Message.Send(m.ws, string(frame))
}

// hijacker gives the WebSocket library the connection, however deep it is wrapped.
type hijacker struct{ http.ResponseWriter }

// Hijack implements http.Hijacker.
func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(h.ResponseWriter).Hijack()
}
