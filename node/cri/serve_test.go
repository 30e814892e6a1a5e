package cri

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// small is an engine with many sandboxes and nothing else: calls that it does
// not answer would crash the test.
type small struct{ Engine }

const sandboxes = 2*streamPage + 3

func (small) Version(context.Context, *rt.VersionRequest) (*rt.VersionResponse, error) {
	return &rt.VersionResponse{RuntimeName: "small"}, nil
}

func (small) ListPodSandbox(context.Context, *rt.ListPodSandboxRequest) (*rt.ListPodSandboxResponse, error) {
	return &rt.ListPodSandboxResponse{Items: slices.Repeat([]*rt.PodSandbox{{Id: "x"}}, sandboxes)}, nil
}

func (small) PodSandboxStatus(context.Context, *rt.PodSandboxStatusRequest) (*rt.PodSandboxStatusResponse, error) {
	return nil, status.Error(codes.NotFound, "no such sandbox")
}

func (small) Events(ctx context.Context) (<-chan *rt.ContainerEventResponse, error) {
	c := make(chan *rt.ContainerEventResponse)
	context.AfterFunc(ctx, func() { close(c) })
	return c, nil
}

// serve runs a server until the test ends.
func serve(t *testing.T, socket string) *Remote {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, socket, small{}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(socket); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket stays: %v", err)
		}
	})
	for {
		r, err := Dial(t.Context(), "unix://"+socket)
		if err == nil {
			t.Cleanup(func() { r.Close() })
			return r
		}
		select {
		case err := <-served:
			served <- nil
			t.Fatal(err)
		default:
		}
	}
}

func TestSocket(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "sub", "cri.sock")
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close() // as a process leaves it that was killed
	r := serve(t, socket)
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("socket is %v, %v; want mode 0600", st.Mode(), err)
	}
	if err := Serve(t.Context(), socket, small{}); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second server: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), file, small{}); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("a file in the way: %v", err)
	}
	_, err = r.PodSandboxStatus(t.Context(), &rt.PodSandboxStatusRequest{PodSandboxId: "x"})
	if !IsNotFound(err) || Message(err) != "no such sandbox" {
		t.Errorf("an error came as %v", err)
	}
	if _, err := r.runtime.CheckpointContainer(t.Context(), &rt.CheckpointContainerRequest{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("a call that no engine answers: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	events, err := r.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	for ev := range events {
		t.Errorf("event %v from nowhere", ev)
	}
}

func TestStreamedLists(t *testing.T) {
	r := serve(t, filepath.Join(t.TempDir(), "cri.sock"))
	stream, err := r.runtime.StreamPodSandboxes(t.Context(), &rt.StreamPodSandboxesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var pages []int
	for {
		page, err := stream.Recv()
		if err != nil {
			break
		}
		pages = append(pages, len(page.PodSandboxes))
	}
	if want := []int{streamPage, streamPage, 3}; !slices.Equal(pages, want) {
		t.Errorf("pages of %v items, want %v", pages, want)
	}
}

func TestDialRefusesWhatIsNotThere(t *testing.T) {
	for _, endpoint := range []string{"tcp://127.0.0.1:1", "cri.sock", "unix://" + filepath.Join(t.TempDir(), "none.sock")} {
		if _, err := Dial(t.Context(), endpoint); err == nil || !strings.Contains(err.Error(), endpoint) {
			t.Errorf("%q: %v, want an error that names it", endpoint, err)
		}
	}
}
