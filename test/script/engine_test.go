package script

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// engineWait bounds what the story of the engine waits for.
const engineWait = 2 * time.Minute

// alone is sampan engine with a directory of its own.
type alone struct {
	t       *testing.T
	program string
	dir     string
}

func (a *alone) flags() []string {
	return []string{"--data-dir", filepath.Join(a.dir, "d"), "--run-dir", filepath.Join(a.dir, "r")}
}

func (a *alone) run(verb string, args ...string) string {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engineWait)
	defer cancel()
	out, err := exec.CommandContext(ctx, a.program, append(append([]string{verb}, args...), a.flags()...)...).CombinedOutput()
	if err != nil {
		a.t.Fatalf("sampan %s: %v\n%s", verb, err, out)
	}
	return string(out)
}

// dial connects to the socket, as a kubelet would.
func (a *alone) dial() *cri.Remote {
	a.t.Helper()
	engine, err := cri.Dial(a.t.Context(), filepath.Join(a.dir, "r", "cri.sock"))
	if err != nil {
		a.t.Fatal(err)
	}
	return engine
}

// kill ends the engine's process so that it can do nothing about it.
func (a *alone) kill() {
	a.t.Helper()
	c := &cluster{data: filepath.Join(a.dir, "d")}
	if err := c.crash(); err != nil {
		a.t.Fatal(err)
	}
}

// process is the first process of a container.
func (a *alone) process(engine *cri.Remote, id string) int {
	a.t.Helper()
	st, err := engine.ContainerStatus(a.t.Context(), &rt.ContainerStatusRequest{ContainerId: id, Verbose: true})
	if err != nil {
		a.t.Fatal(err)
	}
	var info struct{ PID int }
	if err := json.Unmarshal([]byte(st.GetInfo()["info"]), &info); err != nil || info.PID == 0 || st.GetStatus().GetState() != rt.ContainerState_CONTAINER_RUNNING {
		a.t.Fatalf("container does not run: %v %v", st, err)
	}
	return info.PID
}

// TestEngineAlone serves the engine without a cluster: a container of whoever has the
// socket outlives the engine, and sampan down ends it.
func TestEngineAlone(t *testing.T) {
	dir, runtime, rootfs := engineTest(t)
	program, err := filepath.EvalSymlinks(runtime)
	if err != nil {
		t.Fatal(err)
	}
	a := &alone{t: t, dir: dir, program: program}
	t.Cleanup(func() {
		if _, err := os.Stat(filepath.Join(dir, "d")); err == nil {
			a.run("down", "--purge")
		}
	})
	if err := os.WriteFile(filepath.Join(rootfs, "Dockerfile"), []byte(dockerfiles["toolbox"]), 0o644); err != nil {
		t.Fatal(err)
	}
	a.run("build", "-q", "-t", "localhost/toolbox:1", rootfs)
	a.run("engine", "--detach")
	engine := a.dial()
	pod := &rt.PodSandboxConfig{
		Metadata: &rt.PodSandboxMetadata{Name: "p", Namespace: "n", Uid: filepath.Base(dir)}, LogDirectory: filepath.Join(dir, "logs"),
		Linux: &rt.LinuxPodSandboxConfig{SecurityContext: &rt.LinuxSandboxSecurityContext{
			NamespaceOptions: &rt.NamespaceOption{Network: rt.NamespaceMode_NODE, Pid: rt.NamespaceMode_CONTAINER}}},
	}
	sandbox, err := engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	if err != nil {
		t.Fatal(err)
	}
	made, err := engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, SandboxConfig: pod, Config: &rt.ContainerConfig{
		Metadata: &rt.ContainerMetadata{Name: "c"}, Image: &rt.ImageSpec{Image: "localhost/toolbox:1"}, Args: []string{"idle"}, LogPath: "c.log",
		Linux: &rt.LinuxContainerConfig{SecurityContext: &rt.LinuxContainerSecurityContext{NamespaceOptions: pod.Linux.SecurityContext.NamespaceOptions}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: made.ContainerId}); err != nil {
		t.Fatal(err)
	}
	before := a.process(engine, made.ContainerId)
	measured, err := engine.ListPodSandboxMetrics(t.Context(), &rt.ListPodSandboxMetricsRequest{})
	if err != nil || len(measured.GetPodMetrics()) != 1 {
		t.Errorf("metrics over the socket: %v %v", measured, err)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}

	a.kill()
	a.run("engine", "--detach")
	engine = a.dial()
	if after := a.process(engine, made.ContainerId); after != before {
		t.Errorf("process %d, and before the engine's end %d", after, before)
	}
	said, err := engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: made.ContainerId, Cmd: []string{"toolbox", "echo", "here"}})
	if err != nil || strings.TrimSpace(string(said.GetStdout())) != "here" {
		t.Errorf("exec: %v %v", said, err)
	}
	if err := engine.Close(); err != nil {
		t.Error(err)
	}

	a.run("down", "--purge")
	if err := unix.Kill(before, 0); err == nil {
		t.Errorf("process %d lives on", before)
	}
	if _, err := os.Stat(filepath.Join(dir, "d")); !os.IsNotExist(err) {
		t.Errorf("the data directory is still there: %v", err)
	}
}
