package engine

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What the process that is going to be killed is told.
const (
	crashDir  = "SAMPAN_TEST_CRASH_DIR"
	crashHost = "SAMPAN_TEST_CRASH_NETNS"
	crashName = "SAMPAN_TEST_CRASH_NAME"
)

// TestKilledHalfway kills the engine's process at moments that nobody chose
// while it makes pods. Whatever the successor finds, it must be able to name,
// and when it has removed what it names nothing may be left.
func TestKilledHalfway(t *testing.T) {
	n := newNode(t)
	n.must(os.WriteFile(filepath.Join(n.dir, "keeper"), built.keeper, 0o700))
	random := rand.New(rand.NewPCG(1, 2))
	const rounds, longest = 14, 60 * time.Millisecond
	for round := range rounds {
		n.close()
		n.crash(fmt.Sprintf("r%d", round), time.Duration(random.Int64N(int64(longest))))
		n.open()
		n.allNamed()
		n.removeAll()
		n.nothingLeft()
		if t.Failed() {
			t.Fatalf("in round %d", round)
		}
	}
}

// crash runs another process on the node and kills it a while after it began to
// make pods.
func (n *node) crash(name string, after time.Duration) {
	n.t.Helper()
	c := exec.Command(os.Args[0], "-test.run=^TestMakePodsUntilKilled$", "-test.v=false")
	c.Env = append(os.Environ(), crashDir+"="+n.dir, crashHost+"="+n.host, crashName+"="+name)
	out, err := c.StdoutPipe()
	n.must(err)
	n.must(c.Start())
	lines := bufio.NewReader(out)
	var seen strings.Builder
	for {
		line, err := lines.ReadString('\n')
		seen.WriteString(line)
		if err != nil {
			n.t.Fatalf("the process that makes pods: %v, %s", c.Wait(), seen.String())
		}
		if line == "ready\n" {
			break
		}
	}
	killed := time.AfterFunc(after, func() { _ = c.Process.Kill() })
	defer killed.Stop()
	rest, err := io.ReadAll(lines)
	n.must(err)
	if err := c.Wait(); err == nil || c.ProcessState.Exited() {
		n.t.Fatalf("the process that makes pods ended by itself: %v, %s", err, rest)
	}
}

// TestMakePodsUntilKilled is what the killed process runs.
func TestMakePodsUntilKilled(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		t.Skip("is for TestKilledHalfway to run")
	}
	n := &node{t: t, dir: dir, cgroup: "/" + filepath.Base(dir), host: os.Getenv(crashHost)}
	n.open()
	fmt.Println("ready")
	for i := 0; ; i++ {
		pod, _ := n.limitedPod(fmt.Sprintf("%s-%d", os.Getenv(crashName), i), &rt.LinuxContainerResources{MemoryLimitInBytes: 64 << 20})
		shared := i%2 == 0
		if shared {
			pod.Linux.SecurityContext.NamespaceOptions.Pid = rt.NamespaceMode_POD
		}
		id := n.run(pod)
		cfg := containerConfig("wait")
		if shared {
			cfg.Linux.SecurityContext.NamespaceOptions.Pid = rt.NamespaceMode_POD
		}
		c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: id, Config: cfg, SandboxConfig: pod})
		n.must(err)
		_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
		n.must(err)
		if i%3 == 2 {
			_, err = n.engine.RemovePodSandbox(t.Context(), &rt.RemovePodSandboxRequest{PodSandboxId: id})
			n.must(err)
		}
	}
}

// allNamed checks that the engine names everything that the runtime has, and
// that no container of it is in a state that it never was in.
func (n *node) allNamed() {
	n.t.Helper()
	for _, id := range n.runtime.Sandboxes() {
		if n.engine.records.sandbox(id) == nil {
			n.t.Errorf("sandbox %s has no name", id)
		}
	}
	for _, st := range n.runtime.List() {
		if n.engine.records.container(st.ID) == nil {
			n.t.Errorf("container %s has no name: %+v", st.ID, st)
		}
		if st.Unknown {
			n.t.Errorf("container %s ended without ever having been: %+v", st.ID, st)
		}
	}
	for _, s := range n.engine.records.allSandboxes() {
		if !s.Ready {
			continue
		}
		if _, err := n.runtime.Sandbox(s.ID); err != nil || len(s.IPs) == 0 {
			n.t.Errorf("sandbox %s is ready, %v, addresses %v", s.ID, err, s.IPs)
		}
	}
}

func (n *node) removeAll() {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, s := range n.engine.records.allSandboxes() {
		_, err := n.engine.RemovePodSandbox(ctx, &rt.RemovePodSandboxRequest{PodSandboxId: s.ID})
		n.must(err)
	}
	n.must(n.net.Reconcile(ctx, nil)) // waits for what still leaves
}

// nothingLeft checks every place where a pod leaves something.
func (n *node) nothingLeft() {
	n.t.Helper()
	for _, dir := range []string{"sandboxes/sandboxes", "run/sandboxes", "containers", "engine/sandboxes", "engine/containers", "network/attachments"} {
		entries, err := os.ReadDir(filepath.Join(n.dir, dir))
		if err != nil && !os.IsNotExist(err) {
			n.t.Error(err)
		}
		for _, e := range entries {
			n.t.Errorf("%s/%s is left", dir, e.Name())
		}
	}
	entries, err := os.ReadDir(filepath.Join(n.dir, "run"))
	n.must(err)
	for _, e := range entries {
		if idForm.MatchString(e.Name()) {
			n.t.Errorf("run/%s is left", e.Name())
		}
	}
	keys, err := n.images.Snapshots()
	if err != nil || len(keys) > 0 {
		n.t.Errorf("snapshots are left: %v, %v", keys, err)
	}
	groups, err := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup + "/pods/pod*")
	if err != nil || len(groups) > 0 {
		n.t.Errorf("cgroups are left: %v, %v", groups, err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	n.must(err)
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, n.dir+"/run/") {
			n.t.Errorf("a mount is left: %s", line)
		}
	}
	n.noChildren()
}

// noChildren checks that the keeper has no processes left.
func (n *node) noChildren() {
	n.t.Helper()
	procs, err := filepath.Glob("/sys/fs/cgroup/*" + n.cgroup + "/keeper/cgroup.procs")
	n.must(err)
	pids := map[string]bool{}
	for _, file := range procs {
		b, err := os.ReadFile(file)
		n.must(err)
		for _, pid := range strings.Fields(string(b)) {
			pids[pid] = true
		}
	}
	for pid := range pids {
		b, err := os.ReadFile(filepath.Join("/proc", pid, "task", pid, "children"))
		if err != nil {
			continue
		}
		for _, child := range strings.Fields(string(b)) {
			if !ends(child) {
				command, _ := os.ReadFile(filepath.Join("/proc", child, "cmdline"))
				n.t.Errorf("the keeper has a child: %s, %q", child, command)
			}
		}
	}
}

// ends waits a moment for a process that was killed: that takes the kernel its
// time.
func ends(pid string) bool {
	number, err := strconv.Atoi(pid)
	if err != nil {
		return false
	}
	fd, err := unix.PidfdOpen(number, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	const patience = 60_000 // ms
	for {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, patience)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && ready == 1
		}
	}
}
