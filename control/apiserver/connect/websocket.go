package connect

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/websocket"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/remotecommand"
	"k8s.io/klog/v2"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// Container engines speak SPDY, and the WebSocket protocols before v5; kubectl
// speaks WebSocket v5, and SPDY inside a WebSocket for port-forward. The API
// server stands between the two, as upstream's does (KEP-4006).

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

// translate serves exec or attach over WebSocket v5 with the node's SPDY streams.
// The node is connected first, so that its refusal is still a plain answer.
func (c *Connector) translate(k call, n node, location *url.URL) error {
	remote, err := c.dial(k.r, n, location)
	if err != nil {
		return err
	}
	defer func() { _ = remote.Close() }() // what is lost with it was said already
	streams, err := createStreams(remote, location.Query())
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("open streams to node %q: %w", n.name, err))
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
	quiet := k.r.WithContext(klog.NewContext(k.r.Context(), klog.Logger{}))
	_, channels, err := local.Open(k.w, quiet)
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

// dial opens a SPDY connection to a streaming endpoint of a node.
func (c *Connector) dial(r *http.Request, n node, location *url.URL) (httpstream.Connection, error) {
	upgrade, err := spdy.NewRoundTripperWithConfig(spdy.RoundTripperConfig{UpgradeTransport: c.transport(n), PingPeriod: pingPeriod})
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out, err := http.NewRequestWithContext(r.Context(), http.MethodPost, location.String(), nil)
	if err != nil {
		return nil, apierrors.NewInternalError(err)
	}
	out.Header[httpstream.HeaderProtocolVersion] = []string{remotecommand.StreamProtocolV5Name, remotecommand.StreamProtocolV4Name}
	answer, err := upgrade.RoundTrip(out)
	if err != nil {
		return nil, apierrors.NewInternalError(fmt.Errorf("connect to node %q: %w", n.name, err))
	}
	defer answer.Body.Close()
	conn, err := upgrade.NewConnection(answer)
	if err != nil {
		var status *apierrors.StatusError
		if errors.As(err, &status) {
			return nil, status
		}
		return nil, apierrors.NewInternalError(fmt.Errorf("connect to node %q: %w", n.name, err))
	}
	return conn, nil
}

// createStreams makes those streams that the query asks the node for, by channel.
func createStreams(conn httpstream.Connection, query url.Values) (streams [5]httpstream.Stream, err error) {
	for _, s := range []struct {
		channel int
		kind    string
		wanted  bool
	}{
		{errorChannel, corev1.StreamTypeError, true},
		{stdinChannel, corev1.StreamTypeStdin, query.Has("input")},
		{stdoutChannel, corev1.StreamTypeStdout, query.Has("output")},
		{stderrChannel, corev1.StreamTypeStderr, query.Has("error") && !query.Has("tty")},
		{resizeChannel, corev1.StreamTypeResize, query.Has("tty")},
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

// tunnel serves SPDY inside a WebSocket: its bytes go to the node as they are.
func (c *Connector) tunnel(k call, n node, location *url.URL) error {
	offered := tunnelled(k.r)
	out, err := http.NewRequestWithContext(k.r.Context(), http.MethodPost, location.String(), nil)
	if err != nil {
		return apierrors.NewInternalError(err)
	}
	out.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	out.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	out.Header[httpstream.HeaderProtocolVersion] = offered
	answer, err := c.transport(n).RoundTrip(out)
	if err != nil {
		return apierrors.NewInternalError(fmt.Errorf("connect to node %q: %w", n.name, err))
	}
	defer answer.Body.Close()
	remote, ok := answer.Body.(io.ReadWriteCloser)
	if answer.StatusCode != http.StatusSwitchingProtocols || !ok {
		return complaint(answer, k.req.Target.Name)
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
	}.ServeHTTP(k.w, k.r)
	return nil
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
