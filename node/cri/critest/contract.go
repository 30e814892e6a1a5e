package critest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/sampan-dev/sampan/node/cri"
)

// metrics are measured under names that were announced, with a value for each of
// the labels.
func metrics(x *exam) {
	m, ok := x.e.(cri.Metrics)
	if !ok {
		x.Skip("this engine has no metrics")
	}
	known, err := m.ListMetricDescriptors(x.ctx(), &rt.ListMetricDescriptorsRequest{})
	if status.Code(err) == codes.Unimplemented {
		x.Skip("this engine has no metrics: ", err)
	}
	if err != nil {
		x.Fatal(err)
	}
	labels := map[string]int{}
	for _, d := range known.Descriptors {
		if d.Name == "" || d.Help == "" || labels[d.Name] != 0 {
			x.Errorf("descriptor %v is not complete, or there twice", d)
		}
		labels[d.Name] = len(d.LabelKeys)
	}
	p := x.pod()
	id := p.start(p.container("wait"))
	x.says(id, "waiting")
	var pod *rt.PodSandboxMetrics
	for _, one := range must(m.ListPodSandboxMetrics(x.ctx(), &rt.ListPodSandboxMetricsRequest{}))(x).PodMetrics {
		if one.PodSandboxId == p.id {
			pod = one
		}
	}
	if pod == nil || len(pod.ContainerMetrics) != 1 || pod.ContainerMetrics[0].ContainerId != id {
		x.Fatalf("metrics of the pod and its container: %v", pod)
	}
	values := map[string]uint64{}
	for _, one := range slices.Concat(pod.Metrics, pod.ContainerMetrics[0].Metrics) {
		if n, ok := labels[one.Name]; !ok || n != len(one.LabelValues) {
			x.Errorf("metric %v has not the %d labels of its descriptor", one, n)
		}
		values[one.Name] = one.Value.GetValue()
	}
	if values["container_memory_working_set_bytes"] == 0 || values["container_processes"] == 0 {
		x.Errorf("values %v", values)
	}
}

// profiles that a container names must be there: it must not run with less.
func profiles(x *exam) {
	p := x.pod()
	refused := func(what string, change func(*rt.LinuxContainerSecurityContext)) {
		x.Helper()
		c := p.container("wait")
		change(c.Linux.SecurityContext)
		made, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		if err != nil {
			return
		}
		if _, err := x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: made.ContainerId}); err == nil {
			x.Errorf("a container runs with %s", what)
		}
	}
	refused("a seccomp profile that is not there", func(s *rt.LinuxContainerSecurityContext) {
		s.Seccomp = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: filepath.Join(x.TempDir(), "none.json")}
	})
	garbage := filepath.Join(x.TempDir(), "garbage.json")
	if err := os.WriteFile(garbage, []byte("{]"), 0o600); err != nil {
		x.Fatal(err)
	}
	refused("a seccomp profile that cannot be read", func(s *rt.LinuxContainerSecurityContext) {
		s.Seccomp = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: garbage}
	})

	own := filepath.Join(x.TempDir(), "own.json")
	b, err := json.Marshal(map[string]any{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []any{
		map[string]any{"names": []string{"mkdir", "mkdirat"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 1}}})
	if err != nil {
		x.Fatal(err)
	}
	if err := os.WriteFile(own, b, 0o600); err != nil {
		x.Fatal(err)
	}
	c := p.container("status", "Seccomp")
	c.Linux.SecurityContext.Seccomp = &rt.SecurityProfile{ProfileType: rt.SecurityProfile_Localhost, LocalhostRef: own}
	id := p.start(c)
	x.equal("exit code with a profile of one's own", x.ended(id).ExitCode, 0)
}

// again is every call that the contract wants to be idempotent, made again.
func again(x *exam) {
	p := x.pod()
	id := p.start(p.container("wait"))
	for range 2 {
		must(x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id}))(x)
	}
	for range 2 {
		must(x.e.RemoveContainer(x.ctx(), &rt.RemoveContainerRequest{ContainerId: id}))(x)
	}
	_, err := x.e.StopContainer(x.ctx(), &rt.StopContainerRequest{ContainerId: id})
	x.gone(err)
	for range 2 {
		must(x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: p.id}))(x)
	}
	for range 2 {
		must(x.e.RemovePodSandbox(x.ctx(), &rt.RemovePodSandboxRequest{PodSandboxId: p.id}))(x)
	}
	_, err = x.e.StopPodSandbox(x.ctx(), &rt.StopPodSandboxRequest{PodSandboxId: p.id})
	x.gone(err)
	_, err = x.e.PodSandboxStatus(x.ctx(), &rt.PodSandboxStatusRequest{PodSandboxId: p.id})
	x.code("status of a removed sandbox", err, codes.NotFound)
	_, err = x.e.ContainerStatus(x.ctx(), &rt.ContainerStatusRequest{ContainerId: id})
	x.code("status of a removed container", err, codes.NotFound)
}

// hostileWorkdir is CVE-2024-21626: a working directory that is a descriptor of
// the runtime's, through which the host's files would be in reach.
func hostileWorkdir(x *exam) {
	canary := filepath.Join(x.TempDir(), "canary")
	if err := os.WriteFile(canary, []byte("unread"), 0o644); err != nil {
		x.Fatal(err)
	}
	p := x.pod()
	for fd := 3; fd < 10; fd++ {
		c := p.container("write", "../../../../../../../.."+canary, "changed", "then", "wait")
		c.WorkingDir = "/proc/self/fd/" + string(rune('0'+fd))
		made, err := x.e.CreateContainer(x.ctx(), &rt.CreateContainerRequest{PodSandboxId: p.id, Config: c, SandboxConfig: p.config})
		if err != nil {
			continue
		}
		_, err = x.e.StartContainer(x.ctx(), &rt.StartContainerRequest{ContainerId: made.ContainerId})
		if err == nil {
			x.Errorf("a container runs in %s", c.WorkingDir)
		}
	}
	if b, err := os.ReadFile(canary); err != nil || string(b) != "unread" {
		x.Errorf("a file of the host now reads %q, %v", b, err)
	}
}
