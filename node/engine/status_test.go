package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
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
	files = append(files, "/sys/fs/cgroup"+n.cgroup+"/keeper/cgroup.procs") // as it is with cgroup v2
	if err != nil {
		t.Fatalf("the keeper's cgroup: %v, %v", files, err)
	}
	b, err := os.ReadFile(files[0])
	n.must(err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	n.must(err)
	n.must(syscall.Kill(pid, syscall.SIGSTOP))
	defer func() { n.must(syscall.Kill(pid, syscall.SIGCONT)) }()
	for stopped(t, pid) != "T" { // the signal takes each thread on its own
		runtime.Gosched()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if c := ready(ctx); c.Status || c.Reason != "KeeperNotResponding" || c.Message == "" {
		t.Errorf("while the keeper hangs: %v", c)
	}
}

// stopped is a process's state in /proc: "T" once a signal has stopped it.
func stopped(t *testing.T, pid int) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))[0]
}
