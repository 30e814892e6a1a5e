package engine

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// start makes a pod with one container and returns both IDs.
func (n *node) start(name string, args ...string) (sandboxID, containerID string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pod := podConfig(name)
	s, err := n.engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	c, err := n.engine.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: containerConfig(args...), SandboxConfig: pod})
	n.must(err)
	_, err = n.engine.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	return s.PodSandboxId, c.ContainerId
}

func podConfig(name string) *rt.PodSandboxConfig {
	return &rt.PodSandboxConfig{Metadata: &rt.PodSandboxMetadata{Name: name, Uid: name, Namespace: "test"}, Hostname: name,
		Linux: &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{
			NamespaceOptions: &rt.NamespaceOption{Pid: rt.NamespaceMode_CONTAINER}}}}
}

func containerConfig(args ...string) *rt.ContainerConfig {
	return &rt.ContainerConfig{Metadata: &rt.ContainerMetadata{Name: "main"}, Image: &rt.ImageSpec{Image: examImage}, Args: args,
		Linux: &rt.LinuxContainerConfig{SecurityContext: &rt.LinuxContainerSecurityContext{
			NamespaceOptions: &rt.NamespaceOption{Pid: rt.NamespaceMode_CONTAINER}}}}
}

func (n *node) container(id string) *rt.ContainerStatus {
	n.t.Helper()
	r, err := n.engine.ContainerStatus(n.t.Context(), &rt.ContainerStatusRequest{ContainerId: id, Verbose: true})
	n.must(err)
	return r.Status
}

func (n *node) sandbox(id string) *rt.PodSandboxStatus {
	n.t.Helper()
	r, err := n.engine.PodSandboxStatus(n.t.Context(), &rt.PodSandboxStatusRequest{PodSandboxId: id})
	n.must(err)
	return r.Status
}

func TestPodsOutliveTheEngine(t *testing.T) {
	n := newNode(t)
	sandboxID, waiting := n.start("living", "wait")
	_, serving := n.start("other", "serve", "8080")
	before, pid := n.sandbox(sandboxID), n.pid(waiting)
	ended := n.pid(serving)
	n.close()

	// One container ends while nobody looks.
	p, err := os.FindProcess(ended)
	n.must(err)
	n.must(p.Kill())

	n.open()
	if got := n.pid(waiting); got != pid {
		t.Errorf("the container is process %d, was %d", got, pid)
	}
	after := n.sandbox(sandboxID)
	if after.State != rt.PodSandboxState_SANDBOX_READY || after.Network.Ip != before.Network.Ip || after.CreatedAt != before.CreatedAt {
		t.Errorf("the sandbox is %v, was %v", after, before)
	}
	out, err := n.engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: waiting, Cmd: []string{"/probe", "hostname"}})
	if err != nil || strings.TrimSpace(string(out.GetStdout())) != "living" {
		t.Errorf("exec after the restart: %v, %v", out, err)
	}
	st, err := n.runtime.Wait(t.Context(), serving)
	if err != nil || st.ExitCode != 137 {
		t.Errorf("the container that was killed meanwhile: %+v, %v", st, err)
	}
	if got := n.container(serving); got.ExitCode != 137 || got.FinishedAt == 0 {
		t.Errorf("its status is %v", got)
	}
	if _, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: podConfig("living")}); err == nil {
		t.Error("a name was given twice across a restart")
	}
}

func (n *node) pid(id string) int {
	n.t.Helper()
	st, err := n.runtime.Status(id)
	n.must(err)
	if st.PID == 0 {
		n.t.Fatalf("container %s has no process: %+v", id, st)
	}
	return st.PID
}

// TestHalfMadeThingsGo: what a crash leaves between two steps is gone after the
// next start, or is there to be removed.
func TestHalfMadeThingsGo(t *testing.T) {
	n := newNode(t)
	sandboxID, _ := n.start("living", "wait")
	ghost := &sandbox{ID: newID(), Config: podConfig("ghost"), CreatedAt: 1}
	n.must(n.engine.records.putSandbox(ghost))
	unborn := &ctr{ID: newID(), SandboxID: sandboxID, Config: containerConfig("wait"), CreatedAt: 1}
	unborn.Config.Metadata.Name = "unborn"
	n.must(n.engine.records.putContainer(unborn))
	_, err := n.images.Prepare(newID(), examImage)
	n.must(err)
	_, err = n.images.Prepare("a-build-has-this", examImage)
	n.must(err)
	torn := filepath.Join(n.dir, "engine", "containers", newID()+".json")
	n.must(os.WriteFile(torn, []byte(`{"record":{"ID`), 0o600))
	n.close()
	n.open()

	if st := n.sandbox(ghost.ID); st.State != rt.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("a half made sandbox is %v", st)
	}
	list, err := n.engine.ListContainers(t.Context(), &rt.ListContainersRequest{})
	n.must(err)
	if len(list.Containers) != 1 {
		t.Errorf("%d containers, want only the one that lives: %v", len(list.Containers), list)
	}
	if _, err := os.Stat(torn); !os.IsNotExist(err) {
		t.Errorf("a torn record stays: %v", err)
	}
	keys, err := n.images.Snapshots()
	n.must(err)
	if got := fmt.Sprint(keys); len(keys) != 2 || !strings.Contains(got, "a-build-has-this") {
		t.Errorf("snapshots %v, want the container's and the one that is not the engine's", keys)
	}
	n.must(n.images.Release("a-build-has-this"))
	if _, err := n.engine.RemovePodSandbox(t.Context(), &rt.RemovePodSandboxRequest{PodSandboxId: ghost.ID}); err != nil {
		t.Errorf("the half made sandbox cannot be removed: %v", err)
	}
}

// BenchmarkPod measures the path of a pod through the engine, to a running
// container and back.
func BenchmarkPod(b *testing.B) {
	n := newNode(b)
	ctx := context.Background()
	steps := map[string]time.Duration{}
	step := func(name string, do func() error) {
		began := time.Now()
		n.must(do())
		steps[name] += time.Since(began)
	}
	for i := 0; b.Loop(); i++ {
		pod := podConfig(fmt.Sprint("p", i))
		var s *rt.RunPodSandboxResponse
		var c *rt.CreateContainerResponse
		step("run-sandbox", func() (err error) {
			s, err = n.engine.RunPodSandbox(ctx, &rt.RunPodSandboxRequest{Config: pod})
			return err
		})
		step("create", func() (err error) {
			c, err = n.engine.CreateContainer(ctx, &rt.CreateContainerRequest{PodSandboxId: s.PodSandboxId, Config: containerConfig("wait"), SandboxConfig: pod})
			return err
		})
		step("start", func() (err error) {
			_, err = n.engine.StartContainer(ctx, &rt.StartContainerRequest{ContainerId: c.ContainerId})
			return err
		})
		step("stop-sandbox", func() (err error) {
			_, err = n.engine.StopPodSandbox(ctx, &rt.StopPodSandboxRequest{PodSandboxId: s.PodSandboxId})
			return err
		})
		step("remove-sandbox", func() (err error) {
			_, err = n.engine.RemovePodSandbox(ctx, &rt.RemovePodSandboxRequest{PodSandboxId: s.PodSandboxId})
			return err
		})
	}
	for name, d := range steps {
		b.ReportMetric(float64(d.Microseconds())/1000/float64(b.N), name+"-ms")
	}
}

// TestReboot: when the machine comes back, the pods are there to be looked at
// and removed, and none of them pretends to run.
func TestReboot(t *testing.T) {
	n := newNode(t)
	sandboxID, id := n.start("before", "wait")
	pid := n.pid(id)
	n.close()
	// What a reboot does: processes and pins go, and everything below Run.
	p, err := os.FindProcess(pid)
	n.must(err)
	n.must(p.Kill())
	n.must(os.RemoveAll(filepath.Join(n.dir, "sandboxes")))
	n.open()
	_, err = n.runtime.Wait(t.Context(), id)
	n.must(err)

	if st := n.sandbox(sandboxID); st.State != rt.PodSandboxState_SANDBOX_NOTREADY || st.Network.Ip != "" {
		t.Errorf("the sandbox is %v", st)
	}
	if st := n.container(id); st.State != rt.ContainerState_CONTAINER_EXITED {
		t.Errorf("the container is %v", st)
	}
	again := podConfig("before")
	again.Metadata.Attempt = 1
	s, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: again})
	n.must(err)
	if got := n.sandbox(s.PodSandboxId).Network.Ip; got == "" {
		t.Error("the next attempt has no address")
	}
	for _, id := range []string{sandboxID, s.PodSandboxId} {
		_, err := n.engine.RemovePodSandbox(t.Context(), &rt.RemovePodSandboxRequest{PodSandboxId: id})
		n.must(err)
	}
}
