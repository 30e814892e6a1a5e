package cri

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// others are engines as others make them, which may have no events.
type others struct {
	rt.UnimplementedRuntimeServiceServer
	events func(grpc.ServerStreamingServer[rt.ContainerEventResponse]) error
}

func (o *others) Version(context.Context, *rt.VersionRequest) (*rt.VersionResponse, error) {
	return &rt.VersionResponse{RuntimeName: "other"}, nil
}

func (o *others) GetContainerEvents(r *rt.GetEventsRequest, stream grpc.ServerStreamingServer[rt.ContainerEventResponse]) error {
	if o.events == nil {
		return o.UnimplementedRuntimeServiceServer.GetContainerEvents(r, stream)
	}
	return o.events(stream)
}

// TestEventsOfOthers: who has no events is told from who has none yet.
func TestEventsOfOthers(t *testing.T) {
	for _, c := range []struct {
		name   string
		events func(grpc.ServerStreamingServer[rt.ContainerEventResponse]) error
		none   bool
	}{
		{"it doesn't know the call", nil, true},
		{"it ends the stream at once", func(grpc.ServerStreamingServer[rt.ContainerEventResponse]) error { return nil }, true},
		{"it says so", func(grpc.ServerStreamingServer[rt.ContainerEventResponse]) error { return Unimplemented("events") }, true},
		{"an event", func(s grpc.ServerStreamingServer[rt.ContainerEventResponse]) error {
			_ = s.Send(&rt.ContainerEventResponse{ContainerId: "c"})
			<-s.Context().Done()
			return nil
		}, false},
		{"nothing happens", func(s grpc.ServerStreamingServer[rt.ContainerEventResponse]) error {
			<-s.Context().Done()
			return nil
		}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r := dialOther(t, &others{events: c.events})
			events, err := r.Events(ctx)
			if IsUnimplemented(err) != c.none || (err == nil) == c.none {
				t.Fatalf("%v", err)
			}
			if c.name == "an event" {
				if e := <-events; e.GetContainerId() != "c" {
					t.Errorf("event %v", e)
				}
			}
		})
	}
}

func dialOther(t *testing.T, o *others) *Remote {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	rt.RegisterRuntimeServiceServer(s, o)
	go func() { _ = s.Serve(l) }() // it ends when it is stopped
	t.Cleanup(s.Stop)
	r, err := Dial(t.Context(), "unix://"+socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}
