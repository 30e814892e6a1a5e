package cri

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Remote is an Engine in another process, reached over gRPC: containerd, CRI-O,
// or one that Serve offers.
type Remote struct {
	conn    *grpc.ClientConn
	runtime rt.RuntimeServiceClient
	image   rt.ImageServiceClient
}

var _ Engine = (*Remote)(nil)

// Dial connects to the engine at a unix socket, given as a path or as
// unix:///path, and asks for its version, so that a wrong address fails here
// and not at the first pod. The connection is made anew whenever it is lost.
func Dial(ctx context.Context, endpoint string) (*Remote, error) {
	path := strings.TrimPrefix(endpoint, "unix://")
	if !strings.HasPrefix(path, "/") {
		return nil, fmt.Errorf("container runtime endpoint %q is not unix:///path/to/socket", endpoint)
	}
	conn, err := grpc.NewClient("passthrough:///"+path,
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's mode is the guard
		grpc.WithContextDialer(func(ctx context.Context, path string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}),
		grpc.WithAuthority("localhost"),
		grpc.WithStaticStreamWindowSize(window), grpc.WithStaticConnWindowSize(window),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MaxMessage), grpc.MaxCallSendMsgSize(MaxMessage)))
	if err != nil {
		return nil, fmt.Errorf("container runtime at %q: %w", endpoint, err)
	}
	r := &Remote{conn: conn, runtime: rt.NewRuntimeServiceClient(conn), image: rt.NewImageServiceClient(conn)}
	if _, err := r.Version(ctx, &rt.VersionRequest{}); err != nil {
		return nil, fmt.Errorf("container runtime at %q: %w", endpoint, errors.Join(err, conn.Close()))
	}
	return r, nil
}

// Close ends the connection and every call on it.
func (r *Remote) Close() error { return r.conn.Close() }

// subscribeTime is how long Events waits for the other side to say that it
// listens. Serve says so; containerd does not until its first event.
const subscribeTime = 2 * time.Second

// Events subscribes to the remote engine's events. With an engine that has none
// (containerd before 1.7, CRI-O that was not told to) the error IsUnimplemented.
func (r *Remote) Events(ctx context.Context) (<-chan *rt.ContainerEventResponse, error) {
	ctx, cancel := context.WithCancel(ctx)
	stream, err := r.runtime.GetContainerEvents(ctx, &rt.GetEventsRequest{})
	if err != nil {
		cancel()
		return nil, err
	}
	listening := make(chan bool, 1)
	go func() {
		header, err := stream.Header()
		listening <- err == nil && header != nil
	}()
	patience := time.NewTimer(subscribeTime)
	defer patience.Stop()
	select {
	case begun := <-listening:
		if !begun {
			defer cancel()
			return nil, refused(stream)
		}
	case <-patience.C:
	}
	out := make(chan *rt.ContainerEventResponse, MaxEventBacklog)
	go func() {
		defer cancel()
		defer close(out)
		for {
			ev, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case out <- ev:
			default:
				return // too slow: it must list again
			}
		}
	}()
	return out, nil
}

// refused is why a stream of events ended before it began.
func refused(stream grpc.ServerStreamingClient[rt.ContainerEventResponse]) error {
	_, err := stream.Recv()
	if err == nil || errors.Is(err, io.EOF) {
		return Unimplemented("the engine ends its stream of events at once")
	}
	return err
}
