package engine

import (
	"context"
	"path/filepath"
	"testing"

	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/cri/critest"
)

// TestExam is the CRI's exam, in this process and over a socket.
func TestExam(t *testing.T) {
	n := newNode(t)
	t.Run("in-process", func(t *testing.T) {
		critest.Run(t, critest.Subject{Engine: n.engine, Image: examImage, Cgroup: n.cgroup + "/pods"})
	})
	t.Run("socket", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		socket := filepath.Join(n.dir, "cri.sock")
		go func() { served <- cri.Serve(ctx, socket, n.engine) }()
		remote := dial(t, socket, served)
		critest.Run(t, critest.Subject{Engine: remote, Socket: socket, Plain: true, Image: examImage, Cgroup: n.cgroup + "/pods"})
		if err := remote.Close(); err != nil {
			t.Error(err)
		}
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// dial tries again until Serve listens.
func dial(t *testing.T, socket string, served <-chan error) *cri.Remote {
	t.Helper()
	for {
		remote, err := cri.Dial(t.Context(), "unix://"+socket)
		if err == nil {
			return remote
		}
		select {
		case err := <-served:
			t.Fatalf("serve: %v", err)
		case <-t.Context().Done():
			t.Fatal(err)
		default:
		}
	}
}
