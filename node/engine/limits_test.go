package engine

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// limitFile is a controller's file of a cgroup in version 1 and in version 2.
type limitFile struct{ controller, v1, v2 string }

// value reads the file of the group that the machine has.
func (f limitFile) value(t *testing.T, group string) string {
	t.Helper()
	for _, path := range []string{filepath.Join("/sys/fs/cgroup", f.controller, group, f.v1), filepath.Join("/sys/fs/cgroup", group, f.v2)} {
		if b, err := os.ReadFile(path); err == nil {
			return strings.TrimSpace(string(b))
		}
	}
	t.Fatalf("cgroup %q has neither %s nor %s", group, f.v1, f.v2)
	return ""
}

var (
	podMemory = limitFile{"memory", "memory.limit_in_bytes", "memory.max"}
	podPids   = limitFile{"pids", "pids.max", "pids.max"}
	podQuota  = limitFile{"cpu", "cpu.cfs_quota_us", "cpu.max"}
	podShares = limitFile{"cpu", "cpu.shares", "cpu.weight"}
)

// limitedPod is a pod with limits of its own, in a cgroup that it names.
func (n *node) limitedPod(name string, limits *rt.LinuxContainerResources) (*rt.PodSandboxConfig, string) {
	pod := podConfig(name)
	pod.Linux.CgroupParent = n.cgroup + "/pods/pod" + name
	pod.Linux.Resources = limits
	return pod, pod.Linux.CgroupParent
}

func (n *node) run(pod *rt.PodSandboxConfig) string {
	n.t.Helper()
	s, err := n.engine.RunPodSandbox(n.t.Context(), &rt.RunPodSandboxRequest{Config: pod})
	n.must(err)
	return s.PodSandboxId
}

// TestPodLimits: a pod's cgroup has the pod's limits, follows their changes, and
// goes with the last of the pod's sandboxes.
func TestPodLimits(t *testing.T) {
	n := newNode(t)
	pod, group := n.limitedPod("limited", &rt.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 50_000, CpuShares: 512,
		MemoryLimitInBytes: 64 << 20, Unified: map[string]string{"pids.max": "60"}})
	id := n.run(pod)
	check := func(f limitFile, v1, v2 string) {
		t.Helper()
		if got := f.value(t, group); got != v1 && got != v2 {
			t.Errorf("%s is %q, want %q or %q", f.v1, got, v1, v2)
		}
	}
	check(podMemory, "67108864", "67108864")
	check(podPids, "60", "60")
	check(podQuota, "50000", "50000 100000")
	check(podShares, "512", "59") // the weight by the kernel's own curve
	_, err := n.engine.UpdatePodSandboxResources(t.Context(), &rt.UpdatePodSandboxResourcesRequest{PodSandboxId: id,
		Resources: &rt.LinuxContainerResources{CpuPeriod: 100_000, CpuQuota: 70_000, MemoryLimitInBytes: 128 << 20}})
	n.must(err)
	check(podMemory, "134217728", "134217728")
	check(podQuota, "70000", "70000 100000")
	check(podPids, "60", "60")

	_, err = n.engine.StopPodSandbox(t.Context(), &rt.StopPodSandboxRequest{PodSandboxId: id})
	n.must(err)
	pod.Metadata.Attempt = 1
	next := n.run(pod)
	n.close()
	n.open()
	_, err = n.engine.RemovePodSandbox(t.Context(), &rt.RemovePodSandboxRequest{PodSandboxId: id})
	n.must(err)
	check(podMemory, "67108864", "67108864")
	_, err = n.engine.RemovePodSandbox(t.Context(), &rt.RemovePodSandboxRequest{PodSandboxId: next})
	n.must(err)
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + group); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// TestPodPidsLimit: the processes of two containers of a pod share one bound.
func TestPodPidsLimit(t *testing.T) {
	n := newNode(t)
	const limit = 80
	pod, group := n.limitedPod("bomb", &rt.LinuxContainerResources{Unified: map[string]string{"pids.max": strconv.Itoa(limit)}})
	id := n.run(pod)
	var containers []string
	for _, name := range []string{"one", "two"} {
		cfg := containerConfig("wait")
		cfg.Metadata.Name = name
		c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: id, Config: cfg, SandboxConfig: pod})
		n.must(err)
		_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
		n.must(err)
		containers = append(containers, c.ContainerId)
	}
	fork := func(container string, most int) int {
		t.Helper()
		out, err := n.engine.ExecSync(t.Context(), &rt.ExecSyncRequest{ContainerId: container, Cmd: []string{"/probe", "fork", strconv.Itoa(most)}})
		n.must(err)
		made, err := strconv.Atoi(strings.TrimSpace(string(out.GetStdout())))
		if err != nil {
			t.Fatalf("fork: %v, %q", err, out)
		}
		return made
	}
	if made := fork(containers[0], 20); made != 20 {
		t.Fatalf("the first container could fork %d of 20", made)
	}
	made := fork(containers[1], 4*limit)
	if made < 5 || made > limit-20 {
		t.Errorf("the second container could fork %d, though the pod's limit is %d and the first has 20", made, limit)
	}
	current, err := strconv.Atoi(limitFile{"pids", "pids.current", "pids.current"}.value(t, group))
	if err != nil || current > limit {
		t.Errorf("%d processes in the pod, %v", current, err)
	}
}

// TestPodMemoryLimit: a container without a limit of its own ends at the pod's.
func TestPodMemoryLimit(t *testing.T) {
	n := newNode(t)
	pod, _ := n.limitedPod("hungry", &rt.LinuxContainerResources{MemoryLimitInBytes: 48 << 20})
	id := n.run(pod)
	c, err := n.engine.CreateContainer(t.Context(), &rt.CreateContainerRequest{PodSandboxId: id, Config: containerConfig("eat", "200"), SandboxConfig: pod})
	n.must(err)
	_, err = n.engine.StartContainer(t.Context(), &rt.StartContainerRequest{ContainerId: c.ContainerId})
	n.must(err)
	_, err = n.runtime.Wait(t.Context(), c.ContainerId)
	n.must(err)
	if st := n.container(c.ContainerId); st.ExitCode != 137 || st.Reason != "OOMKilled" {
		t.Errorf("the container ended with %d, %q", st.ExitCode, st.Reason)
	}
}
