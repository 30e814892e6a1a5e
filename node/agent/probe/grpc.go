package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
)

// healthServing is grpc.health.v1.Health's SERVING.
const healthServing = 1

// Where gRPC's status is, among the trailers or, without a message, the headers.
const (
	grpcStatus  = "Grpc-Status"
	grpcMessage = "Grpc-Message"
)

// maxHealthReply bounds the answer: a HealthCheckResponse has two bytes.
const maxHealthReply = 1 << 10

// dialRetry is the pause between attempts to reach a health service, gRPC's first one.
const dialRetry = time.Second

// grpc asks the standard health service. One unary call is little more than an
// HTTP/2 POST, so that no gRPC library is needed for it. As upstream's it waits for a
// connection as long as the probe may take: a port that nobody serves yet is a
// timeout, not a refusal.
//
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md
func (d *Doer) grpc(ctx context.Context, pod *corev1.Pod, p *corev1.Probe) (Result, string) {
	address := net.JoinHostPort(d.host(pod, ""), strconv.Itoa(int(p.GRPC.Port)))
	timeout := time.Duration(max(p.TimeoutSeconds, 1)) * time.Second
	call := &healthCall{address: address}
	if p.GRPC.Service != nil {
		call.service = *p.GRPC.Service
	}
	err := call.do(ctx)
	for err != nil && !call.connected() && ctx.Err() == nil {
		if sleep(ctx, dialRetry) == nil {
			err = call.do(ctx)
		}
	}
	switch {
	case err != nil && !call.connected():
		return Failure, fmt.Sprintf("timeout: failed to connect service %q within %v: %v", address, timeout, context.DeadlineExceeded)
	case err != nil && ctx.Err() != nil:
		return Failure, fmt.Sprintf("timeout: health rpc did not complete within %v", timeout)
	case err != nil:
		return Failure, fmt.Sprintf("error: health rpc probe failed: rpc error: code = %s desc = %v", codes.Unavailable, err)
	}
	return call.result(timeout)
}

// healthCall is one question to a health service.
type healthCall struct {
	address, service string
	conn             *greeted
	answer           *http.Response
	body             []byte
}

// result reads the answer to a call that went through.
func (c *healthCall) result(timeout time.Duration) (Result, string) {
	header := c.answer.Trailer
	if header.Get(grpcStatus) == "" {
		header = c.answer.Header
	}
	code, err := strconv.ParseUint(header.Get(grpcStatus), 10, 32)
	if err != nil {
		code = uint64(codes.Unknown)
	}
	message, err := url.PathUnescape(header.Get(grpcMessage))
	if err != nil {
		message = header.Get(grpcMessage)
	}
	switch codes.Code(code) {
	case codes.OK:
	case codes.Unimplemented:
		return Failure, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + message
	case codes.DeadlineExceeded:
		return Failure, fmt.Sprintf("timeout: health rpc did not complete within %v", timeout)
	default:
		return Failure, fmt.Sprintf("error: health rpc probe failed: rpc error: code = %s desc = %s", codes.Code(code), message)
	}
	if status := healthStatus(c.body); status != healthServing {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", healthName(status))
	}
	return Success, "service healthy"
}

// connected reports whether the other side has spoken HTTP/2, be it to the end or not.
func (c *healthCall) connected() bool { return c.conn != nil && c.conn.settings.Load() }

// greeted is a connection that knows whether it began as a server's must by HTTP/2:
// with a SETTINGS frame.
type greeted struct {
	net.Conn
	// read counts up to kindAt+1; it belongs to the one who reads.
	read     int
	settings atomic.Bool
}

// A frame's header is its length in three bytes, then its kind.
const (
	kindAt       = 3
	kindSettings = 4
)

// Read implements net.Conn.
func (g *greeted) Read(b []byte) (int, error) {
	n, err := g.Conn.Read(b)
	if at := kindAt - g.read; at >= 0 && at < n && b[at] == kindSettings {
		g.settings.Store(true)
	}
	g.read = min(g.read+max(n, 0), kindAt+1)
	return n, err
}

// do dials and asks; the answer is there when it returns nil.
func (c *healthCall) do(ctx context.Context) error {
	c.conn = nil
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	var dialed atomic.Pointer[greeted]
	transport := &http.Transport{Protocols: &protocols, DisableCompression: true, DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
		conn, err := dial(ctx, address)
		if err != nil {
			return nil, err
		}
		g := &greeted{Conn: conn}
		dialed.Store(g)
		return g, nil
	}}
	defer transport.CloseIdleConnections()
	err := c.ask(ctx, transport)
	c.conn = dialed.Load()
	return err
}

func (c *healthCall) ask(ctx context.Context, transport http.RoundTripper) error {
	var message []byte
	if c.service != "" {
		message = protowire.AppendTag(message, 1, protowire.BytesType)
		message = protowire.AppendString(message, c.service)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.address+"/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", userAgent)
	res, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	// The trailers are there once the body has been read to its end.
	c.answer = res
	c.body, err = io.ReadAll(io.LimitReader(res.Body, maxHealthReply))
	return err
}

// healthStatus reads field 1 of the message in a gRPC frame.
func healthStatus(frame []byte) uint64 {
	const header = 5
	if len(frame) < header {
		return 0
	}
	num, kind, n := protowire.ConsumeTag(frame[header:])
	if n < 0 || num != 1 || kind != protowire.VarintType {
		return 0
	}
	value, n := protowire.ConsumeVarint(frame[header+n:])
	if n < 0 {
		return 0
	}
	return value
}

func healthName(status uint64) string {
	names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	if status < uint64(len(names)) {
		return names[status]
	}
	return strconv.FormatUint(status, 10)
}
