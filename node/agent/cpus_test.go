package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// sysfs is a machine of two CPUs on one node.
func (s *story) sysfs() {
	s.t.Helper()
	files := map[string]string{
		"devices/system/cpu/online": "0-1", "devices/system/node/online": "0", "devices/system/node/node0/cpulist": "0-1",
		"devices/system/node/node0/meminfo": "Node 0 MemTotal: 1048576 kB\n", "devices/system/node/node0/distance": "10",
		"devices/system/cpu/cpu0/topology/core_id": "0", "devices/system/cpu/cpu1/topology/core_id": "1",
		"devices/system/cpu/cpu0/topology/physical_package_id": "0", "devices/system/cpu/cpu1/topology/physical_package_id": "0",
	}
	for name, text := range files {
		path := filepath.Join(s.dir, "sys", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			s.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			s.t.Fatal(err)
		}
	}
}

// TestStaticCPUs: a guaranteed pod gets its CPU, everybody else what is left, and
// gets it back; a restart of the agent changes nothing.
func TestStaticCPUs(t *testing.T) {
	tell(t, "static_cpus", func(s *story) {
		s.stopAgent()
		s.sysfs()
		s.kubelet.CPUManagerPolicy, s.kubelet.ReservedSystemCPUs, s.kubelet.TopologyManagerPolicy = "static", "0", "single-numa-node"
		s.startAgent()
		cpus := func(name string) {
			r := s.engine.Resources(name, "app")
			s.say("%s: cpus %s quota %d", name, r.GetCpusetCpus(), r.GetCpuQuota())
		}
		s.create(pod("crowd", container("app", "app")))
		s.pass(time.Second)
		cpus("crowd")
		own := pod("own", container("app", "app"))
		all := corev1.ResourceList{corev1.ResourceCPU: quantity("1"), corev1.ResourceMemory: quantity("10Mi")}
		own.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: all, Limits: all}
		s.create(own)
		s.pass(time.Second)
		cpus("own")
		cpus("crowd")
		s.restart()
		s.pass(time.Second)
		cpus("own")
		more := pod("more", container("app", "app"))
		more.Spec.Containers[0].Resources = own.Spec.Containers[0].Resources
		s.create(more)
		s.pass(time.Second)
		s.say("more: %s", s.get("more").Status.Message)
		s.delete("own")
		s.pass(time.Second)
		cpus("crowd")
	})
}
