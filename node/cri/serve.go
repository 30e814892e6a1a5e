package cri

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// MaxMessage bounds one gRPC message, either way, in bytes: both streams of
	// an ExecSync at their limit of 16 MiB, and room for the rest.
	MaxMessage = 33 << 20
	// window is how many bytes of a message, and of all messages of a connection, may
	// be on their way. A fixed one spares each call what measures how much a network
	// could take: a ping and its answer, which woke both sides once more.
	window = 1 << 20
	// workers are how many calls at a time are answered by goroutines that have answered
	// others: to let the stack of a new one grow is a tenth of what an ExecSync costs us.
	workers = 4
	// streamPage is how many items one message of a streamed list carries.
	streamPage = 256
	// drainTime is how long calls under way may take when Serve ends.
	drainTime = 5 * time.Second
)

// Serve offers e on a unix socket, mode 0600, until ctx ends; then it lets calls
// under way finish for a few seconds, and removes the socket. A socket that a
// dead process left behind is replaced; one that answers is an error.
func Serve(ctx context.Context, socket string, e Engine) error {
	l, err := Listen(ctx, socket)
	if err != nil {
		return err
	}
	return ServeOn(ctx, l, e)
}

// Listen makes the socket of Serve. Whoever connects from now on is answered once
// ServeOn runs.
func Listen(ctx context.Context, socket string) (net.Listener, error) {
	l, err := listen(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("serve CRI on %q: %w", socket, err)
	}
	return l, nil
}

// ServeOn is Serve on a socket that Listen has made, which it closes.
func ServeOn(ctx context.Context, l net.Listener, e Engine) error {
	srv := grpc.NewServer(grpc.MaxRecvMsgSize(MaxMessage), grpc.MaxSendMsgSize(MaxMessage),
		grpc.StaticStreamWindowSize(window), grpc.StaticConnWindowSize(window), grpc.NumStreamWorkers(workers))
	rt.RegisterRuntimeServiceServer(srv, &runtimeServer{engine: e})
	rt.RegisterImageServiceServer(srv, &imageServer{engine: e})
	ended := make(chan struct{})
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-ctx.Done():
		case <-ended:
			return
		}
		hard := time.AfterFunc(drainTime, srv.Stop)
		defer hard.Stop()
		srv.GracefulStop()
	}()
	err := srv.Serve(l)
	close(ended)
	<-stopped
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve CRI on %q: %w", l.Addr(), err)
	}
	return nil
}

func listen(ctx context.Context, socket string) (net.Listener, error) {
	socket = strings.TrimPrefix(socket, "unix://")
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	st, err := os.Lstat(socket)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case st.Mode()&fs.ModeSocket == 0:
		return nil, errors.New("something that is not a socket is in the way")
	default:
		if c, err := (&net.Dialer{}).DialContext(ctx, "unix", socket); err == nil {
			c.Close()
			return nil, errors.New("another process is serving it")
		}
		if err := os.Remove(socket); err != nil {
			return nil, err
		}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// runtimeServer adds to an Engine's own methods what only the wire has: the
// streamed forms of the lists, and the calls that no Engine answers, which are
// refused as unimplemented.
type runtimeServer struct {
	rt.UnimplementedRuntimeServiceServer
	engine Engine
}

type imageServer struct {
	rt.UnimplementedImageServiceServer
	engine Engine
}

func (s *runtimeServer) GetContainerEvents(_ *rt.GetEventsRequest, stream grpc.ServerStreamingServer[rt.ContainerEventResponse]) error {
	events, err := s.engine.Events(stream.Context())
	if err != nil {
		return err
	}
	if err := stream.SendHeader(nil); err != nil { // from here on nothing is missed
		return err
	}
	for ev := range events {
		if err := stream.Send(ev); err != nil {
			return err
		}
	}
	if err := stream.Context().Err(); err != nil {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.ResourceExhausted, "subscriber is too slow, list again")
}

func (s *runtimeServer) StreamPodSandboxes(r *rt.StreamPodSandboxesRequest, stream grpc.ServerStreamingServer[rt.StreamPodSandboxesResponse]) error {
	list, err := s.engine.ListPodSandbox(stream.Context(), &rt.ListPodSandboxRequest{Filter: r.GetFilter()})
	return pages(list.GetItems(), err, func(page []*rt.PodSandbox) error {
		return stream.Send(&rt.StreamPodSandboxesResponse{PodSandboxes: page})
	})
}

func (s *runtimeServer) StreamContainers(r *rt.StreamContainersRequest, stream grpc.ServerStreamingServer[rt.StreamContainersResponse]) error {
	list, err := s.engine.ListContainers(stream.Context(), &rt.ListContainersRequest{Filter: r.GetFilter()})
	return pages(list.GetContainers(), err, func(page []*rt.Container) error {
		return stream.Send(&rt.StreamContainersResponse{Containers: page})
	})
}

func (s *runtimeServer) StreamContainerStats(r *rt.StreamContainerStatsRequest, stream grpc.ServerStreamingServer[rt.StreamContainerStatsResponse]) error {
	list, err := s.engine.ListContainerStats(stream.Context(), &rt.ListContainerStatsRequest{Filter: r.GetFilter()})
	return pages(list.GetStats(), err, func(page []*rt.ContainerStats) error {
		return stream.Send(&rt.StreamContainerStatsResponse{ContainerStats: page})
	})
}

func (s *runtimeServer) StreamPodSandboxStats(r *rt.StreamPodSandboxStatsRequest, stream grpc.ServerStreamingServer[rt.StreamPodSandboxStatsResponse]) error {
	list, err := s.engine.ListPodSandboxStats(stream.Context(), &rt.ListPodSandboxStatsRequest{Filter: r.GetFilter()})
	return pages(list.GetStats(), err, func(page []*rt.PodSandboxStats) error {
		return stream.Send(&rt.StreamPodSandboxStatsResponse{PodSandboxStats: page})
	})
}

func (s *imageServer) StreamImages(r *rt.StreamImagesRequest, stream grpc.ServerStreamingServer[rt.StreamImagesResponse]) error {
	list, err := s.engine.ListImages(stream.Context(), &rt.ListImagesRequest{Filter: r.GetFilter()})
	return pages(list.GetImages(), err, func(page []*rt.Image) error {
		return stream.Send(&rt.StreamImagesResponse{Images: page})
	})
}

func pages[T any](items []T, err error, send func([]T) error) error {
	if err != nil {
		return err
	}
	for len(items) > 0 {
		n := min(streamPage, len(items))
		if err := send(items[:n]); err != nil {
			return err
		}
		items = items[n:]
	}
	return nil
}
