package engine

import (
	"os"
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What a kubelet says of every container is no reason for another runtime to refuse it: limits of
// huge pages where the machine has no controller for them, and processors within a pod's own limit.
func TestForeignLimits(t *testing.T) {
	for name := range installed() {
		t.Run(name, func(t *testing.T) {
			if b, err := os.ReadFile("/sys/fs/cgroup/unified/cgroup.controllers"); name == "crun" && err == nil && strings.TrimSpace(string(b)) != "" {
				t.Skip("crun does not run where some cgroup controllers are in the unified hierarchy and some are not")
			}
			n := newNode(t)
			pod, group := n.limitedPod(name, &rt.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 30_000, MemoryLimitInBytes: 256 << 20})
			made, err := n.engine.RunPodSandbox(t.Context(), &rt.RunPodSandboxRequest{Config: pod, RuntimeHandler: name})
			n.must(err)
			start := func(c, program string) (string, error) {
				made, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: made.PodSandboxId, SandboxConfig: pod,
					Config: &rt.ContainerConfig{Metadata: &rt.ContainerMetadata{Name: c}, Image: &rt.ImageSpec{Image: examImage}, LogPath: c + ".log",
						Command: []string{program}, Args: []string{"wait"}, Linux: &rt.LinuxContainerConfig{Resources: &rt.LinuxContainerResources{
							CpuPeriod: 100_000, CpuQuota: 20_000, CpuShares: 204, MemoryLimitInBytes: 128 << 20, Unified: map[string]string{"pids.max": "50"},
							HugepageLimits: []*rt.HugepageLimit{{PageSize: "2MB"}, {PageSize: "1GB"}}}}}})
				n.must(err)
				_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: made.ContainerId})
				return made.ContainerId, err
			}
			id, err := start("c", "/probe")
			n.must(err)
			own := group + "/" + id
			if got := podQuota.value(t, own); got != "20000" && got != "20000 100000" {
				t.Errorf("the quota of processors is %q", got)
			}
			if got := podMemory.value(t, own); got != "134217728" {
				t.Errorf("the limit of memory is %q", got)
			}
			if got := podPids.value(t, own); got != "50" {
				t.Errorf("the limit of processes is %q", got)
			}
			// What a runtime could not create it has taken the cgroup from: its own words are the reason.
			if _, err := start("never", "/nothing"); err == nil || !strings.Contains(err.Error(), "/nothing") {
				t.Errorf("a program that is not there: %v", err)
			}
		})
	}
}
