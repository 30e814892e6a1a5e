package engine

import (
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
	"github.com/sampan-dev/sampan/node/engine/spec"
)

// A pod may ask for no network, and for limits of its processes; its commands have
// those too. A command that nobody stays with is there when Exec has answered.
func TestAskedByAnnotation(t *testing.T) {
	n := newNode(t)
	pod := podConfig("alone")
	pod.Annotations = map[string]string{cri.NetworkAnnotation: cri.NoNetwork, spec.UlimitsAnnotation: "nofile=123:124", spec.PidsAnnotation: "33"}
	s := n.run(pod)
	st, err := n.engine.PodSandboxStatus(t.Context(), &rt.PodSandboxStatusRequest{PodSandboxId: s})
	n.must(err)
	if ip := st.GetStatus().GetNetwork().GetIp(); ip != "" || st.GetStatus().GetState() != rt.PodSandboxState_SANDBOX_READY {
		t.Errorf("the sandbox is %s, with address %q", st.GetStatus().GetState(), ip)
	}
	c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s, Config: containerConfig("wait"), SandboxConfig: pod})
	n.must(err)
	id := c.ContainerId
	_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: id})
	n.must(err)
	read := func(file string) string {
		t.Helper()
		r, err := n.engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "cat", file}})
		n.must(err)
		return string(r.GetStdout())
	}
	for _, process := range []string{"1", "self"} {
		if limits := strings.Join(strings.Fields(read("/proc/"+process+"/limits")), " "); !strings.Contains(limits, "Max open files 123 124 files") {
			t.Errorf("limits of %s: %s", process, limits)
		}
	}
	if faces := read("/proc/net/dev"); strings.Count(faces, ":") != 1 || !strings.Contains(faces, "lo:") {
		t.Errorf("interfaces: %s", faces)
	}
	if out, code := n.as(id, cri.As{Detach: true}, "wait"); code != 0 || out != "" {
		t.Errorf("a command that is left alone: %q, exit code %d", out, code)
	}
	r, err := n.engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: id, Cmd: []string{"/probe", "processes"}})
	n.must(err)
	if got := strings.TrimSpace(string(r.GetStdout())); got != "3" { // the container's, the one left alone, and who counts
		t.Errorf("processes: %s", got)
	}
	if out, code := n.as(id, cri.As{Detach: true, Cwd: "/none"}, "wait"); code == 0 {
		t.Errorf("in no directory: %q, exit code %d", out, code)
	}
	pod.Annotations[spec.UlimitsAnnotation] = "nice=1"
	pod.Metadata.Uid, pod.Metadata.Name = "other", "other"
	s = n.run(pod)
	if _, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: s, Config: containerConfig("wait"), SandboxConfig: pod}); !cri.IsInvalid(err) {
		t.Errorf("a limit that is not a pod's: %v", err)
	}
}
