package node_test

import (
	"archive/tar"
	"bytes"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	rt "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"

	"github.com/sampan-dev/sampan/node/agent"
	"github.com/sampan-dev/sampan/node/agent/settings"
)

// disk mounts a small file system of the test's own.
func disk(t *testing.T, name string, mib int) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root: namespaces, mounts and cgroups")
	}
	dir := filepath.Join(home, "disk-"+name)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%dm,mode=0700", mib)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func totalMemory(t *testing.T) int64 {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	return int64(info.Totalram) * int64(info.Unit)
}

// evicted waits until a pod is, and returns it.
func (n *node) evicted(name string) *corev1.Pod {
	n.Helper()
	var pod *corev1.Pod
	within(n, patience, "pod "+name+" is evicted", func() bool {
		pod = n.get(name)
		over := pod.Status.Phase == corev1.PodFailed || pod.Status.Phase == corev1.PodSucceeded
		return over && pod.Status.Reason == "Evicted"
	})
	return pod
}

// What the pods may use of memory runs short: the one that uses more than it asked
// for goes, the other stays.
func TestEvictionMemory(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, func(n *node) {
		n.apart()
		n.change = func(c *agent.Config) {
			c.Kubelet = &settings.Kubelet{
				SystemReserved: map[string]string{"memory": fmt.Sprint(totalMemory(t) - 240<<20)}, EvictionHard: map[string]string{"memory.available": "100Mi"},
			}
		}
	})
	modest := n.pod("modest", "eat", "10")
	modest.Spec.Containers[0].Resources = resources("100m", "40Mi")
	n.create(modest)
	n.ready("modest")
	n.create(n.pod("greedy", "eat", "150"))
	p := n.evicted("greedy")
	if !strings.Contains(p.Status.Message, "The node was low on resource: memory") {
		t.Errorf("it is told: %q", p.Status.Message)
	}
	if m := n.get("modest"); !isReady(m) || m.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the modest one: %+v", m.Status)
	}
}

// Local storage runs short: after a while below the soft threshold, and at once
// below the hard one.
func TestEvictionDisk(t *testing.T) {
	t.Parallel()
	root := disk(t, "pods", 64)
	n := newNodeWith(t, func(n *node) {
		n.apart()
		n.change = func(c *agent.Config) {
			c.Root = filepath.Join(root, "pods")
			c.Kubelet = &settings.Kubelet{
				EvictionHard: map[string]string{"nodefs.available": "16Mi"}, EvictionSoft: map[string]string{"nodefs.available": "40Mi"},
				EvictionSoftGracePeriod: map[string]string{"nodefs.available": "1s"}, EvictionMaxPodGracePeriod: 2,
				EvictionPressureTransitionPeriod: metav1.Duration{Duration: time.Second},
			}
		}
	})
	filler := func(name string, mib int) *corev1.Pod {
		p := n.pod(name, "fill", "/v/x", fmt.Sprint(mib), "then", "wait")
		p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}}
		p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
		return p
	}
	n.create(n.pod("modest"))
	n.create(filler("fills", 30))
	n.ready("modest")
	p := n.evicted("fills")
	if !strings.Contains(p.Status.Message, "The node was low on resource: ephemeral-storage") {
		t.Errorf("it is told: %q", p.Status.Message)
	}
	if m := n.get("modest"); !isReady(m) {
		t.Errorf("the modest one: %+v", m.Status)
	}
}

// A volume that grows beyond its limit ends its pod, though the node has room.
func TestEvictionLimit(t *testing.T) {
	t.Parallel()
	n := newNodeWith(t, (*node).apart)
	p := n.pod("over", "fill", "/v/x", "6", "then", "wait")
	size := resource.MustParse("4Mi")
	p.Spec.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{SizeLimit: &size}}}}
	p.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/v"}}
	n.create(p)
	if got := n.evicted("over"); !strings.Contains(got.Status.Message, `Usage of EmptyDir volume "v" exceeds the limit "4Mi"`) {
		t.Errorf("it is told: %q", got.Status.Message)
	}
}

// The images' disk runs short: what nobody uses goes, what runs stays, and no pod is
// evicted.
func TestImagesMakeRoom(t *testing.T) {
	t.Parallel()
	const ballast = 24 << 20
	root := disk(t, "images", 128)
	n := newNodeWith(t, func(n *node) {
		n.apart()
		n.imageDir = filepath.Join(root, "images")
		n.change = func(c *agent.Config) {
			// Half of what the ballast takes is left when it comes, and that is only
			// once the other image is in use.
			c.Kubelet = &settings.Kubelet{
				EvictionHard: map[string]string{"imagefs.available": fmt.Sprint(free(n, root) - ballast/2)}, ImageMinimumGCAge: metav1.Duration{Duration: time.Millisecond},
			}
		}
	})
	n.create(n.pod("runs"))
	n.ready("runs")
	body := make([]byte, ballast)
	_, _ = rand.Read(body)
	n.must(n.addImage("test.local/ballast:1", layer(file{Header: tar.Header{Typeflag: tar.TypeReg, Name: "ballast", Mode: 0o644}, body: body})))
	within(t, patience, "the image that nobody uses is removed", func() bool {
		got, err := n.engine.ImageStatus(t.Context(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: "test.local/ballast:1"}})
		return err == nil && got.GetImage() == nil
	})
	got, err := n.engine.ImageStatus(t.Context(), &rt.ImageStatusRequest{Image: &rt.ImageSpec{Image: intruder}})
	if err != nil || got.GetImage() == nil {
		t.Errorf("the image of a pod that runs: %v, %v", got, err)
	}
	if p := n.get("runs"); !isReady(p) || p.Status.ContainerStatuses[0].RestartCount != 0 {
		t.Errorf("the pod: %+v", p.Status)
	}
}

func free(n *node, path string) int64 {
	n.Helper()
	var st unix.Statfs_t
	n.must(unix.Statfs(path, &st))
	return int64(st.Bavail) * st.Bsize
}

// Swap is for those pods that may have it.
func TestSwap(t *testing.T) {
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil || bytes.Count(swaps, []byte("\n")) < 2 {
		t.Skip("the machine has no swap")
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err != nil {
		t.Skip("limits on swap alone need cgroup v2")
	}
	n := newNode(t, func(c *agent.Config) {
		c.Kubelet = &settings.Kubelet{MemorySwap: kubeletv1beta1.MemorySwapConfiguration{SwapBehavior: "LimitedSwap"}}
	})
	p := n.pod("burstable")
	p.Spec.Containers[0].Resources.Requests = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
	n.create(p)
	n.ready("burstable")
	if got := n.cgroupFile("burstable", "", "memory.swap.max"); got == "0" || got == "max" {
		t.Errorf("a burstable pod may swap %s", got)
	}
	n.create(n.pod("besteffort"))
	n.ready("besteffort")
	if got := n.cgroupFile("besteffort", "", "memory.swap.max"); got != "0" {
		t.Errorf("a best-effort pod may swap %s", got)
	}
}
