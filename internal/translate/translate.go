// Package translate serves the WebSocket protocols that kubectl speaks with the SPDY that
// container engines speak: v5 of exec and attach, and SPDY inside a WebSocket for
// port-forward (KEP-4006). API servers stand so between clients and nodes that can't, and
// nodes that can between API servers and their engine.
package translate

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// tunnelPrefix marks a WebSocket subprotocol that carries SPDY.
const tunnelPrefix = "SPDY/3.1+"

// pingPeriod keeps a quiet SPDY connection alive through middle boxes.
const pingPeriod = 5 * time.Second

// The channels of the WebSocket protocol, by number.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
)

// Remote is a streaming endpoint that speaks SPDY.
type Remote struct {
	// Name is who it is, for errors: node "n1".
	Name string
	URL  *url.URL
	// Transport carries its requests; it is of this connection alone.
	Transport http.RoundTripper
}

// Wants are the streams of an exec or attach.
type Wants struct{ Stdin, Stdout, Stderr, TTY bool }

// Refusal is the answer of a remote that doesn't begin a stream.
type Refusal struct {
	Code int
	Text string
}

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("status %d: %s", r.Code, r.Text) }

// maxRefusal bounds how much of a remote's refusal is passed on.
const maxRefusal = 2000

// Exec reports whether r asks for exec or attach in a protocol that has to be translated.
func Exec(r *http.Request) bool { return wsstream.IsWebSocketRequestWithStreamCloseProtocol(r) }

// Forward reports whether r asks for port-forward in one.
func Forward(r *http.Request) bool { return wsstream.IsWebSocketRequestWithTunnelingProtocol(r) }

// ServeExec serves exec or attach over WebSocket v5 with the remote's SPDY streams. The
// remote is connected first, so that its refusal is still a plain answer: after an error
// nothing has been written.
func ServeExec(w http.ResponseWriter, r *http.Request, to Remote, wants Wants) error {
	remote, err := to.dial(r)
	if err != nil {
		return err
	}
	defer func() { _ = remote.Close() }() // what is lost with it was said already
	streams, err := createStreams(remote, wants)
	if err != nil {
		return fmt.Errorf("open streams to %s: %w", to.Name, err)
	}
	types := []wsstream.ChannelType{wsstream.IgnoreChannel, wsstream.WriteChannel, wsstream.WriteChannel, wsstream.ReadWriteChannel, wsstream.IgnoreChannel}
	for _, number := range []int{stdinChannel, resizeChannel} {
		if streams[number] != nil {
			types[number] = wsstream.ReadChannel
		}
	}
	local := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: types},
	})
	// The library calls our own end of a conversation an error, each time: a
	// logger's zero value is silent.
	quiet := r.WithContext(klog.NewContext(r.Context(), klog.Logger{}))
	_, channels, err := local.Open(w, quiet)
	if err != nil {
		return nil // the client has had its answer from the WebSocket library
	}
	defer func() { _ = local.Close() }()
	join(remote, streams, channels)
	return nil
}

// join copies until the node has ended its outputs or the client has gone.
func join(remote httpstream.Connection, streams [5]httpstream.Stream, channels []io.ReadWriteCloser) {
	for _, number := range []int{stdinChannel, resizeChannel} {
		if streams[number] == nil {
			continue
		}
		go func() {
			_, _ = io.Copy(streams[number], channels[number]) // an error is one side hanging up
			_ = streams[number].Close()
		}()
	}
	go func() {
		// A client says nothing here: reading ends when it has gone.
		_, _ = io.Copy(io.Discard, channels[errorChannel])
		_ = remote.Close()
	}()
	var outputs sync.WaitGroup
	for _, number := range []int{stdoutChannel, stderrChannel, errorChannel} {
		if streams[number] == nil {
			continue
		}
		// Something empty tells the client that the connection stands.
		_, _ = channels[number].Write(nil)
		outputs.Go(func() { _, _ = io.Copy(channels[number], streams[number]) })
	}
	outputs.Wait()
}

// dial opens a SPDY connection.
func (to Remote) dial(r *http.Request) (httpstream.Connection, error) {
	upgrade, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: to.Transport, PingPeriod: pingPeriod})
	if err != nil {
		return nil, err
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, to.URL.String(), nil)
	if err != nil {
		return nil, err
	}
	out.Header[httpstream.HeaderProtocolVersion] = []string{remotecommand.StreamProtocolV5Name, remotecommand.StreamProtocolV4Name}
	answer, err := upgrade.RoundTrip(out)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.Name, err)
	}
	defer answer.Body.Close()
	conn, err := upgrade.NewConnection(answer)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", to.Name, err)
	}
	return conn, nil
}

// createStreams makes those streams that are wanted, by channel.
func createStreams(conn httpstream.Connection, wants Wants) (streams [5]httpstream.Stream, err error) {
	for _, s := range []struct {
		channel int
		kind    string
		wanted  bool
	}{
		{errorChannel, corev1.StreamTypeError, true},
		{stdinChannel, corev1.StreamTypeStdin, wants.Stdin},
		{stdoutChannel, corev1.StreamTypeStdout, wants.Stdout},
		{stderrChannel, corev1.StreamTypeStderr, wants.Stderr && !wants.TTY},
		{resizeChannel, corev1.StreamTypeResize, wants.TTY},
	} {
		if !s.wanted {
			continue
		}
		if streams[s.channel], err = conn.CreateStream(http.Header{corev1.StreamType: {s.kind}}); err != nil {
			return streams, err
		}
	}
	return streams, nil
}

// ServeForward serves SPDY inside a WebSocket: its bytes go to the remote as they are.
// After an error nothing has been written.
func ServeForward(w http.ResponseWriter, r *http.Request, to Remote) error {
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, to.URL.String(), nil)
	if err != nil {
		return err
	}
	out.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	out.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	out.Header[httpstream.HeaderProtocolVersion] = tunnelled(r)
	answer, err := to.Transport.RoundTrip(out)
	if err != nil {
		return fmt.Errorf("connect to %s: %w", to.Name, err)
	}
	defer answer.Body.Close()
	remote, ok := answer.Body.(io.ReadWriteCloser)
	if answer.StatusCode != http.StatusSwitchingProtocols || !ok {
		raw, _ := io.ReadAll(io.LimitReader(answer.Body, maxRefusal)) // what there is, is what is told
		return refusal(answer.StatusCode, raw)
	}
	chosen := answer.Header.Get(httpstream.HeaderProtocolVersion)
	websocket.Server{
		Handshake: func(cfg *websocket.Config, _ *http.Request) error {
			cfg.Protocol = []string{tunnelPrefix + chosen}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			go func() {
				_, _ = io.Copy(ws, remote) // an error is one side hanging up
				_ = ws.Close()
			}()
			_, _ = io.Copy(remote, ws)
			_ = remote.Close()
		},
	}.ServeHTTP(w, r)
	return nil
}

// refusal reads why a remote refuses: text, or an API status.
func refusal(code int, raw []byte) *Refusal {
	var status metav1.Status
	if json.Unmarshal(raw, &status) == nil && status.Kind == "Status" && status.Message != "" {
		return &Refusal{code, status.Message}
	}
	return &Refusal{code, strings.TrimSpace(string(raw))}
}

// tunnelled are the SPDY protocols that a client offers inside a WebSocket.
func tunnelled(r *http.Request) []string {
	var found []string
	for p := range strings.SplitSeq(r.Header.Get("Sec-Websocket-Protocol"), ",") {
		if inner, ok := strings.CutPrefix(strings.TrimSpace(p), tunnelPrefix); ok {
			found = append(found, inner)
		}
	}
	return found
}
