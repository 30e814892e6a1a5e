package engine

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// TestStatusTellsOfAHangingKeeper: nothing can be started then, and the node must
// say so.
func TestStatusTellsOfAHangingKeeper(t *testing.T) {
	n := newNode(t)
	ready := func(ctx context.Context) *rt.RuntimeCondition {
		t.Helper()
		r, err := n.engine.Status(ctx, &rt.StatusRequest{})
		n.must(err)
		return r.GetStatus().GetConditions()[0]
	}
	if c := ready(t.Context()); !c.Status || c.Type != rt.RuntimeReady {
		t.Errorf("at first: %v", c)
	}
	files, err := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup + "/keeper/cgroup.procs")
	if err != nil || len(files) == 0 {
		t.Fatalf("the keeper's cgroup: %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	n.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	n.must(err)
	n.must(syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { n.must(syscall.Kill(pid, syscall.SIGCONT)) }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c := ready(ctx); c.Status || c.Reason != "KeeperNotResponding" || c.Message == "" {
		t.Errorf("while the keeper hangs: %v", c)
	}
}
