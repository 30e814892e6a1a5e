package probe

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"

	"google.golang.org/protobuf/encoding/protowire"
	corev1 "k8s.io/api/core/v1"
)

// Serving states of grpc.health.v1.Health, and the gRPC status for a method
// that the server doesn't have.
const (
	healthServing     = 1
	grpcUnimplemented = "12"
)

// maxHealthReply bounds the answer: a HealthCheckResponse has two bytes.
const maxHealthReply = 1 << 10

// grpc asks the standard health service. One unary call is little more than an
// HTTP/2 POST, so that no gRPC library is needed for it.
//
// https://github.com/grpc/grpc/blob/master/doc/health-checking.md
func (d *Doer) grpc(ctx context.Context, pod *corev1.Pod, a *corev1.GRPCAction) (Result, string) {
	address := net.JoinHostPort(d.host(pod, ""), strconv.Itoa(int(a.Port)))
	service := ""
	if a.Service != nil {
		service = *a.Service
	}
	res, body, err := healthCall(ctx, address, service) //nolint:bodyclose // healthCall has read and closed it
	if err != nil && ctx.Err() != nil {
		return Failure, fmt.Sprintf("timeout: failed to connect service %q: %v", address, err)
	}
	if err != nil {
		return Failure, fmt.Sprintf("error: failed to connect service at %q: %v", address, err)
	}
	code, message := res.Trailer.Get("Grpc-Status"), res.Trailer.Get("Grpc-Message")
	if code == "" {
		code, message = res.Header.Get("Grpc-Status"), res.Header.Get("Grpc-Message")
	}
	switch {
	case code == grpcUnimplemented:
		return Failure, "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): " + message
	case code != "0":
		return Failure, fmt.Sprintf("error: health rpc probe failed: rpc error: code = %s desc = %s", code, message)
	}
	if status := healthStatus(body); status != healthServing {
		return Failure, fmt.Sprintf("service unhealthy (responded with %q)", healthName(status))
	}
	return Success, "service healthy"
}

func healthCall(ctx context.Context, address, service string) (*http.Response, []byte, error) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: &protocols, DisableCompression: true}
	defer transport.CloseIdleConnections()
	var message []byte
	if service != "" {
		message = protowire.AppendTag(message, 1, protowire.BytesType)
		message = protowire.AppendString(message, service)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/grpc.health.v1.Health/Check", bytes.NewReader(frame))
	if err != nil {
		return nil, nil, err
	}
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	req.Header.Set("User-Agent", userAgent)
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	// The trailers are there once the body has been read to its end.
	body, err := io.ReadAll(io.LimitReader(res.Body, maxHealthReply))
	return res, body, err
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
